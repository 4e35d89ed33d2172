//! The different values of a text column in one row group, each with its number. Pure.

use ahash::RandomState;
use hashbrown::HashTable;

/// Of a value's length, in front of it.
const PREFIX_BYTES: usize = 4;

/// Appends a value in the encoding PLAIN.
pub fn plain(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// The values of a page in that encoding.
pub fn values(mut page: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let first = (!page.is_empty()).then(|| value(page, 0))?;
        page = &page[PREFIX_BYTES + first.len()..];
        Some(first)
    })
}

pub struct Dictionary {
    /// All of them behind one another, as a dictionary page holds them,
    page: Vec<u8>,
    /// and where each begins.
    starts: Vec<usize>,
    numbers: HashTable<u32>,
    hasher: RandomState,
    /// The one asked for last: most columns repeat it.
    last: Option<u32>,
}

impl Dictionary {
    pub fn new() -> Self {
        let hasher = RandomState::new();
        Self { page: Vec::new(), starts: Vec::new(), numbers: HashTable::new(), hasher, last: None }
    }

    pub fn len(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The body of its page.
    pub fn page(&self) -> &[u8] {
        &self.page
    }

    pub fn value(&self, number: u32) -> &[u8] {
        value(&self.page, self.starts[number as usize])
    }

    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        values(&self.page)
    }

    /// The value's number; a new one's is one more than the greatest.
    pub fn number(&mut self, wanted: &[u8]) -> u32 {
        if let Some(last) = self.last.filter(|&last| self.value(last) == wanted) {
            return last;
        }
        let hash = self.hasher.hash_one(wanted);
        let (page, starts, hasher) = (&self.page, &self.starts, &self.hasher);
        let at = |number: u32| value(page, starts[number as usize]);
        let number = match self.numbers.find(hash, |&number| at(number) == wanted) {
            Some(&number) => number,
            None => {
                let number = starts.len() as u32;
                self.numbers.insert_unique(hash, number, |&number| hasher.hash_one(at(number)));
                self.starts.push(self.page.len());
                plain(wanted, &mut self.page);
                number
            }
        };
        self.last = Some(number);
        number
    }
}

fn value(page: &[u8], start: usize) -> &[u8] {
    let (prefix, rest) = page[start..].split_at(PREFIX_BYTES);
    &rest[..u32::from_le_bytes(prefix.try_into().expect("four bytes")) as usize]
}
