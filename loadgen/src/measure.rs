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

/// The kind of fault of a request that waited for a connection until it was too late.
pub const NEVER_SENT: &str = "never sent";

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

pub fn add_faults(to: &mut Faults, from: &Faults) {
    from.iter().for_each(|(kind, (count, detail))| add_fault(to, kind, *count, detail));
}

pub fn total(faults: &Faults) -> u64 {
    faults.values().map(|(count, _)| count).sum()
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
    /// Of those answered rightly: before the load ended ...
    pub in_time: u64,
    /// ... and after it, by no more than the quickest answer took: on their way as they have to be, not left behind.
    pub just_after: u64,
    /// Requests of the warm-up that were answered while measuring.
    pub carried_in: u64,
    /// Bytes of rows received.
    pub bytes: u64,
    /// Requests that failed.
    pub faults: Faults,
    /// What befell connections that carried no request: no request failed by it.
    pub events: Faults,
    /// Requests of the warm-up that failed; in no other number.
    pub warmup_faults: Faults,
    /// Requests of the warm-up that waited for a connection when measuring began, and were dropped.
    pub warmup_dropped: u64,
    /// The longest this generator did not look at its connections although it meant to, nanoseconds.
    pub pause_ns: u64,
    /// Answers that may have waited because it stood still for longer than `--lag-limit`, and the kernel did not note when they
    /// came ...
    pub touched: u64,
    /// ... and for how long it did at most, nanoseconds.
    pub still_ns: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            response: histogram(),
            service: histogram(),
            lag: histogram(),
            offered: 0,
            in_time: 0,
            just_after: 0,
            carried_in: 0,
            bytes: 0,
            faults: Faults::new(),
            events: Faults::new(),
            warmup_faults: Faults::new(),
            warmup_dropped: 0,
            pause_ns: 0,
            touched: 0,
            still_ns: 0,
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
        self.in_time += other.in_time;
        self.just_after += other.just_after;
        self.carried_in += other.carried_in;
        self.bytes += other.bytes;
        self.warmup_dropped += other.warmup_dropped;
        self.pause_ns = self.pause_ns.max(other.pause_ns);
        self.touched += other.touched;
        self.still_ns = self.still_ns.max(other.still_ns);
        add_faults(&mut self.faults, &other.faults);
        add_faults(&mut self.events, &other.events);
        add_faults(&mut self.warmup_faults, &other.warmup_faults);
    }

    /// Answers that count for the rate over the measured time. What is on its way at its end is balanced by what was on its way
    /// at its beginning; where the warm-up was too short to have answers on their way, by what follows at once.
    pub fn answers_in_time(&self) -> u64 {
        self.in_time + self.carried_in.max(self.just_after)
    }

    pub fn faults_total(&self) -> u64 {
        total(&self.faults)
    }

    /// The response time at a percentile of all requests, where one that failed took longer than any that did not. `None`: that
    /// request failed, or there was none.
    pub fn response_of_all(&self, percentile: f64) -> Option<u64> {
        let answered = self.response.len();
        let all = answered + self.faults_total();
        // Percentiles have two decimals at most.
        let rank = (u128::from(all) * (percentile * 100.0).round() as u128).div_ceil(10_000).max(1) as u64;
        (rank <= answered).then(|| self.response.value_at_quantile((rank as f64 - 0.5) / answered as f64))
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
    /// Of those the requests that were never sent.
    pub never_sent: u64,
    /// Without answers there are none.
    pub times: Option<PointTimes>,
    pub lag_p999_ns: u64,
}

/// Response times of one interval.
#[derive(Clone, Copy, Debug)]
pub struct PointTimes {
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

impl Point {
    pub fn of(counts: &Counts, at_s: f64, seconds: f64) -> Point {
        Point {
            at_s,
            seconds,
            done: counts.response.len(),
            offered: counts.offered,
            faults: counts.faults_total(),
            never_sent: counts.faults.get(NEVER_SENT).map_or(0, |(count, _)| *count),
            times: (!counts.response.is_empty()).then(|| PointTimes {
                p50_ns: at(&counts.response, 50.0),
                p99_ns: at(&counts.response, 99.0),
                max_ns: counts.response.max(),
            }),
            lag_p999_ns: counts.lag.value_at_quantile(0.999),
        }
    }

    pub fn begin_s(&self) -> f64 {
        self.at_s - self.seconds
    }

    /// Nothing was due, answered or failed in it.
    pub fn is_empty(&self) -> bool {
        (self.offered, self.done, self.faults) == (0, 0, 0)
    }

    /// The load had ended when it began. Times are sums: a microsecond is no difference.
    pub fn begins_after(&self, load_s: f64) -> bool {
        self.begin_s() > load_s - 1e-6
    }

    /// Requests that reached the server and are over.
    pub fn served(&self) -> u64 {
        self.done + self.faults - self.never_sent
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

/// How many samples lie above a percentile of two decimals at most: below ten it says little. In whole numbers, because
/// 100 - 99.9 is a little less than 0.1, and of 10,000 samples it would be 9.
pub fn samples_above(total: u64, percentile: f64) -> u64 {
    let hundredths = ((100.0 - percentile) * 100.0).round() as u128;
    (u128::from(total) * hundredths / 10_000) as u64
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
    }

    #[test]
    fn a_server_has_served_no_request_that_was_never_sent() {
        let mut counts = Counts::default();
        (0..10).for_each(|_| counts.response.saturating_record(1000));
        add_fault(&mut counts.faults, "timeout", 2, "");
        add_fault(&mut counts.faults, NEVER_SENT, 88, "");
        let point = Point::of(&counts, 1.0, 1.0);
        assert_eq!((point.faults, point.served()), (90, 12));
    }

    #[test]
    fn failed_requests_are_slower_than_all_others() {
        let mut counts = Counts::default();
        (1..=98).for_each(|value| counts.response.saturating_record(value));
        let times = |counts: &Counts| [50.0, 98.0, 99.0, 100.0].map(|percentile| counts.response_of_all(percentile));
        assert_eq!(times(&counts), [Some(49), Some(97), Some(98), Some(98)]);
        add_fault(&mut counts.faults, "timeout", 2, "");
        assert_eq!(times(&counts), [Some(50), Some(98), None, None]);
        assert_eq!(Counts::default().response_of_all(50.0), None);
    }

    #[test]
    fn answers_on_their_way_at_the_end_are_balanced_by_those_at_the_beginning() {
        let counts = |carried_in, just_after| Counts { in_time: 90, carried_in, just_after, ..Counts::default() };
        assert_eq!(counts(10, 10).answers_in_time(), 100);
        assert_eq!(counts(0, 10).answers_in_time(), 100);
        assert_eq!(counts(0, 0).answers_in_time(), 90);
    }

    #[test]
    fn samples_above_a_percentile_are_counted_exactly() {
        assert_eq!([10_000, 5_000, 1_000, 999].map(|total| samples_above(total, 99.9)), [10, 5, 1, 0]);
        assert_eq!([50.0, 99.0, 99.99].map(|percentile| samples_above(10_000, percentile)), [5_000, 100, 1]);
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
