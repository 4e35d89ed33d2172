//! Chained lines: JSON objects, one a line, each with the hash of its own bytes and of the line before. Pure but for the file.
//!
//! ```text
//! {"number":7,"previous":"HASH",...,"hash":"HASH"}                            the manifest
//! {"number":7,"previous":"HASH",...,"hash":"HASH","signature":"SIGNATURE"}    checkpoints
//! ^------------- body ------------^  the hash is of the body's bytes
//! ```
//!
//! Tails have a fixed length, so that hash, number and previous are checked before a parser sees the line.

use crate::audit::frame::{GENESIS, Hash, hash};
use crate::audit::segment::{at, hex};
use crate::files;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const HASH_OPEN: &[u8] = b",\"hash\":\"";
const SIGNATURE_OPEN: &[u8] = b"\",\"signature\":\"";
const CLOSE: &[u8] = b"\"}";
const HASH_DIGITS: usize = 64;
const SIGNATURE_DIGITS: usize = 128;
/// A line. Beyond: damage, and a reader allocates no more. A position and a span cost 600 bytes a shard.
pub const LINE_BYTES_MAX: usize = 2 << 20;

/// Read at a time, and where only the end of a line is looked for.
const READ_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 16 << 10;

/// The greatest integer in a line: what every reader of JSON can tell apart (RFC 8259, section 6), far below where sums overflow.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Are all of these believable?
pub fn in_range<const N: usize>(numbers: [u64; N]) -> bool {
    numbers.iter().all(|number| *number <= INTEGER_MAX)
}

pub type Signature = [u8; 64];

/// Where a chain of lines stands: the number and hash of its last line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    pub number: u64,
    pub hash: Hash,
}

impl Head {
    /// Before the first line.
    pub const START: Self = Self { number: 0, hash: GENESIS };

    /// How the body of the next line begins.
    pub fn opening(&self) -> String {
        format!("{{\"number\":{},\"previous\":\"{}\"", self.number + 1, hex(&self.hash))
    }
}

/// One line taken apart; its hash has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub body: &'a [u8],
    pub head: Head,
    pub previous: Hash,
    pub signature: Option<Signature>,
}

impl Line<'_> {
    /// The JSON object without hash and signature.
    pub fn json(&self) -> Vec<u8> {
        [self.body, b"}"].concat()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineBroken {
    /// The file ends before the line does.
    Unfinished,
    /// It does not end as a line of this kind.
    Tail,
    Hash,
    /// It does not begin with its number and its predecessor.
    Opening,
    Json,
    /// What it says is not what the checkpoints name.
    Unsigned,
}

impl fmt::Display for LineBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "the last line is not whole",
            Self::Tail => "it does not end in a hash",
            Self::Hash => "its hash is not that of its bytes",
            Self::Opening => "it does not begin with its number and the hash before it",
            Self::Json => "it holds no entry of a known form",
            Self::Unsigned => "it is not the one that the checkpoints name, or they do not hold",
        })
    }
}

/// Closes a body with its hash, and with a signature of it where the chain is signed. The line end is part of it.
pub fn seal(body: &str, signature: Option<&Signature>) -> String {
    let hash = hex(&hash(body.as_bytes()));
    match signature {
        None => format!("{body},\"hash\":\"{hash}\"}}\n"),
        Some(signature) => format!("{body},\"hash\":\"{hash}\",\"signature\":\"{}\"}}\n", hex(signature)),
    }
}

/// Takes a line (without its line end) apart and checks its hash.
pub fn split(line: &[u8], signed: bool) -> Result<Line<'_>, LineBroken> {
    let rest = line.strip_suffix(CLOSE).ok_or(LineBroken::Tail)?;
    let (rest, signature) = if signed {
        let (rest, digits) = cut(rest, SIGNATURE_DIGITS)?;
        (rest.strip_suffix(SIGNATURE_OPEN).ok_or(LineBroken::Tail)?, Some(unhex(digits).ok_or(LineBroken::Tail)?))
    } else {
        (rest, None)
    };
    let (rest, digits) = cut(rest, HASH_DIGITS)?;
    let body = rest.strip_suffix(HASH_OPEN).ok_or(LineBroken::Tail)?;
    let named: Hash = unhex(digits).ok_or(LineBroken::Tail)?;
    if hash(body) != named {
        return Err(LineBroken::Hash);
    }
    let (number, previous) = opening(body).ok_or(LineBroken::Opening)?;
    Ok(Line { body, head: Head { number, hash: named }, previous, signature })
}

