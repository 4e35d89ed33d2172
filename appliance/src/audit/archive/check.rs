//! Proof over the manifest and its files: every line, every hash, and that one entry goes on where the other ended.
//! FORMAT.md says what must hold.

use super::lines::LineBroken;
use super::manifest::{self, DamageEntry, DeletedFile, Entry, FileEntry, Position, Span, What};
use super::publish;
use crate::audit::frame::{GENESIS, Hash};
use crate::audit::segment::at;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file: far beyond what the archiver makes of the largest `archive_file_mib`.
pub const FILE_BYTES_MAX: u64 = 8 << 30;
/// Read at once: enough for the hash to use every lane of the processor.
const READ_BYTES: usize = 1 << 20;

/// One break of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveBreak {
    pub file: PathBuf,
    /// In a file of lines, counted from 1.
    pub line: Option<u64>,
    pub kind: BreakKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BreakKind {
    Line(LineBroken),
    /// A line's number is not the next one.
    Number {
        expected: u64,
        found: u64,
    },
    /// It names another line before it than the one that is there.
    Chain,
    /// What it adds of a shard does not begin where that ended, or end where it says.
    Span {
        shard: u32,
    },
    Rows {
        expected: u64,
        found: u64,
    },
    /// The archiver found a segment damaged, and went on behind it.
    Damage(DamageEntry),
    /// An entry's path is not that of its own file.
    Path,
    MissingFile,
    NotAFile,
    /// Or a folder that is one. What is behind it somebody may change at any time.
    Link,
    Size {
        expected: u64,
        found: u64,
    },
    Content,
    /// No entry names it.
    Surplus,
    /// Whoever signed it has another key than it names, or its bytes were changed.
    Signature,
    /// It is signed by a key that nobody has vouched for.
    Key,
    /// A checkpoint names an entry of the manifest that is not there, or is another.
    PromisedEntry {
        number: u64,
    },
    /// A checkpoint names a frame with another hash than the manifest.
    PromisedFrame {
        shard: u32,
        frame: u64,
    },
    /// A checkpoint names a line of the holds that is not there, or is another.
    PromisedHold {
        number: u64,
    },
    /// The first checkpoint of all names an entry already: nothing proves that one before it was not another.
    CheckpointsBegin {
        number: u64,
    },
    /// The manifest has gone on for longer than the checkpoints.
    CheckpointsEnd {
        number: u64,
    },
    /// A line that is kept elsewhere is not the one here, or not here.
    Elsewhere {
        number: u64,
    },
}

impl BreakKind {
    /// The word FORMAT.md has for it: what programs compare.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Line(_) => "line",
            Self::Number { .. } => "number",
            Self::Chain => "chain",
            Self::Span { .. } => "span",
            Self::Rows { .. } => "rows",
            Self::Damage(_) => "damage",
            Self::Path => "path",
            Self::MissingFile => "missing_file",
            Self::NotAFile | Self::Link => "not_a_file",
            Self::Size { .. } => "size",
            Self::Content => "content",
            Self::Surplus => "surplus",
            Self::Signature => "signature",
            Self::Key => "key",
            Self::PromisedEntry { .. } => "promised_entry",
            Self::PromisedFrame { .. } => "promised_frame",
            Self::PromisedHold { .. } => "promised_hold",
            Self::CheckpointsBegin { .. } => "checkpoints_begin",
            Self::CheckpointsEnd { .. } => "checkpoints_end",
            Self::Elsewhere { .. } => "elsewhere",
        }
    }
}

impl fmt::Display for ArchiveBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}", self.kind)
    }
}

impl fmt::Display for BreakKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(broken) => write!(f, "{broken}"),
            Self::Number { expected, found } => {
                write!(f, "it has number {found}, {expected} was due: lines were removed, swapped or repeated")
            }
            Self::Chain => write!(f, "it does not continue the chain: what precedes it was changed or replaced"),
            Self::Span { shard } => write!(f, "what it says of shard {shard} does not continue what precedes it"),
            Self::Rows { expected, found } => write!(f, "its file has {found} rows, its spans {expected} records"),
            Self::Damage(damage) => {
                write!(f, "the archiver found {} damaged at byte {}: {}", damage.file, damage.offset, damage.what)
            }
            Self::Path => write!(f, "its path is not one of its own number"),
            Self::MissingFile => write!(f, "the file is missing"),
            Self::NotAFile => write!(f, "is not a file"),
            Self::Link => write!(
                f,
                "is a symbolic link or in a folder that is one, not a file of the archive: a search reads what is behind it, \
                 nothing proves that"
            ),
            Self::Size { expected, found } => write!(f, "it has {found} bytes, the manifest says {expected}"),
            Self::Content => write!(f, "its content is not what was published: changed or replaced"),
            Self::Surplus => write!(f, "no entry of the manifest names it: a copy, or put there by somebody else"),
            Self::Signature => write!(f, "its signature does not hold"),
            Self::Key => write!(f, "it is signed by a key that nothing vouches for"),
            Self::PromisedEntry { number } => {
                write!(f, "the manifest does not have the entry {number} it promises: cut, replaced or rolled back")
            }
            Self::PromisedFrame { shard, frame } => {
                write!(f, "the manifest has another frame {frame} of shard {shard} than it promises")
            }
            Self::PromisedHold { number } => {
                write!(f, "the holds do not have the line {number} it promises: cut, replaced or rolled back")
            }
            Self::CheckpointsBegin { number } => {
                write!(f, "the chain of checkpoints begins with entry {number}: those before it were removed")
            }
            Self::CheckpointsEnd { number } => {
                write!(
                    f,
                    "checkpoints end with entry {number}, the manifest goes on: the end of the checkpoints was cut"
                )
            }
            Self::Elsewhere { number } => write!(f, "checkpoint {number} is kept elsewhere and is not the same here"),
        }
    }
}

