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
/// One request in 10,000 s. Below, the time until the next would soon be beyond every clock.
const RATE_MIN: f64 = 1e-4;

/// Requests a second: `500`, `2.5k`.
pub fn parse_rate(text: &str) -> Result<f64> {
    let text = text.trim();
    let (number, scale) = text.strip_suffix('k').map_or((text, 1.0), |number| (number, 1000.0));
    let rate: f64 = number.parse().with_context(|| format!("`{text}` is no rate; one looks like 500 or 20k"))?;
    ensure!(rate.is_finite() && rate > 0.0, "a rate must be above 0");
    ensure!(rate * scale >= RATE_MIN, "a rate must not be below {RATE_MIN}/s, one request in {:.0} s", 1.0 / RATE_MIN);
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

/// Which arrivals are a thread's: those of its connections. Connection `c` of all is the thread `c % threads`'s, and arrivals
/// are dealt to connections in turn, so that no connection has more to do than another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    pub thread: usize,
    pub threads: usize,
    /// Of all threads.
    pub connections: usize,
}

impl Share {
    pub fn connections(self) -> usize {
        self.of_first(self.connections as u64) as usize
    }

    /// How many of the first arrivals of all are this thread's.
    pub fn of_first(self, arrivals: u64) -> u64 {
        let (thread, threads, connections) = (self.thread as u64, self.threads as u64, self.connections as u64);
        let of_round = |length: u64| (length + threads - 1 - thread) / threads;
        arrivals / connections * of_round(connections) + of_round(arrivals % connections)
    }

