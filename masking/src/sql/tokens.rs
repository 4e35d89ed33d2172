//! PostgreSQL's scanner, kept from texts with more tokens than a tree of them is worth.
//!
//! A tree takes up to 740 bytes and 2.6 us for each token (measured on INSERT ... VALUES with a million rows: 2.9 GB, 10 s), the
//! scanner alone 33 bytes. So a text is counted first, roughly and without allocating. Long constants are one token each: an
//! INSERT of a 64 MiB value is not concerned.

use super::Unread;
use super::ends::{dollar, is_name, quoted};
use pg_query::protobuf::ScanToken;

/// Beyond it a text is refused: some 220 MB and 0.8 s. Loads larger than this are what COPY is for.
pub(super) const TOKENS_MAX: usize = 300_000;

/// The tokens of a text, unless the scanner refuses it or there are too many.
pub(super) fn scan(text: &str) -> Result<Vec<ScanToken>, Unread> {
    // A short text cannot cost too much, whatever it is.
    if text.len() * text.len() > LOOKS_MAX && cost(text.as_bytes()).is_too_much() {
        return Err(Unread::TooMuch);
    }
    // pg_query 18.1 makes a slice of no address where there is no token.
    if text.bytes().all(is_space) {
        return Ok(Vec::new());
    }
    let tokens = pg_query::scan_tokens(text).map_err(|_| Unread::Refused)?;
    if tokens.len() <= TOKENS_MAX { Ok(tokens) } else { Err(Unread::TooMuch) }
}

/// As PostgreSQL's scanner has it (`scan.l`).
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

/// PostgreSQL's scanner takes a run of operator characters whole, gives all but the beginning back, and goes on behind that: `+-+-...` and
/// comments in comments (`/*/*...`) cost the square of their length, 22 s for 40,000 of them. Of characters looked at so, this is the most.
const LOOKS_MAX: usize = 1 << 22;

/// What a text costs, roughly, and at least while it stays within the bounds.
struct Cost {
    /// As the scanner would see them, but for operators of several characters, which count each.
    tokens: usize,
    /// Characters that are looked at and given back.
    looks: usize,
}

impl Cost {
    fn is_too_much(&self) -> bool {
        self.tokens > TOKENS_MAX || self.looks > LOOKS_MAX
    }
}

/// Stops early beyond the bounds.
fn cost(text: &[u8]) -> Cost {
    let mut at = 0;
    let mut cost = Cost { tokens: 0, looks: 0 };
    while at < text.len() && !cost.is_too_much() {
        let rest = &text[at..];
        let (length, is_token) = match rest {
            [b'-', b'-', ..] => (until(rest, b"\n"), false),
            [b'/', b'*', ..] => (comment(rest, &mut cost.looks), false),
            [b'\'' | b'"', ..] => (quoted(rest, false).unwrap_or(rest.len()), true),
            [b'e' | b'E', b'\'', ..] => (quoted(&rest[1..], true).map_or(rest.len(), |length| 1 + length), true),
            [b'$', ..] => (dollar(rest).unwrap_or(rest.len()), true),
            [byte, ..] if is_space(*byte) => (1, false),
            [byte, ..] if is_name(*byte) => {
                (rest.iter().take_while(|byte| is_name(**byte) || **byte == b'$').count(), true)
            }
            _ => {
                cost.looks += run(rest);
                (1, true)
            }
        };
        at += length.max(1);
        cost.tokens += usize::from(is_token);
    }
    cost
}

/// How many operator characters a text begins with.
fn run(text: &[u8]) -> usize {
    text.iter().take_while(|byte| b"~!@#^&|`?+-*/%<>=".contains(byte)).count()
}

/// Up to and with the end mark, or all of it.
fn until(text: &[u8], mark: &[u8]) -> usize {
    text.windows(mark.len()).position(|window| window == mark).map_or(text.len(), |at| at + mark.len())
}

/// With the comments in it.
fn comment(text: &[u8], looks: &mut usize) -> usize {
    let (mut at, mut depth) = (0, 0usize);
    while at + 1 < text.len() && *looks <= LOOKS_MAX {
        match &text[at..at + 2] {
            b"/*" => {
                *looks += run(&text[at..]);
                (at, depth) = (at + 2, depth + 1);
            }
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str) {
        let real = pg_query::scan_tokens(text).expect("scans");
        let comments = real.iter().filter(|token| text[token.start as usize..].starts_with(['-', '/'])).count();
        assert_eq!(cost(text.as_bytes()).tokens, real.len() - comments, "{text}");
    }

    #[test]
    fn tokens_are_counted_as_the_scanner_sees_them() {
        check("SELECT a, 'it''s', \"b\"\"c\" FROM t WHERE x = 1;");
        check("SELECT E'a\\'b;;;', e'\\\\', $$ ; ; $$, $x$ $$ ; $x$ -- ; ;\n, /* ; /* ; */ ; */ 2");
        check("SELECT name'x' , n$1$ , $1 ; INSERT INTO t VALUES (1),(2)");
        check("SELECT 'a\\', 'b;;'");
    }

    #[test]
    fn texts_that_the_scanner_takes_ages_for_are_refused() {
        let slow = |what: &str| format!("SELECT 1 {}", what.repeat(20_000));
        for what in ["/*", "/**/", "+-", "/*/"] {
            let started = std::time::Instant::now();
            let scanned = scan(&slow(what));
            assert!(started.elapsed() < std::time::Duration::from_secs(2), "{what}");
            assert!(scanned.is_err() || what == "/**/", "{what}");
        }
        assert!(
            scan(&format!("SELECT '{}' /* {} */ -- {}", "+-".repeat(50_000), "-".repeat(50_000), "*".repeat(50_000)))
                .is_ok()
        );
        assert!(scan(&format!("SELECT 1 {}", "/* a */ ".repeat(20_000))).is_ok());
    }

    #[test]
    fn too_many_tokens_are_refused_and_long_constants_are_not() {
        assert!(scan(&";".repeat(TOKENS_MAX + 1)).is_err());
        assert!(scan(&";".repeat(64 << 20)).is_err());
        assert!(scan(&format!("SELECT '{}'", ", ".repeat(TOKENS_MAX))).is_ok());
        assert!(scan(&format!("SELECT $$ {} $$, 1", "; ".repeat(TOKENS_MAX))).is_ok());
        assert!(scan(&format!("SELECT 1 /* {} */", "; ".repeat(TOKENS_MAX))).is_ok());
    }
}
