//! `saturate`: the highest rate that holds.

use super::args::{Format, SaturateArgs};
use super::files::Output;
use super::settings::{demand_short_ticks, describe, settings};
use super::{Verdict, demand, out, usage};
use crate::measure::time;
use crate::saturate::{self, Found, Search};
use crate::schedule::Profile;
use crate::{manifest, report, sys};
use anyhow::Result;
use serde_json::Value;
use std::ops::RangeInclusive;

/// Per cent. Closer than half of one, chance decides; further apart than a doubling, nothing would be halved.
const PRECISION: RangeInclusive<f64> = 0.5..=100.0;

pub fn verb(args: &SaturateArgs) -> Result<Verdict> {
    let mut settings =
        settings(&args.target, &args.workload, &args.load, Some(Profile::Flat(args.from))).map_err(usage)?;
    settings.duration_s = Some(args.probe);
    settings.warmup_s = (args.probe / 4.0).min(1.0);
    demand(PRECISION.contains(&args.precision), "--precision must be from 0.5 to 100 per cent")?;
    demand(args.from <= args.max, "--from must be at most --max")?;
    let asks = args.from * args.probe >= 1.0 - 1e-9;
    demand(asks, "at --from not even one request is due in a --probe: take a higher rate or a longer probe")?;
    demand(args.probe >= 0.01, "--probe must be 10 ms or more")?;
    demand_short_ticks(&settings)?;
    let search = Search {
        from: args.from,
        rate_max: args.max,
        bound_ns: (args.p99 * 1e9) as u64,
        precision: args.precision / 100.0,
    };
    sys::catch_interrupt();
    let report = args.report.as_deref().map(Output::open).transpose()?;
    let found = saturate::saturate(&settings, search, &mut |probe| {
        let verdict = probe.why_not.as_deref().unwrap_or("held");
        let p99 = probe.p99_ns.map_or("-".into(), time);
        out::tell(&format!("{:>9.0}/s  p99 {p99:>8}  {verdict}", probe.rate));
        probe.trouble.lines().iter().for_each(|line| out::tell(&format!("{:>24}{line}", "")));
    })?;
    let mut value = found.json();
    value["bound_ns"] = search.bound_ns.into();
    value["settings"] = describe(&settings);
    // Every probe has a rate of its own.
    value["settings"]["profile"] = Value::Null;
    value["manifest"] = manifest::collect();
    let written = [
        show(args, search, &found, &value),
        report.map_or(Ok(()), |file| file.write(&report::page(report::Of::Saturate, &value))),
    ];
    if out::tell_lost(written) {
        return Ok(Verdict::CannotTell);
    }
    if !found.wrong.is_empty() {
        found.wrong.iter().for_each(|wrong| out::tell(&format!("missed: {wrong}")));
        return Ok(Verdict::No);
    }
    if found.own_fault {
        out::tell("the generator was the limit: the target may do more");
    }
    Ok(match found.rate {
        _ if found.own_fault || found.unfinished.is_some() => Verdict::CannotTell,
        Some(_) => Verdict::Yes,
        None => Verdict::No,
    })
}

fn show(args: &SaturateArgs, search: Search, found: &Found, value: &Value) -> Result<()> {
    match args.output {
        Format::Json => out::print_json(value),
        Format::Table => out::print(&table(search, found)),
    }
}

fn table(search: Search, found: &Found) -> String {
    let answer = match found.rate {
        Some(rate) => format!("{rate:.0}/s with p99 under {}; {}\n", time(search.bound_ns), found.limit),
        None => format!("no rate held: {}\n", found.limit),
    };
    let lines = found
        .probes
        .iter()
        .flat_map(|probe| probe.trouble.lines().into_iter().map(|line| format!("  at {:.0}/s  {line}\n", probe.rate)));
    answer + &lines.collect::<String>()
}
