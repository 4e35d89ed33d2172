//! The two ends of a simulated connection: a client that plays a script and a target that answers like PostgreSQL.

/// The value of the masked column of every row: must never reach the client.
pub const SECRET: &[u8] = b"SECRET";
/// OID of the one table, and its columns: 1 is masked, 2 is not.
pub const TABLE_OID: u32 = 16_400;

/// What the client wants done, each with a number of its own that its text carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Select,
    Insert,
    /// Denied by a rule.
    Drop,
    /// Held for approval.
    Delete,
}

#[derive(Clone, Copy, Debug)]
pub struct Statement {
    pub number: u32,
    pub verb: Verb,
    pub extended: bool,
}

impl Statement {
    pub fn text(&self) -> String {
        let number = self.number;
        match self.verb {
            Verb::Select => format!("SELECT secret, plain FROM vault WHERE plain <> 'n{number}e'"),
            Verb::Insert => format!("INSERT INTO vault VALUES ('x', 'n{number}e')"),
            Verb::Drop => format!("DROP TABLE n{number}e"),
            Verb::Delete => format!("DELETE FROM vault WHERE plain = 'n{number}e'"),
        }
    }

    /// The statement as wire messages, ended so that ReadyForQuery follows.
    pub fn messages(&self, out: &mut Vec<u8>) {
        let text = self.text();
        if self.extended {
            message(out, b'P', &[b"\0", text.as_bytes(), b"\0\0\0"]);
            message(out, b'B', &[b"\0\0\0\0\0\0\0\0"]);
            message(out, b'E', &[b"\0\0\0\0\0"]);
            message(out, b'S', &[]);
        } else {
            message(out, b'Q', &[text.as_bytes(), b"\0"]);
        }
    }
}

/// The number between `n` and `e` in a statement's text.
pub fn number_in(text: &[u8]) -> Option<u32> {
    (0..text.len()).find_map(|start| {
        let digits = text[start..].strip_prefix(b"n")?;
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || digits.get(length) != Some(&b'e') {
            return None;
        }
        std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
    })
}

/// Appends one message.
pub fn message(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.push(kind);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

pub fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0sim\0database\0vault\0\0";
    [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

pub fn password(token: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, b'p', &[token.as_bytes(), b"\0"]);
    out
}

/// Whole messages at the front of `bytes`: (kind, body), and how many bytes they take.
pub fn whole(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize;
    Some((bytes[0], bytes.get(5..1 + length)?, 1 + length))
}

/// A PostgreSQL that trusts everybody and knows one table.
#[derive(Default)]
pub struct Target {
    received: Vec<u8>,
    started: bool,
    prepared: Vec<u8>,
    failed: bool,
    /// Numbers of the statements it was given to run or to prepare, as they came.
    pub ran: Vec<u32>,
}

impl Target {
    /// Takes bytes, answers bytes.
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.received.extend_from_slice(bytes);
        if !self.started {
            let Some(length) = self.received.get(..4).map(|l| u32::from_be_bytes(l.try_into().expect("four")) as usize)
            else {
                return;
            };
            if self.received.len() < length {
                return;
            }
            self.received.drain(..length);
            self.started = true;
            message(out, b'R', &[&0u32.to_be_bytes()]);
            message(out, b'S', &[b"client_encoding\0UTF8\0"]);
            message(out, b'S', &[b"standard_conforming_strings\0on\0"]);
            message(out, b'K', &[&7u32.to_be_bytes(), &9u32.to_be_bytes()]);
            message(out, b'Z', &[b"I"]);
        }
        while let Some((kind, body, length)) = whole(&self.received) {
            let body = body.to_vec();
            self.received.drain(..length);
            self.message(kind, &body, out);
        }
    }

    fn message(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        match kind {
            b'S' => {
                self.failed = false;
                message(out, b'Z', &[b"I"]);
            }
            _ if self.failed => {}
            b'Q' => {
                if body.starts_with(b")") {
                    message(out, b'E', &[b"SERROR\0C42601\0Msyntax error\0\0"]);
                } else {
                    self.run(body, out, true);
                }
                message(out, b'Z', &[b"I"]);
            }
            b'P' => {
                self.prepared = body.to_vec();
                message(out, b'1', &[]);
            }
            b'B' => message(out, b'2', &[]),
            b'D' if body.starts_with(b"S") && body != b"S\0" => {
                self.failed = true;
                message(out, b'E', &[b"SERROR\0C26000\0Mno such statement\0\0"]);
            }
            b'D' => {
                if body.starts_with(b"S") {
                    message(out, b't', &[b"\0\0"]);
                }
                if self.prepared.windows(6).any(|word| word == b"SELECT") {
                    describe(out);
                } else {
                    message(out, b'n', &[]);
                }
            }
            b'E' => {
                let text = std::mem::take(&mut self.prepared);
                self.run(&text, out, false);
                self.prepared = text;
            }
            b'C' => message(out, b'3', &[]),
            _ => {}
        }
    }

    fn run(&mut self, text: &[u8], out: &mut Vec<u8>, describes: bool) {
        self.ran.extend(number_in(text));
        if text.windows(6).any(|word| word == b"SELECT") {
            if describes {
                describe(out);
            }
            for row in 0..3u8 {
                let secret = [SECRET, b"-value-", &[b'a' + row; 5][..]].concat();
                let lengths = [(secret.len() as u32).to_be_bytes(), 5u32.to_be_bytes()];
                message(out, b'D', &[b"\0\x02", &lengths[0], &secret, &lengths[1], b"plain"]);
            }
            message(out, b'C', &[b"SELECT 3\0"]);
        } else {
            message(out, b'C', &[b"INSERT 0 1\0"]);
        }
    }
}

fn describe(out: &mut Vec<u8>) {
    let column = |name: &[u8], attribute: u16| {
        [
            name,
            b"\0",
            &TABLE_OID.to_be_bytes(),
            &attribute.to_be_bytes(),
            &25u32.to_be_bytes(),
            b"\xff\xff\xff\xff\xff\xff\0\0",
        ]
        .concat()
    };
    message(out, b'T', &[b"\0\x02", &column(b"secret", 1), &column(b"plain", 2)]);
}
