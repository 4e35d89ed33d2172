//! Whether a text says the same whatever the session's settings are.

use super::{Analysis, analyse};

/// Is the text, read as `analysis` now, read so under every value of `standard_conforming_strings` and `client_encoding`? Says no
/// rather than be wrong.
///
/// With `standard_conforming_strings` off a backslash takes the character behind it into its string, which moves the string's
/// end only if that is a quote (manual, 4.1.2.1). In encodings that only clients use the second byte of a letter may be a backslash,
/// a letter, a digit or one of `:;<=>?@[]^_{|}~`, never a quote, `-`, `*`, `/` or `$` (manual, 24.3.1): inside strings and comments none but the
/// backslash matters.
pub fn reads_alike(text: &[u8], analysis: &Analysis) -> bool {
    if turns_quotes(text) {
        return false;
    }
    if text.is_ascii() {
        return true;
    }
    if pairs(text).any(|(one, next)| !one.is_ascii() && next == b'\\') {
        return false;
    }
    analyse_bytes(text, true) == *analysis
}

/// Strings may end elsewhere under another value of `standard_conforming_strings`.
pub(super) fn turns_quotes(text: &[u8]) -> bool {
    pairs(text).any(|(one, next)| one == b'\\' && next == b'\'')
}

fn pairs(text: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    text.windows(2).map(|pair| (pair[0], pair[1]))
}

/// What a text does in whose encoding every byte beyond ASCII is (a part of) a letter, whichever. Names that have such letters make it one that
/// cannot be read.
pub fn analyse_bytes(text: &[u8], standard_conforming_strings: bool) -> Analysis {
    // Nothing that is outside of strings and comments may hold this character.
    let folded: Vec<u8> = text.iter().map(|&byte| if byte.is_ascii() { byte } else { 1 }).collect();
    analyse(&folded, standard_conforming_strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_setting_reads_alike_is_alike() {
        let alike = |text: &str| reads_alike(text.as_bytes(), &analyse(text.as_bytes(), true));
        for text in [
            "SELECT 1",
            "SELECT '\\d+' FROM t",
            "SELECT E'a\\nb' FROM t",
            "SELECT 'é' FROM t -- ünd so wéiter",
            "INSERT INTO t VALUES ('日本語', $$ü$$)",
        ] {
            assert!(alike(text), "{text}");
        }
        for text in [
            "SELECT '\\'' ; DROP TABLE t; --'",
            "SELECT E'it\\'s'",
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
