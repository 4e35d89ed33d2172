//! A recorded response as psql prints one: aligned tables, tags, errors, notices. What comes out is safe for a terminal.

use crate::audit::printable::{escape, escape_lines};
use crate::audit::response::{Column, End, Outcome, Report, Response};
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

/// Columns that psql aligns to the right: numbers. OIDs: pg_type.dat.
const NUMBERS: [u32; 10] = [20, 21, 23, 26, 28, 29, 700, 701, 790, 1700];
/// Tags of statements that change rows, also where they return some.
const CHANGES: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "MERGE"];
/// The part of a line that an error points into, as wide as psql shows it.
const POINTED_CHARS_MAX: usize = 60;
/// Of a column. Beyond: a wider value stands out, and others are not padded to its width.
const PADDED_CHARS_MAX: usize = 200;
/// An aligned table of this size is always printed; a larger one only if it is not so many times what was recorded. Beyond: unaligned.
const ALIGNED_BYTES_FREE: usize = 256 << 10;
const ALIGNED_GROWTH_MAX: usize = 8;

/// The whole response, each line ended. `statement`: what an error's position counts in.
pub fn response(out: &mut String, response: &Response, statement: &str) {
    for result in &response.results {
        self::result(out, result, statement);
    }
    if response.cut {
        out.push_str("(the recorded response ends here: the rest was longer than payload_kib)\n");
    }
    if response.broken {
        out.push_str("(a part of the recorded response could not be read)\n");
    }
}

