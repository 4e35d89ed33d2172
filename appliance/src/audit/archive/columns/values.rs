//! The values of the page that a column gathers.

use super::delta::{self, Int};
use super::dictionary::{self, Dictionary};
use super::hybrid::{self, Runs};
use crate::audit::archive::schema::{BLOOM_FALSE_POSITIVES, Column, GROUP_ROWS};
use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;

/// A dictionary that has grown beyond this takes no more,
const DICTIONARY_BYTES: usize = 1 << 20;
/// nor does one with so many values, where more than every second was a new one.
const DICTIONARY_TRIAL: u32 = 2048;
/// A page with wider differences is plain: fastparquet, which pandas may use, reads wrong numbers from wider ones without a word.
const DELTA_BITS: u8 = 24;

pub enum Values {
    Ints(Int, Vec<i64>),
    Flags(Vec<bool>),
    Texts(Texts),
}

/// One end of what a page or a chunk holds; ordered as Parquet orders the column.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bound {
    Int(i64),
    Flag(bool),
    Text(Vec<u8>),
}

/// Least and greatest. `None`: there is no value.
pub type Range = Option<(Bound, Bound)>;

impl Values {
    pub fn of(column: Column, physical: Type) -> Self {
        match physical {
            Type::INT64 => Self::Ints(Int::Bits64, Vec::new()),
            Type::INT32 => Self::Ints(Int::Bits32, Vec::new()),
            Type::BOOLEAN => Self::Flags(Vec::new()),
            _ => Self::Texts(Texts::new(column)),
        }
    }

    /// How many values the page has.
    pub fn count(&self) -> usize {
        match self {
            Self::Ints(_, values) => values.len(),
            Self::Flags(values) => values.len(),
            Self::Texts(texts) => texts.numbers.count() + texts.plain_count,
        }
    }

    /// About as much as the page takes before it is compressed.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ints(_, values) => values.len() * 8,
            Self::Flags(values) => values.len() / 8,
            Self::Texts(texts) => texts.numbers.count() * 2 + texts.plain.len(),
        }
    }

    /// Appends them to a page's body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        match self {
            Self::Ints(int, values) => {
                let begins = out.len();
                if delta::encode(*int, values, out) <= DELTA_BITS {
                    return Encoding::DELTA_BINARY_PACKED;
                }
                out.truncate(begins);
                int.plain(values, out);
                Encoding::PLAIN
            }
            Self::Flags(values) => {
                hybrid::pack(1, values.iter().map(|&flag| u64::from(flag)), out);
                Encoding::PLAIN
            }
            Self::Texts(texts) => texts.encode(out),
        }
    }

    pub fn range(&self) -> Range {
        match self {
            Self::Ints(_, values) => Some((Bound::Int(*values.iter().min()?), Bound::Int(*values.iter().max()?))),
            Self::Flags(values) => Some((Bound::Flag(*values.iter().min()?), Bound::Flag(*values.iter().max()?))),
            Self::Texts(texts) => texts.range(),
        }
    }

    /// The next page has none yet.
    pub fn clear(&mut self) -> Result<(), ParquetError> {
        match self {
            Self::Ints(_, values) => values.clear(),
            Self::Flags(values) => values.clear(),
            Self::Texts(texts) => return texts.clear(),
        }
        Ok(())
    }
}

/// Texts by their number in a dictionary, or plain: never both in one page.
pub struct Texts {
    dictionary: Dictionary,
    numbers: Runs,
    /// In the encoding PLAIN.
    plain: Vec<u8>,
    plain_count: usize,
    /// From now on they are plain.
    is_plain: bool,
    /// Of those that are plain, where the column has one.
    bloom_filter: Option<Sbbf>,
    is_bloomed: bool,
    /// Values that are in the dictionary, as often as they came.
    numbered: usize,
}

