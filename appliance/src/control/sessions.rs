//! The live sessions of all shards: for `sessions ls`, for `sessions kill` and for cancel requests.

use crate::shard::mailbox::{RelayId, SessionInfo, SessionKey};
use crate::snapshot::Target;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A session with the target it was opened to, which a reload does not change under it.
pub struct Live {
    pub info: SessionInfo,
    /// `None`: its target is in no snapshot we know.
    pub target: Option<Arc<Target>>,
}

/// Found by the key it holds itself: an idle session is small.
struct ByKey(Box<Live>);

impl Borrow<SessionKey> for ByKey {
    fn borrow(&self) -> &SessionKey {
        &self.0.info.key
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.info.key.cmp(&other.0.info.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByKey {}

#[derive(Default)]
pub struct Sessions {
    live: BTreeSet<ByKey>,
}

impl Sessions {
    pub fn opened(&mut self, info: SessionInfo, target: Option<Arc<Target>>) {
        self.live.replace(ByKey(Box::new(Live { info, target })));
    }

    pub fn closed(&mut self, key: SessionKey) {
        self.live.remove(&key);
    }

    /// A shard ended: its sessions are gone whether it said so or not.
    pub fn shard_ended(&mut self, shard: usize) {
        self.live.retain(|live| live.0.info.key.shard as usize != shard);
    }

    /// Whose key for cancel requests this is: the secret decides between sessions that share a process number. It is compared in
    /// constant time: how far it agreed must not show.
    pub fn by_cancel_key(&self, process: i32, secret: &[u8]) -> Option<&Live> {
        let first = SessionKey { process, shard: u32::MIN, relay: RelayId::MIN };
        let last = SessionKey { process, shard: u32::MAX, relay: RelayId::MAX };
        let equal = |live: &&Live| aws_lc_rs::constant_time::verify_slices_are_equal(&live.info.secret, secret).is_ok();
        self.live.range(first..=last).map(|live| &*live.0).find(equal)
    }

    /// By its name in the trail.
    pub fn by_id(&self, id: &str) -> Option<&Live> {
        self.live.iter().map(|live| &*live.0).find(|live| live.info.who.session() == id)
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<&Live> {
        let mut all: Vec<_> = self.live.iter().map(|live| &*live.0).collect();
        let age = |live: &&Live| live.info.opened_at_us;
        all.sort_by(|a, b| age(a).cmp(&age(b)).then_with(|| a.info.who.session().cmp(b.info.who.session())));
        all
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::audit::{OwnedWho, PackedWho};

    pub fn info(id: &str, process: i32, secret: [u8; 4]) -> SessionInfo {
        let who = OwnedWho {
            session: id.into(),
            user: "alice".into(),
            groups: vec!["engineering".into()],
            actor: vec![],
            client: "127.0.0.1:5000".into(),
            application: "psql".into(),
            claimed_user: "anything".into(),
            target: "orders".into(),
        };
        SessionInfo {
            who: Arc::new(PackedWho::new(&who.who())),
            key: SessionKey { process, shard: 0, relay: 5 },
            opened_at_us: 1,
            secret,
            target_secret: Box::new([1, 2, 3, 4]),
        }
    }

    /// Two sessions whose backends, on different targets, have the same number.
    fn two() -> (Sessions, SessionKey, SessionKey) {
        let mut sessions = Sessions::default();
        let (a, mut b) = (info("a", 7, *b"aaaa"), info("b", 7, *b"bbbb"));
        b.key.relay = 6;
        let keys = (a.key, b.key);
        sessions.opened(a, None);
        sessions.opened(b, None);
        (sessions, keys.0, keys.1)
    }

    fn found(sessions: &Sessions, process: i32, secret: &[u8]) -> Option<String> {
        sessions.by_cancel_key(process, secret).map(|live| live.info.who.session().to_owned())
    }

    #[test]
    fn a_cancel_key_finds_its_own_session_and_no_other() {
        let (sessions, ..) = two();
        assert_eq!(found(&sessions, 7, b"aaaa").as_deref(), Some("a"));
        assert_eq!(found(&sessions, 7, b"bbbb").as_deref(), Some("b"));
        for (process, secret) in [(7, &b"cccc"[..]), (8, b"aaaa"), (6, b"aaaa"), (7, b""), (7, b"aaa"), (7, b"aaaaa")] {
            assert_eq!(found(&sessions, process, secret), None);
        }
    }

    #[test]
    fn a_closed_session_is_forgotten_by_id_and_by_cancel_key() {
        let (mut sessions, a, b) = two();
        assert!(sessions.by_id("a").is_some() && sessions.by_id("c").is_none());
        sessions.closed(a);
        sessions.closed(SessionKey { relay: 4, ..b });
        assert_eq!((found(&sessions, 7, b"aaaa"), sessions.len()), (None, 1));
        assert!(sessions.by_id("a").is_none());
        sessions.shard_ended(1);
        assert_eq!(found(&sessions, 7, b"bbbb").as_deref(), Some("b"), "another shard's");
        sessions.shard_ended(0);
        assert_eq!((found(&sessions, 7, b"bbbb"), sessions.len()), (None, 0));
    }
}
