//! One gateway session without sockets: a real gate, a real journal, and both ends played from bytes recorded once. What
//! a statement costs inside the gateway can be counted here to the instruction, on any machine.

use crate::trail::Trail;
use codecs::postgres::{Request, RequestKind};
use codecs::{Outgoing, Piece, Pipes, Side, Span, Window};
use lockgate::config;
use lockgate::gate::{Context, Drive, Gate, Input, Now, Origin, Output, Shared, Standing};
use lockgate::identity::development::{NewKey, SigningKey};
use lockgate::identity::{IssuerKeys, Jwks, Principal, Verifier};
use lockgate::policy::{Action, Policy, View};
use lockgate::shard::mailbox::{Catalogue, CatalogueTable, ToControl};
use lockgate::snapshot::{Snapshot, Target};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Unix seconds at which every session here begins.
const NOW_S: i64 = 1_790_000_000;
const TABLE_OID: u32 = 16_400;

const OFF: &str = r#"
[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
[[issuer]]
name = "bench"
issuer = "https://bench.example"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "jwks.json"
[[target]]
name = "postgres"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "postgres"
user = "svc"
password_env = "BENCH_PASSWORD"
tls = "disable"
[[grant]]
targets = ["postgres"]
"#;

const RULED: [&str; 10] =
    ["drop", "truncate", "alter", "grant", "revoke", "copy_program", "do", "vacuum", "lock", "comment"];

/// Ten deny rules of a class each.
pub fn ten_classes() -> String {
    let rule = |class| {
        format!(
            "[[rule]]\nname = \"no-{class}\"\ntargets = [\"postgres\"]\nclasses = [\"{class}\"]\naction = \"deny\"\n"
        )
    };
    RULED.map(rule).concat()
}

/// A deny rule of eight words.
pub const EIGHT_WORDS: &str = r#"
[[rule]]
name = "no-escape"
targets = ["postgres"]
words = ["pg_sleep", "dblink", "lo_import", "lo_export", "pg_read_file", "pg_ls_dir", "copy", "pg_write_file"]
action = "deny"
"#;

/// Every SELECT waits for somebody.
const ASKING: &str = r#"
[[rule]]
name = "ask"
targets = ["postgres"]
classes = ["select"]
action = "approve"
approvers = ["local"]
"#;

/// What `bench/side-by-side.sh` calls `on`, besides the audit: ten deny rules, masks on two columns, four detectors.
fn on() -> String {
    let mut text = OFF.to_string() + &ten_classes();
    text.push_str(
        "[[mask]]\ntargets = [\"postgres\"]\ncolumns = [\"pgbench_accounts.filler\", \"customers.card_number\"]\n",
    );
    text.push_str("detect = [\"card\", \"email\", \"ssn\", \"iban\"]\nstyle = \"last4\"\n");
    text
}

fn snapshot(text: &str) -> (Arc<Snapshot>, String) {
    let config = config::parse(text, Path::new("bench.toml")).expect("the bench's configuration");
    let key = SigningKey::generate(NewKey::Es256).expect("a key pair");
    let keys = Arc::new(Jwks::parse(key.jwks().to_string().as_bytes()).expect("our own key set"));
    let issuer = Arc::new(config.issuers[0].clone());
    let claims = serde_json::json!({
        "iss": "https://bench.example", "aud": "lockgate", "sub": "bench", "email": "bench@example.com",
        "groups": ["bench"], "exp": NOW_S + 360_000,
    });
    let target = Target {
        name: "postgres".into(),
        address: "127.0.0.1:5432".into(),
        resolved: vec!["127.0.0.1:5432".parse().expect("an address")],
        database: "postgres".into(),
        user: "svc".into(),
        password: Vec::new().into(),
        tls: None,
        server_name: "localhost".into(),
        require_auth: codecs::postgres::AuthMethod::Trust,
        connection_limit: None,
    };
    let snapshot = Snapshot {
        version: 1,
        rules: 1,
        targets: vec![Arc::new(target)],
        policy: Policy::compile(&config),
        verifier: Verifier::new(vec![IssuerKeys { issuer, keys, wanted: Arc::default() }]),
        token_key: masking::style::TokenKey([7; 32]),
    };
    (Arc::new(snapshot), key.token(&claims).expect("a token"))
}

fn message(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// Which features a session has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Features {
    /// Token login and a grant.
    Off,
    /// Besides: rules, masks and detectors, and each response is recorded (`payloads = "masked"`).
    On,
    /// The same, but that responses are not recorded (`payloads = "none"`).
    Unrecorded,
    /// The same, and the column that the statement reads is masked.
    Masked,
}

impl Features {
    fn snapshot(self) -> (Arc<Snapshot>, String) {
        match self {
            Features::Off => snapshot(OFF),
            Features::On | Features::Unrecorded | Features::Masked => snapshot(&on()),
        }
    }

    /// Bytes of each response that are recorded.
    fn payload_bytes_max(self) -> usize {
        match self {
            Features::Off | Features::Unrecorded => 0,
            Features::On | Features::Masked => 64 << 10,
        }
    }

    fn column(self) -> &'static Column {
        if self == Features::Masked { &FILLER } else { &ABALANCE }
    }
}

