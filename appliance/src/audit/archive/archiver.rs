//! The archiver: follows every shard's segments and publishes what they hold as Parquet files, each entered in the manifest.
//!
//! ```text
//! segments -> Follower (one a shard) -> Merge (by time) -> OpenFile -> fsync, rename -> manifest line -> checkpoint
//! ```
//!
//! It holds no state that matters: killed anywhere, it goes on behind the manifest's last entry. After an error it does
//! the same, a little later.

use super::checkpoint::{Checkpoints, Promise};
use super::deliver::{Copies, Deliverers, Delivery, Destination};
use super::key::KeySource;
use super::lines::Head;
use super::manifest::{self, DamageEntry, Manifest, Position, Span, What};
use super::merge::{Merge, Next};
use super::mirror::Mirror;
use super::publish::{self, OpenFile};
use super::retention::Retention;
use super::status::{Status, unix_us};
use crate::audit::reader::Damage;
use crate::audit::segment::{self, at};
use crate::files;
use crate::lull::Lull;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Between two looks at shards that had nothing to say: each begins with cold caches, and rings that hold seconds can wait.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same where a ring may be full by then.
const LOOK_EVERY_SMALL: Duration = Duration::from_millis(50);
/// A ring of so many bytes is not full within a look, however fast its shard writes.
const RING_LARGE: u64 = 256 << 20;
/// After an error.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Another archiver may be on its way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Records taken between two looks at the clock.
const RECORDS_PER_TURN: usize = 16 << 10;
/// Records taken before another may have the core. Kernels that let a woken process wait until the running one has had its slice keep
/// statements waiting for milliseconds otherwise.
const RECORDS_PER_YIELD: usize = 256;
/// A file with less in it is small: it waits for more.
const SMALL_BYTES: u64 = 4 << 20;
const STATUS_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct ArchiverOptions {
    pub data_dir: PathBuf,
    /// A file closes when its records took this much in their segments,
    pub file_bytes: u64,
    /// or at this age,
    pub file_age: Duration,
    /// or at this one when it is small.
    pub small_file_age: Duration,
    /// How long a record may take to become visible behind one of another shard.
    pub slack: Duration,
    /// Of the ring: a file closes early when its segments are needed.
    pub segments_per_shard: u32,
    pub checkpoint_key: KeySource,
    pub checkpoint_copies: Vec<Destination>,
    /// An object store that gets the archive as well, and the file with its credentials (else: the environment).
    pub archive_url: Option<String>,
    pub archive_credentials_file: Option<PathBuf>,
    /// How long records are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// Gives back memory that only a start, and beginning or publishing a file, has use for.
    pub let_go: fn(),
}

impl ArchiverOptions {
    /// Of an archiver that runs until it is done: files close by their size alone.
    pub fn by_size(data_dir: &Path, file_bytes: u64) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            data_dir: data_dir.to_owned(),
            file_bytes,
            file_age: HOUR,
            small_file_age: HOUR,
            slack: Duration::ZERO,
            segments_per_shard: 100,
            checkpoint_key: KeySource::File(data_dir.join("checkpoint.key")),
            checkpoint_copies: Vec::new(),
            archive_url: None,
            archive_credentials_file: None,
            retention: None,
            let_go: || {},
        }
    }
}

/// Tells a running archiver to finish.
#[derive(Clone, Debug, Default)]
pub struct Finish(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    /// Unix microseconds; 0: not yet.
    at_us: AtomicI64,
    /// Who waits between two looks.
    waits: Mutex<Option<Thread>>,
}

impl Finish {
    /// Everything recorded until now is to be archived, then it ends.
    pub fn ask(&self) {
        self.0.at_us.store(unix_us(), Ordering::Release);
        if let Some(thread) = &*self.0.waits.lock().expect("nobody panics with it") {
            thread.unpark();
        }
    }

    pub fn is_asked(&self) -> bool {
        self.asked_us().is_some()
    }

    /// Waits so long, or until it is asked.
    fn wait(&self, time: Duration) {
        *self.0.waits.lock().expect("nobody panics with it") = Some(std::thread::current());
        if !self.is_asked() {
            std::thread::park_timeout(time);
        }
    }

