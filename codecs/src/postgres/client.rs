//! From the client to the target, once the session is open: what is asked about, what passes, what takes its place.

use super::binds::Bind;
use super::book::{Book, Name, Statement, is_certain};
use super::compose::{self, Severity};
use super::expect::{Counts, Definitions, Expected, Mode, Skipping};
use super::frame::{HEADER_BYTES, Header, REPLY_BYTES_MAX, Reader};
use super::session::{ClientStage, Life, Session, Stream};
use super::{End, Event, ProtocolError, Refusal, Request, RequestKind, Step, TransactionStatus};
use crate::{Pipes, Side, Span};
use zeroize::Zeroize;

/// Wipes and skips the credential at the front of the client's window: it goes nowhere.
pub(super) fn erase(total: usize, pipes: &mut Pipes<'_>) {
    pipes.client.undecided_mut()[..total].zeroize();
    pipes.client.skip(total);
}

fn malformed(kind: u8) -> ProtocolError {
    ProtocolError::Malformed { side: Side::Client, kind }
}

impl<T: Clone + 'static> Session<T> {
    pub(super) fn step_open(&mut self, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        self.client_waits = false;
        loop {
            if self.work.client_stream.left > 0 && !self.stream_from_client(pipes) {
                return Ok(Step::NeedBytes);
            }
            let Some(header) = Header::peek(pipes.client.undecided(), Side::Client)? else {
                return Ok(Step::NeedBytes);
            };
            if self.queue.is_full() {
                return Ok(self.wait());
            }
            if let Some(step) = self.take_message(header, pipes)? {
                return Ok(step);
            }
        }
    }

    /// Moves on what is here of a message that need not be whole. `false`: more of it is to come.
    fn stream_from_client(&mut self, pipes: &mut Pipes<'_>) -> bool {
        let len = self.work.client_stream.left.min(pipes.client.undecided().len());
        if self.work.client_stream.drop {
            pipes.client.skip(len);
        } else {
            pipes.client.clear(len, pipes.to_target);
        }
        self.work.client_stream.left -= len;
        self.work.client_stream.left == 0
    }

    /// One message, from its header on. `None`: it is dealt with.
    fn take_message(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        match header.kind {
            b'S' => return self.take_sync(header, pipes),
            b'X' => return self.take_terminate(header, pipes),
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'F' | b'H' | b'd' | b'c' | b'f' => {}
            // A password message outside login, or nothing we know.
            b'p' => return Err(ProtocolError::UnexpectedMessage { side: Side::Client, kind: b'p' }),
            kind => return Err(ProtocolError::UnknownMessage { side: Side::Client, kind }),
        }
        if self.is_skipping() {
            self.drop_skipped(header)?;
            return Ok(None);
        }
        if !matches!(header.kind, b'd' | b'c' | b'f' | b'H') {
            if self.queue.mode == Mode::CopyBoth {
                return Err(ProtocolError::UnexpectedMessage { side: Side::Client, kind: header.kind });
            }
            if self.queue.awaits_copy_end() {
                return self.break_copy(ProtocolError::StatementDuringCopy { kind: header.kind }).map(Some);
            }
        }
        match header.kind {
            b'd' => {
                if !self.queue.is_empty() {
                    self.work.copied.add(header.total - HEADER_BYTES);
                }
                self.pass_stream(header)
            }
            b'c' | b'f' => {
                self.queue.push_copy_end();
                self.pass_stream(header);
            }
            b'H' => self.pass_stream(header),
            kind => return self.take_whole(kind, header, pipes),
        }
        Ok(None)
    }

    /// A message that is none of COPY's where the target reads copy data. The server fails the COPY and gives up the
    /// connection, as it cannot tell data from statements any more. So do we: the COPY's outcome is told, then the error,
    /// and the end of the connection is what makes the target fail the COPY.
    pub(super) fn break_copy(&mut self, error: ProtocolError) -> Result<Step, ProtocolError> {
        self.give_up_copy(error);
        match self.work.news.pop_front() {
            Some(outcome) => Ok(Step::Event(Event::Outcome(outcome))),
            None => Err(error),
        }
    }

    /// The same, told by the steps to come.
    fn give_up_copy(&mut self, error: ProtocolError) {
        let counts = self.take_counts();
        let front = self.queue.give_up_front();
        self.work.news.extend(front.map(|id| counts.outcome(id, End::Error { sqlstate: error.sqlstate() }, true)));
        self.fault = Some(error.into());
    }

    fn pass_stream(&mut self, header: Header) {
        self.work.client_stream = Stream { left: header.total, ..Stream::default() };
    }

    /// After an error the server drops everything up to the next Sync; so do we, and the target never sees it.
    fn drop_skipped(&mut self, header: Header) -> Result<(), ProtocolError> {
        if self.queue.skipping == Skipping::Doubtful && !matches!(header.kind, b'd' | b'c' | b'f' | b'H') {
            return Err(ProtocolError::PipelinedBehindCopy);
        }
        self.work.client_stream = Stream { left: header.total, drop: true, keep: false };
        Ok(())
    }

    fn take_sync(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        exactly_empty(header)?;
        self.queue.push_sync();
        pipes.client.clear(header.total, pipes.to_target);
        Ok(None)
    }

    fn take_terminate(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        exactly_empty(header)?;
        pipes.client.clear(header.total, pipes.to_target);
        self.client = ClientStage::Terminated;
        Ok(Some(self.step_terminated()))
    }

    /// After Terminate the target still answers what was sent before it; then both ends close.
    pub(super) fn step_terminated(&mut self) -> Step {
        if !self.queue.is_idle() || self.work.told.is_some() || self.target_stream.left > 0 {
            return Step::Held;
        }
        self.life = Life::Closed;
        Step::Closed
    }

    /// A message that is looked into, which it must be whole for.
    fn take_whole(&mut self, kind: u8, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let max = match kind {
            b'Q' | b'P' | b'B' | b'F' => self.limits.request_bytes_max,
            _ => REPLY_BYTES_MAX.min(self.limits.request_bytes_max),
        };
        let Some(message) = header.whole(pipes.client.undecided(), Side::Client, max)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let Some(settings_in_doubt) = self.may_be_read(kind, message)? else {
            return Ok(Some(self.wait()));
        };
        let asked = match kind {
            b'Q' => Some((RequestKind::Query, query_text(message).ok_or(malformed(kind))?)),
            b'P' => Some((RequestKind::Parse, parse_text(message).ok_or(malformed(kind))?.1)),
            b'F' => {
                let (function, values) = function_call(message).ok_or(malformed(kind))?;
                Some((RequestKind::FunctionCall { function }, values))
            }
            b'E' => {
                let name = execute_name(message).ok_or(malformed(kind))?;
                let portal = self.book.portal(name);
                // Of one nobody saw bound, nobody knows whether it is still the same.
                let known = portal.filter(|portal| portal.statement.tag.is_some());
                let resumed = known.is_some_and(|portal| portal.executed.get());
                self.work.requested = portal.cloned();
                let start = HEADER_BYTES as u32;
                Some((RequestKind::Execute { resumed }, Span { start, end: start + name.len() as u32 }))
            }
            _ => None,
        };
        if let Some((kind, text)) = asked {
            self.client = ClientStage::AskedRequest { kind, total: header.total };
            return Ok(Some(Step::Event(Event::Request(Request { kind, text, settings_in_doubt }))));
        }
        match kind {
            b'B' => self.note_bind(message)?,
            b'D' => self.note_describe(message)?,
            _ => self.note_close(message)?,
        }
        pipes.client.clear(header.total, pipes.to_target);
        Ok(None)
    }

    /// `None`: not yet, since what the message means hangs on answers that are still to come behind a Sync. `Some(true)`: its text
    /// can be read in more than one way, and no answer will tell which before the next Sync.
    #[inline]
    fn may_be_read(&self, kind: u8, message: &[u8]) -> Result<Option<bool>, ProtocolError> {
        // With nothing outstanding before this segment no name is in doubt, and only texts hang on what messages in it may have set.
        let looks = self.queue.is_behind() || self.queue.analysed && matches!(kind, b'Q' | b'P');
        if looks { self.look_behind(kind, message) } else { Ok(Some(false)) }
    }

    fn look_behind(&self, kind: u8, message: &[u8]) -> Result<Option<bool>, ProtocolError> {
        let text = match kind {
            b'Q' => query_text(message),
            b'P' => parse_text(message).map(|(_, text)| text),
            _ => None,
        };
        let hangs = text.is_some_and(|text| hangs_on_settings(&message[text.start as usize..text.end as usize]));
        let waits = hangs && self.queue.awaits_ready();
        let waits = waits
            || match kind {
                // Its SQL may use any name.
                b'Q' => self.queue.is_in_doubt(self.book.named_since),
                b'E' => {
                    let portal = execute_name(message).ok_or(malformed(kind))?;
                    self.queue.is_in_doubt(self.book.named_since) || self.portal_is_in_doubt(portal)
                }
                b'B' => self.statement_is_in_doubt(Bind::read(message).ok_or(malformed(kind))?.statement),
                b'D' => match kind_and_name(message).ok_or(malformed(kind))? {
                    (b'P', portal) => self.portal_is_in_doubt(portal),
                    (_, statement) => self.statement_is_in_doubt(statement),
                },
                _ => false,
            };
        Ok((!waits).then_some(hangs && self.queue.analysed))
    }

    fn statement_is_in_doubt(&self, name: &[u8]) -> bool {
        // One that is gone may have been taken away by what is still to be answered.
        self.book.statement(name).map_or_else(|| self.queue.awaits_ready(), |known| self.queue.is_in_doubt(known.since))
    }

    fn portal_is_in_doubt(&self, name: &[u8]) -> bool {
        self.book.portal(name).map_or_else(|| self.queue.awaits_ready(), |known| self.queue.is_in_doubt(known.since))
    }

    /// The client's next message waits for the target.
    fn wait(&mut self) -> Step {
        self.client_waits = true;
        Step::Held
    }

    fn note_bind(&mut self, message: &[u8]) -> Result<(), ProtocolError> {
        let bind = Bind::read(message).ok_or(malformed(b'B'))?;
        let (portal, before) = self.book.bind(&bind, self.queue.segment())?;
        self.queue.analysed = true;
        self.portals_named += u64::from(!bind.portal.is_empty());
        self.queue.push(Expected::Bind { name: Name::from(bind.portal), portal, before });
        Ok(())
    }

    fn note_describe(&mut self, message: &[u8]) -> Result<(), ProtocolError> {
        let (what, name) = kind_and_name(message).ok_or(malformed(b'D'))?;
        let entry = match what {
            b'S' => {
                let statement = self.book.statement(name).cloned().unwrap_or_else(Book::unseen);
                Expected::DescribeStatement { statement, ours: false }
            }
            b'P' => Expected::DescribePortal { portal: self.book.adopt_portal(name)?, ours: false, tag: None },
            _ => return Err(malformed(b'D')),
        };
        // One whose tables have changed is analysed again.
        self.queue.analysed = true;
        self.queue.push(entry);
        Ok(())
    }

    fn note_close(&mut self, message: &[u8]) -> Result<(), ProtocolError> {
        let (what, name) = kind_and_name(message).ok_or(malformed(b'C'))?;
        let entry = match what {
            b'S' => Expected::CloseStatement { before: self.book.close_statement(name), name: name.into() },
            b'P' => {
                self.portals_named += u64::from(!name.is_empty());
                Expected::ClosePortal { before: self.book.close_portal(name), name: name.into() }
            }
            _ => return Err(malformed(b'C')),
        };
        self.queue.push(entry);
        Ok(())
    }

    /// The gate lets the request at the front of the window pass.
    pub(super) fn forward_request(
        &mut self,
        kind: RequestKind,
        total: usize,
        id: u64,
        tag: T,
        describe: bool,
        pipes: &mut Pipes<'_>,
    ) {
        self.client = ClientStage::Open;
        let names = std::mem::take(&mut self.work.defining);
        if self.queue.awaits_copy_end() {
            // It was being decided when the statement before it turned out to be COPY.
            names.take_back(&mut self.book);
            return self.give_up_copy(ProtocolError::StatementDuringCopy { kind: pipes.client.undecided()[0] });
        }
        if self.is_skipping() {
            names.take_back(&mut self.book);
            // An error before it has come while it was held: the server would skip it, so it is not sent.
            pipes.client.skip(total);
            if kind != RequestKind::Parse {
                self.work.news.push_back(Counts::default().outcome(id, End::Skipped, true));
            }
            return;
        }
        match kind {
            RequestKind::Query => {
                let (unnamed, segment) = (self.book.made().and_then(Book::drop_unnamed), self.queue.end_segment());
                self.queue.push(Expected::Query { id, tag, done: false, unnamed, names, segment });
                pipes.client.clear(total, pipes.to_target);
            }
            RequestKind::Parse => self.forward_parse(total, tag, describe, pipes),
            RequestKind::Execute { .. } => self.forward_execute(total, (id, tag), names, describe, pipes),
            RequestKind::FunctionCall { .. } => {
                let segment = self.queue.end_segment();
                self.queue.push(Expected::FunctionCall { id, done: false, segment });
                pipes.client.clear(total, pipes.to_target);
            }
        }
    }

    fn forward_parse(&mut self, total: usize, tag: T, describe: bool, pipes: &mut Pipes<'_>) {
        let message = &pipes.client.undecided()[..total];
        let (name, _) = parse_text(message).expect("it was read before it was asked about");
        let statement = Statement::new(is_certain(name).then_some(tag), describe, self.queue.segment());
        let before = match self.book.define(name, statement.clone()) {
            Ok(before) => before,
            Err(error) => {
                self.fault = Some(error.into());
                return;
            }
        };
        self.queue.analysed = true;
        self.queue.push(Expected::Parse { name: name.into(), statement: statement.clone(), before });
        if describe {
            self.queue.push(Expected::DescribeStatement { statement, ours: true });
            let name = Name::from(name);
            pipes.client.clear(total, pipes.to_target);
            pipes.to_target.compose(|out| compose::describe(out, b'S', &name));
        } else {
            pipes.client.clear(total, pipes.to_target);
        }
    }

    fn forward_execute(
        &mut self,
        total: usize,
        (id, tag): (u64, T),
        names: Definitions<T>,
        describe: bool,
        pipes: &mut Pipes<'_>,
    ) {
        let message = &pipes.client.undecided()[..total];
        let name = execute_name(message).expect("it was read before it was asked about");
        match self.book.adopt_portal(name) {
            Ok(portal) => {
                if describe {
                    let tag = Some(tag.clone());
                    self.queue.push(Expected::DescribePortal { portal: portal.clone(), ours: true, tag });
                    pipes.to_target.compose(|out| compose::describe(out, b'P', name));
                }
                portal.executed.set(true);
                self.queue.push(Expected::Execute { id, tag, portal, names });
                (self.queue.ran, self.queue.analysed) = (true, true);
                pipes.client.clear(total, pipes.to_target);
                // The portal's buffers are free for reuse once its replies have passed.
                self.work.requested = None;
            }
            Err(error) => self.fault = Some(error.into()),
        }
    }

    /// The gate refuses the request at the front of the window (see the module's text in `session.rs`).
    pub(super) fn refuse_request(&mut self, kind: RequestKind, total: usize, refusal: &Refusal, pipes: &mut Pipes<'_>) {
        self.client = ClientStage::Open;
        self.work.requested = None;
        std::mem::take(&mut self.work.defining).take_back(&mut self.book);
        if self.queue.awaits_copy_end() {
            return self.give_up_copy(ProtocolError::StatementDuringCopy { kind: pipes.client.undecided()[0] });
        }
        pipes.client.skip(total);
        if self.is_skipping() {
            return;
        }
        let simple = matches!(kind, RequestKind::Query | RequestKind::FunctionCall { .. });
        let open = self.queue.is_unsettled() || simple && self.queue.is_inside_pipeline();
        let local = self.status == TransactionStatus::Idle && !open;
        let mut bytes = Vec::new();
        compose::report(&mut bytes, Severity::Error, refusal);
        if local && simple {
            compose::ready(&mut bytes, self.status);
        }
        let bytes = bytes.into_boxed_slice();
        if local {
            if !self.queue.is_empty() {
                // The server answers what is before it only when told to: an error of its own would have flushed.
                pipes.to_target.compose(compose::flush);
            }
            self.queue.push(Expected::Refused { bytes });
        } else if simple {
            let (unnamed, segment) = (self.book.made().and_then(Book::drop_unnamed), self.queue.end_segment());
            self.queue.push(Expected::AbortingQuery { bytes: Some(bytes), unnamed, segment });
            pipes.to_target.compose(compose::certain_failure_query);
        } else {
            self.queue.push(Expected::Aborting { bytes });
            pipes.to_target.compose(compose::certain_failure);
        }
        if !simple {
            self.queue.skipping = Skipping::Yes;
        }
        self.say_refusals(pipes);
    }
}

