//! Deletes archive files when everything in them is older than it has to be kept and nobody holds it. The manifest says so
//! before the file goes: what is missing without an entry was not deleted by us.

use super::age::Ages;
use super::check::read_published;
use super::find::holds_any;
use super::holds::{self, Hold, Holds};
use super::lines::Head;
use super::manifest::{self, DeletedFile, FileEntry, Manifest, Position, What, invalid};
use super::read::ArchiveFile;
use super::steady::{Doubt, Jump};
use crate::audit::segment::{self, Archived, archive_dir, at, hex, sync_dir};
use crate::audit::when;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// In one entry of the manifest.
const FILES_PER_ENTRY_MAX: usize = 1000;

/// Work at a time: records wait for their checkpoint meanwhile.
const SLICE: Duration = Duration::from_millis(250);
/// Whoever writes a hold is waited for so long; then the next look tries again.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

type Files = Vec<(u64, FileEntry)>;

/// What is looked through, slice by slice. By the numbers of their entries.
#[derive(Default)]
struct Sweep {
    before_us: i64,
    /// Old enough, still to be judged.
    old: Files,
    /// Nobody holds them, by the holds up to `judged_by`.
    free: Files,
    judged_by: Option<Head>,
    /// Deleted already but for a stop that came between.
    left: Files,
    /// Shard and number of segments in which something did not hold.
    damaged: BTreeSet<(u32, u64)>,
    ages: Option<Ages>,
    /// By shard: which entry was the first that stood in this segment or behind it.
    passed: BTreeMap<u32, BTreeMap<u64, u64>>,
}

/// Seals what the manifest says by now, and the holds up to a line, by which that was decided.
pub type Seal<'a> = dyn FnMut(&Manifest, Head) -> io::Result<()> + 'a;

pub struct Retention {
    data_dir: PathBuf,
    keep: Duration,
    swept: Option<Instant>,
    sweep: Option<Sweep>,
    /// What is not as it was published, so that it is told once.
    told: HashSet<u64>,
    /// What was under a hold, and by which last line of the holds: it is not read again until they change.
    held: HashMap<u64, Head>,
    /// What it waits for the end of.
    doubt: Option<Doubt>,
}

impl Retention {
    pub fn new(data_dir: PathBuf, keep: Duration) -> Self {
        Self { data_dir, keep, swept: None, sweep: None, told: HashSet::new(), held: HashMap::new(), doubt: None }
    }

