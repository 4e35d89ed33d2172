//! Whether a response is the right one.

use crate::wire;
use std::fmt;
use std::str::FromStr;

/// What one statement's response amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// DataRow or CopyData messages.
    pub rows: u64,
    pub columns: u16,
    pub bytes: u64,
    /// Over the content and order of all of them, and over what CommandComplete says was done.
    pub hash: u64,
    /// A value somewhere was the one expected.
    pub value_seen: bool,
    /// Where a value had the shape that must not come through, if one had.
    pub leaked: Option<&'static str>,
}

/// How much of it must agree with the first response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Every byte of every row.
    Same,
    /// The number of rows and columns.
    Rows,
    /// Only that the server reports no error.
    None,
}

#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// Of a whole response: with a script, of all its statements together.
    pub rows: Option<u64>,
    /// The same.
    pub value: Option<String>,
    pub masked: Option<Pattern>,
}

impl Expectations {
    /// Whether a value that must not come through is in the text of an error, which then must not be told.
    pub fn leaks_in_error(&self, body: &[u8]) -> bool {
        self.masked.as_ref().is_some_and(|pattern| wire::fields(body).any(|(_, text)| pattern.occurs(text)))
    }

    pub fn judge(&self, rows: u64, value_seen: bool) -> Result<(), Wrong> {
        if self.rows.is_some_and(|expected| expected != rows) {
            return Err(Wrong::Rows);
        }
        if self.value.is_some() && !value_seen { Err(Wrong::ValueMissing) } else { Ok(()) }
    }
}

/// Why a response was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Wrong {
    Rows,
    Content,
    ValueMissing,
    Unmasked,
}

impl Wrong {
    const ALL: [Wrong; 4] = [Wrong::Rows, Wrong::Content, Wrong::ValueMissing, Wrong::Unmasked];

    /// Whether a fault of this kind is a response that was wrong, not one that was missing or an error.
    pub fn is_kind(kind: &str) -> bool {
        Wrong::ALL.iter().any(|wrong| wrong.name() == kind)
    }

    pub fn name(self) -> &'static str {
        match self {
            Wrong::Rows => "wrong number of rows or columns",
            Wrong::Content => "content differs from the first response",
            Wrong::ValueMissing => "expected value missing",
            Wrong::Unmasked => "unmasked value",
        }
    }
}

impl Tally {
    /// Takes in one DataRow or CopyData message.
    pub fn row(&mut self, kind: u8, body: &[u8], expected: &Expectations) {
        self.rows += 1;
        self.bytes += body.len() as u64;
        self.hash = mix(self.hash, body);
        if kind == b'D' {
            self.columns = body.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
        }
        if let Some(value) = expected.value.as_ref().filter(|_| !self.value_seen) {
            self.value_seen = if kind == b'D' {
                wire::values(body).any(|found| found == Some(value.as_bytes()))
            } else {
                body.trim_ascii_end().split(|&byte| byte == b'\t').any(|found| found == value.as_bytes())
            };
        }
        if let Some(pattern) = expected.masked.as_ref().filter(|_| self.leaked.is_none()) {
            let leaked = if kind == b'D' {
                wire::values(body).flatten().any(|found| pattern.occurs(found))
            } else {
                pattern.occurs(body)
            };
            self.leaked = leaked.then_some("a row");
        }
    }

    /// Takes in what else comes with an answer and is text that somebody may read: only whether a value came through there.
    pub fn aside(&mut self, kind: u8, body: &[u8], expected: &Expectations) {
        let Some(pattern) = expected.masked.as_ref().filter(|_| self.leaked.is_none()) else { return };
        let occurs = |text: &[u8]| pattern.occurs(text);
        let (place, leaked) = match kind {
            b'E' => ("an error", wire::fields(body).any(|(_, text)| occurs(text))),
            b'N' => ("a notice", wire::fields(body).any(|(_, text)| occurs(text))),
            b'T' => ("a column's name", wire::column_names(body).any(occurs)),
            b'A' => ("a notification", wire::notification(body).any(occurs)),
            b'C' => ("a command's tag", wire::texts(body).any(occurs)),
            _ => return,
        };
        self.leaked = leaked.then_some(place);
    }

    /// Takes in a CommandComplete: `UPDATE 1` is another answer than `UPDATE 0`.
    pub fn complete(&mut self, tag: &[u8]) {
        self.hash = mix(self.hash, tag);
    }

    pub fn judge(&self, first: Option<&Tally>, level: Level, expected: &Expectations) -> Result<(), Wrong> {
        if self.leaked.is_some() {
            return Err(Wrong::Unmasked);
        }
        let Some(first) = first else { return Ok(()) };
        let rows = expected.rows.is_none() && self.rows != first.rows;
        // Where there are no rows nobody said how many columns they would have.
        let columns = self.rows > 0 && first.rows > 0 && self.columns != first.columns;
        if level != Level::None && (rows || columns) {
            return Err(Wrong::Rows);
        }
        if level == Level::Same && (self.hash, self.bytes) != (first.hash, first.bytes) {
            return Err(Wrong::Content);
        }
        Ok(())
    }
}

