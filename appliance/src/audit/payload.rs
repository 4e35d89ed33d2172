//! The payload of a frame of records: what it holds, one after another, checked as it is read. Pure.

use super::frame::{ALIGN, u32_at};
use super::layout;
use super::record::{
    ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, ArchivedRow, ArchivedWhoRow, EventTail, Kind,
    OutcomeTail, PREFIX_BYTES, ROW_VERSION, ROW_VERSION_SELF_CONTAINED, RecordBroken, RequestTail, Row,
    SelfContainedRow, View, WHO, Whose,
};

/// The records of a payload (aligned to [`ALIGN`] in memory), one after another up to the first that is broken. Read only bytes whose
/// checksum and hash have been checked; it is memory-safe on any.
pub struct Walk<'a> {
    payload: &'a [u8],
    /// Where the next record, or its who, begins.
    at: usize,
    /// Where the one handed out last begins.
    began: usize,
    /// Where each who begins that was met, and what it says.
    whos: Vec<(usize, &'a ArchivedWhoRow)>,
}

impl<'a> Walk<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, at: 0, began: 0, whos: Vec::new() }
    }

    /// Where the record that was handed out last begins.
    pub fn began(&self) -> usize {
        self.began
    }

    /// Nothing is left.
    pub fn is_over(&self) -> bool {
        self.at >= self.payload.len()
    }

    /// Looks at the next record without handing it out: when it happened. As strict as `next`, and many times as fast.
    pub fn check(&mut self) -> Option<Result<i64, RecordBroken>> {
        self.step(|walk, raw| {
            let quick = (raw.version == ROW_VERSION).then(|| layout::if_in_order(raw.kind, raw.archive)).flatten();
            match quick {
                Some((time_us, who_back)) => walk.who(raw.start, who_back).map(|_| time_us),
                None => walk.view(raw).map(|view| view.time_us()),
            }
        })
    }

    /// Nothing follows what is broken.
    fn step<T>(
        &mut self,
        read: impl FnOnce(&Self, &Raw<'a>) -> Result<T, RecordBroken>,
    ) -> Option<Result<T, RecordBroken>> {
        let raw = self.next_raw().transpose()?;
        let read = raw.and_then(|raw| read(self, &raw));
        Some(read.inspect_err(|_| self.at = self.payload.len()))
    }

    /// The next record, behind what stands of who in front of it. A payload that ends behind a who is broken.
    fn next_raw(&mut self) -> Result<Option<Raw<'a>>, RecordBroken> {
        let mut behind_who = false;
        while !self.is_over() {
            let start = self.at;
            let (framed, end) = split_raw(self.payload, start)?;
            self.at = end;
            if framed.kind != WHO {
                self.began = start;
                return framed.record(start).map(Some);
            }
            self.whos.push((start, framed.who()?));
            behind_who = true;
        }
        if behind_who { Err(RecordBroken::Who) } else { Ok(None) }
    }

    fn who(&self, start: usize, back: u32) -> Result<&'a ArchivedWhoRow, RecordBroken> {
        let at = back_from(start, back)?;
        let index = self.whos.binary_search_by_key(&at, |who| who.0).map_err(|_| RecordBroken::Who)?;
        Ok(self.whos[index].1)
    }

    fn view(&self, raw: &Raw<'a>) -> Result<View<'a>, RecordBroken> {
        raw.view(|back| self.who(raw.start, back).map(Whose::Found))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<View<'a>, RecordBroken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Self::view)
    }
}

/// The record that begins at `start` of a payload that a [`Walk`] has found whole, and what it takes.
pub fn record_at(payload: &[u8], start: usize) -> Result<(View<'_>, usize), RecordBroken> {
    let (framed, end) = split_raw(payload, start)?;
    let whose = |back| Ok(Whose::At { payload, at: back_from(start, back)? });
    Ok((framed.record(start)?.view(whose)?, end - start))
}

fn back_from(start: usize, back: u32) -> Result<usize, RecordBroken> {
    start.checked_sub(back as usize).ok_or(RecordBroken::Who)
}

/// Who stands at `at`.
pub(super) fn who_at(payload: &[u8], at: usize) -> Result<&ArchivedWhoRow, RecordBroken> {
    let (framed, _) = split_raw(payload, at)?;
    if framed.kind == WHO { framed.who() } else { Err(RecordBroken::Who) }
}

/// What a prefix says, and what it stands in front of.
struct Framed<'a> {
    kind: u8,
    version: u8,
    archive: &'a [u8],
}

