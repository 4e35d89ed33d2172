//! The trail as a whole: written, stopped, torn, flipped, filled, and read back.

use super::frame::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES};
use super::reader::{Damage, DamageKind, Expected, SegmentReader, Step};
use super::record::{Kind, View};
use super::seal::{Keeper, SealerOptions};
use super::segment::{self, SEGMENT_BYTES_MIN};
use super::trail::{Advance, ChainReader};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::LazyLock;

pub(super) const NOW_US: i64 = 1_795_142_000_000_000;

pub(super) fn groups() -> Vec<String> {
    vec!["engineering".to_owned(), "on-call".to_owned()]
}

pub(super) fn who<'a>(session: &'a str, user: &'a str, groups: &'a [String]) -> Who<'a> {
    Who {
        session,
        user,
        groups,
        actor: &[],
        target: "orders",
        client: "127.0.0.1:50000",
        application: "psql",
        claimed_user: "postgres",
        packed: None,
    }
}

pub(super) fn request<'a>(number: u64, statement: &'a str) -> Request<'a> {
    Request {
        request: number,
        statement: statement.as_bytes(),
        statement_bytes: statement.len() as u64,
        binds: &[],
        classes: 1,
        tables: &[],
        decision: "allow",
        rule: "",
        ticket: "",
    }
}

pub(super) fn outcome(number: u64) -> Outcome<'static> {
    Outcome {
        request: number,
        rows: 3,
        bytes: 99,
        duration_us: 1500,
        error: "",
        masked: 2,
        more: false,
        payload: &[],
        payload_cut: false,
    }
}

/// In memory where there is such a place: these tests sync thousands of times.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn ring(dir: &Path, segments_per_shard: u32) -> RingOptions {
    RingOptions { data_dir: dir.to_owned(), shard: 0, segment_bytes: SEGMENT_BYTES_MIN, segments_per_shard }
}

fn keeper(dir: &Path, segments_per_shard: u32, archive: bool) -> Keeper {
    Keeper::new(SealerOptions {
        data_dir: dir.to_owned(),
        shards: 1,
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_per_shard,
        release: if archive { Release::Sealed } else { Release::Never },
    })
}

pub(super) fn open(dir: &Path, segments_per_shard: u32) -> SegmentWriter {
    SegmentWriter::open(&ring(dir, segments_per_shard), NOW_US).expect("the trail opens").0
}

pub(super) fn append(writer: &mut SegmentWriter, number: u64, statement: &str) -> Result<(), Full> {
    static ALICE: LazyLock<PackedWho> = LazyLock::new(|| PackedWho::new(&who("s1", "alice", &groups())));
    let who = Who { packed: Some(&ALICE), ..NOBODY };
    writer.append(NOW_US + number as i64, &who, &Entry::Request(request(number, statement)))
}

/// Statements of the whole chain in order, sequences checked, and the damage met.
pub(super) fn read(dir: &Path) -> (Vec<String>, Vec<Damage>) {
    let (mut statements, mut damages) = (Vec::new(), Vec::new());
    let mut chain = ChainReader::whole(dir.to_owned(), 0).thorough();
    loop {
        match chain.advance().expect("readable files") {
            Advance::Frame(_) => {
                for record in chain.records() {
                    match record {
                        Ok((_, View::Request(row))) => {
                            statements.push(String::from_utf8_lossy(row.statement()).into_owned());
                        }
                        Ok((_, View::Event(Kind::Gateway, row))) => {
                            statements.push(format!("gateway: {}", row.detail()))
                        }
                        Ok(_) => {}
                        Err(damage) => damages.push(damage),
                    }
                }
            }
            Advance::Damage(damage) => damages.push(damage),
            Advance::End => {
                damages.extend(chain.take_unfinished());
                return (statements, damages);
            }
        }
    }
}

fn kinds(damages: &[Damage]) -> Vec<&DamageKind> {
    damages.iter().map(|damage| &damage.kind).collect()
}

/// A trail of `frames` frames with one statement each, in one segment. Returns each frame's offset, and the end.
fn short_trail(dir: &Path, frames: u64) -> Vec<u64> {
    let mut writer = open(dir, 2);
    let mut offsets = vec![SEGMENT_HEADER_BYTES as u64];
    for number in 1..=frames {
        append(&mut writer, number, &format!("SELECT {number}")).expect("room");
        writer.write().expect("written");
        offsets.push(end_of_frames(dir, offsets.last().copied().expect("one")));
    }
    offsets
}

fn end_of_frames(dir: &Path, at: u64) -> u64 {
    let bytes = fs::read(first_segment(dir)).expect("readable");
    let at = at as usize;
    let payload = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("4 bytes"));
    (at + FRAME_HEADER_BYTES) as u64 + u64::from(payload)
}

pub(super) fn first_segment(dir: &Path) -> std::path::PathBuf {
    segment::ring_path(&segment::ring_dir(dir, 0), 1)
}

