//! How many files this process may have open, and how many connections that is room for.

use crate::limits::{FILES_PER_CONNECTION, FILES_PER_SHARD, FILES_RESERVED};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What an operator does for more.
pub const RAISE: &str =
    "LimitNOFILE=1048576 in the unit, --ulimit nofile=1048576 for a container, or `ulimit -n 1048576`";

/// As many as this process may allow itself: the lower limit it is given is for programs that use `select`.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // Whoever may not keeps what there is, which `limit` tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Descriptors that may be open at one time.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The same once it is [raised](raise).
pub fn limit_raised() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Connections that so many descriptors have room for beside all else. A client that has not logged in counts as if it had: when it
/// does, there must be a descriptor for its target.
pub fn connections(files: u64, shards: usize) -> usize {
    let room = files.saturating_sub(reserve(shards)) / FILES_PER_CONNECTION;
    usize::try_from(room).unwrap_or(usize::MAX)
}

/// Descriptors that so many connections need.
pub fn needed(connections: usize, shards: usize) -> u64 {
    reserve(shards) + connections as u64 * FILES_PER_CONNECTION
}

fn reserve(shards: usize) -> u64 {
    FILES_RESERVED + shards as u64 * FILES_PER_SHARD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_no_room_for_connections() {
        assert_eq!(connections(needed(0, 4), 4), 0);
        assert_eq!(connections(needed(10, 4), 4), 10);
        assert_eq!(connections(needed(10, 4) + 1, 4), 10, "half a session is none");
        assert_eq!(connections(60, 2), 0);
        assert!(connections(u64::MAX, 1) > 1 << 60);
    }
}
