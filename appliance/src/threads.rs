//! How many threads a gateway needs, and whether they can be started: all that can be is started at the start, so that a shortage shows
//! there and not at a login.

use crate::config::{Archiver, Config};
use crate::control::limits::workers;
use std::io;
use std::sync::{Arc, RwLock};
use std::thread::Builder;

/// What an operator does for more.
pub const RAISE: &str =
    "raise TasksMax= (and LimitNPROC=) in the unit, --pids-limit for a container, or `ulimit -u` of the gateway's user";

/// A shard, glommio's own, and the kernel's that syncs.
const PER_SHARD: usize = 3;
/// Control thread, sealer, watch.
const OF_GATEWAY: usize = 3;
/// The supervisor; then, in its process, the archiver itself, who follows the gateway, and signals.
const OF_ARCHIVER: usize = 4;
/// Who delivers, and who looks up names for it.
const PER_RECEIVER: usize = 2;

/// At one time, beside the main thread. `None`: what the defaults need.
pub fn needed(shards: usize, config: Option<&Config>) -> usize {
    let archiver = match config {
        Some(config) if !config.audit.archive || config.audit.archiver != Archiver::Supervised => 0,
        Some(config) => OF_ARCHIVER + PER_RECEIVER * archive_receivers(config),
        None => OF_ARCHIVER,
    };
    let sinks = config.map_or(0, |config| config.sinks.len());
    shards * PER_SHARD + workers(shards) + OF_GATEWAY + archiver + sinks * PER_RECEIVER
}

fn archive_receivers(config: &Config) -> usize {
    config.audit.checkpoint_copies.len() + usize::from(config.audit.archive_url.is_some())
}

/// Starts so many at once and ends them again. The error: how many there were when the system had no more.
pub fn try_to_start(count: usize) -> Result<(), (usize, io::Error)> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write();
    let mut started = Vec::new();
    let mut refused = None;
    while started.len() < count && refused.is_none() {
        let gate = gate.clone();
        match Builder::new().spawn(move || drop(gate.read())) {
            Ok(thread) => started.push(thread),
            Err(error) => refused = Some(error),
        }
    }
    drop(closed);
    let count = started.len();
    // Joined, not only over: the system counts them until then.
    started.into_iter().for_each(|thread| thread.join().expect("it only waits"));
    refused.map_or(Ok(()), |error| Err((count, error)))
}

/// Runs this on a thread of its own; an error where there is none to be had.
pub fn run_apart<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = Builder::new().spawn(work).map_err(|error| io::Error::other(format!("no thread for it: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("it ended abnormally")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_shard_sink_and_receiver_needs_its_threads() {
        let config = |text: &str| crate::config::parse(text, Path::new("gw.toml")).expect("it is valid");
        let of = |text: &str| needed(1, Some(&config(text)));
        let defaults = needed(1, None);
        assert_eq!(of(""), defaults);
        assert_eq!(needed(3, None) - needed(2, None), PER_SHARD + workers(3) - workers(2));
        assert_eq!(of("[audit]\narchiver = \"external\"\n"), defaults - OF_ARCHIVER);
        assert_eq!(of("[audit]\narchive = false\n"), defaults - OF_ARCHIVER);
        assert_eq!(of("[[sink]]\nkind = \"file\"\npath = \"/tmp/x.ndjson\"\n"), defaults + PER_RECEIVER);
        assert_eq!(of("[audit]\ncheckpoint_copies = [\"/mnt/worm\"]\n"), defaults + PER_RECEIVER);
    }

    #[test]
    fn what_was_started_to_try_is_ended() {
        let threads = || std::fs::read_dir("/proc/self/task").expect("Linux").count();
        let before = threads();
        assert!(try_to_start(500).is_ok());
        // Other tests have threads of their own.
        assert!(threads() < before + 400);
    }

    #[test]
    fn a_panic_on_a_thread_of_its_own_is_an_error() {
        assert_eq!(run_apart(|| Ok(7)).expect("it runs"), 7);
        assert!(run_apart::<()>(|| panic!("on purpose")).is_err());
    }
}
