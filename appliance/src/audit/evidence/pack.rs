//! Makes a package: the records, the archive files they stand in, and what proves those files.

use super::summary::{About, summary};
use super::tar::Writer;
use super::{CHECKPOINTS, Content, FORMAT, INDEX, Index, MANIFEST, Question, RECORDS, SIGNATURE, SUMMARY, ndjson};
use crate::audit::archive::catalogue::each_line;
use crate::audit::archive::check::read_published;
use crate::audit::archive::checkpoint::{self, Checkpoint, Statement};
use crate::audit::archive::key::{PublicKey, SigningKey};
use crate::audit::archive::lines::{Head, Lines};
use crate::audit::archive::manifest::{self, Entry, FileEntry, What};
use crate::audit::archive::read::ArchiveFile;
use crate::audit::frame::Hash;
use crate::audit::search::{Filter, Record, search_read};
use crate::audit::segment::{archive_dir, at, hex};
use crate::audit::when;
use crate::files;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What went into a package.
#[derive(Debug)]
pub struct Packed {
    pub records: Vec<Record>,
    pub files: usize,
    pub bytes: u64,
    pub key: PublicKey,
}

/// Writes the package. `Ok(None)`: nothing that is archived matches, and nothing was written. What the question may concern and is not
/// what was published is an error: nothing may be missing because of it.
pub fn pack(
    data_dir: &Path,
    filter: &Filter,
    key: Option<&SigningKey>,
    out: &Path,
    now_us: i64,
) -> io::Result<Option<Packed>> {
    free_name(data_dir, out)?;
    let chain = Chain::read(data_dir)?;
    let archive = archive_dir(data_dir);
    let named = chain.files.iter().map(|(number, file)| (*number, file));
    let archived = search_read(filter, named, |file| open_published(&archive, file))?;
    let (Some(first), Some(last)) = (archived.entries.iter().min(), archived.entries.iter().max()) else {
        return Ok(None);
    };
    let (checkpoint_line, checkpoint) = sealing(data_dir, *last, chain.entered_us(*last), key)?;
    let Statement::Checkpoint { manifest: sealed, .. } = &checkpoint.statement else {
        return Err(io::Error::other("the sealing line is no checkpoint"));
    };
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    let mut proved = chain.has(Head::from(*sealed));
    each_line(data_dir, *first, sealed.number, &mut |line, entry: Entry| {
        proved &= chain.has(entry.head);
        lines.extend_from_slice(line);
        lines.push(b'\n');
        if let What::File(file) = entry.what
            && archived.entries.contains(&entry.head.number)
        {
            files.push(file);
        }
    })?;
    if !proved {
        return Err(at(&manifest::path(data_dir), unlike("it is not what the checkpoints sign")));
    }
    let question = Question::of(filter);
    let about = About {
        question: &question,
        created_us: now_us,
        key: &checkpoint.key,
        signed: key.is_some(),
        files: files.len(),
        checkpoint_us: checkpoint.time_us,
    };
    let texts = [
        (SUMMARY, summary(&about, &archived.records).into_bytes()),
        (RECORDS, ndjson(&archived.records)?.into_bytes()),
        (MANIFEST, lines),
        (CHECKPOINTS, [&checkpoint_line[..], b"\n"].concat()),
    ];
    let content = |(path, text): &(&str, Vec<u8>)| Content {
        path: (*path).to_owned(),
        bytes: text.len() as u64,
        blake3: blake3::hash(text).into(),
    };
    let listed = |file: &FileEntry| Content { path: file.path.clone(), bytes: file.bytes, blake3: file.blake3 };
    let index = Index {
        format: FORMAT,
        created: now_us,
        question,
        records: archived.records.len() as u64,
        key: checkpoint.key,
        files: texts.iter().map(content).chain(files.iter().map(listed)).collect(),
    };
    let bytes = write(data_dir, out, &index, key, &texts, &files)?;
    Ok(Some(Packed { records: archived.records, files: files.len(), bytes, key: checkpoint.key }))
}

/// The manifest as it is signed by now, read and proved once: all that follows is asked of this.
struct Chain {
    /// By number less one: hash, and when it was entered.
    entries: Vec<(Hash, i64)>,
    /// By entry, those that were not deleted.
    files: BTreeMap<u64, FileEntry>,
}

impl Chain {
    fn read(data_dir: &Path) -> io::Result<Self> {
        let (mut entries, mut files) = (Vec::new(), BTreeMap::new());
        let signed = checkpoint::Follower::new(data_dir).poll()?.map_or(Head::START, |signed| signed.manifest);
        if signed != Head::START {
            manifest::each_up_to(data_dir, signed, &mut |entry| {
                entries.push((entry.head.hash, entry.time_us));
                match entry.what {
                    What::File(file) => drop(files.insert(entry.head.number, file)),
                    What::Deleted { files: deleted, .. } => {
                        deleted.iter().for_each(|file| drop(files.remove(&file.entry)))
                    }
                    What::Damage(_) => {}
                }
            })?;
        }
        Ok(Self { entries, files })
    }