#[test]
fn every_kind_of_record_reads_back_as_it_was_written() {
    let dir = scratch();
    let mut writer = open(dir.path(), 2);
    let (groups, actor, tables) = (groups(), ["copilot@2.1".to_owned()], ["public.customers".to_owned()]);
    let who = Who { actor: &actor, ..who("s1", "älice", &groups) };
    let binds = [Some("42"), None, Some("")];
    let long = "x".repeat(300);
    let request = Request {
        binds: &binds,
        classes: 0b101,
        tables: &tables,
        decision: "approve",
        rule: "careful",
        ticket: "0-1-ab",
        ..request(7, &long)
    };
    let outcome = Outcome { error: "57014", more: true, payload: b"\x00\xff", ..outcome(7) };
    let entries = [
        Entry::SessionOpened { grant: "g", settings: "" },
        Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" },
        Entry::Request(request),
        Entry::Ruling { request: 7, ticket: "0-1-ab", ruling: "approved", by: "bob", reason: "ok" },
        Entry::Outcome(outcome),
        Entry::SessionClosed { reason: "terminated", duration_us: 5, statements: 1 },
        Entry::Gateway { detail: "started" },
    ];
    for (index, entry) in entries.iter().enumerate() {
        writer.append(NOW_US + index as i64, &who, entry).expect("room");
    }
    writer.write().expect("written");

    let mut chain = ChainReader::whole(dir.path().to_owned(), 0);
    assert!(matches!(chain.advance().expect("readable"), Advance::Frame(_)));
    let mut kinds = Vec::new();
    for (index, record) in chain.records().enumerate() {
        let (sequence, view) = record.expect("whole records");
        assert_eq!((sequence, view.time_us()), (index as u64 + 1, NOW_US + index as i64));
        let read = view.who();
        assert_eq!((read.session(), read.user(), read.target()), ("s1", "älice", "orders"));
        assert_eq!((read.client(), read.application(), read.claimed_user()), ("127.0.0.1:50000", "psql", "postgres"));
        assert_eq!(read.groups().collect::<Vec<_>>(), ["engineering", "on-call"]);
        assert_eq!(read.actor().collect::<Vec<_>>(), ["copilot@2.1"]);
        kinds.push(view.kind());
        match view {
            View::Request(row) => {
                assert_eq!((row.statement(), row.statement_bytes()), (long.as_bytes(), 300));
                assert_eq!(row.binds().collect::<Vec<_>>(), binds);
                assert_eq!(row.tables().collect::<Vec<_>>(), ["public.customers"]);
                assert_eq!((row.classes(), row.decision(), row.rule()), (0b101, "approve", "careful"));
                assert_eq!((row.ticket(), row.cut(), view.request()), ("0-1-ab", 0, 7));
            }
            View::Outcome(row) => {
                assert_eq!((row.rows(), row.bytes(), row.duration_us(), row.masked()), (3, 99, 1500, 2));
                assert_eq!((row.error(), row.more(), row.payload()), ("57014", true, &b"\x00\xff"[..]));
                assert_eq!(view.request(), 7);
            }
            View::Event(Kind::LoginRefused, row) => assert_eq!((row.what(), row.detail()), ("28P01", "expired")),
            View::Event(Kind::Ruling, row) => {
                assert_eq!((row.what(), row.ticket(), row.by()), ("approved", "0-1-ab", "bob"));
                assert_eq!((row.detail(), view.request()), ("ok", 7));
            }
            View::Event(Kind::SessionClosed, row) => {
                assert_eq!((row.detail(), row.duration_us(), row.statements()), ("terminated", 5, 1));
            }
            View::Event(Kind::SessionOpened, row) => assert_eq!(row.what(), "g"),
            View::Event(_, row) => assert_eq!(row.detail(), "started"),
        }
    }
    let expected = [
        Kind::SessionOpened,
        Kind::LoginRefused,
        Kind::Request,
        Kind::Ruling,
        Kind::Outcome,
        Kind::SessionClosed,
        Kind::Gateway,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(chain.advance().expect("readable"), Advance::End);
}

#[test]
fn oversized_parts_are_cut_marked_and_still_fit_a_segment() {
    let dir = scratch();
    let mut writer = open(dir.path(), 2);
    let huge = "é".repeat(40_000);
    let many = vec![huge.clone(); 3];
    let binds = vec![Some("value"); 100_000];
    let who = Who { groups: &many, application: &huge, ..NOBODY };
    let request = Request { binds: &binds, tables: &many, ..request(1, &huge) };
    writer.append(NOW_US, &who, &Entry::Request(request)).expect("any record fits");
    writer.write().expect("written");
    let mut chain = ChainReader::whole(dir.path().to_owned(), 0);
    chain.advance().expect("readable");
    let (_, view) = chain.records().next().expect("a record").expect("whole");
    let shown = search::Record::new(0, 1, &view).expect("a statement");
    assert_eq!(shown.cut, ["statement", "binds", "tables", "text"]);
    let View::Request(row) = view else { panic!("a request was written") };
    assert_eq!(row.statement_bytes(), 80_000);
    assert_eq!(row.statement().len() as u64, SEGMENT_BYTES_MIN / 4);
    assert!(row.binds().len() > 10 && row.binds().len() < 100);
    assert_eq!(row.cut(), record::CUT_STATEMENT | record::CUT_BINDS | record::CUT_TABLES | record::CUT_TEXT);
}

#[test]
fn chain_and_sequences_go_on_across_segments_restarts_and_the_archive() {
    let dir = scratch();
    let mut keeper = keeper(dir.path(), 3, true);
    let mut expected = Vec::new();
    for _ in 0..7 {
        let mut writer = open(dir.path(), 3);
        keeper.look().expect("the keeper works");
        for _ in 0..60 {
            let number = expected.len() as u64 + 1;
            let statement = format!("SELECT {number} /* {} */", "x".repeat(number as usize % 300));
            while append(&mut writer, number, &statement).is_err() {
                assert!(keeper.look().expect("the keeper works"), "a full ring and nothing to archive");
            }
            expected.push(statement);
            if number.is_multiple_of(3) {
                writer.write().expect("written");
            }
        }
        writer.write().expect("written");
        assert_eq!(writer.next_record(), expected.len() as u64 + 1);
    }
    let (statements, damages) = read(dir.path());
    assert_eq!(damages, []);
    assert_eq!(statements, expected);
    let files = segment::list(dir.path()).expect("listable").remove(&0).expect("shard 0");
    let archived = files.values().filter(|file| file.archived.is_some()).count();
    assert!(archived >= 5, "{archived} of {} archived", files.len());
}

#[test]
fn a_next_segment_that_cannot_be_used_yet_is_tried_again() {
    let dir = scratch();
    let mut writer = open(dir.path(), 3);
    let mut keeper = keeper(dir.path(), 3, false);
    keeper.look().expect("it prepares one");
    let next = segment::ring_path(&segment::ring_dir(dir.path(), 0), 2);
    let aside = next.with_extension("aside");
    fs::rename(&next, &aside).expect("there");
    fs::create_dir(&next).expect("possible");
    let mut number = 0;
    while append(&mut writer, number, &"x".repeat(1000)).is_ok() {
        writer.write().expect("written");
        number += 1;
    }
    assert!(number > 5 && writer.failed().is_none(), "{number}: it waits");
    fs::remove_dir(&next).expect("empty");
    fs::rename(&aside, &next).expect("possible");
    assert!(writer.has_room());
    append(&mut writer, number, "and on").expect("there is room");
    writer.write().expect("written");
    let (statements, damages) = read(dir.path());
    assert_eq!((statements.len() as u64, damages), (number + 1, vec![]));
}

/// What may become of a file while somebody writes to it.
const HARMS: [fn(&Path); 6] = [
    |path| fs::remove_file(path).expect("there"),
    |path| fs::remove_dir_all(path.parent().expect("a ring")).expect("there"),
    |path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).expect("readable");
        fs::rename(&copy, path).expect("possible");
    },
    |path| fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0)).expect("possible"),
    |path| fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(5000)).expect("possible"),
    |path| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("writable");
        file.write_all_at(&[0; SEGMENT_BYTES_MIN as usize], 0).expect("written");
    },
];

