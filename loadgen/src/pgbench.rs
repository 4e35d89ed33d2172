//! The same load measured by this generator and by `pgbench -R`, in turn: two that were written apart must agree.

use crate::cli;
use crate::compare::median;
use crate::measure::time;
use crate::run::{self, Settings};
use crate::schedule::{Arrivals, Profile};
use crate::selftest::{Check, Responder};
use crate::sys::{self, now_ns};
use crate::target::{Target, TlsMode};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far a median or mean may be from pgbench's.
const TOLERANCE: f64 = 0.05;
/// The queue both measure: connections, and a server that answers after exactly that long, kept busy to half.
const QUEUE_CONNECTIONS: usize = 4;
const QUEUE_DELAY: &str = "10ms";
const QUEUE_RATE: f64 = 200.0;
const RUN_S: u64 = 5;
const ROUNDS: usize = 7;

/// pgbench from the path or from where Debian keeps it.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    std::env::split_paths(&path).chain(debian).map(|directory| directory.join("pgbench")).find(|file| file.is_file())
}

/// A queue whose times hang on the schedule, hardly on the machine.
pub fn on_a_queue(program: &Path, pgbench: &Path) -> Result<Vec<Check>> {
    let responder = Responder::start(program, &["--delay", QUEUE_DELAY])?;
    let settings = cli::plain_settings(&responder.url(), None)?;
    compare("a queue", settings, QUEUE_RATE, QUEUE_CONNECTIONS, pgbench)
}

/// A target the user named.
pub fn on_a_target(settings: Settings, rate: f64, connections: usize, pgbench: &Path) -> Result<Vec<Check>> {
    let name = format!("{} at {rate}/s", settings.target.shown());
    compare(&name, settings, rate, connections, pgbench)
}

/// A median and a mean, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    p50: f64,
    mean: f64,
}

fn compare(what: &str, settings: Settings, rate: f64, connections: usize, pgbench: &Path) -> Result<Vec<Check>> {
    let settings = Settings {
        open: Some((Profile::Flat(rate), Arrivals::Poisson)),
        connections,
        duration_s: Some(RUN_S as f64),
        warmup_s: 0.0,
        ..settings
    };
    // pgbench sleeps before each send and inherits this: else it is 50 us late itself, more than a fast target takes.
    sys::precise_timers();
    let directory = std::env::temp_dir().join(format!("lockgate-loadgen-{}-{}", std::process::id(), now_ns()));
    fs::create_dir_all(&directory)?;
    let result = rounds(&settings, rate, pgbench, &directory);
    let _ = fs::remove_dir_all(&directory);
    let (ours, theirs) = result?;
    let judge = |name: &str, read: fn(&Times) -> f64| {
        let middle = |times: &[Times]| median(&mut times.iter().map(read).collect::<Vec<_>>());
        let (own, other) = (middle(&ours), middle(&theirs));
        // Round by round, so that what slows the machine down for a while slows both.
        let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(own, other)| read(own) / read(other)).collect();
        let apart = median(&mut ratios) - 1.0;
        Check {
            name: format!("{name} of {what}, {ROUNDS} rounds in turn with pgbench -R"),
            expected: format!("{} within {:.0} %", time(other as u64), TOLERANCE * 100.0),
            found: format!("{} ({:+.1} %, median of rounds)", time(own as u64), apart * 100.0),
            passed: apart.abs() <= TOLERANCE,
        }
    };
    Ok(vec![judge("median", |times| times.p50), judge("mean", |times| times.mean)])
}

/// Either goes first in every second round: what drifts on the machine hits both alike.
fn rounds(settings: &Settings, rate: f64, pgbench: &Path, directory: &Path) -> Result<(Vec<Times>, Vec<Times>)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let pgbench = || run_pgbench(settings, rate, pgbench, directory, round);
        if round % 2 == 1 {
            theirs.push(pgbench()?);
        }
        let outcome = run::run(&Settings { seed: round as u64, ..settings.clone() }, &mut |_, _| {})?;
        let faults = outcome.total.faults_total();
        ensure!(faults == 0, "{faults} requests failed: nothing can be compared");
        let response = &outcome.total.response;
        ours.push(Times { p50: response.value_at_quantile(0.5) as f64, mean: response.mean() });
        if round % 2 == 0 {
            theirs.push(pgbench()?);
        }
    }
    Ok((ours, theirs))
}

fn run_pgbench(settings: &Settings, rate: f64, pgbench: &Path, directory: &Path, round: usize) -> Result<Times> {
    let script = directory.join("script.sql");
    fs::write(&script, "SELECT 1;\n")?;
    let prefix = directory.join(format!("log{round}"));
    let output = Command::new(pgbench)
        .args(["--no-vacuum", "--log", "--jobs", "1"])
        .arg(format!("--log-prefix={}", prefix.display()))
        .arg(format!("--file={}", script.display()))
        .arg(format!("--rate={rate}"))
        .arg(format!("--client={}", settings.connections))
        .arg(format!("--time={RUN_S}"))
        .arg(format!("--random-seed={round}"))
        .envs(environment(&settings.target))
        .output()
        .context("cannot start pgbench")?;
    ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let name = format!("log{round}.");
    let mut latencies: Vec<f64> = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name) {
            // client, transaction, microseconds from its scheduled start, ...
            let text = fs::read_to_string(entry.path())?;
            latencies.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
        }
    }
    ensure!(!latencies.is_empty(), "pgbench left no log");
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64 * 1e3;
    Ok(Times { p50: median(&mut latencies) * 1e3, mean })
}

/// What leads libpq to the target; a password is not for everybody's eyes, so none of it is an argument.
fn environment(target: &Target) -> Vec<(&'static str, String)> {
    let mode = match target.tls {
        TlsMode::Disable => "disable",
        TlsMode::Require => "require",
        TlsMode::VerifyFull => "verify-full",
    };
    let mut variables = vec![
        ("PGHOST", target.host.clone()),
        ("PGPORT", target.port.to_string()),
        ("PGUSER", target.user.clone()),
        ("PGDATABASE", target.database.clone()),
        ("PGSSLMODE", mode.to_string()),
    ];
    variables.extend(target.password.clone().map(|password| ("PGPASSWORD", password)));
    variables.extend(target.tls_ca.clone().map(|file| ("PGSSLROOTCERT", file)));
    variables
}