/// A column of `pgbench_accounts`, and one of its values.
struct Column {
    name: &'static str,
    number: i16,
    type_oid: u32,
    type_bytes: i16,
    value: &'static str,
}

const ABALANCE: Column = Column { name: "abalance", number: 3, type_oid: 23, type_bytes: 4, value: "0" };
const FILLER: Column = Column { name: "filler", number: 4, type_oid: 25, type_bytes: -1, value: "4111-1111-1111-1111" };

/// What a session with these features meets on the target.
pub fn view(features: Features) -> View {
    of_everybody(&features.snapshot().0)
}

/// The same with these rules, as the configuration file has them.
pub fn view_with(rules: &str) -> View {
    of_everybody(&snapshot(&format!("{OFF}{rules}")).0)
}

fn of_everybody(snapshot: &Snapshot) -> View {
    let principal = Principal {
        user: "bench@example.com".into(),
        subject: "bench".into(),
        issuer: "https://bench.example".into(),
        groups: vec!["bench".into()],
        actor: Vec::new(),
    };
    snapshot.policy.view("postgres", &principal).expect("everybody is granted the target")
}

/// What left the gate towards one side.
#[derive(Clone, Copy, Default, Debug)]
pub struct Left {
    pub bytes: u64,
    /// Stretches sent from where they were received, and those that the gate wrote itself.
    pub passed_pieces: u64,
    pub composed_pieces: u64,
}

impl Left {
    /// What has left since it was `earlier`.
    pub fn since(self, earlier: Left) -> Left {
        Left {
            bytes: self.bytes - earlier.bytes,
            passed_pieces: self.passed_pieces - earlier.passed_pieces,
            composed_pieces: self.composed_pieces - earlier.composed_pieces,
        }
    }

    fn add(&mut self, piece: &Piece) {
        match piece {
            Piece::Pass { start, end } => {
                self.passed_pieces += 1;
                self.bytes += (end - start) as u64;
            }
            Piece::Composed { start, end } => {
                self.composed_pieces += 1;
                self.bytes += (end - start) as u64;
            }
        }
    }
}

/// What a gate is lent of the shard it runs in.
struct Shard {
    now: Now,
    snapshot: Arc<Snapshot>,
    trail: Trail,
    control: Vec<ToControl>,
    shared: Shared,
}

impl Shard {
    fn context(&mut self) -> Context<'_> {
        let (now, journal) = (self.now, &mut self.trail.writer);
        Context { now, snapshot: &self.snapshot, journal, control: &mut self.control, shared: &mut self.shared }
    }
}

/// An open session with one prepared statement.
pub struct Rig {
    gate: Gate,
    shard: Shard,
    windows: [Vec<u8>; 2],
    out: [Outgoing; 2],
    /// What the client sends and the target answers for one execution.
    execution: Vec<u8>,
    answer: Vec<u8>,
    query: Vec<u8>,
    query_answer: Vec<u8>,
    /// Towards client and target.
    pub left: [Left; 2],
    statements: u64,
}

impl Rig {
    /// Logs in and prepares; the journal lies in `directory`.
    pub fn open(features: Features, directory: &Path) -> Self {
        Self::open_under(features.snapshot(), features, directory)
    }

    /// With [`Features::Off`] and these rules, as the configuration file has them.
    pub fn open_with(rules: &str, directory: &Path) -> Self {
        Self::open_under(snapshot(&format!("{OFF}{rules}")), Features::Off, directory)
    }

    /// With an execution of the prepared statement that waits for somebody: its mark is what [`Self::verdict`] on an Execute finds.
    pub fn open_waiting(directory: &Path) -> Self {
        let mut rig = Self::open_with(ASKING, directory);
        let execution = execution();
        rig.deliver(Side::Client, &execution);
        rig
    }

