//! The chain as its readers find it: the files of days, the last line, and every line as it comes.

use super::super::lines::{self, Head, LineBroken, Lines};
use super::super::manifest::invalid;
use super::super::publish::day;
use super::dir;
use super::line::{Checkpoint, Next, Promise, Statement};
use crate::audit::segment::at;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files of checkpoints, in their order.
pub fn files(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = dir(data_dir);
    let listed = match fs::read_dir(&dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut files = listed.map_err(|error| at(&dir, error))?;
    files.retain(|path| file_day(path).is_some());
    files.sort();
    Ok(files)
}

/// What the last checkpoint promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latest {
    pub time_us: i64,
    /// The manifest's last entry: what is newer nobody has signed.
    pub manifest: Head,
    /// The last line of the holds.
    pub holds: Head,
}

const NOT_OURS: &str = "lines were added, removed or put back. Put right what is wrong (`lockgate audit verify`), or move the folder \
     aside to begin a new chain";

/// By the last checkpoint, which has to hold and to continue the line before it. `None`: there is none. (A look at the end: whoever
/// acts on it follows the whole chain with a [`Follower`].)
pub fn latest(data_dir: &Path) -> io::Result<Option<Latest>> {
    Ok(last_of_all(data_dir)?.and_then(|last| last.latest()))
}

/// What it promises of each shard.
pub fn promised(data_dir: &Path) -> io::Result<Vec<Promise>> {
    Ok(last_of_all(data_dir)?.map(|last| last.promises().copied().collect()).unwrap_or_default())
}

/// The last line that is a checkpoint.
fn last_of_all(data_dir: &Path) -> io::Result<Option<Checkpoint>> {
    let is_one = |line: &Checkpoint| matches!(line.statement, Statement::Checkpoint { .. });
    for path in files(data_dir)?.into_iter().rev() {
        let (mut end, mut after) = (u64::MAX, None::<Checkpoint>);
        // Behind the last checkpoint there may be the change of a key.
        loop {
            let tail = lines::tail_until(&path, end)?;
            if tail.line.is_empty() {
                break;
            }
            let checkpoint = Checkpoint::parse(&tail.line)
                .map_err(|broken| at(&path, invalid(&format!("the last checkpoint: {broken}"))))?;
            if !checkpoint.signature_holds || after.as_ref().is_some_and(|after| !Next::behind(&checkpoint).is(after)) {
                return Err(at(
                    &path,
                    invalid(&format!("its last line does not continue what precedes it: {NOT_OURS}")),
                ));
            }
            match after.take() {
                Some(after) if is_one(&after) => return Ok(Some(after)),
                None if is_one(&checkpoint) && tail.line_offset() == 0 => return Ok(Some(checkpoint)),
                _ => (end, after) = (tail.line_offset(), Some(checkpoint)),
            }
        }
        if let Some(found) = after.filter(is_one) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Follows the chain of checkpoints as it grows, every line of the last file and of those to come: an old line that was put behind the
/// last one is signed as well, and so is a line by somebody else's key. Signatures are verified of the last line that is there:
/// what it is the end of, it vouches for.
#[derive(Debug)]
pub struct Follower {
    data_dir: PathBuf,
    /// The file that is read, and how far.
    place: Option<(PathBuf, u64)>,
    last: Option<Checkpoint>,
    latest: Option<Latest>,
    /// What the last checkpoint promises of the shards.
    pub promises: Vec<Promise>,
}

impl Follower {
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), place: None, last: None, latest: None, promises: Vec::new() }
    }

    /// What is promised by now. An error: the chain does not hold, and nothing new is believed.
    pub fn poll(&mut self) -> io::Result<Option<Latest>> {
        let files = files(&self.data_dir)?;
        let begin = match &self.place {
            Some((path, _)) => files
                .iter()
                .position(|file| file == path)
                .ok_or_else(|| at(path, invalid(&format!("it is gone: {NOT_OURS}"))))?,
            None => last_begun(&files)?,
        };
        let (mut place, mut last, mut latest) = match &self.place {
            Some(place) => (Some(place.clone()), self.last.clone(), self.latest),
            None => (None, last_where(&files[..begin], |_| true)?, None),
        };
        let mut promises = self.promises.clone();
        if self.place.is_none()
            // Behind it there may be changes of the key.
            && let Some(before) = last_where(&files[..begin], |line| line.latest().is_some())?
        {
            (latest, promises) = (before.latest(), before.promises().copied().collect());
        }
        let mut raw = Vec::new();
        for path in &files[begin..] {
            let mut offset = place.as_ref().filter(|(open, _)| open == path).map_or(0, |(_, offset)| *offset);
            let mut reader = Lines::open_at(path, offset)?;
            while let Some(line) = reader.next_line()? {
                let line = match line {
                    Err(LineBroken::Unfinished) => break,
                    line => line.and_then(|raw| Ok((raw, Checkpoint::unverified(&lines::split(raw, true)?)?))),
                };
                let broken = |what: &str| at(path, invalid(&format!("the line at byte {offset} {what}")));
                let (line, checkpoint) = line.map_err(|error| broken(&format!("does not hold: {error}")))?;
                if !last.as_ref().map_or(Next::FIRST, Next::behind).is(&checkpoint) {
                    return Err(broken(&format!("does not continue what precedes it: {NOT_OURS}")));
                }
                if let Some(found) = checkpoint.latest() {
                    (latest, promises) = (Some(found), checkpoint.promises().copied().collect());
                }
                (raw, last) = (line.to_vec(), Some(checkpoint));
                offset = reader.next_offset;
            }
            // A file without a line is none to wait at: the one before it may still be written.
            if offset > 0 {
                place = Some((path.clone(), offset));
            }
        }
        if !raw.is_empty() && !Checkpoint::parse(&raw).is_ok_and(|line| line.signature_holds) {
            let path = place.map(|(path, _)| path).unwrap_or_default();
            return Err(at(&path, invalid("the last checkpoint: its signature does not hold")));
        }
        (self.place, self.last, self.latest, self.promises) = (place, last, latest, promises);
        Ok(latest)
    }
}

