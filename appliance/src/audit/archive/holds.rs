//! Legal holds: what must not be deleted, whatever its age. A file of chained lines, so that neither a hold nor its release
//! can be made unsaid: `archive/holds.jsonl`, drawn in FORMAT.md.

use super::checkpoint;
use super::lines::{self, Appender, Head, LineBroken, Lines};
use super::manifest::{invalid, rfc3339};
use super::publish::make_dir;
use crate::audit::frame::Hash;
use crate::audit::search::Filter;
use crate::audit::segment::{archive_dir, at};
use crate::config::Glob;
use crate::files;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The archiver holds the lock while it deletes.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

pub fn path(data_dir: &Path) -> PathBuf {
    archive_dir(data_dir).join("holds.jsonl")
}

/// What is held. Nothing named: everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scope {
    pub users: Vec<String>,
    pub targets: Vec<String>,
    /// RFC 3339, both ends included.
    pub since: Option<String>,
    pub until: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum What {
    Hold {
        #[serde(flatten)]
        scope: Scope,
        reason: String,
        by: String,
    },
    Release {
        /// Number of the line that holds.
        hold: u64,
        reason: String,
        by: String,
    },
}

#[derive(Deserialize)]
struct Members {
    #[serde(rename = "number")]
    _number: IgnoredAny,
    #[serde(rename = "previous")]
    _previous: IgnoredAny,
    #[serde(with = "rfc3339")]
    time: i64,
    #[serde(flatten)]
    what: What,
}

/// A hold in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The number of its line.
    pub id: u64,
    pub time_us: i64,
    pub scope: Scope,
    pub reason: String,
    pub by: String,
}

impl Scope {
    /// `None`: a name or time in it is none; then it holds everything.
    pub fn filter(&self) -> Option<Filter> {
        let names = |names: &[String]| names.iter().map(|name| Glob::new(name).ok()).collect::<Option<Vec<_>>>();
        let time = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => text.parse::<jiff::Timestamp>().ok().map(|time| Some(time.as_microsecond())),
        };
        Some(Filter {
            users: names(&self.users)?,
            targets: names(&self.targets)?,
            since_us: time(&self.since)?,
            until_us: time(&self.until)?,
            ..Filter::default()
        })
    }
}

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holds {
    pub in_force: Vec<Hold>,
    /// The hash of each line.
    hashes: Vec<Hash>,
    /// Behind the last line there is one that is not whole: nobody was told that it holds.
    pub unfinished: bool,
}

impl Holds {
    /// The last line.
    pub fn head(&self) -> Head {
        self.hashes.last().map_or(Head::START, |&hash| Head { number: self.hashes.len() as u64, hash })
    }

    pub fn has(&self, line: Head) -> bool {
        let hash = line.number.checked_sub(1).map(|index| self.hashes.get(index as usize));
        hash.map_or(line == Head::START, |hash| hash == Some(&line.hash))
    }
}

/// Reads the file as far as it can be told what it says. A line that does not hold is an error.
fn read(data_dir: &Path) -> io::Result<Holds> {
    let (path, mut holds) = (path(data_dir), Holds::default());
    each(data_dir, &mut |line| {
        let number = holds.hashes.len() as u64 + 1;
        let broken = |text: String| at(&path, invalid(&format!("line {number}: {text}")));
        let line = match line {
            Err(LineBroken::Unfinished) => {
                holds.unfinished = true;
                return Ok(());
            }
            line => line.map_err(|error| broken(error.to_string()))?,
        };
        if (line.head.number, line.previous) != (number, holds.head().hash) {
            return Err(broken("it does not continue the chain".to_owned()));
        }
        holds.hashes.push(line.head.hash);
        match line.what {
            What::Hold { scope, reason, by } => {
                holds.in_force.push(Hold { id: number, time_us: line.time_us, scope, reason, by });
            }
            What::Release { hold, .. } => holds.in_force.retain(|held| held.id != hold),
        }
        Ok(())
    })?;
    Ok(holds)
}

/// The same, and it has what the last checkpoint says of it.
pub fn read_signed(data_dir: &Path) -> io::Result<Holds> {
    // Asked first: what it names is there by then.
    let signed = checkpoint::latest(data_dir)?;
    read_with(data_dir, signed.map_or(Head::START, |signed| signed.holds))
}

