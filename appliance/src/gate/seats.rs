//! How many sessions are open at one time, where the configuration bounds that (`connection_limit`): counted over all shards, from the
//! accepted token to the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What is bounded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Bounded {
    Target(String),
    /// What one user has by one grant.
    User {
        grant: String,
        user: String,
    },
}

/// There are so many already.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Taken {
    bounded: Bounded,
    limit: u32,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        match &self.bounded {
            Bounded::Target(target) => {
                write!(f, "too many sessions to target \"{target}\": it takes {limit} at a time")
            }
            Bounded::User { grant, .. } => {
                write!(f, "too many sessions: grant \"{grant}\" gives a user {limit} at a time")
            }
        }
    }
}

/// The sessions of all shards, as far as they are bounded.
#[derive(Default, Debug)]
pub struct Seats(Mutex<HashMap<Bounded, u32>>);

impl Seats {
    /// All of them or none. `None`: nothing is bounded.
    pub(super) fn take(self: &Arc<Self>, wanted: Vec<(Bounded, u32)>) -> Result<Option<Box<Seat>>, Taken> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut seat = Box::new(Seat { seats: self.clone(), of: Vec::with_capacity(wanted.len()) });
        let mut counts = self.counts();
        for (bounded, limit) in wanted {
            let count = counts.entry(bounded.clone()).or_default();
            if *count >= limit {
                drop(counts);
                return Err(Taken { bounded, limit });
            }
            *count += 1;
            seat.of.push(bounded);
        }
        drop(counts);
        Ok(Some(seat))
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Bounded, u32>> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among those; given back when it is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    of: Vec<Bounded>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.seats.counts();
        for bounded in self.of.drain(..) {
            let Entry::Occupied(mut count) = counts.entry(bounded) else { continue };
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(limit: u32) -> (Bounded, u32) {
        (Bounded::Target("shop".into()), limit)
    }

    fn user(name: &str, limit: u32) -> (Bounded, u32) {
        (Bounded::User { grant: "ci".into(), user: name.into() }, limit)
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_nothing_is_kept() {
        let seats = Arc::new(Seats::default());
        let first = seats.take(vec![target(2), user("ann", 1)]).expect("room");
        let refused = seats.take(vec![target(2), user("ann", 1)]).err().expect("one for ann");
        assert_eq!(refused.to_string(), "too many sessions: grant \"ci\" gives a user 1 at a time");
        // What was refused took nothing of the target.
        let second = seats.take(vec![target(2), user("bob", 1)]).expect("room for another user");
        let refused = seats.take(vec![target(2), user("cid", 1)]).err().expect("two for the target");
        assert_eq!(refused.to_string(), "too many sessions to target \"shop\": it takes 2 at a time");
        drop(first);
        let third = seats.take(vec![target(2), user("ann", 1)]).expect("room again");
        drop((second, third));
        assert!(seats.counts().is_empty());
    }

    #[test]
    fn nothing_is_counted_where_nothing_is_bounded() {
        let seats = Arc::new(Seats::default());
        assert!(seats.take(Vec::new()).expect("no bound").is_none() && seats.counts().is_empty());
    }
}
