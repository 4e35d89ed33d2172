//! Values on their way to the client: rows, copied data and texts. What is watched is shown to a [`Watch`] before it moves,
//! and goes as that says. Rows come in thousands: they are dealt with here, run by run, without a word to anybody else.

use super::binds::Formats;
use super::book::Shape;
use super::compose::{self, Edit, Framing};
use super::expect::{Counts, Expected, Mode};
use super::frame::{HEADER_BYTES, Header, REPLY_BYTES_MAX};
use super::kept::Kept;
use super::results;
use super::session::Session;
use super::target::{Then, Told, malformed, unexpected};
use super::work::Work;
use super::{ProtocolError, Step, Value, ValueAnswer, ValueSource, Watch};
use crate::{Pipes, Side, Span};

/// The DataRows of one result.
struct Rows<'a, T> {
    shape: &'a Shape,
    /// Of this execution, which may be others than the statement was described with.
    formats: &'a Formats,
    mark: Option<&'a T>,
    bytes_max: usize,
    kept: &'a mut Kept,
    counts: &'a mut Counts,
    edits: &'a mut Vec<Edit>,
}

/// What stands at the front.
enum Front {
    /// A whole row of that many bytes: it passes as it is, or with the edits made.
    Row { total: usize, edited: bool },
    /// An unwatched row of that many bytes which is not here as a whole.
    Streaming(usize),
    /// A row that cannot be judged yet.
    NeedBytes,
    /// Another message, or none.
    Other,
}

impl<T: Clone + 'static> Session<T> {
    /// As many rows as are here.
    pub(super) fn take_rows(
        &mut self,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        self.keep_columns();
        let kept = &mut self.kept;
        let Work { counts, edits, query_shape, .. } = &mut *self.work;
        let bytes_max = self.limits.row_bytes_max;
        let rest = match (self.queue.mode, self.queue.front()) {
            (Mode::Plain, Some(Expected::Execute { portal, .. })) => {
                let (shape, formats) = (portal.statement.shape.borrow(), portal.formats.borrow());
                if portal.statement.guarded && !shape.has_rows {
                    return Err(ProtocolError::RowWithoutShape);
                }
                let (shape, formats, mark) = (&*shape, &*formats, portal.statement.tag.as_ref());
                Rows { shape, formats, mark, bytes_max, kept, counts, edits }.take(pipes, watch)?
            }
            (Mode::Plain, Some(Expected::Query { done: false, tag, .. })) => {
                let Some(shape) = query_shape.as_deref().filter(|shape| shape.has_rows) else {
                    return Err(ProtocolError::RowWithoutShape);
                };
                let formats = &shape.formats;
                Rows { shape, formats, mark: Some(tag), bytes_max, kept, counts, edits }.take(pipes, watch)?
            }
            _ => return Err(unexpected(b'D')),
        };
        match rest {
            Front::Streaming(total) => self.pass(total, pipes),
            Front::NeedBytes => return Ok(Some(Step::NeedBytes)),
            Front::Row { .. } | Front::Other => {}
        }
        Ok(None)
    }

    pub(super) fn take_copy_data(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        let watched = match self.queue.mode {
            Mode::CopyOut { binary, code } => (code != 0).then_some((binary, code)),
            Mode::CopyBoth => None,
            Mode::Plain | Mode::CopyIn => return Err(unexpected(b'd')),
        };
        let Some((binary, code)) = watched else {
            self.work.counts.add(header.total - HEADER_BYTES);
            self.pass(header.total, pipes);
            return Ok(None);
        };
        if header.whole(pipes.target.undecided(), Side::Target, self.limits.row_bytes_max)?.is_none() {
            return Ok(Some(Step::NeedBytes));
        }
        self.work.counts.add(header.total - HEADER_BYTES);
        let span = Span { start: HEADER_BYTES as u32, end: header.total as u32 };
        let value = Value { source: ValueSource::Copy { code, binary }, span };
        self.take_single(header.total, value, Framing::Payload, pipes, watch);
        Ok(None)
    }

    pub(super) fn take_notice(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        let mut then = Then::Pass;
        if self.watch_texts {
            if header.whole(pipes.target.undecided(), Side::Target, self.limits.row_bytes_max)?.is_none() {
                return Ok(Some(Step::NeedBytes));
            }
            then = self.watch_fields(header.total, pipes, watch)?;
        }
        self.finish(Told { total: header.total, then }, pipes);
        Ok(None)
    }

    /// NotificationResponse: process, channel, payload.
    pub(super) fn take_notification(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        let mut payload = Span::default();
        if self.watch_texts {
            let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
                return Ok(Some(Step::NeedBytes));
            };
            payload = results::notification_payload(message).ok_or(malformed(b'A'))?;
        }
        if payload.is_empty() {
            self.finish(Told { total: header.total, then: Then::Pass }, pipes);
        } else {
            let value = Value { source: ValueSource::Text { field: b'A' }, span: payload };
            self.take_single(header.total, value, Framing::Texts, pipes, watch);
        }
        Ok(None)
    }

    /// A whole message with one value in it.
    fn take_single(
        &mut self,
        total: usize,
        value: Value,
        framing: Framing,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) {
        let message = &mut pipes.target.undecided_mut()[..total];
        show(value, message, self.queue.executing(), &mut self.work.edits, watch);
        let then = self.as_edited(framing);
        self.finish(Told { total, then }, pipes);
    }

    /// Shows the fields of a whole ErrorResponse or NoticeResponse.
    pub(super) fn watch_fields(
        &mut self,
        total: usize,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Then, ProtocolError> {
        let message = &mut pipes.target.undecided_mut()[..total];
        let mut at = HEADER_BYTES;
        while let Some((field, span)) = results::next_field(message, &mut at)? {
            let value = Value { source: ValueSource::Text { field }, span };
            show(value, message, self.queue.told_of(), &mut self.work.edits, watch);
        }
        Ok(self.as_edited(Framing::Texts))
    }

    fn as_edited(&self, framing: Framing) -> Then {
        if self.work.edits.is_empty() { Then::Pass } else { Then::Edit(framing) }
    }
}