    fn asked_us(&self) -> Option<i64> {
        Some(self.0.at_us.load(Ordering::Acquire)).filter(|&asked_us| asked_us != 0)
    }
}

/// Runs until it is asked to finish. Every error is reported and tried again; what cannot be tried is returned.
pub fn run(options: &ArchiverOptions, finish: &Finish) -> io::Result<()> {
    publish::make_dir(&segment::archive_dir(&options.data_dir))?;
    let mut lock = Lock::take(options, LOCK_PATIENCE)?;
    let mut status = Status { pid: std::process::id(), ..Status::default() };
    // Dropped at the end, behind the last checkpoint.
    let copies = deliverers(options)?;
    // The last checkpoint that we wrote.
    let mut left = None;
    loop {
        let opened = lock.look_again(options).and_then(|()| Archiver::open_behind(options, &mut status, left));
        let ended = opened.and_then(|mut archiver| {
            let ended = archiver.follow(finish, &copies, &lock);
            left = Some(archiver.checkpoints.head());
            ended
        });
        let Err(error) = ended else { return Ok(()) };
        status.failed(segment::list_shards(&options.data_dir).unwrap_or_default());
        if status.error.replace(error.to_string()).as_deref() != Some(&*error.to_string()) {
            tracing::error!("the archiver has to try again: {error}");
        }
        status.time_us = unix_us();
        let _ = status.write(&options.data_dir);
        if finish.asked_us().is_some() {
            return Err(error);
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

fn deliverers(options: &ArchiverOptions) -> io::Result<Deliverers> {
    let mut deliverers = Deliverers::default();
    for destination in &options.checkpoint_copies {
        let delivery = Arc::<Delivery>::default();
        let copies = Copies::new(&options.data_dir, destination.clone(), delivery.clone())?;
        deliverers.start(&options.data_dir, Box::new(copies), delivery)?;
    }
    if let Some(address) = &options.archive_url {
        let delivery = Arc::<Delivery>::default();
        let credentials = options.archive_credentials_file.as_deref();
        let mirror = Mirror::new(&options.data_dir, address, credentials, delivery.clone());
        deliverers.start(&options.data_dir, Box::new(mirror), delivery)?;
    }
    Ok(deliverers)
}

/// Nobody else archives for as long as we have it, and it has its name.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(options: &ArchiverOptions, patience: Duration) -> io::Result<Self> {
        let path = segment::archive_dir(&options.data_dir).join("lock");
        let file =
            files::lock(&path, patience, "another archiver is at work here").map_err(|error| at(&path, error))?;
        Ok(Self { file, path })
    }

    /// One that was removed keeps nobody out.
    fn look(&self) -> io::Result<()> {
        let gone = "was removed or replaced: another archiver may be at work here";
        files::must_be_called(&self.file, &self.path, gone).map_err(|error| at(&self.path, error))
    }

    /// After an error. (Where there is no archive any more, what else is missed says more.)
    fn look_again(&mut self, options: &ArchiverOptions) -> io::Result<()> {
        if self.look().is_err() && segment::archive_dir(&options.data_dir).is_dir() {
            *self = Self::take(options, Duration::ZERO)?;
        }
        Ok(())
    }
}

/// One run between two errors.
pub struct Archiver<'a> {
    options: &'a ArchiverOptions,
    archive: PathBuf,
    status: &'a mut Status,
    status_written: Option<Instant>,
    manifest: Manifest,
    checkpoints: Checkpoints,
    merge: Merge,
    /// By shard, what was promised before we came and has not been read yet: promised again until it is.
    owed: BTreeMap<u32, Promise>,
    file: Option<OpenFile>,
    /// Since when something waits to be published.
    waiting_since: Option<Instant>,
    /// Damage the manifest tells of already.
    known: HashSet<(u32, u64, u64, String)>,
    /// `None`: everything is kept.
    retention: Option<Retention>,
}

impl<'a> Archiver<'a> {
    pub fn open(options: &'a ArchiverOptions, status: &'a mut Status) -> io::Result<Self> {
        Self::open_behind(options, status, None)
    }

