//! Lets sealed segments leave the rings and prepares the next ones ahead of time, on a thread of its own.

use super::archive::manifest;
use super::disk::{self, Disk, RealDisk};
use super::frame::is_zero;
use super::segment::{self, SegmentFile, Spare, at};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at the rings, each of which costs some 20 system calls a shard.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// No shard records more in a second. A segment is ready behind the one in use: it has to last until the next look.
const BYTES_PER_S: u64 = 512 << 20;
/// After an error: a full disk is not filled to the brim twenty times a second.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct SealerOptions {
    pub data_dir: PathBuf,
    pub shards: u32,
    pub segment_bytes: u64,
    pub segments_per_shard: u32,
    pub release: Release,
}

/// When a sealed segment leaves the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// It stays, and the ring fills.
    Never,
    /// At once: it is moved to the archive as it is.
    Sealed,
    /// When the archiver's manifest says that its records are published. It is removed, or moved to the archive: to `keep`
    /// it, or because it was found damaged.
    Published { keep: bool },
}

/// One look at every ring, by hand: what the thread does, and what tests call.
pub struct Keeper<D = RealDisk> {
    disk: D,
    options: SealerOptions,
    published: manifest::Follower,
    /// By shard: what was removed and will be a segment again.
    spares: BTreeMap<u32, Vec<Spare>>,
    trouble: SealerTrouble,
}

/// What keeps segments from being released or prepared, for whoever asks: then statements will block. `None`: nothing.
#[derive(Clone, Debug, Default)]
pub struct SealerTrouble(Arc<Mutex<Option<String>>>);

impl SealerTrouble {
    pub fn get(&self) -> Option<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    /// `true`: it was another one before.
    pub fn set(&self, trouble: Option<String>) -> bool {
        let mut held = self.0.lock().expect("nobody panics with it");
        let changed = *held != trouble;
        *held = trouble;
        changed
    }
}

impl Keeper {
    pub fn new(options: SealerOptions) -> Self {
        Self::on(RealDisk, options)
    }
}

impl<D: Disk> Keeper<D> {
    pub fn on(disk: D, options: SealerOptions) -> Self {
        Self {
            disk,
            published: manifest::Follower::new(options.data_dir.clone()),
            options,
            spares: BTreeMap::new(),
            trouble: SealerTrouble::default(),
        }
    }

    /// Releases what may go and prepares what is missing. `Ok(true)`: something was done.
    pub fn look(&mut self) -> io::Result<bool> {
        let mut done = false;
        if matches!(self.options.release, Release::Published { .. }) {
            self.published.poll()?;
        }
        for shard in 0..self.options.shards {
            done |= self.look_at(shard)?;
        }
        Ok(done)
    }

    fn look_at(&mut self, shard: u32) -> io::Result<bool> {
        let ring = segment::ring_dir(&self.options.data_dir, shard);
        let mut files = segment::list_ring(&ring, shard)?;
        let Some(active) = newest_in_use(&files)? else { return Ok(false) };
        let mut done = false;
        while files.first_key_value().is_some_and(|(&number, _)| number < active && self.may_go(shard, number)) {
            let (_, file) = files.pop_first().expect("just seen");
            self.release(&file, files.len())?;
            done = true;
        }
        let prepared = files.contains_key(&(active + 1));
        if !prepared && files.len() < self.options.segments_per_shard as usize {
            let (number, bytes) = (active + 1, self.options.segment_bytes);
            match self.take_spare(shard) {
                Some(spare) => spare.prepare(&self.disk, &ring, number, bytes)?,
                None => segment::prepare(&self.disk, &ring, number, bytes)?,
            };
            done = true;
        }
        Ok(done)
    }

    /// One that is still ours alone.
    fn take_spare(&mut self, shard: u32) -> Option<Spare> {
        while let Some(spare) = self.spares.get_mut(&shard)?.pop() {
            if spare.is_ours() {
                return Some(spare);
            }
            spare.discard(&self.disk);
        }
        None
    }

    fn may_go(&self, shard: u32, number: u64) -> bool {
        match self.options.release {
            Release::Never => false,
            Release::Sealed => true,
            Release::Published { .. } => self.published.is_archived(shard, number),
        }
    }

    /// `left`: how many files the ring has without it.
    fn release(&mut self, file: &SegmentFile, left: usize) -> io::Result<()> {
        let opened = crate::files::open(&file.path).map_err(|error| at(&file.path, error))?;
        let footer = segment::find_footer(&opened).map_err(|error| at(&file.path, error))?;
        let sound = footer.is_some() && !self.published.is_damaged(file.shard, file.number);
        if sound && self.options.release == (Release::Published { keep: false }) {
            return self.remove(file, left);
        }
        let name = match footer {
            Some((footer, hash)) => segment::archived_name(file.shard, file.number, &footer, &hash),
            None => segment::damaged_name(file.shard, file.number),
        };
        self.archive(file, &opened, &name)
    }

