//! One connection: connecting, logging in, then requests and their responses. Never waits.

use crate::auth::Login;
use crate::check::{Expectations, Level, Tally, Wrong};
use crate::program::{Program, Protocol};
use crate::sys::{Epoll, Interest, now_ns};
use crate::target::{Target, TlsMode};
use crate::transport::Transport;
use crate::wire::{self, Frame, Peek};
use rustls::ClientConfig;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Room for what is received, bytes. Grows to the longest message; a COPY's chunk and a page of rows fit without.
const RECEIVE_BYTES: usize = 64 << 10;

/// Reads of one connection before the others have their turn.
const READS_MAX: usize = 64;

/// ReadyForQuery's status outside a transaction.
const OUTSIDE: u8 = b'I';
const LEFT_OPEN: &str = "the statements end inside a transaction: add COMMIT or ROLLBACK";

/// What all connections of a run share.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: Target,
    pub tls: Option<Arc<ClientConfig>>,
    pub program: Program,
    /// One a statement.
    pub levels: Vec<Level>,
    pub expected: Expectations,
    /// The first response to each statement, which later ones have to equal; empty while it is being learnt.
    pub first: Vec<Tally>,
    /// Requests in flight on one connection.
    pub depth: usize,
    /// Every request is a connection of its own.
    pub churn: bool,
    /// The kernel notes when responses arrive, and they hold up no server: so they need not be read at once to be timed.
    pub stamped: bool,
    /// Taking one in may take long, so that it is worth the price (1 us) to know how much of that was work.
    pub long_answers: bool,
}

/// A request on its way.
#[derive(Debug)]
pub struct Request {
    pub intended_ns: u64,
    pub sent_ns: u64,
    /// It was due before a connection was free for it.
    pub queued: bool,
    /// Of its rows, all statements together.
    pub bytes: u64,
    /// Not load: ends the transaction that the request before it left open.
    rollback: bool,
    step: usize,
    rows: u64,
    value_seen: bool,
    fault: Option<Box<Fault>>,
}

impl Request {
    pub fn new(intended_ns: u64, sent_ns: u64) -> Request {
        let (queued, rollback) = (false, false);
        Request { intended_ns, sent_ns, queued, bytes: 0, rollback, step: 0, rows: 0, value_seen: false, fault: None }
    }

    pub fn queued(self, queued: bool) -> Request {
        Request { queued, ..self }
    }

    fn rollback(now_ns: u64) -> Request {
        Request { rollback: true, ..Request::new(now_ns, now_ns) }
    }

    /// Takes in what one statement answered.
    fn take_in(&mut self, tally: &Tally, plan: &Plan) {
        self.bytes += tally.bytes;
        self.rows += tally.rows;
        self.value_seen |= tally.value_seen;
        let first = plan.first.get(self.step);
        if let Err(wrong) = tally.judge(first, plan.levels[self.step], &plan.expected) {
            let place = tally.leaked.map_or(String::new(), |place| format!("in {place} of "));
            self.fail(wrong, format!("{place}statement {}: {} rows, {} bytes", self.step + 1, tally.rows, tally.bytes));
        }
        self.step += 1;
    }

    /// All statements are answered: what is expected of the response as a whole.
    fn judge_whole(&mut self, plan: &Plan) {
        if let Err(wrong) = plan.expected.judge(self.rows, self.value_seen) {
            self.fail(wrong, format!("{} rows, {} bytes in all", self.rows, self.bytes));
        }
    }

    /// What went wrong first is what is told, but for a value that came through unmasked: nothing excuses that.
    fn fail(&mut self, wrong: Wrong, detail: String) {
        if self.fault.is_none() || wrong == Wrong::Unmasked {
            self.fault = Some(Box::new(Fault::new(wrong.name(), detail)));
        }
    }

    /// What went wrong with it before its connection was lost.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_deref()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub kind: String,
    pub detail: String,
}

impl Fault {
    pub fn new(kind: impl Into<String>, detail: impl Into<String>) -> Fault {
        Fault { kind: kind.into(), detail: detail.into() }
    }
}

