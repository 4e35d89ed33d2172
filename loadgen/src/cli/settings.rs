//! What all verbs that put load make of their arguments, and how that is told again.

use super::args::{ArrivalsArg, Cli, LevelArg, LoadArgs, Verb, Workload, WorkloadArgs};
use super::demand;
use crate::check::{Expectations, Level, Pattern};
use crate::measure::time;
use crate::program::{Ends, Program, Protocol, Step};
use crate::rng::fresh_seed;
use crate::run::Settings;
use crate::schedule::{Arrivals, Profile};
use crate::target::{Target, TlsMode};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

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
    let pipelined = workload.workload == Workload::Pipelined;
    ensure!(pipelined || workload.depth.is_none(), "--depth is for --workload pipelined");
    let (protocol, depth) = match workload.workload {
        Workload::Simple | Workload::CopyOut | Workload::Churn => (Protocol::Simple, 1),
        Workload::Extended => (Protocol::Extended, 1),
        Workload::Prepared => (Protocol::Prepared, 1),
        Workload::Pipelined => (Protocol::Prepared, usize::from(workload.depth.unwrap_or(8))),
    };
    let default_sql = match workload.workload {
        Workload::CopyOut => "COPY (SELECT g, md5(g::text) FROM generate_series(1, 10000) g) TO STDOUT",
        _ => "SELECT 1",
    };
    let (script, ends) = match (&workload.script, &workload.sql) {
        (Some(file), _) => {
            let script = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            (script, Ends::Anywhere)
        }
        (None, sql) => (sql.clone().unwrap_or(default_sql.into()), Ends::WithLine),
    };
    let program = Program::new(protocol, &script, ends, &workload.set)?;
    let copies = program.steps.iter().all(|step| step.sql().trim_start().to_ascii_uppercase().starts_with("COPY"));
    ensure!(
        workload.workload != Workload::CopyOut || copies,
        "--workload copy-out takes a statement COPY ... TO STDOUT"
    );
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
        logged: false,
        threads: usize::from(load.threads),
        warmup_s: 1.0,
        duration_s: None,
        count: None,
        interval_s: 1.0,
        timeout_s: load.timeout,
        lag_limit_ns: (load.lag_limit * 1e9) as u64,
        spin_ns: (load.spin * 1e9) as u64,
        tick_ns: (load.tick * 1e9) as u64,
        seed: load.seed.unwrap_or_else(fresh_seed),
    })
}

/// A measured time has at least so many ticks: what one more or less of them holds is then a tenth of the load at most.
const TICKS_MIN: f64 = 10.0;

/// Requests wait for the end of their tick: one that is long beside the times of the run moves them out of these.
pub fn demand_short_ticks(settings: &Settings) -> Result<()> {
    let tick_s = settings.tick_ns as f64 / 1e9;
    let longest_s = settings.duration_s.map_or(f64::INFINITY, |duration| duration / TICKS_MIN);
    demand(tick_s <= longest_s * (1.0 + 1e-9), "--tick must be at most a tenth of the time that is measured")?;
    let within_warmup = settings.warmup_s == 0.0 || tick_s <= settings.warmup_s * (1.0 + 1e-9);
    demand(within_warmup, "--tick must be at most the warm-up, or what is due there is sent while measuring")
}

/// `SELECT 1` by Query messages, with defaults throughout.
pub fn plain_settings(url: &str, password_file: Option<&Path>) -> Result<Settings> {
    let mut arguments: Vec<OsString> = ["lockgate-loadgen", "run", "--closed", "--target", url].map(Into::into).into();
    if let Some(file) = password_file {
        arguments.extend(["--password-file".into(), file.into()]);
    }
    let Verb::Run(args) = Cli::try_parse_from(arguments)?.verb else { bail!("`run` is what was asked for") };
    let mut settings = settings(&args.target, &args.workload, &args.load, None)?;
    settings.lag_limit_ns = u64::MAX;
    Ok(settings)
}

/// One line that says what was done.
pub fn title(settings: &Settings) -> String {
    format!("{}: {}", settings.target.shown(), load_line(settings))
}

fn name(arrivals: Arrivals) -> &'static str {
    match arrivals {
        Arrivals::Constant => "constant",
        Arrivals::Poisson => "poisson",
    }
}

/// The load, without the target it is put on.
pub fn load_line(settings: &Settings) -> String {
    let tick = if settings.tick_ns > 0 { format!(" in ticks of {}", time(settings.tick_ns)) } else { String::new() };
    let load = match &settings.open {
        Some((profile, arrivals)) => format!("open loop, {profile}, {} arrivals{tick}", name(*arrivals)),
        None => "closed loop".into(),
    };
    let tls = if settings.target.tls == TlsMode::Disable { "" } else { ", TLS" };
    let threads = match settings.threads_used() {
        1 => "1 thread".into(),
        threads => format!("{threads} threads"),
    };
    format!("{load}, {} connections{tls}, {threads}, seed {}", settings.connections, settings.seed)
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Same => "same",
        Level::Rows => "rows",
        Level::None => "none",
    }
}

pub fn describe(settings: &Settings) -> Value {
    json!({
        "title": title(settings),
        "load": load_line(settings),
        "protocol": format!("{:?}", settings.program.protocol).to_lowercase(),
        "statements": settings.program.steps.iter().map(Step::sql).collect::<Vec<_>>(),
        "target": settings.target.shown(),
        "connections": settings.connections,
        "threads": settings.threads_used(),
        "depth": settings.depth,
        "churn": settings.churn,
        "profile": settings.open.as_ref().map(|(profile, _)| profile.to_string()),
        "arrivals": settings.open.as_ref().map(|(_, arrivals)| name(*arrivals)),
        "warmup_s": settings.warmup_s,
        "duration_s": settings.duration_s,
        "count": settings.count,
        "seed": settings.seed,
        "lag_limit_ns": settings.lag_limit_ns,
        "spin_ns": settings.spin_ns,
        "tick_ns": settings.tick_ns,
        "timeout_s": settings.timeout_s,
        "interval_s": settings.interval_s,
        "check": settings.levels().into_iter().map(level_name).collect::<Vec<_>>(),
        "expect_rows": settings.expected.rows,
        "expect_value": settings.expected.value,
        "expect_masked": settings.expected.masked.as_ref().map(Pattern::to_string),
    })
}
