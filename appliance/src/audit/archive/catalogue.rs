//! What readers ask the manifest: which files may hold records of a time or a sequence.
//!
//! Entries are in the order of sequences, so the first that matters for one is found by halving. They are in the order of time only for as
//! long as nobody sets the clock: for a time every line is looked at, and those of other times are passed over without being parsed.

use super::check::{FILE_BYTES_MAX, check_file};
use super::checkpoint;
use super::find::Listed;
use super::lines::{self, LineBroken, Lines};
use super::manifest::{self, Entry, FileEntry, Place, Position, What};
use crate::audit::segment::{archive_dir, at};
use crate::files;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// A part of the manifest that is read whole rather than halved further.
const WINDOW_BYTES: u64 = 64 << 10;

/// A line of the manifest that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestDamage {
    pub file: PathBuf,
    pub place: Place,
    pub broken: LineBroken,
}

impl fmt::Display for ManifestDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: entry at byte {}: {}", self.file.display(), self.place.offset, self.broken)
    }
}

/// Where the archiver stands, as far as it is signed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stand {
    /// Number of that entry; 0: there is none.
    pub number: u64,
    pub positions: BTreeMap<u32, Position>,
}

impl Stand {
    /// By the last entry that is signed and holds; what does not is handed out.
    pub fn of(data_dir: &Path, damage: &mut dyn FnMut(ManifestDamage)) -> io::Result<Self> {
        let of = |entry: Entry| Self { number: entry.head.number, positions: manifest::by_shard(&entry.positions) };
        match manifest::last_signed(data_dir) {
            Ok(entry) => Ok(entry.map(of).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let (mut good, mut end, file) = (None, None, manifest::path(data_dir));
                let signed = checkpoint::latest(data_dir).ok().flatten().map(|signed| signed.manifest);
                let mut told = false;
                manifest::each(data_dir, &mut |place, entry| match entry {
                    Ok(entry) => {
                        end = Some(place);
                        if signed.is_none_or(|signed| entry.head.number <= signed.number) {
                            good = Some(entry);
                        }
                    }
                    Err(LineBroken::Unfinished) => {}
                    Err(broken) => {
                        told = true;
                        damage(ManifestDamage { file: file.clone(), place, broken });
                    }
                })?;
                if !told {
                    // Perhaps no line is left.
                    let place = end.unwrap_or(Place { line: 1, offset: 0 });
                    damage(ManifestDamage { file, place, broken: LineBroken::Unsigned });
                }
                Ok(good.map(of).unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads entries from one on.
pub struct Catalogue {
    data_dir: PathBuf,
    lines: Option<Lines>,
    /// Where in the manifest it begins: a file is deleted by an entry behind its own.
    from: u64,
    /// Paths that were deleted on purpose: what lies there all the same is not what was published.
    deleted: HashSet<String>,
}

/// What an entry says to a reader.
pub enum Item {
    File(u64, Listed),
    Other(u64),
    Damage(ManifestDamage),
}

impl Catalogue {
    /// From the first entry on.
    pub fn whole(data_dir: &Path) -> io::Result<Self> {
        Self::from_first(data_dir, None)
    }

    /// From the entry on that may name this record.
    pub fn holding(data_dir: &Path, shard: u32, sequence: u64) -> io::Result<Self> {
        let reached = |entry: &Entry| {
            entry.positions.iter().any(|position| position.shard == shard && position.record >= sequence)
        };
        Self::from_first(data_dir, Some(&reached))
    }

    fn from_first(data_dir: &Path, reached: Option<&dyn Fn(&Entry) -> bool>) -> io::Result<Self> {
        let path = manifest::path(data_dir);
        let (lines, from) = match Lines::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, 0),
            Err(error) => return Err(error),
            Ok(lines) => match reached {
                None => (Some(lines), 0),
                Some(reached) => {
                    let from = halve(&path, reached)?;
                    (Some(Lines::open_at(&path, from)?), from)
                }
            },
        };
        Ok(Self { data_dir: data_dir.to_owned(), lines, from, deleted: deleted(data_dir, from)? })
    }

    /// The next entry. `None`: no more, or none that is whole.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        self.next_of(|_, _| true)
    }

    /// The same; a file whose earliest and latest record (Unix microseconds) are not wanted is handed out as no file.
    pub fn next_of(&mut self, wanted: impl Fn(i64, i64) -> bool) -> io::Result<Option<Item>> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let Some(line) = lines.next_line()? else { return Ok(None) };
        if let Ok(line) = line
            && let Ok(whole) = lines::split(line, false)
            && manifest::times_at_a_glance(whole.body).is_some_and(|(since_us, until_us)| !wanted(since_us, until_us))
        {
            return Ok(Some(Item::Other(whole.head.number)));
        }
        let entry = line.and_then(Entry::parse);
        Ok(match entry {
            Err(LineBroken::Unfinished) => None,
            Err(broken) => {
                let (file, offset) = (manifest::path(&self.data_dir), lines.offset);
                Some(Item::Damage(ManifestDamage { file, place: Place { line: 0, offset }, broken }))
            }
            Ok(entry) => Some(self.item(entry)),
        })
    }

    fn item(&self, entry: Entry) -> Item {
        let number = entry.head.number;
        match entry.what {
            // A manifest that somebody else wrote leads nowhere outside the archive.
            What::File(file) if is_inside(&file.path) && is_readable(&self.data_dir, &self.deleted, &file) => {
                let shards = file.shards.iter().filter(|span| span.records() > 0);
                let listed = Listed {
                    path: archive_dir(&self.data_dir).join(&file.path),
                    bytes: file.bytes,
                    since_us: file.since_us,
                    until_us: file.until_us,
                    shards: shards.map(|span| (span.shard, (span.first_record, span.last_record))).collect(),
                };
                Item::File(number, listed)
            }
            _ => Item::Other(number),
        }
    }

    /// Was the file deleted on purpose, by now?
    pub fn is_deleted(&mut self, path: &Path) -> io::Result<bool> {
        self.deleted = deleted(&self.data_dir, self.from)?;
        let relative = path.strip_prefix(archive_dir(&self.data_dir)).ok().and_then(Path::to_str);
        Ok(relative.is_some_and(|path| self.deleted.contains(path)))
    }
}

/// What lies under the name of a file that was deleted counts only if it is that file: a hold came in time, or a stop in between.
pub fn is_readable(data_dir: &Path, deleted: &HashSet<String>, file: &FileEntry) -> bool {
    let as_published = || check_file(&archive_dir(data_dir), file, &AtomicU64::new(0));
    !deleted.contains(&file.path)
        || (file.bytes <= FILE_BYTES_MAX && as_published().is_ok_and(|broken| broken.is_none()))
}

/// Paths of all files of which a signed entry, one that begins at this byte of the manifest or behind it, says that they were deleted.
pub fn deleted(data_dir: &Path, from: u64) -> io::Result<HashSet<String>> {
    let (path, mut deleted) = (manifest::path(data_dir), HashSet::new());
    let mut lines = match Lines::open_at(&path, from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(deleted),
        lines => lines?,
    };
    let signed = checkpoint::latest(data_dir).ok().flatten().map_or(0, |signed| signed.manifest.number);
    let kind = memchr::memmem::Finder::new(b"\"kind\":\"deleted\"");
    while let Some(line) = lines.next_line()? {
        // Most lines are of other kinds: they are not parsed.
        let Ok(line) = line else { continue };
        if kind.find(line).is_some()
            && let Ok(Entry { head, what: What::Deleted { files, .. }, .. }) = Entry::parse(line)
            && head.number <= signed
        {
            deleted.extend(files.into_iter().map(|file| file.path));
        }
    }
    Ok(deleted)
}

/// Hands out the lines of the manifest from one number to another (both included), as they stand there without their line
/// ends. One that does not hold is an error.
pub fn each_line(data_dir: &Path, from: u64, to: u64, visit: &mut dyn FnMut(&[u8], Entry)) -> io::Result<()> {
    let path = manifest::path(data_dir);
    let mut lines = Lines::open_at(&path, halve(&path, &|entry| entry.head.number >= from)?)?;
    while let Some(line) = lines.next_line()? {
        let parsed = line.and_then(|line| Entry::parse(line).map(|entry| (line, entry)));
        let (line, entry) = parsed.map_err(|broken| {
            at(&path, io::Error::new(io::ErrorKind::InvalidData, format!("an entry does not hold: {broken}")))
        })?;
        if entry.head.number > to {
            break;
        }
        if entry.head.number >= from {
            visit(line, entry);
        }
    }
    Ok(())
}

fn is_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Where a line begins before which no entry has `reached`, which holds for all entries behind the first it holds for. An
/// entry that cannot be read counts as reached: the search begins before it.
fn halve(path: &Path, reached: &dyn Fn(&Entry) -> bool) -> io::Result<u64> {
    let file = files::open(path).map_err(|error| at(path, error))?;
    let (mut low, mut high) = (0, file.metadata().map_err(|error| at(path, error))?.len());
    // `low` is always the beginning of a line.
    while high - low > WINDOW_BYTES {
        let middle = low + (high - low) / 2;
        let behind = lines::line_end(&file, middle).map_err(|error| at(path, error))?;
        let Some(start) = behind.filter(|start| *start < high) else { break };
        let mut lines = Lines::open_at(path, start)?;
        let entry = lines.next_line()?.map(|line| line.and_then(Entry::parse));
        match entry {
            Some(Ok(entry)) if !reached(&entry) => low = lines.next_offset,
            Some(_) => high = middle,
            None => break,
        }
    }
    Ok(low)
}