/// What a connection has to tell.
#[derive(Debug)]
pub enum News {
    /// Logged in and prepared.
    Ready,
    Finished {
        request: Request,
        at_ns: u64,
        /// That is when it arrived, by the kernel's account; else when it was read.
        noted: bool,
        fault: Option<Box<Fault>>,
        /// The connection can take the next request in its place; else [`News::RolledBack`] says when.
        free: bool,
    },
    /// The transaction that a request left open has ended.
    RolledBack { at_ns: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Closed,
    Connecting,
    /// SSLRequest is sent: one byte answers it.
    AwaitTls,
    Login,
    Preparing,
    Ready,
}

#[derive(Debug)]
pub struct Conn {
    token: u64,
    transport: Option<Transport>,
    stage: Stage,
    /// Counts connections made, so that what was said of an earlier one is not believed of this one.
    pub generation: u32,
    pub since_ns: u64,
    /// A request was answered on it.
    pub has_served: bool,
    received: Vec<u8>,
    start: usize,
    end: usize,
    to_send: Vec<u8>,
    sent: usize,
    interest: Interest,
    inflight: VecDeque<Request>,
    tally: Tally,
    /// Of the requests finished, for whoever learns them.
    pub tallies: Vec<Tally>,
    pub values: Vec<i64>,
    login: Login,
    pub server_version: String,
    /// The kernel notes arrivals on this connection; false as soon as a note was missing.
    pub noted: bool,
    /// When what is being taken in arrived, where the kernel noted it; else when it was read. Looking through it comes later, and is
    /// our own time.
    arrived_ns: u64,
    /// The kernel noted that.
    arrival_noted: bool,
    refused: Option<Fault>,
    /// There may be more to read than the others were made to wait for: ask again.
    pub unread: bool,
    hangup: bool,
}

impl Conn {
    pub fn new(token: u64) -> Conn {
        Conn {
            token,
            transport: None,
            stage: Stage::Closed,
            generation: 0,
            since_ns: 0,
            has_served: false,
            received: Vec::new(),
            start: 0,
            end: 0,
            to_send: Vec::new(),
            sent: 0,
            interest: Interest::Read,
            inflight: VecDeque::new(),
            tally: Tally::default(),
            tallies: Vec::new(),
            values: Vec::new(),
            login: Login::default(),
            server_version: String::new(),
            noted: false,
            arrived_ns: 0,
            arrival_noted: false,
            refused: None,
            unread: false,
            hangup: false,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// When the oldest request in flight was sent, or this connection begun.
    pub fn waiting_since_ns(&self) -> Option<u64> {
        match (self.inflight.front(), self.stage) {
            (Some(request), _) => Some(request.sent_ns),
            (None, Stage::Ready | Stage::Closed) => None,
            (None, _) => Some(self.since_ns),
        }
    }

    /// Begins to connect; a fault says what to do about it.
    pub fn open(&mut self, plan: &Plan, epoll: &Epoll) -> Result<(), Fault> {
        self.generation += 1;
        self.since_ns = now_ns();
        self.has_served = false;
        self.hangup = false;
        self.refused = None;
        let opened = Transport::connect(&plan.target.address).and_then(|transport| {
            epoll.add(transport.as_raw_fd(), self.token, Interest::ReadWrite)?;
            Ok(transport)
        });
        match opened {
            Ok(transport) => {
                self.transport = Some(transport);
                self.interest = Interest::ReadWrite;
                self.stage = Stage::Connecting;
                self.received.resize(RECEIVE_BYTES.max(self.received.len()), 0);
                Ok(())
            }
            Err(error) => Err(connect_fault(plan, &error)),
        }
    }

    /// Closes it, politely if it can be; hands back what was in flight.
    pub fn close(&mut self) -> VecDeque<Request> {
        if let Some(mut transport) = self.transport.take().filter(|_| self.stage == Stage::Ready) {
            let _ = transport.write(&wire::TERMINATE);
            let _ = transport.flush();
        }
        self.stage = Stage::Closed;
        (self.start, self.end, self.sent) = (0, 0, 0);
        self.to_send.clear();
        self.unread = false;
        let cut = std::mem::take(&mut self.tally);
        if let Some((request, place)) = self.inflight.front_mut().zip(cut.leaked) {
            request.fail(Wrong::Unmasked, format!("in {place} of a response that was cut off after {} rows", cut.rows));
        }
        self.inflight.retain(|request| !request.rollback);
        std::mem::take(&mut self.inflight)
    }

    /// Takes on a request. It is sent by the next [`Conn::flush`], or once the login is done.
    pub fn begin(&mut self, plan: &Plan, request: Request) {
        self.inflight.push_back(request);
        if self.stage == Stage::Ready {
            plan.program.encode(0, &self.values, &mut self.to_send);
        }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self, epoll: &Epoll) -> Result<(), Fault> {
        let Some(transport) = self.transport.as_mut().filter(|_| self.stage != Stage::Connecting) else {
            return Ok(());
        };
        let mut blocked = false;
        while self.sent < self.to_send.len() {
            match transport.write(&self.to_send[self.sent..]) {
                Ok(0) => return Err(Fault::new("connection lost", "the socket takes no bytes")),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        if self.sent == self.to_send.len() {
            self.to_send.clear();
            self.sent = 0;
        }
        if transport.wants_write() {
            match transport.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(lost(&error)),
                _ => blocked |= transport.wants_write(),
            }
        }
        let wanted = if blocked { Interest::ReadWrite } else { Interest::Read };
        if wanted != self.interest {
            epoll.modify(transport.as_raw_fd(), self.token, wanted).map_err(|error| lost(&error))?;
            self.interest = wanted;
        }
        Ok(())
    }

    /// The socket became ready: takes in what there is.
    pub fn ready(&mut self, plan: &Plan, epoll: &Epoll, hangup: bool, news: &mut Vec<News>) -> Result<(), Fault> {
        if self.stage == Stage::Connecting {
            let transport = self.transport.as_ref().expect("a connection under way has a socket");
            transport.connected().map_err(|error| connect_fault(plan, &error))?;
            self.noted = plan.target.tls == TlsMode::Disable && transport.stamp_arrivals();
            if plan.target.tls == TlsMode::Disable {
                self.begin_login(plan);
            } else {
                self.to_send.extend_from_slice(&wire::SSL_REQUEST);
                self.stage = Stage::AwaitTls;
            }
            self.flush(epoll)?;
        }
        self.hangup |= hangup;
        self.unread = false;
        for reads in 1.. {
            let more = self.fill(self.hangup)?;
            self.take_in(plan, news)?;
            if !more {
                break;
            }
            if reads == READS_MAX {
                self.unread = true;
                break;
            }
        }
        if !self.to_send.is_empty() || self.interest == Interest::ReadWrite || self.wants_write() {
            self.flush(epoll)?;
        }
        Ok(())
    }

    fn wants_write(&self) -> bool {
        self.transport.as_ref().is_some_and(Transport::wants_write)
    }

    fn begin_login(&mut self, plan: &Plan) {
        self.login.begin();
        wire::startup(&mut self.to_send, &plan.target.user, &plan.target.database);
        self.stage = Stage::Login;
    }

    /// Reads once; says whether there may be more. A short read means that there is none: the next arrival is a new edge.
    fn fill(&mut self, hangup: bool) -> Result<bool, Fault> {
        let Some(transport) = self.transport.as_mut() else { return Ok(false) };
        if self.start > 0 && (self.start == self.end || self.end == self.received.len()) {
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.received.len() {
            self.received.resize((self.end * 2).min(wire::MESSAGE_BYTES_MAX + 5), 0);
        }
        // TLS is asked for one byte only until it is agreed on, so that nothing slips in before it.
        let limit = if self.stage == Stage::AwaitTls { self.end + 1 } else { self.received.len() };
        let room = limit - self.end;
        let room_for = &mut self.received[self.end..limit];
        let read = if self.noted {
            transport.read_stamped(room_for)
        } else {
            transport.read(room_for).map(|count| (count, None))
        };
        match read {
            Ok((0, _)) => {
                Err(self.refused.take().unwrap_or_else(|| Fault::new("connection lost", "the server closed it")))
            }
            Ok((count, arrived_ns)) => {
                self.end += count;
                self.arrived_ns = arrived_ns.unwrap_or_else(now_ns);
                self.arrival_noted = arrived_ns.is_some();
                self.noted &= self.stage != Stage::Ready || self.arrival_noted;
                Ok(count == room || transport.is_tls() || hangup)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(self.refused.take().unwrap_or_else(|| lost(&error))),
        }
    }

    /// Handles every whole message received.
    fn take_in(&mut self, plan: &Plan, news: &mut Vec<News>) -> Result<(), Fault> {
        if self.stage == Stage::AwaitTls {
            return self.answer_tls(plan);
        }
        // The buffer is lent out so that a message can be read while the rest changes.
        let received = std::mem::take(&mut self.received);
        let mut result = Ok(());
        while result.is_ok() {
            match wire::peek(&received[self.start..self.end]) {
                Peek::Partial => break,
                Peek::Malformed => result = Err(Fault::new("protocol", "the server sent what is no message")),
                Peek::Whole(frame) => {
                    self.start += frame.total;
                    result = self.message(plan, frame, news);
                }
            }
        }
        self.received = received;
        result
    }

    fn answer_tls(&mut self, plan: &Plan) -> Result<(), Fault> {
        let Some(&answer) = self.received[self.start..self.end].first() else { return Ok(()) };
        self.start = self.end;
        let config = plan.tls.as_ref().filter(|_| answer == b'S');
        let config = config.ok_or_else(|| Fault::new("login", "the server offers no TLS: use sslmode=disable"))?;
        let transport = self.transport.take().expect("a connection under way has a socket");
        let encrypted =
            transport.encrypt(config, &plan.target.host).map_err(|error| Fault::new("tls", error.to_string()))?;
        self.transport = Some(encrypted);
        self.begin_login(plan);
        Ok(())
    }

    fn message(&mut self, plan: &Plan, frame: Frame<'_>, news: &mut Vec<News>) -> Result<(), Fault> {
        if self.stage == Stage::Ready && !self.inflight.is_empty() {
            self.tally.aside(frame.kind, frame.body, &plan.expected);
        }
        match (self.stage, frame.kind) {
            (Stage::Ready, b'D' | b'd') => {
                self.tally.row(frame.kind, frame.body, &plan.expected);
                Ok(())
            }
            (Stage::Ready, b'C') => {
                self.tally.complete(frame.body);
                Ok(())
            }
            (Stage::Ready, b'Z') => self.finish_step(plan, frame.body.first() == Some(&OUTSIDE), news),
            (_, b'E') => self.refuse(plan, frame.body),
            (Stage::Login, b'R') => self.login.answer(&plan.target, frame.body, &mut self.to_send),
            (Stage::Login, b'Z') => {
                self.to_send.extend_from_slice(&plan.program.preparation());
                self.stage = Stage::Preparing;
                if self.to_send.is_empty() { self.become_ready(plan, news) } else { Ok(()) }
            }
            (Stage::Preparing, b'Z') => self.become_ready(plan, news),
            (_, b'S') => {
                self.parameter(frame.body);
                Ok(())
            }
            // COPY FROM STDIN has nothing to send here: say so rather than hang.
            (Stage::Ready, b'G') => {
                wire::message(&mut self.to_send, b'f', |out| wire::text(out, "the load generator copies out only"));
                // The Sync behind the Execute was taken for copy data.
                if plan.program.protocol != Protocol::Simple {
                    self.to_send.extend_from_slice(&wire::SYNC);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn become_ready(&mut self, plan: &Plan, news: &mut Vec<News>) -> Result<(), Fault> {
        self.stage = Stage::Ready;
        // With churn, the request that wanted this connection has been waiting for it.
        for _ in 0..self.inflight.len() {
            plan.program.encode(0, &self.values, &mut self.to_send);
        }
        news.push(News::Ready);
        Ok(())
    }

    fn parameter(&mut self, body: &[u8]) {
        let mut fields = body.split(|&byte| byte == 0);
        if let (Some(b"server_version"), Some(value)) = (fields.next(), fields.next())
            && self.server_version.as_bytes() != value
        {
            self.server_version = String::from_utf8_lossy(value).into_owned();
        }
    }

    /// An ErrorResponse: of a request it is remembered until ReadyForQuery, before that it ends the connection.
    fn refuse(&mut self, plan: &Plan, body: &[u8]) -> Result<(), Fault> {
        let fault = self.fault_of(plan, body);
        if self.stage != Stage::Ready {
            return Err(fault);
        }
        match self.inflight.front_mut() {
            Some(request) if request.fault.is_none() => request.fault = Some(Box::new(fault)),
            Some(_) => {}
            None => self.refused = Some(fault),
        }
        Ok(())
    }

    /// What an error says, unless that is what nobody may see: then only that it is.
    fn fault_of(&self, plan: &Plan, body: &[u8]) -> Fault {
        let when = match self.stage {
            Stage::Ready => "",
            Stage::Preparing => "preparing: ",
            Stage::Closed | Stage::Connecting | Stage::AwaitTls | Stage::Login => "login: ",
        };
        if plan.expected.leaks_in_error(body) {
            return Fault::new(Wrong::Unmasked.name(), format!("{when}an error holds one, so its text is not shown"));
        }
        let error = wire::server_error(body);
        let hint = if error.hint.is_empty() { String::new() } else { format!(" (hint: {})", error.hint) };
        let detail = format!("{}{hint}", error.message);
        match self.stage {
            Stage::Ready | Stage::Preparing => {
                Fault::new(format!("SQLSTATE {}", error.sqlstate), format!("{when}{detail}"))
            }
            Stage::Closed | Stage::Connecting | Stage::AwaitTls | Stage::Login => {
                Fault::new("login", format!("{} {detail}", error.sqlstate))
            }
        }
    }

    /// ReadyForQuery: the statement at the front is through. `outside`: of any transaction.
    fn finish_step(&mut self, plan: &Plan, outside: bool, news: &mut Vec<News>) -> Result<(), Fault> {
        let tally = std::mem::take(&mut self.tally);
        let Some(request) = self.inflight.front_mut() else {
            return Err(Fault::new("protocol", "the server answered what was not asked"));
        };
        if request.rollback {
            return self.finish_rollback(outside, news);
        }
        request.take_in(&tally, plan);
        if plan.first.is_empty() {
            self.tallies.push(tally);
        }
        if request.step < plan.program.steps.len() && request.fault.is_none() {
            plan.program.encode(request.step, &self.values, &mut self.to_send);
            return Ok(());
        }
        let mut request = self.inflight.pop_front().expect("it was at the front");
        self.has_served = true;
        request.judge_whole(plan);
        if !outside {
            request.fault.get_or_insert_with(|| Box::new(Fault::new("transaction left open", LEFT_OPEN)));
        }
        let fault = request.fault.take();
        let free = outside || plan.churn || !self.roll_back();
        let (at_ns, noted) = (self.arrived_ns, self.arrival_noted);
        news.push(News::Finished { request, at_ns, noted, fault, free });
        Ok(())
    }

    /// A failed transaction answers every later statement, even BEGIN, with an error: so one failure must not be taken along
    /// into the next request. False where a ROLLBACK is under way already (with several requests in flight).
    fn roll_back(&mut self) -> bool {
        if self.inflight.iter().any(|request| request.rollback) {
            return false;
        }
        wire::query(&mut self.to_send, "ROLLBACK");
        self.inflight.push_back(Request::rollback(now_ns()));
        true
    }

    fn finish_rollback(&mut self, outside: bool, news: &mut Vec<News>) -> Result<(), Fault> {
        self.inflight.pop_front();
        if !outside {
            return Err(Fault::new("connection lost", "ROLLBACK did not end the transaction, so it was closed"));
        }
        news.push(News::RolledBack { at_ns: self.arrived_ns });
        Ok(())
    }
}

fn lost(error: &io::Error) -> Fault {
    // What TLS has to say comes as an error of this kind: a certificate that is not trusted, say.
    let tls = error.kind() == io::ErrorKind::InvalidData;
    Fault::new(if tls { "tls" } else { "connection lost" }, error.to_string())
}

fn connect_fault(plan: &Plan, error: &io::Error) -> Fault {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ": is the server up, and is this its address?",
        io::ErrorKind::AddrNotAvailable => {
            ": no local port is free, too many connections were closed lately; lower the rate"
        }
        _ if error.raw_os_error() == Some(libc::EMFILE) => ": too many open files; raise `ulimit -n`",
        _ => "",
    };
    Fault::new("connect", format!("cannot connect to {}: {error}{advice}", plan.target.shown()))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::program::Ends;

    pub fn plan(protocol: Protocol) -> Plan {
        Plan {
            target: Target::parse("postgres://u@127.0.0.1:1/d", None).expect("it is well formed"),
            tls: None,
            program: Program::new(protocol, "SELECT 1", Ends::WithLine, &[]).expect("it is well formed"),
            levels: vec![Level::None],
            expected: Expectations::default(),
            first: Vec::new(),
            depth: 1,
            churn: false,
            stamped: false,
            long_answers: false,
        }
    }

    /// In the middle of a request.
    fn asked(plan: &Plan) -> Conn {
        let mut conn = Conn { stage: Stage::Ready, ..Conn::new(0) };
        conn.begin(plan, Request::new(1, 2));
        conn.to_send.clear();
        conn
    }

    #[test]
    fn copy_from_stdin_is_refused_so_that_the_server_answers() {
        for (protocol, ends) in [(Protocol::Simple, "\0"), (Protocol::Extended, "S\0\0\0\x04")] {
            let plan = plan(protocol);
            let mut conn = asked(&plan);
            conn.message(&plan, Frame { kind: b'G', body: b"\0\0\0", total: 8 }, &mut Vec::new())
                .expect("it is refused");
            assert!(conn.to_send[0] == b'f' && conn.to_send.ends_with(ends.as_bytes()), "{:?}", conn.to_send);
        }
    }

    #[test]
    fn an_answer_counts_from_when_it_was_read_not_from_when_it_was_looked_through() {
        let plan = plan(Protocol::Simple);
        let mut conn = Conn { arrived_ns: 5, ..asked(&plan) };
        let mut news = Vec::new();
        let ready = Frame { kind: b'Z', body: b"I", total: 6 };
        conn.message(&plan, ready, &mut news).expect("it was asked for");
        assert!(matches!(news[..], [News::Finished { at_ns: 5, noted: false, fault: None, .. }]), "{news:?}");
    }
}
