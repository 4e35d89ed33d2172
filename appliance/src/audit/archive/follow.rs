//! Follows one shard's segments: frames that hold, their records in order, and where it stands.

use super::checkpoint::Promise;
use super::manifest::Position;
use super::whose::WhoPlace;
use crate::audit::frame::FrameHeader;
use crate::audit::payload::{outline, record_at};
use crate::audit::reader::Damage;
use crate::audit::record::View;
use crate::audit::trail::{Advance, ChainReader};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One shard. Holds one frame at a time.
pub struct Follower {
    chain: ChainReader,
    /// Records of the current frame that nobody has taken: time and where they begin in its payload.
    waiting: VecDeque<Waiting>,
    /// One of them has been taken.
    begun: bool,
    /// Tells it from every other one that was ever read.
    frame: u64,
    /// Everything before it has been taken.
    taken: Position,
    /// What was found broken inside the current frame.
    broken: Option<Damage>,
    /// What a checkpoint promised behind the position.
    owed: Option<Promise>,
}

#[derive(Clone, Copy)]
struct Waiting {
    time_us: i64,
    start: usize,
    sequence: u64,
}

/// One record on its way.
pub struct Taken<'a> {
    pub shard: u32,
    pub sequence: u64,
    pub view: View<'a>,
    /// Where its who stands, if others may share it.
    pub whose: Option<WhoPlace>,
    /// What it takes in its frame.
    pub bytes: usize,
}

fn next_frame() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// What a look for more has come to.
pub enum Look {
    /// Records wait.
    Records,
    Damage(Damage),
    /// Nothing more yet.
    Idle,
}

impl Follower {
    /// `owed`: a frame behind that position which a checkpoint promised. Another one under its number is damage.
    pub fn new(data_dir: PathBuf, from: &Position, owed: Option<&Promise>) -> Self {
        let promised = owed.map(|promise| (promise.frame, promise.hash)).into_iter().collect();
        let chain = ChainReader::after(data_dir, from).durable().proven(promised);
        Self {
            chain,
            waiting: VecDeque::new(),
            begun: false,
            frame: 0,
            taken: *from,
            broken: None,
            owed: owed.copied(),
        }
    }

    /// The promised frame has been read, and is the one.
    pub fn has_met(&self) -> bool {
        self.owed.is_some_and(|owed| self.chain.proved() >= owed.frame)
    }

    /// Time of the record due next.
    pub fn head_us(&self) -> Option<i64> {
        self.waiting.front().map(|waiting| waiting.time_us)
    }

    /// The record due next.
    pub fn take(&mut self) -> Option<Taken<'_>> {
        let waiting = self.waiting.pop_front()?;
        self.begun = true;
        if self.waiting.is_empty() {
            self.pass();
        }
        // It was read before, and the frame has not changed since.
        let (view, bytes) = record_at(self.chain.payload(), waiting.start).ok()?;
        let shard = self.chain.shard();
        let whose = view.who_at().map(|at| WhoPlace { shard, frame: self.frame, at });
        Some(Taken { shard, sequence: waiting.sequence, view, whose, bytes })
    }

    /// Some records of the current frame have been taken and others have not.
    pub fn is_begun(&self) -> bool {
        self.begun && !self.waiting.is_empty()
    }

    /// Behind the last frame whose records have all been taken.
    pub fn taken(&self) -> Position {
        self.taken
    }

    /// Behind the last frame that was read, taken or not.
    pub fn read(&self) -> Position {
        self.chain.position()
    }

    /// Everything that was read has been taken. Repeated frames take nobody back.
    fn pass(&mut self) {
        let read = self.chain.position();
        if read.frame >= self.taken.frame {
            self.taken = read;
        }
    }

    /// The size of the segment it is in.
    pub fn segment_bytes(&self) -> Option<u64> {
        self.chain.segment_bytes()
    }

    /// What was read of the segment it is in is on stable storage afterwards.
    pub fn sync(&self) -> io::Result<()> {
        self.chain.sync()
    }

    /// Once all records are taken: the next frame.
    pub fn look(&mut self) -> io::Result<Look> {
        debug_assert!(self.waiting.is_empty());
        loop {
            match self.chain.advance()? {
                Advance::Frame(header) => {
                    if header.frame <= self.taken.frame {
                        // Swapped, replayed or rolled back, and reported: its number is archived already.
                        continue;
                    }
                    (self.begun, self.frame) = (false, next_frame());
                    self.list_records(&header);
                    if self.waiting.is_empty() {
                        self.pass();
                    }
                    // Told before the records of its frame: what precedes the frame can be published without it.
                    if let Some(damage) = self.chain.take_disproved().or_else(|| self.broken.take()) {
                        return Ok(Look::Damage(damage));
                    }
                    if !self.waiting.is_empty() {
                        return Ok(Look::Records);
                    }
                }
                Advance::Damage(damage) => return Ok(Look::Damage(damage)),
                Advance::End => {
                    self.pass();
                    return Ok(Look::Idle);
                }
            }
        }
    }

    fn list_records(&mut self, header: &FrameHeader) {
        if self.chain.records_hold() {
            let mut sequence = header.first_record;
            for (start, time_us) in outline(self.chain.payload()) {
                self.waiting.push_back(Waiting { time_us, start, sequence });
                sequence = sequence.saturating_add(1);
            }
            return;
        }
        let mut records = self.chain.records();
        while let Some(record) = records.next() {
            match record {
                Ok((sequence, view)) => {
                    self.waiting.push_back(Waiting { time_us: view.time_us(), start: records.began(), sequence });
                }
                Err(damage) => self.broken = Some(damage),
            }
        }
    }
}
