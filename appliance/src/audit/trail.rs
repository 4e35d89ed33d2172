//! The chain of one shard over all its files: archived segments, then the ring.

use super::archive::manifest::Position;
use super::frame::{Footer, FrameHeader, GENESIS, Hash, SegmentHeader};
use super::payload::Walk;
use super::reader::{Damage, DamageKind, Expected, SegmentReader, Step};
use super::record::{RecordBroken, View};
use super::segment::{self, Archived, SegmentFile};
use super::stage::{self, Found, Left, Place};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// The news of one advance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advance {
    /// Its records are in [`ChainReader::records`].
    Frame(FrameHeader),
    Damage(Damage),
    /// Everything there is has been read. A live trail may have more later.
    End,
}

/// Reads the segments of one shard one after another.
pub struct ChainReader {
    data_dir: PathBuf,
    shard: u32,
    /// The segment due next.
    number: u64,
    /// The files when last listed: a long archive is not listed again for every segment of it.
    files: BTreeMap<u64, SegmentFile>,
    current: Option<SegmentReader>,
    archived: Option<Archived>,
    expected: Expected,
    /// This segment has been found damaged: its footer need not agree.
    damaged: bool,
    /// A tail that was not whole when last looked at: (offset, looks).
    unfinished: Option<Damage>,
    missing_reported: bool,
    /// Also require that nothing stands behind the end of the records.
    thorough: bool,
    /// The current segment was entered in its middle, behind this byte: its footer counts more than is read here.
    entered: Option<u64>,
    /// Behind the last frame or footer that was read.
    position: Position,
    /// Hashes that frames of these numbers are known to have, and what did not.
    proven: HashMap<u64, Hash>,
    disproved: Option<Damage>,
    /// The last frame that had to have a certain hash, and has it.
    proved: u64,
    /// Segments below this number may be missing: what they held is archived.
    gaps_below: u64,
    /// A segment is on stable storage before it is left.
    durable: bool,
    frame: Option<FrameHeader>,
}

impl ChainReader {
    /// From the first segment on.
    pub fn whole(data_dir: PathBuf, shard: u32) -> Self {
        let expected = Expected { previous: Some(GENESIS), frame: Some(1), record: Some(1) };
        Self::at(data_dir, shard, 1, expected)
    }

    /// From a later segment on, believing what its header says about what precedes it.
    pub fn from_segment(data_dir: PathBuf, shard: u32, number: u64) -> Self {
        if number <= 1 { Self::whole(data_dir, shard) } else { Self::at(data_dir, shard, number, Expected::default()) }
    }

    /// Behind what is archived.
    pub fn after(data_dir: PathBuf, position: &Position) -> Self {
        let expected = Expected {
            previous: Some(position.hash),
            frame: Some(position.frame + 1),
            record: Some(position.record + 1),
        };
        let mut chain = Self::at(data_dir, position.shard, position.segment, expected);
        (chain.entered, chain.position) = ((position.frame > 0).then_some(position.offset), *position);
        chain
    }

    fn at(data_dir: PathBuf, shard: u32, number: u64, expected: Expected) -> Self {
        Self {
            position: Position::start(shard),
            proven: HashMap::new(),
            disproved: None,
            proved: 0,
            gaps_below: 0,
            durable: false,
            entered: None,
            data_dir,
            shard,
            number,
            files: BTreeMap::new(),
            current: None,
            archived: None,
            expected,
            damaged: false,
            unfinished: None,
            missing_reported: false,
            thorough: false,
            frame: None,
        }
    }

    /// Reads every byte of every file, also behind the end of the records.
    pub fn thorough(mut self) -> Self {
        self.thorough = true;
        self
    }

    /// Frames that the manifest or checkpoints name must have these hashes.
    pub fn proven(mut self, hashes: HashMap<u64, Hash>) -> Self {
        self.proven = hashes;
        self
    }

