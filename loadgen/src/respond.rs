//! A canned PostgreSQL server: the same rows for every query, at next to no cost, so that a proxy is measured and not a
//! database. It reads the protocol, not SQL: the first word of a statement decides what kind of answer it gets.

use crate::sys::{self, Epoll, Interest, now_ns};
use crate::wire::{self, Frame, Peek};
use anyhow::{Context, Result};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 << 10;
/// Unsent bytes a session may have before it stops to read: a COPY must not fill the memory.
const UNSENT_BYTES_MAX: usize = 4 << 20;
const WAIT_NS: u64 = 1_000_000_000;
/// Without descriptors nothing is accepted; after that long it is tried again.
const ACCEPT_PAUSE_NS: u64 = 50_000_000;
const TEXT_OID: u32 = 25;

#[derive(Clone, Debug)]
pub struct Canned {
    /// Rows of every query.
    pub rows: usize,
    /// Rows of every COPY TO STDOUT.
    pub copy_rows: usize,
    /// Values of a row, as text.
    pub values: Vec<String>,
    /// Asked for in the clear; `None` lets everybody in.
    pub password: Option<String>,
    /// Every answer is held back for that long: a server that works on each request, one at a time on a connection.
    pub delay_ns: u64,
}

impl Canned {
    /// Of the larger of the two answers it has.
    pub fn answer_bytes(&self) -> u128 {
        let row: usize = 7 + self.values.iter().map(|value| value.len() + 4).sum::<usize>();
        row as u128 * self.rows.max(self.copy_rows) as u128
    }
}

/// The answers, composed once.
#[derive(Debug)]
struct Answers {
    description: Vec<u8>,
    rows: Vec<u8>,
    select: Vec<u8>,
    copy: Vec<u8>,
    password: Option<String>,
}

const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

impl Answers {
    fn new(canned: &Canned) -> Answers {
        let columns = canned.values.len() as u16;
        let mut description = Vec::new();
        wire::message(&mut description, b'T', |out| {
            out.extend_from_slice(&columns.to_be_bytes());
            for index in 0..columns {
                wire::text(out, &format!("c{}", index + 1));
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&TEXT_OID.to_be_bytes());
                out.extend_from_slice(&[255, 255, 255, 255, 255, 255, 0, 0]);
            }
        });
        let mut row = Vec::new();
        wire::message(&mut row, b'D', |out| {
            out.extend_from_slice(&columns.to_be_bytes());
            for value in &canned.values {
                out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                out.extend_from_slice(value.as_bytes());
            }
        });
        let mut select = Vec::new();
        wire::message(&mut select, b'C', |out| wire::text(out, &format!("SELECT {}", canned.rows)));
        let mut copy = Vec::new();
        wire::message(&mut copy, b'H', |out| {
            out.push(0);
            out.extend_from_slice(&columns.to_be_bytes());
            (0..columns).for_each(|_| out.extend_from_slice(&[0, 0]));
        });
        let line = format!("{}\n", canned.values.join("\t"));
        (0..canned.copy_rows)
            .for_each(|_| wire::message(&mut copy, b'd', |out| out.extend_from_slice(line.as_bytes())));
        wire::message(&mut copy, b'c', |_| {});
        wire::message(&mut copy, b'C', |out| wire::text(out, &format!("COPY {}", canned.copy_rows)));
        Answers { description, rows: row.repeat(canned.rows), select, copy, password: canned.password.clone() }
    }
}

