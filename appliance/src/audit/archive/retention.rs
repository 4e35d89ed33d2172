//! Deletes archive files when everything in them is older than it has to be kept and nobody holds it. The manifest says so
//! before the file goes: what is missing without an entry was not deleted by us.

use super::find::holds_any;
use super::holds::{self, Hold};
use super::lines::{Head, Lines};
use super::manifest::{self, DeletedFile, Entry, FileEntry, Manifest, What, invalid};
use super::read::ArchiveFile;
use crate::audit::segment::{self, Archived, archive_dir, at, hex, open_file, sync_dir};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// In one entry of the manifest.
const FILES_PER_ENTRY_MAX: usize = 1000;

pub struct Retention {
    data_dir: PathBuf,
    keep: Duration,
    swept: Option<Instant>,
    /// Where in the manifest the files begin that were not old enough yet.
    offset: u64,
    /// Old enough; what is under a hold stays here.
    old: Vec<(u64, FileEntry)>,
    /// Entries whose files are deleted; `None`: the manifest was not read for them yet.
    deleted: Option<HashSet<u64>>,
}

impl Retention {
    pub fn new(data_dir: PathBuf, keep: Duration) -> Self {
        Self { data_dir, keep, swept: None, offset: 0, old: Vec::new(), deleted: None }
    }

    /// Is it time to look for what is old?
    pub fn is_due(&self) -> bool {
        self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY)
    }

    /// Deletes what is old. `checkpoint` seals an entry before the files it names go. Returns how many went.
    pub fn sweep(
        &mut self,
        now_us: i64,
        manifest: &mut Manifest,
        checkpoint: &mut dyn FnMut(&Manifest) -> io::Result<()>,
    ) -> io::Result<u64> {
        self.swept = Some(Instant::now());
        self.finish_deletions()?;
        let keep_us = i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = now_us.saturating_sub(keep_us);
        let old = self.grown_old(before_us)?;
        self.old.extend(old);
        // Until it is dropped nobody adds a hold that comes too late.
        let _lock = holds::lock(&self.data_dir)?;
        let holds = holds::read_signed(&self.data_dir)?;
        if holds.unfinished {
            return Err(at(
                &holds::path(&self.data_dir),
                invalid("its last line is not whole: `lockgate audit hold add` or `rm` again, or put it back"),
            ));
        }
        let (head, in_force) = (holds.head(), holds.in_force);
        let archive = archive_dir(&self.data_dir);
        // What somebody else took away was not deleted by us, and is never said to be.
        let stays = |(_, file): &(u64, FileEntry)| {
            !archive.join(&file.path).exists() || in_force.iter().any(|hold| holds_file(hold, &archive, file))
        };
        let (stay, mut free): (Vec<_>, Vec<_>) = std::mem::take(&mut self.old).into_iter().partition(stays);
        self.old = stay;
        let (mut gone, reason) = (0, self.reason(&in_force, head));
        while !free.is_empty() {
            let files: Vec<_> = free.drain(..free.len().min(FILES_PER_ENTRY_MAX)).collect();
            if let Err(error) = self.delete(&files, &reason, now_us, manifest, checkpoint) {
                self.old.extend(files.into_iter().chain(free));
                return Err(error);
            }
            gone += files.len() as u64;
        }
        self.remove_kept_segments(before_us, &in_force, manifest)?;
        Ok(gone)
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
        self.deleted.get_or_insert_default().extend(files.iter().map(|(entry, _)| *entry));
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

    /// Files whose entry says that they are deleted and that a stop left behind.
    fn finish_deletions(&mut self) -> io::Result<()> {
        if self.deleted.is_some() {
            return Ok(());
        }
        let (mut deleted, mut paths) = (HashSet::new(), Vec::new());
        manifest::each(&self.data_dir, &mut |_, entry| {
            if let Ok(Entry { what: What::Deleted { files, .. }, .. }) = entry {
                for file in files {
                    deleted.insert(file.entry);
                    paths.push(file.path);
                }
            }
        })?;
        let archive = archive_dir(&self.data_dir);
        paths.iter().try_for_each(|path| remove(&archive, path))?;
        self.deleted = Some(deleted);
        Ok(())
    }

    /// Files that have become old enough since the last sweep. Entries are in the order of time: the first that is not
    /// ends it.
    fn grown_old(&mut self, before_us: i64) -> io::Result<Vec<(u64, FileEntry)>> {
        let mut old = Vec::new();
        let mut lines = match Lines::open_at(&manifest::path(&self.data_dir), self.offset) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(old),
            other => other?,
        };
        while let Some(line) = lines.next_line()? {
            // One that does not hold is evidence, and so is the file it named.
            if let Ok(Entry { head, what: What::File(file), .. }) = line.and_then(Entry::parse) {
                if file.until_us >= before_us {
                    break;
                }
                if self.deleted.as_ref().is_none_or(|deleted| !deleted.contains(&head.number)) {
                    old.push((head.number, file));
                }
            }
            self.offset = lines.next_offset;
        }
        Ok(old)
    }

    /// Sealed segments kept besides the archive hold the same records: they go at the same age. Damaged ones stay.
    fn remove_kept_segments(&self, before_us: i64, in_force: &[Hold], manifest: &Manifest) -> io::Result<()> {
        for (shard, files) in segment::list(&self.data_dir)? {
            let passed = manifest.positions().get(&shard).map_or(0, |position| position.segment);
            for file in files.values().filter(|file| file.number < passed) {
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

/// What cannot be read may hold anything.
fn holds_file(hold: &Hold, archive: &Path, file: &FileEntry) -> bool {
    let Some(filter) = hold.filter() else { return true };
    if !overlap(&filter, file.since_us, file.until_us) {
        return false;
    }
    let Ok(opened) = open_file(&archive.join(&file.path)) else { return true };
    ArchiveFile::open(Box::new(opened)).and_then(|file| holds_any(&file, &filter)).unwrap_or(true)
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
