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
