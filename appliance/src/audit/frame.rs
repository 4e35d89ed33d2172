//! The bytes between the records: segment headers, frames and footers, and the hash chain through them. Pure.
//!
//! ```text
//! segment   | header 128 | frame | frame | ... | footer | zeros to the end of the file
//! frame     | header  96 | payload: records, or the footer's six numbers |
//! chain     header <- frame <- frame <- footer <- next segment's header <- ...
//! ```
//!
//! Each element carries the BLAKE3 of the whole element before it. FORMAT.md draws every byte.

/// The version of this format; readers refuse any other.
pub const VERSION: u16 = 1;
pub const SEGMENT_MAGIC: [u8; 8] = *b"LGSEGMT\x01";
pub const FRAME_MAGIC: [u8; 4] = *b"LGFR";
pub const SEGMENT_HEADER_BYTES: usize = 128;
pub const FRAME_HEADER_BYTES: usize = 96;
pub const FOOTER_PAYLOAD_BYTES: usize = 48;
pub const FOOTER_BYTES: usize = FRAME_HEADER_BYTES + FOOTER_PAYLOAD_BYTES;
/// Everything in a segment starts at a multiple of this.
pub const ALIGN: usize = 8;
/// Numbers of segments, frames and records are at most that: with what one frame adds to them (up to 2^32) they are what JSON can say.
pub const NUMBER_MAX: u64 = (1 << 53) - 1 - (1 << 32);
/// A frame's payload. Beyond: the batch is split into frames; a reader calls it damage without allocating.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 << 20;

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(ALIGN) && FRAME_HEADER_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(FOOTER_PAYLOAD_BYTES.is_multiple_of(ALIGN));

/// BLAKE3 of one element of the chain.
pub type Hash = [u8; 32];
/// What the first segment of a shard names as its predecessor.
pub const GENESIS: Hash = [0; 32];

/// The hash of one whole element: what the next one carries as `previous`.
pub fn hash(element: &[u8]) -> Hash {
    *blake3::hash(element).as_bytes()
}

