//! A recorded response, read: from the protocol's messages to columns, rows, notices, tags and errors. Pure.
//!
//! The bytes come from a record whose hash held, but they are what a target sent: every length is checked, and what does
//! not read is left out and said to be.

use super::printable;
use super::values;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

/// Kind byte and length.
const HEADER_BYTES: usize = 5;

/// The `payload` of one or more outcomes, as recorded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    pub bytes: Vec<u8>,
    /// There was more than was recorded.
    pub cut: bool,
}

impl Payload {
    /// Another outcome of the same request.
    pub fn push(&mut self, bytes: &[u8], cut: bool) {
        self.bytes.extend_from_slice(bytes);
        self.cut |= cut;
    }

    pub fn read(&self) -> Response {
        Response::read(&self.bytes, self.cut)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.read().serialize(serializer)
    }
}

/// What a client got for one request.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Response {
    pub results: Vec<Outcome>,
    /// There was more than was recorded: one value or line may be shortened, rows may be missing.
    pub cut: bool,
    /// Something in the bytes was not understood.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
}

/// What came of one statement of the request.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Outcome {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Report>,
    /// `None`: no rows, or nobody knew their columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<Column>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Vec<Option<String>>>,
    /// COPY TO STDOUT: its data as text; binary data with `\xNN` for what is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// CommandComplete: `SELECT 2`, `INSERT 0 1`.
    Tag(String),
    Error(Report),
    /// An empty statement.
    Empty,
    /// The row limit of an Execute: more may have followed in a later one.
    Suspended,
    /// The result of a FunctionCall message.
    Function(Option<String>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub binary: bool,
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Column", 2)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("type_oid", &self.type_oid)?;
        fields.end()
    }
}

/// An ErrorResponse or NoticeResponse: the fields people read.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Report {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// In characters of the statement, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

impl Response {
    pub fn read(bytes: &[u8], cut: bool) -> Self {
        let mut response = Self { cut, ..Self::default() };
        let mut rest = Bytes(bytes);
        let mut open = Outcome::default();
        while let Some((kind, body)) = rest.message() {
            let ended = open.end.is_some();
            if ended {
                response.results.push(std::mem::take(&mut open));
            }
            if open.take(kind, body, cut).is_none() {
                response.broken = true;
            }
        }
        response.broken |= !rest.0.is_empty();
        if open != Outcome::default() {
            response.results.push(open);
        }
        response
    }

    pub fn rows(&self) -> usize {
        self.results.iter().map(|result| result.rows.len()).sum()
    }

    /// The error it ended with.
    pub fn error(&self) -> Option<&Report> {
        self.results.iter().find_map(|result| match &result.end {
            Some(End::Error(report)) => Some(report),
            _ => None,
        })
    }
}

impl Outcome {
    /// One message. `None`: it could not be read.
    fn take(&mut self, kind: u8, body: &[u8], cut: bool) -> Option<()> {
        match kind {
            b'T' => self.columns = Some(columns(body, cut)?),
            b'D' => self.rows.push(row(body, self.columns.as_deref().unwrap_or_default(), cut)?),
            b'H' => drop(self.copy.get_or_insert_default()),
            b'd' => self.copy.get_or_insert_default().push_str(&printable::bytes(body)),
            b'N' => self.notices.push(Report::read(body)),
            b'C' => self.end = Some(End::Tag(text(body.strip_suffix(b"\0").unwrap_or(body)))),
            b'E' => self.end = Some(End::Error(Report::read(body))),
            b'I' => self.end = Some(End::Empty),
            b's' => self.end = Some(End::Suspended),
            b'V' => self.end = Some(End::Function(Bytes(body).value(cut)?.map(text))),
            _ => return None,
        }
        Some(())
    }
}

impl Report {
    /// As far as it goes: a long one was shortened.
    fn read(body: &[u8]) -> Self {
        let mut report = Self::default();
        for field in body.split(|&byte| byte == 0) {
            let Some((code, value)) = field.split_first() else { continue };
            let value = text(value);
            match code {
                b'V' => report.severity = value,
                // Before 9.6 there is only the one in the server's language.
                b'S' if report.severity.is_empty() => report.severity = value,
                b'C' => report.sqlstate = value,
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b'W' => report.context = Some(value),
                b'P' => report.position = value.parse().ok(),
                _ => {}
            }
        }
        report
    }
}

fn text(bytes: &[u8]) -> String {
    printable::bytes(bytes)
}

fn columns(body: &[u8], cut: bool) -> Option<Vec<Column>> {
    let mut rest = Bytes(body);
    let count = rest.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        match rest.column() {
            Some(column) => columns.push(column),
            None if cut => break,
            None => return None,
        }
    }
    Some(columns)
}

fn row(body: &[u8], columns: &[Column], cut: bool) -> Option<Vec<Option<String>>> {
    let mut rest = Bytes(body);
    let count = rest.u16()?;
    let mut row = Vec::new();
    for index in 0..usize::from(count) {
        if cut && rest.0.len() < 4 {
            break;
        }
        let whole = rest.value_is_whole();
        let value = rest.value(cut)?;
        let column = columns.get(index);
        row.push(value.map(|bytes| match column {
            Some(column) if column.binary && whole => values::text(column.type_oid, bytes),
            Some(column) if column.binary => format!("{}…", values::hex(bytes)),
            _ if whole => text(bytes),
            _ => format!("{}…", text(bytes)),
        }));
    }
    Some(row)
}

