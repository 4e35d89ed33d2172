//! From the target to the client, once the session is open: which message answers what, what is watched, what is told.

use super::compose::{self, Framing};
use super::expect::{Expected, Mode};
use super::frame::{ERROR_HEAD_BYTES, HEADER_BYTES, Header, REPLY_BYTES_MAX, Reader, SHAPE_BYTES_MAX};
use super::login::LoginStage;
use super::results;
use super::session::{ClientStage, Session, Stream};
use super::work::Work;
use super::{End, Event, ProtocolError, ShapeKind, Step, TransactionStatus, Watch};
use crate::{Pipes, Side};

/// A RowDescription up to this size is kept to be known again, bytes: fifty columns with names of common length.
const KNOWN_BYTES_MAX: usize = 2048;

/// What becomes of a message that was reported, when the news have been heard.
#[derive(Debug)]
pub(super) struct Told {
    pub total: usize,
    pub then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    Pass,
    /// The client does not know of what it answers.
    Drop,
    /// These bytes go in its place.
    Replace(Box<[u8]>),
    /// It goes with `edits` made.
    Edit(Framing),
}

/// The question the target's side waits for.
#[derive(Debug)]
pub(super) enum Asked {
    Nothing,
    /// A RowDescription (or CopyOutResponse) of `total` bytes; `ours`: the client sees nothing of it.
    Shape {
        total: usize,
        ours: bool,
        copy: Option<bool>,
    },
}

pub(super) fn malformed(kind: u8) -> ProtocolError {
    ProtocolError::Malformed { side: Side::Target, kind }
}

pub(super) fn unexpected(kind: u8) -> ProtocolError {
    ProtocolError::UnexpectedMessage { side: Side::Target, kind }
}

