//! The product as a state machine: identity, policy, hold, mask, journal around one protocol session. Pure.
//!
//! ```text
//!   Input --> take --> pump: Session::step --> Event --> login.rs | statement.rs | results.rs --> Answer
//!                               |-- values.rs (masks)              |-- Journal::append (before the answer)
//!   Output <-- poll <-- wishes
//! ```
//!
//! Order is the promise: a request is journalled before it is forwarded, an outcome before the message that tells of it
//! is cleared. A full journal leaves the bytes undecided ([`Retry`]) until there is room.

mod binds;
mod catalogues;
mod cursors;
mod free;
mod login;
mod masked;
mod meaning;
mod names;
mod reading;
mod record;
mod results;
mod seats;
mod settings;
mod statement;
mod told;
mod values;
mod verdict;
mod views;

use crate::approval::{Ruling, TicketId};
use crate::audit::Journal;
use crate::limits;
use crate::metrics::Fault;
use crate::shard::mailbox::{Catalogue, RelayId, SessionKey, ToControl};
use crate::shard::timers::NEVER;
use crate::snapshot::{Snapshot, Target};
use codecs::postgres::{Event, ProtocolError, Refusal, ScramKeys, Session, SessionLimits, Step};
use codecs::{Pipes, Side};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use cursors::Cursors;
pub use meaning::Shared;
use meaning::{Mark, Recent};
use reading::{Asked, Awaited};
pub use reading::{Read, ReadsHere, Unread};
use record::Identity;
pub use seats::Seats;
use statement::Held;
pub use statement::Standing;
use values::Masker;
use views::Met;

/// The shard's clock, read once a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic microseconds since the process started.
    pub mono_us: u64,
    /// Unix microseconds.
    pub unix_us: i64,
}

/// News for a gate.
pub enum Input {
    /// More bytes in the window of that side, or room where there was none: look (again).
    Bytes(Side),
    /// That side has closed its sending half or failed.
    Ended(Side),
    /// The target's socket is connected.
    Connected,
    /// No connection to the target: the reason, for the audit (the client reads a fixed text).
    ConnectFailed(String),
    /// A TLS handshake is complete. Target: tls-server-end-point binding (RFC 5929). `false` in `Result`: it failed.
    Secured {
        side: Side,
        binding: Option<Vec<u8>>,
    },
    TlsFailed {
        side: Side,
        reason: String,
    },
    /// A deadline asked for with [`Output::WakeAt`] has passed (or none has: harmless).
    Wake,
    /// The journal was full and has room again.
    JournalRoom,
    Ruling {
        ticket: TicketId,
        ruling: Ruling,
    },
    Keys(Result<ScramKeys, String>),
    Catalogue(Result<(i64, Arc<Catalogue>), String>),
    Read(Box<Read>),
    /// The client has left, which nobody has read yet: a ruling comes that nobody waits for.
    Left,
    /// The CancelRequest this connection brought has been passed on.
    Cancelled,
    /// `sessions kill`, or the shard drains.
    Kill(&'static str),
}

/// A gate's wish. Polled until `Idle` after every input; queued bytes (`to_client`, `to_target`) are sent first, in order.
pub enum Output {
    /// Connect to the target; answer with Connected or ConnectFailed.
    Connect(Arc<Target>),
    /// After the queued bytes for that side have been handed to the kernel, all its later bytes are TLS.
    StartTls(Side),
    /// After the queued bytes for that side have been sent, no more will follow: its sending half is shut down.
    Finish(Side),
    /// Only the latest counts; [`NEVER`]: no deadline. Monotonic microseconds.
    WakeAt(u64),
    /// Send what is queued, then close both sockets and drop the relay.
    Close,
    Idle,
}

/// What a gate may use during one call: borrowed from the shard.
pub struct Context<'a> {
    pub now: Now,
    pub snapshot: &'a Arc<Snapshot>,
    pub journal: &'a mut dyn Journal,
    /// Messages for the control thread, posted after the round's records are written.
    pub control: &'a mut Vec<ToControl>,
    pub shared: &'a mut Shared,
}

