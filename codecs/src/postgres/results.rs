//! Inside the target's messages: columns, cells, payloads, text fields, and what a tag or an error says.

use super::binds::Formats;
use super::compose::{Edit, Framing};
use super::expect::Expected;
use super::frame::{HEADER_BYTES, Header, REPLY_BYTES_MAX, Reader};
use super::session::Session;
use super::target::{Asked, Then, Told, malformed};
use super::{Column, ColumnPlan, Event, ProtocolError, Step, Value, ValueAnswer, ValueSource};
use crate::{Pipes, Side, Span};

/// How far behind a CommandComplete ReadyForQuery is looked for, bytes. Beyond: the outcome is not marked as the last.
const READY_LOOKAHEAD_BYTES: usize = 16 << 10;

/// What is being gone through value by value.
#[derive(Debug)]
pub(super) struct Row {
    total: usize,
    at: usize,
    /// Cells: the next column.
    column: usize,
    kind: Going,
}

#[derive(Debug)]
enum Going {
    Cells {
        plan: ColumnPlan,
    },
    /// Fields of an ErrorResponse or NoticeResponse.
    Fields,
    /// One value that was already asked about.
    Single {
        framing: Framing,
    },
}

impl Row {
    /// A DataRow, whole, with a plan for its columns.
    pub fn start(message: &[u8], plan: ColumnPlan) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(message, HEADER_BYTES);
        let sent = reader.u16().ok_or(malformed(b'D'))? as usize;
        if sent != plan.len() {
            return Err(ProtocolError::ColumnCountMismatch { described: plan.len(), sent });
        }
        Ok(Self { total: message.len(), at: reader.at(), column: 0, kind: Going::Cells { plan } })
    }
}

impl<T: Clone> Session<T> {
    /// Goes on with the row, error or payload at hand. `None`: there is none, or it is done.
    pub(super) fn step_values(&mut self, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let Some(row) = &mut self.row else { return Ok(None) };
        let message = &pipes.target.undecided()[..row.total];
        let next = match &row.kind {
            Going::Cells { .. } => next_cell(row, message)?.map(|(code, column, span)| {
                let (type_oid, binary) = self.queue.front().map_or((0, false), |front| match front {
                    Expected::Execute { portal, .. } => {
                        let shape = portal.statement.shape.borrow();
                        let type_oid = shape.types.get(column).copied().unwrap_or(0);
                        (type_oid, portal.formats.borrow().binary(column))
                    }
                    _ => {
                        let type_oid = self.query_shape.types.get(column).copied().unwrap_or(0);
                        (type_oid, self.query_shape.formats.binary(column))
                    }
                });
                (ValueSource::Cell { code, column: column as u16, type_oid, binary }, span)
            }),
            Going::Fields => next_field(row, message)?.map(|(field, span)| (ValueSource::Text { field }, span)),
            Going::Single { .. } => None,
        };
        if let Some((source, span)) = next {
            self.asked = Asked::Value { span };
            return Ok(Some(Step::Event(Event::Value(Value { source, span }))));
        }
        let row = self.row.take().expect("it is there: it was looked into");
        self.finish_values(&row, pipes)
    }

    /// Every value of the message has been asked about.
    fn finish_values(&mut self, row: &Row, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let framing = match row.kind {
            Going::Cells { .. } => Framing::Cells,
            Going::Fields => Framing::Texts,
            Going::Single { framing } => framing,
        };
        let then = if self.edits.is_empty() { Then::Pass } else { Then::Edit(framing) };
        let told = Told { total: row.total, then };
        let message = &pipes.target.undecided()[..row.total];
        if message[0] == b'E' {
            let sqlstate = sqlstate(&message[HEADER_BYTES..]);
            return self.account_error(sqlstate, told);
        }
        self.told = Some(told);
        Ok(None)
    }

    /// The gate's word on the value that was asked about.
    pub(super) fn answer_value(&mut self, answer: ValueAnswer) {
        let Asked::Value { span } = std::mem::replace(&mut self.asked, Asked::Nothing) else {
            panic!("a value's answer without its question");
        };
        match answer {
            ValueAnswer::Keep => {}
            ValueAnswer::Null => self.edits.push(Edit { span, value: None }),
            ValueAnswer::Replace(value) => self.edits.push(Edit { span, value: Some(value) }),
        }
    }

    pub(super) fn ask_payload(&mut self, total: usize, code: u8, binary: bool) -> Step {
        let span = Span { start: HEADER_BYTES as u32, end: total as u32 };
        self.ask_single(total, span, ValueSource::Copy { code, binary }, Framing::Payload)
    }

    fn ask_single(&mut self, total: usize, span: Span, source: ValueSource, framing: Framing) -> Step {
        self.row = Some(Row { total, at: total, column: 0, kind: Going::Single { framing } });
        self.asked = Asked::Value { span };
        Step::Event(Event::Value(Value { source, span }))
    }

    /// Starts going through the fields of an ErrorResponse or NoticeResponse.
    pub(super) fn watch_fields(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
    ) -> Result<Option<Step>, ProtocolError> {
        if header.whole(pipes.target.undecided(), Side::Target, self.limits.row_bytes_max)?.is_none() {
            return Ok(Some(Step::NeedBytes));
        }
        self.row = Some(Row { total: header.total, at: HEADER_BYTES, column: 0, kind: Going::Fields });
        Ok(None)
    }

    pub(super) fn take_notice(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        if self.watch_texts {
            return self.watch_fields(header, pipes);
        }
        self.told = Some(Told { total: header.total, then: Then::Pass });
        Ok(None)
    }

