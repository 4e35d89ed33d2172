//! Segment files on disk: where they lie, what they are called, how an empty one is made.
//!
//! ```text
//! data_dir/segments/shard-0/0000000007.seg    being written, sealed, or prepared (all zeros)
//! data_dir/archive/shard-0-0000000006-20261120T031200Z-20261120T031641Z-HASH.seg    sealed and moved
//! ```

use super::disk::{self, Disk, RealDisk};
use super::frame::{
    FOOTER_BYTES, FRAME_HEADER_BYTES, Footer, FrameHeader, FrameKind, Hash, SEGMENT_HEADER_BYTES, SegmentHeader, hash,
};
use crate::files;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Smaller segments could not hold every record.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Fewer would leave nothing to write to while one is being archived.
pub const SEGMENTS_PER_SHARD_MIN: u32 = 2;

/// What a segment is called that has left the ring and waits to be one again.
pub const SPARE: &str = "spare";
/// How long a reader waits for a segment that is leaving the ring that very moment: one rename and its sync.
const REUSE_PATIENCE: Duration = Duration::from_secs(1);

/// Where the rings of all shards lie.
pub fn all_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("segments")
}

/// Where a shard's ring lies.
pub fn ring_dir(data_dir: &Path, shard: u32) -> PathBuf {
    all_dir(data_dir).join(format!("shard-{shard}"))
}

pub fn archive_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("archive")
}

pub fn ring_path(ring: &Path, number: u64) -> PathBuf {
    ring.join(format!("{number:010}.seg"))
}

/// One file of a shard's chain, as its name tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    pub shard: u32,
    pub number: u64,
    pub path: PathBuf,
    /// `None`: in the ring.
    pub archived: Option<Archived>,
}

/// What the name of an archived segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archived {
    /// Unix seconds, rounded outwards, and the footer's hash.
    Sealed { since_s: i64, until_s: i64, hash: Hash },
    /// It has no footer: it was found damaged and left as it was.
    Damaged,
}

/// All chains below a data directory: shard -> number -> file. A missing directory is an empty trail.
pub type Chains = BTreeMap<u32, BTreeMap<u64, SegmentFile>>;

pub fn list(data_dir: &Path) -> io::Result<Chains> {
    list_all(data_dir).map(|listing| listing.chains)
}

/// The chain of one shard: whoever walks many shards one by one does not list all of them each time.
pub fn list_shard(data_dir: &Path, shard: u32) -> io::Result<BTreeMap<u64, SegmentFile>> {
    list_all_of(data_dir, shard).map(|mut listing| listing.chains.remove(&shard).unwrap_or_default())
}

/// Every file with a segment's name.
#[derive(Debug, Default)]
pub struct Listing {
    pub chains: Chains,
    /// Besides: second files of a number, and names of segments on what is not a regular file (never opened: a pipe
    /// would wait for ever). By shard: number and path.
    pub surplus: BTreeMap<u32, Vec<(u64, PathBuf)>>,
}

pub fn list_all(data_dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    // The ring first: a segment moved in between is then found in the archive.
    for (name, path) in entries(&all_dir(data_dir))? {
        if let Some(shard) = parse_ring(&name) {
            listing.take_ring(shard, &path)?;
        }
    }
    listing.take_archived(data_dir, |_| true)?;
    Ok(listing)
}

/// The same of one shard.
pub fn list_all_of(data_dir: &Path, shard: u32) -> io::Result<Listing> {
    let mut listing = Listing::default();
    listing.take_ring(shard, &ring_dir(data_dir, shard))?;
    listing.take_archived(data_dir, |found| found == shard)?;
    Ok(listing)
}

impl Listing {
    fn take_ring(&mut self, shard: u32, ring: &Path) -> io::Result<()> {
        self.chains.entry(shard).or_default();
        for (name, path) in entries(ring)? {
            if let Some(number) = parse_in_ring(&name) {
                self.take(SegmentFile { shard, number, path, archived: None });
            }
        }
        Ok(())
    }

    fn take_archived(&mut self, data_dir: &Path, wanted: impl Fn(u32) -> bool) -> io::Result<()> {
        let mut archived = entries(&archive_dir(data_dir))?;
        archived.sort();
        for (name, path) in archived {
            if let Some((shard, number, archived)) = parse_archived(&name).filter(|(shard, _, _)| wanted(*shard)) {
                self.take(SegmentFile { shard, number, path, archived: Some(archived) });
            }
        }
        Ok(())
    }