/// What a relay knows about its client when it starts.
pub struct Origin {
    pub shard: usize,
    pub relay: RelayId,
    pub client: std::net::SocketAddr,
    /// The listener offers TLS.
    pub tls_offered: bool,
    /// TLS is already up: the first byte was a ClientHello (direct TLS).
    pub encrypted: bool,
    /// Tokens over an unencrypted connection are accepted from beyond loopback.
    pub allow_plaintext: bool,
    /// The listener asks its clients for a certificate, which only TLS carries.
    pub certificate_required: bool,
    /// Monotonic microseconds by which the login must be complete, reckoned from the accept.
    pub login_by_us: u64,
    /// Random, fresh: session id, cancel secret and seed are cut from it.
    pub entropy: [u8; 42],
}

/// What a cancel request is for.
#[derive(PartialEq, Eq, Debug)]
pub enum Cancels {
    /// What runs at the target.
    Running,
    /// The held statement of that ticket.
    Held(TicketId),
    /// A statement that is not decided yet: ask again.
    Undecided,
}

/// What a relay drives. Two implementers: [`Gate`] and the bench's bare relay.
pub trait Drive {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>);
    fn poll(&mut self) -> Output;
    /// `false`: this side is held, more of its bytes would only pile up. A partial message is no reason to say so.
    fn wants(&self, side: Side) -> bool {
        let _ = side;
        true
    }
    /// It is idle, and nothing has come for a while: give back what only work needs.
    fn rest(&mut self) {}
    /// A cancel request has come for it.
    fn cancel(&mut self) -> Cancels {
        Cancels::Running
    }
    /// Nothing is running and nothing is owed: a draining shard may end this session now (with [`Input::Kill`]).
    fn idle(&self) -> bool {
        false
    }
}

/// Where a session is in its life. Named for what it awaits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Start-up and token.
    AwaitLogin,
    /// The target, to take the CancelRequest this connection brought. Clients read our close as the word that no cancel
    /// is under way any more: an earlier one would let it hit their next statement.
    AwaitCancel,
    /// A person's word that this session may be opened at all (just-in-time access).
    AwaitAccess,
    /// Connection to, TLS with and login at the target.
    AwaitTarget,
    /// Statements.
    Open,
    /// The last records, then nothing.
    Closing,
}

/// What could not be journalled and is tried again when there is room. Its bytes are still undecided.
enum Retry {
    Request(Asked),
    Ruling(Ruling),
    NotRun(statement::NotRun),
    Opened,
    Outcome(codecs::postgres::Outcome),
    /// A login was refused: the record, then the answer.
    Refuse {
        sqlstate: [u8; 5],
        reason: String,
    },
}

/// What a request waits for before it is decided. Its bytes are undecided.
enum Asking {
    /// What the target's catalogue says of its tables.
    Catalogue(Asked),
    /// What its text means, which is read elsewhere.
    Reading { request: codecs::postgres::Request, _awaited: Awaited },
}

/// A statement that was forwarded and has not ended.
struct OpenRequest {
    id: u64,
    started_us: u64,
    masked: u64,
    mark: Mark,
    /// [`Cursors::touched`] when it was forwarded.
    cursors_touched: u64,
}

/// What the client's connection is like.
#[derive(Clone, Copy)]
struct Channel {
    tls_offered: bool,
    encrypted: bool,
    /// Plaintext will do, or it never leaves this machine.
    plaintext_allowed: bool,
    certificate_required: bool,
}

impl Channel {
    fn new(origin: &Origin) -> Self {
        Self {
            tls_offered: origin.tls_offered,
            encrypted: origin.encrypted,
            plaintext_allowed: origin.allow_plaintext || origin.client.ip().is_loopback(),
            certificate_required: origin.certificate_required,
        }
    }

