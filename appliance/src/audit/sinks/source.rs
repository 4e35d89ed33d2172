//! Where a sink reads the trail: frames of all shards, oldest first. A seam: the courier sees no file.
//!
//! What the segments no longer have is read from the archive's Parquet files, before them: what had left when we began, and what
//! leaves while we are on the way to it.

use super::archived::Archived;
use super::position::{Place, Position};
use crate::audit::frame::FrameHeader;
use crate::audit::reader::{Damage, DamageKind};
use crate::audit::record::View;
use crate::audit::segment::{self, SegmentFile};
use crate::audit::trail::{Advance, ChainReader};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The news of one step.
pub enum Step {
    /// A frame was handed out.
    Frame,
    Damage(Damage),
    /// There is nothing new.
    End,
}

pub trait Source: Send {
    /// Hands out the records of the next frame: shard, sequence, record.
    fn step(&mut self, each: &mut dyn FnMut(u32, u64, &View<'_>)) -> io::Result<Step>;
}

/// How often shards that were not there before are looked for.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// How long a writer may take over the last frame before it counts as damaged.
const UNFINISHED_AFTER: Duration = Duration::from_secs(1);

/// Parquet files, segments that are kept and the rings, as one.
pub struct Trail {
    data_dir: PathBuf,
    /// Of one shard after the other: read to their end before any segment is.
    archived: Vec<Archived>,
    chains: BTreeMap<u32, Chain>,
    listed: Instant,
}

struct Chain {
    reader: ChainReader,
    /// Read, and not yet handed out.
    frame: Option<FrameHeader>,
    /// Sequence of the record behind it.
    next: u64,
    unfinished_since: Option<Instant>,
}

impl Trail {
    /// Behind the position: from the first record it still needs.
    pub fn open(data_dir: &Path, position: &Position) -> io::Result<Self> {
        let mut source = Self {
            data_dir: data_dir.to_owned(),
            archived: Vec::new(),
            chains: BTreeMap::new(),
            listed: Instant::now(),
        };
        source.list(position)?;
        Ok(source)
    }

    fn list(&mut self, position: &Position) -> io::Result<()> {
        for (shard, files) in segment::list(&self.data_dir)? {
            if self.chains.contains_key(&shard) {
                continue;
            }
            let place = position.shards.get(&shard).cloned().unwrap_or_default();
            let wanted = place.open.first().copied().unwrap_or(place.next).min(place.next);
            let (number, first) = segment_of(&files, wanted);
            if let Some(first) = first.filter(|first| wanted.max(1) < *first) {
                self.archived.extend(Archived::find(&self.data_dir, shard, wanted.max(1)..first)?);
            }
            let reader = ChainReader::from_segment(self.data_dir.clone(), shard, number);
            self.chains.insert(shard, Chain { reader, frame: None, next: wanted.max(1), unfinished_since: None });
        }
        self.listed = Instant::now();
        Ok(())
    }
}

impl Source for Trail {
    fn step(&mut self, each: &mut dyn FnMut(u32, u64, &View<'_>)) -> io::Result<Step> {
        if let Some(archived) = self.archived.last_mut() {
            if !archived.step(each)? {
                self.archived.pop();
            }
            return Ok(Step::Frame);
        }
        if self.listed.elapsed() > LIST_EVERY {
            self.list(&Position::default())?;
        }
        for chain in self.chains.values_mut() {
            let Some(damage) = chain.look()? else { continue };
            return match left(&self.data_dir, &damage, chain.next)? {
                Some(archived) => {
                    self.archived.push(archived);
                    Ok(Step::Frame)
                }
                None => Ok(Step::Damage(damage)),
            };
        }
        let oldest = self.chains.values_mut().filter(|chain| chain.frame.is_some());
        match oldest.min_by_key(|chain| chain.frame.map(|frame| (frame.time_us, frame.shard))) {
            Some(chain) => Ok(chain.hand_out(each).map_or(Step::Frame, Step::Damage)),
            None => Ok(Step::End),
        }
    }
}

impl Chain {
    /// Reads a frame, if none is waiting.
    fn look(&mut self) -> io::Result<Option<Damage>> {
        if self.frame.is_some() {
            return Ok(None);
        }
        match self.reader.advance()? {
            Advance::Frame(header) => {
                (self.frame, self.unfinished_since) = (Some(header), None);
                self.next = header.first_record.saturating_add(u64::from(header.records));
            }
            Advance::Damage(damage) => return Ok(Some(damage)),
            Advance::End if self.reader.is_unfinished() => {
                let since = *self.unfinished_since.get_or_insert_with(Instant::now);
                if since.elapsed() > UNFINISHED_AFTER {
                    return Ok(self.reader.take_unfinished());
                }
            }
            Advance::End => self.unfinished_since = None,
        }
        Ok(None)
    }

    fn hand_out(&mut self, each: &mut dyn FnMut(u32, u64, &View<'_>)) -> Option<Damage> {
        self.frame = None;
        let shard = self.reader.shard();
        for record in self.reader.records() {
            match record {
                Ok((sequence, view)) => each(shard, sequence, &view),
                Err(damage) => return Some(damage),
            }
        }
        None
    }
}

/// The segment that holds a record, or the oldest there is; and the sequence it begins with, where its header says.
fn segment_of(files: &BTreeMap<u64, SegmentFile>, sequence: u64) -> (u64, Option<u64>) {
    let mut found = (files.keys().next().copied().unwrap_or(1), None);
    for file in files.values().rev() {
        // Moved to the archive since it was listed, or cut short: an older one is right as well.
        let first = segment::header_of(file).map(|header| header.first_record);
        if first.is_some() {
            found = (file.number, first);
        }
        if first.is_some_and(|first| first <= sequence) {
            break;
        }
    }
    found
}

/// Where a segment is missing because nobody needs it any more: its records in the archive.
fn left(data_dir: &Path, damage: &Damage, next: u64) -> io::Result<Option<Archived>> {
    if damage.kind != DamageKind::MissingSegment {
        return Ok(None);
    }
    let files = segment::list(data_dir)?.remove(&damage.shard).unwrap_or_default();
    let first = files.range(damage.segment..).find_map(|(_, file)| segment::header_of(file));
    // Without a later one all there is: what a segment then says once more is not heard.
    let until = first.map_or(u64::MAX, |header| header.first_record);
    Archived::find(data_dir, damage.shard, next..until)
}

/// The end of the trail as it is now, for a sink that is to begin there.
pub fn end_of(data_dir: &Path) -> io::Result<BTreeMap<u32, Place>> {
    let mut places = BTreeMap::new();
    for (shard, files) in segment::list(data_dir)? {
        let (number, first) = segment_of(&files, u64::MAX);
        let mut reader = ChainReader::from_segment(data_dir.to_owned(), shard, number);
        // A segment that was just begun holds no frame yet.
        let mut next = first.unwrap_or(0);
        loop {
            match reader.advance()? {
                Advance::Frame(header) => next = header.first_record.saturating_add(u64::from(header.records)),
                Advance::Damage(_) => {}
                Advance::End => break,
            }
        }
        places.insert(shard, Place { next, ..Place::default() });
    }
    Ok(places)
}
