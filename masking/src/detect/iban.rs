//! International bank account numbers (ISO 13616): a country, its length, check digits modulo 97; plain or in fours.

use super::near::Near;
use super::{Anchor, Detector, Kind};
use std::ops::Range;

pub(super) static DETECTOR: Detector = Detector {
    kind: Kind::Iban,
    anchor: Anchor::Digits,
    find,
    #[cfg(test)]
    found: &[
        ("IBAN: GB82WEST12345698765432", "GB82WEST12345698765432"),
        ("GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32"),
        ("de89370400440532013000", "de89370400440532013000"),
        ("DE89 3704 0044 0532 0130 00.", "DE89 3704 0044 0532 0130 00"),
        ("FR1420041010050500013M02606", "FR1420041010050500013M02606"),
        ("NO93 8601 1117 947", "NO93 8601 1117 947"),
        ("MT84MALT011000012345MTLCAST001S", "MT84MALT011000012345MTLCAST001S"),
        ("CH93-0076-2011-6238-5295-7", "CH93-0076-2011-6238-5295-7"),
        ("to NO9386011117947 4 days ago", "NO9386011117947"),
    ],
    #[cfg(test)]
    passed: &[
        "GB82WEST12345698765431",
        "GB82 WEST 1234 5698 7654",
        "GB82WEST123456987654321",
        "XX82WEST12345698765432",
        "XGB82WEST12345698765432",
        "GB8 2WEST 1234 5698 7654 32",
        "GB82 WEST 1234 5698  7654 32",
        "at 12 o'clock",
    ],
};

fn find(near: &Near<'_>) -> Option<Range<usize>> {
    let begin = near.start.checked_sub(2).filter(|begin| *begin >= near.floor)?;
    if near.end - near.start < 2 {
        return None;
    }
    let letters = near.value[begin].is_ascii_alphabetic() && near.value[begin + 1].is_ascii_alphabetic();
    if !letters || !near.begins_word(begin) {
        return None;
    }
    let country = [near.value[begin].to_ascii_uppercase(), near.value[begin + 1].to_ascii_uppercase()];
    let length = length_of(country)?;
    let (text, end) = read(&near.value[begin..], length)?;
    let end = begin + end;
    (near.ends_word(end) && is_checked(&text[..length])).then_some(begin..end)
}

/// The longest there is (Malta has 31, Saint Lucia 32, Russia 33).
const LENGTH_MAX: usize = 34;

/// Reads `length` letters and digits, with one space or dash allowed after every fourth. Where they end.
fn read(text: &[u8], length: usize) -> Option<([u8; LENGTH_MAX], usize)> {
    let mut kept = [0; LENGTH_MAX];
    let (mut count, mut at) = (0, 0);
    while count < length {
        let byte = *text.get(at)?;
        at += 1;
        if byte.is_ascii_alphanumeric() {
            kept[count] = byte.to_ascii_uppercase();
            count += 1;
        } else if !(matches!(byte, b' ' | b'-') && count % 4 == 0 && text[at - 2].is_ascii_alphanumeric()) {
            return None;
        }
    }
    Some((kept, at))
}

/// The first four characters moved to the end, letters as 10 to 35: one modulo 97.
fn is_checked(text: &[u8]) -> bool {
    let (head, tail) = text.split_at(4);
    let remainder = tail.iter().chain(head).fold(0u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    remainder == 1
}

fn length_of(country: [u8; 2]) -> Option<usize> {
    LENGTHS.iter().find(|(code, _)| **code == country).map(|(_, length)| *length)
}

/// The IBAN registry (SWIFT): total length by country.
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22), (b"BH", 22),
    (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27),
    (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27),
    (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HN", 28), (b"HR", 21), (b"HU", 28),
    (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28),
    (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22),
    (b"MK", 19), (b"MN", 20), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24),
    (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28),
    (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];