/// Reads from the front; `None` where there is less than is asked for.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Kind and body of the next message. `None`: there is none, or it is not whole.
    fn message(&mut self) -> Option<(u8, &'a [u8])> {
        let header = self.0.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let body = length.checked_sub(4)?;
        if self.0.len() < HEADER_BYTES + body {
            return None;
        }
        let kind = header[0];
        self.take(HEADER_BYTES)?;
        Some((kind, self.take(body)?))
    }

    fn column(&mut self) -> Option<Column> {
        let name = self.take(memchr::memchr(0, self.0)?)?;
        self.take(1 + 4 + 2)?;
        let type_oid = self.u32()?;
        self.take(2 + 4)?;
        let binary = self.u16()? != 0;
        Some(Column { name: text(name), type_oid, binary })
    }

    fn value_is_whole(&self) -> bool {
        let length = self.0.first_chunk::<4>().map(|length| i32::from_be_bytes(*length));
        length.is_some_and(|length| length < 0 || self.0.len() - 4 >= length as usize)
    }

    /// A value behind its length; `Some(None)`: NULL. `cut`: what is there of it will do.
    fn value(&mut self, cut: bool) -> Option<Option<&'a [u8]>> {
        match i32::from_be_bytes(self.array()?) {
            -1 => Some(None),
            length => {
                let length = usize::try_from(length).ok()?;
                let here = if cut { length.min(self.0.len()) } else { length };
                self.take(here).map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    fn description(columns: &[(&str, u32, u16)]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for (name, type_oid, format) in columns {
            body.extend_from_slice(&[name.as_bytes(), &[0; 7], &type_oid.to_be_bytes(), &[0; 6]].concat());
            body.extend_from_slice(&format.to_be_bytes());
        }
        message(b'T', &body)
    }

    fn data(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            body.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            body.extend_from_slice(value.unwrap_or_default());
        }
        message(b'D', &body)
    }

    fn sample() -> Vec<u8> {
        [
            message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mcareful\0\0"),
            description(&[("id", 23, 1), ("name", 25, 0)]),
            data(&[Some(&[0, 0, 0, 7]), Some(b"Ada")]),
            data(&[None, Some(b"")]),
            message(b'C', b"SELECT 2\0"),
            message(b'C', b"INSERT 0 5\0"),
            message(b'E', b"SERROR\0VERROR\0C22012\0Mdivision by zero\0P8\0\0"),
        ]
        .concat()
    }

    #[test]
    fn statements_are_told_apart_and_their_values_read_in_their_formats() {
        let response = Response::read(&sample(), false);
        assert_eq!((response.results.len(), response.broken), (3, false));
        let select = &response.results[0];
        assert_eq!(select.notices[0].message, "careful");
        assert_eq!(select.rows, [[Some("7".to_owned()), Some("Ada".to_owned())], [None, Some(String::new())]]);
        assert_eq!(select.end, Some(End::Tag("SELECT 2".into())));
        assert_eq!(response.results[1].end, Some(End::Tag("INSERT 0 5".into())));
        let error = response.error().expect("the last one failed");
        assert_eq!((error.message.as_str(), error.position), ("division by zero", Some(8)));
        let json = serde_json::to_value(&response).expect("JSON");
        assert_eq!(json["results"][0]["columns"][1], serde_json::json!({"name": "name", "type_oid": 25}));
        assert_eq!(json["results"][2]["end"]["error"]["sqlstate"], "22012");
    }

    #[test]
    fn what_was_shortened_is_shown_as_far_as_it_goes() {
        let mut short = data(&[Some(b"whole"), Some(b"0123456789"), Some(b"gone")]);
        short.truncate(HEADER_BYTES + 2 + 4 + 5 + 4 + 3);
        let length = (short.len() - 1) as u32;
        short[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        let bytes = [short, message(b'C', b"SELECT 9\0")].concat();
        let response = Response::read(&bytes, true);
        assert_eq!(response.results[0].rows, [[Some("whole".to_owned()), Some("012…".to_owned())]]);
        assert!(!response.broken && response.cut);
        assert!(Response::read(&bytes, false).broken, "nobody says that it was shortened");
    }

    #[test]
    fn copy_data_is_text_and_what_is_not_is_escaped() {
        let bytes = [message(b'H', &[0, 0, 1, 0, 0]), message(b'd', b"1\tAda\n"), message(b'd', b"\xff\n")].concat();
        let response = Response::read(&bytes, false);
        assert_eq!(response.results[0].copy.as_deref(), Some("1\tAda\n\\xff\n"));
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let sample = sample();
        for at in 0..sample.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = sample.clone();
                bytes[at] = value;
                for cut in [false, true] {
                    let response = Response::read(&bytes, cut);
                    assert!(response.results.len() <= 8);
                    Response::read(&bytes[..at], cut);
                }
            }
        }
    }
}
