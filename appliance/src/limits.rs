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

/// Bytes one relay may have looked at in a round of its shard. Beyond: the rest waits for the next round, and its neighbours go
/// first: at the 80 MB/s that every detector at once comes to, they wait less than half a millisecond for it. (A statement or a row that is
/// larger is looked at whole when its last byte has come: 16 MB take a quarter of a second.)
pub const SHARE_BYTES: usize = 32 << 10;
/// Bytes queued for one end. Beyond: the other end is not read until half of it is sent.
pub const QUEUED_BYTES_MAX: usize = 256 << 10;
/// Bytes queued for a client. Beyond: it is not read until half of it is sent, since what we answer ourselves (refusals, above all) grows with
/// what it asks. Well above the bound before, which holds for what the target answers.
pub const ANSWERED_BYTES_MAX: usize = 1 << 20;
/// Undecided bytes of one side while its drive holds them. Beyond: that side is not read.
pub const HELD_BYTES_MAX: usize = 64 << 10;
/// From accept to the end of the login, whatever it waits for. Beyond: closed.
pub const LOGIN_US: u64 = 30_000_000;
/// Opening a target, over all its addresses. Beyond: ConnectFailed.
pub const CONNECT_US: u64 = 10_000_000;
/// A client that takes nothing at all while more than half of [`QUEUED_BYTES_MAX`] waits for it. Beyond: closed.
pub const STALLED_US: u64 = 60_000_000;
/// Sending what is queued when a relay closes. Beyond: dropped.
pub const FLUSH_US: u64 = 5_000_000;
/// Waiting for a client to close after our last words. Beyond: closed.
pub const LINGER_US: u64 = 1_000_000;
/// Silence after which a session gives back the memory that only work needs; it has it again, a microsecond later, with its next bytes.
pub const REST_US: u64 = 1_000_000;
/// Connections of one shard at one time, where the limit on open files has room for as many. Beyond: turned away.
pub const RELAYS_MAX: usize = 100_000;
/// Descriptors of a connection: its client's and its target's.
pub const FILES_PER_CONNECTION: u64 = 2;
/// Descriptors of a shard beside its connections: rings, listeners, segments. Ten were counted; half as many again for segments that change.
pub const FILES_PER_SHARD: u64 = 16;
/// Descriptors of everything else: log, control thread, its connections (96), cancel requests (64) and name look-ups, sinks. Connections never
/// take them: without one the trail could not go on to its next segment, and every session would stand still.
pub const FILES_RESERVED: u64 = 256;
/// Where there is room for fewer connections than that, `serve` does not start.
pub const CONNECTIONS_MIN: usize = 10;
/// Accepting pauses this long when descriptors or memory run out.
pub const ACCEPT_PAUSE_US: u64 = 100_000;

const _: () = assert!(HELD_BYTES_MAX < REQUEST_BYTES_MAX && LINGER_US < FLUSH_US);
const _: () = assert!(2 * QUEUED_BYTES_MAX < ANSWERED_BYTES_MAX);

// Bounds of the configuration file and of the flags that say the same. Beyond: an error at the line.

