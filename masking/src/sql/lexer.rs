//! Tokens of a text as PostgreSQL's scanner would cut them (scan.l), found without allocating and much faster.
//!
//! It answers only where there is nothing to doubt: whatever PostgreSQL refuses, and whatever is rare and intricate (escapes
//! that name bytes or code points, national and Unicode constants, constants continued on the next line, names outside ASCII,
//! `..`), is [`Unsure`] and left to PostgreSQL's own code. `tests/shapes.rs` and `fuzz/` hold it to `pg_query::scan`.

use memchr::{memchr, memchr2, memmem};

/// PostgreSQL must be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unsure;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A keyword or an identifier without quotes, all of it ASCII.
    Word,
    /// An identifier in quotes.
    Quoted,
    /// `$1`
    Param,
    /// A string constant, however it is quoted.
    Text,
    /// A number that fits an int4: the grammar tells these from others.
    Integer,
    Number,
    /// `b'01'`
    Bits,
    /// `x'1F'`
    Hex,
    /// One or more characters that mean something together, or a colon.
    Operator,
    /// One of `,()[].;`
    Punctuation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    Nothing,
    Space,
    Word,
    Digits,
    Quote,
    DoubleQuote,
    Dollar,
    Operator,
    Colon,
    Dot,
    Punctuation,
}

const BEGINS: [Begins; 256] = {
    let mut table = [Begins::Nothing; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => Begins::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Begins::Word,
            b'0'..=b'9' => Begins::Digits,
            b'\'' => Begins::Quote,
            b'"' => Begins::DoubleQuote,
            b'$' => Begins::Dollar,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' => Begins::Operator,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' => Begins::Operator,
            b':' => Begins::Colon,
            b'.' => Begins::Dot,
            b',' | b'(' | b')' | b'[' | b']' | b';' => Begins::Punctuation,
            _ => Begins::Nothing,
        };
        byte += 1;
    }
    table
};

/// PostgreSQL refuses longer operators (NAMEDATALEN).
const OPERATOR_BYTES_MAX: usize = 63;
/// More digits might not fit the int4 that a parameter's number is.
const PARAM_DIGITS_MAX: usize = 9;

fn begins(byte: u8) -> Begins {
    BEGINS[usize::from(byte)]
}

fn starts_word(byte: u8) -> bool {
    begins(byte) == Begins::Word || !byte.is_ascii()
}

fn continues_word(byte: u8) -> bool {
    matches!(begins(byte), Begins::Word | Begins::Digits | Begins::Dollar)
}

/// Hands over the tokens of `text` in order; comments and blanks are none. `text` is UTF-8 without NUL, read with
/// `standard_conforming_strings`.
#[inline]
pub(super) fn tokens(text: &[u8], mut each: impl FnMut(Token) -> Result<(), Unsure>) -> Result<(), Unsure> {
    let mut at = 0;
    let mut previous = Kind::Punctuation;
    while let Some(&byte) = text.get(at) {
        let (kind, end) = match begins(byte) {
            Begins::Space => {
                at += 1;
                continue;
            }
            Begins::Word => word(text, at)?,
            Begins::Punctuation => (Kind::Punctuation, at + 1),
            Begins::Digits => number(text, at)?,
            // Behind another constant it could continue that one.
            Begins::Quote if matches!(previous, Kind::Text | Kind::Bits | Kind::Hex) => return Err(Unsure),
            Begins::Quote => (Kind::Text, quoted(text, at)?),
            Begins::Dot => match text.get(at + 1) {
                Some(b'.') => return Err(Unsure),
                Some(next) if next.is_ascii_digit() => number(text, at)?,
                _ => (Kind::Punctuation, at + 1),
            },
            Begins::Operator => match text.get(at + 1) {
                Some(b'-') if byte == b'-' => {
                    at = line_end(text, at);
                    continue;
                }
                Some(b'*') if byte == b'/' => {
                    at = comment_end(text, at)?;
                    continue;
                }
                _ => (Kind::Operator, operator_end(text, at)?),
            },
            Begins::Dollar => dollar(text, at)?,
            Begins::DoubleQuote => (Kind::Quoted, identifier_end(text, at)?),
            Begins::Colon => (Kind::Operator, at + 1 + usize::from(matches!(text.get(at + 1), Some(b':' | b'=')))),
            Begins::Nothing => return Err(Unsure),
        };
        each(Token { kind, start: at, end })?;
        (at, previous) = (end, kind);
    }
    Ok(())
}

