//! Every bound of the control thread: unit, reason, and what happens beyond it.

use crate::limits::FILES_RESERVED;
use std::time::Duration;

/// Tickets that wait at once. Beyond: the statement is rejected at once, with a reason that says so.
pub const TICKETS_PENDING_MAX: usize = 10_000;
/// Statement and bind text of all waiting tickets together, in bytes. Beyond: as above.
pub const TICKETS_PENDING_BYTES_MAX: usize = 64 << 20;
/// Ended tickets that can still be looked at. Beyond: the oldest are forgotten (the audit keeps them).
pub const TICKETS_ENDED_KEPT: usize = 1_000;
/// Statement and values of a ticket in the ticket file, and of one that has ended in memory too, in bytes of JSON. Beyond: cut. A restart
/// expires what waited, so that nobody rules by these: they are history, and the audit has more of it.
pub const TICKET_KEPT_TEXT_BYTES_MAX: usize = 4 << 10;
/// The same in a list of tickets, which may be all that wait at once. `GET /approvals/ID` has the whole text.
pub const TICKET_LIST_TEXT_BYTES_MAX: usize = 200;
/// The ticket file, in bytes. Beyond, and beyond twice what the last rewrite left: written anew with what the board knows (at its
/// fullest some 60 MiB).
pub const TICKET_FILE_BYTES: u64 = 16 << 20;
/// After a rewrite that failed, so much more is appended before the next one is tried, in bytes.
pub const TICKET_FILE_RETRY_BYTES: u64 = 4 << 20;
/// A reviewer's reason, in bytes. Beyond: refused.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// A request body on the control socket, in bytes: a token and a reason. Beyond: refused.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;

/// Connections of the ops listener at once: probes and scrapers, some of them stuck. Beyond: they wait in the kernel's queue.
pub const OPS_CONNECTIONS_MAX: usize = 64;
/// Connections of the control socket at once: one for each command that runs. Beyond: as above.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// For a request's head, and for the next request on a connection that is kept. Whoever scrapes more rarely than that connects anew.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection's. Beyond: it ends with the answer it waits for.
pub const HTTP_CONNECTION_TIME: Duration = Duration::from_secs(60);
/// For that answer, which is a reload's at the longest. Beyond: it is cut off.
pub const HTTP_END_TIME: Duration = Duration::from_secs(60);

// Descriptors the trail needs are never among those that others can take.
const _: () = assert!(OPS_CONNECTIONS_MAX + ADMIN_CONNECTIONS_MAX + CANCELS_MAX < FILES_RESERVED as usize * 3 / 4);

/// Keys derived for targets and kept. Beyond: the oldest are derived again.
pub const DERIVED_KEYS_MAX: usize = 256;
/// Worker threads for key derivation, name resolution and building snapshots; besides, two a shard for reading texts.
pub const WORKERS_MAX: usize = 4;
/// Texts up to this have readers of their own, and wait behind each other only: 30 ms of parsing each.
pub const SHORT_TEXT_BYTES_MAX: usize = 128 << 10;

/// Texts of one kind (short ones, long ones) that are read at a time: as many as there are shards, which would have read them otherwise.
pub const fn readers(shards: usize) -> usize {
    if shards == 0 { 1 } else { shards }
}

/// All workers: they are there from the start.
pub const fn workers(shards: usize) -> usize {
    WORKERS_MAX + 2 * readers(shards)
}

/// Time between the starts of two reads of one target's catalogue.
pub const CATALOGUE_INTERVAL: Duration = Duration::from_millis(200);
/// For connecting to a target and reading its catalogue.
pub const CATALOGUE_TIMEOUT: Duration = Duration::from_secs(15);
/// Columns of one target. Beyond: the catalogue is refused rather than half read.
pub const CATALOGUE_COLUMNS_MAX: usize = 4_000_000;

/// For one cancel request, from connecting to the target's close.
pub const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Cancel requests on their way at once. Beyond: dropped, as PostgreSQL would drop what it cannot fork for.
pub const CANCELS_MAX: usize = 64;
/// Addresses of one target a cancel request is sent to.
pub const CANCEL_ADDRESSES_MAX: usize = 4;

/// Host names of targets are resolved again this often.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Sinks that could not be started are tried again this often.
pub const SINKS_INTERVAL: Duration = Duration::from_secs(10);
/// After a shard has failed, the others may finish what they do for this long.
pub const FAULT_DRAIN: Duration = Duration::from_secs(10);
/// Keys are looked at this often: whether they are due, and whether somebody came with an unknown one.
pub const KEYS_INTERVAL: Duration = Duration::from_secs(1);
/// A reload waits so long for issuers of which no key is known. Beyond: their tokens are refused until keys have come.
pub const RELOAD_KEYS_TIMEOUT: Duration = Duration::from_secs(3);

/// Characters of the reason for refusing a configuration that the trail keeps. The log has all of it.
pub const REASON_CHARS_MAX: usize = 500;
