//! `run`: load on one target, thresholds, and where the results go.

use super::args::{Format, RunArgs};
use super::files::Output;
use super::settings::{demand_short_ticks, describe, settings, title};
use super::thresholds::{self, Verdicts};
use super::{Verdict, demand, out, progress_bar, show_progress, usage};
use crate::run::{self, Outcome, Settings};
use crate::schedule::Profile;
use crate::{hlog, output, report, sys};
use anyhow::Result;
use serde_json::{Value, json};

/// Unless told otherwise, an interval is that long or, with steps, as much shorter as to divide them.
const INTERVAL_S: f64 = 1.0;
const INTERVAL_S_MIN: f64 = 0.01;
/// Shorter runs have no rate.
const DURATION_S_MIN: f64 = 0.001;

pub fn verb(args: &RunArgs) -> Result<Verdict> {
    let settings = what_to_run(args)?;
    // Not before: a long script takes a while to read, and a first Ctrl-C is to end that.
    sys::catch_interrupt();
    let hlog = args.hlog.as_deref().map(Output::open).transpose()?;
    let report = args.report.as_deref().map(Output::open).transpose()?;
    let shared = hlog.as_ref().zip(report.as_ref()).is_some_and(|(hlog, report)| hlog.is_same_file(report));
    demand(!shared, "--hlog and --report are the same file: one would overwrite the other")?;
    let bar = progress_bar();
    let outcome = run::run(&settings, &mut |point, warmup| show_progress(&bar, point, warmup, settings.duration_s))?;
    bar.finish_and_clear();
    let verdicts = thresholds::judge(args, &outcome);
    let mut value = output::json(&outcome, &describe(&settings));
    value["thresholds_missed"] = json!(verdicts.missed);
    value["thresholds_unknown"] = json!(verdicts.unknown);
    let written = [
        show(args, &settings, &outcome, &value),
        hlog.map_or(Ok(()), |file| file.write(&log(&outcome))),
        report.map_or(Ok(()), |file| file.write(&report::page(report::Of::Run, &value))),
    ];
    verdicts.missed.iter().for_each(|miss| out::tell(&format!("missed: {miss}")));
    verdicts.unknown.iter().for_each(|why| out::tell(&format!("lockgate-loadgen: {why}")));
    if verdicts.unknown.is_empty() {
        outcome.limited.iter().for_each(|why| out::tell(&format!("lockgate-loadgen: {why}")));
    }
    if let Some(note) = failed_all_the_same(args, &verdicts, &outcome) {
        out::tell(&note);
    }
    Ok(if out::tell_lost(written) { Verdict::CannotTell } else { verdict(&verdicts, &outcome) })
}

fn show(args: &RunArgs, settings: &Settings, outcome: &Outcome, value: &Value) -> Result<()> {
    match args.output {
        Format::Json => out::print_json(value),
        Format::Table => out::print(&output::table(&title(settings), outcome)),
    }
}

/// As with percentiles: times that blame the server for the generator are not handed on.
fn log(outcome: &Outcome) -> String {
    let lines = if outcome.late.is_some() { String::new() } else { outcome.hlog.concat() };
    hlog::head(outcome.began) + &lines
}

fn verdict(verdicts: &Verdicts, outcome: &Outcome) -> Verdict {
    if !verdicts.missed.is_empty() {
        return Verdict::No;
    }
    if outcome.total.response.is_empty() {
        out::tell("lockgate-loadgen: no request was answered rightly");
        return Verdict::CannotTell;
    }
    let cannot_tell = outcome.late.is_some() || !verdicts.unknown.is_empty();
    if cannot_tell { Verdict::CannotTell } else { Verdict::Yes }
}

/// A load is put to see how much is answered, so failures alone are no verdict: but whoever goes by the status has to hear of them.
fn failed_all_the_same(args: &RunArgs, verdicts: &Verdicts, outcome: &Outcome) -> Option<String> {
    let errors = outcome.total.faults_total();
    let silent = errors > 0 && args.fail_errors.is_none() && verdicts.missed.is_empty();
    silent.then(|| {
        format!(
            "lockgate-loadgen: {errors} requests failed, which does not set the status; with --fail-errors 0 it is 1"
        )
    })
}

fn what_to_run(args: &RunArgs) -> Result<Settings> {
    let profile = args.rate.map(Profile::Flat).or(args.profile.clone()).filter(|_| !args.closed);
    let mut settings = settings(&args.target, &args.workload, &args.load, profile).map_err(usage)?;
    settings.duration_s = args.duration.or(args.count.is_none().then_some(10.0));
    settings.count = args.count;
    settings.warmup_s = args.warmup;
    settings.logged = args.hlog.is_some();
    let long_enough = settings.duration_s.is_none_or(|seconds| seconds >= DURATION_S_MIN);
    demand(long_enough, "--duration must be 1 ms or more")?;
    demand_short_ticks(&settings)?;
    let moves = args.profile.is_none() || settings.duration_s.is_some();
    demand(moves, "a --profile needs a --duration, over which it moves")?;
    let step_s = match (&settings.open, settings.duration_s) {
        (Some((Profile::Steps(rates), _)), Some(duration)) => Some(duration / rates.len() as f64),
        _ => None,
    };
    settings.interval_s = args.interval.unwrap_or(step_s.map_or(INTERVAL_S, |step| step / (step / INTERVAL_S).ceil()));
    demand(settings.interval_s >= INTERVAL_S_MIN, "--interval must be 10 ms or more")?;
    if let Some(step) = step_s {
        let parts = step / settings.interval_s;
        let even = parts > 0.5 && (parts - parts.round()).abs() < 1e-6;
        demand(even, &format!("a step must be one or several times --interval; it lasts {step} s here"))?;
    }
    Ok(settings)
}