#[test]
fn a_writer_whose_segment_is_taken_away_accepts_nothing_any_more() {
    for (harm, harm_it) in HARMS.iter().enumerate() {
        let dir = scratch();
        let mut writer = open(dir.path(), 3);
        append(&mut writer, 1, "SELECT 1").expect("room");
        writer.write().expect("written");
        writer.look();
        assert_eq!(writer.failed(), None, "{harm}");
        harm_it(&first_segment(dir.path()));
        append(&mut writer, 2, "SELECT 2").expect("not looked at yet");
        writer.look();
        let why = writer.failed().expect("it has failed").to_owned();
        assert!(why.contains("0000000001.seg") && why.contains("start the gateway again"), "{harm}: {why}");
        assert!(writer.write().is_err() && append(&mut writer, 3, "SELECT 3").is_err(), "{harm}");
    }
}

#[test]
fn how_far_the_trail_had_got_is_written_down_when_its_segment_is_taken_away() {
    // The next segment is prepared, or made there and then.
    for prepared in [true, false] {
        for (harm, harm_it) in HARMS.iter().enumerate() {
            let dir = scratch();
            let mut writer = open(dir.path(), 3);
            if prepared {
                keeper(dir.path(), 3, false).look().expect("it prepares one");
            }
            for number in 1..=3 {
                append(&mut writer, number, "SELECT 1").expect("room");
                writer.write().expect("written");
            }
            harm_it(&first_segment(dir.path()));
            append(&mut writer, 4, "SELECT 4").expect("not looked at yet");
            writer.write().expect("written");
            writer.look();
            assert!(
                writer.failed().is_some_and(|why| why.contains("0000000002.seg says that records up to 4")),
                "{harm}"
            );
            drop(writer);
            assert!(!verified(dir.path()).is_empty(), "{harm} {prepared}: verify misses what is lost");
            let writer = open(dir.path(), 3);
            assert_eq!(writer.next_record(), 6, "{harm} {prepared}: no number is given out again");
            assert!(!verified(dir.path()).is_empty(), "{harm} {prepared}");
            let (statements, _) = read(dir.path());
            assert!(
                statements.last().is_some_and(|last| last.contains("records up to 4 (frames up to 4) had been")),
                "{statements:?}"
            );
        }
    }
}

#[test]
fn an_older_copy_in_the_place_of_a_segment_hides_nothing() {
    let dir = scratch();
    let mut writer = open(dir.path(), 3);
    append(&mut writer, 1, "SELECT 1").expect("room");
    writer.write().expect("written");
    let (path, older) = (first_segment(dir.path()), first_segment(dir.path()).with_extension("older"));
    fs::copy(&path, &older).expect("copied");
    append(&mut writer, 2, "SELECT 2").expect("room");
    writer.write().expect("written");
    let kept = path.with_extension("kept");
    fs::rename(&path, &kept).expect("moved");
    fs::rename(&older, &path).expect("moved");
    writer.look();
    assert!(writer.failed().is_some());
    assert_eq!(verified(dir.path()).iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), ["unsealed"]);
    // The right one put back, all is there.
    fs::rename(&kept, &path).expect("moved");
    assert_eq!(verified(dir.path()), []);
    let (statements, damages) = read(dir.path());
    assert_eq!((&statements[..2], damages), (&["SELECT 1".to_owned(), "SELECT 2".to_owned()][..], vec![]));
}

#[test]
fn a_writer_whose_lock_is_taken_away_accepts_nothing_any_more() {
    let dir = scratch();
    let mut first = open(dir.path(), 3);
    append(&mut first, 1, "SELECT 1").expect("room");
    first.write().expect("written");
    fs::remove_file(segment::ring_dir(dir.path(), 0).join("lock")).expect("there");
    let mut second = open(dir.path(), 3);
    first.look();
    assert!(first.failed().is_some_and(|why| why.contains("another gateway may be writing")), "{:?}", first.failed());
    second.look();
    append(&mut second, 2, "SELECT 2").expect("room");
    second.write().expect("written");
    assert_eq!((second.failed(), verified(dir.path())), (None, vec![]));
}

