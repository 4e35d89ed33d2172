//! `lockgate policy replay`: what a changed policy would have decided on recorded traffic.

mod judge;
mod names;

use crate::audit::printable::{escape, json_safe, one_line};
use crate::audit::search::{Filter, Record, days, report_once, search};
use crate::audit::when;
use crate::cli::ANSWER_NO;
use crate::cli::audit::{answered, has_trail, in_order, is_folder, parse_time, report};
use crate::cli::out::{stdout, written};
use crate::config::Glob;
use crate::policy::{Action, Decision, MASK_RULE, Policy};
use anyhow::{Context as _, Result};
use judge::{Judge, Ruled};
use masking::sql::Class;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const DAY_US: i64 = 86_400_000_000;
/// Without `--since`.
const DEFAULT_DAYS: i64 = 7;
const STATEMENT_CHARS: usize = 100;

#[derive(clap::Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(clap::Subcommand)]
enum PolicyVerb {
    /// Tell what a changed configuration would have decided on recorded statements
    #[command(
        after_help = "Rules are asked as `lockgate explain` asks them. Not judged is what a mask refused, what was \
                            refused without a rule, a statement whose text was cut, and EXECUTE or FETCH of a name whose \
                            PREPARE or DECLARE was not recorded in the time asked for; each is counted.

Exit status 3 where a part of the trail could not be read, unless --fail-on-deny has found a reason for 1."
    )]
    Replay(ReplayArgs),
}

#[derive(clap::Args)]
struct ReplayArgs {
    /// The changed configuration
    #[arg(long, value_name = "NEW")]
    config: PathBuf,
    /// The data directory whose trail is judged
    #[arg(long, value_name = "DIR")]
    archive: PathBuf,
    /// Only statements of this user
    #[arg(long, value_parser = Glob::new)]
    user: Vec<Glob>,
    /// Only on this target
    #[arg(long, value_parser = Glob::new)]
    target: Vec<Glob>,
    /// From this time on [default: 7d before --until]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// Up to this time [default and latest: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Exit with 1 when something that ran would be denied
    #[arg(long)]
    fail_on_deny: bool,
    /// A summary, or every statement that would be decided otherwise as a JSON object a line
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

pub fn run(args: PolicyArgs) -> Result<ExitCode> {
    let PolicyVerb::Replay(args) = args.verb;
    let config = super::given::load(&args.config)?;
    let mut judge = Judge::new(Policy::compile(&config));
    let data_dir = data_dir(&args.archive)?;
    in_order(args.since, args.until)?;
    let (since_us, until_us) = asked_for(args.since, args.until, jiff::Timestamp::now().as_microsecond());
    let mut tally = Tally::default();
    let mut out = io::BufWriter::new(stdout());
    // Damage shows on each day on which it is met.
    let mut damages = Vec::new();
    let mut trouble = |found| report_once(&mut damages, found, &mut |found| report(&found));
    let unreadable = "the trail cannot be read";
    // A day at a time: a trail is longer than memory.
    for (first_us, last_us) in days(&data_dir, since_us, until_us, &mut trouble).context(unreadable)? {
        let filter = Filter {
            users: args.user.clone(),
            targets: args.target.clone(),
            kinds: Glob::new("statement").into_iter().collect(),
            since_us: Some(first_us),
            until_us: Some(last_us),
            ..Filter::default()
        };
        for record in search(&data_dir, &filter, None, false, &mut trouble).context(unreadable)? {
            if let Some(change) = tally.judge(&mut judge, record)
                && args.output == "json"
            {
                written(writeln!(out, "{}", json_safe(&change.json().to_string())))?;
            }
        }
    }
    if args.output == "table" {
        written(tally.print(&mut out))?;
    }
    written(out.flush())?;
    note!("{}", tally.summary());
    if tally.met == 0 {
        note!("lockgate: no recorded statement matches: nothing was judged");
    }
    let whole = answered(damages.len() as u64);
    let denied = tally.changes.iter().any(|((was, now), _)| !was.is_deny() && now.is_deny());
    Ok(if denied && args.fail_on_deny { ExitCode::from(ANSWER_NO) } else { whole })
}

/// What is still to come has not been recorded: without `--since` it would take the place of what has.
fn asked_for(since_us: Option<i64>, until_us: Option<i64>, now_us: i64) -> (i64, i64) {
    let until_us = until_us.unwrap_or(now_us).min(now_us);
    (since_us.unwrap_or(until_us.saturating_sub(DEFAULT_DAYS * DAY_US)), until_us)
}

/// `--archive` names a data directory with a trail, or the `archive` folder in it.
fn data_dir(dir: &Path) -> Result<PathBuf> {
    is_folder(dir)?;
    // The parent of `.` shows only then.
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    let is_archive = dir.join("manifest.jsonl").is_file();
    let data_dir = dir.parent().filter(|_| is_archive).unwrap_or(&dir);
    has_trail(data_dir)?;
    Ok(data_dir.to_owned())
}

/// A verdict and the rule that gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Verdict {
    action: String,
    rule: Option<String>,
}

