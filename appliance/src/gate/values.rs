//! What becomes of a watched value: masked whole, or looked through by the content detectors. (Errors and notices: `told.rs`.)

use super::meaning::Mark;
use super::told::{Fields, Told};
use crate::policy::View;
use codecs::postgres::{Value, ValueAnswer, ValueSource, Watch};
use masking::style::{Masked, Style, TokenKey};

/// What a plan's byte means. 0: the column passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment {
    /// The whole value, in this style.
    Whole(Style),
    /// The whole value, and how long it is: an expression over a masked column could be as long as its letters say.
    Hidden,
    /// Findings of the content detectors.
    Detect,
}

impl Treatment {
    pub fn code(self) -> u8 {
        match self {
            Treatment::Detect => 1,
            Treatment::Whole(Style::Last4) => 2,
            Treatment::Whole(Style::Fill) => 3,
            Treatment::Whole(Style::Null) => 4,
            Treatment::Whole(Style::Token) => 5,
            Treatment::Hidden => 6,
        }
    }

    /// An unknown code masks: it can only be our own mistake.
    #[inline]
    fn of(code: u8) -> Self {
        match code {
            1 => Treatment::Detect,
            2 => Treatment::Whole(Style::Last4),
            4 => Treatment::Whole(Style::Null),
            5 => Treatment::Whole(Style::Token),
            6 => Treatment::Hidden,
            _ => Treatment::Whole(Style::Fill),
        }
    }
}

/// How a type's values look on the wire, as far as masking goes. OIDs: pg_type.dat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// Text in both formats: can be overwritten byte for byte.
    Text,
    /// Text with a structure that `*` would break (json, xml, arrays, composites, unknown types).
    Structured,
    /// Numbers, dates, booleans: nothing to find, and `*` would not parse.
    Plain,
}

pub(super) fn nature(type_oid: u32) -> Nature {
    match type_oid {
        18 | 19 | 25 | 1042 | 1043 | 705 | 2275 => Nature::Text,
        16
        | 20
        | 21
        | 23
        | 26
        | 27
        | 28
        | 29
        | 600..=604
        | 628
        | 650
        | 700
        | 701
        | 718
        | 774
        | 790
        | 829
        | 869
        | 1000
        | 1005
        | 1007
        | 1010
        | 1011
        | 1012
        | 1016
        | 1021
        | 1022
        | 1028
        | 1082
        | 1083
        | 1114
        | 1115
        | 1182
        | 1183
        | 1184
        | 1185
        | 1186
        | 1187
        | 1231
        | 1266
        | 1270
        | 1560
        | 1562
        | 1700
        | 2205
        | 2206
        | 2950
        | 2951
        | 3220
        | 3904
        | 3906
        | 3908
        | 3910
        | 3912
        | 3926 => Nature::Plain,
        _ => Nature::Structured,
    }
}

/// Masks what the session shows it, as the principal may see it.
pub(super) struct Masker<'a> {
    /// `None`: nobody is logged in, so nothing is watched.
    pub view: Option<&'a View>,
    pub token_key: &'a TokenKey,
    /// The target surely sends UTF-8. Otherwise nobody knows where a character beyond ASCII begins.
    pub utf8: bool,
    /// Values that were masked.
    pub masked: u64,
}

impl Watch<Mark> for Masker<'_> {
    #[inline]
    fn value(&mut self, value: Value, message: &mut [u8], mark: Option<&Mark>) -> ValueAnswer {
        let view = self.view.expect("values come after the login");
        let at = value.span.start as usize..value.span.end as usize;
        let (count, answer) = match value.source {
            ValueSource::Cell { code, type_oid, .. } => {
                self.cell(view, Treatment::of(code), nature(type_oid), &mut message[at])
            }
            ValueSource::Copy { .. } => self.find(view, &mut message[at]),
            ValueSource::Text { field } => self.text(view, Told::of(field, mark), at, message),
        };
        self.masked += count;
        answer
    }
}

impl Masker<'_> {
    fn cell(&self, view: &View, treatment: Treatment, nature: Nature, bytes: &mut [u8]) -> (u64, ValueAnswer) {
        match (treatment, nature) {
            (Treatment::Detect, _) => self.find(view, bytes),
            (Treatment::Whole(style), Nature::Text) => (1, answer(self.whole(style, bytes))),
            (Treatment::Hidden, Nature::Text) => {
                bytes.fill(b'*');
                (1, ValueAnswer::Replace(HIDDEN.to_vec()))
            }
            // `***` would not parse as a number or as JSON: NULL says the same and breaks no driver.
            (Treatment::Whole(_) | Treatment::Hidden, Nature::Structured | Nature::Plain) => (1, ValueAnswer::Null),
        }
    }

    fn whole(&self, style: Style, bytes: &mut [u8]) -> Masked {
        let is_counted = || bytes.is_ascii() || self.utf8 && std::str::from_utf8(bytes).is_ok();
        let uncounted = style == Style::Last4 && !is_counted();
        let style = if uncounted { Style::Fill } else { style };
        style.apply(bytes, self.token_key)
    }

    fn find(&self, view: &View, bytes: &mut [u8]) -> (u64, ValueAnswer) {
        let Some((detectors, style)) = &view.detect else { return (0, ValueAnswer::Keep) };
        let (count, masked) = masking::style::mask_findings(detectors, *style, self.token_key, bytes);
        (u64::from(count), answer(masked))
    }

    /// `at`: the text in the message.
    fn text(&self, view: &View, told: Told<'_>, at: std::ops::Range<usize>, message: &mut [u8]) -> (u64, ValueAnswer) {
        let mut count = 0;
        if !view.column_masks.is_empty() && told.field != b'A' {
            let (text, rest) = message.split_at_mut(at.end);
            let (before, text) = text.split_at_mut(at.start);
            let (filled, hidden) = told.hide(Fields::of(before, rest), text);
            count += filled;
            if hidden {
                return (count, ValueAnswer::Replace(HIDDEN.to_vec()));
            }
        }
        let (found, answer) = self.find(view, &mut message[at]);
        (count + found, answer)
    }
}

/// What stands where nothing of a value may be told, not even its length.
const HIDDEN: &[u8] = b"********";

fn answer(masked: Masked) -> ValueAnswer {
    match masked {
        Masked::Overwritten => ValueAnswer::Keep,
        Masked::Null => ValueAnswer::Null,
        Masked::Replace(bytes) => ValueAnswer::Replace(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last4_keeps_nothing_where_characters_cannot_be_counted() {
        let masked = |utf8: bool, text: &[u8]| {
            let masker = Masker { view: None, token_key: &TokenKey([0; 32]), utf8, masked: 0 };
            let mut bytes = text.to_vec();
            masker.whole(Style::Last4, &mut bytes);
            bytes
        };
        assert_eq!(masked(true, "12345678 АБВГ".as_bytes()), "*********АБВГ".as_bytes());
        assert_eq!(masked(true, b"12345678 \xb0\xb1\xb2\xb3 01"), b"****************");
        assert_eq!(masked(false, b"12345678 \xb0\xb1\xb2\xb3 01"), b"****************");
        assert_eq!(masked(false, b"12345678901"), b"*******8901");
    }

    #[test]
    fn every_treatment_survives_its_code() {
        for treatment in [Style::Last4, Style::Fill, Style::Null, Style::Token]
            .map(Treatment::Whole)
            .into_iter()
            .chain([Treatment::Detect, Treatment::Hidden])
        {
            assert_eq!(Treatment::of(treatment.code()), treatment);
            assert_ne!(treatment.code(), 0, "0 means: passes");
        }
    }
}
