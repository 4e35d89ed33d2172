//! `lockgate audit`: search, follow, inspect and verify the trail.

mod csv;
mod filter;
pub mod print;
mod rotate;

pub use self::filter::{in_order, parse_time};

use self::filter::FilterArgs;
use self::print::{Lines, number, plain_table, print_lines, print_record, print_table, print_tail, table_width};
use crate::audit::archive::key::read_public;
use crate::audit::archive::{checkpoint, manifest, read};
use crate::audit::printable::{escape, json_safe};
use crate::audit::search::{Follower, News, Record, Trouble, search, show};
use crate::audit::verify::{ArchiveReport, Break, Options, Progress, Report, ShardReport, verify_all};
use crate::audit::{segment, when};
use crate::cli::gateway::GatewayArgs;
use crate::cli::out::{stdout, written};
use crate::cli::{ANSWER_NO, DONE, FAILED, USAGE, evidence, given, hold, replay};
use crate::config::{self, ConfigError};
use anyhow::{Context as _, Result, bail};
use comfy_table::{Cell, ColumnConstraint, Width};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Of a time of day with milliseconds, and the space beside it.
const TIME_WIDTH: u16 = 14;
/// How often `tail` looks for news.
const TAIL_EVERY: Duration = Duration::from_millis(100);
/// `tail` shows a statement that is still running after this long.
const TAIL_PATIENCE: Duration = Duration::from_secs(1);
/// `tail --until` waits that much longer for what was recorded by then to be written.
const TAIL_BEHIND: Duration = Duration::from_secs(2);

const NAMES: &str = "Names are exact or globs (`*`, `?`); an option given several times matches any of its values.";

const ANSWERS: &str = "Names are exact or globs (`*`, `?`); an option given several times matches any of its values.

Exit status 3 where a part of the trail could not be read: what could be is printed, and the answer may lack the rest.";

#[derive(clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    verb: AuditVerb,
}

#[derive(clap::Subcommand)]
enum AuditVerb {
    /// Find what happened: who did what, when, and what came of it
    #[command(after_help = ANSWERS)]
    Search(SearchArgs),
    /// Follow what happens; with --until it ends then
    #[command(after_help = ANSWERS)]
    Tail(TailArgs),
    /// Print one record in full
    Show(ShowArgs),
    /// Play a recorded session: statements, results as the client saw them, and timing
    Replay(replay::ReplayArgs),
    /// Prove that the trail is whole and unchanged, or a package of evidence
    Verify(VerifyArgs),
    /// Have another key sign checkpoints from now on; the old one names it with its last signature
    RotateKey(rotate::RotateKeyArgs),
    /// Hand over what is recorded of somebody as a package that proves itself
    #[command(after_help = NAMES)]
    Export(evidence::ExportArgs),
    /// Keep records beyond their retention: what is under a hold is not deleted
    #[command(after_help = NAMES)]
    Hold(hold::HoldArgs),
    /// How far each sink is behind, and what keeps it: exit status 1 when one cannot deliver, or the gateway is stopped
    Sinks(GatewayArgs),
}

/// Where the trail lies.
#[derive(clap::Args)]
pub struct Trail {
    /// Configuration of the gateway
    #[arg(long, value_name = "FILE", default_value = "/etc/lockgate/lockgate.toml", env = "LOCKGATE_CONFIG")]
    config: PathBuf,
    /// The gateway's data directory, instead of a configuration
    #[arg(long, value_name = "DATA_DIR")]
    dir: Option<PathBuf>,
}

impl Trail {
    /// The configuration, unless a folder was named instead.
    pub fn configuration(&self) -> Option<config::Config> {
        self.dir.is_none().then(|| given::load(&self.config).ok()).flatten()
    }

    pub fn data_dir(&self) -> Result<PathBuf> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => configured_data_dir(&self.config)?,
        };
        is_folder(&dir)?;
        Ok(dir)
    }

    /// The same, where something was recorded or may be: a mistyped folder is no answer.
    pub fn recorded(&self) -> Result<PathBuf> {
        let dir = self.data_dir()?;
        has_trail(&dir)?;
        Ok(dir)
    }
}

/// An error: there is none in this data directory, or nobody here may know.
pub fn has_trail(dir: &Path) -> Result<()> {
    for part in ["segments", "archive"] {
        match is_folder(&dir.join(part)) {
            Ok(()) => return Ok(()),
            Err(error) if is_denied(&error) => return Err(error),
            Err(_) => {}
        }
    }
    bail!("{}: there is no audit trail: neither segments/ nor archive/", dir.display())
}

