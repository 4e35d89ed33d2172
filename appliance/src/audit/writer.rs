//! A shard's end of the trail: records gather in a batch, one write appends them as one frame.
//!
//! The shard's round: gates [`append`](Journal::append), the shard calls [`SegmentWriter::write`] or [`SegmentWriter::keep`] before it
//! submits what those records speak of, and syncs [`SegmentWriter::sync_fd`] as its durability mode demands. What is kept lies on the
//! [`stage`](super::stage) until it is written. Who syncs what:
//!
//! - the current segment: the shard, through `sync_fd`;
//! - a segment that is full: `append` itself, once, when it moves on to the next (one `fdatasync` per segment), so
//!   that a sync of the current descriptor always makes every record so far durable. The full segment's descriptor
//!   stays open until the one after it is full as well: a sync of it may still be queued.
//!
//! The next segment is made by the [`Sealer`](super::seal::Sealer) ahead of time and found here by its name alone: no
//! lock and no message between the two. Without one there is no room, and `append` says [`Full`].
//!
//! A segment that is taken away under us ends all writing. What only we know by then, how far the chain had got, goes into the next
//! segment ([`SegmentWriter::testify`]): its header continues what was lost, so that whoever reads the trail misses it.

use super::disk::{self, Disk, RealDisk, make_dirs};
use super::encode::{Encoder, Room};
use super::frame::{
    FOOTER_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, Footer, FrameHeader, FrameKind, GENESIS, Hash,
    NUMBER_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, hash, is_zero,
};
use super::recover::{self, Recovered};
use super::segment::{self, SEGMENT_BYTES_MIN, SEGMENTS_PER_SHARD_MIN, at};
use super::stage::{self, Found, Left, Map, Place, Stage};
use super::{Entry, Full, Journal, NOBODY, Who};
use crate::files;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};

/// A batch beyond this is written as a frame of its own, early: bounds a shard's memory and a reader's.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Room that counts as room when nobody was refused yet.
const ROOM_BYTES: usize = 4 << 10;
/// What became of a segment that its name stands for no more.
const TAKEN_AWAY: &str = "removed or replaced";

const _: () = assert!(BATCH_BYTES_MAX + (4 << 20) < FRAME_PAYLOAD_BYTES_MAX);

/// Where and how large the ring of one shard is.
#[derive(Clone, Debug)]
pub struct RingOptions {
    pub data_dir: PathBuf,
    pub shard: u32,
    pub segment_bytes: u64,
    /// Segments that may lie in the ring: written, sealed and not yet archived, prepared.
    pub segments_per_shard: u32,
}

impl RingOptions {
    pub fn ring(&self) -> PathBuf {
        segment::ring_dir(&self.data_dir, self.shard)
    }
}

/// Writes the records of one shard. One owner, one thread.
pub struct SegmentWriter<D = RealDisk> {
    disk: D,
    ring: PathBuf,
    shard: u32,
    boot: [u8; 16],
    encoder: Encoder,
    /// Room for a frame header, then the records of the frame to be.
    batch: Vec<u8>,
    /// The most it held since the last [`Self::look`].
    batch_bytes_max: usize,
    records: u32,
    /// Something was appended since the last [`Self::write`] or [`Self::keep`], be it written already.
    dirty: bool,
    /// Unix microseconds of the earliest and the latest record of the batch.
    times: (i64, i64),
    /// `None`: what is to be kept is written.
    stage: Option<Stage>,
    /// What of the batch was confirmed: its bytes and its records.
    kept: (usize, u32),
    /// The latest time that anybody told us.
    now_us: i64,
    current: Option<Current>,
    next_number: u64,
    next_frame: u64,
    next_record: u64,
    /// Hash of the last element written: header, frame or footer.
    previous: Hash,
    /// The next segment follows one that was left damaged.
    after_damage: bool,
    retired: Option<File>,
    /// The most anybody was refused since there last was room.
    refused_bytes: usize,
    /// What keeps the next segment from being begun.
    trouble: Option<String>,
    /// Set by the first error: nothing is accepted any more.
    failed: Option<String>,
    /// Held for as long as we write: a second gateway on the same directory is refused.
    lock: File,
}