impl Verdict {
    fn is_deny(&self) -> bool {
        self.action == Action::Deny.name()
    }

    /// In one sentence why, with it.
    fn of(decision: &Decision) -> (Self, String) {
        let rule = decision.rule.as_deref().map(str::to_owned);
        (Self { action: decision.action.name().to_owned(), rule }, decision.why().to_string())
    }

    fn no_grant() -> (Self, String) {
        let deny = Self { action: Action::Deny.name().to_owned(), rule: None };
        (deny, "no grant opens this target for this user".to_owned())
    }

    fn text(&self) -> String {
        let rule = self.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        escape(&format!("{}{rule}", self.action))
    }

    fn json(&self) -> serde_json::Value {
        json!({ "action": self.action, "rule": self.rule })
    }
}

/// A statement that would be decided otherwise.
struct Change {
    record: Record,
    was: Verdict,
    now: Verdict,
    reason: String,
}

impl Change {
    fn json(&self) -> serde_json::Value {
        let record = &self.record;
        json!({
            "id": record.id,
            "time": when::rfc3339(record.time_us),
            "user": record.user,
            "target": record.target,
            "statement": record.statement,
            "classes": record.classes,
            "tables": record.tables,
            "was": self.was.json(),
            "now": self.now.json(),
            "reason": self.reason,
        })
    }
}

#[derive(Default)]
struct Tally {
    /// All that matched, judged or not.
    met: u64,
    judged: u64,
    cut: u64,
    named: u64,
    masked: u64,
    unruled: u64,
    /// How many, and one of them.
    changes: BTreeMap<(Verdict, Verdict), (u64, String, String)>,
}

impl Tally {
    fn judge(&mut self, judge: &mut Judge, record: Record) -> Option<Change> {
        let (statement, action) = (record.statement.clone()?, record.decision.clone()?);
        self.met += 1;
        if record.statement_bytes.is_some() {
            self.cut += 1;
            judge.pass(&record);
            return None;
        }
        let was = Verdict { action, rule: record.rule.clone() };
        let (now, reason) = match judge.decide(&record, &statement) {
            Ruled::By(decision) if decision.action == Action::Approve && is_beyond_ruling(&record) => {
                Verdict::of(&Decision { action: Action::Deny, ..decision })
            }
            Ruled::By(decision) => Verdict::of(&decision),
            Ruled::NoGrant => Verdict::no_grant(),
            Ruled::UnknownName => {
                self.named += 1;
                return None;
            }
        };
        if was.is_deny() && !now.is_deny() {
            match was.rule.as_deref() {
                Some(MASK_RULE) => self.masked += 1,
                None if !rules_suffice(&record) => self.unruled += 1,
                Some(_) | None => return self.count(record, was, now, reason),
            }
            return None;
        }
        self.count(record, was, now, reason)
    }

    fn count(&mut self, record: Record, was: Verdict, now: Verdict, reason: String) -> Option<Change> {
        self.judged += 1;
        if was == now {
            return None;
        }
        let example = || (0, record.id.clone(), one_line(record.statement.as_deref().unwrap_or(""), STATEMENT_CHARS));
        self.changes.entry((was.clone(), now.clone())).or_insert_with(example).0 += 1;
        Some(Change { record, was, now, reason })
    }

    fn print(&self, out: &mut impl io::Write) -> io::Result<()> {
        for ((was, now), (count, id, statement)) in &self.changes {
            writeln!(out, "{count:>9}  {} -> {}   for example {id}: {statement}", was.text(), now.text())?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let changed: u64 = self.changes.values().map(|(count, ..)| count).sum();
        let mut text = format!("{} statements judged, {changed} would be decided otherwise", self.judged);
        for (count, why) in [
            (self.cut, "their text was cut"),
            (self.named, "what a name in them stands for was not recorded in this time"),
            (self.masked, "a mask refused them"),
            (self.unruled, "they were refused without a rule, for what the gateway knew of their session"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} not judged: {why}"));
            }
        }
        text
    }
}

/// Refused without a rule's name, and yet by rules alone: what does not parse, and function calls.
fn rules_suffice(record: &Record) -> bool {
    [Class::FunctionCall, Class::Unparsed].iter().any(|class| record.classes.contains(&class.name()))
}

