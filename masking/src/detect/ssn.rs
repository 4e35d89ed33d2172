//! United States social security numbers: `123-45-6789` or `123 45 6789`, never nine bare digits, never one that the
//! Social Security Administration does not issue.

use super::near::{Groups, Near};
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Ssn,
    anchor: Anchor::Digits,
    find,
    #[cfg(test)]
    found: &[
        ("SSN 123-45-6789.", "123-45-6789"),
        ("123 45 6789", "123 45 6789"),
        ("899-99-9999", "899-99-9999"),
        ("001-01-0001", "001-01-0001"),
        ("a 123-45-6789-b", "123-45-6789"),
    ],
    #[cfg(test)]
    passed: &[
        "123456789",
        "000-45-6789",
        "666-45-6789",
        "900-45-6789",
        "987-65-4321",
        "123-00-6789",
        "123-45-0000",
        "123-45 6789",
        "123.45.6789",
        "1234-45-6789",
        "123-45-67890",
        "x123-45-6789",
        "123-45-6789x",
        "2024-11-20",
    ],
};

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    if near.end - near.start != 3 || !near.begins_word(near.start) {
        return None;
    }
    let groups =
        Groups::read(&near.value[..near.value.len().min(near.start + "123-45-6789".len())], near.start, b"- ", 9);
    let issued = groups.lengths() == [3, 2, 4] && is_issued(&near.value[near.start..groups.end]);
    (issued && near.ends_word(groups.end)).then_some(near.start..groups.end)
}

fn is_issued(text: &[u8]) -> bool {
    let (area, group, serial) = (&text[..3], &text[4..6], &text[7..]);
    area != b"000" && area != b"666" && area[0] != b'9' && group != b"00" && serial != b"0000"
}
