//! A record into bytes: texts behind one another, then the row that points at them. Written by hand because every
//! statement pays for it twice; `record.rs` has the layout and reads it back through rkyv's own checks. Pure.

use super::frame::ALIGN;
use super::record::{
    ArchivedBind, ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, ArchivedWhoRow, CUT_BINDS, CUT_PAYLOAD,
    CUT_STATEMENT, CUT_TABLES, CUT_TEXT, ITEM_BYTES, Kind, LIST_BYTES_MAX, PAYLOAD_BYTES_MAX, PREFIX_BYTES,
    ROW_VERSION, TEXT_BYTES_MAX,
};
use super::{Entry, Outcome, PackedWho, Request, Who};
use crate::limits::AUDIT_STATEMENT_BYTES_MAX;
use std::mem::{offset_of, size_of};

/// An upper bound of everything in a record that is not text.
const FIXED_BYTES: usize = 512;
/// Of a text or a list in a row: offset and length.
pub(super) const POINTER_BYTES: usize = 8;
/// Lists begin at multiples of this.
const LIST_ALIGN: usize = 4;

const _: () = assert!(size_of::<ArchivedRequestRow>() == 152);
const _: () = assert!(size_of::<ArchivedOutcomeRow>() == 136);
const _: () = assert!(size_of::<ArchivedEventRow>() == 136);
const _: () = assert!(size_of::<ArchivedBind>() == 12);

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
            payload: PAYLOAD_BYTES_MAX.min(segment_bytes / 2),
            list: LIST_BYTES_MAX.min(segment_bytes / 16),
            text: TEXT_BYTES_MAX.min(segment_bytes / 64),
        }
    }
}

/// Writes records behind one another into a buffer, allocating nothing but the buffer (and where what is packed has to be cut).
pub struct Encoder {
    room: Room,
}

impl Encoder {
    pub fn new(room: Room) -> Self {
        Self { room }
    }

    /// At most how many bytes [`Self::encode`] will append.
    pub fn bytes_max(&self, who: &Who<'_>, entry: &Entry<'_>) -> usize {
        let list = |list: &[String]| list.iter().map(|text| text.len() + ITEM_BYTES).sum::<usize>().min(self.room.list);
        let text = |text: &str| text.len().min(self.room.text);
        let entry = match entry {
            Entry::Request(request) => {
                let binds: usize = request.binds.iter().map(|bind| bind.map_or(0, str::len) + ITEM_BYTES).sum();
                request.statement.len().min(self.room.statement)
                    + binds.min(self.room.list)
                    + list(request.tables)
                    + text(request.decision)
                    + text(request.rule)
                    + text(request.ticket)
            }
            Entry::Outcome(outcome) => text(outcome.error) + outcome.payload.len().min(self.room.payload),
            Entry::SessionOpened { grant } => text(grant),
            Entry::LoginRefused { reason, .. } => text(reason),
            Entry::Ruling { ticket, ruling, by, reason, .. } => text(ticket) + text(ruling) + text(by) + text(reason),
            Entry::SessionClosed { reason, .. } => text(reason),
            Entry::Gateway { detail } => text(detail),
        };
        let who = match who.packed {
            Some(packed) => packed.bytes.len().min(6 * self.room.text + 2 * self.room.list),
            None => {
                let texts = [who.session, who.user, who.target, who.client, who.application, who.claimed_user];
                texts.into_iter().map(text).sum::<usize>() + list(who.groups) + list(who.actor)
            }
        };
        FIXED_BYTES + who + entry
    }

