//! `saturate`: the highest rate that holds.

use super::args::{Format, SaturateArgs};
use super::settings::{describe, settings};
use super::{Verdict, demand, usage};
use crate::measure::time;
use crate::saturate::{self, Search};
use crate::schedule::Profile;
use crate::{manifest, sys};
use anyhow::Result;

pub fn verb(args: &SaturateArgs) -> Result<Verdict> {
    sys::catch_interrupt();
    let mut settings =
        settings(&args.target, &args.workload, &args.load, Some(Profile::Flat(args.from))).map_err(usage)?;
    settings.duration_s = Some(args.probe);
    settings.warmup_s = (args.probe / 4.0).min(1.0);
    demand(args.precision > 0.0 && args.from <= args.max, "--precision must be above 0, and --from at most --max")?;
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
