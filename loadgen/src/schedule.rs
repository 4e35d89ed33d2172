//! When each request ought to be sent: fixed before the run, whatever the server does.
//!
//! Arrivals are drawn on a clock of expected counts (every 1 for constant spacing, exponential gaps for Poisson) and mapped to
//! time through the inverse of the cumulated rate. So constant, ramp and step profiles share one rule and nothing drifts.

use crate::rng::Rng;
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrivals {
    Constant,
    Poisson,
}

/// How the rate moves over the run.
#[derive(Clone, PartialEq, Debug)]
pub enum Profile {
    /// Requests a second.
    Flat(f64),
    /// From one rate to another, linearly.
    Ramp(f64, f64),
    /// Equal times at each rate.
    Steps(Vec<f64>),
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    /// `ramp:1000-20000` or `step:1000,5000,10000`.
    fn from_str(text: &str) -> Result<Profile> {
        match text.split_once(':') {
            Some(("ramp", ends)) => {
                let (from, to) = ends.split_once('-').context("a ramp is `ramp:FROM-TO`")?;
                Ok(Profile::Ramp(parse_rate(from)?, parse_rate(to)?))
            }
            Some(("step", rates)) => Ok(Profile::Steps(rates.split(',').map(parse_rate).collect::<Result<_>>()?)),
            _ => bail!("a profile is `ramp:FROM-TO` or `step:RATE,RATE,...`, in requests a second"),
        }
    }
}

/// Requests a second. Several times what a machine can send; beyond, memory would hold what waits.
const RATE_MAX: f64 = 10e6;

/// Requests a second: `500`, `2.5k`.
pub fn parse_rate(text: &str) -> Result<f64> {
    let text = text.trim();
    let (number, scale) = text.strip_suffix('k').map_or((text, 1.0), |number| (number, 1000.0));
    let rate: f64 = number.parse().with_context(|| format!("`{text}` is no rate; one looks like 500 or 20k"))?;
    ensure!(rate.is_finite() && rate > 0.0, "a rate must be above 0");
    ensure!(rate * scale <= RATE_MAX, "a rate must not be above {}k", RATE_MAX / 1000.0);
    Ok(rate * scale)
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Profile::Flat(rate) => write!(f, "{rate}/s"),
            Profile::Ramp(from, to) => write!(f, "ramp {from}-{to}/s"),
            Profile::Steps(rates) => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                write!(f, "steps {}/s", rates.join(", "))
            }
        }
    }
}

/// A stretch of time over which the rate is linear.
#[derive(Clone, Copy, Debug)]
struct Segment {
    seconds: f64,
    from: f64,
    to: f64,
}

impl Segment {
    fn count(self) -> f64 {
        self.seconds * (self.from + self.to) / 2.0
    }

    /// When `count` requests of this segment are due, seconds from its start.
    fn at(self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        if slope.abs() < 1e-12 {
            return count / self.from;
        }
        // Root of slope/2 t^2 + from t - count in the form that does not cancel.
        2.0 * count / (self.from + (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt())
    }
}

/// An endless list of send times, nanoseconds from the start, never decreasing. Warm-up runs at the profile's first rate; after
/// the profile its last rate goes on (the caller stops by duration or count).
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    rng: Rng,
    segments: Vec<Segment>,
    segment: usize,
    /// Expected counts and seconds before the current segment.
    count_before: f64,
    seconds_before: f64,
    /// Arrivals on the clock of expected counts: the running sum is kept apart so that constant spacing stays exact.
    drawn: u64,
    sum: f64,
    offset: f64,
    /// Times are rounded up to multiples of this; 1 changes nothing.
    tick_ns: u64,
}

