//! Every bound: unit, reason, and what happens beyond it.

/// A whole client message that must be decided. Beyond: SQLSTATE 54000, the connection closes. 64 MiB values must fit
/// as hex text with room to spare.
pub const REQUEST_BYTES_MAX: usize = 256 << 20;
/// A row with watched columns, which must be whole to be masked. Beyond: SQLSTATE 54000.
pub const ROW_BYTES_MAX: usize = 256 << 20;
/// Statement text kept in an audit record. Beyond: cut, with the full length and a hash of the whole text.
pub const AUDIT_STATEMENT_BYTES_MAX: usize = 256 << 10;
/// Bind values kept in an audit record. Beyond: cut, marked as cut.
pub const AUDIT_BINDS_BYTES_MAX: usize = 64 << 10;
/// A token. Beyond: refused like any bad token.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// SCRAM iterations we are willing to compute for a target (CVE-2026-42198).
pub const SCRAM_ITERATIONS_MAX: u32 = 1_000_000;

const _: () = assert!(AUDIT_STATEMENT_BYTES_MAX < REQUEST_BYTES_MAX);

// The shard's own bounds. Times are microseconds.

/// Bytes queued for one end. Beyond: the other end is not read until half of it is sent.
pub const QUEUED_BYTES_MAX: usize = 256 << 10;
/// Undecided bytes of one side while its drive holds them. Beyond: that side is not read.
pub const HELD_BYTES_MAX: usize = 64 << 10;
/// A client that says nothing after it has connected. Beyond: closed.
pub const FIRST_BYTE_US: u64 = 30_000_000;
/// A handshake begun with the first byte. Beyond: closed.
pub const DIRECT_TLS_US: u64 = 30_000_000;
/// Opening a target, over all its addresses. Beyond: ConnectFailed.
pub const CONNECT_US: u64 = 10_000_000;
/// A queue over its bound that does not move because the peer does not read. Beyond: closed.
pub const STALLED_US: u64 = 60_000_000;
/// Sending what is queued when a relay closes. Beyond: dropped.
pub const FLUSH_US: u64 = 5_000_000;
/// Waiting for a client to close after our last words. Beyond: closed.
pub const LINGER_US: u64 = 1_000_000;
/// Accepting pauses this long when descriptors or memory run out.
pub const ACCEPT_PAUSE_US: u64 = 100_000;

const _: () = assert!(HELD_BYTES_MAX < REQUEST_BYTES_MAX && LINGER_US < FLUSH_US);
