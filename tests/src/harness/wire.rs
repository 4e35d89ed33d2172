//! A PostgreSQL client that says exactly what a case tells it to, byte by byte: for what stock clients never do.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Endpoint;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A plaintext connection.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    /// Process id and secret of BackendKeyData.
    pub key: Option<Vec<u8>>,
}

/// One message from the server: its type byte and what follows the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// What an ErrorResponse or NoticeResponse says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl Message {
    pub fn complaint(&self) -> Complaint {
        let mut complaint = Complaint::default();
        for field in self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            let text = String::from_utf8_lossy(&field[1..]).into_owned();
            match field[0] {
                b'V' => complaint.severity = text,
                b'C' => complaint.sqlstate = text,
                b'M' => complaint.message = text,
                b'D' => complaint.detail = text,
                b'H' => complaint.hint = text,
                _ => {}
            }
        }
        complaint
    }

    /// Cells of a DataRow; `None` is NULL.
    pub fn cells(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let mut cells = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    cells.push(Some(after[..length].to_vec()));
                    rest = &after[length..];
                }
                Err(_) => {
                    cells.push(None);
                    rest = after;
                }
            }
        }
        cells
    }
}

impl Wire {
    /// A bare connection: nothing said yet.
    pub fn open(endpoint: &Endpoint) -> Result<Wire> {
        let stream = TcpStream::connect(("127.0.0.1", endpoint.port))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, key: None })
    }

    /// Logs in with a cleartext password and waits until the server is ready. A refusal is an error that starts with
    /// its SQLSTATE.
    pub fn connect(endpoint: &Endpoint) -> Result<Wire> {
        let mut wire = Wire::open(endpoint)?;
        wire.log_in(endpoint)?;
        Ok(wire)
    }

    /// The refusal of a log-in that must fail.
    pub fn refusal(endpoint: &Endpoint) -> Result<Complaint> {
        let mut wire = Wire::open(endpoint)?;
        wire.send(&startup(&[("user", &endpoint.user), ("database", &endpoint.dbname)]))?;
        loop {
            let message = wire.read()?;
            match message.tag {
                b'R' if message.body == [0, 0, 0, 3] => wire.send(&password(&endpoint.password))?,
                b'E' => return Ok(message.complaint()),
                b'Z' => bail!("it was let in"),
                _ => {}
            }
        }
    }

    pub fn log_in(&mut self, endpoint: &Endpoint) -> Result<()> {
        self.send(&startup(&[("user", &endpoint.user), ("database", &endpoint.dbname)]))?;
        loop {
            let message = self.read()?;
            match message.tag {
                b'R' if message.body == [0, 0, 0, 3] => self.send(&password(&endpoint.password))?,
                b'R' => ensure!(message.body == [0, 0, 0, 0], "asked for {:?}", message.body),
                b'K' => self.key = Some(message.body),
                b'E' => {
                    let complaint = message.complaint();
                    bail!("{}: {}", complaint.sqlstate, complaint.message);
                }
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the server does not take our bytes")
    }

    /// The next message; an error when the connection ends or stays silent past the deadline.
    pub fn read(&mut self) -> Result<Message> {
        self.read_or_end()?.context("the server closed the connection")
    }

    /// The next message, or `None` when the server closed the connection.
    pub fn read_or_end(&mut self) -> Result<Option<Message>> {
        let mut header = [0; 5];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("waiting for a message"),
        }
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        ensure!((4..=1 << 30).contains(&length), "a message of {length} bytes");
        let mut body = vec![0; length - 4];
        match self.stream.read_exact(&mut body) {
            Ok(()) => Ok(Some(Message { tag: header[0], body })),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(None),
            Err(error) => Err(error).context("in the middle of a message"),
        }
    }

    /// Everything up to and with the next ReadyForQuery.
    pub fn read_until_ready(&mut self) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read().with_context(|| format!("after {:?}", tags(&messages)))?);
            if messages.last().is_some_and(|message| message.tag == b'Z') {
                return Ok(messages);
            }
        }
    }

    /// Runs one simple Query and returns all it answers.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Message>> {
        self.send(&query(sql))?;
        self.read_until_ready()
    }

    /// First cell of the first row of a simple Query, as text.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let messages = self.query(sql)?;
        if let Some(error) = complaint(&messages) {
            bail!("{}: {}", error.sqlstate, error.message);
        }
        let row = messages.iter().find(|message| message.tag == b'D').context("no row")?;
        let cell = row.cells().into_iter().next().flatten().context("no value")?;
        Ok(String::from_utf8_lossy(&cell).into_owned())
    }

    /// Runs one statement over the extended protocol with text binds and results in the given format (0 text, 1 binary).
    pub fn extended(&mut self, sql: &str, binds: &[&str], result_format: u16) -> Result<Vec<Message>> {
        let sequence =
            [parse("", sql), bind("", "", binds, result_format), describe_portal(""), execute("", 0), SYNC.to_vec()];
        self.send(&sequence.concat())?;
        self.read_until_ready()
    }
}

/// The type bytes of messages, as text: `"TDCZ"`.
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag as char).collect()
}

/// The first error among messages.
pub fn complaint(messages: &[Message]) -> Option<Complaint> {
    messages.iter().find(|message| message.tag == b'E').map(Message::complaint)
}

/// The first cell of every row, as text; NULL is `"NULL"`.
pub fn first_column(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| match row.cells().swap_remove(0) {
        Some(cell) => String::from_utf8_lossy(&cell).into_owned(),
        None => "NULL".into(),
    })
    .collect()
}

pub const SYNC: &[u8] = b"S\0\0\0\x04";
pub const FLUSH: &[u8] = b"H\0\0\0\x04";
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Protocol 3.0.
const VERSION: [u8; 4] = [0, 3, 0, 0];

pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = VERSION.to_vec();
    for (name, value) in parameters {
        body.extend(zero_ended(name));
        body.extend(zero_ended(value));
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

pub fn password(text: &str) -> Vec<u8> {
    message(b'p', &zero_ended(text))
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &zero_ended(sql))
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[zero_ended(name), zero_ended(sql), vec![0, 0]].concat())
}

/// Binds in text; every result column in one format.
pub fn bind(portal: &str, statement: &str, values: &[&str], result_format: u16) -> Vec<u8> {
    let mut body = [zero_ended(portal), zero_ended(statement), vec![0, 0]].concat();
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 1]);
    body.extend(result_format.to_be_bytes());
    message(b'B', &body)
}

pub fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[vec![b'P'], zero_ended(name)].concat())
}

pub fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[vec![b'S'], zero_ended(name)].concat())
}

/// `rows_max` 0: all rows.
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[zero_ended(portal), rows_max.to_be_bytes().to_vec()].concat())
}

pub fn copy_data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
