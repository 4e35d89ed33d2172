//! A caller of the session, as small as one can be: windows, a gate that decides by marker words, and every case run
//! whole, byte by byte and at seeded random splits, with the same result.
//!
//! Words in a statement: `DENY` is refused, `HOLD` is held until [`Turn::Release`]; `DENYRUN` is prepared but refused at
//! Execute. Columns named `mask*` are replaced with `***`, `null*` with NULL, `over*` overwritten in place with `x`.

use crate::wire::*;
use codecs::postgres::*;
use codecs::{Outgoing, Pipes, Side, Window};
use lockgate_codecs as codecs;
use std::fmt::Write as _;
use std::rc::Rc;

pub const LIMITS: SessionLimits = SessionLimits { request_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };

/// What a case does next.
#[derive(Clone, Debug)]
pub enum Turn {
    /// Bytes arrive from the client.
    Client(Vec<u8>),
    /// Bytes arrive from the target.
    Target(Vec<u8>),
    /// The held request is forwarded (`true`) or refused.
    Release(bool),
    /// The gate has something to say.
    Notice,
    Fail,
    ClientSecured,
    TargetSecured(Option<Vec<u8>>),
    TargetPlain,
}

pub fn c(messages: &[Vec<u8>]) -> Turn {
    Turn::Client(messages.concat())
}

pub fn t(messages: &[Vec<u8>]) -> Turn {
    Turn::Target(messages.concat())
}

/// How the gate of a case behaves.
#[derive(Clone)]
pub struct Manner {
    pub secure: bool,
    pub tls: bool,
    pub weakest: AuthMethod,
    pub describe: bool,
    /// Ask for the shape of a portal before each Execute.
    pub describe_portals: bool,
    pub watch_texts: bool,
    pub encrypted: bool,
    pub password: &'static str,
    pub admit: bool,
    /// Say a notice between believing the token and admitting.
    pub hold_admission: bool,
    pub limits: SessionLimits,
    /// Leave the target unconnected.
    pub connect: bool,
    pub client_process: i32,
    /// Bytes kept of each response.
    pub keep: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            secure: false,
            tls: false,
            weakest: AuthMethod::Trust,
            describe: true,
            describe_portals: false,
            watch_texts: false,
            encrypted: false,
            password: "secret",
            admit: true,
            hold_admission: false,
            limits: LIMITS,
            connect: true,
            client_process: 77,
            keep: 1 << 16,
        }
    }
}

/// Everything that came of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    pub to_client: Vec<u8>,
    pub to_target: Vec<u8>,
    /// Events of each side, one a line.
    pub client_log: String,
    pub target_log: String,
    pub error: Option<ProtocolError>,
    pub closed: bool,
    /// Of each outcome: its id, what was kept of its response, and whether that is cut.
    pub kept: Vec<(u64, Vec<u8>, bool)>,
    pub abandoned: Vec<u64>,
    /// Open, with nothing outstanding.
    pub idle: bool,
}

impl Came {
    pub fn client_said(&self) -> String {
        said(&self.to_client)
    }

    pub fn target_said(&self) -> String {
        said(&self.to_target)
    }

    /// What was kept of each response, `...` behind what was cut.
    pub fn kept(&self) -> Vec<String> {
        self.kept.iter().map(|(_, bytes, cut)| format!("{}{}", said(bytes), if *cut { "..." } else { "" })).collect()
    }

    /// Lines of the log of both sides that are outcomes, in order.
    pub fn outcomes(&self) -> Vec<&str> {
        let lines = self.client_log.lines().chain(self.target_log.lines());
        lines.filter(|line| line.starts_with("outcome")).collect()
    }
}

pub struct Rig {
    pub session: Session<Rc<str>>,
    manner: Manner,
    windows: [Vec<u8>; 2],
    outs: [Outgoing; 2],
    pub came: Came,
    next_id: u64,
    held: Option<(Rc<str>, RequestKind)>,
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Target => 1,
    }
}

pub fn refusal(message: &str) -> Refusal {
    Refusal { sqlstate: *b"42501", message: message.into(), detail: None, hint: None }
}

impl Rig {
    pub fn new(manner: Manner) -> Self {
        let mut session = Session::new(manner.limits, manner.encrypted);
        session.watch_texts(manner.watch_texts);
        session.keep_responses(manner.keep);
        Self {
            session,
            manner,
            windows: Default::default(),
            outs: Default::default(),
            came: Came::default(),
            next_id: 0,
            held: None,
        }
    }

