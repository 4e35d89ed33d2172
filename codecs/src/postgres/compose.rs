//! The messages we write ourselves: start-up, login, refusals, and rows with edited values.

use super::{Refusal, TransactionStatus};
use crate::Span;

/// Major version 3, minor 0: what we speak to targets. Its keys are 4 bytes, and every server accepts it.
pub(super) const PROTOCOL_3_0: u32 = 3 << 16;
pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSSENC_REQUEST: u32 = 80_877_104;
pub(super) const CANCEL_REQUEST: u32 = 80_877_102;

/// A prepared statement that cannot exist: describing it fails without running anything.
const IMPOSSIBLE_STATEMENT: &[u8] = b"lockgate_refused";
/// No statement begins with a closing parenthesis, whatever the settings of the lexer. The target's log shows the rest.
const IMPOSSIBLE_QUERY: &[u8] = b") lockgate refused a statement";

/// Writes one message: kind, length, and the body that `body` appends.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    counted(out, body);
}

/// A length (of itself and what `body` appends), then the body: a start-up packet, or a message behind its kind byte.
pub(super) fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).expect("what we compose is bounded by what was received");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A string and its NUL. A NUL inside would end it early and shift every field behind it: the text ends there.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// AuthenticationXXX: a code and what follows it.
pub(super) fn authentication(out: &mut Vec<u8>, code: u32, rest: &[u8]) {
    message(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(rest);
    });
}

/// NegotiateProtocolVersion: the newest version we speak and the options we do not know.
pub(super) fn negotiate(out: &mut Vec<u8>, version: u32, unknown: &[Vec<u8>]) {
    message(out, b'v', |out| {
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        unknown.iter().for_each(|name| text(out, name));
    });
}

pub(super) fn ready(out: &mut Vec<u8>, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => b'I',
        TransactionStatus::InTransaction => b'T',
        TransactionStatus::Failed => b'E',
    };
    message(out, b'Z', |out| out.push(status));
}

/// The severities we speak with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Severity {
    Fatal,
    Error,
    Notice,
}

/// ErrorResponse or NoticeResponse with the fields S, V, C, M, D, H.
pub(super) fn report(out: &mut Vec<u8>, severity: Severity, refusal: &Refusal) {
    let (kind, name): (u8, &[u8]) = match severity {
        Severity::Fatal => (b'E', b"FATAL"),
        Severity::Error => (b'E', b"ERROR"),
        Severity::Notice => (b'N', b"NOTICE"),
    };
    message(out, kind, |out| {
        let mut field = |code: u8, value: &[u8]| {
            out.push(code);
            text(out, value);
        };
        field(b'S', name);
        field(b'V', name);
        field(b'C', &refusal.sqlstate);
        field(b'M', refusal.message.as_bytes());
        refusal.detail.iter().for_each(|detail| field(b'D', detail.as_bytes()));
        refusal.hint.iter().for_each(|hint| field(b'H', hint.as_bytes()));
        out.push(0);
    });
}

pub(super) fn backend_key(out: &mut Vec<u8>, process: i32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Describe of a statement (`S`) or a portal (`P`).
pub(super) fn describe(out: &mut Vec<u8>, what: u8, name: &[u8]) {
    message(out, b'D', |out| {
        out.push(what);
        text(out, name);
    });
}

/// The message that takes a refused Parse's or Execute's place inside a transaction: certain to fail, runs nothing.
pub(super) fn certain_failure(out: &mut Vec<u8>) {
    describe(out, b'S', IMPOSSIBLE_STATEMENT);
}

/// The same for a refused Query or FunctionCall: a Query, so that the target skips it where it would skip the refused one.
pub(super) fn certain_failure_query(out: &mut Vec<u8>) {
    message(out, b'Q', |out| text(out, IMPOSSIBLE_QUERY));
}

pub(super) fn flush(out: &mut Vec<u8>) {
    message(out, b'H', |_| {});
}

/// Another value in place of the one at `span`; `None` is NULL (or empty, where there is no NULL).
#[derive(Debug)]
pub(super) struct Edit {
    pub span: Span,
    pub value: Option<Vec<u8>>,
}

/// How the edited message marks where a value ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// Four bytes of length before each (DataRow).
    Cells,
    /// A NUL behind each (ErrorResponse, NoticeResponse, NotificationResponse).
    Texts,
    /// The value is the rest of the message (CopyData).
    Payload,
}

/// Writes `original` again with `edits` (ascending, not overlapping) in place.
pub(super) fn edited(out: &mut Vec<u8>, original: &[u8], edits: &[Edit], framing: Framing) {
    message(out, original[0], |out| {
        let mut copied = super::frame::HEADER_BYTES;
        for edit in edits {
            let (start, end) = (edit.span.start as usize, edit.span.end as usize);
            let value = edit.value.as_deref();
            match framing {
                Framing::Cells => {
                    out.extend_from_slice(&original[copied..start - 4]);
                    let length =
                        value.map_or(-1, |value| i32::try_from(value.len()).expect("a mask is no larger than a row"));
                    out.extend_from_slice(&length.to_be_bytes());
                    out.extend_from_slice(value.unwrap_or_default());
                }
                Framing::Texts => {
                    out.extend_from_slice(&original[copied..start]);
                    let value = value.unwrap_or_default();
                    out.extend_from_slice(&value[..memchr::memchr(0, value).unwrap_or(value.len())]);
                }
                Framing::Payload => {
                    out.extend_from_slice(&original[copied..start]);
                    out.extend_from_slice(value.unwrap_or_default());
                }
            }
            copied = end;
        }
        out.extend_from_slice(&original[copied..]);
    });
}
