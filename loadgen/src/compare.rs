//! Two to six endpoints side by side: short rounds in random order, so that what changes on the machine hits all alike.

use crate::answers::{self, Unlike};
use crate::measure::{at, histogram, time};
use crate::output;
use crate::process::Server;
use crate::rng::Rng;
use crate::run::{self, CheckFailed, Outcome, Settings};
use crate::trouble::Trouble;
use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// How often an interval has to cover the true median. With fewer than six rounds not even the range from the lowest to the
/// highest does: 1 - 2 / 2^5 is 94 %.
const COVERAGE_MIN: f64 = 0.95;

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
    /// By endpoint: how its answer differs from the first one's, if it does.
    unlike: Vec<Option<Unlike>>,
    /// By endpoint, then round.
    samples: Vec<Vec<Sample>>,
    /// By endpoint: response times of all those rounds.
    times: Vec<Histogram<u64>>,
    /// Rounds in which the generator was late: left out for all endpoints.
    pub late_rounds: usize,
    /// Rounds of a closed loop in which the generator was the limit of some endpoint: they count, and that is told.
    limited_rounds: usize,
    seed: u64,
    /// What went wrong, by endpoint, in all rounds there were.
    trouble: Vec<Trouble>,
    /// Why there were fewer rounds than asked for.
    pub unfinished: Option<String>,
}

/// What all endpoints came to in one round.
struct Round {
    samples: Vec<Option<Sample>>,
    times: Vec<Histogram<u64>>,
    late: bool,
    limited: bool,
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
        unlike: unlike(endpoints)?,
        samples: vec![Vec::new(); endpoints.len()],
        times: vec![histogram(); endpoints.len()],
        late_rounds: 0,
        limited_rounds: 0,
        seed,
        trouble: vec![Trouble::default(); endpoints.len()],
        unfinished: None,
    };
    for number in 1..=rounds {
        let round = comparison.round(endpoints, number, &mut rng, &mut |name, rate| progress(number, name, rate));
        match round {
            Ok(round) => comparison.take_in(round),
            // The rounds before are worth telling; without any the reason is all there is.
            Err(error) if error.is::<CheckFailed>() => return Err(error),
            Err(error) if comparison.rounds() == 0 => return Err(comparison.wrong().unwrap_or(error)),
            Err(error) => {
                comparison.unfinished = Some(format!("round {number} of {rounds} was not finished: {error:#}"));
                break;
            }
        }
    }
    // Nothing to show but that.
    comparison.wrong().filter(|_| comparison.rounds() == 0).map_or(Ok(comparison), Err)
}

/// Asks every endpoint once.
fn unlike(endpoints: &[Endpoint]) -> Result<Vec<Option<Unlike>>> {
    let ask =
        |endpoint: &Endpoint| answers::ask(&endpoint.settings).with_context(|| format!("endpoint `{}`", endpoint.name));
    let answers = endpoints.iter().map(ask).collect::<Result<Vec<_>>>()?;
    Ok(answers.iter().map(|answer| answer.unlike(&answers[0])).collect())
}

