//! The highest rate a target answers with p99 under a bound.

use crate::measure::time;
use crate::run::{self, CheckFailed, Outcome, Settings};
use crate::schedule::Profile;
use crate::trouble::Trouble;
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

/// A rate counts as kept up with when at least this share of it is answered.
const KEPT_UP: f64 = 0.98;
/// A rate that fails is tried once more: a hiccup of the machine is not the target's limit.
const TRIES: usize = 2;
/// A try in which the generator itself was late says nothing of the target, so it is no such try; but there is an end to that.
const TRIES_MAX: usize = 4;

#[derive(Clone, Copy, Debug)]
pub struct Search {
    pub from: f64,
    pub rate_max: f64,
    pub bound_ns: u64,
    /// Ends when the rate that holds and the one that does not are this close, as a share.
    pub precision: f64,
}

/// How one rate went.
#[derive(Clone, Debug)]
pub struct Probe {
    pub rate: f64,
    pub achieved: f64,
    /// `None`: nothing was answered, or the generator was late and the time would blame the server for it.
    pub p99_ns: Option<u64>,
    /// `None`: it held.
    pub why_not: Option<String>,
    /// The generator was the limit, not the target.
    pub own_fault: bool,
    pub trouble: Trouble,
}

#[derive(Clone, Debug)]
pub struct Found {
    /// The highest rate that held; `None`: not even the first did.
    pub rate: Option<f64>,
    /// What stopped it there.
    pub limit: String,
    /// What was answered wrongly, which ended it: how much of that a target can do is no question.
    pub wrong: Vec<String>,
    /// The generator stopped it: the target may do more.
    pub own_fault: bool,
    /// Why the search was not finished: the rate may be higher.
    pub unfinished: Option<String>,
    pub probes: Vec<Probe>,
}

/// Doubles until a rate fails, then halves the gap.
pub fn saturate(settings: &Settings, search: Search, progress: &mut dyn FnMut(&Probe)) -> Result<Found> {
    ensure!(settings.open.is_some(), "the search needs an open loop");
    let mut tries = 0;
    find(search, &mut |rate| {
        tries += 1;
        let mut settings = settings.of_round(tries);
        let arrivals = settings.open.as_ref().expect("it was checked").1;
        settings.open = Some((Profile::Flat(rate), arrivals));
        let outcome = run::run(&settings, &mut |_, _| {})?;
        let probe = judge(rate, &outcome, search.bound_ns);
        if let Some(cut_short) = outcome.cut_short.as_ref().filter(|_| !probe.is_wrong()) {
            bail!("{cut_short}");
        }
        // Random arrivals may leave a short probe empty: then nothing is known of the rate.
        let asked = outcome.total.offered > 0 || probe.is_wrong();
        ensure!(asked, "no request was due while {rate}/s were tried: use a longer --probe");
        progress(&probe);
        Ok(probe)
    })
}

fn judge(rate: f64, outcome: &Outcome, bound_ns: u64) -> Probe {
    let p99_ns = outcome.total.response_of_all(99.0).filter(|_| outcome.late.is_none());
    let trouble = Trouble::of(&outcome.total);
    let (faults, wrong) = (trouble.failed(), trouble.wrong_answers());
    let why_not = if !wrong.is_empty() {
        Some(wrong.join(", "))
    } else if faults > 0 {
        Some(format!("{faults} requests failed"))
    } else if outcome.late.is_some() {
        Some("the generator itself was late".into())
    } else if !outcome.answers_at_least(outcome.offered * KEPT_UP) {
        Some(format!("only {:.0} a second were answered", outcome.achieved))
    } else {
        p99_ns.filter(|&found| found > bound_ns).map(|found| format!("p99 was {}", time(found)))
    };
    let own_fault = faults == 0 && wrong.is_empty() && outcome.late.is_some();
    Probe { rate, achieved: outcome.achieved, p99_ns, why_not, own_fault, trouble }
}

impl Probe {
    fn is_wrong(&self) -> bool {
        !self.trouble.wrong_answers().is_empty()
    }
}

fn find(search: Search, probe: &mut dyn FnMut(f64) -> Result<Probe>) -> Result<Found> {
    let mut probes = Vec::new();
    let (mut holds, mut fails) = (None, None::<Probe>);
    let mut rate = search.from.min(search.rate_max);
    let (mut unfinished, mut wrong) = (None, Vec::new());
    loop {
        let last = match try_rate(rate, probe, &mut probes) {
            Ok(last) => last,
            // What was found is worth telling; without anything the reason is all there is.
            Err(error) if probes.is_empty() || error.is::<CheckFailed>() => return Err(error),
            Err(error) => {
                unfinished = Some(format!("not finished: {error:#}"));
                break;
            }
        };
        if last.is_wrong() {
            wrong = last.trouble.wrong_answers();
            (holds, fails) = (None, Some(last));
            break;
        }
        if last.why_not.is_none() {
            holds = Some(rate);
        } else {
            fails = Some(last);
        }
        rate = match (holds, &fails) {
            (Some(low), Some(high)) if high.rate / low <= 1.0 + search.precision => break,
            (Some(low), Some(high)) => (low * high.rate).sqrt(),
            (Some(low), None) if low >= search.rate_max => break,
            (Some(low), None) => (low * 2.0).min(search.rate_max),
            (None, _) => break,
        };
    }
    let limit = match &fails {
        _ if unfinished.is_some() => unfinished.clone().unwrap_or_default(),
        Some(probe) => format!("at {:.0}/s {}", probe.rate, probe.why_not.as_deref().unwrap_or_default()),
        None => format!("the highest rate allowed, {:.0}/s, still held (--max)", search.rate_max),
    };
    let own_fault = unfinished.is_none() && fails.is_some_and(|probe| probe.own_fault);
    Ok(Found { rate: holds, limit, own_fault, unfinished, wrong, probes })
}

