//! `lockgate audit hold`: what must not be deleted, whatever its age.

use crate::audit::archive::checkpoint;
use crate::audit::archive::covered::{Covered, covered};
use crate::audit::archive::holds::{self, Hold, Scope};
use crate::audit::printable::{escape, json_safe};
use crate::audit::when;
use crate::cli::audit::{Trail, in_order, parse_time};
use crate::cli::{ANSWER_NO, DONE, WrongUsage, print};
use crate::config::Glob;
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A hold that is not signed by then is said not to be.
const SIGNING_PATIENCE: Duration = Duration::from_secs(3);
/// So long the archive is looked through for what a hold covers.
const LOOK_PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct HoldArgs {
    #[command(subcommand)]
    verb: HoldVerb,
}

#[derive(clap::Subcommand)]
enum HoldVerb {
    /// From now on nothing of this is deleted
    Add(AddArgs),
    /// The holds in force
    Ls(LsArgs),
    /// Retention applies again
    Rm(RmArgs),
}

#[derive(clap::Args)]
struct AddArgs {
    /// Whose records; without it everybody's
    #[arg(long, value_parser = Glob::new)]
    user: Vec<Glob>,
    /// On which target
    #[arg(long, value_parser = Glob::new)]
    target: Vec<Glob>,
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Why; recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    trail: Trail,
}

#[derive(clap::Args)]
struct LsArgs {
    /// One JSON object a line
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
    #[command(flatten)]
    trail: Trail,
}

#[derive(clap::Args)]
struct RmArgs {
    /// As printed by `add` and `ls`
    id: u64,
    /// Why; recorded
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    trail: Trail,
}

pub fn run(args: HoldArgs) -> Result<ExitCode> {
    match args.verb {
        HoldVerb::Add(args) => add(&args),
        HoldVerb::Ls(args) => ls(&args),
        HoldVerb::Rm(args) => rm(&args),
    }
}

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn add(args: &AddArgs) -> Result<ExitCode> {
    let names = |globs: &[Glob]| globs.iter().map(|glob| glob.as_str().to_owned()).collect();
    let scope = Scope {
        users: names(&args.user),
        targets: names(&args.target),
        since: args.since.map(when::rfc3339),
        until: args.until.map(when::rfc3339),
    };
    in_order(args.since, args.until)?;
    is_given(&args.reason)?;
    // A hold in a mistyped folder would hold nothing.
    let data_dir = args.trail.recorded()?;
    let id = holds::add(&data_dir, scope.clone(), &args.reason, now_us()).context("the hold was not recorded")?;
    let printed = print(&format!("{id}\n"));
    note!("hold {id} is in force: nothing it covers is deleted until `lockgate audit hold rm {id}`");
    if !is_signed(&data_dir, id) {
        note!("no checkpoint has signed it yet: is the archiver at work? Until one does, it can be removed unnoticed");
    }
    match covered(&data_dir, &scope, LOOK_PATIENCE) {
        Ok(told) => note!("{}", in_files(&told)),
        Err(error) => note!("what it covers by now cannot be told: {error}"),
    }
    printed
}

/// What a hold covers, in a sentence.
fn in_files(told: &Covered) -> String {
    let of = format!("{} files of the archive", told.looked_at);
    let of = if told.more { format!("first {of} (there are more)") } else { of };
    match told.files {
        0 if told.looked_at == 0 => "nothing is archived yet: it covers what comes".to_owned(),
        0 => format!(
            "it covers none of the {of}: are the names as `lockgate audit search` shows them? Upper and lower case differ, `*` \
             stands for anything. What comes, and what was recorded just now, is covered if it matches"
        ),
        files => format!("it covers {files} of the {of}, and what comes"),
    }
}

/// The archiver signs within a second or so.
fn is_signed(data_dir: &Path, line: u64) -> bool {
    let until = Instant::now() + SIGNING_PATIENCE;
    loop {
        let signed = checkpoint::latest(data_dir).ok().flatten();
        if signed.is_some_and(|signed| signed.holds.number >= line) || Instant::now() >= until {
            return signed.is_some_and(|signed| signed.holds.number >= line);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ls(args: &LsArgs) -> Result<ExitCode> {
    let holds = holds::read_signed(&args.trail.recorded()?)
        .context("the holds are not what was signed; nothing is deleted meanwhile")?;
    let in_force = &holds.in_force;
    if holds.unfinished {
        note!("lockgate: the last line was not finished, nothing is deleted until it is added again");
    }
    let line = |hold: &Hold| match &*args.output {
        "json" => json_safe(&in_json(hold).to_string()) + "\n",
        _ => in_words(hold) + "\n",
    };
    print(&in_force.iter().map(line).collect::<String>())?;
    if args.output == "table" {
        note!("{} in force", in_force.len());
    }
    Ok(ExitCode::from(DONE))
}

fn in_json(hold: &Hold) -> serde_json::Value {
    serde_json::json!({
        "id": hold.id,
        "time": when::rfc3339(hold.time_us),
        "users": hold.scope.users,
        "targets": hold.scope.targets,
        "since": hold.scope.since,
        "until": hold.scope.until,
        "reason": hold.reason,
        "by": hold.by,
    })
}

fn in_words(hold: &Hold) -> String {
    let names = |names: &[String], all: &str| if names.is_empty() { all.to_owned() } else { names.join(", ") };
    let scope = &hold.scope;
    let times = match (&scope.since, &scope.until) {
        (None, None) => String::new(),
        (since, until) => format!(", {} to {}", since.as_deref().unwrap_or("-"), until.as_deref().unwrap_or("-")),
    };
    let what = format!("{} on {}{times}", names(&scope.users, "everybody"), names(&scope.targets, "every target"));
    escape(&format!("{}  {}  {what}  ({}, {})", hold.id, when::short(hold.time_us), hold.reason, hold.by))
}

fn is_given(reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        bail!(WrongUsage("--reason is empty: say why, it is recorded".to_owned()));
    }
    Ok(())
}

fn rm(args: &RmArgs) -> Result<ExitCode> {
    is_given(&args.reason)?;
    let released = holds::release(&args.trail.recorded()?, args.id, &args.reason, now_us());
    if released.context("the release was not recorded")? {
        note!("hold {} is released", args.id);
        return Ok(ExitCode::from(DONE));
    }
    note!("lockgate: there is no hold {} in force; `lockgate audit hold ls` lists them", args.id);
    Ok(ExitCode::from(ANSWER_NO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: LsArgs,
    }

    #[test]
    fn a_folder_without_a_trail_has_no_answer_not_even_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let listed = || {
            let line = Line::try_parse_from(["ls", "--dir", dir.path().to_str().expect("UTF-8")]).expect("parsed");
            ls(&line.args)
        };
        let error = listed().expect_err("a mistyped folder");
        assert!(error.to_string().contains("there is no audit trail"), "{error}");
        std::fs::create_dir(dir.path().join("segments")).expect("made");
        assert_eq!(format!("{:?}", listed().expect("none")), format!("{:?}", ExitCode::from(DONE)));
    }
}
