//! Signed checkpoints: what the trail was at a moment, so that a tail cut off or a trail rolled back later shows.
//! FORMAT.md, "Checkpoints". `line.rs`: a line; `chain.rs`: who reads them; here: who writes them.

mod chain;
mod line;

pub use self::chain::{Follower, Latest, days_of, files, is_day, latest, promised};
pub use self::line::{Checkpoint, LineHead, Next, Promise, Statement};

use super::holds;
use super::key::{self, Given, KeySource, PublicKey, SigningKey};
use super::lines::{self, Appender, Head};
use super::manifest::invalid;
use super::publish::{self, day, make_dir};
use super::steady::{Doubt, Steady};
use crate::audit::segment::{self, at, hex};
use crate::audit::when;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// When nothing changes.
const HEARTBEAT_US: i64 = 60_000_000;
/// While something does.
const EVERY_US: i64 = 1_000_000;

pub fn dir(data_dir: &Path) -> PathBuf {
    segment::archive_dir(data_dir).join("checkpoints")
}

const RENAMED: &str = "is no file of checkpoints (2026-11-29.jsonl): was it renamed? Name it as it was, or move the folder aside to begin \
     a new chain";

/// A chain begins in a folder of its own: what lies in it under other names may be the one that was begun before.
fn nothing_else(dir: &Path) -> io::Result<()> {
    match publish::listed(dir)?.into_iter().find(|path| !is_day(path)) {
        Some(other) => Err(at(&other, invalid(RENAMED))),
        None => Ok(()),
    }
}

/// Does the chain end where we left it? (Or one line behind: an error while it was written may have left it whole.)
fn found_again(left: Head, last: Option<&Checkpoint>) -> io::Result<()> {
    let is_left =
        |last: &Checkpoint| last.head == left || (last.head.number, last.previous) == (left.number + 1, left.hash);
    if last.is_some_and(is_left) {
        return Ok(());
    }
    let found = last.map_or_else(|| "there is none".to_owned(), |last| format!("the last one is {}", last.head.number));
    Err(invalid(&format!(
        "checkpoint {} was written here, and {found}: archive/ was moved away, unmounted, or replaced by another copy. Nothing is archived \
         until the right one is back. (If it is lost: restart the gateway, which goes on with what is there, or begins anew)",
        left.number
    )))
}

/// Writes checkpoints. Whoever holds one holds `archive/lock`.
pub struct Checkpoints {
    data_dir: PathBuf,
    source: KeySource,
    key: SigningKey,
    head: Head,
    /// The file in use and its day since 1970; `None`: the next line begins one.
    file: Option<(i64, Appender)>,
    /// Days never go back, whatever the clock does: the order of the names is the order of the lines.
    day: i64,
    written_us: i64,
    said: Option<(Head, Head, Vec<Promise>)>,
    /// What was signed when it was opened.
    signed: Option<Latest>,
    /// Why the next key is not taken, told once.
    refused: Option<String>,
    promised: Vec<Promise>,
    holds: holds::Watch,
    steady: Steady,
}

impl Checkpoints {
    /// Goes on behind the last line. A chain that another key signs is never gone on with.
    pub fn open(data_dir: &Path, source: &KeySource) -> io::Result<Self> {
        Self::open_behind(data_dir, source, None)
    }