    /// A token may pass. A certificate is shown in a TLS handshake only: without one nobody gets past it, from loopback neither.
    fn may_carry_token(self) -> bool {
        self.encrypted || !self.certificate_required && self.plaintext_allowed
    }
}

/// One gateway session.
pub struct Gate {
    shard: u32,
    relay: RelayId,
    channel: Channel,
    /// Of the cancel key that the client is given: the process number once the target has told its own, and the secret.
    process: i32,
    secret: [u8; 4],
    /// What else must not be guessed is made from it.
    seed: [u8; 30],
    session: Session<Mark>,
    state: State,
    identity: Identity,
    /// Set when the token was accepted.
    view: Option<Rc<Met>>,
    /// When the token ends, Unix seconds.
    expires_at: i64,
    target: Option<Arc<Target>>,
    /// Where sessions are counted.
    seat: Option<Box<seats::Seat>>,
    /// The rules in the snapshot that `view` was made from.
    rules: u64,
    wishes: VecDeque<Output>,
    held: Option<Box<Held>>,
    retry_client: Option<Box<Retry>>,
    retry_target: Option<Box<Retry>>,
    /// A shape waits for the catalogue.
    awaiting_catalogue: Option<codecs::postgres::ShapeKind>,
    asking: Option<Box<Asking>>,
    /// Forwarded and not ended, oldest first.
    open: VecDeque<OpenRequest>,
    cursors: Cursors,
    /// What the protocol had done to portals, which have the same names, when that was last looked at.
    portals_named: u64,
    recent: Option<Box<Recent>>,
    /// Where the shard keeps what it knows of the target's catalogue; set with `view`.
    slot: catalogues::Slot,
    /// The shard's count of moved names of this target when the session began.
    names_moved_at_open: u64,
    /// This session has changed whom it runs as, or its search_path.
    own_names_moved: bool,
    /// A statement that changes the catalogue was released, and its transaction may still be open.
    ddl_open: bool,
    next_request: u64,
    statements: u64,
    opened_us: u64,
    /// `SessionOpened` is in the journal: `SessionClosed` is owed.
    recorded_open: bool,
    /// Monotonic microseconds after which no statement starts (token expiry, the grant's bound).
    ends_at_us: u64,
    /// Its time is over: it ends at the next quiet moment.
    overdue: bool,
    /// Why it ended, for the record.
    end_reason: Box<str>,
    /// Monotonic microseconds by which the login must be complete.
    login_deadline_us: u64,
    /// Monotonic microseconds; [`NEVER`]: no deadline was asked for.
    armed_wake_us: u64,
    standard_conforming_strings: bool,
    encodings: reading::Encodings,
}

impl Gate {
    pub fn new(origin: Origin, cx: &mut Context<'_>) -> Self {
        let limits =
            SessionLimits { request_bytes_max: limits::REQUEST_BYTES_MAX, row_bytes_max: limits::ROW_BYTES_MAX };
        let login_deadline_us = origin.login_by_us;
        let mut session = Session::new(limits, origin.encrypted);
        session.keep_responses(cx.shared.payload_bytes_max);
        let mut gate = Self {
            shard: origin.shard as u32,
            relay: origin.relay,
            channel: Channel::new(&origin),
            process: 0,
            secret: cut(&origin.entropy[8..12]),
            seed: cut(&origin.entropy[12..42]),
            session,
            identity: Identity::new(&origin),
            state: State::AwaitLogin,
            view: None,
            expires_at: 0,
            target: None,
            seat: None,
            rules: cx.snapshot.rules,
            wishes: VecDeque::new(),
            held: None,
            retry_client: None,
            retry_target: None,
            awaiting_catalogue: None,
            asking: None,
            open: VecDeque::new(),
            cursors: Cursors::default(),
            portals_named: 0,
            recent: None,
            slot: catalogues::Slot::default(),
            names_moved_at_open: 0,
            own_names_moved: false,
            ddl_open: false,
            next_request: 1,
            statements: 0,
            opened_us: cx.now.mono_us,
            recorded_open: false,
            ends_at_us: NEVER,
            overdue: false,
            end_reason: "".into(),
            login_deadline_us,
            armed_wake_us: NEVER,
            standard_conforming_strings: true,
            encodings: reading::Encodings::DEFAULT,
        };
        gate.arm(login_deadline_us);
        gate
    }

