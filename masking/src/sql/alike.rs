//! Whether a text says the same whatever the session's settings are.

use super::otherwise::otherwise;
use super::{Analysis, analyse};
use std::borrow::Cow;

/// Is the text, read as `analysis` now, read so under every value of `standard_conforming_strings` and `client_encoding`? Says no
/// rather than be wrong.
///
/// With `standard_conforming_strings` off a backslash takes the character behind it into its string, which moves the string's
/// end only if that is a quote, and changes what the string says (manual, 4.1.2.1). In encodings that only clients use the second byte of a letter may be
/// a backslash, a letter, a digit or one of `:;<=>?@[]^_{|}~`, never a quote, `-`, `*`, `/` or `$` (manual, 24.3.1): inside strings and comments none but the
/// backslash matters.
pub fn reads_alike(text: &[u8], analysis: &Analysis) -> bool {
    if turns_quotes(text) || pairs(text).any(takes_backslash) {
        return false;
    }
    let folded = letters_folded(text);
    (text.is_ascii() || analyse(&folded, true) == *analysis) && otherwise(&folded, analysis).is_none()
}

/// Strings may end elsewhere under another value of `standard_conforming_strings`.
pub(super) fn turns_quotes(text: &[u8]) -> bool {
    pairs(text).any(|(one, next)| one == b'\\' && next == b'\'')
}

fn pairs(text: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    text.windows(2).map(|pair| (pair[0], pair[1]))
}

/// A text in whose encoding every byte beyond ASCII is (a part of) a letter, whichever, as one that can be read. Names that have such letters
/// make it one that cannot.
pub fn letters_folded(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    text.iter().map(|&byte| if byte.is_ascii() { byte } else { FOLDED }).collect()
}

/// Is the text another one in some encoding that only clients use? A target takes such an encoding from its configuration file as well, and tells
/// of it behind the next statement. Only a backslash that is the second byte of a letter there matters.
pub(super) fn hangs_on_letters(text: &[u8], analysis: &Analysis) -> bool {
    pairs(text).any(takes_backslash)
        && LETTERS.iter().any(|letter| {
            let folded = folded_by(text, letter);
            analyse(&folded, true) != *analysis || otherwise(&folded, analysis).is_some()
        })
}

fn takes_backslash((one, next): (u8, u8)) -> bool {
    !one.is_ascii() && next == b'\\'
}

/// How many bytes the letter has that begins beyond ASCII: SJIS and SHIFT_JIS_2004; BIG5, GBK and UHC; JOHAB; GB18030 (PostgreSQL's wchar.c).
const LETTERS: [fn(&[u8]) -> usize; 4] = [
    |text| if (0xA1..=0xDF).contains(&text[0]) { 1 } else { 2 },
    |_| 2,
    |text| if text[0] == 0x8F { 3 } else { 2 },
    |text| if text.get(1).is_some_and(u8::is_ascii_digit) { 4 } else { 2 },
];

fn folded_by(text: &[u8], letter: &fn(&[u8]) -> usize) -> Vec<u8> {
    let mut folded = text.to_vec();
    let mut at = 0;
    while at < text.len() {
        let length = if text[at].is_ascii() { 1 } else { letter(&text[at..]).min(text.len() - at) };
        if !text[at].is_ascii() {
            folded[at..at + length].fill(FOLDED);
        }
        at += length;
    }
    folded
}

/// Nothing that is outside of strings and comments may hold this character.
const FOLDED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_setting_reads_alike_is_alike() {
        let alike = |text: &str| reads_alike(text.as_bytes(), &analyse(text.as_bytes(), true));
        for text in [
            "SELECT 1",
            "SELECT '\\d+', f('a\\\\b\\x2a') FROM t",
            "DO $$ BEGIN PERFORM f('\\d+'); END $$",
            "SELECT E'a\\nb' FROM t",
            "SELECT 'é' FROM t -- ünd so wéiter",
            "INSERT INTO t VALUES ('日本語', $$ü$$)",
        ] {
            assert!(alike(text), "{text}");
        }
        for text in [
            "SELECT '\\'' ; DROP TABLE t; --'",
            "SELECT E'it\\'s'",
            "DO 'BEGIN /* \\x2a/ DROP TABLE t; -- */\n NULL; END'",
            "DELETE FROM t WHERE 'a' = '\\141'",
            "SELECT set_config('search\\137path', 'x', false)",
            "SELECT E'é\\' ; DELETE FROM t; --'",
            "DELETE FROM été",
            "DELETE FROM \"été\"",
            "SELECT 1 AS é",
            "SELECT $é$ a $é$",
        ] {
            assert!(!alike(text), "{text}");
        }
    }
}
