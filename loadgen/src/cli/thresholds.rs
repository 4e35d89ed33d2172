//! What `run` was told must hold (`--fail-...`), and whether it did.

use super::args::RunArgs;
use crate::measure::{time, total};
use crate::run::Outcome;
use crate::trouble::Trouble;

/// A rate this far below its limit counts as held: answers at both ends of the measured time are a matter of chance.
const RATE_SLACK: f64 = 0.01;

/// Judgements, in words.
#[derive(Debug, Default)]
pub struct Verdicts {
    pub missed: Vec<String>,
    /// What cannot be said of the server, because this generator was in the way.
    pub unknown: Vec<String>,
}

pub fn judge(args: &RunArgs, outcome: &Outcome) -> Verdicts {
    // Whatever --fail-errors says.
    let mut verdicts = Verdicts { missed: Trouble::of(&outcome.total).wrong_answers(), unknown: Vec::new() };
    if let Some(why) = &outcome.cut_short {
        verdicts.unknown.push(why.clone());
        return verdicts;
    }
    times(args, outcome, &mut verdicts);
    let errors = outcome.total.faults_total();
    if let Some(limit) = args.fail_errors.filter(|&limit| errors > limit) {
        verdicts.missed.push(format!("{errors} errors, the limit {limit}"));
    }
    if let Some(limit) = args.fail_rate.filter(|&limit| !outcome.answers_at_least(limit * (1.0 - RATE_SLACK))) {
        match outcome.late.as_ref().or(outcome.limited.as_ref()) {
            Some(late) => verdicts.unknown.push(format!("whether the rate was held cannot be judged: {late}")),
            None => verdicts.missed.push(format!("{:.1} answers a second, the limit {limit}", outcome.achieved)),
        }
    }
    verdicts
}

fn times(args: &RunArgs, outcome: &Outcome, verdicts: &mut Verdicts) {
    let limits = [
        ("p50", 50.0, args.fail_p50),
        ("p99", 99.0, args.fail_p99),
        ("p99.9", 99.9, args.fail_p999),
        ("max", 100.0, args.fail_max),
    ];
    for (name, percentile, limit) in limits {
        let Some(limit) = limit else { continue };
        if let Some(late) = &outcome.late {
            verdicts.unknown = vec![format!("thresholds on time cannot be judged: {late}")];
            return;
        }
        let limit_ns = (limit * 1e9).round() as u64;
        match outcome.total.response_of_all(percentile) {
            None => verdicts.missed.push(unanswered(name, outcome, limit_ns)),
            Some(found) if found <= limit_ns => {}
            // As long as the longest answer, this generator may have stood still itself.
            Some(found) if percentile == 100.0 && found <= limit_ns + outcome.total.pause_ns => {
                let (found, pause) = (time(found), time(outcome.total.pause_ns));
                let why = format!("{name} is {found}, but the generator itself stood still for {pause}");
                verdicts
                    .unknown
                    .push(format!("{why}: it cannot be said whether the limit of {} was held", time(limit_ns)));
            }
            Some(found) => {
                let miss = format!("{name} is {}, the limit {}", time(found), time(limit_ns));
                match &outcome.limited {
                    // Without the generator's own work it might have been less.
                    Some(limited) => verdicts.unknown.push(format!("{miss}; but {limited}")),
                    None => verdicts.missed.push(miss),
                }
            }
        }
    }
}

fn unanswered(name: &str, outcome: &Outcome, limit_ns: u64) -> String {
    let failed = total(&outcome.total.faults);
    let all = failed + outcome.total.response.len();
    format!("{name} has no end: {failed} of {all} requests were not answered rightly; the limit is {}", time(limit_ns))
}
