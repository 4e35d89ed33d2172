//! Bind values as the trail and a reviewer are shown them: text as it is, binary as hex (`\x`), and what the detectors find
//! masked. Parameter types are not known here, so a binary value is looked at as whatever it could be.

use crate::audit::values;
use masking::detect::Detectors;
use masking::style::{Style, TokenKey, mask_findings};
use smallvec::SmallVec;
use std::io::Write as _;

/// Beyond it an array is none (`MAXDIM` in PostgreSQL's array.h).
const DIMENSIONS_MAX: usize = 6;
const FILL: u8 = b'*';

/// How values are shown to whoever looks at this principal's statements.
pub(super) struct Showing<'a> {
    /// `None`: no detector applies.
    pub detectors: Option<&'a Detectors>,
    pub key: &'a TokenKey,
}

impl Showing<'_> {
    pub fn push(&self, out: &mut String, bytes: &[u8], binary: bool) {
        let Some(detectors) = self.detectors else { return push(out, bytes, binary && !is_text(bytes)) };
        let mut copy: SmallVec<[u8; 256]> = SmallVec::from_slice(bytes);
        if binary && let Some(number) = self.masked_number(detectors, bytes) {
            return push(out, &number, false);
        }
        let binary = binary && !is_text(bytes);
        if binary {
            self.mask_elements(detectors, &mut copy);
        }
        mask_findings(detectors, Style::Last4, self.key, &mut copy);
        push(out, &copy, binary);
    }

    /// The value as a number of one of the types it may have, if the detectors find something in that. Masked.
    fn masked_number(&self, detectors: &Detectors, bytes: &[u8]) -> Option<SmallVec<[u8; 32]>> {
        let found = |mut digits: SmallVec<[u8; 32]>| {
            (mask_findings(detectors, Style::Last4, self.key, &mut digits).0 > 0).then_some(digits)
        };
        match bytes.len() {
            4 => found(digits(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)))),
            8 => {
                let word: [u8; 8] = bytes.try_into().ok()?;
                let float = f64::from_be_bytes(word);
                let whole = || (float.trunc() == float && float.abs() < 1e19).then(|| digits(float as i64));
                found(digits(i64::from_be_bytes(word))).or_else(|| whole().and_then(found))
            }
            // Of numeric: four words, then the digits.
            10.. if bytes.len().is_multiple_of(2) => {
                let count = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                (bytes.len() == 8 + 2 * count)
                    .then(|| values::numeric(bytes))
                    .flatten()
                    .and_then(|text| found(SmallVec::from_slice(text.as_bytes())))
            }
            _ => None,
        }
    }

    /// Numbers in an array, each overwritten as a whole.
    fn mask_elements(&self, detectors: &Detectors, bytes: &mut [u8]) {
        let Some(mut at) = elements(bytes) else { return };
        while let Some(length) = word(bytes, at) {
            at += 4;
            let Ok(length) = usize::try_from(length) else { continue };
            let Some(element) = bytes.get_mut(at..at + length) else { return };
            if self.masked_number(detectors, element).is_some() {
                element.fill(FILL);
            }
            at += length;
        }
    }
}

/// Text looks the same in both formats, and is found and judged by people. Of the lengths that numbers have nothing is said.
fn is_text(bytes: &[u8]) -> bool {
    let number = matches!(bytes.len(), 0 | 1 | 2 | 4 | 8);
    !number && std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(|character: char| character.is_control()))
}

/// Where the elements of an array begin (`array_send`: dimensions, flags, type, then size and lower bound of each
/// dimension). `None`: it is none.
fn elements(bytes: &[u8]) -> Option<usize> {
    let dimensions = usize::try_from(word(bytes, 0)?).ok()?;
    let flags = word(bytes, 4)?;
    let begin = 12 + 8 * dimensions;
    ((1..=DIMENSIONS_MAX).contains(&dimensions) && (0..=1).contains(&flags) && bytes.len() > begin).then_some(begin)
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn digits(number: i64) -> SmallVec<[u8; 32]> {
    let mut text = [0; 32];
    let mut rest = &mut text[..];
    write!(rest, "{number}").expect("an i64 has at most 20 characters");
    let length = 32 - rest.len();
    SmallVec::from_slice(&text[..length])
}

fn push(out: &mut String, bytes: &[u8], binary: bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !binary => out.push_str(text),
        Err(_) if !binary => out.push_str(&String::from_utf8_lossy(bytes)),
        _ => {
            out.push_str("\\x");
            super::record::push_hex(out, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masking::detect::Kind;

    const CARD: i64 = 4_111_111_111_111_111;

    fn shown(bytes: &[u8], binary: bool, detect: bool) -> String {
        let (detectors, key) = (Detectors::new(&[Kind::Card]), TokenKey([7; 32]));
        let mut out = String::new();
        Showing { detectors: detect.then_some(&detectors), key: &key }.push(&mut out, bytes, binary);
        out
    }

    #[test]
    fn a_card_number_is_masked_in_whatever_form_it_is_bound() {
        assert_eq!(shown(b"4111111111111111", false, true), "************1111");
        assert_eq!(shown(&CARD.to_be_bytes(), true, true), "************1111");
        assert_eq!(shown(&(CARD as f64).to_be_bytes(), true, true), "************1111");
        // numeric: four digits of base 10,000.
        let numeric: Vec<u8> =
            [4, 3, 0, 0, 4111, 1111, 1111, 1111u16].iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(shown(&numeric, true, true), "************1111");
        assert_eq!(shown(b"4111111111111111", true, true), "************1111");
        let text = shown(b"\x01 4111111111111111", true, true);
        assert!(text.starts_with("\\x01202a2a2a2a") && text.ends_with("31313131"), "{text}");
        let array: Vec<u8> = [
            &1i32.to_be_bytes()[..],
            &0i32.to_be_bytes(),
            &20i32.to_be_bytes(),
            &2i32.to_be_bytes(),
            &1i32.to_be_bytes(),
            &8i32.to_be_bytes(),
            &7i64.to_be_bytes(),
            &8i32.to_be_bytes(),
            &CARD.to_be_bytes(),
        ]
        .concat();
        let text = shown(&array, true, true);
        assert!(text.contains("0000000000000007") && text.ends_with("2a2a2a2a2a2a2a2a"), "{text}");
        assert_eq!(shown(&CARD.to_be_bytes(), true, false), format!("\\x{CARD:016x}"));
    }

    #[test]
    fn other_values_stand_as_they_are() {
        for bytes in [
            &b""[..],
            b"\x00\x00\x00\x07",
            b"\xff",
            &[0; 12],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0],
            b"dcba",
            &[9; 40],
        ] {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert_eq!(shown(bytes, true, true), format!("\\x{hex}"));
        }
        assert_eq!(shown("späße".as_bytes(), false, true), "späße");
        assert_eq!(shown("späße".as_bytes(), true, true), "späße");
        assert_eq!(shown(b"plain", true, false), "plain");
        assert_eq!(shown(&i64::MIN.to_be_bytes(), true, true), "\\x8000000000000000");
    }
}
