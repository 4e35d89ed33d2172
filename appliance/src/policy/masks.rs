//! Which masks of a configuration meet one principal on one target.
//!
//! Columns: the first mask in file order that names a column decides its style. Content: the detectors of all masks
//! together, in the strictest of their styles (null, fill, token, last4 in that order).

use super::{ColumnMask, View};
use crate::config::{ColumnPattern, Mask};
use masking::detect::{Detectors, Kind};
use masking::style::Style;

/// Where the server shows statements, those of others among them, which all run as the target's one user: with the values in them. Masked
/// for whomever any column is. (Without a schema: a mask with one has statements described again that name tables without.)
const STATEMENTS: [&str; 2] = ["pg_stat_activity.query", "pg_stat_statements.query"];

pub fn compiled(masks: &[&Mask]) -> Vec<(ColumnPattern, Style)> {
    let written = masks.iter().flat_map(|mask| mask.columns.iter().map(|column| (column.clone(), mask.style)));
    let mut columns: Vec<_> = written.collect();
    if !columns.is_empty() {
        let shown = STATEMENTS.iter().map(|name| ColumnPattern::new(name).expect("a pattern"));
        columns.extend(shown.map(|column| (column, Style::Fill)));
    }
    columns
}

pub fn by_name(masks: &[&Mask]) -> Vec<ColumnMask> {
    let split = |(pattern, style): (ColumnPattern, Style)| ColumnMask {
        schema: pattern.schema.map(|schema| schema.as_str().to_owned()),
        table: pattern.table.as_str().to_owned(),
        column: pattern.column.as_str().to_owned(),
        style,
    };
    compiled(masks).into_iter().map(split).collect()
}

pub fn by_content(masks: &[&Mask]) -> Option<(Detectors, Style)> {
    let looking = || masks.iter().filter(|mask| !mask.detect.is_empty());
    let style = looking().map(|mask| mask.style).max_by_key(|&style| strictness(style))?;
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| looking().any(|mask| mask.detect.contains(kind))).collect();
    Some((Detectors::new(&kinds), style))
}

/// How little of a value is left: nothing, its length, whether two are the same, its end.
fn strictness(style: Style) -> u8 {
    match style {
        Style::Null => 3,
        Style::Fill => 2,
        Style::Token => 1,
        Style::Last4 => 0,
    }
}

impl View {
    /// The style for a column of a known table, if any mask names it.
    pub fn column_style(&self, schema: &str, table: &str, column: &str) -> Option<Style> {
        let named = |pattern: &ColumnPattern| pattern.column.matches(column) && concerns(pattern, Some(schema), table);
        self.columns.iter().find(|(pattern, _)| named(pattern)).map(|&(_, style)| style)
    }

    /// Could any column mask concern this table as a statement names it (schema unknown: any)?
    pub fn masks_table(&self, schema: Option<&str>, table: &str) -> bool {
        self.columns.iter().any(|(pattern, _)| concerns(pattern, schema, table))
    }

    /// Does any mask name columns that are called so, of whatever table?
    pub fn masks_column_named(&self, column: &str) -> bool {
        self.columns.iter().any(|(pattern, _)| pattern.column.matches(column))
    }

    /// The column masks that could concern this table as a statement names it.
    pub fn masks_of_table<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
    ) -> impl Iterator<Item = &'a ColumnMask> {
        let both = self.columns.iter().zip(&self.column_masks);
        both.filter(move |((pattern, _), _)| concerns(pattern, schema, table)).map(|(_, mask)| mask)
    }
}

fn concerns(pattern: &ColumnPattern, schema: Option<&str>, table: &str) -> bool {
    let in_schema = match (&pattern.schema, schema) {
        (Some(wanted), Some(schema)) => wanted.matches(schema),
        (None, _) | (_, None) => true,
    };
    in_schema && pattern.table.matches(table)
}

impl std::fmt::Display for ColumnMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}.{}", self.table, self.column)
    }
}