const NOT_YOURS: &str = "only whoever runs the gateway may look at it";

/// What was read of a trail, or why it could not be.
pub fn readable<T>(read: io::Result<T>) -> Result<T> {
    let denied = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let read = if denied { read.context(NOT_YOURS) } else { read.map_err(anyhow::Error::from) };
    read.context("the trail cannot be read")
}

/// What may not be looked at may well be there.
pub fn is_folder(dir: &Path) -> Result<()> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("{}: {NOT_YOURS}", dir.display()))
        }
        Ok(_) | Err(_) => bail!("{}: no such directory", dir.display()),
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn configured_data_dir(file: &Path) -> Result<PathBuf> {
    match given::load(file) {
        Ok(config) => Ok(config.server.data_dir),
        Err(error) if error.is::<ConfigError>() => {
            bail!("the configuration is not valid\n\n{error}\n\ncorrect it, or name the data directory with --dir")
        }
        Err(error) => Err(error),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    /// One object a line
    Json,
    /// One line a record. An apostrophe in front of a text that begins with `=`, `+`, `-`, `@` or another one is added: take it off to have
    /// what was written
    Csv,
    /// Events of the Open Cybersecurity Schema Framework 1.4.0, one object a line
    Ocsf,
}

#[derive(clap::Args)]
struct SearchArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// In the table also the session of each (where the terminal is wide it is there anyway)
    #[arg(long)]
    wide: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    trail: Trail,
}

#[derive(clap::Args)]
struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Begin with the last so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Print what there is and end
    #[arg(long)]
    no_follow: bool,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    trail: Trail,
}

#[derive(clap::Args)]
struct ShowArgs {
    /// As printed by `search` and `tail`
    id: String,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    trail: Trail,
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// Public keys that may have signed checkpoints, 64 hex digits a line; without it the first key met is believed
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere; several in their order
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Check this package of evidence, and nothing else: it needs neither a configuration nor a trail
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    trail: Trail,
}

/// A parser that gives up on a damaged file is reported as damage, once; its own cry says nothing more.
fn quiet_parsers() {
    let cry = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !read::is_guarded() {
            cry(panic);
        }
    }));
}