/// The bytes of a file, in memory: what is done with them is done with what was hashed, whatever somebody does to the file meanwhile.
/// `None`: they are not what was published.
pub fn read_published(archive: &Path, file: &FileEntry) -> io::Result<Option<Bytes>> {
    let opened = crate::files::open(&archive.join(&file.path))?;
    if opened.metadata()?.len() != file.bytes || file.bytes > FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    opened.take(file.bytes).read_to_end(&mut bytes)?;
    Ok((*blake3::hash(&bytes).as_bytes() == file.blake3).then(|| bytes.into()))
}

/// Takes breaks as they are met.
pub type Found<'a> = dyn FnMut(ArchiveBreak) + 'a;

/// What the manifest says, as far as its lines hold.
#[derive(Debug, Default)]
pub struct Books {
    pub path: PathBuf,
    /// Of each entry, by its number less one; zeros where a line does not hold.
    pub hashes: Vec<Hash>,
    pub positions: BTreeMap<u32, Position>,
    /// As they were before the last entry.
    pub before: BTreeMap<u32, Position>,
    /// Files that must be there, by entry.
    pub files: BTreeMap<u64, FileEntry>,
    /// By shard: the last frame of every span, and its hash.
    pub ends: BTreeMap<u32, HashMap<u64, Hash>>,
    /// Files that were removed on purpose, by the entry that says so.
    deletions: BTreeMap<u64, Vec<DeletedFile>>,
    /// The same as they were published, once that is settled. They may still be there, if a stop came between.
    pub removed: Vec<FileEntry>,
    /// The last line was not whole.
    pub unfinished: bool,
}

impl Books {
    pub fn entries(&self) -> u64 {
        self.hashes.len() as u64
    }

    pub fn hash_of(&self, number: u64) -> Option<Hash> {
        if number == 0 {
            return Some(GENESIS);
        }
        self.hashes.get(usize::try_from(number - 1).ok()?).copied()
    }
}

/// Reads the manifest, its lines that begin before `limit`, and checks each against those before it.
pub fn read_manifest(data_dir: &Path, limit: u64, found: &mut Found<'_>) -> io::Result<Books> {
    let mut books = Books { path: manifest::path(data_dir), ..Books::default() };
    // After a line that does not hold, the next one is taken as it is: one break, not a hundred.
    let mut follows = true;
    let mut damaged = BTreeSet::new();
    manifest::each_within(data_dir, limit, &mut |place, entry| {
        let mut tell = |kind| found(ArchiveBreak { file: manifest::path(data_dir), line: Some(place.line), kind });
        match entry {
            Err(broken) => {
                books.unfinished = broken == LineBroken::Unfinished;
                tell(BreakKind::Line(broken));
                follows = false;
            }
            Ok(entry) => {
                if let Some(kind) = disagreement(&books, &entry, follows, &damaged) {
                    tell(kind);
                }
                follows = true;
                if let What::Damage(damage) = &entry.what {
                    tell(BreakKind::Damage(damage.clone()));
                }
                books.take(entry, &mut damaged);
            }
        }
    })?;
    Ok(books)
}

fn disagreement(books: &Books, entry: &Entry, follows: bool, damaged: &BTreeSet<u32>) -> Option<BreakKind> {
    let expected = books.entries() + 1;
    if follows && entry.head.number != expected {
        return Some(BreakKind::Number { expected, found: entry.head.number });
    }
    if follows && books.hash_of(expected - 1) != Some(entry.previous) {
        return Some(BreakKind::Chain);
    }
    if let What::File(file) = &entry.what
        && !is_path_of(file, entry.head.number)
    {
        return Some(BreakKind::Path);
    }
    if !follows {
        return None;
    }
    if let Some(shard) = broken_span(books, entry, damaged) {
        return Some(BreakKind::Span { shard });
    }
    let What::File(file) = &entry.what else { return None };
    let records: u64 = file.shards.iter().map(Span::records).fold(0, u64::saturating_add);
    let lost = file.shards.iter().any(|span| damaged.contains(&span.shard));
    (records != file.rows && !lost).then_some(BreakKind::Rows { expected: records, found: file.rows })
}

