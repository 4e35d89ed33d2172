//! Content detectors: what looks like a card number, an e-mail address, an SSN, ... inside a text value.
//!
//! One pass looks for the few bytes a finding can hang on (its anchors: a run of digits, an `@`, ...). Only where one
//! stands is a detector asked. Each detector has a file, with its examples, and a row in [`DETECTORS`].

mod aws_key;
mod card;
mod email;
mod iban;
mod jwt;
mod near;
mod phone;
mod prefilter;
mod ssn;

use near::Near;
use prefilter::Prefilter;
use std::ops::Range;

/// What a detector looks for. Names are those of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    Card,
    Email,
    Ssn,
    Iban,
    Phone,
    Jwt,
    AwsKey,
}

impl Kind {
    pub const ALL: [Kind; 7] = [Kind::Card, Kind::Email, Kind::Ssn, Kind::Iban, Kind::Phone, Kind::Jwt, Kind::AwsKey];

    /// The name in configuration and audit: `card email ssn iban phone jwt aws_key`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Card => "card",
            Kind::Email => "email",
            Kind::Ssn => "ssn",
            Kind::Iban => "iban",
            Kind::Phone => "phone",
            Kind::Jwt => "jwt",
            Kind::AwsKey => "aws_key",
        }
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a finding hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Anchor {
    /// The first digit of a run of digits.
    Digits,
    Byte(u8),
}

/// One kind's detector.
#[derive(Debug)]
struct Detector {
    kind: Kind,
    anchor: Anchor,
    /// The finding that hangs on this anchor. It lies within the value, not before `Near::floor`, and holds the anchor
    /// (or ends right before it), so findings come in order.
    find: fn(&Near<'_>) -> Option<Range<usize>>,
    /// Texts, each with the one finding in it.
    #[cfg(test)]
    found: &'static [(&'static str, &'static str)],
    /// Texts without any.
    #[cfg(test)]
    passed: &'static [&'static str],
}

/// All detectors. Where two find something at the same place, the first one has it.
static DETECTORS: [&Detector; 7] = [
    &iban::DETECTOR,
    &card::DETECTOR,
    &ssn::DETECTOR,
    &phone::DETECTOR,
    &email::DETECTOR,
    &jwt::DETECTOR,
    &aws_key::DETECTOR,
];

/// A compiled set of detectors.
#[derive(Clone, Debug)]
pub struct Detectors {
    kinds: Vec<Kind>,
    /// The detectors asked at a run of digits, and those asked at a single byte, in the order of [`DETECTORS`].
    at_digits: Vec<&'static Detector>,
    at_bytes: Vec<&'static Detector>,
    prefilter: Prefilter,
}

