//! What a shard knows of its targets' catalogues, and since when it may be wrong.
//!
//! DDL that passes through any session of the gateway makes every shard's reading old, and every open session have its
//! statements described again before they run. Shards share no memory: the news goes through the control thread's
//! mailboxes, so another shard hears of it up to one mailbox turn (of the control thread, then of that shard) later. What it
//! runs in that window is judged by the older reading.

use crate::limits;
use crate::shard::mailbox::{Catalogue, ToControl};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub struct Catalogues {
    /// By target name: when it was read (Unix microseconds), and what it said.
    known: HashMap<String, (i64, Arc<Catalogue>)>,
    moves: HashMap<String, Moves>,
}

/// Statements on one target after which a name may stand for another table.
#[derive(Default)]
struct Moves {
    count: u64,
    /// When the last one was heard of, Unix microseconds.
    at_us: i64,
    /// News of this shard's are on their way round and not back yet: one message at a time, however many statements.
    announced: bool,
    /// More has moved since they left.
    again: bool,
}

impl Catalogues {
    /// A reading that is young enough and has seen everything that moved.
    pub fn fresh(&self, target: &str, now_us: i64) -> Option<&Arc<Catalogue>> {
        let (read_at_us, _) = self.known.get(target)?;
        self.unmoved(target).filter(|_| now_us - read_at_us < limits::CATALOGUE_AGE_MAX_US)
    }

    /// The last reading if it has seen everything that moved, however old it is.
    pub fn unmoved(&self, target: &str) -> Option<&Arc<Catalogue>> {
        let (read_at_us, catalogue) = self.known.get(target)?;
        let moved_at_us = self.moves.get(target).map_or(i64::MIN, |moves| moves.at_us);
        (*read_at_us >= moved_at_us).then_some(catalogue)
    }

    pub fn keep(&mut self, target: &str, read_at_us: i64, catalogue: Arc<Catalogue>) {
        match self.known.get_mut(target) {
            Some(known) if known.0 > read_at_us => {}
            Some(known) => *known = (read_at_us, catalogue),
            None => drop(self.known.insert(target.to_owned(), (read_at_us, catalogue))),
        }
    }

    /// A number that changes whenever names may have moved.
    pub fn moves(&self, target: &str) -> u64 {
        self.moves.get(target).map_or(0, |moves| moves.count)
    }

    /// A statement of this shard moves names. The message, if any, tells the other shards.
    pub fn moved(&mut self, target: &str, shard: usize, now_us: i64) -> Option<ToControl> {
        let moves = self.moves.entry(target.to_owned()).or_default();
        moves.count += 1;
        moves.at_us = moves.at_us.max(now_us);
        moves.again = moves.announced;
        let tells = !std::mem::replace(&mut moves.announced, true);
        tells.then(|| ToControl::NamesMoved { shard, target: target.to_owned() })
    }

    /// News from the control thread, of this shard's own statements (`ours`) or another's.
    pub fn heard(&mut self, target: &str, ours: bool, shard: usize, now_us: i64) -> Option<ToControl> {
        let moves = self.moves.entry(target.to_owned()).or_default();
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
        catalogues.keep("shop", 100, Arc::default());
        assert!(catalogues.fresh("shop", 110).is_some());
        assert!(catalogues.fresh("shop", 100 + limits::CATALOGUE_AGE_MAX_US).is_none());
        catalogues.heard("shop", false, 0, 120);
        assert!(catalogues.fresh("shop", 130).is_none());
        // A reading that was under way meanwhile.
        catalogues.keep("shop", 110, Arc::default());
        assert!(catalogues.fresh("shop", 130).is_none());
        catalogues.keep("shop", 125, Arc::default());
        assert!(catalogues.fresh("shop", 130).is_some());
        catalogues.keep("shop", 90, Arc::default());
        assert!(catalogues.fresh("shop", 130).is_some(), "an older reading replaces no newer one");
        assert!(catalogues.fresh("other", 130).is_none());
        assert!(catalogues.fresh("shop", 10 * limits::CATALOGUE_AGE_MAX_US).is_none());
        assert!(catalogues.unmoved("shop").is_some());
    }

    #[test]
    fn many_moves_are_told_once_and_none_is_lost() {
        let mut catalogues = Catalogues::default();
        let told = |message: Option<ToControl>| matches!(message, Some(ToControl::NamesMoved { shard: 3, .. }));
        assert!(told(catalogues.moved("shop", 3, 1)));
        assert!(!told(catalogues.moved("shop", 3, 2)) && !told(catalogues.moved("shop", 3, 3)));
        assert!(told(catalogues.moved("other", 3, 3)), "targets do not wait for each other");
        assert_eq!(catalogues.moves("shop"), 3);
        assert!(told(catalogues.heard("shop", true, 3, 4)), "what moved since is told now");
        assert!(!told(catalogues.heard("shop", true, 3, 5)));
        assert!(told(catalogues.moved("shop", 3, 6)));
        assert!(!told(catalogues.heard("shop", false, 3, 7)));
        assert_eq!(catalogues.moves("shop"), 5, "our own news do not count twice");
    }
}
