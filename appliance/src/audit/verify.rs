//! Proof that a trail is what was written: every byte of every segment along the chain of its shard, the manifest with
//! every Parquet file, and the signed checkpoints.
//!
//! Order matters, for a trail that grows meanwhile: checkpoints and manifest as they were at one moment, then what both of them
//! promise, and what is missing by then is excused by what was signed since.

use super::archive::check::{self, ArchiveBreak, Books};
use super::archive::check_signed::{self, Limits, Promises, Signed};
use super::archive::key::PublicKey;
use super::archive::manifest::{self, FileEntry, Position, What};
use super::archive::publish;
use super::frame::FrameHeader;
use super::reader::{Damage, DamageKind};
use super::segment::{self, SegmentFile};
use super::trail::{Advance, ChainReader};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a live gateway or archiver gets to finish the last frame or line.
const UNFINISHED_LOOKS: u32 = 50;
const UNFINISHED_PAUSE: Duration = Duration::from_millis(10);
/// For a moment in which no checkpoint is written: there are many in a second.
const MOMENT_LOOKS: u32 = 1000;

/// What to check, and against what.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub data_dir: PathBuf,
    /// Public keys that are vouched for. None: the first key met is believed.
    pub keys: Vec<PublicKey>,
    /// Files of checkpoints that were kept elsewhere, in their order.
    pub elsewhere: Vec<PathBuf>,
    /// Nobody is writing: nothing is waited for, and breaks come in the order of shards.
    pub still: bool,
}

impl Options {
    fn looks(&self) -> u32 {
        if self.still { 0 } else { UNFINISHED_LOOKS }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Break {
    Segment(Damage),
    Archive(ArchiveBreak),
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(damage) => damage.fmt(f),
            Self::Archive(broken) => broken.fmt(f),
        }
    }
}

/// What was found to hold.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    pub shard: u32,
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    /// File bytes looked at.
    pub bytes: u64,
    /// Unix microseconds of the earliest and the latest frame.
    pub times: Option<(i64, i64)>,
    pub breaks: u64,
}

#[derive(Clone, Debug, Default)]
pub struct ArchiveReport {
    pub entries: u64,
    pub files: u64,
    pub records: u64,
    pub bytes: u64,
    pub checkpoints: u64,
    pub last_checkpoint_us: Option<i64>,
    /// Keys that signed checkpoints.
    pub keys: Vec<PublicKey>,
    pub breaks: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub shards: Vec<ShardReport>,
    /// `None`: nothing was ever archived.
    pub archive: Option<ArchiveReport>,
}

impl Report {
    pub fn breaks(&self) -> u64 {
        let shards: u64 = self.shards.iter().map(|shard| shard.breaks).sum();
        shards + self.archive.as_ref().map_or(0, |archive| archive.breaks)
    }

    pub fn bytes(&self) -> u64 {
        let shards: u64 = self.shards.iter().map(|shard| shard.bytes).sum();
        shards + self.archive.as_ref().map_or(0, |archive| archive.bytes)
    }
}

/// Bytes read so far, for whoever shows it, and all there are.
#[derive(Debug, Default)]
pub struct Progress {
    pub read: AtomicU64,
    pub all: AtomicU64,
}

