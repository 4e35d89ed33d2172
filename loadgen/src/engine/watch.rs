//! Whether this thread itself stood still, because it was stopped or had no core, or was at work on other answers. What waited
//! meanwhile must not be charged to the server.

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
    /// When the kernel last told what has come.
    told_ns: u64,
    /// What it told of came after this.
    unseen_since_ns: u64,
}

/// A question to the kernel that took longer was a sleep: nothing had come when it began.
const SLEPT_NS: u64 = 20_000;

/// A pause shorter than this share of the time an answer took is no part of it that anybody would see: a gigabyte takes seconds,
/// and no machine leaves anybody a core for so long.
const NOTICED_SHARE: u64 = 100;

impl Watch {
    pub fn new(limit_ns: u64) -> Watch {
        Watch { expected_ns: u64::MAX, limit_ns, paused_until_ns: 0, longest_ns: 0, told_ns: 0, unseen_since_ns: 0 }
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

    /// The kernel was asked what has come, and told.
    pub fn asked(&mut self, asked_ns: u64, told_ns: u64) {
        let slept = told_ns.saturating_sub(asked_ns) > SLEPT_NS;
        self.unseen_since_ns = if slept { told_ns } else { self.told_ns };
        self.told_ns = told_ns;
    }

    /// For how long an answer that took so long and is read now may have lain there while this thread was at work, if that is too
    /// long.
    pub fn behind_work(&self, now: u64, took_ns: u64) -> Option<u64> {
        let waited_ns = now.saturating_sub(self.unseen_since_ns).min(took_ns);
        (waited_ns > self.limit_ns && is_noticed(waited_ns, took_ns)).then_some(waited_ns)
    }

    /// An answer that took so long, to what was sent at that time, and is read now may have waited for us.
    pub fn touches(&self, sent_ns: u64, took_ns: u64) -> bool {
        sent_ns < self.paused_until_ns && is_noticed(self.longest_ns, took_ns)
    }
}

fn is_noticed(waited_ns: u64, took_ns: u64) -> bool {
    took_ns < waited_ns.saturating_mul(NOTICED_SHARE)
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

    #[test]
    fn what_lay_there_while_the_thread_was_at_work_may_have_waited_for_us() {
        let mut watch = Watch::new(1_000_000);
        let ms = |ms: u64| ms * 1_000_000;
        watch.asked(ms(10), ms(20));
        assert_eq!(watch.behind_work(ms(21), ms(15)), None, "it slept, so nothing had come before");
        assert_eq!(watch.behind_work(ms(25), ms(15)), Some(ms(5)), "behind those that came with it");
        watch.asked(ms(26), ms(26));
        assert_eq!(watch.behind_work(ms(27), ms(18)), Some(ms(7)), "not there when the kernel told before");
        assert_eq!(watch.behind_work(ms(27), ms(2)), Some(ms(2)), "no longer than it took");
        assert_eq!(watch.behind_work(ms(27), ms(701)), None, "a hundredth of what it took");
    }
}
