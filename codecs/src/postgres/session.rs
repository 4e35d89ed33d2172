//! One PostgreSQL connection, both directions, from the first byte to the last.
//!
//! ```text
//!   client   startup.rs -> auth.rs (credential) ........ client.rs: decide, forward, refuse in order
//!   target                 login.rs (TLS, SCRAM) ....... target.rs: describe, watch, count, report
//!                                                        book.rs, expect.rs: what names and replies mean
//! ```
//!
//! # Refusals
//!
//! Outside a transaction, with nothing outstanding that could open one, a refused message is dropped and our ErrorResponse
//! takes its place in the order of replies; in the extended protocol everything up to the next Sync is dropped as the
//! server would, and the Sync goes on to the target. Inside a transaction, or where one may be open, that would let the other
//! half of a half-refused transaction commit. There the refused message is replaced with one that is certain to fail
//! without running anything (Describe of a statement that cannot exist; for a simple Query, a Query that cannot be parsed),
//! so that the target itself aborts; its ErrorResponse is replaced with ours, its ReadyForQuery is true. Should the
//! impossible statement exist, the connection closes, which aborts just as well.
//!
//! A Query inside a pipeline without a Sync ends that pipeline's implicit transaction at the server (measured: PostgreSQL 15
//! answers what is before it, then the error, then ReadyForQuery), and is skipped if something before it failed. As the
//! replacement is a Query too, both hold for a refused one.
//!
//! # Outcomes
//!
//! Every id given in [`Answer::Forward`] to a Query, Execute or FunctionCall gets exactly one [`super::Outcome`] with
//! `last`. A Query may hold several statements: for each CommandComplete the session looks at what follows it (waiting for
//! that, past ParameterStatus, NotificationResponse and NoticeResponse up to a bound) and marks the outcome as the last if
//! it is ReadyForQuery. Where it could not look that far, an empty `Complete` outcome marked as the last comes with
//! ReadyForQuery. An ErrorResponse always ends its Query. Outcomes still missing when the connection ends come from
//! [`Session::abandon`].

use super::auth::Credential;
use super::binds::BindValues;
use super::book::{Book, Portal, Statement, is_certain};
use super::compose::{self, Severity};
use super::expect::{Expected, Queue, Skipping};
use super::kept::Kept;
use super::lazy::Lazy;
use super::login::{Login, LoginStage};
use super::target::Asked as TargetAsked;
use super::work::Work;
use super::{Answer, Column, Event, ProtocolError, Refusal, RequestKind, ScramKeys, Startup, Step, TargetLogin, Watch};
use super::{TransactionStatus, client};
use crate::{Pipes, Side};
use std::rc::Rc;

/// Bounds the session enforces, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// A whole client message that must be decided (Query, Parse, Bind, FunctionCall).
    pub request_bytes_max: usize,
    /// A DataRow or CopyData with watched values, which must be whole before it passes.
    pub row_bytes_max: usize,
}

/// What the client's next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClientStage {
    /// SSLRequest, GSSENCRequest, CancelRequest or the start-up message.
    AwaitStartup,
    AskedSecure,
    /// `S` was sent: nothing may come but the handshake, which is not ours to see.
    AwaitHandshake,
    AskedLogin,
    AwaitCredential(Credential),
    AskedCredential {
        total: usize,
    },
    /// Admitted; the target is not open yet.
    AwaitTarget,
    Open,
    /// A request of this kind and length is at the front of the window, undecided.
    AskedRequest {
        kind: RequestKind,
        total: usize,
    },
    /// Terminate was forwarded: nothing more comes from the client.
    Terminated,
}

/// Whether anything more will be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Alive,
    /// The rest of one message is still to reach the client, then the end.
    Ending,
    Closed,
}

/// The rest of a message that passes, or is dropped, without being whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    pub left: usize,
    pub drop: bool,
    /// It is part of the response that is kept.
    pub keep: bool,
}

/// What few sessions need, and none that is open.
#[derive(Default)]
pub(super) struct Early {
    pub unknown_options: Vec<Vec<u8>>,
    pub oauth_challenge: Option<Vec<u8>>,
    /// What the client reads once it has acknowledged the challenge.
    pub refused_token: Option<Refusal>,
}