    /// NotificationResponse: process, channel, payload.
    pub(super) fn take_notification(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
    ) -> Result<Option<Step>, ProtocolError> {
        if !self.watch_texts {
            self.told = Some(Told { total: header.total, then: Then::Pass });
            return Ok(None);
        }
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let span = notification_payload(message).ok_or(malformed(b'A'))?;
        if span.is_empty() {
            self.told = Some(Told { total: header.total, then: Then::Pass });
            return Ok(None);
        }
        Ok(Some(self.ask_single(header.total, span, ValueSource::Text { field: b'A' }, Framing::Texts)))
    }
}

/// The next watched cell that is not NULL. `None`: the row ends, and exactly where its length says.
fn next_cell(row: &mut Row, message: &[u8]) -> Result<Option<(u8, usize, Span)>, ProtocolError> {
    let Going::Cells { plan } = &row.kind else { return Ok(None) };
    let mut reader = Reader::new(message, row.at);
    while let Some(&code) = plan.get(row.column) {
        let value = reader.value().ok_or(malformed(b'D'))?;
        row.at = reader.at();
        row.column += 1;
        if let (Some(value), true) = (value, code != 0) {
            let span = Span { start: (row.at - value.len()) as u32, end: row.at as u32 };
            return Ok(Some((code, row.column - 1, span)));
        }
    }
    if reader.is_done() { Ok(None) } else { Err(malformed(b'D')) }
}

/// The next field that can carry data: message, detail, hint, context, internal query.
fn next_field(row: &mut Row, message: &[u8]) -> Result<Option<(u8, Span)>, ProtocolError> {
    let error = malformed(message[0]);
    let mut reader = Reader::new(message, row.at);
    loop {
        let code = reader.u8().ok_or(error)?;
        if code == 0 {
            row.at = reader.at() - 1;
            return if reader.is_done() { Ok(None) } else { Err(error) };
        }
        let start = reader.at();
        let text = reader.text().ok_or(error)?;
        row.at = reader.at();
        if matches!(code, b'M' | b'D' | b'H' | b'W' | b'q') && !text.is_empty() {
            return Ok(Some((code, Span { start: start as u32, end: (start + text.len()) as u32 })));
        }
    }
}

fn notification_payload(message: &[u8]) -> Option<Span> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    reader.i32()?;
    reader.text()?;
    let start = reader.at() as u32;
    let payload = reader.text()?;
    reader.is_done().then_some(Span { start, end: start + payload.len() as u32 })
}

/// Name and value of a ParameterStatus.
pub(super) fn setting(message: &[u8]) -> Option<(Span, Span)> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let mut field = || {
        let start = reader.at() as u32;
        let text = reader.text()?;
        Some(Span { start, end: start + text.len() as u32 })
    };
    let fields = (field()?, field()?);
    reader.is_done().then_some(fields)
}

/// The SQLSTATE among an error's fields; `XX000` where there is none.
pub(super) fn sqlstate(fields: &[u8]) -> [u8; 5] {
    let mut reader = Reader::new(fields, 0);
    while let Some(code) = reader.u8().filter(|&code| code != 0) {
        let Some(text) = reader.text() else { break };
        if code == b'C'
            && let Ok(state) = text.try_into()
        {
            return state;
        }
    }
    *b"XX000"
}

/// The error ends the connection: its severity (field V, never translated) is FATAL or PANIC.
pub(super) fn is_fatal(fields: &[u8]) -> bool {
    let mut reader = Reader::new(fields, 0);
    while let Some(code) = reader.u8().filter(|&code| code != 0) {
        let Some(text) = reader.text() else { break };
        if code == b'V' {
            return text == b"FATAL" || text == b"PANIC";
        }
    }
    false
}

/// The count at the end of a CommandComplete tag: `INSERT 0 5` -> 5, `BEGIN` -> none.
#[inline]
pub(super) fn rows_of(tag: &[u8]) -> Option<u64> {
    let digits = &tag[memchr::memrchr(b' ', tag)? + 1..];
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |rows, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        rows.checked_mul(10)?.checked_add(digit)
    })
}

/// Is ReadyForQuery what follows the message that ends at `from`, past what may come unasked? `None`: not here yet.
pub(super) fn ready_follows(bytes: &[u8], from: usize) -> Result<Option<bool>, ProtocolError> {
    let mut at = from;
    while at - from < READY_LOOKAHEAD_BYTES {
        match bytes.get(at) {
            None => return Ok(None),
            Some(b'S' | b'A' | b'N') => match Header::peek(&bytes[at..], Side::Target)? {
                None => return Ok(None),
                Some(header) => at += header.total,
            },
            Some(kind) => return Ok(Some(*kind == b'Z')),
        }
    }
    Ok(Some(false))
}

/// Reads a RowDescription into `columns`, using their allocations again. Returns how many there are.
pub(super) fn read_columns(message: &[u8], columns: &mut Vec<Column>, formats: &mut Formats) -> Option<usize> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let count = reader.u16()? as usize;
    formats.clear();
    for index in 0..count {
        let name = reader.text()?;
        if index == columns.len() {
            columns.push(Column { name: Vec::new(), table_oid: 0, attribute: 0, type_oid: 0 });
        }
        let column = &mut columns[index];
        column.name.clear();
        column.name.extend_from_slice(name);
        column.table_oid = reader.u32()?;
        column.attribute = reader.i16()?;
        column.type_oid = reader.u32()?;
        reader.take(2 + 4)?;
        formats.push(reader.i16()? != 0);
    }
    // One column's code is its own, not everybody's: harmless, as there is no other column.
    reader.is_done().then_some(count)
}

/// The overall format of a CopyIn, CopyOut or CopyBothResponse.
pub(super) fn copy_is_binary(message: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let binary = reader.u8()? != 0;
    let columns = reader.u16()? as usize;
    reader.take(2 * columns)?;
    reader.is_done().then_some(binary)
}
