//! The command line as clap reads it: verbs, their arguments and examples, and how times, rates and pairs are written.

use crate::check::Pattern;
use crate::program::{Variable, variable};
use crate::schedule::{Profile, parse_rate};
use crate::target::redact;
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub const EXIT: &str = "Exit status: 0 done; 1 the answer is no (a threshold was missed, a check failed); 2 wrong usage; 3 could \
not run, was interrupted, or the generator itself was too late to tell.";

#[derive(Parser, Debug)]
#[command(
    name = "lockgate-loadgen",
    version,
    about = "Load on PostgreSQL servers and proxies, with numbers that can be believed"
)]
#[command(after_help = EXIT, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
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

pub const RUN_EXAMPLES: &str = "Examples:
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

A request that leaves its transaction open, because it failed or ends inside it, is followed by a ROLLBACK that is not counted.
The rate achieved is of the answers that came while the load lasted. Ctrl-C, SIGTERM or SIGHUP ends the load and shows what
there is.

Exit status: 0 done; 1 a threshold was missed or an answer was wrong; 2 wrong usage; 3 could not run, was interrupted, a result could
not be written, or the generator itself was too late to tell.";

pub const COMPARE_EXAMPLES: &str = "Examples:
  lockgate-loadgen compare --endpoint direct=postgres://me@127.0.0.1:5432/shop --endpoint bouncer=postgres://me@127.0.0.1:6433/shop \\
      --endpoint gateway=postgres://me@127.0.0.1:6432/shop --rate 4000 --workload prepared --rounds 9 --round-time 3s
  lockgate-loadgen compare --endpoint a=... --endpoint b=... --closed --pid b=1234 -o json

Each round runs every endpoint once, in random order, on connections of its own. Ratios are to the first endpoint. CPU is that of the process
that listens on the endpoint's address, if that is this machine's, with its children, or of --pid NAME=PID. Intervals run from one of the lowest rounds
to one of the highest, cover the true median with 95 % or a little more, which is shown, and need six rounds. When a round cannot
be finished (Ctrl-C, an endpoint that went away), those before it are shown.

The first answer of each is compared with the first endpoint's, as closely as --check says. Other content is a warning, since masks make it;
other numbers of rows or columns make the status 1 as well. With --check none nothing is compared.

Exit status: 0 done; 1 requests failed, or an endpoint returns other numbers of rows or columns; 2 wrong usage; 3 could not run or did not finish, or the generator was too late in more than half
of the rounds.";

pub const SATURATE_EXAMPLES: &str = "Examples:
  lockgate-loadgen saturate --target postgres://me@127.0.0.1:6432/shop --p99 2ms --workload prepared --connections 64
  lockgate-loadgen saturate --target ... --p99 500us --from 5k --max 200k --probe 5s -o json

The rate doubles until p99 is above the bound, answers fall behind (under 98 % of what was due come while the load lasts) or
requests fail (tried twice each, and up to four times where the generator itself was late); then the gap is halved until it is below
--precision. Ctrl-C shows what was found until then.

Exit status: 0 found; 1 not even the first rate held; 2 wrong usage; 3 could not run or did not finish, or the generator itself was the
limit.";

pub const SELFTEST_EXAMPLES: &str = "Examples:
  lockgate-loadgen selftest
  lockgate-loadgen selftest --no-pgbench -o json
  PGPASSWORD=$TOKEN lockgate-loadgen selftest --target 'postgres://x@gw:6432/orders?sslmode=require' --rate 500

It starts responders of its own, stops one for 200 ms in a run of 5 s at 2,000 requests a second, and compares percentiles with
what follows from that. If pgbench is there (in the path or under /usr/lib/postgresql), both measure the same queue in turn,
and then --target if one is given: in seven rounds, median and mean response time within 5 % of pgbench -R.

Exit status: 0 all checks passed; 1 one did not; 2 wrong usage; 3 could not run.";