    fn entry(&self, number: u64) -> Option<&(Hash, i64)> {
        self.entries.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn has(&self, head: Head) -> bool {
        self.entry(head.number).is_some_and(|(hash, _)| *hash == head.hash)
    }

    fn entered_us(&self, number: u64) -> i64 {
        self.entry(number).map_or(0, |(_, time_us)| *time_us)
    }
}

/// What is searched is what was hashed.
fn open_published(archive: &Path, file: &FileEntry) -> io::Result<ArchiveFile> {
    let path = archive.join(&file.path);
    let bytes = read_published(archive, file).map_err(|error| at(&path, error))?;
    let bytes = bytes.ok_or_else(|| at(&path, unlike("it is not what was published")))?;
    ArchiveFile::open(Box::new(bytes)).map_err(|what| at(&path, unlike(&what.to_string())))
}

fn unlike(what: &str) -> io::Error {
    let text = format!("{what}. No package is made of a trail that does not hold: `lockgate audit verify`");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The first checkpoint that names this manifest entry or a later one, as it stands in its file; by the key that signs the
/// package, where it is signed.
fn sealing(
    data_dir: &Path,
    entry: u64,
    entered_us: i64,
    key: Option<&SigningKey>,
) -> io::Result<(Vec<u8>, Checkpoint)> {
    let key = key.map(|key| hex(&key.public()));
    let date = &when::rfc3339(entered_us)[..10];
    // Days of checkpoints never go back: none of an earlier day can name what was entered on this one.
    let later = |path: &PathBuf| path.file_stem().is_some_and(|day| day >= OsStr::new(date));
    for path in checkpoint::files(data_dir)?.into_iter().filter(later) {
        let mut lines = Lines::open(&path)?;
        while let Some(line) = lines.next_line()? {
            let Ok(line) = line else { continue };
            let by_key = |key: &String| memchr::memmem::find(line, format!("\"key\":\"{key}\"").as_bytes()).is_some();
            if named_entry(line).is_none_or(|named| named < entry) || !key.as_ref().is_none_or(by_key) {
                continue;
            }
            let checkpoint = Checkpoint::parse(line).map_err(|broken| {
                at(&path, io::Error::new(io::ErrorKind::InvalidData, format!("a checkpoint does not hold: {broken}")))
            })?;
            return Ok((line.to_vec(), checkpoint));
        }
    }
    Err(io::Error::other(match key {
        Some(key) => format!("no checkpoint signed by the key {key} seals these records"),
        None => "no checkpoint seals these records".to_owned(),
    }))
}

/// The manifest entry a checkpoint names, read without any check: most lines are passed over.
fn named_entry(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"manifest\":{\"number\":";
    let start = memchr::memmem::find(line, KEY)? + KEY.len();
    let digits = line[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&line[start..start + digits]).ok()?.parse().ok()
}

/// What is written takes nobody's place: a name that nothing has, outside of the trail.
fn free_name(data_dir: &Path, out: &Path) -> io::Result<()> {
    let refused = |kind, text: &str| Err(at(out, io::Error::new(kind, text)));
    if out.symlink_metadata().is_ok() {
        return refused(io::ErrorKind::AlreadyExists, "is there already: remove it, or choose another name");
    }
    let folder = files::folder_of(out);
    let folder = folder.canonicalize().map_err(|error| at(folder, error))?;
    // The archive may be a link to another mount.
    let whole = data_dir.canonicalize().map_err(|error| at(data_dir, error))?;
    let parts = [archive_dir(data_dir), data_dir.join("segments")];
    let parts = parts.iter().filter_map(|part| part.canonicalize().ok());
    if std::iter::once(whole).chain(parts).any(|part| folder.starts_with(part)) {
        return refused(io::ErrorKind::InvalidInput, "is a place in the trail's own folder: choose one outside of it");
    }
    Ok(())
}

/// Under another name first: a package is whole or not there.
fn write(
    data_dir: &Path,
    out: &Path,
    index: &Index,
    key: Option<&SigningKey>,
    texts: &[(&str, Vec<u8>)],
    files: &[FileEntry],
) -> io::Result<u64> {
    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let text = "is there already, left by an export that was stopped or is under way: remove it, or choose another name";
            at(part, io::Error::new(error.kind(), text))
        }
        _ => at(part, error),
    })?;
    let done = write_into(data_dir, file, index, key, texts, files)
        // Somebody may have taken the name meanwhile.
        .and_then(|()| free_name(data_dir, out))
        .and_then(|()| fs::rename(part, out).map_err(|error| at(out, error)));
    if let Err(error) = done {
        let _ = fs::remove_file(part);
        return Err(error);
    }
    Ok(out.metadata()?.len())
}

fn write_into(
    data_dir: &Path,
    file: File,
    index: &Index,
    key: Option<&SigningKey>,
    texts: &[(&str, Vec<u8>)],
    files: &[FileEntry],
) -> io::Result<()> {
    let time_s = index.created.div_euclid(1_000_000).max(0) as u64;
    let mut tar = Writer::new(io::BufWriter::new(file));
    let mut append = |name: &str, text: &[u8]| tar.append(name, text.len() as u64, time_s, &mut &*text);
    let mut text = serde_json::to_vec_pretty(index)?;
    text.push(b'\n');
    append(INDEX, &text)?;
    if let Some(key) = key {
        append(SIGNATURE, format!("{}\n", hex(&key.sign(&text))).as_bytes())?;
    }
    texts.iter().try_for_each(|(name, text)| append(name, text))?;
    for entry in files {
        let path = archive_dir(data_dir).join(&entry.path);
        let mut hashed =
            Hashed { file: files::open(&path).map_err(|error| at(&path, error))?, hash: blake3::Hasher::new() };
        tar.append(&entry.path, entry.bytes, time_s, &mut hashed).map_err(|error| at(&path, error))?;
        if hashed.hash.finalize() != entry.blake3 {
            let error =
                io::Error::new(io::ErrorKind::InvalidData, "is not as it was published: `lockgate audit verify`");
            return Err(at(&path, error));
        }
    }
    tar.finish()?.into_inner()?.sync_all()
}

/// Hashes what is read.
struct Hashed {
    file: File,
    hash: blake3::Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
