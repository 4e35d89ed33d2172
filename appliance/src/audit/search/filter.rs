//! What is looked for.

use super::record::{Record, class_names};
use crate::audit::record::{Kind, RequestRow, View};
use crate::config::Glob;

/// How a ruling can go.
pub const RULINGS: [&str; 4] = ["approved", "rejected", "expired", "abandoned"];

/// What is looked for: all that is given must hold, any of several values of one.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub users: Vec<Glob>,
    pub targets: Vec<Glob>,
    /// `table`, or `schema.table`.
    pub tables: Vec<Glob>,
    pub classes: Vec<Glob>,
    /// A verdict, or how a ruling went: a statement is met by both of its own.
    pub decisions: Vec<Glob>,
    pub rules: Vec<Glob>,
    pub tickets: Vec<Glob>,
    /// SQLSTATE, `skipped` or `disconnected`.
    pub errors: Vec<Glob>,
    /// Whoever acted, of a chain of them.
    pub actors: Vec<Glob>,
    pub sessions: Vec<Glob>,
    pub kinds: Vec<Glob>,
    /// Unix microseconds, both ends included.
    pub since_us: Option<i64>,
    pub until_us: Option<i64>,
    /// In the statement, its bind values or the detail; upper and lower case are the same.
    pub contains: Option<String>,
}

impl Filter {
    /// Does the time that is asked for touch this one? Unix microseconds, both ends included.
    pub fn overlaps(&self, since_us: i64, until_us: i64) -> bool {
        self.since_us.is_none_or(|since| until_us >= since) && self.until_us.is_none_or(|until| since_us <= until)
    }

    /// Classes as bits; judged before anything is copied.
    pub(super) fn admits(&self, view: &View<'_>) -> bool {
        let (time_us, who) = (view.time_us(), view.who());
        if self.since_us.is_some_and(|since| time_us < since) || self.until_us.is_some_and(|until| time_us > until) {
            return false;
        }
        any(&self.users, who.user())
            && any(&self.targets, who.target())
            && any(&self.sessions, who.session())
            && any_of(&self.actors, who.actor())
            && match view {
                View::Request(row) => self.admits_statement(row),
                View::Outcome(_) => false,
                View::Event(kind, row) => {
                    let decision = if *kind == Kind::Ruling { row.what() } else { "" };
                    self.tables.is_empty()
                        && self.classes.is_empty()
                        && self.rules.is_empty()
                        && any_given(&self.tickets, row.ticket())
                        && any_given(&self.decisions, decision)
                }
            }
    }

    fn admits_statement(&self, row: &RequestRow<'_>) -> bool {
        let class = |name: &&str| any(&self.classes, name);
        self.may_be_decided(row.decision())
            && any_given(&self.rules, row.rule())
            && any_given(&self.tickets, row.ticket())
            && (self.classes.is_empty() || class_names(row.classes()).iter().any(class))
            && (self.tables.is_empty() || row.tables().any(|table| self.tables.iter().any(|glob| names(glob, table))))
    }

    /// May a statement with this verdict be asked for, whatever comes of it? How it is ruled stands in a record behind it.
    pub(in crate::audit) fn may_be_decided(&self, decision: &str) -> bool {
        any(&self.decisions, decision) || (decision == "approve" && self.asks_for_rulings())
    }

    pub(in crate::audit) fn asks_for_rulings(&self) -> bool {
        self.decisions.iter().any(|glob| RULINGS.iter().any(|ruling| glob.matches(ruling)))
    }

    /// Whether a statement matches shows only when it is over.
    pub(super) fn waits_for_ends(&self) -> bool {
        self.asks_for_rulings() || !self.errors.is_empty()
    }

    /// Judged on a record and what has been joined to it so far.
    pub(super) fn admits_joined(&self, record: &Record) -> bool {
        any_given(&self.errors, record.error.as_deref().unwrap_or(""))
            && (any_given(&self.decisions, record.decision.as_deref().unwrap_or(""))
                || record.ruling.as_ref().is_some_and(|ruling| any(&self.decisions, ruling)))
    }

    /// The rest, judged on what the record will show.
    pub(super) fn admits_record(&self, record: &Record) -> bool {
        let contains = |text: &str| self.contains.as_ref().is_none_or(|wanted| contains_ignoring_case(text, wanted));
        any(&self.kinds, record.kind)
            && (contains(record.statement.as_deref().unwrap_or(""))
                || contains(record.detail.as_deref().unwrap_or(""))
                || record.binds.iter().flatten().any(|bind| contains(bind)))
    }
}

pub(in crate::audit) fn any(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

/// The same of something that a record may not have: what is absent (an empty text) matches no glob, `*` neither.
pub(in crate::audit) fn any_given(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || !text.is_empty() && any(globs, text)
}

/// `customers` names that table in any schema. `public.customers` names that one, and a bare `customers`, which the
/// search_path leads to `public` unless somebody changed it: an auditor would rather see one record too many.
pub(in crate::audit) fn names(glob: &Glob, table: &str) -> bool {
    let may_be_public = || !table.contains('.') && glob.as_str().contains('.');
    glob.matches(table)
        || (may_be_public() && glob.matches(&format!("public.{table}")))
        || (!glob.as_str().contains('.') && table.match_indices('.').any(|(dot, _)| glob.matches(&table[dot + 1..])))
}

fn any_of<'a>(globs: &[Glob], mut texts: impl Iterator<Item = &'a str>) -> bool {
    globs.is_empty() || texts.any(|text| any(globs, text))
}

/// Upper and lower case are the same, by Unicode where what is wanted is more than ASCII.
pub(in crate::audit) fn contains_ignoring_case(text: &str, wanted: &str) -> bool {
    if wanted.is_ascii() {
        return contains_ascii(text.as_bytes(), wanted.as_bytes());
    }
    let wanted = wanted.to_lowercase();
    // Most texts are ASCII, and are not copied for this.
    if text.is_ascii() {
        contains_ascii(text.as_bytes(), wanted.as_bytes())
    } else {
        text.to_lowercase().contains(&wanted)
    }
}

fn contains_ascii(text: &[u8], wanted: &[u8]) -> bool {
    let Some(&first) = wanted.first() else { return true };
    let last = match text.len().checked_sub(wanted.len()) {
        Some(last) => last,
        None => return false,
    };
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), &text[..=last])
        .any(|at| text[at..at + wanted.len()].eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_table_may_be_one_of_public_and_is_found_as_such() {
        for (glob, table, found) in [
            ("public.*", "orders", true),
            ("public.ord*", "orders", true),
            ("public.ord?rs", "orders", true),
            ("*.orders", "orders", true),
            ("p*.orders", "orders", true),
            ("public.orders", "orders", true),
            ("public.cust*", "orders", false),
            ("billing.*", "orders", false),
            ("public.*", "billing.orders", false),
            ("ord*", "billing.orders", true),
            ("public*", "orders", false),
        ] {
            assert_eq!(names(&Glob::new(glob).expect("a glob"), table), found, "{glob} {table}");
        }
    }

    #[test]
    fn a_text_is_found_in_any_case_also_beyond_ascii() {
        for (text, wanted, found) in [
            ("SELECT 'Späße'", "SPÄ", true),
            ("ПЛАТЕЖИ", "платежи", true),
            ("select 1", "SELECT", true),
            ("select 1", "sélect", false),
            ("spasse", "spä", false),
            ("x", "", true),
        ] {
            assert_eq!(contains_ignoring_case(text, wanted), found, "{wanted} in {text}");
        }
    }
}
