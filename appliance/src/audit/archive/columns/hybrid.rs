//! Parquet's RLE / bit-packing hybrid (parquet-format, Encodings.md): levels and the numbers of dictionary entries. Pure.

/// From this many equal values on, they are a run of their own; bit-packed ones come in groups of as many.
const GROUP: usize = 8;

/// Bits that every number up to `max` fits.
pub fn width_of(max: u32) -> u8 {
    (u32::BITS - max.leading_zeros()) as u8
}

/// Numbers as runs of equal ones.
#[derive(Default)]
pub struct Runs {
    /// Value and times: a page of few repetitions has as many as it has values.
    runs: Vec<(u32, u32)>,
    count: usize,
}

impl Runs {
    pub fn push(&mut self, value: u32, times: usize) {
        self.count += times;
        let times = u32::try_from(times).expect("a page is bounded");
        match self.runs.last_mut() {
            Some((last, before)) if *last == value => *before += times,
            _ => self.runs.push((value, times)),
        }
    }

    /// How many numbers.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn values(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().map(|&(value, _)| value)
    }

    pub fn clear(&mut self) {
        self.runs.clear();
        self.count = 0;
    }

    /// Appends them, each of `width` bits.
    pub fn encode(&self, width: u8, out: &mut Vec<u8>) {
        let mut encoder = Encoder { width, literals: Vec::new(), out };
        self.runs.iter().for_each(|&(value, times)| encoder.push(value, times as usize));
        encoder.flush();
    }
}

struct Encoder<'a> {
    width: u8,
    /// Values that are no run; whole groups of them but for the last.
    literals: Vec<u32>,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn push(&mut self, value: u32, mut times: usize) {
        let missing = self.literals.len().next_multiple_of(GROUP) - self.literals.len();
        if times < missing + GROUP {
            self.literals.extend(std::iter::repeat_n(value, times));
            return;
        }
        self.literals.extend(std::iter::repeat_n(value, missing));
        times -= missing;
        self.flush();
        varint((times as u64) << 1, self.out);
        self.out.extend_from_slice(&value.to_le_bytes()[..usize::from(self.width.div_ceil(8))]);
    }

    /// The last group is filled up: a reader knows how many values there are.
    fn flush(&mut self) {
        if self.literals.is_empty() {
            return;
        }
        let groups = self.literals.len().div_ceil(GROUP);
        self.literals.resize(groups * GROUP, 0);
        varint((groups as u64) << 1 | 1, self.out);
        pack(self.width, self.literals.iter().map(|&value| u64::from(value)), self.out);
        self.literals.clear();
    }
}

/// ULEB128.
pub fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bit-packs values of `width` bits, the least significant first; they fill whole bytes.
pub fn pack(width: u8, values: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u128, 0u32);
    for value in values {
        held |= u128::from(value) << bits;
        bits += u32::from(width);
        if bits >= 64 {
            out.extend_from_slice(&(held as u64).to_le_bytes());
            held >>= 64;
            bits -= 64;
        }
    }
    out.extend_from_slice(&held.to_le_bytes()[..bits.div_ceil(8) as usize]);
}