fn cut(bytes: &[u8], digits: usize) -> Result<(&[u8], &[u8]), LineBroken> {
    bytes.len().checked_sub(digits).map(|at| bytes.split_at(at)).ok_or(LineBroken::Tail)
}

fn opening(body: &[u8]) -> Option<(u64, Hash)> {
    let rest = body.strip_prefix(b"{\"number\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: u64 =
        std::str::from_utf8(&rest[..digits]).ok()?.parse().ok().filter(|number| *number <= INTEGER_MAX)?;
    let rest = rest[digits..].strip_prefix(b",\"previous\":\"")?;
    Some((number, unhex(rest.get(..HASH_DIGITS)?)?))
}

/// The time (Unix microseconds) that stands behind these bytes, `,"NAME":"`, found without a parser: no text of a line can hold them, its
/// quotation marks are escaped.
pub fn member_time(line: &[u8], opening: &[u8]) -> Option<i64> {
    let start = memchr::memmem::find(line, opening)? + opening.len();
    let length = memchr::memchr(b'"', &line[start..])?;
    let text = std::str::from_utf8(&line[start..start + length]).ok()?;
    text.parse().ok().map(jiff::Timestamp::as_microsecond)
}

/// Lower-case digits only: one value has one spelling.
pub fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(out)
}

/// Reads a file of lines from an offset on, raw: without their line ends.
pub struct Lines {
    path: PathBuf,
    reader: io::Take<BufReader<File>>,
    line: Vec<u8>,
    /// Where the line last returned begins, and where the next one does.
    pub offset: u64,
    pub next_offset: u64,
}

impl Lines {
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// From the beginning of a line on.
    pub fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = files::open(path).map_err(|error| at(path, error))?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(|error| at(path, error))?;
        let reader = io::Read::take(BufReader::with_capacity(READ_BYTES, file), 0);
        Ok(Self { path: path.to_owned(), reader, line: Vec::new(), offset, next_offset: offset })
    }

    /// `None`: the end. An unfinished last line is an error of its own kind.
    pub fn next_line(&mut self) -> io::Result<Option<Result<&[u8], LineBroken>>> {
        self.line.clear();
        self.reader.set_limit(LINE_BYTES_MAX as u64);
        let read = self.reader.read_until(b'\n', &mut self.line).map_err(|error| at(&self.path, error))?;
        self.offset = self.next_offset;
        self.next_offset += read as u64;
        Ok(match self.line.pop() {
            None => None,
            Some(b'\n') => Some(Ok(&self.line)),
            Some(_) if read < LINE_BYTES_MAX => Some(Err(LineBroken::Unfinished)),
            // Whatever its length, it is one.
            Some(_) => {
                let file = self.reader.get_ref().get_ref();
                let end = line_end(file, self.next_offset).map_err(|error| at(&self.path, error))?;
                let bytes = file.metadata().map_err(|error| at(&self.path, error))?.len();
                self.next_offset = end.unwrap_or(bytes).max(self.next_offset);
                let next = io::SeekFrom::Start(self.next_offset);
                io::Seek::seek(self.reader.get_mut(), next).map_err(|error| at(&self.path, error))?;
                Some(Err(LineBroken::Tail))
            }
        })
    }
}

