//! The stage of a shard: where a round's records are kept until their frame is written. A store into a mapped file outlives the process as a
//! write does and costs no system call, so that a frame is hashed and written once a commit interval instead of once a round.
//!
//! It is never synced: a power cut may take what is in it, as it may take what a write left in the kernel's memory. After any other
//! end the next start finds the records here and writes their frame ([`left_behind`]).

use super::disk::{self, Disk};
use super::frame::{FRAME_HEADER_BYTES, Hash, u32_at, u64_at};
use super::payload::Walk;
use super::record::View;
use super::segment::at;
use crate::files;
use rkyv::util::AlignedVec;
use rustix::fs::{StatFs, fstatfs, statfs};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// More than that is written at once.
pub const STAGE_BYTES: usize = 256 << 10;
/// Gateways may have made longer ones: as they had it first.
const STAGE_BYTES_MAX: usize = 1 << 20;
pub const STAGE_HEADER_BYTES: usize = 96;
const MAGIC: [u8; 8] = *b"LGSTAGE\x01";
/// Where the word stands that says what is valid: how many bytes of records, and the checksum of header and records.
const WORD_AT: usize = 56;
const NAME: &str = "stage";

/// File systems on which a store into a page that has its blocks cannot fail for lack of room, as it may where a block is written
/// elsewhere each time: ext4, XFS, tmpfs.
const OVERWRITE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

fn overwrites(found: &StatFs) -> bool {
    OVERWRITE.contains(&(found.f_type as u64))
}

/// May a ring in that folder have a stage?
pub fn is_possible(folder: &Path) -> io::Result<bool> {
    Ok(overwrites(&statfs(folder)?))
}

/// Which frame the records are to be: what the chain says that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub frame: u64,
    pub first_record: u64,
    pub previous: Hash,
}

/// The bytes of a file in memory, stored into by us alone. (The ring module has it: what is unsafe lives there.)
pub trait FileMemory: Send {
    fn put(&mut self, at: usize, bytes: &[u8]);
    /// Stores a word, at a multiple of 8, that is found only together with everything put before.
    fn publish(&mut self, at: usize, word: u64);
}

pub type Memory = Box<dyn FileMemory>;
/// Maps so many first bytes of a file, which has them and is open for reading and writing.
pub type Map = fn(&File, usize) -> io::Result<Memory>;

/// One owner, one thread.
pub struct Stage {
    path: PathBuf,
    file: File,
    memory: Memory,
    shard: u32,
    /// Of the frame that is kept here, with its bytes and the checksum so far.
    frame: u64,
    bytes: usize,
    crc: u32,
}

impl Stage {
    /// A new one in place of what stands there. `None`: not on this file system.
    pub fn make(disk: &impl Disk, map: Map, ring: &Path, shard: u32) -> io::Result<Option<Self>> {
        let (path, unfinished) = (ring.join(NAME), ring.join(NAME).with_extension("tmp"));
        let make = || {
            let file = disk.create(&unfinished)?;
            if !overwrites(&fstatfs(&file)?) {
                disk.remove(&unfinished)?;
                return Ok(None);
            }
            disk.write_all_at(&file, &vec![0; STAGE_BYTES], 0)?;
            disk.sync_all(&file)?;
            let file = files::open_existing(&unfinished)?;
            let memory = map(&file, STAGE_BYTES)?;
            disk.rename(&unfinished, &path)?;
            disk::sync_dir(disk, ring)?;
            Ok(Some(Self { path: path.clone(), file, memory, shard, frame: 0, bytes: 0, crc: 0 }))
        };
        make().map_err(|error| {
            // A full disk must get its blocks back; what matters is the first error.
            let _ = disk.remove(&unfinished);
            at(&path, error)
        })
    }

    /// Do so many bytes of records fit?
    pub fn fits(&self, bytes: usize) -> bool {
        STAGE_HEADER_BYTES + bytes <= STAGE_BYTES
    }

    /// Keeps the records of a frame so far: those of it that were kept before are there.
    pub fn keep(&mut self, place: &Place, records: &[u8]) {
        if self.frame != place.frame {
            self.begin(place);
        }
        let more = &records[self.bytes..];
        self.memory.put(STAGE_HEADER_BYTES + self.bytes, more);
        self.crc = crc32c::crc32c_append(self.crc, more);
        self.bytes = records.len();
        self.memory.publish(WORD_AT, word(self.bytes, self.crc));
    }