/// The last file with a line in it.
fn last_begun(files: &[PathBuf]) -> io::Result<usize> {
    for (index, path) in files.iter().enumerate().rev() {
        if !lines::tail(path)?.line.is_empty() {
            return Ok(index);
        }
    }
    Ok(0)
}

/// The last line of all these files that is wanted; it and those behind it have to hold.
fn last_where(files: &[PathBuf], wanted: impl Fn(&Checkpoint) -> bool) -> io::Result<Option<Checkpoint>> {
    for path in files.iter().rev() {
        let mut end = u64::MAX;
        loop {
            let tail = lines::tail_until(path, end)?;
            if tail.line.is_empty() {
                break;
            }
            let line = Checkpoint::parse(&tail.line).ok().filter(|line| line.signature_holds);
            let line = line.ok_or_else(|| at(path, invalid("a line at its end does not hold")))?;
            if wanted(&line) {
                return Ok(Some(line));
            }
            end = tail.line_offset();
        }
    }
    Ok(None)
}

/// Is it the file of a day?
pub fn is_day(path: &Path) -> bool {
    file_day(path).is_some()
}

fn file_day(path: &Path) -> Option<jiff::civil::Date> {
    let day = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
    // One spelling: the order of the names is the order of the lines.
    day.parse().ok().filter(|parsed: &jiff::civil::Date| parsed.year() >= 0 && parsed.to_string() == day)
}

/// The day of such a file, counted from 1970.
pub fn days_of(path: &Path) -> i64 {
    let midnight = file_day(path).and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    midnight.map_or(0, |midnight| day(midnight.timestamp().as_microsecond()))
}
