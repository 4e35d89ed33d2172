//! Records for people and programs: tables, lines, JSON and CSV. Nothing in them moves a cursor or ends a line.

use super::Format;
use super::csv;
use crate::audit::printable::{escape, escape_lines, json_safe, one_line};
use crate::audit::search::Record;
use crate::audit::{ocsf, origin, when};
use crate::cli::replay::table;
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::io::{self, IsTerminal as _};
use std::path::Path;
use unicode_width::UnicodeWidthStr as _;

/// A long name is wrapped before the statement gets less than this.
const USER_WIDTH: u16 = 36;
const STATEMENT_WIDTH: u16 = 36;
/// Width of a table that does not go to a terminal.
const TABLE_WIDTH: u16 = 160;
/// Of a terminal that does not say (its size is 0).
const TERMINAL_WIDTH: u16 = 80;
/// From this width on the session has a column of its own.
const WIDE_WIDTH: u16 = 180;
/// Of a statement in a table.
const STATEMENT_CHARS_MAX: usize = 200;
/// A record in a narrow terminal goes on below, this far in.
const INDENT: usize = 4;

/// What is printed a record a line.
pub struct Lines {
    pub format: Format,
    /// Of the trail, for the ids of OCSF events.
    pub appliance: Option<String>,
}

impl Lines {
    pub fn of(format: Format, data_dir: &Path) -> Result<Self> {
        let appliance = if format == Format::Ocsf { origin::read(data_dir)? } else { None };
        Ok(Self { format, appliance })
    }
}

pub fn print_lines(out: &mut impl io::Write, records: &[Record], lines: &Lines, header: bool) -> Result<()> {
    let format = lines.format;
    if format == Format::Csv && header {
        writeln!(out, "{}", csv::COLUMNS.join(","))?;
    }
    for record in records {
        match format {
            Format::Csv => writeln!(out, "{}", csv::line(record))?,
            Format::Ocsf => {
                writeln!(out, "{}", json_safe(&ocsf::event(record, lines.appliance.as_deref()).to_string()))?;
            }
            Format::Json | Format::Table => writeln!(out, "{}", json_safe(&serde_json::to_string(record)?))?,
        }
    }
    Ok(())
}

/// Of the terminal, or of a table that goes elsewhere.
pub fn table_width() -> u16 {
    if !io::stdout().is_terminal() {
        return TABLE_WIDTH;
    }
    Table::new().width().filter(|&width| width > 0).unwrap_or(TERMINAL_WIDTH)
}

pub fn plain_table(header: &[&str], width: u16) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    table.set_width(width);
    table
}

pub fn number(number: Option<u64>) -> Cell {
    Cell::new(number.map(|number| number.to_string()).unwrap_or_default()).set_alignment(CellAlignment::Right)
}

pub fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn verdict_color(record: &Record) -> Option<Color> {
    match record.ruling.as_deref().filter(|ruling| *ruling != "approved").or(record.decision.as_deref()) {
        Some("deny" | "rejected") => Some(Color::Red),
        Some("approve" | "alert" | "expired" | "abandoned") => Some(Color::Yellow),
        _ if record.kind == "login" => Some(Color::Red),
        _ => None,
    }
}

/// `alice` or `alice (via copilot@2.1)`.
fn person(record: &Record) -> String {
    let user = escape(&record.user);
    if record.actor.is_empty() { user } else { format!("{user} (via {})", escape(&record.actor.join(" < "))) }
}

/// A statement, or what else happened.
fn what(record: &Record, chars_max: usize) -> String {
    let text = match (&record.statement, &record.detail) {
        (Some(statement), _) => statement.clone(),
        (None, detail) => format!("[{}] {}", record.kind, detail.as_deref().unwrap_or("")),
    };
    one_line(&text, chars_max)
}