    /// `left`: the last checkpoint that this process wrote. Without it, this is not the archive that we left, and nothing is signed.
    fn open_behind(options: &'a ArchiverOptions, status: &'a mut Status, left: Option<Head>) -> io::Result<Self> {
        let archive = segment::archive_dir(&options.data_dir);
        let checkpoints = Checkpoints::open_behind(&options.data_dir, &options.checkpoint_key, left)?;
        // Before anything is removed or signed: is this the manifest that we left?
        let manifest = Manifest::open(&options.data_dir, checkpoints.signed().map(|signed| signed.manifest))?;
        if checkpoints.signed().is_none() && manifest.head() != Head::START {
            tracing::warn!(
                "a new chain of checkpoints begins over {} entries that none has signed",
                manifest.head().number
            );
        }
        for path in publish::clean(&archive, manifest.head().number + 1)? {
            // Later ones are our own, of an attempt that failed: that is told by its error.
            if left.is_none() {
                tracing::info!(file = %path.display(), "left unfinished by a stop, made again");
            }
        }
        let known = known_damage(options, manifest.head());
        let archived = |shard: &u32| manifest.positions().get(shard).map_or(0, |position| position.frame);
        let promised = checkpoints.promised().iter().map(|promise| (promise.shard, *promise));
        let owed: BTreeMap<_, _> = promised.filter(|(shard, promise)| promise.frame > archived(shard)).collect();
        let merge = Merge::new(options.data_dir.clone(), manifest.positions(), &owed);
        let retention = options.retention.map(|keep| Retention::new(options.data_dir.clone(), keep));
        let (file, waiting_since, status_written) = (None, None, None);
        let mut archiver = Self {
            options,
            archive,
            status,
            status_written,
            manifest,
            checkpoints,
            merge,
            owed,
            file,
            waiting_since,
            known,
            retention,
        };
        archiver.checkpoint()?;
        Ok(archiver)
    }

    fn follow(&mut self, finish: &Finish, copies: &Deliverers, lock: &Lock) -> io::Result<()> {
        let mut lull = Lull::after_start(Instant::now());
        loop {
            lock.look()?;
            self.look()?;
            self.status.copy_failures = copies.failures();
            copies.written(self.checkpoints.head().number);
            self.status.copies_behind_since_us = copies.behind_since_us();
            let asked_us = finish.asked_us();
            let slack_us = self.options.slack.as_micros() as i64;
            let until_us = asked_us.map_or_else(|| unix_us() - slack_us, |asked_us| asked_us + slack_us);
            self.merge.look()?;
            let more = self.turn(until_us)?;
            if self.is_due() {
                self.publish()?;
            }
            if self.retention.as_ref().is_some_and(Retention::is_due) {
                self.delete_old()?;
            }
            if asked_us.is_some() && !more {
                self.publish()?;
                self.checkpoint()?;
                copies.written(self.checkpoints.head().number);
                return self.tell();
            }
            self.tick()?;
            // Files that were begun and files that were published.
            let files = 2 * self.status.files + u64::from(self.file.is_some());
            if lull.has_come(files, Instant::now()) {
                (self.options.let_go)();
            }
            if !more {
                finish.wait(self.look_every());
            }
        }
    }

    /// What we write is found by those who read. An archive that is moved away, unmounted or replaced under us takes every write.
    fn look(&self) -> io::Result<()> {
        self.manifest.look()?;
        self.checkpoints.look()
    }

    /// Takes records up to a time, or many of them. `Ok(true)`: there are more.
    fn turn(&mut self, until_us: i64) -> io::Result<bool> {
        for taken in 1..=RECORDS_PER_TURN {
            if taken.is_multiple_of(RECORDS_PER_YIELD) {
                std::thread::yield_now();
            }
            match self.merge.next(until_us) {
                Next::Nothing => return Ok(false),
                Next::Damage(damage) => {
                    self.note(&damage)?;
                    // What follows it has waited for that.
                    self.merge.look()?;
                }
                Next::Record { shard, time_us } => self.take(shard, time_us)?,
            }
            if self.file.as_ref().is_some_and(|file| file.raw_bytes >= self.options.file_bytes) {
                break;
            }
        }
        Ok(true)
    }