/// The segment being written.
pub(super) struct Current {
    pub file: File,
    pub bytes: u64,
    /// Where the next frame goes.
    pub offset: u64,
    pub held: Footer,
}

impl SegmentWriter {
    /// Finds the end of this shard's chain and goes on there. `now_us`: Unix microseconds. What had to be mended is
    /// recorded, and returned for the log.
    pub fn open(options: &RingOptions, now_us: i64) -> io::Result<(Self, Vec<String>)> {
        Self::open_on(RealDisk, options, now_us)
    }
}

impl<D: Disk> SegmentWriter<D> {
    /// [`SegmentWriter::open`] on another disk.
    pub fn open_on(disk: D, options: &RingOptions, now_us: i64) -> io::Result<(Self, Vec<String>)> {
        if options.segment_bytes < SEGMENT_BYTES_MIN || options.segments_per_shard < SEGMENTS_PER_SHARD_MIN {
            let text =
                format!("segments of at least {SEGMENT_BYTES_MIN} bytes, at least {SEGMENTS_PER_SHARD_MIN} of them");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let ring = options.ring();
        make_dirs(&disk, &ring)?;
        make_dirs(&disk, &segment::archive_dir(&options.data_dir))?;
        let lock = lock(&lock_path(&ring))?;
        let left = stage::left_behind(&ring, options.shard);
        let Recovered { current, next_number, next_frame, next_record, previous, after_damage, mut notes, .. } =
            recover::recover(&disk, &options.data_dir, options.shard)?;
        if next_number.max(next_frame).max(next_record) > NUMBER_MAX / 2 {
            let text = format!(
                "{}: it would go on with segment {next_number}, frame {next_frame}, record {next_record}, and no gateway wrote that many: \
                 `lockgate audit verify` names the place. Keep this data_dir as it is and begin another",
                ring.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut writer = Self {
            disk,
            ring,
            shard: options.shard,
            boot: boot_id(),
            encoder: Encoder::new(Room::of_segment(options.segment_bytes as usize)),
            batch: vec![0; FRAME_HEADER_BYTES],
            batch_bytes_max: 0,
            records: 0,
            dirty: false,
            times: (i64::MAX, i64::MIN),
            stage: None,
            kept: (FRAME_HEADER_BYTES, 0),
            now_us,
            current,
            next_number,
            next_frame,
            next_record,
            previous,
            after_damage,
            retired: None,
            refused_bytes: 0,
            trouble: None,
            failed: None,
            lock,
        };
        writer.start_segment(options, now_us)?;
        notes.extend(writer.take_up(left)?);
        stage::remove(&writer.disk, &writer.ring)?;
        for note in &notes {
            // A full ring at start: the note is in the log, and the damage itself stays where `verify` finds it.
            let _ = writer.append(now_us, &NOBODY, &Entry::Gateway { detail: note });
        }
        Ok((writer, notes))
    }

    /// At start there may be no segment yet, and nobody who has prepared one.
    fn start_segment(&mut self, options: &RingOptions, now_us: i64) -> io::Result<()> {
        if let Some(current) = &self.current {
            self.encoder = Encoder::new(Room::of_segment(current.bytes as usize));
            return Ok(());
        }
        let files = segment::list_ring(&self.ring, self.shard)?;
        // Behind damage there has to be one, even one too many: until something follows it that holds, nobody can tell that it has
        // ended, and nothing would ever leave the ring.
        let room = files.len() < options.segments_per_shard as usize || self.after_damage;
        if !files.contains_key(&self.next_number) && room {
            segment::prepare(&self.disk, &self.ring, self.next_number, options.segment_bytes)?;
        }
        self.next_segment(now_us).map(|_| ())
    }

    /// Writes the frame that a stop left on the stage. What does not continue the chain, or is no stage, is put away. Returns what was done.
    fn take_up(&mut self, found: io::Result<Found>) -> io::Result<Option<String>> {
        let Left { place, batch, records, times } = match found {
            Ok(Found::Nothing) => return Ok(None),
            Ok(Found::Records(left)) => left,
            Ok(Found::Broken) | Err(_) => {
                let why = found.err().map_or("it does not hold".to_owned(), |error| error.to_string());
                let aside = stage::set_aside(&self.disk, &self.ring, self.next_frame)?;
                return Ok(Some(format!(
                    "what was kept of the last commit interval before the stop cannot be read ({why}): behind a power cut that is as it has to \
                     be, otherwise records are missing here that were confirmed; it is in {}",
                    aside.display()
                )));
            }
        };
        // Its frame was written before the stop. (A footer that took its number holds no records.)
        if place.frame < self.next_frame && place.first_record < self.next_record {
            return Ok(None);
        }
        let room = |current: &Current| current.offset + (batch.len() + FOOTER_BYTES) as u64 <= current.bytes;
        if place != self.place() || !self.current.as_ref().is_some_and(room) {
            let aside = stage::set_aside(&self.disk, &self.ring, place.frame)?;
            return Ok(Some(format!(
                "{records} records that were kept for frame {} do not continue this trail, which goes on with frame {}: they are in {}",
                place.frame,
                self.next_frame,
                aside.display()
            )));
        }
        (self.batch, self.records, self.times) = (batch.to_vec(), records, times);
        self.write_batch()?;
        let current = self.current.as_ref().expect("it has room");
        self.disk.sync_data(&current.file)?;
        Ok(Some(format!(
            "{records} records of the last commit interval before the stop were kept, and are written now"
        )))
    }

    /// From now on [`Self::keep`] needs no write, where the file system allows that. `Ok(false)`: it does not.
    pub fn use_stage(&mut self, map: Map) -> io::Result<bool> {
        self.stage = Stage::make(&self.disk, map, &self.ring, self.shard)?;
        Ok(self.stage.is_some())
    }

    fn place(&self) -> Place {
        Place { frame: self.next_frame, first_record: self.next_record, previous: self.previous }
    }

    /// Something was appended since the last [`Self::write`] or [`Self::keep`].
    pub fn dirty(&self) -> bool {
        self.dirty
    }

    /// What was appended outlives this process from now on: it is on the stage, or written.
    pub fn keep(&mut self) -> io::Result<()> {
        let place = self.place();
        let Some(stage) = self.stage.as_mut().filter(|stage| stage.fits(self.batch.len())) else { return self.write() };
        if let Some(failed) = &self.failed {
            return Err(io::Error::other(failed.clone()));
        }
        self.dirty = false;
        if self.records > 0 {
            stage.keep(&place, &self.batch[FRAME_HEADER_BYTES..]);
            self.kept = (self.batch.len(), self.records);
        }
        Ok(())
    }

    /// Appends the batch to the segment as one frame, with one write. After an error, which may have left part of it
    /// in the file, nothing is accepted any more.
    pub fn write(&mut self) -> io::Result<()> {
        if let Some(failed) = &self.failed {
            return Err(io::Error::other(failed.clone()));
        }
        self.dirty = false;
        if self.records == 0 {
            return Ok(());
        }
        self.write_batch().inspect_err(|error| self.fail(error))
    }

    /// Are records still written where readers look for them? A segment that is removed, replaced or cut under us takes every write,
    /// and no reader ever finds what is in it. After an error nothing is accepted any more. A few system calls: once a second, not once
    /// a round.
    pub fn look(&mut self) {
        self.shrink();
        if self.failed.is_none()
            && let Err(error) = self.in_place().and_then(|()| self.look_at_stage())
        {
            self.fail(&error);
        }
    }

    /// Nothing will be appended any more: everything is written and on stable storage, and no stage is left for a start to wonder at.
    pub fn close(&mut self) -> io::Result<()> {
        self.write()?;
        if let Some(current) = &self.current {
            self.disk.sync_data(&current.file)?;
        }
        match self.stage.take() {
            Some(_) => stage::remove(&self.disk, &self.ring),
            None => Ok(()),
        }
    }

    /// A burst is over: room for what the last second needed is enough.
    fn shrink(&mut self) {
        let needed = std::mem::take(&mut self.batch_bytes_max).max(self.batch.len());
        if self.batch.capacity() / 2 > needed.max(ROOM_BYTES) {
            self.batch.shrink_to(needed.max(ROOM_BYTES));
            self.encoder.shrink();
        }
    }

    /// What is kept where no start finds it is not kept: it is written, and so is everything from then on.
    fn look_at_stage(&mut self) -> io::Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        if stage.is_in_place()? {
            return Ok(());
        }
        tracing::error!(
            "{} was removed or replaced while records were kept there: each round's records are written from now on. Find out who did it; \
             the next start makes another",
            stage.path().display()
        );
        self.stage = None;
        if self.records > 0 { self.write_batch() } else { Ok(()) }
    }

    /// What to `fdatasync` to make every written record durable. `None`: there is no segment.
    pub fn sync_fd(&self) -> Option<RawFd> {
        self.current.as_ref().map(|current| current.file.as_raw_fd())
    }

    /// Would those who were told [`Full`] find room now? Cheap unless the ring is full.
    pub fn has_room(&self) -> bool {
        self.failed.is_none() && (self.fits(self.refused_bytes.max(ROOM_BYTES)) || self.next_is_prepared())
    }

    /// The first error, if there was one: the shard cannot go on.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Sequence of the next record.
    pub fn next_record(&self) -> u64 {
        self.next_record + u64::from(self.records)
    }

    /// Bytes of the ring that hold records not archived yet. Lists a directory: once a second, not once a round.
    pub fn ring_used_bytes(&self) -> io::Result<u64> {
        let files = segment::list_ring(&self.ring, self.shard)?;
        let mut used = self.current.as_ref().map_or(0, |current| current.offset);
        let in_use = self.next_number - u64::from(self.current.is_some());
        for file in files.range(..in_use).map(|(_, file)| file) {
            // Archived since it was listed: it no longer counts.
            used += file.path.metadata().map_or(0, |metadata| metadata.len());
        }
        Ok(used)
    }

    fn fits(&self, bytes: usize) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.offset + (self.batch.len() + bytes + FOOTER_BYTES) as u64 <= current.bytes)
    }

