//! Sessions that fall silent: after a while they give back the memory that only work needs.

use super::mailbox::RelayId;
use std::collections::VecDeque;

/// Between two looks at who may rest, while there is somebody.
const LOOK_EVERY_US: u64 = 10_000;

/// Relays that do not rest, in the order they are looked at again.
#[derive(Default)]
pub struct Awake {
    queue: VecDeque<Entry>,
}

struct Entry {
    at_us: u64,
    relay: RelayId,
    /// The round of its last bytes when it was put here.
    turn: u64,
}

impl Awake {
    /// Bytes have come for `relay` in round `turn`: look at `at_us`, no earlier than at those before. It is in here once, until
    /// [`Self::due`] gives it out.
    pub fn add(&mut self, relay: RelayId, turn: u64, at_us: u64) {
        self.queue.push_back(Entry { at_us, relay, turn });
    }

    /// When to look again.
    pub fn next_us(&self, now_us: u64) -> u64 {
        self.queue.front().map_or(super::timers::NEVER, |entry| entry.at_us.max(now_us + LOOK_EVERY_US))
    }

    /// One whose time has come, and the round it was added with: a later one of its own says that it was not silent.
    pub fn due(&mut self, now_us: u64) -> Option<(RelayId, u64)> {
        let entry = self.queue.pop_front_if(|entry| entry.at_us <= now_us)?;
        if self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        Some((entry.relay, entry.turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_added_is_given_out_once_and_not_before_its_time() {
        let mut awake = Awake::default();
        assert_eq!(awake.next_us(5), u64::MAX);
        awake.add(1, 10, 2_000_000);
        awake.add(2, 11, 2_000_500);
        assert_eq!(awake.due(1_999_999), None);
        assert_eq!(awake.next_us(0), 2_000_000);
        assert_eq!((awake.due(2_000_000), awake.due(2_000_000)), (Some((1, 10)), None));
        assert_eq!(awake.next_us(9_000_000), 9_000_000 + LOOK_EVERY_US, "late, but no more often");
        assert_eq!(awake.due(9_000_000), Some((2, 11)));
        assert_eq!(awake.due(u64::MAX), None);
    }
}