    /// The number among all arrivals of this thread's `own`, both from zero.
    fn place(self, own: u64) -> u64 {
        let of_round = self.connections() as u64;
        own / of_round * self.connections as u64 + own % of_round * self.threads as u64 + self.thread as u64
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
    /// Of constant arrivals the first, on the clock of expected counts.
    phase: f64,
    /// Arrivals on the clock of expected counts: the running sum is kept apart so that constant spacing stays exact.
    drawn: u64,
    sum: f64,
    share: Share,
    /// Times are rounded up to multiples of this; 1 changes nothing.
    tick_ns: u64,
}

impl Schedule {
    /// A thread's share: constant spacing is interleaved, Poisson is thinned (still Poisson).
    pub fn new(
        profile: &Profile,
        arrivals: Arrivals,
        warmup_s: f64,
        duration_s: f64,
        share: Share,
        seed: u64,
    ) -> Schedule {
        let (first, last) = match profile {
            Profile::Flat(rate) => (*rate, *rate),
            Profile::Ramp(from, to) => (*from, *to),
            Profile::Steps(rates) => (rates[0], rates[rates.len() - 1]),
        };
        let flat = |seconds, rate| Segment { seconds, from: rate, to: rate };
        let mut segments = vec![flat(warmup_s, first)];
        match profile {
            Profile::Flat(_) => {}
            Profile::Ramp(..) => segments.push(Segment { seconds: duration_s, from: first, to: last }),
            Profile::Steps(rates) => {
                segments.extend(rates.iter().map(|&rate| flat(duration_s / rates.len() as f64, rate)));
            }
        }
        segments.retain(|segment| segment.seconds > 0.0);
        segments.push(flat(f64::INFINITY, last));
        Schedule {
            arrivals,
            phase: phase(warmup_s, first),
            rng: Rng::new(seed ^ (share.thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            segments,
            segment: 0,
            count_before: 0.0,
            seconds_before: 0.0,
            drawn: 0,
            sum: 0.0,
            share,
            tick_ns: 1,
        }
    }

    /// The same arrivals in bursts: all that are due within a tick are due at its end.
    pub fn in_ticks(self, tick_ns: u64) -> Schedule {
        Schedule { tick_ns: tick_ns.max(1), ..self }
    }

    /// `u64::MAX` is never.
    pub fn next_ns(&mut self) -> u64 {
        let due = match self.arrivals {
            Arrivals::Constant => self.phase + self.share.place(self.drawn) as f64,
            Arrivals::Poisson => {
                self.sum += self.rng.exponential() * self.share.connections as f64 / self.share.connections() as f64;
                self.sum
            }
        };
        self.drawn += 1;
        loop {
            let segment = self.segments[self.segment];
            if segment.seconds.is_infinite() || due < self.count_before + segment.count() {
                let at = ((self.seconds_before + segment.at(due - self.count_before)) * 1e9) as u64;
                return at.checked_next_multiple_of(self.tick_ns).unwrap_or(u64::MAX);
            }
            self.count_before += segment.count();
            self.seconds_before += segment.seconds;
            self.segment += 1;
        }
    }
}

/// So much later than the warm-up the first arrival comes that another comes as measuring begins: else the first that counts would be
/// due a part of the spacing later, and a count of them take that much longer.
fn phase(warmup_s: f64, rate: f64) -> f64 {
    let count = warmup_s * rate;
    if (count - count.round()).abs() < 1e-6 {
        return 0.0;
    }
    // A nanosecond more: rounding must not put it into the warm-up.
    count.fract() + rate * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Share = Share { thread: 0, threads: 1, connections: 1 };

    fn times(profile: Profile, arrivals: Arrivals, until_s: f64) -> Vec<u64> {
        let mut schedule = Schedule::new(&profile, arrivals, 0.0, until_s, ALONE, 1);
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
        let mut schedule = Schedule::new(&Profile::Flat(3000.0), Arrivals::Constant, 0.0, 1.0, ALONE, 1);
        let late = (0..=3_000_000).map(|_| schedule.next_ns()).last();
        assert_eq!(late, Some(1_000_000_000_000));
    }

    #[test]
    fn measuring_begins_with_an_arrival_whatever_the_warm_up() {
        for (rate, warmup_s) in [(0.5, 0.2), (0.5, 5.0), (3.0, 1.0 / 7.0), (1000.0, 0.1), (20_000.0, 0.000_333)] {
            let mut schedule = Schedule::new(&Profile::Flat(rate), Arrivals::Constant, warmup_s, 1.0, ALONE, 1);
            let begin = (warmup_s * 1e9_f64).round() as u64;
            let (spacing, mut times) = (1e9 / rate, std::iter::repeat_with(|| schedule.next_ns()));
            let first = times.find(|&time| time >= begin).expect("it is endless");
            assert!(first - begin <= 2, "{rate} {warmup_s}: {}", first - begin);
            assert!((times.next().expect("it is endless") - first).abs_diff(spacing as u64) <= 1, "{rate} {warmup_s}");
        }
    }

    #[test]
    fn ticks_gather_what_is_due_and_lose_nothing() {
        let schedule = Schedule::new(&Profile::Flat(2000.0), Arrivals::Constant, 0.0, 1.0, ALONE, 1);
        let mut schedule = schedule.in_ticks(2_000_000);
        let times: Vec<u64> = (0..9).map(|_| schedule.next_ns()).collect();
        assert_eq!(times, [0, 1, 1, 1, 1, 2, 2, 2, 2].map(|tick| tick * 2_000_000));
    }

    #[test]
    fn what_is_due_beyond_every_clock_is_never_due() {
        let share = Share { thread: 0, threads: 1, connections: 1 };
        let schedule = Schedule::new(&Profile::Flat(1e-12), Arrivals::Constant, 0.0, 1.0, share, 1);
        let mut schedule = schedule.in_ticks(1_000_000);
        assert_eq!([schedule.next_ns(), schedule.next_ns()], [0, u64::MAX]);
    }

    #[test]
    fn threads_share_constant_arrivals_evenly_by_their_connections() {
        let profile = Profile::Flat(1000.0);
        for (threads, connections) in [(4, 4), (4, 8), (2, 3), (3, 10)] {
            let mut all: Vec<u64> = (0..threads)
                .flat_map(|thread| {
                    let share = Share { thread, threads, connections };
                    let mut schedule = Schedule::new(&profile, Arrivals::Constant, 0.0, 1.0, share, 1);
                    (0..share.of_first(1001)).map(move |_| schedule.next_ns()).collect::<Vec<_>>()
                })
                .collect();
            all.sort_unstable();
            assert_eq!(all.len(), 1001, "{threads} {connections}");
            assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(1_000_000) <= 1), "{all:?}");
        }
        let shares = [0, 1].map(|thread| Share { thread, threads: 2, connections: 3 });
        assert_eq!(shares.map(Share::connections), [2, 1]);
        assert_eq!(shares.map(|share| share.of_first(300)), [200, 100]);
    }

    #[test]
    fn threads_share_poisson_arrivals_by_their_connections() {
        let count = |thread| {
            let share = Share { thread, threads: 2, connections: 3 };
            let mut schedule = Schedule::new(&Profile::Flat(3000.0), Arrivals::Poisson, 0.0, 1.0, share, 7);
            std::iter::repeat_with(|| schedule.next_ns()).take_while(|&at| at < 10_000_000_000).count()
        };
        assert!(count(0).abs_diff(20_000) < 600 && count(1).abs_diff(10_000) < 450, "{} {}", count(0), count(1));
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
        let small = ["ramp:0-10", "ramp:10-0.00009", "step:1,1e-12"];
        for bad in ["ramp:10", "step:", "step:0", "ramp:5--1", "flat", "ramp:nan-1"].iter().chain(&small) {
            assert!(bad.parse::<Profile>().is_err(), "{bad}");
        }
    }
}
