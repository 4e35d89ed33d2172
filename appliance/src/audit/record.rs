//! One record as bytes: flat rkyv rows, self-contained, written straight into the batch. Pure.
//!
//! A record is a prefix of eight bytes (archive length, kind, version) and an rkyv archive whose root ends it. Every
//! text is a relative offset and a length, never inlined, so that a reader in any language needs two rules only.

use super::frame::{ALIGN, u32_at};
use super::{Entry, Outcome, Request, Who};
use crate::limits::{AUDIT_BINDS_BYTES_MAX, AUDIT_STATEMENT_BYTES_MAX};
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::{Fallible, Strategy};
use rkyv::ser::Serializer;
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Place, Serialize, SerializeUnsized};

/// The version of the rows below, carried by every record.
pub const ROW_VERSION: u8 = 1;
/// Length, kind, version, two zeros.
pub const PREFIX_BYTES: usize = 8;
/// Response bytes kept. Beyond: cut (the outcome's `bytes` says how many there were).
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Any other single text (names, reasons). Beyond: cut, `CUT_TEXT` set.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Texts of one list, each counted with [`ITEM_BYTES`] more. Beyond: the rest of the list is left out, `CUT_*` set.
pub const LIST_BYTES_MAX: usize = AUDIT_BINDS_BYTES_MAX;
/// What a list item costs besides its text.
pub const ITEM_BYTES: usize = 24;
/// An upper bound of everything in a record that is not text.
const FIXED_BYTES: usize = 512;

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

/// Room for each part of a record, scaled down when segments are small so that any record fits a segment.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    statement: usize,
    payload: usize,
    list: usize,
    text: usize,
}

impl Room {
    /// The most one record may take in a segment of that size: below 7/8 of it.
    pub fn of_segment(segment_bytes: usize) -> Self {
        Self {
            statement: AUDIT_STATEMENT_BYTES_MAX.min(segment_bytes / 4),
            payload: PAYLOAD_BYTES_MAX.min(segment_bytes / 4),
            list: LIST_BYTES_MAX.min(segment_bytes / 16),
            text: TEXT_BYTES_MAX.min(segment_bytes / 64),
        }
    }
}

/// A text: archived as offset and length.
#[derive(Clone, Copy)]
pub struct Text<'a>(&'a str);

impl Archive for Text<'_> {
    type Archived = ArchivedBox<str>;
    type Resolver = BoxResolver;

    fn resolve(&self, resolver: BoxResolver, out: Place<Self::Archived>) {
        ArchivedBox::resolve_from_ref(self.0, resolver, out);
    }
}

impl<S: Fallible + Writer + ?Sized> Serialize<S> for Text<'_>
where
    str: SerializeUnsized<S>,
{
    fn serialize(&self, serializer: &mut S) -> Result<BoxResolver, S::Error> {
        ArchivedBox::serialize_from_ref(self.0, serializer)
    }
}

/// A list of names.
#[derive(Clone, Copy)]
pub struct Texts<'a>(&'a [String]);

impl Archive for Texts<'_> {
    type Archived = ArchivedVec<ArchivedBox<str>>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.0.len(), resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Texts<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<ArchivedBox<str>>::serialize_from_iter::<Text<'_>, _, _>(
            self.0.iter().map(|text| Text(text)),
            serializer,
        )
    }
}

/// One bind value.
#[derive(Archive, Serialize)]
pub struct Bind<'a> {
    /// 1: SQL NULL, and the text is empty.
    null: u8,
    text: Text<'a>,
}

/// The bind values of a statement.
#[derive(Clone, Copy)]
pub struct Binds<'a>(&'a [Option<&'a str>]);

impl<'a> Archive for Binds<'a> {
    type Archived = ArchivedVec<ArchivedBind<'a>>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.0.len(), resolver, out);
    }
}

impl<'a, S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Binds<'a> {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<ArchivedBind<'a>>::serialize_from_iter::<Bind<'a>, _, _>(
            self.0.iter().map(|value| Bind { null: u8::from(value.is_none()), text: Text(value.unwrap_or("")) }),
            serializer,
        )
    }
}