    fn begin(&mut self, place: &Place) {
        // What stands there is void before the first byte of it changes.
        self.memory.publish(WORD_AT, 0);
        let header = header(self.shard, place);
        self.memory.put(0, &header[..WORD_AT]);
        self.memory.put(WORD_AT + 8, &header[WORD_AT + 8..]);
        (self.frame, self.bytes, self.crc) = (place.frame, 0, crc32c::crc32c(&header));
    }

    /// A start finds it by its name alone.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let whole = self.file.metadata()?.len() == STAGE_BYTES as u64;
        Ok(whole && files::is_called(&self.file, &self.path)?)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The header with the word zero.
fn header(shard: u32, place: &Place) -> [u8; STAGE_HEADER_BYTES] {
    let mut out = [0; STAGE_HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&shard.to_le_bytes());
    out[16..24].copy_from_slice(&place.frame.to_le_bytes());
    out[24..32].copy_from_slice(&place.first_record.to_le_bytes());
    out[64..96].copy_from_slice(&place.previous);
    out
}

fn word(bytes: usize, crc: u32) -> u64 {
    u64::from(crc) << 32 | bytes as u64
}

/// Records that were kept and whose frame may not have been written.
#[derive(Debug)]
pub struct Left {
    pub place: Place,
    /// Room for the frame's header, then the records.
    pub batch: AlignedVec,
    pub records: u32,
    /// Unix microseconds of the earliest and the latest.
    pub times: (i64, i64),
}

impl Left {
    /// The records, with their sequences.
    pub fn records(&self) -> impl Iterator<Item = (u64, View<'_>)> {
        let views = Walk::new(&self.batch[FRAME_HEADER_BYTES..]).map_while(Result::ok);
        (self.place.first_record..).zip(views)
    }
}

/// What stands on the stage of a shard.
#[derive(Debug)]
pub enum Found {
    /// There is none, or nothing was kept there.
    Nothing,
    Records(Left),
    /// Nothing that holds: it is being changed, a power cut has left it so, or somebody else has.
    Broken,
}

pub fn left_behind(ring: &Path, shard: u32) -> io::Result<Found> {
    let path = ring.join(NAME);
    match read_whole(&path) {
        Ok(bytes) if bytes.iter().all(|&byte| byte == 0) && is_whole(&bytes) => Ok(Found::Nothing),
        Ok(bytes) => Ok(read(&bytes, shard)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(at(&path, error)),
    }
}

/// However long it has become.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    files::open(path)?.take(STAGE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_whole(bytes: &[u8]) -> bool {
    (STAGE_BYTES..=STAGE_BYTES_MAX).contains(&bytes.len())
}

fn read(bytes: &[u8], shard: u32) -> Found {
    read_header(bytes, shard).and_then(|(place, records)| read_records(place, records)).unwrap_or(Found::Broken)
}

/// The place and the records of a stage whose checksum holds.
fn read_header(bytes: &[u8], shard: u32) -> Option<(Place, &[u8])> {
    let head = bytes.get(..STAGE_HEADER_BYTES).filter(|_| is_whole(bytes))?;
    let previous = head[64..96].try_into().expect("32 bytes");
    let place = Place { frame: u64_at(head, 16), first_record: u64_at(head, 24), previous };
    let mut expected = header(shard, &place);
    let kept_bytes = u32_at(head, WORD_AT) as usize;
    let records = bytes.get(STAGE_HEADER_BYTES..STAGE_HEADER_BYTES + kept_bytes)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&expected), records);
    // A word of zeros: a frame was begun, and nothing of it kept.
    let word = if kept_bytes == 0 { 0 } else { word(kept_bytes, crc) };
    expected[WORD_AT..WORD_AT + 8].copy_from_slice(&word.to_le_bytes());
    (head == expected).then_some((place, records))
}