    /// Of several files of one number the archived one counts, among those the first.
    fn take(&mut self, file: SegmentFile) {
        use std::collections::btree_map::Entry;
        let surplus = self.surplus.entry(file.shard).or_default();
        if !is_regular(&file.path) {
            // Gone since it was listed: it is listed again where it is now.
            surplus.extend(file.path.symlink_metadata().is_ok().then_some((file.number, file.path)));
            return;
        }
        match self.chains.entry(file.shard).or_default().entry(file.number) {
            Entry::Vacant(slot) => drop(slot.insert(file)),
            Entry::Occupied(slot) if slot.get().archived.is_some() => surplus.push((file.number, file.path)),
            Entry::Occupied(mut slot) => {
                let before = slot.insert(file);
                surplus.extend(before.path.exists().then_some((before.number, before.path)));
            }
        }
    }
}

fn is_regular(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

/// The shards that have a ring or archived segments.
pub fn list_shards(data_dir: &Path) -> io::Result<BTreeSet<u32>> {
    let mut shards = BTreeSet::new();
    for (name, _) in entries(&all_dir(data_dir))? {
        shards.extend(name.strip_prefix("shard-").and_then(|shard| shard.parse::<u32>().ok()));
    }
    for (name, _) in entries(&archive_dir(data_dir))? {
        shards.extend(parse_archived(&name).map(|(shard, _, _)| shard));
    }
    Ok(shards)
}

/// The files of one ring, by number.
pub fn list_ring(ring: &Path, shard: u32) -> io::Result<BTreeMap<u64, SegmentFile>> {
    let mut files = BTreeMap::new();
    for (name, path) in entries(ring)? {
        if let Some(number) = parse_in_ring(&name).filter(|_| is_regular(&path)) {
            files.insert(number, SegmentFile { shard, number, path, archived: None });
        }
    }
    Ok(files)
}

fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| at(dir, error))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// `shard-3`, written in no other way: two names of one shard would hide one of them.
fn parse_ring(name: &str) -> Option<u32> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (name == format!("shard-{shard}")).then_some(shard)
}

fn parse_in_ring(name: &str) -> Option<u64> {
    parse_number(name.strip_suffix(".seg")?)
}

fn parse_number(text: &str) -> Option<u64> {
    let number = text.parse().ok().filter(|number: &u64| *number <= super::archive::lines::INTEGER_MAX)?;
    (text == format!("{number:010}")).then_some(number)
}

/// The name of a sealed segment in the archive.
pub fn archived_name(shard: u32, number: u64, footer: &Footer, hash: &Hash) -> String {
    let since = stamp(footer.first_us.div_euclid(1_000_000));
    let until = stamp(footer.last_us.div_euclid(1_000_000) + 1);
    format!("shard-{shard}-{number:010}-{since}-{until}-{}.seg", hex(hash))
}

pub fn damaged_name(shard: u32, number: u64) -> String {
    format!("shard-{shard}-{number:010}-damaged.seg")
}

fn parse_archived(name: &str) -> Option<(u32, u64, Archived)> {
    let parts: Vec<&str> = name.strip_prefix("shard-")?.strip_suffix(".seg")?.split('-').collect();
    let archived = match parts[..] {
        [_, _, "damaged"] => Archived::Damaged,
        [_, _, since, until, hash] => {
            Archived::Sealed { since_s: stamp_seconds(since)?, until_s: stamp_seconds(until)?, hash: unhex(hash)? }
        }
        _ => return None,
    };
    Some((parse_ring(&format!("shard-{}", parts[0]))?, parse_number(parts[1])?, archived))
}

