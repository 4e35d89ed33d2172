//! Reading a trail: over archived and live segments as one chain per shard, safe on any damage.
//!
//! Raw bytes are checked first (checksum, then the hash chain); only then does a parser see them. Damage is reported
//! once and precisely, what precedes it is kept, and reading goes on at the next frame that holds.

use super::frame::{
    Broken, FRAME_HEADER_BYTES, FRAME_MAGIC, Footer, FrameHeader, FrameKind, Hash, SEGMENT_HEADER_BYTES, SegmentHeader,
    hash, is_zero,
};
use super::payload::Walk;
use super::record::RecordBroken;
use super::segment::{self, SegmentFile, at};
use crate::files;
use rkyv::util::AlignedVec;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Read ahead of the frames. A larger frame grows the buffer to its own size.
const READ_BYTES: usize = 64 << 10;
/// Bytes checksummed while looking for the next good frame, per byte of file: beyond, the rest counts as lost.
const RESYNC_BUDGET: u64 = 4;

/// One break of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub file: PathBuf,
    pub shard: u32,
    pub segment: u64,
    /// Byte in the file.
    pub offset: u64,
    /// The frame that is not as it must be; `None`: not about a frame.
    pub frame: Option<u64>,
    pub kind: DamageKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// A segment's header is not one.
    Header(Broken),
    /// A frame is not one; reading goes on at `resumed` (offset and frame).
    Frame { broken: Broken, resumed: Option<(u64, u64)> },
    /// The last frame of a file is not whole, and nothing follows it.
    Tail(Broken),
    /// It names another predecessor than the one that is there.
    Chain,
    /// Frames are missing in front of it: the first of them.
    MissingFrames { from: u64 },
    /// Its number has been used before: a repeated or an older frame.
    RepeatedFrame { expected: u64 },
    /// The records' sequence does not continue.
    Records { expected: u64, found: u64 },
    /// It belongs to another shard or segment.
    Foreign { shard: u32, segment: u64 },
    /// The file is shorter or longer than its header says.
    Size { expected: u64, found: u64 },
    /// Something stands behind the end of the records.
    AfterEnd,
    /// It has a successor but no footer.
    Unsealed,
    /// The footer does not say what the segment holds.
    Footer,
    /// The file's name does not carry the times and the hash of its footer.
    Name,
    /// The segment is not there though later ones are, or though it must have followed.
    MissingSegment,
    /// Its hash is not the one the manifest or a checkpoint names for its number.
    Proven,
    /// A checkpoint promises this frame, and the trail ends before it.
    Promised { frame: u64 },
    /// A frame's bytes are as they were written but hold no such record.
    Record { index: u32, broken: RecordBroken },
    /// A file too many: of a number that has one already, behind the prepared one, or not a regular file.
    Surplus,
}

impl DamageKind {
    /// The word FORMAT.md has for it: what programs compare.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Frame { .. } => "frame",
            Self::Tail(_) => "tail",
            Self::Chain => "chain",
            Self::MissingFrames { .. } => "missing_frames",
            Self::RepeatedFrame { .. } => "repeated_frame",
            Self::Records { .. } => "sequence",
            Self::Foreign { .. } => "foreign",
            Self::Size { .. } => "size",
            Self::AfterEnd => "after_end",
            Self::Unsealed => "unsealed",
            Self::Footer => "footer",
            Self::Name => "name",
            Self::MissingSegment => "missing_segment",
            Self::Record { .. } => "record",
            Self::Surplus => "surplus",
            Self::Proven => "proven",
            Self::Promised { .. } => "promised",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(frame) = self.frame {
            write!(f, "frame {frame} ")?;
        }
        write!(f, "at byte {}: {}", self.offset, self.kind)
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(broken) => write!(f, "the segment header is damaged ({broken})"),
            Self::Frame { broken, resumed: Some((offset, frame)) } => {
                write!(f, "damaged ({broken}); the next good one is frame {frame} at byte {offset}")
            }
            Self::Frame { broken, resumed: None } => write!(f, "damaged ({broken}); nothing good follows in this file"),
            Self::Tail(broken) => write!(f, "the last frame is unfinished or was changed ({broken})"),
            Self::Chain => write!(f, "it does not continue the chain: what precedes it was changed or replaced"),
            Self::MissingFrames { from } => write!(f, "frames are missing before it, from {from} on"),
            Self::RepeatedFrame { expected } => {
                write!(f, "it repeats an earlier number, {expected} was due: swapped, replayed or rolled back")
            }
            Self::Records { expected, found } => write!(f, "record {expected} was due, it holds {found}"),
            Self::Foreign { shard, segment } => write!(f, "it belongs to shard {shard}, segment {segment}"),
            Self::Size { expected, found } => write!(f, "the file has {found} bytes, its header says {expected}"),
            Self::AfterEnd => write!(f, "there is data behind the end of the records"),
            Self::Unsealed => write!(f, "the segment ends without a footer though another follows: its end was cut"),
            Self::Footer => write!(f, "the footer does not match what the segment holds"),
            Self::Name => write!(f, "the file name is not what its footer makes it"),
            Self::MissingSegment => write!(f, "the segment is missing"),
            Self::Surplus => write!(f, "a file too many: the trail has no place for it"),
            Self::Proven => {
                write!(f, "it is not the frame that the manifest or a checkpoint names: replaced or rolled back")
            }
            Self::Promised { frame } => {
                write!(
                    f,
                    "the trail ends before frame {frame}, which a checkpoint promises: its end was cut or rolled back"
                )
            }
            Self::Record { index, broken } => {
                write!(f, "record {index} of the frame cannot be read ({broken:?}): not written by this gateway")
            }
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "it does not begin as it must"),
            Self::Version(version) => write!(f, "format version {version} is unknown"),
            Self::Length => write!(f, "its length is impossible"),
            Self::Field => write!(f, "a field holds an impossible value"),
            Self::Checksum => write!(f, "its checksum does not match"),
        }
    }
}