/// Who and where, in every row.
#[derive(Archive, Serialize)]
pub struct WhoRow<'a> {
    session: Text<'a>,
    user: Text<'a>,
    groups: Texts<'a>,
    actor: Texts<'a>,
    target: Text<'a>,
    client: Text<'a>,
    application: Text<'a>,
    claimed_user: Text<'a>,
}

/// [`Kind::Request`].
#[derive(Archive, Serialize)]
pub struct RequestRow<'a> {
    time_us: i64,
    request: u64,
    statement_bytes: u64,
    classes: u64,
    who: WhoRow<'a>,
    #[rkyv(with = InlineAsBox)]
    statement: &'a [u8],
    binds: Binds<'a>,
    tables: Texts<'a>,
    decision: Text<'a>,
    rule: Text<'a>,
    ticket: Text<'a>,
    cut: u8,
}

/// [`Kind::Outcome`].
#[derive(Archive, Serialize)]
pub struct OutcomeRow<'a> {
    time_us: i64,
    request: u64,
    rows: u64,
    bytes: u64,
    duration_us: u64,
    masked: u64,
    who: WhoRow<'a>,
    error: Text<'a>,
    #[rkyv(with = InlineAsBox)]
    payload: &'a [u8],
    /// 1: another outcome of the same request may follow.
    more: u8,
    cut: u8,
}

/// All other kinds.
#[derive(Archive, Serialize)]
pub struct EventRow<'a> {
    time_us: i64,
    /// [`Kind::Ruling`]: the request; else 0.
    request: u64,
    /// [`Kind::SessionClosed`].
    duration_us: u64,
    statements: u64,
    who: WhoRow<'a>,
    /// The grant, the SQLSTATE or the ruling.
    what: Text<'a>,
    ticket: Text<'a>,
    /// Who ruled.
    by: Text<'a>,
    /// The reason, or what the gateway did.
    detail: Text<'a>,
    cut: u8,
}

/// Writes records behind one another into a buffer, allocating nothing once its scratch has grown.
pub struct Encoder {
    room: Room,
    scratch: Arena,
}

/// A record could not be serialised: our own bug, never the caller's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncodeError;

impl Encoder {
    pub fn new(room: Room) -> Self {
        Self { room, scratch: Arena::new() }
    }

    /// At most how many bytes [`Self::encode`] will append.
    pub fn bytes_max(&self, who: &Who<'_>, entry: &Entry<'_>) -> usize {
        let texts = |texts: &[&str]| texts.iter().map(|text| text.len().min(self.room.text)).sum::<usize>();
        let list = |list: &[String]| list.iter().map(|text| text.len() + ITEM_BYTES).sum::<usize>().min(self.room.list);
        let entry = match entry {
            Entry::Request(request) => {
                let binds: usize = request.binds.iter().map(|bind| bind.map_or(0, str::len) + ITEM_BYTES).sum();
                request.statement.len().min(self.room.statement)
                    + binds.min(self.room.list)
                    + list(request.tables)
                    + texts(&[request.decision, request.rule, request.ticket])
            }
            Entry::Outcome(outcome) => texts(&[outcome.error]) + outcome.payload.len().min(self.room.payload),
            Entry::SessionOpened { grant } => texts(&[grant]),
            Entry::LoginRefused { reason, .. } => texts(&[reason]),
            Entry::Ruling { ticket, ruling, by, reason, .. } => texts(&[ticket, ruling, by, reason]),
            Entry::SessionClosed { reason, .. } => texts(&[reason]),
            Entry::Gateway { detail } => texts(&[detail]),
        };
        let who = texts(&[who.session, who.user, who.target, who.client, who.application, who.claimed_user])
            + list(who.groups)
            + list(who.actor);
        FIXED_BYTES + who + entry
    }