impl Texts {
    pub fn new(column: Column) -> Self {
        Self {
            dictionary: Dictionary::new(),
            numbers: Runs::default(),
            plain: Vec::new(),
            plain_count: 0,
            is_plain: !column.has_dictionary(),
            bloom_filter: None,
            is_bloomed: column.is_bloomed(),
            numbered: 0,
        }
    }

    pub fn push(&mut self, value: &[u8]) {
        if self.is_plain {
            dictionary::plain(value, &mut self.plain);
            self.plain_count += 1;
            self.bloom_filter.iter_mut().for_each(|filter| filter.insert(value));
        } else {
            self.numbers.push(self.dictionary.number(value), 1);
            self.numbered += 1;
        }
    }

    /// The number of a value that may be pushed again. `None`: values are plain.
    pub fn number(&mut self, value: &[u8]) -> Option<u32> {
        (!self.is_plain).then(|| self.dictionary.number(value))
    }

    /// The value that had that number when it was pushed.
    pub fn push_again(&mut self, number: u32) {
        if self.is_plain {
            dictionary::plain(self.dictionary.value(number), &mut self.plain);
            self.plain_count += 1;
        } else {
            self.numbers.push(number, 1);
            self.numbered += 1;
        }
    }

    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The page has to end here, because what follows is plain.
    pub fn is_full(&self) -> bool {
        !self.is_plain && (self.dictionary.page().len() > DICTIONARY_BYTES || self.is_vain())
    }

    fn is_vain(&self) -> bool {
        let different = self.dictionary.len();
        different >= DICTIONARY_TRIAL && self.numbered < 2 * different as usize
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        if self.numbers.count() == 0 {
            out.extend_from_slice(&self.plain);
            return Encoding::PLAIN;
        }
        let width = hybrid::width_of(self.dictionary.len() - 1);
        out.push(width);
        self.numbers.encode(width, out);
        Encoding::RLE_DICTIONARY
    }

    fn range(&self) -> Range {
        let bounds = match self.numbers.count() {
            0 => bounds(dictionary::values(&self.plain)),
            _ => bounds(self.different().map(|number| self.dictionary.value(number))),
        };
        let (least, greatest) = bounds?;
        Some((Bound::Text(least.to_vec()), Bound::Text(greatest.to_vec())))
    }

    /// The numbers that the page has, each once.
    fn different(&self) -> impl Iterator<Item = u32> {
        let mut seen = vec![false; self.dictionary.len() as usize];
        self.numbers.values().filter(move |&number| !std::mem::replace(&mut seen[number as usize], true))
    }

    fn clear(&mut self) -> Result<(), ParquetError> {
        if self.is_full() {
            self.is_plain = true;
            self.bloom_filter = self.is_bloomed.then(|| bloom_filter(GROUP_ROWS as u64)).transpose()?;
        }
        self.numbers.clear();
        self.plain.clear();
        self.plain_count = 0;
        Ok(())
    }

    /// Of all pages' values. `None`: the column has none.
    pub fn take_bloom_filter(&mut self) -> Result<Option<Sbbf>, ParquetError> {
        if !self.is_bloomed {
            return Ok(None);
        }
        let of_plain = self.bloom_filter.take();
        let folds = of_plain.is_some();
        let mut filter = of_plain.map_or_else(|| bloom_filter(self.dictionary.len().max(1).into()), Ok)?;
        self.dictionary.values().for_each(|value| filter.insert(value));
        if folds {
            filter.fold_to_target_fpp(BLOOM_FALSE_POSITIVES);
        }
        Ok(Some(filter))
    }
}

fn bloom_filter(values: u64) -> Result<Sbbf, ParquetError> {
    Sbbf::new_with_ndv_fpp(values, BLOOM_FALSE_POSITIVES)
}

fn bounds<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], &'a [u8])> {
    let first = values.next()?;
    Some(values.fold((first, first), |(least, greatest), value| (least.min(value), greatest.max(value))))
}