    /// Appends one record to `out`, whose length is a multiple of [`ALIGN`] and stays one.
    pub fn encode(&self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>, out: &mut Vec<u8>) {
        debug_assert!(out.len().is_multiple_of(ALIGN));
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let room = self.room;
        let mut flat = Flat { out, room, cut: 0 };
        let who = match who.packed {
            Some(packed) if packed.fits(room.text, room.list) => flat.packed_who(packed),
            // A part of it has to be cut.
            Some(packed) => flat.who(&packed.unpacked().who()),
            None => flat.who(who),
        };
        let kind = match entry {
            Entry::Request(request) => flat.request(time_us, &who, request),
            Entry::Outcome(outcome) => flat.outcome(time_us, &who, outcome),
            event => flat.event(time_us, &who, event),
        };
        let archive_bytes = (out.len() - start - PREFIX_BYTES) as u32;
        out[start..start + 4].copy_from_slice(&archive_bytes.to_le_bytes());
        out[start + 4] = kind as u8;
        out[start + 5] = ROW_VERSION;
        debug_assert!(out.len().is_multiple_of(ALIGN), "rows are aligned to 8 and sized in eights");
    }
}

/// Where a text or a list lies in the buffer, and how many bytes or items it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Put {
    pub at: usize,
    pub count: usize,
}

/// The parts of [`ArchivedWhoRow`], in its order.
pub(super) type WhoPut = [Put; 8];

/// The texts and lists of `who`, and where each lies in them.
pub(super) fn pack(who: &Who<'_>) -> (Vec<u8>, WhoPut) {
    let unbounded = Room { statement: 0, payload: 0, list: usize::MAX, text: usize::MAX };
    let mut bytes = Vec::new();
    let puts = Flat { out: &mut bytes, room: unbounded, cut: 0 }.who(who);
    (bytes, puts)
}

/// Where the items of a list of texts lie: what [`pointer`] wrote of each.
pub(super) fn items(bytes: &[u8], list: Put) -> impl Iterator<Item = Put> + '_ {
    (0..list.count).map(move |index| {
        let field = list.at + index * POINTER_BYTES;
        let word: [u8; POINTER_BYTES] = bytes[field..field + POINTER_BYTES].try_into().expect("eight bytes");
        let word = u64::from_le_bytes(word);
        Put { at: (field as i64 + i64::from(word as u32 as i32)) as usize, count: (word >> 32) as usize }
    })
}

/// The fixed part of a record while it is filled in.
struct Row<const BYTES: usize> {
    bytes: [u8; BYTES],
    /// Where it will stand in the buffer: pointers are relative to themselves.
    at: usize,
}

impl<const BYTES: usize> Row<BYTES> {
    fn number(&mut self, offset: usize, number: u64) {
        self.bytes[offset..offset + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn pointer(&mut self, offset: usize, put: Put) {
        self.bytes[offset..offset + POINTER_BYTES].copy_from_slice(&pointer(self.at + offset, put));
    }

    fn who(&mut self, offset: usize, who: &WhoPut) {
        for (index, put) in who.iter().enumerate() {
            self.pointer(offset + index * POINTER_BYTES, *put);
        }
    }
}

/// What stands at `field` to point at `put`.
fn pointer(field: usize, put: Put) -> [u8; POINTER_BYTES] {
    let offset = (put.at as i64 - field as i64) as i32;
    (u64::from(put.count as u32) << 32 | u64::from(offset as u32)).to_le_bytes()
}

struct Flat<'o> {
    out: &'o mut Vec<u8>,
    room: Room,
    /// What was shortened to fit its room.
    cut: u8,
}

impl Flat<'_> {
    fn request(&mut self, time_us: i64, who: &WhoPut, request: &Request<'_>) -> Kind {
        let statement = self.bytes(request.statement, self.room.statement, CUT_STATEMENT);
        if (statement.count as u64) < request.statement_bytes {
            self.cut |= CUT_STATEMENT;
        }
        let binds = self.binds(request.binds);
        let tables = self.list(request.tables, CUT_TABLES);
        let (decision, rule) = (self.text(request.decision), self.text(request.rule));
        let ticket = self.text(request.ticket);
        type R = ArchivedRequestRow;
        let mut row = self.row::<{ size_of::<R>() }>();
        row.number(offset_of!(R, time_us), time_us as u64);
        row.number(offset_of!(R, request), request.request);
        row.number(offset_of!(R, statement_bytes), request.statement_bytes);
        row.number(offset_of!(R, classes), request.classes);
        row.who(offset_of!(R, who), who);
        row.pointer(offset_of!(R, statement), statement);
        row.pointer(offset_of!(R, binds), binds);
        row.pointer(offset_of!(R, tables), tables);
        row.pointer(offset_of!(R, decision), decision);
        row.pointer(offset_of!(R, rule), rule);
        row.pointer(offset_of!(R, ticket), ticket);
        row.bytes[offset_of!(R, cut)] = self.cut;
        self.out.extend_from_slice(&row.bytes);
        Kind::Request
    }

