//! How a value is masked.

use crate::detect::{Detectors, Kind};
use smallvec::SmallVec;
use std::ops::Range;

/// Names are those of the configuration: `last4 fill null token`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Style {
    /// Everything but the last four characters becomes `*` (all of it when there are eight characters or fewer). Same length.
    Last4,
    /// Every character becomes `*`. Same length in bytes.
    Fill,
    /// SQL NULL.
    Null,
    /// A keyed token: same input, same token. Another length.
    Token,
}

/// Keeps tokens of one installation apart from those of another (BLAKE3 keyed hash).
#[derive(Clone)]
pub struct TokenKey(pub [u8; 32]);

/// What to do with the masked value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Masked {
    Overwritten,
    Null,
    Replace(Vec<u8>),
}

/// Characters that `last4` keeps, and the length up to which it keeps none.
const KEPT: usize = 4;
const KEPT_NONE_MAX: usize = 8;

const MASK: u8 = b'*';

impl Style {
    pub const ALL: [Style; 4] = [Style::Last4, Style::Fill, Style::Null, Style::Token];

    /// The name in configuration and audit.
    pub fn name(self) -> &'static str {
        match self {
            Style::Last4 => "last4",
            Style::Fill => "fill",
            Style::Null => "null",
            Style::Token => "token",
        }
    }

    pub fn from_name(name: &str) -> Option<Style> {
        Style::ALL.into_iter().find(|style| style.name() == name)
    }

    /// Masks a whole text value (text format, or binary format of a text-like type, which is the same bytes). Whatever
    /// the style, nothing of the original stays in `value` but the characters that `last4` keeps.
    pub fn apply(self, value: &mut [u8], key: &TokenKey) -> Masked {
        let masked = match self {
            Style::Last4 => {
                let kept = kept_from(value, |_| true);
                value[..kept].fill(MASK);
                return Masked::Overwritten;
            }
            Style::Fill => Masked::Overwritten,
            Style::Null => Masked::Null,
            Style::Token => Masked::Replace(token(key, value)),
        };
        value.fill(MASK);
        masked
    }
}

/// Where the last four characters that count begin; the end when there are eight of them or fewer. UTF-8's continuation
/// bytes belong to the character before them.
fn kept_from(value: &[u8], counts: impl Fn(u8) -> bool) -> usize {
    let begins = |byte: &u8| byte & 0xC0 != 0x80 && counts(*byte);
    if value.iter().filter(|byte| begins(byte)).take(KEPT_NONE_MAX + 1).count() <= KEPT_NONE_MAX {
        return value.len();
    }
    let mut starts = (0..value.len()).rev().filter(|at| begins(&value[*at]));
    starts.nth(KEPT - 1).unwrap_or(value.len())
}

/// `tok_` and 80 bits of the keyed hash in 16 characters of base32 (RFC 4648, lower case).
fn token(key: &TokenKey, value: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = blake3::keyed_hash(&key.0, value);
    let bits = hash.as_bytes()[..10].iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut token = b"tok_".to_vec();
    token.extend((0..16).rev().map(|place| ALPHABET[(bits >> (place * 5) & 31) as usize]));
    token
}

/// Masks a finding inside a larger value, in place.
///
/// `last4` keeps the last four digits or letters, and for numbers that are written in groups (card, ssn, iban, phone) also
/// the separators, so that what it was stays readable: `**** **** **** 1111`. Every other style fills: a part of a value
/// cannot be NULL, and a token would change the length of the whole.
pub fn overwrite_finding(style: Style, kind: Kind, finding: &mut [u8]) -> Masked {
    if style != Style::Last4 {
        finding.fill(MASK);
        return Masked::Overwritten;
    }
    let grouped = matches!(kind, Kind::Card | Kind::Ssn | Kind::Iban | Kind::Phone);
    let kept = kept_from(finding, |byte| !grouped || byte.is_ascii_alphanumeric());
    for byte in &mut finding[..kept] {
        if !grouped || byte.is_ascii_alphanumeric() {
            *byte = MASK;
        }
    }
    Masked::Overwritten
}

/// Findings kept without allocating.
type Findings = SmallVec<[(Range<usize>, Kind); 8]>;

/// Masks every finding in a text value. How many there were, and what to do with the value (`Overwritten` also when there
/// were none: it stands as it is to be shown). Allocates nothing when nothing is found.
///
/// A finding that is the whole value is masked by its style; one inside a larger value by [`overwrite_finding`]. What is left
/// holds no finding any more: what the kept characters make with their new neighbours is filled.
pub fn mask_findings(detectors: &Detectors, style: Style, key: &TokenKey, value: &mut [u8]) -> (u32, Masked) {
    let findings = find(detectors, value);
    if findings.is_empty() {
        return (0, Masked::Overwritten);
    }
    let count = u32::try_from(findings.len()).unwrap_or(u32::MAX);
    if matches!(&findings[..], [(range, _)] if range.len() == value.len())
        && matches!(style, Style::Null | Style::Token)
    {
        return (count, style.apply(value, key));
    }
    for (range, kind) in findings {
        overwrite_finding(style, kind, &mut value[range]);
    }
    loop {
        let left = find(detectors, value);
        if left.is_empty() {
            return (count, Masked::Overwritten);
        }
        left.into_iter().for_each(|(range, _)| value[range].fill(MASK));
    }
}

