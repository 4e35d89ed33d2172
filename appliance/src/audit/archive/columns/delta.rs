//! Parquet's DELTA_BINARY_PACKED (parquet-format, Encodings.md): whole numbers that differ little from the one before. Pure.

use super::hybrid::{pack, varint};

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

/// How wide the column's numbers are: differences wrap around in that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Int {
    Bits32,
    Bits64,
}

impl Int {
    /// The difference as a number of this width, with its sign.
    fn wrap(self, difference: i64) -> i64 {
        match self {
            Self::Bits32 => i64::from(difference as i32),
            Self::Bits64 => difference,
        }
    }

    fn unsigned(self, difference: i64) -> u64 {
        match self {
            Self::Bits32 => u64::from(difference as u32),
            Self::Bits64 => difference as u64,
        }
    }

    /// Appends values in the encoding PLAIN.
    pub fn plain(self, values: &[i64], out: &mut Vec<u8>) {
        match self {
            Self::Bits32 => values.iter().for_each(|&value| out.extend_from_slice(&(value as i32).to_le_bytes())),
            Self::Bits64 => values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes())),
        }
    }
}

/// Appends them; returns the bits that the widest difference took.
pub fn encode(int: Int, values: &[i64], out: &mut Vec<u8>) -> u8 {
    [BLOCK, MINIBLOCKS, values.len()].iter().for_each(|&number| varint(number as u64, out));
    let (first, rest) = values.split_first().map_or((0, values), |(&first, rest)| (first, rest));
    zigzag(first, out);
    let mut widest = 0;
    let mut last = first;
    for block in rest.chunks(BLOCK) {
        let mut deltas = [0; BLOCK];
        for (delta, &value) in deltas.iter_mut().zip(block) {
            *delta = int.wrap(value.wrapping_sub(last));
            last = value;
        }
        widest = widest.max(encode_block(int, &deltas[..block.len()], out));
    }
    widest
}

fn encode_block(int: Int, deltas: &[i64], out: &mut Vec<u8>) -> u8 {
    let least = deltas.iter().copied().min().unwrap_or(0);
    zigzag(least, out);
    let widths = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    let mut widest = 0;
    for (index, miniblock) in deltas.chunks(MINIBLOCK).enumerate() {
        let mut above = [0; MINIBLOCK];
        for (above, &delta) in above.iter_mut().zip(miniblock) {
            *above = int.unsigned(delta.wrapping_sub(least));
        }
        let all = above.iter().fold(0, |all, above| all | above);
        let width = (u64::BITS - all.leading_zeros()) as u8;
        out[widths + index] = width;
        pack(width, above.into_iter(), out);
        widest = widest.max(width);
    }
    widest
}

fn zigzag(number: i64, out: &mut Vec<u8>) {
    varint(((number << 1) ^ (number >> 63)) as u64, out);
}
