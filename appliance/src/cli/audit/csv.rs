//! Records as CSV: one line each, for spreadsheets and for programs that have nothing better.

use crate::audit::printable::{csv_exact, csv_field, csv_json};
use crate::audit::search::Record;
use crate::audit::when;

/// Later versions add columns at the end.
pub const COLUMNS: [&str; 27] = [
    "id",
    "time",
    "kind",
    "session",
    "user",
    "groups",
    "actor",
    "target",
    "client",
    "application",
    "statement",
    "binds",
    "classes",
    "tables",
    "decision",
    "rule",
    "ticket",
    "rows",
    "bytes",
    "duration_us",
    "error",
    "masked",
    "claimed_user",
    "detail",
    "ruling",
    "cut",
    "statement_bytes",
];

/// Lists are JSON arrays: their items may hold whatever separates. In texts control characters are visible escapes, so that a record is
/// always one line, and a backslash is two, so that what was written as an escape stays apart from what is one. An apostrophe in front of `=`, `+`, `-`, `@` or `'`
/// is ours.
pub fn line(record: &Record) -> String {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| csv_exact(text.as_deref().unwrap_or(""));
    let fields = [
        csv_field(&record.id),
        csv_field(&when::rfc3339(record.time_us)),
        csv_field(record.kind),
        csv_exact(&record.session),
        csv_exact(&record.user),
        list(&record.groups),
        list(&record.actor),
        csv_exact(&record.target),
        csv_exact(&record.client),
        csv_exact(&record.application),
        text(&record.statement),
        list(&record.binds),
        list(&record.classes),
        list(&record.tables),
        text(&record.decision),
        text(&record.rule),
        text(&record.ticket),
        number(record.rows),
        number(record.bytes),
        number(record.duration_us),
        text(&record.error),
        number(record.masked),
        csv_exact(&record.claimed_user),
        text(&record.detail),
        text(&record.ruling),
        list(&record.cut),
        number(record.statement_bytes),
    ];
    fields.join(",")
}

/// Empty where there is nothing in it.
fn list<T: serde::Serialize>(items: &[T]) -> String {
    if items.is_empty() { String::new() } else { csv_json(&serde_json::to_string(items).unwrap_or_default()) }
}
