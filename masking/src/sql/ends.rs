//! Where what the scanner takes in one piece ends: names and constants in quotes or dollars (manual, 4.1).

use memchr::memchr_iter;

pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// With the quotes around it; a doubled quote goes on, and so does an escaped one where escapes count. `None`: it has no end.
pub(super) fn quoted(text: &[u8], escapes: bool) -> Option<usize> {
    let quote = text[0];
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\\' if escapes => at += 2,
            byte if byte == quote && text.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `$tag$ ... $tag$`, or a parameter.
pub(super) fn dollar(text: &[u8]) -> Option<usize> {
    let tag = 1 + text[1..].iter().take_while(|byte| is_name(**byte)).count();
    if text.get(tag) != Some(&b'$') || text[1].is_ascii_digit() {
        return Some(tag);
    }
    let mark = &text[..=tag];
    let body = &text[mark.len()..];
    let end = memchr_iter(b'$', body).find(|&end| body[end..].starts_with(mark))?;
    Some(mark.len() + end + mark.len())
}
