//! Telephone numbers: international with `+` or `00`, North American in their usual spellings, and national ones with a
//! leading zero in groups. Bare digits are never one: too many other things are.

use super::near::{Groups, Near, is_digit};
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Phone,
    anchor: Anchor::Digits,
    find,
    #[cfg(test)]
    found: &[
        ("call +14155552671 now", "+14155552671"),
        ("+1 415 555 2671", "+1 415 555 2671"),
        ("+1 (415) 555-2671", "+1 (415) 555-2671"),
        ("+49 (0)30 901820", "+49 (0)30 901820"),
        ("+44 20 7946 0958.", "+44 20 7946 0958"),
        ("0049 170 1234567", "0049 170 1234567"),
        ("(415) 555-2671", "(415) 555-2671"),
        ("(415)555-2671", "(415)555-2671"),
        ("415-555-2671", "415-555-2671"),
        ("415.555.2671", "415.555.2671"),
        ("1-415-555-2671", "1-415-555-2671"),
        ("tel 0171 2345678", "0171 2345678"),
        ("0171/2345678", "0171/2345678"),
        ("01 23 45 67 89", "01 23 45 67 89"),
        ("020 7946 0958", "020 7946 0958"),
    ],
    #[cfg(test)]
    passed: &[
        "4155552671",
        "+1",
        "+123456",
        "+0155552671",
        "1+2345678901",
        "2024-11-20 03:12:44",
        "192.168.100.1000",
        "115-555-2671",
        "415-155-2671",
        "415-555-26711",
        "x415-555-2671",
        "01-02-2024",
        "0 1 2 3 4 5 6 7 8 9",
        "0.1234 567890",
        "12:00 +0100",
        "+12345678901234567890",
    ],
};

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let (start, first) = (near.start, near.end - near.start);
    if near.before(start, 1) == Some(b'+') {
        return international(near, start - 1, start);
    }
    if let (3, Some(found)) = (first, bracketed(near)) {
        return Some(found);
    }
    if !near.begins_word(start) || near.is_fraction(start) {
        return None;
    }
    match &near.value[start..near.end] {
        [b'0', b'0', b'1'..=b'9', ..] => international(near, start, start + 2).filter(|range| range.end > near.end),
        [b'0', b'1'..=b'9', ..] => national(near),
        [b'1'] | [_, _, _] => north_american(near),
        _ => None,
    }
}

/// E.164: at most 15 digits; fewer than 8 are no subscriber's.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// From the country code at `at`: digits with single spaces, dots, dashes or brackets between them.
fn international(near: &Near<'_>, begin: usize, at: usize) -> Option<Range<usize>> {
    if !near.begins_word(begin) || near.value[at] == b'0' {
        return None;
    }
    let (mut digits, mut end, mut gap) = (0, at, 0);
    for (place, byte) in near.value.iter().enumerate().skip(at) {
        match byte {
            b'0'..=b'9' if digits < *DIGITS.end() => (digits, end, gap) = (digits + 1, place + 1, 0),
            b'0'..=b'9' => return None,
            // ` (0)` is the widest there is between two digits.
            b' ' | b'.' | b'-' | b'(' | b')' if gap < 2 => gap += 1,
            _ => break,
        }
    }
    (DIGITS.contains(&digits) && near.ends_word(end)).then_some(begin..end)
}

/// `(415) 555-2671`
fn bracketed(near: &Near<'_>) -> Option<Range<usize>> {
    let begin = near.start.checked_sub(1).filter(|_| near.before(near.start, 1) == Some(b'('))?;
    let rest = near.value.get(near.end..)?;
    let gap = match rest {
        [b')', b' ' | b'-', ..] => 2,
        [b')', ..] => 1,
        _ => return None,
    };
    let at = near.end + gap;
    let groups = Groups::read(near.value, at, b"- .", 7);
    let right = groups.lengths() == [3, 4] && is_exchange(near.value, near.start) && is_exchange(near.value, at);
    (right && near.begins_word(begin) && near.ends_word(groups.end)).then_some(begin..groups.end)
}

/// `415-555-2671`, `415.555.2671`, `1-415-555-2671`
fn north_american(near: &Near<'_>) -> Option<Range<usize>> {
    let groups = Groups::read(near.value, near.start, b"-.", 11);
    let at = match groups.lengths() {
        [3, 3, 4] => near.start,
        [1, 3, 3, 4] => near.start + 2,
        _ => return None,
    };
    let right = is_exchange(near.value, at) && is_exchange(near.value, at + 4);
    (right && near.ends_word(groups.end) && !near.has_fraction(groups.end)).then_some(near.start..groups.end)
}

/// Area codes and exchanges begin with 2 to 9.
fn is_exchange(value: &[u8], at: usize) -> bool {
    matches!(value.get(at), Some(b'2'..=b'9'))
}

/// `0171 2345678`, `01 23 45 67 89`, `020 7946 0958`: ten or eleven digits in two to five groups.
fn national(near: &Near<'_>) -> Option<Range<usize>> {
    let groups = Groups::read(near.value, near.start, b" -./", 11);
    let right = (10..=11).contains(&groups.digits)
        && (2..=5).contains(&groups.count)
        && groups.lengths().iter().all(|length| *length >= 2)
        && near.ends_word(groups.end)
        && !near.after(groups.end + 1).is_some_and(|next| is_digit(next) && near.value[groups.end] != b' ');
    right.then_some(near.start..groups.end)
}