    /// Appends one record to `out`, whose length is a multiple of [`ALIGN`] and stays one. Nothing changes on error.
    pub fn encode(
        &mut self,
        time_us: i64,
        who: &Who<'_>,
        entry: &Entry<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        debug_assert!(out.len().is_multiple_of(ALIGN));
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let kind = match self.encode_row(time_us, who, entry, out) {
            Ok(kind) => kind,
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        };
        let archive_bytes = out.len() - start - PREFIX_BYTES;
        out[start..start + 4].copy_from_slice(&(archive_bytes as u32).to_le_bytes());
        out[start + 4] = kind as u8;
        out[start + 5] = ROW_VERSION;
        // Rows are aligned to 8 and sized in eights, so nothing is padded in practice.
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        Ok(())
    }

    fn encode_row(
        &mut self,
        time_us: i64,
        who: &Who<'_>,
        entry: &Entry<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Kind, EncodeError> {
        let mut cut = Cut { room: self.room, flags: 0 };
        let who = cut.who(who);
        let scratch = &mut self.scratch;
        match entry {
            Entry::Request(request) => {
                put(&cut.request(time_us, who, request), out, scratch)?;
                return Ok(Kind::Request);
            }
            Entry::Outcome(outcome) => {
                put(&cut.outcome(time_us, who, outcome), out, scratch)?;
                return Ok(Kind::Outcome);
            }
            _ => {}
        }
        let empty = Text("");
        let mut row = EventRow {
            time_us,
            request: 0,
            duration_us: 0,
            statements: 0,
            who,
            what: empty,
            ticket: empty,
            by: empty,
            detail: empty,
            cut: 0,
        };
        let kind = match entry {
            Entry::Request(_) | Entry::Outcome(_) => unreachable!("handled above"),
            Entry::SessionOpened { grant } => {
                row.what = cut.text(grant);
                Kind::SessionOpened
            }
            Entry::LoginRefused { sqlstate, reason } => {
                row.what = Text(std::str::from_utf8(sqlstate).unwrap_or("XX000"));
                row.detail = cut.text(reason);
                Kind::LoginRefused
            }
            Entry::Ruling { request, ticket, ruling, by, reason } => {
                row.request = *request;
                row.what = cut.text(ruling);
                row.ticket = cut.text(ticket);
                row.by = cut.text(by);
                row.detail = cut.text(reason);
                Kind::Ruling
            }
            Entry::SessionClosed { reason, duration_us, statements } => {
                row.duration_us = *duration_us;
                row.statements = *statements;
                row.detail = cut.text(reason);
                Kind::SessionClosed
            }
            Entry::Gateway { detail } => {
                row.detail = cut.text(detail);
                Kind::Gateway
            }
        };
        row.cut = cut.flags;
        put(&row, out, scratch)?;
        Ok(kind)
    }
}

type Out<'a> = Strategy<Serializer<&'a mut Vec<u8>, ArenaHandle<'a>, ()>, rkyv::rancor::Failure>;

fn put<'a, R>(row: &R, out: &'a mut Vec<u8>, scratch: &'a mut Arena) -> Result<(), EncodeError>
where
    R: Serialize<Out<'a>>,
{
    let mut serializer = Serializer::new(out, scratch.acquire(), ());
    rkyv::api::serialize_using::<_, rkyv::rancor::Failure>(row, &mut serializer).map(|_| ()).map_err(|_| EncodeError)
}

/// Shortens what is beyond its limit and remembers that it did.
struct Cut {
    room: Room,
    flags: u8,
}

impl Cut {
    fn text<'a>(&mut self, text: &'a str) -> Text<'a> {
        if text.len() > self.room.text {
            self.flags |= CUT_TEXT;
        }
        Text(&text[..text.floor_char_boundary(self.room.text)])
    }

    fn bytes<'a>(&mut self, bytes: &'a [u8], most: usize, flag: u8) -> &'a [u8] {
        if bytes.len() > most {
            self.flags |= flag;
        }
        &bytes[..bytes.len().min(most)]
    }

    /// As many items from the front as fit.
    fn list<'a, T>(&mut self, list: &'a [T], bytes: impl Fn(&T) -> usize, flag: u8) -> &'a [T] {
        let mut left = self.room.list;
        for (index, item) in list.iter().enumerate() {
            match left.checked_sub(bytes(item) + ITEM_BYTES) {
                Some(rest) => left = rest,
                None => {
                    self.flags |= flag;
                    return &list[..index];
                }
            }
        }
        list
    }

    fn who<'a>(&mut self, who: &Who<'a>) -> WhoRow<'a> {
        WhoRow {
            session: self.text(who.session),
            user: self.text(who.user),
            groups: Texts(self.list(who.groups, String::len, CUT_TEXT)),
            actor: Texts(self.list(who.actor, String::len, CUT_TEXT)),
            target: self.text(who.target),
            client: self.text(who.client),
            application: self.text(who.application),
            claimed_user: self.text(who.claimed_user),
        }
    }

    fn request<'a>(&mut self, time_us: i64, who: WhoRow<'a>, request: &Request<'a>) -> RequestRow<'a> {
        let mut row = RequestRow {
            time_us,
            request: request.request,
            statement_bytes: request.statement_bytes,
            classes: request.classes,
            who,
            statement: self.bytes(request.statement, self.room.statement, CUT_STATEMENT),
            binds: Binds(self.list(request.binds, |bind| bind.map_or(0, str::len), CUT_BINDS)),
            tables: Texts(self.list(request.tables, String::len, CUT_TABLES)),
            decision: self.text(request.decision),
            rule: self.text(request.rule),
            ticket: self.text(request.ticket),
            cut: 0,
        };
        if (row.statement.len() as u64) < request.statement_bytes {
            self.flags |= CUT_STATEMENT;
        }
        row.cut = self.flags;
        row
    }

    fn outcome<'a>(&mut self, time_us: i64, who: WhoRow<'a>, outcome: &Outcome<'a>) -> OutcomeRow<'a> {
        let mut row = OutcomeRow {
            time_us,
            request: outcome.request,
            rows: outcome.rows,
            bytes: outcome.bytes,
            duration_us: outcome.duration_us,
            masked: outcome.masked,
            who,
            error: self.text(outcome.error),
            payload: self.bytes(outcome.payload, self.room.payload, CUT_PAYLOAD),
            more: u8::from(outcome.more),
            cut: 0,
        };
        row.cut = self.flags;
        row
    }
}

