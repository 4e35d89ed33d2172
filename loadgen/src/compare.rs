//! Two to six endpoints side by side: short rounds in random order, so that what changes on the machine hits all alike.

use crate::measure::{Faults, add_faults, at, time, total};
use crate::output;
use crate::process::Server;
use crate::rng::Rng;
use crate::run::{self, CheckFailed, Outcome, Settings};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fmt::Write;

/// Resamples behind a confidence interval.
const RESAMPLES: usize = 2_000;
/// What the interval covers, in per cent.
const CONFIDENCE: f64 = 95.0;
/// With fewer rounds not even the range from the lowest to the highest covers that: 1 - 2 / 2^5 is 94 %.
const INTERVAL_ROUNDS_MIN: usize = 6;

#[derive(Debug)]
pub struct Endpoint {
    pub name: String,
    pub settings: Settings,
    pub server: Option<Server>,
}

/// One endpoint in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: f64,
    /// `None`: nothing was answered.
    p50_ns: Option<f64>,
    p99_ns: Option<f64>,
    /// `None`: the process is not known.
    cpu_ns: Option<f64>,
}

type Read = fn(&Sample) -> Option<f64>;

/// What is compared, and how to read it.
const MEASURES: [(&str, Read); 4] = [
    ("cpu_per_request", |sample| sample.cpu_ns),
    ("p50", |sample| sample.p50_ns),
    ("p99", |sample| sample.p99_ns),
    ("rate", |sample| Some(sample.rate)),
];

/// A ratio to the first endpoint: median over rounds, with its confidence interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    pub median: f64,
    /// `None`: too few rounds.
    pub interval: Option<(f64, f64)>,
}

#[derive(Debug)]
pub struct Comparison {
    names: Vec<String>,
    /// By endpoint, then round.
    samples: Vec<Vec<Sample>>,
    /// Rounds in which the generator was late: left out for all endpoints.
    pub late_rounds: usize,
    seed: u64,
    /// Requests that failed, by endpoint, in all rounds there were.
    faults: Vec<Faults>,
    /// Why there were fewer rounds than asked for.
    pub unfinished: Option<String>,
}

/// What all endpoints came to in one round.
struct Round {
    samples: Vec<Option<Sample>>,
    late: bool,
}

/// Runs the rounds. `progress` hears of round, endpoint and rate.
pub fn compare(
    endpoints: &[Endpoint],
    rounds: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, &str, f64),
) -> Result<Comparison> {
    ensure!((2..=6).contains(&endpoints.len()), "two to six endpoints can be compared, not {}", endpoints.len());
    let mut rng = Rng::new(seed);
    let mut comparison = Comparison {
        names: endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
        samples: vec![Vec::new(); endpoints.len()],
        late_rounds: 0,
        seed,
        faults: vec![Faults::new(); endpoints.len()],
        unfinished: None,
    };
    for number in 1..=rounds {
        let round = comparison.round(endpoints, &mut rng, &mut |name, rate| progress(number, name, rate));
        match round {
            Ok(round) => comparison.take_in(round),
            // The rounds before are worth telling; without any the reason is all there is.
            Err(error) if comparison.rounds() == 0 || error.is::<CheckFailed>() => return Err(error),
            Err(error) => {
                comparison.unfinished = Some(format!("round {number} of {rounds} was not finished: {error:#}"));
                break;
            }
        }
    }
    Ok(comparison)
}

/// One run, and the CPU the server used per request meanwhile: from the end of the last interval of warm-up on, so that neither
/// logins nor warm-up count on either side of the division.
fn measure(endpoint: &Endpoint) -> Result<(Outcome, Option<f64>)> {
    let mut before = None;
    let mut after = None;
    let server = endpoint.server.as_ref();
    let mut done = 0;
    let outcome = run::run(&endpoint.settings, &mut |point, warmup| {
        let cpu = server.and_then(|server| server.cpu_ns().ok());
        if warmup || before.is_none() {
            before = cpu;
            return;
        }
        done += point.done + point.faults;
        after = cpu;
    })?;
    let cpu =
        before.zip(after).filter(|_| done > 0).map(|(before, after)| after.saturating_sub(before) as f64 / done as f64);
    Ok((outcome, cpu))
}