    /// Room for a record of that size, in this segment or the next. `Ok(false)`: the ring is full.
    fn make_room(&mut self, bytes: usize, now_us: i64) -> io::Result<bool> {
        if self.batch.len() + bytes > BATCH_BYTES_MAX && self.records > 0 {
            self.write_batch()?;
        }
        if self.fits(bytes) {
            return Ok(true);
        }
        Ok(self.next_segment(now_us)? && self.fits(bytes))
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let header = self.frame_header(FrameKind::Records);
        header.seal(&mut self.batch);
        let current = self.current.as_mut().expect("records are accepted only with a segment to put them in");
        self.disk
            .write_all_at(&current.file, &self.batch, current.offset)
            .map_err(|error| at(&segment::ring_path(&self.ring, self.next_number - 1), error))?;
        current.offset += self.batch.len() as u64;
        current.held.add(&header, self.times.0, self.times.1);
        self.previous = hash(&self.batch);
        self.next_frame += 1;
        self.next_record += u64::from(self.records);
        self.batch_bytes_max = self.batch_bytes_max.max(self.batch.len());
        self.batch.truncate(FRAME_HEADER_BYTES);
        self.encoder.begin_payload();
        self.records = 0;
        self.times = (i64::MAX, i64::MIN);
        self.kept = (FRAME_HEADER_BYTES, 0);
        Ok(())
    }

