//! What the client gets of the response at hand, kept for the record.
//!
//! Only a [`Session`] writes here, and only where it clears bytes, composes them, or has decided how the message goes that
//! its last outcome tells of: what is kept is what the client gets, after every mask, byte for byte.
//!
//! ```text
//!   T   the columns of the result, from the last description of it, in the formats of this execution
//!   D d H N   rows, copy data, the start of a copy, notices: as they were cleared or composed
//!   C E I s V   the message that ends the statement: as it will be
//! ```
//!
//! Each is a whole message of the protocol. Where the bound is met one message is shortened, which its length says, and
//! what follows it is left out but for the end.

use super::binds::Formats;
use super::compose;
use super::expect::Expected;
use super::frame::{ERROR_HEAD_BYTES, HEADER_BYTES};
use super::session::Session;
use super::target::Then;
use super::{End, Event, Step};
use crate::Pipes;

/// Capacity that an idle session may hold on to, bytes. Beyond: freed with the response that needed it.
const CAPACITY_BYTES_MAX: usize = 16 << 10;
/// The most that is kept of the message that ends a statement, bytes: an error of any length is waited for this far.
const ENDING_BYTES_MAX: usize = ERROR_HEAD_BYTES;
/// Of the fields of a RowDescription behind a column's name, where the format stands (manual, 55.7).
const FORMAT_OFFSET: usize = 4 + 2 + 4 + 2 + 4;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Bytes at most; 0: nothing is kept.
    max: usize,
    /// Of the message that is being added: where it begins here, and how much of it is still to come.
    start: usize,
    left: usize,
    /// Something was shortened or left out.
    cut: bool,
    /// The columns of this result are in.
    described: bool,
    /// The message that ends the statement is in, and has not gone yet.
    ended: bool,
    /// The last outcome is the one all this belongs to.
    due: bool,
}

impl Kept {
    #[inline]
    pub fn is_on(&self) -> bool {
        self.max > 0
    }

    #[inline]
    pub fn takes_more(&self) -> bool {
        self.is_on() && !self.cut
    }

    /// A result whose columns are not in yet may follow.
    #[inline]
    fn awaits_columns(&self) -> bool {
        self.takes_more() && !self.described
    }

    /// Room for everything but the end of the statement.
    fn body_max(&self) -> usize {
        self.max - (self.max / 4).min(ENDING_BYTES_MAX)
    }

    /// Nothing is under way that will be kept.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// A message of that length follows, in one or more parts.
    #[inline]
    pub fn begin(&mut self, total: usize) {
        self.start = self.bytes.len();
        self.left = total;
    }

    #[inline]
    pub fn add(&mut self, part: &[u8]) {
        self.add_up_to(part, self.body_max());
    }

    #[inline]
    pub fn whole(&mut self, message: &[u8]) {
        self.begin(message.len());
        self.add(message);
    }

    #[inline]
    fn add_up_to(&mut self, part: &[u8], max: usize) {
        let fits = part.len().min(max.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&part[..fits]);
        self.left = self.left.saturating_sub(part.len());
        if fits < part.len() {
            self.shorten();
        }
    }

    /// No more of the last message is kept: its length says so.
    fn shorten(&mut self) {
        self.cut = true;
        self.left = 0;
        match u32::try_from(self.bytes.len() - self.start) {
            Ok(here) if here as usize >= HEADER_BYTES => {
                self.bytes[self.start + 1..self.start + HEADER_BYTES].copy_from_slice(&(here - 1).to_be_bytes());
            }
            _ => self.bytes.truncate(self.start),
        }
    }

    /// The columns of the rows that follow, once a result. `known`: the formats in `description`, a whole RowDescription
    /// or nothing; `used`: those of this execution.
    #[inline]
    pub fn describe(&mut self, description: &[u8], known: &Formats, used: &Formats) {
        self.described = true;
        if !description.is_empty() {
            self.whole(description);
            set_formats(&mut self.bytes[self.start..], known, used);
        }
    }

    fn end(&mut self, here: &[u8], total: usize) {
        self.begin(total);
        let most = here.len().min(ENDING_BYTES_MAX);
        self.add_up_to(&here[..most], self.max);
        if self.left > 0 {
            self.shorten();
        }
    }

    fn forget(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(CAPACITY_BYTES_MAX);
        (self.start, self.left) = (0, 0);
        (self.cut, self.described, self.due) = (false, false, false);
    }
}

