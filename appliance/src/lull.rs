//! Things that are done rarely leave behind what the daily work has no use for. This says when it is time to let go of that.

use std::time::{Duration, Instant};

/// So long after the last of them.
const QUIET: Duration = Duration::from_secs(5);

/// Knows when a count last moved.
#[derive(Debug)]
pub struct Lull {
    count: u64,
    moved: Option<Instant>,
}

impl Lull {
    /// A start is the first thing that is done rarely.
    pub fn after_start(now: Instant) -> Self {
        Self { count: 0, moved: Some(now) }
    }

    /// Once after each time that the count has moved: it has stood still since. Ask from time to time.
    pub fn has_come(&mut self, count: u64, now: Instant) -> bool {
        if self.count != count {
            (self.count, self.moved) = (count, Some(now));
        }
        self.moved.take_if(|moved| now.saturating_duration_since(*moved) >= QUIET).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lull_comes_once_after_the_start_and_once_after_each_move() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lull = Lull::after_start(start);
        let mut asked = |count, seconds| lull.has_come(count, at(seconds));
        assert_eq!([asked(0, 4), asked(0, 5), asked(0, 6), asked(0, 60)], [false, true, false, false]);
        // While it moves there is none.
        assert_eq!([asked(1, 61), asked(2, 65), asked(3, 69), asked(3, 73)], [false; 4]);
        assert_eq!([asked(3, 74), asked(3, 75)], [true, false]);
    }
}
