//! The one pass over a value: where the next anchor is.

use super::Anchor;
use super::near::is_digit;

/// Bytes looked at together: a fixed-size loop without branches, which the compiler turns into vector instructions.
const BLOCK_BYTES: usize = 32;

/// Single-byte anchors of all detectors together.
const BYTES_MAX: usize = 3;

/// Which bytes can be anchors.
#[derive(Clone, Debug)]
pub(super) struct Prefilter {
    /// 10: digits are anchors; 0: they are not.
    digits: u8,
    /// Single-byte anchors; unused places repeat another one, or a byte that never occurs in text.
    bytes: [u8; BYTES_MAX],
    any: bool,
}

impl Prefilter {
    pub(super) fn new(anchors: impl Iterator<Item = Anchor>) -> Self {
        let mut filter = Self { digits: 0, bytes: [0; BYTES_MAX], any: false };
        let mut used = 0;
        for anchor in anchors {
            filter.any = true;
            match anchor {
                Anchor::Digits => filter.digits = 10,
                Anchor::Byte(byte) => {
                    filter.bytes[used] = byte;
                    used += 1;
                }
            }
        }
        filter
    }

    /// The next anchor at or after `at`. Of a run of digits only the first is one.
    pub(super) fn next(&self, value: &[u8], mut at: usize) -> Option<usize> {
        if !self.any {
            return None;
        }
        while let Some(block) = value.get(at..).and_then(|rest| rest.first_chunk::<BLOCK_BYTES>()) {
            if self.touches(block) {
                if let Some(found) = self.within(value, at, at + BLOCK_BYTES) {
                    return Some(found);
                }
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
        (from..to).find(|at| self.is_anchor(value, *at))
    }

    fn is_anchor(&self, value: &[u8], at: usize) -> bool {
        let byte = value[at];
        if is_digit(byte) {
            return self.digits != 0 && (at == 0 || !is_digit(value[at - 1]));
        }
        byte != 0 && self.bytes.contains(&byte)
    }
}
