//! JSON web tokens: base64url segments joined by dots, the first of which is a JSON object (`eyJ` is `{"`).

use super::near::Near;
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Jwt,
    anchor: Anchor::Byte(b'J'),
    find,
    #[cfg(test)]
    found: &[
        (
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJl!",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJl",
        ),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjMifQ.", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjMifQ."),
        (
            "eyJhbGciOiJkaXIifQ..aXYxMjM0NTY3.Y2lwaGVydGV4dA.dGFnMTIz",
            "eyJhbGciOiJkaXIifQ..aXYxMjM0NTY3.Y2lwaGVydGV4dA.dGFnMTIz",
        ),
    ],
    #[cfg(test)]
    passed: &[
        "eyJ",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ",
        "xeyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2ln",
        "eyJ.a.b",
        "JJJJJJ",
    ],
};

/// `{"alg":""}` in base64url is longer.
const HEADER_BYTES_MIN: usize = 12;
/// A signed token has three segments, an encrypted one five.
const SEGMENTS: [usize; 2] = [3, 5];

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let begin = near.start.checked_sub(2).filter(|begin| *begin >= near.floor)?;
    if &near.value[begin..near.start] != b"ey" || !near.begins_word(begin) {
        return None;
    }
    let mut ends = [0; SEGMENTS[1]];
    let (mut count, mut at) = (0, begin);
    while count < ends.len() {
        at += near.value[at..].iter().take_while(|byte| is_base64url(**byte)).count();
        ends[count] = at;
        count += 1;
        if near.after(at) != Some(b'.') {
            break;
        }
        at += 1;
    }
    let segments = *SEGMENTS.iter().rev().find(|segments| **segments <= count)?;
    let payload = ends[1] - ends[0] - 1;
    let long_enough = ends[0] - begin >= HEADER_BYTES_MIN && (payload >= 4 || segments == SEGMENTS[1]);
    long_enough.then_some(begin..ends[segments - 1])
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