impl<T> Rows<'_, T> {
    /// Passes the whole rows at the front; says what stands behind them.
    fn take(&mut self, pipes: &mut Pipes<'_>, watch: &mut dyn Watch<T>) -> Result<Front, ProtocolError> {
        let mut passing = 0;
        let rest = loop {
            match self.look(&mut pipes.target.undecided_mut()[passing..], watch) {
                Ok(Front::Row { total, edited: false }) => passing += total,
                Ok(Front::Row { total, edited: true }) => {
                    pipes.target.clear(std::mem::take(&mut passing), pipes.to_client);
                    self.compose(total, pipes);
                }
                rest => break rest,
            }
        };
        pipes.target.clear(passing, pipes.to_client);
        rest
    }

    #[inline]
    fn look(&mut self, bytes: &mut [u8], watch: &mut dyn Watch<T>) -> Result<Front, ProtocolError> {
        let Some(Header { kind: b'D', total }) = Header::peek(bytes, Side::Target)? else { return Ok(Front::Other) };
        let body = total - HEADER_BYTES;
        if self.shape.plan.is_none() {
            if bytes.len() < total.min(HEADER_BYTES + 2) {
                return Ok(Front::NeedBytes);
            }
            if !counts_hold(&bytes[HEADER_BYTES..total.min(bytes.len())], body) {
                return Err(malformed(b'D'));
            }
            self.counts.add(body);
            if bytes.len() < total {
                return Ok(Front::Streaming(total));
            }
        } else {
            if (Header { kind: b'D', total }).whole(bytes, Side::Target, self.bytes_max)?.is_none() {
                return Ok(Front::NeedBytes);
            }
            self.show_cells(&mut bytes[..total], watch)?;
            self.counts.add(body);
        }
        let edited = !self.edits.is_empty();
        if !edited && self.kept.takes_more() {
            self.kept.whole(&bytes[..total]);
        }
        Ok(Front::Row { total, edited })
    }

    /// Every watched cell of a whole row that is not NULL. The row must end exactly where its values do.
    fn show_cells(&mut self, message: &mut [u8], watch: &mut dyn Watch<T>) -> Result<(), ProtocolError> {
        const HEAD: usize = HEADER_BYTES + 2;
        let plan = self.shape.plan.as_deref().unwrap_or_default();
        let sent = message.get(HEADER_BYTES..HEAD).ok_or(malformed(b'D'))?;
        let sent = usize::from(u16::from_be_bytes([sent[0], sent[1]]));
        if sent != plan.len() {
            return Err(ProtocolError::ColumnCountMismatch { described: plan.len(), sent });
        }
        let mut at = HEAD;
        for (column, &code) in plan.iter().enumerate() {
            let start = at + 4;
            let size = message.get(at..start).ok_or(malformed(b'D'))?;
            let size = match i32::from_be_bytes([size[0], size[1], size[2], size[3]]) {
                -1 => {
                    at = start;
                    continue;
                }
                size => usize::try_from(size).map_err(|_| malformed(b'D'))?,
            };
            at = start + size;
            if at > message.len() {
                return Err(malformed(b'D'));
            }
            if code != 0 {
                let type_oid = self.shape.types.get(column).copied().unwrap_or(0);
                let binary = self.formats.binary(column);
                let source = ValueSource::Cell { code, column: column as u16, type_oid, binary };
                let span = Span { start: start as u32, end: at as u32 };
                show(Value { source, span }, message, self.mark, self.edits, watch);
            }
        }
        if at == message.len() { Ok(()) } else { Err(malformed(b'D')) }
    }

    fn compose(&mut self, total: usize, pipes: &mut Pipes<'_>) {
        let message = &pipes.target.undecided()[..total];
        let (edits, kept) = (&*self.edits, &mut *self.kept);
        pipes.to_client.compose(|out| {
            let start = out.len();
            compose::edited(out, message, edits, Framing::Cells);
            if kept.takes_more() {
                kept.whole(&out[start..]);
            }
        });
        pipes.target.skip(total);
        self.edits.clear();
    }
}

