//! Statements with pieces put in, taken out, doubled and exchanged, from a seed.

use crate::seeds::{PIECES, STATEMENTS};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    pub fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

pub struct Damage {
    random: Random,
    /// Texts that earlier damage made, to be damaged further.
    pool: Vec<String>,
}

const POOL_MAX: usize = 512;
const TEXT_BYTES_MAX: usize = 300;

impl Damage {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), pool: STATEMENTS.iter().map(|text| text.to_string()).collect() }
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        let mut text = match self.random.below(8) {
            0 => (0..1 + self.random.below(8)).map(|_| self.random.pick(PIECES)).collect(),
            _ => self.pool[self.random.below(self.pool.len())].clone(),
        };
        for _ in 0..1 + self.random.below(3) {
            self.change(&mut text);
        }
        self.keep(&text);
        text
    }

    /// One that differs in one place, in most cases in a digit or a letter.
    pub fn of(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        let letters: Vec<usize> =
            text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
        if letters.is_empty() || self.random.below(4) == 0 {
            self.change(&mut text);
            return text;
        }
        let at = letters[self.random.below(letters.len())];
        text.replace_range(
            at..=at,
            self.random.pick(&["0", "7", "23", "a", "''", "'", ".", "e", "$", " ", "\\", "é", ""]),
        );
        text
    }

    fn change(&mut self, text: &mut String) {
        let (from, to) = (self.place(text), self.place(text));
        let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 24));
        let to = (to..=text.len()).find(|at| text.is_char_boundary(*at)).expect("the end is one");
        match self.random.below(6) {
            0 | 1 => text.insert_str(from, self.random.pick(PIECES)),
            2 => text.replace_range(from..to, ""),
            3 => text.replace_range(from..to, self.random.pick(PIECES)),
            4 => {
                let part = text[from..to].to_owned();
                let at = self.place(text);
                text.insert_str(at, &part);
            }
            _ => {
                let other = self.pool[self.random.below(self.pool.len())].clone();
                let (cut, at) = (self.place(&other), self.place(text));
                let end = (cut..=other.len()).rev().find(|end| end - cut <= 24 && other.is_char_boundary(*end));
                text.insert_str(at, &other[cut..end.unwrap_or(cut)]);
            }
        }
    }

    fn place(&mut self, text: &str) -> usize {
        let at = self.random.below(text.len() + 1);
        (at..=text.len()).find(|at| text.is_char_boundary(*at)).expect("the end is one")
    }

    /// Texts that were given a shape make better seeds: most others end at their first mistake.
    fn keep(&mut self, text: &str) {
        let shaped = lockgate_masking::sql::shape(text.as_bytes(), &mut [0; 2 * TEXT_BYTES_MAX + 8]).is_some();
        if text.len() > TEXT_BYTES_MAX || !shaped || self.random.below(4) > 0 {
            return;
        }
        if self.pool.len() < POOL_MAX {
            self.pool.push(text.to_owned());
        } else {
            let at = STATEMENTS.len() + self.random.below(POOL_MAX - STATEMENTS.len());
            self.pool[at] = text.to_owned();
        }
    }
}
