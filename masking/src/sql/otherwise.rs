//! How a text reads where `standard_conforming_strings` is off: a target knows of a change before it tells (manual, 20.13.1: at the
//! next ReadyForQuery, where a configuration file is read again behind everybody's back), and what runs inside another statement, nobody
//! tells anything about.

use super::alike::hangs_on_letters;
use super::ends::{dollar, is_name, quoted};
use super::{Analysis, Class, statements_of, try_parse, unparsed, unread};
use memchr::{memchr, memchr2};
use pg_query::ParserOptions;

/// What the text does where the setting is off, if that is something else than `analysis`; unparsed where its bytes may make up other
/// letters. `None`: it is not, or every server refuses the text whole.
pub fn otherwise(text: &[u8], analysis: &Analysis) -> Option<Analysis> {
    memchr(b'\\', text)?;
    if let Some(other) = by_letters(text, analysis) {
        return Some(other);
    }
    let other = match std::str::from_utf8(text) {
        Err(_) => unparsed(&String::from_utf8_lossy(text)),
        Ok(text) => match with_setting_off(text) {
            Otherwise::Alike | Otherwise::Refused => return None,
            Otherwise::Unsure => unparsed(text),
            // What our grammar refuses an older one may take.
            Otherwise::Text(other) => {
                try_parse(&other, ParserOptions::DEFAULT, statements_of).unwrap_or_else(|why| unread(&other, why))
            }
        },
    };
    (other != *analysis).then_some(other)
}

/// The text is unparsed where its bytes may make up other letters, and that matters.
pub(super) fn by_letters(text: &[u8], analysis: &Analysis) -> Option<Analysis> {
    let is_read = !analysis.statements.iter().any(|statement| statement.classes.contains(Class::Unparsed));
    (is_read && hangs_on_letters(text, analysis)).then(|| unparsed(&String::from_utf8_lossy(text)))
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Otherwise {
    /// No plain constant holds a backslash.
    Alike,
    /// This text says under either setting what the other one says with the setting off.
    Text(String),
    /// Every server's scanner refuses it: a constant, name or comment has no end, an escape names no character, or a constant is of the kind
    /// that needs the setting on.
    Refused,
    Unsure,
}

/// The text with an `E` in front of each plain constant (manual, 4.1.2.2).
pub(super) fn with_setting_off(text: &str) -> Otherwise {
    if memchr(b'\\', text.as_bytes()).is_none() {
        return Otherwise::Alike;
    }
    let mut other = Rewritten { text: text.as_bytes(), at: 0, out: Vec::with_capacity(text.len() + 32), turns: false };
    match other.rewrite() {
        Err(why) => why,
        Ok(()) if !other.turns => Otherwise::Alike,
        Ok(()) => Otherwise::Text(String::from_utf8(other.out).expect("ASCII was put between characters")),
    }
}

/// What the last token was, as far as the next constant could continue it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Other,
    /// A constant of one of these kinds, and whether its line has ended since.
    Constant(Escapes, bool),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// By the setting.
    Plain,
    /// `E'a\n'`
    Always,
    /// `B'01'`, and whatever a block comment stands behind.
    Unsure,
}

struct Rewritten<'t> {
    text: &'t [u8],
    at: usize,
    out: Vec<u8>,
    /// A backslash stands in a plain constant.
    turns: bool,
}

