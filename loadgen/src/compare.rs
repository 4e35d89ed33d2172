//! Two to six endpoints side by side: short rounds in random order, so that what changes on the machine hits all alike.

use crate::measure::time;
use crate::process::Server;
use crate::rng::Rng;
use crate::run::{self, Outcome, Settings};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write;

/// Resamples behind a confidence interval.
const RESAMPLES: usize = 2_000;
/// What the interval covers, in per cent.
const CONFIDENCE: f64 = 95.0;

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
    p50_ns: f64,
    p99_ns: f64,
    /// `None`: the process is not known.
    cpu_ns: Option<f64>,
    faults: u64,
}

type Read = fn(&Sample) -> Option<f64>;

/// What is compared, and how to read it.
const MEASURES: [(&str, Read); 4] = [
    ("cpu_per_request", |sample| sample.cpu_ns),
    ("p50", |sample| Some(sample.p50_ns)),
    ("p99", |sample| Some(sample.p99_ns)),
    ("rate", |sample| Some(sample.rate)),
];

/// A ratio to the first endpoint: median over rounds, with its confidence interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Debug)]
pub struct Comparison {
    names: Vec<String>,
    /// By endpoint, then round.
    samples: Vec<Vec<Sample>>,
    /// Rounds in which the generator was late: left out for all endpoints.
    pub late_rounds: usize,
    seed: u64,
    pub faults: u64,
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
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); endpoints.len()];
    let (mut late_rounds, mut faults) = (0, 0);
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        rng.shuffle(&mut order);
        let mut results = vec![None; endpoints.len()];
        let mut late = false;
        for index in order {
            let endpoint = &endpoints[index];
            let (outcome, cpu_ns) = measure(endpoint).with_context(|| format!("endpoint `{}`", endpoint.name))?;
            ensure!(!outcome.interrupted, "interrupted");
            late |= outcome.late.is_some();
            faults += outcome.total.faults_total();
            progress(round + 1, &endpoint.name, outcome.achieved);
            results[index] = Some(sample(&outcome, cpu_ns));
        }
        if late {
            late_rounds += 1;
            continue;
        }
        samples.iter_mut().zip(results).for_each(|(samples, result)| samples.extend(result));
    }
    let names = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    Ok(Comparison { names, samples, late_rounds, seed, faults })
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
    Sample {
        rate: outcome.achieved,
        p50_ns: outcome.total.response.value_at_quantile(0.5) as f64,
        p99_ns: outcome.total.response.value_at_quantile(0.99) as f64,
        cpu_ns,
        faults: outcome.total.faults_total(),
    }
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
    Ratio { median: median(&mut ratios.to_vec()), low: at(tail), high: at(1.0 - tail) }
}

impl Comparison {
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
            let mut value =
                json!({"name": name, "errors": self.samples[index].iter().map(|sample| sample.faults).sum::<u64>()});
            for (measure, read) in MEASURES {
                let ratio = self
                    .ratio(index, read)
                    .map(|ratio| json!({"median": ratio.median, "low": ratio.low, "high": ratio.high}));
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
            "errors": self.faults,
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let rounds = self.rounds();
        let _ = writeln!(out, "{rounds} rounds in random order, seed {}; ratios to `{}`", self.seed, self.names[0]);
        let _ = writeln!(out, "are medians of per-round ratios, with {CONFIDENCE} % bootstrap intervals");
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
                let ratio = ratio.map_or(String::new(), |r| format!("{:.3}  [{:.3}, {:.3}]", r.median, r.low, r.high));
                let _ = writeln!(out, "{}", format!("{name:<width$}  {value:>12}  {ratio}").trim_end());
            }
        }
        if self.faults > 0 {
            let _ = writeln!(out, "\n{} requests failed; do not trust these numbers", self.faults);
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
        assert_eq!(same, Ratio { median: 1.1, low: 1.1, high: 1.1 });
        let spread: Vec<f64> = (0..21).map(|round| 0.9 + f64::from(round) * 0.01).collect();
        let spread = ratio(&spread, &mut Rng::new(1));
        assert!((spread.median - 1.0).abs() < 1e-9);
        assert!(spread.low > 0.92 && spread.low < 1.0 && spread.high > 1.0 && spread.high < 1.08, "{spread:?}");
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let sample = |rate: f64, cpu: f64| Sample { rate, p50_ns: 1.0, p99_ns: 2.0, cpu_ns: Some(cpu), faults: 0 };
        // The machine was slower in each round than before, for both alike: the ratio does not notice.
        let first = (1..=5).map(|round| sample(1.0, f64::from(round) * 10.0)).collect();
        let second = (1..=5).map(|round| sample(1.0, f64::from(round) * 8.0)).collect();
        let comparison = Comparison {
            names: vec!["a".into(), "b".into()],
            samples: vec![first, second],
            late_rounds: 0,
            seed: 1,
            faults: 0,
        };
        assert_eq!(comparison.json()["endpoints"][1]["cpu_per_request"]["to_first"]["median"], json!(0.8));
        assert!(comparison.table().contains("0.800  [0.800, 0.800]"), "{}", comparison.table());
    }
}
