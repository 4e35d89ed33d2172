//! The manifest: which records are in which Parquet file, and where the archiver stands. Its last entry is the only truth
//! about what is archived. FORMAT.md, "The manifest".

use super::checkpoint;
use super::lines::{self, Appender, Head, LineBroken, Lines, Tail};
use crate::audit::frame::{GENESIS, Hash};
use crate::audit::segment::{self, at};
use crate::audit::when;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The version of the Parquet schema.
pub const SCHEMA: u32 = 1;

pub fn path(data_dir: &Path) -> PathBuf {
    segment::archive_dir(data_dir).join("manifest.jsonl")
}

/// How far one shard is archived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    pub shard: u32,
    pub segment: u64,
    /// Everything before this byte of that segment is archived.
    pub offset: u64,
    /// The last frame that is, and the last record; 0: none.
    pub frame: u64,
    pub record: u64,
    /// Of that frame.
    #[serde(with = "hex_hash")]
    pub hash: Hash,
}

impl Position {
    fn in_range(&self) -> bool {
        lines::in_range([self.segment, self.offset, self.frame, self.record])
    }

    /// Nothing of the shard is archived.
    pub fn start(shard: u32) -> Self {
        Self { shard, segment: 1, offset: 0, frame: 0, record: 0, hash: GENESIS }
    }
}

/// What one entry adds of one shard: frames and records without gaps, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    pub shard: u32,
    pub first_frame: u64,
    pub last_frame: u64,
    pub first_record: u64,
    /// None: one less than the first.
    pub last_record: u64,
    /// Hash of the frame before the first, and of the last.
    #[serde(with = "hex_hash")]
    pub before: Hash,
    #[serde(with = "hex_hash")]
    pub after: Hash,
}

impl Span {
    /// From one position of a shard to a later one. `None`: there is no frame between them.
    pub fn between(from: &Position, to: &Position) -> Option<Self> {
        (from.frame != to.frame).then_some(Self {
            shard: to.shard,
            first_frame: from.frame + 1,
            last_frame: to.frame,
            first_record: from.record + 1,
            last_record: to.record,
            before: from.hash,
            after: to.hash,
        })
    }

    fn in_range(&self) -> bool {
        lines::in_range([self.first_frame, self.last_frame, self.first_record, self.last_record])
    }

