//! The command line.

use crate::check::{Expectations, Level, Pattern, Wrong};
use crate::compare::{self, Endpoint};
use crate::measure::{Point, time};
use crate::process::Server;
use crate::program::{Program, Protocol, Variable, variable};
use crate::respond::{self, Canned};
use crate::rng::fresh_seed;
use crate::run::{self, CheckFailed, Outcome, Settings};
use crate::saturate::{self, Search};
use crate::schedule::{Arrivals, Profile};
use crate::target::{Target, TlsMode, redact};
use crate::{hlog, manifest, output, report, selftest, sys};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT: &str = "Exit status: 0 done; 1 the answer is no (a threshold was missed, a check failed); 2 wrong usage; 3 could \
not run, or the generator itself was too late to tell.";

#[derive(Parser, Debug)]
#[command(
    name = "lockgate-loadgen",
    version,
    about = "Load on PostgreSQL servers and proxies, with numbers that can be believed"
)]
#[command(after_help = EXIT, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Put load on one target and tell how it coped
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Two to six endpoints side by side, in interleaved rounds
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Box<CompareArgs>),
    /// Search the highest rate at which p99 stays under a bound
    #[command(after_help = SATURATE_EXAMPLES)]
    Saturate(Box<SaturateArgs>),
    /// Check this generator: a stalled server must show as arithmetic says, a queue as pgbench -R sees it
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(SelftestArgs),
    /// Be a PostgreSQL server that answers every query with the same rows
    #[command(after_help = RESPOND_EXAMPLES)]
    Respond(RespondArgs),
}

const RUN_EXAMPLES: &str = "Examples:
  # 20,000 requests a second, whatever the server does, for 30 s after 5 s of warm-up
  lockgate-loadgen run --target postgres://me@127.0.0.1:5432/shop --rate 20000 --connections 32 --duration 30s --warmup 5s
  # through a gateway, token from the environment; no card number may come through; a page to show around
  PGPASSWORD=$TOKEN lockgate-loadgen run --target 'postgres://x@gw:6432/orders?sslmode=require' --rate 500 \\
      --sql 'SELECT * FROM customers LIMIT 50' --expect-masked '####-####-####-####' --report report.html
  # in CI: fails when p99 is above 2 ms or anything went wrong
  lockgate-loadgen run --target ... --rate 1000 --workload prepared --fail-p99 2ms --fail-errors 0
  # pgbench's select-only script
  lockgate-loadgen run --target ... --rate 5000 --arrivals poisson --workload prepared \\
      --set 'aid=random(1,100000)' --sql 'SELECT abalance FROM pgbench_accounts WHERE aid = :aid'

Open loop is the default: send times are fixed in advance, and response time counts from then, so a server that stalls is
charged for everybody who would have waited. --closed sends the next request when the last is answered.

Exit status: 0 done; 1 a threshold was missed; 2 wrong usage; 3 could not run, or the generator itself was too late to tell.";

const COMPARE_EXAMPLES: &str = "Examples:
  lockgate-loadgen compare --endpoint direct=postgres://me@127.0.0.1:5432/shop --endpoint bouncer=postgres://me@127.0.0.1:6433/shop \\
      --endpoint gateway=postgres://me@127.0.0.1:6432/shop --rate 4000 --workload prepared --rounds 9 --round-time 3s
  lockgate-loadgen compare --endpoint a=... --endpoint b=... --closed --pid b=1234 -o json

Each round runs every endpoint once, in random order, on connections of its own. Ratios are to the first endpoint. CPU is that of the process
that listens on the endpoint's port on this machine, with its children, or of --pid NAME=PID.

Exit status: 0 done; 1 requests failed; 2 wrong usage; 3 could not run, or the generator was too late in more than half of the rounds.";

const SATURATE_EXAMPLES: &str = "Examples:
  lockgate-loadgen saturate --target postgres://me@127.0.0.1:6432/shop --p99 2ms --workload prepared --connections 64
  lockgate-loadgen saturate --target ... --p99 500us --from 5k --max 200k --probe 5s -o json

The rate doubles until p99 is above the bound, answers fall behind or requests fail (tried twice each); then the gap is
halved until it is below --precision.

