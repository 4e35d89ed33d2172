//! Where intervals of the time series begin and end, so that every thread cuts at the same times.
//!
//! ```text
//!   warm-up: -2     -1     | 0      | 1      | 2  | 3 ...
//!            (longer)      0        1 s      2 s  2.5 s: the load ends, and so does its last interval
//! ```

#[derive(Clone, Copy, Debug)]
pub struct Spans {
    pub length_ns: u64,
    pub warmup_ns: u64,
    /// After that the load ends, if it is known beforehand.
    pub duration_ns: Option<u64>,
}

impl Spans {
    /// The interval a run begins with. It takes what does not divide evenly, so that measuring begins with an interval.
    pub fn first(&self) -> i64 {
        -((self.warmup_ns / self.length_ns) as i64)
    }

    /// When an interval ends, nanoseconds since measuring began; in the warm-up not above zero.
    pub fn end_ns(&self, index: i64) -> i64 {
        let plain = (index + 1) * self.length_ns as i64;
        let Some(duration_ns) = self.duration_ns else { return plain };
        // A last interval of full length would tell half the rate where half of it has no load.
        let within = duration_ns.div_ceil(self.length_ns).max(1) as i64;
        if index < within {
            plain.min(duration_ns as i64)
        } else {
            duration_ns as i64 + (index + 1 - within) * self.length_ns as i64
        }
    }

    pub fn start_ns(&self, index: i64) -> i64 {
        self.end_ns(index - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(warmup_ns: u64, duration_ns: Option<u64>) -> Vec<i64> {
        let spans = Spans { length_ns: 10, warmup_ns, duration_ns };
        (spans.first()..4).map(|index| spans.end_ns(index)).collect()
    }

    #[test]
    fn measuring_begins_with_an_interval_and_the_load_ends_with_one() {
        assert_eq!(ends(0, None), [10, 20, 30, 40]);
        assert_eq!(ends(25, None), [-10, 0, 10, 20, 30, 40]);
        assert_eq!(ends(5, Some(25)), [10, 20, 25, 35]);
        assert_eq!(ends(0, Some(20)), [10, 20, 30, 40]);
        assert_eq!(ends(0, Some(1)), [1, 11, 21, 31]);
    }
}