    pub fn records(&self) -> u64 {
        (self.last_record + 1).saturating_sub(self.first_record)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Below `archive/`.
    pub path: String,
    pub bytes: u64,
    #[serde(with = "hex_hash")]
    pub blake3: Hash,
    pub rows: u64,
    pub schema: u32,
    /// Unix microseconds of the earliest and the latest record.
    #[serde(rename = "since", with = "rfc3339")]
    pub since_us: i64,
    #[serde(rename = "until", with = "rfc3339")]
    pub until_us: i64,
    pub shards: Vec<Span>,
}

/// When the earliest and the latest record of the file are that a body names. `None`: it names none, or a parser has to say.
pub fn times_at_a_glance(body: &[u8]) -> Option<(i64, i64)> {
    Some((lines::member_time(body, b",\"since\":\"")?, lines::member_time(body, b",\"until\":\"")?))
}

/// Where a segment did not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamageEntry {
    pub shard: u32,
    pub segment: u64,
    pub offset: u64,
    pub frame: Option<u64>,
    /// Name of the file.
    pub file: String,
    pub what: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeletedFile {
    /// The number of the entry that published it.
    pub entry: u64,
    pub path: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum What {
    /// A file was published.
    File(FileEntry),
    /// A segment does not hold.
    Damage(DamageEntry),
    /// Files were removed on purpose.
    Deleted { files: Vec<DeletedFile>, reason: String },
}

impl What {
    fn in_range(&self) -> bool {
        match self {
            Self::File(file) => lines::in_range([file.bytes, file.rows]) && file.shards.iter().all(Span::in_range),
            Self::Damage(damage) => lines::in_range([damage.segment, damage.offset, damage.frame.unwrap_or(0)]),
            Self::Deleted { files, .. } => files.iter().all(|file| lines::in_range([file.entry])),
        }
    }

    pub fn spans(&self) -> &[Span] {
        match self {
            Self::File(file) => &file.shards,
            Self::Damage(_) | Self::Deleted { .. } => &[],
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub head: Head,
    pub previous: Hash,
    pub time_us: i64,
    pub what: What,
    /// By shard, ascending.
    pub positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Members {
    /// What precedes the members is checked before; here nothing of it may stand a second time.
    #[serde(rename = "number")]
    _number: IgnoredAny,
    #[serde(rename = "previous")]
    _previous: IgnoredAny,
    #[serde(with = "rfc3339")]
    time: i64,
    #[serde(flatten)]
    what: What,
    positions: Vec<Position>,
}

impl Entry {
    /// A line without its line end.
    pub fn parse(line: &[u8]) -> Result<Self, LineBroken> {
        let line = lines::split(line, false)?;
        let Members { time, what, positions, .. } =
            serde_json::from_slice(&line.json()).map_err(|_| LineBroken::Json)?;
        if !what.in_range() || !positions.iter().all(Position::in_range) {
            return Err(LineBroken::Json);
        }
        Ok(Self { head: line.head, previous: line.previous, time_us: time, what, positions })
    }
}

fn parse_last(path: &Path, tail: &Tail) -> io::Result<Option<Entry>> {
    if tail.line.is_empty() {
        return Ok(None);
    }
    Entry::parse(&tail.line).map(Some).map_err(|broken| at(path, invalid(&format!("last entry: {broken}"))))
}

/// Lines behind the one that is signed that are looked at before it is given up.
const UNSIGNED_MAX: u32 = 1000;

/// The last entry that a checkpoint vouches for. One that is newer proves nothing: it is just being published, was left so by
/// a stop (then the archiver takes it back), or somebody else wrote it. Where there are no checkpoints it is for `verify` to say so,
/// and the last one is taken as it is.
pub fn last_signed(data_dir: &Path) -> io::Result<Option<Entry>> {
    let path = path(data_dir);
    // What is published between two looks is found by the second one.
    for look in 0..2 {
        let mut tail = lines::tail(&path)?;
        let Some(signed) = checkpoint::latest(data_dir)?.map(|signed| signed.manifest) else {
            return parse_last(&path, &tail);
        };
        for _ in 0..UNSIGNED_MAX {
            let entry = parse_last(&path, &tail)?;
            match entry.as_ref().map_or(Head::START, |entry| entry.head) {
                head if head == signed => return Ok(entry),
                head if head.number <= signed.number => break,
                _ => tail = lines::tail_until(&path, tail.line_offset())?,
            }
        }
        if look == 1 {
            return Err(at(&path, lacks(signed)));
        }
    }
    unreachable!("the second look returns")
}

/// How far each shard is archived, by the last entry that is signed. Empty: nothing is.
pub fn positions(data_dir: &Path) -> io::Result<BTreeMap<u32, Position>> {
    Ok(last_signed(data_dir)?.map(|entry| by_shard(&entry.positions)).unwrap_or_default())
}

pub fn by_shard(positions: &[Position]) -> BTreeMap<u32, Position> {
    positions.iter().map(|position| (position.shard, *position)).collect()
}

fn lacks(signed: Head) -> io::Error {
    invalid(&format!("it does not have the entry {} which the last checkpoint names", signed.number))
}

/// Hands out every entry, or what is wrong with its line. An unfinished last line is handed out as broken.
pub fn each(data_dir: &Path, visit: &mut dyn FnMut(Place, Result<Entry, LineBroken>)) -> io::Result<()> {
    each_within(data_dir, u64::MAX, visit)
}

/// The same of the lines that begin before this byte.
pub fn each_within(
    data_dir: &Path,
    limit: u64,
    visit: &mut dyn FnMut(Place, Result<Entry, LineBroken>),
) -> io::Result<()> {
    let mut lines = match Lines::open(&path(data_dir)) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut line = 0;
    while lines.next_offset < limit {
        let Some(read) = lines.next_line()? else { break };
        line += 1;
        let entry = read.and_then(Entry::parse);
        visit(Place { line, offset: lines.offset }, entry);
    }
    Ok(())
}

/// Hands out every entry up to this one, each of which continues the one before. An error: the manifest is not what was signed
/// with that entry at its end.
pub fn each_up_to(data_dir: &Path, last: Head, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
    let path = path(data_dir);
    let (mut head, mut lines) = (Head::START, Lines::open(&path)?);
    while head != last {
        let broken = |text: String| at(&path, invalid(&format!("entry {}: {text}", head.number + 1)));
        let line = lines.next_line()?.ok_or_else(|| broken("it is missing".to_owned()))?;
        let entry = line.and_then(Entry::parse).map_err(|error| broken(error.to_string()))?;
        if (entry.head.number, entry.previous) != (head.number + 1, head.hash) || entry.head.number > last.number {
            return Err(broken("it does not continue the chain that was signed".to_owned()));
        }
        head = entry.head;
        visit(entry);
    }
    Ok(())
}

/// Where a line stands in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// From 1.
    pub line: u64,
    pub offset: u64,
}

/// Reads a manifest that grows: where each shard stands, and which segments are damaged.
pub struct Follower {
    data_dir: PathBuf,
    checkpoints: checkpoint::Follower,
    /// The last entry that was read and signed, and where the next one begins.
    read: Option<(Head, u64)>,
    positions: BTreeMap<u32, Position>,
    damaged: BTreeSet<(u32, u64)>,
}

impl Follower {
    pub fn new(data_dir: PathBuf) -> Self {
        let checkpoints = checkpoint::Follower::new(&data_dir);
        Self { data_dir, checkpoints, read: None, positions: BTreeMap::new(), damaged: BTreeSet::new() }
    }

    /// Reads what is new and signed: a segment is needed for as long as nobody vouches for what replaces it. From the entry that
    /// was signed when it began, each has to continue the one before, up to the one that is signed now: else an error, and nothing
    /// new is believed.
    pub fn poll(&mut self) -> io::Result<()> {
        let path = path(&self.data_dir);
        match path.metadata() {
            Ok(metadata) if self.read.is_some_and(|(_, offset)| metadata.len() <= offset) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        let Some(signed) = self.checkpoints.poll()?.map(|latest| latest.manifest) else { return Ok(()) };
        match self.read {
            Some((head, _)) if head == signed => Ok(()),
            Some((head, offset)) => self.go_on(&path, head, offset, signed),
            None => self.begin(&path, signed),
        }
    }

    /// To the entry that is signed. What does not hold before it is for `verify` to tell.
    fn begin(&mut self, path: &Path, signed: Head) -> io::Result<()> {
        let mut lines = Lines::open(path)?;
        let mut damaged = BTreeSet::new();
        if signed == Head::START {
            self.read = Some((signed, 0));
            return Ok(());
        }
        while let Some(line) = lines.next_line()? {
            let Ok(entry) = line.and_then(Entry::parse) else { continue };
            damaged.extend(damage_of(&entry));
            if entry.head == signed {
                (self.read, self.damaged) = (Some((signed, lines.next_offset)), damaged);
                self.positions = by_shard(&entry.positions);
                return Ok(());
            }
        }
        Err(at(path, lacks(signed)))
    }

    fn go_on(&mut self, path: &Path, mut head: Head, offset: u64, signed: Head) -> io::Result<()> {
        let mut lines = Lines::open_at(path, offset)?;
        let mut damaged = Vec::new();
        while let Some(line) = lines.next_line()? {
            let broken = |text: String| at(path, invalid(&format!("entry {}: {text}", head.number + 1)));
            let entry = line.and_then(Entry::parse).map_err(|error| broken(error.to_string()))?;
            let continues = (entry.head.number, entry.previous) == (head.number + 1, head.hash);
            if !continues || (entry.head.number == signed.number && entry.head != signed) {
                return Err(broken("it is not the one that was signed".to_owned()));
            }
            damaged.extend(damage_of(&entry));
            head = entry.head;
            if head == signed {
                self.read = Some((head, lines.next_offset));
                self.damaged.extend(damaged);
                self.positions = by_shard(&entry.positions);
                return Ok(());
            }
        }
        Err(at(path, invalid(&format!("it ends before the entry {} which the last checkpoint names", signed.number))))
    }

    /// All of the segment is archived: nobody needs it any more.
    pub fn is_archived(&self, shard: u32, segment: u64) -> bool {
        self.positions.get(&shard).is_some_and(|position| segment < position.segment)
    }

    /// Something in the segment did not hold: it is evidence.
    pub fn is_damaged(&self, shard: u32, segment: u64) -> bool {
        self.damaged.contains(&(shard, segment))
    }
}

fn damage_of(entry: &Entry) -> Option<(u32, u64)> {
    match &entry.what {
        What::Damage(damage) => Some((damage.shard, damage.segment)),
        What::File(_) | What::Deleted { .. } => None,
    }
}

/// Appends to the manifest. Whoever holds one holds `archive/lock`.
pub struct Manifest {
    appender: Appender,
    head: Head,
    positions: BTreeMap<u32, Position>,
}

impl Manifest {
    /// Goes on behind the last entry that is signed. What was not finished is cut off, and so is one entry behind it, which
    /// nobody vouches for: its records are in the segments still, and it is made again. A manifest that is not the one
    /// which was signed is never built upon.
    pub fn open(data_dir: &Path, signed: Option<Head>) -> io::Result<Self> {
        let path = path(data_dir);
        let mut tail = lines::tail(&path)?;
        if let Some(signed) = signed
            && let Some(end) = end_of(&path, signed, &tail)?
            && end < tail.whole_bytes
            && may_be_cut(&path, end, signed)?
        {
            set_aside(&path, end)?;
            let unfinished_bytes = tail.whole_bytes + tail.unfinished_bytes - end;
            tail = Tail { unfinished_bytes, ..lines::tail_until(&path, end)? };
        }
        let last = parse_last(&path, &tail)?;
        let found = last.as_ref().map_or(Head::START, |entry| entry.head);
        if let Some(signed) = signed.filter(|signed| *signed != found) {
            return Err(at(&path, unlike(found, signed)));
        }
        let appender = Appender::open(&path, &tail)?;
        let (head, positions) = last.map_or((Head::START, Vec::new()), |entry| (entry.head, entry.positions));
        let positions = by_shard(&positions);
        Ok(Self { appender, head, positions })
    }

    pub fn head(&self) -> Head {
        self.head
    }

    pub fn positions(&self) -> &BTreeMap<u32, Position> {
        &self.positions
    }

    pub fn bytes(&self) -> u64 {
        self.appender.bytes()
    }

    /// Whoever reads the manifest finds what is written here.
    pub fn look(&self) -> io::Result<()> {
        self.appender.look()
    }

    /// On stable storage when it returns. `moved`: positions that are new.
    pub fn append(&mut self, time_us: i64, what: &What, moved: &[Position]) -> io::Result<()> {
        let mut positions = self.positions.clone();
        positions.extend(by_shard(moved));
        let listed: Vec<&Position> = positions.values().collect();
        let members = serde_json::to_string(what)?;
        let members = members.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("an object");
        let body = format!(
            "{},\"time\":\"{}\",{members},\"positions\":{}",
            self.head.opening(),
            when::rfc3339(time_us),
            serde_json::to_string(&listed)?
        );
        let line = lines::seal(&body, None);
        self.appender.append(&line)?;
        self.head = lines::split(line.trim_end().as_bytes(), false).expect("just sealed").head;
        self.positions = positions;
        Ok(())
    }
}

/// Where the line ends that was signed. `None`: it is not among the last ones.
fn end_of(path: &Path, signed: Head, tail: &Tail) -> io::Result<Option<u64>> {
    let (mut end, mut line) = (tail.whole_bytes, tail.line.clone());
    for _ in 0..UNSIGNED_MAX {
        if end == 0 {
            return Ok((signed == Head::START).then_some(0));
        }
        if lines::split(&line, false).is_ok_and(|line| line.head == signed) {
            return Ok(Some(end));
        }
        let before = lines::tail_until(path, end.saturating_sub(line.len() as u64 + 1))?;
        (end, line) = (before.whole_bytes, before.line);
    }
    Ok(None)
}

/// What stands behind the entry that was signed: one entry of ours that a stop left so, or what nobody of us wrote. Two entries
/// that go on from it are of a manifest whose checkpoints were cut.
fn may_be_cut(path: &Path, end: u64, signed: Head) -> io::Result<bool> {
    let (mut lines, mut head) = (Lines::open_at(path, end)?, signed);
    for _ in 0..2 {
        let Some(line) = lines.next_line()? else { return Ok(true) };
        match line.and_then(Entry::parse) {
            Ok(entry) if (entry.head.number, entry.previous) == (head.number + 1, head.hash) => head = entry.head,
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// It proves nothing, and may be evidence.
fn set_aside(path: &Path, end: u64) -> io::Result<()> {
    let mut file = crate::files::open(path)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(end))?;
    let aside = path.with_file_name(format!("manifest.unsigned-{}.jsonl", super::status::unix_us()));
    let wrap = |error| at(&aside, error);
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(&aside).map_err(wrap)?;
    io::copy(&mut file, &mut copy).and_then(|_| copy.sync_all()).map_err(wrap)?;
    tracing::warn!(
        kept = %aside.display(),
        "what stood behind the last signed entry of the manifest is cut off: a stop left it unsigned, and it is made again, or somebody else wrote it"
    );
    Ok(())
}

fn unlike(found: Head, signed: Head) -> io::Error {
    invalid(&format!(
        "it ends with entry {}, the last checkpoint has signed entry {}{}: it or the checkpoints were cut, changed or rolled back. \
         Nothing is signed over that: put back what is missing, or move archive/checkpoints aside to begin a new chain \
         (`lockgate audit verify` tells, and will go on telling that a new chain began)",
        found.number,
        signed.number,
        if found.number == signed.number { " as another one" } else { "" }
    ))
}

pub(in crate::audit) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

pub mod hex_hash {
    use super::{Hash, lines, segment};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&segment::hex(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        lines::unhex(text.as_bytes()).ok_or_else(|| D::Error::custom("64 lower-case hex digits are expected"))
    }
}

pub mod rfc3339 {
    use crate::audit::when;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(time_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&when::rfc3339(*time_us))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("no time of the form 2026-11-20T03:12:00.123456Z"))
    }

    /// One moment has one spelling.
    pub fn parse(text: &str) -> Option<i64> {
        let time_us = text.parse::<jiff::Timestamp>().ok()?.as_microsecond();
        (when::rfc3339(time_us) == text).then_some(time_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64) -> What {
        What::File(FileEntry {
            path: format!("parquet/date=2026-11-20/x-{number:010}.parquet"),
            bytes: 10,
            blake3: [1; 32],
            rows: 2,
            schema: SCHEMA,
            since_us: 1_795_000_000_123_456,
            until_us: 1_795_000_000_123_457,
            shards: vec![Span {
                shard: 3,
                first_frame: 1,
                last_frame: 2,
                first_record: 1,
                last_record: 2,
                before: GENESIS,
                after: [9; 32],
            }],
        })
    }

    #[test]
    fn entries_read_back_and_chain() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("archive")).unwrap();
        let position = Position { shard: 3, segment: 1, offset: 500, frame: 2, record: 2, hash: [9; 32] };
        let mut manifest = Manifest::open(dir.path(), None).unwrap();
        manifest.append(7, &file(1), &[position]).unwrap();
        let damage =
            DamageEntry { shard: 3, segment: 1, offset: 500, frame: None, file: "x".into(), what: "\u{1b}".into() };
        manifest.append(8, &What::Damage(damage.clone()), &[]).unwrap();
        let mut manifest = Manifest::open(dir.path(), None).unwrap();
        assert_eq!((manifest.head().number, manifest.positions()[&3]), (2, position));
        let deleted = What::Deleted { files: vec![DeletedFile { entry: 1, path: "x".into() }], reason: "age".into() };
        manifest.append(9, &deleted, &[Position::start(0)]).unwrap();
        let mut found = Vec::new();
        each(dir.path(), &mut |place, entry| found.push((place.line, entry.unwrap()))).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((&found[0].1.what, &found[1].1.what), (&file(1), &What::Damage(damage)));
        assert_eq!(found[1].1.previous, found[0].1.head.hash);
        assert_eq!(found[2].1.positions, [Position::start(0), position]);
        assert_eq!(last_signed(dir.path()).unwrap().unwrap(), found[2].1);
    }

    #[test]
    fn a_last_entry_that_does_not_hold_is_not_built_upon() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("archive")).unwrap();
        let mut manifest = Manifest::open(dir.path(), None).unwrap();
        manifest.append(7, &file(1), &[Position::start(3)]).unwrap();
        let good = std::fs::read(path(dir.path())).unwrap();
        let mut bad = good.clone();
        bad[40] ^= 1;
        std::fs::write(path(dir.path()), &bad).unwrap();
        assert!(Manifest::open(dir.path(), None).is_err());
        // One that was not finished was never published.
        std::fs::write(path(dir.path()), [&good[..], &good[..100]].concat()).unwrap();
        assert_eq!(Manifest::open(dir.path(), None).unwrap().head().number, 1);
        assert_eq!(std::fs::read(path(dir.path())).unwrap(), good);
    }
}