/// What the next element must say. `None`: anything, because something before it is already known to be damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    pub previous: Option<Hash>,
    pub frame: Option<u64>,
    pub record: Option<u64>,
}

/// The news of one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The payload is in [`SegmentReader::payload`].
    Frame(FrameHeader),
    /// The footer was reached.
    Sealed(Footer),
    /// Nothing more yet.
    End,
    Damage(Damage),
}

/// Walks the frames of one file.
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    shard: u32,
    number: u64,
    file_bytes: u64,
    header: Option<SegmentHeader>,
    /// File bytes `base..base + buffer.len()`; `base` is a multiple of 8, so frames lie aligned in memory.
    buffer: AlignedVec,
    base: u64,
    /// Where the next frame starts.
    offset: u64,
    /// The frame last returned, in file offsets.
    frame: (u64, usize),
    expected: Expected,
    /// Highest frame number and sequence seen + 1, damage or not: where a writer may go on.
    continues: (u64, u64),
    held: Footer,
    state: State,
    /// An accepted frame waits behind the damage just reported.
    accepted: Option<FrameHeader>,
    /// The payload of the frame last returned is as many records as its header says, and nothing else.
    records_hold: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The header is due.
    Header,
    Frames,
    Sealed(Footer),
    /// The tail is not a frame.
    Broken,
}

impl SegmentReader {
    pub fn open(file: &SegmentFile, expected: Expected) -> io::Result<Self> {
        let path = file.path.clone();
        let opened = segment::open(&path).map_err(|error| at(&path, error))?;
        let file_bytes = opened.metadata().map_err(|error| at(&path, error))?.len();
        Ok(Self {
            file: opened,
            path,
            shard: file.shard,
            number: file.number,
            file_bytes,
            header: None,
            buffer: AlignedVec::new(),
            base: 0,
            offset: 0,
            frame: (0, 0),
            expected,
            continues: (1, 1),
            held: Footer::default(),
            state: State::Header,
            accepted: None,
            records_hold: false,
        })
    }

    /// In the middle of a file, behind the frame that `expected` continues.
    pub fn open_at(file: &SegmentFile, offset: u64, expected: Expected) -> io::Result<Self> {
        let mut reader = Self::open(file, expected)?;
        if offset >= SEGMENT_HEADER_BYTES as u64 && offset.is_multiple_of(8) {
            (reader.state, reader.offset) = (State::Frames, offset);
            reader.continues = (expected.frame.unwrap_or(1), expected.record.unwrap_or(1));
        }
        Ok(reader)
    }