/// A configuration file, so that a wrong path (a log, a device) is refused and not read into memory.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// More threads than any machine has cores for.
pub const SHARDS_MAX: u32 = 1024;
/// Microseconds: what a query of an index and a wake take, and some.
pub const SPIN_US: u32 = 100;
/// Microseconds: a tick of the kernel's scheduler. Longer spinning starves whoever shares the core.
pub const SPIN_US_MAX: u32 = 10_000;
/// Below, one burst of a few busy connections fills the ring.
pub const RING_ENTRIES_MIN: u32 = 64;
/// The kernel's own bound (IORING_MAX_ENTRIES).
pub const RING_ENTRIES_MAX: u32 = 32_768;
/// The kernel's own bound (IORING_MAX_CQ_ENTRIES).
pub const RING_COMPLETIONS_MAX: u32 = 65_536;
/// Below, one connection that straddles buffers starves the next.
pub const BUFFERS_MIN: u32 = 64;
/// The kernel's own bound for a provided-buffer ring.
pub const BUFFERS_MAX: u32 = 32_768;
/// KiB. Below, every second message straddles two buffers and is copied.
pub const BUFFER_KIB_MIN: u32 = 4;
/// KiB.
pub const BUFFER_KIB_MAX: u32 = 1024;
/// MiB. A segment is preallocated: this much disk, times the segments, times the shards.
pub const SEGMENT_MIB_MAX: u32 = 4096;
/// One being written, one being sealed.
pub const SEGMENTS_MIN: u32 = 2;
pub const SEGMENTS_MAX: u32 = 4096;
/// KiB of a response in one record: a frame is 16 MiB at most, and every session may hold one such response.
pub const PAYLOAD_KIB_MAX: u32 = 4 << 10;
/// MiB of records in one Parquet file. Readers open files of up to a gigabyte with ease, and a crash makes one again.
pub const ARCHIVE_FILE_MIB_MAX: u32 = 1024;
/// Seconds a Parquet file may take records: a day, as its folder is one.
pub const ARCHIVE_AGE_S_MAX: u64 = 86_400;
/// People one statement can wait for.
pub const APPROVERS_MAX: u32 = 16;
/// The most that `connection_limit` may say.
pub const CONNECTION_LIMIT_MAX: u32 = 1_000_000;
/// Seconds a statement or a session request may wait for a ruling: a week. A client that waits longer has given up.
pub const APPROVAL_EXPIRES_S_MAX: u64 = 7 * 86_400;
/// Seconds of tolerated clock difference. More would keep a revoked token alive for too long.
pub const LEEWAY_S_MAX: u64 = 300;
/// Milliseconds: what a power cut may cost in `group` and `async`.
pub const COMMIT_INTERVAL_MS_MAX: u64 = 10_000;
/// Seconds for a login and for a connection to a target.
pub const TIMEOUT_S_MAX: u64 = 600;
/// For sessions to end by themselves, seconds.
pub const DRAIN_S_MAX: u64 = 86_400;

/// What the largest record needs besides its payload: names, tables, frame.
pub const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

/// Events of one batch to a sink: what CloudWatch Logs takes, which has the lowest limit of all.
pub const SINK_BATCH_EVENTS_MAX: u32 = 10_000;
/// KiB: a batch is in memory three times at most (events, request, compressed).
pub const SINK_BATCH_KIB_MAX: u32 = 64 << 10;
/// MiB of a sink's file before it is rotated: 1 TiB.
pub const SINK_ROTATE_MIB_MAX: u32 = 1 << 20;
/// The highest facility RFC 5424 knows.
pub const SYSLOG_FACILITY_MAX: u32 = 23;
/// Of one value that a flag or variable gave, in the trail. Beyond: its beginning.
pub const GIVEN_CHARS_MAX: usize = 200;
/// Rotated files of a sink that are kept.
pub const SINK_KEEP_MAX: u32 = 100_000;

const _: () = assert!(RING_ENTRIES_MIN.is_power_of_two() && RING_ENTRIES_MAX.is_power_of_two());
const _: () = assert!(RING_ENTRIES_MAX <= RING_COMPLETIONS_MAX);
const _: () = assert!(BUFFERS_MIN.is_power_of_two() && BUFFERS_MAX.is_power_of_two());
const _: () = assert!(BUFFERS_MAX <= u16::MAX as u32);
// The largest record without a payload fits the smallest segment.
const _: () = assert!(AUDIT_STATEMENT_BYTES_MAX + AUDIT_BINDS_BYTES_MAX + RECORD_OVERHEAD_BYTES < 1 << 20);

// The gate's.

/// Texts, and as many shapes of texts, whose meaning a shard remembers, per generation (there are two). Beyond: the older
/// generation is forgotten.
pub const CACHED_TEXTS_MAX: usize = 4096;
/// A text or shape that is remembered. Longer ones are parsed each time.
pub const CACHED_TEXT_BYTES_MAX: usize = 16 << 10;
/// A text that is looked up by its shape, constants and all. Longer ones are parsed each time.
pub const SHAPED_TEXT_BYTES_MAX: usize = 1 << 20;
/// A text that the shard's own thread reads: some 4 ms of parsing at worst. Longer ones are read on a thread of their own, and their request
/// waits.
pub const READ_HERE_BYTES_MAX: usize = 16 << 10;
/// Verdicts a session keeps for texts that come again unprepared. Beyond: the oldest is decided anew when it returns.
pub const RECENT_MARKS_MAX: usize = 8;
/// SQL cursors a session is remembered to have declared. Beyond: their expression columns count as unknown.
pub const CURSORS_MAX: usize = 1024;
/// Statements that one cursor's name may stand for. Beyond: the oldest is forgotten, and the name is judged as one nobody knows.
pub const CURSOR_STATEMENTS_MAX: usize = 4;
/// How old a target's catalogue may be before a result waits for a new one.
pub const CATALOGUE_AGE_MAX_US: i64 = 60_000_000;
