//! The package's cover letter: for people, so that they see what they were given and how to check it.

use super::Question;
use crate::audit::printable::{escape, one_line};
use crate::audit::search::Record;
use crate::audit::segment::hex;
use crate::audit::when;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Statements are shown so far; records.ndjson has them whole.
const STATEMENT_CHARS: usize = 300;

pub struct About<'a> {
    pub question: &'a Question,
    pub created_us: i64,
    pub key: &'a [u8; 32],
    pub signed: bool,
    pub files: usize,
    pub checkpoint_us: i64,
}

pub fn summary(about: &About<'_>, records: &[Record]) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&(text + "\n"));
    let names = |names: &[String]| if names.is_empty() { "all".to_owned() } else { escape(&names.join(", ")) };
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    line("EVIDENCE FROM A LOCKGATE AUDIT TRAIL".into());
    line(String::new());
    line(format!("users        {}", names(&about.question.users)));
    line(format!("targets      {}", names(&about.question.targets)));
    line(format!("from         {}", time(&about.question.since)));
    line(format!("to           {}", time(&about.question.until)));
    line(format!("records      {}", records.len()));
    // What is denied or rejected never runs, and has none.
    let open = records.iter().filter(|record| record.kind == "statement" && !record.complete).count();
    if open > 0 {
        line(format!("open         {open} of them: how they ended was not in the archive when this was made"));
    }
    line(format!("made         {}", when::rfc3339(about.created_us)));
    line(format!("sealed by    a checkpoint of {}", when::rfc3339(about.checkpoint_us)));
    line(format!("key          {}", hex(about.key)));
    line(format!("signed       {}", if about.signed { "yes" } else { "no" }));
    line(String::new());
    line("What is in it".into());
    line(String::new());
    line(
        "  records.ndjson     the records, one JSON object a line: each statement with its verdict and its outcome"
            .into(),
    );
    line(format!("  parquet/           {} files of the archive, whole, in which these records stand", about.files));
    line("  manifest.jsonl     the entries of the archive's chain that name these files by their hash".into());
    line("  checkpoints.jsonl  the signed statement that this chain was so at that time".into());
    line("  index.json         all of these files with their hashes; index.sig is the signature over it".into());
    line(String::new());
    line("How to check it".into());
    line(String::new());
    line("  lockgate audit verify --package FILE --key KEYS       KEYS: a file with the key above, from a source you trust".into());
    line(String::new());
    for (title, count) in [
        ("By user", counts(records, |record| vec![record.user.clone()])),
        ("By target", counts(records, |record| vec![record.target.clone()])),
        ("By class", counts(records, |record| record.classes.iter().map(|class| (*class).to_owned()).collect())),
        ("By verdict", counts(records, |record| record.decision.iter().cloned().collect())),
    ] {
        line(title.into());
        line(String::new());
        count.iter().for_each(|(name, count)| line(format!("  {count:>9}  {}", escape(name))));
        line(String::new());
    }
    line("In the order of time (UTC)".into());
    line(String::new());
    records.iter().for_each(|record| line(of_record(record)));
    out
}

fn counts(records: &[Record], names: impl Fn(&Record) -> Vec<String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in records.iter().flat_map(names).filter(|name| !name.is_empty()) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn of_record(record: &Record) -> String {
    let mut text = format!("  {}  {}  {}", when::short(record.time_us), record.id, escape(&record.user));
    for part in [&record.target, record.ruling.as_ref().or(record.decision.as_ref()).unwrap_or(&String::new())] {
        if !part.is_empty() {
            let _ = write!(text, "  {}", escape(part));
        }
    }
    let what = record.statement.as_ref().or(record.detail.as_ref()).map(String::as_str).unwrap_or_default();
    let _ = write!(text, "  {}", one_line(what, STATEMENT_CHARS));
    if let Some(rows) = record.rows {
        let _ = write!(text, "  -> {rows} rows");
    }
    if let Some(error) = &record.error {
        let _ = write!(text, "  -> {}", escape(error));
    }
    text
}