fn verdict(record: &Record) -> String {
    // What was asked for and refused is shown as that.
    let ruled = record.ruling.as_ref().filter(|ruling| *ruling != "approved");
    match (ruled.or(record.decision.as_ref()), &record.rule) {
        (Some(decision), Some(rule)) => escape(&format!("{decision} ({rule})")),
        (Some(decision), None) => escape(decision),
        (None, _) => String::new(),
    }
}

fn result(record: &Record) -> String {
    match &record.error {
        Some(error) => escape(error),
        None if record.complete => String::new(),
        // It runs, or the gateway was killed while it did.
        None => "open".to_owned(),
    }
}

fn milliseconds(duration_us: Option<u64>) -> String {
    duration_us.map(|us| format!("{}.{}", us / 1000, us % 1000 / 100)).unwrap_or_default()
}

/// Where a column stands.
const SESSION: usize = 2;
const USER: usize = 3;
const TARGET: usize = 4;
const VERDICT: usize = 5;
const WHAT: usize = 10;

/// Columns in which nothing stands are left out; what is left of the width goes to the statement. Where it would get too little of it,
/// each record is a paragraph instead. `wide`: with the session, whatever the width.
pub fn print_table(out: &mut impl io::Write, records: &[Record], width: u16, wide: bool) -> io::Result<()> {
    let Some(first) = records.first() else { return Ok(()) };
    let coloured = coloured();
    let day = |record: &Record| when::short(record.time_us)[..10].to_owned();
    let one_day = records.iter().all(|record| day(record) == day(first));
    let time_header = if one_day { format!("{} utc", day(first)) } else { "time utc".to_owned() };
    let header = ["id", &time_header, "session", "user", "target", "verdict", "rows", "masked", "ms", "error", "what"];
    let rows: Vec<[String; 11]> = records.iter().map(|record| cells(record, one_day)).collect();
    let hidden = |column: usize| match column {
        SESSION if !wide && width < WIDE_WIDTH => true,
        USER | VERDICT | WHAT => false,
        column => rows.iter().all(|row| row[column].is_empty()),
    };
    if needed(&header, &rows, &hidden) > usize::from(width) {
        return print_paragraphs(out, records, usize::from(width), wide);
    }
    let mut table = plain_table(&header, width);
    for (record, row) in records.iter().zip(&rows) {
        table.add_row(row.iter().enumerate().map(|(column, text)| match (column, verdict_color(record)) {
            (VERDICT, Some(color)) if coloured => Cell::new(text).fg(color),
            (6..=8, _) => Cell::new(text).set_alignment(CellAlignment::Right),
            _ => Cell::new(text),
        }));
    }
    for column in table.column_iter_mut() {
        match column.index {
            index if hidden(index) => drop(column.set_constraint(ColumnConstraint::Hidden)),
            USER => drop(column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(USER_WIDTH)))),
            WHAT => drop(column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(STATEMENT_WIDTH)))),
            TARGET | VERDICT => {}
            _ => drop(column.set_constraint(ColumnConstraint::ContentWidth)),
        }
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cells(record: &Record, one_day: bool) -> [String; 11] {
    let time = when::short(record.time_us);
    let count = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    [
        record.id.clone(),
        if one_day { time[11..].to_owned() } else { time },
        escape(&record.session),
        person(record),
        escape(&record.target),
        verdict(record),
        count(record.rows),
        count(record.masked.filter(|&masked| masked > 0)),
        milliseconds(record.duration_us),
        result(record),
        what(record, STATEMENT_CHARS_MAX),
    ]
}

/// The least width in which such a table is readable: no name is torn, and statements have room.
fn needed(header: &[&str], rows: &[[String; 11]], hidden: &impl Fn(usize) -> bool) -> usize {
    let widest = |column: usize| rows.iter().map(|row| row[column].width()).chain([header[column].len()]).max();
    let least = |column: usize| match column {
        USER => widest(column).unwrap_or(0).min(USER_WIDTH.into()),
        WHAT => STATEMENT_WIDTH.into(),
        column => widest(column).unwrap_or(0),
    };
    (0..header.len()).filter(|&column| !hidden(column)).map(|column| least(column) + 2).sum()
}