#[test]
fn all_of_a_trail_that_is_gone_is_not_begun_again_in_its_place() {
    let dir = scratch();
    let mut writer = open(dir.path(), 3);
    append(&mut writer, 1, "SELECT 1").expect("room");
    writer.write().expect("written");
    for name in ["segments", "archive"] {
        fs::remove_dir_all(dir.path().join(name)).expect("there");
    }
    writer.look();
    assert!(
        writer.failed().is_some_and(|why| why.contains("all of the data directory is gone")),
        "{:?}",
        writer.failed()
    );
    assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 0);
}

#[test]
fn a_writer_whose_segment_was_taken_away_goes_on_to_no_other() {
    let dir = scratch();
    let mut writer = open(dir.path(), 3);
    keeper(dir.path(), 3, false).look().expect("it prepares one");
    let mut number = 0;
    let mut fill = |writer: &mut SegmentWriter, records: u64| {
        (0..records).all(|_| {
            number += 1;
            append(writer, number, &"x".repeat(1000)).is_ok() && writer.write().is_ok()
        })
    };
    assert!(fill(&mut writer, 3));
    fs::remove_file(first_segment(dir.path())).expect("there");
    assert!(!fill(&mut writer, 100));
    assert!(writer.failed().is_some_and(|why| why.contains("removed or replaced")), "{:?}", writer.failed());
    // A writer that goes from one to the next as it should, looks at the one it is in.
    let dir = scratch();
    let (mut writer, mut keeper) = (open(dir.path(), 3), keeper(dir.path(), 3, true));
    for number in 0..100 {
        keeper.look().expect("the keeper works");
        append(&mut writer, number, &"x".repeat(1000)).expect("room");
        writer.write().expect("written");
        writer.look();
    }
    assert_eq!(writer.failed(), None);
}

/// A frame behind the last one whose checksum and place in the chain hold.
fn forge(dir: &Path, number: impl Fn(FrameHeader) -> FrameHeader) {
    let path = segment::ring_path(&segment::ring_dir(dir, 0), 1);
    let mut reader = SegmentReader::open(
        &segment::SegmentFile { shard: 0, number: 1, path: path.clone(), archived: None },
        Expected::default(),
    )
    .expect("readable");
    let mut last = None;
    while let Step::Frame(header) = reader.step().expect("readable") {
        last = Some(header);
    }
    let (last, expected) = (last.expect("a frame"), reader.expected());
    let next = FrameHeader {
        payload_bytes: 0,
        records: 0,
        frame: last.frame + 1,
        first_record: expected.record.expect("known"),
        previous: expected.previous.expect("known"),
        ..last
    };
    let mut element = [0; FRAME_HEADER_BYTES];
    number(next).seal(&mut element);
    let file = fs::OpenOptions::new().write(true).open(path).expect("writable");
    file.write_all_at(&element, reader.offset()).expect("written");
}

#[test]
fn forged_numbers_stop_no_reader_and_are_never_gone_on_from() {
    let greatest = super::frame::NUMBER_MAX;
    for (number, held) in [(0, true), (greatest, true), (greatest + 1, false), (u64::MAX, false)] {
        for record in [true, false] {
            let dir = scratch();
            let mut writer = open(dir.path(), 3);
            append(&mut writer, 1, "one").expect("there is room");
            writer.write().expect("written");
            drop(writer);
            forge(dir.path(), |header| match record {
                true => FrameHeader { first_record: number, ..header },
                false => FrameHeader { frame: number, ..header },
            });
            let (statements, damages) = read(dir.path());
            assert_eq!((statements.len(), damages.is_empty()), (1, false), "{number} {record} {damages:?}");
            let again = SegmentWriter::open(&ring(dir.path(), 3), NOW_US).map(drop);
            let goes_on = !held || number == 0;
            assert_eq!(again.is_ok(), goes_on, "{number} {record} {again:?}");
        }
    }
}

#[test]
fn a_full_ring_blocks_and_resumes_after_the_sealer() {
    let dir = scratch();
    let mut idle = keeper(dir.path(), 2, false);
    let mut writer = open(dir.path(), 2);
    idle.look().expect("the keeper works");
    let mut number = 0;
    while append(&mut writer, number + 1, &"x".repeat(1000)).is_ok() {
        number += 1;
        writer.write().expect("written");
    }
    assert!(!writer.has_room());
    let used = writer.ring_used_bytes().expect("listable");
    assert!((SEGMENT_BYTES_MIN * 7 / 4..=SEGMENT_BYTES_MIN * 2).contains(&used), "{used}");
    assert!(!idle.look().expect("the keeper works"), "with archive = false the ring stays full");
    assert!(!writer.has_room());
    assert_eq!(append(&mut writer, number + 1, &"x".repeat(1000)), Err(Full));
    let (statements, damages) = read(dir.path());
    assert_eq!((statements.len() as u64, damages), (number, vec![]), "nothing dropped, nothing overwritten");

    drop(writer);
    let mut writer = open(dir.path(), 2);
    assert!(!writer.has_room() || append(&mut writer, 0, &"x".repeat(1000)) == Err(Full), "still full after a restart");
    assert!(keeper(dir.path(), 2, true).look().expect("the keeper works"));
    assert!(writer.has_room());
    assert_eq!(append(&mut writer, number + 1, "SELECT 'goes on'"), Ok(()));
    writer.write().expect("written");
    let (statements, damages) = read(dir.path());
    assert_eq!((statements.len() as u64, damages), (number + 1, vec![]));
}

