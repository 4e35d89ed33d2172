//! Does a record lie as its writer lays it out? A check of bounds and UTF-8 alone, for whoever reads trails by the gigabyte.
//!
//! What passes is what rkyv's own validation passes: texts and lists stand before the row, one behind another, in the order
//! of its fields (what a list points at stands before the list). Anything else is for rkyv to judge.

use super::record::{
    ArchivedBind, ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, EventTail, Kind, OutcomeTail, RequestTail,
};
use std::mem::offset_of;

/// Offset and length.
const POINTER_BYTES: usize = 8;
const LIST_ALIGN: usize = 4;

/// Bytes of a row, where its tail begins, and where in the tail it says how far back its who stands.
macro_rules! places {
    ($row:ty, $tail:ty) => {
        (size_of::<$row>(), offset_of!($row, tail), offset_of!($tail, who_back))
    };
}

/// The time of the record in an archive (which begins at a multiple of 8 in memory), and how far back it says that its who stands.
/// `None`: it lies in another way, or is broken.
pub fn if_in_order(kind: Kind, archive: &[u8]) -> Option<(i64, u32)> {
    let (row_bytes, tail, who_back) = match kind {
        Kind::Request => places!(ArchivedRequestRow, RequestTail),
        Kind::Outcome => places!(ArchivedOutcomeRow, OutcomeTail),
        _ => places!(ArchivedEventRow, EventTail),
    };
    let row = archive.len().checked_sub(row_bytes).filter(|row| row.is_multiple_of(8))?;
    let (tail, mut walk) = (row + tail, Walk { archive, low: 0 });
    match kind {
        Kind::Request => {
            walk.octets(tail + offset_of!(RequestTail, statement), row)?;
            let binds = tail + offset_of!(RequestTail, binds);
            walk.list(binds, size_of::<ArchivedBind>(), offset_of!(ArchivedBind, text), row)?;
            walk.list(tail + offset_of!(RequestTail, tables), POINTER_BYTES, 0, row)?;
            walk.text(tail + offset_of!(RequestTail, decision), row)?;
            walk.text(tail + offset_of!(RequestTail, rule), row)?;
            walk.text(tail + offset_of!(RequestTail, ticket), row)?;
        }
        Kind::Outcome => {
            walk.text(tail + offset_of!(OutcomeTail, error), row)?;
            walk.octets(tail + offset_of!(OutcomeTail, payload), row)?;
        }
        _ => {
            walk.text(tail + offset_of!(EventTail, what), row)?;
            walk.text(tail + offset_of!(EventTail, ticket), row)?;
            walk.text(tail + offset_of!(EventTail, by), row)?;
            walk.text(tail + offset_of!(EventTail, detail), row)?;
        }
    }
    // The time begins every row.
    let time_us = i64::from_le_bytes(archive.get(row..row + 8)?.try_into().ok()?);
    let who_back = archive.get(tail + who_back..)?.first_chunk()?;
    Some((time_us, u32::from_le_bytes(*who_back)))
}

struct Walk<'a> {
    archive: &'a [u8],
    /// Where the last text or list that was looked at ends.
    low: usize,
}