pub const RESPOND_EXAMPLES: &str = "Examples:
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
pub enum ArrivalsArg {
    /// Evenly spaced
    Constant,
    /// At random, as independent clients arrive
    Poisson,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LevelArg {
    /// Every byte of every row as in the first response
    Same,
    /// As many rows and columns as in the first response
    Rows,
    /// No error
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
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
    pub sql: Option<String>,
    /// Statements in pgbench's script language: `\set NAME random(A, B)`, statements that end with a semicolon (`\;` sends
    /// two together). One request is one pass
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// A variable, drawn anew for every request
    #[arg(long, value_name = "NAME=random(A,B)", value_parser = parse_variable)]
    pub set: Vec<Variable>,
    /// Requests in flight on one connection, with `pipelined`, 1 to 1024 [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: Option<u16>,
    /// How closely responses have to agree with the first one [default: same; rows where variables are used]
    #[arg(long, value_enum)]
    pub check: Option<LevelArg>,
    /// Each response must have that many rows; with a script, all its statements together
    #[arg(long, value_name = "N")]
    pub expect_rows: Option<u64>,
    /// Each response must have that value somewhere
    #[arg(long, value_name = "TEXT")]
    pub expect_value: Option<String>,
    /// No value may contain this shape, nor any error, notice, notification, column's name or command's tag: `#` a digit, `@` a letter, `?` either, else itself (a longer run of digits is another number)
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    pub expect_masked: Option<Pattern>,
}

/// How the load is put.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Connections, all opened before the load begins: 1 to 100,000
    #[arg(long, short = 'c', default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Load threads, 1 to 256; one sends 100,000 requests a second and more. No more are used than there are connections
    #[arg(long, short = 'j', default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// How send times are spaced
    #[arg(long, value_enum, default_value = "constant")]
    pub arrivals: ArrivalsArg,
    /// A request that takes longer has failed, and its connection is replaced where no answer came at all
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_timeout)]
    pub timeout: f64,
    /// Refuse to print percentiles when the generator's own send lag p99.9 is above, or when more than 0.1 % of the answers may
    /// have waited because it stood still for longer
    #[arg(long, default_value = "1ms", value_name = "TIME", value_parser = parse_bound)]
    pub lag_limit: f64,
    /// Wake this much before a send is due and poll: less lag, more CPU
    #[arg(long, default_value = "0us", value_name = "TIME", value_parser = parse_time)]
    pub spin: f64,
    /// Send what is due within each such tick at its end, in one go: far less CPU for high rates, but bursts instead of spaced
    /// requests. Times count from the end of the tick; responses are timed by the kernel and read at the next tick. At most a
    /// tenth of the measured time, and the warm-up if there is one
    #[arg(long, default_value = "0us", value_name = "TIME", value_parser = parse_time)]
    pub tick: f64,
    /// Seed of arrivals and variables, to repeat a run exactly; each round of `compare` and each try of `saturate` has its own,
    /// which follows from it [default: a new one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Read the password or token from this file [default: the target's URL, else PGPASSWORD]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("how much").args(["rate", "profile", "closed"]).required(true).multiple(true)))]