    /// The session's name in the trail, once it has one.
    pub fn session_id(&self) -> &str {
        self.identity.session()
    }

    /// What the control thread knows the session by, once it is open.
    fn key(&self) -> SessionKey {
        SessionKey { process: self.process, shard: self.shard, relay: self.relay }
    }

    fn take(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match input {
            Input::Bytes(_) => {}
            Input::Wake => self.armed_wake_us = NEVER,
            Input::Ended(side) => self.peer_ended(side, pipes, cx),
            Input::Connected => self.target_connected(pipes),
            Input::ConnectFailed(reason) => self.target_failed(*b"08001", &reason, pipes, cx),
            Input::Secured { side: Side::Client, .. } => {
                self.session.client_secured();
                self.channel.encrypted = true;
            }
            Input::Secured { side: Side::Target, binding } => self.session.target_secured(binding, pipes),
            Input::TlsFailed { side: Side::Client, reason } => {
                self.close(&format!("TLS with the client failed: {reason}"))
            }
            Input::TlsFailed { side: Side::Target, reason } => {
                self.target_failed(*b"08001", &format!("TLS with the target failed: {reason}"), pipes, cx)
            }
            Input::JournalRoom => {
                self.retry(Side::Client, pipes, cx);
                self.retry(Side::Target, pipes, cx);
            }
            Input::Ruling { ticket, ruling } => self.ruled(&ticket, ruling, pipes, cx),
            Input::Keys(keys) => self.keys_derived(keys, pipes, cx),
            Input::Cancelled => self.close("cancel request"),
            Input::Catalogue(catalogue) => self.catalogue_read(catalogue, pipes, cx),
            Input::Read(read) => self.text_read(*read, pipes, cx),
            Input::Left => self.held.iter_mut().for_each(|held| held.left = true),
            Input::Kill(reason) => {
                let refusal = refusal(b"57P01", "the session was ended by an administrator", None, None);
                self.cancel_open(cx);
                self.end(reason, &refusal, pipes);
            }
        }
    }

    /// Steps both sides until neither gets further.
    fn pump(&mut self, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.drive(Side::Client, pipes, cx);
        self.pump_from(Side::Target, pipes, cx);
        self.pump_from(Side::Client, pipes, cx);
    }

    /// Steps the side that has news, then the other one, then each in turn for as long as the other one got further.
    fn pump_from(&mut self, first: Side, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let mut side = first;
        // Replies may pass without a word to the gate and yet make room for what the client has waiting.
        while (self.drive(side, pipes, cx) || side == first) && self.session.may_move(side.other(), pipes) {
            side = side.other();
        }
    }