/// Where the line ends that goes on at this byte: behind its line end. `None`: it has none. Holes hold no line end: a file of terabytes
/// that is one takes no time.
pub fn line_end(file: &File, from: u64) -> io::Result<Option<u64>> {
    let (mut offset, mut chunk) = (from, vec![0; CHUNK_BYTES]);
    while let Some(start) = files::next_data(file, offset)? {
        let read = file.read_at(&mut chunk, start)?;
        if let Some(found) = memchr::memchr(b'\n', &chunk[..read]) {
            return Ok(Some(start + found as u64 + 1));
        }
        if read == 0 {
            break;
        }
        offset = start + read as u64;
    }
    Ok(None)
}

/// The end of a file of lines: what an appender goes on from.
#[derive(Debug)]
pub struct Tail {
    /// The last whole line, without its line end. Empty: there is none.
    pub line: Vec<u8>,
    /// Bytes up to the end of that line.
    pub whole_bytes: u64,
    /// Bytes of an unfinished line behind it.
    pub unfinished_bytes: u64,
}

impl Tail {
    const NONE: Self = Self { line: Vec::new(), whole_bytes: 0, unfinished_bytes: 0 };

    /// Where the last whole line begins.
    pub fn line_offset(&self) -> u64 {
        self.whole_bytes.saturating_sub(self.line.len() as u64 + 1)
    }
}

/// Finds the last whole line, reading backwards. A file that is not there has none.
pub fn tail(path: &Path) -> io::Result<Tail> {
    tail_until(path, u64::MAX)
}

/// The same of what stands before a byte.
pub fn tail_until(path: &Path, end: u64) -> io::Result<Tail> {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Tail::NONE);
        }
        Err(error) => return Err(at(path, error)),
    };
    let length = file.metadata().map_err(|error| at(path, error))?.len().min(end);
    // Enough for the last line and an unfinished one behind it.
    let window = length.min(2 * LINE_BYTES_MAX as u64);
    let mut want = window.min(16 << 10);
    loop {
        let mut bytes = vec![0; want as usize];
        file.read_exact_at(&mut bytes, length - want).map_err(|error| at(path, error))?;
        let end = bytes.iter().rposition(|&byte| byte == b'\n');
        let start = end.and_then(|end| bytes[..end].iter().rposition(|&byte| byte == b'\n').map(|start| start + 1));
        let start = if want == length { start.or(Some(0)) } else { start };
        match (start, end) {
            (Some(start), Some(end)) => {
                let whole_bytes = length - want + end as u64 + 1;
                return Ok(Tail {
                    line: bytes[start..end].to_vec(),
                    whole_bytes,
                    unfinished_bytes: length - whole_bytes,
                });
            }
            _ if want == length => {
                return Ok(Tail { line: Vec::new(), whole_bytes: 0, unfinished_bytes: length });
            }
            _ if want == window => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "its last line is longer than any of ours");
                return Err(at(path, error));
            }
            _ => want = (want * 8).min(window),
        }
    }
}

/// Appends whole lines, each with one write, synced. What was not finished before is cut off first.
pub struct Appender {
    path: PathBuf,
    file: File,
    /// Bytes up to the end of the last whole line.
    bytes: u64,
}

impl Appender {
    pub fn open(path: &Path, tail: &Tail) -> io::Result<Self> {
        let wrap = |error| at(path, error);
        let new = !path.exists();
        let file = files::open_or_create(path).map_err(wrap)?;
        if tail.unfinished_bytes > 0 {
            file.set_len(tail.whole_bytes).and_then(|()| file.sync_all()).map_err(wrap)?;
        }
        if new {
            crate::audit::segment::sync_dir(path.parent().expect("a file in a folder"))?;
        }
        Ok(Self { path: path.to_owned(), file, bytes: tail.whole_bytes })
    }