/// What waits for a message boundary.
#[derive(Default)]
pub(super) struct Words {
    /// Notices of ours.
    pub deferred: Vec<u8>,
    /// The FATAL error that ends the session.
    pub last: Vec<u8>,
}

/// What a RowDescription says. Keeps its room for the next.
#[derive(Default)]
pub(super) struct Columns {
    pub columns: Vec<Column>,
    /// How many of them count.
    pub len: usize,
    pub formats: super::binds::Formats,
}

impl Columns {
    pub fn all(&self) -> &[Column] {
        &self.columns[..self.len]
    }
}

/// The automaton. `T` is the gate's own mark on a statement (kept with prepared names and portals).
pub struct Session<T> {
    pub(super) limits: SessionLimits,
    pub(super) life: Life,
    /// What `answer`, `connect` and their like found wrong: they cannot say so, the next step does.
    pub(super) fault: Option<Box<ProtocolError>>,
    pub(super) encrypted: bool,
    pub(super) negotiations: u32,
    pub(super) client: ClientStage,
    pub(super) login: LoginStage,
    pub(super) target_login: Option<Box<Login>>,
    pub(super) startup: Option<Box<Startup>>,
    /// Of an open session: its start-up asked for replication.
    pub(super) replication: bool,
    /// Until it is open.
    pub(super) early: Option<Box<Early>>,
    /// Until it is taken.
    pub(super) target_key: Option<Box<(i32, Vec<u8>)>>,
    pub(super) target_gave_up: bool,
    pub(super) status: TransactionStatus,
    pub(super) watch_texts: bool,
    pub(super) book: Lazy<Book<T>>,
    pub(super) queue: Queue<T>,
    pub(super) work: Lazy<Work<T>>,
    /// The client has read an AuthenticationOk of ours: the target's own is not for it.
    pub(super) admitted_early: bool,
    /// What the client has sent next waits for answers of the target.
    pub(super) client_waits: bool,
    /// Counts what the protocol did to portals that have a name.
    pub(super) portals_named: u64,
    pub(super) target_stream: Stream,
    pub(super) asked: TargetAsked,
    /// See [`Session::plans_hold`].
    pub(super) plans_epoch: u64,
    pub(super) kept: Kept,
    pub(super) words: Option<Box<Words>>,
}

