//! Inside the target's messages: columns, text fields, and what a tag or an error says.

use super::binds::Formats;
use super::frame::{ERROR_HEAD_BYTES, HEADER_BYTES, Header, Reader};
use super::target::malformed;
use super::{Column, ProtocolError};
use crate::{Side, Span};

/// How far behind a CommandComplete ReadyForQuery is looked for, bytes. Beyond: the outcome is not marked as the last.
const READY_LOOKAHEAD_BYTES: usize = 16 << 10;

/// The next field that can carry data: code, message, detail, hint, context, internal query, and the names of objects (what PL/pgSQL raises
/// may put anything there).
/// `at`: where to go on.
pub(super) fn next_field(message: &[u8], at: &mut usize) -> Result<Option<(u8, Span)>, ProtocolError> {
    let error = malformed(message[0]);
    let mut reader = Reader::new(message, *at);
    loop {
        let code = reader.u8().ok_or(error)?;
        if code == 0 {
            return if reader.is_done() { Ok(None) } else { Err(error) };
        }
        let start = reader.at();
        let text = reader.text().ok_or(error)?;
        *at = reader.at();
        if matches!(code, b'C' | b'M' | b'D' | b'H' | b'W' | b'q' | b's' | b't' | b'c' | b'd' | b'n')
            && !text.is_empty()
        {
            return Ok(Some((code, Span { start: start as u32, end: (start + text.len()) as u32 })));
        }
    }
}

pub(super) fn notification_payload(message: &[u8]) -> Option<Span> {
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
    let next = next_asked(bytes, from, b"SAN")?;
    Ok(next.map(|at| at.is_some_and(|at| bytes[at] == b'Z')))
}

/// Where the next message begins behind `from` that is none of the kinds to be passed over. `None`: not here yet. `Some(None)`: too far away
/// to look.
fn next_asked(bytes: &[u8], from: usize, passed: &[u8]) -> Result<Option<Option<usize>>, ProtocolError> {
    let mut at = from;
    while at - from < READY_LOOKAHEAD_BYTES {
        match bytes.get(at) {
            None => return Ok(None),
            Some(kind) if passed.contains(kind) => match Header::peek(&bytes[at..], Side::Target)? {
                None => return Ok(None),
                Some(header) => at += header.total,
            },
            Some(_) => return Ok(Some(Some(at))),
        }
    }
    Ok(Some(None))
}

/// What follows a message.
pub(super) enum Next {
    NotHere,
    Error { sqlstate: [u8; 5] },
    Other,
}

/// Is an ErrorResponse what follows the message that ends at `from`, past what may come unasked and CloseComplete?
pub(super) fn failure_follows(bytes: &[u8], from: usize) -> Result<Next, ProtocolError> {
    let at = match next_asked(bytes, from, b"SAN3")? {
        None => return Ok(Next::NotHere),
        Some(at) => at.filter(|&at| bytes[at] == b'E'),
    };
    let Some(at) = at else { return Ok(Next::Other) };
    let Some(header) = Header::peek(&bytes[at..], Side::Target)? else { return Ok(Next::NotHere) };
    let head = header.total.min(ERROR_HEAD_BYTES);
    let Some(message) = bytes[at..].get(..head) else { return Ok(Next::NotHere) };
    Ok(Next::Error { sqlstate: sqlstate(&message[HEADER_BYTES..]) })
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