impl<T: Clone + 'static> Session<T> {
    /// Steps the target's side of an open session (or one past AuthenticationOk).
    pub(super) fn step_results(
        &mut self,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Step, ProtocolError> {
        loop {
            if !matches!(self.asked, Asked::Nothing) {
                return Ok(Step::Held);
            }
            if let Some(told) = self.work.told.take() {
                self.finish(told, pipes);
            }
            if self.target_stream.left > 0 && !self.stream_from_target(pipes) {
                return Ok(Step::NeedBytes);
            }
            if self.words.is_some() {
                self.say_deferred(pipes);
            }
            if self.queue.front_is_unasked() {
                self.say_refusals(pipes);
            }
            if self.client == ClientStage::Terminated && self.step_terminated_target() {
                return Ok(Step::Closed);
            }
            let Some(header) = Header::peek(pipes.target.undecided(), Side::Target)? else {
                return Ok(Step::NeedBytes);
            };
            if let Some(step) = self.take_reply(header, pipes, watch)? {
                return Ok(step);
            }
        }
    }

    fn step_terminated_target(&mut self) -> bool {
        matches!(self.step_terminated(), Step::Closed)
    }

    /// Refusals at the front of the queue: everything before them has been answered and sent.
    pub(super) fn say_refusals(&mut self, pipes: &mut Pipes<'_>) {
        if self.work.told.is_some() || self.target_stream.left > 0 {
            return;
        }
        loop {
            match self.queue.front() {
                Some(Expected::Refused { bytes }) => {
                    pipes.to_client.compose(|out| out.extend_from_slice(bytes));
                    self.queue.pop();
                }
                Some(Expected::CopyEnd { .. }) => drop(self.queue.pop()),
                _ => return,
            }
        }
    }

    pub(super) fn finish(&mut self, told: Told, pipes: &mut Pipes<'_>) {
        self.ending_goes();
        match told.then {
            Then::Pass => self.pass(told.total, pipes),
            Then::Drop => self.drop_reply(told.total, pipes),
            Then::Replace(bytes) => {
                pipes.to_client.compose(|out| out.extend_from_slice(&bytes));
                self.drop_reply(told.total, pipes);
            }
            Then::Edit(framing) => {
                let message = &pipes.target.undecided()[..told.total];
                let keep = self.keeps(message[0]);
                let (edits, kept) = (&self.work.edits, &mut self.kept);
                pipes.to_client.compose(|out| {
                    let start = out.len();
                    compose::edited(out, message, edits, framing);
                    if keep {
                        kept.whole(&out[start..]);
                    }
                });
                pipes.target.skip(told.total);
                self.work.edits.clear();
            }
        }
    }

    /// Clears a message, as much of it as is here; the rest streams.
    pub(super) fn pass(&mut self, total: usize, pipes: &mut Pipes<'_>) {
        let keep = self.keeps(pipes.target.undecided()[0]);
        if keep {
            self.kept.begin(total);
        }
        self.target_stream = Stream { left: total, drop: false, keep };
        self.stream_from_target(pipes);
    }

    fn drop_reply(&mut self, total: usize, pipes: &mut Pipes<'_>) {
        self.target_stream = Stream { left: total, drop: true, keep: false };
        self.stream_from_target(pipes);
    }

    #[inline]
    fn stream_from_target(&mut self, pipes: &mut Pipes<'_>) -> bool {
        let len = self.target_stream.left.min(pipes.target.undecided().len());
        if self.target_stream.drop {
            pipes.target.skip(len);
        } else {
            if self.target_stream.keep && self.kept.takes_more() {
                self.kept.add(&pipes.target.undecided()[..len]);
            }
            pipes.target.clear(len, pipes.to_client);
        }
        self.target_stream.left -= len;
        self.target_stream.left == 0
    }

    /// One message, from its header on. `None`: it is dealt with, or streaming.
    fn take_reply(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        match header.kind {
            b'N' => return self.take_notice(header, pipes, watch),
            b'A' => return self.take_notification(header, pipes, watch),
            b'S' => return self.take_setting(header, pipes).map(Some),
            b'K' if self.login != LoginStage::Open && self.target_key.is_none() => return self.take_key(header, pipes),
            _ => {}
        }
        if self.login != LoginStage::Open {
            return self.take_first_ready(header, pipes).map(Some);
        }
        self.queue.settle_front(header.kind);
        match header.kind {
            b'D' => self.take_rows(pipes, watch),
            b'd' => self.take_copy_data(header, pipes, watch),
            b'c' => self.take_copy_done(header, pipes),
            b'C' => self.take_complete(header, pipes),
            b'E' => self.take_error(header, pipes, watch),
            b'Z' => self.take_ready(header, pipes),
            b'T' => self.take_shape(header, pipes),
            b'n' | b't' | b'1' | b'2' | b'3' | b'V' | b'I' | b's' => self.take_small(header, pipes),
            b'G' | b'H' | b'W' => self.take_copy_start(header, pipes),
            kind => Err(ProtocolError::UnknownMessage { side: Side::Target, kind }),
        }
    }

    /// Replies that say only that something is done.
    fn take_small(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let kind = header.kind;
        if kind == b'I' || kind == b's' {
            return self.take_end(header, if kind == b'I' { End::Empty } else { End::Suspended }, pipes);
        }
        let front = self.queue.front().ok_or(unexpected(kind))?;
        let (pop, drop) = match (kind, front) {
            (b'1', Expected::Parse { .. })
            | (b'2', Expected::Bind { .. })
            | (b'3', Expected::CloseStatement { .. } | Expected::ClosePortal { .. }) => (true, false),
            (b't', Expected::DescribeStatement { ours, .. }) => (false, *ours),
            (b'n', Expected::DescribeStatement { statement, ours }) => {
                statement.shape.borrow_mut().clear();
                (true, *ours)
            }
            (b'n', Expected::DescribePortal { portal, ours, .. }) => {
                portal.statement.shape.borrow_mut().clear();
                (true, *ours)
            }
            (b'V', Expected::FunctionCall { .. }) => {
                if pipes.target.undecided().len() < header.total.min(ERROR_HEAD_BYTES) {
                    return Ok(Some(Step::NeedBytes));
                }
                self.work.counts.add(header.total - HEADER_BYTES);
                return self.take_end(header, End::Complete { rows: None }, pipes);
            }
            (_, Expected::Aborting { .. } | Expected::AbortingQuery { .. }) => {
                return Err(ProtocolError::RefusalNotEnforced);
            }
            _ => return Err(unexpected(kind)),
        };
        if pop {
            let popped = self.queue.pop();
            if let Some(Expected::ClosePortal { before: Some(portal), .. }) = popped {
                self.book.reuse(portal);
            }
        }
        if drop {
            self.drop_reply(header.total, pipes);
        } else {
            self.pass(header.total, pipes);
        }
        Ok(None)
    }

    /// CommandComplete: the rows are in its tag.
    fn take_complete(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let mut reader = Reader::new(message, HEADER_BYTES);
        let tag = reader.text().filter(|_| reader.is_done()).ok_or(malformed(b'C'))?;
        let rows = results::rows_of(tag);
        self.take_end(header, End::Complete { rows }, pipes)
    }

    /// A statement has ended well: its outcome, and whether it is the last of its request.
    fn take_end(&mut self, header: Header, mut end: End, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let kind = header.kind;
        if self.commits_behind() {
            // The server says that the statement is complete, then commits: what it did may still come to nothing.
            match results::failure_follows(pipes.target.undecided(), header.total)? {
                results::Next::NotHere => return Ok(Some(Step::NeedBytes)),
                results::Next::Error { sqlstate } => end = End::Error { sqlstate },
                results::Next::Other => {}
            }
        }
        let (id, last) = match self.queue.front() {
            Some(Expected::Execute { id, .. }) if kind != b'V' => (*id, true),
            Some(Expected::FunctionCall { id, done: false, .. }) if kind == b'V' => (*id, true),
            Some(Expected::Query { id, done: false, .. }) if kind != b'V' && kind != b's' => {
                match results::ready_follows(pipes.target.undecided(), header.total)? {
                    Some(ready) => (*id, ready),
                    None => return Ok(Some(Step::NeedBytes)),
                }
            }
            _ => return Err(unexpected(kind)),
        };
        self.keep_columns();
        match self.queue.mode {
            Mode::CopyIn => self.queue.end_copy_in()?,
            Mode::CopyBoth => self.queue.end_copy_both(),
            Mode::Plain | Mode::CopyOut { .. } => self.queue.mode = Mode::Plain,
        }
        let counts = self.take_counts();
        match self.queue.front_mut() {
            Some(Expected::Query { done, names, .. }) => {
                *done = last;
                names.one_ended = true;
            }
            Some(Expected::FunctionCall { done, .. }) => *done = last,
            _ => {
                if let Some(Expected::Execute { portal, .. }) = self.queue.pop() {
                    self.book.reuse(portal);
                }
            }
        }
        self.work.told = Some(Told { total: header.total, then: Then::Pass });
        Ok(Some(Step::Event(Event::Outcome(counts.outcome(id, end, last)))))
    }

    /// The Execute at the front ends now, or stops at its limit of rows, and with it the implicit transaction that it runs in.
    fn commits_behind(&self) -> bool {
        matches!(self.queue.front(), Some(Expected::Execute { .. }))
            && self.status == TransactionStatus::Idle
            && self.queue.mode == Mode::Plain
            && self.queue.is_in_front_of_sync()
    }

    fn forget_query_shape(&mut self) {
        if let Some(shape) = &mut self.work.query_shape {
            shape.clear();
        }
    }

    pub(super) fn take_counts(&mut self) -> super::expect::Counts {
        let mut counts = std::mem::take(&mut self.work.counts);
        counts.sent = counts.messages;
        let copied = std::mem::take(&mut self.work.copied);
        counts.messages += copied.messages;
        counts.bytes += copied.bytes;
        self.forget_query_shape();
        counts
    }

    /// ReadyForQuery ends a Query, a FunctionCall or a Sync.
    fn take_ready(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let status = ready_status(message)?;
        if self.queue.mode != Mode::Plain {
            return Err(unexpected(b'Z'));
        }
        match self.queue.front_mut() {
            Some(Expected::Query { id, done, .. } | Expected::FunctionCall { id, done, .. }) => {
                if !*done {
                    *done = true;
                    let id = *id;
                    let outcome = self.take_counts().outcome(id, End::Complete { rows: None }, true);
                    return Ok(Some(Step::Event(Event::Outcome(outcome))));
                }
                self.queue.pop();
            }
            Some(Expected::AbortingQuery { bytes: None, .. }) => drop(self.queue.pop()),
            Some(Expected::AbortingQuery { .. }) => return Err(ProtocolError::RefusalNotEnforced),
            Some(Expected::Sync { .. }) => self.queue.pop_sync(),
            Some(_) | None => return Err(unexpected(b'Z')),
        }
        // Nothing forwarded is unanswered, and the target says what became of all of it.
        self.queue.ran &= !self.queue.is_empty();
        self.queue.analysed &= !self.queue.is_empty();
        self.work.counts = Default::default();
        if self.queue.is_empty() {
            self.work.copied = Default::default();
        }
        self.forget_query_shape();
        self.status = status;
        if status == TransactionStatus::Idle
            && self.queue.is_empty()
            && !self.queue.ran
            && let Some(book) = self.book.made()
        {
            book.drop_named_portals();
        }
        self.pass(header.total, pipes);
        Ok(Some(Step::Event(Event::Ready { status })))
    }

    /// ErrorResponse: fields to watch first, then what it ended, then it goes (or ours in its place).
    fn take_error(
        &mut self,
        header: Header,
        pipes: &mut Pipes<'_>,
        watch: &mut dyn Watch<T>,
    ) -> Result<Option<Step>, ProtocolError> {
        let ours = matches!(
            self.queue.front(),
            Some(Expected::Aborting { .. } | Expected::AbortingQuery { bytes: Some(_), .. })
        );
        let bytes = pipes.target.undecided();
        if bytes.len() < header.total.min(ERROR_HEAD_BYTES) {
            return Ok(Some(Step::NeedBytes));
        }
        self.target_gave_up |= results::is_fatal(&bytes[HEADER_BYTES..header.total.min(bytes.len())]);
        let mut then = Then::Pass;
        if self.watch_texts && !ours {
            if header.whole(bytes, Side::Target, self.limits.row_bytes_max)?.is_none() {
                return Ok(Some(Step::NeedBytes));
            }
            then = self.watch_fields(header.total, pipes, watch)?;
        }
        let bytes = pipes.target.undecided();
        let sqlstate = results::sqlstate(&bytes[HEADER_BYTES..header.total.min(bytes.len())]);
        self.account_error(sqlstate, Told { total: header.total, then })
    }

    /// What an ErrorResponse ends, and what follows from it for the messages behind.
    fn account_error(&mut self, sqlstate: [u8; 5], mut told: Told) -> Result<Option<Step>, ProtocolError> {
        self.forget_query_shape();
        match self.queue.front_mut() {
            // Nothing runs: the server ends the session. A Sync: the commit it stands for failed; ReadyForQuery follows.
            None | Some(Expected::Sync { .. } | Expected::AbortingQuery { bytes: None, .. }) => {}
            Some(Expected::AbortingQuery { bytes, .. }) => {
                told.then = Then::Replace(bytes.take().expect("the arm before took the other case"));
            }
            Some(Expected::Query { .. } | Expected::FunctionCall { .. }) => {
                let (id, first) = self.queue.fail_front(&mut self.book).expect("it is one with an id");
                self.queue.mode = Mode::Plain;
                let outcome = self.take_counts().outcome(id, End::Error { sqlstate }, true);
                if first {
                    self.work.news.push_back(outcome);
                }
            }
            Some(Expected::Aborting { bytes }) => {
                told.then = Then::Replace(std::mem::take(bytes));
                self.fail_pipeline(sqlstate)?;
            }
            Some(_) => self.fail_pipeline(sqlstate)?,
        }
        self.work.told = Some(told);
        Ok(self.work.news.pop_front().map(|outcome| Step::Event(Event::Outcome(outcome))))
    }

    fn fail_pipeline(&mut self, sqlstate: [u8; 5]) -> Result<(), ProtocolError> {
        let counts = self.take_counts();
        self.queue.fail(sqlstate, &mut self.book, &mut self.work.news, counts)
    }

    fn take_shape(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let ours = match self.queue.front() {
            Some(Expected::DescribeStatement { ours, .. } | Expected::DescribePortal { ours, .. }) => *ours,
            Some(Expected::Query { done: false, .. }) if self.queue.mode == Mode::Plain => false,
            _ => return Err(unexpected(b'T')),
        };
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, SHAPE_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        if self.take_known_shape(message) {
            let done = if ours { Self::drop_reply } else { Self::pass };
            done(self, header.total, pipes);
            return Ok(None);
        }
        let described = self.work.columns.get_or_insert_default();
        described.len =
            results::read_columns(message, &mut described.columns, &mut described.formats).ok_or(malformed(b'T'))?;
        self.asked = Asked::Shape { total: header.total, ours, copy: None };
        Ok(Some(Step::Event(Event::Shape(ShapeKind::Rows))))
    }

    /// Drivers have their statements described before every execution (libpq always does). The same description of the
    /// same statement needs no new plan while the old one holds.
    fn take_known_shape(&mut self, message: &[u8]) -> bool {
        match self.queue.front() {
            Some(Expected::DescribeStatement { statement, .. })
                if statement.shape.borrow().is_known(message, self.plans_epoch) => {}
            // Asked for because it may be another statement's by now.
            Some(Expected::DescribePortal { tag: Some(_), .. }) => return false,
            Some(Expected::DescribePortal { portal, .. }) => {
                let shape = portal.statement.shape.borrow();
                if !shape.is_known(message, self.plans_epoch) {
                    return false;
                }
                portal.formats.borrow_mut().clone_from(&shape.formats);
            }
            _ => return false,
        }
        self.queue.pop();
        true
    }

    /// The plan for the columns of the last Shape, kept with what they belong to.
    pub(super) fn answer_shape(&mut self, plan: Option<super::ColumnPlan>, pipes: &Pipes<'_>) {
        let Asked::Shape { total, ours, copy } = std::mem::replace(&mut self.asked, Asked::Nothing) else {
            panic!("Watch answers a Shape");
        };
        if let Some(binary) = copy {
            let code = plan.and_then(|plan| plan.iter().copied().find(|&code| code != 0)).unwrap_or(0);
            self.queue.mode = Mode::CopyOut { binary, code };
            self.work.told = Some(Told { total, then: Then::Pass });
            return;
        }
        let Work { columns, query_shape, .. } = &mut *self.work;
        let described = columns.get_or_insert_default();
        let (columns, formats, epoch) = (described.all(), &described.formats, self.plans_epoch);
        assert!(plan.as_ref().is_none_or(|plan| plan.len() == columns.len()), "a plan has one code a column");
        let message = &pipes.target.undecided()[..total];
        let known: &[u8] = if self.kept.is_on() || total <= KNOWN_BYTES_MAX { message } else { &[] };
        let done = match self.queue.front() {
            Some(Expected::DescribeStatement { statement, .. }) => {
                statement.shape.borrow_mut().set(columns, formats, known, plan, epoch);
                true
            }
            Some(Expected::DescribePortal { portal, .. }) => {
                portal.statement.shape.borrow_mut().set(columns, formats, known, plan, epoch);
                portal.formats.borrow_mut().clone_from(formats);
                true
            }
            _ => {
                let shape = query_shape.get_or_insert_default();
                shape.set(columns, formats, if self.kept.is_on() { message } else { &[] }, plan, 0);
                false
            }
        };
        if done {
            self.queue.pop();
        }
        self.work.told = Some(Told { total, then: if ours { Then::Drop } else { Then::Pass } });
    }

    fn take_copy_start(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let kind = header.kind;
        match self.queue.front() {
            Some(Expected::Execute { .. } | Expected::Query { done: false, .. }) if self.queue.mode == Mode::Plain => {}
            _ => return Err(unexpected(kind)),
        }
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let binary = results::copy_is_binary(message).ok_or(malformed(kind))?;
        match kind {
            b'G' => {
                if let Err(error) = self.queue.start_copy_in() {
                    return self.break_copy(error).map(Some);
                }
            }
            b'W' if !self.replication => {
                return Err(ProtocolError::CopyBothOutsideReplication);
            }
            b'W' => self.queue.mode = Mode::CopyBoth,
            _ => {
                self.work.columns.get_or_insert_default().len = 0;
                self.asked = Asked::Shape { total: header.total, ours: false, copy: Some(binary) };
                return Ok(Some(Step::Event(Event::Shape(ShapeKind::CopyOut { binary }))));
            }
        }
        self.pass(header.total, pipes);
        Ok(None)
    }

    fn take_copy_done(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        if !matches!(self.queue.mode, Mode::CopyOut { .. } | Mode::CopyBoth) {
            return Err(unexpected(b'c'));
        }
        self.pass(header.total, pipes);
        Ok(None)
    }

    /// ParameterStatus.
    fn take_setting(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Step::NeedBytes);
        };
        let (name, value) = results::setting(message).ok_or(malformed(b'S'))?;
        self.work.told = Some(Told { total: header.total, then: Then::Pass });
        Ok(Step::Event(Event::Setting { name, value }))
    }

    /// BackendKeyData: the client gets ours in its place.
    fn take_key(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Option<Step>, ProtocolError> {
        let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
            return Ok(Some(Step::NeedBytes));
        };
        let mut reader = Reader::new(message, HEADER_BYTES);
        let process = reader.i32().ok_or(malformed(b'K'))?;
        self.target_key = Some(Box::new((process, reader.rest().to_vec())));
        let login = self.target_login.as_mut().expect("the login lasts until the first ReadyForQuery");
        let ours = if login.client_process == 0 { process } else { login.client_process };
        let secret = std::mem::take(&mut login.client_secret);
        pipes.to_client.compose(|out| compose::backend_key(out, ours, &secret));
        self.drop_reply(header.total, pipes);
        Ok(None)
    }

    /// What only the way here needed: an idle session is small.
    fn forget_login(&mut self) {
        self.target_login = None;
        self.replication = self.startup.take().is_some_and(|startup| startup.replication);
        self.early = None;
    }

    /// Between AuthenticationOk and the first ReadyForQuery.
    fn take_first_ready(&mut self, header: Header, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        match header.kind {
            b'Z' => {
                let Some(message) = header.whole(pipes.target.undecided(), Side::Target, REPLY_BYTES_MAX)? else {
                    return Ok(Step::NeedBytes);
                };
                ready_status(message)?;
                // The message itself is read again as the answer to a Sync nobody sent.
                self.login = LoginStage::Open;
                self.forget_login();
                self.client = ClientStage::Open;
                self.queue.push_sync();
                Ok(Step::Event(Event::Opened))
            }
            b'E' => self.take_login_error(header, pipes),
            kind => Err(unexpected(kind)),
        }
    }
}

fn ready_status(message: &[u8]) -> Result<TransactionStatus, ProtocolError> {
    match &message[HEADER_BYTES..] {
        b"I" => Ok(TransactionStatus::Idle),
        b"T" => Ok(TransactionStatus::InTransaction),
        b"E" => Ok(TransactionStatus::Failed),
        _ => Err(malformed(b'Z')),
    }
}