/// One run in the round of that number, and the CPU the server used per request meanwhile: from the end of the last interval of warm-up on, so that neither
/// logins nor warm-up count on either side of the division.
fn measure(endpoint: &Endpoint, number: usize) -> Result<(Outcome, Option<f64>)> {
    let mut before = None;
    let mut after = None;
    let server = endpoint.server.as_ref();
    let mut served = 0;
    let outcome = run::run(&endpoint.settings.of_round(number), &mut |point, warmup| {
        let reading = server.and_then(|server| server.reading().ok());
        if warmup || before.is_none() {
            before = reading;
            return;
        }
        served += point.served();
        after = reading;
    })?;
    let cpu_ns = before.zip(after).filter(|_| served > 0).and_then(|(before, after)| after.since(&before));
    Ok((outcome, cpu_ns.map(|cpu_ns| cpu_ns as f64 / served as f64)))
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

/// The median of per-round ratios, and an interval for it.
pub fn ratio(ratios: &[f64]) -> Ratio {
    let mut sorted = ratios.to_vec();
    let median = median(&mut sorted);
    let interval =
        order_interval(sorted.len()).map(|order| (sorted[order.left_out], sorted[sorted.len() - 1 - order.left_out]));
    Ratio { median, interval }
}

/// With its interval, if there is one.
fn told(ratio: Option<Ratio>) -> String {
    ratio.map_or("not known".into(), |ratio| {
        let interval = ratio.interval.map(|(low, high)| format!("  [{low:.3}, {high:.3}]"));
        format!("{:.3}{}", ratio.median, interval.unwrap_or_default())
    })
}

/// An interval of the median from one of the lowest values to one of the highest.
#[derive(Clone, Copy, PartialEq, Debug)]
struct OrderInterval {
    /// So many values lie below it, and as many above.
    left_out: usize,
    coverage: f64,
}

/// The narrowest that covers the true median often enough, whatever the ratios are distributed like. It misses it where at most
/// `left_out` of all values fell on one side, each of which does so by the toss of a coin: the sign test, turned round.
fn order_interval(values: usize) -> Option<OrderInterval> {
    let mut found = None;
    let mut exactly = 0.5f64.powi(values as i32);
    let mut at_most = 0.0;
    for left_out in 0..values / 2 {
        at_most += exactly;
        exactly *= (values - left_out) as f64 / (left_out + 1) as f64;
        let coverage = 1.0 - 2.0 * at_most;
        if coverage < COVERAGE_MIN {
            break;
        }
        found = Some(OrderInterval { left_out, coverage });
    }
    found
}

impl Comparison {
    /// Each endpoint once, in random order.
    fn round(
        &mut self,
        endpoints: &[Endpoint],
        number: usize,
        rng: &mut Rng,
        progress: &mut dyn FnMut(&str, f64),
    ) -> Result<Round> {
        let mut order: Vec<usize> = (0..endpoints.len()).collect();
        rng.shuffle(&mut order);
        let mut round = Round {
            samples: vec![None; endpoints.len()],
            times: vec![histogram(); endpoints.len()],
            late: false,
            limited: false,
        };
        for index in order {
            let endpoint = &endpoints[index];
            let (outcome, cpu_ns) =
                measure(endpoint, number).with_context(|| format!("endpoint `{}`", endpoint.name))?;
            self.trouble[index].add(&Trouble::of(&outcome.total));
            if let Some(cut_short) = &outcome.cut_short {
                bail!("endpoint `{}`: {cut_short}", endpoint.name);
            }
            round.late |= outcome.late.is_some();
            round.limited |= outcome.limited.is_some();
            progress(&endpoint.name, outcome.achieved);
            round.samples[index] = Some(sample(&outcome, cpu_ns));
            round.times[index] = outcome.total.response;
        }
        Ok(round)
    }

    fn take_in(&mut self, round: Round) {
        if round.late {
            self.late_rounds += 1;
            return;
        }
        self.limited_rounds += usize::from(round.limited);
        self.samples.iter_mut().zip(round.samples).for_each(|(samples, sample)| samples.extend(sample));
        let times = self.times.iter_mut().zip(round.times);
        times.for_each(|(all, of)| all.add(of).expect("all histograms have the same bounds"));
    }

    pub fn faults(&self) -> u64 {
        self.trouble.iter().map(Trouble::failed).sum()
    }

    /// What was answered wrongly, by whom.
    pub fn wrong_answers(&self) -> Vec<String> {
        let named = self.names.iter().zip(&self.trouble);
        named
            .flat_map(|(name, of)| of.wrong_answers().into_iter().map(move |wrong| format!("`{name}`: {wrong}")))
            .collect()
    }

    fn wrong(&self) -> Option<anyhow::Error> {
        let wrong = self.wrong_answers();
        (!wrong.is_empty()).then(|| CheckFailed(wrong.join("; ")).into())
    }

    /// Some endpoint returns other numbers of rows or columns: it does other work.
    pub fn other_rows(&self) -> bool {
        self.unlike.iter().flatten().any(|unlike| matches!(unlike, Unlike::Rows(_)))
    }

    /// A sentence for every endpoint that answers otherwise than the first.
    pub fn warnings(&self) -> Vec<String> {
        let named = self.names.iter().zip(&self.unlike);
        let sentence = |name: &str, unlike: &Unlike| {
            let what = match unlike {
                Unlike::Rows(_) => "they do not do the same work",
                Unlike::Content(_) => "masks do that; if there are none, they do not do the same work",
            };
            format!("`{name}` answers otherwise than `{}`: {}; {what}", self.names[0], unlike.detail())
        };
        let unlike = named.filter_map(|(name, unlike)| Some(sentence(name, unlike.as_ref()?)));
        unlike.chain(self.limited()).collect()
    }

    fn limited(&self) -> Option<String> {
        (self.limited_rounds > 0).then(|| {
            format!(
                "in {} of {} rounds the generator itself was at its limit, so that endpoints look more alike than they are: use more \
                 --threads or a cheaper check",
                self.limited_rounds,
                self.rounds()
            )
        })
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
        // Of nothing nobody is so many times as much.
        let ratio_of = |own, first| Some(read(own)? / read(first).filter(|&first| first > 0.0)?);
        let ratios = pairs.map(|(own, first)| ratio_of(own, first)).collect::<Option<Vec<f64>>>()?;
        (!ratios.is_empty()).then(|| ratio(&ratios))
    }

    pub fn json(&self) -> Value {
        let endpoints = self.names.iter().enumerate().map(|(index, name)| {
            let mut value = json!({"name": name});
            self.trouble[index].tell(&mut value);
            value["answer_differs"] = self.unlike[index].as_ref().map(Unlike::name).into();
            value["response"] = output::histogram(&self.times[index]);
            value["response_curve"] = output::curve(&self.times[index]).into();
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
            "confidence_percent": order_interval(self.rounds()).map(|order| order.coverage * 100.0),
            "errors": self.faults(),
            "wrong_answers": self.wrong_answers(),
            "unfinished": self.unfinished,
            "warnings": self.warnings(),
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let rounds = self.rounds();
        let _ = writeln!(out, "{rounds} rounds in random order, seed {}; ratios to `{}`", self.seed, self.names[0]);
        let intervals = match order_interval(rounds) {
            None => format!("; {rounds} are too few for an interval, which takes 6"),
            Some(OrderInterval { left_out, coverage }) => {
                let (low, high) = (left_out + 1, rounds - left_out);
                format!(
                    ", with {:.1} % intervals: from value {low} to value {high} of {rounds} in order",
                    coverage * 100.0
                )
            }
        };
        let _ = writeln!(out, "are medians of per-round ratios{intervals}");
        if let Some(unfinished) = &self.unfinished {
            let _ = writeln!(out, "CUT SHORT: {unfinished}");
        }
        for warning in self.warnings() {
            let _ = writeln!(out, "WARNING: {warning}");
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
                let ratio = if index == 0 { String::new() } else { told(self.ratio(index, read)) };
                let _ = writeln!(out, "{}", format!("{name:<width$}  {value:>12}  {ratio}").trim_end());
            }
        }
        if self.faults() > 0 {
            let _ = writeln!(out, "\n{} requests failed; do not trust these numbers", self.faults());
        }
        for (name, trouble) in self.names.iter().zip(&self.trouble) {
            for line in trouble.lines() {
                let _ = writeln!(out, "  {name:<width$}  {line}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Counts, add_fault};

    #[test]
    fn medians_and_intervals_are_right() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(ratio(&[1.1; 9]), Ratio { median: 1.1, interval: Some((1.1, 1.1)) });
        assert_eq!(ratio(&[1.1; 5]).interval, None, "five rounds are too few");
        assert_eq!(ratio(&[6.0, 1.0, 2.0, 5.0, 3.0, 4.0]), Ratio { median: 3.5, interval: Some((1.0, 6.0)) });
        let nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        assert_eq!(ratio(&nine), Ratio { median: 5.0, interval: Some((2.0, 8.0)) });
    }

    #[test]
    fn intervals_cover_exactly_as_much_as_is_said() {
        // Rounds, left out on each side, and of 2^rounds equally likely tosses those that miss: twice the sum of binomials.
        for (rounds, left_out, missing) in [
            (6, 0, 2.0 * 1.0),
            (7, 0, 2.0 * 1.0),
            (8, 0, 2.0 * 1.0),
            (9, 1, 2.0 * (1.0 + 9.0)),
            (10, 1, 2.0 * (1.0 + 10.0)),
            (15, 3, 2.0 * (1.0 + 15.0 + 105.0 + 455.0)),
            (20, 5, 2.0 * (1.0 + 20.0 + 190.0 + 1140.0 + 4845.0 + 15504.0)),
        ] {
            let coverage = 1.0 - missing / 2f64.powi(rounds as i32);
            assert_eq!(order_interval(rounds), Some(OrderInterval { left_out, coverage }), "{rounds}");
        }
        assert!((0..6).all(|rounds| order_interval(rounds).is_none()));
        // As many rounds as there may be: within the reach of a double, and close to what a normal distribution says.
        let most = order_interval(1_000).expect("there are enough");
        assert!((0.95..0.96).contains(&most.coverage) && most.left_out == 468, "{most:?}");
    }

    fn sample(rate: f64, cpu: f64) -> Sample {
        Sample { rate, p50_ns: Some(1.0), p99_ns: Some(2.0), cpu_ns: Some(cpu) }
    }

    fn comparison(first: Vec<Sample>, second: Vec<Sample>) -> Comparison {
        let mut failed = Counts::default();
        add_fault(&mut failed.faults, "timeout", 3, "slow");
        Comparison {
            names: vec!["a".into(), "b".into()],
            unlike: vec![None, None],
            samples: vec![first, second],
            times: vec![histogram(); 2],
            late_rounds: 0,
            limited_rounds: 2,
            seed: 1,
            trouble: vec![Trouble::default(), Trouble::of(&failed)],
            unfinished: None,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was slower in each round than before, for both alike: the ratio does not notice.
        let rounds = |cpu: f64| (1..=6).map(|round| sample(1.0, f64::from(round) * cpu)).collect();
        let comparison = comparison(rounds(10.0), rounds(8.0));
        assert_eq!(comparison.json()["endpoints"][1]["cpu_per_request"]["to_first"]["median"], json!(0.8));
        let table = comparison.table();
        assert!(table.contains("WARNING: in 2 of 6 rounds the generator itself was at its limit"), "{table}");
        assert!(table.contains("0.800  [0.800, 0.800]") && table.contains("b         3 x timeout: slow"), "{table}");
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        let mut first = vec![sample(1.0, 10.0); 6];
        first[3].cpu_ns = Some(0.0);
        let comparison = comparison(first, vec![sample(1.0, 10.0); 6]);
        let value = comparison.json();
        let second = &value["endpoints"][1];
        assert_eq!(
            (&second["cpu_per_request"]["to_first"], &second["rate"]["to_first"]["median"]),
            (&Value::Null, &json!(1.0))
        );
        let table = comparison.table();
        let row = table.lines().skip_while(|line| !line.starts_with("cpu")).nth(2).unwrap_or_default();
        assert!(row.starts_with("b ") && row.ends_with("not known"), "{table}");
    }
}