    /// Out of the ring, and kept for the next segment: ring and spares are never more files than the ring may have.
    fn remove(&mut self, file: &SegmentFile, left: usize) -> io::Result<()> {
        let spares = self.spares.entry(file.shard).or_default();
        if left + spares.len() < self.options.segments_per_shard as usize {
            let spare = Spare::from_segment(&self.disk, &file.path, self.options.segment_bytes);
            if let Some(spare) = spare.map_err(|error| at(&file.path, error))? {
                spares.push(spare);
                return Ok(());
            }
        }
        self.disk.remove(&file.path).map_err(|error| at(&file.path, error))?;
        disk::sync_dir(&self.disk, file.path.parent().expect("a file in the ring"))
    }

    /// Onto stable storage, then out of the ring under its final name, both directories synced.
    fn archive(&self, file: &SegmentFile, opened: &File, name: &str) -> io::Result<()> {
        self.disk.sync_all(opened).map_err(|error| at(&file.path, error))?;
        let archive = segment::archive_dir(&self.options.data_dir);
        let path = archive.join(name);
        if path.exists() {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "is there already; nothing is overwritten");
            return Err(at(&path, error));
        }
        self.disk.rename(&file.path, &path).map_err(|error| at(&path, error))?;
        disk::sync_dir(&self.disk, &archive)?;
        disk::sync_dir(&self.disk, file.path.parent().expect("a file in the ring"))
    }

    fn report(&self, error: &io::Error) {
        let text = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("no room on disk for the next audit segment, statements will block until there is: {error}")
            }
            _ => format!(
                "audit segments cannot be archived or prepared, statements will block when the ring is full: {error}"
            ),
        };
        if self.trouble.set(Some(text.clone())) {
            tracing::error!("{text}");
        }
    }
}

/// The highest segment with a header; those before it are complete.
fn newest_in_use(files: &BTreeMap<u64, SegmentFile>) -> io::Result<Option<u64>> {
    for (&number, file) in files.iter().rev() {
        let opened = crate::files::open(&file.path).map_err(|error| at(&file.path, error))?;
        if !is_zero(&segment::read_header(&opened).map_err(|error| at(&file.path, error))?) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn look_every(segment_bytes: u64) -> Duration {
    Duration::from_secs_f64(segment_bytes as f64 / BYTES_PER_S as f64).clamp(LOOK_EVERY.0, LOOK_EVERY.1)
}

/// The disk until the thread is told to stop: nobody needs the segment any more that it is filling then.
struct UntilTold(Arc<AtomicBool>);

impl Disk for UntilTold {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the gateway stops"));
        }
        RealDisk.write_all_at(file, bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        RealDisk.sync_data(file)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        RealDisk.sync_all(file)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        RealDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        RealDisk.make_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

/// The thread. Dropping it ends it after the look it is at; a segment that it is filling is given up.
pub struct Sealer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub trouble: SealerTrouble,
}

impl Sealer {
    /// Start it after the writers are open: it prepares nothing in a ring that was never used.
    pub fn start(options: SealerOptions) -> io::Result<Self> {
        let look_every = look_every(options.segment_bytes);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut keeper = Keeper::on(UntilTold(told.clone()), options);
        let trouble = keeper.trouble.clone();
        let thread = std::thread::Builder::new().name("audit-sealer".into()).spawn(move || {
            while !told.load(Ordering::Acquire) {
                let pause = match keeper.look() {
                    Ok(_) => {
                        if keeper.trouble.set(None) {
                            tracing::info!("audit segments are prepared and released again");
                        }
                        look_every
                    }
                    Err(_) if told.load(Ordering::Acquire) => break,
                    Err(error) => {
                        keeper.report(&error);
                        LOOK_AGAIN
                    }
                };
                std::thread::park_timeout(pause);
            }
        })?;
        Ok(Self { stop, thread: Some(thread), trouble })
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the audit sealer panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_of_large_segments_are_looked_at_more_rarely() {
        let millis = |mib: u64| look_every(mib << 20).as_millis();
        assert_eq!((millis(1), millis(64), millis(128), millis(4096)), (50, 125, 250, 250));
    }

    #[test]
    fn a_segment_that_is_being_filled_is_given_up_when_the_thread_is_told_to_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = Arc::new(AtomicBool::new(true));
        let prepare = || segment::prepare(&UntilTold(told.clone()), folder.path(), 1, segment::SEGMENT_BYTES_MIN);
        assert_eq!(prepare().expect_err("it was told").kind(), io::ErrorKind::Interrupted);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left of it");
        told.store(false, Ordering::Release);
        assert!(prepare().expect("there is room").is_file());
    }
}