    /// Calls the session with both windows, then does what a sender does: sends the pieces, drops what was decided.
    fn with<R>(&mut self, call: impl FnOnce(&mut Session<Rc<str>>, &mut Pipes<'_>) -> R) -> R {
        let [client, target] = &mut self.windows;
        let [to_client, to_target] = &mut self.outs;
        let mut pipes = Pipes { client: Window::new(client), target: Window::new(target), to_client, to_target };
        let result = call(&mut self.session, &mut pipes);
        let decided = [pipes.client.decided(), pipes.target.decided()];
        send(&mut self.outs[0], &self.windows[1], &mut self.came.to_client);
        send(&mut self.outs[1], &self.windows[0], &mut self.came.to_target);
        self.windows[0].drain(..decided[0]);
        self.windows[1].drain(..decided[1]);
        result
    }

    pub fn take(&mut self, turn: &Turn, chunks: &mut dyn FnMut(usize) -> usize) {
        match turn {
            Turn::Client(bytes) => self.feed(Side::Client, bytes, chunks),
            Turn::Target(bytes) => self.feed(Side::Target, bytes, chunks),
            Turn::Release(forward) => {
                let (tag, kind) = self.held.take().expect("nothing is held");
                let answer = if *forward { self.forward(tag, kind) } else { Answer::Refuse(refusal("denied")) };
                self.with(|session, pipes| session.answer(Side::Client, answer, pipes));
            }
            Turn::Notice => self.with(|session, pipes| session.notice(&refusal("wait"), pipes)),
            Turn::Fail => self.with(|session, pipes| session.fail(&refusal("over"), pipes)),
            Turn::ClientSecured => self.session.client_secured(),
            Turn::TargetSecured(binding) => self.with(|session, pipes| session.target_secured(binding.clone(), pipes)),
            Turn::TargetPlain => self.with(|session, pipes| session.target_plain(pipes)),
        }
        self.pump();
    }

    fn feed(&mut self, side: Side, mut bytes: &[u8], chunks: &mut dyn FnMut(usize) -> usize) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(chunks(bytes.len()).clamp(1, bytes.len()));
            self.windows[index(side)].extend_from_slice(now);
            bytes = later;
            self.pump();
        }
    }

    /// Steps both sides until neither has anything to say.
    fn pump(&mut self) {
        while self.came.error.is_none() {
            let client = self.run(Side::Client);
            let target = self.run(Side::Target);
            if !client && !target {
                break;
            }
        }
    }

    /// Steps one side until it waits. `true`: something happened.
    fn run(&mut self, side: Side) -> bool {
        let mut news = false;
        while self.came.error.is_none() {
            let mut masks = Masks::default();
            let step = self.with(|session, pipes| {
                // It may rest whenever it likes, and nobody notices.
                session.rest();
                session.step(side, pipes, &mut masks)
            });
            masks.shown.iter().for_each(|line| self.note(side, line));
            match step {
                Ok(Step::NeedBytes | Step::Held) => break,
                Ok(Step::Closed) => {
                    self.came.closed = true;
                    break;
                }
                Ok(Step::Event(event)) => {
                    news = true;
                    self.hear(side, event);
                }
                Err(error) => self.came.error = Some(error),
            }
        }
        news
    }

    fn note(&mut self, side: Side, line: &str) {
        let log = if side == Side::Client { &mut self.came.client_log } else { &mut self.came.target_log };
        writeln!(log, "{line}").expect("a String takes everything");
    }

    fn words(&self, side: Side, span: codecs::Span) -> String {
        String::from_utf8_lossy(&self.windows[index(side)][span.start as usize..span.end as usize]).into_owned()
    }

    /// Forwards, with names kept for `PREPARE name ...` and `DEALLOCATE name`.
    fn forward(&mut self, tag: Rc<str>, kind: RequestKind) -> Answer<Rc<str>> {
        self.next_id += 1;
        if kind != RequestKind::Parse {
            for statement in tag.split(';') {
                match statement.trim().split(' ').collect::<Vec<_>>()[..] {
                    ["PREPARE", name, ..] => self.session.define(name.as_bytes(), statement.trim().into()),
                    ["DEALLOCATE", "ALL"] => self.session.forget(None),
                    ["DEALLOCATE", name] => self.session.forget(Some(name.as_bytes())),
                    _ => {}
                }
            }
        }
        let describe = match kind {
            RequestKind::Parse => self.manner.describe,
            _ => self.manner.describe_portals,
        };
        Answer::Forward { id: self.next_id, tag, describe }
    }

    fn hear(&mut self, side: Side, event: Event) {
        let answer = match event {
            Event::Secure => {
                self.note(side, "secure?");
                Answer::Secure(self.manner.secure)
            }
            Event::Login(startup) => {
                let line = format!(
                    "login user={} database={} application={} replication={} oauth={} parameters={}",
                    startup.user,
                    startup.database,
                    startup.application_name,
                    startup.replication,
                    startup.oauth,
                    startup.parameters.len()
                );
                self.note(side, &line);
                Answer::AskCredential
            }
            Event::Cancel { process, secret } => return self.note(side, &format!("cancel {process} {secret:?}")),
            Event::Credential(span) => {
                let line = format!("credential {}", self.words(side, span));
                self.note(side, &line);
                return self.admit();
            }
            Event::TargetSecure(yes) => return self.note(side, &format!("target secure {yes}")),
            Event::DeriveKeys { salt, iterations } => {
                self.note(side, &format!("derive {} {iterations}", salt.len()));
                Answer::Keys(Session::<()>::derive(self.manner.password.as_bytes(), &salt, iterations))
            }
            Event::TargetRefused { sqlstate } => {
                self.note(side, &format!("target refused {}", String::from_utf8_lossy(&sqlstate)));
                Answer::Refuse(refusal("the target refused"))
            }
            Event::Opened => return self.note(side, "opened"),
            Event::Request(request) => return self.decide(&request),
            Event::Shape(kind) => self.plan(side, kind),
            Event::Outcome(outcome) => {
                let response = self.session.response();
                self.came.kept.push((outcome.id, response.bytes.to_vec(), response.cut));
                self.session.forget_response();
                // A side's outcome may be told by a step of the other: where it is noted must not depend on that.
                return self.note(Side::Target, &outcome_words(&outcome));
            }
            Event::Setting { name, value } => {
                let line = format!("setting {}={}", self.words(side, name), self.words(side, value));
                return self.note(side, &line);
            }
            Event::Ready { status } => return self.note(side, &format!("ready {status:?}")),
        };
        self.with(|session, pipes| session.answer(side, answer, pipes));
    }

    fn admit(&mut self) {
        if self.manner.hold_admission {
            self.with(|session, pipes| {
                session.answer(Side::Client, Answer::Hold, pipes);
                session.notice(&refusal("ask somebody"), pipes);
            });
        }
        let refuse = || Refusal { sqlstate: *b"28P01", ..refusal("who are you") };
        let answer = if self.manner.admit { Answer::Admit } else { Answer::Refuse(refuse()) };
        let admitted = self.manner.admit && self.manner.connect;
        self.with(|session, pipes| session.answer(Side::Client, answer, pipes));
        if admitted {
            let login = TargetLogin {
                user: "svc".into(),
                database: "shop".into(),
                password: Rc::new(self.manner.password.as_bytes().to_vec().into()),
                weakest: self.manner.weakest,
                tls: self.manner.tls,
                nonce: [3; 18],
                client_process: self.manner.client_process,
                client_secret: vec![1, 2, 3, 4],
            };
            self.with(|session, pipes| session.connect(login, pipes));
        }
    }

    fn decide(&mut self, request: &Request) {
        let text: Rc<str> = match request.kind {
            RequestKind::Execute { .. } => self.session.requested().cloned().unwrap_or_else(|| "?".into()),
            _ => self.words(Side::Client, request.text).into(),
        };
        // `EXECUTE name` is logged as what the name stands for.
        let text = match text.strip_prefix("EXECUTE ") {
            Some(name) => self.session.prepared(name.as_bytes()).cloned().unwrap_or_else(|| "unknown".into()),
            None => text,
        };
        let mut line = format!("request {:?} {text}", request.kind);
        for (value, binary) in self.session.binds().iter() {
            let value = value.map_or("NULL".into(), |value| String::from_utf8_lossy(value));
            write!(line, " ${value}{}", if binary { "b" } else { "" }).expect("a String takes everything");
        }
        if request.settings_in_doubt {
            line.push_str(" in doubt");
        }
        self.note(Side::Client, &line);
        let runs = matches!(request.kind, RequestKind::Execute { .. });
        let denied = if runs { text.contains("DENYRUN") } else { text.contains("DENY") && !text.contains("DENYRUN") };
        let answer = if denied {
            Answer::Refuse(refusal("denied"))
        } else if text.contains("HOLD") && (runs || request.kind == RequestKind::Query) {
            self.held = Some((text, request.kind));
            Answer::Hold
        } else {
            self.forward(text, request.kind)
        };
        self.with(|session, pipes| session.answer(Side::Client, answer, pipes));
    }

    fn plan(&mut self, side: Side, kind: ShapeKind) -> Answer<Rc<str>> {
        let names: Vec<_> =
            self.session.columns().iter().map(|column| String::from_utf8_lossy(&column.name).into_owned()).collect();
        let about = self.session.executing().cloned().unwrap_or_else(|| "?".into());
        self.note(side, &format!("shape {kind:?} {} of {about}", names.join(",")));
        if let ShapeKind::CopyOut { .. } = kind {
            return Answer::Watch(about.contains("MASK").then(|| [b'm'].into()));
        }
        let code = |name: &String| match name {
            name if name.starts_with("mask") => b'm',
            name if name.starts_with("null") => b'n',
            name if name.starts_with("over") => b'o',
            name if name.starts_with("keep") => b'k',
            _ => 0,
        };
        Answer::Watch(Some(names.iter().map(code).collect()))
    }

    fn end(mut self) -> Came {
        self.came.idle = self.session.is_idle();
        self.came.abandoned = self.session.abandon().collect();
        self.came
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    let end = match &outcome.end {
        End::Complete { rows: Some(rows) } => format!("complete {rows}"),
        End::Complete { rows: None } => "complete".into(),
        End::Empty => "empty".into(),
        End::Suspended => "suspended".into(),
        End::Error { sqlstate } => format!("error {}", String::from_utf8_lossy(sqlstate)),
        End::Skipped => "skipped".into(),
    };
    let last = if outcome.last { "" } else { " more" };
    format!("outcome {} {end} {}/{}{last}", outcome.id, outcome.messages, outcome.bytes)
}