fn find(detectors: &Detectors, value: &[u8]) -> Findings {
    let mut findings = Findings::new();
    detectors.scan(value, &mut |range, kind| findings.push((range, kind)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tests::lookalike;
    use proptest::prelude::*;

    const KEY: TokenKey = TokenKey([7; 32]);

    #[track_caller]
    fn check(style: Style, value: &str, expected: &str) {
        let mut bytes = value.as_bytes().to_vec();
        assert_eq!(style.apply(&mut bytes, &KEY), Masked::Overwritten);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(bytes.len(), value.len());
    }

    #[track_caller]
    fn check_findings(style: Style, value: &str, expected: &str, expected_count: u32) {
        let mut bytes = value.as_bytes().to_vec();
        let (count, masked) = mask_findings(&Detectors::new(&Kind::ALL), style, &KEY, &mut bytes);
        assert_eq!((count, masked), (expected_count, Masked::Overwritten));
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    #[test]
    fn last4_keeps_four_whole_characters_of_more_than_eight() {
        check(Style::Last4, "4111111111111111", "************1111");
        check(Style::Last4, "12345678", "********");
        check(Style::Last4, "123456789", "*****6789");
        check(Style::Last4, "", "");
        check(Style::Last4, "ééééééééé", "**********éééé");
        check(Style::Last4, "éééééééé", "****************");
    }

    #[test]
    fn fill_keeps_the_length_in_bytes_and_nothing_else() {
        check(Style::Fill, "Jane é", "*******");
    }

    #[test]
    fn null_and_token_leave_nothing_of_the_value() {
        let mut value = b"secret".to_vec();
        assert_eq!(Style::Null.apply(&mut value, &KEY), Masked::Null);
        assert_eq!(value, b"******");
        let mut value = b"secret".to_vec();
        let Masked::Replace(token) = Style::Token.apply(&mut value, &KEY) else { panic!("a token replaces") };
        assert_eq!(value, b"******");
        assert!(token.starts_with(b"tok_") && token.len() == 20);
    }

    #[test]
    fn a_token_is_the_same_for_the_same_value_and_key_only() {
        let token = |value: &str, key: u8| token(&TokenKey([key; 32]), value.as_bytes());
        assert_eq!(token("a", 1), token("a", 1));
        assert_ne!(token("a", 1), token("b", 1));
        assert_ne!(token("a", 1), token("a", 2));
    }

    #[test]
    fn a_finding_inside_a_larger_value_is_overwritten_in_place() {
        check_findings(Style::Last4, "paid 4111 1111 1111 1111 ok", "paid **** **** **** 1111 ok", 1);
        check_findings(Style::Last4, "ssn 123-45-6789", "ssn ***-**-6789", 1);
        check_findings(Style::Last4, "GB82 WEST 1234 5698 7654 32", "**** **** **** **** **54 32", 1);
        check_findings(Style::Last4, "a jane@example.com b", "a ************.com b", 1);
        check_findings(Style::Fill, "x 123-45-6789, 4111111111111111", "x ***********, ****************", 2);
        check_findings(Style::Null, "x 123-45-6789", "x ***********", 1);
        check_findings(Style::Token, "x 123-45-6789", "x ***********", 1);
        check_findings(Style::Last4, "nothing here", "nothing here", 0);
    }

    #[test]
    fn a_finding_that_is_the_whole_value_may_become_null_or_a_token() {
        let detectors = Detectors::new(&[Kind::Ssn]);
        let mut value = *b"123-45-6789";
        assert_eq!(mask_findings(&detectors, Style::Null, &KEY, &mut value), (1, Masked::Null));
        let mut value = *b"123-45-6789";
        let (count, masked) = mask_findings(&detectors, Style::Token, &KEY, &mut value);
        assert!(count == 1 && matches!(masked, Masked::Replace(token) if token.starts_with(b"tok_")));
    }

    #[test]
    fn kept_digits_make_no_new_finding_with_their_neighbours() {
        check_findings(Style::Last4, "123-45-4111 1111 1111 1111", "***-**-*******************", 1);
    }

    #[test]
    fn style_names_lead_back() {
        for style in Style::ALL {
            assert_eq!(Style::from_name(style.name()), Some(style));
        }
        assert_eq!(Style::from_name("LAST4"), None);
    }

    proptest! {
        #[test]
        fn masked_text_is_text_of_the_same_length_without_findings(value in lookalike(), fill in any::<bool>()) {
            let detectors = Detectors::new(&Kind::ALL);
            let style = if fill { Style::Fill } else { Style::Last4 };
            let mut bytes = value.clone().into_bytes();
            mask_findings(&detectors, style, &KEY, &mut bytes);
            prop_assert_eq!(bytes.len(), value.len());
            prop_assert!(std::str::from_utf8(&bytes).is_ok());
            prop_assert!(find(&detectors, &bytes).is_empty(), "{:?}", String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn styles_keep_any_bytes_in_their_length(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            for style in [Style::Last4, Style::Fill] {
                let mut bytes = value.clone();
                prop_assert_eq!(style.apply(&mut bytes, &KEY), Masked::Overwritten);
                prop_assert_eq!(bytes.len(), value.len());
            }
        }
    }
}