Exit status: 0 found; 1 not even the first rate held; 2 wrong usage; 3 could not run, or the generator itself was the limit.";

const SELFTEST_EXAMPLES: &str = "Examples:
  lockgate-loadgen selftest
  lockgate-loadgen selftest --no-pgbench -o json

It starts responders of its own, stops one for 200 ms in a run of 5 s at 2,000 requests a second, and compares percentiles with
what follows from that. If pgbench is there (in the path or under /usr/lib/postgresql), both measure the same queue in turn.

Exit status: 0 all checks passed; 1 one did not; 2 wrong usage; 3 could not run.";

const RESPOND_EXAMPLES: &str = "Examples:
  lockgate-loadgen respond --port 5440
  lockgate-loadgen respond --port 0 --rows 10 --value 4111-1111-1111-1111 --value ann@example.com --password secret

It listens on loopback, lets everybody in (or those with --password), and answers SELECT, COPY TO STDOUT, SHOW, BEGIN and the
like in both protocols without a look at what they say.";

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Workload {
    /// One Query message a request
    Simple,
    /// Parse, Bind, Describe, Execute, Sync a request
    Extended,
    /// Parsed once a connection, then Bind, Describe, Execute, Sync
    Prepared,
    /// As prepared, with --depth requests in flight on a connection
    Pipelined,
    /// COPY ... TO STDOUT by Query message
    CopyOut,
    /// A connection and a login for every request
    Churn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ArrivalsArg {
    /// Evenly spaced
    Constant,
    /// At random, as independent clients arrive
    Poisson,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LevelArg {
    /// Every byte of every row as in the first response
    Same,
    /// As many rows and columns as in the first response
    Rows,
    /// No error
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What is sent, and what is right.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Workload")]
pub struct WorkloadArgs {
    /// Protocol and shape of a request
    #[arg(long, value_enum, default_value = "simple")]
    pub workload: Workload,
    /// The statement; `:name` stands for a variable [default: SELECT 1; with copy-out COPY (SELECT ...) of 10,000 rows]
    #[arg(long, value_name = "SQL", conflicts_with = "script")]
    sql: Option<String>,
    /// Statements in pgbench's script language: `\set NAME random(A, B)`, statements that end with a semicolon. One request
    /// is one pass
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// A variable, drawn anew for every request
    #[arg(long, value_name = "NAME=random(A,B)", value_parser = parse_variable)]
    set: Vec<Variable>,
    /// Requests in flight on one connection, with `pipelined`
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// How closely responses have to agree with the first one [default: same; rows where variables are used]
    #[arg(long, value_enum)]
    check: Option<LevelArg>,
    /// Each response must have that many rows
    #[arg(long, value_name = "N")]
    expect_rows: Option<u64>,
    /// Each response must have that value somewhere
    #[arg(long, value_name = "TEXT")]
    expect_value: Option<String>,
    /// No value may contain this shape: `#` a digit, `@` a letter, `?` either, else itself
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    expect_masked: Option<Pattern>,
}

/// How the load is put.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Connections, all opened before the load begins
    #[arg(long, short = 'c', default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Load threads; one sends 100,000 requests a second and more
    #[arg(long, short = 'j', default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How send times are spaced
    #[arg(long, value_enum, default_value = "constant")]
    arrivals: ArrivalsArg,
    /// A request that takes longer has failed, and its connection is replaced
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_time)]
    timeout: f64,
    /// Refuse to print percentiles when the generator's own send lag p99.9 is above
    #[arg(long, default_value = "1ms", value_name = "TIME", value_parser = parse_time)]
    lag_limit: f64,
    /// Wake this much before a send is due and poll: less lag, more CPU
    #[arg(long, default_value = "0us", value_name = "TIME", value_parser = parse_time)]
    spin: f64,
    /// Seed of arrivals and variables, to repeat a run exactly [default: a new one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Read the password or token from this file [default: the target's URL, else PGPASSWORD]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=...&host=SOCKET_DIRECTORY]
    #[arg(long, short = 't', value_name = "URL")]
    target: String,
    /// Requests a second, over all connections
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate, required_unless_present_any = ["closed", "profile"])]
    rate: Option<f64>,
    /// A rate that moves over the duration: `ramp:FROM-TO` or `step:RATE,RATE,...`
    #[arg(long, conflicts_with = "rate", value_name = "PROFILE", value_parser = parse_profile)]
    profile: Option<Profile>,
    /// Closed loop: every connection sends its next request when the last is answered
    #[arg(long, conflicts_with_all = ["rate", "profile"])]
    closed: bool,
    /// Measure for that long [default: 10s, unless --count]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = parse_time)]
    duration: Option<f64>,
    /// Measure that many requests
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Load before measuring begins; discarded
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_time)]
    warmup: f64,
    /// Length of an interval of the time series
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_time)]
    interval: f64,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Exit with 1 when the response time's p50 is above
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Thresholds")]
    fail_p50: Option<f64>,
    /// The same for p99
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Thresholds")]
    fail_p99: Option<f64>,
    /// The same for p99.9
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Thresholds")]
    fail_p999: Option<f64>,
    /// Exit with 1 when more requests than that failed
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    fail_errors: Option<u64>,
    /// Exit with 1 when fewer requests a second were answered
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Thresholds")]
    fail_rate: Option<f64>,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    output: Format,
    /// Write an HdrHistogram interval log of response times, nanoseconds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hlog: Option<PathBuf>,
    /// Write a page with plots and the environment: one file, nothing loaded from elsewhere
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    report: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct CompareArgs {
    /// NAME=URL; two to six of them
    #[arg(long, short = 'e', required = true, value_name = "NAME=URL", value_parser = parse_pair)]
    endpoint: Vec<(String, String)>,
    /// The process whose CPU belongs to an endpoint, with its children [default: whoever listens on the endpoint's port]
    #[arg(long, value_name = "NAME=PID", value_parser = parse_pair)]
    pid: Vec<(String, String)>,
    /// Requests a second on each endpoint
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate, required_unless_present = "closed")]
    rate: Option<f64>,
    /// Closed loop instead
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Rounds
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long an endpoint is measured in a round
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_time)]
    round_time: f64,
    /// Load before each measurement; discarded
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = parse_time)]
    warmup: f64,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    output: Format,
}

