//! Proof over the checkpoints, here and elsewhere: signatures, the chain, and that what they promise is still there.

use super::check::{ArchiveBreak, Books, BreakKind, Found};
use super::checkpoint::{self, Checkpoint, Next, Promise, Statement};
use super::holds;
use super::key::PublicKey;
use super::lines::{Head, LineBroken, Lines};
use crate::audit::frame::{GENESIS, Hash};
use crate::audit::segment::at;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// What the checkpoints say, as far as they hold.
#[derive(Debug, Default)]
pub struct Promises {
    pub lines: u64,
    pub last_us: Option<i64>,
    /// Keys that signed, in their order.
    pub keys: Vec<PublicKey>,
    /// By shard: frames behind the position that the segments must hold.
    pub frames: BTreeMap<u32, HashMap<u64, Hash>>,
    /// By shard: the greatest frame promised.
    pub greatest: BTreeMap<u32, u64>,
    /// By shard: what was promised last. It never goes back, and a frame has one hash.
    last: BTreeMap<u32, (u64, Hash)>,
    /// The holds' last line, each that is named, and where.
    holds: Vec<(PathBuf, u64, Head)>,
    /// The greatest entry of the manifest that is named.
    pub manifest: Head,
    /// How the next line has to go on. `None`: the last one does not hold.
    next: Option<Next>,
}

/// Files and how much of each is looked at: they grow.
pub type Limits = Vec<(PathBuf, u64)>;

pub fn limits(files: Vec<PathBuf>) -> io::Result<Limits> {
    let bytes = |path: PathBuf| {
        let bytes = path.metadata().map_err(|error| at(&path, error))?.len();
        Ok((path, bytes))
    };
    files.into_iter().map(bytes).collect()
}

/// Lines of several files as one.
struct Reader {
    /// Each from one byte to another.
    files: VecDeque<(PathBuf, u64, u64)>,
    current: Option<(PathBuf, u64, Lines)>,
    line: u64,
}

/// One line and where it stands.
struct Read {
    file: PathBuf,
    line: u64,
    checkpoint: Result<Checkpoint, LineBroken>,
}

impl Reader {
    fn new(limits: &Limits) -> Self {
        Self::between(&Vec::new(), limits)
    }

    /// What was added to files that were read as far as `read`.
    fn between(read: &Limits, now: &Limits) -> Self {
        let begun = |path: &PathBuf| read.iter().find(|(file, _)| file == path).map_or(0, |(_, bytes)| *bytes);
        let files = now.iter().map(|(path, bytes)| (path.clone(), begun(path), *bytes)).collect();
        Self { files, current: None, line: 0 }
    }

    fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            if self.current.is_none() {
                let Some((path, begin, limit)) = self.files.pop_front() else { return Ok(None) };
                let lines = Lines::open_at(&path, begin)?;
                (self.current, self.line) = (Some((path, limit, lines)), 0);
            }
            let Some((path, limit, lines)) = &mut self.current else { return Ok(None) };
            if lines.next_offset < *limit
                && let Some(line) = lines.next_line()?
            {
                self.line += 1;
                let checkpoint = line.and_then(Checkpoint::parse);
                return Ok(Some(Read { file: path.clone(), line: self.line, checkpoint }));
            }
            self.current = None;
        }
    }
}

/// What is checked against what.
pub struct Signed<'a> {
    pub books: &'a Books,
    /// How far they went when the manifest ended where the books do.
    pub here: &'a Limits,
    /// Kept elsewhere.
    pub elsewhere: Limits,
    /// Vouched for. None: the first one met is believed.
    pub keys: &'a [PublicKey],
}