    fn open_under((snapshot, token): (Arc<Snapshot>, String), features: Features, directory: &Path) -> Self {
        let trail = Trail::open(directory, NOW_S * 1_000_000).expect("the directory can be written");
        let origin = Origin {
            shard: 0,
            relay: 1,
            client: "127.0.0.1:50000".parse().expect("an address"),
            tls_offered: false,
            encrypted: false,
            allow_plaintext: false,
            certificate_required: false,
            login_by_us: 30_000_000,
            entropy: [5; 42],
        };
        let now = Now { mono_us: 1_000, unix_us: NOW_S * 1_000_000 };
        let mut shared = Shared::default();
        shared.payload_bytes_max = features.payload_bytes_max();
        shared.login_timeout_us = 30_000_000;
        let mut shard = Shard { now, snapshot, trail, control: Vec::new(), shared };
        let gate = Gate::new(origin, &mut shard.context());
        let mut rig = Self {
            gate,
            shard,
            windows: Default::default(),
            out: Default::default(),
            execution: execution(),
            answer: answer(features.column()),
            query: query(features.column()),
            query_answer: query_answer(features.column()),
            left: Default::default(),
            statements: 0,
        };
        rig.log_in(&token, features);
        rig
    }

    fn log_in(&mut self, token: &str, features: Features) {
        let mut bytes = Vec::new();
        let body = b"\0\x03\0\0user\0bench\0database\0postgres\0application_name\0pgbench\0\0";
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        self.deliver(Side::Client, &bytes);
        bytes.clear();
        message(&mut bytes, b'p', &[token.as_bytes(), b"\0"].concat());
        self.deliver(Side::Client, &bytes);
        self.input(Input::Connected);
        bytes.clear();
        message(&mut bytes, b'R', &0u32.to_be_bytes());
        message(&mut bytes, b'S', b"client_encoding\0UTF8\0");
        message(&mut bytes, b'S', b"standard_conforming_strings\0on\0");
        message(&mut bytes, b'K', &[0, 0, 0, 7, 0, 0, 0, 9]);
        message(&mut bytes, b'Z', b"I");
        self.deliver(Side::Target, &bytes);
        bytes.clear();
        let text = format!("SELECT {} FROM pgbench_accounts WHERE aid = $1;", features.column().name);
        message(&mut bytes, b'P', &[b"P0_1\0", text.as_bytes(), b"\0\0\0"].concat());
        message(&mut bytes, b'S', b"");
        self.deliver(Side::Client, &bytes);
        bytes.clear();
        message(&mut bytes, b'1', b"");
        if features != Features::Off {
            // Under masks the gate itself asks for the statement's columns.
            message(&mut bytes, b't', &[0, 1, 0, 0, 0, 23]);
            message(&mut bytes, b'T', &description(features.column()));
        }
        message(&mut bytes, b'Z', b"I");
        self.deliver(Side::Target, &bytes);
        assert!(self.left.iter().all(|left| left.bytes > 0), "the session did not open");
    }

    /// One execution of the prepared statement, there and back: `Bind Describe Execute Sync` as libpq sends it.
    pub fn prepared(&mut self) {
        let (sent, answer) = (std::mem::take(&mut self.execution), std::mem::take(&mut self.answer));
        self.round(&sent, &answer);
        (self.execution, self.answer) = (sent, answer);
    }

    /// The same statement as simple Query whose constant is new each time.
    pub fn simple(&mut self) {
        let (mut sent, answer) = (std::mem::take(&mut self.query), std::mem::take(&mut self.query_answer));
        let end = sent.len() - 2;
        let mut number = self.statements;
        for digit in sent[end - 6..end].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.round(&sent, &answer);
        (self.query, self.query_answer) = (sent, answer);
    }

    /// The same simple Query again and again.
    pub fn repeated(&mut self) {
        let (sent, answer) = (std::mem::take(&mut self.query), std::mem::take(&mut self.query_answer));
        self.round(&sent, &answer);
        (self.query, self.query_answer) = (sent, answer);
    }

    fn round(&mut self, sent: &[u8], answer: &[u8]) {
        let before = self.left;
        self.deliver(Side::Client, sent);
        self.commit();
        self.deliver(Side::Target, answer);
        self.commit();
        self.statements += 1;
        let moved = [self.left[0].since(before[0]).bytes, self.left[1].since(before[1]).bytes];
        assert_eq!(moved, [answer.len() as u64, sent.len() as u64], "the statement did not pass");
    }

    /// What a shard does between a round's statements and its sends, and once a commit interval: ten statements a round and a hundred an
    /// interval (5 ms) is 20,000 a second.
    fn commit(&mut self) {
        let writer = &mut self.shard.trail.writer;
        if self.statements.is_multiple_of(10) {
            writer.keep().expect("there is room on disk");
        }
        if self.statements.is_multiple_of(100) {
            writer.write().expect("there is room on disk");
        }
    }