/// Checks everything. Every break is handed out as it is met, from several threads, one at a time.
pub fn verify_all(
    options: &Options,
    progress: &Progress,
    broken: &mut (dyn FnMut(&Break) + Send),
) -> io::Result<Report> {
    let data_dir = &options.data_dir;
    let broken = Mutex::new(broken);
    let mut tally = Tally { broken: &broken, breaks: 0 };
    let (mut books, promises, here) = read_chain(options, &mut tally)?;
    books.settle(promises.manifest.number);
    let later = Later { options, promises: &promises, read: here, seen: Mutex::new(None) };
    let archive = segment::archive_dir(data_dir);
    for file in check::surplus(&archive, &books)? {
        let path = file.strip_prefix(&archive).unwrap_or(&file).to_string_lossy().into_owned();
        // It may have been published since the manifest was read, or be just about to; what is signed by less than we read says nothing of it.
        let about_to_be =
            |now: &Now| now.entries >= books.entries() && publish::number_of(&file) == Some(now.entries + 1);
        if !later.excuses(|now| now.published.contains(&path) || about_to_be(now))? {
            tally.found(ArchiveBreak { file, line: None, kind: check::BreakKind::Surplus });
        }
    }
    let threads = if options.still { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let (books_of, promises_of, looks) = (&books, &promises, options.looks());
    let work =
        Work { options, books: books_of, promises: promises_of, later, progress, broken: &broken, looks, threads };
    let (shards, more) = work.run()?;
    let report = ArchiveReport {
        entries: books.entries(),
        files: books.files.len() as u64,
        records: sum(books.files.values().map(|file| file.rows)),
        bytes: sum(books.files.values().map(|file| file.bytes)),
        checkpoints: promises.lines,
        last_checkpoint_us: promises.last_us,
        keys: promises.keys.clone(),
        breaks: tally.breaks + more,
    };
    let archived = report.entries > 0 || report.checkpoints > 0 || report.breaks > 0;
    Ok(Report { shards, archive: archived.then_some(report) })
}

/// Nobody vouches for the numbers in a manifest.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// What is broken in segments alone.
pub fn verify(data_dir: &Path, broken: &mut (dyn FnMut(&Damage) + Send)) -> io::Result<Vec<ShardReport>> {
    verify_segments(Options { data_dir: data_dir.to_owned(), ..Options::default() }, broken)
}

/// The same where nobody is writing: nothing is waited for, and breaks come shard by shard.
pub fn verify_still(data_dir: &Path, broken: &mut (dyn FnMut(&Damage) + Send)) -> io::Result<Vec<ShardReport>> {
    verify_segments(Options { data_dir: data_dir.to_owned(), still: true, ..Options::default() }, broken)
}

fn verify_segments(options: Options, broken: &mut (dyn FnMut(&Damage) + Send)) -> io::Result<Vec<ShardReport>> {
    let mut of_segments = |found: &Break| match found {
        Break::Segment(damage) => broken(damage),
        Break::Archive(_) => {}
    };
    Ok(verify_all(&options, &Progress::default(), &mut of_segments)?.shards)
}

/// Hands out breaks and counts them.
struct Tally<'a, 'b> {
    broken: &'a Mutex<&'b mut (dyn FnMut(&Break) + Send)>,
    breaks: u64,
}

impl Tally<'_, '_> {
    fn found(&mut self, broken: ArchiveBreak) {
        self.breaks += 1;
        tell(self.broken, &Break::Archive(broken));
    }
}

fn tell(broken: &Mutex<&mut (dyn FnMut(&Break) + Send)>, found: &Break) {
    (broken.lock().expect("whoever prints does not panic"))(found);
}

/// Checkpoints and manifest of one moment: no checkpoint is written between the ends of both, so at most one entry is not signed.
fn read_chain(options: &Options, tally: &mut Tally<'_, '_>) -> io::Result<(Books, Promises, Limits)> {
    let mut looks = 0;
    loop {
        // Those elsewhere first: what is there by now was here before.
        let elsewhere = check_signed::limits(options.elsewhere.clone())?;
        let here = check_signed::here(&options.data_dir)?;
        let limit = manifest::path(&options.data_dir).metadata().map_or(0, |metadata| metadata.len());
        let mut again = looks < MOMENT_LOOKS && check_signed::here(&options.data_dir)? != here;
        let mut found = Vec::new();
        if !again {
            let books = check::read_manifest(&options.data_dir, limit, &mut |broken| found.push(broken))?;
            let signed = Signed { books: &books, here: &here, elsewhere, keys: &options.keys };
            let promises = signed.check(&mut |broken| found.push(broken))?;
            check_signed::check_holds(&options.data_dir, &promises, &mut |broken| found.push(broken))?;
            // A line that is just being written is waited for.
            let unfinished = check::BreakKind::Line(super::archive::lines::LineBroken::Unfinished);
            again = found.iter().any(|broken| broken.kind == unfinished);
            if !again || looks >= options.looks() {
                found.into_iter().for_each(|broken| tally.found(broken));
                return Ok((books, promises, here));
            }
        }
        looks += 1;
        std::thread::sleep(UNFINISHED_PAUSE);
    }
}

/// What was done on purpose while we read. It excuses what is missing by now, so it is proved like the rest: signed by lines that
/// continue those which were read, and its entries from the first one on.
struct Later<'a> {
    options: &'a Options,
    promises: &'a Promises,
    /// How far the checkpoints were read.
    read: Limits,
    /// As of how far they went then. `None` in it: it does not hold.
    seen: Mutex<Option<(Limits, Option<Now>)>>,
}

struct Now {
    entries: u64,
    /// Paths of all files that were published, and of those that were deleted.
    published: BTreeSet<String>,
    deleted: BTreeSet<String>,
    positions: BTreeMap<u32, Position>,
}