impl Schedule {
    /// One of `threads` equal shares: constant spacing is interleaved, Poisson is thinned (still Poisson).
    pub fn new(
        profile: &Profile,
        arrivals: Arrivals,
        warmup_s: f64,
        duration_s: f64,
        share: (usize, usize),
        seed: u64,
    ) -> Schedule {
        let (thread, threads) = share;
        let part = |rate: f64| rate / threads as f64;
        let (first, last) = match profile {
            Profile::Flat(rate) => (part(*rate), part(*rate)),
            Profile::Ramp(from, to) => (part(*from), part(*to)),
            Profile::Steps(rates) => (part(rates[0]), part(rates[rates.len() - 1])),
        };
        let flat = |seconds, rate| Segment { seconds, from: rate, to: rate };
        let mut segments = vec![flat(warmup_s, first)];
        match profile {
            Profile::Flat(_) => {}
            Profile::Ramp(..) => segments.push(Segment { seconds: duration_s, from: first, to: last }),
            Profile::Steps(rates) => {
                segments.extend(rates.iter().map(|&rate| flat(duration_s / rates.len() as f64, part(rate))));
            }
        }
        segments.retain(|segment| segment.seconds > 0.0);
        segments.push(flat(f64::INFINITY, last));
        Schedule {
            arrivals,
            rng: Rng::new(seed ^ (thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            segments,
            segment: 0,
            count_before: 0.0,
            seconds_before: 0.0,
            drawn: 0,
            sum: 0.0,
            offset: thread as f64 / threads as f64,
            tick_ns: 1,
        }
    }

    /// The same arrivals in bursts: all that are due within a tick are due at its end.
    pub fn in_ticks(self, tick_ns: u64) -> Schedule {
        Schedule { tick_ns: tick_ns.max(1), ..self }
    }

    pub fn next_ns(&mut self) -> u64 {
        let due = match self.arrivals {
            Arrivals::Constant => self.drawn as f64 + self.offset,
            Arrivals::Poisson => {
                self.sum += self.rng.exponential();
                self.sum
            }
        };
        self.drawn += 1;
        loop {
            let segment = self.segments[self.segment];
            if segment.seconds.is_infinite() || due < self.count_before + segment.count() {
                let at = ((self.seconds_before + segment.at(due - self.count_before)) * 1e9) as u64;
                return at.next_multiple_of(self.tick_ns);
            }
            self.count_before += segment.count();
            self.seconds_before += segment.seconds;
            self.segment += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(profile: Profile, arrivals: Arrivals, until_s: f64) -> Vec<u64> {
        let mut schedule = Schedule::new(&profile, arrivals, 0.0, until_s, (0, 1), 1);
        let mut times = Vec::new();
        loop {
            match schedule.next_ns() {
                time if time as f64 >= until_s * 1e9 => return times,
                time => times.push(time),
            }
        }
    }

    #[test]
    fn constant_spacing_never_drifts() {
        let mut schedule = Schedule::new(&Profile::Flat(3000.0), Arrivals::Constant, 0.0, 1.0, (0, 1), 1);
        let late = (0..=3_000_000).map(|_| schedule.next_ns()).last();
        assert_eq!(late, Some(1_000_000_000_000));
    }

    #[test]
    fn ticks_gather_what_is_due_and_lose_nothing() {
        let schedule = Schedule::new(&Profile::Flat(2000.0), Arrivals::Constant, 0.0, 1.0, (0, 1), 1);
        let mut schedule = schedule.in_ticks(2_000_000);
        let times: Vec<u64> = (0..9).map(|_| schedule.next_ns()).collect();
        assert_eq!(times, [0, 1, 1, 1, 1, 2, 2, 2, 2].map(|tick| tick * 2_000_000));
    }

    #[test]
    fn threads_share_constant_arrivals_evenly() {
        let profile = Profile::Flat(1000.0);
        let mut all: Vec<u64> = (0..4)
            .flat_map(|thread| {
                let mut schedule = Schedule::new(&profile, Arrivals::Constant, 0.0, 1.0, (thread, 4), 1);
                (0..250).map(move |_| schedule.next_ns()).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(1_000_000) <= 1), "{all:?}");
    }

    #[test]
    fn poisson_has_the_mean_and_the_spread_of_poisson() {
        let times = times(Profile::Flat(10_000.0), Arrivals::Poisson, 20.0);
        let mut bins = vec![0f64; 2000];
        times.iter().for_each(|time| bins[(time / 10_000_000) as usize] += 1.0);
        let mean = bins.iter().sum::<f64>() / 2000.0;
        let variance = bins.iter().map(|bin| (bin - mean).powi(2)).sum::<f64>() / 2000.0;
        assert!((mean - 100.0).abs() < 1.0, "mean {mean}");
        assert!((variance / mean - 1.0).abs() < 0.15, "variance over mean {}", variance / mean);
    }

    #[test]
    fn ramps_and_steps_have_the_area_of_their_profile() {
        let ramp = times(Profile::Ramp(100.0, 300.0), Arrivals::Constant, 10.0);
        assert_eq!(ramp.len(), 2000);
        let first_half = ramp.iter().filter(|&&time| time < 5_000_000_000).count();
        assert_eq!(first_half, 750);
        let steps = times(Profile::Steps(vec![100.0, 300.0]), Arrivals::Constant, 10.0);
        assert_eq!(steps.len(), 2000);
        assert_eq!(steps.iter().filter(|&&time| time < 5_000_000_000).count(), 500);
        assert!(ramp.is_sorted() && steps.is_sorted());
    }

    #[test]
    fn profiles_are_read_and_nonsense_is_refused() {
        assert_eq!("ramp:10-20".parse::<Profile>().ok(), Some(Profile::Ramp(10.0, 20.0)));
        assert_eq!("step:1,2, 3k".parse::<Profile>().ok(), Some(Profile::Steps(vec![1.0, 2.0, 3000.0])));
        for bad in ["ramp:10", "step:", "step:0", "ramp:5--1", "flat", "ramp:nan-1"] {
            assert!(bad.parse::<Profile>().is_err(), "{bad}");
        }
    }
}