#[derive(Args, Debug)]
struct SaturateArgs {
    /// As for `run`
    #[arg(long, short = 't', value_name = "URL")]
    target: String,
    /// The bound on the response time's p99
    #[arg(long, default_value = "2ms", value_name = "TIME", value_parser = parse_time)]
    p99: f64,
    /// First rate to try
    #[arg(long, default_value = "1k", value_name = "N", value_parser = parse_rate)]
    from: f64,
    /// Highest rate to try
    #[arg(long, default_value = "1000k", value_name = "N", value_parser = parse_rate)]
    max: f64,
    /// How long each rate is held
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_time)]
    probe: f64,
    /// Ends when the rate that holds and the one that does not are this close, per cent
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    precision: f64,
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    output: Format,
}

#[derive(Args, Debug)]
struct RespondArgs {
    /// Port on 127.0.0.1; 0 takes any that is free and prints it
    #[arg(long, default_value_t = 5440)]
    port: u16,
    /// Rows of every query
    #[arg(long, default_value_t = 1, value_name = "N")]
    rows: usize,
    /// Rows of every COPY TO STDOUT
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    copy_rows: usize,
    /// A column's value; repeat for more columns
    #[arg(long, default_value = "1", value_name = "TEXT")]
    value: Vec<String>,
    /// Ask for this password
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,
    /// Hold every answer back for that long
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_time)]
    delay: f64,
}

#[derive(Args, Debug)]
struct SelftestArgs {
    /// Leave out the comparison with pgbench, which takes a minute
    #[arg(long)]
    no_pgbench: bool,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    output: Format,
}

