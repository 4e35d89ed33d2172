//! Payment card numbers: 13 to 19 digits of a known issuer, Luhn's check digit right, plain or in groups.

use super::near::{Groups, Near, is_digit};
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Card,
    anchor: Anchor::Digits,
    find,
    #[cfg(test)]
    found: &[
        ("card 4111111111111111.", "4111111111111111"),
        ("4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("4111-1111-1111-1111", "4111-1111-1111-1111"),
        ("5555555555554444", "5555555555554444"),
        ("2223003122003222", "2223003122003222"),
        ("3782 822463 10005", "3782 822463 10005"),
        ("371449635398431", "371449635398431"),
        ("3056 930902 5904", "3056 930902 5904"),
        ("6011111111111117", "6011111111111117"),
        ("3530111333300000", "3530111333300000"),
        ("6200000000000005", "6200000000000005"),
        ("4222222222222", "4222222222222"),
        ("2200123456789019", "2200123456789019"),
        ("no 17: 4111111111111111 4 left", "4111111111111111"),
        ("12 4111 1111 1111 1111 35", "4111 1111 1111 1111"),
    ],
    #[cfg(test)]
    passed: &[
        "4111111111111112",
        "1234567890123452",
        "4111 11111 111 1111 1",
        "41111111111111114111111111111111",
        "4111  1111  1111  1111",
        "4111-1111 1111-1111",
        "0.4111111111111111",
        "4111111111111111.5",
        "a4111111111111111",
        "4111111111111111f",
        "2024-11-20 03:12:44",
        "411111111111",
    ],
};

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let first = near.end - near.start;
    // Most runs of digits are neither long enough nor followed by another group.
    let goes_on = matches!(near.after(near.end), Some(b' ' | b'-')) && first >= 4;
    if !(goes_on || first >= DIGITS_MIN) || first > DIGITS_MAX {
        return None;
    }
    if !near.begins_word(near.start) || near.is_fraction(near.start) {
        return None;
    }
    let groups = Groups::read(near.value, near.start, b" -", DIGITS_MAX);
    // Text may go on in digits behind a card in groups, so every length that ends with a group is tried, longest first.
    let (mut digits, mut end) = (groups.digits, groups.end);
    for (at, length) in groups.lengths().iter().enumerate().rev() {
        let range = near.start..end;
        if digits < DIGITS_MIN {
            return None;
        }
        if is_written_so(&groups.lengths()[..=at]) && ends(near, end) && is_card(&near.value[range.clone()]) {
            return Some(range);
        }
        digits -= usize::from(*length);
        end = end.saturating_sub(usize::from(*length) + 1);
    }
    None
}

fn ends(near: &Near<'_>, end: usize) -> bool {
    near.ends_word(end) && !near.has_fraction(end)
}

/// Plain; fours with a shorter or longer rest (4-4-4-4, 4-4-4-4-3); 4-6-5 and 4-6-4; 4-3-3-3; 8-8 and 6-13.
fn is_written_so(lengths: &[u8]) -> bool {
    match lengths {
        [_] | [4, 6, 4 | 5] | [4, 3, 3, 3] | [8, 8] | [6, 7..=13] => true,
        [fours @ .., rest] => fours.iter().all(|length| *length == 4) && *rest <= 7,
        [] => false,
    }
}

fn is_card(text: &[u8]) -> bool {
    let mut digits = [0u8; DIGITS_MAX];
    let mut count = 0;
    for byte in text.iter().filter(|byte| is_digit(**byte)) {
        digits[count] = byte - b'0';
        count += 1;
    }
    is_issued(&digits[..count]) && luhn(&digits[..count])
}

/// ISO/IEC 7812: from the right, every second digit is doubled; the digits' sum is a multiple of ten.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, *digit) {
            (0, digit) => u32::from(digit),
            (_, digit @ 0..=4) => u32::from(digit) * 2,
            (_, digit) => u32::from(digit) * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Number ranges (first four digits) of issuers and the lengths they issue.
const ISSUERS: &[(u16, u16, &[usize])] = &[
    (2200, 2204, &[16, 17, 18, 19]),             // Mir
    (2221, 2720, &[16]),                         // Mastercard
    (3000, 3059, &[14, 15, 16, 17, 18, 19]),     // Diners Club
    (3095, 3095, &[14, 15, 16, 17, 18, 19]),     // Diners Club
    (3400, 3499, &[15]),                         // American Express
    (3528, 3589, &[16, 17, 18, 19]),             // JCB
    (3600, 3699, &[14, 15, 16, 17, 18, 19]),     // Diners Club
    (3700, 3799, &[15]),                         // American Express
    (3800, 3999, &[14, 15, 16, 17, 18, 19]),     // Diners Club
    (4000, 4999, &[13, 16, 18, 19]),             // Visa
    (5000, 5099, &[13, 14, 15, 16, 17, 18, 19]), // Maestro, RuPay, Elo
    (5100, 5599, &[16]),                         // Mastercard
    (5600, 5899, &[13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6011, 6011, &[16, 17, 18, 19]),             // Discover
    (6060, 6099, &[16]),                         // RuPay, Hipercard
    (6200, 6299, &[16, 17, 18, 19]),             // UnionPay
    (6300, 6399, &[13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6440, 6599, &[16, 17, 18, 19]),             // Discover, RuPay, Elo
    (6700, 6799, &[13, 14, 15, 16, 17, 18, 19]), // Maestro
    (8100, 8299, &[16, 17, 18, 19]),             // UnionPay, RuPay
    (9792, 9792, &[16]),                         // Troy
];

fn is_issued(digits: &[u8]) -> bool {
    let Some(first) = digits.get(..4) else { return false };
    let prefix = first.iter().fold(0, |number, digit| number * 10 + u16::from(*digit));
    ISSUERS.iter().any(|(low, high, lengths)| (*low..=*high).contains(&prefix) && lengths.contains(&digits.len()))
}
