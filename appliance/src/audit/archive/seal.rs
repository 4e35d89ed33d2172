//! Checksums inside an archive file, so that a reader of a few columns notices damage before a parser meets it.
//!
//! Two entries of the file's own metadata hold them (CRC-32C, eight hex digits each):
//!
//! ```text
//! lockgate.chunks    for each row group, for each column: its chunk, then its bloom filter (zeros: none)
//! lockgate.tail      TTTTTTTTTTTTTTTT-CCCCCCCC: where the tail begins (hex), and its checksum
//! ```
//!
//! The tail is what follows the last row group: indexes, metadata and the magic at the end. Its checksum is taken with those
//! 25 characters zero (`0000000000000000-00000000`).

use std::fmt::Write as _;

pub const CHUNKS_KEY: &str = "lockgate.chunks";
pub const TAIL_KEY: &str = "lockgate.tail";
pub const TAIL_BLANK: &str = "0000000000000000-00000000";

/// Of one column chunk and its bloom filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSeal {
    pub chunk: u32,
    pub bloom: u32,
}

const CHUNK_DIGITS: usize = 16;

pub fn push_chunk(out: &mut String, seal: ChunkSeal) {
    let _ = write!(out, "{:08x}{:08x}", seal.chunk, seal.bloom);
}

/// All of a file, row group after row group. `None`: not such a text.
pub fn parse_chunks(text: &str) -> Option<Vec<ChunkSeal>> {
    let digits = text.as_bytes();
    if !text.is_ascii() || !digits.len().is_multiple_of(CHUNK_DIGITS) {
        return None;
    }
    let number = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    let seal = |at: usize| Some(ChunkSeal { chunk: number(at)?, bloom: number(at + 8)? });
    (0..digits.len()).step_by(CHUNK_DIGITS).map(seal).collect()
}

/// Puts the tail's own checksum into it. `false`: there is no place for it.
pub fn close_tail(tail: &mut [u8], begins_at: u64) -> bool {
    let Some(place) = find_value(tail).filter(|place| tail[place.clone()] == *TAIL_BLANK.as_bytes()) else {
        return false;
    };
    let value = format!("{begins_at:016x}-{:08x}", crc32c::crc32c(tail));
    tail[place].copy_from_slice(value.as_bytes());
    true
}

/// Where the tail begins, as the metadata at the end of the file says; not yet checked.
pub fn tail_begins_at(metadata: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(&metadata[find_value(metadata)?]).ok()?.get(..16)?;
    u64::from_str_radix(digits, 16).ok().filter(|place| format!("{place:016x}") == digits)
}

pub fn tail_holds(tail: &[u8]) -> bool {
    let Some(place) = find_value(tail) else { return false };
    let Some(said) = std::str::from_utf8(&tail[place.clone()]).ok().and_then(|value| value.get(17..)) else {
        return false;
    };
    if tail[place.start + 16] != b'-' {
        return false;
    }
    let crc = crc32c::crc32c(&tail[..place.start]);
    let crc = crc32c::crc32c_append(crc, TAIL_BLANK.as_bytes());
    let crc = crc32c::crc32c_append(crc, &tail[place.end..]);
    said == format!("{crc:08x}")
}

/// The value of [`TAIL_KEY`]: in Thrift's compact protocol it stands two bytes (type, length) behind the key. The last
/// such place counts: records stand before the metadata.
fn find_value(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let key = memchr::memmem::rfind(bytes, TAIL_KEY.as_bytes())?;
    let start = key + TAIL_KEY.len() + 2;
    let end = start + TAIL_BLANK.len();
    (end <= bytes.len() && bytes[start - 1] as usize == TAIL_BLANK.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_seals_read_back() {
        let seals = [ChunkSeal { chunk: 1, bloom: 0 }, ChunkSeal { chunk: u32::MAX, bloom: 7 }];
        let mut text = String::new();
        seals.into_iter().for_each(|seal| push_chunk(&mut text, seal));
        assert_eq!(parse_chunks(&text), Some(seals.to_vec()));
        assert_eq!(parse_chunks(""), Some(Vec::new()));
        for bad in ["1", "000000010000000g", "+0000001-0000000", "ééééééééx"] {
            assert_eq!(parse_chunks(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_tail_shows() {
        let mut tail = format!("indexes {TAIL_KEY}\u{18}\u{19}{TAIL_BLANK} rest PAR1").into_bytes();
        assert!(!tail_holds(&tail));
        assert!(close_tail(&mut tail, 0xabc));
        assert!(tail_holds(&tail) && tail_begins_at(&tail) == Some(0xabc));
        for bit in 0..tail.len() * 8 {
            tail[bit / 8] ^= 1 << (bit % 8);
            // Where it begins is not under the checksum: a wrong place gives a tail that does not hold.
            let elsewhere = tail_begins_at(&tail) != Some(0xabc);
            assert!(!tail_holds(&tail) || elsewhere, "bit {bit}");
            tail[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