#[test]
fn a_second_writer_on_the_same_ring_is_refused() {
    let dir = scratch();
    let _writer = open(dir.path(), 2);
    let error = SegmentWriter::open(&ring(dir.path(), 2), NOW_US).err().expect("refused");
    assert!(error.to_string().contains("another gateway"), "{error}");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_kept_aside_and_the_chain_goes_on() {
    let whole = scratch();
    let offsets = short_trail(whole.path(), 3);
    let bytes = fs::read(first_segment(whole.path())).expect("readable");
    for cut in offsets[2]..offsets[3] {
        let dir = scratch();
        fs::create_dir_all(segment::ring_dir(dir.path(), 0)).expect("created");
        let mut torn = bytes.clone();
        torn[cut as usize..].fill(0);
        if torn == bytes {
            continue;
        }
        let left_over = torn[offsets[2] as usize..].iter().any(|&byte| byte != 0);
        fs::write(first_segment(dir.path()), &torn).expect("written");
        let (statements, damages) = read(dir.path());
        assert_eq!(statements, ["SELECT 1", "SELECT 2"], "cut at {cut}");
        assert_eq!(damages.len(), usize::from(left_over), "cut at {cut}: {damages:?}");
        assert!(kinds(&damages).iter().all(|kind| matches!(kind, DamageKind::Tail(_))), "cut at {cut}: {damages:?}");

        let mut writer = open(dir.path(), 2);
        append(&mut writer, 3, "SELECT 'again'").expect("room");
        writer.write().expect("written");
        let (statements, damages) = read(dir.path());
        assert_eq!(damages, [], "cut at {cut}");
        let note = statements.iter().filter(|statement| statement.starts_with("gateway: ")).count();
        assert_eq!((note, statements.len()), (usize::from(left_over), 3 + usize::from(left_over)), "cut at {cut}");
        assert_eq!(statements.last().map(String::as_str), Some("SELECT 'again'"));
        let aside = first_segment(dir.path()).with_extension(format!("torn-{}", offsets[2]));
        assert_eq!(aside.exists(), left_over, "cut at {cut}");
    }
}

#[test]
fn every_flipped_bit_of_a_live_segment_is_found_and_what_precedes_it_is_kept() {
    let dir = scratch();
    let offsets = short_trail(dir.path(), 3);
    let path = first_segment(dir.path());
    let bytes = fs::read(&path).expect("readable");
    assert_eq!(read(dir.path()), (vec!["SELECT 1".into(), "SELECT 2".into(), "SELECT 3".into()], vec![]));
    let end = offsets[3] as usize;
    // Every bit that was written, and a sample of the zeros behind.
    let behind = (end * 8..bytes.len() * 8).step_by(997);
    for bit in (0..end * 8).chain(behind) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).expect("written");
        let (statements, damages) = read(dir.path());
        assert_eq!(damages.len(), 1, "bit {bit}: {damages:?}");
        let kept = offsets.iter().skip(1).filter(|&&offset| offset as usize * 8 <= bit).count();
        assert!(statements.len() >= kept.min(3), "bit {bit}: {statements:?}");
    }
}

#[test]
fn damage_in_the_middle_is_named_left_as_it_is_and_the_trail_goes_on_in_a_new_segment() {
    let dir = scratch();
    let offsets = short_trail(dir.path(), 4);
    let path = first_segment(dir.path());
    let mut bytes = fs::read(&path).expect("readable");
    bytes[offsets[1] as usize + FRAME_HEADER_BYTES + 20] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let mut writer = open(dir.path(), 2);
    append(&mut writer, 5, "SELECT 5").expect("room");
    writer.write().expect("written");
    assert_eq!(fs::read(&path).expect("readable"), bytes, "left as it was");
    let (statements, damages) = read(dir.path());
    let damage = &damages[0];
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!((damage.frame, damage.offset), (Some(2), offsets[1]));
    assert!(matches!(damage.kind, DamageKind::Frame { resumed: Some((_, 3)), .. }), "{damage}");
    assert_eq!(statements[..3], ["SELECT 1", "SELECT 3", "SELECT 4"]);
    assert!(statements[3].starts_with("gateway: the trail was found damaged"), "{statements:?}");
    assert_eq!(statements[4], "SELECT 5");
}

/// Five segments, four of them archived.
fn archived_trail(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut keeper = keeper(dir, 3, true);
    let mut writer = open(dir, 3);
    let mut number = 0;
    while segment::list(dir).expect("listable")[&0].values().filter(|file| file.archived.is_some()).count() < 4 {
        keeper.look().expect("the keeper works");
        number += 1;
        append(&mut writer, number, &"y".repeat(1500)).expect("room");
        writer.write().expect("written");
    }
    assert_eq!(read(dir).1, []);
    let files = segment::list(dir).expect("listable").remove(&0).expect("shard 0");
    files.into_values().filter(|file| file.archived.is_some()).map(|file| file.path).collect()
}

fn damaged_by(harm: impl Fn(&Path, &[std::path::PathBuf])) -> Vec<Damage> {
    let dir = scratch();
    let archived = archived_trail(dir.path());
    harm(dir.path(), &archived);
    read(dir.path()).1
}

#[test]
fn a_footer_that_is_not_the_promised_one_is_named_also_where_nothing_follows_it() {
    let dir = scratch();
    let archived = archived_trail(dir.path());
    archived[1..].iter().for_each(|path| fs::remove_file(path).expect("removed"));
    let ring = segment::ring_dir(dir.path(), 0);
    fs::remove_dir_all(&ring).expect("removed");
    fs::create_dir(&ring).expect("made");
    // The next one is prepared.
    fs::write(segment::ring_path(&ring, 2), vec![0; SEGMENT_BYTES_MIN as usize]).expect("written");
    let damages = |proven| {
        let mut chain = ChainReader::whole(dir.path().to_owned(), 0).proven(proven);
        let mut damages = Vec::new();
        loop {
            match chain.advance().expect("readable") {
                Advance::Frame(_) => {}
                Advance::Damage(damage) => damages.push((damage.kind, damage.frame)),
                Advance::End => return (damages, chain.position()),
            }
        }
    };
    let (none, footer) = damages([].into());
    assert_eq!(none, []);
    assert_eq!(damages([(footer.frame, footer.hash)].into()).0, []);
    assert_eq!(damages([(footer.frame, [7; 32])].into()).0, [(DamageKind::Proven, Some(footer.frame))]);
}