/// The status a verdict exits with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Yes,
    No,
    CannotTell,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Clap exits with 2 on wrong usage, with 0 on --help.
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Run(args) => run_verb(&args),
        Verb::Compare(args) => compare_verb(&args),
        Verb::Saturate(args) => saturate_verb(&args),
        Verb::Selftest(args) => selftest_verb(&args),
        Verb::Respond(args) => respond_verb(&args),
    };
    match result {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Ok(Verdict::CannotTell) => ExitCode::from(3),
        Err(error) => {
            eprintln!("lockgate-loadgen: {error:#}");
            ExitCode::from(if error.is::<CheckFailed>() {
                1
            } else if error.is::<Usage>() {
                2
            } else {
                3
            })
        }
    }
}

/// Arguments that cannot be meant, found after clap was content.
#[derive(Debug)]
struct Usage(String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn usage(error: anyhow::Error) -> anyhow::Error {
    Usage(format!("{error:#}")).into()
}

fn run_verb(args: &RunArgs) -> Result<Verdict> {
    sys::catch_interrupt();
    let profile = args.rate.map(Profile::Flat).or(args.profile.clone()).filter(|_| !args.closed);
    let mut settings = settings(&args.target, &args.workload, &args.load, profile).map_err(usage)?;
    settings.duration_s = args.duration.or(args.count.is_none().then_some(10.0));
    settings.count = args.count;
    settings.warmup_s = args.warmup;
    settings.interval_s = args.interval;
    ensure!(args.interval >= 0.01, "--interval must be 10 ms or more");
    ensure!(
        args.profile.is_none() || settings.duration_s.is_some(),
        "a --profile needs a --duration, over which it moves"
    );
    let bar = progress_bar();
    let outcome = run::run(&settings, &mut |point, warmup| show_progress(&bar, point, warmup))?;
    bar.finish_and_clear();
    let misses = misses(args, &outcome);
    let mut value = output::json(&outcome, &describe(&settings));
    value["thresholds_missed"] = json!(misses);
    if let Some(file) = &args.hlog {
        let log = hlog::head() + &outcome.hlog.concat();
        fs::write(file, log).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.report {
        fs::write(file, report::page(&value)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match args.output {
        Format::Json => println!("{value}"),
        Format::Table => print!("{}", output::table(&title(&settings), &outcome)),
    }
    misses.iter().for_each(|miss| eprintln!("missed: {miss}"));
    let asks_time = args.fail_p50.or(args.fail_p99).or(args.fail_p999).is_some();
    Ok(match (&outcome.late, misses.is_empty()) {
        (_, false) => Verdict::No,
        (Some(late), true) => {
            if asks_time {
                eprintln!("thresholds on time cannot be judged: {late}");
            }
            Verdict::CannotTell
        }
        (None, true) if outcome.total.response.is_empty() => {
            eprintln!("lockgate-loadgen: no request was answered rightly");
            Verdict::CannotTell
        }
        (None, true) => Verdict::Yes,
    })
}

/// Which thresholds were missed, in words.
fn misses(args: &RunArgs, outcome: &Outcome) -> Vec<String> {
    let mut misses = Vec::new();
    // A wrong answer is never fine; a server's error may be, up to --fail-errors.
    let wrong = outcome.total.faults.iter().filter(|(kind, _)| Wrong::is_kind(kind));
    misses.extend(wrong.map(|(kind, (count, _))| format!("{count} responses: {kind}")));
    let limits = [("p50", 0.5, args.fail_p50), ("p99", 0.99, args.fail_p99), ("p99.9", 0.999, args.fail_p999)];
    for (name, quantile, limit) in limits {
        let Some(limit) = limit.filter(|_| outcome.late.is_none()) else { continue };
        let (found, limit) = (outcome.total.response.value_at_quantile(quantile), (limit * 1e9) as u64);
        if outcome.total.response.is_empty() || found > limit {
            misses.push(format!("{name} is {}, the limit {}", time(found), time(limit)));
        }
    }
    let errors = outcome.total.faults_total();
    if let Some(limit) = args.fail_errors.filter(|&limit| errors > limit) {
        misses.push(format!("{errors} errors, the limit {limit}"));
    }
    if let Some(limit) = args.fail_rate.filter(|&limit| outcome.achieved < limit) {
        misses.push(format!("{:.1} answers a second, the limit {limit}", outcome.achieved));
    }
    misses
}

fn compare_verb(args: &CompareArgs) -> Result<Verdict> {
    sys::catch_interrupt();
    let seed = args.load.seed.unwrap_or_else(fresh_seed);
    let mut endpoints = Vec::new();
    for (name, url) in &args.endpoint {
        let profile = args.rate.map(Profile::Flat).filter(|_| !args.closed);
        let mut settings = settings(url, &args.workload, &args.load, profile).map_err(usage)?;
        settings.duration_s = Some(args.round_time);
        settings.warmup_s = args.warmup;
        // CPU is read at the ends of intervals: two in a round's warm-up, many in its measurement.
        settings.interval_s = (args.round_time / 10.0).clamp(0.01, 0.25);
        settings.seed = seed;
        let server = match args.pid.iter().find(|(named, _)| named == name) {
            Some((_, pid)) => {
                Some(Server::of_pid(pid.parse().with_context(|| format!("--pid {name}={pid} is no number"))?)?)
            }
            None => Server::listening_on(settings.target.port).ok(),
        };
        endpoints.push(Endpoint { name: name.clone(), settings, server });
    }
    for (name, _) in &args.pid {
        ensure!(endpoints.iter().any(|endpoint| endpoint.name == *name), "--pid names `{name}`, which is no endpoint");
    }
    let bar = progress_bar();
    let rounds = usize::from(args.rounds);
    let comparison = compare::compare(&endpoints, rounds, seed, &mut |round, name, rate| {
        bar.set_message(format!("round {round} of {rounds}: {name} {rate:.0}/s"));
        bar.tick();
    })?;
    bar.finish_and_clear();
    if comparison.rounds() == 0 {
        bail!(
            "the generator itself was late in every round; use a lower --rate, more --threads or a higher --lag-limit"
        );
    }
    match args.output {
        Format::Json => {
            let mut value = comparison.json();
            value["manifest"] = manifest::collect();
            println!("{value}");
        }
        Format::Table => print!("{}", comparison.table()),
    }
    Ok(match comparison.faults {
        0 if comparison.late_rounds > comparison.rounds() => Verdict::CannotTell,
        0 => Verdict::Yes,
        _ => Verdict::No,
    })
}

fn saturate_verb(args: &SaturateArgs) -> Result<Verdict> {
    sys::catch_interrupt();
    let mut settings =
        settings(&args.target, &args.workload, &args.load, Some(Profile::Flat(args.from))).map_err(usage)?;
    settings.duration_s = Some(args.probe);
    settings.warmup_s = (args.probe / 4.0).min(1.0);
    ensure!(args.precision > 0.0 && args.from <= args.max, "--precision must be above 0, and --from at most --max");
    let search = Search {
        from: args.from,
        rate_max: args.max,
        bound_ns: (args.p99 * 1e9) as u64,
        precision: args.precision / 100.0,
    };
    let found = saturate::saturate(&settings, search, &mut |probe| {
        let verdict = probe.why_not.as_deref().unwrap_or("held");
        eprintln!("{:>9.0}/s  p99 {:>8}  {verdict}", probe.rate, time(probe.p99_ns));
    })?;
    match args.output {
        Format::Json => {
            let mut value = found.json();
            value["settings"] = describe(&settings);
            value["manifest"] = manifest::collect();
            println!("{value}");
        }
        Format::Table => match found.rate {
            Some(rate) => println!("{rate:.0}/s with p99 under {}; {}", time(search.bound_ns), found.limit),
            None => println!("no rate held: {}", found.limit),
        },
    }
    Ok(match (found.rate, found.own_fault) {
        (_, true) => {
            eprintln!("the generator was the limit: the target may do more");
            Verdict::CannotTell
        }
        (Some(_), false) => Verdict::Yes,
        (None, false) => Verdict::No,
    })
}

fn selftest_verb(args: &SelftestArgs) -> Result<Verdict> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut checks = selftest::stall(&program)?;
    checks.extend(selftest::canaries(&program)?);
    match selftest::find_pgbench().filter(|_| !args.no_pgbench) {
        Some(pgbench) => checks.extend(selftest::against_pgbench(&program, &pgbench)?),
        None => eprintln!("not compared with pgbench: it is not there, or --no-pgbench was given"),
    }
    let passed = checks.iter().all(|check| check.passed);
    match args.output {
        Format::Json => {
            let checks: Vec<Value> = checks.iter().map(selftest::Check::json).collect();
            println!("{}", json!({"passed": passed, "checks": checks, "manifest": manifest::collect()}));
        }
        Format::Table => {
            for check in &checks {
                let verdict = if check.passed { "ok    " } else { "FAILED" };
                println!("{verdict} {}: expected {}, found {}", check.name, check.expected, check.found);
            }
        }
    }
    Ok(if passed { Verdict::Yes } else { Verdict::No })
}

fn respond_verb(args: &RespondArgs) -> Result<Verdict> {
    let canned = Canned {
        rows: args.rows,
        copy_rows: args.copy_rows,
        values: args.value.clone(),
        password: args.password.clone(),
        delay_ns: (args.delay * 1e9) as u64,
    };
    respond::serve(([127, 0, 0, 1], args.port).into(), &canned, |address| println!("listening on {address}"))?;
    Ok(Verdict::Yes)
}

/// What all verbs that put load make of their arguments; durations are the caller's.
pub fn settings(target: &str, workload: &WorkloadArgs, load: &LoadArgs, profile: Option<Profile>) -> Result<Settings> {
    let password = match &load.password_file {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_string())
        }
        None => std::env::var("PGPASSWORD").ok(),
    };
    let target = Target::parse(target, password.as_deref())?;
    let (protocol, depth) = match workload.workload {
        Workload::Simple | Workload::CopyOut | Workload::Churn => (Protocol::Simple, 1),
        Workload::Extended => (Protocol::Extended, 1),
        Workload::Prepared => (Protocol::Prepared, 1),
        Workload::Pipelined => (Protocol::Prepared, usize::from(workload.depth)),
    };
    let default_sql = match workload.workload {
        Workload::CopyOut => "COPY (SELECT g, md5(g::text) FROM generate_series(1, 10000) g) TO STDOUT",
        _ => "SELECT 1",
    };
    let script = match (&workload.script, &workload.sql) {
        (Some(file), _) => fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        (None, sql) => sql.clone().unwrap_or(default_sql.into()),
    };
    let program = Program::new(protocol, &script, &workload.set)?;
    ensure!(
        depth == 1 || program.steps.len() == 1,
        "a pipeline takes one statement: a script with several needs each answer before the next; use --workload prepared"
    );
    Ok(Settings {
        target,
        program,
        level: workload.check.map(|check| match check {
            LevelArg::Same => Level::Same,
            LevelArg::Rows => Level::Rows,
            LevelArg::None => Level::None,
        }),
        expected: Expectations {
            rows: workload.expect_rows,
            value: workload.expect_value.clone(),
            masked: workload.expect_masked.clone(),
        },
        depth,
        churn: workload.workload == Workload::Churn,
        open: profile.map(|profile| {
            let arrivals = match load.arrivals {
                ArrivalsArg::Constant => Arrivals::Constant,
                ArrivalsArg::Poisson => Arrivals::Poisson,
            };
            (profile, arrivals)
        }),
        connections: load.connections as usize,
        threads: usize::from(load.threads),
        warmup_s: 1.0,
        duration_s: None,
        count: None,
        interval_s: 1.0,
        timeout_s: load.timeout,
        lag_limit_ns: (load.lag_limit * 1e9) as u64,
        spin_ns: (load.spin * 1e9) as u64,
        seed: load.seed.unwrap_or_else(fresh_seed),
    })
}

/// `SELECT 1` by Query messages, with defaults throughout.
pub fn plain_settings(url: &str) -> Result<Settings> {
    let cli = Cli::try_parse_from(["lockgate-loadgen", "run", "--closed", "--target", url])?;
    let Verb::Run(args) = cli.verb else { bail!("`run` is what was asked for") };
    let mut settings = settings(&args.target, &args.workload, &args.load, None)?;
    settings.lag_limit_ns = u64::MAX;
    Ok(settings)
}

/// One line that says what was done.
pub fn title(settings: &Settings) -> String {
    let load = match &settings.open {
        Some((profile, arrivals)) => format!("open loop, {profile}, {arrivals:?} arrivals"),
        None => "closed loop".into(),
    };
    let tls = if settings.target.tls == TlsMode::Disable { "" } else { ", TLS" };
    format!(
        "{}: {load}, {} connections{tls}, {} thread(s), seed {}",
        settings.target.shown(),
        settings.connections,
        settings.threads,
        settings.seed
    )
}

pub fn describe(settings: &Settings) -> Value {
    json!({
        "title": title(settings),
        "target": settings.target.shown(),
        "connections": settings.connections,
        "threads": settings.threads,
        "depth": settings.depth,
        "churn": settings.churn,
        "profile": settings.open.as_ref().map(|(profile, _)| profile.to_string()),
        "arrivals": settings.open.as_ref().map(|(_, arrivals)| format!("{arrivals:?}").to_lowercase()),
        "warmup_s": settings.warmup_s,
        "duration_s": settings.duration_s,
        "count": settings.count,
        "seed": settings.seed,
        "lag_limit_ns": settings.lag_limit_ns,
        "spin_ns": settings.spin_ns,
    })
}

/// On a terminal only: a log wants no control characters.
pub fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or(ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

pub fn show_progress(bar: &ProgressBar, point: &Point, warmup: bool) {
    if warmup {
        bar.set_message("warming up");
    } else {
        bar.set_message(format!(
            "{:.0}/s  p50 {}  p99 {}  max {}  errors {}  own lag p99.9 {}",
            point.rate(),
            time(point.p50_ns),
            time(point.p99_ns),
            time(point.max_ns),
            point.faults,
            time(point.lag_p999_ns)
        ));
    }
    bar.tick();
}

/// `250us`, `2ms`, `1.5s`, `2m`, `1h`; seconds.
pub fn parse_time(text: &str) -> Result<f64> {
    let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => bail!("a time needs a unit: {text}us, {text}ms, {text}s or {text}m"),
        other => bail!("`{other}` is no unit of time; known are us, ms, s, m, h"),
    };
    let number: f64 =
        number.trim().parse().with_context(|| format!("`{text}` is no time; one looks like 250us or 10s"))?;
    ensure!(number.is_finite() && number >= 0.0, "a time cannot be negative");
    Ok(number * scale)
}

fn parse_rate(text: &str) -> Result<f64> {
    let (number, scale) = text.strip_suffix('k').map_or((text, 1.0), |number| (number, 1000.0));
    let rate: f64 = number.parse().with_context(|| format!("`{text}` is no rate; one looks like 500 or 20k"))?;
    ensure!(rate.is_finite() && rate > 0.0, "a rate must be above 0");
    Ok(rate * scale)
}

fn parse_profile(text: &str) -> Result<Profile> {
    text.parse()
}

fn parse_pattern(text: &str) -> Result<Pattern> {
    text.parse()
}

fn parse_pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("`{}` is not NAME=VALUE", redact(text)))?;
    ensure!(!name.is_empty() && !name.contains(':'), "`{}` is not NAME=VALUE", redact(text));
    Ok((name.to_string(), value.to_string()))
}

fn parse_variable(text: &str) -> Result<Variable> {
    let (name, expression) =
        text.split_once('=').with_context(|| format!("`{}` is not NAME=random(A,B)", redact(text)))?;
    variable(name.trim(), expression)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_time("250us").ok(), Some(250e-6));
        assert_eq!(parse_time("1.5s").ok(), Some(1.5));
        for bad in ["5", "ms", "-1s", "5 fortnights"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rate("20k").ok(), Some(20_000.0));
        assert!(parse_rate("0").is_err());
    }

    #[test]
    fn a_rate_is_needed_unless_the_loop_is_closed() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["lockgate-loadgen", "run", "--target", "postgres://u@h/d"], args].concat())
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["--rate", "10"]).is_ok() && parse(&["--closed"]).is_ok());
        assert!(parse(&["--rate", "10", "--closed"]).is_err());
    }
}