    /// The last of the frames that had to have a certain hash, and has it. 0: none.
    pub fn proved(&self) -> u64 {
        self.proved
    }

    /// The frame last returned is not the one that it has to be: asked for at once, or told by the next [`Self::advance`].
    pub fn take_disproved(&mut self) -> Option<Damage> {
        self.disproved.take()
    }

    /// What was read is on stable storage once its segment is left, and after [`Self::sync`].
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Segments below this number may be missing.
    pub fn with_gaps_below(mut self, number: u64) -> Self {
        self.gaps_below = number;
        self
    }

    /// The segment that is being read or due next.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Behind the last frame or footer that was read: everything before it has been handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The payload of the frame last returned.
    pub fn payload(&self) -> &[u8] {
        match (&self.current, &self.frame) {
            (Some(reader), Some(_)) => reader.payload(),
            _ => &[],
        }
    }

    /// Every record of the frame last returned can be read: that much was seen when it was.
    pub fn records_hold(&self) -> bool {
        self.current.as_ref().is_some_and(SegmentReader::records_hold)
    }

    /// The size of the segment that is being read.
    pub fn segment_bytes(&self) -> Option<u64> {
        self.current.as_ref().map(SegmentReader::file_bytes)
    }

    /// Brings the segment that is being read to stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), SegmentReader::sync)
    }

    /// The records of the frame last returned, with their sequences.
    pub fn records(&self) -> Records<'_> {
        let (payload, header) = match (&self.current, &self.frame) {
            (Some(reader), Some(header)) => (reader.payload(), Some(header)),
            _ => (&[][..], None),
        };
        Records {
            walk: Walk::new(payload),
            sequence: header.map_or(0, |header| header.first_record),
            index: 0,
            count: header.map_or(0, |header| header.records),
            reader: self,
        }
    }

    pub fn advance(&mut self) -> io::Result<Advance> {
        if let Some(damage) = self.disproved.take() {
            return Ok(Advance::Damage(damage));
        }
        self.frame = None;
        loop {
            let Some(reader) = &mut self.current else {
                match self.open_next()? {
                    Opened::Segment => continue,
                    Opened::News(news) => return Ok(news),
                }
            };
            match reader.step()? {
                Step::Frame(header) => return Ok(self.frame_read(header)),
                Step::Damage(damage) if matches!(damage.kind, DamageKind::Tail(_)) => {
                    // The writer may be at it this very moment; whoever reads decides how long to wait.
                    self.unfinished = Some(damage);
                    if let Some(news) = self.at_end()? {
                        return Ok(news);
                    }
                }
                Step::Damage(damage) => {
                    self.damaged = true;
                    return Ok(Advance::Damage(damage));
                }
                Step::Sealed(footer) => {
                    if let Some(damage) = self.leave_sealed(footer)? {
                        return Ok(Advance::Damage(damage));
                    }
                }
                Step::End => {
                    if let Some(news) = self.at_end()? {
                        return Ok(news);
                    }
                }
            }
        }
    }

    /// The last frame is not whole. Taken once a reader has waited long enough for a writer to finish it.
    pub fn take_unfinished(&mut self) -> Option<Damage> {
        self.unfinished.take().inspect(|_| self.damaged = true)
    }

    /// Is the last frame not whole (yet)?
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// The file has no more frames and no footer. `None`: go on reading.
    fn at_end(&mut self) -> io::Result<Option<Advance>> {
        let Some(reader) = &mut self.current else { return Ok(Some(Advance::End)) };
        let offset = reader.offset();
        let continued = successor_begun(&self.data_dir, self.shard, self.number, self.thorough)?;
        let archived = self.archived.is_some();
        // An unfinished frame is all there is behind the end, and is looked at again where it begins.
        if self.unfinished.is_none()
            && (self.thorough || continued || archived)
            && let Some(damage) = reader.check_rest()?
        {
            self.damaged = true;
            return Ok(Some(Advance::Damage(damage)));
        }
        if !continued && !archived {
            return Ok(Some(Advance::End));
        }
        // A writer puts the footer before it begins the successor: look once more now that the successor is there.
        match reader.step()? {
            Step::Frame(header) => return Ok(Some(self.frame_read(header))),
            Step::Sealed(footer) => {
                self.unfinished = None;
                return Ok(self.leave_sealed(footer)?.map(Advance::Damage));
            }
            Step::Damage(damage) if !matches!(damage.kind, DamageKind::Tail(_)) => {
                self.damaged = true;
                return Ok(Some(Advance::Damage(damage)));
            }
            Step::Damage(_) | Step::End => {}
        }
        if let (Some(entered), Some(reader)) = (self.entered, &self.current)
            && reader.offset() == entered
            && self.unfinished.is_none()
        {
            // What we entered behind was its footer; the next header proves it.
            let expected = reader.expected();
            self.leave(expected)?;
            return Ok(None);
        }
        let damage = self.unfinished.take().or_else(|| {
            // Where damage was already reported, the missing footer is part of it.
            (!self.damaged).then(|| self.damage(offset, DamageKind::Unsealed))
        });
        self.leave(Expected::default())?;
        Ok(damage.map(Advance::Damage))
    }

    fn frame_read(&mut self, header: FrameHeader) -> Advance {
        (self.unfinished, self.frame) = (None, Some(header));
        self.move_on();
        Advance::Frame(header)
    }

    /// The reader stands behind a frame or footer.
    fn move_on(&mut self) {
        let Some(reader) = &self.current else { return };
        let Expected { previous: Some(hash), frame: Some(frame), record: Some(record) } = reader.expected() else {
            return;
        };
        let (shard, segment, offset) = (self.shard, self.number, reader.offset());
        // A forged frame may say that it begins with record 0.
        let (frame, record) = (frame.saturating_sub(1), record.saturating_sub(1));
        self.position = Position { shard, segment, offset, frame, record, hash };
        match self.proven.get(&frame) {
            Some(proven) if *proven == hash => self.proved = self.proved.max(frame),
            Some(_) => {
                let (file, offset) = (reader.path().to_owned(), reader.frame_offset());
                let kind = DamageKind::Proven;
                self.disproved = Some(Damage { file, shard, segment, offset, frame: Some(frame), kind });
            }
            None => {}
        }
    }

    fn leave_sealed(&mut self, footer: Footer) -> io::Result<Option<Damage>> {
        self.move_on();
        let Some(reader) = &mut self.current else { return Ok(None) };
        let (expected, held, offset) = (reader.expected(), reader.held(), reader.frame_offset());
        let mut damage = if self.thorough { reader.check_rest()? } else { None };
        if damage.is_none() && !self.damaged && self.entered.is_none() && held != footer {
            let frame = expected.frame.map(|next| next.saturating_sub(1));
            damage = Some(Damage { frame, ..self.damage(offset, DamageKind::Footer) });
        }
        if damage.is_none() && !self.name_fits(&footer, expected.previous) {
            damage = Some(Damage { frame: None, ..self.damage(offset, DamageKind::Name) });
        }
        self.leave(expected)?;
        // Nothing may follow that would tell of it.
        Ok(damage.or_else(|| self.disproved.take()))
    }

    /// An archived file is called what its footer makes of it.
    fn name_fits(&self, footer: &Footer, hash: Option<Hash>) -> bool {
        let (Some(_), Some(reader), Some(hash)) = (&self.archived, &self.current, hash) else { return true };
        let name = segment::archived_name(self.shard, self.number, footer, &hash);
        reader.path().file_name().is_some_and(|found| found == name.as_str())
    }

    /// What is kept behind the end of the chain and not written yet, once [`Advance::End`] was told. `None`: nothing that continues it.
    pub fn kept(&self) -> io::Result<Option<Left>> {
        let expected = self.current.as_ref().map_or(self.expected, SegmentReader::expected);
        let continues = |left: &Left| {
            let Place { frame, first_record, previous } = left.place;
            expected == (Expected { previous: Some(previous), frame: Some(frame), record: Some(first_record) })
        };
        Ok(match stage::left_behind(&segment::ring_dir(&self.data_dir, self.shard), self.shard)? {
            Found::Records(left) if continues(&left) => Some(left),
            Found::Records(_) | Found::Broken | Found::Nothing => None,
        })
    }

    /// What lies behind the end of the chain, once [`Advance::End`] was told and no unfinished frame is waited for.
    /// `None`: the chain has grown meanwhile, go on.
    pub fn behind(&self) -> io::Result<Option<Vec<Damage>>> {
        let listing = segment::list_all_of(&self.data_dir, self.shard)?;
        let (chains, mut surplus) = (listing.chains, listing.surplus.get(&self.shard).cloned().unwrap_or_default());
        let (prepared, unread) = match &self.current {
            Some(reader) if !reader.is_blank() => (self.number + 1, true),
            _ => (self.number, false),
        };
        let files = chains.get(&self.shard);
        let mut damages = Vec::new();
        let listed = files.and_then(|files| files.get(&prepared));
        if let Some(file) = listed {
            if begun(file)? {
                return Ok(None);
            }
            if unread && let Some(offset) = segment::first_nonzero(&file.path)? {
                // Begun this very moment?
                if begun(file)? {
                    return Ok(None);
                }
                damages.push(self.damage_of(&file.path, prepared, offset, DamageKind::AfterEnd));
            }
        }
        // Made, or moved to the archive, since it was listed: then what stands behind it has its place.
        let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let in_ring = segment::ring_path(&segment::ring_dir(&self.data_dir, self.shard), prepared);
        if listed.map_or(is_file(&in_ring), |file| !is_file(&file.path)) {
            return Ok(None);
        }
        let strays = files.into_iter().flatten().filter(|&(&number, _)| number > prepared || number == 0);
        surplus.extend(strays.map(|(&number, file)| (number, file.path.clone())));
        surplus.sort();
        let surplus = surplus.iter().map(|(number, path)| self.damage_of(path, *number, 0, DamageKind::Surplus));
        Ok(Some(damages.into_iter().chain(surplus).collect()))
    }

    fn leave(&mut self, expected: Expected) -> io::Result<()> {
        if self.durable {
            self.sync()?;
        }
        self.current = None;
        self.expected = expected;
        self.number += 1;
        self.damaged = false;
        self.entered = None;
        self.missing_reported = false;
        Ok(())
    }

    fn open_next(&mut self) -> io::Result<Opened> {
        if !self.files.contains_key(&self.number) {
            self.files = segment::list_shard(&self.data_dir, self.shard)?;
        }
        let Some(file) = self.files.remove(&self.number) else {
            let Some(later) = self.files.range(self.number..).next().map(|(&number, _)| number) else {
                // The one after a sealed segment must be there: it is prepared before the footer is written. So must the one
                // that is archived in part.
                if (self.number > 1 || self.gaps_below > 0 || self.entered.is_some()) && !self.missing_reported {
                    self.missing_reported = true;
                    return Ok(Opened::News(Advance::Damage(self.damage_missing())));
                }
                return Ok(Opened::News(Advance::End));
            };
            if self.entered.take().is_some() && later == self.number + 1 {
                // All of it is archived, and it has left the ring: the next one continues it.
                self.number = later;
                return Ok(Opened::Segment);
            }
            let damage = self.damage_missing();
            let may_be_gone = later <= self.gaps_below;
            (self.number, self.expected) = (later, Expected::default());
            return Ok(if may_be_gone { Opened::Segment } else { Opened::News(Advance::Damage(damage)) });
        };
        let opened = match self.entered {
            Some(offset) => SegmentReader::open_at(&file, offset, self.expected),
            None => SegmentReader::open(&file, self.expected),
        };
        match opened {
            Ok(reader) => {
                (self.current, self.archived) = (Some(reader), file.archived);
                Ok(Opened::Segment)
            }
            // Moved to the archive since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Opened::Segment),
            Err(error) => Err(error),
        }
    }

    fn damage(&self, offset: u64, kind: DamageKind) -> Damage {
        let file = self.current.as_ref().map(|reader| reader.path().to_owned()).unwrap_or_default();
        let frame = self.current.as_ref().and_then(|reader| reader.expected().frame);
        Damage { file, shard: self.shard, segment: self.number, offset, frame, kind }
    }

    fn damage_missing(&self) -> Damage {
        let file = segment::ring_path(&segment::ring_dir(&self.data_dir, self.shard), self.number);
        let damage = self.damage_of(&file, self.number, 0, DamageKind::MissingSegment);
        Damage { frame: self.expected.frame, ..damage }
    }

    /// Damage that is not about a frame.
    fn damage_of(&self, file: &Path, segment: u64, offset: u64, kind: DamageKind) -> Damage {
        Damage { file: file.to_owned(), shard: self.shard, segment, offset, frame: None, kind }
    }
}