/// Writes the formats into a RowDescription where they are others than it says.
fn set_formats(description: &mut [u8], known: &Formats, used: &Formats) {
    let count =
        description.get(HEADER_BYTES..HEADER_BYTES + 2).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    if (0..usize::from(count)).all(|column| known.binary(column) == used.binary(column)) {
        return;
    }
    let mut at = HEADER_BYTES + 2;
    for column in 0..usize::from(count) {
        let Some(name) = memchr::memchr(0, &description[at..]) else { return };
        at += name + 1 + FORMAT_OFFSET;
        let Some(format) = description.get_mut(at..at + 2) else { return };
        format.copy_from_slice(&u16::from(used.binary(column)).to_be_bytes());
        at += 2;
    }
}

/// The response of the last outcome, as its client gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Response<'a> {
    /// Whole messages of the protocol, one behind another.
    pub bytes: &'a [u8],
    /// One of them is shortened, and others may be missing.
    pub cut: bool,
}

impl<T: Clone + 'static> Session<T> {
    /// Keeps up to `max` bytes of each response. 0, as at the start: nothing.
    pub fn keep_responses(&mut self, max: usize) {
        self.kept.max = max;
    }

    /// What is kept for the last [`super::Outcome`]; it stays until [`Self::forget_response`].
    pub fn response(&self) -> Response<'_> {
        match self.kept.due {
            true => Response { bytes: &self.kept.bytes, cut: self.kept.cut },
            false => Response::default(),
        }
    }

    /// The last outcome is recorded.
    #[inline]
    pub fn forget_response(&mut self) {
        if self.kept.due {
            self.kept.forget();
            self.target_stream.keep = false;
        }
    }

    /// The connection has ended: what is kept belongs to the oldest request that has had no outcome.
    pub fn end_response(&mut self) {
        if self.kept.left > 0 {
            self.kept.shorten();
        }
        self.kept.due = self.kept.is_on();
    }

    /// Messages that pass for the statement at the front and are part of its response.
    #[inline]
    pub(super) fn keeps(&self, kind: u8) -> bool {
        self.kept.takes_more()
            && match kind {
                b'D' | b'd' | b'H' => true,
                b'N' => matches!(self.queue.front(), Some(Expected::Query { .. } | Expected::Execute { .. })),
                _ => false,
            }
    }

    /// The columns of the result at the front, if they are known and not in yet.
    #[inline]
    pub(super) fn keep_columns(&mut self) {
        if !self.kept.awaits_columns() {
            return;
        }
        match self.queue.front() {
            Some(Expected::Execute { portal, .. }) => {
                let shape = portal.statement.shape.borrow();
                if shape.has_rows {
                    self.kept.describe(&shape.description, &shape.formats, &portal.formats.borrow());
                }
            }
            Some(Expected::Query { .. }) => {
                let Some(shape) = self.work.query_shape.as_deref().filter(|shape| shape.has_rows) else { return };
                self.kept.describe(&shape.description, &shape.formats, &shape.formats);
            }
            _ => {}
        }
    }

    /// With an outcome: the message that tells of it, in the form decided on, is the end of the response.
    #[inline]
    pub(super) fn keep_ending(&mut self, step: &Step, pipes: &Pipes<'_>) {
        let Step::Event(Event::Outcome(outcome)) = step else { return };
        if self.kept.is_on() {
            let ends = self.keep_told(pipes);
            // What was skipped has nothing to show but the error it was skipped for.
            self.kept.due = ends || outcome.end != End::Skipped;
        }
    }

    fn keep_told(&mut self, pipes: &Pipes<'_>) -> bool {
        let Some(told) = self.work.told.as_ref().filter(|_| !self.kept.ended) else { return false };
        let received = pipes.target.undecided();
        let message = &received[..told.total.min(received.len())];
        if !matches!(message.first(), Some(b'C' | b'E' | b'I' | b's' | b'V')) {
            return false;
        }
        match &told.then {
            Then::Pass => self.kept.end(message, told.total),
            Then::Replace(bytes) => self.kept.end(bytes, bytes.len()),
            Then::Edit(framing) => {
                let mut edited = Vec::new();
                compose::edited(&mut edited, message, &self.work.edits, *framing);
                self.kept.end(&edited, edited.len());
            }
            Then::Drop => return false,
        }
        self.kept.ended = true;
        true
    }

    /// The message that was told of goes now.
    #[inline]
    pub(super) fn ending_goes(&mut self) {
        self.kept.ended = false;
    }
}