/// Nobody is asked for a statement whose values are too long to be shown: the gateway refuses it, by the same rule. What was held was
/// shown.
fn is_beyond_ruling(record: &Record) -> bool {
    let is_cut = |bind: &String| bind.ends_with('…');
    let cut = record.cut.contains(&"binds") || record.binds.iter().flatten().any(is_cut);
    cut && record.decision.as_deref() != Some(Action::Approve.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Entry, Journal as _, Request, RingOptions, SegmentWriter, Who};

    const CONFIG: &str = r#"
[server]
data_dir = "data"

[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"

[[issuer]]
name = "dev"
issuer = "lockgate-development"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "jwks.json"

[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "shop"
user = "svc"
password_env = "PASSWORD"
tls = "disable"

[[grant]]
targets = ["orders"]
users = ["alice"]

[[rule]]
name = "no-drop"
targets = ["orders"]
classes = ["drop", "delete"]
action = "deny"
message = "no"

[[rule]]
name = "ask"
targets = ["orders"]
classes = ["truncate"]
action = "approve"
approvers = ["carol"]
"#;

    fn who<'a>(session: &'a str, user: &'a str) -> Who<'a> {
        Who {
            session,
            user,
            groups: &[],
            actor: &[],
            target: "orders",
            client: "",
            application: "",
            claimed_user: "",
            packed: None,
        }
    }

    fn request(number: u64, statement: &str) -> Request<'_> {
        Request {
            request: number,
            statement: statement.as_bytes(),
            statement_bytes: statement.len() as u64,
            binds: &[],
            classes: 1,
            tables: &[],
            decision: "allow",
            rule: "",
            ticket: "",
        }
    }

    /// What the changed policy says of these, in that order.
    fn judged(requests: &[(&Who<'_>, Request<'_>)]) -> (Vec<(String, String, String)>, Tally) {
        let dir = tempfile::tempdir().expect("a directory");
        let options =
            RingOptions { data_dir: dir.path().to_owned(), shard: 0, segment_bytes: 64 << 10, segments_per_shard: 2 };
        let (mut writer, _) = SegmentWriter::open(&options, 0).expect("the trail opens");
        for (who, request) in requests {
            writer.append(1_000_000, who, &Entry::Request(*request)).expect("room");
        }
        writer.write().expect("written");
        let config = crate::config::parse(CONFIG, Path::new("new.toml")).expect("a good configuration");
        let mut judge = Judge::new(Policy::compile(&config));
        let mut tally = Tally::default();
        let records = search(dir.path(), &Filter::default(), None, false, &mut |_| {}).expect("readable");
        let changes = records.into_iter().filter_map(|record| tally.judge(&mut judge, record));
        let told = changes.map(|change| (change.record.id.clone(), change.was.text(), change.now.text())).collect();
        (told, tally)
    }

    /// With classes and tables as the gateway records them: of what a name stands for as well.
    fn about<'a>(request: Request<'a>, classes: &[Class], tables: &'a [String]) -> Request<'a> {
        let mut all = masking::sql::Classes::default();
        classes.iter().for_each(|class| all.insert(*class));
        Request { classes: all.0, tables, ..request }
    }

    /// Nobody may delete.
    #[test]
    fn what_a_name_stands_for_is_judged_with_it_or_not_at_all() {
        let (one, other, tables) = (who("a", "alice"), who("b", "alice"), ["t".to_owned()]);
        let failed = Request { decision: "deny", rule: "no-drop", ..request(5, "PREPARE q AS DELETE FROM t") };
        let (told, tally) = judged(&[
            (&one, request(1, "PREPARE p AS DELETE FROM t")),
            (&one, about(request(2, "EXECUTE p"), &[Class::Execute, Class::Prepare, Class::Delete], &tables)),
            (&one, request(3, "PREPARE s AS SELECT 1")),
            (&one, about(request(4, "EXECUTE s"), &[Class::Execute, Class::Prepare, Class::Select], &[])),
            (&one, failed),
            (&one, request(6, "EXECUTE q")),
            // Another name of the same text, prepared where nobody saw it.
            (&one, about(request(7, "EXECUTE s"), &[Class::Execute, Class::Prepare, Class::Delete], &tables)),
            (&other, request(1, "EXECUTE p")),
            (&one, request(8, "DEALLOCATE s")),
            (&one, request(9, "EXECUTE s")),
            (&one, request(10, "FETCH c")),
            (&one, request(11, "PREPARE here AS SELECT 1; EXECUTE here")),
        ]);
        let denied: Vec<_> = told.iter().map(|(id, ..)| id.as_str()).collect();
        assert_eq!(denied, ["0-1", "0-2"], "{told:?}");
        assert_eq!((tally.judged, tally.named), (7, 5), "{}", tally.summary());
        assert!(tally.summary().contains("5 not judged: what a name in them stands for"));
    }

    #[test]
    fn a_text_is_judged_under_either_setting_of_its_strings() {
        let text = r"SELECT '\''; DROP TABLE t; --'";
        let (told, tally) = judged(&[(&who("a", "alice"), request(1, text))]);
        assert_eq!((told.len(), tally.judged), (1, 1), "{told:?}");
    }

    #[test]
    fn what_was_refused_without_a_rule_is_told_apart_from_what_a_mask_refused() {
        let alice = who("a", "alice");
        let deny = |number, text, rule| Request { decision: "deny", rule, ..request(number, text) };
        let (told, tally) = judged(&[
            (&alice, deny(1, "COPY t TO STDOUT", MASK_RULE)),
            (&alice, deny(2, "SELECT 1", "")),
            (&alice, about(deny(3, "function call", ""), &[Class::FunctionCall], &[])),
        ]);
        assert_eq!((tally.masked, tally.unruled, tally.judged), (1, 1, 1), "{told:?}");
    }

    #[test]
    fn what_is_too_long_to_be_approved_stays_refused() {
        let alice = who("a", "alice");
        let (long, short) = ([Some("xxx…")], [Some("x")]);
        let refused = |number, binds| Request { decision: "deny", rule: "ask", binds, ..request(number, "TRUNCATE t") };
        let allowed = Request { binds: &long, ..request(3, "TRUNCATE t") };
        let (told, _) = judged(&[(&alice, refused(1, &long)), (&alice, refused(2, &short)), (&alice, allowed)]);
        let told: Vec<_> = told.iter().map(|(id, was, now)| (id.as_str(), was.as_str(), now.as_str())).collect();
        assert_eq!(told, [("0-2", "deny (ask)", "approve (ask)"), ("0-3", "allow", "deny (ask)")]);
    }

    #[test]
    fn a_time_to_come_does_not_push_aside_what_was_recorded() {
        let (now, week) = (1_000 * DAY_US, DEFAULT_DAYS * DAY_US);
        for (since, until, wanted) in [
            (None, None, (now - week, now)),
            (None, Some(i64::MAX), (now - week, now)),
            (None, Some(now - 1), (now - 1 - week, now - 1)),
            (Some(5), Some(i64::MAX), (5, now)),
            (Some(now + 1), None, (now + 1, now)),
        ] {
            assert_eq!(asked_for(since, until, now), wanted);
        }
    }

    #[test]
    fn only_a_folder_with_a_trail_is_judged() {
        let dir = tempfile::tempdir().expect("a directory");
        let whole = dir.path().canonicalize().expect("it is there");
        let error = data_dir(dir.path()).expect_err("no trail");
        assert!(error.to_string().contains("there is no audit trail"), "{error}");
        data_dir(&whole.join("nowhere")).expect_err("no folder");
        let archive = whole.join("archive");
        std::fs::create_dir(&archive).expect("made");
        assert_eq!(data_dir(dir.path()).expect("a trail"), whole);
        std::fs::write(archive.join("manifest.jsonl"), "").expect("written");
        assert_eq!(data_dir(&archive).expect("a trail"), whole);
        assert_eq!(data_dir(&archive.join(".")).expect("a trail"), whole);
    }

    /// Statements, their recorded verdict, and what a policy without drops and without bob would say.
    #[test]
    fn what_would_be_decided_otherwise_is_counted_and_told() {
        let (alice, bob) = (who("a", "alice"), who("b", "bob"));
        let denied = Request { decision: "deny", rule: "old", ..request(3, "INSERT INTO t VALUES (1)") };
        let by_mask = Request { decision: "deny", ..request(4, "COPY t TO STDOUT") };
        let named = Request { decision: "deny", rule: MASK_RULE, ..request(6, "COPY t TO STDOUT (FORMAT binary)") };
        let cut = Request { statement_bytes: 99, ..request(5, "DROP TABLE") };
        let (told, tally) = judged(&[
            (&alice, request(1, "SELECT 1")),
            (&alice, request(2, "DROP TABLE t")),
            (&alice, denied),
            (&alice, by_mask),
            (&alice, named),
            (&alice, cut),
            (&bob, request(1, "SELECT 1")),
        ]);
        let told: Vec<_> = told.iter().map(|(id, was, now)| (id.as_str(), was.clone(), now.clone())).collect();
        let wanted = [
            ("0-2", "allow".to_owned(), "deny (no-drop)".to_owned()),
            ("0-3", "deny (old)".to_owned(), "allow".to_owned()),
            ("0-7", "allow".to_owned(), "deny".to_owned()),
        ];
        assert_eq!(told, wanted);
        assert_eq!((tally.judged, tally.cut, tally.masked, tally.unruled), (4, 1, 1, 1));
        assert!(tally.summary().starts_with("4 statements judged, 3 would be decided otherwise"));
    }
}