#[test]
fn removed_swapped_cut_and_replaced_files_are_named() {
    let removed = damaged_by(|_, files| fs::remove_file(&files[1]).expect("removed"));
    assert_eq!((kinds(&removed), removed[0].segment), (vec![&DamageKind::MissingSegment], 2));

    let first = damaged_by(|_, files| fs::remove_file(&files[0]).expect("removed"));
    assert_eq!((kinds(&first), first[0].segment), (vec![&DamageKind::MissingSegment], 1));

    let tail = damaged_by(|dir, _| fs::remove_dir_all(segment::ring_dir(dir, 0)).expect("removed"));
    assert_eq!((kinds(&tail), tail[0].segment), (vec![&DamageKind::MissingSegment], 5));

    let cut = damaged_by(|_, files| {
        let bytes = fs::read(&files[2]).expect("readable");
        fs::write(&files[2], &bytes[..bytes.len() / 2 / 8 * 8]).expect("written");
    });
    assert!(matches!(cut[0].kind, DamageKind::Size { .. }) && cut[0].segment == 3, "{cut:?}");

    let swapped = damaged_by(|_, files| {
        let (one, two) = (fs::read(&files[0]).expect("readable"), fs::read(&files[1]).expect("readable"));
        fs::write(&files[0], two).expect("written");
        fs::write(&files[1], one).expect("written");
    });
    assert!(matches!(swapped[0].kind, DamageKind::Foreign { segment: 2, .. }), "{swapped:?}");
}

#[test]
fn a_rewritten_segment_does_not_fit_the_chain() {
    let dir = scratch();
    let archived = archived_trail(dir.path());
    // A forger who knows the format rewrites segment 1 with other statements and correct checksums.
    let forged = scratch();
    let mut keeper = keeper(forged.path(), 3, true);
    let mut writer = open(forged.path(), 3);
    let mut number = 0;
    while writer.next_record() < 40 {
        keeper.look().expect("the keeper works");
        number += 1;
        append(&mut writer, number, &"z".repeat(1500)).expect("room");
        writer.write().expect("written");
    }
    let files = segment::list(forged.path()).expect("listable").remove(&0).expect("shard 0");
    fs::copy(&files[&1].path, &archived[0]).expect("copied");
    let (_, damages) = read(dir.path());
    assert_eq!(kinds(&damages), [&DamageKind::Name, &DamageKind::Chain], "{damages:?}");
    // With the name adjusted as well, the next segment still knows better.
    fs::remove_file(&archived[0]).expect("removed");
    let name = files[&1].path.file_name().expect("a name");
    fs::copy(&files[&1].path, segment::archive_dir(dir.path()).join(name)).expect("copied");
    let (_, damages) = read(dir.path());
    assert_eq!(kinds(&damages), [&DamageKind::Chain], "{damages:?}");
    assert_eq!(damages[0].segment, 2);
}

#[test]
fn an_outline_says_of_every_kind_of_record_where_it_begins_and_when_it_happened() {
    let dir = scratch();
    let mut writer = open(dir.path(), 2);
    let groups = groups();
    let entries = [
        Entry::SessionOpened { grant: "g", settings: "" },
        Entry::Request(request(1, "SELECT 'ünï'")),
        Entry::Outcome(outcome(1)),
        Entry::Ruling { request: 1, ticket: "t", ruling: "approve", by: "bob", reason: "" },
        Entry::SessionClosed { reason: "", duration_us: 7, statements: 1 },
        Entry::Gateway { detail: "stopped" },
    ];
    for (number, entry) in entries.iter().enumerate() {
        let who = who("s1", "alice", &groups);
        writer.append(NOW_US - number as i64, &who, entry).expect("room");
    }
    writer.write().expect("written");
    let mut chain = ChainReader::whole(dir.path().to_owned(), 0);
    assert!(matches!(chain.advance().expect("readable"), Advance::Frame(_)));
    assert!(chain.records_hold());
    let outline: Vec<_> = payload::outline(chain.payload()).collect();
    let times: Vec<_> = chain.records().map(|record| record.expect("it holds").1.time_us()).collect();
    assert_eq!(outline.iter().map(|(_, time_us)| *time_us).collect::<Vec<_>>(), times);
    for (start, time_us) in outline {
        let (view, _) = payload::record_at(chain.payload(), start).expect("it holds");
        assert_eq!((view.time_us(), view.who().user()), (time_us, "alice"));
    }
}

#[test]
fn removed_and_swapped_frames_are_named() {
    let dir = scratch();
    let offsets = short_trail(dir.path(), 4);
    let path = first_segment(dir.path());
    let bytes = fs::read(&path).expect("readable");
    let (one, two, three) = (offsets[1] as usize, offsets[2] as usize, offsets[3] as usize);
    let removed = [&bytes[..one], &bytes[two..], &vec![0; two - one][..]].concat();
    fs::write(&path, removed).expect("written");
    let (statements, damages) = read(dir.path());
    assert_eq!(kinds(&damages), [&DamageKind::MissingFrames { from: 2 }]);
    assert_eq!((damages[0].frame, statements.len()), (Some(3), 3));

    let swapped = [&bytes[..one], &bytes[two..three], &bytes[one..two], &bytes[three..]].concat();
    fs::write(&path, swapped).expect("written");
    let (_, damages) = read(dir.path());
    assert_eq!(kinds(&damages)[0], &DamageKind::MissingFrames { from: 2 });
    assert!(kinds(&damages).contains(&&DamageKind::RepeatedFrame { expected: 4 }), "{damages:?}");
}

