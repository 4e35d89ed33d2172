//! Evidence: what was recorded of somebody, in one file that proves itself on a machine that has only the verifier.
//! FORMAT.md, "The evidence package", draws it.

pub mod check;
pub mod pack;
mod summary;
mod tar;

use super::archive::key::PublicKey;
use super::archive::manifest::{hex_hash, rfc3339};
use super::frame::Hash;
use super::printable::json_safe;
use super::search::{Filter, Record};
use super::when;
use crate::config::Glob;
use serde::{Deserialize, Serialize};

pub const FORMAT: u32 = 1;
const INDEX: &str = "index.json";
const SIGNATURE: &str = "index.sig";
const SUMMARY: &str = "summary.txt";
const RECORDS: &str = "records.ndjson";
const MANIFEST: &str = "manifest.jsonl";
const CHECKPOINTS: &str = "checkpoints.jsonl";
/// Archive files lie in the package under their path in the manifest, which begins so.
const PARQUET: &str = "parquet/";

/// Whose records, and when. Names are exact or globs; times in RFC 3339, both ends included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub users: Vec<String>,
    pub targets: Vec<String>,
    pub since: Option<String>,
    pub until: Option<String>,
}

impl Question {
    pub fn of(filter: &Filter) -> Self {
        let names = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
        Self {
            users: names(&filter.users),
            targets: names(&filter.targets),
            since: filter.since_us.map(when::rfc3339),
            until: filter.until_us.map(when::rfc3339),
        }
    }

    /// `None`: it holds something that is no name or no time.
    pub fn filter(&self) -> Option<Filter> {
        let names = |names: &[String]| names.iter().map(|name| Glob::new(name).ok()).collect::<Option<Vec<_>>>();
        let time = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => text.parse::<jiff::Timestamp>().ok().map(|time| Some(time.as_microsecond())),
        };
        Some(Filter {
            users: names(&self.users)?,
            targets: names(&self.targets)?,
            since_us: time(&self.since)?,
            until_us: time(&self.until)?,
            ..Filter::default()
        })
    }
}

/// A file of the package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    path: String,
    bytes: u64,
    #[serde(with = "hex_hash")]
    blake3: Hash,
}

/// `index.json`: what is signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    #[serde(with = "rfc3339")]
    created: i64,
    question: Question,
    records: u64,
    /// Whose signature the index and the checkpoint bear.
    #[serde(with = "hex_hash")]
    key: PublicKey,
    /// All files but the index and its signature, in their order.
    files: Vec<Content>,
}

/// `records.ndjson`: as `lockgate audit search -o json` prints them.
fn ndjson(records: &[Record]) -> serde_json::Result<String> {
    let mut text = String::new();
    for record in records {
        text.push_str(&json_safe(&serde_json::to_string(record)?));
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