fn sample(outcome: &Outcome, cpu_ns: Option<f64>) -> Sample {
    let response = &outcome.total.response;
    let percentile = |percentile| (!response.is_empty()).then(|| at(response, percentile) as f64);
    Sample { rate: outcome.achieved, p50_ns: percentile(50.0), p99_ns: percentile(99.0), cpu_ns }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => (values[length / 2 - 1] + values[length / 2]) / 2.0,
    }
}

/// The median of per-round ratios, and how far it moves when rounds are drawn again with replacement.
pub fn ratio(ratios: &[f64], rng: &mut Rng) -> Ratio {
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut drawn: Vec<f64> =
                ratios.iter().map(|_| ratios[rng.between(0, ratios.len() as i64 - 1) as usize]).collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE / 100.0) / 2.0;
    let at = |quantile: f64| medians[((medians.len() - 1) as f64 * quantile).round() as usize];
    let interval = (ratios.len() >= INTERVAL_ROUNDS_MIN).then(|| (at(tail), at(1.0 - tail)));
    Ratio { median: median(&mut ratios.to_vec()), interval }
}

impl Comparison {
    /// Each endpoint once, in random order.
    fn round(&mut self, endpoints: &[Endpoint], rng: &mut Rng, progress: &mut dyn FnMut(&str, f64)) -> Result<Round> {
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        rng.shuffle(&mut order);
        let mut round = Round { samples: vec![None; endpoints.len()], late: false };
        for index in order {
            let endpoint = &endpoints[index];
            let (outcome, cpu_ns) = measure(endpoint).with_context(|| format!("endpoint `{}`", endpoint.name))?;
            add_faults(&mut self.faults[index], &outcome.total.faults);
            if let Some(cut_short) = &outcome.cut_short {
                bail!("endpoint `{}`: {cut_short}", endpoint.name);
            }
            round.late |= outcome.late.is_some();
            progress(&endpoint.name, outcome.achieved);
            round.samples[index] = Some(sample(&outcome, cpu_ns));
        }
        Ok(round)
    }

    fn take_in(&mut self, round: Round) {
        if round.late {
            self.late_rounds += 1;
            return;
        }
        self.samples.iter_mut().zip(round.samples).for_each(|(samples, sample)| samples.extend(sample));
    }

    pub fn faults(&self) -> u64 {
        self.faults.iter().map(total).sum()
    }

    pub fn rounds(&self) -> usize {
        self.samples[0].len()
    }

    fn medians(&self, endpoint: usize, read: Read) -> Option<f64> {
        let mut values = self.samples[endpoint].iter().map(read).collect::<Option<Vec<f64>>>()?;
        (!values.is_empty()).then(|| median(&mut values))
    }

    fn ratio(&self, endpoint: usize, read: Read) -> Option<Ratio> {
        let pairs = self.samples[endpoint].iter().zip(&self.samples[0]);
        let ratios = pairs.map(|(own, first)| Some(read(own)? / read(first)?)).collect::<Option<Vec<f64>>>()?;
        (!ratios.is_empty()).then(|| ratio(&ratios, &mut Rng::new(self.seed)))
    }