impl Detectors {
    pub fn new(kinds: &[Kind]) -> Self {
        let enabled = DETECTORS.iter().copied().filter(|one| kinds.contains(&one.kind));
        let (at_digits, at_bytes) = enabled.clone().partition(|one| one.anchor == Anchor::Digits);
        Self { kinds: kinds.to_vec(), at_digits, at_bytes, prefilter: Prefilter::new(enabled.map(|one| one.anchor)) }
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Reports every finding in `value` (any bytes; no UTF-8 required), in order, never overlapping. Allocates nothing.
    /// On UTF-8 text a finding never cuts a character.
    pub fn scan(&self, value: &[u8], found: &mut dyn FnMut(Range<usize>, Kind)) {
        let (mut at, mut floor) = (0, 0);
        while let Some(anchor) = self.prefilter.next(value, at) {
            let near = Near::new(value, anchor, floor);
            match self.find(&near) {
                Some((range, kind)) => {
                    debug_assert!(floor <= range.start && range.start < range.end && range.end <= value.len());
                    debug_assert!(range.end > at);
                    (at, floor) = (range.end, range.end);
                    found(range, kind);
                }
                None => at = near.end,
            }
        }
    }

    fn find(&self, near: &Near<'_>) -> Option<(Range<usize>, Kind)> {
        let anchor = near.anchor();
        let asked = if anchor == Anchor::Digits { &self.at_digits } else { &self.at_bytes };
        asked.iter().filter(|one| one.anchor == anchor).find_map(|one| Some(((one.find)(near)?, one.kind)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn findings(detectors: &Detectors, value: &[u8]) -> Vec<(Range<usize>, Kind)> {
        let mut all = Vec::new();
        detectors.scan(value, &mut |range, kind| all.push((range, kind)));
        all
    }

    fn texts(kinds: &[Kind], value: &str) -> Vec<String> {
        findings(&Detectors::new(kinds), value.as_bytes())
            .into_iter()
            .map(|(range, _)| value[range].to_owned())
            .collect()
    }

    #[test]
    fn every_detector_finds_its_examples_alone_and_inside_other_data() {
        for detector in DETECTORS {
            for (text, finding) in detector.found {
                assert_eq!(texts(&[detector.kind], text), [*finding], "{} in {text:?}", detector.kind.name());
                for around in [
                    ["", ""],
                    ["{\"a\":\"", "\"}"],
                    ["{a,\"", "\"}"],
                    ["1,", ",x"],
                    ["\"", "\""],
                    ["(", ")"],
                    ["x\t", "\ty"],
                    ["\\n", "\\n"],
                    ["é ", " é"],
                    ["<", ">"],
                ] {
                    let inside = around.join(finding);
                    assert_eq!(texts(&[detector.kind], &inside), [*finding], "{} in {inside:?}", detector.kind.name());
                }
            }
        }
    }

    #[test]
    fn every_detector_passes_over_what_only_looks_alike() {
        for detector in DETECTORS {
            for text in detector.passed {
                assert_eq!(texts(&[detector.kind], text), [] as [&str; 0], "{} in {text:?}", detector.kind.name());
            }
        }
    }

    #[test]
    fn several_kinds_in_one_value_are_reported_in_order() {
        let value = "jane@example.com paid with 4111 1111 1111 1111, SSN 123-45-6789";
        let kinds: Vec<Kind> =
            findings(&Detectors::new(&Kind::ALL), value.as_bytes()).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, [Kind::Email, Kind::Card, Kind::Ssn]);
        assert_eq!(texts(&[Kind::Ssn], value), ["123-45-6789"]);
        assert!(texts(&[], value).is_empty());
    }

    #[test]
    fn names_lead_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("CARD"), None);
    }

    /// Text from the pieces that findings are made of, so that chance comes near them.
    pub(crate) fn lookalike() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[0-9]{1,6}",
            "[ .@+()-]",
            "[a-zA-Zé*]{1,4}",
            Just("eyJ".to_owned()),
            Just("AKIA".to_owned()),
            Just("4111 1111 1111 1111".to_owned()),
            Just("4111111111111111".to_owned()),
            Just("123-45-6789".to_owned()),
            Just("a@b.co".to_owned()),
            Just("GB82 WEST 1234 5698 7654 32".to_owned()),
            Just("+1 415 555 2671".to_owned()),
            Just("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.c2lnbmF0dXJl".to_owned()),
            Just("AKIAIOSFODNN7EXAMPLE".to_owned()),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn findings_of_any_bytes_are_in_range_and_in_order(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            in_order(&value);
        }

        #[test]
        fn findings_never_cut_a_character(value in lookalike()) {
            in_order(value.as_bytes());
            for (range, _) in findings(&Detectors::new(&Kind::ALL), value.as_bytes()) {
                prop_assert!(value.is_char_boundary(range.start) && value.is_char_boundary(range.end), "{value:?} {range:?}");
            }
        }
    }

    fn in_order(value: &[u8]) {
        let mut end = 0;
        for (range, _) in findings(&Detectors::new(&Kind::ALL), value) {
            assert!(end <= range.start && range.start < range.end && range.end <= value.len());
            end = range.end;
        }
    }

    /// Ordinary text must cost next to nothing. Run with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        let prose = "The quick brown fox jumps over the lazy dog, and nobody minds. Jane Isaac Kim went home early. "
            .repeat(10_000);
        let rows = "1042,2024-11-20 03:12:44.123456+00,Berlin,ORD-88213,199.99,shipped,carton of 12\n".repeat(10_000);
        let sets = Kind::ALL.iter().map(std::slice::from_ref).chain([&Kind::ALL[..]]);
        for (kinds, (name, text)) in sets.flat_map(|kinds| [(kinds, ("prose", &prose)), (kinds, ("rows", &rows))]) {
            let detectors = Detectors::new(kinds);
            let started = std::time::Instant::now();
            let mut count = 0;
            for _ in 0..30 {
                detectors.scan(text.as_bytes(), &mut |_, _| count += 1);
            }
            let rate = text.len() as f64 * 30.0 / started.elapsed().as_secs_f64() / 1e9;
            println!("{name}: {rate:.2} GB/s, {count} findings, {kinds:?}");
        }
    }
}