impl Signed<'_> {
    pub fn check(&self, found: &mut Found<'_>) -> io::Result<Promises> {
        let mut promises = Promises::default();
        let mut other = Elsewhere::new(self, found)?;
        let mut reader = Reader::new(self.here);
        let (mut chain, mut keys) = (Chain::new(self.keys, 1), Some(0));
        while let Some(read) = reader.next()? {
            let Some(checkpoint) = chain.take(&read, found) else { continue };
            other.compare(&checkpoint, found)?;
            self.begins(&checkpoint, &read, &mut keys, found);
            self.promise(&checkpoint, &read, &mut promises, found);
        }
        let next = chain.next.zip(chain.key);
        promises.next = next.map(|((number, previous), key)| Next { number, previous, key: Some(key) });
        promises.keys = chain.seen;
        other.finish(&mut promises, found)?;
        let entries = self.books.entries();
        if promises.manifest.number + 1 < entries || (promises.lines == 0 && entries > 0) {
            let file = self.here.last().map_or_else(|| self.books.path.clone(), |(path, _)| path.clone());
            found(ArchiveBreak {
                file,
                line: None,
                kind: BreakKind::CheckpointsEnd { number: promises.manifest.number },
            });
        }
        Ok(promises)
    }

    /// The first checkpoint of all is written before there is an entry. `keys`: lines before it that only changed the key.
    fn begins(&self, checkpoint: &Checkpoint, read: &Read, keys: &mut Option<u64>, found: &mut Found<'_>) {
        match &checkpoint.statement {
            Statement::Key { .. } => *keys = keys.map(|keys| keys + 1),
            Statement::Checkpoint { manifest, .. } => {
                let first = keys.take().is_some_and(|keys| checkpoint.head.number == keys + 1);
                if first && manifest.number > 0 {
                    let kind = BreakKind::CheckpointsBegin { number: manifest.number };
                    found(ArchiveBreak { file: read.file.clone(), line: Some(read.line), kind });
                }
            }
        }
    }

    fn promise(&self, checkpoint: &Checkpoint, read: &Read, promises: &mut Promises, found: &mut Found<'_>) {
        promises.lines += 1;
        promises.last_us = Some(checkpoint.time_us);
        let Statement::Checkpoint { manifest, shards, holds } = &checkpoint.statement else { return };
        let mut tell = |kind| found(ArchiveBreak { file: read.file.clone(), line: Some(read.line), kind });
        let there = self.books.hash_of(manifest.number);
        if there != Some(manifest.hash) || manifest.number < promises.manifest.number {
            tell(BreakKind::PromisedEntry { number: manifest.number });
        }
        if manifest.number > promises.manifest.number {
            promises.manifest = (*manifest).into();
        }
        for promise in shards {
            if let Some(kind) = self.promise_frame(promise, promises) {
                tell(kind);
            }
        }
        let head = holds.map_or(Head::START, Head::from);
        let before = promises.holds.last().map_or(Head::START, |(_, _, before)| *before);
        if head.number < before.number {
            tell(BreakKind::PromisedHold { number: before.number });
        } else if head != before {
            promises.holds.push((read.file.clone(), read.line, head));
        }
    }

    fn promise_frame(&self, promise: &Promise, promises: &mut Promises) -> Option<BreakKind> {
        let Promise { shard, frame, hash, .. } = *promise;
        let greatest = promises.greatest.entry(shard).or_default();
        *greatest = (*greatest).max(frame);
        let before = promises.last.insert(shard, (frame, hash));
        if before.is_some_and(|(last, of)| frame < last || (frame == last && hash != of)) {
            return Some(BreakKind::PromisedFrame { shard, frame });
        }
        let known = self.books.ends.get(&shard).and_then(|ends| ends.get(&frame));
        if known.is_some_and(|known| *known != hash) {
            return Some(BreakKind::PromisedFrame { shard, frame });
        }
        // What precedes the position hangs together with it: its hash says enough. (The last entry may prove nothing.)
        if frame > self.books.before.get(&shard).map_or(0, |position| position.frame) {
            let before = promises.frames.entry(shard).or_default().insert(frame, hash);
            return before.filter(|before| *before != hash).map(|_| BreakKind::PromisedFrame { shard, frame });
        }
        None
    }
}

/// Each line after the one before it.
struct Chain<'a> {
    vouched: &'a [PublicKey],
    seen: Vec<PublicKey>,
    next: Option<(u64, Hash)>,
    /// Who has to sign the next line; `None`: a line before it did not hold.
    key: Option<PublicKey>,
    begun: bool,
}

impl<'a> Chain<'a> {
    fn new(vouched: &'a [PublicKey], number: u64) -> Self {
        Self { vouched, seen: Vec::new(), next: Some((number, GENESIS)), key: None, begun: false }
    }

    /// One that begins anywhere.
    fn anywhere(vouched: &'a [PublicKey]) -> Self {
        Self { next: None, ..Self::new(vouched, 1) }
    }

    /// `None`: nothing it says counts.
    fn take(&mut self, read: &Read, found: &mut Found<'_>) -> Option<Checkpoint> {
        let mut tell = |kind| found(ArchiveBreak { file: read.file.clone(), line: Some(read.line), kind });
        let checkpoint = match &read.checkpoint {
            Ok(checkpoint) => checkpoint.clone(),
            Err(broken) => {
                tell(BreakKind::Line(*broken));
                (self.next, self.key) = (None, None);
                return None;
            }
        };
        let found_number = checkpoint.head.number;
        match self.next {
            Some((expected, _)) if expected != found_number => {
                tell(BreakKind::Number { expected, found: found_number });
            }
            Some((_, previous)) if previous != checkpoint.previous => tell(BreakKind::Chain),
            _ => {}
        }
        self.next = Some((found_number + 1, checkpoint.head.hash));
        if !checkpoint.signature_holds {
            tell(BreakKind::Signature);
            self.key = None;
            return None;
        }
        let known = match self.key {
            Some(key) => checkpoint.key == key,
            None if !self.begun && self.vouched.is_empty() => true,
            None => self.vouched.contains(&checkpoint.key) || self.seen.contains(&checkpoint.key),
        };
        self.begun = true;
        if !known {
            tell(BreakKind::Key);
            return None;
        }
        for key in [checkpoint.key, checkpoint.next_key()] {
            if !self.seen.contains(&key) {
                self.seen.push(key);
            }
        }
        self.key = Some(checkpoint.next_key());
        Some(checkpoint)
    }
}