    pub fn json(&self) -> Value {
        let endpoints = self.names.iter().enumerate().map(|(index, name)| {
            let faults = &self.faults[index];
            let mut value = json!({"name": name, "errors": total(faults), "errors_by_kind": output::faults(faults)});
            for (measure, read) in MEASURES {
                let ratio = self.ratio(index, read).map(|ratio| {
                    let (low, high) = ratio.interval.unzip();
                    json!({"median": ratio.median, "low": low, "high": high})
                });
                value[measure] = json!({
                    "median": self.medians(index, read),
                    "to_first": ratio,
                    "rounds": self.samples[index].iter().map(read).collect::<Vec<_>>(),
                });
            }
            value
        });
        json!({
            "seed": self.seed,
            "rounds": self.rounds(),
            "rounds_late": self.late_rounds,
            "confidence_percent": CONFIDENCE,
            "errors": self.faults(),
            "unfinished": self.unfinished,
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let rounds = self.rounds();
        let _ = writeln!(out, "{rounds} rounds in random order, seed {}; ratios to `{}`", self.seed, self.names[0]);
        let intervals = if rounds < INTERVAL_ROUNDS_MIN {
            format!("; {rounds} are too few for an interval, which takes {INTERVAL_ROUNDS_MIN}")
        } else {
            format!(", with {CONFIDENCE} % bootstrap intervals")
        };
        let _ = writeln!(out, "are medians of per-round ratios{intervals}");
        if let Some(unfinished) = &self.unfinished {
            let _ = writeln!(out, "CUT SHORT: {unfinished}");
        }
        if self.late_rounds > 0 {
            let _ = writeln!(out, "{} rounds were left out: the generator itself was late in them", self.late_rounds);
        }
        let width = self.names.iter().map(String::len).max().unwrap_or(0).max(8);
        for (measure, read) in MEASURES {
            let _ = writeln!(out, "\n{:<width$}  {:>12}  ratio", measure.replace('_', " "), "median");
            for (index, name) in self.names.iter().enumerate() {
                let value = match (self.medians(index, read), measure) {
                    (None, _) => "not known".into(),
                    (Some(value), "rate") => format!("{value:.0}/s"),
                    (Some(value), _) => time(value as u64),
                };
                let ratio = self.ratio(index, read).filter(|_| index > 0);
                let ratio = ratio.map_or(String::new(), |ratio| {
                    let interval = ratio.interval.map(|(low, high)| format!("  [{low:.3}, {high:.3}]"));
                    format!("{:.3}{}", ratio.median, interval.unwrap_or_default())
                });
                let _ = writeln!(out, "{}", format!("{name:<width$}  {value:>12}  {ratio}").trim_end());
            }
        }
        if self.faults() > 0 {
            let _ = writeln!(out, "\n{} requests failed; do not trust these numbers", self.faults());
        }
        for (name, faults) in self.names.iter().zip(&self.faults) {
            for (kind, (count, detail)) in faults {
                let _ = writeln!(out, "  {name:<width$}  {count} x {kind}: {detail}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_intervals_are_right() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        let same = ratio(&[1.1; 9], &mut Rng::new(1));
        assert_eq!(same, Ratio { median: 1.1, interval: Some((1.1, 1.1)) });
        assert_eq!(ratio(&[1.1; 5], &mut Rng::new(1)).interval, None, "five rounds are too few");
        let spread: Vec<f64> = (0..21).map(|round| 0.9 + f64::from(round) * 0.01).collect();
        let spread = ratio(&spread, &mut Rng::new(1));
        assert!((spread.median - 1.0).abs() < 1e-9);
        let (low, high) = spread.interval.expect("there are enough rounds");
        assert!(low > 0.92 && low < 1.0 && high > 1.0 && high < 1.08, "{spread:?}");
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let sample = |rate: f64, cpu: f64| Sample { rate, p50_ns: Some(1.0), p99_ns: Some(2.0), cpu_ns: Some(cpu) };
        // The machine was slower in each round than before, for both alike: the ratio does not notice.
        let first = (1..=6).map(|round| sample(1.0, f64::from(round) * 10.0)).collect();
        let second = (1..=6).map(|round| sample(1.0, f64::from(round) * 8.0)).collect();
        let comparison = Comparison {
            names: vec!["a".into(), "b".into()],
            samples: vec![first, second],
            late_rounds: 0,
            seed: 1,
            faults: vec![Faults::new(), [("timeout".to_string(), (3, "slow".to_string()))].into()],
            unfinished: None,
        };
        assert_eq!(comparison.json()["endpoints"][1]["cpu_per_request"]["to_first"]["median"], json!(0.8));
        let table = comparison.table();
        assert!(table.contains("0.800  [0.800, 0.800]") && table.contains("b         3 x timeout: slow"), "{table}");
    }
}
