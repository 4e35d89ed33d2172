//! `compare`: endpoints side by side.

use super::args::{CompareArgs, Format};
use super::files::Output;
use super::settings::{demand_short_ticks, describe, load_line, settings};
use super::{Usage, Verdict, demand, out, progress_bar, usage};
use crate::compare::{self, Comparison, Endpoint};
use crate::process::Server;
use crate::rng::fresh_seed;
use crate::schedule::Profile;
use crate::{manifest, report, sys};
use anyhow::{Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn verb(args: &CompareArgs) -> Result<Verdict> {
    let names: BTreeSet<&str> = args.endpoint.iter().map(|(name, _)| name.as_str()).collect();
    let well_named = (2..=6).contains(&args.endpoint.len()) && names.len() == args.endpoint.len();
    demand(well_named, "give two to six --endpoint NAME=URL, each with a name of its own")?;
    demand(args.round_time >= 0.01, "--round-time must be 10 ms or more")?;
    let seed = args.load.seed.unwrap_or_else(fresh_seed);
    let mut endpoints = Vec::new();
    for (name, url) in &args.endpoint {
        let profile = args.rate.map(Profile::Flat).filter(|_| !args.closed);
        let mut settings = settings(url, &args.workload, &args.load, profile).map_err(usage)?;
        settings.duration_s = Some(args.round_time);
        settings.warmup_s = args.warmup;
        demand_short_ticks(&settings)?;
        // CPU is read at the ends of intervals: two in a round's warm-up, many in its measurement.
        settings.interval_s = (args.round_time / 10.0).clamp(0.01, 0.25);
        settings.seed = seed;
        let server = match args.pid.iter().find(|(named, _)| named == name) {
            Some((_, pid)) => {
                let number = pid.parse().map_err(|_| Usage(format!("--pid {name}={pid} is no number")))?;
                Some(Server::of_pid(number)?)
            }
            None => Server::listening_on(&settings.target.address).ok(),
        };
        endpoints.push(Endpoint { name: name.clone(), settings, server });
    }
    for (name, _) in &args.pid {
        let known = endpoints.iter().any(|endpoint| endpoint.name == *name);
        demand(known, &format!("--pid names `{name}`, which is no endpoint"))?;
    }
    sys::catch_interrupt();
    let report = args.report.as_deref().map(Output::open).transpose()?;
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
    let value = json(args, &endpoints, &comparison);
    let written = [
        show(args, &endpoints, &comparison, &value),
        report.map_or(Ok(()), |file| file.write(&report::page(report::Of::Compare, &value))),
    ];
    if out::tell_lost(written) {
        return Ok(Verdict::CannotTell);
    }
    let wrong = comparison.wrong_answers();
    if !wrong.is_empty() {
        wrong.iter().for_each(|wrong| out::tell(&format!("missed: {wrong}")));
        return Ok(Verdict::No);
    }
    if let Some(unfinished) = &comparison.unfinished {
        out::tell(&format!("lockgate-loadgen: {unfinished}"));
        return Ok(Verdict::CannotTell);
    }
    Ok(match comparison.faults() {
        _ if comparison.other_rows() => Verdict::No,
        0 if comparison.late_rounds > comparison.rounds() => Verdict::CannotTell,
        0 => Verdict::Yes,
        _ => Verdict::No,
    })
}

fn json(args: &CompareArgs, endpoints: &[Endpoint], comparison: &Comparison) -> Value {
    let mut value = comparison.json();
    for (index, endpoint) in endpoints.iter().enumerate() {
        value["endpoints"][index]["target"] = endpoint.settings.target.shown().into();
    }
    value["loop"] = if args.closed { "closed" } else { "open" }.into();
    value["round_s"] = args.round_time.into();
    value["settings"] = describe(&endpoints[0].settings);
    value["manifest"] = manifest::collect();
    value
}

fn show(args: &CompareArgs, endpoints: &[Endpoint], comparison: &Comparison, value: &Value) -> Result<()> {
    match args.output {
        Format::Json => {
            comparison.warnings().iter().for_each(|warning| out::tell(&format!("lockgate-loadgen: {warning}")));
            out::print_json(value)
        }
        Format::Table => {
            let load = load_line(&endpoints[0].settings);
            out::print(&format!("{load}, {} s a round\n{}", args.round_time, comparison.table()))
        }
    }
}