pub struct RunArgs {
    /// postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=...&host=SOCKET_DIRECTORY]
    #[arg(long, short = 't', value_name = "URL")]
    pub target: String,
    /// Requests a second, over all connections: from one in 10,000 s (0.0001) to 10000k
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// A rate that moves over the duration: `ramp:FROM-TO` or `step:RATE,RATE,...`
    #[arg(long, conflicts_with = "rate", value_name = "PROFILE", value_parser = parse_profile)]
    pub profile: Option<Profile>,
    /// Closed loop: every connection sends its next request when the last is answered
    #[arg(long, conflicts_with_all = ["rate", "profile", "arrivals", "tick", "spin"])]
    pub closed: bool,
    /// Measure for that long [default: 10s, unless --count]
    #[arg(long, short = 'd', value_name = "TIME", value_parser = parse_time)]
    pub duration: Option<f64>,
    /// Measure that many requests
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Load before measuring begins; discarded, but a wrong answer counts. What waits for a connection at its end is dropped
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_time)]
    pub warmup: f64,
    /// Length of an interval of the time series, 10ms or more [default: 1s, or less so that it divides the steps of a profile]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub interval: Option<f64>,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Exit with 1 when the response time's p50 is above. A request that failed took longer than any limit
    #[arg(long, value_name = "TIME", value_parser = parse_bound, help_heading = "Thresholds")]
    pub fail_p50: Option<f64>,
    /// The same for p99
    #[arg(long, value_name = "TIME", value_parser = parse_bound, help_heading = "Thresholds")]
    pub fail_p99: Option<f64>,
    /// The same for p99.9
    #[arg(long, value_name = "TIME", value_parser = parse_bound, help_heading = "Thresholds")]
    pub fail_p999: Option<f64>,
    /// The same for the longest: so no request may fail. Exits with 3 where the generator's own pause may be to blame
    #[arg(long, value_name = "TIME", value_parser = parse_bound, help_heading = "Thresholds")]
    pub fail_max: Option<f64>,
    /// Exit with 1 when more requests than that failed. A connection lost while it carried none is no failed request
    #[arg(long, value_name = "N", help_heading = "Thresholds")]
    pub fail_errors: Option<u64>,
    /// Exit with 1 when fewer requests a second were answered while the load lasted; a hundredth less is let pass, and one answer
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Thresholds")]
    pub fail_rate: Option<f64>,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    pub output: Format,
    /// Write an HdrHistogram interval log of response times, nanoseconds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hlog: Option<PathBuf>,
    /// Write a page with plots and the environment: one file, nothing loaded from elsewhere
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("how much").args(["rate", "closed"]).required(true).multiple(true)))]
pub struct CompareArgs {
    /// NAME=URL; two to six of them
    #[arg(long, short = 'e', required = true, value_name = "NAME=URL", value_parser = parse_pair)]
    pub endpoint: Vec<(String, String)>,
    /// The process whose CPU belongs to an endpoint, with its children [default: whoever listens there, on this machine]
    #[arg(long, value_name = "NAME=PID", value_parser = parse_pair)]
    pub pid: Vec<(String, String)>,
    /// Requests a second on each endpoint
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Closed loop instead
    #[arg(long, conflicts_with_all = ["rate", "arrivals", "tick", "spin"])]
    pub closed: bool,
    /// Rounds, 1 to 1000
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// How long an endpoint is measured in a round, 10ms or more
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_time)]
    pub round_time: f64,
    /// Load before each measurement; discarded
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = parse_time)]
    pub warmup: f64,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    pub output: Format,
    /// Write a page with plots and the environment: one file, nothing loaded from elsewhere
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct SaturateArgs {
    /// As for `run`
    #[arg(long, short = 't', value_name = "URL")]
    pub target: String,
    /// The bound on the response time's p99
    #[arg(long, default_value = "2ms", value_name = "TIME", value_parser = parse_bound)]
    pub p99: f64,
    /// First rate to try; at least one request must be due in a probe
    #[arg(long, default_value = "1k", value_name = "N", value_parser = parse_rate)]
    pub from: f64,
    /// Highest rate to try
    #[arg(long, default_value = "1000k", value_name = "N", value_parser = parse_rate)]
    pub max: f64,
    /// How long each rate is held
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = parse_time)]
    pub probe: f64,
    /// Ends when the rate that holds and the one that does not are this close, per cent: 0.5 to 100
    #[arg(long, default_value_t = 5.0, value_name = "PERCENT")]
    pub precision: f64,
    #[command(flatten)]
    pub workload: WorkloadArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table", help_heading = "Output")]
    pub output: Format,
    /// Write a page with plots and the environment: one file, nothing loaded from elsewhere
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct RespondArgs {
    /// Port on 127.0.0.1; 0 takes any that is free and prints it
    #[arg(long, default_value_t = 5440)]
    pub port: u16,
    /// Rows of every query: an answer of 256 MB at most
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub rows: usize,
    /// Rows of every COPY TO STDOUT
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub copy_rows: usize,
    /// A column's value; repeat for more columns
    #[arg(long, default_value = "1", value_name = "TEXT")]
    pub value: Vec<String>,
    /// Ask for this password
    #[arg(long, value_name = "TEXT")]
    pub password: Option<String>,
    /// Hold every answer back for that long
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_time)]
    pub delay: f64,
}