/// What the text says may depend on settings that the target knows before we do: with `standard_conforming_strings` off a backslash
/// changes what its string says and where it ends, and how bytes make up letters is for `client_encoding` to say.
fn hangs_on_settings(text: &[u8]) -> bool {
    !text.is_ascii() || memchr::memchr(b'\\', text).is_some()
}

#[inline]
fn exactly_empty(header: Header) -> Result<(), ProtocolError> {
    if header.total == HEADER_BYTES { Ok(()) } else { Err(malformed(header.kind)) }
}

/// The text of a Query message. What the gate decides must be what the server reads: up to the one NUL, at the very end.
fn query_text(message: &[u8]) -> Option<Span> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let text = reader.text()?;
    let start = HEADER_BYTES as u32;
    reader.is_done().then_some(Span { start, end: start + text.len() as u32 })
}

/// The statement's name and the text of a Parse message.
fn parse_text(message: &[u8]) -> Option<(&[u8], Span)> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let name = reader.text()?;
    let start = reader.at() as u32;
    let text = reader.text()?;
    let types = reader.u16()?;
    reader.take(4 * types as usize)?;
    reader.is_done().then_some((name, Span { start, end: start + text.len() as u32 }))
}

#[inline]
fn execute_name(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let name = reader.text()?;
    reader.u32()?;
    reader.is_done().then_some(name)
}

/// The function of a FunctionCall, and its values as [`super::BindValues`] reads them.
fn function_call(message: &[u8]) -> Option<(u32, Span)> {
    let function = Reader::new(message, HEADER_BYTES).u32()?;
    let (start, end) = (HEADER_BYTES + 4, message.len().checked_sub(2)?);
    (start <= end).then_some((function, Span { start: start as u32, end: end as u32 }))
}

/// The two fields of Describe and Close.
#[inline]
fn kind_and_name(message: &[u8]) -> Option<(u8, &[u8])> {
    let mut reader = Reader::new(message, HEADER_BYTES);
    let kind = reader.u8()?;
    let name = reader.text()?;
    reader.is_done().then_some((kind, name))
}