fn send(out: &mut Outgoing, passing: &[u8], sent: &mut Vec<u8>) {
    for piece in out.pieces() {
        sent.extend_from_slice(match *piece {
            codecs::Piece::Pass { start, end } => &passing[start..end],
            codecs::Piece::Composed { start, end } => &out.composed()[start..end],
        });
    }
    out.reset();
}

/// A small generator: the same numbers for the same seed, everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }
}

fn run(manner: &Manner, turns: &[Turn], chunks: &mut dyn FnMut(usize) -> usize) -> Came {
    let mut rig = Rig::new(manner.clone());
    turns.iter().for_each(|turn| rig.take(turn, chunks));
    rig.end()
}

/// Runs a case in every way bytes can arrive and returns the one result.
pub fn check(manner: &Manner, turns: &[Turn]) -> Came {
    let whole = run(manner, turns, &mut |len| len);
    assert_eq!(run(manner, turns, &mut |_| 1), whole, "byte by byte");
    for seed in 1..=24 {
        let mut dice = Dice::new(seed);
        let split = run(manner, turns, &mut |len| 1 + dice.roll(len.min(40)));
        assert_eq!(split, whole, "split with seed {seed}");
    }
    if whole.error.is_none() && !whole.closed {
        let trailing = [turns, &[Turn::Client(vec![b'p', 0, 0]), Turn::Target(vec![b'N', 0, 0])]].concat();
        assert_eq!(run(manner, &trailing, &mut |len| len), whole, "with trailing bytes");
    }
    whole
}

