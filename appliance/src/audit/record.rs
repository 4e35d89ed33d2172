//! One record as bytes: flat rkyv rows. `encode.rs` writes them straight into the batch. Pure.
//!
//! A record is a prefix of eight bytes (archive length, kind, version) and an rkyv archive whose root ends it. Every
//! text is a relative offset and a length, never inlined, so that a reader in any language needs two rules only.
//!
//! Who and where stand in front of the first record of a session in a payload, framed as a record is, and every record says how far
//! back: [`payload::Walk`] reads a payload and knows where each of them stands.

use super::payload;
use crate::limits::{AUDIT_BINDS_BYTES_MAX, PAYLOAD_KIB_MAX};
use rkyv::Archived;
use rkyv::boxed::ArchivedBox;
use rkyv::vec::ArchivedVec;

/// The version of the rows below, carried by every record.
pub const ROW_VERSION: u8 = 2;
/// Rows with who and where inside, as gateways wrote them before.
pub(super) const ROW_VERSION_SELF_CONTAINED: u8 = 1;
/// In the place of a record's kind: who and where, of records that follow.
pub(super) const WHO: u8 = 8;
/// Length, kind, version, two zeros.
pub const PREFIX_BYTES: usize = 8;
/// Response bytes kept. Beyond: cut (the outcome's `bytes` says how many there were).
pub const PAYLOAD_BYTES_MAX: usize = (PAYLOAD_KIB_MAX as usize) << 10;
/// Any other single text (names, reasons). Beyond: cut, `CUT_TEXT` set.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Texts of one list, each counted with [`ITEM_BYTES`] more. Beyond: the rest of the list is left out, `CUT_*` set.
pub const LIST_BYTES_MAX: usize = AUDIT_BINDS_BYTES_MAX;
/// What a list item costs besides its text.
pub const ITEM_BYTES: usize = 24;

/// Bits of `cut`: what was shortened to fit its limit.
pub const CUT_STATEMENT: u8 = 1;
pub const CUT_BINDS: u8 = 2;
pub const CUT_TABLES: u8 = 4;
pub const CUT_TEXT: u8 = 8;
pub const CUT_PAYLOAD: u8 = 16;

/// What a record is about; the byte on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    Request = 1,
    Outcome = 2,
    SessionOpened = 3,
    LoginRefused = 4,
    Ruling = 5,
    SessionClosed = 6,
    Gateway = 7,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Request,
            2 => Self::Outcome,
            3 => Self::SessionOpened,
            4 => Self::LoginRefused,
            5 => Self::Ruling,
            6 => Self::SessionClosed,
            7 => Self::Gateway,
            _ => return None,
        })
    }
}

/// Declares rows as they lie on disk: fields in this order, little-endian, texts and lists as offset and length.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(rkyv::Portable, rkyv::bytecheck::CheckBytes)]
            #[bytecheck(crate = rkyv::bytecheck)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub(super) $field: $type,)+ }
        )+
    };
}

type Text = ArchivedBox<str>;
type Bytes = ArchivedBox<[u8]>;
type Texts = ArchivedVec<Text>;

rows! {
    /// One bind value.
    ArchivedBind {
        /// 1: SQL NULL, and the text is empty.
        null: u8,
        text: Text,
    }
    /// Who and where.
    ArchivedWhoRow {
        session: Text,
        user: Text,
        groups: Texts,
        actor: Texts,
        target: Text,
        client: Text,
        application: Text,
        claimed_user: Text,
    }
    /// [`Kind::Request`].
    RequestHead {
        time_us: Archived<i64>,
        request: Archived<u64>,
        statement_bytes: Archived<u64>,
        classes: Archived<u64>,
    }
    RequestTail {
        statement: Bytes,
        binds: ArchivedVec<ArchivedBind>,
        tables: Texts,
        decision: Text,
        rule: Text,
        ticket: Text,
        cut: u8,
        who_back: Archived<u32>,
    }
    /// [`Kind::Outcome`].
    OutcomeHead {
        time_us: Archived<i64>,
        request: Archived<u64>,
        rows: Archived<u64>,
        bytes: Archived<u64>,
        duration_us: Archived<u64>,
        masked: Archived<u64>,
    }
    OutcomeTail {
        error: Text,
        payload: Bytes,
        /// 1: another outcome of the same request may follow.
        more: u8,
        cut: u8,
        who_back: Archived<u32>,
    }
    /// All other kinds.
    EventHead {
        time_us: Archived<i64>,
        /// [`Kind::Ruling`]: the request; else 0.
        request: Archived<u64>,
        /// [`Kind::SessionClosed`].
        duration_us: Archived<u64>,
        statements: Archived<u64>,
    }
    EventTail {
        /// The grant, the SQLSTATE or the ruling.
        what: Text,
        ticket: Text,
        /// Who ruled.
        by: Text,
        /// The reason, or what the gateway did.
        detail: Text,
        cut: u8,
        who_back: Archived<u32>,
    }
}

/// A row as it is written: its tail says how many bytes in front of the record's first that of its who stands.
#[derive(rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedRow<H, T> {
    pub(super) head: H,
    pub(super) tail: T,
}

/// A row of [`ROW_VERSION_SELF_CONTAINED`].
#[derive(rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(super) struct SelfContainedRow<H, T> {
    pub head: H,
    pub who: ArchivedWhoRow,
    pub tail: T,
}

pub type ArchivedRequestRow = ArchivedRow<RequestHead, RequestTail>;
pub type ArchivedOutcomeRow = ArchivedRow<OutcomeHead, OutcomeTail>;
pub type ArchivedEventRow = ArchivedRow<EventHead, EventTail>;