/// How a segment begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub shard: u32,
    /// Counts from 1 without gaps.
    pub number: u64,
    /// Size of the file.
    pub segment_bytes: u64,
    /// Unix microseconds of its first use.
    pub started_us: i64,
    /// Number of the first frame, and sequence of the first record.
    pub first_frame: u64,
    pub first_record: u64,
    /// The kernel's boot id when it was first used; zeros when unknown.
    pub boot: [u8; 16],
    /// Its predecessor has no footer: it was found damaged and left as it was.
    pub after_damage: bool,
    /// Hash of the predecessor's footer (of its last good frame after damage); zeros in the first segment.
    pub previous: Hash,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&(SEGMENT_HEADER_BYTES as u16).to_le_bytes());
        out[16..20].copy_from_slice(&self.shard.to_le_bytes());
        out[20..24].copy_from_slice(&u32::from(self.after_damage).to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        out[32..40].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[40..48].copy_from_slice(&self.started_us.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_frame.to_le_bytes());
        out[56..64].copy_from_slice(&self.first_record.to_le_bytes());
        out[64..80].copy_from_slice(&self.boot);
        out[96..128].copy_from_slice(&self.previous);
        let crc = crc32c::crc32c(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(raw: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, Broken> {
        if raw[0..8] != SEGMENT_MAGIC {
            return Err(Broken::Magic);
        }
        if u16_at(raw, 8) != VERSION {
            return Err(Broken::Version(u16_at(raw, 8)));
        }
        let mut zeroed = *raw;
        zeroed[12..16].fill(0);
        if crc32c::crc32c(&zeroed) != u32_at(raw, 12) {
            return Err(Broken::Checksum);
        }
        let known = usize::from(u16_at(raw, 10)) == SEGMENT_HEADER_BYTES
            && u32_at(raw, 20) <= 1
            && raw[80..96].iter().all(|&byte| byte == 0);
        if !known {
            return Err(Broken::Field);
        }
        if [24, 48, 56].iter().any(|&at| u64_at(raw, at) > NUMBER_MAX) {
            return Err(Broken::Field);
        }
        Ok(Self {
            shard: u32_at(raw, 16),
            after_damage: u32_at(raw, 20) == 1,
            number: u64_at(raw, 24),
            segment_bytes: u64_at(raw, 32),
            started_us: u64_at(raw, 40) as i64,
            first_frame: u64_at(raw, 48),
            first_record: u64_at(raw, 56),
            boot: raw[64..80].try_into().expect("16 bytes"),
            previous: raw[96..128].try_into().expect("32 bytes"),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// The records of one commit round.
    Records,
    /// The last frame of a sealed segment.
    Footer,
}

/// How a frame begins. The payload follows at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub payload_bytes: u32,
    pub crc: u32,
    pub shard: u32,
    /// Records in the payload; 0 in a footer.
    pub records: u32,
    /// The frame's number in its shard: counts from 1 without gaps, footers included.
    pub frame: u64,
    /// Sequence of the first record; of the next one to come in a footer.
    pub first_record: u64,
    /// Unix microseconds of the last record.
    pub time_us: i64,
    /// The segment it was written to.
    pub segment: u64,
    pub previous: Hash,
}

impl FrameHeader {
    /// Writes the header in front of a payload already in place, checksum included.
    /// `element`: [`FRAME_HEADER_BYTES`] bytes of room, then the payload.
    pub fn seal(mut self, element: &mut [u8]) {
        let payload_bytes = element.len() - FRAME_HEADER_BYTES;
        debug_assert!(payload_bytes.is_multiple_of(ALIGN) && payload_bytes <= FRAME_PAYLOAD_BYTES_MAX);
        self.payload_bytes = payload_bytes as u32;
        self.crc = 0;
        self.put(element);
        let crc = crc32c::crc32c(element);
        element[12..16].copy_from_slice(&crc.to_le_bytes());
    }

    fn put(&self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&FRAME_MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&match self.kind {
            FrameKind::Records => 1u16.to_le_bytes(),
            FrameKind::Footer => 2u16.to_le_bytes(),
        });
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.crc.to_le_bytes());
        out[16..20].copy_from_slice(&self.shard.to_le_bytes());
        out[20..24].copy_from_slice(&self.records.to_le_bytes());
        out[24..32].copy_from_slice(&self.frame.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_record.to_le_bytes());
        out[40..48].copy_from_slice(&self.time_us.to_le_bytes());
        out[48..56].copy_from_slice(&self.segment.to_le_bytes());
        out[56..64].fill(0);
        out[64..96].copy_from_slice(&self.previous);
    }

    /// Reads a header; says nothing yet about the payload.
    pub fn decode(raw: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, Broken> {
        if raw[0..4] != FRAME_MAGIC {
            return Err(Broken::Magic);
        }
        if u16_at(raw, 4) != VERSION {
            return Err(Broken::Version(u16_at(raw, 4)));
        }
        let kind = match u16_at(raw, 6) {
            1 => FrameKind::Records,
            2 => FrameKind::Footer,
            _ => return Err(Broken::Field),
        };
        if [24, 32, 48].iter().any(|&at| u64_at(raw, at) > NUMBER_MAX) {
            return Err(Broken::Field);
        }
        let payload_bytes = u32_at(raw, 8);
        if payload_bytes as usize > FRAME_PAYLOAD_BYTES_MAX || !(payload_bytes as usize).is_multiple_of(ALIGN) {
            return Err(Broken::Length);
        }
        Ok(Self {
            kind,
            payload_bytes,
            crc: u32_at(raw, 12),
            shard: u32_at(raw, 16),
            records: u32_at(raw, 20),
            frame: u64_at(raw, 24),
            first_record: u64_at(raw, 32),
            time_us: u64_at(raw, 40) as i64,
            segment: u64_at(raw, 48),
            previous: raw[64..96].try_into().expect("32 bytes"),
        })
    }

    /// Header and payload in bytes.
    pub fn element_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes as usize
    }

    /// Does the checksum of the whole element hold? `element`: exactly the frame.
    pub fn intact(&self, element: &[u8]) -> bool {
        let crc = crc32c::crc32c(&element[..12]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        crc32c::crc32c_append(crc, &element[16..]) == self.crc
    }
}

/// What a sealed segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footer {
    /// Record frames of this segment.
    pub frames: u64,
    pub records: u64,
    /// Unix microseconds of the earliest and the latest record.
    pub first_us: i64,
    pub last_us: i64,
    /// Sequences of its first and its last record.
    pub first_record: u64,
    pub last_record: u64,
}

impl Footer {
    pub fn encode(&self) -> [u8; FOOTER_PAYLOAD_BYTES] {
        let mut out = [0; FOOTER_PAYLOAD_BYTES];
        let fields =
            [self.frames, self.records, self.first_us as u64, self.last_us as u64, self.first_record, self.last_record];
        for (slot, field) in out.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub fn decode(payload: &[u8]) -> Result<Self, Broken> {
        if payload.len() != FOOTER_PAYLOAD_BYTES {
            return Err(Broken::Length);
        }
        Ok(Self {
            frames: u64_at(payload, 0),
            records: u64_at(payload, 8),
            first_us: u64_at(payload, 16) as i64,
            last_us: u64_at(payload, 24) as i64,
            first_record: u64_at(payload, 32),
            last_record: u64_at(payload, 40),
        })
    }

    /// Takes a record frame into the count.
    pub fn add(&mut self, header: &FrameHeader, first_us: i64, last_us: i64) {
        if self.records == 0 {
            (self.first_us, self.last_us, self.first_record) = (first_us, last_us, header.first_record);
        }
        self.frames += 1;
        self.records += u64::from(header.records);
        self.first_us = self.first_us.min(first_us);
        self.last_us = self.last_us.max(last_us);
        self.last_record = header.first_record.saturating_add(u64::from(header.records)).saturating_sub(1);
    }
}

/// What is wrong with an element taken by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    Magic,
    Version(u16),
    Length,
    Field,
    Checksum,
}

pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole words first: the tail of a fresh segment is tens of megabytes of zeros.
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(raw[at..at + 2].try_into().expect("2 bytes"))
}

pub(super) fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"))
}

