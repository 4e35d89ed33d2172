//! Deadlines: a heap of the earliest wake-up each relay has asked for. Entries are never removed early; a relay that is
//! woken before its time just asks again.

use super::mailbox::RelayId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No deadline. Monotonic microseconds count from the start of the process.
pub const NEVER: u64 = u64::MAX;

#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, RelayId)>>,
}

impl Timers {
    pub fn add(&mut self, at_us: u64, relay: RelayId) {
        self.heap.push(Reverse((at_us, relay)));
    }

    /// When the next entry is due.
    pub fn next_us(&self) -> u64 {
        self.heap.peek().map_or(NEVER, |Reverse((at_us, _))| *at_us)
    }

    /// Takes one entry that is due, with its time.
    pub fn due(&mut self, now_us: u64) -> Option<(u64, RelayId)> {
        if self.next_us() > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_due_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        [(30, 3), (10, 1), (20, 2)].into_iter().for_each(|(at, relay)| timers.add(at, relay));
        assert_eq!(timers.due(9), None);
        assert_eq!(timers.next_us(), 10);
        assert_eq!((timers.due(25), timers.due(25), timers.due(25)), (Some((10, 1)), Some((20, 2)), None));
        assert_eq!(timers.due(30), Some((30, 3)));
        assert_eq!(timers.next_us(), NEVER);
    }
}