    /// Steps one side until it waits; says whether anything happened.
    fn drive(&mut self, side: Side, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> bool {
        let mut progressed = false;
        while self.may_step(side) {
            match self.step(side, pipes, cx) {
                Ok(Step::NeedBytes | Step::Held) => return progressed,
                Ok(Step::Closed) => {
                    self.close("closed");
                    return false;
                }
                Ok(Step::Event(event)) => {
                    progressed = true;
                    self.on_event(event, pipes, cx);
                }
                Err(error) => {
                    self.protocol_error(side, error, pipes, cx);
                    return true;
                }
            }
        }
        progressed
    }

    fn step(&mut self, side: Side, pipes: &mut Pipes<'_>, cx: &Context<'_>) -> Result<Step, ProtocolError> {
        let view = self.view.as_deref().map(Met::view);
        let utf8 = self.encodings.is_surely_utf8();
        let mut masker = Masker { view, token_key: &cx.snapshot.token_key, utf8, masked: 0 };
        let step = self.session.step(side, pipes, &mut masker);
        let masked = masker.masked;
        if masked > 0 {
            cx.shared.counters.masked_values.add(masked);
            if let Some(open) = self.open.front_mut() {
                open.masked += masked;
            }
        }
        step
    }

    fn may_step(&self, side: Side) -> bool {
        let waits = match side {
            // An outcome that waits for room comes before whatever the session would tell next, on either side.
            Side::Client => {
                let owed = matches!(self.retry_target.as_deref(), Some(Retry::Outcome(_)));
                owed || self.retry_client.is_some() || self.asking.is_some()
            }
            Side::Target => self.retry_target.is_some() || self.awaiting_catalogue.is_some(),
        };
        !waits && !matches!(self.state, State::AwaitCancel | State::Closing)
    }

    fn on_event(&mut self, event: Event, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match event {
            Event::Secure => self.secure(pipes),
            Event::Login(startup) => self.login(*startup, pipes, cx),
            Event::Cancel { process, secret } => {
                self.state = State::AwaitCancel;
                let waiter = Some(self.key().place());
                cx.control.push(ToControl::Cancel { process, secret, waiter });
            }
            Event::Credential(span) => self.credential(span, pipes, cx),
            Event::TargetSecure(accepted) => self.target_secure(accepted, pipes, cx),
            Event::DeriveKeys { salt, iterations } => self.derive_keys(salt, iterations, pipes, cx),
            Event::TargetRefused { sqlstate } => self.target_refused(sqlstate, pipes, cx),
            Event::Opened => self.opened(cx),
            Event::Request(request) => self.request(request.into(), pipes, cx),
            Event::Shape(kind) => self.shape(kind, pipes, cx),
            Event::Outcome(outcome) => self.outcome(outcome, cx),
            Event::Setting { name, value } => self.setting(pipes.target.at(name), pipes.target.at(value)),
            Event::Ready { status } => self.ready(status, cx),
        }
    }

    /// Tries again what the full journal turned away.
    fn retry(&mut self, side: Side, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let slot = match side {
            Side::Client => &mut self.retry_client,
            Side::Target => &mut self.retry_target,
        };
        match slot.take().map(|retry| *retry) {
            None => {}
            Some(Retry::Request(request)) => self.request(request, pipes, cx),
            Some(Retry::Ruling(ruling)) => self.apply_ruling(ruling, pipes, cx),
            Some(Retry::NotRun(not_run)) => self.not_run(not_run, pipes, cx),
            Some(Retry::Opened) => self.opened(cx),
            Some(Retry::Outcome(outcome)) => self.outcome(outcome, cx),
            Some(Retry::Refuse { sqlstate, reason }) => self.refuse_login(side, sqlstate, &reason, pipes, cx),
        }
    }

    /// After the bytes: deadlines, endings, and what is owed to the journal before the relay may go.
    fn settle(&mut self, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.state != State::Closing {
            self.check_deadlines(pipes, cx);
            self.let_held_go(cx);
        }
        if self.state == State::Closing {
            self.finish(cx);
        }
    }

    fn check_deadlines(&mut self, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let now = cx.now.mono_us;
        let journal_waits = self.retry_client.is_some() || self.retry_target.is_some();
        match self.state {
            State::AwaitLogin | State::AwaitTarget if journal_waits && now >= self.login_deadline_us => {
                cx.shared.counters.fault(Fault::Deadline);
                // Whatever was to be recorded of this login has not happened to the client: nothing is owed.
                return self.end("the journal had no room for the login", &login::journal_full(), pipes);
            }
            State::AwaitTarget if now >= self.login_deadline_us => {
                cx.shared.counters.fault(Fault::Deadline);
                return self.target_failed(*b"08001", "the target did not complete the login in time", pipes, cx);
            }
            State::AwaitLogin if now >= self.login_deadline_us => {
                cx.shared.counters.fault(Fault::Deadline);
                let late = refusal(b"08006", "the login took too long", None, None);
                self.end("login deadline", &late, pipes);
                return;
            }
            State::AwaitCancel if now >= self.login_deadline_us => return self.close("cancel deadline"),
            State::Open => {
                self.overdue |= now >= self.ends_at_us;
                // What runs may end; what is held will not begin any more, and what was sent ahead of its turn would begin after the end.
                let held = self.held.is_some() && self.open.is_empty();
                let ahead = self.open.len() > 1;
                if self.overdue && (self.session.is_idle() || held || ahead) {
                    self.cancel_open(cx);
                    let over = refusal(
                        b"57P01",
                        "the identity token has expired, or the grant's time is over",
                        None,
                        Some("connect again with a fresh token"),
                    );
                    self.end("the session's time is over", &over, pipes);
                    return;
                }
            }
            _ => {}
        }
        self.arm(match self.state {
            State::AwaitLogin | State::AwaitTarget | State::AwaitCancel => self.login_deadline_us,
            State::Open if !self.overdue => self.ends_at_us,
            _ => NEVER,
        });
    }

    fn arm(&mut self, at_us: u64) {
        if at_us != self.armed_wake_us {
            self.armed_wake_us = at_us;
            self.wishes.push_back(Output::WakeAt(at_us));
        }
    }

    /// A last message for the client, then the end.
    fn end(&mut self, reason: &str, refusal: &Refusal, pipes: &mut Pipes<'_>) {
        if self.state != State::Closing {
            self.session.fail(refusal, pipes);
            self.close(reason);
        }
    }

    /// No more bytes are decided. Records that are owed follow in `finish`.
    fn close(&mut self, reason: &str) {
        if self.state != State::Closing {
            self.state = State::Closing;
            self.end_reason = reason.into();
        }
    }

    /// Writes what is owed, then asks to be closed. A full journal delays the close, never the record.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if self.wishes.iter().any(|wish| matches!(wish, Output::Close)) {
            return;
        }
        if self.record_owed(cx).is_err() {
            return;
        }
        if let Some(held) = self.held.take() {
            cx.control.push(ToControl::Abandon(held.ticket));
        }
        self.seat = None;
        self.asking = None;
        self.wishes.push_back(Output::Close);
    }

    fn peer_ended(&mut self, side: Side, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        // What the peer said before it left still counts: a Terminate, a last CommandComplete.
        self.pump(pipes, cx);
        match side {
            Side::Client => self.client_left(cx),
            Side::Target if self.state == State::AwaitTarget => {
                self.target_failed(*b"08001", "the target closed the connection during login", pipes, cx)
            }
            // It said so itself: nothing is to be added.
            Side::Target if self.session.target_gave_up() => self.close("the target ended the session"),
            // Behind an Execute without Sync the target has said nothing yet, and says nothing more.
            Side::Target if self.session.client_has_terminated() => self.close(CLIENT_LEFT),
            Side::Target => {
                let lost = refusal(b"08006", "the connection to the target was lost", None, None);
                self.end("the target closed the connection", &lost, pipes);
            }
        }
    }

    /// A statement nobody waits for any more is cancelled: the target would run it to its end.
    fn client_left(&mut self, cx: &mut Context<'_>) {
        self.cancel_open(cx);
        self.close(CLIENT_LEFT);
    }

    fn cancel_open(&self, cx: &mut Context<'_>) {
        if self.state == State::Open && !self.open.is_empty() {
            let (process, secret) = (self.process, self.secret.to_vec());
            cx.control.push(ToControl::Cancel { process, secret, waiter: None });
        }
    }

    fn protocol_error(&mut self, side: Side, error: ProtocolError, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        use ProtocolError::{PipelinedBehindCopy, StatementDuringCopy};
        // What one side did may come out only when the other one speaks.
        let at_fault = error.side();
        cx.shared.counters.fault(match at_fault {
            Side::Client => Fault::ClientProtocol,
            Side::Target => Fault::TargetProtocol,
        });
        let reason = match error {
            ProtocolError::WeakAuthentication => "the target asks for less than its `require_auth` allows".to_owned(),
            error => format!("protocol violation by the {at_fault:?}: {error:?}"),
        };
        if side == Side::Target && self.state == State::AwaitTarget {
            return self.target_failed(*b"08004", &reason, pipes, cx);
        }
        let sqlstate = error.sqlstate();
        let message = match (error, &sqlstate, at_fault) {
            // The server's own words.
            (StatementDuringCopy { kind }, ..) => {
                format!("unexpected message type 0x{kind:02X} during COPY from stdin")
            }
            (PipelinedBehindCopy, ..) => "statements were sent behind COPY FROM STDIN before its data".to_owned(),
            (_, b"54000", _) => "the message is larger than the gateway accepts".to_owned(),
            (_, _, Side::Client) => "protocol violation".to_owned(),
            (_, _, Side::Target) => "the target violated the protocol".to_owned(),
        };
        self.end(&reason, &refusal(&sqlstate, &message, None, None), pipes);
    }
}