    /// Is there something to look at?
    pub fn is_due(&self) -> bool {
        self.sweep.is_some() || self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY)
    }

    /// Nothing is deleted by a clock that may be wrong: what was kept too long can still go, what went too early is gone. Each doubt is
    /// told once, and when it is over.
    pub fn waits(&mut self, doubt: Option<Doubt>) -> bool {
        match doubt {
            Some(doubt) if self.doubt.is_none_or(|told| is_news(told, doubt)) => tell(doubt),
            None if self.doubt.is_some() => {
                tracing::info!("the clock has gone on for a day: retention is applied again");
            }
            _ => {}
        }
        self.doubt = doubt;
        doubt.is_some()
    }

    /// Judges what is old, for a while. Nothing is taken from files that others may write but what was signed: the manifest up to
    /// its end as we know it, the holds as [`Self::delete`] signs them (`signed_holds`: their last line that was ever signed), and the
    /// bytes of each file. `Ok(true)`: there is something for [`Self::delete`] to do. After an error nothing is deleted until the
    /// next sweep.
    pub fn judge(&mut self, now_us: i64, manifest: Head, signed_holds: Head) -> io::Result<bool> {
        let begun = self.sweep.take().map_or_else(|| self.begin(now_us, manifest), Ok);
        self.swept = Some(Instant::now());
        let mut sweep = begun?;
        let holds = self.holds(signed_holds)?;
        sweep.decide_by(holds.head());
        let since = Instant::now();
        while sweep.free.len() < FILES_PER_ENTRY_MAX && since.elapsed() < SLICE {
            let Some((number, file)) = sweep.old.pop() else { break };
            if self.may_go(number, &file, &holds.in_force, holds.head()) {
                sweep.free.push((number, file));
            }
        }
        let ready = sweep.old.is_empty() || sweep.free.len() >= FILES_PER_ENTRY_MAX;
        self.sweep = Some(sweep);
        Ok(ready)
    }

    /// Deletes what was judged: the manifest and a checkpoint say so before a file goes. Returns how many went.
    pub fn delete(
        &mut self,
        now_us: i64,
        manifest: &mut Manifest,
        signed_holds: Head,
        seal: &mut Seal<'_>,
    ) -> io::Result<u64> {
        let Some(mut sweep) = self.sweep.take() else { return Ok(0) };
        // Until it is dropped nobody adds a hold that comes too late.
        let _lock = holds::lock(&self.data_dir, LOCK_PATIENCE)?;
        let holds = self.holds(signed_holds)?;
        if sweep.judged_by != Some(holds.head()) {
            self.sweep = Some(sweep);
            return Ok(0);
        }
        let gone = sweep.free.len() as u64;
        if gone > 0 {
            let listed = sweep.free.iter().map(|(entry, file)| DeletedFile { entry: *entry, path: file.path.clone() });
            let reason = self.reason(&holds.in_force, holds.head());
            manifest.append(now_us, &What::Deleted { files: listed.collect(), reason: reason.clone() }, &[])?;
            seal(manifest, holds.head())?;
            let archive = archive_dir(&self.data_dir);
            sweep.free.iter().try_for_each(|(_, file)| remove(&archive, &file.path))?;
            tracing::info!(files = gone, reason, "deleted from the archive");
            sweep.free.clear();
        }
        if sweep.old.is_empty() {
            self.finish(&sweep, &holds, manifest, seal)?;
        } else {
            self.sweep = Some(sweep);
        }
        Ok(gone)
    }

    /// What a stop left over, and segments that are kept besides.
    fn finish(&mut self, sweep: &Sweep, holds: &Holds, manifest: &Manifest, seal: &mut Seal<'_>) -> io::Result<()> {
        let archive = archive_dir(&self.data_dir);
        // A hold that came after a deletion was said, and before it was done, is in time.
        let left = sweep.left.iter().filter(|(number, file)| self.may_go(*number, file, &holds.in_force, holds.head()));
        let left: Vec<&str> = left.map(|(_, file)| &*file.path).collect();
        let segments = self.old_segments(sweep, &holds.in_force, manifest)?;
        if left.is_empty() && segments.is_empty() {
            return Ok(());
        }
        seal(manifest, holds.head())?;
        left.into_iter().try_for_each(|path| remove(&archive, path))?;
        segments.into_iter().try_for_each(|path| fs::remove_file(&path).map_err(|error| at(&path, error)))
    }

    fn holds(&self, signed: Head) -> io::Result<Holds> {
        let holds = holds::read_with(&self.data_dir, signed)?;
        let unfinished = "its last line is not whole: `lockgate audit hold add` or `rm` again, or put it back";
        if holds.unfinished { Err(at(&holds::path(&self.data_dir), invalid(unfinished))) } else { Ok(holds) }
    }

    /// Files that are old enough, and those that are deleted already but for a stop that came between.
    fn begin(&self, now_us: i64, head: Head) -> io::Result<Sweep> {
        let keep_us = i64::try_from(self.keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = now_us.saturating_sub(keep_us);
        let (mut files, mut deleted, mut damaged) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (mut entered_us, mut passed) = (Vec::new(), BTreeMap::<u32, BTreeMap<u64, u64>>::new());
        manifest::each_up_to(&self.data_dir, head, &mut |entry| {
            entered_us.push(entry.time_us);
            for Position { shard, segment, .. } in entry.positions {
                passed.entry(shard).or_default().entry(segment).or_insert(entry.head.number);
            }
            match entry.what {
                What::File(file) => drop(files.insert(entry.head.number, file)),
                What::Damage(damage) => drop(damaged.insert((damage.shard, damage.segment))),
                What::Deleted { files, .. } => deleted.extend(files.into_iter().map(|file| file.entry)),
            }
        })?;
        let ages = Ages::read(&self.data_dir, &entered_us, now_us)?;
        let archive = archive_dir(&self.data_dir);
        let (gone, there): (Files, Files) = files.into_iter().partition(|(number, _)| deleted.contains(number));
        let is_old = |(number, file): &(u64, FileEntry)| ages.made_by_us(*number, file.until_us) < before_us;
        let mut old: Files = there.into_iter().filter(is_old).collect();
        // Taken from the end: the oldest first.
        old.reverse();
        let left = gone.into_iter().filter(|(_, file)| archive.join(&file.path).exists()).collect();
        Ok(Sweep { before_us, old, left, damaged, ages: Some(ages), passed, ..Sweep::default() })
    }

    /// What somebody else took away or changed was not deleted by us, and is never said to be: it is evidence.
    fn may_go(&mut self, number: u64, file: &FileEntry, in_force: &[Hold], head: Head) -> bool {
        if self.held.get(&number) == Some(&head) {
            return false;
        }
        let path = archive_dir(&self.data_dir).join(&file.path);
        let Ok(read) = read_published(&archive_dir(&self.data_dir), file) else { return false };
        let Some(bytes) = read else {
            if self.told.insert(number) {
                tracing::error!("old, and kept as it is not what was published: {}", path.display());
            }
            return false;
        };
        if in_force.iter().any(|hold| holds_file(hold, &bytes, file)) {
            self.held.insert(number, head);
            return false;
        }
        true
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
    fn old_segments(&self, sweep: &Sweep, in_force: &[Hold], manifest: &Manifest) -> io::Result<Vec<PathBuf>> {
        let mut old = Vec::new();
        for (shard, files) in segment::list(&self.data_dir)? {
            let passed = manifest.positions().get(&shard).map_or(0, |position| position.segment);
            let whole = |number: &u64| *number < passed && !sweep.damaged.contains(&(shard, *number));
            for file in files.into_values().filter(|file| whole(&file.number)) {
                let Some(Archived::Sealed { since_s, until_s, .. }) = file.archived else { continue };
                let (since_us, until_us) = (since_s.saturating_mul(1_000_000), until_s.saturating_mul(1_000_000));
                let held = in_force
                    .iter()
                    .any(|hold| hold.scope.filter().is_none_or(|filter| filter.overlaps(since_us, until_us)));
                if sweep.made_by_us(shard, file.number, until_us) < sweep.before_us && !held {
                    old.push(file.path);
                }
            }
        }
        Ok(old)
    }
}

impl Sweep {
    /// A segment is as old as the entry that its last records stand in.
    fn made_by_us(&self, shard: u32, segment: u64, until_us: i64) -> i64 {
        let entry = self.passed.get(&shard).and_then(|passed| passed.range(segment + 1..).next());
        let known = self.ages.as_ref().zip(entry);
        known.map_or(i64::MAX, |(ages, (_, &entry))| ages.made_by_us(entry, until_us))
    }

    /// Other holds than before: what was judged by those is judged again.
    fn decide_by(&mut self, holds: Head) {
        if self.judged_by.replace(holds) != Some(holds) {
            self.old.append(&mut self.free);
        }
    }
}

/// A jump that goes on to be seen, by a checkpoint this time, is not told again.
fn is_news(told: Doubt, doubt: Doubt) -> bool {
    match (told, doubt) {
        (Doubt::Jump(told), Doubt::Jump(jump)) => told.from_us != jump.from_us,
        (Doubt::Young { .. }, Doubt::Young { .. }) => false,
        (Doubt::Jump(_), Doubt::Young { .. }) | (Doubt::Young { .. }, Doubt::Jump(_)) => true,
    }
}

fn tell(doubt: Doubt) {
    match doubt {
        Doubt::Jump(Jump { from_us, to_us }) => tracing::warn!(
            "nothing is deleted from the archive for now: the clock went from {} to {} between two checkpoints, or in steps. If it is right \
             (the archiver was at rest), wait: a day of checkpoints behind that, and retention goes on. If it is wrong, set it right before",
            when::rfc3339(from_us),
            when::rfc3339(to_us)
        ),
        Doubt::Young { since_us } => tracing::info!(
            "nothing is deleted from the archive for now: its checkpoints cover less than a day since {}, and until they do nobody can tell \
             whether the clock is right",
            when::rfc3339(since_us)
        ),
    }
}

/// What cannot be read may hold anything.
fn holds_file(hold: &Hold, bytes: &Bytes, file: &FileEntry) -> bool {
    let Some(filter) = hold.scope.filter() else { return true };
    if !filter.overlaps(file.since_us, file.until_us) {
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
