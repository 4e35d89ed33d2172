//! Checks a package by nothing but itself and the keys one trusts: hashes before any parser, then chain, signatures, and
//! whether the records are those that the archive files hold.

use super::tar::{self, Entry as Stored};
use super::{CHECKPOINTS, Content, FORMAT, INDEX, Index, MANIFEST, PARQUET, RECORDS, SIGNATURE, SUMMARY, ndjson};
use crate::audit::archive::checkpoint::{Checkpoint, Statement};
use crate::audit::archive::key::{self, PublicKey};
use crate::audit::archive::lines::unhex;
use crate::audit::archive::manifest::{Entry, FileEntry, What};
use crate::audit::archive::read::{ArchiveFile, Source};
use crate::audit::frame::Hash;
use crate::audit::search::search_files;
use crate::files;
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// Larger texts (all but archive files) are none of ours.
const TEXT_BYTES_MAX: u64 = 1 << 31;
/// All files but the index, its signature and those of the archive, which have to be named by the manifest's lines.
const TEXTS: [&str; 4] = [SUMMARY, RECORDS, MANIFEST, CHECKPOINTS];
const HASH_CHUNK: usize = 1 << 20;

/// What a package says, and how far it is proved.
#[derive(Debug)]
pub struct Checked {
    pub records: u64,
    pub files: usize,
    pub created_us: i64,
    pub question: super::Question,
    pub key: PublicKey,
    pub signed: bool,
    /// The key is one of those that were given.
    pub key_is_known: bool,
    /// Time of the checkpoint.
    pub sealed_us: Option<i64>,
}