impl Later<'_> {
    fn excuses(&self, excuse: impl Fn(&Now) -> bool) -> io::Result<bool> {
        if self.options.still {
            return Ok(false);
        }
        let here = check_signed::here(&self.options.data_dir)?;
        let mut seen = self.seen.lock().expect("nobody panics with it");
        if seen.as_ref().is_none_or(|(then, _)| *then != here) {
            let now = self.look(&here);
            *seen = Some((here, now));
        }
        Ok(seen.as_ref().and_then(|(_, now)| now.as_ref()).is_some_and(excuse))
    }

    fn look(&self, here: &Limits) -> Option<Now> {
        let head = check_signed::signed_since(self.promises, &self.read, here).ok()??;
        let (mut published, mut deleted, mut positions) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let walked = manifest::each_up_to(&self.options.data_dir, head, &mut |entry| {
            positions = manifest::by_shard(&entry.positions);
            match entry.what {
                What::File(file) => drop(published.insert(file.path)),
                What::Deleted { files, .. } => deleted.extend(files.into_iter().map(|file| file.path)),
                What::Damage(_) => {}
            }
        });
        walked.ok().map(|()| Now { entries: head.number, published, deleted, positions })
    }
}

/// The long part: shards and files, on as many threads as there are processors.
struct Work<'a, 'b> {
    options: &'a Options,
    books: &'a Books,
    promises: &'a Promises,
    later: Later<'a>,
    progress: &'a Progress,
    broken: &'a Mutex<&'b mut (dyn FnMut(&Break) + Send)>,
    /// At a frame that is not whole, before it is called damaged.
    looks: u32,
    threads: usize,
}

