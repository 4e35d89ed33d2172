//! Statements that a mask refuses: COPY out of a masked table, storing masked data elsewhere, or reading the samples of it
//! that the server keeps. Which tables have a masked column, their names may tell; where a pattern like `*.ssn` names every
//! table, the catalogue has the last word.

use super::meaning::{Leaning, runs_names};
use super::results::table_meets_mask;
use crate::policy::{Action, Decision, MASK_RULE, View};
use crate::shard::mailbox::Catalogue;
use masking::sql::{Class, Copy, CopyFormat, Statement, Table};

/// Is the statement refused, and does that hang on the catalogue? `known`: what it says; without it the names decide, and
/// [`Leaning::Unasked`] says that it could say otherwise.
pub(super) fn refused(statement: &Statement, view: &View, known: Option<&Catalogue>) -> (Option<Decision>, Leaning) {
    if view.column_masks.is_empty() && view.detect.is_none() {
        return (None, Leaning::No);
    }
    let Some(by_name) = why(statement, view, &|table| view.masks_table(table.schema.as_deref(), &table.name)) else {
        return (None, Leaning::No);
    };
    if let Some(why) = why(statement, view, &|_| false) {
        return (Some(denied(why)), Leaning::No);
    }
    let Some(known) = known else { return (Some(denied(by_name)), Leaning::Unasked) };
    match why(statement, view, &|table| table_meets_mask(table, view, known)) {
        Some(why) => (Some(denied(why)), Leaning::No),
        None => (None, Leaning::Passed),
    }
}

pub(super) const STORED: &str = "masked data may not be stored elsewhere";
const RUNS_LATER: &str = "what runs over a masked table's rows names its functions, operators and types by schema: \
     pg_catalog.lower(x), x OPERATOR(pg_catalog.>) 0, x::pg_catalog.text";

fn why(statement: &Statement, view: &View, masked: &dyn Fn(&Table) -> bool) -> Option<&'static str> {
    let covered = !view.column_masks.is_empty();
    // A schema of another name takes its tables away from masks that name it.
    let unseen = covered && (statement.opaque || runs_names(statement) || !statement.reach.is_nothing());
    let reads_masked = || unseen || statement.tables.iter().any(|table| table.read && masked(table));
    let copies = statement.copy.as_ref().filter(|_| statement.classes.contains(Class::CopyOut));
    let binary = |copy: &Copy| copy.format == CopyFormat::Binary && view.detect.is_some();
    if copies.is_some() && (unseen || statement.tables.iter().any(masked)) {
        Some("COPY of what may hold masked columns cannot be masked: use SELECT")
    } else if copies.is_some_and(binary) {
        Some("COPY in binary format cannot be masked: use FORMAT text or csv")
    } else if copies.is_some_and(|copy| copy.breaks_values && view.detect.is_some()) {
        Some("COPY with such a DELIMITER, QUOTE or ESCAPE cannot be masked: leave it out, or take one of , ; | : ~ ^ #")
    } else if (statement.stores || writes_from_variables(statement)) && reads_masked() {
        Some(STORED)
    } else if statement.runs_later && reads_masked() {
        Some(RUNS_LATER)
    } else if covered && statement.renames.iter().any(|column| view.masks_column_named(column)) {
        Some("a masked column, or one of that name, keeps its name: tables that inherit it would take the other one")
    } else if covered && statement.keeps {
        Some("what keeps or reads what it is called with may not be made under column masks")
    } else if covered && statement.tables.iter().any(holds_samples) {
        Some("the planner's statistics hold samples of masked columns")
    } else if covered && statement.tables.iter().any(names_things) {
        Some("the catalogue says which columns are masked: change it by ALTER")
    } else {
        None
    }
}

/// A DO block that changes something, or names or moves a cursor: between what it reads and what it writes there are variables, which no
/// text tells apart from constants.
pub(super) fn writes_from_variables(statement: &Statement) -> bool {
    const WRITES: [Class; 6] = [Class::Insert, Class::Update, Class::Merge, Class::Create, Class::Set, Class::CopyIn];
    let writes = statement.cursors_tell || WRITES.iter().any(|class| statement.classes.contains(*class));
    statement.classes.contains(Class::Do) && writes
}

/// Catalogues in which ANALYZE keeps values of the tables it read.
fn holds_samples(table: &Table) -> bool {
    const SAMPLES: [&str; 5] =
        ["pg_stats", "pg_statistic", "pg_stats_ext", "pg_stats_ext_exprs", "pg_statistic_ext_data"];
    table.schema.as_deref().is_none_or(|schema| schema == "pg_catalog") && SAMPLES.contains(&table.name.as_str())
}

/// Writes a catalogue of names, as only a superuser can. (pg_settings is written by a SET.)
fn names_things(table: &Table) -> bool {
    let in_catalogue = table.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
    table.written && in_catalogue && table.name.starts_with("pg_") && table.name != "pg_settings"
}

pub(super) fn denied(why: &str) -> Decision {
    Decision {
        action: Action::Deny,
        rule: Some(MASK_RULE.into()),
        message: Some(why.into()),
        approval: None,
        reason: why.to_string(),
    }
}
