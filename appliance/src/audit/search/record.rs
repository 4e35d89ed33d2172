//! A record as users see it: a statement's request with its outcomes and rulings, or one other thing that happened.

use crate::audit::record::{
    CUT_BINDS, CUT_PAYLOAD, CUT_STATEMENT, CUT_TABLES, CUT_TEXT, EventRow, Kind, OutcomeRow, RequestRow, View,
};
use crate::audit::response::Payload;
use crate::audit::{printable, when};
use masking::sql::{Class, Classes};
use serde::{Serialize, Serializer};

/// One line of `lockgate audit search`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Record {
    /// `<shard>-<sequence>` of the first record it is made of.
    pub id: String,
    #[serde(rename = "time", serialize_with = "as_rfc3339")]
    pub time_us: i64,
    /// `statement session login ruling gateway`.
    pub kind: &'static str,
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub client: String,
    pub application: String,
    pub statement: Option<String>,
    pub binds: Vec<Option<String>>,
    pub classes: Vec<&'static str>,
    pub tables: Vec<String>,
    /// A statement's verdict, or how a ruling went.
    pub decision: Option<String>,
    pub rule: Option<String>,
    pub ticket: Option<String>,
    /// Null, like the other numbers, for as long as the statement runs.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub duration_us: Option<u64>,
    /// SQLSTATE, `skipped` or `disconnected`.
    pub error: Option<String>,
    pub masked: Option<u64>,
    pub claimed_user: String,
    /// What else there is to say, in words.
    pub detail: Option<String>,
    pub shard: u32,
    pub sequence: u64,
    /// Length of the whole statement, when the record holds only its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_bytes: Option<u64>,
    /// What was shortened to fit into a record: `statement binds tables text`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<&'static str>,
    /// The response as the client saw it; only `show` and `replay` ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// How the ruling on the statement went: `approved rejected expired abandoned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruling: Option<String>,
    /// Nothing more is to come.
    #[serde(skip)]
    pub complete: bool,
    /// Who ruled; `None`: nobody did.
    #[serde(skip)]
    pub by: Option<String>,
    #[serde(skip)]
    pub(super) request: u64,
}

fn as_rfc3339<S: Serializer>(time_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&when::rfc3339(*time_us))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn owned<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    texts.map(str::to_owned).collect()
}

pub(super) fn class_names(classes: u64) -> Vec<&'static str> {
    Classes(classes).iter().map(Class::name).collect()
}

fn cut_names(cut: u8) -> Vec<&'static str> {
    let names = [(CUT_STATEMENT, "statement"), (CUT_BINDS, "binds"), (CUT_TABLES, "tables"), (CUT_TEXT, "text")];
    names.into_iter().filter(|(bit, _)| cut & bit != 0).map(|(_, name)| name).collect()
}

/// `statement session login ruling gateway`; an outcome is part of its statement.
pub(in crate::audit) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Request | Kind::Outcome => "statement",
        Kind::SessionOpened | Kind::SessionClosed => "session",
        Kind::LoginRefused => "login",
        Kind::Ruling => "ruling",
        Kind::Gateway => "gateway",
    }
}

impl Record {
    /// `None`: an outcome, which belongs to a request.
    pub(in crate::audit) fn new(shard: u32, sequence: u64, view: &View<'_>) -> Option<Self> {
        let kind = match view.kind() {
            Kind::Outcome => return None,
            kind => kind_name(kind),
        };
        let who = view.who();
        let mut record = Self {
            id: format!("{shard}-{sequence}"),
            time_us: view.time_us(),
            kind,
            session: who.session().to_owned(),
            user: who.user().to_owned(),
            groups: owned(who.groups()),
            actor: owned(who.actor()),
            target: who.target().to_owned(),
            client: who.client().to_owned(),
            application: who.application().to_owned(),
            statement: None,
            binds: Vec::new(),
            classes: Vec::new(),
            tables: Vec::new(),
            decision: None,
            rule: None,
            ticket: None,
            rows: None,
            bytes: None,
            duration_us: None,
            error: None,
            masked: None,
            claimed_user: who.claimed_user().to_owned(),
            detail: None,
            shard,
            sequence,
            statement_bytes: None,
            cut: cut_names(view.cut()),
            payload: None,
            ruling: None,
            complete: true,
            by: None,
            request: view.request(),
        };
        match view {
            View::Request(row) => record.fill_statement(row),
            View::Event(kind, row) => record.fill_event(*kind, row),
            View::Outcome(_) => return None,
        }
        Some(record)
    }

    fn fill_statement(&mut self, row: &RequestRow<'_>) {
        self.statement = Some(printable::bytes(row.statement()));
        self.statement_bytes = (row.statement_bytes() > row.statement().len() as u64).then(|| row.statement_bytes());
        self.binds = row.binds().map(|bind| bind.map(str::to_owned)).collect();
        self.classes = class_names(row.classes());
        self.tables = owned(row.tables());
        self.decision = some(row.decision());
        self.rule = some(row.rule());
        self.ticket = some(row.ticket());
        // What is denied never runs.
        self.complete = row.decision() == "deny";
    }

    fn fill_event(&mut self, kind: Kind, row: &EventRow<'_>) {
        match kind {
            Kind::SessionOpened => {
                let begins = if row.detail().is_empty() { "" } else { ", which begins with " };
                self.detail = Some(format!("opened by grant {}{begins}{}", row.what(), row.detail()));
            }
            Kind::SessionClosed => {
                self.detail = Some(format!("closed after {} statements: {}", row.statements(), row.detail()));
                self.duration_us = Some(row.duration_us());
            }
            Kind::LoginRefused => (self.error, self.detail) = (some(row.what()), some(row.detail())),
            Kind::Ruling => {
                (self.decision, self.ticket, self.by) = (some(row.what()), some(row.ticket()), some(row.by()));
                self.detail = Some(ruling_text(row));
            }
            Kind::Request | Kind::Outcome | Kind::Gateway => self.detail = some(row.detail()),
        }
    }

    pub(in crate::audit) fn add_outcome(&mut self, row: &OutcomeRow<'_>, payloads: bool) {
        let sum = |sum: Option<u64>, more: u64| Some(sum.unwrap_or(0).saturating_add(more));
        self.rows = sum(self.rows, row.rows());
        self.bytes = sum(self.bytes, row.bytes());
        self.masked = sum(self.masked, row.masked());
        self.duration_us = Some(row.duration_us().max(self.duration_us.unwrap_or(0)));
        self.error = self.error.take().or_else(|| some(row.error()));
        self.complete = !row.more();
        if payloads && !row.payload().is_empty() {
            self.payload.get_or_insert_default().push(row.payload(), row.cut() & CUT_PAYLOAD != 0);
        }
    }

    pub(in crate::audit) fn add_ruling(&mut self, row: &EventRow<'_>) {
        self.ticket = self.ticket.take().or_else(|| some(row.ticket()));
        let text = format!("{} {}", row.what(), ruling_text(row));
        self.detail = Some(match self.detail.take() {
            Some(before) => format!("{before}; {text}"),
            None => text,
        });
        self.ruling = some(row.what());
        // Rejected, expired or abandoned: it never runs.
        self.complete |= row.what() != "approved";
    }
}

fn ruling_text(row: &EventRow<'_>) -> String {
    match (row.by(), row.detail()) {
        ("", reason) => reason.to_owned(),
        (by, "") => format!("by {by}"),
        (by, reason) => format!("by {by}: {reason}"),
    }
}