    fn outcome(&mut self, time_us: i64, who: &WhoPut, outcome: &Outcome<'_>) -> Kind {
        let error = self.text(outcome.error);
        let payload = self.bytes(outcome.payload, self.room.payload, CUT_PAYLOAD);
        if outcome.payload_cut {
            self.cut |= CUT_PAYLOAD;
        }
        type R = ArchivedOutcomeRow;
        let mut row = self.row::<{ size_of::<R>() }>();
        row.number(offset_of!(R, time_us), time_us as u64);
        row.number(offset_of!(R, request), outcome.request);
        row.number(offset_of!(R, rows), outcome.rows);
        row.number(offset_of!(R, bytes), outcome.bytes);
        row.number(offset_of!(R, duration_us), outcome.duration_us);
        row.number(offset_of!(R, masked), outcome.masked);
        row.who(offset_of!(R, who), who);
        row.pointer(offset_of!(R, error), error);
        row.pointer(offset_of!(R, payload), payload);
        row.bytes[offset_of!(R, more)] = u8::from(outcome.more);
        row.bytes[offset_of!(R, cut)] = self.cut;
        self.out.extend_from_slice(&row.bytes);
        Kind::Outcome
    }

    fn event(&mut self, time_us: i64, who: &WhoPut, entry: &Entry<'_>) -> Kind {
        let event = Event::of(entry);
        let (what, ticket) = (self.text(event.what), self.text(event.ticket));
        let (by, detail) = (self.text(event.by), self.text(event.detail));
        type R = ArchivedEventRow;
        let mut row = self.row::<{ size_of::<R>() }>();
        row.number(offset_of!(R, time_us), time_us as u64);
        row.number(offset_of!(R, request), event.request);
        row.number(offset_of!(R, duration_us), event.duration_us);
        row.number(offset_of!(R, statements), event.statements);
        row.who(offset_of!(R, who), who);
        row.pointer(offset_of!(R, what), what);
        row.pointer(offset_of!(R, ticket), ticket);
        row.pointer(offset_of!(R, by), by);
        row.pointer(offset_of!(R, detail), detail);
        row.bytes[offset_of!(R, cut)] = self.cut;
        self.out.extend_from_slice(&row.bytes);
        event.kind
    }

    /// All texts are in the buffer: the row stands behind them.
    fn row<const BYTES: usize>(&mut self) -> Row<BYTES> {
        self.align(ALIGN);
        Row { bytes: [0; BYTES], at: self.out.len() }
    }

    fn align(&mut self, align: usize) {
        let padding = self.out.len().next_multiple_of(align) - self.out.len();
        self.out.extend_from_slice(&[0; ALIGN][..padding]);
    }

    fn who(&mut self, who: &Who<'_>) -> WhoPut {
        // In the order of the row's fields: a reader's checks walk both together.
        const { assert!(size_of::<ArchivedWhoRow>() == 8 * POINTER_BYTES) };
        [
            self.text(who.session),
            self.text(who.user),
            self.list(who.groups, CUT_TEXT),
            self.list(who.actor, CUT_TEXT),
            self.text(who.target),
            self.text(who.client),
            self.text(who.application),
            self.text(who.claimed_user),
        ]
    }

