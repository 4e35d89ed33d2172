//! One record of the trail, owned: what a frame's view says, and what a row of the archive says. Pure.

use super::encode::{Encoder, Room};
use super::payload::Walk;
use super::record::{CUT_PAYLOAD, EventRow, Kind, OutcomeRow, RequestRow, View};
use super::{Entry, Outcome, Request, Who};
use rkyv::util::AlignedVec;

/// Every field of a record, whichever kind it is; those its kind does not have are empty or zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub shard: u32,
    pub sequence: u64,
    pub time_us: i64,
    pub kind: Kind,
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub client: String,
    pub application: String,
    pub claimed_user: String,
    /// The number of the statement in its session; 0 where there is none.
    pub request: u64,
    pub statement: Vec<u8>,
    pub statement_bytes: u64,
    pub binds: Vec<Option<String>>,
    /// One bit each, as in `masking::sql::Classes`.
    pub classes: u64,
    pub tables: Vec<String>,
    pub decision: String,
    pub rule: String,
    pub ticket: String,
    pub rows: u64,
    pub bytes: u64,
    pub duration_us: u64,
    pub masked: u64,
    pub error: String,
    pub payload: Vec<u8>,
    pub more: bool,
    pub statements: u64,
    /// The grant, the SQLSTATE or the ruling.
    pub what: String,
    /// Who ruled.
    pub by: String,
    pub detail: String,
    /// Bits `CUT_*`.
    pub cut: u8,
}

fn owned<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    texts.map(str::to_owned).collect()
}

impl Row {
    pub fn empty(kind: Kind) -> Self {
        Self {
            shard: 0,
            sequence: 0,
            time_us: 0,
            kind,
            session: String::new(),
            user: String::new(),
            groups: Vec::new(),
            actor: Vec::new(),
            target: String::new(),
            client: String::new(),
            application: String::new(),
            claimed_user: String::new(),
            request: 0,
            statement: Vec::new(),
            statement_bytes: 0,
            binds: Vec::new(),
            classes: 0,
            tables: Vec::new(),
            decision: String::new(),
            rule: String::new(),
            ticket: String::new(),
            rows: 0,
            bytes: 0,
            duration_us: 0,
            masked: 0,
            error: String::new(),
            payload: Vec::new(),
            more: false,
            statements: 0,
            what: String::new(),
            by: String::new(),
            detail: String::new(),
            cut: 0,
        }
    }

    pub fn of(shard: u32, sequence: u64, view: &View<'_>) -> Self {
        let who = view.who();
        let mut row = Self {
            shard,
            sequence,
            time_us: view.time_us(),
            session: who.session().to_owned(),
            user: who.user().to_owned(),
            groups: owned(who.groups()),
            actor: owned(who.actor()),
            target: who.target().to_owned(),
            client: who.client().to_owned(),
            application: who.application().to_owned(),
            claimed_user: who.claimed_user().to_owned(),
            request: view.request(),
            cut: view.cut(),
            ..Self::empty(view.kind())
        };
        match view {
            View::Request(view) => row.fill_request(view),
            View::Outcome(view) => row.fill_outcome(view),
            View::Event(_, view) => row.fill_event(view),
        }
        row
    }

    fn fill_request(&mut self, view: &RequestRow<'_>) {
        self.statement = view.statement().to_vec();
        self.statement_bytes = view.statement_bytes();
        self.binds = view.binds().map(|bind| bind.map(str::to_owned)).collect();
        self.classes = view.classes();
        self.tables = owned(view.tables());
        self.decision = view.decision().to_owned();
        self.rule = view.rule().to_owned();
        self.ticket = view.ticket().to_owned();
    }

    fn fill_outcome(&mut self, view: &OutcomeRow<'_>) {
        (self.rows, self.bytes) = (view.rows(), view.bytes());
        (self.duration_us, self.masked) = (view.duration_us(), view.masked());
        self.error = view.error().to_owned();
        self.payload = view.payload().to_vec();
        self.more = view.more();
    }

    fn fill_event(&mut self, view: &EventRow<'_>) {
        (self.duration_us, self.statements) = (view.duration_us(), view.statements());
        self.what = view.what().to_owned();
        self.ticket = view.ticket().to_owned();
        self.by = view.by().to_owned();
        self.detail = view.detail().to_owned();
    }
}

/// Rows as the records they were: whoever reads records reads these.
pub struct Rows {
    /// Shard and sequence of each.
    ids: Vec<(u32, u64)>,
    bytes: AlignedVec<16>,
}

impl Rows {
    pub fn new(rows: Vec<Row>) -> Self {
        let mut encoder = Encoder::new(Room::of_segment(usize::MAX));
        let (mut ids, mut bytes) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            ids.push((row.shard, row.sequence));
            row.encode(&mut encoder, &mut bytes);
        }
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(&bytes);
        Self { ids, bytes: aligned }
    }

    pub fn views(&self) -> impl Iterator<Item = (u32, u64, View<'_>)> {
        let records = self.ids.iter().zip(Walk::new(&self.bytes));
        records.filter_map(|(&(shard, sequence), view)| Some((shard, sequence, view.ok()?)))
    }
}

impl Row {
    /// Appends the record it was, byte for byte.
    fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let who = Who {
            session: &self.session,
            user: &self.user,
            groups: &self.groups,
            actor: &self.actor,
            target: &self.target,
            client: &self.client,
            application: &self.application,
            claimed_user: &self.claimed_user,
            packed: None,
        };
        let binds: Vec<Option<&str>> = self.binds.iter().map(Option::as_deref).collect();
        encoder.encode(self.time_us, &who, &self.entry(&binds), out);
        // What was shortened when it was recorded is not shortened now.
        let cut_from_end = if self.kind == Kind::Outcome { 7 } else { 8 };
        let at = out.len() - cut_from_end;
        out[at] = self.cut;
    }

    fn entry<'a>(&'a self, binds: &'a [Option<&'a str>]) -> Entry<'a> {
        match self.kind {
            Kind::Request => Entry::Request(Request {
                request: self.request,
                statement: &self.statement,
                statement_bytes: self.statement_bytes,
                binds,
                classes: self.classes,
                tables: &self.tables,
                decision: &self.decision,
                rule: &self.rule,
                ticket: &self.ticket,
            }),
            Kind::Outcome => Entry::Outcome(Outcome {
                request: self.request,
                rows: self.rows,
                bytes: self.bytes,
                duration_us: self.duration_us,
                error: &self.error,
                masked: self.masked,
                more: self.more,
                payload: &self.payload,
                payload_cut: self.cut & CUT_PAYLOAD != 0,
            }),
            Kind::SessionOpened => Entry::SessionOpened { grant: &self.what, settings: &self.detail },
            Kind::LoginRefused => {
                let mut sqlstate = *b"XX000";
                if let Ok(said) = self.what.as_bytes().try_into() {
                    sqlstate = said;
                }
                Entry::LoginRefused { sqlstate, reason: &self.detail }
            }
            Kind::Ruling => Entry::Ruling {
                request: self.request,
                ticket: &self.ticket,
                ruling: &self.what,
                by: &self.by,
                reason: &self.detail,
            },
            Kind::SessionClosed => Entry::SessionClosed {
                reason: &self.detail,
                duration_us: self.duration_us,
                statements: self.statements,
            },
            Kind::Gateway => Entry::Gateway { detail: &self.detail },
        }
    }
}
