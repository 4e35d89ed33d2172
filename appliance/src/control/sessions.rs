//! The live sessions of all shards: for `sessions ls`, for `sessions kill` and for cancel requests.

use crate::shard::mailbox::SessionInfo;
use crate::snapshot::Target;
use std::collections::HashMap;
use std::sync::Arc;

/// A session with the target it was opened to, which a reload does not change under it.
pub struct Live {
    pub info: Box<SessionInfo>,
    /// `None`: its target is in no snapshot we know.
    pub target: Option<Arc<Target>>,
}

#[derive(Default)]
pub struct Sessions {
    live: HashMap<String, Live>,
    /// By the process number in the key the client holds. Secrets decide between sessions that share one.
    by_process: HashMap<i32, Vec<String>>,
}

impl Sessions {
    pub fn opened(&mut self, info: Box<SessionInfo>, target: Option<Arc<Target>>) {
        let (id, process) = (info.id.clone(), info.client_key.0);
        self.closed(&id);
        self.by_process.entry(process).or_insert_with(|| Vec::with_capacity(1)).push(id.clone());
        self.live.insert(id, Live { info, target });
    }

    pub fn closed(&mut self, id: &str) {
        let Some(live) = self.live.remove(id) else { return };
        let process = live.info.client_key.0;
        if let Some(ids) = self.by_process.get_mut(&process) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.by_process.remove(&process);
            }
        }
    }

    /// A shard ended: its sessions are gone whether it said so or not.
    pub fn shard_ended(&mut self, shard: usize) {
        let ids: Vec<_> =
            self.live.values().filter(|live| live.info.shard == shard).map(|live| live.info.id.clone()).collect();
        ids.iter().for_each(|id| self.closed(id));
    }

    /// Whose key this is. The secret is compared in constant time: how far it agreed must not show.
    pub fn by_key(&self, process: i32, secret: &[u8]) -> Option<&Live> {
        self.by_process.get(&process)?.iter().filter_map(|id| self.live.get(id)).find(|live| {
            !secret.is_empty()
                && aws_lc_rs::constant_time::verify_slices_are_equal(&live.info.client_key.1, secret).is_ok()
        })
    }

    pub fn by_id(&self, id: &str) -> Option<&Live> {
        self.live.get(id)
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<&Live> {
        let mut all: Vec<_> = self.live.values().collect();
        all.sort_by(|a, b| (a.info.opened_at_us, &a.info.id).cmp(&(b.info.opened_at_us, &b.info.id)));
        all
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn info(id: &str, process: i32, secret: &[u8]) -> SessionInfo {
        SessionInfo {
            id: id.into(),
            shard: 0,
            relay: 5,
            user: "alice".into(),
            groups: vec!["engineering".into()],
            actor: vec![],
            client: "127.0.0.1:5000".into(),
            application: "psql".into(),
            claimed_user: "anything".into(),
            target: "orders".into(),
            opened_at_us: 1,
            client_key: (process, secret.to_vec()),
            target_key: (4242, vec![1, 2, 3, 4]),
        }
    }

    fn found(sessions: &Sessions, process: i32, secret: &[u8]) -> Option<String> {
        sessions.by_key(process, secret).map(|live| live.info.id.clone())
    }

    #[test]
    fn a_key_finds_its_own_session_and_no_other() {
        let mut sessions = Sessions::default();
        sessions.opened(Box::new(info("a", 7, b"aaaa")), None);
        sessions.opened(Box::new(info("b", 7, b"bbbb")), None);
        assert_eq!(found(&sessions, 7, b"aaaa").as_deref(), Some("a"));
        assert_eq!(found(&sessions, 7, b"bbbb").as_deref(), Some("b"));
        for (process, secret) in [(7, &b"cccc"[..]), (8, b"aaaa"), (7, b""), (7, b"aaa"), (7, b"aaaaa")] {
            assert_eq!(found(&sessions, process, secret), None);
        }
    }

    #[test]
    fn a_closed_session_is_forgotten_by_id_and_by_key() {
        let mut sessions = Sessions::default();
        sessions.opened(Box::new(info("a", 7, b"aaaa")), None);
        sessions.opened(Box::new(info("b", 7, b"bbbb")), None);
        sessions.closed("a");
        sessions.closed("never-opened");
        assert_eq!((found(&sessions, 7, b"aaaa"), sessions.len()), (None, 1));
        sessions.shard_ended(0);
        assert_eq!((found(&sessions, 7, b"bbbb"), sessions.by_process.len()), (None, 0));
    }

    #[test]
    fn a_session_without_a_secret_cannot_be_cancelled() {
        let mut sessions = Sessions::default();
        sessions.opened(Box::new(info("a", 7, b"")), None);
        assert_eq!(found(&sessions, 7, b""), None);
    }
}
