//! The values of the page that a column gathers.

use super::delta::{self, Int};
use super::dictionary::{self, Dictionary};
use super::hybrid::{self, Runs};
use parquet::basic::{Encoding, Type};

/// A dictionary that has grown beyond this takes no more,
const DICTIONARY_BYTES: usize = 1 << 20;
/// nor does one with so many values, where more than every second was a new one. (But for one that a bloom filter is made of.)
const DICTIONARY_TRIAL: u32 = 2048;

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
    pub fn of(physical: Type, texts: Texts) -> Self {
        match physical {
            Type::INT64 => Self::Ints(Int::Bits64, Vec::new()),
            Type::INT32 => Self::Ints(Int::Bits32, Vec::new()),
            Type::BOOLEAN => Self::Flags(Vec::new()),
            _ => Self::Texts(texts),
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
                delta::encode(*int, values, out);
                Encoding::DELTA_BINARY_PACKED
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
    pub fn clear(&mut self) {
        match self {
            Self::Ints(_, values) => values.clear(),
            Self::Flags(values) => values.clear(),
            Self::Texts(texts) => texts.clear(),
        }
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
    /// Each of them is wanted behind the last page.
    keeps_all: bool,
    /// Values that are in the dictionary, as often as they came.
    numbered: usize,
}

impl Texts {
    /// `in_dictionary`: they may repeat themselves. `keeps_all`: and each of them is asked for behind the last page.
    pub fn new(in_dictionary: bool, keeps_all: bool) -> Self {
        let (dictionary, numbers, is_plain) = (Dictionary::new(), Runs::default(), !in_dictionary);
        Self { dictionary, numbers, plain: Vec::new(), plain_count: 0, is_plain, keeps_all, numbered: 0 }
    }

    pub fn push(&mut self, value: &[u8]) {
        if self.is_plain {
            dictionary::plain(value, &mut self.plain);
            self.plain_count += 1;
        } else {
            self.numbers.push(self.dictionary.number(value), 1);
            self.numbered += 1;
        }
    }

    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    /// The page has to end here, because what follows is plain.
    pub fn is_full(&self) -> bool {
        !self.is_plain && !self.keeps_all && (self.dictionary.page().len() > DICTIONARY_BYTES || self.is_vain())
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

    fn clear(&mut self) {
        self.is_plain |= self.is_full();
        self.numbers.clear();
        self.plain.clear();
        self.plain_count = 0;
    }
}

fn bounds<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], &'a [u8])> {
    let first = values.next()?;
    Some(values.fold((first, first), |(least, greatest), value| (least.min(value), greatest.max(value))))
}
