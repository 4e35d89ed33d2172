//! How a text reads where `standard_conforming_strings` is off: a target knows of a change before it tells (manual, 20.13.1: at the
//! next ReadyForQuery, where a configuration file is read again behind everybody's back).

use super::alike::turns_quotes;
use super::ends::{dollar, is_name, quoted};
use super::{Analysis, Unread, statements_of, try_parse, unparsed};
use memchr::memchr2;
use pg_query::ParserOptions;

/// What the text does if a backslash escapes the quote behind it, where that is something else. `None`: it is not, or the
/// server would refuse the text whole.
pub fn otherwise(text: &[u8]) -> Option<Analysis> {
    if !turns_quotes(text) {
        return None;
    }
    let Ok(text) = std::str::from_utf8(text) else { return Some(unparsed(&String::from_utf8_lossy(text))) };
    match escaped(text.as_bytes()) {
        Escaped::Refused => None,
        Escaped::Unsure => Some(unparsed(text)),
        Escaped::Text(bytes) => {
            let text = String::from_utf8(bytes).expect("letters were put between characters");
            match try_parse(&text, ParserOptions::DEFAULT, statements_of) {
                Ok(analysis) => Some(analysis),
                Err(Unread::Refused) => None,
                Err(Unread::TooMuch) => Some(unparsed(&text)),
            }
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Escaped {
    Text(Vec<u8>),
    /// The scanner refuses it: a constant, name or comment has no end, or is of a kind that needs the setting on.
    Refused,
    Unsure,
}

/// The text with an `E` in front of each plain constant, which says the same under either setting (manual, 4.1.2.2).
fn escaped(text: &[u8]) -> Escaped {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut at = 0;
    let mut behind_constant = false;
    while at < text.len() {
        let rest = &text[at..];
        let (length, is_constant) = match rest {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C, ..] => (Some(1), behind_constant),
            [b'-', b'-', ..] => (Some(memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())), behind_constant),
            [b'/', b'*', ..] => (comment(rest), behind_constant),
            // The constant may go on behind a line's end, plain as it is.
            [b'\'', ..] if behind_constant => return Escaped::Unsure,
            [b'\'', ..] => {
                out.extend_from_slice(b" E");
                (quoted(rest, true), true)
            }
            [b'e' | b'E', b'\'', ..] => (quoted(&rest[1..], true).map(|length| 1 + length), true),
            [b'b' | b'B' | b'x' | b'X', b'\'', ..] => (quoted(&rest[1..], false).map(|length| 1 + length), true),
            [b'n' | b'N', b'\'', ..] => {
                out.extend_from_slice(b" NCHAR");
                at += 1;
                continue;
            }
            [b'u' | b'U', b'&', b'\'', ..] => return Escaped::Refused,
            [b'"', ..] => (quoted(rest, false), false),
            [b'$', ..] => (dollar(rest), false),
            [byte, ..] if is_name(*byte) => (Some(name(rest)), false),
            _ => (Some(1), false),
        };
        let Some(length) = length else { return Escaped::Refused };
        out.extend_from_slice(&rest[..length]);
        (at, behind_constant) = (at + length, is_constant);
    }
    Escaped::Text(out)
}

fn name(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_name(**byte) || **byte == b'$').count()
}

/// With the comments in it.
fn comment(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match text.get(at..at + 2)? {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Class;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let Escaped::Text(found) = escaped(text.as_bytes()) else { panic!("{:?}: {text}", escaped(text.as_bytes())) };
        assert_eq!(String::from_utf8_lossy(&found), expected);
        // PostgreSQL's own scanner, with the setting off, sees the same tokens.
        let off = pg_query::parse(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS);
        let own = pg_query::parse(expected, ParserOptions::DEFAULT);
        let shown = |parsed: pg_query::Result<pg_query::ParseResult>| {
            parsed.ok().and_then(|parsed| parsed.deparse(Default::default()).ok())
        };
        assert_eq!(shown(off), shown(own), "{text}");
    }

    #[test]
    fn plain_constants_and_no_others_get_their_letter() {
        check(r"SELECT 'a\', ' || x", r"SELECT  E'a\', ' || x");
        check(
            r"SELECT 'it''s', E'\'', B'01', X'1f', $$'\'$$, $t$ 'a\' $t$, $1",
            r"SELECT  E'it''s', E'\'', B'01', X'1f', $$'\'$$, $t$ 'a\' $t$, $1",
        );
        check(
            "SELECT \"a'b\", c$'$ FROM t -- don't\n WHERE a = 'b'",
            "SELECT \"a'b\", c$ E'$ FROM t -- don't\n WHERE a =  E'b'",
        );
        check(r"SELECT /* ' /* ' */ ' */ n'\'' FROM t", r"SELECT /* ' /* ' */ ' */  NCHAR E'\'' FROM t");
        check(r"SELECT type'\'', a.c'\\'", r"SELECT type E'\'', a.c E'\\'");
    }

    #[test]
    fn what_the_scanner_refuses_does_nothing() {
        for text in [
            r"SELECT 'x' LIKE 'y' ESCAPE '\'",
            r"SELECT 'C:\', 'x'",
            r"SELECT U&'\0041\''",
            r"SELECT 'a\' /* ', 1 /*",
            r"SELECT 'a\'', $$ x",
        ] {
            assert!(otherwise(text.as_bytes()).is_none(), "{text}");
            assert!(pg_query::parse(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS).is_err(), "{text}");
        }
        assert!(otherwise(b"SELECT 'a', E'\\n', '\\d+'").is_none(), "it reads alike");
    }

    #[test]
    fn statements_that_a_backslash_uncovers_are_seen() {
        let classes = |text: &str| {
            let statements = otherwise(text.as_bytes()).expect("it reads otherwise").statements;
            statements.iter().flat_map(|statement| statement.classes.iter()).collect::<Vec<_>>()
        };
        assert_eq!(classes(r"select '\', '; drop table victim; --'"), [Class::Select, Class::Drop]);
        assert_eq!(classes(r"select '\'', $$; delete from t; --$$"), [Class::Select]);
        assert_eq!(classes("select '\\''\n'x; drop table victim; --'"), [Class::Unparsed], "a constant that goes on");
    }
}
