//! A record into bytes: texts behind one another, then the row that points at them. Written by hand because every
//! statement pays for it twice; `record.rs` has the layout and reads it back through rkyv's own checks. Pure.

use super::frame::ALIGN;
use super::record::{
    ArchivedBind, ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, ArchivedWhoRow, CUT_BINDS, CUT_PAYLOAD,
    CUT_STATEMENT, CUT_TABLES, CUT_TEXT, EventHead, EventTail, ITEM_BYTES, Kind, LIST_BYTES_MAX, OutcomeHead,
    OutcomeTail, PAYLOAD_BYTES_MAX, PREFIX_BYTES, ROW_VERSION, RequestHead, RequestTail, TEXT_BYTES_MAX, WHO,
};
use super::who::WhoId;
use super::{Entry, Outcome, PackedWho, Request, Who};
use crate::limits::AUDIT_STATEMENT_BYTES_MAX;
use hashbrown::HashMap;
use std::mem::{offset_of, size_of};

/// An upper bound of everything in a record that is not text.
const FIXED_BYTES: usize = 512;
/// Of a text or a list in a row: offset and length.
pub(super) const POINTER_BYTES: usize = 8;
/// Lists begin at multiples of this.
const LIST_ALIGN: usize = 4;

const _: () = assert!(size_of::<ArchivedRequestRow>() == 88);
const _: () = assert!(size_of::<ArchivedOutcomeRow>() == 72);
const _: () = assert!(size_of::<ArchivedEventRow>() == 72);
const _: () = assert!(size_of::<ArchivedBind>() == 12);
// In the order of a row's fields: a reader's checks walk both together.
const _: () = assert!(size_of::<ArchivedWhoRow>() == 8 * POINTER_BYTES);

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

/// Writes the records of a payload behind one another into a buffer, allocating nothing but the buffer (and where what is packed has to
/// be cut, and room for as many sessions as a payload has had).
pub struct Encoder {
    room: Room,
    /// Where each session's who stands in the buffer.
    whos: HashMap<WhoId, usize, ahash::RandomState>,
}

impl Encoder {
    pub fn new(room: Room) -> Self {
        Self { room, whos: HashMap::default() }
    }

    /// Another payload begins, or what was written last is taken back.
    pub fn begin_payload(&mut self) {
        self.whos.clear();
    }