pub(super) fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(raw[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment_header() -> SegmentHeader {
        SegmentHeader {
            shard: 3,
            number: 7,
            segment_bytes: 1 << 20,
            started_us: 1_795_000_000_000_000,
            first_frame: 11,
            first_record: 99,
            boot: [5; 16],
            after_damage: true,
            previous: [9; 32],
        }
    }

    #[test]
    fn segment_header_reads_back_and_every_flipped_bit_shows() {
        let raw = segment_header().encode();
        assert_eq!(SegmentHeader::decode(&raw), Ok(segment_header()));
        for bit in 0..raw.len() * 8 {
            let mut bad = raw;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frame_reads_back_and_every_flipped_bit_shows() {
        let header = FrameHeader {
            kind: FrameKind::Records,
            payload_bytes: 0,
            crc: 0,
            shard: 1,
            records: 2,
            frame: 3,
            first_record: 4,
            time_us: 5,
            segment: 6,
            previous: [7; 32],
        };
        let mut element = vec![0xabu8; FRAME_HEADER_BYTES + 64];
        header.seal(&mut element);
        let intact = |element: &[u8]| {
            let raw = element[..FRAME_HEADER_BYTES].try_into().expect("a header");
            FrameHeader::decode(raw).is_ok_and(|read| read.element_bytes() == element.len() && read.intact(element))
        };
        assert!(intact(&element));
        for bit in 0..element.len() * 8 {
            element[bit / 8] ^= 1 << (bit % 8);
            assert!(!intact(&element), "bit {bit}");
            element[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