    /// The identity check that every statement begins with.
    #[inline]
    pub fn standing(&self) -> Standing {
        self.gate.standing(self.shard.now, &self.shard.snapshot)
    }

    /// What the gate finds out about a request before it records it and sends it on. `text`: of a Query or Parse.
    #[inline]
    pub fn verdict(&mut self, kind: RequestKind, text: &mut [u8]) -> Action {
        let request = Request { kind, text: Span { start: 0, end: text.len() as u32 }, settings_in_doubt: false };
        let [to_client, to_target] = &mut self.out;
        let target = Window::new(&mut self.windows[Side::Target as usize]);
        let mut pipes = Pipes { client: Window::new(text), target, to_client, to_target };
        self.gate.verdict(request, &mut pipes, &mut self.shard.context()).expect("a short text")
    }

    /// Texts that were parsed so far.
    pub fn parsed_texts(&self) -> u64 {
        self.shard.shared.counters.parsed_texts.value()
    }

    /// Values that were masked so far.
    pub fn masked_values(&self) -> u64 {
        self.shard.shared.counters.masked_values.value()
    }

    /// Prepares the next segments, as the sealer does on a thread of its own. Not part of a statement.
    pub fn keep_segments(&mut self) {
        self.shard.trail.keep().expect("there is room on disk");
    }

    fn deliver(&mut self, side: Side, bytes: &[u8]) {
        self.windows[side as usize].extend_from_slice(bytes);
        self.input(Input::Bytes(side));
    }

    fn input(&mut self, input: Input) {
        self.shard.now.mono_us += 20;
        self.shard.now.unix_us += 20;
        let [client, target] = &mut self.windows;
        let [to_client, to_target] = &mut self.out;
        let mut pipes = Pipes { client: Window::new(client), target: Window::new(target), to_client, to_target };
        self.gate.handle(input, &mut pipes, &mut self.shard.context());
        let decided = [pipes.client.decided(), pipes.target.decided()];
        for (side, out) in self.out.iter_mut().enumerate() {
            out.pieces().iter().for_each(|piece| self.left[side].add(piece));
            out.reset();
        }
        for (window, decided) in self.windows.iter_mut().zip(decided) {
            window.copy_within(decided.., 0);
            window.truncate(window.len() - decided);
        }
        while !matches!(self.gate.poll(), Output::Idle) {}
        while let Some(wish) = self.shard.control.pop() {
            if matches!(wish, ToControl::Catalogue { .. }) {
                return self.input(Input::Catalogue(Ok((self.shard.now.unix_us, catalogue()))));
            }
        }
    }
}

fn catalogue() -> Arc<Catalogue> {
    let names = ["aid", "bid", "abalance", "filler"];
    let columns = names.iter().enumerate().map(|(index, name)| (index as i16 + 1, name.to_string())).collect();
    let table = CatalogueTable { schema: "public".into(), name: "pgbench_accounts".into(), columns };
    Arc::new(Catalogue { tables: HashMap::from([(TABLE_OID, table)]) })
}

fn execution() -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x0590449\0\0");
    message(&mut bytes, b'D', b"P\0");
    message(&mut bytes, b'E', b"\0\0\0\0\0");
    message(&mut bytes, b'S', b"");
    bytes
}

fn description(column: &Column) -> Vec<u8> {
    let mut body = [b"\0\x01", column.name.as_bytes(), b"\0"].concat();
    body.extend_from_slice(&TABLE_OID.to_be_bytes());
    body.extend_from_slice(&column.number.to_be_bytes());
    body.extend_from_slice(&column.type_oid.to_be_bytes());
    body.extend_from_slice(&column.type_bytes.to_be_bytes());
    body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0]);
    body
}

fn result(bytes: &mut Vec<u8>, column: &Column) {
    message(bytes, b'T', &description(column));
    let bytes_of_value = (column.value.len() as u32).to_be_bytes();
    message(bytes, b'D', &[b"\0\x01", &bytes_of_value[..], column.value.as_bytes()].concat());
    message(bytes, b'C', b"SELECT 1\0");
    message(bytes, b'Z', b"I");
}

fn answer(column: &Column) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, b'2', b"");
    result(&mut bytes, column);
    bytes
}

fn query(column: &Column) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = format!("SELECT {} FROM pgbench_accounts WHERE aid = 000000;\0", column.name);
    message(&mut bytes, b'Q', text.as_bytes());
    bytes
}

fn query_answer(column: &Column) -> Vec<u8> {
    let mut bytes = Vec::new();
    result(&mut bytes, column);
    bytes
}