fn read_records(place: Place, records: &[u8]) -> Option<Found> {
    if records.is_empty() {
        return Some(Found::Nothing);
    }
    let mut batch = AlignedVec::new();
    batch.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    batch.extend_from_slice(records);
    let (mut count, mut times) = (0, (i64::MAX, i64::MIN));
    for record in Walk::new(&batch[FRAME_HEADER_BYTES..]) {
        let time_us = record.ok()?.time_us();
        times = (times.0.min(time_us), times.1.max(time_us));
        count += 1;
    }
    Some(Found::Records(Left { place, batch, records: count, times }))
}

/// Puts it away under a name of its own: it does not continue the chain, or does not hold, and may be evidence.
pub fn set_aside(disk: &impl Disk, ring: &Path, frame: u64) -> io::Result<PathBuf> {
    let name = |number: u32| ring.join(format!("{NAME}-{frame}.{number}.aside"));
    let aside = (1..).map(name).find(|path| path.symlink_metadata().is_err()).expect("a number is free");
    disk.rename(&ring.join(NAME), &aside).map_err(|error| at(&aside, error))?;
    disk::sync_dir(disk, ring)?;
    Ok(aside)
}

/// A stop may have left something on it.
pub fn exists(ring: &Path) -> bool {
    ring.join(NAME).symlink_metadata().is_ok()
}