#[test]
fn a_lost_header_does_not_let_ids_start_over() {
    for frames_lost in [false, true] {
        let dir = scratch();
        archived_trail(dir.path());
        let newest = segment::ring_path(&segment::ring_dir(dir.path(), 0), 5);
        let mut bytes = fs::read(&newest).expect("readable");
        bytes[..SEGMENT_HEADER_BYTES].fill(0);
        if frames_lost {
            bytes[SEGMENT_HEADER_BYTES + 1..].fill(0);
        }
        fs::write(&newest, &bytes).expect("written");
        let before = read(dir.path()).0.len() as u64;
        let mut writer = open(dir.path(), 3);
        assert!(writer.next_record() > before, "{} after {before}", writer.next_record());
        append(&mut writer, 9, "SELECT 'after'").expect("room");
        writer.write().expect("written");
        let (statements, damages) = read(dir.path());
        assert_eq!(statements.last().map(String::as_str), Some("SELECT 'after'"));
        assert!(damages.iter().all(|damage| damage.segment == 5), "{damages:?}");
    }
}

/// What a thorough verification says, file names without their folders.
fn verified(dir: &Path) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    verify::verify_still(dir, &mut |damage| {
        found.push((damage.file.file_name().expect("a name").to_string_lossy().into_owned(), damage.kind.word()));
    })
    .expect("readable");
    found
}

#[test]
fn files_that_have_no_place_in_the_trail_are_named_and_pipes_are_not_waited_for() {
    let dir = scratch();
    let archived = archived_trail(dir.path());
    assert_eq!(verified(dir.path()), []);
    let (ring, archive) = (segment::ring_dir(dir.path(), 0), segment::archive_dir(dir.path()));
    let original = fs::read_dir(&archive).expect("listable").count();
    let elsewhere = [
        ring.join("0000000009.seg"),
        ring.join("0000000002.seg"),
        archive.join("shard-0-0000000000-damaged.seg"),
        archive.join("shard-0-0000000003-damaged.seg"),
    ];
    for path in &elsewhere {
        fs::copy(&archived[1], path).expect("copied");
        let found = verified(dir.path());
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(found.contains(&(name.clone(), "surplus")), "{name}: {found:?}");
        fs::remove_file(path).expect("removed");
        let pipe = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
        assert!(pipe.success());
        assert_eq!(verified(dir.path()), [(name, "surplus")]);
        drop(open(dir.path(), 3));
        fs::remove_file(path).expect("removed");
    }
    assert_eq!(verified(dir.path()), []);
    assert_eq!(fs::read_dir(&archive).expect("listable").count(), original);
}

#[test]
fn a_prepared_segment_holds_nothing_but_zeros() {
    let dir = scratch();
    short_trail(dir.path(), 2);
    keeper(dir.path(), 2, true).look().expect("the keeper works");
    let prepared = segment::ring_path(&segment::ring_dir(dir.path(), 0), 2);
    for at in [0, 64, 4096, SEGMENT_BYTES_MIN as usize - 1] {
        let mut bytes = fs::read(&prepared).expect("readable");
        bytes[at] = 1;
        fs::write(&prepared, &bytes).expect("written");
        assert_eq!(verified(dir.path()), [("0000000002.seg".to_owned(), "after_end")], "byte {at}");
        bytes[at] = 0;
        fs::write(&prepared, &bytes).expect("written");
    }
    assert_eq!(verified(dir.path()), []);
}

#[test]
fn an_unfinished_frame_is_a_whole_one_once_its_writer_has_finished_it() {
    let dir = scratch();
    let offsets = short_trail(dir.path(), 2);
    let path = first_segment(dir.path());
    let whole = fs::read(&path).expect("readable");
    let mut torn = whole.clone();
    torn[offsets[1] as usize + 40..].fill(0);
    fs::write(&path, &torn).expect("written");
    let mut chain = ChainReader::whole(dir.path().to_owned(), 0).thorough();
    assert!(matches!(chain.advance().expect("readable"), Advance::Frame(_)));
    for _ in 0..3 {
        assert_eq!(chain.advance().expect("readable"), Advance::End);
        assert!(chain.is_unfinished());
    }
    fs::write(&path, &whole).expect("written");
    assert!(matches!(chain.advance().expect("readable"), Advance::Frame(header) if header.frame == 2));
    assert_eq!((chain.advance().expect("readable"), chain.take_unfinished()), (Advance::End, None));
}