    /// Brings what was written to the file so far to stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| at(&self.path, error))
    }

    pub fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file when it was last looked at.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the next frame starts or would start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// The next frame number and record sequence nobody has used.
    pub fn continues(&self) -> (u64, u64) {
        self.continues
    }

    /// Neither a header nor a frame was found in it: prepared, or emptied.
    pub fn is_blank(&self) -> bool {
        self.state == State::Header
    }

    /// What it holds so far.
    pub fn held(&self) -> Footer {
        self.held
    }

    /// Where the frame last returned begins.
    pub fn frame_offset(&self) -> u64 {
        self.frame.0
    }

    /// The payload of the frame last returned.
    pub fn payload(&self) -> &[u8] {
        let start = (self.frame.0 - self.base) as usize;
        &self.buffer[start + FRAME_HEADER_BYTES..start + self.frame.1]
    }

    /// The next news. After `End`, `Sealed` or a broken tail it may be asked again: a live file grows.
    pub fn step(&mut self) -> io::Result<Step> {
        if let Some(header) = self.accepted.take() {
            return self.deliver(header);
        }
        match self.state {
            State::Header => self.step_header(),
            State::Frames | State::Broken => self.step_frame(),
            State::Sealed(footer) => Ok(Step::Sealed(footer)),
        }
    }

    fn step_header(&mut self) -> io::Result<Step> {
        if !self.buffered(0, SEGMENT_HEADER_BYTES)? {
            self.state = State::Frames;
            (self.offset, self.expected) = (self.file_bytes, Expected::default());
            return Ok(self.damage(0, None, DamageKind::Header(Broken::Length)));
        }
        let raw: [u8; SEGMENT_HEADER_BYTES] = self.buffer[..SEGMENT_HEADER_BYTES].try_into().expect("buffered");
        if is_zero(&raw) {
            self.buffer.clear();
            return Ok(Step::End);
        }
        self.state = State::Frames;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        let before = self.expected;
        let header = match SegmentHeader::decode(&raw) {
            Ok(header) => header,
            Err(broken) => {
                self.expected = Expected::default();
                return Ok(self.damage(0, None, DamageKind::Header(broken)));
            }
        };
        self.header = Some(header);
        self.expected =
            Expected { previous: Some(hash(&raw)), frame: Some(header.first_frame), record: Some(header.first_record) };
        self.continues = (header.first_frame.max(1), header.first_record.max(1));
        let kind = if (header.shard, header.number) != (self.shard, self.number) {
            DamageKind::Foreign { shard: header.shard, segment: header.number }
        } else if before.previous.is_some_and(|previous| previous != header.previous)
            || before.frame.is_some_and(|frame| frame != header.first_frame)
        {
            DamageKind::Chain
        } else if let Some(expected) = before.record.filter(|&record| record != header.first_record) {
            DamageKind::Records { expected, found: header.first_record }
        } else if header.segment_bytes != self.file_bytes {
            DamageKind::Size { expected: header.segment_bytes, found: self.file_bytes }
        } else {
            return self.step_frame();
        };
        Ok(self.damage(0, None, kind))
    }

    fn step_frame(&mut self) -> io::Result<Step> {
        let header = match self.look(self.offset)? {
            Look::Nothing => return Ok(Step::End),
            Look::Frame(header) => header,
            Look::Broken(broken) => return self.resync(broken),
        };
        self.state = State::Frames;
        let kind = self.disagreement(&header);
        self.accept(&header);
        match kind {
            None => self.deliver(header),
            Some(kind) => {
                let damage = self.damage(self.frame.0, Some(header.frame), kind);
                self.accepted = Some(header);
                Ok(damage)
            }
        }
    }

    /// Is there a whole frame at `offset`? What was read ahead of a live writer is stale, in part or in whole: before
    /// anything else is said, the file itself is looked at again.
    fn look(&mut self, offset: u64) -> io::Result<Look> {
        match self.look_once(offset)? {
            Look::Frame(header) => Ok(Look::Frame(header)),
            Look::Nothing | Look::Broken(_) => {
                self.buffer.clear();
                self.look_once(offset)
            }
        }
    }

    fn look_once(&mut self, offset: u64) -> io::Result<Look> {
        if !self.buffered(offset, FRAME_HEADER_BYTES)? {
            let rest = self.file_bytes.saturating_sub(offset) as usize;
            if rest == 0 || (self.buffered(offset, rest)? && is_zero(self.slice(offset, rest))) {
                return Ok(Look::Nothing);
            }
            return Ok(Look::Broken(Broken::Length));
        }
        let raw: [u8; FRAME_HEADER_BYTES] = self.slice(offset, FRAME_HEADER_BYTES).try_into().expect("buffered");
        if is_zero(&raw) {
            return Ok(Look::Nothing);
        }
        let header = match FrameHeader::decode(&raw) {
            Ok(header) => header,
            Err(broken) => return Ok(Look::Broken(broken)),
        };
        if !self.buffered(offset, header.element_bytes())? {
            return Ok(Look::Broken(Broken::Length));
        }
        if !header.intact(self.slice(offset, header.element_bytes())) {
            return Ok(Look::Broken(Broken::Checksum));
        }
        if raw[56..64] != [0; 8] {
            return Ok(Look::Broken(Broken::Field));
        }
        Ok(Look::Frame(header))
    }

    /// What an intact frame says that does not fit what precedes it.
    fn disagreement(&self, header: &FrameHeader) -> Option<DamageKind> {
        let foreign = (header.shard, header.segment) != (self.shard, self.number);
        let expected = self.expected;
        if foreign {
            Some(DamageKind::Foreign { shard: header.shard, segment: header.segment })
        } else if let Some(from) = expected.frame.filter(|&frame| frame < header.frame) {
            Some(DamageKind::MissingFrames { from })
        } else if let Some(expected) = expected.frame.filter(|&frame| frame > header.frame) {
            Some(DamageKind::RepeatedFrame { expected })
        } else if expected.previous.is_some_and(|previous| previous != header.previous) {
            Some(DamageKind::Chain)
        } else {
            let due = expected.record.filter(|&record| record != header.first_record)?;
            Some(DamageKind::Records { expected: due, found: header.first_record })
        }
    }

    fn accept(&mut self, header: &FrameHeader) {
        let bytes = header.element_bytes();
        self.frame = (self.offset, bytes);
        let next_record = header.first_record.saturating_add(u64::from(header.records));
        self.expected = Expected {
            previous: Some(hash(self.slice(self.offset, bytes))),
            frame: Some(header.frame.saturating_add(1)),
            record: Some(next_record),
        };
        self.continues.0 = self.continues.0.max(header.frame.saturating_add(1));
        self.continues.1 = self.continues.1.max(next_record);
        self.offset += bytes as u64;
    }

    fn deliver(&mut self, header: FrameHeader) -> io::Result<Step> {
        if header.kind == FrameKind::Records {
            let (first_us, last_us) = self.read_records(&header);
            if header.records > 0 {
                self.held.add(&header, first_us, last_us);
            }
            return Ok(Step::Frame(header));
        }
        match Footer::decode(self.payload()) {
            Ok(footer) if header.records == 0 => {
                self.state = State::Sealed(footer);
                Ok(Step::Sealed(footer))
            }
            _ => Ok(self.damage(self.frame.0, Some(header.frame), DamageKind::Footer)),
        }
    }

    /// Time of the earliest and the latest record of the frame just accepted.
    fn read_records(&mut self, header: &FrameHeader) -> (i64, i64) {
        let mut walk = Walk::new(self.payload());
        let (mut range, mut records, mut hold) = ((header.time_us, header.time_us), 0, true);
        while let Some(time_us) = walk.check() {
            let Ok(time_us) = time_us else {
                hold = false;
                break;
            };
            range = (range.0.min(time_us), range.1.max(time_us));
            records += 1;
        }
        self.records_hold = hold && records == header.records;
        range
    }

    /// Every record of the frame last returned can be read.
    pub fn records_hold(&self) -> bool {
        self.records_hold
    }

    /// The frame at `offset` does not hold: finds the next that does.
    fn resync(&mut self, broken: Broken) -> io::Result<Step> {
        let (at, frame) = (self.offset, self.expected.frame);
        let Some((offset, next)) = self.next_good(at)? else {
            if self.state == State::Broken {
                return Ok(Step::End);
            }
            self.state = State::Broken;
            return Ok(self.damage(at, frame, DamageKind::Tail(broken)));
        };
        self.offset = offset;
        self.expected = Expected::default();
        Ok(self.damage(at, frame, DamageKind::Frame { broken, resumed: Some((offset, next.frame)) }))
    }

    /// The next whole frame of this segment behind `at`, newer than all seen.
    fn next_good(&mut self, at: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut budget = self.file_bytes.saturating_mul(RESYNC_BUDGET);
        // Where the damaged header says the next one is: right unless the length itself is damaged. Tried first, so
        // that bytes inside a statement that look like a frame are not taken for one.
        if self.buffered(at, FRAME_HEADER_BYTES)? {
            let length = super::frame::u32_at(self.slice(at, FRAME_HEADER_BYTES), 8) as usize;
            let behind = at + (FRAME_HEADER_BYTES + length).next_multiple_of(8) as u64;
            if let Some(header) = self.candidate(behind, &mut budget)? {
                return Ok(Some((behind, header)));
            }
        }
        let mut offset = at + 8;
        while offset + FRAME_HEADER_BYTES as u64 <= self.file_bytes && budget > 0 {
            if let Some(header) = self.candidate(offset, &mut budget)? {
                return Ok(Some((offset, header)));
            }
            offset += 8;
            if offset.is_multiple_of(READ_BYTES as u64) {
                let Some(data) = self.behind_hole(offset)? else { break };
                offset = data;
            }
        }
        Ok(None)
    }

    fn candidate(&mut self, offset: u64, budget: &mut u64) -> io::Result<Option<FrameHeader>> {
        if !self.buffered(offset, FRAME_HEADER_BYTES)? || self.slice(offset, 4) != FRAME_MAGIC {
            return Ok(None);
        }
        let raw = self.slice(offset, FRAME_HEADER_BYTES).try_into().expect("buffered");
        let Ok(header) = FrameHeader::decode(raw) else { return Ok(None) };
        let ours = (header.shard, header.segment) == (self.shard, self.number) && header.frame >= self.continues.0;
        if !ours || !self.buffered(offset, header.element_bytes())? {
            return Ok(None);
        }
        *budget = budget.saturating_sub(header.element_bytes() as u64);
        Ok(header.intact(self.slice(offset, header.element_bytes())).then_some(header))
    }

    /// Checks that nothing but zeros stands behind the end; what does is damage, and reading goes on at the next good
    /// frame there. `None`: all zeros.
    pub fn check_rest(&mut self) -> io::Result<Option<Damage>> {
        let mut at = self.offset;
        while at < self.file_bytes {
            let Some(data) = self.behind_hole(at)? else { break };
            at = data;
            let bytes = (self.file_bytes - at).min(READ_BYTES as u64) as usize;
            self.buffer.clear();
            self.buffered(at, bytes)?;
            if let Some(index) = self.slice(at, bytes).iter().position(|&byte| byte != 0) {
                let found = at + index as u64;
                // A live writer may have appended meanwhile: then this is the next frame, not damage.
                let grown = matches!(self.state, State::Frames) && !matches!(self.look(self.offset)?, Look::Nothing);
                return if grown { Ok(None) } else { self.behind_the_end(found).map(Some) };
            }
            at += bytes as u64;
        }
        Ok(None)
    }

    fn behind_the_end(&mut self, found: u64) -> io::Result<Damage> {
        let frame = self.expected.frame;
        let kind = DamageKind::AfterEnd;
        let damage =
            Damage { file: self.path.clone(), shard: self.shard, segment: self.number, offset: found, frame, kind };
        let start = found / 8 * 8;
        let mut budget = self.file_bytes;
        let next = match self.candidate(start, &mut budget)? {
            Some(_) => Some(start),
            None => self.next_good(start)?.map(|(offset, _)| offset),
        };
        match next {
            Some(offset) => {
                (self.offset, self.expected, self.state) = (offset, Expected::default(), State::Frames);
            }
            None => self.offset = self.file_bytes,
        }
        Ok(damage)
    }

    /// The first multiple of 8 from `offset` on (which is one) where the file has more than a hole, that holds no frame and nothing
    /// but zeros. `None`: there is none.
    fn behind_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        let data = files::next_data(&self.file, offset).map_err(|error| at(&self.path, error))?;
        Ok(data.filter(|data| *data < self.file_bytes).map(|data| offset.max(data / 8 * 8)))
    }

    /// Makes file bytes `offset..offset + bytes` available. `false`: the file ends before.
    fn buffered(&mut self, offset: u64, bytes: usize) -> io::Result<bool> {
        let end = offset + bytes as u64;
        if offset >= self.base && end <= self.base + self.buffer.len() as u64 {
            return Ok(true);
        }
        if end > self.file_bytes {
            return Ok(false);
        }
        debug_assert!(offset.is_multiple_of(8));
        let want = (bytes.max(READ_BYTES) as u64).min(self.file_bytes - offset) as usize;
        self.buffer.resize(want, 0);
        self.base = offset;
        let read = self.file.read_exact_at(&mut self.buffer, offset);
        if let Err(error) = read {
            self.buffer.clear();
            if error.kind() == io::ErrorKind::UnexpectedEof {
                // Cut while we read: its new length is what the next look will judge.
                self.file_bytes = self.file.metadata()?.len();
                return Ok(false);
            }
            return Err(at(&self.path, error));
        }
        Ok(true)
    }

    fn slice(&self, offset: u64, bytes: usize) -> &[u8] {
        let start = (offset - self.base) as usize;
        &self.buffer[start..start + bytes]
    }

    fn damage(&self, offset: u64, frame: Option<u64>, kind: DamageKind) -> Step {
        Step::Damage(Damage { file: self.path.clone(), shard: self.shard, segment: self.number, offset, frame, kind })
    }
}

enum Look {
    Nothing,
    Frame(FrameHeader),
    Broken(Broken),
}
