//! One record as bytes: flat rkyv rows, self-contained. `encode.rs` writes them straight into the batch. Pure.
//!
//! A record is a prefix of eight bytes (archive length, kind, version) and an rkyv archive whose root ends it. Every
//! text is a relative offset and a length, never inlined, so that a reader in any language needs two rules only.

use super::frame::{ALIGN, u32_at};
use super::layout;
use crate::limits::{AUDIT_BINDS_BYTES_MAX, PAYLOAD_KIB_MAX};
use rkyv::Archived;
use rkyv::boxed::ArchivedBox;
use rkyv::vec::ArchivedVec;

/// The version of the rows below, carried by every record.
pub const ROW_VERSION: u8 = 1;
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
    fn from_byte(byte: u8) -> Option<Self> {
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
    /// Who and where, in every row.
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
    ArchivedRequestRow {
        time_us: Archived<i64>,
        request: Archived<u64>,
        statement_bytes: Archived<u64>,
        classes: Archived<u64>,
        who: ArchivedWhoRow,
        statement: Bytes,
        binds: ArchivedVec<ArchivedBind>,
        tables: Texts,
        decision: Text,
        rule: Text,
        ticket: Text,
        cut: u8,
    }
    /// [`Kind::Outcome`].
    ArchivedOutcomeRow {
        time_us: Archived<i64>,
        request: Archived<u64>,
        rows: Archived<u64>,
        bytes: Archived<u64>,
        duration_us: Archived<u64>,
        masked: Archived<u64>,
        who: ArchivedWhoRow,
        error: Text,
        payload: Bytes,
        /// 1: another outcome of the same request may follow.
        more: u8,
        cut: u8,
    }
    /// All other kinds.
    ArchivedEventRow {
        time_us: Archived<i64>,
        /// [`Kind::Ruling`]: the request; else 0.
        request: Archived<u64>,
        /// [`Kind::SessionClosed`].
        duration_us: Archived<u64>,
        statements: Archived<u64>,
        who: ArchivedWhoRow,
        /// The grant, the SQLSTATE or the ruling.
        what: Text,
        ticket: Text,
        /// Who ruled.
        by: Text,
        /// The reason, or what the gateway did.
        detail: Text,
        cut: u8,
    }
}

/// A record read back, borrowed from the frame's payload.
#[derive(Clone, Copy)]
pub enum View<'a> {
    Request(&'a ArchivedRequestRow),
    Outcome(&'a ArchivedOutcomeRow),
    Event(Kind, &'a ArchivedEventRow),
}

/// A payload whose checksum held does not hold records: written by something else, or forged whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordBroken {
    Prefix,
    Kind(u8),
    Version(u8),
    Archive,
}

/// Looks at the next record without handing it out: when it happened. As strict as [`split_record`], and many times as fast.
pub fn check_record(payload: &mut &[u8]) -> Option<Result<i64, RecordBroken>> {
    if payload.is_empty() {
        return None;
    }
    let before = *payload;
    let quick = split_raw(payload).ok().and_then(|(kind, archive)| layout::time_if_in_order(kind, archive));
    Some(quick.map_or_else(
        || {
            *payload = before;
            split_some(payload).map(|view| view.time_us())
        },
        Ok,
    ))
}

/// Takes the next record from the front of `payload` (aligned to [`ALIGN`] in memory); `None` at its end.
/// Call it only on bytes whose checksum and hash have been checked; it is memory-safe on any.
pub fn split_record<'a>(payload: &mut &'a [u8]) -> Option<Result<View<'a>, RecordBroken>> {
    if payload.is_empty() {
        return None;
    }
    Some(split_some(payload))
}

fn split_some<'a>(payload: &mut &'a [u8]) -> Result<View<'a>, RecordBroken> {
    let (kind, archive) = split_raw(payload)?;
    match kind {
        Kind::Request => access::<ArchivedRequestRow>(archive).map(View::Request),
        Kind::Outcome => access::<ArchivedOutcomeRow>(archive).map(View::Outcome),
        kind => access::<ArchivedEventRow>(archive).map(|row| View::Event(kind, row)),
    }
}