/// Each record with its parts one behind another, on as many lines as it takes.
fn print_paragraphs(out: &mut impl io::Write, records: &[Record], width: usize, wide: bool) -> io::Result<()> {
    for record in records {
        let session = Some(escape(&record.session)).filter(|session| wide && !session.is_empty());
        let mut head = vec![record.id.clone(), when::short(record.time_us)];
        head.extend(session.map(|session| format!("session {session}")));
        head.extend([person(record), escape(&record.target), verdict(record)]);
        head.extend(came_of(record));
        head.retain(|part| !part.is_empty());
        let head = folded(head.iter().map(String::as_str), width, 0);
        let text = head + "\n" + &folded([&*what(record, STATEMENT_CHARS_MAX)].into_iter(), width, INDENT);
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// The words of these parts, which stand further apart, on lines of that width: the first one `first` in, the others `INDENT`. A word that
/// fits no line has one of its own.
fn folded<'a>(parts: impl Iterator<Item = &'a str>, width: usize, first: usize) -> String {
    let mut line = " ".repeat(first);
    let (mut lines, mut begun) = (Vec::new(), false);
    for part in parts {
        for (index, word) in part.split(' ').filter(|word| !word.is_empty()).enumerate() {
            let gap = if index == 0 { "  " } else { " " };
            if begun && line.width() + gap.len() + word.width() > width {
                lines.push(std::mem::replace(&mut line, " ".repeat(INDENT)));
            } else if begun {
                line.push_str(gap);
            }
            line.push_str(word);
            begun = true;
        }
    }
    lines.push(line);
    lines.join("\n")
}

/// Counts, times and errors, as far as there are some.
fn came_of(record: &Record) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(record.rows.map(|rows| if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }));
    parts.extend(record.masked.filter(|&masked| masked > 0).map(|masked| format!("{masked} masked")));
    parts.extend(record.duration_us.map(|us| format!("{} ms", milliseconds(Some(us)))));
    parts.extend(Some(result(record)).filter(|result| !result.is_empty()));
    (!parts.is_empty()).then(|| format!("-> {}", parts.join(", ")))
}

/// One line each, as they come: columns cannot be known ahead.
pub fn print_tail(out: &mut impl io::Write, records: &[Record]) -> Result<()> {
    let coloured = coloured();
    for record in records {
        let mut parts = vec![when::short(record.time_us), record.id.clone(), person(record), escape(&record.target)];
        parts.push(match verdict_color(record).filter(|_| coloured) {
            Some(Color::Red) => format!("\u{1b}[31m{}\u{1b}[0m", verdict(record)),
            Some(_) => format!("\u{1b}[33m{}\u{1b}[0m", verdict(record)),
            None => verdict(record),
        });
        parts.push(what(record, 300));
        parts.extend(came_of(record));
        parts.retain(|part| !part.is_empty());
        writeln!(out, "{}", parts.join("  "))?;
    }
    Ok(())
}

