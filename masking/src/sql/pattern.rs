//! A text taken apart at its constants: whether another text has its [`shape`](super::shape()) is then told by comparing what stands
//! between them, many times as fast as by cutting it into tokens.
//!
//! Why that is enough: what stands between two constants is the same bytes, so it is cut into the same tokens, as far as that does
//! not hang on the first bytes of what follows. A constant of the same kind that begins alike (with a digit, or with the same
//! byte) makes no difference to what precedes it; each is cut by the lexer itself, with what follows it in view.

use super::lexer::{self, Kind, Unsure};
use super::shape::readable;
use memchr::memchr;

/// More constants are left to the shape: a pattern is kept with its text, and stays small beside it.
const CONSTANTS_MAX: usize = 256;

/// A constant: what, and its bytes in the text.
#[derive(Clone, Copy, Debug)]
struct Constant {
    kind: Kind,
    start: u32,
    end: u32,
}

impl Constant {
    fn start(&self) -> usize {
        self.start as usize
    }

    fn end(&self) -> usize {
        self.end as usize
    }
}

/// Of a text that has a shape.
#[derive(Debug)]
pub struct Pattern(Box<[Constant]>);

impl Pattern {
    /// `None`: it has no shape, too many constants, or some that touch each other.
    pub fn of(text: &[u8]) -> Option<Self> {
        let (mut constants, mut apart, mut behind) = (Vec::new(), true, None);
        let lexed = lexer::tokens(text, |token| {
            if is_constant(token.kind) {
                apart &= behind != Some(token.start);
                behind = Some(token.end);
                let place = |at: usize| u32::try_from(at).map_err(|_| Unsure);
                if constants.len() == CONSTANTS_MAX {
                    return Err(Unsure);
                }
                constants.push(Constant { kind: token.kind, start: place(token.start)?, end: place(token.end)? });
            }
            Ok(())
        });
        (readable(text) && lexed.is_ok() && apart).then(|| Self(constants.into()))
    }

    /// Has `text` the shape of `known`, whose pattern this is? `false`: it has not, or only its shape can tell.
    pub fn fits(&self, known: &[u8], text: &[u8]) -> bool {
        // What does not even end alike is not looked at: a constant may be long.
        let tail = &known[self.0.last().map_or(0, Constant::end)..];
        text.ends_with(tail) && self.rest(known, text) == Some(tail)
    }

    /// What stands behind the last constant, if everything before it fits.
    fn rest<'t>(&self, known: &[u8], text: &'t [u8]) -> Option<&'t [u8]> {
        let (mut passed, mut at) = (0, 0);
        for constant in &self.0 {
            let between = &known[passed..constant.start()];
            at += text[at..].strip_prefix(between).map(|_| between.len())?;
            let (&first, &known_first) = (text.get(at)?, &known[constant.start()]);
            if first != known_first && !(first.is_ascii_digit() && known_first.is_ascii_digit()) {
                return None;
            }
            let (kind, end) = lexer::constant(text, at).ok()?;
            if kind != constant.kind || !readable_constant(kind, &text[at..end]) {
                return None;
            }
            (passed, at) = (constant.end(), end);
        }
        Some(&text[at..])
    }
}

fn is_constant(kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Integer | Kind::Number | Kind::Bits | Kind::Hex => true,
        Kind::Word | Kind::Quoted | Kind::Param | Kind::Operator | Kind::Punctuation => false,
    }
}

/// Numbers are ASCII by how they are cut.
fn readable_constant(kind: Kind, constant: &[u8]) -> bool {
    let is_number = matches!(kind, Kind::Integer | Kind::Number);
    is_number || constant.is_ascii() && memchr(0, constant).is_none() || readable(constant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape;

    fn fits(known: &str, text: &[u8]) -> bool {
        Pattern::of(known.as_bytes()).is_some_and(|pattern| pattern.fits(known.as_bytes(), text))
    }

    #[track_caller]
    fn check(known: &str, text: &str, expected: bool) {
        assert_eq!(fits(known, text.as_bytes()), expected, "{known} | {text}");
        let of = |text: &str| shape(text.as_bytes(), &mut [0; 2048]).map(<[u8]>::to_vec);
        assert!(!expected || of(known).is_some() && of(known) == of(text), "{known} | {text}: another shape");
    }

    #[test]
    fn texts_that_differ_in_constants_alone_fit() {
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 23456", true);
        check("SELECT a FROM t WHERE b = 1;", "SELECT a FROM t WHERE b = 0x1F;", true);
        check("a IN (1, 'x', 2.5)", "a IN (7, 'it''s -- ''', 33.25)", true);
        check("a IN (1, 'x', 2.5)", "a IN (7, 'gr\u{fc}n', 1e7)", true);
        check("SELECT 3000000000", "SELECT 1.5", true);
        check("SELECT $1, 'a'", "SELECT $1, 'b'", true);
        check("SELECT 1", "SELECT 1", true);
        check("SELECT x", "SELECT x", true);
    }

    #[test]
    fn everything_else_does_not() {
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 1 OR true", false);
        check("SELECT a FROM t WHERE b = 1", "SELECT a FROM u WHERE b = 1", false);
        check("SELECT 1", "SELECT 3000000000", false);
        check("SELECT 1", "SELECT 1.5", false);
        check("SELECT 1", "SELECT '1'", false);
        check("SELECT 1", "SELECT -1", false);
        check("SELECT 1", "SELECT ", false);
        check("SELECT 1", "SELECT 1a", false);
        check("SELECT 1 -- x", "SELECT 1 -- y", false);
        check("SELECT 'a', 2", "SELECT 'a'', 2", false);
        check("SELECT 'a'", "SELECT 'a' 'b'", false);
        check("SELECT 'a'", "SELECT 'a'\n'b'", false);
        check("SELECT 'a'", r"SELECT 'a\'", false);
        check("SELECT $1", "SELECT $2", false);
        check("SELECT a.1", "SELECT a.1", true);
        check("SELECT .5", "SELECT 5.5", false);
        check("SELECT 'a'$$b$$", "SELECT 'a'$$b$$", false);
        check("SELECT 1", "select 1", false);
        check("SELECT 'a", "SELECT 'a", false);
        let many = |count| format!("SELECT a IN ({}0)", "1, ".repeat(count - 1));
        check(&many(CONSTANTS_MAX), &many(CONSTANTS_MAX), true);
        check(&many(CONSTANTS_MAX + 1), &many(CONSTANTS_MAX + 1), false);
        assert!(!fits("SELECT 'a'", b"SELECT '\xff'"));
        assert!(!fits("SELECT 'a'", b"SELECT '\0'"));
    }
}