impl Rewritten<'_> {
    fn rewrite(&mut self) -> Result<(), Otherwise> {
        let mut behind = Behind::Other;
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let (length, is_now) = match rest {
                [b'\n' | b'\r', ..] => (Some(1), behind.on_next_line()),
                [b' ' | b'\t' | 0x0B | 0x0C, ..] => (Some(1), behind),
                [b'-', b'-', ..] => (Some(memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())), behind),
                [b'/', b'*', ..] => (comment(rest), behind.beyond_comment()),
                [b'\'', ..] => match behind.goes_on()? {
                    Some(Escapes::Always) => (quoted(rest, true), Behind::Constant(Escapes::Always, false)),
                    goes_on => {
                        if goes_on.is_none() {
                            self.out.extend_from_slice(b" E");
                        }
                        self.plain()?;
                        behind = Behind::Constant(Escapes::Plain, false);
                        continue;
                    }
                },
                [b'e' | b'E', b'\'', ..] => {
                    (quoted(&rest[1..], true).map(|length| 1 + length), Behind::Constant(Escapes::Always, false))
                }
                [b'b' | b'B' | b'x' | b'X', b'\'', ..] => {
                    (quoted(&rest[1..], false).map(|length| 1 + length), Behind::Constant(Escapes::Unsure, false))
                }
                [b'n' | b'N', b'\'', ..] => {
                    self.out.extend_from_slice(b" NCHAR");
                    self.at += 1;
                    behind = Behind::Other;
                    continue;
                }
                [b'u' | b'U', b'&', b'\'', ..] => return Err(Otherwise::Refused),
                [b'"', ..] => (quoted(rest, false), Behind::Other),
                [b'$', b'0'..=b'9', ..] => (Some(1 + digits(&rest[1..])?), Behind::Other),
                [b'$', ..] => (dollar(rest), Behind::Other),
                [b'0'..=b'9', ..] => (Some(digits(rest)?), Behind::Other),
                [byte, ..] if is_name(*byte) => (Some(name(rest)), Behind::Other),
                _ => (Some(1), Behind::Other),
            };
            let length = length.ok_or(Otherwise::Refused)?;
            self.out.extend_from_slice(&rest[..length]);
            (self.at, behind) = (self.at + length, is_now);
        }
        Ok(())
    }

    /// A plain constant, with what its escapes make where that is not for the parser to know: bytes beyond ASCII are letters, whichever.
    fn plain(&mut self) -> Result<(), Otherwise> {
        let length = quoted(&self.text[self.at..], true).ok_or(Otherwise::Refused)?;
        let constant = &self.text[self.at..self.at + length];
        let mut done = 0;
        while let Some(next) = memchr(b'\\', &constant[done..]) {
            self.turns = true;
            let (before, from) = constant[done..].split_at(next);
            let (length, value) = escape(from).ok_or(Otherwise::Refused)?;
            self.out.extend_from_slice(before);
            match value {
                Value::Byte(byte) if !byte.is_ascii() => self.out.extend_from_slice(b"\\x01"),
                Value::Byte(_) | Value::Character => self.out.extend_from_slice(&from[..length]),
            }
            done += next + length;
        }
        self.out.extend_from_slice(&constant[done..]);
        self.at += length;
        Ok(())
    }
}

impl Behind {
    fn on_next_line(self) -> Self {
        match self {
            Behind::Constant(escapes, _) => Behind::Constant(escapes, true),
            Behind::Other => Behind::Other,
        }
    }

    fn beyond_comment(self) -> Self {
        match self {
            Behind::Constant(_, line_ended) => Behind::Constant(Escapes::Unsure, line_ended),
            Behind::Other => Behind::Other,
        }
    }

    /// What constant goes on with a quote; `None`: one begins.
    fn goes_on(self) -> Result<Option<Escapes>, Otherwise> {
        match self {
            Behind::Constant(Escapes::Unsure, _) => Err(Otherwise::Unsure),
            Behind::Constant(escapes, true) => Ok(Some(escapes)),
            Behind::Constant(_, false) | Behind::Other => Ok(None),
        }
    }
}

enum Value {
    Byte(u8),
    Character,
}

/// The length of an escape and what it makes (manual, 4.1.2.2). `None`: no server takes it, since it names no character, or NUL.
fn escape(text: &[u8]) -> Option<(usize, Value)> {
    let digits = |from: usize, most: usize, is_digit: fn(&u8) -> bool| {
        text[from..].iter().take(most).take_while(|byte| is_digit(byte)).count()
    };
    let number = |from: usize, length: usize, radix: u32| {
        let digits = std::str::from_utf8(&text[from..from + length]).expect("digits");
        u32::from_str_radix(digits, radix).expect("few digits")
    };
    let byte = |number: u32| Some((number & 0xFF) as u8).filter(|byte| *byte != 0).map(Value::Byte);
    match text[1] {
        b'x' => match digits(2, 2, u8::is_ascii_hexdigit) {
            0 => Some((2, Value::Character)),
            length => Some((2 + length, byte(number(2, length, 16))?)),
        },
        b'0'..=b'7' => {
            let length = digits(1, 3, |byte| matches!(byte, b'0'..=b'7'));
            Some((1 + length, byte(number(1, length, 8))?))
        }
        kind @ (b'u' | b'U') => {
            let length = if kind == b'u' { 4 } else { 8 };
            let whole = digits(2, length, u8::is_ascii_hexdigit) == length;
            let names = whole && (1..=char::MAX as u32).contains(&number(2, length, 16));
            names.then_some((2 + length, Value::Character))
        }
        _ => Some((2, Value::Character)),
    }
}

fn name(text: &[u8]) -> usize {
    text.iter().take_while(|byte| is_name(**byte) || **byte == b'$').count()
}

