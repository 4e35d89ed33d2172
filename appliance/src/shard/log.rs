//! What the shard needs of the record it keeps: first the record, then the bytes.

use crate::audit::SegmentWriter;
use crate::audit::{Entry, Full, Journal, Who};
use std::io;
use std::os::fd::RawFd;

/// When a record counts as safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// With the kernel before the round's sends, written to the trail and on stable storage within the commit interval.
    #[default]
    Group,
    /// On stable storage before the sends of the relay that recorded.
    Strict,
    /// With the kernel within the commit interval.
    Async,
}

/// The file behind a shard's journal.
pub trait RoundLog {
    /// Something was appended since the last write or keep.
    fn dirty(&self) -> bool;
    /// Hands everything appended to the kernel in one write. A log that turns to another file syncs the old one first.
    fn write(&mut self) -> io::Result<()>;
    /// Sees to it that everything appended outlives the process; it is written later. A log that has no cheaper way writes it.
    fn keep(&mut self) -> io::Result<()> {
        self.write()
    }
    /// The file to fdatasync so that everything written is on stable storage; `None`: nothing to sync.
    fn sync_fd(&self) -> Option<RawFd>;
    /// An append of ordinary size would not be answered `Full`.
    fn has_room(&self) -> bool;
    /// Why nothing is accepted any more, if so: the shard cannot go on.
    fn failed(&self) -> Option<&str>;
    /// Once a second: is what was written still where a reader finds it? If not, it has failed.
    fn look(&mut self) {}
    /// Nothing will be appended any more: what was written is brought to stable storage, and what only a stop without notice needs goes.
    fn close(&mut self) -> io::Result<()>;
}

impl RoundLog for SegmentWriter {
    fn dirty(&self) -> bool {
        self.dirty()
    }
    fn write(&mut self) -> io::Result<()> {
        self.write()
    }
    fn keep(&mut self) -> io::Result<()> {
        self.keep()
    }
    fn sync_fd(&self) -> Option<RawFd> {
        self.sync_fd()
    }
    fn has_room(&self) -> bool {
        self.has_room()
    }
    fn failed(&self) -> Option<&str> {
        self.failed()
    }
    fn look(&mut self) {
        self.look();
    }
    fn close(&mut self) -> io::Result<()> {
        self.close()
    }
}

/// What a shard records into.
pub trait ShardLog: Journal + RoundLog {}
impl<L: Journal + RoundLog> ShardLog for L {}

/// Watches one relay's appends: whether there were any, and whether one was turned away.
pub struct Watched<'a> {
    pub log: &'a mut dyn ShardLog,
    pub appended: bool,
    pub full: bool,
}

impl Journal for Watched<'_> {
    fn append(&mut self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>) -> Result<(), Full> {
        let answer = self.log.append(time_us, who, entry);
        match answer {
            Ok(()) => self.appended = true,
            Err(Full) => self.full = true,
        }
        answer
    }
}

/// No record at all: for a relay that only carries bytes.
#[derive(Debug, Default)]
pub struct NoLog {}

impl Journal for NoLog {
    fn append(&mut self, _: i64, _: &Who<'_>, _: &Entry<'_>) -> Result<(), Full> {
        Ok(())
    }
}

impl RoundLog for NoLog {
    fn dirty(&self) -> bool {
        false
    }
    fn write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn sync_fd(&self) -> Option<RawFd> {
        None
    }
    fn has_room(&self) -> bool {
        true
    }
    fn failed(&self) -> Option<&str> {
        None
    }
    fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}
