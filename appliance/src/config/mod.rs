//! File -> [`Config`]; an invalid configuration cannot be represented afterwards.
//!
//! ```text
//! text -> toml tree -> structure (against the schema) -> raw structs -> meaning -> Config
//!            ^             \______ every problem with its line and caret ______/
//!  flags, variables (`given.rs`)
//! ```

mod at;
mod given;
mod meaning;
mod model;
mod pattern;
mod raw;
mod report;
mod schema;
mod settled;
mod structure;
mod suggest;
#[cfg(test)]
mod tests;
mod units;

pub use given::{Given, Value};
pub use model::*;
pub use pattern::{ColumnPattern, Glob, TablePattern};
pub use report::{ConfigError, Finding};
pub use schema::schema;
pub use settled::{Change, Settled};
pub use units::{
    ARCHIVE_AGE_BOUNDS, Bounds, COMMIT_INTERVAL_BOUNDS, DRAIN_BOUNDS, DURATIONS, RETENTION_BOUNDS, TIMEOUT_BOUNDS,
    bounded_duration, parse_duration, parse_socket, show_duration,
};

use crate::limits::CONFIG_BYTES_MAX;
use given::Over;
use report::{Problem, Severity};
use serde::Deserialize;
use std::path::Path;

/// A commented configuration with every key; it passes its own check.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Reads and checks a file. What it refers to (certificates, passwords) is read later, by whoever needs it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_with(path, &Given::default())
}

/// The same with values that win over the file's, once the file is valid by itself.
pub fn load_with(path: &Path, given: &Given) -> Result<Config, ConfigError> {
    let text = read(path)
        .map_err(|what| alone(path, "", Problem { severity: Severity::Error, span: None, what, right: None }))?;
    let hash = hash(&text);
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let what = "the file is not UTF-8".to_owned();
        let right = Some("save it as UTF-8".to_owned());
        let problem = Problem { severity: Severity::Error, span: Some(at..at + 1), what, right };
        ConfigError { hash: Some(hash), ..alone(path, &text, problem) }
    })?;
    parse_with(&text, path, given)
}

/// Checks a text. `path` names it in reports, and relative paths in it start at its folder.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    check(text, path, &Given::default())
}

/// The same with values that win over the text's, once the text is valid by itself.
pub fn parse_with(text: &str, path: &Path, given: &Given) -> Result<Config, ConfigError> {
    let config = parse(text, path)?;
    if given.is_empty() {
        return Ok(config);
    }
    check(text, path, given).map_err(|error| ConfigError { by_given: true, ..error })
}

fn check(text: &str, path: &Path, given: &Given) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let over = given.over(text);
    let config = understand(text, path, over, &mut problems);
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    let findings = report::render(&path.display().to_string(), text, over, problems);
    match config {
        Some(config) if !failed => Ok(Config { warnings: findings, hash: hash(text.as_bytes()), ..config }),
        _ => Err(ConfigError { findings, hash: Some(hash(text.as_bytes())), by_given: false }),
    }
}

impl Config {
    /// For who serves by it. A first look at a file can do without a listener, and a file that was cut short while it was written is
    /// often valid: a gateway that took it into use would stand there without anybody's rules.
    pub fn servable(self) -> Result<Self, ConfigError> {
        if !self.listeners.is_empty() {
            return Ok(self);
        }
        let mut findings = self.warnings;
        findings.retain(|finding| finding.message != meaning::NO_LISTENER);
        let right = Some("add one with `protocol = \"postgres\"` and `address = \"127.0.0.1:6432\"`".to_owned());
        let problem = Problem { severity: Severity::Error, span: None, what: meaning::NO_LISTENER.into(), right };
        let error = alone(&self.path, "", problem);
        Err(ConfigError { findings: [error.findings, findings].concat(), hash: Some(self.hash), by_given: false })
    }
}

fn hash(bytes: &[u8]) -> String {
    format!("blake3:{}", blake3::hash(bytes).to_hex())
}

fn understand(text: &str, path: &Path, over: Over<'_>, problems: &mut Vec<Problem>) -> Option<Config> {
    let (tree, errors) = toml::de::DeTable::parse_recoverable(text);
    problems.extend(errors.iter().map(syntax));
    if !errors.is_empty() {
        return None;
    }
    let (span, mut table) = (tree.span(), tree.into_inner());
    over.lay(&mut table);
    if !structure::check(&mut table, &schema(), problems) {
        return None;
    }
    match raw::File::deserialize(toml::de::Deserializer::from(toml::Spanned::new(span, table))) {
        Ok(file) => Some(meaning::check(&file, path, over, problems)),
        Err(error) => {
            problems.push(syntax(&error));
            None
        }
    }
}

fn syntax(error: &toml::de::Error) -> Problem {
    let what = error.message().lines().next().unwrap_or("not TOML").to_owned();
    Problem { severity: Severity::Error, span: error.span(), what, right: None }
}

fn alone(path: &Path, text: &str, problem: Problem) -> ConfigError {
    let nothing = Given::default();
    let findings = report::render(&path.display().to_string(), text, nothing.over(text), vec![problem]);
    ConfigError { findings, hash: None, by_given: false }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = crate::files::open(path).map_err(|error| format!("could not open the configuration: {error}"))?;
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("could not read the configuration: {error}"))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("the file is larger than {} MiB: is it a configuration?", CONFIG_BYTES_MAX >> 20));
    }
    Ok(bytes)
}
