//! Signed checkpoints: what the trail was at a moment, so that a tail cut off or a trail rolled back later shows.
//! FORMAT.md, "Checkpoints".

use super::holds;
use super::key::{self, PublicKey, SigningKey};
use super::lines::{self, Appender, Head, Line, LineBroken};
use super::manifest::{Position, hex_hash, invalid, rfc3339};
use super::publish::{day, make_dir};
use crate::audit::frame::Hash;
use crate::audit::segment::{self, at, hex};
use crate::audit::when;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// When nothing changes.
const HEARTBEAT_US: i64 = 60_000_000;
/// While something does.
const EVERY_US: i64 = 1_000_000;

pub fn dir(data_dir: &Path) -> PathBuf {
    segment::archive_dir(data_dir).join("checkpoints")
}

/// What is promised of one shard: all frames up to this one, which has this hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    pub shard: u32,
    pub segment: u64,
    pub frame: u64,
    pub record: u64,
    #[serde(with = "hex_hash")]
    pub hash: Hash,
}

impl Promise {
    pub fn of(position: &Position) -> Option<Self> {
        let Position { shard, segment, frame, record, hash, .. } = *position;
        (frame > 0).then_some(Self { shard, segment, frame, record, hash })
    }
}

/// A line of another file: its number and hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineHead {
    pub number: u64,
    #[serde(with = "hex_hash")]
    pub hash: Hash,
}

impl From<Head> for LineHead {
    fn from(Head { number, hash }: Head) -> Self {
        Self { number, hash }
    }
}

impl From<LineHead> for Head {
    fn from(LineHead { number, hash }: LineHead) -> Self {
        Self { number, hash }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Statement {
    Checkpoint {
        manifest: LineHead,
        shards: Vec<Promise>,
        /// The last line of the holds; `None`: there never was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holds: Option<LineHead>,
    },
    /// The next line is signed by another key.
    Key {
        #[serde(with = "hex_hash")]
        next: PublicKey,
    },
}

/// A line whose hash holds; whether its signature does is for whoever knows the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub head: Head,
    pub previous: Hash,
    pub time_us: i64,
    pub statement: Statement,
    pub key: PublicKey,
    /// Under the key it names.
    pub signature_holds: bool,
}

#[derive(Deserialize)]
struct Members {
    #[serde(with = "rfc3339")]
    time: i64,
    #[serde(flatten)]
    statement: Statement,
    #[serde(with = "hex_hash")]
    key: PublicKey,
}

impl Checkpoint {
    /// A line without its line end.
    pub fn parse(line: &[u8]) -> Result<Self, LineBroken> {
        let line: Line<'_> = lines::split(line, true)?;
        let Members { time, statement, key } = serde_json::from_slice(&line.json()).map_err(|_| LineBroken::Json)?;
        let signature_holds = line.signature.is_some_and(|signature| key::verifies(&key, line.body, &signature));
        Ok(Self { head: line.head, previous: line.previous, time_us: time, statement, key, signature_holds })
    }

    /// Whose signature the next line must bear.
    pub fn next_key(&self) -> PublicKey {
        match self.statement {
            Statement::Checkpoint { .. } => self.key,
            Statement::Key { next } => next,
        }
    }
}

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

/// By the last checkpoint whose signature holds. `None`: there is none.
pub fn latest(data_dir: &Path) -> io::Result<Option<Latest>> {
    for path in files(data_dir)?.into_iter().rev() {
        let mut end = u64::MAX;
        // Behind the last checkpoint there may be the change of a key.
        loop {
            let tail = lines::tail_until(&path, end)?;
            if tail.line.is_empty() {
                break;
            }
            let checkpoint = Checkpoint::parse(&tail.line)
                .map_err(|broken| at(&path, invalid(&format!("the last checkpoint: {broken}"))))?;
            if let (Statement::Checkpoint { manifest, holds, .. }, true) =
                (&checkpoint.statement, checkpoint.signature_holds)
            {
                let holds = holds.map_or(Head::START, Head::from);
                return Ok(Some(Latest { time_us: checkpoint.time_us, manifest: (*manifest).into(), holds }));
            }
            end = tail.line_offset();
        }
    }
    Ok(None)
}

fn file_day(path: &Path) -> Option<jiff::civil::Date> {
    path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()
}

/// Writes checkpoints. Whoever holds one holds `archive/lock`.
pub struct Checkpoints {
    data_dir: PathBuf,
    key_file: PathBuf,
    key: SigningKey,
    head: Head,
    /// The file in use and its day since 1970; `None`: the next line begins one.
    file: Option<(i64, Appender)>,
    /// Days never go back, whatever the clock does: the order of the names is the order of the lines.
    day: i64,
    written_us: i64,
    said: Option<(Head, Head, Vec<Promise>)>,
    holds: holds::Watch,
}

impl Checkpoints {
    /// Goes on behind the last line. A chain that another key signs is never gone on with.
    pub fn open(data_dir: &Path, key_file: &Path) -> io::Result<Self> {
        make_dir(&dir(data_dir))?;
        let mut last = None;
        for path in files(data_dir)?.into_iter().rev() {
            let tail = lines::tail(&path)?;
            let appender = Appender::open(&path, &tail)?;
            if !tail.line.is_empty() {
                let line = Checkpoint::parse(&tail.line)
                    .map_err(|broken| at(&path, invalid(&format!("the last checkpoint: {broken}"))))?;
                if !line.signature_holds {
                    return Err(at(&path, invalid("the last checkpoint: its signature does not hold")));
                }
                last = Some((line, path, appender));
                break;
            }
        }
        // A chain that has begun is never gone on with under a fresh key.
        let key = match &last {
            Some(_) => SigningKey::read(key_file)?,
            None => SigningKey::read_or_create(key_file)?,
        };
        let mut checkpoints = Self {
            data_dir: data_dir.to_owned(),
            key_file: key_file.to_owned(),
            key,
            head: Head::START,
            file: None,
            day: 0,
            written_us: i64::MIN,
            said: None,
            holds: holds::Watch::new(data_dir, latest(data_dir)?.map_or(Head::START, |latest| latest.holds)),
        };
        if let Some((line, path, appender)) = last {
            checkpoints.day = days_of(&path);
            checkpoints.file = Some((checkpoints.day, appender));
            checkpoints.head = line.head;
            checkpoints.expect_key(&line, &path)?;
        }
        checkpoints.tell_public_key()?;
        Ok(checkpoints)
    }

