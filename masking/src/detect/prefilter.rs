//! The one pass over a value: where the next anchor is.

use super::Anchor;
use super::near::is_digit;

/// Bytes looked at together: a fixed-size loop without branches, which the compiler turns into vector instructions.
const BLOCK_BYTES: usize = 32;

/// Bytes looked at one by one behind an anchor.
const NEAR_BYTES: usize = 16;

/// Single-byte anchors of all detectors together.
const BYTES_MAX: usize = 3;

/// Which bytes can be anchors.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    /// 10: digits are anchors; 0: they are not.
    digits: u8,
    /// Single-byte anchors; unused places repeat another one, or a byte that never occurs in text.
    bytes: [u8; BYTES_MAX],
    /// For every byte: can it be an anchor?
    table: [bool; 256],
}

impl Prefilter {
    pub(super) fn new(anchors: impl Iterator<Item = Anchor>) -> Self {
        let mut filter = Self { digits: 0, bytes: [0; BYTES_MAX], table: [false; 256] };
        let mut used = 0;
        for anchor in anchors {
            match anchor {
                Anchor::Digits => filter.digits = 10,
                Anchor::Byte(byte) => {
                    filter.bytes[used] = byte;
                    used += 1;
                }
            }
        }
        for byte in 0..=u8::MAX {
            let single = byte != 0 && filter.bytes.contains(&byte);
            filter.table[usize::from(byte)] = single || (filter.digits != 0 && is_digit(byte));
        }
        filter
    }

    /// The next anchor at or after `at`. Of a run of digits only the first is one.
    pub(super) fn next(&self, value: &[u8], at: usize) -> Option<usize> {
        // Where anchors are dense, as in rows of numbers, the next one is near and a block would be looked at many times.
        let near = value.len().min(at + NEAR_BYTES);
        if let Some(found) = self.within(value, at, near) {
            return Some(found);
        }
        let mut at = near;
        while let Some(block) = value.get(at..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>()) {
            if self.touches(block)
                && let Some(found) = self.within(value, at, at + BLOCK_BYTES)
            {
                return Some(found);
            }
            at += BLOCK_BYTES;
        }
        self.within(value, at, value.len())
    }

    #[inline]
    fn touches(&self, block: &[u8; BLOCK_BYTES]) -> bool {
        let mut hit = 0u8;
        for byte in block {
            hit |= u8::from(byte.wrapping_sub(b'0') < self.digits)
                | u8::from(*byte == self.bytes[0])
                | u8::from(*byte == self.bytes[1])
                | u8::from(*byte == self.bytes[2]);
        }
        hit != 0
    }

    fn within(&self, value: &[u8], from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        loop {
            at += value[at..to].iter().position(|byte| self.table[usize::from(*byte)])?;
            if at == 0 || !is_digit(value[at]) || !is_digit(value[at - 1]) {
                return Some(at);
            }
            at += 1;
        }
    }
}
