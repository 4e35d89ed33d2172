//! One Parquet file on its way: written below `tmp/`, hashed as it is written, then published under its name.

use super::follow::Taken;
use super::manifest::{FileEntry, SCHEMA, Span};
use super::write::FileWriter;
use crate::audit::frame::Hash;
use crate::audit::segment::{self, at};
use crate::audit::when;
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Under this key of a file's metadata: what the manifest says in `shards`.
pub const SPANS_KEY: &str = "lockgate.spans";
const DAY_US: i64 = 86_400_000_000;

/// Where unfinished files lie.
pub fn tmp_dir(archive: &Path) -> PathBuf {
    archive.join("tmp")
}

pub fn parquet_dir(archive: &Path) -> PathBuf {
    archive.join("parquet")
}

/// The UTC day of a time, counted from 1970.
pub fn day(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}

/// A file's place below `archive/`.
pub fn relative_path(since_us: i64, number: u64) -> String {
    let since = Timestamp::from_microsecond(since_us).unwrap_or(Timestamp::UNIX_EPOCH);
    let (date, stamp) = (since.strftime("%Y-%m-%d"), since.strftime("%Y%m%dT%H%M%S.%6fZ"));
    format!("parquet/date={date}/{stamp}-{number:010}.parquet")
}

/// The number in a published file's name.
pub fn number_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".parquet")?.rsplit_once('-')?.1;
    // One spelling, as we make it.
    (digits.len() >= 10 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A file that takes records.
pub struct OpenFile {
    writer: FileWriter<Sink>,
    tmp: PathBuf,
    /// Number of the entry that will publish it.
    number: u64,
    /// Of its first record.
    pub day: i64,
    /// Bytes its records took in their frames.
    pub raw_bytes: u64,
}

/// What a finished file was published as.
pub struct Published {
    pub entry: FileEntry,
}

impl OpenFile {
    pub fn create(archive: &Path, number: u64, first_us: i64) -> io::Result<Self> {
        let tmp = tmp_dir(archive).join(format!("{number:010}.parquet"));
        let file = crate::files::create(&tmp).map_err(|error| at(&tmp, error))?;
        let sink = Sink::new(file);
        Ok(Self { writer: FileWriter::new(sink)?, tmp, number, day: day(first_us), raw_bytes: 0 })
    }

    pub fn append(&mut self, taken: &Taken<'_>) -> io::Result<()> {
        self.raw_bytes += taken.bytes as u64;
        self.writer.append(&taken.view, taken.shard, taken.sequence, taken.whose).map_err(|error| at(&self.tmp, error))
    }

    /// Onto stable storage and under its name. The manifest does not know of it yet.
    pub fn publish(self, archive: &Path, spans: &[Span]) -> io::Result<FileEntry> {
        let spans_text = serde_json::to_string(spans)?;
        let wrap = |error| at(&self.tmp, error);
        let (sink, contents) = self.writer.finish(&[(SPANS_KEY, &spans_text)]).map_err(wrap)?;
        let (bytes, blake3) = sink.finish().map_err(wrap)?;
        let (since_us, until_us) = contents.times.unwrap_or_default();
        let (since_us, until_us) = (when::writable(since_us), when::writable(until_us));
        let path = relative_path(since_us, self.number);
        let place = archive.join(&path);
        let folder = place.parent().expect("a file in a folder");
        // One that was moved away meanwhile is not made again: whoever puts it back would put it inside of that.
        if !archive.is_dir() {
            return Err(at(archive, io::ErrorKind::NotFound.into()));
        }
        make_dir(folder)?;
        fs::rename(&self.tmp, &place).map_err(|error| at(&place, error))?;
        segment::sync_dir(folder)?;
        let shards = spans.to_vec();
        Ok(FileEntry { path, bytes, blake3, rows: contents.records, schema: SCHEMA, since_us, until_us, shards })
    }
}

/// With every folder above it, each on stable storage.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    make_dir(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(dir, error)),
        _ => {}
    }
    segment::sync_dir(parent)
}

/// Removes what a stop left unfinished: everything below `tmp/`, and a file that no entry was written for.
pub fn clean(archive: &Path, next_number: u64) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for dir in [tmp_dir(archive), parquet_dir(archive)] {
        make_dir(&dir)?;
    }
    for path in listed(&tmp_dir(archive))? {
        fs::remove_file(&path).map_err(|error| at(&path, error))?;
        removed.push(path);
    }
    for folder in listed(&parquet_dir(archive))? {
        for path in if folder.is_dir() { listed(&folder)? } else { Vec::new() } {
            if number_of(&path).is_some_and(|number| number >= next_number) {
                fs::remove_file(&path).map_err(|error| at(&path, error))?;
                segment::sync_dir(&folder)?;
                removed.push(path);
            }
        }
    }
    Ok(removed)
}

pub fn listed(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| at(dir, error))?;
    let mut paths =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(|error| at(dir, error))?;
    paths.sort();
    Ok(paths)
}

/// A file that knows the hash of what was written to it.
pub struct Sink {
    file: io::BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Sink {
    fn new(file: File) -> Self {
        Self { file: io::BufWriter::with_capacity(256 << 10, file), hasher: blake3::Hasher::new(), bytes: 0 }
    }

    fn finish(self) -> io::Result<(u64, Hash)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((self.bytes, *self.hasher.finalize().as_bytes()))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_below_relative_paths_too() {
        let name = format!("made-by-a-test-{}", std::process::id());
        make_dir(&Path::new(&name).join("a/b")).unwrap();
        assert!(Path::new(&name).join("a/b").is_dir());
        fs::remove_dir_all(name).unwrap();
    }

    #[test]
    fn names_sort_by_time_and_carry_their_number() {
        let path = relative_path(1_795_000_000_123_456, 42);
        assert_eq!(path, "parquet/date=2026-11-18/20261118T110640.123456Z-0000000042.parquet");
        assert_eq!(number_of(Path::new(&path)), Some(42));
        for other in ["x.parquet", "x-42.parquet", "x-+000000042.parquet"] {
            assert_eq!(number_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_time_that_only_a_forged_record_claims_is_entered_as_one_that_can_be_read() {
        for time_us in [i64::MIN, -62_167_219_200_000_001, -1, 253_402_207_201_000_000, i64::MAX] {
            let entered = when::writable(time_us);
            assert_eq!(
                crate::audit::archive::manifest::rfc3339::parse(&when::rfc3339(time_us)),
                Some(entered),
                "{time_us}"
            );
            let path = relative_path(entered, 7);
            assert_eq!(
                (path.len(), number_of(Path::new(&path))),
                ("parquet/date=2026-11-18/20261118T110640.123456Z-0000000042.parquet".len(), Some(7))
            );
        }
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        make_dir(&archive.join("parquet/date=2026-11-20")).unwrap();
        make_dir(&tmp_dir(&archive)).unwrap();
        let (old, new) = (archive.join(relative_path(0, 4)), archive.join(relative_path(0, 5)));
        make_dir(old.parent().unwrap()).unwrap();
        for path in [&old, &new, &tmp_dir(&archive).join("0000000006.parquet")] {
            fs::write(path, "x").unwrap();
        }
        assert_eq!(clean(&archive, 5).unwrap().len(), 2);
        assert!(old.exists() && !new.exists());
    }
}
