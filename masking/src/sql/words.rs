//! The identifiers and keywords of a text, from PostgreSQL's own scanner: never from inside constants or comments.

use pg_query::protobuf::{KeywordKind, ScanToken, Token};

/// PostgreSQL cuts identifiers after this many bytes (NAMEDATALEN - 1), so a longer spelling names the shorter thing.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Appends the words of `text`, lower-cased, unsorted. A text that the scanner refuses adds nothing.
pub(super) fn collect(text: &str, words: &mut Vec<String>) {
    if let Ok(tokens) = super::tokens::scan(text) {
        collect_from(text, &tokens, words);
    }
}

/// The same for a text already scanned.
pub(super) fn collect_from(text: &str, tokens: &[ScanToken], words: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        let Some(source) = text.get(token.start as usize..token.end as usize) else { continue };
        if let Some(word) = word(token, source, || escape_character(text, &tokens[at + 1..])) {
            words.push(cut(word));
        }
    }
}

fn word(token: &ScanToken, source: &str, escape: impl Fn() -> char) -> Option<String> {
    if token.token == Token::Uident as i32 {
        return Some(decode_unicode(unquote(source.get(2..)?)?, escape()).to_lowercase());
    }
    if token.token == Token::Ident as i32 {
        return Some(match unquote(source) {
            Some(inner) => inner.replace("\"\"", "\"").to_lowercase(),
            None => source.to_ascii_lowercase(),
        });
    }
    (token.keyword_kind != KeywordKind::NoKeyword as i32).then(|| source.to_ascii_lowercase())
}

fn unquote(source: &str) -> Option<&str> {
    source.strip_prefix('"')?.strip_suffix('"')
}

/// The escape character of a `U&"..."`: what `UESCAPE '.'` behind it says, else a backslash.
fn escape_character(text: &str, following: &[ScanToken]) -> char {
    let mut meaningful = following
        .iter()
        .filter(|token| token.token != Token::SqlComment as i32 && token.token != Token::CComment as i32);
    let said = meaningful.next().is_some_and(|token| token.token == Token::Uescape as i32);
    let constant = meaningful.next().and_then(|token| text.get(token.start as usize..token.end as usize));
    match constant {
        // Whatever letter its quote has.
        Some(constant) if said => constant.split('\'').nth(1).and_then(|said| said.chars().next()).unwrap_or('\\'),
        _ => '\\',
    }
}

/// Decodes `\XXXX`, `\+XXXXXX` and the doubled escape character (section 4.1.2.3 of the manual). What is malformed the
/// grammar refuses anyway: it is kept as it stands. Surrogate pairs are joined.
fn decode_unicode(inner: &str, escape: char) -> String {
    let inner = inner.replace("\"\"", "\"");
    let mut units: Vec<u16> = Vec::with_capacity(inner.len());
    let mut rest = inner.as_str();
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let (code, tail) = if c == escape { escaped(after, escape).unwrap_or((c, after)) } else { (c, after) };
        if let Some(surrogate) = high_or_low(after).filter(|_| c == escape) {
            units.push(surrogate);
            rest = &after[4..];
            continue;
        }
        units.extend_from_slice(code.encode_utf16(&mut [0; 2]));
        rest = tail;
    }
    String::from_utf16_lossy(&units)
}

fn escaped(after: &str, escape: char) -> Option<(char, &str)> {
    if let Some(tail) = after.strip_prefix(escape) {
        return Some((escape, tail));
    }
    let (digits, tail) = match after.strip_prefix('+') {
        Some(long) => (long.get(..6)?, &long[6..]),
        None => (after.get(..4)?, &after[4..]),
    };
    char::from_u32(u32::from_str_radix(digits, 16).ok()?).map(|code| (code, tail))
}

fn high_or_low(after: &str) -> Option<u16> {
    let unit = u16::from_str_radix(after.get(..4)?, 16).ok()?;
    (0xD800..0xE000).contains(&unit).then_some(unit)
}

fn cut(mut word: String) -> String {
    if word.len() > IDENTIFIER_BYTES_MAX {
        let end = (0..=IDENTIFIER_BYTES_MAX).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
        word.truncate(end);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        collect(text, &mut words);
        assert_eq!(words, expected, "{text}");
    }

    #[test]
    fn words_are_identifiers_and_keywords_in_lower_case() {
        check("SELECT Pg_Sleep(1)", &["select", "pg_sleep"]);
        check("SELECT \"Pg_Sleep\"(1), \"a\"\"b\"", &["select", "pg_sleep", "a\"b"]);
        check("/* pg_sleep */ SELECT 'dblink' -- lo_import\n, $$dblink$$, E'dblink'", &["select"]);
    }

    #[test]
    fn unicode_identifiers_are_decoded() {
        check(r#"SELECT U&"pg\005Fsleep"(1)"#, &["select", "pg_sleep"]);
        check(r#"SELECT U&"pg!005Fsle!+000065p" UESCAPE '!' (1)"#, &["select", "pg_sleep", "uescape"]);
        check(r#"SELECT U&"\D83D\DE00\\x""#, &["select", "\u{1F600}\\x"]);
    }

    #[test]
    fn an_identifier_too_long_is_cut_as_the_server_cuts_it() {
        let long = "a".repeat(80);
        check(&format!("SELECT {long}"), &["select", &long[..63]]);
    }
}
