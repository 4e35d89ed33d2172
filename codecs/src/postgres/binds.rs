//! Bind's parameters and result formats, as they are on the wire.

use super::frame::Reader;
use smallvec::SmallVec;

/// Bytes of values kept of one Bind for policy and audit. Beyond: the longest are cut, and [`BindValues::cut`] says so.
pub(super) const BINDS_BYTES_MAX: usize = 64 << 10;

/// Bind parameter formats and values, read lazily from the wire form.
#[derive(Clone, Copy, Debug)]
pub struct BindValues<'a> {
    /// Count and codes of formats, count of values, then each value with its length.
    pub raw: &'a [u8],
    /// Values longer than this were shortened to it.
    pub cut: Option<usize>,
}

/// So many bytes of each value are kept where all together may have `total`: a long one takes nothing from the others.
pub fn fair_share(lengths: impl Iterator<Item = usize> + Clone, total: usize) -> usize {
    let mut share = total;
    while share > 0 && lengths.clone().map(|length| length.min(share)).sum::<usize>() > total {
        share /= 2;
    }
    share
}

/// Writes parameters as they are on the wire, values shortened so that they fit. Returns to what, if any was.
pub(super) fn keep(parameters: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    out.clear();
    if parameters.len() <= BINDS_BYTES_MAX {
        out.extend_from_slice(parameters);
        return None;
    }
    let whole = BindValues { raw: parameters, cut: None };
    let share = fair_share(whole.iter().map(|(value, _)| value.map_or(0, <[u8]>::len)), BINDS_BYTES_MAX);
    let formats = parameters.first_chunk().map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
    out.extend_from_slice(&parameters[..2 + 2 * formats + 2]);
    for (value, _) in whole.iter() {
        let kept = value.map(|value| &value[..value.len().min(share)]);
        out.extend_from_slice(&kept.map_or(-1, |kept| kept.len() as i32).to_be_bytes());
        out.extend_from_slice(kept.unwrap_or_default());
    }
    Some(share)
}

impl<'a> BindValues<'a> {
    /// Each value: `None` for NULL; `true` when in binary format.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&'a [u8]>, bool)> + Clone + 'a {
        Values::new(self.raw)
    }
}

#[derive(Clone)]
struct Values<'a> {
    formats: &'a [u8],
    reader: Reader<'a>,
    index: usize,
    count: usize,
}

impl<'a> Values<'a> {
    fn new(raw: &'a [u8]) -> Self {
        let mut reader = Reader::new(raw, 0);
        let formats = reader.u16().and_then(|count| reader.take(2 * count as usize)).unwrap_or_default();
        let count = reader.u16().map_or(0, usize::from);
        Self { formats, reader, index: 0, count }
    }

    fn binary(&self) -> bool {
        let index = if self.formats.len() == 2 { 0 } else { self.index };
        self.formats.get(2 * index..2 * index + 2).is_some_and(|code| code != [0, 0])
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = (Option<&'a [u8]>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            return None;
        }
        let binary = self.binary();
        self.index += 1;
        let value = match self.reader.i32()? {
            -1 => None,
            len => {
                let len = usize::try_from(len).ok()?.min(self.reader.rest().len());
                self.reader.take(len)
            }
        };
        Some((value, binary))
    }
}

/// Which result columns are in binary format: none, one code for all, or one each. Up to 64 columns without allocating.
#[derive(Clone, Debug, Default)]
pub(super) struct Formats {
    /// How many codes there are; 1 holds for every column.
    count: usize,
    bits: SmallVec<[u64; 1]>,
}

impl Formats {
    /// From the codes as sent: two bytes each, zero for text.
    #[inline]
    pub fn set(&mut self, codes: &[u8]) {
        self.clear();
        codes.chunks_exact(2).for_each(|code| self.push(code != [0, 0]));
    }

    #[inline]
    pub fn clear(&mut self) {
        self.count = 0;
        self.bits.clear();
    }

    #[inline]
    pub fn push(&mut self, binary: bool) {
        let (word, bit) = (self.count / 64, self.count % 64);
        if bit == 0 {
            self.bits.push(0);
        }
        self.bits[word] |= u64::from(binary) << bit;
        self.count += 1;
    }

    #[inline]
    pub fn binary(&self, column: usize) -> bool {
        let index = if self.count == 1 { 0 } else { column };
        index < self.count && self.bits[index / 64] >> (index % 64) & 1 == 1
    }
}

/// What a Bind message says, borrowed from it.
#[derive(Debug)]
pub(super) struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// See [`BindValues::raw`].
    pub parameters: &'a [u8],
    /// Result format codes, two bytes each.
    pub results: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads a whole message. `None`: its counts and lengths do not fill it exactly.
    #[inline]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message, super::frame::HEADER_BYTES);
        let portal = reader.text()?;
        let statement = reader.text()?;
        let start = reader.at();
        let formats = reader.u16()?;
        reader.take(2 * formats as usize)?;
        let values = reader.u16()?;
        for _ in 0..values {
            reader.value()?;
        }
        let parameters = &message[start..reader.at()];
        let results = reader.u16()?;
        let results = reader.take(2 * results as usize)?;
        reader.is_done().then_some(Self { portal, statement, parameters, results })
    }
}