/// A row read back, of either version.
pub struct Row<'a, H, T> {
    pub(super) head: &'a H,
    pub(super) tail: &'a T,
    pub(super) whose: Whose<'a>,
}

pub type RequestRow<'a> = Row<'a, RequestHead, RequestTail>;
pub type OutcomeRow<'a> = Row<'a, OutcomeHead, OutcomeTail>;
pub type EventRow<'a> = Row<'a, EventHead, EventTail>;

impl<H, T> Clone for Row<'_, H, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H, T> Copy for Row<'_, H, T> {}

/// Where the who of a row is.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    Found(&'a ArchivedWhoRow),
    /// A [`payload::Walk`] found it there before; it is read where somebody asks.
    At {
        payload: &'a [u8],
        at: usize,
    },
}

/// A record read back, borrowed from the frame's payload.
#[derive(Clone, Copy)]
pub enum View<'a> {
    Request(RequestRow<'a>),
    Outcome(OutcomeRow<'a>),
    Event(Kind, EventRow<'a>),
}

/// A payload whose checksum held does not hold records: written by something else, or forged whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordBroken {
    Prefix,
    Kind(u8),
    Version(u8),
    Archive,
    /// No who stands where it says, or no record behind a who.
    Who,
}

impl<'a> View<'a> {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::Request,
            Self::Outcome(_) => Kind::Outcome,
            Self::Event(kind, _) => *kind,
        }
    }

    pub fn time_us(&self) -> i64 {
        match self {
            Self::Request(row) => row.head.time_us.to_native(),
            Self::Outcome(row) => row.head.time_us.to_native(),
            Self::Event(_, row) => row.head.time_us.to_native(),
        }
    }

    /// The number of the statement in its session; 0 where there is none.
    pub fn request(&self) -> u64 {
        match self {
            Self::Request(row) => row.head.request.to_native(),
            Self::Outcome(row) => row.head.request.to_native(),
            Self::Event(_, row) => row.head.request.to_native(),
        }
    }

    /// Bits `CUT_*`: what was shortened.
    pub fn cut(&self) -> u8 {
        match self {
            Self::Request(row) => row.tail.cut,
            Self::Outcome(row) => row.tail.cut,
            Self::Event(_, row) => row.tail.cut,
        }
    }

    pub fn who(&self) -> &'a ArchivedWhoRow {
        match self.whose() {
            Whose::Found(who) => who,
            Whose::At { payload, at } => payload::who_at(payload, at).expect("a walk has found it there"),
        }
    }

    /// Where in its payload its who begins, if it was asked for by [`payload::record_at`] and the row does not have it inside.
    pub(super) fn who_at(&self) -> Option<usize> {
        match self.whose() {
            Whose::Found(_) => None,
            Whose::At { at, .. } => Some(at),
        }
    }

    fn whose(&self) -> Whose<'a> {
        match self {
            Self::Request(row) => row.whose,
            Self::Outcome(row) => row.whose,
            Self::Event(_, row) => row.whose,
        }
    }
}

macro_rules! numbers {
    ($row:ident: $($name:ident),+) => {
        impl $row<'_> {
            $(pub fn $name(&self) -> u64 { self.head.$name.to_native() })+
        }
    };
}

impl ArchivedWhoRow {
    pub fn session(&self) -> &str {
        &self.session
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        texts(&self.groups)
    }

    pub fn actor(&self) -> impl ExactSizeIterator<Item = &str> {
        texts(&self.actor)
    }

    pub fn target(&self) -> &str {
        &self.target
    }

    pub fn client(&self) -> &str {
        &self.client
    }

    pub fn application(&self) -> &str {
        &self.application
    }

    pub fn claimed_user(&self) -> &str {
        &self.claimed_user
    }
}

fn texts(list: &Texts) -> impl ExactSizeIterator<Item = &str> {
    list.iter().map(|text| &**text)
}

numbers!(RequestRow: statement_bytes, classes);
numbers!(OutcomeRow: rows, bytes, duration_us, masked);
numbers!(EventRow: duration_us, statements);

impl<'a> RequestRow<'a> {
    pub fn statement(&self) -> &'a [u8] {
        &self.tail.statement
    }

    pub fn binds(&self) -> impl ExactSizeIterator<Item = Option<&'a str>> + use<'a> {
        self.tail.binds.iter().map(|bind| (bind.null == 0).then_some(&*bind.text))
    }

    pub fn tables(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        texts(&self.tail.tables)
    }

    pub fn decision(&self) -> &'a str {
        &self.tail.decision
    }

    pub fn rule(&self) -> &'a str {
        &self.tail.rule
    }

    pub fn ticket(&self) -> &'a str {
        &self.tail.ticket
    }

    pub fn cut(&self) -> u8 {
        self.tail.cut
    }
}

impl<'a> OutcomeRow<'a> {
    pub fn error(&self) -> &'a str {
        &self.tail.error
    }

    pub fn payload(&self) -> &'a [u8] {
        &self.tail.payload
    }

    pub fn more(&self) -> bool {
        self.tail.more != 0
    }

    pub fn cut(&self) -> u8 {
        self.tail.cut
    }
}

impl<'a> EventRow<'a> {
    pub fn what(&self) -> &'a str {
        &self.tail.what
    }

    pub fn ticket(&self) -> &'a str {
        &self.tail.ticket
    }

    pub fn by(&self) -> &'a str {
        &self.tail.by
    }

    pub fn detail(&self) -> &'a str {
        &self.tail.detail
    }
}
