//! The trail: records, the segment files they are written to, and the readers. FORMAT.md draws the bytes.

pub mod archive;
pub mod disk;
mod encode;
pub mod evidence;
pub mod frame;
mod layout;
pub mod ocsf;
pub mod origin;
mod payload;
pub mod printable;
pub mod reader;
pub mod record;
mod recover;
pub mod response;
pub mod row;
pub mod seal;
pub mod search;
pub mod segment;
pub mod sinks;
pub mod stage;
pub mod trail;
pub(crate) mod values;
pub mod verify;
pub mod when;
mod who;
pub mod writer;

pub use seal::{Keeper, Release, Sealer, SealerOptions, SealerTrouble};
pub use who::{NOBODY, OwnedWho, PackedWho, Who};
pub use writer::{RingOptions, SegmentWriter};

/// One thing that happened, borrowed from whoever saw it: nothing is allocated to record it.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A login that succeeded; the session is open.
    SessionOpened {
        grant: &'a str,
        /// What its start-up message set: `name=value, ...`.
        settings: &'a str,
    },
    /// A login that failed: SQLSTATE the client saw and the true reason.
    LoginRefused {
        sqlstate: [u8; 5],
        reason: &'a str,
    },
    /// A statement was decided. Written before it is forwarded.
    Request(Request<'a>),
    /// A statement ended. Written before the client learns of it.
    Outcome(Outcome<'a>),
    /// A ticket was ruled on, expired or was abandoned.
    Ruling {
        request: u64,
        ticket: &'a str,
        ruling: &'a str,
        by: &'a str,
        reason: &'a str,
    },
    SessionClosed {
        reason: &'a str,
        duration_us: u64,
        statements: u64,
    },
    /// Start, stop, reload: `detail` says which.
    Gateway {
        detail: &'a str,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Unique in its session, counting from 1; its outcomes carry the same number.
    pub request: u64,
    /// Cut at `AUDIT_STATEMENT_BYTES_MAX`.
    pub statement: &'a [u8],
    /// Length of the whole text.
    pub statement_bytes: u64,
    /// Bind values as text where they are text, `\x..` hex where binary; `None`: NULL.
    pub binds: &'a [Option<&'a str>],
    pub classes: u64,
    pub tables: &'a [String],
    /// `allow deny approve alert`.
    pub decision: &'a str,
    pub rule: &'a str,
    pub ticket: &'a str,
}

#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    pub request: u64,
    pub rows: u64,
    pub bytes: u64,
    pub duration_us: u64,
    /// SQLSTATE, or `skipped` or `disconnected`; empty: it succeeded.
    pub error: &'a str,
    /// Cells masked in the result.
    pub masked: u64,
    /// Another outcome of the same request may follow.
    pub more: bool,
    /// The response as the client saw it (after masking), as far as `payload_kib` allows. Empty: not recorded.
    pub payload: &'a [u8],
    /// There was more of it than that.
    pub payload_cut: bool,
}

/// Where a gate records. `Full`: nothing was recorded; the gate leaves the bytes undecided and tries again later.
pub trait Journal {
    fn append(&mut self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>) -> Result<(), Full>;
}

/// The ring has no room until the archiver has sealed a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

#[cfg(test)]
mod tests;