/// Until it holds, or has failed often enough; a wrong answer is no hiccup. A failure that was the target's counts, whatever befell
/// the generator in other tries.
fn try_rate(rate: f64, probe: &mut dyn FnMut(f64) -> Result<Probe>, probes: &mut Vec<Probe>) -> Result<Probe> {
    let (mut failed, mut late) = (Vec::new(), None);
    for _ in 0..TRIES_MAX {
        let last = probe(rate)?;
        probes.push(last.clone());
        if last.why_not.is_none() || last.is_wrong() {
            return Ok(last);
        }
        if last.own_fault {
            late = Some(last);
        } else {
            failed.push(last);
        }
        if failed.len() == TRIES {
            break;
        }
    }
    Ok(failed.pop().or(late).expect("it was tried"))
}

impl Found {
    pub fn json(&self) -> Value {
        let probes = self.probes.iter().map(|probe| {
            let mut value = json!({
                "rate": probe.rate, "achieved_per_s": probe.achieved, "p99_ns": probe.p99_ns, "why_not": probe.why_not,
            });
            probe.trouble.tell(&mut value);
            value
        });
        json!({
            "rate": self.rate, "limit": self.limit, "generator_limited": self.own_fault, "unfinished": self.unfinished,
            "wrong_answers": self.wrong, "probes": probes.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limit: f64, search: Search) -> Found {
        let mut hiccup = true;
        find(search, &mut |rate| {
            // The first try above 1000 fails once for no reason.
            let unlucky = rate > 1000.0 && std::mem::take(&mut hiccup);
            let why_not = (rate > limit || unlucky).then(|| "p99".to_string());
            Ok(Probe { rate, achieved: rate, p99_ns: Some(1), why_not, own_fault: false, trouble: Trouble::default() })
        })
        .expect("no probe fails")
    }

    #[test]
    fn the_limit_is_found_within_the_precision_despite_a_hiccup() {
        let search = Search { from: 500.0, rate_max: 1e6, bound_ns: 1, precision: 0.02 };
        let rate = found(7_777.0, search).rate.expect("it is above the first rate");
        assert!(rate <= 7_777.0 && rate > 7_777.0 * 0.97, "{rate}");
    }

    #[test]
    fn what_was_found_until_a_probe_could_not_be_made_is_told() {
        let search = Search { from: 500.0, rate_max: 1e6, bound_ns: 1, precision: 0.02 };
        let until = |last: f64| {
            find(search, &mut |rate| {
                ensure!(rate <= last, "the server went away");
                Ok(Probe {
                    rate,
                    achieved: rate,
                    p99_ns: Some(1),
                    why_not: None,
                    own_fault: false,
                    trouble: Trouble::default(),
                })
            })
        };
        let found = until(2_000.0).expect("some probes were made");
        assert_eq!(
            (found.rate, found.unfinished.as_deref()),
            (Some(2_000.0), Some("not finished: the server went away"))
        );
        assert!(until(1.0).is_err());
    }

    #[test]
    fn a_try_in_which_the_generator_was_late_is_no_evidence() {
        let late = |rate| Probe {
            rate,
            achieved: rate,
            p99_ns: None,
            why_not: Some("late".into()),
            own_fault: true,
            trouble: Trouble::default(),
        };
        // What each try came to: `h`eld, `f`ailed, or the generator was `l`ate; then how many were made, and the verdict.
        for (tries, made, why_not, own_fault) in [
            ("h", 1, None, false),
            ("fh", 2, None, false),
            ("ff", 2, Some("p99"), false),
            ("fll", 4, Some("p99"), false),
            ("flf", 3, Some("p99"), false),
            ("llh", 3, None, false),
            ("lllf", 4, Some("p99"), false),
            ("llll", 4, Some("late"), true),
        ] {
            let (mut outcomes, mut probes) = (tries.chars().chain(std::iter::repeat('l')), Vec::new());
            let mut probe = |rate| {
                Ok(match outcomes.next() {
                    Some('l') => late(rate),
                    of => Probe { why_not: (of == Some('f')).then(|| "p99".into()), own_fault: false, ..late(rate) },
                })
            };
            let verdict = try_rate(1.0, &mut probe, &mut probes).expect("no probe fails");
            assert_eq!(
                (probes.len(), verdict.why_not.as_deref(), verdict.own_fault),
                (made, why_not, own_fault),
                "{tries}"
            );
        }
    }

    #[test]
    fn the_ends_of_the_range_are_told() {
        let search = Search { from: 500.0, rate_max: 4_000.0, bound_ns: 1, precision: 0.02 };
        assert_eq!(found(100.0, search).rate, None);
        let all = found(1e9, search);
        assert_eq!(all.rate, Some(4_000.0));
        assert!(all.limit.contains("still held"), "{}", all.limit);
    }
}