/// Checkpoints that are kept elsewhere, walked along with ours.
struct Elsewhere<'a, 'b> {
    signed: &'b Signed<'a>,
    reader: Reader,
    chain: Chain<'a>,
    next: Option<(Checkpoint, Read)>,
}

impl<'a, 'b> Elsewhere<'a, 'b> {
    fn new(signed: &'b Signed<'a>, found: &mut Found<'_>) -> io::Result<Self> {
        let (reader, chain) = (Reader::new(&signed.elsewhere), Chain::anywhere(signed.keys));
        let mut elsewhere = Self { signed, reader, chain, next: None };
        elsewhere.advance(found)?;
        Ok(elsewhere)
    }

    fn advance(&mut self, found: &mut Found<'_>) -> io::Result<()> {
        self.next = None;
        while let Some(read) = self.reader.next()? {
            if let Some(checkpoint) = self.chain.take(&read, found) {
                self.next = Some((checkpoint, read));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Ours, in the order of their numbers.
    fn compare(&mut self, ours: &Checkpoint, found: &mut Found<'_>) -> io::Result<()> {
        while let Some((theirs, read)) = &self.next {
            let (number, same) = (theirs.head.number, theirs.head == ours.head);
            if number > ours.head.number {
                return Ok(());
            }
            if !same {
                let (file, line) = (read.file.clone(), Some(read.line));
                found(ArchiveBreak { file, line, kind: BreakKind::Elsewhere { number } });
            }
            self.advance(found)?;
        }
        Ok(())
    }

    /// What is left is newer than all of ours: it was cut off here. One break, but all its promises count.
    fn finish(&mut self, promises: &mut Promises, found: &mut Found<'_>) -> io::Result<()> {
        let mut told = false;
        while let Some((theirs, read)) = self.next.take() {
            if !std::mem::replace(&mut told, true) {
                let (file, line, number) = (read.file.clone(), Some(read.line), theirs.head.number);
                found(ArchiveBreak { file, line, kind: BreakKind::Elsewhere { number } });
            }
            self.signed.promise(&theirs, &read, promises, found);
            self.advance(found)?;
        }
        Ok(())
    }
}

/// The holds: their chain, and that it has every line which the checkpoints name. (Read behind them: what they name was
/// there by then.)
pub fn check_holds(data_dir: &Path, promises: &Promises, found: &mut Found<'_>) -> io::Result<()> {
    let path = holds::path(data_dir);
    let (mut hashes, mut place, mut follows) = (Vec::new(), 0, true);
    holds::each(data_dir, &mut |line| {
        place += 1;
        let mut tell = |kind| found(ArchiveBreak { file: path.clone(), line: Some(place), kind });
        let line = match line {
            Ok(line) => line,
            Err(broken) => {
                tell(BreakKind::Line(broken));
                hashes.push(GENESIS);
                follows = false;
                return Ok(());
            }
        };
        let (number, expected) = (line.head.number, hashes.len() as u64 + 1);
        if follows && number != expected {
            tell(BreakKind::Number { expected, found: number });
        } else if follows && line.previous != hashes.last().copied().unwrap_or(GENESIS) {
            tell(BreakKind::Chain);
        }
        follows = true;
        hashes.push(line.head.hash);
        Ok(())
    })?;
    for (file, line, head) in &promises.holds {
        let line_hash = head.number.checked_sub(1).and_then(|index| hashes.get(index as usize));
        if line_hash != Some(&head.hash) {
            let kind = BreakKind::PromisedHold { number: head.number };
            found(ArchiveBreak { file: file.clone(), line: Some(*line), kind });
        }
    }
    Ok(())
}

/// The manifest's last entry by the lines behind those that were read up to `read`: each continues the one before under the key
/// that has to sign it. `None`: one does not, and nothing they say counts.
pub fn signed_since(promises: &Promises, read: &Limits, now: &Limits) -> io::Result<Option<Head>> {
    let Some(mut next) = promises.next else { return Ok(None) };
    let (mut manifest, mut reader) = (promises.manifest, Reader::between(read, now));
    while let Some(Read { checkpoint, .. }) = reader.next()? {
        let Ok(line) = checkpoint else { return Ok(None) };
        if !line.signature_holds || !next.is(&line) {
            return Ok(None);
        }
        next = Next::behind(&line);
        if let Statement::Checkpoint { manifest: named, .. } = line.statement {
            manifest = named.into();
        }
    }
    Ok(Some(manifest))
}

/// All files of a trail's own checkpoints.
pub fn here(data_dir: &Path) -> io::Result<Limits> {
    limits(checkpoint::files(data_dir)?)
}