fn split_raw<'a>(payload: &mut &'a [u8]) -> Result<(Kind, &'a [u8]), RecordBroken> {
    if payload.len() < PREFIX_BYTES {
        return Err(RecordBroken::Prefix);
    }
    let archive_bytes = u32_at(payload, 0) as usize;
    let (kind, version, zeros) = (payload[4], payload[5], &payload[6..8]);
    let whole_bytes = PREFIX_BYTES + archive_bytes.next_multiple_of(ALIGN);
    if zeros != [0, 0] || archive_bytes == 0 || whole_bytes > payload.len() {
        return Err(RecordBroken::Prefix);
    }
    if version != ROW_VERSION {
        return Err(RecordBroken::Version(version));
    }
    let archive = &payload[PREFIX_BYTES..PREFIX_BYTES + archive_bytes];
    *payload = &payload[whole_bytes..];
    Ok((Kind::from_byte(kind).ok_or(RecordBroken::Kind(kind))?, archive))
}

/// Where each record of a payload begins and when it happened, with no look at the rest: for payloads that were read whole
/// before, since checking a record costs many times this.
pub fn outline(payload: &[u8]) -> impl Iterator<Item = (usize, i64)> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let prefix = payload.get(start..start + PREFIX_BYTES)?;
        let archive_bytes = u32_at(prefix, 0) as usize;
        let root_bytes = match Kind::from_byte(prefix[4])? {
            Kind::Request => size_of::<ArchivedRequestRow>(),
            Kind::Outcome => size_of::<ArchivedOutcomeRow>(),
            _ => size_of::<ArchivedEventRow>(),
        };
        // The root ends the archive, and its time begins the root.
        let root = (start + PREFIX_BYTES + archive_bytes).checked_sub(root_bytes)?;
        let time = payload.get(root..root + 8)?.try_into().expect("8 bytes");
        let found = (start, i64::from_le_bytes(time));
        start += PREFIX_BYTES + archive_bytes.next_multiple_of(ALIGN);
        Some(found)
    })
}

fn access<'a, T>(archive: &'a [u8]) -> Result<&'a T, RecordBroken>
where
    T: rkyv::Portable + for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'b, rkyv::rancor::Failure>>,
{
    rkyv::api::low::access::<T, rkyv::rancor::Failure>(archive).map_err(|_| RecordBroken::Archive)
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
            Self::Request(row) => row.time_us.to_native(),
            Self::Outcome(row) => row.time_us.to_native(),
            Self::Event(_, row) => row.time_us.to_native(),
        }
    }

    /// The number of the statement in its session; 0 where there is none.
    pub fn request(&self) -> u64 {
        match self {
            Self::Request(row) => row.request.to_native(),
            Self::Outcome(row) => row.request.to_native(),
            Self::Event(_, row) => row.request.to_native(),
        }
    }

    /// Bits `CUT_*`: what was shortened.
    pub fn cut(&self) -> u8 {
        match self {
            Self::Request(row) => row.cut,
            Self::Outcome(row) => row.cut,
            Self::Event(_, row) => row.cut,
        }
    }

    pub fn who(&self) -> &'a ArchivedWhoRow {
        match self {
            Self::Request(row) => &row.who,
            Self::Outcome(row) => &row.who,
            Self::Event(_, row) => &row.who,
        }
    }
}

macro_rules! texts {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row {
            $(pub fn $name(&self) -> &str { &self.$name })+
        }
    };
}
macro_rules! lists {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row {
            $(pub fn $name(&self) -> impl ExactSizeIterator<Item = &str> { self.$name.iter().map(|text| &**text) })+
        }
    };
}
macro_rules! numbers {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row {
            $(pub fn $name(&self) -> u64 { self.$name.to_native() })+
        }
    };
}

texts!(ArchivedWhoRow: session, user, target, client, application, claimed_user);
lists!(ArchivedWhoRow: groups, actor);
texts!(ArchivedRequestRow: decision, rule, ticket);
lists!(ArchivedRequestRow: tables);
numbers!(ArchivedRequestRow: statement_bytes, classes);
texts!(ArchivedOutcomeRow: error);
numbers!(ArchivedOutcomeRow: rows, bytes, duration_us, masked);
texts!(ArchivedEventRow: what, ticket, by, detail);
numbers!(ArchivedEventRow: duration_us, statements);

impl ArchivedRequestRow {
    pub fn statement(&self) -> &[u8] {
        &self.statement
    }

    pub fn binds(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.binds.iter().map(|bind| (bind.null == 0).then_some(&*bind.text))
    }

    pub fn cut(&self) -> u8 {
        self.cut
    }
}

impl ArchivedOutcomeRow {
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub fn more(&self) -> bool {
        self.more != 0
    }
}