impl Walk<'_> {
    /// What a pointer points at, between `low` and `high`.
    fn extent(&self, at: usize, item_bytes: usize, high: usize) -> Option<(usize, usize)> {
        let pointer = self.archive.get(at..at + POINTER_BYTES)?;
        let offset = i32::from_le_bytes(pointer[..4].try_into().ok()?);
        let count = u32::from_le_bytes(pointer[4..].try_into().ok()?) as usize;
        let start = at.checked_add_signed(offset as isize)?;
        let end = start.checked_add(count.checked_mul(item_bytes)?)?;
        (start >= self.low && end <= high).then_some((start, end))
    }

    fn octets(&mut self, at: usize, high: usize) -> Option<()> {
        (_, self.low) = self.extent(at, 1, high)?;
        Some(())
    }

    fn text(&mut self, at: usize, high: usize) -> Option<()> {
        let (start, end) = self.extent(at, 1, high)?;
        std::str::from_utf8(&self.archive[start..end]).ok()?;
        self.low = end;
        Some(())
    }

    /// Items with a text each, `text_at` bytes into them.
    fn list(&mut self, at: usize, item_bytes: usize, text_at: usize, high: usize) -> Option<()> {
        let (start, end) = self.extent(at, item_bytes, high)?;
        if !start.is_multiple_of(LIST_ALIGN) {
            return None;
        }
        for item in (start..end).step_by(item_bytes) {
            self.text(item + text_at, start)?;
        }
        self.low = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::encode::{Encoder, Room};
    use crate::audit::payload::Walk;
    use crate::audit::record::PREFIX_BYTES;
    use crate::audit::tests::{groups, outcome, request, who};
    use crate::audit::{Entry, Outcome, Request};
    use rkyv::util::AlignedVec;

    /// One record of every kind, each in a payload of its own.
    fn records() -> Vec<AlignedVec<16>> {
        let (groups, tables) = (groups(), ["public.customers".to_owned(), String::new()]);
        let binds = [None, Some("späße"), Some("")];
        let full = Request { binds: &binds, tables: &tables, rule: "r", ticket: "t-1", ..request(3, "SELECT 'ünï'") };
        let entries = [
            Entry::Request(full),
            Entry::Request(request(4, "")),
            Entry::Outcome(Outcome { error: "22012", ..outcome(3) }),
            Entry::SessionOpened { grant: "g", settings: "" },
            Entry::LoginRefused { sqlstate: *b"28000", reason: "no" },
            Entry::Ruling { request: 3, ticket: "t", ruling: "approve", by: "bob", reason: "fine" },
            Entry::SessionClosed { reason: "bye", duration_us: 5, statements: 1 },
            Entry::Gateway { detail: "stopped" },
        ];
        let mut encoder = Encoder::new(Room::of_segment(1 << 20));
        let encoded = |entry: &Entry<'_>| {
            let (mut bytes, mut aligned) = (Vec::new(), AlignedVec::new());
            encoder.encode(77, &who("s1", "alice", &groups), entry, &mut bytes);
            aligned.extend_from_slice(&bytes);
            aligned
        };
        entries.iter().map(encoded).collect()
    }

    /// Kind, archive, and where the record begins behind its who.
    fn parts(payload: &[u8]) -> (Kind, &[u8], usize) {
        let mut walk = Walk::new(payload);
        let kind = walk.next().expect("there is one").expect("it holds").kind();
        let start = walk.began();
        let bytes = u32::from_le_bytes(payload[start..start + 4].try_into().unwrap()) as usize;
        (kind, &payload[start + PREFIX_BYTES..start + PREFIX_BYTES + bytes], start)
    }

    #[test]
    fn what_our_writer_writes_passes_at_once() {
        for record in records() {
            let (kind, archive, start) = parts(&record);
            assert_eq!(if_in_order(kind, archive), Some((77, start as u32)), "its who is what the payload begins with");
        }
    }

    #[test]
    fn nothing_passes_that_rkyv_would_refuse() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let (mut held, mut refused) = (0, 0);
        for record in records() {
            let (kind, archive, start) = parts(&record);
            let who_back = start as u32;
            for _ in 0..40_000 {
                let mut bad = record.clone();
                for _ in 0..=next(3) {
                    // Behind the prefix: pointers mostly, by small steps and large ones.
                    let at = start + PREFIX_BYTES + next(archive.len());
                    bad[at] = if next(2) == 0 {
                        bad[at].wrapping_add(next(17) as u8).wrapping_sub(8)
                    } else {
                        next(256) as u8
                    };
                }
                let judged = Walk::new(&bad).next().expect("there is one").map(|view| view.time_us());
                assert_eq!(Walk::new(&bad).check().expect("there is one"), judged, "{:?}", &bad[..]);
                // And the other way round: FORMAT.md's rules are all there are.
                let quick = if_in_order(kind, &bad[start + PREFIX_BYTES..][..archive.len()]);
                let quick = quick.and_then(|(time_us, back)| (back == who_back).then_some(time_us));
                assert_eq!(quick, judged.ok(), "{:?}", &bad[..]);
                if judged.is_ok() { held += 1 } else { refused += 1 }
            }
        }
        assert!(held > 1000 && refused > 1000, "{held} held, {refused} did not");
    }
}
