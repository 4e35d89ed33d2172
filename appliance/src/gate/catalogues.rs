//! What a shard knows of its targets' catalogues, and since when it may be wrong.
//!
//! DDL that passes through any session of the gateway makes every shard's reading old, and every open session have its
//! statements described again before they run. Shards share no memory: the news goes through the control thread's
//! mailboxes, so another shard hears of it up to one mailbox turn (of the control thread, then of that shard) later. What it
//! runs in that window is judged by the older reading.

use crate::limits;
use crate::shard::mailbox::{Catalogue, ToControl};
use std::sync::Arc;

/// What is known of one target.
#[derive(Default)]
struct Known {
    /// When it was read (Unix microseconds), and what it said.
    reading: Option<(i64, Arc<Catalogue>)>,
    /// Counts the readings.
    epoch: u64,
    moves: Moves,
}

/// All targets that a session of this shard was opened to, or that another shard has told of.
#[derive(Default)]
pub struct Catalogues {
    known: Vec<Known>,
    names: Vec<String>,
}

/// A target's place in [`Catalogues`], looked up once a session: every statement asks what is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(usize);

impl Default for Slot {
    /// No target's: nothing is known of it.
    fn default() -> Self {
        Slot(usize::MAX)
    }
}

/// Statements on one target after which a name may stand for another table.
#[derive(Default)]
struct Moves {
    count: u64,
    /// When the last one was heard of, Unix microseconds; 0: none was.
    at_us: i64,
    /// News of this shard's are on their way round and not back yet: one message at a time, however many statements.
    announced: bool,
    /// More has moved since they left.
    again: bool,
}

impl Catalogues {
    pub fn slot(&mut self, target: &str) -> Slot {
        let place = self.names.iter().position(|name| name == target);
        Slot(place.unwrap_or_else(|| {
            self.names.push(target.to_owned());
            self.known.push(Known::default());
            self.known.len() - 1
        }))
    }

    /// A reading that is young enough and has seen everything that moved.
    #[inline]
    pub fn fresh(&self, target: Slot, now_us: i64) -> Option<&Arc<Catalogue>> {
        let (read_at_us, _) = self.known.get(target.0)?.reading.as_ref()?;
        self.unmoved(target).filter(|_| now_us - read_at_us < limits::CATALOGUE_AGE_MAX_US)
    }

    /// The last reading if it has seen everything that moved, however old it is.
    #[inline]
    pub fn unmoved(&self, target: Slot) -> Option<&Arc<Catalogue>> {
        let Known { reading, moves, .. } = self.known.get(target.0)?;
        let (read_at_us, catalogue) = reading.as_ref()?;
        (*read_at_us >= moves.at_us).then_some(catalogue)
    }

    /// Names the reading that [`Self::fresh`] gives, never 0; `None` where it gives none.
    #[inline]
    pub fn epoch(&self, target: Slot, now_us: i64) -> Option<u64> {
        self.fresh(target, now_us).map(|_| self.known[target.0].epoch)
    }

    pub fn keep(&mut self, target: Slot, read_at_us: i64, catalogue: Arc<Catalogue>) {
        let Some(known) = self.known.get_mut(target.0) else { return };
        if known.reading.as_ref().is_none_or(|(older_us, _)| *older_us <= read_at_us) {
            known.reading = Some((read_at_us, catalogue));
            known.epoch += 1;
        }
    }

    /// A number that changes whenever names may have moved.
    #[inline]
    pub fn moves(&self, target: Slot) -> u64 {
        self.known.get(target.0).map_or(0, |known| known.moves.count)
    }

    /// A statement of this shard moves names. The message, if any, tells the other shards.
    pub fn moved(&mut self, target: Slot, shard: usize, now_us: i64) -> Option<ToControl> {
        let moves = &mut self.known.get_mut(target.0)?.moves;
        moves.count += 1;
        moves.at_us = moves.at_us.max(now_us);
        moves.again = moves.announced;
        let tells = !std::mem::replace(&mut moves.announced, true);
        tells.then(|| ToControl::NamesMoved { shard, target: self.names[target.0].clone() })
    }

    /// News from the control thread, of this shard's own statements (`ours`) or another's.
    pub fn heard(&mut self, target: &str, ours: bool, shard: usize, now_us: i64) -> Option<ToControl> {
        let slot = self.slot(target);
        let moves = &mut self.known[slot.0].moves;
        if !ours {
            moves.count += 1;
            moves.at_us = moves.at_us.max(now_us);
            return None;
        }
        moves.announced = std::mem::take(&mut moves.again);
        moves.announced.then(|| ToControl::NamesMoved { shard, target: target.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_older_than_the_last_move_is_not_used() {
        let mut catalogues = Catalogues::default();
        let (shop, other) = (catalogues.slot("shop"), catalogues.slot("other"));
        catalogues.keep(shop, 100, Arc::default());
        assert!(catalogues.fresh(shop, 110).is_some());
        assert!(catalogues.fresh(shop, 100 + limits::CATALOGUE_AGE_MAX_US).is_none());
        catalogues.heard("shop", false, 0, 120);
        assert!(catalogues.fresh(shop, 130).is_none());
        // A reading that was under way meanwhile.
        catalogues.keep(shop, 110, Arc::default());
        assert!(catalogues.fresh(shop, 130).is_none());
        catalogues.keep(shop, 125, Arc::default());
        assert!(catalogues.fresh(shop, 130).is_some());
        catalogues.keep(shop, 90, Arc::default());
        assert!(catalogues.fresh(shop, 130).is_some(), "an older reading replaces no newer one");
        assert!(catalogues.fresh(other, 130).is_none());
        assert!(catalogues.fresh(shop, 10 * limits::CATALOGUE_AGE_MAX_US).is_none());
        assert!(catalogues.unmoved(shop).is_some());
    }

    #[test]
    fn many_moves_are_told_once_and_none_is_lost() {
        let mut catalogues = Catalogues::default();
        let (shop, other) = (catalogues.slot("shop"), catalogues.slot("other"));
        let told = |message: Option<ToControl>| matches!(message, Some(ToControl::NamesMoved { shard: 3, .. }));
        assert!(told(catalogues.moved(shop, 3, 1)));
        assert!(!told(catalogues.moved(shop, 3, 2)) && !told(catalogues.moved(shop, 3, 3)));
        assert!(told(catalogues.moved(other, 3, 3)), "targets do not wait for each other");
        assert_eq!(catalogues.moves(shop), 3);
        assert!(told(catalogues.heard("shop", true, 3, 4)), "what moved since is told now");
        assert!(!told(catalogues.heard("shop", true, 3, 5)));
        assert!(told(catalogues.moved(shop, 3, 6)));
        assert!(!told(catalogues.heard("shop", false, 3, 7)));
        assert_eq!(catalogues.moves(shop), 5, "our own news do not count twice");
    }
}
