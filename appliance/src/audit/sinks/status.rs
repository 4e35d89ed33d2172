//! What can be seen of the sinks: by the metrics, by `lockgate audit sinks`.

use super::position::Position;
use crate::audit::when;
use crate::config::Sink;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// One sink, as it is now.
pub struct Status {
    pub name: String,
    pub kind: &'static str,
    /// Acknowledged by the receiver.
    pub events: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Refused by the receiver for good, and put aside.
    pub dropped: AtomicU64,
    /// Records that the trail no longer has, or that are damaged there.
    pub missed: AtomicU64,
    now: Mutex<Now>,
}

#[derive(Clone, Default)]
struct Now {
    position: Position,
    /// Time of the oldest event that waits; `None`: nothing waits.
    waiting_since_us: Option<i64>,
    waiting: usize,
    error: Option<Trouble>,
    delivered_at_us: Option<i64>,
}

/// Why the last attempt failed.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub at_us: i64,
    pub what: String,
    pub mend: Option<String>,
    pub retry_at_us: i64,
}

impl Status {
    fn new(sink: &Sink) -> Self {
        Self {
            name: sink.name.clone(),
            kind: sink.kind.name(),
            events: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            now: Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("nobody panics while holding a status")
    }

    pub(super) fn waits(&self, oldest_us: Option<i64>, events: usize) {
        let mut now = self.now();
        (now.waiting_since_us, now.waiting) = (oldest_us, events);
        if events == 0 {
            // Read to the end, and nothing is owed: whatever was wrong is over.
            now.error = None;
        }
    }

    pub(super) fn stands_at(&self, position: &Position) {
        self.now().position = position.clone();
    }

    pub(super) fn delivered(&self, events: u64, now_us: i64) {
        self.events.fetch_add(events, Relaxed);
        let mut now = self.now();
        (now.delivered_at_us, now.error) = (Some(now_us), None);
    }

    pub(super) fn troubled(&self, trouble: Trouble) {
        self.failures.fetch_add(1, Relaxed);
        self.now().error = Some(trouble);
    }

    /// Seconds by which the receiver is behind: the age of the oldest event it has not acknowledged.
    pub fn lag_seconds(&self, now_us: i64) -> f64 {
        self.now().waiting_since_us.map_or(0.0, |since| now_us.saturating_sub(since).max(0) as f64 / 1e6)
    }

    pub fn json(&self, now_us: i64) -> Value {
        let now = self.now().clone();
        let error = now.error.as_ref();
        json!({
            "name": self.name,
            "kind": self.kind,
            "state": if error.is_some() { "retrying" } else { "delivering" },
            "events": self.events.load(Relaxed),
            "failures": self.failures.load(Relaxed),
            "dropped": self.dropped.load(Relaxed),
            "missed": self.missed.load(Relaxed),
            "waiting": now.waiting,
            "lag_seconds": self.lag_seconds(now_us),
            "delivered": now.delivered_at_us.map(when::rfc3339),
            "error": error.map(|error| &error.what),
            "error_time": error.map(|error| when::rfc3339(error.at_us)),
            "mend": error.and_then(|error| error.mend.as_ref()),
            "pause_seconds": error.map(|error| (error.retry_at_us - error.at_us) as f64 / 1e6),
            "next_retry": error.map(|error| when::rfc3339(error.retry_at_us)),
            "position": position_json(&now.position),
        })
    }
}

/// `{"0": 123, ...}`: the id of the record to be read next, by shard.
pub fn position_json(position: &Position) -> Value {
    Value::Object(position.shards.iter().map(|(shard, place)| (shard.to_string(), json!(place.next))).collect())
}

/// All of them, in the order of the configuration.
#[derive(Default)]
pub struct Board(Mutex<Vec<Arc<Status>>>);

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    pub fn all(&self) -> Vec<Arc<Status>> {
        self.0.lock().expect("nobody panics while holding the board").clone()
    }

    /// In place of one of the same name.
    pub(crate) fn add(&self, sink: &Sink) -> Arc<Status> {
        let status = Arc::new(Status::new(sink));
        let mut all = self.0.lock().expect("nobody panics while holding the board");
        all.retain(|other| other.name != sink.name);
        all.push(status.clone());
        status
    }

    pub(super) fn keep_only<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let names: Vec<_> = names.collect();
        let mut all = self.0.lock().expect("nobody panics while holding the board");
        all.retain(|status| names.contains(&status.name.as_str()));
        all.sort_by_key(|status| names.iter().position(|name| *name == status.name));
    }
}
