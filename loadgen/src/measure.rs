//! What is counted, in intervals while it runs and in total.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Longest time that is told apart, nanoseconds: an hour. Longer ones count as an hour.
const TIME_NS_MAX: u64 = 3_600_000_000_000;
/// A thousandth of a value is told apart.
const DIGITS: u8 = 3;

/// The percentiles every report shows.
pub const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// The value at a percentile. 99.9 / 100 is a little more than 0.999, which of 1,000 samples would be the largest.
pub fn at(histogram: &Histogram<u64>, percentile: f64) -> u64 {
    histogram.value_at_quantile((percentile * 100.0).round() / 10_000.0)
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS).expect("the bounds are valid")
}

/// Something that went wrong: what kind, how often, and one example.
pub type Faults = BTreeMap<String, (u64, String)>;

pub fn add_fault(faults: &mut Faults, kind: &str, count: u64, detail: &str) {
    match faults.get_mut(kind) {
        Some(entry) => entry.0 += count,
        None => {
            faults.insert(kind.to_string(), (count, detail.to_string()));
        }
    }
}

/// One thread's counts over one interval, or everybody's over the whole run.
#[derive(Clone, Debug)]
pub struct Counts {
    /// From when the request ought to have been sent to the end of its response.
    pub response: Histogram<u64>,
    /// From when it was sent.
    pub service: Histogram<u64>,
    /// How much later than possible it was sent: our own fault.
    pub lag: Histogram<u64>,
    /// Requests that were due.
    pub offered: u64,
    /// Bytes of rows received.
    pub bytes: u64,
    pub faults: Faults,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            response: histogram(),
            service: histogram(),
            lag: histogram(),
            offered: 0,
            bytes: 0,
            faults: Faults::new(),
        }
    }
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        for (to, from) in
            [(&mut self.response, &other.response), (&mut self.service, &other.service), (&mut self.lag, &other.lag)]
        {
            to.add(from).expect("all histograms have the same bounds");
        }
        self.offered += other.offered;
        self.bytes += other.bytes;
        other.faults.iter().for_each(|(kind, (count, detail))| add_fault(&mut self.faults, kind, *count, detail));
    }

    pub fn clear(&mut self) {
        self.response.reset();
        self.service.reset();
        self.lag.reset();
        self.offered = 0;
        self.bytes = 0;
        self.faults.clear();
    }

    pub fn faults_total(&self) -> u64 {
        self.faults.values().map(|(count, _)| count).sum()
    }
}

/// One point of the time series.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// End of the interval, seconds since measuring began; negative during warm-up.
    pub at_s: f64,
    pub seconds: f64,
    pub done: u64,
    pub offered: u64,
    pub faults: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    pub lag_p999_ns: u64,
}

impl Point {
    pub fn of(counts: &Counts, at_s: f64, seconds: f64) -> Point {
        Point {
            at_s,
            seconds,
            done: counts.response.len(),
            offered: counts.offered,
            faults: counts.faults_total(),
            p50_ns: counts.response.value_at_quantile(0.5),
            p99_ns: counts.response.value_at_quantile(0.99),
            max_ns: counts.response.max(),
            lag_p999_ns: counts.lag.value_at_quantile(0.999),
        }
    }

    pub fn rate(&self) -> f64 {
        self.per_second(self.done)
    }

    pub fn offered_rate(&self) -> f64 {
        self.per_second(self.offered)
    }

    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 }
    }
}

/// Nanoseconds for people: three significant digits and a unit.
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

/// How many samples lie above a percentile: below ten it says little.
pub fn samples_above(total: u64, percentile: f64) -> u64 {
    (total as f64 * (100.0 - percentile) / 100.0).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let (mut one, mut two) = (Counts::default(), Counts::default());
        one.response.saturating_record(1000);
        two.response.saturating_record(3_000_000);
        add_fault(&mut one.faults, "lost", 2, "first");
        add_fault(&mut two.faults, "lost", 3, "second");
        one.add(&two);
        assert_eq!((one.response.len(), one.faults_total()), (2, 5));
        assert_eq!(one.faults["lost"].1, "first");
        one.clear();
        assert_eq!((one.response.len(), one.faults_total()), (0, 0));
    }

    #[test]
    fn percentiles_are_the_samples_they_name() {
        let mut histogram = histogram();
        (1..=1000).for_each(|value| histogram.saturating_record(value));
        assert_eq!([50.0, 99.0, 99.9, 99.99].map(|percentile| at(&histogram, percentile)), [500, 990, 999, 1000]);
    }

    #[test]
    fn times_read_well() {
        let shown: Vec<String> =
            [0, 999, 1_000, 12_345, 999_400, 1_500_000, 200_000_000, 2_000_000_000].map(time).into();
        assert_eq!(shown, ["0 ns", "999 ns", "1.00 us", "12.3 us", "999 us", "1.50 ms", "200 ms", "2.00 s"]);
    }
}
