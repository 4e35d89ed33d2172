//! Messages as a client and a server write them, and a short way to read what came out.

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

pub fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub const SSL: u32 = 80_877_103;
pub const GSSENC: u32 = 80_877_104;
pub const CANCEL: u32 = 80_877_102;

pub fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = parameters.iter().flat_map(|(name, value)| [text(name), text(value)].concat()).collect();
    body.push(0);
    packet(3 << 16 | u32::from(minor), &body)
}

// What clients say.

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[text(name), text(sql), vec![0, 0]].concat())
}

/// Bind with text parameters and the given result formats.
pub fn bind(portal: &str, statement: &str, values: &[Option<&str>], results: &[i16]) -> Vec<u8> {
    let mut body = [text(portal), text(statement), vec![0, 0]].concat();
    body.extend((values.len() as u16).to_be_bytes());
    values.iter().for_each(|value| cell(&mut body, value.map(str::as_bytes)));
    body.extend((results.len() as u16).to_be_bytes());
    results.iter().for_each(|code| body.extend(code.to_be_bytes()));
    message(b'B', &body)
}

pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], text(name)].concat())
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], text(name)].concat())
}

pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[text(portal), rows.to_be_bytes().to_vec()].concat())
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

pub fn copy_data(data: &str) -> Vec<u8> {
    message(b'd', data.as_bytes())
}

pub fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

pub fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &text(why))
}

pub fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

pub fn password(word: &str) -> Vec<u8> {
    message(b'p', &text(word))
}

// What servers say.

pub fn authentication(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

pub fn setting(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[text(name), text(value)].concat())
}

pub fn key(process: i32, secret: &[u8]) -> Vec<u8> {
    message(b'K', &[&process.to_be_bytes(), secret].concat())
}

pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub fn done(kind: u8) -> Vec<u8> {
    message(kind, b"")
}

pub fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &text(tag))
}

pub fn parameters() -> Vec<u8> {
    message(b't', &[0, 0])
}

/// Columns of type text, in the given format; each with table 16384 and its position as attribute.
pub fn columns(names: &[&str], format: i16) -> Vec<u8> {
    let mut body = (names.len() as u16).to_be_bytes().to_vec();
    for (index, name) in names.iter().enumerate() {
        body.extend(text(name));
        body.extend(16384u32.to_be_bytes());
        body.extend((index as i16 + 1).to_be_bytes());
        body.extend(25u32.to_be_bytes());
        body.extend((-1i16).to_be_bytes());
        body.extend((-1i32).to_be_bytes());
        body.extend(format.to_be_bytes());
    }
    message(b'T', &body)
}

fn cell(body: &mut Vec<u8>, value: Option<&[u8]>) {
    body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
    body.extend(value.unwrap_or_default());
}

pub fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    values.iter().for_each(|value| cell(&mut body, value.map(str::as_bytes)));
    message(b'D', &body)
}

fn fields(kind: u8, severity: &str, sqlstate: &str, more: &[(u8, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    let base = [(b'S', severity), (b'V', severity), (b'C', sqlstate)];
    for (code, value) in base.iter().chain(more) {
        body.push(*code);
        body.extend(text(value));
    }
    body.push(0);
    message(kind, &body)
}

pub fn error(sqlstate: &str, words: &str) -> Vec<u8> {
    fields(b'E', "ERROR", sqlstate, &[(b'M', words)])
}

pub fn error_with(sqlstate: &str, more: &[(u8, &str)]) -> Vec<u8> {
    fields(b'E', "ERROR", sqlstate, more)
}

pub fn notice(words: &str) -> Vec<u8> {
    fields(b'N', "NOTICE", "00000", &[(b'M', words)])
}

pub fn notification(channel: &str, payload: &str) -> Vec<u8> {
    message(b'A', &[vec![0, 0, 0, 9], text(channel), text(payload)].concat())
}

/// CopyInResponse, CopyOutResponse or CopyBothResponse of one column.
pub fn copy_start(kind: u8, binary: bool) -> Vec<u8> {
    message(kind, &[u8::from(binary), 0, 1, 0, u8::from(binary)])
}

/// Messages one after the other.
pub fn all(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.concat()
}

/// What a stream of messages says, one word each: the kind, and in brackets what tells it from others of its kind.
pub fn said(mut bytes: &[u8]) -> String {
    let mut words = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(5..1 + length) else { break };
        let kind = bytes[0] as char;
        words.push(match kind {
            'E' | 'N' if body.starts_with(b"S") => format!("{kind}({})", error_words(body)),
            'Z' => format!("Z{}", body[0] as char),
            'C' | 'Q' | 'd' => format!("{kind}({})", readable(body)),
            'D' if body.len() > 1 && !matches!(body[0], b'S' | b'P') => format!("D[{}]", row_words(body)),
            'D' | 'P' | 'B' | 'E' => format!("{kind}({})", readable(body)),
            _ => kind.to_string(),
        });
        bytes = &bytes[1 + length..];
    }
    if !bytes.is_empty() {
        words.push(format!("+{}", bytes.len()));
    }
    words.join(" ")
}

fn readable(body: &[u8]) -> String {
    let words: Vec<_> = body.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part)).collect();
    words.join("|").trim_matches('|').to_owned()
}

fn error_words(body: &[u8]) -> String {
    let words: Vec<_> = body
        .split(|&byte| byte == 0)
        .filter(|part| !part.is_empty() && !matches!(part[0], b'V'))
        .map(|part| String::from_utf8_lossy(&part[1..]).into_owned())
        .collect();
    words.join(" ")
}

fn row_words(body: &[u8]) -> String {
    let mut words = Vec::new();
    let mut at = 2;
    while at < body.len() {
        let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        at += 4;
        if length < 0 {
            words.push("-".to_owned());
            continue;
        }
        words.push(String::from_utf8_lossy(&body[at..at + length as usize]).into_owned());
        at += length as usize;
    }
    words.join(",")
}

#[test]
fn messages_are_read_back() {
    let stream = all(&[row(&[Some("a"), None]), complete("SELECT 1"), ready(b'T'), error("42501", "no")]);
    assert_eq!(said(&stream), "D[a,-] C(SELECT 1) ZT E(ERROR 42501 no)");
}