/// Turns that open a session, so that what is sent afterwards is about statements.
pub fn opening() -> Vec<Turn> {
    vec![
        c(&[startup(0, &[("user", "ann"), ("database", "orders")])]),
        c(&[password("token")]),
        t(&[authentication(0, b""), key(5, &[9, 9, 9, 9]), ready(b'I')]),
    ]
}

/// Runs a case on an open session. What came before it opened is cut from both streams and logs.
pub fn check_open(manner: &Manner, turns: &[Turn]) -> Came {
    let before = run(manner, &opening(), &mut |len| len);
    let mut came = check(manner, &[&opening()[..], turns].concat());
    came.to_client.drain(..before.to_client.len());
    came.to_target.drain(..before.to_target.len());
    came.client_log.drain(..before.client_log.len());
    came.target_log.drain(..before.target_log.len());
    came
}

/// [`check_open`] with the usual manner; the session must be left with nothing outstanding.
pub fn settled(turns: &[Turn]) -> Came {
    let came = check_open(&Manner::default(), turns);
    assert_eq!(came.error, None);
    assert!(came.idle, "something is outstanding");
    came
}

/// Masks by a column's code, or by the words of a text.
#[derive(Default)]
struct Masks {
    shown: Vec<String>,
}

impl Watch<Rc<str>> for Masks {
    fn value(&mut self, value: Value, message: &mut [u8], _mark: Option<&Rc<str>>) -> ValueAnswer {
        let bytes = &mut message[value.span.start as usize..value.span.end as usize];
        let words = String::from_utf8_lossy(bytes).into_owned();
        self.shown.push(format!("value {:?} {words}", value.source));
        let code = match value.source {
            ValueSource::Cell { code, .. } | ValueSource::Copy { code, .. } => code,
            ValueSource::Text { .. } if words.contains("4111") => b'm',
            ValueSource::Text { .. } if words.contains("gone") => b'n',
            ValueSource::Text { .. } => b'k',
        };
        if code == b'o' {
            bytes.fill(b'x');
        }
        match code {
            b'm' => ValueAnswer::Replace(b"***".to_vec()),
            b'n' => ValueAnswer::Null,
            _ => ValueAnswer::Keep,
        }
    }
}