    /// Room for as many sessions as the payload has is enough.
    pub fn shrink(&mut self) {
        self.whos.shrink_to_fit();
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
            Entry::SessionOpened { grant, settings } => text(grant) + text(settings),
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

    /// Appends one record to `out`, whose length is a multiple of [`ALIGN`] and stays one; in front of it, where the payload does not
    /// have it yet, its who.
    pub fn encode(&mut self, time_us: i64, who: &Who<'_>, entry: &Entry<'_>, out: &mut Vec<u8>) {
        debug_assert!(out.len().is_multiple_of(ALIGN));
        let (who_at, cut) = self.who(who, out);
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let mut flat = Flat { out, room: self.room, cut, who_back: (start - who_at) as u32 };
        let kind = match entry {
            Entry::Request(request) => flat.request(time_us, request),
            Entry::Outcome(outcome) => flat.outcome(time_us, outcome),
            event => flat.event(time_us, event),
        };
        prefix(out, start, kind as u8);
    }

    /// Where it stands, and what of it was cut.
    #[inline]
    fn who(&mut self, who: &Who<'_>, out: &mut Vec<u8>) -> (usize, u8) {
        match who.packed {
            Some(packed) => match self.whos.get(&packed.id) {
                Some(&at) => (at, 0),
                None => self.packed_who(packed, out),
            },
            None => self.put_who(out, |flat| flat.who(who)),
        }
    }

    fn packed_who(&mut self, packed: &PackedWho, out: &mut Vec<u8>) -> (usize, u8) {
        if !packed.fits(self.room.text, self.room.list) {
            // A part of it has to be cut: each record says so.
            return self.put_who(out, |flat| flat.who(&packed.unpacked().who()));
        }
        let put = self.put_who(out, |flat| flat.packed_who(packed));
        self.whos.insert(packed.id, put.0);
        put
    }

    fn put_who(&self, out: &mut Vec<u8>, parts: impl FnOnce(&mut Flat<'_>) -> WhoPut) -> (usize, u8) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        let mut flat = Flat { out, room: self.room, cut: 0, who_back: 0 };
        let parts = parts(&mut flat);
        let mut row = flat.row::<{ size_of::<ArchivedWhoRow>() }>();
        for (index, put) in parts.into_iter().enumerate() {
            row.pointer(index * POINTER_BYTES, put);
        }
        let cut = flat.cut;
        out.extend_from_slice(&row.bytes);
        prefix(out, start, WHO);
        (start, cut)
    }
}

/// What began at `start` with room for its prefix is complete.
fn prefix(out: &mut [u8], start: usize, kind: u8) {
    let archive_bytes = (out.len() - start - PREFIX_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&archive_bytes.to_le_bytes());
    out[start + 4] = kind;
    out[start + 5] = ROW_VERSION;
    debug_assert!(out.len().is_multiple_of(ALIGN), "rows are aligned to 8 and sized in eights");
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
    let puts = Flat { out: &mut bytes, room: unbounded, cut: 0, who_back: 0 }.who(who);
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

    fn who_back(&mut self, offset: usize, back: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&back.to_le_bytes());
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
    /// From the record's first byte to that of its who.
    who_back: u32,
}

impl Flat<'_> {
    fn request(&mut self, time_us: i64, request: &Request<'_>) -> Kind {
        let statement = self.bytes(request.statement, self.room.statement, CUT_STATEMENT);
        if (statement.count as u64) < request.statement_bytes {
            self.cut |= CUT_STATEMENT;
        }
        let binds = self.binds(request.binds);
        let tables = self.list(request.tables, CUT_TABLES);
        let (decision, rule) = (self.text(request.decision), self.text(request.rule));
        let ticket = self.text(request.ticket);
        type R = ArchivedRequestRow;
        let (tail, mut row) = (offset_of!(R, tail), self.row::<{ size_of::<R>() }>());
        row.number(offset_of!(RequestHead, time_us), time_us as u64);
        row.number(offset_of!(RequestHead, request), request.request);
        row.number(offset_of!(RequestHead, statement_bytes), request.statement_bytes);
        row.number(offset_of!(RequestHead, classes), request.classes);
        row.pointer(tail + offset_of!(RequestTail, statement), statement);
        row.pointer(tail + offset_of!(RequestTail, binds), binds);
        row.pointer(tail + offset_of!(RequestTail, tables), tables);
        row.pointer(tail + offset_of!(RequestTail, decision), decision);
        row.pointer(tail + offset_of!(RequestTail, rule), rule);
        row.pointer(tail + offset_of!(RequestTail, ticket), ticket);
        row.bytes[tail + offset_of!(RequestTail, cut)] = self.cut;
        row.who_back(tail + offset_of!(RequestTail, who_back), self.who_back);
        self.out.extend_from_slice(&row.bytes);
        Kind::Request
    }

    fn outcome(&mut self, time_us: i64, outcome: &Outcome<'_>) -> Kind {
        let error = self.text(outcome.error);
        let payload = self.bytes(outcome.payload, self.room.payload, CUT_PAYLOAD);
        if outcome.payload_cut {
            self.cut |= CUT_PAYLOAD;
        }
        type R = ArchivedOutcomeRow;
        let (tail, mut row) = (offset_of!(R, tail), self.row::<{ size_of::<R>() }>());
        row.number(offset_of!(OutcomeHead, time_us), time_us as u64);
        row.number(offset_of!(OutcomeHead, request), outcome.request);
        row.number(offset_of!(OutcomeHead, rows), outcome.rows);
        row.number(offset_of!(OutcomeHead, bytes), outcome.bytes);
        row.number(offset_of!(OutcomeHead, duration_us), outcome.duration_us);
        row.number(offset_of!(OutcomeHead, masked), outcome.masked);
        row.pointer(tail + offset_of!(OutcomeTail, error), error);
        row.pointer(tail + offset_of!(OutcomeTail, payload), payload);
        row.bytes[tail + offset_of!(OutcomeTail, more)] = u8::from(outcome.more);
        row.bytes[tail + offset_of!(OutcomeTail, cut)] = self.cut;
        row.who_back(tail + offset_of!(OutcomeTail, who_back), self.who_back);
        self.out.extend_from_slice(&row.bytes);
        Kind::Outcome
    }

    fn event(&mut self, time_us: i64, entry: &Entry<'_>) -> Kind {
        let event = Event::of(entry);
        let (what, ticket) = (self.text(event.what), self.text(event.ticket));
        let (by, detail) = (self.text(event.by), self.text(event.detail));
        type R = ArchivedEventRow;
        let (tail, mut row) = (offset_of!(R, tail), self.row::<{ size_of::<R>() }>());
        row.number(offset_of!(EventHead, time_us), time_us as u64);
        row.number(offset_of!(EventHead, request), event.request);
        row.number(offset_of!(EventHead, duration_us), event.duration_us);
        row.number(offset_of!(EventHead, statements), event.statements);
        row.pointer(tail + offset_of!(EventTail, what), what);
        row.pointer(tail + offset_of!(EventTail, ticket), ticket);
        row.pointer(tail + offset_of!(EventTail, by), by);
        row.pointer(tail + offset_of!(EventTail, detail), detail);
        row.bytes[tail + offset_of!(EventTail, cut)] = self.cut;
        row.who_back(tail + offset_of!(EventTail, who_back), self.who_back);
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
            Entry::SessionOpened { grant, settings } => {
                Event { what: grant, detail: settings, ..empty(Kind::SessionOpened) }
            }
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
