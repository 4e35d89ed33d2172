//! The target's own account of what it ran: PostgreSQL's csvlog, read as CSV.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::process::eventually;

/// The fields of one logged line the suites ask about (manual, section 20.8.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub user: String,
    pub database: String,
    pub session: String,
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub application: String,
}

impl Line {
    /// The statement this line logs, if it logs one: `statement: ...`, `execute NAME: ...`, or a FunctionCall as the trail names it.
    pub fn statement(&self) -> Option<&str> {
        if self.message.starts_with(FUNCTION_CALL) {
            return Some(&self.message);
        }
        if let Some(text) = self.message.strip_prefix("statement: ") {
            return Some(text);
        }
        let rest = self.message.strip_prefix("execute ")?;
        rest.split_once(": ").map(|(_, text)| text)
    }
}

/// Reads the log once everything before this call is in it: a marker statement is run and waited for, and the collector
/// writes in the order it was told.
pub fn settled(log: &Path, run_marker: impl Fn(&str) -> Result<()>) -> Result<Vec<Line>> {
    static MARKERS: AtomicU32 = AtomicU32::new(0);
    let marker = format!("log-marker-{}-{}", std::process::id(), MARKERS.fetch_add(1, Ordering::Relaxed));
    run_marker(&marker)?;
    let mut text = String::new();
    eventually("the target's log catches up", Duration::from_secs(30), || {
        text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        text.contains(&marker)
    })?;
    Ok(parse(&text))
}

/// Lines of a csvlog; a last one still being written is left out.
pub fn parse(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for record in records(text) {
        if record.len() < 14 {
            continue;
        }
        let field = |index: usize| record[index].clone();
        lines.push(Line {
            user: field(1),
            database: field(2),
            session: field(5),
            severity: field(11),
            sqlstate: field(12),
            message: without_name(field(13)),
            application: record.get(22).cloned().unwrap_or_default(),
        });
    }
    lines
}

const FUNCTION_CALL: &str = "fastpath function call: ";

/// `fastpath function call: "lo_open" (OID 952)` by its number alone, which is what the message held.
fn without_name(message: String) -> String {
    let number = message.strip_prefix(FUNCTION_CALL).and_then(|rest| rest.strip_suffix(')')?.rsplit_once("(OID "));
    number.map(|(_, number)| format!("{FUNCTION_CALL}OID {number}")).unwrap_or(message)
}

/// CSV records as RFC 4180 has them: quoted fields may hold commas, newlines and doubled quotes.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                all.push(std::mem::take(&mut record));
            }
            other => field.push(other),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_with_quotes_commas_and_newlines_are_read_whole() {
        let text = "t,\"svc\",\"shop\",1,\"127.0.0.1:1\",s.1,1,\"SELECT\",t,3/4,0,LOG,00000,\
                    \"statement: SELECT \"\"a\"\",\n 'b'\",,,,,,,,,\"app\",\"client backend\",,0\nhalf,a,line";
        let lines = parse(text);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].statement(), Some("SELECT \"a\",\n 'b'"));
        assert_eq!((lines[0].user.as_str(), lines[0].session.as_str()), ("svc", "s.1"));
        assert_eq!(lines[0].application, "app");
    }

    #[test]
    fn an_execute_line_gives_its_statement_and_other_lines_give_none() {
        let line = |message: &str| Line {
            user: String::new(),
            database: String::new(),
            session: String::new(),
            severity: "LOG".into(),
            sqlstate: "00000".into(),
            message: message.into(),
            application: String::new(),
        };
        assert_eq!(line("execute <unnamed>: SELECT $1").statement(), Some("SELECT $1"));
        assert_eq!(line("execute s/p: SELECT 1").statement(), Some("SELECT 1"));
        assert_eq!(line("connection received: host=127.0.0.1").statement(), None);
        let called = without_name("fastpath function call: \"lo_open\" (OID 952)".into());
        assert_eq!(line(&called).statement(), Some("fastpath function call: OID 952"));
    }
}