pub fn run(args: AuditArgs) -> Result<ExitCode> {
    quiet_parsers();
    let done = match args.verb {
        AuditVerb::Search(args) => run_search(args),
        AuditVerb::Tail(args) => run_tail(args),
        AuditVerb::Show(args) => run_show(args),
        AuditVerb::Replay(args) => replay::run(args),
        // Its status is the answer, also where nobody reads what it says.
        AuditVerb::Verify(args) => run_verify(args, &mut stdout()),
        AuditVerb::RotateKey(args) => rotate::run(&args),
        AuditVerb::Export(args) => evidence::export(args),
        AuditVerb::Hold(args) => hold::run(args),
        AuditVerb::Sinks(args) => super::audit_sinks::run(&args),
    };
    match done {
        // `| head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::from(DONE)),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

pub fn report(damage: &impl std::fmt::Display) {
    note!("lockgate: damaged audit trail: {}", escape(&damage.to_string()));
}

/// Exit status of an answer that could be given in full, or not.
pub fn answered(damages: u64) -> ExitCode {
    if damages == 0 {
        return ExitCode::from(DONE);
    }
    let places = if damages == 1 { "1 place" } else { &format!("{damages} places") };
    note!(
        "lockgate: the answer may be incomplete: the trail is damaged in {places}; `lockgate audit verify` tells more"
    );
    ExitCode::from(FAILED)
}

fn run_search(args: SearchArgs) -> Result<ExitCode> {
    let data_dir = args.trail.recorded()?;
    let mut damages = 0u64;
    let records = readable(search(&data_dir, &args.filter.filter()?, args.limit, false, &mut |damage| {
        damages += 1;
        report(&damage);
    }))?;
    let mut out = io::BufWriter::new(stdout());
    match args.output {
        Format::Table => written(print_table(&mut out, &records, table_width(), args.wide).and_then(|()| out.flush()))?,
        other => {
            written(print_lines(&mut out, &records, &Lines::of(other, &data_dir)?, true))?;
            written(out.flush())?;
        }
    }
    if args.output == Format::Table {
        let what = if records.len() == 1 { "record" } else { "records" };
        note!("{} {what}", records.len());
    }
    Ok(answered(damages))
}

fn run_tail(args: TailArgs) -> Result<ExitCode> {
    let data_dir = args.trail.recorded()?;
    let lines = Lines::of(args.output, &data_dir)?;
    let filter = args.filter.filter()?;
    let is_over = || {
        let behind_us = i64::try_from(TAIL_BEHIND.as_micros()).unwrap_or(i64::MAX);
        let now_us = jiff::Timestamp::now().as_microsecond();
        filter.until_us.is_some_and(|until_us| until_us.saturating_add(behind_us) < now_us)
    };
    let patience = if args.no_follow || is_over() { Duration::ZERO } else { TAIL_PATIENCE };
    let mut follower = Follower::new(data_dir.clone(), filter.clone(), patience);
    let (mut header, mut skip, mut damages) = (true, Some(args.lines), 0);
    // What the search found: the follower may meet it later.
    let mut searched: Vec<Record> = Vec::new();
    loop {
        let last = args.no_follow || is_over();
        let mut records = Vec::new();
        let mut damaged = |damage: &Trouble| {
            damages += 1;
            report(damage);
        };
        for news in readable(follower.poll())? {
            match news {
                News::Record(record) if searched.contains(&record) => {}
                News::Record(record) => records.push(*record),
                News::Damage(damage) => damaged(&damage),
            }
        }
        if let Some(lines) = skip.take() {
            if records.len() < lines || last {
                let older = search(&data_dir, &filter, Some(lines), false, &mut |damage| damaged(&damage));
                let mut older = readable(older)?;
                let news = |older: &Record| !records.iter().any(|record| record.id == older.id);
                older.retain(|older| news(older) && !follower.awaits(&older.id));
                searched.clone_from(&older);
                records.splice(..0, older);
                records.sort_by_key(|record| (record.time_us, record.shard, record.sequence));
            }
            records.drain(..records.len().saturating_sub(lines));
        }
        let mut out = stdout();
        match args.output {
            Format::Table => written(print_tail(&mut out, &records))?,
            _ => written(print_lines(&mut out, &records, &lines, header))?,
        }
        written(out.flush())?;
        header = false;
        if last {
            return Ok(answered(damages));
        }
        if out.is_over() {
            return Ok(ExitCode::from(DONE));
        }
        std::thread::sleep(TAIL_EVERY);
    }
}

fn run_show(args: ShowArgs) -> Result<ExitCode> {
    let data_dir = args.trail.recorded()?;
    let mut damages = 0;
    let found = readable(show(&data_dir, &args.id, &mut |damage| {
        damages += 1;
        report(&damage);
    }))?;
    let Some(record) = found else {
        if damages > 0 {
            note!("lockgate: the record {} was not found in what can be read", escape(&args.id));
            return Ok(answered(damages));
        }
        note!(
            "lockgate: there is no record {}; ids look like 0-123 and stand in what `search` prints",
            escape(&args.id)
        );
        return Ok(ExitCode::from(ANSWER_NO));
    };
    let mut out = stdout();
    match args.output {
        Format::Table => written(print_record(&mut out, &record))?,
        other => written(print_lines(&mut out, std::slice::from_ref(&record), &Lines::of(other, &data_dir)?, true))?,
    }
    written(out.flush())?;
    // What came of it may stand in what cannot be read.
    Ok(if record.complete { ExitCode::from(DONE) } else { answered(damages) })
}

fn run_verify(args: VerifyArgs, out: &mut (impl io::Write + Send)) -> Result<ExitCode> {
    if !matches!(args.output, Format::Table | Format::Json) {
        note!("lockgate: verify prints a table or json");
        return Ok(ExitCode::from(USAGE));
    }
    if let Some(package) = &args.package {
        return evidence::verify_package(package, args.key.as_deref(), args.output == Format::Json);
    }
    let data_dir = args.trail.data_dir()?;
    let archived = manifest::path(&data_dir).exists() || !readable(checkpoint::files(&data_dir))?.is_empty();
    if readable(segment::list(&data_dir))?.values().all(std::collections::BTreeMap::is_empty) && !archived {
        note!("lockgate: {}: there is no audit trail", data_dir.display());
        return Ok(ExitCode::from(FAILED));
    }
    let keys = args.key.as_deref().map(read_public).transpose()?.unwrap_or_default();
    let options = Options { data_dir, keys, elsewhere: args.checkpoints, still: false };
    let started = std::time::Instant::now();
    let json = args.output == Format::Json;
    let mut printed = Ok(());
    let report = verify_with_progress(&options, &mut |broken| match broken {
        broken if json => {
            let line = json_safe(&break_json(broken).to_string());
            if printed.is_ok() {
                printed = writeln!(out, "{line}");
            }
        }
        Break::Segment(damage) => self::report(damage),
        Break::Archive(broken) => note!("lockgate: damaged audit archive: {}", escape(&broken.to_string())),
    });
    let report = readable(report)?;
    let printed = printed.and_then(|()| print_verified(out, &report, json, options.keys.is_empty()));
    let seconds = started.elapsed().as_secs_f64();
    note!("{} MB read in {seconds:.2} s", report.bytes() / 1_000_000);
    match report.breaks() {
        0 => note!("the trail is whole: every frame is as it was written, and nothing is missing"),
        1 => note!("the trail is BROKEN in 1 place"),
        more => note!("the trail is BROKEN in {more} places"),
    }
    written(printed)?;
    Ok(ExitCode::from(if report.breaks() == 0 { DONE } else { ANSWER_NO }))
}

fn print_verified(out: &mut impl io::Write, report: &Report, json: bool, on_faith: bool) -> io::Result<()> {
    if json {
        report.shards.iter().try_for_each(|shard| writeln!(out, "{}", report_json(shard)))?;
        report.archive.iter().try_for_each(|archive| writeln!(out, "{}", archive_json(archive)))?;
    } else {
        print_reports(out, &report.shards, table_width())?;
        report.archive.iter().try_for_each(|archive| print_archive(out, archive, on_faith))?;
    }
    out.flush()
}

/// On a terminal a line says how far it is.
fn verify_with_progress(options: &Options, tell: &mut (dyn FnMut(&Break) + Send)) -> io::Result<Report> {
    let progress = Progress::default();
    let shown = io::stderr().is_terminal();
    let done = std::sync::atomic::AtomicBool::new(false);
    let clear = || {
        if shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    };
    std::thread::scope(|scope| {
        let shower = shown.then(|| scope.spawn(|| show_progress(&progress, &done)));
        let result = verify_all(options, &progress, &mut |broken| {
            clear();
            tell(broken);
        });
        done.store(true, Ordering::Release);
        if let Some(shower) = shower {
            shower.thread().unpark();
            let _ = shower.join();
        }
        clear();
        result
    })
}

fn show_progress(progress: &Progress, done: &std::sync::atomic::AtomicBool) {
    let started = std::time::Instant::now();
    while !done.load(Ordering::Acquire) {
        let (read, all) = (progress.read.load(Ordering::Relaxed), progress.all.load(Ordering::Relaxed));
        if let Some(percent) = (read * 100).checked_div(all) {
            let speed = read as f64 / 1e9 / started.elapsed().as_secs_f64();
            let _ = write!(io::stderr(), "\r\x1b[K{} % of {} MB, {speed:.1} GB/s", percent.min(100), all / 1_000_000);
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn print_archive(out: &mut impl io::Write, archive: &ArchiveReport, on_faith: bool) -> io::Result<()> {
    let last = archive.last_checkpoint_us.map_or("never".to_owned(), when::short);
    let broken = match archive.breaks {
        0 => String::new(),
        breaks => format!(", broken in {breaks} places"),
    };
    let (files, records, entries) = (archive.files, archive.records, archive.entries);
    writeln!(out, "archive: {files} files with {records} records, {entries} entries in the manifest{broken}")?;
    writeln!(out, "checkpoints: {}, the last one {last}", archive.checkpoints)?;
    for (index, key) in archive.keys.iter().enumerate() {
        let why = match index {
            0 if on_faith => "  (taken on faith: --key FILE names those you trust)",
            0 => "",
            _ => "  (named by the one before)",
        };
        writeln!(out, "signed by {}{why}", segment::hex(key))?;
    }
    Ok(())
}

fn archive_json(archive: &ArchiveReport) -> serde_json::Value {
    serde_json::json!({
        "archive": true,
        "entries": archive.entries,
        "files": archive.files,
        "records": archive.records,
        "bytes": archive.bytes,
        "checkpoints": archive.checkpoints,
        "last_checkpoint": archive.last_checkpoint_us.map(when::rfc3339),
        "keys": archive.keys.iter().map(|key| segment::hex(key)).collect::<Vec<_>>(),
        "breaks": archive.breaks,
    })
}

fn break_json(broken: &Break) -> serde_json::Value {
    match broken {
        Break::Segment(damage) => serde_json::json!({
            "break": damage.kind.to_string(),
            "kind": damage.kind.word(),
            "file": damage.file,
            "shard": damage.shard,
            "segment": damage.segment,
            "offset": damage.offset,
            "frame": damage.frame,
        }),
        Break::Archive(broken) => serde_json::json!({
            "break": broken.kind.to_string(),
            "kind": broken.kind.word(),
            "file": broken.file,
            "line": broken.line,
        }),
    }
}

fn report_json(report: &ShardReport) -> serde_json::Value {
    serde_json::json!({
        "shard": report.shard,
        "segments": report.segments,
        "frames": report.frames,
        "records": report.records,
        "bytes": report.bytes,
        "since": report.times.map(|(first, _)| when::rfc3339(first)),
        "until": report.times.map(|(_, last)| when::rfc3339(last)),
        "breaks": report.breaks,
    })
}

fn print_reports(out: &mut impl io::Write, reports: &[ShardReport], width: u16) -> io::Result<()> {
    let mut table = plain_table(&["shard", "segments", "frames", "records", "from", "to", "breaks"], width);
    for report in reports {
        let time = |time: Option<i64>| time.map(when::short).unwrap_or_default();
        table.add_row([
            number(Some(u64::from(report.shard))),
            number(Some(report.segments)),
            number(Some(report.frames)),
            number(Some(report.records)),
            Cell::new(time(report.times.map(|(first, _)| first))),
            Cell::new(time(report.times.map(|(_, last)| last))),
            number(Some(report.breaks)),
        ]);
    }
    for column in table.column_iter_mut() {
        // A time goes on two lines before a number does, and neither is torn.
        column.set_constraint(match column.index {
            4 | 5 => ColumnConstraint::LowerBoundary(Width::Fixed(TIME_WIDTH)),
            _ => ColumnConstraint::ContentWidth,
        });
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::NOBODY;
    use crate::audit::{Entry, Journal as _, RingOptions, SegmentWriter};
    use crate::cli::out::{NobodyReads, UntilHungUp};

    #[test]
    fn the_table_of_verify_is_readable_in_a_narrow_terminal() {
        let report = ShardReport {
            shard: 0,
            segments: 12,
            frames: 123_456,
            records: 1_234_567,
            times: Some((1_795_142_000_123_456, 1_795_142_000_999_999)),
            ..ShardReport::default()
        };
        for width in [60, 80, 100, 160] {
            let mut out = Vec::new();
            print_reports(&mut out, std::slice::from_ref(&report), width).expect("printed");
            let text = String::from_utf8(out).expect("UTF-8");
            for part in ["SEGMENTS", "1234567", "2026-11-20", "02:33:20.123", "02:33:20.999", "BREAKS"] {
                assert!(text.contains(part), "{part} at {width} in\n{text}");
            }
        }
    }

    /// A trail of two frames, the first of them damaged or not.
    fn trail(damaged: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let options =
            RingOptions { data_dir: dir.path().to_owned(), shard: 0, segment_bytes: 16 << 10, segments_per_shard: 2 };
        let (mut writer, _) = SegmentWriter::open(&options, 0).expect("the trail opens");
        for detail in ["one", "two"] {
            writer.append(1_000_000, &NOBODY, &Entry::Gateway { detail }).expect("room");
            writer.write().expect("written");
        }
        if damaged {
            let path = segment::ring_path(&segment::ring_dir(dir.path(), 0), 1);
            let mut bytes = std::fs::read(&path).expect("readable");
            bytes[300] ^= 1;
            std::fs::write(&path, bytes).expect("writable");
        }
        dir
    }

    fn verified(dir: &Path, output: Format, out: &mut (impl io::Write + Send)) -> Result<String> {
        let trail = Trail { config: PathBuf::new(), dir: Some(dir.to_owned()) };
        let args = VerifyArgs { key: None, checkpoints: Vec::new(), package: None, output, trail };
        run_verify(args, out).map(|status| format!("{status:?}"))
    }

    #[test]
    fn the_status_of_verify_is_its_answer_also_where_nobody_reads_what_it_says() {
        let status = |status: u8| format!("{:?}", ExitCode::from(status));
        for (damaged, answer) in [(false, DONE), (true, ANSWER_NO)] {
            let dir = trail(damaged);
            for output in [Format::Table, Format::Json] {
                let mut said = Vec::new();
                let read = verified(dir.path(), output, &mut said).expect("it runs");
                assert_eq!(read, status(answer), "{}", String::from_utf8_lossy(&said));
                let unread = verified(dir.path(), output, &mut UntilHungUp::new(NobodyReads)).expect("it runs");
                assert_eq!(unread, status(answer));
                // A disk that is full, say: it could not answer.
                assert!(verified(dir.path(), output, &mut NobodyReads).is_err());
            }
        }
    }
}