fn is_path_of(file: &FileEntry, number: u64) -> bool {
    file.path == publish::relative_path(file.since_us, number)
}

/// The first shard of which an entry says what does not fit.
fn broken_span(books: &Books, entry: &Entry, damaged: &BTreeSet<u32>) -> Option<u32> {
    let spans: BTreeMap<u32, &Span> = entry.what.spans().iter().map(|span| (span.shard, span)).collect();
    let after: BTreeMap<u32, &Position> = entry.positions.iter().map(|position| (position.shard, position)).collect();
    let lost = books.positions.keys().find(|shard| !after.contains_key(shard));
    let without = spans.keys().find(|shard| !after.contains_key(shard));
    let unlike = after.iter().find(|(shard, after)| {
        let before = books.positions.get(shard).copied().unwrap_or(Position::start(**shard));
        let back = (after.segment, after.frame, after.record) < (before.segment, before.frame, before.record);
        let fits = match spans.get(shard) {
            None => ***after == before,
            Some(span) => {
                let begins = (span.first_frame, span.first_record, span.before)
                    == (before.frame + 1, before.record + 1, before.hash);
                let ends = (span.last_frame, span.last_record, span.after) == (after.frame, after.record, after.hash);
                ends && (begins || damaged.contains(shard))
            }
        };
        back || !fits
    });
    lost.or(without).or(unlike.map(|(shard, _)| shard)).copied()
}

impl Books {
    fn take(&mut self, entry: Entry, damaged: &mut BTreeSet<u32>) {
        let number = entry.head.number;
        // Lines that did not hold leave their places empty; numbers out of order must not claim memory.
        if number > self.entries() && number <= self.entries() + 1024 {
            self.hashes.resize(number as usize, GENESIS);
        }
        if let Some(place) = self.hashes.get_mut((number as usize).wrapping_sub(1)) {
            *place = entry.head.hash;
        }
        for span in entry.what.spans() {
            damaged.remove(&span.shard);
            self.ends.entry(span.shard).or_default().insert(span.last_frame, span.after);
        }
        match entry.what {
            What::File(file) => {
                self.files.insert(number, file);
            }
            What::Damage(damage) => {
                damaged.insert(damage.shard);
            }
            What::Deleted { files, .. } => {
                self.deletions.insert(number, files);
            }
        }
        self.before = std::mem::replace(&mut self.positions, manifest::by_shard(&entry.positions));
    }

    /// What only a signed entry does: it removes files, and its records may have left the segments. `signed`: the greatest
    /// that a checkpoint names.
    pub fn settle(&mut self, signed: u64) {
        if self.entries() == signed.saturating_add(1) {
            self.positions.clone_from(&self.before);
        }
        for file in self.deletions.range(..=signed).flat_map(|(_, files)| files) {
            self.removed.extend(self.files.remove(&file.entry));
        }
    }
}

/// Is the file what its entry says? `None`: it is.
pub fn check_file(archive: &Path, file: &FileEntry, read: &AtomicU64) -> io::Result<Option<BreakKind>> {
    let path = archive.join(&file.path);
    if is_link(&path) || path.parent().is_some_and(is_link) {
        return Ok(Some(BreakKind::Link));
    }
    let mut opened = match crate::files::open(&path) {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Some(BreakKind::MissingFile));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Some(BreakKind::NotAFile)),
        Err(error) => return Err(at(&path, error)),
    };
    let found = opened.metadata().map_err(|error| at(&path, error))?.len();
    if found != file.bytes {
        return Ok(Some(BreakKind::Size { expected: file.bytes, found }));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let bytes = opened.read(&mut buffer).map_err(|error| at(&path, error))?;
        if bytes == 0 {
            break;
        }
        hasher.update(&buffer[..bytes]);
        read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    Ok((*hasher.finalize().as_bytes() != file.blake3).then_some(BreakKind::Content))
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

/// Files below `parquet/` that nothing accounts for.
pub fn surplus(archive: &Path, books: &Books) -> io::Result<Vec<PathBuf>> {
    let named: BTreeSet<PathBuf> =
        books.files.values().chain(&books.removed).map(|file| archive.join(&file.path)).collect();
    let root = publish::parquet_dir(archive);
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let mut surplus = Vec::new();
    for folder in publish::listed(&root)? {
        let files = if folder.is_dir() && !is_link(&folder) { publish::listed(&folder)? } else { vec![folder] };
        surplus.extend(files.into_iter().filter(|path| {
            // Just being published.
            !named.contains(path) && publish::number_of(path) != Some(books.entries() + 1)
        }));
    }
    Ok(surplus)
}