    /// After an error part of the line may be in the file: the next attempt writes over it.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let written = self.file.write_all_at(line.as_bytes(), self.bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line would be a break to whoever verifies before the next attempt.
            let _ = self.file.set_len(self.bytes);
            return Err(at(&self.path, error));
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is written is found under its name.
    pub fn look(&self) -> io::Result<()> {
        let gone = "was removed or replaced while it was written to: put it back as it was";
        files::must_be_called(&self.file, &self.path, gone).map_err(|error| at(&self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(head: &Head, signature: Option<&Signature>) -> String {
        seal(&format!("{},\"kind\":\"x\"", head.opening()), signature)
    }

    #[test]
    fn a_line_says_its_place_and_proves_its_bytes() {
        let first = line(&Head::START, None);
        let split_first = split(first.trim_end().as_bytes(), false).expect("whole");
        assert_eq!((split_first.head.number, split_first.previous), (1, GENESIS));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&split_first.json()).unwrap()["kind"], "x");
        let signed = line(&split_first.head, Some(&[7; 64]));
        let second = split(signed.trim_end().as_bytes(), true).expect("whole");
        assert_eq!((second.previous, second.signature), (split_first.head.hash, Some([7; 64])));
    }

    #[test]
    fn every_changed_byte_of_a_line_is_noticed() {
        for signature in [None, Some([7; 64])] {
            let text = line(&Head { number: 41, hash: [3; 32] }, signature.as_ref());
            let good = text.trim_end().as_bytes();
            let body = split(good, signature.is_some()).expect("whole").body.len();
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.to_vec();
                    bad[at] ^= 1 << bit;
                    let found = split(&bad, signature.is_some());
                    // A signature is judged by who has the key.
                    let of_signature = signature.is_some() && at >= body + HASH_OPEN.len() + HASH_DIGITS;
                    assert!(found.is_err() || of_signature, "byte {at} bit {bit}");
                    if let Ok(found) = found {
                        assert_ne!(found.signature, signature);
                    }
                }
            }
        }
    }

    #[test]
    fn an_appender_goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lines");
        assert!(tail(&path).expect("none").line.is_empty());
        Appender::open(&path, &tail(&path).unwrap()).unwrap().append("one\n").unwrap();
        std::fs::write(&path, b"one\ntwo\nthr").unwrap();
        let found = tail(&path).unwrap();
        assert_eq!((&*found.line, found.whole_bytes, found.unfinished_bytes), (&b"two"[..], 8, 3));
        let mut appender = Appender::open(&path, &found).unwrap();
        appender.append("three\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        std::fs::write(&path, b"unfinished").unwrap();
        let found = tail(&path).unwrap();
        assert_eq!((found.line.len(), found.whole_bytes, found.unfinished_bytes), (0, 0, 10));
    }

    #[test]
    fn a_line_of_terabytes_that_is_a_hole_is_one_line_that_does_not_hold() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lines");
        std::fs::write(&path, "first\n").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"x\nlast\n", 1 << 43).unwrap();
        let (mut lines, mut found) = (Lines::open(&path).unwrap(), Vec::new());
        while let Some(line) = lines.next_line().unwrap() {
            found.push(line.map(<[u8]>::to_vec));
        }
        assert_eq!(found, [Ok(b"first".to_vec()), Err(LineBroken::Tail), Ok(b"last".to_vec())]);
        // Without an end it reaches to that of the file.
        file.set_len(1 << 43).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next_line().unwrap().map(|line| line.is_ok()), Some(true));
        assert_eq!(lines.next_line().unwrap().map(|line| line.is_err()), Some(true));
        assert_eq!((lines.next_offset, lines.next_line().unwrap()), (1 << 43, None));
        assert!(tail(&path).is_err());
    }

    #[test]
    fn long_files_have_their_last_line_found_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lines");
        let long = "x".repeat(100_000);
        std::fs::write(&path, format!("first\n{long}\n{long}y\n")).unwrap();
        let found = tail(&path).unwrap();
        assert_eq!((found.line.len(), found.unfinished_bytes), (100_001, 0));
        let mut lines = Lines::open(&path).unwrap();
        let mut lengths = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            lengths.push(line.unwrap().len());
        }
        assert_eq!(lengths, [5, 100_000, 100_001]);
        std::fs::write(&path, [&vec![0; 3 * LINE_BYTES_MAX][..], b"x\nlast\n"].concat()).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next_line().unwrap(), Some(Err(LineBroken::Tail)));
        assert_eq!(lines.next_line().unwrap(), Some(Ok(&b"last"[..])));
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