    fn take(&mut self, shard: u32, time_us: i64) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|file| file.day < publish::day(time_us)) {
            // Frames that were begun are finished with it: what comes next may be another record.
            self.publish()?;
            return self.merge.look();
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                self.waiting_since = Some(Instant::now());
                let number = self.manifest.head().number + 1;
                self.file.insert(OpenFile::create(&self.archive, number, time_us)?)
            }
        };
        self.merge.take(shard, |taken| file.append(taken))
    }

    fn is_due(&self) -> bool {
        let (Some(file), Some(since)) = (&self.file, self.waiting_since) else { return false };
        let small = file.raw_bytes < SMALL_BYTES;
        let age = if small { self.options.small_file_age } else { self.options.file_age };
        file.raw_bytes >= self.options.file_bytes || since.elapsed() >= age || self.ring_needs_room()
    }

    fn look_every(&self) -> Duration {
        let ring_bytes = self.merge.segment_bytes().saturating_mul(self.options.segments_per_shard.into());
        if ring_bytes < RING_LARGE { LOOK_EVERY_SMALL } else { LOOK_EVERY }
    }

    /// Half the ring of a shard waits for its records to be published.
    fn ring_needs_room(&self) -> bool {
        let segments_max = u64::from((self.options.segments_per_shard / 2).max(1));
        let published = |shard| self.manifest.positions().get(&shard).map_or(1, |position| position.segment);
        self.merge.taken().any(|taken| taken.segment.saturating_sub(published(taken.shard)) >= segments_max)
    }

    /// Publishes what was taken: the file, then its entry, then a checkpoint that names it.
    fn publish(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        self.look()?;
        self.merge.finish_frames(|taken| file.append(taken))?;
        // What a power cut could still take back must not be archived.
        self.merge.sync()?;
        let (spans, moved) = self.moved();
        let entry = file.publish(&self.archive, &spans)?;
        let (bytes, records) = (entry.bytes, entry.rows);
        tracing::debug!(path = entry.path, bytes, records, "published");
        self.manifest.append(unix_us(), &What::File(entry), &moved)?;
        self.status.files += 1;
        self.status.bytes += bytes;
        self.status.records += records;
        self.waiting_since = None;
        self.checkpoint()
    }

    /// What the shards have moved by since the last entry.
    fn moved(&self) -> (Vec<Span>, Vec<Position>) {
        let mut spans = Vec::new();
        let mut moved = Vec::new();
        for taken in self.merge.taken() {
            let before = self.manifest.positions().get(&taken.shard).copied();
            if let Some(span) = Span::between(&before.unwrap_or(Position::start(taken.shard)), &taken) {
                spans.push(span);
                moved.push(taken);
            }
        }
        (spans, moved)
    }

    /// Damage is entered once; what precedes it is published first.
    fn note(&mut self, damage: &Damage) -> io::Result<()> {
        let entry = DamageEntry {
            shard: damage.shard,
            segment: damage.segment,
            offset: damage.offset,
            frame: damage.frame,
            file: damage.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            what: damage.kind.to_string(),
        };
        if !self.known.insert(key_of(&entry)) {
            return Ok(());
        }
        tracing::error!("the trail is damaged, archiving goes on behind it: {damage}");
        self.status.damages += 1;
        self.publish()?;
        self.manifest.append(unix_us(), &What::Damage(entry), &[])?;
        // What is written down needs no promise any more.
        let read = self.merge.read().find(|read| read.shard == damage.shard).map_or(0, |read| read.frame);
        self.owed.retain(|&shard, owed| shard != damage.shard || owed.frame > read);
        self.checkpoint()
    }

    fn delete_old(&mut self) -> io::Result<()> {
        let cannot = |error: io::Error| tracing::error!("old archive files cannot be deleted: {error}");
        let (now_us, head, holds) = (unix_us(), self.manifest.head(), self.checkpoints.signed_holds());
        let doubt = self.checkpoints.doubt(now_us);
        if self.retention.as_mut().is_none_or(|retention| retention.waits(doubt)) {
            return Ok(());
        }
        // After an error nothing is deleted, and archiving goes on.
        match self.retention.as_mut().map_or(Ok(false), |retention| retention.judge(now_us, head, holds)) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                cannot(error);
                return Ok(());
            }
        }
        // What is published now keeps its number: an entry about deleted files comes behind it.
        self.publish()?;
        self.merge.sync()?;
        let (entered, promises, holds) = (self.manifest.head(), self.promises(), self.checkpoints.signed_holds());
        let (retention, checkpoints) = (self.retention.as_mut().expect("it has judged"), &mut self.checkpoints);
        let mut seal = |manifest: &Manifest, holds| {
            checkpoints.name_holds(holds);
            checkpoints.write(unix_us(), manifest.head(), &promises)
        };
        match retention.delete(now_us, &mut self.manifest, holds, &mut seal) {
            // It is entered and not signed: nothing may be entered behind it.
            Err(error) if self.manifest.head() != entered => Err(error),
            deleted => {
                deleted.map_or_else(cannot, drop);
                Ok(())
            }
        }
    }

    fn promises(&mut self) -> Vec<Promise> {
        let read = self.merge.read().filter_map(|position| Promise::of(&position));
        let mut promises: BTreeMap<u32, Promise> = read.map(|promise| (promise.shard, promise)).collect();
        let merge = &self.merge;
        self.owed.retain(|&shard, _| !merge.has_met(shard));
        promises.extend(self.owed.iter().map(|(&shard, &owed)| (shard, owed)));
        promises.into_values().collect()
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        self.merge.sync()?;
        let promises = self.promises();
        self.status.checkpoints += 1;
        self.checkpoints.write(unix_us(), self.manifest.head(), &promises)
    }

    fn tick(&mut self) -> io::Result<()> {
        let promises = self.promises();
        let (now_us, head) = (unix_us(), self.manifest.head());
        if self.checkpoints.tick(now_us, head, &promises, || self.merge.sync())? {
            self.status.checkpoints += 1;
        }
        if self.status_written.is_none_or(|written| written.elapsed() >= STATUS_EVERY) {
            self.tell()?;
        }
        Ok(())
    }

    fn tell(&mut self) -> io::Result<()> {
        self.status_written = Some(Instant::now());
        self.status.time_us = unix_us();
        if self.status.error.take().is_some() {
            tracing::info!("the archiver is at work again");
        }
        self.status.well_us = self.status.time_us;
        self.status.behind_since_us = BTreeMap::new();
        for (shard, time_us) in self.merge.heads() {
            self.status.behind_since_us.insert(shard, time_us);
        }
        // News that cannot be told stop nobody.
        let _ = self.status.write(&self.options.data_dir);
        Ok(())
    }
}