fn stamp(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn stamp_seconds(stamp: &str) -> Option<i64> {
    stamp.parse::<jiff::Timestamp>().ok().map(|time| time.as_second())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<Hash> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(out)
}

/// Opens a segment to read it. For as long as the file is open, its bytes are what its name says, even if it leaves the ring
/// meanwhile; one that has left is [`io::ErrorKind::NotFound`].
pub fn open(path: &Path) -> io::Result<File> {
    let file = files::open(path)?;
    files::share(&file, REUSE_PATIENCE);
    match files::is_called(&file, path)? {
        true => Ok(file),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Makes the next segment ready: zeros to its full size on stable storage, under its name only when complete.
/// It is written, not merely allocated, so that later writes change no block map and need no journal.
pub fn prepare(disk: &impl Disk, ring: &Path, number: u64, segment_bytes: u64) -> io::Result<PathBuf> {
    let unfinished = ring_path(ring, number).with_extension("tmp");
    let file = disk.create(&unfinished).map_err(|error| at(&unfinished, error))?;
    Spare { path: unfinished, file }.prepare(disk, ring, number, segment_bytes)
}

/// A file that may become a segment: nobody else reads it, and what is in it counts for nothing.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    file: File,
}

impl Spare {
    /// A segment leaves the ring and waits to be one again: its blocks and the memory that caches them are there, which a new file of
    /// zeros has to be given (`durability prepare` in bench/ says what that costs). `None`: somebody reads it, or it has another name
    /// or another size, or cannot be written or renamed.
    pub fn from_segment(disk: &impl Disk, segment: &Path, bytes: u64) -> io::Result<Option<Self>> {
        let Ok(file) = files::open_existing(segment) else { return Ok(None) };
        if file.metadata()?.len() != bytes || !files::keep_alone(&file)? {
            return Ok(None);
        }
        let path = segment.with_extension(SPARE);
        if disk.rename(segment, &path).is_err() {
            return Ok(None);
        }
        // Before a byte changes: a power cut must not bring the name back.
        disk.sync_dir(segment.parent().expect("a file in the ring"))?;
        Ok(Some(Self { path, file }))
    }

    /// It has not been removed, and nobody has got hold of it.
    pub fn is_ours(&self) -> bool {
        files::is_called(&self.file, &self.path).unwrap_or(false) && files::keep_alone(&self.file).unwrap_or(false)
    }

    /// Gives it up; whoever has another name for it, or has it open, keeps what is in it.
    pub fn discard(self, disk: &impl Disk) {
        if files::is_called(&self.file, &self.path).unwrap_or(false) {
            // What stays is removed at the next start.
            let _ = disk.remove(&self.path);
        }
    }

    pub fn prepare(self, disk: &impl Disk, ring: &Path, number: u64, bytes: u64) -> io::Result<PathBuf> {
        let path = ring_path(ring, number);
        let filled = fill(disk, &self.file, bytes)
            .and_then(|()| self.file.unlock())
            .and_then(|()| disk.rename(&self.path, &path));
        if let Err(error) = filled {
            // A full disk must get its blocks back; what matters is the first error.
            let _ = disk.remove(&self.path);
            return Err(at(&path, error));
        }
        disk::sync_dir(disk, ring)?;
        Ok(path)
    }
}

/// What a segment is filled by. The kernel keeps a file's pages in pieces as large as it was written in, and looks at every block of a
/// piece again at each small write into it: in pieces of 1 MiB a record's write takes twice as long.
const FILL_BYTES: u64 = 64 << 10;

fn fill(disk: &impl Disk, file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; bytes.min(FILL_BYTES) as usize];
    let mut filled = 0;
    while filled < bytes {
        let chunk = (bytes - filled).min(zeros.len() as u64);
        disk.write_all_at(file, &zeros[..chunk as usize], filled)?;
        filled += chunk;
        // All of it at once would take tens of milliseconds of the core.
        std::thread::yield_now();
    }
    disk.sync_all(file)
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    disk::sync_dir(&RealDisk, dir)
}

/// The header of a segment in the ring or the archive, if it has left neither and its header holds.
pub fn header_of(file: &SegmentFile) -> Option<SegmentHeader> {
    let raw = open(&file.path).and_then(|opened| read_header(&opened)).ok()?;
    SegmentHeader::decode(&raw).ok()
}

/// The first bytes of a segment; zeros when it is prepared but not in use.
pub fn read_header(file: &File) -> io::Result<[u8; SEGMENT_HEADER_BYTES]> {
    let mut raw = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut raw, 0)?;
    Ok(raw)
}

/// The footer of a sealed segment, found from the end of the file, with its hash. `None`: not sealed, or damaged there.
pub fn find_footer(file: &File) -> io::Result<Option<(Footer, Hash)>> {
    let end = match last_nonzero(file)? {
        Some(last) => last + 1,
        None => return Ok(None),
    };
    // Its last numbers may end in zeros: their sequences never reach the top byte, so look a few words on.
    let first = (end.saturating_sub(FOOTER_BYTES as u64)).next_multiple_of(8);
    for start in (first..=first + 16).step_by(8) {
        let mut element = [0; FOOTER_BYTES];
        if file.read_exact_at(&mut element, start).is_err() {
            continue;
        }
        let raw = element[..FRAME_HEADER_BYTES].try_into().expect("a header's length");
        let header = FrameHeader::decode(raw).ok().filter(|header| {
            header.kind == FrameKind::Footer && header.element_bytes() == FOOTER_BYTES && header.intact(&element)
        });
        if header.is_some() {
            return Ok(Footer::decode(&element[FRAME_HEADER_BYTES..]).ok().map(|footer| (footer, hash(&element))));
        }
    }
    Ok(None)
}

/// Offset of the first byte that is not zero. A file that is gone is all zeros.
pub fn first_nonzero(path: &Path) -> io::Result<Option<u64>> {
    let opened = match open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, error)),
    };
    let mut chunk = vec![0; 64 << 10];
    let mut start = 0;
    loop {
        let Some(data) = files::next_data(&opened, start).map_err(|error| at(path, error))? else { return Ok(None) };
        start = data;
        let read = opened.read_at(&mut chunk, start).map_err(|error| at(path, error))?;
        if let Some(index) = chunk[..read].iter().position(|&byte| byte != 0) {
            return Ok(Some(start + index as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        start += read as u64;
    }
}

/// Offset of the last byte that is not zero.
pub fn last_nonzero(file: &File) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; 64 << 10];
    for extent in files::extents(file)?.into_iter().rev() {
        let mut end = extent.end;
        while end > extent.start {
            let start = end.saturating_sub(chunk.len() as u64).max(extent.start);
            let part = &mut chunk[..(end - start) as usize];
            file.read_exact_at(part, start)?;
            if let Some(index) = part.iter().rposition(|&byte| byte != 0) {
                return Ok(Some(start + index as u64));
            }
            end = start;
        }
    }
    Ok(None)
}

