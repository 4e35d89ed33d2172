//! E-mail addresses as people have them: letters, digits and `._%+-` before the `@`, a domain with a dot behind it.
//! Letters beyond ASCII count on both sides (RFC 6531).

use super::near::Near;
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Email,
    anchor: Anchor::Byte(b'@'),
    find,
    #[cfg(test)]
    found: &[
        ("write to jane.doe@example.com.", "jane.doe@example.com"),
        ("<a+b_c%d-e@mail.example.co.uk>", "a+b_c%d-e@mail.example.co.uk"),
        ("J@x.io", "J@x.io"),
        ("josé@exámple.com", "josé@exámple.com"),
        ("mailto:a@b-c.org?x", "a@b-c.org"),
        ("..a@b.org", "a@b.org"),
        ("a@x.xn--p1ai", "a@x.xn--p1ai"),
        ("1@2.com", "1@2.com"),
    ],
    #[cfg(test)]
    passed: &[
        "@example.com",
        "a@",
        "a@localhost",
        "a@b.c",
        "a@.com",
        "a@b..com",
        "a @b.com",
        "a.@b.com",
        "a@1.2.3.4",
        "a@-.-",
        "@@@",
    ],
};

/// RFC 5321, section 4.5.3.1.
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 253;

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let start = local_start(near)?;
    let end = domain_end(&near.value[near.start + 1..])? + near.start + 1;
    Some(start..end)
}

fn local_start(near: &Near<'_>) -> Option<usize> {
    let low = near.floor.max(near.start.saturating_sub(LOCAL_BYTES_MAX));
    let before = &near.value[low..near.start];
    let length = before.iter().rev().take_while(|byte| is_local(**byte)).count();
    let mut start = near.start - length;
    // An escape's letter (`\n`) belongs to the escape; dots and cut characters do not begin an address.
    if length > 1 && start > 0 && near.value[start - 1] == b'\\' && matches!(near.value[start], b'n' | b't' | b'r') {
        start += 1;
    }
    let lead =
        near.value[start..near.start].iter().take_while(|byte| **byte == b'.' || is_continuation(**byte)).count();
    let local = &near.value[start + lead..near.start];
    (!local.is_empty() && !local.ends_with(b".")).then_some(start + lead)
}

/// One past the domain: the longest sequence of labels whose last could be a top-level domain.
fn domain_end(text: &[u8]) -> Option<usize> {
    let (mut end, mut at, mut dots) = (None, 0, 0);
    loop {
        let label = text[at..].iter().take_while(|byte| is_label(**byte)).count();
        let whole = &text[at..at + label];
        let trimmed = whole.len() - whole.iter().rev().take_while(|byte| **byte == b'-').count();
        if trimmed == 0 || whole[0] == b'-' || at + label > DOMAIN_BYTES_MAX {
            return end;
        }
        if dots > 0 && is_top_level(&whole[..trimmed]) {
            end = Some(at + trimmed);
        }
        at += label;
        if trimmed < whole.len() || text.get(at) != Some(&b'.') {
            return end;
        }
        (at, dots) = (at + 1, dots + 1);
    }
}

fn is_top_level(label: &[u8]) -> bool {
    let letters = label.iter().all(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii());
    (label.len() >= 2 && letters) || label.to_ascii_lowercase().starts_with(b"xn--")
}

fn is_local(byte: u8) -> bool {
    is_label(byte) || matches!(byte, b'.' | b'_' | b'%' | b'+')
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || !byte.is_ascii()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}
