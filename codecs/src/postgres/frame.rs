//! Message headers, the bounds on them, and a reader that cannot run past its bytes.
//!
//! ```text
//!   kind:u8  length:u32be (itself included, kind excluded)  body
//!   '<------------------- total = 1 + length --------------------->'
//! ```

use super::ProtocolError;
use crate::Side;

/// Kind byte and length.
pub(super) const HEADER_BYTES: usize = 5;
/// The largest length field believed: PostgreSQL's own ceiling on a message. Beyond: the connection closes.
pub(super) const LENGTH_MAX: u32 = 0x3fff_ffff;
/// Small replies that are read whole (CommandComplete, ParameterStatus, NotificationResponse, login messages), bytes.
pub(super) const REPLY_BYTES_MAX: usize = 64 << 10;
/// RowDescription, bytes: 1,664 columns with names of 63 bytes need 136 KB.
pub(super) const SHAPE_BYTES_MAX: usize = 1 << 20;
/// How much of an unwatched ErrorResponse is waited for to find its SQLSTATE, which comes third, bytes.
pub(super) const ERROR_HEAD_BYTES: usize = 4 << 10;

/// A message's kind and its whole length on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub kind: u8,
    /// Bytes from the kind byte to the end of the message.
    pub total: usize,
}

impl Header {
    /// The header at the front of `bytes`; `None` while it is incomplete.
    #[inline]
    pub fn peek(bytes: &[u8], side: Side) -> Result<Option<Header>, ProtocolError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, a, b, c, d] = *head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(ProtocolError::LengthTooSmall { side, kind });
        }
        if length > LENGTH_MAX {
            return Err(ProtocolError::LengthAbsurd { side, kind, length });
        }
        Ok(Some(Header { kind, total: 1 + length as usize }))
    }

    /// The whole message, if it is here. Beyond `max` bytes it is refused before anybody waits for it.
    #[inline]
    pub fn whole(self, bytes: &[u8], side: Side, max: usize) -> Result<Option<&[u8]>, ProtocolError> {
        if self.total > max {
            return Err(ProtocolError::TooLarge { side, kind: self.kind, length: self.total });
        }
        Ok(bytes.get(..self.total))
    }
}

/// Reads fields in order; every read is checked, and `None` means the message is shorter than it claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Over a body, or over a whole message with `at` behind its header, so that positions are window positions.
    #[inline]
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Position of the next unread byte.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N).and_then(|bytes| bytes.try_into().ok())
    }

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A string up to its NUL, which is consumed and not returned.
    #[inline]
    pub fn text(&mut self) -> Option<&'a [u8]> {
        // Most names are empty: the unnamed statement, the unnamed portal.
        let len = if self.bytes.get(self.at) == Some(&0) { 0 } else { memchr::memchr(0, self.rest())? };
        let text = self.take(len)?;
        self.at += 1;
        Some(text)
    }

    /// The four-byte length of a value and the value; the inner `None` is NULL (-1).
    #[inline]
    pub fn value(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            len => self.take(usize::try_from(len).ok()?).map(Some),
        }
    }
}
