//! Standard output and standard error, which may be closed or full: then this says so with its exit status and does not panic.

use super::args::{Format, Verb};
use super::exit_status;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, Write};

/// Whoever reads standard output has gone: nobody is left to tell.
#[derive(Debug)]
pub struct Unread;

impl std::error::Error for Unread {}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output")
    }
}

/// To standard output, as it is.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Unread.into()),
        result => result.context("cannot write to standard output"),
    }
}

pub fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// A line to standard error. Where that is closed, nobody wants to know.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// What kept a verb from its result. Whoever asked for JSON gets that as JSON too.
pub fn tell_error(json: bool, error: &anyhow::Error) {
    if error.is::<Unread>() {
        return;
    }
    tell(&format!("lockgate-loadgen: {error:#}"));
    if json {
        print_error(&format!("{error:#}"), exit_status(error));
    }
}

pub fn print_error(text: &str, status: u8) {
    // It was told on standard error as well.
    let _ = print_json(&json!({"error": text, "status": status}));
}

/// Whether arguments ask for JSON, where something is wrong with others and nobody has made sense of them.
pub fn asks_for_json(arguments: &[String]) -> bool {
    let whole = ["-ojson", "-o=json", "--output=json"];
    let pair = |pair: &[String]| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json";
    arguments.iter().any(|argument| whole.contains(&argument.as_str())) || arguments.windows(2).any(pair)
}

/// Tells of every result that did not get where it should, and whether there was one: none must cost the others.
pub fn tell_lost<const N: usize>(written: [Result<()>; N]) -> bool {
    written.into_iter().filter_map(Result::err).map(|error| tell_error(false, &error)).count() > 0
}

pub fn wants_json(verb: &Verb) -> bool {
    let format = match verb {
        Verb::Run(args) => args.output,
        Verb::Compare(args) => args.output,
        Verb::Saturate(args) => args.output,
        Verb::Selftest(args) => args.output,
        Verb::Respond(_) => return false,
    };
    format == Format::Json
}
