//! As much of tar (POSIX ustar) as a package needs: plain files, one behind another, read back without trusting a length.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;

const BLOCK: usize = 512;
/// Entries of a package; beyond it is none of ours.
const ENTRIES_MAX: usize = 1_000_000;
const NAME_MAX: usize = 100;

pub struct Writer<W: Write> {
    sink: W,
}

impl<W: Write> Writer<W> {
    pub fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Appends a file of exactly `bytes` bytes.
    pub fn append(&mut self, name: &str, bytes: u64, time_s: u64, content: &mut dyn Read) -> io::Result<()> {
        self.sink.write_all(&header(name, bytes, time_s)?)?;
        let copied = io::copy(&mut content.take(bytes), &mut self.sink)?;
        if copied != bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{name} became shorter while it was read"),
            ));
        }
        let padding = bytes.next_multiple_of(BLOCK as u64) - bytes;
        self.sink.write_all(&[0; BLOCK][..padding as usize])
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}

fn header(name: &str, bytes: u64, time_s: u64) -> io::Result<[u8; BLOCK]> {
    if name.is_empty() || name.len() > NAME_MAX || bytes >= 1 << 33 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: does not fit into a package")));
    }
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", time_s % (1 << 33)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// A file in a package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
}

/// The entries in their order. Anything but plain files, whole and followed by the end, is an error.
pub fn entries(file: &File) -> io::Result<Vec<Entry>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("it is not a package: {what}"));
    let file_bytes = file.metadata()?.len();
    let (mut entries, mut at) = (Vec::new(), 0);
    loop {
        let mut block = [0; BLOCK];
        file.read_exact_at(&mut block, at).map_err(|_| invalid("it ends too early"))?;
        if block == [0; BLOCK] {
            // Two such blocks and nothing behind them.
            let mut rest = vec![0; (file_bytes - at).min(BLOCK as u64 * 3) as usize];
            file.read_exact_at(&mut rest, at)?;
            let ends = file_bytes - at == 2 * BLOCK as u64 && rest.iter().all(|&byte| byte == 0);
            return if ends { Ok(entries) } else { Err(invalid("something stands behind its end")) };
        }
        let entry = parse(&block, at + BLOCK as u64).ok_or_else(|| invalid("a header in it is damaged"))?;
        at = entry
            .bytes
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|bytes| entry.offset.checked_add(bytes))
            .filter(|end| *end <= file_bytes)
            .ok_or_else(|| invalid("it ends too early"))?;
        let mut padding = vec![0; (at - entry.offset - entry.bytes) as usize];
        file.read_exact_at(&mut padding, entry.offset + entry.bytes)?;
        if padding.iter().any(|&byte| byte != 0) || entries.len() >= ENTRIES_MAX {
            return Err(invalid("there is something between its files"));
        }
        entries.push(entry);
    }
}

/// Our own headers and no others: whatever else tar allows is not needed to carry evidence.
fn parse(block: &[u8; BLOCK], offset: u64) -> Option<Entry> {
    let name = block[..NAME_MAX].split(|&byte| byte == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    let number = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
    let (bytes, time_s) = (number(&block[124..135])?, number(&block[136..147])?);
    let again = header(name, bytes, time_s).ok()?;
    (again == *block).then(|| Entry { name: name.to_owned(), offset, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.append("one.txt", 5, 1_795_142_000, &mut &b"hello"[..]).expect("memory");
        writer.append("dir/two", 0, 1_795_142_000, &mut &b""[..]).expect("memory");
        writer.append("three", 512, 0, &mut &[7; 512][..]).expect("memory");
        writer.finish().expect("memory")
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<Entry>> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("room");
        entries(&file)
    }

    #[test]
    fn files_read_back() {
        let entries = read(&sample()).expect("a package");
        let seen: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.offset, entry.bytes)).collect();
        assert_eq!(seen, [("one.txt", 512, 5), ("dir/two", 1536, 0), ("three", 2048, 512)]);
        assert!(Writer::new(Vec::new()).append("short", 5, 0, &mut &b"hell"[..]).is_err());
        assert!(Writer::new(Vec::new()).append(&"n".repeat(101), 0, 0, &mut &b""[..]).is_err());
    }

    #[test]
    fn what_is_cut_longer_or_changed_between_the_files_is_refused() {
        let good = sample();
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        assert!(read(&[&good[..], &[0]].concat()).is_err());
        let contents = [512..517, 2048..2560];
        for at in (0..good.len()).filter(|at| !contents.iter().any(|content| content.contains(at))) {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            let changed = read(&bad);
            // A bit of a name is a name: the index tells.
            let renamed = changed.as_ref().is_ok_and(|entries| entries[0].name != "one.txt");
            assert!(changed.is_err() || renamed, "byte {at}");
        }
    }
}