enum Opened {
    Segment,
    News(Advance),
}

/// Has a segment after `number` been begun? One that is merely prepared has none behind it: then only `thorough` looks further. (One whose
/// header a power cut has damaged or taken has: a writer went on behind it.)
fn successor_begun(data_dir: &Path, shard: u32, number: u64, thorough: bool) -> io::Result<bool> {
    let ring = segment::ring_dir(data_dir, shard);
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
    let path = segment::ring_path(&ring, number + 1);
    if is_file(&path) {
        let begun = begun(&SegmentFile { shard, number: number + 1, path, archived: None })?;
        if begun || !(thorough || is_file(&segment::ring_path(&ring, number + 2))) {
            return Ok(begun);
        }
    }
    let files = segment::list_shard(data_dir, shard)?;
    for file in files.range(number + 1..).map(|(_, file)| file) {
        if begun(file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Does it have a header that holds and is its own? A copy under another number begins nothing.
fn begun(file: &SegmentFile) -> io::Result<bool> {
    let raw = match segment::open(&file.path).and_then(|opened| segment::read_header(&opened)) {
        Ok(raw) => raw,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            return Ok(false);
        }
        Err(error) => return Err(segment::at(&file.path, error)),
    };
    Ok(SegmentHeader::decode(&raw).is_ok_and(|header| (header.shard, header.number) == (file.shard, file.number)))
}

/// The records of one frame.
pub struct Records<'a> {
    walk: Walk<'a>,
    sequence: u64,
    index: u32,
    count: u32,
    reader: &'a ChainReader,
}

impl Records<'_> {
    /// Where in the payload the record that was handed out last begins.
    pub fn began(&self) -> usize {
        self.walk.began()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u64, View<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count && self.walk.is_over() {
            return None;
        }
        let (index, sequence) = (self.index, self.sequence);
        // Too few, too many, or not records at all: nothing in this frame can be told apart from here on.
        let view = match self.walk.next() {
            Some(Ok(view)) if index < self.count => Ok((sequence, view)),
            Some(Err(broken)) => Err(broken),
            Some(Ok(_)) | None => Err(RecordBroken::Prefix),
        };
        self.index += 1;
        self.sequence = self.sequence.saturating_add(1);
        Some(view.map_err(|broken| {
            (self.walk, self.index) = (Walk::new(&[]), self.count);
            let offset = self.reader.current.as_ref().map_or(0, SegmentReader::frame_offset);
            let frame = self.reader.frame.map(|header| header.frame);
            Damage { frame, ..self.reader.damage(offset, DamageKind::Record { index, broken }) }
        }))
    }
}