/// Serves until the process ends. `listening` hears of the address.
pub fn serve(address: SocketAddr, canned: &Canned, listening: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; --port 0 takes any port that is free"))?;
    listener.set_nonblocking(true)?;
    sys::raise_open_files();
    let answers = Answers::new(canned);
    listening(listener.local_addr()?);
    let mut epoll = Epoll::new(256)?;
    epoll.add(listener.as_raw_fd(), LISTENER, Interest::Read)?;
    let mut door = Door { listener, next: 0, again_ns: None };
    let mut sessions: HashMap<u64, Session> = HashMap::new();
    sys::precise_timers();
    let mut held: Held = VecDeque::new();
    loop {
        let due = held.front().map_or(u64::MAX, |(due, ..)| *due).min(door.again_ns.unwrap_or(u64::MAX));
        let events = epoll.wait(Some(due.saturating_sub(now_ns()).min(WAIT_NS)))?;
        release(&mut held, &mut sessions);
        if door.again_ns.is_some_and(|again| again <= now_ns()) {
            door.accept(&epoll, &mut sessions)?;
        }
        for index in 0..events {
            let event = epoll.event(index);
            if event.token == LISTENER {
                door.accept(&epoll, &mut sessions)?;
                continue;
            }
            let Some(session) = sessions.get_mut(&event.token) else { continue };
            let result = session.ready(&answers, canned.delay_ns > 0);
            if !session.held_back.is_empty() {
                held.push_back((now_ns() + canned.delay_ns, event.token, std::mem::take(&mut session.held_back)));
            }
            if result.is_err() {
                sessions.remove(&event.token);
            }
        }
    }
}

/// Answers that are not due yet. The delay is the same for all, so the first in is the first out.
type Held = VecDeque<(u64, u64, Vec<u8>)>;

fn release(held: &mut Held, sessions: &mut HashMap<u64, Session>) {
    let now = now_ns();
    while held.front().is_some_and(|(due, ..)| *due <= now) {
        let Some((_, token, bytes)) = held.pop_front() else { return };
        let Some(session) = sessions.get_mut(&token) else { continue };
        session.to_send.extend_from_slice(&bytes);
        if session.flush().is_err() {
            sessions.remove(&token);
        }
    }
}

/// Where sessions come in.
struct Door {
    listener: TcpListener,
    /// The next session's token.
    next: u64,
    /// Those who wait outside are let in then: nothing else would tell of them.
    again_ns: Option<u64>,
}

impl Door {
    fn accept(&mut self, epoll: &Epoll, sessions: &mut HashMap<u64, Session>) -> Result<()> {
        self.again_ns = None;
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    // One that cannot be served is closed; the others go on.
                    if let Ok(session) = welcome_in(socket, epoll, self.next) {
                        sessions.insert(self.next, session);
                        self.next += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if is_shortage(&error) => {
                    self.again_ns = Some(now_ns() + ACCEPT_PAUSE_NS);
                    return Ok(());
                }
                Err(error) => return Err(error).context("cannot accept connections"),
            }
        }
    }
}

fn welcome_in(socket: TcpStream, epoll: &Epoll, token: u64) -> io::Result<Session> {
    socket.set_nonblocking(true)?;
    let _ = socket.set_nodelay(true);
    // Both edges from the start: TCP signals room only after it has run out of it.
    epoll.add(socket.as_raw_fd(), token, Interest::ReadWrite)?;
    Ok(Session::new(socket))
}

/// Descriptors or memory are short: sessions that end give some back.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Startup,
    Password,
    Queries,
}

/// What kind of answer a statement gets.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Rows,
    CopyOut,
    Empty,
    /// Done, with this tag.
    Tag(String),
}

impl Kind {
    fn of(sql: &[u8]) -> Kind {
        let sql = sql.trim_ascii();
        let word = sql.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
        let word = String::from_utf8_lossy(word).to_ascii_uppercase();
        match word.as_str() {
            "SELECT" | "WITH" | "VALUES" | "TABLE" | "SHOW" | "EXPLAIN" => Kind::Rows,
            "COPY" => Kind::CopyOut,
            "" if sql.is_empty() => Kind::Empty,
            "INSERT" => Kind::Tag("INSERT 0 1".into()),
            "UPDATE" | "DELETE" => Kind::Tag(format!("{word} 1")),
            "DISCARD" => Kind::Tag("DISCARD ALL".into()),
            _ => Kind::Tag(word),
        }
    }
}

/// A prepared statement: its kind and how many parameters it takes.
#[derive(Clone, Debug)]
struct Statement {
    kind: Kind,
    parameters: u16,
}