/// The same, and it has this line. An error: then nothing may be deleted.
pub fn read_with(data_dir: &Path, signed: Head) -> io::Result<Holds> {
    let holds = read(data_dir)?;
    if holds.has(signed) { Ok(holds) } else { Err(at(&path(data_dir), invalid(&lacking(&holds, signed)))) }
}

fn lacking(holds: &Holds, signed: Head) -> String {
    format!(
        "it has {} lines and not line {} which the checkpoints name: it was cut, changed or put back from an older copy. Nothing is \
         deleted until the right one is back",
        holds.hashes.len(),
        signed.number
    )
}

/// A line that holds by itself.
pub struct Line {
    pub head: Head,
    pub previous: Hash,
    time_us: i64,
    what: What,
}

/// Hands out every line, or what is wrong with it. No file: no line.
pub fn each(data_dir: &Path, visit: &mut dyn FnMut(Result<Line, LineBroken>) -> io::Result<()>) -> io::Result<()> {
    let mut lines = match Lines::open(&path(data_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    while let Some(line) = lines.next_line()? {
        let line = line.and_then(|line| lines::split(line, false)).and_then(|line| {
            let Members { time, what, .. } = serde_json::from_slice(&line.json()).map_err(|_| LineBroken::Json)?;
            let is_time = |text: &Option<String>| text.as_ref().is_none_or(|text| rfc3339::parse(text).is_some());
            let holds = match &what {
                What::Hold { scope, .. } => is_time(&scope.since) && is_time(&scope.until),
                What::Release { hold, .. } => lines::in_range([*hold]),
            };
            if !holds {
                return Err(LineBroken::Json);
            }
            Ok(Line { head: line.head, previous: line.previous, time_us: time, what })
        });
        visit(line)?;
    }
    Ok(())
}

/// Watches the file for whoever signs checkpoints: what was signed of it once stays signed, whatever becomes of the file.
#[derive(Debug)]
pub struct Watch {
    data_dir: PathBuf,
    signed: Head,
    /// Size and time of change when it was read.
    read: Option<(u64, i64, i64)>,
    trouble: Option<String>,
}

impl Watch {
    pub fn new(data_dir: &Path, signed: Head) -> Self {
        Self { data_dir: data_dir.to_owned(), signed, read: None, trouble: None }
    }

    /// A line that was read continues what was signed: from now on it is.
    pub fn name(&mut self, line: Head) {
        if line.number > self.signed.number {
            (self.signed, self.read) = (line, None);
        }
    }

    /// The line that the next checkpoint names.
    pub fn look(&mut self) -> Head {
        let metadata = path(&self.data_dir).metadata().ok();
        let now = metadata.map_or((0, 0, 0), |found| (found.len(), found.ctime(), found.ctime_nsec()));
        if self.read.replace(now) == Some(now) {
            return self.signed;
        }
        let trouble = match read(&self.data_dir) {
            Ok(holds) if holds.has(self.signed) => {
                self.signed = holds.head();
                None
            }
            Ok(holds) => Some(lacking(&holds, self.signed)),
            Err(error) => Some(error.to_string()),
        };
        if let (Some(trouble), true) = (&trouble, trouble != self.trouble) {
            tracing::error!("the holds are not what was signed: {}: {trouble}", path(&self.data_dir).display());
        }
        self.trouble = trouble;
        self.signed
    }
}

/// Whoever deletes waits for whoever writes, and the other way round, but not for ever.
pub fn lock(data_dir: &Path, patience: Duration) -> io::Result<File> {
    let archive = archive_dir(data_dir);
    make_dir(&archive)?;
    let path = archive.join("holds.lock");
    files::lock(&path, patience, "another process keeps it locked").map_err(|error| at(&path, error))
}

/// On stable storage when it returns; from then on nothing of it is deleted. Returns its id.
pub fn add(data_dir: &Path, scope: Scope, reason: &str, now_us: i64) -> io::Result<u64> {
    let _lock = lock(data_dir, LOCK_PATIENCE)?;
    append(data_dir, &What::Hold { scope, reason: reason.to_owned(), by: caller() }, now_us)
}

/// `Ok(false)`: there is no such hold.
pub fn release(data_dir: &Path, hold: u64, reason: &str, now_us: i64) -> io::Result<bool> {
    let _lock = lock(data_dir, LOCK_PATIENCE)?;
    if !read_signed(data_dir)?.in_force.iter().any(|held| held.id == hold) {
        return Ok(false);
    }
    append(data_dir, &What::Release { hold, reason: reason.to_owned(), by: caller() }, now_us)?;
    Ok(true)
}

fn append(data_dir: &Path, what: &What, now_us: i64) -> io::Result<u64> {
    let path = path(data_dir);
    let head = read_signed(data_dir)?.head();
    let members = serde_json::to_string(what)?;
    let members = members.strip_prefix('{').expect("an object").strip_suffix('}').expect("an object");
    let time = crate::audit::when::rfc3339(now_us);
    let line = lines::seal(&format!("{},\"time\":\"{time}\",{members}", head.opening()), None);
    if line.len() > lines::LINE_BYTES_MAX {
        let text = format!(
            "it would be a line of {} bytes, and nobody reads one of more than {}",
            line.len(),
            lines::LINE_BYTES_MAX
        );
        return Err(at(
            &path,
            io::Error::new(io::ErrorKind::InvalidInput, text + ": shorten the reason or the list of names"),
        ));
    }
    Appender::open(&path, &lines::tail(&path)?)?.append(&line)?;
    Ok(head.number + 1)
}

/// Whose process this is, as far as the system says.
fn caller() -> String {
    let uid = std::fs::metadata("/proc/self").map(|metadata| metadata.uid());
    uid.map_or_else(|_| "unknown".to_owned(), |uid| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(user: &str) -> Scope {
        Scope { users: vec![user.to_owned()], targets: Vec::new(), since: None, until: None }
    }

    #[test]
    fn holds_stay_until_they_are_released_and_both_are_written_down() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("none"), Holds::default());
        assert_eq!(add(dir.path(), scope("alice"), "case 7", 1).expect("written"), 1);
        assert_eq!(add(dir.path(), scope("bob"), "case 8", 2).expect("written"), 2);
        assert!(release(dir.path(), 1, "settled", 3).expect("written"));
        assert!(
            !release(dir.path(), 1, "again", 4).expect("readable")
                && !release(dir.path(), 3, "x", 4).expect("readable")
        );
        let found = read(dir.path()).expect("readable");
        let holds = &found.in_force;
        assert_eq!((holds.len(), holds[0].id, found.head().number), (1, 2, 3));
        assert_eq!((&*holds[0].reason, &*holds[0].scope.users[0]), ("case 8", "bob"));
        assert!(holds[0].scope.filter().is_some_and(|filter| filter.users[0].matches("bob")));
    }

    #[test]
    fn a_hold_that_nobody_could_read_again_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        add(dir.path(), scope("alice"), "case 7", 1).expect("written");
        let refused = add(dir.path(), scope("bob"), &"x".repeat(lines::LINE_BYTES_MAX), 2).expect_err("too long");
        assert!(refused.to_string().contains("shorten the reason"), "{refused}");
        assert_eq!(add(dir.path(), scope("bob"), &"x".repeat(lines::LINE_BYTES_MAX - 1000), 2).expect("written"), 2);
        assert_eq!(add(dir.path(), scope("carol"), "case 9", 3).expect("written"), 3);
        assert_eq!(read(dir.path()).expect("readable").in_force.len(), 3);
    }

    #[test]
    fn a_changed_line_is_an_error_and_an_unfinished_one_was_never_said() {
        let dir = tempfile::tempdir().expect("a directory");
        add(dir.path(), scope("alice"), "case 7", 1).expect("written");
        add(dir.path(), scope("bob"), "case 8", 2).expect("written");
        let good = std::fs::read(path(dir.path())).expect("readable");
        for at in (0..good.len() - 1).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(path(dir.path()), bad).expect("writable");
            assert!(read(dir.path()).is_err(), "byte {at}");
        }
        std::fs::write(path(dir.path()), &good[..good.len() - 5]).expect("writable");
        let found = read(dir.path()).expect("readable");
        assert_eq!((found.in_force.len(), found.unfinished), (1, true));
        assert_eq!(add(dir.path(), scope("carol"), "case 9", 3).expect("written"), 2);
    }
}
