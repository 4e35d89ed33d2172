//! `lockgate audit export` and `audit verify --package`: evidence handed over, and evidence received.

use crate::audit::archive::key::{self, PublicKey, SigningKey};
use crate::audit::evidence::check::{Checked, check};
use crate::audit::evidence::pack::pack;
use crate::audit::printable::{escape, json_safe};
use crate::audit::search::{Filter, Record, search};
use crate::audit::segment::hex;
use crate::audit::when;
use crate::cli::archiver::stored_keys;
use crate::cli::audit::{Trail, in_order, parse_time, readable, report};
use crate::cli::{ANSWER_NO, DONE, print};
use crate::config::Glob;
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct ExportArgs {
    /// Whose records
    #[arg(long, required = true, value_parser = Glob::new)]
    user: Vec<Glob>,
    /// On which target
    #[arg(long, value_parser = Glob::new)]
    target: Vec<Glob>,
    /// From this time on: 2026-11-20T03:12:00Z, "2026-11-20 03:12", 1d (ago)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Sign the package with the key that signs the checkpoints
    #[arg(long)]
    sign: bool,
    /// That key, where it is not the data directory's checkpoint.key
    #[arg(long, value_name = "FILE", requires = "sign")]
    key: Option<PathBuf>,
    /// The package to write
    #[arg(short, long, value_name = "PACKAGE")]
    output: PathBuf,
    #[command(flatten)]
    trail: Trail,
}

/// The one that was named, else the one that signs checkpoints now.
fn signing_key(file: Option<&Path>, trail: &Trail, data_dir: &Path) -> Result<SigningKey> {
    if let Some(file) = file {
        return Ok(SigningKey::read(file)?);
    }
    let config = trail.configuration();
    if let Some(given) = config.as_ref().map(stored_keys).transpose()?.flatten() {
        let last = given.keys()?.pop();
        return last.context("there is none");
    }
    let configured = config.and_then(|config| config.audit.checkpoint_key_file);
    Ok(SigningKey::read(&configured.unwrap_or_else(|| key::path(data_dir)))?)
}

pub fn export(args: ExportArgs) -> Result<ExitCode> {
    in_order(args.since, args.until)?;
    let data_dir = args.trail.recorded()?;
    let key = args.sign.then(|| signing_key(args.key.as_deref(), &args.trail, &data_dir)).transpose();
    let key = key.context("the key that signs cannot be read")?;
    let filter = Filter {
        users: args.user,
        targets: args.target,
        since_us: args.since,
        until_us: args.until,
        ..Filter::default()
    };
    let now_us = jiff::Timestamp::now().as_microsecond();
    let packed = pack(&data_dir, &filter, key.as_ref(), &args.output, now_us).context("no package could be made")?;
    let mut damages = 0;
    let all = readable(search(&data_dir, &filter, None, false, &mut |damage| {
        damages += 1;
        report(&damage);
    }))?;
    let left_out = left_out(&all, packed.as_ref().map_or(&[], |packed| &packed.records));
    if left_out.records > 0 {
        note!("{} more records are not archived yet: export again later to have them as well", left_out.records);
    }
    if left_out.outcomes > 0 {
        note!(
            "{} records have an outcome that is not archived yet, or not all of it: export again later to have it as well",
            left_out.outcomes
        );
    }
    if damages > 0 {
        note!("lockgate: more may be left out than was counted: `lockgate audit verify` tells what cannot be read");
    }
    let Some(packed) = packed else {
        note!("lockgate: nothing that is archived matches; no package was written");
        return Ok(ExitCode::from(ANSWER_NO));
    };
    note!(
        "{}: {} records, {} archive files, {} MB, {}",
        args.output.display(),
        packed.records.len(),
        packed.files,
        packed.bytes.div_ceil(1_000_000),
        if args.sign { "signed" } else { "not signed" }
    );
    note!("tell whoever receives it the public key on another way: {}", hex(&packed.key));
    Ok(ExitCode::from(DONE))
}

/// What is recorded and not in the package.
#[derive(PartialEq, Eq, Debug)]
struct LeftOut {
    records: usize,
    /// Of records that are in it.
    outcomes: usize,
}

fn left_out(all: &[Record], packed: &[Record]) -> LeftOut {
    let packed: HashMap<&str, &Record> = packed.iter().map(|record| (&*record.id, record)).collect();
    let mut left_out = LeftOut { records: 0, outcomes: 0 };
    for record in all {
        match packed.get(&*record.id) {
            None => left_out.records += 1,
            Some(packed) => left_out.outcomes += usize::from(*packed != record),
        }
    }
    left_out
}

/// `keys`: a file of public keys that are trusted.
pub fn verify_package(package: &Path, keys: Option<&Path>, json: bool) -> Result<ExitCode> {
    let keys: Vec<PublicKey> = keys.map(key::read_public).transpose()?.unwrap_or_default();
    let mut breaks = Vec::new();
    let checked = check(package, &keys, &mut |what| breaks.push(what))
        .with_context(|| format!("{}: cannot be read", package.display()))?;
    let printed = if json {
        print(&format!("{}\n", json_safe(&in_json(checked.as_ref(), &breaks).to_string())))
    } else {
        breaks.iter().for_each(|what| note!("lockgate: {}: {}", package.display(), escape(what)));
        print(&checked.as_ref().map(in_words).unwrap_or_default())
    };
    match breaks.len() {
        0 => note!("the package is whole: its records are those of the archive that the checkpoint seals"),
        1 => note!("the package is BROKEN in 1 place"),
        more => note!("the package is BROKEN in {more} places"),
    }
    printed?;
    Ok(ExitCode::from(if breaks.is_empty() { DONE } else { ANSWER_NO }))
}

fn in_words(checked: &Checked) -> String {
    let list = |names: &[String]| if names.is_empty() { "all".to_owned() } else { escape(&names.join(", ")) };
    let mut text = String::new();
    let mut line = |name: &str, value: String| text += &format!("{name:<10} {value}\n");
    line("users", list(&checked.question.users));
    line("targets", list(&checked.question.targets));
    line("from", escape(checked.question.since.as_deref().unwrap_or("-")));
    line("to", escape(checked.question.until.as_deref().unwrap_or("-")));
    line("records", checked.records.to_string());
    line("made", when::rfc3339(checked.created_us));
    line("sealed", checked.sealed_us.map_or_else(|| "no".to_owned(), when::rfc3339));
    line(
        "signed",
        if checked.signed {
            "yes"
        } else {
            "no: question and summary are nobody's word, something may have been left out"
        }
        .to_owned(),
    );
    let trust = if checked.key_is_known && checked.signed {
        "as given"
    } else if checked.key_is_known {
        "as given, for the checkpoint alone"
    } else {
        "taken on faith: give the one you trust with --key"
    };
    line("key", format!("{} ({trust})", hex(&checked.key)));
    text
}

fn in_json(checked: Option<&Checked>, breaks: &[String]) -> serde_json::Value {
    let mut value = serde_json::json!({ "breaks": breaks });
    if let Some(checked) = checked {
        value["records"] = checked.records.into();
        value["files"] = checked.files.into();
        value["question"] = serde_json::json!(checked.question);
        value["created"] = when::rfc3339(checked.created_us).into();
        value["sealed"] = checked.sealed_us.map(when::rfc3339).into();
        value["signed"] = checked.signed.into();
        value["key"] = hex(&checked.key).into();
        value["key_is_known"] = checked.key_is_known.into();
    }
    value
}