impl<'a> Framed<'a> {
    fn who(&self) -> Result<&'a ArchivedWhoRow, RecordBroken> {
        match self.version {
            ROW_VERSION => access::<ArchivedWhoRow>(self.archive),
            version => Err(RecordBroken::Version(version)),
        }
    }

    fn record(self, start: usize) -> Result<Raw<'a>, RecordBroken> {
        let Self { kind, version, archive } = self;
        Ok(Raw { start, kind: Kind::from_byte(kind).ok_or(RecordBroken::Kind(kind))?, version, archive })
    }
}

/// What begins at `start`, and where it ends.
fn split_raw(payload: &[u8], start: usize) -> Result<(Framed<'_>, usize), RecordBroken> {
    let rest = payload.get(start..).filter(|rest| rest.len() >= PREFIX_BYTES).ok_or(RecordBroken::Prefix)?;
    let archive_bytes = u32_at(rest, 0) as usize;
    let (kind, version, zeros) = (rest[4], rest[5], &rest[6..8]);
    let whole_bytes = PREFIX_BYTES + archive_bytes.next_multiple_of(ALIGN);
    if zeros != [0, 0] || archive_bytes == 0 || whole_bytes > rest.len() {
        return Err(RecordBroken::Prefix);
    }
    let archive = &rest[PREFIX_BYTES..PREFIX_BYTES + archive_bytes];
    Ok((Framed { kind, version, archive }, start + whole_bytes))
}

/// A record whose prefix holds.
struct Raw<'a> {
    start: usize,
    kind: Kind,
    version: u8,
    archive: &'a [u8],
}

impl<'a> Raw<'a> {
    /// `whose`: what stands so many bytes in front of it.
    fn view(&self, whose: impl FnOnce(u32) -> Result<Whose<'a>, RecordBroken>) -> Result<View<'a>, RecordBroken> {
        Ok(match self.kind {
            Kind::Request => View::Request(self.row(whose, |tail: &RequestTail| tail.who_back.to_native())?),
            Kind::Outcome => View::Outcome(self.row(whose, |tail: &OutcomeTail| tail.who_back.to_native())?),
            kind => View::Event(kind, self.row(whose, |tail: &EventTail| tail.who_back.to_native())?),
        })
    }

    fn row<H: Checked, T: Checked>(
        &self,
        whose: impl FnOnce(u32) -> Result<Whose<'a>, RecordBroken>,
        who_back: impl FnOnce(&T) -> u32,
    ) -> Result<Row<'a, H, T>, RecordBroken> {
        match self.version {
            ROW_VERSION => {
                let ArchivedRow { head, tail } = access::<ArchivedRow<H, T>>(self.archive)?;
                Ok(Row { head, tail, whose: whose(who_back(tail))? })
            }
            ROW_VERSION_SELF_CONTAINED => {
                let SelfContainedRow { head, who, tail } = access::<SelfContainedRow<H, T>>(self.archive)?;
                Ok(Row { head, tail, whose: Whose::Found(who) })
            }
            version => Err(RecordBroken::Version(version)),
        }
    }
}

/// Where each record of a payload begins and when it happened, with no look at the rest: for payloads that a [`Walk`] has found whole,
/// since checking a record costs many times this.
pub fn outline(payload: &[u8]) -> impl Iterator<Item = (usize, i64)> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            let start = next;
            let (framed, end) = split_raw(payload, start).ok()?;
            next = end;
            if framed.kind == WHO {
                continue;
            }
            let root_bytes = root_bytes(Kind::from_byte(framed.kind)?, framed.version);
            // The root ends the archive, and its time begins the root.
            let root = framed.archive.len().checked_sub(root_bytes)?;
            let time = framed.archive.get(root..root + 8)?.try_into().expect("8 bytes");
            return Some((start, i64::from_le_bytes(time)));
        }
    })
}

fn root_bytes(kind: Kind, version: u8) -> usize {
    let row_bytes = match kind {
        Kind::Request => size_of::<ArchivedRequestRow>(),
        Kind::Outcome => size_of::<ArchivedOutcomeRow>(),
        _ => size_of::<ArchivedEventRow>(),
    };
    row_bytes + if version == ROW_VERSION_SELF_CONTAINED { size_of::<ArchivedWhoRow>() } else { 0 }
}

/// What rkyv can check.
trait Checked:
    rkyv::Portable + for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'b, rkyv::rancor::Failure>>
{
}

impl<T> Checked for T where
    T: rkyv::Portable + for<'b> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'b, rkyv::rancor::Failure>>
{
}