/// Eight bytes a step; not against adversaries, only against wrong answers.
fn mix(hash: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
    let (words, tail) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(step(hash, bytes.len() as u64), |hash, word| step(hash, u64::from_le_bytes(*word)));
    step(hash, tail.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

/// A shape of text: `#` is a digit, `@` a letter, `?` either of them, everything else stands for itself. It is looked for
/// anywhere in a value, but where it begins or ends with a digit not inside a longer run of digits, and so with letters: a shorter
/// number is no part of a longer one, but what stands beside it hides nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Vec<u8>);

impl FromStr for Pattern {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Pattern> {
        anyhow::ensure!(
            text.bytes().any(|byte| b"#@?".contains(&byte)) && text.len() >= 3,
            "a pattern needs three characters at least, `#` for a digit, `@` for a letter or `?` for either among them: ####-####"
        );
        Ok(Pattern(text.as_bytes().to_vec()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Pattern {
    pub fn occurs(&self, text: &[u8]) -> bool {
        let fits = |(&byte, &shape): (&u8, &u8)| match shape {
            b'#' => byte.is_ascii_digit(),
            b'@' => byte.is_ascii_alphabetic(),
            b'?' => byte.is_ascii_alphanumeric(),
            literal => byte == literal,
        };
        let goes_on = |edge: Option<&u8>, beyond: Option<&u8>| {
            let both = |of: fn(&u8) -> bool| edge.is_some_and(of) && beyond.is_some_and(of);
            both(u8::is_ascii_digit) || both(u8::is_ascii_alphabetic)
        };
        text.windows(self.0.len()).enumerate().any(|(at, window)| {
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            let whole = !goes_on(window.first(), before) && !goes_on(window.last(), text.get(at + window.len()));
            whole && window.iter().zip(&self.0).all(fits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            body.extend_from_slice(&(value.len() as u32).to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        body
    }

    fn tally(rows: &[&[&str]], expected: &Expectations) -> Tally {
        let mut tally = Tally::default();
        rows.iter().for_each(|values| tally.row(b'D', &row(values), expected));
        tally
    }

    #[test]
    fn content_order_and_count_are_told_apart() {
        let plain = Expectations::default();
        let first = tally(&[&["a", "b"], &["c", "d"]], &plain);
        let same = tally(&[&["a", "b"], &["c", "d"]], &plain);
        assert_eq!(same.judge(Some(&first), Level::Same, &plain), Ok(()));
        for (rows, wrong) in [
            (&[&["c", "d"][..], &["a", "b"]][..], Wrong::Content),
            (&[&["a", "b"], &["c", "e"]], Wrong::Content),
            (&[&["a", "b"]], Wrong::Rows),
            (&[&["a"], &["c"]], Wrong::Rows),
        ] {
            assert_eq!(tally(rows, &plain).judge(Some(&first), Level::Same, &plain), Err(wrong));
        }
        let changed = tally(&[&["x", "y"], &["z", ""]], &plain);
        assert_eq!(changed.judge(Some(&first), Level::Rows, &plain), Ok(()));
    }

    #[test]
    fn what_was_done_and_how_wide_it_is_counts_as_well() {
        let done = |tag: &[u8]| {
            let mut tally = Tally::default();
            tally.complete(tag);
            tally
        };
        let plain = Expectations::default();
        let (one, none) = (done(b"UPDATE 1\0"), done(b"UPDATE 0\0"));
        assert_eq!(one.judge(Some(&one), Level::Same, &plain), Ok(()));
        assert_eq!(none.judge(Some(&one), Level::Same, &plain), Err(Wrong::Content));
        assert_eq!(none.judge(Some(&one), Level::Rows, &plain), Ok(()));
        let two_rows = Expectations { rows: Some(2), ..Expectations::default() };
        let (narrow, wide) = (tally(&[&["a"], &["b"]], &plain), tally(&[&["a", "b"], &["c", "d"]], &plain));
        assert_eq!(wide.judge(Some(&narrow), Level::Rows, &two_rows), Err(Wrong::Rows));
        let empty = Tally::default();
        assert_eq!(
            empty.judge(Some(&narrow), Level::Rows, &two_rows),
            Ok(()),
            "the whole response is judged elsewhere"
        );
    }

    #[test]
    fn expectations_are_held() {
        let expected = Expectations { rows: Some(1), value: Some("ok".into()), masked: "####-####".parse().ok() };
        let check = |rows: &[&[&str]], result| {
            let tally = tally(rows, &expected);
            let whole = expected.judge(tally.rows, tally.value_seen);
            assert_eq!(tally.judge(None, Level::None, &expected).and(whole), result);
        };
        check(&[&["ok", "xxxx-1234"]], Ok(()));
        check(&[&["no"]], Err(Wrong::ValueMissing));
        check(&[&["ok"], &["ok"]], Err(Wrong::Rows));
        check(&[&["ok", "card 1234-5678."]], Err(Wrong::Unmasked));
    }

    #[test]
    fn patterns_match_whole_words_only() {
        let pattern: Pattern = "###-##-####".parse().expect("it is well formed");
        assert!(pattern.occurs(b"ssn 123-45-6789"));
        assert!(pattern.occurs(b"ssn123-45-6789x"), "what stands beside it hides nothing");
        assert!(!pattern.occurs(b"9123-45-67890") && !pattern.occurs(b"xxx-xx-6789") && !pattern.occurs(b""));
        assert!("abc".parse::<Pattern>().is_err() && "#".parse::<Pattern>().is_err());
    }
}
