//! Waking when it is time to send, cheaply. A timer that is set while an earlier one is pending only joins a queue (0.4 us); the
//! first in the queue has to be told to the clock's hardware, which on a virtual machine is a way out of it and back (3 us and
//! cold caches). So several are kept set ahead, and the interrupt of one tells the hardware of the next.

use crate::sys::{Epoll, Timer};
use std::collections::VecDeque;
use std::io;

/// Timers set ahead. With eight a wake costs what it costs with thirty-two.
const TIMERS: usize = 16;
/// Times drawn ahead. Those that share a timer may be many (`--tick`).
const AHEAD_MAX: usize = 4096;
/// What an event of one of our timers carries in the engine's set.
pub const TOKEN: u64 = u64::MAX;

#[derive(Debug)]
pub struct Alarms {
    /// Only the timers, to sleep through everything else.
    epoll: Epoll,
    timers: Vec<Timer>,
    /// Times to come, in order; a time may occur several times.
    ahead: VecDeque<u64>,
    /// Different times in `ahead`.
    different: usize,
    /// Those that have a timer: the one at `timers[next_timer - 1]` has the last.
    set: VecDeque<u64>,
    next_timer: usize,
    /// Fire that much before the time.
    early_ns: u64,
}

impl Alarms {
    /// They also wake whoever waits on `engine`.
    pub fn new(engine: &Epoll, early_ns: u64) -> io::Result<Alarms> {
        let epoll = Epoll::new(TIMERS)?;
        let timers = (0..TIMERS).map(|_| Timer::new()).collect::<io::Result<Vec<_>>>()?;
        for timer in &timers {
            epoll.add_timer(timer, TOKEN)?;
            engine.add_timer(timer, TOKEN)?;
        }
        let (ahead, set) = (VecDeque::new(), VecDeque::with_capacity(TIMERS));
        Ok(Alarms { epoll, timers, ahead, different: 0, set, next_timer: 0, early_ns })
    }

    /// Enough times are known for all timers.
    pub fn is_full(&self) -> bool {
        self.different > TIMERS || self.ahead.len() >= AHEAD_MAX
    }

    /// The next time; not before the last one that was added.
    pub fn add(&mut self, at_ns: u64) {
        self.different += usize::from(self.ahead.back() != Some(&at_ns));
        self.ahead.push_back(at_ns);
    }

    pub fn next(&self) -> Option<u64> {
        self.ahead.front().copied()
    }

    /// Takes the next time if it has come.
    pub fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next().filter(|&at| at <= now_ns)?;
        self.ahead.pop_front();
        self.different -= usize::from(self.next() != Some(due));
        Some(due)
    }

    /// To be called before a wait. Only then are timers set, and none for a time that has passed: whoever is late would pay the
    /// hardware for each, and be late for ever.
    pub fn set(&mut self, now_ns: u64) -> io::Result<()> {
        while self.set.front().is_some_and(|&at| at <= now_ns) {
            self.set.pop_front();
        }
        while self.set.len() < TIMERS {
            let last = self.set.back().copied().unwrap_or(now_ns);
            let Some(&at) = self.ahead.get(self.ahead.partition_point(|&at| at <= last)) else { break };
            self.timers[self.next_timer].set(at.saturating_sub(self.early_ns).saturating_sub(now_ns))?;
            self.next_timer = (self.next_timer + 1) % TIMERS;
            self.set.push_back(at);
        }
        Ok(())
    }

    /// Sleeps until a timer fires, whatever else happens.
    pub fn sleep(&mut self) -> io::Result<()> {
        self.epoll.wait(None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::now_ns;

    #[test]
    fn times_come_due_in_order_and_wake_both_sets() {
        let mut engine = Epoll::new(8).expect("an epoll set");
        let mut alarms = Alarms::new(&engine, 0).expect("timers");
        let start = now_ns();
        let times = [1_000_000, 1_000_000, 2_000_000, 3_000_000].map(|after| start + after);
        times.iter().for_each(|&at| alarms.add(at));
        assert_eq!(alarms.take_due(start), None);
        alarms.set(now_ns()).expect("timers are set");
        alarms.sleep().expect("it wakes");
        assert!(now_ns() >= times[0]);
        assert!(engine.wait(None).expect("it wakes") >= 1 && engine.event(0).token == TOKEN);
        assert_eq!([alarms.take_due(times[1]), alarms.take_due(times[1])], [Some(times[0]), Some(times[1])]);
        assert_eq!((alarms.take_due(times[1]), alarms.next()), (None, Some(times[2])));
        while now_ns() < times[3] {
            alarms.sleep().expect("it wakes");
        }
        assert_eq!(alarms.take_due(now_ns()), Some(times[2]));
    }

    #[test]
    fn the_next_different_times_have_timers_and_the_past_has_none() {
        let engine = Epoll::new(8).expect("an epoll set");
        let mut alarms = Alarms::new(&engine, 0).expect("timers");
        let (hour, mut added) = (now_ns() + 3_600_000_000_000, 0);
        while !alarms.is_full() {
            // Each time three times over.
            alarms.add(hour + added / 3);
            added += 1;
        }
        assert_eq!(added as usize, TIMERS * 3 + 1);
        // Late by four times: they get no timer, the later ones do.
        alarms.set(hour + 3).expect("timers are set");
        assert_eq!(alarms.set.iter().map(|at| at - hour).collect::<Vec<_>>(), (4..=TIMERS as u64).collect::<Vec<_>>());
        while alarms.take_due(hour + 9).is_some() {}
        (TIMERS as u64 + 1..)
            .take_while(|after| {
                !alarms.is_full() && {
                    alarms.add(hour + after);
                    true
                }
            })
            .for_each(drop);
        alarms.set(hour + 9).expect("timers are set");
        assert_eq!(
            alarms.set.iter().map(|at| at - hour).collect::<Vec<_>>(),
            (10..10 + TIMERS as u64).collect::<Vec<_>>()
        );
        while alarms.take_due(u64::MAX).is_some() {}
        assert!(!alarms.is_full() && alarms.next().is_none());
    }
}
