//! AWS access key ids (`AKIA...`, `ASIA...`), and the secret that stands near one.

use super::near::Near;
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::AwsKey,
    // The third letter of both prefixes: rarer in text than the first.
    anchor: Anchor::Byte(b'I'),
    find,
    #[cfg(test)]
    found: &[
        ("id=AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("ASIAIOSFODNN7EXAMPLE,", "ASIAIOSFODNN7EXAMPLE"),
        (
            "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ),
    ],
    #[cfg(test)]
    passed: &[
        "AKIA",
        "AKIAIOSFODNN7EXAMPL",
        "AKIAIOSFODNN7EXAMPLES",
        "XAKIAIOSFODNN7EXAMPLE",
        "AKIAiosfodnn7example",
        "ASIA IS A CONTINENT",
    ],
};

const KEY_BYTES: usize = 20;
const SECRET_BYTES: usize = 40;
/// A secret this close behind its id (`","secret":"`, a CSV comma, a line break) is masked with it.
const GAP_BYTES_MAX: usize = 48;

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let begin = near.start.checked_sub(2).filter(|begin| *begin >= near.floor)?;
    let key = near.value.get(begin..begin + KEY_BYTES)?;
    let right = (key.starts_with(b"AKIA") || key.starts_with(b"ASIA"))
        && key.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && near.begins_word(begin)
        && near.ends_word(begin + KEY_BYTES);
    right.then(|| begin..secret_end(near.value, begin + KEY_BYTES).unwrap_or(begin + KEY_BYTES))
}

/// The end of a secret that begins within the gap. What is between is part of the finding: it is masked as well.
fn secret_end(value: &[u8], from: usize) -> Option<usize> {
    let window = &value[from..value.len().min(from + GAP_BYTES_MAX + SECRET_BYTES + 1)];
    let mut at = 0;
    while at < window.len() {
        let run = window[at..].iter().take_while(|byte| is_secret(**byte)).count();
        if run == SECRET_BYTES && is_mixed(&window[at..at + run]) {
            return Some(from + at + run);
        }
        at += run + 1;
    }
    None
}

fn is_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+'
}

/// Lower and upper case and a digit: not a digest in hexadecimal, not a word.
fn is_mixed(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_lowercase)
        && text.iter().any(u8::is_ascii_uppercase)
        && text.iter().any(u8::is_ascii_digit)
}