#[cfg(test)]
impl Archiver<'_> {
    pub fn promise(&mut self) {
        self.merge.look().unwrap();
        self.turn(i64::MAX).unwrap();
        self.checkpoint().unwrap();
        self.tick().unwrap();
        self.checkpoint().unwrap();
    }

    /// Takes all there is and publishes it but for the last steps: 0 nothing, 1 a file below `tmp/`, 2 it has its name,
    /// 3 it is entered.
    pub fn publish_up_to(&mut self, step: usize) {
        self.merge.look().unwrap();
        let Some(mut file) = self.turn(i64::MAX).ok().and_then(|_| self.file.take()).filter(|_| step > 0) else {
            return;
        };
        if step == 1 {
            return;
        }
        self.merge.finish_frames(|taken| file.append(taken)).unwrap();
        let (spans, moved) = self.moved();
        let entry = file.publish(&self.archive, &spans).unwrap();
        if step == 3 {
            self.manifest.append(unix_us(), &What::File(entry), &moved).unwrap();
        }
    }
}

fn key_of(entry: &DamageEntry) -> (u32, u64, u64, String) {
    (entry.shard, entry.segment, entry.offset, entry.what.clone())
}

fn known_damage(options: &ArchiverOptions, head: Head) -> HashSet<(u32, u64, u64, String)> {
    let mut known = HashSet::new();
    let collected = manifest::each_up_to(&options.data_dir, head, &mut |entry| {
        if let What::Damage(damage) = entry.what {
            known.insert(key_of(&damage));
        }
    });
    // Told twice is better than not at all.
    if let Err(error) = collected {
        known.clear();
        tracing::error!("the manifest is not what was signed, `lockgate audit verify` tells more: {error}");
    }
    known
}