    /// A rotation that a stop interrupted is finished here.
    fn expect_key(&mut self, last: &Checkpoint, path: &Path) -> io::Result<()> {
        let wanted = last.next_key();
        if self.key.public() == wanted {
            return Ok(());
        }
        let next = key::next_path(&self.key_file);
        if next.exists() && SigningKey::read(&next)?.public() == wanted {
            return self.take_next_key(&next);
        }
        Err(at(
            &self.key_file,
            invalid(&format!(
                "is not the key that signs {}: put that one back, or move the folder aside to begin a new chain",
                path.display()
            )),
        ))
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Once a second while something changes, and now and then when nothing does. `synced` brings to stable storage what
    /// is about to be promised. `Ok(true)`: one was written.
    pub fn tick(
        &mut self,
        now_us: i64,
        manifest: Head,
        shards: &[Promise],
        synced: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<bool> {
        self.rotate_if_asked(now_us)?;
        let since_us = now_us.saturating_sub(self.written_us);
        // A clock that was set back must not silence us.
        let due = |every_us: i64| !(0..every_us).contains(&since_us);
        let holds = self.holds.look();
        let changed = self.said.as_ref().is_none_or(|said| (&said.0, &said.1, &*said.2) != (&manifest, &holds, shards));
        if !due(if changed { EVERY_US } else { HEARTBEAT_US }) {
            return Ok(false);
        }
        synced()?;
        self.write(now_us, manifest, shards).map(|()| true)
    }

    /// What it promises is on stable storage already.
    pub fn write(&mut self, now_us: i64, manifest: Head, shards: &[Promise]) -> io::Result<()> {
        let holds = self.holds.look();
        let named = (holds != Head::START).then(|| holds.into());
        let shards = shards.to_vec();
        self.append(
            now_us,
            &Statement::Checkpoint { manifest: manifest.into(), shards: shards.clone(), holds: named },
        )?;
        self.said = Some((manifest, holds, shards));
        self.written_us = now_us;
        Ok(())
    }

    fn append(&mut self, now_us: i64, statement: &Statement) -> io::Result<()> {
        let members = serde_json::to_string(statement)?;
        let members = members.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("an object");
        let body = format!(
            "{},\"time\":\"{}\",{members},\"key\":\"{}\"",
            self.head.opening(),
            when::rfc3339(now_us),
            hex(&self.key.public())
        );
        let line = lines::seal(&body, Some(&self.key.sign(body.as_bytes())));
        let today = day(now_us).max(self.day);
        if self.file.as_ref().is_none_or(|(day, _)| *day != today) {
            let path = dir(&self.data_dir).join(format!("{}.jsonl", date(today)));
            self.file = Some((today, Appender::open(&path, &lines::tail(&path)?)?));
            self.day = today;
        }
        let (_, file) = self.file.as_mut().expect("just opened");
        file.append(&line)?;
        self.head = lines::split(line.trim_end().as_bytes(), true).expect("just sealed").head;
        Ok(())
    }

    /// Whoever put a next key beside ours wants it to take over: ours names it with its last signature.
    fn rotate_if_asked(&mut self, now_us: i64) -> io::Result<()> {
        let next = key::next_path(&self.key_file);
        if !next.exists() {
            return Ok(());
        }
        let public = SigningKey::read(&next)?.public();
        if public != self.key.public() {
            self.append(now_us, &Statement::Key { next: public })?;
        }
        self.take_next_key(&next)
    }

    fn take_next_key(&mut self, next: &Path) -> io::Result<()> {
        fs::rename(next, &self.key_file).map_err(|error| at(next, error))?;
        segment::sync_dir(self.key_file.parent().expect("a file in a folder"))?;
        self.key = SigningKey::read(&self.key_file)?;
        self.said = None;
        tracing::info!(key = hex(&self.key.public()), "checkpoints are signed by the next key");
        self.tell_public_key()
    }

    /// For those who check: to be kept elsewhere.
    fn tell_public_key(&self) -> io::Result<()> {
        let path = segment::archive_dir(&self.data_dir).join("checkpoint.pub");
        let text = hex(&self.key.public()) + "\n";
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        fs::write(&path, text).map_err(|error| at(&path, error))
    }
}

fn date(day: i64) -> jiff::civil::Date {
    let time = jiff::Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).date()
}

fn days_of(path: &Path) -> i64 {
    let midnight = file_day(path).and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    midnight.map_or(0, |midnight| day(midnight.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::frame::GENESIS;

    const NOON: i64 = 1_795_000_000_000_000;

    fn opened(dir: &Path) -> Checkpoints {
        Checkpoints::open(dir, &dir.join("checkpoint.key")).unwrap()
    }

    fn read(data_dir: &Path) -> Vec<Checkpoint> {
        let text: String = files(data_dir).unwrap().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let all: Vec<_> = text.lines().map(|line| Checkpoint::parse(line.as_bytes()).unwrap()).collect();
        let mut previous = GENESIS;
        for (index, checkpoint) in all.iter().enumerate() {
            assert_eq!((checkpoint.head.number, checkpoint.previous), (index as u64 + 1, previous));
            assert!(checkpoint.signature_holds);
            previous = checkpoint.head.hash;
        }
        all
    }

    fn promise(frame: u64) -> Promise {
        Promise { shard: 0, segment: 1, frame, record: frame, hash: [frame as u8; 32] }
    }

    fn trail() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("archive")).unwrap();
        dir
    }

    #[test]
    fn one_a_second_while_something_changes_and_a_heartbeat_otherwise() {
        let dir = trail();
        let mut checkpoints = opened(dir.path());
        let mut written = Vec::new();
        for (second, frame) in [(0, 1), (0, 2), (1, 2), (2, 2), (59, 2), (60, 2), (61, 2), (62, 3), (30, 3)] {
            let tick = checkpoints.tick(NOON + second * 1_000_000, Head::START, &[promise(frame)], || Ok(()));
            written.push(tick.unwrap());
        }
        assert_eq!(written, [true, false, true, false, false, false, true, true, true]);
        assert_eq!(read(dir.path()).len(), 5);
    }

    #[test]
    fn the_chain_goes_on_over_restarts_and_midnight() {
        let dir = trail();
        opened(dir.path()).write(NOON, Head::START, &[]).unwrap();
        opened(dir.path()).write(NOON + 86_400_000_000, Head::START, &[promise(1)]).unwrap();
        // A clock set back does not change the order of the files.
        opened(dir.path()).write(NOON, Head { number: 4, hash: [4; 32] }, &[]).unwrap();
        assert_eq!(files(dir.path()).unwrap().len(), 2);
        assert_eq!(read(dir.path()).len(), 3);
    }

    #[test]
    fn a_new_key_is_named_by_the_old_one() {
        let dir = trail();
        let key = dir.path().join("checkpoint.key");
        let mut checkpoints = opened(dir.path());
        let old = checkpoints.public_key();
        checkpoints.write(NOON, Head::START, &[]).unwrap();
        key::create(&key::next_path(&key)).unwrap();
        let new = SigningKey::read(&key::next_path(&key)).unwrap().public();
        assert!(checkpoints.tick(NOON, Head::START, &[promise(2)], || Ok(())).is_ok());
        checkpoints.write(NOON, Head::START, &[promise(3)]).unwrap();
        let all = read(dir.path());
        assert_eq!(all[1].statement, Statement::Key { next: new });
        assert_eq!((all[1].key, all.last().unwrap().key, checkpoints.public_key()), (old, new, new));
        assert!(!key::next_path(&key).exists());
        assert_eq!(opened(dir.path()).public_key(), new);
    }

    #[test]
    fn a_rotation_that_was_killed_is_finished_and_a_strange_key_refused() {
        let dir = trail();
        let key = dir.path().join("checkpoint.key");
        let mut checkpoints = opened(dir.path());
        key::create(&key::next_path(&key)).unwrap();
        let next = SigningKey::read(&key::next_path(&key)).unwrap().public();
        // Killed between naming the next key and taking it.
        checkpoints.append(NOON, &Statement::Key { next }).unwrap();
        assert_eq!(opened(dir.path()).public_key(), next);
        opened(dir.path()).write(NOON, Head::START, &[]).unwrap();
        fs::remove_file(&key).unwrap();
        assert!(Checkpoints::open(dir.path(), &key).is_err() && !key.exists());
        key::create(&key).unwrap();
        let refused = Checkpoints::open(dir.path(), &key).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("is not the key that signs"), "{refused}");
    }
}