/// The error with the path in front: what a person needs to act on it.
pub fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archived_names_read_back() {
        let footer = Footer { first_us: 1_795_000_000_999_999, last_us: 1_795_000_001_000_000, ..Footer::default() };
        let name = archived_name(3, 42, &footer, &[0xab; 32]);
        let sealed = Archived::Sealed { since_s: 1_795_000_000, until_s: 1_795_000_002, hash: [0xab; 32] };
        assert_eq!(parse_archived(&name), Some((3, 42, sealed)), "{name}");
        assert_eq!(parse_archived(&damaged_name(0, 1)), Some((0, 1, Archived::Damaged)));
        for other in [
            "x.seg",
            "shard-0.seg",
            "shard-a-1-damaged.seg",
            "shard-0-1-damaged.seg",
            "shard-00-0000000001-damaged.seg",
            "shard-0-00000000001-damaged.seg",
            "shard-0-1-a-b-c.seg",
            "notes.txt",
        ] {
            assert_eq!(parse_archived(other), None, "{other}");
        }
        assert_eq!(
            (parse_in_ring("0000000042.seg"), parse_in_ring("10000000042.seg")),
            (Some(42), Some(10_000_000_042))
        );
        for other in ["42.seg", "+000000042.seg", "00000000042.seg", "0000000042.tmp"] {
            assert_eq!(parse_in_ring(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_nobody_else_has_is_taken_for_a_spare() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = prepare(&RealDisk, dir.path(), 1, SEGMENT_BYTES_MIN).expect("room on disk");
        let spare = |bytes| Spare::from_segment(&RealDisk, &path, bytes).expect("possible");
        assert!(spare(SEGMENT_BYTES_MIN * 2).is_none(), "of another size");
        let copy = dir.path().join("copy");
        fs::hard_link(&path, &copy).expect("possible");
        assert!(spare(SEGMENT_BYTES_MIN).is_none(), "somebody keeps it under another name");
        fs::remove_file(&copy).expect("there");
        let reader = open(&path).expect("readable");
        assert!(spare(SEGMENT_BYTES_MIN).is_none(), "somebody reads it");
        drop(reader);
        let in_the_way = path.with_extension(SPARE);
        fs::create_dir(&in_the_way).expect("possible");
        assert!(spare(SEGMENT_BYTES_MIN).is_none(), "there is no such name for it");
        fs::remove_dir(&in_the_way).expect("empty");
        let keeps = files::open(&path).expect("readable");
        keeps.try_lock().expect("nobody has it");
        assert!(spare(SEGMENT_BYTES_MIN).is_none(), "somebody keeps it to himself");
        open(&path).expect("who reads it does not wait for him for ever");
        drop(keeps);
        fs::write(&path, vec![7; SEGMENT_BYTES_MIN as usize]).expect("writable");
        // As a reader has it that is not quick enough: opened, and not locked yet.
        let late = files::open(&path).expect("readable");
        let taken = spare(SEGMENT_BYTES_MIN).expect("nobody has it");
        assert!(!files::is_called(&late, &path).expect("known"), "what it opened is called so no more");
        assert_eq!(open(&path).map_err(|error| error.kind()).err(), Some(io::ErrorKind::NotFound));
        assert!(taken.is_ours() && files::open(&in_the_way).expect("readable").try_lock_shared().is_err());
        fs::hard_link(&in_the_way, &copy).expect("possible");
        assert!(!taken.is_ours(), "it has another name");
        fs::remove_file(&copy).expect("there");
        let next = taken.prepare(&RealDisk, dir.path(), 5, SEGMENT_BYTES_MIN).expect("possible");
        assert_eq!(fs::read(&next).expect("readable"), vec![0; SEGMENT_BYTES_MIN as usize]);
        assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_prepared_segment_is_whole_and_zero() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = prepare(&RealDisk, dir.path(), 3, SEGMENT_BYTES_MIN).expect("room on disk");
        let bytes = fs::read(&path).expect("readable");
        assert_eq!(bytes, vec![0; SEGMENT_BYTES_MIN as usize]);
        assert_eq!(list_ring(dir.path(), 0).expect("listable").keys().copied().collect::<Vec<_>>(), [3]);
    }
}
