//! Content detectors: what looks like a card number, an e-mail address, an SSN, ... inside a text value.

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
}

/// A compiled set of detectors.
#[derive(Clone, Debug)]
pub struct Detectors {
    kinds: Vec<Kind>,
}

impl Detectors {
    pub fn new(kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec() }
    }

    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Reports every finding in `value` (any bytes; no UTF-8 required), in order, never overlapping. Allocates nothing.
    pub fn scan(&self, value: &[u8], found: &mut dyn FnMut(Range<usize>, Kind)) {
        let _ = (value, found);
    }
}