fn access<T: Checked>(archive: &[u8]) -> Result<&T, RecordBroken> {
    rkyv::api::low::access::<T, rkyv::rancor::Failure>(archive).map_err(|_| RecordBroken::Archive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::encode::{Encoder, Room};
    use crate::audit::tests::{groups, outcome, request, who};
    use crate::audit::{Entry, NOBODY, PackedWho, Who};
    use rkyv::util::AlignedVec;

    fn encoder() -> Encoder {
        Encoder::new(Room::of_segment(1 << 20))
    }

    fn aligned(bytes: &[u8]) -> AlignedVec<16> {
        let mut aligned = AlignedVec::new();
        aligned.extend_from_slice(bytes);
        aligned
    }

    fn packed(session: &str, user: &str) -> PackedWho {
        PackedWho::new(&who(session, user, &groups()))
    }

    fn of(packed: &PackedWho) -> Who<'_> {
        Who { packed: Some(packed), ..NOBODY }
    }

    /// How often a who stands in it.
    fn whos(payload: &[u8]) -> usize {
        let mut walk = Walk::new(payload);
        assert!(walk.by_ref().all(|view| view.is_ok()));
        walk.whos.len()
    }

    fn users(payload: &[u8]) -> Vec<String> {
        Walk::new(payload).map(|view| view.expect("it holds").who().user().to_owned()).collect()
    }

    #[test]
    fn a_session_is_named_once_in_a_payload_and_every_record_leads_to_its_own() {
        let (ann, bob) = (packed("s1", "ann"), packed("s2", "bob"));
        let (mut encoder, mut out) = (encoder(), Vec::new());
        for number in 1..=50 {
            for who in [&ann, &bob, &bob, &ann] {
                encoder.encode(number, &of(who), &Entry::Request(request(number as u64, "SELECT 1")), &mut out);
                encoder.encode(number, &of(who), &Entry::Outcome(outcome(number as u64)), &mut out);
            }
        }
        let payload = aligned(&out);
        let expected = ["ann", "ann", "bob", "bob", "bob", "bob", "ann", "ann"].repeat(50);
        assert_eq!((users(&payload), whos(&payload)), (expected.iter().map(|&user| user.to_owned()).collect(), 2));
        for ((start, _), user) in outline(&payload).zip(expected) {
            let (view, _) = record_at(&payload, start).expect("it holds");
            assert_eq!(view.who().user(), user);
        }
    }

    #[test]
    fn a_payload_that_begins_names_everyone_again() {
        let ann = packed("s1", "ann");
        let mut encoder = encoder();
        for _ in 0..2 {
            let mut out = Vec::new();
            encoder.begin_payload();
            encoder.encode(7, &of(&ann), &Entry::Gateway { detail: "" }, &mut out);
            assert_eq!(users(&aligned(&out)), ["ann"]);
        }
    }

    #[test]
    fn whoever_changes_is_another_one_be_it_at_the_same_address() {
        let (mut encoder, mut out) = (encoder(), Vec::new());
        for user in ["ann", "bob", "eve"] {
            encoder.encode(7, &of(&packed("s1", user)), &Entry::Gateway { detail: "" }, &mut out);
        }
        assert_eq!(users(&aligned(&out)), ["ann", "bob", "eve"]);
    }

    #[test]
    fn a_who_that_is_cut_stands_in_front_of_each_record_and_each_says_so() {
        let (mut encoder, mut out) = (encoder(), Vec::new());
        let long = packed("s1", &"a".repeat(20_000));
        for number in 0..3 {
            encoder.encode(number, &of(&long), &Entry::Request(request(1, "SELECT 1")), &mut out);
        }
        let payload = aligned(&out);
        assert_eq!((whos(&payload), users(&payload)[2].len()), (3, 16_384));
        assert!(Walk::new(&payload).all(|view| view.expect("it holds").cut() == crate::audit::record::CUT_TEXT));
    }

    /// A session opened, a statement and its outcome, as a gateway of before 2026-12 wrote them.
    #[test]
    fn rows_that_have_who_inside_are_read_as_well() {
        let old = include_bytes!("rows-version-1.bin");
        let (mut bytes, eve) = (old.to_vec(), packed("s9", "eve"));
        encoder().encode(7, &of(&eve), &Entry::Request(request(1, "SELECT 2")), &mut bytes);
        let payload = aligned(&bytes);
        let views: Vec<_> = Walk::new(&payload).map(|view| view.expect("it holds")).collect();
        let [View::Event(Kind::SessionOpened, opened), View::Request(asked), View::Outcome(got), View::Request(new)] =
            views[..]
        else {
            panic!("four records of these kinds")
        };
        assert_eq!((opened.what(), new.statement()), ("grant-1", &b"SELECT 2"[..]));
        assert_eq!(asked.statement(), b"select count(*) from pgbench_branches");
        assert_eq!((asked.tables().collect::<Vec<_>>(), asked.decision()), (vec!["pgbench_branches"], "allow"));
        assert_eq!((got.rows(), got.bytes(), got.payload().len(), got.error()), (1, 8, 58, ""));
        let who = views[1].who();
        assert_eq!((who.session(), who.client()), ("c4ef7051d3ded95c", "127.0.0.1:43878"));
        assert_eq!(who.groups().collect::<Vec<_>>(), ["bench"]);
        let user = "bench@example.com";
        assert_eq!(users(&payload), [user, user, user, "eve"]);

        let mut quick = Walk::new(&payload);
        let times: Vec<_> = std::iter::from_fn(|| quick.check()).map(|time_us| time_us.expect("it holds")).collect();
        assert_eq!(times, views.iter().map(View::time_us).collect::<Vec<_>>());
        let placed: Vec<_> = outline(&payload).collect();
        assert_eq!(placed.iter().map(|place| place.1).collect::<Vec<_>>(), times);
        for ((start, _), user) in placed.into_iter().zip(users(&payload)) {
            assert_eq!(record_at(&payload, start).expect("it holds").0.who().user(), user);
        }
    }

    /// Where a record says whose it is; the last four bytes of its row.
    fn with_who_back(payload: &[u8], back: impl FnOnce(u32) -> u32) -> AlignedVec<16> {
        let mut changed = aligned(payload);
        let at = payload.len() - 4;
        let was = u32::from_le_bytes(payload[at..].try_into().expect("four bytes"));
        changed[at..].copy_from_slice(&back(was).to_le_bytes());
        changed
    }

    #[test]
    fn a_record_whose_who_is_none_cannot_be_read() {
        let (ann, bob) = (packed("s1", "ann"), packed("s2", "bob"));
        let (mut encoder, mut out) = (encoder(), Vec::new());
        // A statement that looks like a who, of somebody else, aligned as one is.
        let mut forged = Vec::new();
        encoder.encode(0, &of(&bob), &Entry::Gateway { detail: "" }, &mut forged);
        let text = String::from_utf8_lossy(&forged).into_owned();
        encoder.begin_payload();
        encoder.encode(1, &of(&ann), &Entry::Request(request(1, &text)), &mut out);
        let first = out.len();
        encoder.encode(2, &of(&ann), &Entry::Outcome(outcome(1)), &mut out);
        let payload = aligned(&out);
        assert_eq!(users(&payload), ["ann", "ann"]);
        let right = first as u32;
        let (mut refused, mut held) = (0, 0);
        for back in (0..=right + 16).chain([u32::MAX, 1 << 31]) {
            let changed = with_who_back(&payload, |was| {
                assert_eq!(was, right, "the payload begins with it");
                back
            });
            let read: Vec<_> = Walk::new(&changed).map(|view| view.map(|view| view.time_us())).collect();
            let mut quick = Walk::new(&changed);
            assert_eq!(read, std::iter::from_fn(|| quick.check()).collect::<Vec<_>>(), "{back}");
            match read[..] {
                [Ok(1), Ok(2)] => held += 1,
                [Ok(1), Err(RecordBroken::Who)] => refused += 1,
                _ => panic!("{back}: {read:?}"),
            }
        }
        assert_eq!((held, refused), (1, right + 18));
    }

    #[test]
    fn a_who_that_no_record_follows_is_broken() {
        let (ann, mut encoder, mut out) = (packed("s1", "ann"), encoder(), Vec::new());
        encoder.encode(7, &of(&ann), &Entry::Gateway { detail: "" }, &mut out);
        let first = outline(&aligned(&out)).next().expect("one was written").0;
        let who = out[..first].to_vec();
        for (payload, records) in [(who.clone(), 0), ([out, who].concat(), 1)] {
            let payload = aligned(&payload);
            let read: Vec<_> = Walk::new(&payload).map(|view| view.map(|view| view.time_us())).collect();
            let mut quick = Walk::new(&payload);
            assert_eq!(read, std::iter::from_fn(|| quick.check()).collect::<Vec<_>>());
            assert_eq!((read.len(), read[records]), (records + 1, Err(RecordBroken::Who)));
        }
    }

    #[test]
    fn nothing_follows_what_is_broken() {
        let (ann, mut encoder, mut out) = (packed("s1", "ann"), encoder(), Vec::new());
        for number in 0..4 {
            encoder.encode(number, &of(&ann), &Entry::Gateway { detail: "" }, &mut out);
        }
        let second = outline(&aligned(&out)).nth(1).expect("four were written").0;
        out[second + 5] = 3;
        let read: Vec<_> = Walk::new(&aligned(&out)).map(|view| view.map(|view| view.time_us())).collect();
        assert_eq!(read, [Ok(0), Err(RecordBroken::Version(3))]);
    }
}