/// A record read back, borrowed from the frame's payload.
#[derive(Clone, Copy)]
pub enum View<'a> {
    Request(&'a ArchivedRequestRow<'a>),
    Outcome(&'a ArchivedOutcomeRow<'a>),
    Event(Kind, &'a ArchivedEventRow<'a>),
}

/// A payload whose checksum held does not hold records: written by something else, or forged whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordBroken {
    Prefix,
    Kind(u8),
    Version(u8),
    Archive,
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
    match Kind::from_byte(kind).ok_or(RecordBroken::Kind(kind))? {
        Kind::Request => access::<ArchivedRequestRow<'_>>(archive).map(View::Request),
        Kind::Outcome => access::<ArchivedOutcomeRow<'_>>(archive).map(View::Outcome),
        kind => access::<ArchivedEventRow<'_>>(archive).map(|row| View::Event(kind, row)),
    }
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

    pub fn who(&self) -> &'a ArchivedWhoRow<'a> {
        match self {
            Self::Request(row) => &row.who,
            Self::Outcome(row) => &row.who,
            Self::Event(_, row) => &row.who,
        }
    }
}

macro_rules! texts {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row<'_> {
            $(pub fn $name(&self) -> &str { &self.$name })+
        }
    };
}
macro_rules! lists {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row<'_> {
            $(pub fn $name(&self) -> impl ExactSizeIterator<Item = &str> { self.$name.iter().map(|text| &**text) })+
        }
    };
}
macro_rules! numbers {
    ($row:ident: $($name:ident),+ $(,)?) => {
        impl $row<'_> {
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

impl ArchivedRequestRow<'_> {
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

impl ArchivedOutcomeRow<'_> {
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub fn more(&self) -> bool {
        self.more != 0
    }
}