impl Drive for Gate {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.state == State::Closing {
            return self.finish(cx);
        }
        self.renew_plans(cx);
        match input {
            Input::Bytes(side) => self.pump_from(side, pipes, cx),
            news => {
                self.take(news, pipes, cx);
                self.pump(pipes, cx);
            }
        }
        self.settle(pipes, cx);
    }

    fn poll(&mut self) -> Output {
        self.wishes.pop_front().unwrap_or(Output::Idle)
    }

    fn wants(&self, side: Side) -> bool {
        let held_client = self.held.is_some()
            || self.session.client_waits()
            || matches!(self.state, State::AwaitTarget | State::AwaitAccess);
        self.may_step(side) && !(side == Side::Client && held_client)
    }

    /// As the server does it: what runs is cancelled, and what waits behind it runs or is skipped by the rules of the protocol. What is
    /// held is cancelled when nothing runs before it.
    fn cancel(&mut self) -> Cancels {
        let runs = !self.open.is_empty();
        match self.held.as_mut().filter(|_| self.state == State::Open) {
            Some(held) if runs => held.cancelled = true,
            Some(held) => {
                held.cancelled = false;
                return Cancels::Held(held.ticket.clone());
            }
            None if self.asking.is_some() && !runs => return Cancels::Undecided,
            None => {}
        }
        Cancels::Running
    }

    fn rest(&mut self) {
        if self.idle() {
            self.open = VecDeque::new();
            self.wishes.shrink_to_fit();
            // Judged again when it comes again.
            self.recent = None;
            self.session.rest();
        }
    }

    fn idle(&self) -> bool {
        let waits = self.held.is_some() || self.asking.is_some() || self.retry_client.is_some();
        self.state == State::Open && !waits && self.open.is_empty() && self.session.is_idle()
    }
}

/// Why a session ended whose client has gone.
const CLIENT_LEFT: &str = "the client closed the connection";

fn cut<const BYTES: usize>(entropy: &[u8]) -> [u8; BYTES] {
    entropy.try_into().expect("a stretch of that length")
}

/// A refusal from its parts.
fn refusal(sqlstate: &[u8; 5], message: &str, detail: Option<String>, hint: Option<&str>) -> Refusal {
    Refusal { sqlstate: *sqlstate, message: message.to_string(), detail, hint: hint.map(str::to_string) }
}
