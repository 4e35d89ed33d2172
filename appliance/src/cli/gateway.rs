//! What the verbs that talk to a running gateway share: where it is, what it answers, how that is printed.

use super::{ANSWER_NO, CONFIG_DEFAULT, FAILED, Output, USAGE};
use crate::config;
use crate::control::client::{self, Answer};
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the running gateway is, and how to print.
#[derive(clap::Args, Debug)]
pub struct GatewayArgs {
    /// The gateway's configuration file: its data_dir holds the control socket.
    #[arg(long, value_name = "FILE", env = "LOCKGATE_CONFIG", default_value = CONFIG_DEFAULT, global = true)]
    pub config: PathBuf,
    /// The gateway's data_dir itself; no configuration is read then.
    #[arg(long, value_name = "DIR", env = "LOCKGATE_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output: `json` is one object a line and nothing else.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    pub output: Output,
}

impl GatewayArgs {
    pub fn config(&self) -> anyhow::Result<config::Config> {
        super::given::load(&self.config).with_context(|| {
            format!(
                "{} does not tell where the gateway is (--config FILE or --data-dir DIR would)",
                self.config.display()
            )
        })
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.request(path, Some(body))
    }

    fn request(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let data_dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => self.config()?.server.data_dir,
        };
        Ok(client::request(&data_dir, path, body)?)
    }

    pub fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// The exit status of an answer that is not 200, after saying why on standard error.
pub fn refused(answer: &Answer) -> ExitCode {
    let text = answer.body["error"].as_str().or(answer.body.as_str()).unwrap_or("refused");
    note!("lockgate: {}", printable(text));
    ExitCode::from(match answer.status {
        400 => USAGE,
        401..=499 => ANSWER_NO,
        _ => FAILED,
    })
}

/// A wrong id is wrong usage; it must not become another path either.
pub fn checked_id(text: &str) -> Result<String, String> {
    match client::is_id(text) {
        true => Ok(text.to_owned()),
        false => Err("an id has only letters, digits and `-_.:` in it".into()),
    }
}

/// One line of JSON. Control characters beyond ASCII are escaped too: a terminal may obey them.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for char in value.to_string().chars() {
        match is_unsafe(char) {
            // All of them are in the basic plane: one escape each.
            true => line.push_str(&format!("\\u{:04x}", u32::from(char))),
            false => line.push(char),
        }
    }
    line.push('\n');
    line
}

/// A text from elsewhere, safe for a terminal: what controls it is shown, not obeyed.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if is_unsafe(char) { char.escape_default().to_string() } else { char.to_string() })
        .collect()
}

/// Control characters, and those that turn the direction of text.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// A string field, safe for a terminal; a list with commas; nothing: `-`.
pub fn field(value: &Value) -> String {
    let text = match value {
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(field).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if text.is_empty() { "-".into() } else { text }
}

/// On one line, at most this many characters.
pub fn cut(text: &str, chars: usize) -> String {
    let mut line: String = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if line.chars().count() > chars {
        line = line.chars().take(chars.saturating_sub(3)).collect::<String>() + "...";
    }
    line
}

/// Columns under a heading, without lines around them: for people, and for `awk`.
pub fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(heading.iter().copied());
    table.add_rows(rows);
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_controls_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(printable("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("DROP\u{202e}x"), "DROP\\u{202e}x");
        assert_eq!(printable("é 漢"), "é 漢");
        let line = json_line(&json!({ "s": "a\u{1b}\u{9b}\u{202e}\nb" }));
        assert_eq!(line, "{\"s\":\"a\\u001b\\u009b\\u202e\\nb\"}\n");
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["s"], "a\u{1b}\u{9b}\u{202e}\nb");
    }

    #[test]
    fn a_long_statement_is_one_short_line() {
        assert_eq!(cut("DELETE\n  FROM   orders", 40), "DELETE FROM orders");
        assert_eq!(cut("abcdefghij", 8), "abcde...");
    }

    #[test]
    fn statuses_follow_the_contract() {
        let status = |status| format!("{:?}", refused(&Answer { status, body: Value::Null }));
        for (http, exit) in [(400, 2), (401, 1), (403, 1), (404, 1), (409, 1), (500, 3)] {
            assert_eq!(status(http), format!("{:?}", ExitCode::from(exit)), "{http}");
        }
    }
}
