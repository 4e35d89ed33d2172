//! PostgreSQL's protocol 3.0 as far as a load generator and a canned server speak it (manual, chapter 55).

/// A message, bytes. Beyond: the connection counts as broken. PostgreSQL's own bound on a row is 1 GiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// One whole message and where the next begins.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    pub total: usize,
}

/// What is at the front of the bytes received.
#[derive(Clone, Copy, Debug)]
pub enum Peek<'a> {
    Whole(Frame<'a>),
    /// More is needed.
    Partial,
    Malformed,
}

pub fn peek(bytes: &[u8]) -> Peek<'_> {
    let Some((&[kind, a, b, c, d], _)) = bytes.split_first_chunk::<5>() else { return Peek::Partial };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..MESSAGE_BYTES_MAX).contains(&length) {
        return Peek::Malformed;
    }
    match bytes.get(5..length + 1) {
        Some(body) => Peek::Whole(Frame { kind, body, total: length + 1 }),
        None => Peek::Partial,
    }
}

/// Appends a message; `fill` writes its body.
pub fn message(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

pub fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

pub fn startup(out: &mut Vec<u8>, user: &str, database: &str) {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, 0, 3, 0, 0]);
    for (key, value) in [("user", user), ("database", database), ("application_name", "lockgate-loadgen")] {
        text(out, key);
        text(out, value);
    }
    out.push(0);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
pub const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
pub const SYNC: [u8; 5] = [b'S', 0, 0, 0, 4];

pub fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, b'Q', |out| text(out, sql));
}

pub fn parse(out: &mut Vec<u8>, name: &str, sql: &str) {
    message(out, b'P', |out| {
        text(out, name);
        text(out, sql);
        out.extend_from_slice(&[0, 0]);
    });
}

/// Bind with text parameters, Describe of the portal and Execute, as libpq sends them.
pub fn bind_execute(out: &mut Vec<u8>, statement: &str, values: &[i64]) {
    message(out, b'B', |out| {
        out.push(0);
        text(out, statement);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            let digits = value.to_string();
            out.extend_from_slice(&(digits.len() as u32).to_be_bytes());
            out.extend_from_slice(digits.as_bytes());
        }
        out.extend_from_slice(&[0, 0]);
    });
    out.extend_from_slice(&[b'D', 0, 0, 0, 6, b'P', 0]);
    out.extend_from_slice(&[b'E', 0, 0, 0, 9, 0, 0, 0, 0, 0]);
}

/// The fields of an ErrorResponse that people read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerError {
    pub sqlstate: String,
    pub message: String,
    pub hint: String,
}

/// The fields of an ErrorResponse or NoticeResponse: the code of each, and its text.
pub fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    texts(body).filter_map(|field| field.split_first().map(|(&code, value)| (code, value)))
}

/// Texts that follow each other, each with a zero behind it.
pub fn texts(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|&byte| byte == 0)
}

/// The names in a RowDescription. Ends early on a malformed one.
pub fn column_names(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    /// Table, column, type, its length, modifier and format: after each name.
    const NUMBERS_BYTES: usize = 18;
    let count = body.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let mut rest = body.get(2..).unwrap_or_default();
    (0..count).map_while(move |_| {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let name = &rest[..end];
        rest = rest.get(end + 1 + NUMBERS_BYTES..)?;
        Some(name)
    })
}

/// Channel and payload of a NotificationResponse, which begins with the sender's process.
pub fn notification(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    texts(body.get(4..).unwrap_or_default())
}

pub fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    for (code, value) in fields(body) {
        let value = String::from_utf8_lossy(value).into_owned();
        match code {
            b'C' => error.sqlstate = value,
            b'M' => error.message = value,
            b'H' => error.hint = value,
            _ => {}
        }
    }
    error
}

/// The values of a DataRow, `None` for NULL. Ends early on a malformed row.
pub fn values(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let count = body.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let mut rest = body.get(2..).unwrap_or_default();
    (0..count).map_while(move |_| {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = after;
            return Some(None);
        };
        let (value, after) = after.split_at_checked(length)?;
        rest = after;
        Some(Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_whole_or_asked_for() {
        let mut bytes = Vec::new();
        query(&mut bytes, "SELECT 1");
        for cut in 0..bytes.len() {
            assert!(matches!(peek(&bytes[..cut]), Peek::Partial));
        }
        bytes.push(b'Z');
        let Peek::Whole(frame) = peek(&bytes) else { panic!("it is whole") };
        assert_eq!((frame.kind, frame.body, frame.total), (b'Q', &b"SELECT 1\0"[..], bytes.len() - 1));
        assert!(matches!(peek(&[b'D', 0, 0, 0, 3]), Peek::Malformed));
        assert!(matches!(peek(&[b'D', 255, 0, 0, 3]), Peek::Malformed));
    }

    #[test]
    fn rows_are_taken_apart() {
        let row = [0, 3, 0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(values(&row).collect::<Vec<_>>(), [Some(&b"ab"[..]), None, Some(&b""[..])]);
        assert_eq!(values(&row[..7]).count(), 0);
    }

    #[test]
    fn names_of_columns_are_found_among_their_numbers() {
        let mut description = vec![0, 2];
        for name in ["id", "card"] {
            text(&mut description, name);
            description.extend_from_slice(&[b'1'; 18]);
        }
        assert_eq!(column_names(&description).collect::<Vec<_>>(), [&b"id"[..], b"card"]);
        let whole = |cut: usize| column_names(&description[..cut]).count();
        assert!((0..description.len()).all(|cut| whole(cut) <= 1) && whole(22) == 0 && whole(23) == 1);
    }

    #[test]
    fn notifications_are_texts_behind_a_number() {
        let body = b"1234channel\0payload\0";
        assert_eq!(notification(body).collect::<Vec<_>>(), [&b"channel"[..], b"payload", b""]);
        assert_eq!(notification(b"123").collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn errors_are_read() {
        let error = server_error(b"SERROR\0C42501\0Mno\0Hask\0\0");
        assert_eq!((error.sqlstate.as_str(), error.message.as_str(), error.hint.as_str()), ("42501", "no", "ask"));
    }
}