/// The token at `at`, where a constant begins that does not stand behind another.
#[inline]
pub(super) fn constant(text: &[u8], at: usize) -> Result<(Kind, usize), Unsure> {
    match begins(text[at]) {
        Begins::Word => word(text, at),
        Begins::Digits => number(text, at),
        Begins::Quote => Ok((Kind::Text, quoted(text, at)?)),
        Begins::Dot if text.get(at + 1).is_some_and(u8::is_ascii_digit) => number(text, at),
        Begins::Dollar => dollar(text, at),
        _ => Err(Unsure),
    }
}

/// A name, or a constant whose quote has a letter before it.
#[inline]
fn word(text: &[u8], start: usize) -> Result<(Kind, usize), Unsure> {
    let mut end = start + 1;
    let next = loop {
        match text.get(end) {
            Some(&byte) if continues_word(byte) => end += 1,
            next => break next.copied().unwrap_or(b' '),
        }
    };
    match next {
        b'\'' if end == start + 1 => match text[start] | 0x20 {
            b'e' => Ok((Kind::Text, escaped(text, end)?)),
            b'b' => Ok((Kind::Bits, plain(text, end)?)),
            b'x' => Ok((Kind::Hex, plain(text, end)?)),
            b'n' => Err(Unsure),
            _ => Ok((Kind::Word, end)),
        },
        b'&' if end == start + 1 && text[start] | 0x20 == b'u' => Err(Unsure),
        byte if !byte.is_ascii() => Err(Unsure),
        _ => Ok((Kind::Word, end)),
    }
}

/// `'it''s'`; `start` is the opening quote's place. What `standard_conforming_strings` would end elsewhere is not followed: it matters
/// which text it is ([`super::otherwise`]).
fn quoted(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let mut at = start + 1;
    loop {
        let quote = at + memchr(b'\'', &text[at..]).ok_or(Unsure)?;
        if text[quote - 1] == b'\\' {
            return Err(Unsure);
        }
        if text.get(quote + 1) != Some(&b'\'') {
            return Ok(quote + 1);
        }
        at = quote + 2;
    }
}

/// `b'01'`: two quotes are no quote here.
fn plain(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let quote = start + 1 + memchr(b'\'', &text[start + 1..]).ok_or(Unsure)?;
    if text.get(quote + 1) == Some(&b'\'') { Err(Unsure) } else { Ok(quote + 1) }
}

/// `E'a\n'`. Escapes of which the outcome could be refused, or hangs on a setting (`backslash_quote`, `client_encoding`), are not followed.
fn escaped(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let mut at = start + 1;
    loop {
        let found = at + memchr2(b'\'', b'\\', &text[at..]).ok_or(Unsure)?;
        match (text[found], text.get(found + 1)) {
            (b'\\', _) if !text[found - 1].is_ascii() => return Err(Unsure),
            (b'\'', Some(b'\'')) | (b'\\', Some(b'\\' | b'n' | b't' | b'r' | b'b' | b'f')) => at = found + 2,
            (b'\'', _) => return Ok(found + 1),
            _ => return Err(Unsure),
        }
    }
}

/// `"it""s"`
fn identifier_end(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let mut at = start + 1;
    loop {
        let quote = at + memchr(b'"', &text[at..]).ok_or(Unsure)?;
        if text.get(quote + 1) != Some(&b'"') {
            return if quote == start + 1 { Err(Unsure) } else { Ok(quote + 1) };
        }
        at = quote + 2;
    }
}

/// `$1`, `$$...$$`, `$tag$...$tag$`
fn dollar(text: &[u8], start: usize) -> Result<(Kind, usize), Unsure> {
    let rest = &text[start + 1..];
    if rest.first().is_some_and(u8::is_ascii_digit) {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let junk = rest.get(digits).is_some_and(|byte| starts_word(*byte));
        return if junk || digits > PARAM_DIGITS_MAX { Err(Unsure) } else { Ok((Kind::Param, start + 1 + digits)) };
    }
    let tag = rest.iter().take_while(|byte| continues_word(**byte) && **byte != b'$').count();
    if rest.get(tag) != Some(&b'$') {
        return Err(Unsure);
    }
    let mark = &text[start..start + tag + 2];
    let content = start + mark.len();
    let length = memmem::find(&text[content..], mark).ok_or(Unsure)?;
    Ok((Kind::Text, content + length + mark.len()))
}