pub fn print_record(out: &mut impl io::Write, record: &Record) -> Result<()> {
    let mut line = |name: &str, value: String| -> io::Result<()> {
        if value.is_empty() { Ok(()) } else { writeln!(out, "{name:<12} {value}") }
    };
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| escape(text.as_deref().unwrap_or(""));
    line("id", record.id.clone())?;
    line("time", when::rfc3339(record.time_us))?;
    line("kind", record.kind.to_owned())?;
    line("session", escape(&record.session))?;
    line("user", escape(&record.user))?;
    line("groups", escape(&record.groups.join(", ")))?;
    line("actor", escape(&record.actor.join(" < ")))?;
    line("target", escape(&record.target))?;
    line("client", escape(&record.client))?;
    line("application", escape(&record.application))?;
    line("claimed user", escape(&record.claimed_user))?;
    line("classes", record.classes.join(" "))?;
    line("tables", escape(&record.tables.join(" ")))?;
    line("decision", text(&record.decision))?;
    line("rule", text(&record.rule))?;
    line("ticket", text(&record.ticket))?;
    line("detail", text(&record.detail))?;
    line("cut short", record.cut.join(", "))?;
    line("rows", number(record.rows))?;
    line("bytes", number(record.bytes))?;
    line("duration", record.duration_us.map(|us| format!("{} ms", milliseconds(Some(us)))).unwrap_or_default())?;
    line("masked", number(record.masked))?;
    line("ruling", text(&record.ruling))?;
    // It ran: what was denied or rejected has no duration.
    let done = record.kind == "statement" && record.duration_us.is_some() && record.error.is_none();
    line("result", if done { "ok".into() } else { result(record) })?;
    for (index, bind) in record.binds.iter().enumerate() {
        line(
            &format!("${}", index + 1),
            bind.as_deref().map_or_else(|| "NULL".to_owned(), |bind| format!("'{}'", escape(bind))),
        )?;
    }
    if let Some(statement) = &record.statement {
        writeln!(out, "\n{}", escape_lines(statement))?;
        if let Some(bytes) = record.statement_bytes {
            writeln!(out, "... cut, the whole statement has {bytes} bytes")?;
        }
    }
    if let Some(payload) = &record.payload {
        let mut response = String::new();
        table::response(&mut response, &payload.read(), record.statement.as_deref().unwrap_or(""));
        writeln!(out, "\nresponse\n{}", response.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::search::{Filter, search};
    use crate::audit::{Entry, Journal as _, Outcome, Request, RingOptions, SegmentWriter, Who};

    const HOSTILE: &str = "SELECT '\u{1b}]0;owned\u{7}', '\u{202e}' \r\n -- \u{9b}2J";

    fn records() -> Vec<Record> {
        let dir = tempfile::tempdir().expect("a directory");
        let options =
            RingOptions { data_dir: dir.path().to_owned(), shard: 0, segment_bytes: 64 << 10, segments_per_shard: 2 };
        let (mut writer, _) = SegmentWriter::open(&options, 0).expect("the trail opens");
        let (groups, actor) = (["engineering".to_owned()], ["copilot@2.1".to_owned()]);
        let who = Who {
            session: "s1",
            user: "alice@example.com",
            groups: &groups,
            actor: &actor,
            target: "orders",
            client: "[::1]:50000",
            application: "psql\u{1b}[31m",
            claimed_user: "=cmd()",
            packed: None,
        };
        let (tables, binds) = (["public.customers".to_owned()], [Some("4\u{8}2"), None]);
        let request = Request {
            request: 1,
            statement: HOSTILE.as_bytes(),
            statement_bytes: HOSTILE.len() as u64,
            binds: &binds,
            classes: 1,
            tables: &tables,
            decision: "allow",
            rule: "",
            ticket: "",
        };
        let outcome = Outcome {
            request: 1,
            rows: 3,
            bytes: 99,
            duration_us: 1530,
            error: "",
            masked: 2,
            more: false,
            payload: b"T\0\0\0\x1a\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\0\0\0\0\0\0\0\0D\0\0\0\x0d\0\x01\0\0\0\x034\x1b[",
            payload_cut: false,
        };
        let drop = Request {
            request: 2,
            statement: b"DROP TABLE customers",
            decision: "deny",
            rule: "no-ddl",
            classes: 256,
            statement_bytes: 20,
            binds: &[],
            ..request
        };
        let at = 1_795_142_000_123_456;
        for entry in [Entry::Request(request), Entry::Outcome(outcome), Entry::Request(drop)] {
            writer.append(at, &who, &entry).expect("room");
        }
        writer.write().expect("written");
        search(dir.path(), &Filter::default(), None, true, &mut |damage| panic!("{damage}")).expect("readable")
    }

    fn printed(print: impl Fn(&mut Vec<u8>) -> Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("printable");
        String::from_utf8(out).expect("UTF-8")
    }

    fn table(records: &[Record], width: u16, wide: bool) -> String {
        printed(|out| Ok(print_table(out, records, width, wide)?))
    }

    #[test]
    fn a_narrow_terminal_gets_paragraphs_in_which_no_name_is_torn() {
        let mut records = records();
        for width in [1, 40, 80, 100] {
            let text = table(&records, width, false);
            for part in ["0-1", "alice@example.com", "copilot@2.1)", "orders", "deny", "(no-ddl)", "TABLE"] {
                assert!(text.contains(part), "{part} at {width} in\n{text}");
            }
            let widest = text.lines().map(str::width).max().expect("a line");
            assert!(width == 1 || widest <= usize::from(width), "{widest} at {width} in\n{text}");
        }
        assert!(table(&records, 160, false).starts_with(" ID"), "a table where there is room");
        records.iter_mut().for_each(|record| record.session = "c249b7aa01f2e4d8".into());
        let shows = |width, wide| table(&records, width, wide).contains("c249b7aa01f2e4d8");
        assert_eq!(
            [(80, true), (160, true), (200, false), (160, false)].map(|(w, wide)| shows(w, wide)),
            [true, true, true, false]
        );
    }

    fn lines(format: Format) -> Lines {
        Lines { format, appliance: Some("00ff00ff00ff00ff".into()) }
    }

    #[test]
    fn no_form_of_output_lets_a_control_character_through() {
        let records = records();
        let forms = [
            table(&records, 160, false),
            printed(|out| print_tail(out, &records)),
            printed(|out| print_record(out, &records[0])),
            printed(|out| print_lines(out, &records, &lines(Format::Json), true)),
            printed(|out| print_lines(out, &records, &lines(Format::Csv), true)),
            printed(|out| print_lines(out, &records, &lines(Format::Ocsf), true)),
        ];
        for form in forms {
            let unsafe_char = form.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
            assert_eq!(unsafe_char, None, "{form}");
            assert!(form.contains("owned"), "{form}");
        }
    }

    #[test]
    fn the_table_says_who_did_what_and_what_came_of_it() {
        let table = table(&records(), 160, false);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("USER") && lines[0].contains("VERDICT"), "{table}");
        let text = table.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in
            ["2026-11-20", "alice@example.com", "copilot@2.1", "orders", "deny", "no-ddl", "DROP TABLE customers"]
        {
            assert!(text.contains(part), "{part} in {table}");
        }
    }

    #[test]
    fn json_lines_carry_the_exact_statement_and_csv_one_line_a_record() {
        let records = records();
        let json = printed(|out| print_lines(out, &records, &lines(Format::Json), true));
        let first: serde_json::Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
        assert_eq!((first["statement"].as_str(), first["rows"].as_u64()), (Some(HOSTILE), Some(3)));
        assert_eq!(first["binds"], serde_json::json!(["4\u{8}2", null]));
        assert_eq!(json.lines().count(), 2);
        let csv = printed(|out| print_lines(out, &records, &lines(Format::Csv), true));
        assert_eq!(csv.lines().count(), 3, "{csv}");
        assert!(csv.contains(",'=cmd(),"), "{csv}");
        assert!(csv.contains(r#","[""4\b2"",null]","#), "{csv}");
    }

    #[test]
    fn show_prints_everything_there_is() {
        let shown = printed(|out| print_record(out, &records()[0]));
        for part in [
            "alice@example.com",
            "claimed user =cmd()",
            "$1           '4\\u{8}2'",
            "$2           NULL",
            "1.5 ms",
            "response\n    a\n----------\n 4\\u{1b}[\n(1 row)",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