    /// The segment in use is what its name stands for, whole, and begins as we began it; and nobody else may write to it.
    fn in_place(&mut self) -> io::Result<()> {
        let Some(harm) = self.harm()? else { return self.alone() };
        let path = segment::ring_path(&self.ring, self.next_number - 1);
        let told = self
            .testify(harm)
            .unwrap_or_else(|error| format!("how far the trail had got could not be written down ({error})"));
        let text = format!(
            "this segment was {harm} while records were written to it, and what was recorded since then may be lost. Find out who did it, \
             put the file back if it was moved away, and start the gateway again: {told}"
        );
        Err(at(&path, io::Error::new(io::ErrorKind::InvalidData, text)))
    }

    /// What became of the segment in use. `None`: all is well.
    fn harm(&self) -> io::Result<Option<&'static str>> {
        let Some(current) = &self.current else { return Ok(None) };
        let number = self.next_number - 1;
        let path = segment::ring_path(&self.ring, number);
        let begins = |header: SegmentHeader| (header.shard, header.number) == (self.shard, number);
        Ok(if !files::is_called(&current.file, &path).map_err(|error| at(&path, error))? {
            Some(TAKEN_AWAY)
        } else if current.file.metadata()?.len() != current.bytes {
            Some("cut short or made longer")
        } else if !SegmentHeader::decode(&segment::read_header(&current.file)?).is_ok_and(begins) {
            Some("overwritten")
        } else {
            None
        })
    }

    /// A lock that was removed keeps nobody out.
    fn alone(&self) -> io::Result<()> {
        let path = lock_path(&self.ring);
        let gone = "this lock was removed or replaced while records were written here: another gateway may be writing to the same segments. \
                    Find out who did it, see to it that only one gateway is started, and look what it did with `lockgate audit verify`";
        files::must_be_called(&self.lock, &path, gone).map_err(|error| at(&path, error))
    }

    /// Leaves in the next segment how far the chain had got: its header continues what is lost, which nothing else would show where the
    /// file was put back from an older copy. Returns where it stands.
    fn testify(&mut self, harm: &str) -> io::Result<String> {
        let Some(mut taken) = self.current.take() else { return Ok(String::new()) };
        let (number, frames, records) = (self.next_number - 1, self.next_frame - 1, self.next_record - 1);
        // Records of a batch that were not kept were confirmed to nobody.
        self.batch.truncate(self.kept.0);
        self.encoder.begin_payload();
        self.records = self.kept.1;
        let detail = format!(
            "segment {number} was {harm} while records were written to it: records up to {records} (frames up to {frames}) had been \
             written, and what is missing before this one is lost"
        );
        // Where there is none, what is kept continues what was taken away, and is written by a start that finds both again.
        let (file, bytes) = self.prepare_next(taken.bytes)?;
        // Whoever has it still, be it under another name or the archiver that reads it, has all of it.
        self.after_damage = harm != TAKEN_AWAY || self.seal(&mut taken, self.now_us).is_err();
        // A sync of it may still be queued.
        self.retired = Some(taken.file);
        self.begin(file, bytes, self.now_us)?;
        self.encoder.encode(self.now_us, &NOBODY, &Entry::Gateway { detail: &detail }, &mut self.batch);
        self.records += 1;
        self.times = (self.times.0.min(self.now_us), self.times.1.max(self.now_us));
        self.write_batch()?;
        let begun = self.current.as_ref().expect("it has just been begun");
        self.disk.sync_data(&begun.file)?;
        let path = segment::ring_path(&self.ring, self.next_number - 1);
        Ok(format!(
            "{} says that records up to {records} had been written, and `lockgate audit verify` names what is missing",
            path.display()
        ))
    }

    /// The next segment, made here and now where there is none. Not where all of the trail is gone (unmounted, moved away): nobody
    /// would look for it there; and not where another gateway writes.
    fn prepare_next(&mut self, bytes: u64) -> io::Result<(File, u64)> {
        if self.ring.ancestors().nth(2).is_some_and(|data_dir| !segment::archive_dir(data_dir).is_dir()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "all of the data directory is gone"));
        }
        make_dirs(&self.disk, &self.ring)?;
        if self.alone().is_err() {
            self.lock = lock(&lock_path(&self.ring))?;
        }
        if let Some(prepared) = self.open_prepared()? {
            return Ok(prepared);
        }
        segment::prepare(&self.disk, &self.ring, self.next_number, bytes)?;
        self.open_prepared()?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn frame_header(&self, kind: FrameKind) -> FrameHeader {
        FrameHeader {
            kind,
            payload_bytes: 0,
            crc: 0,
            shard: self.shard,
            records: if kind == FrameKind::Records { self.records } else { 0 },
            frame: self.next_frame,
            first_record: self.next_record,
            time_us: self.times.1,
            segment: self.next_number - 1,
            previous: self.previous,
        }
    }

    /// Seals the current segment, if there is one, and begins the next, if it is prepared. What keeps that from beginning is told once and
    /// tried again: nothing is written yet, and statements wait.
    fn next_segment(&mut self, now_us: i64) -> io::Result<bool> {
        let (file, bytes) = match self.open_prepared() {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return Ok(false),
            Err(error) => {
                let trouble = format!("audit of shard {} cannot go on to the next segment yet: {error}", self.shard);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("{trouble}");
                    self.trouble = Some(trouble);
                }
                return Ok(false);
            }
        };
        self.trouble = None;
        if self.records > 0 {
            self.write_batch()?;
        }
        // One that is full within a second is looked at as well.
        self.in_place()?;
        if let Some(mut current) = self.current.take() {
            self.seal(&mut current, now_us)?;
            self.retired = Some(current.file);
        }
        self.begin(file, bytes, now_us).map(|()| true)
    }

    /// Begins the next segment in a prepared file.
    fn begin(&mut self, file: File, bytes: u64, now_us: i64) -> io::Result<()> {
        let header = SegmentHeader {
            shard: self.shard,
            number: self.next_number,
            segment_bytes: bytes,
            started_us: now_us,
            first_frame: self.next_frame,
            first_record: self.next_record,
            boot: self.boot,
            after_damage: self.after_damage,
            previous: self.previous,
        }
        .encode();
        self.disk.write_all_at(&file, &header, 0)?;
        self.previous = hash(&header);
        self.next_number += 1;
        self.after_damage = false;
        self.encoder = Encoder::new(Room::of_segment(bytes as usize));
        self.current = Some(Current { file, bytes, offset: SEGMENT_HEADER_BYTES as u64, held: Footer::default() });
        Ok(())
    }

    fn seal(&mut self, current: &mut Current, now_us: i64) -> io::Result<()> {
        let mut element = [0; FOOTER_BYTES];
        element[FRAME_HEADER_BYTES..].copy_from_slice(&current.held.encode());
        FrameHeader { time_us: now_us, ..self.frame_header(FrameKind::Footer) }.seal(&mut element);
        self.disk.write_all_at(&current.file, &element, current.offset)?;
        self.disk.sync_data(&current.file)?;
        current.offset += FOOTER_BYTES as u64;
        self.previous = hash(&element);
        self.next_frame += 1;
        Ok(())
    }

    fn next_path(&self) -> PathBuf {
        segment::ring_path(&self.ring, self.next_number)
    }

    fn next_is_prepared(&self) -> bool {
        self.next_path().exists()
    }

    /// The next segment and its size, its name on stable storage: no record goes into a file that a power cut could take back.
    fn open_prepared(&self) -> io::Result<Option<(File, u64)>> {
        let path = self.next_path();
        let file = match files::open_existing(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        let bytes = file.metadata()?.len();
        if bytes < SEGMENT_BYTES_MIN || !is_zero(&segment::read_header(&file)?) {
            // Never overwrite what somebody has written.
            let error = io::Error::new(io::ErrorKind::InvalidData, "is in use or not a prepared segment");
            return Err(at(&path, error));
        }
        disk::sync_dir(&self.disk, &self.ring)?;
        Ok(Some((file, bytes)))
    }

    fn fail(&mut self, error: &io::Error) {
        let text = format!("audit of shard {} stops: {error}", self.shard);
        tracing::error!("{text}");
        self.failed = Some(text);
    }
}