#[inline]
fn show<T>(value: Value, message: &mut [u8], mark: Option<&T>, edits: &mut Vec<Edit>, watch: &mut dyn Watch<T>) {
    match watch.value(value, message, mark) {
        ValueAnswer::Keep => {}
        ValueAnswer::Null => edits.push(Edit { span: value.span, value: None }),
        ValueAnswer::Replace(bytes) => edits.push(Edit { span: value.span, value: Some(bytes) }),
    }
}

/// Do the counts of a DataRow fit its length (RUSTSEC-2026-0178)? `body`: as much of it as is here. A row that is here as a
/// whole must be filled exactly by its values; of a longer one, the column count must leave room for that many lengths.
fn counts_hold(body: &[u8], length: usize) -> bool {
    let Some((count, mut rest)) = body.split_first_chunk::<2>() else { return false };
    let count = usize::from(u16::from_be_bytes(*count));
    if body.len() < length {
        return 2 + 4 * count <= length;
    }
    for _ in 0..count {
        let Some((size, values)) = rest.split_first_chunk::<4>() else { return false };
        let size = match i32::from_be_bytes(*size) {
            -1 => 0,
            size => match usize::try_from(size) {
                Ok(size) if size <= values.len() => size,
                _ => return false,
            },
        };
        rest = &values[size..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod counts {
    use super::counts_hold;

    #[test]
    fn a_row_is_filled_exactly_by_its_values() {
        let holds = |body: &[u8]| counts_hold(body, body.len());
        assert!(holds(b"\0\0"));
        assert!(holds(b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"));
        assert!(!holds(b"\0"), "no room for the count");
        assert!(!holds(b"\0\x02\0\0\0\x01x"), "a column is missing");
        assert!(!holds(b"\0\x01\0\0\0\x01xy"), "bytes behind the last value");
        assert!(!holds(b"\0\x01\xff\xff\xff\xfe"), "a negative length that is not NULL");
        assert!(!holds(b"\0\x01\x7f\xff\xff\xff"), "a value longer than the row");
        assert!(counts_hold(b"\0\x01\0\0", 1000) && !counts_hold(b"\xff\xff\0\0", 1000), "a row that is not all here");
    }
}