enum Task<'a> {
    Shard(u32),
    File(&'a FileEntry),
    /// One that was deleted.
    Removed(&'a FileEntry),
}

enum Done {
    Shard(ShardReport),
    Broken,
    Well,
}

impl Work<'_, '_> {
    /// Reports of the shards, and how many files are broken.
    fn run(&self) -> io::Result<(Vec<ShardReport>, u64)> {
        let tasks = Mutex::new(self.tasks()?);
        let results = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    // Its own statement: the lock is not held while the task is worked at.
                    let next = || tasks.lock().expect("nobody panics with it").pop();
                    while let Some(task) = next() {
                        let done = self.work(&task);
                        results.lock().expect("nobody panics with it").push(done);
                    }
                });
            }
        });
        let (mut shards, mut broken) = (Vec::new(), 0);
        for done in results.into_inner().expect("nobody panics with it") {
            match done? {
                Done::Shard(report) => shards.push(report),
                Done::Broken => broken += 1,
                Done::Well => {}
            }
        }
        shards.sort_by_key(|report| report.shard);
        Ok((shards, broken))
    }

    /// Taken from the end: shards first, as each is one long task.
    fn tasks(&self) -> io::Result<Vec<Task<'_>>> {
        let mut shards: BTreeSet<u32> = segment::list_shards(&self.options.data_dir)?;
        shards.extend(self.books.positions.keys());
        shards.extend(self.promises.greatest.keys());
        let files = sum(self.books.files.values().map(|file| file.bytes));
        let chains = segment::list(&self.options.data_dir)?;
        let segments = chains.values().flat_map(BTreeMap::values).filter_map(|file| file.path.metadata().ok());
        let segments: u64 = segments.map(|metadata| metadata.len()).sum();
        self.progress.all.store(files + segments, Ordering::Relaxed);
        let files = self.books.files.values().rev().map(Task::File);
        let files = files.chain(self.books.removed.iter().map(Task::Removed));
        Ok(files.chain(shards.into_iter().rev().map(Task::Shard)).collect())
    }

    fn work(&self, task: &Task<'_>) -> io::Result<Done> {
        match task {
            Task::Shard(shard) => self.verify_shard(*shard).map(Done::Shard),
            Task::File(file) => self.verify_file(file, |later| later.excuses(|now| now.deleted.contains(&file.path))),
            Task::Removed(file) => self.verify_file(file, |_| Ok(true)),
        }
    }

    /// `may_be_missing`: asked when it is.
    fn verify_file(
        &self,
        file: &FileEntry,
        may_be_missing: impl Fn(&Later<'_>) -> io::Result<bool>,
    ) -> io::Result<Done> {
        let archive = segment::archive_dir(&self.options.data_dir);
        let Some(kind) = check::check_file(&archive, file, &self.progress.read)? else { return Ok(Done::Well) };
        if kind == check::BreakKind::MissingFile && may_be_missing(&self.later)? {
            return Ok(Done::Well);
        }
        tell(self.broken, &Break::Archive(ArchiveBreak { file: archive.join(&file.path), line: None, kind }));
        Ok(Done::Broken)
    }

    fn verify_shard(&self, shard: u32) -> io::Result<ShardReport> {
        let listed = segment::list_shard(&self.options.data_dir, shard)?;
        let mut report = ShardReport { shard, segments: listed.len() as u64, ..ShardReport::default() };
        for file in listed.values() {
            // One that has just left the ring counts all the same.
            report.bytes += file.path.metadata().map_or(0, |metadata| metadata.len());
        }
        let mut chain = self.chain(shard, &listed);
        self.verify_chain(&mut chain, &mut report)?;
        let position = self.books.positions.get(&shard).copied().unwrap_or(Position::start(shard));
        let end = chain.position().frame.max(position.frame);
        if let Some(&frame) = self.promises.greatest.get(&shard).filter(|&&greatest| greatest > end) {
            let segment = chain.position().segment.max(position.segment);
            let file = segment::ring_path(&segment::ring_dir(&self.options.data_dir, shard), segment);
            let offset = chain.position().offset;
            let kind = DamageKind::Promised { frame };
            self.found(Damage { file, shard, segment, offset, frame: Some(end + 1), kind }, &mut report);
        }
        Ok(report)
    }

    /// From the first segment there is, over gaps where all is archived.
    fn chain(&self, shard: u32, listed: &BTreeMap<u64, SegmentFile>) -> ChainReader {
        let data_dir = self.options.data_dir.clone();
        let mut proven: HashMap<u64, _> = self.promises.frames.get(&shard).cloned().unwrap_or_default();
        proven.extend(self.books.ends.get(&shard).into_iter().flatten());
        let chain = match self.books.positions.get(&shard) {
            None => ChainReader::whole(data_dir, shard),
            Some(position) => {
                let first = listed.keys().next().map_or(position.segment, |&number| number.min(position.segment));
                let first = first.max(1);
                ChainReader::from_segment(data_dir, shard, first).with_gaps_below(position.segment)
            }
        };
        chain.thorough().proven(proven)
    }

    fn found(&self, damage: Damage, report: &mut ShardReport) {
        report.breaks += 1;
        tell(self.broken, &Break::Segment(damage));
    }

    fn count_records(&self, chain: &ChainReader, header: &FrameHeader, report: &mut ShardReport) {
        if chain.records_hold() {
            report.records += u64::from(header.records);
            return;
        }
        let mut broken = None;
        for record in chain.records() {
            match record {
                Ok(_) => report.records += 1,
                Err(damage) => broken = Some(damage),
            }
        }
        broken.into_iter().for_each(|damage| self.found(damage, report));
    }

    fn verify_chain(&self, chain: &mut ChainReader, report: &mut ShardReport) -> io::Result<()> {
        let mut looks = 0;
        let mut seen = (0, 0);
        loop {
            match chain.advance()? {
                Advance::Frame(header) => {
                    looks = 0;
                    report.frames += 1;
                    let (first, last) = report.times.unwrap_or((header.time_us, header.time_us));
                    report.times = Some((first.min(header.time_us), last.max(header.time_us)));
                    self.count_records(chain, &header, report);
                    let place = (chain.number(), chain.position().offset);
                    let read = if place.0 == seen.0 { place.1.saturating_sub(seen.1) } else { place.1 };
                    self.progress.read.fetch_add(read, Ordering::Relaxed);
                    seen = place;
                }
                Advance::Damage(damage) if self.has_left(&damage)? => {}
                Advance::Damage(damage) => self.found(damage, report),
                Advance::End if chain.is_unfinished() && looks < self.looks => {
                    looks += 1;
                    std::thread::sleep(UNFINISHED_PAUSE);
                }
                Advance::End => {
                    chain.take_unfinished().into_iter().for_each(|damage| self.found(damage, report));
                    let Some(behind) = chain.behind()? else { continue };
                    behind.into_iter().for_each(|damage| self.found(damage, report));
                    return Ok(());
                }
            }
        }
    }

    /// A segment that is missing by now because its records have been published since we read the manifest.
    fn has_left(&self, damage: &Damage) -> io::Result<bool> {
        if damage.kind != DamageKind::MissingSegment {
            return Ok(false);
        }
        let there = segment::list_shard(&self.options.data_dir, damage.shard)?;
        // What is before the position may be gone; the position's own segment, or one before it, is the next there is.
        self.later.excuses(|now| {
            let position = now.positions.get(&damage.shard).map_or(0, |position| position.segment);
            damage.segment < position && there.range(damage.segment..=position).next().is_some()
        })
    }
}