/// A number, with the letters behind it. Where a quote or a dollar follows those, servers differ in what they begin.
fn digits(text: &[u8]) -> Result<usize, Otherwise> {
    let length = text.iter().take_while(|byte| is_name(**byte)).count();
    let letters = !text[..length].iter().all(u8::is_ascii_digit);
    match text.get(length) {
        Some(b'\'' | b'"' | b'&' | b'$') if letters => Err(Otherwise::Unsure),
        _ => Ok(length),
    }
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
    use crate::sql::analyse;

    /// What each parser, or the scanner, makes of a text.
    fn shown(text: &str, options: ParserOptions) -> Option<String> {
        pg_query::parse(text, options).ok()?.deparse(Default::default()).ok()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(with_setting_off(text), Otherwise::Text(expected.into()), "{text}");
        // PostgreSQL's own parser, with the setting off, sees the same.
        let off = shown(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS);
        assert_eq!(off, shown(expected, ParserOptions::DEFAULT), "{text}");
    }

    fn other(text: &str) -> Option<Analysis> {
        otherwise(text.as_bytes(), &analyse(text.as_bytes(), true))
    }

    fn classes(text: &str) -> Vec<Class> {
        let statements = other(text).unwrap_or_else(|| panic!("it reads otherwise: {text}")).statements;
        statements.iter().flat_map(|statement| statement.classes.iter()).collect()
    }

    #[test]
    fn plain_constants_and_no_others_get_their_letter() {
        check(r"SELECT 'a\', ' || x", r"SELECT  E'a\', ' || x");
        check(
            r"SELECT 'it\'s', 'b''c', E'\'', B'01', X'1f', $$'\'$$, $t$ 'a\' $t$, $1",
            r"SELECT  E'it\'s',  E'b''c', E'\'', B'01', X'1f', $$'\'$$, $t$ 'a\' $t$, $1",
        );
        check(
            "SELECT \"a'b\", c$'\\$ FROM t -- don't\n WHERE a = 'b'",
            "SELECT \"a'b\", c$ E'\\$ FROM t -- don't\n WHERE a =  E'b'",
        );
        check(r"SELECT /* ' /* ' */ ' */ n'\'' FROM t", r"SELECT /* ' /* ' */ ' */  NCHAR E'\'' FROM t");
        check(r"SELECT type'\'', a.c'\\'", r"SELECT type E'\'', a.c E'\\'");
        check(r"SELECT 1$$'$$, '\x2a', $1$a$'$a$", r"SELECT 1$$'$$,  E'\x2a', $1$a$'$a$");
        check(r#"SELECT U&"d!0061t\" UESCAPE '!', '\x2a'"#, r#"SELECT U&"d!0061t\" UESCAPE  E'!',  E'\x2a'"#);
        check(r"SELECT 1e5, 0x1F, 1_000, .5, '\141'", r"SELECT 1e5, 0x1F, 1_000, .5,  E'\141'");
    }

    #[test]
    fn a_constant_that_goes_on_behind_a_line_is_one() {
        check("SELECT 'a' -- x\n \n 'b\\x2a', 'c'", "SELECT  E'a' -- x\n \n 'b\\x2a',  E'c'");
        check("SELECT E'a'\n'b\\'', '\\x2a'", "SELECT E'a'\n'b\\'',  E'\\x2a'");
        check("SELECT n'a'\r'\\'' ", "SELECT  NCHAR E'a'\r'\\'' ");
        check("DO LANGUAGE 'x' '\\x2a'", "DO LANGUAGE  E'x'  E'\\x2a'");
    }

    #[test]
    fn a_text_without_a_backslash_in_a_plain_constant_reads_alike() {
        for text in [
            "SELECT 'a'",
            r"SELECT E'\x2a', $$\x2a '\141'$$, $a$ \ $a$",
            r#"SELECT "\x2a" -- \x2a"#,
            r"SELECT 'a' /* '\x2a' */",
            r"SELECT a \ b",
        ] {
            assert_eq!(with_setting_off(text), Otherwise::Alike, "{text}");
        }
        assert!(other(r"SELECT f('\d+', 'C:\\temp\x2a')").is_none(), "nothing hangs on what these say");
    }

    #[test]
    fn what_escapes_say_is_left_to_the_parser_but_for_bytes_of_other_encodings() {
        check(r"SELECT '\x2a\052\u002a\U0000002a\\\/\q\b'", r"SELECT  E'\x2a\052\u002a\U0000002a\\\/\q\b'");
        let letters = Otherwise::Text(r"SELECT  E'\x01\x01\x01é\é'".into());
        assert_eq!(with_setting_off(r"SELECT '\xe9\351\x80é\é'"), letters);
    }

    #[test]
    fn what_the_scanner_refuses_does_nothing() {
        for text in [
            r"SELECT 'x' LIKE 'y' ESCAPE '\'",
            r"SELECT 'C:\', 'x'",
            r"SELECT U&'\0041\''",
            r"SELECT 'a\' /* ', 1 /*",
            r"SELECT 'a\'', $$ x",
            r"SELECT f('\x00ff'::bytea)",
            r"SELECT f('\0')",
            r"SELECT f('\400')",
            r"SELECT f('C:\users')",
            r"SELECT f('\U0011ffff')",
        ] {
            assert_eq!(with_setting_off(text), Otherwise::Refused, "{text}");
            assert!(other(text).is_none(), "{text}");
            assert!(pg_query::parse(text, ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS).is_err(), "{text}");
        }
    }

    #[test]
    fn what_only_some_servers_would_take_is_unparsed() {
        for text in [
            // SYSTEM_USER is reserved since 16 only.
            r"select '\', '; drop table victim; create temp table system_user(a int); --'",
            // Older ones let a name or a constant follow a number in the same breath.
            r"select '\', '; drop table victim; select 1a; --'",
        ] {
            assert_eq!(classes(text), [Class::Unparsed], "{text}");
        }
        for text in [
            r"select 1b'\', '; drop table victim; --'",
            r"select $1e'\'', '\x2a'",
            r"select .5x$a$'\' $a$",
            "select b'0'\n'\\'",
            r"select 'a' /* x */ '\x2a'",
        ] {
            assert_eq!(with_setting_off(text), Otherwise::Unsure, "{text}");
        }
    }

    #[test]
    fn statements_that_a_backslash_uncovers_are_seen() {
        assert_eq!(classes(r"select '\', '; drop table victim; --'"), [Class::Select, Class::Drop]);
        assert_eq!(classes(r"select '\'', $$; delete from t; --$$"), [Class::Select]);
        for constant in [r"/* \x2a/", r"/* \052/", r"/* \u002a/", r"/* *\/", r"-- \n", r"/* *\057", r"/* \U0000002a/"] {
            let classes = classes(&format!("DO 'BEGIN {constant} DROP TABLE t; -- */\n NULL; END'"));
            assert_eq!(classes, [Class::Drop, Class::Do], "{constant}");
        }
    }

    #[test]
    fn a_value_that_is_another_is_seen_wherever_something_hangs_on_it() {
        let condition = other(r"UPDATE t SET a = 'z' WHERE 'a' = '\141'").expect("it reads otherwise");
        assert!(condition.statements[0].missing_where);
        let setting = other(r"SELECT set_config('search\137path', 'x', false)").expect("it reads otherwise");
        assert_eq!(setting.statements[0].settings, [("search_path".to_owned(), Some("x".to_owned()))]);
        let copied = other(r"COPY t TO STDOUT (FORMAT 'bin\141ry')").expect("it reads otherwise");
        assert_eq!(copied.statements[0].copy.as_ref().map(|copy| copy.format), Some(crate::sql::CopyFormat::Binary));
        let query = r"SELECT query_to_xml('SELECT a FROM t /* \x2a/ UNION SELECT s FROM u -- */', true, false, '')";
        let tables =
            |analysis: &Analysis| analysis.statements[0].tables.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(tables(&other(query).expect("another")), ["t", "u"]);
        assert_eq!(tables(&other(r"SELECT table_to_xml('t\x61', true, false, '')").expect("another")), ["ta"]);
        assert_eq!(classes(r"DO LANGUAGE 'plpgsq\154' 'BEGIN NULL; END'"), [Class::Do]);
    }

    #[test]
    fn a_backslash_that_may_be_half_a_letter_counts_where_something_hangs_on_it() {
        for text in [
            r"select E'Á\' ; drop table victim; --'",
            r"select E'Á\\', ' ; drop table victim; --'",
            r"DO E'BEGIN /* Á\\x2a/ DROP TABLE t; -- */ NULL; END'",
            r"DO E'BEGIN /* Á\x2f* */ DROP TABLE t; /* */ */ NULL; END'",
            r"DO $$ BEGIN SET standard_conforming_strings = off; EXECUTE 'SELECT 1 /* Á\\x2a/; DROP TABLE t; -- */'; END $$",
        ] {
            assert_eq!(classes(text), [Class::Unparsed], "{text}");
        }
        for text in [
            r"SELECT f('né\d+', E'né\n') FROM t",
            r"DO $$ BEGIN RAISE NOTICE E'terminé\n'; PERFORM f('é\s', 'Á\\x2a') FROM t; END $$",
        ] {
            assert!(other(text).is_none(), "{text}");
        }
        // Whatever the encoding is by which the session reads it now.
        let bytes = b"select E'\xC1\x81\\' ; drop table victim; --'";
        let other = crate::sql::read_bytes(bytes).otherwise.expect("it may read otherwise");
        assert!(other.statements[0].classes.contains(Class::Unparsed));
        assert_eq!(crate::sql::read_bytes(b"SELECT f('n\xE9\\d+', '\\x2a') FROM t").otherwise, None);
    }
}