    #[inline]
    fn packed_who(&mut self, packed: &PackedWho) -> WhoPut {
        let at = self.out.len();
        self.out.extend_from_slice(&packed.bytes);
        packed.parts.map(|part| {
            let put = part.put();
            Put { at: at + put.at, ..put }
        })
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Put {
        let at = self.out.len();
        self.out.extend_from_slice(bytes);
        Put { at, count: bytes.len() }
    }

    fn text(&mut self, text: &str) -> Put {
        if text.len() <= self.room.text {
            return self.put(text.as_bytes());
        }
        self.cut |= CUT_TEXT;
        self.put(&text.as_bytes()[..text.floor_char_boundary(self.room.text)])
    }

    fn bytes(&mut self, bytes: &[u8], most: usize, flag: u8) -> Put {
        if bytes.len() > most {
            self.cut |= flag;
        }
        self.put(&bytes[..bytes.len().min(most)])
    }

    /// As many items from the front as fit.
    fn fitting<'a, T>(&mut self, list: &'a [T], bytes: impl Fn(&T) -> usize, flag: u8) -> &'a [T] {
        let mut left = self.room.list;
        for (index, item) in list.iter().enumerate() {
            match left.checked_sub(bytes(item) + ITEM_BYTES) {
                Some(rest) => left = rest,
                None => {
                    self.cut |= flag;
                    return &list[..index];
                }
            }
        }
        list
    }

    fn list(&mut self, list: &[String], flag: u8) -> Put {
        let kept = self.fitting(list, String::len, flag);
        let texts = self.out.len();
        kept.iter().for_each(|text| self.out.extend_from_slice(text.as_bytes()));
        self.align(LIST_ALIGN);
        let at = self.out.len();
        let mut text_at = texts;
        for text in kept {
            let field = self.out.len();
            self.out.extend_from_slice(&pointer(field, Put { at: text_at, count: text.len() }));
            text_at += text.len();
        }
        Put { at, count: kept.len() }
    }

    fn binds(&mut self, binds: &[Option<&str>]) -> Put {
        let kept = self.fitting(binds, |bind| bind.map_or(0, str::len), CUT_BINDS);
        let texts = self.out.len();
        kept.iter().flatten().for_each(|text| self.out.extend_from_slice(text.as_bytes()));
        self.align(LIST_ALIGN);
        let at = self.out.len();
        let mut text_at = texts;
        for bind in kept {
            let count = bind.map_or(0, str::len);
            let field = self.out.len() + offset_of!(ArchivedBind, text);
            self.out.extend_from_slice(&[u8::from(bind.is_none()), 0, 0, 0]);
            self.out.extend_from_slice(&pointer(field, Put { at: text_at, count }));
            text_at += count;
        }
        Put { at, count: kept.len() }
    }
}

/// What the other kinds of entries put into their common row.
struct Event<'a> {
    kind: Kind,
    request: u64,
    duration_us: u64,
    statements: u64,
    what: &'a str,
    ticket: &'a str,
    by: &'a str,
    detail: &'a str,
}

impl<'a> Event<'a> {
    fn of(entry: &'a Entry<'a>) -> Self {
        let empty =
            |kind| Event { kind, request: 0, duration_us: 0, statements: 0, what: "", ticket: "", by: "", detail: "" };
        match entry {
            Entry::Request(_) | Entry::Outcome(_) => unreachable!("they have rows of their own"),
            Entry::SessionOpened { grant } => Event { what: grant, ..empty(Kind::SessionOpened) },
            Entry::LoginRefused { sqlstate, reason } => {
                let what = std::str::from_utf8(sqlstate.as_slice()).unwrap_or("XX000");
                Event { what, detail: reason, ..empty(Kind::LoginRefused) }
            }
            Entry::Ruling { request, ticket, ruling, by, reason } => {
                Event { request: *request, what: ruling, ticket, by, detail: reason, ..empty(Kind::Ruling) }
            }
            Entry::SessionClosed { reason, duration_us, statements } => Event {
                duration_us: *duration_us,
                statements: *statements,
                detail: reason,
                ..empty(Kind::SessionClosed)
            },
            Entry::Gateway { detail } => Event { detail, ..empty(Kind::Gateway) },
        }
    }
}