impl<T: Clone + 'static> Session<T> {
    /// A session awaiting a client's first bytes. `encrypted`: TLS is already up (direct TLS).
    pub fn new(limits: SessionLimits, encrypted: bool) -> Self {
        Self {
            limits,
            life: Life::Alive,
            fault: None,
            encrypted,
            negotiations: 0,
            client: ClientStage::AwaitStartup,
            login: LoginStage::Absent,
            target_login: None,
            startup: None,
            replication: false,
            early: None,
            target_key: None,
            target_gave_up: false,
            status: TransactionStatus::Idle,
            watch_texts: false,
            book: Lazy::new(),
            queue: Queue::default(),
            work: Lazy::new(),
            admitted_early: false,
            client_waits: false,
            portals_named: 0,
            target_stream: Stream::default(),
            asked: TargetAsked::Nothing,
            plans_epoch: 0,
            kept: Kept::default(),
            words: None,
        }
    }

    /// Looks at the undecided bytes of `from`: clears, skips, edits, until something must be said. `watch` is shown every
    /// watched value on the way.
    pub fn step(&mut self, from: Side, pipes: &mut Pipes<'_>, watch: &mut dyn Watch<T>) -> Result<Step, ProtocolError> {
        let step = self.try_step(from, pipes, watch);
        match &step {
            Ok(step) => self.keep_ending(step, pipes),
            // Nothing of either side is believed any more; `fail` may still say why, at a message boundary.
            Err(_) => self.life = Life::Closed,
        }
        step
    }

    /// Would a step of this side come to anything? With no bytes of its own it has something to say only when the session
    /// is ending, found something wrong, or has outcomes to report.
    #[inline]
    pub fn may_move(&self, from: Side, pipes: &Pipes<'_>) -> bool {
        let bytes = match from {
            Side::Client => pipes.client.undecided(),
            Side::Target => pipes.target.undecided(),
        };
        !bytes.is_empty() || self.life != Life::Alive || self.fault.is_some() || !self.work.news.is_empty()
    }

    fn try_step(&mut self, from: Side, pipes: &mut Pipes<'_>, watch: &mut dyn Watch<T>) -> Result<Step, ProtocolError> {
        // Outcomes first: what was found wrong may be what they are about.
        if self.work.news.is_empty()
            && let Some(fault) = self.fault.take()
        {
            return Err(*fault);
        }
        match (self.life, from) {
            (Life::Closed, _) => return Ok(Step::Closed),
            (Life::Ending, Side::Client) => return Ok(Step::Held),
            (Life::Ending, Side::Target) => return Ok(self.step_ending(pipes)),
            (Life::Alive, _) => {}
        }
        if let Some(outcome) = self.work.news.pop_front() {
            return Ok(Step::Event(Event::Outcome(outcome)));
        }
        match from {
            Side::Client => self.step_client(pipes),
            Side::Target => self.step_target(pipes, watch),
        }
    }

    fn step_client(&mut self, pipes: &mut Pipes<'_>) -> Result<Step, ProtocolError> {
        match self.client {
            ClientStage::AwaitStartup => self.step_startup(pipes),
            ClientStage::AwaitHandshake => self.step_handshake(pipes),
            ClientStage::AwaitCredential(credential) => self.step_credential(credential, pipes),
            ClientStage::Open => self.step_open(pipes),
            ClientStage::AskedSecure
            | ClientStage::AskedLogin
            | ClientStage::AskedCredential { .. }
            | ClientStage::AwaitTarget
            | ClientStage::AskedRequest { .. } => Ok(Step::Held),
            ClientStage::Terminated => Ok(self.step_terminated()),
        }
    }

    fn step_target(&mut self, pipes: &mut Pipes<'_>, watch: &mut dyn Watch<T>) -> Result<Step, ProtocolError> {
        match self.login {
            LoginStage::Absent => Ok(Step::Held),
            LoginStage::Open => self.step_results(pipes, watch),
            stage => self.step_login(stage, pipes, watch),
        }
    }

    /// The answer to the last question of `side`. An answer to a question that was not asked is a bug of the caller.
    pub fn answer(&mut self, side: Side, answer: Answer<T>, pipes: &mut Pipes<'_>) {
        if self.life != Life::Alive {
            return;
        }
        match side {
            Side::Client => self.answer_client(answer, pipes),
            Side::Target => self.answer_target(answer, pipes),
        }
    }

    fn answer_client(&mut self, answer: Answer<T>, pipes: &mut Pipes<'_>) {
        match (self.client, answer) {
            (ClientStage::AskedSecure, Answer::Secure(yes)) => self.answer_secure(yes, pipes),
            (ClientStage::AskedLogin, Answer::AskCredential) => self.ask_credential(pipes),
            (ClientStage::AskedCredential { total }, Answer::Admit) => {
                client::erase(total, pipes);
                self.client = ClientStage::AwaitTarget;
            }
            (ClientStage::AskedCredential { total }, Answer::Hold) => self.hold_admission(total, pipes),
            (ClientStage::AwaitTarget, Answer::Admit) if self.admitted_early => {}
            (ClientStage::AskedCredential { total }, Answer::Refuse(refusal)) => {
                self.refuse_credential(total, refusal, pipes);
            }
            (ClientStage::AskedRequest { kind, total }, Answer::Forward { id, tag, describe }) => {
                self.forward_request(kind, total, id, tag, describe, pipes)
            }
            (ClientStage::AskedRequest { kind, total }, Answer::Refuse(refusal)) => {
                self.refuse_request(kind, total, &refusal, pipes)
            }
            (ClientStage::AskedRequest { .. }, Answer::Hold) => {}
            (_, Answer::Refuse(refusal)) => self.fail(&refusal, pipes),
            (stage, _) => panic!("an answer that fits no question of the client's side: {stage:?}"),
        }
    }

    fn answer_target(&mut self, answer: Answer<T>, pipes: &mut Pipes<'_>) {
        match answer {
            Answer::Keys(keys) => self.answer_keys(&keys, pipes),
            Answer::Watch(plan) => self.answer_shape(plan, pipes),
            Answer::Hold => {}
            Answer::Refuse(refusal) => self.fail(&refusal, pipes),
            Answer::Secure(_) | Answer::AskCredential | Answer::Admit | Answer::Forward { .. } => {
                panic!("an answer that fits no question of the target's side")
            }
        }
    }

    /// The client's TLS handshake is complete.
    pub fn client_secured(&mut self) {
        self.encrypted = true;
        if self.client == ClientStage::AwaitHandshake {
            self.client = ClientStage::AwaitStartup;
        }
    }

    /// The target is connected: queues SSLRequest or the start-up message.
    pub fn connect(&mut self, login: TargetLogin, pipes: &mut Pipes<'_>) {
        if self.life == Life::Alive {
            self.start_login(login, pipes);
        }
    }

    /// The target's TLS handshake is complete. `binding`: tls-server-end-point data (RFC 5929) for SCRAM-SHA-256-PLUS.
    pub fn target_secured(&mut self, binding: Option<Vec<u8>>, pipes: &mut Pipes<'_>) {
        self.go_on_with_login(true, binding, pipes);
    }

    /// The target refused TLS and that is acceptable: go on in plaintext.
    pub fn target_plain(&mut self, pipes: &mut Pipes<'_>) {
        self.go_on_with_login(false, None, pipes);
    }

    /// Show (`true`) fields of errors, notices and notifications to the [`Watch`].
    pub fn watch_texts(&mut self, on: bool) {
        self.watch_texts = on;
    }

    /// Column plans made since the last call with the same `epoch` would be made alike now: a statement described with the
    /// same columns as before is not asked about again. 0: every description is asked about.
    #[inline]
    pub fn plans_hold(&mut self, epoch: u64) {
        self.plans_epoch = epoch;
    }

    /// What an OAUTHBEARER client whose token is not accepted is told: JSON of RFC 7628, section 3.2.2.
    pub fn oauth_challenge(&mut self, json: Vec<u8>) {
        self.early.get_or_insert_default().oauth_challenge = Some(json);
    }

    /// The start-up message's contents, from `Event::Login` to `Event::Opened`.
    pub fn startup(&self) -> Option<&Startup> {
        self.startup.as_deref()
    }

    /// The target's BackendKeyData, once the session is open: process id and secret. It is not kept here. `None`: there was none.
    pub fn take_target_key(&mut self) -> Option<(i32, Vec<u8>)> {
        self.target_key.take().map(|key| *key)
    }

    /// The target has said, with a FATAL error that the client has read or will, that it ends the connection.
    pub fn target_gave_up(&self) -> bool {
        self.target_gave_up
    }

    /// The columns behind the last [`super::Event::Shape`].
    pub fn columns(&self) -> &[Column] {
        self.work.columns.as_ref().map_or(&[], |columns| columns.all())
    }

    /// Gives back what only work needs, if none is under way: an idle session is small.
    pub fn rest(&mut self) {
        if !self.is_idle() || !matches!(self.asked, TargetAsked::Nothing) {
            return;
        }
        self.queue.rest();
        self.book.rest();
        self.kept.rest();
        self.work.rest();
    }

    /// The mark of the statement the last Shape or Outcome is about: the one whose replies are due next.
    pub fn executing(&self) -> Option<&T> {
        self.queue.executing()
    }

    /// The mark of the statement an Execute request asks to run, until that request is answered for good. Replies to
    /// earlier statements may pass in the meantime.
    pub fn requested(&self) -> Option<&T> {
        self.work.requested.as_ref()?.statement.tag.as_ref()
    }

    /// That Execute runs a statement whose rows were described when it was parsed.
    pub fn requested_is_guarded(&self) -> bool {
        self.work.requested.as_ref().is_some_and(|portal| portal.statement.guarded)
    }

    /// Bind values of that Execute request: the raw parameter part of its Bind (see [`BindValues`]).
    pub fn binds(&self) -> BindValues<'_> {
        match &self.work.requested {
            Some(portal) => portal.binds(),
            None => BindValues { raw: &[], cut: None },
        }
    }

    /// The mark kept under a prepared statement's name, for SQL-level EXECUTE.
    pub fn prepared(&self, name: &[u8]) -> Option<&T> {
        self.book.statement(name)?.tag.as_ref()
    }

    /// The mark of the statement that is bound to a portal of this name, for SQL-level FETCH and MOVE.
    pub fn bound(&self, portal: &[u8]) -> Option<&T> {
        self.book.portal(portal)?.statement.tag.as_ref()
    }

    /// Portals that have a name, with the marks of their statements.
    pub fn named_portals(&self) -> impl Iterator<Item = (&[u8], Option<&T>)> {
        self.book.named_portals().map(|(name, portal)| (&**name, portal.statement.tag.as_ref()))
    }

    /// The marks of portals that may yet run: of those that have been bound and not run, and of those with a name that have (they may be
    /// suspended; `true`), but for the one that an Execute asks to run. A simple Query makes an end of the one without a name before
    /// anything of it runs.
    pub fn waiting_portals(&self, unnamed: bool) -> impl Iterator<Item = (Option<&T>, bool)> {
        let requested =
            |portal: &Rc<Portal<T>>| self.work.requested.as_ref().is_some_and(|asked| Rc::ptr_eq(asked, portal));
        let named = self.book.named_portals().map(|(_, portal)| portal);
        let unnamed = self.book.portal(b"").filter(|portal| unnamed && !portal.executed.get());
        let portals = named.chain(unnamed).filter(move |portal| !requested(portal));
        portals.map(|portal| (portal.statement.tag.as_ref(), portal.executed.get()))
    }

    /// SQL-level PREPARE is about to be forwarded: `name` now stands for `tag`. A name that already exists becomes unknown.
    /// Called before the `Forward` of its request, it is taken back when that fails or is skipped.
    pub fn define(&mut self, name: &[u8], tag: T) {
        let tag = (is_certain(name) && self.book.statement(name).is_none()).then_some(tag);
        let statement = Statement::new(tag, false, self.queue.segment());
        match self.book.define(name, statement.clone()) {
            Ok(before) => self.note_change(name, Some(statement), before),
            Err(error) => self.fault = Some(error.into()),
        }
    }

    fn note_change(&mut self, name: &[u8], now: Option<Rc<Statement<T>>>, before: Option<Rc<Statement<T>>>) {
        if matches!(self.client, ClientStage::AskedRequest { .. }) {
            self.work.defining.note(name, now, before);
        }
    }

    /// SQL-level DEALLOCATE or DISCARD is about to be forwarded; as with `define`. `None`: all names.
    pub fn forget(&mut self, name: Option<&[u8]>) {
        match name {
            Some(name) => {
                let before = self.book.close_statement(name);
                self.note_change(name, None, before);
            }
            None => {
                for (name, before) in self.book.forget_statements() {
                    self.note_change(&name, None, Some(before));
                }
            }
        }
    }

    /// What was forwarded may give and take names where nobody sees it: what they stand for is unknown, whatever becomes of it.
    pub fn mistrust_names(&mut self) {
        self.book.mistrust_statements();
    }

    /// SQL that can make or replace a portal (DECLARE, CLOSE, COMMIT, ROLLBACK) was forwarded. `None`: any name.
    pub fn forget_portal(&mut self, name: Option<&[u8]>) {
        let Some(book) = self.book.made() else { return };
        match name {
            Some(name) => drop(book.close_portal(name)),
            None => book.drop_named_portals(),
        }
    }

    /// Queues a NoticeResponse for the client at the next message boundary.
    pub fn notice(&mut self, notice: &Refusal, pipes: &mut Pipes<'_>) {
        if self.life == Life::Alive {
            compose::report(&mut self.words.get_or_insert_default().deferred, Severity::Notice, notice);
            self.say_deferred(pipes);
        }
    }

    /// AuthenticationOk has passed to the client: it understands notices.
    fn client_is_admitted(&self) -> bool {
        self.admitted_early || matches!(self.login, LoginStage::AwaitReady | LoginStage::Open)
    }

    /// Sends waiting notices if the client's stream is between two messages and the client is past its login.
    pub(super) fn say_deferred(&mut self, pipes: &mut Pipes<'_>) {
        if self.target_stream.left > 0 || !self.client_is_admitted() {
            return;
        }
        if let Some(words) = self.words.take() {
            pipes.to_client.compose(|out| out.extend_from_slice(&words.deferred));
            // Nobody says his last words and then goes on.
            self.words = (!words.last.is_empty()).then_some(Box::new(Words { deferred: Vec::new(), ..*words }));
        }
    }

    /// Ends the session with a FATAL error for the client, at the next message boundary where one can still be read.
    pub fn fail(&mut self, refusal: &Refusal, pipes: &mut Pipes<'_>) {
        if self.words.as_ref().is_some_and(|words| !words.last.is_empty()) || self.client == ClientStage::AwaitHandshake
        {
            self.life = self.life.max_end();
            return;
        }
        let words = self.words.get_or_insert_default();
        compose::report(&mut words.last, Severity::Fatal, refusal);
        let between = self.target_stream.left == 0 || self.target_stream.drop;
        if between {
            pipes.to_client.compose(|out| out.extend_from_slice(&words.last));
            self.life = Life::Closed;
        } else if self.life == Life::Alive {
            self.life = Life::Ending;
        }
    }

    /// Passes the rest of the message the client is in the middle of, then the last words.
    fn step_ending(&mut self, pipes: &mut Pipes<'_>) -> Step {
        let len = self.target_stream.left.min(pipes.target.undecided().len());
        pipes.target.clear(len, pipes.to_client);
        self.target_stream.left -= len;
        if self.target_stream.left > 0 {
            return Step::NeedBytes;
        }
        let last = self.words.as_ref().map_or(&[][..], |words| &words.last);
        pipes.to_client.compose(|out| out.extend_from_slice(last));
        self.life = Life::Closed;
        Step::Closed
    }

    /// What the client has sent next waits for answers of the target: more of it would only pile up.
    pub fn client_waits(&self) -> bool {
        self.client_waits
    }

    /// Counts what the protocol did to portals that have a name: cursors of SQL have the same names.
    pub fn portals_named(&self) -> u64 {
        self.portals_named
    }

    /// What has been forwarded is answered now: of messages of the extended protocol the server keeps the answers until it is told to.
    pub fn flush(&mut self, pipes: &mut Pipes<'_>) {
        if self.life == Life::Alive && self.queue.is_inside_pipeline() {
            pipes.to_target.compose(compose::flush);
        }
    }

    /// The client has ended the session itself: what it has not been told by then it does not wait for.
    pub fn client_has_terminated(&self) -> bool {
        self.client == ClientStage::Terminated
    }

    /// No statement is running and no reply is outstanding.
    pub fn is_idle(&self) -> bool {
        self.client == ClientStage::Open
            && self.login == LoginStage::Open
            && self.status == TransactionStatus::Idle
            && !self.queue.ran
            && self.queue.is_idle()
            && self.work.news.is_empty()
            && self.work.told.is_none()
            && self.target_stream.left == 0
    }

    /// The connection has ended: ids of requests whose last outcome was not reported. Nothing is expected any more.
    pub fn abandon(&mut self) -> impl Iterator<Item = u64> + use<'_, T> {
        self.life = Life::Closed;
        let news = self.work.news.drain(..).filter(|outcome| outcome.last).map(|outcome| outcome.id);
        news.chain(self.queue.abandon())
    }

    /// Rows (and copy data) that were sent to the client for a statement that has not ended, and their bytes.
    pub fn sent(&self, id: u64) -> (u64, u64) {
        let runs = self.queue.front().and_then(Expected::id) == Some(id);
        if runs { (self.work.counts.messages, self.work.counts.bytes) } else { (0, 0) }
    }

    /// A hint for sizing buffers after NeedBytes: bytes of the undecided part that `side` waits for. No more than are
    /// there: any number helps.
    pub fn wanted(&self, side: Side, undecided: &[u8]) -> usize {
        let stream = match side {
            Side::Client => self.work.client_stream,
            Side::Target => self.target_stream,
        };
        if stream.left > 0 {
            return 0;
        }
        match super::frame::Header::peek(undecided, side) {
            Ok(Some(header)) => header.total,
            Ok(None) | Err(_) => 0,
        }
    }

    /// Derives SCRAM keys (slow: never on a shard). They arrive through `answer(Side::Target, Answer::Keys(..))`.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
        super::scram::derive(password, salt, iterations)
    }

    /// What the client sends is dropped until its next Sync, and so is a request that is held.
    pub fn is_skipping(&self) -> bool {
        self.queue.skipping != Skipping::No
    }
}

impl Life {
    fn max_end(self) -> Self {
        match self {
            Life::Alive | Life::Closed => Life::Closed,
            Life::Ending => Life::Ending,
        }
    }
}