/// Hands out everything that does not hold. `Ok(None)`: it does not even say what it is.
pub fn check(path: &Path, keys: &[PublicKey], broken: &mut dyn FnMut(String)) -> io::Result<Option<Checked>> {
    let file = files::open(path)?;
    let stored = match tar::entries(&file) {
        Ok(stored) => stored,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            broken(error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let package = Package { file: Arc::new(file), stored };
    let Some((index, signed)) = package.index(broken)? else { return Ok(None) };
    let mut checked = Checked {
        records: index.records,
        files: 0,
        created_us: index.created,
        question: index.question.clone(),
        key: index.key,
        signed,
        key_is_known: keys.contains(&index.key),
        sealed_us: None,
    };
    if !keys.is_empty() && !checked.key_is_known {
        broken(format!("{INDEX}: its key is not one of those that were given"));
    }
    if !keys.is_empty() && !package.has_signature() {
        broken(format!("{SIGNATURE}: it is missing: nobody stands for the question and the summary"));
    }
    // What is not as the index says is not read any further.
    if !package.contents(&index, broken)? {
        return Ok(Some(checked));
    }
    let named = package.manifest(&index, &mut checked, broken)?;
    let files = package.archive_files(&index, &named, broken)?;
    checked.files = files.len();
    package.records(&index, &files, broken)?;
    Ok(Some(checked))
}

struct Package {
    file: Arc<File>,
    stored: Vec<Stored>,
}

impl Package {
    /// The index, and whether it is signed with the key it names.
    fn index(&self, broken: &mut dyn FnMut(String)) -> io::Result<Option<(Index, bool)>> {
        let Some(text) = self.stored.first().filter(|stored| stored.name == INDEX) else {
            broken(format!("it does not begin with {INDEX}"));
            return Ok(None);
        };
        let text = self.read(text)?;
        let index: Index = match serde_json::from_slice(&text) {
            Ok(index) => index,
            Err(error) => {
                broken(format!("{INDEX}: {error}"));
                return Ok(None);
            }
        };
        if index.format != FORMAT {
            broken(format!("{INDEX}: format {} is unknown", index.format));
            return Ok(None);
        }
        if !self.has_signature() {
            return Ok(Some((index, false)));
        }
        let digits = self.read(&self.stored[1])?;
        let holds = digits
            .strip_suffix(b"\n")
            .and_then(unhex)
            .is_some_and(|signature| key::verifies(&index.key, &text, &signature));
        if !holds {
            broken(format!("{SIGNATURE}: it is not the signature of {INDEX} under the key named there"));
        }
        Ok(Some((index, holds)))
    }

    fn has_signature(&self) -> bool {
        self.stored.get(1).is_some_and(|stored| stored.name == SIGNATURE)
    }

    /// Every file is there as the index says, in its order, and no other.
    fn contents(&self, index: &Index, broken: &mut dyn FnMut(String)) -> io::Result<bool> {
        let mut whole = true;
        let mut breaks = |text: String| {
            whole = false;
            broken(text);
        };
        let found = &self.stored[1 + usize::from(self.has_signature())..];
        for content in &index.files {
            if !found.iter().any(|stored| stored.name == content.path) {
                breaks(format!("{}: it is missing", content.path));
            }
        }
        let mut seen = HashSet::new();
        for stored in found {
            match index.files.iter().find(|content| content.path == stored.name) {
                None => breaks(format!("{}: the index does not name it", stored.name)),
                Some(_) if !seen.insert(&stored.name) => breaks(format!("{}: it is there twice", stored.name)),
                Some(content) if content.bytes != stored.bytes || self.hash(stored)? != content.blake3 => {
                    breaks(format!("{}: it is not as the index says", stored.name));
                }
                Some(_) => {}
            }
        }
        let is_known = |path: &str| TEXTS.contains(&path) || path.starts_with(PARQUET);
        for content in index.files.iter().filter(|content| !is_known(&content.path)) {
            breaks(format!("{}: no file of this name belongs in a package", content.path));
        }
        for name in TEXTS {
            if !index.files.iter().any(|content| content.path == name) {
                breaks(format!("{name}: it is missing from the index"));
            }
        }
        let in_order = found.iter().map(|stored| &stored.name).eq(index.files.iter().map(|content| &content.path));
        if whole && !in_order {
            broken(format!("{INDEX}: the files are not in its order"));
        }
        Ok(whole && in_order)
    }

    /// The chain's lines hold one after another, and a signed checkpoint names one that is not before any file's.
    fn manifest(
        &self,
        index: &Index,
        checked: &mut Checked,
        broken: &mut dyn FnMut(String),
    ) -> io::Result<BTreeMap<String, FileEntry>> {
        let (mut named, mut hashes) = (BTreeMap::new(), BTreeMap::<u64, Hash>::new());
        let text = self.read_named(MANIFEST)?;
        let mut before: Option<(u64, Hash)> = None;
        for (number, line) in lines(&text).enumerate() {
            let entry = match Entry::parse(line) {
                Ok(entry) => entry,
                Err(error) => {
                    broken(format!("{MANIFEST}: line {}: {error}", number + 1));
                    before = None;
                    continue;
                }
            };
            if before.is_some_and(|before| (before.0 + 1, before.1) != (entry.head.number, entry.previous)) {
                broken(format!("{MANIFEST}: line {}: it does not continue the chain", number + 1));
            }
            before = Some((entry.head.number, entry.head.hash));
            hashes.insert(entry.head.number, entry.head.hash);
            if let What::File(file) = entry.what {
                named.insert(file.path.clone(), file);
            }
        }
        let Some((last, hash)) = before else {
            broken(format!("{MANIFEST}: it holds nothing"));
            return Ok(named);
        };
        let text = self.read_named(CHECKPOINTS)?;
        for (number, line) in lines(&text).enumerate() {
            let name = format!("{CHECKPOINTS}: line {}", number + 1);
            match Checkpoint::parse(line) {
                Err(error) => broken(format!("{name}: {error}")),
                Ok(checkpoint) if !checkpoint.signature_holds => broken(format!("{name}: its signature does not hold")),
                Ok(checkpoint) if checkpoint.key != index.key => broken(format!("{name}: another key signed it")),
                Ok(checkpoint) => match checkpoint.statement {
                    Statement::Checkpoint { manifest, .. } if (manifest.number, manifest.hash) == (last, hash) => {
                        checked.sealed_us = Some(checkpoint.time_us);
                    }
                    Statement::Checkpoint { manifest, .. } => {
                        if hashes.get(&manifest.number).is_none_or(|hash| *hash != manifest.hash) {
                            broken(format!("{name}: it promises another chain"));
                        }
                    }
                    Statement::Key { .. } => {}
                },
            }
        }
        if checked.sealed_us.is_none() {
            broken(format!("{CHECKPOINTS}: none of them names the last line of {MANIFEST}"));
        }
        Ok(named)
    }

    /// Archive files that the chain names with this very hash.
    fn archive_files(
        &self,
        index: &Index,
        named: &BTreeMap<String, FileEntry>,
        broken: &mut dyn FnMut(String),
    ) -> io::Result<Vec<ArchiveFile>> {
        let mut files = Vec::new();
        for content in index.files.iter().filter(|content| content.path.starts_with(PARQUET)) {
            let proved = |entry: &&FileEntry| (entry.bytes, entry.blake3) == (content.bytes, content.blake3);
            if named.get(&content.path).filter(proved).is_none() {
                broken(format!("{}: the chain does not name it with this hash", content.path));
                continue;
            }
            match self.open(content) {
                Ok(file) => files.push(file),
                Err(error) => broken(format!("{}: {error}", content.path)),
            }
        }
        Ok(files)
    }

    fn open(&self, content: &Content) -> Result<ArchiveFile, crate::audit::archive::read::Unreadable> {
        let stored = self.stored.iter().find(|stored| stored.name == content.path).expect("contents were compared");
        ArchiveFile::open(Box::new(Within { file: Arc::clone(&self.file), offset: stored.offset, bytes: stored.bytes }))
    }

    /// The records are what these files answer to the question.
    fn records(&self, index: &Index, files: &[ArchiveFile], broken: &mut dyn FnMut(String)) -> io::Result<()> {
        let Some(filter) = index.question.filter() else {
            broken(format!("{INDEX}: its question cannot be asked"));
            return Ok(());
        };
        let records = search_files(files, &filter, &mut |error| broken(error.to_string()));
        if records.len() as u64 != index.records {
            broken(format!(
                "{RECORDS}: the archive files hold {} records, {INDEX} says {}",
                records.len(),
                index.records
            ));
        }
        if ndjson(&records)?.as_bytes() != self.read_named(RECORDS)? {
            broken(format!("{RECORDS}: these are not the records of the archive files"));
        }
        Ok(())
    }

    fn read_named(&self, name: &str) -> io::Result<Vec<u8>> {
        let stored = self.stored.iter().find(|stored| stored.name == name);
        stored.map_or_else(|| Ok(Vec::new()), |stored| self.read(stored))
    }

    fn read(&self, stored: &Stored) -> io::Result<Vec<u8>> {
        if stored.bytes > TEXT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is too large", stored.name)));
        }
        let mut text = vec![0; stored.bytes as usize];
        self.file.read_exact_at(&mut text, stored.offset)?;
        Ok(text)
    }

    fn hash(&self, stored: &Stored) -> io::Result<Hash> {
        let (mut hasher, mut done) = (blake3::Hasher::new(), 0);
        let mut chunk = vec![0; HASH_CHUNK];
        while done < stored.bytes {
            let part = &mut chunk[..HASH_CHUNK.min((stored.bytes - done) as usize)];
            self.file.read_exact_at(part, stored.offset + done)?;
            hasher.update(part);
            done += part.len() as u64;
        }
        Ok(hasher.finalize().into())
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// A file inside the package.
struct Within {
    file: Arc<File>,
    offset: u64,
    bytes: u64,
}

impl Source for Within {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        if offset.saturating_add(bytes as u64) > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, self.offset + offset)?;
        Ok(buffer.into())
    }
}
