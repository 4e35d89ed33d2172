//! The shape of a text: its tokens with every constant replaced by its kind, names folded, blanks and comments left out.
//! Texts of one shape are parsed alike, so what the first one does, the others do, wherever that does not hang on a constant
//! ([`super::plain`]).

use super::lexer::{self, Kind, Token, Unsure};
use memchr::memchr;

/// Writes the shape of `text` (read with `standard_conforming_strings`) to the front of `room` and returns it. `None`: the
/// room is too small, or PostgreSQL's own scanner must be asked.
///
/// Two texts have the same shape only if they have the same tokens. Constants are one byte below 32; a punctuation mark is
/// itself; every other token is followed by a space, which it does not contain unless it began with a double quote, and then
/// only before its end.
pub fn shape<'r>(text: &[u8], room: &'r mut [u8]) -> Option<&'r [u8]> {
    if !readable(text) {
        return None;
    }
    let mut length = 0;
    lexer::tokens(text, |token| {
        length = write(token, text, room, length).ok_or(Unsure)?;
        Ok(())
    })
    .ok()?;
    Some(&room[..length])
}

/// Nothing that makes a whole text unreadable, wherever it stands: the parser's answer would hang on what is in a constant.
pub(super) fn readable(text: &[u8]) -> bool {
    memchr(0, text).is_none() && std::str::from_utf8(text).is_ok()
}

#[inline]
fn write(token: Token, text: &[u8], room: &mut [u8], at: usize) -> Option<usize> {
    let byte = match token.kind {
        Kind::Punctuation => text[token.start],
        Kind::Text => 1,
        Kind::Integer => 2,
        Kind::Number => 3,
        Kind::Bits => 4,
        Kind::Hex => 5,
        Kind::Word => return spell(&text[token.start..token.end], room, at, u8::to_ascii_lowercase),
        Kind::Quoted | Kind::Param | Kind::Operator => {
            return spell(&text[token.start..token.end], room, at, |byte| *byte);
        }
    };
    *room.get_mut(at)? = byte;
    Some(at + 1)
}

#[inline]
fn spell(token: &[u8], room: &mut [u8], at: usize, fold: impl Fn(&u8) -> u8) -> Option<usize> {
    let end = at + token.len();
    let place = room.get_mut(at..=end)?;
    place.iter_mut().zip(token).for_each(|(to, from)| *to = fold(from));
    place[token.len()] = b' ';
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut room = [0; 256];
        let shape = shape(text.as_bytes(), &mut room).map(|shape| {
            let named: String =
                shape.iter().map(|byte| b".tifbx".get(usize::from(*byte)).copied().unwrap_or(*byte) as char).collect();
            named
        });
        assert_eq!(shape.as_deref().unwrap_or("unsure"), expected, "{text}");
    }

    #[test]
    fn constants_comments_blanks_and_case_are_gone() {
        check("SELECT  Abalance FROM t WHERE aid = 17;", "select abalance from t where aid = i;");
        check("select abalance--x\nfrom /* a /* b */ c */ t\twhere aid=9;", "select abalance from t where aid = i;");
        check("SELECT \"A\"\"b\", 'it''s', $$a$$, $x$ $$ $x$, e'a\\n'", "select \"A\"\"b\" ,t,t,t,t");
        check(
            "SELECT 1, 2147483647, 2147483648, 1.5, .5, 1e3, 0x1F, 1_000, b'01', X'1f'",
            "select i,i,f,f,f,f,i,i,b,x",
        );
        check("SELECT $1, $2::int, a[1], t.*", "select $1 ,$2 :: int ,a [i],t .* ");
    }

    #[test]
    fn operators_end_where_postgresql_ends_them() {
        check("a=-1", "a = - i");
        check("a@-1", "a @- i");
        check("a*/**/b", "a * b ");
        check("a+--x\nb", "a + b ");
        check("a<>b!=c>=d", "a <> b != c >= d ");
        check("a:=b", "a := b ");
    }

    #[test]
    fn what_is_doubtful_is_left_to_postgresql() {
        for text in [
            "'a'\n'b'",
            "U&'a'",
            "u&\"a\"",
            "n'a'",
            "E'\\x41'",
            "E'\\''",
            "grün",
            "\"\"",
            "'",
            "\"a",
            "$$a",
            "/* a",
            "1a",
            "1e5$",
            "1..2",
            "0x",
            "0b12",
            "$1a",
            "$99999999999",
            "{",
            "\\",
            "1e",
            "1_",
            "$a",
            "a\0",
            "b'0''1'",
        ] {
            check(text, "unsure");
        }
        assert_eq!(shape(b"select 'gr\xfcn'", &mut [0; 64]), None, "a constant that is not UTF-8");
        assert_eq!(shape("select 'grün'".as_bytes(), &mut [0; 64]), Some(&b"select \x01"[..]));
        assert_eq!(shape(b"select 1", &mut [0; 7]), None, "too little room");
    }
}