    /// The same. `left`: the last line that this process has written here. A chain that does not end with it is not the one that it
    /// began to write: another is neither gone on with nor begun beside it, and no key is made for one.
    pub fn open_behind(data_dir: &Path, source: &KeySource, left: Option<Head>) -> io::Result<Self> {
        if left.is_none() {
            make_dir(&dir(data_dir))?;
        }
        let mut follower = Follower::new(data_dir);
        let signed = follower.poll()?;
        let mut last = None;
        for path in files(data_dir)?.into_iter().rev() {
            let tail = lines::tail(&path)?;
            if !tail.line.is_empty() {
                let line = Checkpoint::parse(&tail.line)
                    .map_err(|broken| at(&path, invalid(&format!("the last checkpoint: {broken}"))))?;
                if !line.signature_holds {
                    return Err(at(&path, invalid("the last checkpoint: its signature does not hold")));
                }
                last = Some((line, path, tail));
                break;
            }
        }
        if let Some(left) = left {
            found_again(left, last.as_ref().map(|(line, ..)| line)).map_err(|error| at(&dir(data_dir), error))?;
        }
        if last.is_none() {
            nothing_else(&dir(data_dir))?;
        }
        // A chain that has begun is never gone on with under a fresh key.
        let key = match (source, &last) {
            (KeySource::File(file), Some((_, path, _))) => SigningKey::read(file).map_err(|error| lost(error, path))?,
            (KeySource::File(file), None) => SigningKey::read_or_create(file)?,
            (KeySource::Given(given), _) => first(given)?,
        };
        let mut checkpoints = Self {
            data_dir: data_dir.to_owned(),
            source: source.clone(),
            key,
            head: Head::START,
            file: None,
            day: 0,
            written_us: i64::MIN,
            said: None,
            signed,
            refused: None,
            promised: follower.promises,
            holds: holds::Watch::new(data_dir, signed.map_or(Head::START, |signed| signed.holds)),
            steady: Steady::read(data_dir)?,
        };
        if let Some((line, path, tail)) = last {
            checkpoints.day = days_of(&path);
            checkpoints.file = Some((checkpoints.day, Appender::open(&path, &tail)?));
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
        let unknown = invalid(&format!(
            "is not the key that signs {}: put that one back, or move the folder aside to begin a new chain",
            path.display()
        ));
        match self.source.clone() {
            KeySource::File(file) => {
                let next = key::next_path(&file);
                if next.exists() && SigningKey::read(&next)?.public() == wanted {
                    return self.take_next_key(&next, &file);
                }
                Err(at(&file, unknown))
            }
            KeySource::Given(given) => {
                let key = given.keys()?.into_iter().find(|key| key.public() == wanted);
                self.key = key.ok_or_else(|| at(Path::new("the key in the encrypted store"), unknown))?;
                Ok(())
            }
        }
    }

    pub fn head(&self) -> Head {
        self.head
    }

    /// What was signed by whoever wrote here before.
    pub fn signed(&self) -> Option<Latest> {
        self.signed
    }

    /// What was promised of the shards then.
    pub fn promised(&self) -> &[Promise] {
        &self.promised
    }

    /// The last line of the holds that was ever signed.
    pub fn signed_holds(&mut self) -> Head {
        self.holds.look()
    }

    /// Something is decided by the holds up to this line: whatever becomes of the file, the next checkpoint names no earlier one.
    pub fn name_holds(&mut self, line: Head) {
        self.holds.name(line);
    }

    /// What stands against deleting by this time of the clock.
    pub fn doubt(&self, now_us: i64) -> Option<Doubt> {
        self.steady.doubt(now_us, Some(Instant::now()))
    }

    /// Whoever reads checkpoints finds what is written here.
    pub fn look(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |(_, file)| file.look())
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
        self.steady.note(now_us, Some(Instant::now()));
        self.head = lines::split(line.trim_end().as_bytes(), true).expect("just sealed").head;
        Ok(())
    }

    /// Whoever put a next key beside ours wants it to take over: ours names it with its last signature.
    fn rotate_if_asked(&mut self, now_us: i64) -> io::Result<()> {
        let file = match self.source.clone() {
            KeySource::File(file) => file,
            KeySource::Given(given) => return self.rotate_to_given(now_us, &given),
        };
        let next = key::next_path(&file);
        if !next.exists() {
            return Ok(());
        }
        let public = match SigningKey::read_next(&next, &self.key.public()) {
            Ok(key) => key.public(),
            // Half made, or somebody else's: the key in use goes on.
            Err(error) => {
                if self.refused.replace(error.to_string()).as_deref() != Some(&*error.to_string()) {
                    tracing::error!("the next key of checkpoints is not taken: {error}");
                }
                return Ok(());
            }
        };
        self.append(now_us, &Statement::Key { next: public })?;
        self.take_next_key(&next, &file)
    }

    /// The last of the given keys is the one that is to sign.
    fn rotate_to_given(&mut self, now_us: i64, given: &Given) -> io::Result<()> {
        let Some(next) = given.keys()?.pop().filter(|next| next.public() != self.key.public()) else { return Ok(()) };
        self.append(now_us, &Statement::Key { next: next.public() })?;
        self.use_key(next)
    }

    fn take_next_key(&mut self, next: &Path, file: &Path) -> io::Result<()> {
        fs::rename(next, file).map_err(|error| at(next, error))?;
        segment::sync_dir(file.parent().expect("a file in a folder"))?;
        self.use_key(SigningKey::read(file)?)
    }

    fn use_key(&mut self, key: SigningKey) -> io::Result<()> {
        self.key = key;
        self.said = None;
        tracing::info!(key = hex(&self.key.public()), "checkpoints are signed by the next key");
        self.tell_public_key()
    }

    /// For those who check: to be kept elsewhere.
    fn tell_public_key(&self) -> io::Result<()> {
        let path = segment::archive_dir(&self.data_dir).join("checkpoint.pub");
        let text = hex(&self.key.public()) + "\n";
        match crate::files::open(&path).and_then(io::read_to_string) {
            Ok(found) if found == text => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(at(&path, error)),
            _ => {}
        }
        crate::files::write(&path, text.as_bytes()).map_err(|error| at(&path, error))
    }
}

fn first(given: &Given) -> io::Result<SigningKey> {
    given.keys()?.into_iter().next().ok_or_else(|| invalid("no key was given that signs checkpoints"))
}