fn result(out: &mut String, result: &Outcome, statement: &str) {
    for notice in &result.notices {
        report(out, notice, statement);
    }
    if let Some(copy) = &result.copy {
        out.push_str(&escape_lines(copy));
        if !copy.is_empty() && !copy.ends_with('\n') {
            out.push('\n');
        }
    }
    let shown = result.columns.is_some() || !result.rows.is_empty();
    if shown {
        rows(out, result.columns.as_deref(), &result.rows);
    }
    match &result.end {
        // psql is silent about the tags of rows and data it has just shown, but for those that changed something.
        Some(End::Tag(tag))
            if (shown || result.copy.is_some()) && !CHANGES.iter().any(|word| tag.starts_with(word)) => {}
        Some(End::Tag(tag)) => line(out, &escape(tag)),
        Some(End::Error(error)) => report(out, error, statement),
        Some(End::Suspended) => line(out, "(row limit reached)"),
        Some(End::Function(value)) => line(out, &escape(value.as_deref().unwrap_or("NULL"))),
        Some(End::Empty) | None => {}
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn report(out: &mut String, report: &Report, statement: &str) {
    let Report { severity, message, detail, hint, context, position, .. } = report;
    line(out, &format!("{}:  {}", escape(severity), escape_lines(message)));
    if let Some(position) = position {
        point(out, statement, *position);
    }
    for (name, text) in [("DETAIL", detail), ("HINT", hint)] {
        if let Some(text) = text {
            line(out, &format!("{name}:  {}", escape_lines(text)));
        }
    }
    if let Some(context) = context.as_ref().filter(|_| severity != "NOTICE") {
        line(out, &format!("CONTEXT:  {}", escape_lines(context)));
    }
}

/// The line of the statement that is meant, and a caret below the place.
fn point(out: &mut String, statement: &str, position: usize) {
    let Some(before) = position.checked_sub(1).and_then(|count| statement.char_indices().nth(count)) else { return };
    let start = statement[..before.0].rfind('\n').map_or(0, |at| at + 1);
    let number = statement[..start].matches('\n').count() + 1;
    let whole = statement[start..].lines().next().unwrap_or("");
    if whole.chars().count() > POINTED_CHARS_MAX {
        return;
    }
    let head = format!("LINE {number}: ");
    line(out, &format!("{head}{}", escape_lines(whole)));
    let indent = head.width() + escape_lines(&statement[start..before.0]).width();
    line(out, &format!("{}^", " ".repeat(indent)));
}

/// A value on its lines.
type Lines = Vec<String>;

fn lines(value: Option<&str>) -> Lines {
    escape_lines(value.unwrap_or("")).split('\n').map(str::to_owned).collect()
}

fn widest(lines: &Lines) -> usize {
    lines.iter().map(|line| line.width()).max().unwrap_or(0)
}

/// psql's aligned format with border 1, or its unaligned one where alignment would print far more than was recorded.
fn rows(out: &mut String, columns: Option<&[Column]>, rows: &[Vec<Option<String>>]) {
    let count = rows.iter().map(Vec::len).chain(columns.map(<[_]>::len)).max().unwrap_or(0);
    let head = |index: usize| columns.and_then(|columns| columns.get(index)).map_or("?column?", |column| &*column.name);
    let heads: Vec<&str> = (0..count).map(head).collect();
    let table = Table {
        heads: heads.iter().map(|head| lines(Some(head))).collect(),
        rows: rows.iter().map(|row| row.iter().map(|value| lines(value.as_deref())).collect()).collect(),
    };
    let widths = table.widths();
    if table.fits(&widths) {
        let number =
            |index: usize| columns.and_then(|all| all.get(index)).is_some_and(|c| NUMBERS.contains(&c.type_oid));
        table.aligned(out, &widths, number);
    } else {
        unaligned(out, heads.iter().copied());
        rows.iter().for_each(|row| unaligned(out, row.iter().map(|value| value.as_deref().unwrap_or(""))));
    }
    let _ = writeln!(out, "({} row{})\n", rows.len(), if rows.len() == 1 { "" } else { "s" });
}

/// One row on one line, as it is.
fn unaligned<'a>(out: &mut String, values: impl Iterator<Item = &'a str>) {
    line(out, &values.map(escape).collect::<Vec<_>>().join(" | "));
}

struct Table {
    heads: Vec<Lines>,
    /// A row that has fewer values than there are heads ends early.
    rows: Vec<Vec<Lines>>,
}

impl Table {
    /// Of the columns. What is wider than the widest of them stands out of its own.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(widest).collect();
        for row in &self.rows {
            for (width, lines) in widths.iter_mut().zip(row) {
                *width = widest(lines).max(*width);
            }
        }
        widths.into_iter().map(|width| width.min(PADDED_CHARS_MAX)).collect()
    }

    /// What is printed stays in proportion to what was recorded: each line of a row takes the widths of all columns, and a value may
    /// have as many lines as it has bytes.
    fn fits(&self, widths: &[usize]) -> bool {
        let across: usize = widths.iter().map(|width| width + 3).sum();
        let all = || self.rows.iter().chain([&self.heads]);
        let heights: usize = all().map(|row| height(row)).sum();
        let recorded: usize = all().flatten().flatten().map(String::len).sum();
        across.saturating_mul(heights) <= ALIGNED_BYTES_FREE.max(ALIGNED_GROWTH_MAX * recorded)
    }

    fn aligned(&self, out: &mut String, widths: &[usize], number: impl Fn(usize) -> bool) {
        if widths.is_empty() {
            line(out, "--");
        } else {
            row(out, &self.heads, widths, |_, spaces| (spaces / 2, spaces - spaces / 2));
            line(out, &widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"));
        }
        for cells in &self.rows {
            row(out, cells, widths, |index, spaces| if number(index) { (spaces, 0) } else { (0, spaces) });
        }
    }
}

fn height(cells: &[Lines]) -> usize {
    cells.iter().map(Vec::len).max().unwrap_or(1)
}

/// One row on as many lines as its longest value; a `+` says that a value goes on below.
fn row(out: &mut String, cells: &[Lines], widths: &[usize], pad: impl Fn(usize, usize) -> (usize, usize)) {
    // A width that comes with a format must not exceed 65,535, and values do.
    let spaces = |count: usize| " ".repeat(count);
    for at in 0..height(cells) {
        let mut text = String::new();
        for (index, &width) in widths.iter().enumerate() {
            let lines = cells.get(index).map_or(&[][..], Vec::as_slice);
            let part = lines.get(at).map_or("", String::as_str);
            let (before, after) = pad(index, width.saturating_sub(part.width()));
            text.push_str(if index > 0 { "| " } else { " " });
            text.extend([&*spaces(before), part, &*spaces(after)]);
            text.push(if at + 1 < lines.len() { '+' } else { ' ' });
        }
        line(out, text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(result: Outcome, statement: &str) -> String {
        let mut out = String::new();
        response(&mut out, &Response { results: vec![result], ..Response::default() }, statement);
        out
    }

    fn column(name: &str, type_oid: u32) -> Column {
        Column { name: name.into(), type_oid, binary: false }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_table_is_aligned_as_psql_aligns_it() {
        let result = Outcome {
            columns: Some(vec![column("id", 23), column("name", 25), column("?column?", 25)]),
            rows: vec![vec![some("1"), some("Ada Krol"), None], vec![some("100"), some("漢\nb"), some("x")]],
            end: Some(End::Tag("SELECT 2".into())),
            ..Outcome::default()
        };
        let expected = " id  |   name   | ?column?\n\
                        -----+----------+----------\n   \
                        1 | Ada Krol |\n \
                        100 | 漢      +| x\n     \
                            | b        |\n\
                        (2 rows)\n\n";
        assert_eq!(shown(result, ""), expected);
    }

    #[test]
    fn a_value_of_any_width_is_shown_and_others_are_not_padded_to_it() {
        let wide = "x".repeat(70_000);
        let result = Outcome {
            columns: Some(vec![column("note", 25), column("id", 23)]),
            rows: vec![vec![some(&wide), some("1")], vec![some("short"), some("2")]],
            ..Outcome::default()
        };
        let text = shown(result, "");
        assert!(text.contains(&format!("\n {wide} |  1\n short")), "{}", text.len());
        assert!(text.len() < 71_000, "{}", text.len());
    }

    #[test]
    fn little_that_was_recorded_never_makes_much() {
        let feeds = "\n".repeat(20_000);
        let columns = |count: usize| Some((0..count).map(|_| column("c", 25)).collect::<Vec<_>>());
        let none = |count: usize| vec![None; count];
        let tall = Outcome {
            columns: columns(1500),
            rows: vec![[some(&feeds)].into_iter().chain(none(1499)).collect()],
            ..Outcome::default()
        };
        let many = Outcome { columns: columns(1500), rows: vec![Vec::new(); 5000], ..Outcome::default() };
        let one = Outcome {
            columns: columns(1),
            rows: (0..9000).map(|at| vec![some(if at == 0 { &feeds } else { "1" })]).collect(),
            ..Outcome::default()
        };
        for result in [tall, many, one] {
            let text = shown(result, "");
            assert!(text.len() < 1 << 20, "{}", text.len());
        }
    }

    #[test]
    fn tags_errors_and_notices_read_as_in_psql() {
        let error = Report {
            severity: "ERROR".into(),
            message: "column \"nmae\" does not exist".into(),
            hint: some("Perhaps you meant \"name\"."),
            position: Some(8),
            ..Report::default()
        };
        let text = shown(Outcome { end: Some(End::Error(error)), ..Outcome::default() }, "SELECT nmae FROM t");
        assert_eq!(
            text,
            "ERROR:  column \"nmae\" does not exist\nLINE 1: SELECT nmae FROM t\n               ^\nHINT:  Perhaps you meant \"name\".\n"
        );
        assert_eq!(
            shown(Outcome { end: Some(End::Tag("INSERT 0 1".into())), ..Outcome::default() }, ""),
            "INSERT 0 1\n"
        );
        let none = Outcome {
            columns: Some(vec![column("a", 25)]),
            end: Some(End::Tag("SELECT 0".into())),
            ..Outcome::default()
        };
        assert_eq!(shown(none, ""), " a\n---\n(0 rows)\n\n");
        let returning = Outcome {
            columns: Some(vec![column("a", 25)]),
            rows: vec![vec![some("1")]],
            end: Some(End::Tag("UPDATE 1".into())),
            ..Outcome::default()
        };
        assert_eq!(shown(returning, ""), " a\n---\n 1\n(1 row)\n\nUPDATE 1\n");
    }

    #[test]
    fn nothing_in_a_response_reaches_the_terminal_raw() {
        let hostile = "\u{1b}]0;owned\u{7}\u{202e}\r";
        let report =
            Report { severity: hostile.into(), message: hostile.into(), context: some(hostile), ..Report::default() };
        let result = Outcome {
            notices: vec![report.clone()],
            columns: Some(vec![column(hostile, 25)]),
            rows: vec![vec![some(hostile)]],
            copy: some(hostile),
            end: Some(End::Error(Report { detail: some(hostile), hint: some(hostile), position: Some(1), ..report })),
        };
        let text = shown(result, hostile);
        let found = text.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(found, None, "{text}");
    }
}
