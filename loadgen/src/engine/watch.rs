//! Whether this thread itself stood still, because it was stopped or had no core. What waited meanwhile must not be charged to the
//! server.

/// Told whenever the clock is read, and of every sleep.
#[derive(Debug)]
pub struct Watch {
    /// By then the clock ought to be read again.
    expected_ns: u64,
    /// Standing still for that long counts (`--lag-limit`).
    limit_ns: u64,
    /// When it last did, and went on.
    paused_until_ns: u64,
    /// The longest of those pauses.
    longest_ns: u64,
}

/// A pause shorter than this share of the time an answer took is no part of it that anybody would see: a gigabyte takes seconds,
/// and no machine leaves anybody a core for so long.
const NOTICED_SHARE: u64 = 100;

impl Watch {
    pub fn new(limit_ns: u64) -> Watch {
        Watch { expected_ns: u64::MAX, limit_ns, paused_until_ns: 0, longest_ns: 0 }
    }

    /// It sleeps until then, if nothing happens before.
    pub fn sleep_until(&mut self, awaited_ns: u64) {
        self.expected_ns = awaited_ns;
    }

    /// It used that much CPU on one thing that may take long: that is no standing still.
    pub fn worked(&mut self, cpu_ns: u64) {
        self.expected_ns = self.expected_ns.saturating_add(cpu_ns);
    }

    /// The clock says `now`: how long it stood still, if that is too long.
    pub fn look(&mut self, now: u64) -> Option<u64> {
        let still_ns = now.saturating_sub(self.expected_ns);
        self.expected_ns = now;
        let too_long = still_ns > self.limit_ns;
        if too_long {
            self.paused_until_ns = now;
            self.longest_ns = self.longest_ns.max(still_ns);
        }
        too_long.then_some(still_ns)
    }

    /// An answer that took so long, to what was sent at that time, and is read now may have waited for us.
    pub fn touches(&self, sent_ns: u64, took_ns: u64) -> bool {
        sent_ns < self.paused_until_ns && took_ns < self.longest_ns.saturating_mul(NOTICED_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_the_end_of_a_pause_may_have_waited_for_us() {
        let mut watch = Watch::new(10);
        assert_eq!(watch.look(1_000), None, "nothing was expected of it yet");
        assert_eq!(watch.look(1_010), None, "no longer than it may");
        watch.sleep_until(1_100);
        assert_eq!(watch.look(1_050), None, "something happened before that");
        watch.sleep_until(1_100);
        assert_eq!(watch.look(1_110), None);
        let touches = |watch: &Watch, sent_ns| watch.touches(sent_ns, 150);
        assert!(!touches(&watch, 0));
        watch.sleep_until(1_200);
        assert_eq!(watch.look(1_300), Some(100));
        assert!(touches(&watch, 1_150) && touches(&watch, 1_299) && !touches(&watch, 1_300));
        assert!(!watch.touches(0, 10_000), "a hundredth of what it took");
        assert_eq!(watch.look(1_320), Some(20), "in the middle of its work");
        assert!(touches(&watch, 1_310) && !touches(&watch, 1_320));
        watch.worked(80);
        assert_eq!(watch.look(1_410), None, "it was at work");
        watch.worked(80);
        assert_eq!(watch.look(1_501), Some(11), "and now not all the time");
    }
}