#[derive(Args, Debug)]
pub struct SelftestArgs {
    /// Leave out the comparison with pgbench, which takes a minute
    #[arg(long, conflicts_with = "target")]
    pub no_pgbench: bool,
    /// Compare with pgbench on this target too, with SELECT 1: a URL as for `run`
    #[arg(long, short = 't', value_name = "URL", help_heading = "Target")]
    pub target: Option<String>,
    /// Requests a second there: clearly below what it can do, or a queue grows that no two runs share
    #[arg(long, short = 'r', default_value = "200", value_name = "N", value_parser = parse_rate, requires = "target", help_heading = "Target")]
    pub rate: f64,
    /// Connections there
    #[arg(long, short = 'c', default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000), requires = "target", help_heading = "Target")]
    pub connections: u16,
    /// Read the password or token from this file [default: the target's URL, else PGPASSWORD]
    #[arg(long, value_name = "FILE", requires = "target", help_heading = "Target")]
    pub password_file: Option<PathBuf>,
    /// What goes to standard output
    #[arg(long, short = 'o', value_enum, default_value = "table")]
    pub output: Format,
}

/// A year: beyond, nothing can be meant.
const TIME_S_MAX: f64 = 366.0 * 86_400.0;

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
    ensure!(number * scale <= TIME_S_MAX, "a time cannot be longer than a year");
    Ok(number * scale)
}

/// A time that something may stay below.
pub fn parse_bound(text: &str) -> Result<f64> {
    let seconds = parse_time(text)?;
    ensure!(seconds > 0.0, "nothing is ever below {text}");
    Ok(seconds)
}

/// Below nothing could be answered, and nobody could log in.
const TIMEOUT_S_MIN: f64 = 0.001;

pub fn parse_timeout(text: &str) -> Result<f64> {
    let seconds = parse_time(text)?;
    ensure!(seconds >= TIMEOUT_S_MIN, "a timeout must be 1 ms or more");
    Ok(seconds)
}

pub fn parse_profile(text: &str) -> Result<Profile> {
    text.parse()
}

pub fn parse_pattern(text: &str) -> Result<Pattern> {
    text.parse()
}

pub fn parse_pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("`{}` is not NAME=VALUE", redact(text)))?;
    ensure!(!name.is_empty() && !name.contains(':'), "`{}` is not NAME=VALUE", redact(text));
    Ok((name.to_string(), value.to_string()))
}

pub fn parse_variable(text: &str) -> Result<Variable> {
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
        for bad in ["5", "ms", "-1s", "5 fortnights", "99999999999999999999s", "9000h"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rate("20k").ok(), Some(20_000.0));
        assert_eq!(parse_rate("10000k").ok(), Some(10_000_000.0));
        assert!(["0", "1e9", "100000k", "1e-12", "0.00009"].iter().all(|bad| parse_rate(bad).is_err()));
        assert_eq!((parse_rate("0.0001").ok(), parse_timeout("1ms").ok()), (Some(1e-4), Some(0.001)));
        assert!(["0s", "999us"].iter().all(|bad| parse_timeout(bad).is_err()));
    }

    #[test]
    fn a_rate_is_needed_unless_the_loop_is_closed() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["lockgate-loadgen", "run", "--target", "postgres://u@h/d"], args].concat())
        };
        let missing = parse(&[]).expect_err("nobody said how much").to_string();
        assert!(missing.contains("--rate <N>|--profile <PROFILE>|--closed"), "{missing}");
        assert!(parse(&["--rate", "10"]).is_ok() && parse(&["--closed"]).is_ok());
        assert!(parse(&["--rate", "10", "--closed"]).is_err());
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["lockgate-loadgen"], args].concat()).is_ok();
        let run = ["run", "--target", "postgres://u@h/d", "--closed"];
        let compare = ["compare", "-e", "a=postgres://u@h/d", "--closed"];
        for verb in [&run[..], &compare] {
            assert!(parse(verb));
            for ignored in [["--tick", "1ms"], ["--spin", "10us"], ["--arrivals", "poisson"]] {
                assert!(!parse(&[verb, &ignored].concat()), "{verb:?} {ignored:?}");
            }
        }
        assert!(parse(&["selftest"]));
        for target in [["--rate", "100"], ["--connections", "2"], ["--password-file", "x"]] {
            assert!(!parse(&[&["selftest"][..], &target].concat()), "{target:?}");
            assert!(parse(&[&["selftest", "--target", "postgres://u@h/d"][..], &target].concat()), "{target:?}");
        }
    }
}
