//! SCRAM keys for targets: PBKDF2 on a worker thread, once for many sessions.

use super::limits::DERIVED_KEYS_MAX;
use crate::limits::SCRAM_ITERATIONS_MAX;
use crate::shard::mailbox::RelayId;
use crate::snapshot::Target;
use codecs::postgres::ScramKeys;
use std::collections::{HashMap, VecDeque};

/// What keys depend on. The password is in it by its hash: a corrected password must not meet the keys of the wrong one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyOf {
    target: String,
    password: [u8; 32],
    salt: Vec<u8>,
    iterations: u32,
}

impl KeyOf {
    /// `Err`: the target asks for more than we are willing to compute.
    pub fn new(target: &Target, salt: &[u8], iterations: u32) -> Result<Self, String> {
        if iterations == 0 || iterations > SCRAM_ITERATIONS_MAX {
            return Err(format!(
                "the target asks for {iterations} SCRAM iterations; at most {SCRAM_ITERATIONS_MAX} are computed"
            ));
        }
        let password = *blake3::hash(&target.password).as_bytes();
        Ok(Self { target: target.name.clone(), password, salt: salt.to_vec(), iterations })
    }
}

/// Who waits for an answer.
pub type Waiter = (usize, RelayId);

enum Entry {
    /// A worker is at it.
    Working(Vec<Waiter>),
    Known(Box<ScramKeys>),
}

#[derive(Default)]
pub struct Derived {
    entries: HashMap<KeyOf, Entry>,
    /// Known ones, oldest first.
    order: VecDeque<KeyOf>,
}

/// What to do about a request.
pub enum Wanted {
    Answer(ScramKeys),
    /// Nobody has asked before: start a worker, then call [`Derived::done`].
    Derive,
    /// A worker is at it; [`Derived::done`] names this waiter too.
    Wait,
}

impl Derived {
    pub fn want(&mut self, key: &KeyOf, waiter: Waiter) -> Wanted {
        match self.entries.get_mut(key) {
            Some(Entry::Known(keys)) => Wanted::Answer((**keys).clone()),
            Some(Entry::Working(waiters)) => {
                waiters.push(waiter);
                Wanted::Wait
            }
            None => {
                self.entries.insert(key.clone(), Entry::Working(vec![waiter]));
                Wanted::Derive
            }
        }
    }

    /// The worker is through (`None`: it panicked). Gives back who waited.
    pub fn done(&mut self, key: KeyOf, keys: Option<ScramKeys>) -> Vec<Waiter> {
        let Some(Entry::Working(waiters)) = self.entries.remove(&key) else { return Vec::new() };
        if let Some(keys) = keys {
            self.entries.insert(key.clone(), Entry::Known(Box::new(keys)));
            self.order.push_back(key);
            if self.order.len() > DERIVED_KEYS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::target;
    use super::*;

    fn keys(n: u8) -> ScramKeys {
        ScramKeys { client_key: [n; 32], server_key: [n; 32] }
    }

    #[test]
    fn keys_are_derived_once_and_everybody_who_waited_is_told() {
        let mut derived = Derived::default();
        let key = KeyOf::new(&target("orders"), b"salt", 4096).unwrap();
        assert!(matches!(derived.want(&key, (0, 1)), Wanted::Derive));
        assert!(matches!(derived.want(&key, (1, 2)), Wanted::Wait));
        assert_eq!(derived.done(key.clone(), Some(keys(1))), [(0, 1), (1, 2)]);
        assert!(matches!(derived.want(&key, (0, 3)), Wanted::Answer(found) if found.client_key == [1; 32]));
    }

    #[test]
    fn another_password_salt_or_count_is_another_key() {
        let base = target("orders");
        let mut other = target("orders");
        other.password = zeroize::Zeroizing::new(b"corrected".to_vec());
        let key = KeyOf::new(&base, b"salt", 4096).unwrap();
        assert!(key != KeyOf::new(&other, b"salt", 4096).unwrap());
        assert!(key != KeyOf::new(&base, b"tlas", 4096).unwrap());
        assert!(key != KeyOf::new(&base, b"salt", 4097).unwrap());
        assert!(key == KeyOf::new(&target("orders"), b"salt", 4096).unwrap());
    }

    #[test]
    fn an_absurd_iteration_count_is_refused_before_any_work() {
        for iterations in [0, SCRAM_ITERATIONS_MAX + 1, u32::MAX] {
            assert!(KeyOf::new(&target("orders"), b"salt", iterations).is_err());
        }
    }

    #[test]
    fn the_cache_is_bounded_and_a_failed_worker_can_be_followed_by_another() {
        let mut derived = Derived::default();
        for n in 0..DERIVED_KEYS_MAX as u32 + 3 {
            let key = KeyOf::new(&target("orders"), b"salt", n + 1).unwrap();
            derived.want(&key, (0, 0));
            derived.done(key, Some(keys(0)));
        }
        assert_eq!((derived.entries.len(), derived.order.len()), (DERIVED_KEYS_MAX, DERIVED_KEYS_MAX));
        let key = KeyOf::new(&target("orders"), b"other", 1).unwrap();
        derived.want(&key, (0, 9));
        assert_eq!(derived.done(key.clone(), None), [(0, 9)]);
        assert!(matches!(derived.want(&key, (0, 9)), Wanted::Derive));
    }
}
