//! Deletes archive files when everything in them is older than it has to be kept and nobody holds it. The manifest says so
//! before the file goes: what is missing without an entry was not deleted by us.

use super::find::holds_any;
use super::holds::{self, Hold};
use super::lines::Head;
use super::manifest::{self, DeletedFile, FileEntry, Manifest, What, invalid};
use super::read::ArchiveFile;
use crate::audit::segment::{self, Archived, archive_dir, at, hex, open_file, sync_dir};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// In one entry of the manifest.
const FILES_PER_ENTRY_MAX: usize = 1000;

type Files = Vec<(u64, FileEntry)>;

/// By the number of their entries.
struct Candidates {
    old: Files,
    left: Files,
    /// Shard and number of segments in which something did not hold.
    damaged: BTreeSet<(u32, u64)>,
}

pub struct Retention {
    data_dir: PathBuf,
    keep: Duration,
    swept: Option<Instant>,
    /// What is not as it was published, so that it is told once.
    told: HashSet<u64>,
    /// What was under a hold, and by which last line of the holds: it is not read again until they change.
    held: HashMap<u64, Head>,
}

impl Retention {
    pub fn new(data_dir: PathBuf, keep: Duration) -> Self {
        Self { data_dir, keep, swept: None, told: HashSet::new(), held: HashMap::new() }
    }

    /// Is it time to look for what is old?
    pub fn is_due(&self) -> bool {
        self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY)
    }

    /// Deletes what is old. Nothing is taken from files that others may write but what was signed: the manifest up to its end as
    /// we know it, the holds up to the last line we signed (`signed_holds`), and the bytes of each file. `checkpoint` seals an
    /// entry before the files it names go. Returns how many went.
    pub fn sweep(
        &mut self,
        now_us: i64,
        signed_holds: Head,
        manifest: &mut Manifest,
        checkpoint: &mut dyn FnMut(&Manifest) -> io::Result<()>,
    ) -> io::Result<u64> {
        self.swept = Some(Instant::now());
        let keep_us = i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = now_us.saturating_sub(keep_us);
        let Candidates { mut old, left, damaged } = self.candidates(before_us, manifest.head())?;
        // Until it is dropped nobody adds a hold that comes too late.
        let _lock = holds::lock(&self.data_dir)?;
        let holds = holds::read_with(&self.data_dir, signed_holds)?;
        if holds.unfinished {
            return Err(at(
                &holds::path(&self.data_dir),
                invalid("its last line is not whole: `lockgate audit hold add` or `rm` again, or put it back"),
            ));
        }
        let (head, in_force) = (holds.head(), holds.in_force);
        old.retain(|(number, file)| self.may_go(*number, file, &in_force, head));
        // A hold that came after a deletion was said, and before it was done, is in time.
        let archive = archive_dir(&self.data_dir);
        for (number, file) in left {
            if self.may_go(number, &file, &in_force, head) {
                remove(&archive, &file.path)?;
            }
        }
        let (mut gone, reason) = (0, self.reason(&in_force, head));
        for files in old.chunks(FILES_PER_ENTRY_MAX) {
            self.delete(files, &reason, now_us, manifest, checkpoint)?;
            gone += files.len() as u64;
        }
        self.remove_kept_segments(before_us, &in_force, &damaged, manifest)?;
        Ok(gone)
    }

    /// Files that are old enough, and those that are deleted already but for a stop that came between.
    fn candidates(&self, before_us: i64, head: Head) -> io::Result<Candidates> {
        let (mut files, mut deleted, mut damaged) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        manifest::each_up_to(&self.data_dir, head, &mut |entry| match entry.what {
            What::File(file) => drop(files.insert(entry.head.number, file)),
            What::Damage(damage) => drop(damaged.insert((damage.shard, damage.segment))),
            What::Deleted { files, .. } => deleted.extend(files.into_iter().map(|file| file.entry)),
        })?;
        let archive = archive_dir(&self.data_dir);
        let (gone, there): (Files, Files) = files.into_iter().partition(|(number, _)| deleted.contains(number));
        Ok(Candidates {
            old: there.into_iter().filter(|(_, file)| file.until_us < before_us).collect(),
            left: gone.into_iter().filter(|(_, file)| archive.join(&file.path).exists()).collect(),
            damaged,
        })
    }

    /// What somebody else took away or changed was not deleted by us, and is never said to be: it is evidence.
    fn may_go(&mut self, number: u64, file: &FileEntry, in_force: &[Hold], head: Head) -> bool {
        if self.held.get(&number) == Some(&head) {
            return false;
        }
        let path = archive_dir(&self.data_dir).join(&file.path);
        // In memory, so that what is hashed is what the holds are asked about, whatever somebody does to the file meanwhile.
        let Ok(bytes) = read_whole(&path, file.bytes) else { return false };
        if *blake3::hash(&bytes).as_bytes() != file.blake3 {
            if self.told.insert(number) {
                tracing::error!("old, and kept as it is not what was published: {}", path.display());
            }
            return false;
        }
        if in_force.iter().any(|hold| holds_file(hold, &bytes, file)) {
            self.held.insert(number, head);
            return false;
        }
        true
    }

    fn delete(
        &mut self,
        files: &[(u64, FileEntry)],
        reason: &str,
        now_us: i64,
        manifest: &mut Manifest,
        checkpoint: &mut dyn FnMut(&Manifest) -> io::Result<()>,
    ) -> io::Result<()> {
        let listed = files.iter().map(|(entry, file)| DeletedFile { entry: *entry, path: file.path.clone() });
        let what = What::Deleted { files: listed.collect(), reason: reason.to_owned() };
        manifest.append(now_us, &what, &[])?;
        checkpoint(manifest)?;
        let archive = archive_dir(&self.data_dir);
        files.iter().try_for_each(|(_, file)| remove(&archive, &file.path))?;
        tracing::info!(files = files.len(), reason, "deleted from the archive");
        Ok(())
    }

    fn reason(&self, in_force: &[Hold], head: Head) -> String {
        let days = self.keep.as_secs() as f64 / 86_400.0;
        format!(
            "older than {days} days (audit.retention); none of the {} holds in force covers it (holds.jsonl, line {}, {})",
            in_force.len(),
            head.number,
            hex(&head.hash)
        )
    }

    /// Sealed segments kept besides the archive hold the same records: they go at the same age. Damaged ones stay.
    fn remove_kept_segments(
        &self,
        before_us: i64,
        in_force: &[Hold],
        damaged: &BTreeSet<(u32, u64)>,
        manifest: &Manifest,
    ) -> io::Result<()> {
        for (shard, files) in segment::list(&self.data_dir)? {
            let passed = manifest.positions().get(&shard).map_or(0, |position| position.segment);
            for file in files.values().filter(|file| file.number < passed && !damaged.contains(&(shard, file.number))) {
                let Some(Archived::Sealed { since_s, until_s, .. }) = file.archived else { continue };
                let (since_us, until_us) = (since_s.saturating_mul(1_000_000), until_s.saturating_mul(1_000_000));
                let held =
                    in_force.iter().any(|hold| hold.filter().is_none_or(|filter| overlap(&filter, since_us, until_us)));
                if until_us < before_us && !held {
                    fs::remove_file(&file.path).map_err(|error| at(&file.path, error))?;
                }
            }
        }
        Ok(())
    }
}

