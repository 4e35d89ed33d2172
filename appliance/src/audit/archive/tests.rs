//! Files written and read back, and what damage does to a reader.

use super::read::{ArchiveFile, Unreadable};
use super::schema::{Column, GROUP_ROWS};
use super::seal;
use super::whose::WhoPlace;
use super::write::{Contents, FileWriter, ShardRange};
use crate::audit::encode::{Encoder, Room};
use crate::audit::payload::{Walk, outline, record_at};
use crate::audit::row::{Row, Rows};
use crate::audit::tests::{groups, outcome, request, who};
use crate::audit::{Entry, NOBODY, Outcome, PackedWho, Request, Who};
use bytes::Bytes;
use rkyv::util::AlignedVec;

const START_US: i64 = 1_795_142_000_000_000;

/// Writes records one a second, shards and sequences as given, and returns the file and what it was made of.
struct Sample {
    writer: FileWriter<Vec<u8>>,
    encoder: Encoder,
    rows: Vec<Row>,
}

impl Sample {
    fn new() -> Self {
        let writer = FileWriter::new(Vec::new()).expect("a writer");
        Self { writer, encoder: Encoder::new(Room::of_segment(1 << 20)), rows: Vec::new() }
    }

    fn add(&mut self, shard: u32, sequence: u64, who: &Who<'_>, entry: Entry<'_>) {
        let mut bytes = Vec::new();
        self.encoder.encode(START_US + self.rows.len() as i64 * 1_000_000, who, &entry, &mut bytes);
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(&bytes);
        let view = Walk::new(&aligned).next().expect("a record").expect("a good one");
        self.writer.append(&view, shard, sequence, None).expect("memory");
        let row = Row::of(shard, sequence, &view);
        let again = Rows::new(vec![row.clone()]);
        let (_, _, view) = again.views().next().expect("a record again");
        assert_eq!(Row::of(shard, sequence, &view), row, "a row leads back to its record");
        self.rows.push(row);
    }

    fn finish(self) -> (Bytes, Contents, Vec<Row>) {
        let (file, contents) = self.writer.finish(&[("lockgate.test", "yes")]).expect("memory");
        (file.into(), contents, self.rows)
    }
}

