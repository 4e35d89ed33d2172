//! `run`: load on one target, thresholds, and where the results go.

use super::args::{Format, RunArgs};
use super::settings::{describe, settings, title};
use super::{Verdict, demand, progress_bar, show_progress, usage};
use crate::check::Wrong;
use crate::measure::{at, time};
use crate::run::{self, Outcome};
use crate::schedule::Profile;
use crate::{hlog, output, report, sys};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;

pub fn verb(args: &RunArgs) -> Result<Verdict> {
    sys::catch_interrupt();
    let profile = args.rate.map(Profile::Flat).or(args.profile.clone()).filter(|_| !args.closed);
    let mut settings = settings(&args.target, &args.workload, &args.load, profile).map_err(usage)?;
    settings.duration_s = args.duration.or(args.count.is_none().then_some(10.0));
    settings.count = args.count;
    settings.warmup_s = args.warmup;
    settings.interval_s = args.interval;
    demand(args.interval >= 0.01, "--interval must be 10 ms or more")?;
    let moves = args.profile.is_none() || settings.duration_s.is_some();
    demand(moves, "a --profile needs a --duration, over which it moves")?;
    if let (Some((Profile::Steps(rates), _)), Some(duration)) = (&settings.open, settings.duration_s) {
        let step = duration / rates.len() as f64;
        demand(args.interval <= step, &format!("--interval must be no longer than a step, which lasts {step} s here"))?;
    }
    let bar = progress_bar();
    let outcome = run::run(&settings, &mut |point, warmup| show_progress(&bar, point, warmup, settings.duration_s))?;
    bar.finish_and_clear();
    let misses = misses(args, &outcome);
    let mut value = output::json(&outcome, &describe(&settings));
    value["thresholds_missed"] = json!(misses);
    if let Some(file) = &args.hlog {
        // As with percentiles: times that blame the server for the generator are not handed on.
        let lines = if outcome.late.is_some() { String::new() } else { outcome.hlog.concat() };
        let log = hlog::head(outcome.began) + &lines;
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
    let asks_time = args.fail_p50.or(args.fail_p99).or(args.fail_p999).or(args.fail_max).is_some();
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
    let limits = [
        ("p50", 50.0, args.fail_p50),
        ("p99", 99.0, args.fail_p99),
        ("p99.9", 99.9, args.fail_p999),
        ("max", 100.0, args.fail_max),
    ];
    for (name, percentile, limit) in limits {
        let Some(limit) = limit.filter(|_| outcome.late.is_none()) else { continue };
        let (found, limit) = (at(&outcome.total.response, percentile), (limit * 1e9) as u64);
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
