//! The manifest: which records are in which Parquet file, and where the archiver stands. Its last entry is the only truth
//! about what is archived. FORMAT.md, "The manifest".

use super::checkpoint;
use super::lines::{self, Appender, Head, LineBroken, Lines, Tail};
use crate::audit::frame::{GENESIS, Hash};
use crate::audit::segment::{self, at};
use crate::audit::when;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
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
        let Members { time, what, positions } = serde_json::from_slice(&line.json()).map_err(|_| LineBroken::Json)?;
        Ok(Self { head: line.head, previous: line.previous, time_us: time, what, positions })
    }
}

fn parse_last(path: &Path, tail: &Tail) -> io::Result<Option<Entry>> {
    if tail.line.is_empty() {
        return Ok(None);
    }
    Entry::parse(&tail.line).map(Some).map_err(|broken| at(path, invalid(&format!("last entry: {broken}"))))
}

/// The last entry that a checkpoint vouches for. One that is newer proves nothing: it is just being published, was left so by
/// a stop (then the archiver takes it back), or somebody else wrote it. Where the checkpoints are further behind, or there
/// are none, it is for `verify` to say so, and the last one is taken as it is.
pub fn last_signed(data_dir: &Path) -> io::Result<Option<Entry>> {
    let path = path(data_dir);
    let tail = lines::tail(&path)?;
    let last = parse_last(&path, &tail)?;
    // Asked later, so that what is published meanwhile counts.
    match (&last, checkpoint::latest(data_dir)?) {
        (Some(entry), Some(signed)) if entry.head.number == signed.manifest.number + 1 => {
            parse_last(&path, &lines::tail_until(&path, tail.line_offset())?)
        }
        _ => Ok(last),
    }
}

/// How far each shard is archived, by the last entry that is signed. Empty: nothing is.
pub fn positions(data_dir: &Path) -> io::Result<BTreeMap<u32, Position>> {
    let positions = last_signed(data_dir)?.map(|entry| entry.positions).unwrap_or_default();
    Ok(positions.into_iter().map(|position| (position.shard, position)).collect())
}

/// Hands out every entry, or what is wrong with its line. An unfinished last line is handed out as broken.
pub fn each(data_dir: &Path, visit: &mut dyn FnMut(Place, Result<Entry, LineBroken>)) -> io::Result<()> {
    let mut lines = match Lines::open(&path(data_dir)) {
        Ok(lines) => lines,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut line = 0;
    while let Some(read) = lines.next_line()? {
        line += 1;
        let entry = read.and_then(Entry::parse);
        visit(Place { line, offset: lines.offset }, entry);
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
    offset: u64,
    positions: BTreeMap<u32, Position>,
    damaged: BTreeSet<(u32, u64)>,
}

impl Follower {
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, offset: 0, positions: BTreeMap::new(), damaged: BTreeSet::new() }
    }

    /// Reads what is new and signed: a segment is needed for as long as nobody vouches for what replaces it. A line that does
    /// not hold tells nothing; `verify` says so.
    pub fn poll(&mut self) -> io::Result<()> {
        let path = path(&self.data_dir);
        match path.metadata() {
            Ok(metadata) if metadata.len() <= self.offset => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ => {}
        }
        let signed = checkpoint::latest(&self.data_dir)?.map_or(0, |signed| signed.manifest.number);
        let mut lines = Lines::open_at(&path, self.offset)?;
        while let Some(line) = lines.next_line()? {
            match line.and_then(Entry::parse) {
                Err(LineBroken::Unfinished) => return Ok(()),
                Err(_) => {}
                Ok(entry) if entry.head.number > signed => return Ok(()),
                Ok(entry) => {
                    if let What::Damage(damage) = &entry.what {
                        self.damaged.insert((damage.shard, damage.segment));
                    }
                    self.positions = entry.positions.iter().map(|position| (position.shard, *position)).collect();
                }
            }
            self.offset = lines.next_offset;
        }
        Ok(())
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
        let mut last = parse_last(&path, &tail)?;
        if let (Some(entry), Some(signed)) = (&last, signed)
            && (entry.head.number, entry.previous) == (signed.number + 1, signed.hash)
        {
            tracing::warn!(
                entry = entry.head.number,
                "the last entry of the manifest was not signed before a stop: it is made again"
            );
            let unfinished_bytes = tail.unfinished_bytes + tail.line.len() as u64 + 1;
            tail = Tail { unfinished_bytes, ..lines::tail_until(&path, tail.line_offset())? };
            last = parse_last(&path, &tail)?;
        }
        let found = last.as_ref().map_or(Head::START, |entry| entry.head);
        if let Some(signed) = signed.filter(|signed| *signed != found) {
            return Err(at(&path, unlike(found, signed)));
        }
        let appender = Appender::open(&path, &tail)?;
        let (head, positions) = last.map_or((Head::START, Vec::new()), |entry| (entry.head, entry.positions));
        let positions = positions.into_iter().map(|position| (position.shard, position)).collect();
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

    /// On stable storage when it returns. `moved`: positions that are new.
    pub fn append(&mut self, time_us: i64, what: &What, moved: &[Position]) -> io::Result<()> {
        let mut positions = self.positions.clone();
        positions.extend(moved.iter().map(|position| (position.shard, *position)));
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

pub(super) fn invalid(text: &str) -> io::Error {
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
        text.parse::<jiff::Timestamp>().map(|time| time.as_microsecond()).map_err(D::Error::custom)
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