/// Every kind of record, with everything in it that is hard to carry.
fn hard() -> Sample {
    let mut sample = Sample::new();
    let groups = groups();
    let (alice, bob) = (who("s-a", "alice", &groups), who("s-b", "bob", &[]));
    let actor = ["copilot@2.1".to_owned(), String::new()];
    let agent = Who { actor: &actor, target: "", ..alice };
    let tables = ["public.orders".to_owned(), "customers".to_owned()];
    let binds = [Some("späße"), None, Some(""), None];
    sample.add(0, 7, &alice, Entry::SessionOpened { grant: "everyone", settings: "" });
    let full =
        Request { tables: &tables, binds: &binds, classes: 1 << 3 | 1 << 40, ..request(1, "DELETE FROM orders") };
    sample.add(1, 3, &agent, Entry::Request(Request { rule: "r", ticket: "1-1-x", decision: "approve", ..full }));
    let raw = Request { statement: b"SELECT '\xe9\xff\0'", statement_bytes: 5000, ..request(2, "") };
    sample.add(0, 8, &bob, Entry::Request(raw));
    sample.add(0, 9, &bob, Entry::Request(Request { classes: 0, binds: &[None], ..request(3, "") }));
    sample.add(0, 10, &bob, Entry::Outcome(Outcome { more: true, payload: b"\x00\xff1", ..outcome(2) }));
    sample.add(0, 11, &bob, Entry::Outcome(Outcome { error: "22012", rows: 0, bytes: 0, ..outcome(2) }));
    sample.add(2, 1, &bob, Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" });
    let ruling = Entry::Ruling { request: 1, ticket: "1-1-x", ruling: "approved", by: "eve", reason: "" };
    sample.add(1, 4, &agent, ruling);
    sample.add(0, 12, &alice, Entry::SessionClosed { reason: "terminated", duration_us: 9, statements: 1 });
    sample.add(0, 13, &who("", "", &[]), Entry::Gateway { detail: "started" });
    sample
}

fn open(bytes: &Bytes) -> Result<ArchiveFile, Unreadable> {
    ArchiveFile::open(Box::new(bytes.clone()))
}

fn all(file: &ArchiveFile) -> Result<Vec<Row>, Unreadable> {
    let mut rows = Vec::new();
    file.for_each(|row| rows.push(row)).map(|()| rows)
}

#[test]
fn every_kind_of_record_reads_back_as_it_was_written() {
    let (bytes, contents, rows) = hard().finish();
    let file = open(&bytes).expect("a good file");
    assert_eq!(all(&file).expect("readable"), rows);
    assert_eq!(file.rows(), rows.len() as u64);
    assert_eq!(file.entry("lockgate.test"), Some("yes"));
    assert_eq!(file.entry("lockgate.shards"), Some("0:7-13:7 1:3-4:2 2:1-1:1"));
    assert_eq!(contents.shards[&0], ShardRange { first: 7, last: 13, records: 7 });
    assert_eq!((contents.records, contents.bytes), (10, bytes.len() as u64));
    assert_eq!(contents.times, Some((START_US, START_US + 9_000_000)));
    let group = file.group(0);
    assert_eq!(group.times(), contents.times);
    let some = group.materialise(&[2, 4, 9], false).expect("readable");
    assert_eq!(some[0], rows[2]);
    assert_eq!(some[1], Row { payload: Vec::new(), ..rows[4].clone() }, "payloads only when asked for");
    assert_eq!(some[2], rows[9]);
}

/// More sessions than a dictionary takes, in more records than a row group has.
#[test]
fn sessions_that_a_frame_names_once_read_back_with_every_record() {
    let mut sample = Sample::new();
    let groups = groups();
    let session = |number: u64| {
        let (session, user) = (format!("s-{number}"), format!("ü{}", number % 7));
        let groups = if number.is_multiple_of(3) { &groups[..number as usize % 2 + 1] } else { &[] };
        PackedWho::new(&who(&session, &user, groups))
    };
    let sessions: Vec<_> = (0..2_500).map(session).collect();
    let (mut sequence, mut shared) = (0, 0);
    for frame in 0..24 {
        let mut bytes = Vec::new();
        sample.encoder.begin_payload();
        for number in 0..3_000 {
            let packed = &sessions[(number * 7_919 + frame * 31) as usize % sessions.len()];
            let entry = Entry::Request(request(number, "SELECT 1"));
            let time_us = START_US + (frame * 3_000 + number) as i64;
            sample.encoder.encode(time_us, &Who { packed: Some(packed), ..NOBODY }, &entry, &mut bytes);
        }
        let mut payload = AlignedVec::<16>::new();
        payload.extend_from_slice(&bytes);
        let mut met = std::collections::HashSet::new();
        for (start, _) in outline(&payload) {
            let (view, _) = record_at(&payload, start).expect("a good one");
            let whose = view.who_at().map(|at| WhoPlace { shard: 1, frame, at });
            shared += usize::from(!met.insert(whose.expect("it is in front").at));
            sequence += 1;
            sample.writer.append(&view, 1, sequence, whose).expect("memory");
            sample.rows.push(Row::of(1, sequence, &view));
        }
    }
    assert!(shared > 10_000, "{shared} records share their who with one before them");
    let (bytes, _, rows) = sample.finish();
    let file = open(&bytes).expect("a good file");
    assert_eq!(file.groups().count(), 2);
    assert_eq!(all(&file).expect("readable"), rows);
    assert!(file.group(1).may_hold(Column::Session, "s-2499").expect("readable"));
    assert!(!file.group(1).may_hold(Column::Session, "s-2500").expect("readable"));
}

#[test]
fn a_file_without_records_is_one_all_the_same() {
    let (bytes, contents, _) = Sample::new().finish();
    let file = open(&bytes).expect("a good file");
    assert_eq!((file.rows(), file.groups().count(), contents.times), (0, 0, None));
}

/// More than a row group, many pages: one record in a thousand is of mallory, in a session of her own.
fn large() -> (Bytes, Vec<Row>) {
    let mut sample = Sample::new();
    let tables = ["public.rare".to_owned()];
    for number in 0..GROUP_ROWS as u64 + 1000 {
        let rare = number % 1000 == 777;
        let (session, user) = if rare { (format!("s-m{number}"), "mallory") } else { (format!("s-{number}"), "alice") };
        let text = format!("SELECT {number}");
        let mut entry = request(number + 1, &text);
        if rare {
            entry.tables = &tables;
        }
        sample.add(0, number + 1, &who(&session, user, &[]), Entry::Request(entry));
    }
    let (bytes, _, rows) = sample.finish();
    (bytes, rows)
}

#[test]
fn few_rows_of_a_large_file_are_found_by_columns_and_read_alone() {
    let (bytes, rows) = large();
    let file = open(&bytes).expect("a good file");
    assert_eq!(file.groups().map(|group| group.rows()).collect::<Vec<_>>(), [GROUP_ROWS as u32, 1000]);
    let mut found = Vec::new();
    for group in file.groups() {
        let mut picks: Vec<u32> = (0..group.rows()).collect();
        group.retain_longs(Column::Time, &mut picks, |time| time >= START_US + 5_000_000_000).expect("readable");
        group.retain_texts(Column::User, &mut picks, |user| user == "mallory").expect("readable");
        group.retain_lists(Column::Tables, &mut picks, |table| table == "public.rare").expect("readable");
        found.extend(group.materialise(&picks, false).expect("readable"));
    }
    let wanted: Vec<_> = rows.into_iter().filter(|row| row.user == "mallory" && row.sequence > 5000).collect();
    assert!(wanted.len() > 50);
    assert_eq!(found, wanted);
    let holds = |column, text| file.group(0).may_hold(column, text).expect("readable");
    assert!(holds(Column::User, "mallory") && holds(Column::Session, "s-77") && holds(Column::Tables, "public.rare"));
    assert!(!holds(Column::User, "eve") && !holds(Column::Session, "s-65778") && !holds(Column::Tables, "public.r"));
}

#[test]
fn a_flipped_byte_anywhere_is_reported_and_never_read_as_something_else() {
    let (bytes, _, rows) = hard().finish();
    let good = bytes.to_vec();
    let mut silent = Vec::new();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        match open(&bad.into()).and_then(|file| all(&file)) {
            Ok(read) => {
                assert_eq!(read, rows, "byte {at}");
                silent.push(at);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // Bloom filters are checked when they are asked; the magic in front says nothing.
    let asked = [
        (Column::Session, "s-a"),
        (Column::User, "alice"),
        (Column::Target, "orders"),
        (Column::Classes, "delete"),
        (Column::Tables, "customers"),
        (Column::Decision, "allow"),
        (Column::Rule, "r"),
        (Column::Ticket, "1-1-x"),
    ];
    let ask = |bytes: Vec<u8>| {
        let file = open(&bytes.into()).expect("it opens");
        asked.map(|(column, text)| file.group(0).may_hold(column, text))
    };
    assert!(ask(good.clone()).into_iter().all(|held| held.is_ok_and(|held| held)));
    for at in silent.into_iter().filter(|at| *at >= 4) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        assert!(ask(bad).iter().any(Result::is_err), "byte {at}");
    }
}

#[test]
fn cut_files_and_strangers_files_are_refused_with_a_reason() {
    let (bytes, _, _) = hard().finish();
    for length in 0..bytes.len() {
        let error = open(&bytes.slice(..length)).err().expect("cut");
        assert!(!error.to_string().is_empty());
    }
    let check = |bytes: &'static [u8], reason: &str| {
        let error = open(&Bytes::from_static(bytes)).err().expect("not a file of ours").to_string();
        assert!(error.contains(reason), "{error}");
    };
    check(b"", "does not end as a Parquet file");
    check(b"PAR1\0\0\0\0PAR1", "no archive file of Lockgate");
    check(b"\xff\xff\xff\x7fPAR1", "does not end as a Parquet file");
}

/// The file with one byte changed and all checksums made to match: what somebody who may write it could put there.
fn forged(good: &[u8], chunks: &[std::ops::Range<usize>], at: usize, flip: u8) -> Bytes {
    let mut bad = good.to_vec();
    bad[at] ^= flip;
    let key = memchr::memmem::rfind(&bad, seal::CHUNKS_KEY.as_bytes()).expect("the key");
    // In Thrift's compact protocol: a type and a length of as many bytes as it needs, then the text.
    let text = bad[key..].iter().skip(seal::CHUNKS_KEY.len()).position(u8::is_ascii_hexdigit).expect("digits");
    let text = key + seal::CHUNKS_KEY.len() + text;
    let text = text + bad[text..].windows(2).position(|pair| pair.iter().all(u8::is_ascii_hexdigit)).expect("digits");
    for (index, chunk) in chunks.iter().enumerate() {
        let crc = format!("{:08x}", crc32c::crc32c(&bad[chunk.clone()]));
        bad[text + index * 16..text + index * 16 + 8].copy_from_slice(crc.as_bytes());
    }
    let begins_at = seal::tail_begins_at(&bad).expect("a tail");
    let tail = memchr::memmem::rfind(&bad, seal::TAIL_KEY.as_bytes()).expect("the key") + seal::TAIL_KEY.len() + 2;
    bad[tail..tail + seal::TAIL_BLANK.len()].copy_from_slice(seal::TAIL_BLANK.as_bytes());
    assert!(seal::close_tail(&mut bad[begins_at as usize..], begins_at));
    bad.into()
}

#[test]
fn a_forged_file_is_an_error_or_another_file_and_never_the_end_of_its_reader() {
    let (bytes, _, rows) = hard().finish();
    let chunks = open(&bytes).expect("a good file").chunks();
    let same = forged(&bytes, &chunks, 0, 0);
    assert_eq!(same, bytes, "what is not changed needs no other checksums");
    let last = chunks.iter().map(|chunk| chunk.end).max().expect("chunks");
    let (mut errors, mut others) = (0, 0);
    let cry = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        if !super::read::is_guarded() {
            eprintln!("{panic}");
        }
    }));
    for at in (0..last).step_by(2) {
        for flip in [0x01, 0x80, 0x7f] {
            match open(&forged(&bytes, &chunks, at, flip)).and_then(|file| all(&file)) {
                Ok(read) if read == rows => {}
                Ok(_) => others += 1,
                Err(_) => errors += 1,
            }
        }
    }
    std::panic::set_hook(cry);
    assert!(errors > 1000 && others > 100, "{errors} {others}");
}