/// `start` is a digit, or a dot with a digit behind it.
#[inline]
fn number(text: &[u8], start: usize) -> Result<(Kind, usize), Unsure> {
    if text[start] == b'0'
        && let Some(radix) = text.get(start + 1).and_then(|byte| radix(*byte))
    {
        return based(text, start, radix);
    }
    let mut at = digits(text, start);
    let mut whole = true;
    if text.get(at) == Some(&b'.') {
        // `1..10` is a range in PL/pgSQL.
        if text.get(at + 1) == Some(&b'.') {
            return Err(Unsure);
        }
        at = digits(text, at + 1);
        whole = false;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let end = digits(text, at + 1 + sign);
        if end == at + 1 + sign {
            return Err(Unsure);
        }
        at = end;
        whole = false;
    }
    // A dollar too: `1e5$` is junk, because `e5$` is a name.
    if text.get(at).is_some_and(|byte| starts_word(*byte) || *byte == b'$') {
        return Err(Unsure);
    }
    let integer = whole && fits_int4(&text[start..at], 10);
    Ok((if integer { Kind::Integer } else { Kind::Number }, at))
}

fn radix(letter: u8) -> Option<u32> {
    match letter {
        b'x' | b'X' => Some(16),
        b'o' | b'O' => Some(8),
        b'b' | b'B' => Some(2),
        _ => None,
    }
}

/// `0x1F`, `0o17`, `0b1`, with an underscore before any digit.
fn based(text: &[u8], start: usize, radix: u32) -> Result<(Kind, usize), Unsure> {
    let is_digit = |at: usize| text.get(at).is_some_and(|byte| (*byte as char).is_digit(radix));
    let mut at = start + 2;
    loop {
        if is_digit(at) {
            at += 1;
        } else if text.get(at) == Some(&b'_') && is_digit(at + 1) {
            at += 2;
        } else {
            break;
        }
    }
    let junk = text.get(at).is_some_and(|byte| continues_word(*byte) || !byte.is_ascii());
    if junk || at == start + 2 {
        return Err(Unsure);
    }
    let integer = fits_int4(&text[start + 2..at], radix);
    Ok((if integer { Kind::Integer } else { Kind::Number }, at))
}

/// The end of `1_000`: digits, each but the first with at most one underscore before it.
fn digits(text: &[u8], start: usize) -> usize {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = start;
    loop {
        if is_digit(at) {
            at += 1;
        } else if at > start && text.get(at) == Some(&b'_') && is_digit(at + 1) {
            at += 2;
        } else {
            return at;
        }
    }
}

fn fits_int4(digits: &[u8], radix: u32) -> bool {
    if radix == 10 && digits.len() < 10 {
        return true;
    }
    let mut value = 0u64;
    for digit in digits.iter().filter_map(|byte| (*byte as char).to_digit(radix)) {
        value = value * u64::from(radix) + u64::from(digit);
        if value > i32::MAX as u64 {
            return false;
        }
    }
    true
}

/// The longest run of operator characters, less what scan.l gives back: a comment's start, and a `+` or `-` at the end of
/// what could be an operator of standard SQL (`=-1` is `= -1`).
fn operator_end(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let mut end = start + 1;
    while let Some(&byte) = text.get(end) {
        let comment = matches!((byte, text.get(end + 1)), (b'/', Some(b'*')) | (b'-', Some(b'-')));
        if begins(byte) != Begins::Operator || comment {
            break;
        }
        end += 1;
        // What is given back would be looked at again and again.
        if end - start > 2 * OPERATOR_BYTES_MAX {
            return Err(Unsure);
        }
    }
    if end == start + 1 {
        return Ok(end);
    }
    let beyond_sql = |byte: &u8| matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
    if !text[start..end - 1].iter().any(beyond_sql) {
        while end > start + 1 && matches!(text[end - 1], b'+' | b'-') {
            end -= 1;
        }
    }
    if end - start > OPERATOR_BYTES_MAX { Err(Unsure) } else { Ok(end) }
}

fn line_end(text: &[u8], start: usize) -> usize {
    memchr2(b'\n', b'\r', &text[start..]).map_or(text.len(), |length| start + length)
}

/// Comments nest.
fn comment_end(text: &[u8], start: usize) -> Result<usize, Unsure> {
    let (mut at, mut depth) = (start + 2, 1usize);
    while depth > 0 {
        at += memchr2(b'*', b'/', &text[at..]).ok_or(Unsure)?;
        match (text[at], text.get(at + 1)) {
            (b'*', Some(b'/')) => (at, depth) = (at + 2, depth - 1),
            (b'/', Some(b'*')) => (at, depth) = (at + 2, depth + 1),
            _ => at += 1,
        }
    }
    Ok(at)
}