#[test]
fn an_archived_file_is_called_what_its_footer_makes_of_it() {
    let dir = scratch();
    let archived = archived_trail(dir.path());
    let name = archived[1].file_name().expect("a name").to_string_lossy().into_owned();
    let since = name.split('-').nth(3).expect("a time");
    for other in [name.replacen(since, "20261001T000000Z", 1), segment::damaged_name(0, 2)] {
        let renamed = segment::archive_dir(dir.path()).join(&other);
        fs::rename(&archived[1], &renamed).expect("renamed");
        assert_eq!(verified(dir.path()), [(other, "name")]);
        fs::rename(&renamed, &archived[1]).expect("renamed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_never_panics_a_reader_or_the_recovery(
        harms in prop::collection::vec((0..4096usize, any::<[u8; 8]>(), 1..9usize), 1..12),
        cut in prop::option::of(1..SEGMENT_BYTES_MIN as usize),
    ) {
        let dir = scratch();
        short_trail(dir.path(), 6);
        let path = first_segment(dir.path());
        let mut bytes = fs::read(&path).expect("readable");
        for (at, with, len) in harms {
            bytes[at..at + len.min(8)].copy_from_slice(&with[..len.min(8)]);
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        fs::write(&path, &bytes).expect("written");
        read(dir.path());
        // Recovery mends it or leaves it; either way what it writes next is found.
        let mut writer = open(dir.path(), 3);
        append(&mut writer, 1, "SELECT 'after'").expect("room");
        writer.write().expect("written");
        let (statements, _) = read(dir.path());
        prop_assert_eq!(statements.last().map(String::as_str), Some("SELECT 'after'"));
    }

    #[test]
    fn any_bytes_with_a_good_checksum_are_safe_to_parse(payload in prop::collection::vec(any::<u8>(), 0..512), kind in 1..10u8, version in 1..4u8) {
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        let mut framed = vec![0; record::PREFIX_BYTES];
        framed[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        (framed[4], framed[5]) = (kind, version);
        framed.extend_from_slice(&payload);
        framed.resize(framed.len().next_multiple_of(8), 0);
        aligned.extend_from_slice(&framed);
        for view in payload::Walk::new(&aligned).flatten() {
            drop(search::Record::new(0, 1, &view));
        }
    }
}

/// Reads a record by the two rules of FORMAT.md alone.
#[test]
fn rows_lie_where_format_md_draws_them() {
    let dir = scratch();
    let mut writer = open(dir.path(), 2);
    let (groups, tables) = (groups(), ["a".to_owned(), "public.customers".to_owned()]);
    let binds = [None, Some("forty-two")];
    let request = Request { binds: &binds, tables: &tables, rule: "r1", ..request(7, "SELECT 'four words in here'") };
    let alice = PackedWho::new(&who("s1", "alice", &groups));
    let who = Who { packed: Some(&alice), ..NOBODY };
    writer.append(NOW_US, &who, &Entry::Request(request)).expect("room");
    writer.append(NOW_US, &who, &Entry::Outcome(outcome(7))).expect("room");
    let detail = Entry::SessionClosed { reason: "bye", duration_us: 5, statements: 1 };
    writer.append(NOW_US, &who, &detail).expect("room");
    writer.write().expect("written");
    let file = fs::read(first_segment(dir.path())).expect("readable");
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes"));
    let target = |at: usize| at.wrapping_add_signed(u32_at(at) as i32 as isize);
    let text = |at: usize| String::from_utf8_lossy(&file[target(at)..][..u32_at(at + 4) as usize]).into_owned();
    let list = |at: usize| (0..u32_at(at + 4) as usize).map(|i| text(target(at) + 8 * i)).collect::<Vec<_>>();

    let frame = SEGMENT_HEADER_BYTES;
    assert_eq!((&file[frame..frame + 4], u32_at(frame + 20)), (&b"LGFR"[..], 3));
    let who = frame + FRAME_HEADER_BYTES;
    let next = |record: usize| record + 8 + (u32_at(record) as usize).next_multiple_of(8);
    let root = next(who) - 64;
    assert_eq!((file[who + 4], file[who + 5]), (8, 2));
    assert_eq!((text(root), text(root + 8), list(root + 16)), ("s1".into(), "alice".into(), groups.to_vec()));
    assert_eq!((text(root + 48), text(root + 56)), ("psql".into(), "postgres".into()));

    let record = next(who);
    let root = next(record) - 88;
    assert_eq!((file[record + 4], file[record + 5], record - u32_at(root + 84) as usize), (1, 2, who));
    assert_eq!((u64_at(root) as i64, u64_at(root + 8), u64_at(root + 16), u64_at(root + 24)), (NOW_US, 7, 27, 1));
    assert_eq!((text(root + 32), list(root + 48)), ("SELECT 'four words in here'".into(), tables.to_vec()));
    let second = target(root + 40) + 12;
    assert_eq!((u32_at(root + 44), file[second - 12], file[second], text(second + 4)), (2, 1, 0, "forty-two".into()));
    assert_eq!((text(root + 56), text(root + 64), text(root + 72)), ("allow".into(), "r1".into(), String::new()));

    let record = next(record);
    let root = next(record) - 72;
    assert_eq!((file[record + 4], record - u32_at(root + 68) as usize), (2, who));
    assert_eq!((u64_at(root + 8), u64_at(root + 16), u64_at(root + 24)), (7, 3, 99));
    assert_eq!((u64_at(root + 32), u64_at(root + 40), text(root + 48)), (1500, 2, "".into()));

    let record = next(record);
    let root = next(record) - 72;
    assert_eq!((file[record + 4], record - u32_at(root + 68) as usize), (6, who));
    assert_eq!((u64_at(root + 16), u64_at(root + 24), text(root + 56)), (5, 1, "bye".into()));
}

/// Run by hand: `cargo test --release -p lockgate -- --ignored --nocapture nanoseconds`.
#[test]
#[ignore = "a measurement"]
fn nanoseconds_of_a_record() {
    let dir = scratch();
    let options = RingOptions { segment_bytes: 256 << 20, ..ring(dir.path(), 2) };
    let (mut writer, _) = SegmentWriter::open(&options, NOW_US).expect("the trail opens");
    let groups = groups();
    let who = who("0-1-0123456789abcdef", "alice@example.com", &groups);
    let tables = ["pgbench_accounts".to_owned()];
    let binds = [Some("12345")];
    let statement = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;";
    let request = Request { binds: &binds, tables: &tables, ..request(1, statement) };
    let (rounds, pairs) = (2000, 32);
    let (mut encode, mut write) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for _ in 0..rounds {
        let start = std::time::Instant::now();
        for number in 0..pairs {
            writer.append(NOW_US + number, &who, &Entry::Request(request)).expect("room");
            writer.append(NOW_US + number, &who, &Entry::Outcome(outcome(1))).expect("room");
        }
        encode += start.elapsed();
        let start = std::time::Instant::now();
        writer.write().expect("written");
        write += start.elapsed();
    }
    let records = (rounds * pairs * 2) as u128;
    println!("append {} ns, hash and write {} ns a record", encode.as_nanos() / records, write.as_nanos() / records);
}
