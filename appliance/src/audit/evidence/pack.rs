//! Makes a package: the records, the archive files they stand in, and what proves those files.

use super::summary::{About, summary};
use super::tar::Writer;
use super::{CHECKPOINTS, Content, FORMAT, INDEX, Index, MANIFEST, Question, RECORDS, SIGNATURE, SUMMARY, ndjson};
use crate::audit::archive::catalogue::each_line;
use crate::audit::archive::check::check_file;
use crate::audit::archive::checkpoint::{self, Checkpoint, LineHead, Statement};
use crate::audit::archive::key::{PublicKey, SigningKey};
use crate::audit::archive::lines::{Head, Lines};
use crate::audit::archive::manifest::{self, Entry, FileEntry, What};
use crate::audit::search::{Filter, Trouble, search_archived};
use crate::audit::segment::{archive_dir, at, hex, open_file};
use crate::audit::when;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// What went into a package.
#[derive(Debug)]
pub struct Packed {
    pub records: u64,
    pub files: usize,
    pub bytes: u64,
    pub key: PublicKey,
}

/// Writes the package. `Ok(None)`: nothing that is archived matches, and nothing was written.
pub fn pack(
    data_dir: &Path,
    filter: &Filter,
    key: Option<&SigningKey>,
    out: &Path,
    now_us: i64,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<Option<Packed>> {
    let archived = search_archived(data_dir, filter, trouble)?;
    let (Some(first), Some(last)) = (archived.entries.iter().min(), archived.entries.iter().max()) else {
        return Ok(None);
    };
    let mut entered_us = 0;
    each_line(data_dir, *last, *last, &mut |_, entry| entered_us = entry.time_us)?;
    let (checkpoint_line, checkpoint) = sealing(data_dir, *last, entered_us, key)?;
    let Statement::Checkpoint { manifest: sealed, .. } = &checkpoint.statement else {
        return Err(io::Error::other("the sealing line is no checkpoint"));
    };
    check_sources(data_dir, filter, *last, sealed)?;
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    each_line(data_dir, *first, sealed.number, &mut |line, entry: Entry| {
        lines.extend_from_slice(line);
        lines.push(b'\n');
        if let What::File(file) = entry.what
            && archived.entries.contains(&entry.head.number)
        {
            files.push(file);
        }
    })?;
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
    Ok(Some(Packed { records: index.records, files: files.len(), bytes, key: checkpoint.key }))
}

/// Nothing may be missing because a file is not what was published: all that the question may concern are compared with the
/// chain, be there something of the answer in them or not.
fn check_sources(data_dir: &Path, filter: &Filter, last: u64, sealed: &LineHead) -> io::Result<()> {
    let (mut files, mut deleted) = (BTreeMap::new(), BTreeSet::new());
    manifest::each_up_to(data_dir, Head::from(*sealed), &mut |entry| match entry.what {
        What::File(file) => drop(files.insert(entry.head.number, file)),
        What::Deleted { files, .. } => deleted.extend(files.into_iter().map(|file| file.entry)),
        What::Damage(_) => {}
    })?;
    let concerns = |number: u64, file: &FileEntry| {
        let late = filter.until_us.is_some_and(|until| file.since_us > until) && number > last;
        !late && filter.since_us.is_none_or(|since| file.until_us >= since) && !deleted.contains(&number)
    };
    let archive = archive_dir(data_dir);
    for (_, file) in files.iter().filter(|(number, file)| concerns(**number, file)) {
        if let Some(broken) = check_file(&archive, file, &AtomicU64::new(0))? {
            let text = format!("{broken}. No package is made of a trail that does not hold: `lockgate audit verify`");
            return Err(at(&archive.join(&file.path), io::Error::new(io::ErrorKind::InvalidData, text)));
        }
    }
    Ok(())
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
    let wrap = |error| at(part, error);
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(part).map_err(wrap)?;
    let done = write_into(data_dir, file, index, key, texts, files);
    if let Err(error) = done {
        let _ = fs::remove_file(part);
        return Err(error);
    }
    fs::rename(part, out).map_err(|error| at(out, error))?;
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
            Hashed { file: open_file(&path).map_err(|error| at(&path, error))?, hash: blake3::Hasher::new() };
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