impl<D: Disk> Journal for SegmentWriter<D> {
    fn append(&mut self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>) -> Result<(), Full> {
        if self.failed.is_some() {
            return Err(Full);
        }
        self.now_us = time_us;
        let bytes = self.encoder.bytes_max(who, entry);
        match self.make_room(bytes, time_us) {
            Ok(true) => self.refused_bytes = 0,
            Ok(false) => {
                self.refused_bytes = self.refused_bytes.max(bytes);
                return Err(Full);
            }
            Err(error) => {
                self.fail(&error);
                return Err(Full);
            }
        }
        self.encoder.encode(time_us, who, entry, &mut self.batch);
        self.records += 1;
        self.dirty = true;
        self.times = (self.times.0.min(time_us), self.times.1.max(time_us));
        Ok(())
    }
}

pub(super) const FIRST: (u64, u64, u64, Hash) = (1, 1, 1, GENESIS);

fn lock_path(ring: &Path) -> PathBuf {
    ring.join("lock")
}

fn lock(path: &Path) -> io::Result<File> {
    let file = files::open_or_create(path).map_err(|error| at(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let text = format!("{}: another gateway is writing here", path.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
        Err(fs::TryLockError::Error(error)) => Err(at(path, error)),
    }
}

/// Which start of the machine this is: tells a killed process from a lost machine afterwards.
pub(super) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(u128::to_be_bytes).unwrap_or_default()
}