/// Where nothing is kept, nothing is left that a start could take for something.
pub fn remove(disk: &impl Disk, ring: &Path) -> io::Result<()> {
    let path = ring.join(NAME);
    match exists(ring) {
        true => disk.remove(&path).and_then(|()| disk.sync_dir(ring)).map_err(|error| at(&path, error)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::SEGMENT_HEADER_BYTES;
    use super::super::tests::{append, first_segment, open, read as trail, scratch};
    use super::super::{RingOptions, SegmentWriter, search, segment};
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::FileExt as _;

    const LEFT: &str = "of the last commit interval before the stop were kept, and are written now";

    fn staged(dir: &Path) -> SegmentWriter {
        let mut writer = open(dir, 3);
        assert!(writer.use_stage(crate::shard::map).expect("room on disk"), "this file system allows a stage");
        writer
    }

    fn keep(writer: &mut SegmentWriter, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            append(writer, number, &format!("SELECT {number}")).expect("room");
            writer.keep().expect("kept");
        }
    }

    /// What the trail holds after another start, notes of starts without the numbers in them.
    #[track_caller]
    fn check(dir: &Path, expected: &[&str]) {
        open(dir, 3).write().expect("written");
        let (statements, damages) = trail(dir);
        assert_eq!(damages, []);
        let short = |text: String| if text.ends_with(LEFT) { "kept".to_owned() } else { text };
        assert_eq!(statements.into_iter().map(short).collect::<Vec<_>>(), expected);
        assert!(!ring(dir).join(NAME).exists(), "nothing is left for a later start");
    }

    fn ring(dir: &Path) -> PathBuf {
        segment::ring_dir(dir, 0)
    }

    #[test]
    fn what_was_kept_and_not_written_is_in_the_trail_after_the_next_start() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=2);
        assert_eq!(trail(dir.path()).0, [""; 0], "no frame yet");
        drop(writer);
        check(dir.path(), &["SELECT 1", "SELECT 2", "kept"]);
        check(dir.path(), &["SELECT 1", "SELECT 2", "kept"]);
    }

    #[test]
    fn a_search_finds_what_is_kept() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        let search = || {
            let nobody = &mut |trouble: search::Trouble| panic!("{trouble}");
            let found = search::search(dir.path(), &search::Filter::default(), None, false, nobody).expect("readable");
            let shown = search::show(dir.path(), "0-2", nobody).expect("readable").and_then(|record| record.statement);
            (found.into_iter().filter_map(|record| record.statement).collect::<Vec<_>>(), shown)
        };
        keep(&mut writer, 1..=1);
        assert_eq!(search(), (vec!["SELECT 1".to_owned()], None));
        keep(&mut writer, 2..=2);
        let both = (vec!["SELECT 1".to_owned(), "SELECT 2".to_owned()], Some("SELECT 2".to_owned()));
        assert_eq!(search(), both);
        writer.write().expect("written");
        assert_eq!(search(), both, "each once");
        drop(writer);
        assert_eq!(search(), both);
    }

    #[test]
    fn what_was_written_is_not_written_again_and_what_was_not_kept_was_confirmed_to_nobody() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=2);
        writer.write().expect("written");
        append(&mut writer, 3, "SELECT 3").expect("room");
        drop(writer);
        check(dir.path(), &["SELECT 1", "SELECT 2"]);
        let mut writer = staged(dir.path());
        keep(&mut writer, 4..=4);
        writer.write().expect("written");
        keep(&mut writer, 5..=6);
        drop(writer);
        check(dir.path(), &["SELECT 1", "SELECT 2", "SELECT 4", "SELECT 5", "SELECT 6", "kept"]);
    }

    #[test]
    fn a_stop_that_closes_the_trail_writes_what_was_kept_and_leaves_no_stage() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=2);
        append(&mut writer, 3, "SELECT 3").expect("room");
        writer.close().expect("closed");
        assert!(!exists(&ring(dir.path())));
        assert_eq!(trail(dir.path()).0, ["SELECT 1", "SELECT 2", "SELECT 3"]);
        drop(writer);
        check(dir.path(), &["SELECT 1", "SELECT 2", "SELECT 3"]);
    }

    #[test]
    fn what_is_kept_while_all_of_the_trail_is_moved_away_is_written_once_it_is_back() {
        let dir = scratch();
        let (data, away) = (dir.path().join("data"), dir.path().join("away"));
        let mut writer = staged(&data);
        append(&mut writer, 1, "SELECT 1").expect("room");
        writer.write().expect("written");
        keep(&mut writer, 2..=3);
        fs::rename(&data, &away).expect("moved");
        writer.look();
        assert!(writer.failed().is_some_and(|why| why.contains("all of the data directory is gone")));
        drop(writer);
        fs::rename(&away, &data).expect("moved back");
        check(&data, &["SELECT 1", "SELECT 2", "SELECT 3", "kept"]);
    }

    #[test]
    fn a_frame_that_a_stop_tore_is_written_from_the_stage() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=3);
        drop(writer);
        let segment = OpenOptions::new().write(true).open(first_segment(dir.path())).expect("there");
        segment.write_all_at(b"LGFR\x01\x00 torn", SEGMENT_HEADER_BYTES as u64).expect("written");
        open(dir.path(), 3).write().expect("written");
        let (statements, damages) = trail(dir.path());
        assert_eq!((&statements[..3], damages), (&["SELECT 1", "SELECT 2", "SELECT 3"].map(str::to_owned)[..], vec![]));
    }

    #[test]
    fn more_than_the_stage_has_room_for_is_written() {
        let dir = scratch();
        let options = RingOptions {
            data_dir: dir.path().to_owned(),
            shard: 0,
            segment_bytes: 8 * STAGE_BYTES as u64,
            segments_per_shard: 3,
        };
        let mut writer = SegmentWriter::open(&options, 1).expect("the trail opens").0;
        assert!(writer.use_stage(crate::shard::map).expect("room on disk"));
        let long = format!("SELECT '{}'", "x".repeat(STAGE_BYTES / 4));
        let texts = || trail(dir.path()).0.len();
        for number in 1..=4 {
            append(&mut writer, number, &long).expect("room");
            writer.keep().expect("kept");
            assert_eq!(texts(), if number < 4 { 0 } else { 4 }, "{number} of them");
        }
        keep(&mut writer, 5..=5);
        assert_eq!(texts(), 4, "and what is short is kept again");
        drop(writer);
        assert!(SegmentWriter::open(&options, 2).expect("the trail opens").1[0].starts_with("1 records of the last"));
    }

    #[test]
    fn kept_records_go_into_the_next_segment_where_theirs_is_taken_away() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=1);
        writer.write().expect("written");
        keep(&mut writer, 2..=3);
        append(&mut writer, 4, "never confirmed").expect("room");
        fs::remove_file(first_segment(dir.path())).expect("there");
        writer.look();
        assert!(writer.failed().is_some() && writer.keep().is_err());
        drop(writer);
        open(dir.path(), 3).write().expect("written");
        let (statements, damages) = trail(dir.path());
        assert_eq!((&statements[..2], damages.len()), (&["SELECT 2", "SELECT 3"].map(str::to_owned)[..], 1));
        assert!(statements[2].starts_with("gateway: segment 1 was removed") && statements.len() == 3, "{statements:?}");
    }

    #[test]
    fn a_stage_that_is_taken_away_is_done_without() {
        for replaced in [false, true] {
            let dir = scratch();
            let mut writer = staged(dir.path());
            keep(&mut writer, 1..=2);
            let path = ring(dir.path()).join(NAME);
            fs::remove_file(&path).expect("there");
            if replaced {
                fs::write(&path, "x").expect("possible");
            }
            writer.look();
            assert_eq!(trail(dir.path()).0, ["SELECT 1", "SELECT 2"], "what was kept there is written");
            keep(&mut writer, 3..=3);
            assert_eq!(trail(dir.path()).0.len(), 3, "and so is what comes");
            assert_eq!(writer.failed(), None);
        }
    }

    #[test]
    fn what_does_not_continue_the_trail_is_put_aside() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=1);
        writer.write().expect("written");
        let older = fs::read(first_segment(dir.path())).expect("readable");
        keep(&mut writer, 2..=2);
        writer.write().expect("written");
        keep(&mut writer, 3..=3);
        drop(writer);
        fs::write(first_segment(dir.path()), older).expect("possible");
        open(dir.path(), 3).write().expect("written");
        let (statements, _) = trail(dir.path());
        assert!(
            statements[1].contains("1 records that were kept for frame 3 do not continue this trail"),
            "{statements:?}"
        );
        assert!(ring(dir.path()).join("stage-3.1.aside").exists());
    }

    #[test]
    fn what_is_no_stage_hinders_nobody_and_is_told() {
        let ways: [fn(&Path); 4] = [
            |path| fs::write(path, "garbage").expect("possible"),
            |path| fs::create_dir(path).expect("possible"),
            |path| std::os::unix::fs::symlink("/nowhere", path).expect("possible"),
            |path| fs::File::create(path).and_then(|file| file.set_len(1 << 40)).expect("possible"),
        ];
        for (number, put) in ways.into_iter().enumerate() {
            let dir = scratch();
            let mut writer = staged(dir.path());
            keep(&mut writer, 1..=1);
            writer.write().expect("written");
            drop(writer);
            let path = ring(dir.path()).join(NAME);
            fs::remove_file(&path).expect("there");
            put(&path);
            let mut troubles = 0;
            let found = search::search(dir.path(), &search::Filter::default(), None, false, &mut |_| troubles += 1);
            assert_eq!((found.expect("the rest is readable").len(), troubles), (1, u32::from(number == 1)), "{number}");
            let mut writer = staged(dir.path());
            writer.write().expect("written");
            let (statements, damages) = trail(dir.path());
            assert_eq!(damages, []);
            let told = statements.get(1).is_some_and(|note| note.contains("cannot be read"));
            assert_eq!(told, number != 2, "{number}: {statements:?}");
            assert_eq!(ring(dir.path()).join("stage-2.1.aside").symlink_metadata().is_ok(), told);
        }
    }

    #[test]
    fn whatever_a_power_cut_leaves_there_is_what_was_kept_or_nothing() {
        let dir = scratch();
        let mut writer = staged(dir.path());
        keep(&mut writer, 1..=2);
        drop(writer);
        let whole = fs::read(ring(dir.path()).join(NAME)).expect("readable");
        assert!(matches!(read(&whole, 0), Found::Records(left) if left.records == 2));
        assert!(matches!(read(&whole, 1), Found::Broken), "of another shard");
        let valid = STAGE_HEADER_BYTES + u32_at(&whole, WORD_AT) as usize;
        for bit in 0..valid * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&bad, 0), Found::Broken), "bit {bit}");
        }
        for bytes in (0..valid).chain([STAGE_BYTES - 1]) {
            assert!(matches!(read(&whole[..bytes], 0), Found::Broken), "{bytes} bytes");
        }
        let mut longer = whole.clone();
        longer.resize(STAGE_BYTES_MAX, 0);
        assert!(matches!(read(&longer, 0), Found::Records(left) if left.records == 2), "as it was long once");
        longer.push(0);
        assert!(matches!(read(&longer, 0), Found::Broken), "as it never was");
        fs::write(ring(dir.path()).join(NAME), vec![0; STAGE_BYTES]).expect("possible");
        assert!(matches!(left_behind(&ring(dir.path()), 0), Ok(Found::Nothing)), "none of it");
    }
}