fn date(day: i64) -> jiff::civil::Date {
    let time = jiff::Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// Says what to do where the key is gone: `path` is what it signs.
fn lost(error: io::Error, path: &Path) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            format!(
                "{error}: put the key back that signs {}, or move the folder aside to begin a new chain",
                path.display()
            ),
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::frame::GENESIS;
    use zeroize::Zeroizing;

    const NOON: i64 = 1_795_000_000_000_000;

    fn opened(dir: &Path) -> Checkpoints {
        Checkpoints::open(dir, &KeySource::File(dir.join("checkpoint.key"))).unwrap()
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
        key::create_next(&key::next_path(&key), &SigningKey::read(&key).unwrap()).unwrap();
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
        key::create_next(&key::next_path(&key), &SigningKey::read(&key).unwrap()).unwrap();
        let next = SigningKey::read(&key::next_path(&key)).unwrap().public();
        // Killed between naming the next key and taking it.
        checkpoints.append(NOON, &Statement::Key { next }).unwrap();
        assert_eq!(opened(dir.path()).public_key(), next);
        opened(dir.path()).write(NOON, Head::START, &[]).unwrap();
        fs::remove_file(&key).unwrap();
        let lost = Checkpoints::open(dir.path(), &KeySource::File(key.clone())).map(|_| ()).unwrap_err();
        assert!(lost.to_string().contains("put the key back") && !key.exists(), "{lost}");
        key::create(&key).unwrap();
        let refused = Checkpoints::open(dir.path(), &KeySource::File(key.clone())).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("is not the key that signs"), "{refused}");
    }

    #[test]
    fn keys_that_are_given_rotate_once_and_are_known_again() {
        let dir = trail();
        let hex_of = |byte: u8| Zeroizing::new(hex(&[byte; 32]));
        let given = |bytes: &[u8]| KeySource::Given(Given(bytes.iter().map(|&byte| hex_of(byte)).collect()));
        let open = |bytes: &[u8]| Checkpoints::open(dir.path(), &given(bytes));
        let write = |bytes: &[u8], at: i64| {
            let mut checkpoints = open(bytes).unwrap();
            checkpoints.tick(NOON + at, Head::START, &[promise(at as u64)], || Ok(())).unwrap();
            checkpoints.public_key()
        };
        let (one, again) = (write(&[1], 1), write(&[1], 2));
        assert_eq!(one, again);
        let two = write(&[1, 2], 3);
        assert!(two != one && two == write(&[1, 2], 4), "known again with both given");
        assert_eq!(two, write(&[2], 5), "and with the old one gone");
        assert!(open(&[1]).is_err() && open(&[3]).is_err() && open(&[]).is_err());
        let keys: Vec<_> = read(dir.path()).iter().map(|line| line.key == one).collect();
        assert_eq!(keys.iter().filter(|old| **old).count(), 3, "{keys:?}: the old one signs twice and hands over");
        assert!(!dir.path().join("checkpoint.key").exists());
        assert!(!format!("{:?}", given(&[1])).contains("0101"), "no key is ever printed");
    }

    #[test]
    fn a_day_has_one_spelling() {
        assert!(is_day(Path::new("x/2026-11-29.jsonl")));
        for other in
            ["20261129.jsonl", "2026-11-29T00.jsonl", "+002026-11-29.jsonl", "-000001-01-01.jsonl", "2026-11-29"]
        {
            assert!(!is_day(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_follower_sees_every_line_whatever_empty_file_lies_beside() {
        let dir = trail();
        let mut checkpoints = opened(dir.path());
        let mut follower = Follower::new(dir.path());
        assert_eq!(follower.poll().unwrap(), None);
        let later = super::dir(dir.path()).join("9999-12-31.jsonl");
        let head = |number: u64| Head { number, hash: [number as u8; 32] };
        for day in 0..3 {
            for number in 1..4 {
                fs::write(&later, "").unwrap();
                let number = day * 10 + number;
                checkpoints.write(NOON + day as i64 * 86_400_000_000, head(number), &[promise(number)]).unwrap();
                assert_eq!(follower.poll().unwrap().unwrap().manifest, head(number));
                assert_eq!(Follower::new(dir.path()).poll().unwrap().unwrap().manifest, head(number));
                fs::remove_file(&later).unwrap();
            }
        }
        assert_eq!(follower.promises, [promise(23)]);
        // The last file holds nothing but the change of a key.
        let next = key::next_path(&dir.path().join("checkpoint.key"));
        key::create(&next).unwrap();
        checkpoints.rotate_if_asked(NOON).unwrap();
        assert!(next.exists(), "nobody who has the key made it");
        fs::remove_file(&next).unwrap();
        key::create_next(&next, &SigningKey::read(&dir.path().join("checkpoint.key")).unwrap()).unwrap();
        checkpoints.day += 1;
        checkpoints.file = None;
        checkpoints.rotate_if_asked(NOON + 3 * 86_400_000_000).unwrap();
        assert_eq!(files(dir.path()).unwrap().len(), 4);
        let mut fresh = Follower::new(dir.path());
        assert_eq!((fresh.poll().unwrap().unwrap().manifest, &*fresh.promises), (head(23), &[promise(23)][..]));
        fs::remove_file(&files(dir.path()).unwrap()[2]).unwrap();
        assert!(follower.poll().is_err(), "the file it had come to is gone");
    }
}