fn overlap(filter: &crate::audit::search::Filter, since_us: i64, until_us: i64) -> bool {
    filter.since_us.is_none_or(|since| until_us >= since) && filter.until_us.is_none_or(|until| since_us <= until)
}

/// No more than it should have, and one byte.
fn read_whole(path: &Path, bytes: u64) -> io::Result<Bytes> {
    let mut read = Vec::new();
    open_file(path)?.take(bytes.saturating_add(1)).read_to_end(&mut read)?;
    Ok(read.into())
}

/// What cannot be read may hold anything.
fn holds_file(hold: &Hold, bytes: &Bytes, file: &FileEntry) -> bool {
    let Some(filter) = hold.filter() else { return true };
    if !overlap(&filter, file.since_us, file.until_us) {
        return false;
    }
    ArchiveFile::open(Box::new(bytes.clone())).and_then(|file| holds_any(&file, &filter)).unwrap_or(true)
}

fn remove(archive: &Path, path: &str) -> io::Result<()> {
    // A path in a manifest that somebody else wrote leads nowhere outside the archive.
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside || !path.starts_with("parquet/") {
        return Ok(());
    }
    let path = archive.join(path);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| at(&path, error))?,
    }
    let Some(day) = path.parent() else { return Ok(()) };
    sync_dir(day)?;
    // The last file of its day takes the folder along.
    let _ = fs::remove_dir(day);
    Ok(())
}
