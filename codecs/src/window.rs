//! Bytes on their way: a window over what was received, and the ordered pieces that may be sent.

use crate::Side;

/// A range of the undecided part of a window. Never a borrow, so it may outlive a read and allows an edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Received bytes of one direction, from the first one nobody has decided about. `decided <= bytes.len()`.
/// Bytes before `decided` are cleared (named by a [`Piece::Pass`]) or skipped; neither is ever edited again.
#[derive(Debug)]
pub struct Window<'a> {
    bytes: &'a mut [u8],
    decided: usize,
}

impl<'a> Window<'a> {
    /// A window over bytes of which none is decided yet.
    #[inline]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, decided: 0 }
    }

    /// The undecided bytes. Spans count from here.
    #[inline]
    pub fn undecided(&self) -> &[u8] {
        &self.bytes[self.decided..]
    }

    /// The undecided bytes, for editing in place (same length: the overwrite verb).
    #[inline]
    pub fn undecided_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.decided..]
    }

    /// The bytes of a span of the undecided part.
    #[inline]
    pub fn at(&self, span: Span) -> &[u8] {
        &self.undecided()[span.start as usize..span.end as usize]
    }

    /// The bytes of a span of the undecided part, for editing.
    #[inline]
    pub fn at_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.undecided_mut()[span.start as usize..span.end as usize]
    }

    /// How many bytes have been cleared or skipped since the window was made. The owner drops that many.
    #[inline]
    pub fn decided(&self) -> usize {
        self.decided
    }

    /// Clears `len` undecided bytes: they may be sent to the other side, after everything already in `out`.
    #[inline]
    pub(crate) fn clear(&mut self, len: usize, out: &mut Outgoing) {
        assert!(len <= self.bytes.len() - self.decided, "cleared past what was received");
        out.pass(self.decided, self.decided + len);
        self.decided += len;
    }

    /// Skips `len` undecided bytes: they go nowhere.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize) {
        assert!(len <= self.bytes.len() - self.decided, "skipped past what was received");
        self.decided += len;
    }
}

/// One stretch of bytes to send, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A cleared range of the opposite window's bytes, counted from where that window began.
    Pass { start: usize, end: usize },
    /// A range of [`Outgoing::composed`].
    Composed { start: usize, end: usize },
}

/// What may be sent to one side, in order. The owner sends the pieces after each call and then calls [`Outgoing::reset`].
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: Vec<Piece>,
    composed: Vec<u8>,
}

impl Outgoing {
    #[inline]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Storage that [`Piece::Composed`] points into.
    pub fn composed(&self) -> &[u8] {
        &self.composed
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of all pieces together.
    pub fn len(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| match *piece {
                Piece::Pass { start, end } | Piece::Composed { start, end } => end - start,
            })
            .sum()
    }

    /// Forgets everything, keeping the capacity: the bytes were handed to the sender.
    #[inline]
    pub fn reset(&mut self) {
        self.pieces.clear();
        self.composed.clear();
    }

    #[inline]
    fn pass(&mut self, start: usize, end: usize) {
        if start == end {
            return;
        }
        if let Some(Piece::Pass { end: last, .. }) = self.pieces.last_mut()
            && *last == start
        {
            *last = end;
            return;
        }
        self.pieces.push(Piece::Pass { start, end });
    }

    /// Appends bytes of our own, written by `write`, behind everything already queued: the replace verb.
    pub(crate) fn compose(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.composed.len();
        write(&mut self.composed);
        let end = self.composed.len();
        assert!(start <= end, "composing only appends");
        if start == end {
            return;
        }
        if let Some(Piece::Composed { end: last, .. }) = self.pieces.last_mut()
            && *last == start
        {
            *last = end;
            return;
        }
        self.pieces.push(Piece::Composed { start, end });
    }
}

/// Everything a session may touch in one call: both windows, both ways out. [`Piece::Pass`] in `to_target` points into
/// `client`, in `to_client` into `target`.
#[derive(Debug)]
pub struct Pipes<'a> {
    pub client: Window<'a>,
    pub target: Window<'a>,
    pub to_client: &'a mut Outgoing,
    pub to_target: &'a mut Outgoing,
}

impl<'a> Pipes<'a> {
    /// The window that bytes from `side` arrive in.
    pub fn from(&mut self, side: Side) -> &mut Window<'a> {
        match side {
            Side::Client => &mut self.client,
            Side::Target => &mut self.target,
        }
    }

    /// What is on its way to `side`.
    pub fn to(&mut self, side: Side) -> &mut Outgoing {
        match side {
            Side::Client => self.to_client,
            Side::Target => self.to_target,
        }
    }
}