struct Session {
    socket: TcpStream,
    stage: Stage,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: usize,
    /// Answers of a server that takes its time.
    held_back: Vec<u8>,
    statements: HashMap<Vec<u8>, Statement>,
    portals: HashMap<Vec<u8>, Kind>,
}

impl Session {
    fn new(socket: TcpStream) -> Session {
        Session {
            socket,
            stage: Stage::Startup,
            received: Vec::new(),
            to_send: Vec::new(),
            sent: 0,
            held_back: Vec::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
        }
    }

    /// Reads, answers, writes, until the socket has no more. An error means that the session is over.
    fn ready(&mut self, answers: &Answers, hold: bool) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        loop {
            self.flush()?;
            if self.to_send.len() - self.sent > UNSENT_BYTES_MAX {
                return Ok(());
            }
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let unsent = self.to_send.len();
            if self.received.is_empty() {
                let used = self.take_in(&buffer[..count], answers)?;
                self.received.extend_from_slice(&buffer[used..count]);
            } else {
                self.received.extend_from_slice(&buffer[..count]);
                let received = std::mem::take(&mut self.received);
                let used = self.take_in(&received, answers)?;
                self.received.extend_from_slice(&received[used..]);
            }
            if hold && self.stage == Stage::Queries {
                self.held_back.append(&mut self.to_send.split_off(unsent));
            }
            if count < READ_BYTES && self.to_send.len() < UNSENT_BYTES_MAX {
                return self.flush();
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.to_send.len() {
            match self.socket.write(&self.to_send[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to_send.clear();
        self.sent = 0;
        Ok(())
    }

    /// Handles whole messages; returns how many bytes they had.
    fn take_in(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            if self.stage == Stage::Startup {
                let Some(total) = self.startup(rest, answers)? else { return Ok(at) };
                at += total;
                continue;
            }
            match wire::peek(rest) {
                Peek::Partial => return Ok(at),
                Peek::Malformed => return Err(ErrorKind::InvalidData.into()),
                Peek::Whole(frame) => {
                    at += frame.total;
                    self.message(frame, answers)?;
                }
            }
        }
    }

    fn startup(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<Option<usize>> {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let total = u32::from_be_bytes(*length) as usize;
        if !(8..=10_000).contains(&total) {
            return Err(ErrorKind::InvalidData.into());
        }
        if bytes.len() < total {
            return Ok(None);
        }
        match rest.first_chunk::<4>().map(|code| u32::from_be_bytes(*code)) {
            // SSLRequest and GSSENCRequest: neither here.
            Some(80_877_103 | 80_877_104) => self.to_send.push(b'N'),
            // CancelRequest: there is never anything to cancel.
            Some(80_877_102) => return Err(ErrorKind::UnexpectedEof.into()),
            _ if answers.password.is_some() => {
                wire::message(&mut self.to_send, b'R', |out| out.extend_from_slice(&3u32.to_be_bytes()));
                self.stage = Stage::Password;
            }
            _ => self.welcome(),
        }
        Ok(Some(total))
    }

    fn welcome(&mut self) {
        let out = &mut self.to_send;
        wire::message(out, b'R', |out| out.extend_from_slice(&[0; 4]));
        for (name, value) in [
            ("server_version", "15.0 (canned)"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
        ] {
            wire::message(out, b'S', |out| {
                wire::text(out, name);
                wire::text(out, value);
            });
        }
        wire::message(out, b'K', |out| out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]));
        out.extend_from_slice(&READY);
        self.stage = Stage::Queries;
    }

    fn message(&mut self, frame: Frame<'_>, answers: &Answers) -> io::Result<()> {
        let (name, rest) = cut(frame.body);
        match frame.kind {
            b'p' if self.stage == Stage::Password => {
                if answers.password.as_deref().map(str::as_bytes) == Some(name) {
                    self.welcome();
                } else {
                    wire::message(&mut self.to_send, b'E', |out| {
                        out.extend_from_slice(b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0");
                    });
                    let _ = self.flush();
                    return Err(ErrorKind::PermissionDenied.into());
                }
            }
            _ if self.stage == Stage::Password => return Err(ErrorKind::InvalidData.into()),
            b'Q' => {
                let kind = Kind::of(name);
                if kind == Kind::Rows {
                    self.to_send.extend_from_slice(&answers.description);
                }
                self.execute(&kind, answers);
                self.to_send.extend_from_slice(&READY);
            }
            b'P' => {
                let (sql, _) = cut(rest);
                let statement = Statement { kind: Kind::of(sql), parameters: parameters(sql) };
                self.statements.insert(name.to_vec(), statement);
                self.to_send.extend_from_slice(&[b'1', 0, 0, 0, 4]);
            }
            b'B' => {
                let (statement, _) = cut(rest);
                let kind = self.statements.get(statement).map_or(Kind::Rows, |statement| statement.kind.clone());
                self.portals.insert(name.to_vec(), kind);
                self.to_send.extend_from_slice(&[b'2', 0, 0, 0, 4]);
            }
            b'D' => self.describe(frame.body, answers),
            b'E' => {
                let kind = self.portals.get(name).cloned().unwrap_or(Kind::Rows);
                self.execute(&kind, answers);
            }
            b'C' => {
                let (name, _) = cut(frame.body.get(1..).unwrap_or_default());
                match frame.body.first() {
                    Some(b'S') => drop(self.statements.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                self.to_send.extend_from_slice(&[b'3', 0, 0, 0, 4]);
            }
            b'S' => self.to_send.extend_from_slice(&READY),
            b'X' => return Err(ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        Ok(())
    }

    fn describe(&mut self, body: &[u8], answers: &Answers) {
        let (name, _) = cut(body.get(1..).unwrap_or_default());
        let kind = if body.first() == Some(&b'S') {
            let statement = self.statements.get(name).cloned();
            let statement = statement.unwrap_or(Statement { kind: Kind::Rows, parameters: 0 });
            wire::message(&mut self.to_send, b't', |out| {
                out.extend_from_slice(&statement.parameters.to_be_bytes());
                (0..statement.parameters).for_each(|_| out.extend_from_slice(&TEXT_OID.to_be_bytes()));
            });
            statement.kind
        } else {
            self.portals.get(name).cloned().unwrap_or(Kind::Rows)
        };
        if kind == Kind::Rows {
            self.to_send.extend_from_slice(&answers.description);
        } else {
            self.to_send.extend_from_slice(&[b'n', 0, 0, 0, 4]);
        }
    }

    fn execute(&mut self, kind: &Kind, answers: &Answers) {
        match kind {
            Kind::Rows => {
                self.to_send.extend_from_slice(&answers.rows);
                self.to_send.extend_from_slice(&answers.select);
            }
            Kind::CopyOut => self.to_send.extend_from_slice(&answers.copy),
            Kind::Empty => self.to_send.extend_from_slice(&[b'I', 0, 0, 0, 4]),
            Kind::Tag(tag) => wire::message(&mut self.to_send, b'C', |out| wire::text(out, tag)),
        }
    }
}

/// Text up to its NUL, and what follows.
fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// The highest `$n` in a statement.
fn parameters(sql: &[u8]) -> u16 {
    let numbers = sql.split(|&byte| byte == b'$').skip(1).map(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0u16, |number, &digit| number.saturating_mul(10).saturating_add(u16::from(digit - b'0')))
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_by_their_first_word() {
        assert_eq!(Kind::of(b" select 1"), Kind::Rows);
        assert_eq!(Kind::of(b"COPY t TO STDOUT"), Kind::CopyOut);
        assert_eq!(Kind::of(b"BEGIN;"), Kind::Tag("BEGIN".into()));
        assert_eq!(Kind::of(b"  "), Kind::Empty);
        assert_eq!((parameters(b"select $1, $12"), parameters(b"select 1")), (12, 0));
    }
}
