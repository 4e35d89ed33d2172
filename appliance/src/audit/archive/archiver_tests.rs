//! The archiver over trails of several shards: exactly once, in order, whatever stops it.

use super::archiver::{Archiver, ArchiverOptions, Finish, run};
use super::manifest::{self, Entry, FileEntry, What};
use super::status::Status;
use crate::audit::reader::DamageKind;
use crate::audit::tests::{groups, outcome, request, scratch, who};
use crate::audit::trail::{Advance, ChainReader};
use crate::audit::writer::RingOptions;
use crate::audit::{Entry as Record, Journal as _, Keeper, Release, SealerOptions, SegmentWriter, segment};
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

const NOW_US: i64 = 1_795_142_000_000_000;
const SEGMENT_BYTES: u64 = segment::SEGMENT_BYTES_MIN;

pub(super) fn options(dir: &Path) -> ArchiverOptions {
    ArchiverOptions::by_size(dir, 20 << 10)
}

/// Rings that are filled and released by hand.
pub(super) struct Trail {
    dir: tempfile::TempDir,
    pub(super) keeper: Keeper,
    writers: Vec<SegmentWriter>,
    /// Records of each shard.
    written: Vec<u64>,
    clock_us: i64,
}

fn keeper(data_dir: &Path, shards: u32, release: Release) -> Keeper {
    let (data_dir, segment_bytes, segments_per_shard) = (data_dir.to_owned(), SEGMENT_BYTES, 100);
    Keeper::new(SealerOptions { data_dir, shards, segment_bytes, segments_per_shard, release })
}

impl Trail {
    pub(super) fn new(shards: u32, release: Release) -> Self {
        let dir = scratch();
        let keeper = keeper(dir.path(), shards, release);
        let mut trail = Self { dir, keeper, writers: Vec::new(), written: vec![0; shards as usize], clock_us: NOW_US };
        trail.restart();
        trail
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn restart(&mut self) {
        self.writers.clear();
        for shard in 0..self.written.len() as u32 {
            let options = RingOptions {
                data_dir: self.dir.path().to_owned(),
                shard,
                segment_bytes: SEGMENT_BYTES,
                segments_per_shard: 100,
            };
            self.writers.push(SegmentWriter::open(&options, self.clock_us).expect("the trail opens").0);
        }
    }

    /// One frame: a request and its outcome.
    pub(super) fn write(&mut self, shard: usize) {
        let groups = groups();
        let statement = format!("SELECT {} /* {} */", self.written[shard], "x".repeat(200));
        for entry in [Record::Request(request(1, &statement)), Record::Outcome(outcome(1))] {
            self.clock_us += 7;
            let who = who("s1", "alice", &groups);
            while self.writers[shard].append(self.clock_us, &who, &entry).is_err() {
                assert!(self.keeper.look().expect("the keeper works"), "no room");
            }
            self.written[shard] += 1;
        }
        self.writers[shard].write().expect("written");
    }

    pub(super) fn archive(&self) {
        let finish = Finish::default();
        finish.ask();
        run(&options(self.path()), &finish).expect("the archiver finishes");
    }

    /// A checkpoint of what is recorded, and nothing published.
    pub(super) fn promise(&self) {
        let mut status = Status::default();
        let options = options(self.path());
        let mut archiver = Archiver::open(&options, &mut status).expect("it opens");
        archiver.promise();
    }

    /// What the archive must hold by now.
    fn check(&self) {
        let wanted: BTreeMap<u32, u64> = self.written.iter().enumerate().map(|(s, &n)| (s as u32, n)).collect();
        let mut next: BTreeMap<u32, u64> = wanted.keys().map(|&shard| (shard, 1)).collect();
        for entry in published(self.path()) {
            let mut rows = 0;
            let mut last_us = i64::MIN;
            let file = fs::File::open(segment::archive_dir(self.path()).join(&entry.path)).expect("it is there");
            let reader = SerializedFileReader::new(file).expect("a Parquet file");
            for row in reader.into_iter().map(Result::unwrap) {
                let (time_us, shard, sequence) =
                    (row.get_timestamp_micros(0).unwrap(), row.get_int(2).unwrap() as u32, row.get_long(3).unwrap());
                let due = next.get_mut(&shard).expect("a shard that was written");
                assert_eq!(sequence as u64, *due, "shard {shard}: each record once and in its order");
                assert!(time_us >= last_us, "in the order of time over shards");
                (*due, last_us, rows) = (*due + 1, time_us, rows + 1);
            }
            let spans: u64 = entry.shards.iter().map(|span| span.records()).sum();
            assert_eq!((rows, spans), (entry.rows, entry.rows));
        }
        for (shard, records) in wanted {
            assert_eq!(next[&shard] - 1, records, "all records of shard {shard}");
        }
    }
}

fn entries(dir: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    manifest::each(dir, &mut |_, entry| entries.push(entry.expect("it holds"))).expect("readable");
    entries
}

pub(super) fn published(dir: &Path) -> Vec<FileEntry> {
    let file = |entry: Entry| match entry.what {
        What::File(file) => Some(file),
        What::Damage(_) | What::Deleted { .. } => None,
    };
    entries(dir).into_iter().filter_map(file).collect()
}

#[test]
fn every_record_is_archived_once_in_the_order_of_time_over_shards() {
    let mut trail = Trail::new(3, Release::Never);
    for round in 0..180 {
        trail.write(round * 7 % 3);
        if round == 50 {
            trail.archive();
            trail.check();
        }
    }
    trail.archive();
    trail.check();
    assert!(published(trail.path()).len() >= 3, "files close by size");
    let before = entries(trail.path()).len();
    trail.archive();
    assert_eq!(entries(trail.path()).len(), before, "nothing new, no entry");
    let status = Status::read(trail.path()).expect("it tells of itself");
    assert_eq!((status.files, status.error, status.damages), (0, None, 0));
}

#[test]
fn segments_leave_the_ring_when_what_they_hold_is_published_and_not_before() {
    for keep in [false, true] {
        let mut trail = Trail::new(1, Release::Published { keep });
        for _ in 0..150 {
            trail.write(0);
        }
        let ring = |trail: &Trail| segment::list_ring(&segment::ring_dir(trail.path(), 0), 0).expect("listable");
        let full = ring(&trail).len();
        trail.keeper.look().expect("the keeper works");
        assert!(full >= 5 && ring(&trail).len() >= full, "nothing is published, nothing may go");
        trail.archive();
        trail.keeper.look().expect("the keeper works");
        assert!(ring(&trail).len() <= 2, "{:?}", ring(&trail).keys());
        let kept = segment::list(trail.path()).expect("listable")[&0].values().filter(|f| f.archived.is_some()).count();
        assert_eq!(kept >= 4, keep, "{kept} kept");
        // Writers and the archiver go on without what is gone.
        trail.restart();
        for _ in 0..20 {
            trail.write(0);
        }
        trail.archive();
        trail.check();
        let damages = entries(trail.path()).iter().filter(|entry| matches!(entry.what, What::Damage(_))).count();
        assert_eq!(damages, 0);
    }
}

#[test]
fn what_is_promised_at_the_end_is_copied_before_it_stops() {
    let (mut trail, copies) = (Trail::new(1, Release::Published { keep: false }), scratch());
    for _ in 0..3 {
        trail.write(0);
        let finish = Finish::default();
        finish.ask();
        let checkpoint_copies = vec![super::deliver::Destination::Folder(copies.path().to_owned())];
        run(&ArchiverOptions { checkpoint_copies, ..options(trail.path()) }, &finish).expect("the archiver finishes");
        let all = |files: Vec<std::path::PathBuf>| -> Vec<u8> {
            files.iter().flat_map(|file| fs::read(file).expect("readable")).collect()
        };
        let ours = all(super::checkpoint::files(trail.path()).expect("listable"));
        assert_eq!(all(super::publish::listed(copies.path()).expect("listable")), ours);
    }
}

/// The files of the ring, spares among them.
fn inodes(trail: &Trail, extension: &str) -> BTreeSet<u64> {
    let ring = fs::read_dir(segment::ring_dir(trail.path(), 0)).expect("listable").map(Result::unwrap);
    let wanted = ring.filter(|entry| entry.path().extension().is_some_and(|found| found == extension));
    wanted.map(|entry| entry.ino()).collect()
}

#[test]
fn what_left_the_ring_is_the_next_segment_and_nothing_of_it_shows() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    let mut reused = 0;
    for _ in 0..6 {
        for _ in 0..60 {
            trail.write(0);
        }
        trail.archive();
        trail.keeper.look().expect("the keeper works");
        let spares = inodes(&trail, segment::SPARE);
        assert!(!spares.is_empty(), "segments have left the ring");
        for _ in 0..60 {
            trail.write(0);
        }
        trail.keeper.look().expect("the keeper works");
        reused += inodes(&trail, "seg").intersection(&spares).count();
        let blank = segment::list_ring(&segment::ring_dir(trail.path(), 0), 0).expect("listable").pop_last().unwrap().1;
        assert_eq!(segment::first_nonzero(&blank.path).expect("readable"), None, "prepared, and all zeros");
    }
    assert!(reused >= 6, "{reused}");
    trail.archive();
    trail.check();
    assert!(entries(trail.path()).iter().all(|entry| matches!(entry.what, What::File(_))), "no damage");
    // A start leaves no file that nobody will use.
    trail.restart();
    assert_eq!(inodes(&trail, segment::SPARE).len(), 0);
}

#[test]
fn a_segment_that_somebody_reads_is_not_reused() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..60 {
        trail.write(0);
    }
    let mut reader = ChainReader::whole(trail.path().to_owned(), 0);
    let mut next = 0;
    let mut read = |reader: &mut ChainReader| match reader.advance().expect("readable") {
        Advance::Frame(header) => {
            assert_eq!(header.first_record, next + 1, "each in its turn");
            next += u64::from(header.records);
            true
        }
        // What follows has left as well.
        Advance::Damage(damage) if damage.kind == DamageKind::MissingSegment => false,
        Advance::Damage(damage) => panic!("{damage}"),
        Advance::End => false,
    };
    for _ in 0..3 {
        assert!(read(&mut reader));
    }
    assert_eq!(reader.number(), 1, "in the middle of the first");
    let first = segment::ring_path(&segment::ring_dir(trail.path(), 0), 1).metadata().expect("there").ino();
    trail.archive();
    trail.keeper.look().expect("the keeper works");
    for _ in 0..60 {
        trail.write(0);
    }
    assert!(!inodes(&trail, "seg").contains(&first) && !inodes(&trail, segment::SPARE).contains(&first));
    while read(&mut reader) {}
    assert!(reader.number() > 1, "to its footer");
}

#[test]
fn trails_from_before_the_archiver_are_taken_over() {
    let mut trail = Trail::new(2, Release::Sealed);
    for round in 0..150 {
        trail.write(round % 2);
    }
    assert!(segment::list(trail.path()).expect("listable")[&0].values().any(|file| file.archived.is_some()));
    trail.archive();
    trail.check();
}

#[test]
fn wherever_it_is_stopped_nothing_is_lost_or_doubled() {
    let mut trail = Trail::new(2, Release::Published { keep: false });
    let options = options(trail.path());
    for round in 0..40_usize {
        for _ in 0..5 {
            trail.write(round % 2);
        }
        // As kill -9 leaves it: some step of publishing was not reached.
        let mut status = Status::default();
        let mut archiver = Archiver::open(&options, &mut status).expect("it opens");
        archiver.publish_up_to(round % 4);
        drop(archiver);
        trail.keeper.look().expect("the keeper works");
    }
    trail.archive();
    trail.check();
    let archive = segment::archive_dir(trail.path());
    let files: usize = super::publish::listed(&archive.join("parquet"))
        .unwrap()
        .iter()
        .map(|dir| super::publish::listed(dir).unwrap().len())
        .sum();
    assert_eq!(files, published(trail.path()).len(), "no leftovers");
    assert!(super::publish::listed(&super::publish::tmp_dir(&archive)).unwrap().is_empty());
}

#[test]
fn damage_is_entered_once_what_precedes_it_is_kept_and_archiving_goes_on() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..30 {
        trail.write(0);
    }
    let first = segment::ring_path(&segment::ring_dir(trail.path(), 0), 1);
    let mut bytes = fs::read(&first).expect("readable");
    bytes[5000] ^= 1;
    fs::write(&first, &bytes).expect("written");
    trail.archive();
    trail.archive();
    let entries = entries(trail.path());
    let damages: Vec<_> = entries.iter().filter(|entry| matches!(entry.what, What::Damage(_))).collect();
    assert_eq!(damages.len(), 1, "{damages:?}");
    let rows: u64 = published(trail.path()).iter().map(|file| file.rows).sum();
    assert_eq!(rows, 30 * 2 - 2, "one frame of two records is lost");
    assert!(matches!(entries[0].what, What::File(_)), "what precedes it is published before it");
    for _ in 0..60 {
        trail.write(0);
    }
    trail.archive();
    trail.keeper.look().expect("the keeper works");
    let kept = &segment::list(trail.path()).expect("listable")[&0][&1];
    assert!(kept.archived.is_some(), "it is evidence");
    assert_eq!(fs::read(&kept.path).expect("readable"), bytes);
}

#[test]
fn a_file_ends_at_midnight() {
    let mut trail = Trail::new(3, Release::Never);
    let midnight_us = (NOW_US / 86_400_000_000 + 1) * 86_400_000_000;
    trail.clock_us = midnight_us - 7 * 60;
    for round in 0..60 {
        trail.write(round % 3);
    }
    trail.archive();
    let files = published(trail.path());
    let dates: std::collections::BTreeSet<_> = files.iter().map(|file| file.path.split('/').nth(1)).collect();
    assert_eq!(dates.len(), 2, "{dates:?}");
    // A frame of two records may lie across it.
    assert!(files.iter().all(|file| super::publish::day(file.since_us) == super::publish::day(file.until_us - 7)));
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    assert_eq!(rows, 120);
}

#[test]
fn a_ring_that_was_removed_or_rolled_back_goes_on_behind_what_is_archived() {
    for removed in [true, false] {
        let mut trail = Trail::new(1, Release::Published { keep: false });
        for _ in 0..40 {
            trail.write(0);
        }
        let ring = segment::ring_dir(trail.path(), 0);
        let old: Vec<_> =
            super::publish::listed(&ring).unwrap().into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect();
        for _ in 0..80 {
            trail.write(0);
        }
        trail.archive();
        trail.writers.clear();
        fs::remove_dir_all(&ring).expect("removed");
        if !removed {
            fs::create_dir(&ring).unwrap();
            old.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
        }
        trail.restart();
        // The note of it.
        trail.written[0] += 1;
        for _ in 0..80 {
            trail.write(0);
            trail.keeper.look().expect("the keeper works");
        }
        trail.archive();
        trail.keeper.look().expect("the keeper works");
        trail.check();
    }
}

#[test]
fn a_frame_cut_at_a_restart_is_neither_damage_nor_a_gap() {
    let mut trail = Trail::new(1, Release::Never);
    trail.write(0);
    trail.write(0);
    let first = segment::ring_path(&segment::ring_dir(trail.path(), 0), 1);
    let bytes = fs::read(&first).expect("readable");
    trail.write(0);
    let mut torn = fs::read(&first).expect("readable");
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 200;
    torn[end..].fill(0);
    fs::write(&first, &torn).expect("written");
    trail.archive();
    trail.written[0] -= 2;
    trail.check();
    trail.restart();
    // The note of what was cut.
    trail.written[0] += 1;
    trail.write(0);
    trail.archive();
    trail.check();
    assert!(entries(trail.path()).iter().all(|entry| matches!(entry.what, What::File(_))));
}

/// Claims with one line, which nobody signs, that what is not archived yet is in this file.
fn claim(dir: &Path) {
    let (mut segments, mut moved) = (BTreeMap::new(), Vec::new());
    for (shard, files) in segment::list(dir).expect("listable") {
        let mut chain = crate::audit::trail::ChainReader::whole(dir.to_owned(), shard);
        while let crate::audit::trail::Advance::Frame(_) = chain.advance().expect("readable") {}
        segments.insert(shard, files.len());
        moved.push(chain.position());
    }
    let mut manifest = manifest::Manifest::open(dir, None).expect("it opens");
    let spans: Vec<_> = moved
        .iter()
        .filter_map(|to| {
            let from = manifest.positions().get(&to.shard).copied();
            manifest::Span::between(&from.unwrap_or(manifest::Position::start(to.shard)), to)
        })
        .collect();
    let number = manifest.head().number + 1;
    let path = super::publish::relative_path(NOW_US, number);
    let place = segment::archive_dir(dir).join(&path);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "no Parquet at all").unwrap();
    let file = FileEntry {
        path,
        bytes: 17,
        blake3: *blake3::hash(b"no Parquet at all").as_bytes(),
        rows: spans.iter().map(manifest::Span::records).sum(),
        schema: manifest::SCHEMA,
        since_us: NOW_US,
        until_us: NOW_US + 1,
        shards: spans,
    };
    manifest.append(NOW_US, &What::File(file), &moved).expect("written");
}

#[test]
fn what_an_unsigned_entry_claims_is_still_read_from_the_segments_and_made_again() {
    use crate::audit::search::{Filter, search};
    let mut trail = Trail::new(2, Release::Published { keep: false });
    for round in 0..80 {
        trail.write(round % 2);
    }
    trail.archive();
    trail.keeper.look().expect("the keeper works");
    for round in 0..80 {
        trail.write(round % 2);
    }
    let found = |dir: &Path| {
        let unreadable = &mut |trouble| panic!("{trouble}");
        search(dir, &Filter::default(), None, false, unreadable).expect("readable").len()
    };
    let before = found(trail.path());
    claim(trail.path());
    let ring = |dir: &Path| segment::list(dir).expect("listable").values().map(BTreeMap::len).collect::<Vec<_>>();
    let segments = ring(trail.path());
    while trail.keeper.look().expect("the keeper works") {}
    assert!(ring(trail.path()) >= segments, "no segment leaves for it");
    assert_eq!(found(trail.path()), before);
    trail.archive();
    trail.check();
    assert_eq!(found(trail.path()), before);
}

#[test]
fn a_manifest_that_is_not_the_one_that_was_signed_is_never_signed_over() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..4 {
        for _ in 0..30 {
            trail.write(0);
        }
        trail.archive();
    }
    let path = manifest::path(trail.path());
    let good = fs::read_to_string(&path).expect("readable");
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    assert!(lines.len() >= 4);
    let parquet = |dir: &Path| published(dir).len();
    let files = parquet(trail.path());
    let checkpoints = || super::checkpoint::latest(trail.path()).expect("readable");
    let signed = checkpoints();
    let mut another = good.clone();
    another.truncate(good.len() - lines[lines.len() - 1].len());
    // Rolled back, emptied, and with entries that nobody signed.
    let mut longer = good.clone();
    fs::write(&path, &good).expect("writable");
    for _ in 0..2 {
        let mut manifest = manifest::Manifest::open(trail.path(), None).expect("it opens");
        manifest.append(NOW_US, &What::Deleted { files: Vec::new(), reason: "x".into() }, &[]).expect("written");
        longer = fs::read_to_string(&path).expect("readable");
    }
    let finish = Finish::default();
    finish.ask();
    for harmed in [another, String::new(), longer] {
        fs::write(&path, &harmed).expect("writable");
        let error = run(&options(trail.path()), &finish).expect_err("it is not signed over");
        assert!(error.to_string().contains("Nothing is signed over that"), "{error}");
        assert_eq!(checkpoints(), signed);
        let left = super::publish::listed(&super::publish::parquet_dir(&segment::archive_dir(trail.path())))
            .expect("listable")
            .iter()
            .map(|day| super::publish::listed(day).expect("listable").len())
            .sum::<usize>();
        assert_eq!(left, files, "no file of it is taken for a leftover");
    }
    // What none of us wrote is cut off and kept aside.
    for garbage in ["garbage\n", "{}\n\n\n", "\u{0}\u{0}"] {
        fs::write(&path, good.clone() + garbage).expect("writable");
        trail.archive();
        assert!(fs::read_to_string(&path).expect("readable").starts_with(&good));
    }
    let aside = super::publish::listed(&segment::archive_dir(trail.path())).expect("listable");
    let aside = aside.iter().filter(|path| path.to_string_lossy().contains("manifest.unsigned-")).count();
    assert_eq!(aside, 2, "an unfinished line is nothing to keep");
    fs::write(&path, &good).expect("writable");
    trail.archive();
    trail.check();
}

/// Appends a line to the manifest that has a hash of its own and nobody's signature.
fn forge(dir: &Path, number: u64, previous: &str, segment: u64) -> String {
    let hash = "11".repeat(32);
    let position = format!(
        "{{\"shard\":0,\"segment\":{segment},\"offset\":0,\"frame\":9999,\"record\":9999,\"hash\":\"{hash}\"}}"
    );
    let body = format!(
        "{{\"number\":{number},\"previous\":\"{previous}\",\"time\":\"2026-11-20T00:00:00.000000Z\",\"kind\":\"deleted\",\
         \"files\":[],\"reason\":\"x\",\"positions\":[{position}]"
    );
    let line = super::lines::seal(&body, None);
    let path = manifest::path(dir);
    let mut text = fs::read_to_string(&path).expect("readable");
    text.push_str(&line);
    fs::write(path, text).expect("writable");
    line[line.len() - 67..line.len() - 3].to_owned()
}

#[test]
fn no_line_that_somebody_adds_to_the_manifest_takes_a_segment_from_the_ring_or_a_record_from_a_search() {
    use crate::audit::search::{Filter, search};
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..60 {
        trail.write(0);
    }
    trail.archive();
    trail.keeper.look().expect("the keeper works");
    for _ in 0..60 {
        trail.write(0);
    }
    while trail.keeper.look().expect("the keeper works") {}
    let good = fs::read_to_string(manifest::path(trail.path())).expect("readable");
    let ring = |dir: &Path| segment::list(dir).expect("listable")[&0].keys().copied().collect::<Vec<_>>();
    let (before, signed) =
        (ring(trail.path()), super::checkpoint::latest(trail.path()).expect("readable").expect("one"));
    let found = |dir: &Path| search(dir, &Filter::default(), None, false, &mut |_| {}).expect("readable").len();
    let all = found(trail.path());
    let last = segment::hex(&signed.manifest.hash);
    for numbers in [vec![1], vec![signed.manifest.number], vec![signed.manifest.number + 1], vec![0, 1], vec![1000]] {
        fs::write(manifest::path(trail.path()), &good).expect("writable");
        let mut previous = last.clone();
        for number in numbers {
            previous = forge(trail.path(), number, &previous, 99);
        }
        let _ = trail.keeper.look();
        let _ = keeper(trail.path(), 1, Release::Published { keep: false }).look();
        assert_eq!(ring(trail.path()), before);
    }
    fs::write(manifest::path(trail.path()), &good).expect("writable");
    let next = signed.manifest.number + 1;
    let previous = forge(trail.path(), next, &last, 99);
    assert_eq!(found(trail.path()), all);
    forge(trail.path(), next + 1, &previous, 99);
    assert_eq!(found(trail.path()), all);
    fs::write(manifest::path(trail.path()), &good).expect("writable");
    while trail.keeper.look().expect("it goes on") {}
    trail.archive();
    trail.check();
}

/// The words of what `verify` names.
fn breaks(dir: &Path) -> Vec<&'static str> {
    use crate::audit::verify::{Break, Options, Progress, verify_all};
    let options = Options { data_dir: dir.to_owned(), still: true, ..Options::default() };
    let mut found = Vec::new();
    let mut broken = |one: &Break| match one {
        Break::Segment(damage) => found.push(damage.kind.word()),
        Break::Archive(broken) => found.push(broken.kind.word()),
    };
    verify_all(&options, &Progress::default(), &mut broken).expect("readable");
    found
}

#[test]
fn numbers_that_were_promised_are_not_given_out_again() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..4 {
        trail.write(0);
    }
    trail.archive();
    let path = segment::ring_path(&segment::ring_dir(trail.path(), 0), 1);
    let older = fs::read(&path).expect("readable");
    for _ in 0..4 {
        trail.write(0);
    }
    trail.promise();
    trail.writers.clear();
    fs::write(&path, older).expect("writable");
    assert_eq!(breaks(trail.path()), ["promised"]);
    trail.restart();
    // 16 were promised, then comes the note.
    assert_eq!(trail.writers[0].next_record(), 18);
    trail.write(0);
    assert_eq!(breaks(trail.path()), ["unsealed"]);
    trail.archive();
    let found = breaks(trail.path());
    assert!(!found.is_empty() && found.iter().all(|word| ["damage", "unsealed"].contains(word)), "{found:?}");
}

/// An archiver at work in a thread of its own.
struct Running {
    finish: Finish,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn new(options: ArchiverOptions) -> Self {
        let finish = Finish::default();
        let asked = finish.clone();
        Self { finish, thread: std::thread::spawn(move || run(&options, &asked)) }
    }

    fn finish(self) -> std::io::Result<()> {
        self.finish.ask();
        self.thread.join().expect("it does not panic")
    }
}

/// What its status says once that is so.
fn told(dir: &Path, is_so: impl Fn(&Status) -> bool) -> Status {
    for _ in 0..1000 {
        if let Some(status) = Status::read(dir).filter(&is_so) {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?}", Status::read(dir));
}

#[test]
fn an_archive_that_goes_away_under_the_archiver_is_not_begun_anew() {
    for harm in ["moved away", "unmounted", "an older copy"] {
        let mut trail = Trail::new(1, Release::Published { keep: false });
        for _ in 0..4 {
            trail.write(0);
        }
        trail.archive();
        let (archive, older, away) =
            (segment::archive_dir(trail.path()), trail.path().join("older"), trail.path().join("away"));
        let copied = std::process::Command::new("cp").arg("-a").args([&archive, &older]).status().expect("cp runs");
        assert!(copied.success());
        fs::remove_file(super::status::path(trail.path())).expect("there");
        let running = Running::new(options(trail.path()));
        told(trail.path(), |status| status.error.is_none() && status.well_us > 0);
        trail.write(0);
        told(trail.path(), |status| status.checkpoints > 1);
        fs::rename(&archive, &away).expect("moved");
        match harm {
            "unmounted" => fs::create_dir(&archive).expect("made"),
            "an older copy" => fs::rename(&older, &archive).expect("moved"),
            _ => {}
        }
        let key = fs::read(trail.path().join("checkpoint.key")).expect("there");
        fs::remove_file(trail.path().join("checkpoint.key")).expect("there");
        let status =
            told(trail.path(), |status| status.error.as_ref().is_some_and(|error| error.contains("moved away")));
        assert!(status.failures > 0, "{harm}: {status:?}");
        assert!(!trail.path().join("checkpoint.key").exists(), "{harm}: no key is made for another chain");
        assert!(
            harm == "an older copy" || super::checkpoint::files(trail.path()).expect("listable").is_empty(),
            "{harm}"
        );
        // The right one put back, it goes on.
        if archive.exists() {
            fs::remove_dir_all(&archive).expect("removed");
        }
        fs::rename(&away, &archive).expect("moved");
        fs::write(trail.path().join("checkpoint.key"), key).expect("written");
        let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(trail.path().join("checkpoint.key"), only_ours).expect("possible");
        told(trail.path(), |status| status.error.is_none());
        running.finish().expect("it finishes");
        trail.check();
        assert_eq!(breaks(trail.path()), Vec::<&str>::new(), "{harm}");
    }
}

#[test]
fn an_archiver_whose_lock_is_taken_away_makes_room_for_another() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    trail.write(0);
    let running = Running::new(options(trail.path()));
    told(trail.path(), |status| status.error.is_none() && status.well_us > 0);
    let path = segment::archive_dir(trail.path()).join("lock");
    fs::remove_file(&path).expect("there");
    let other = crate::files::lock(&path, Duration::ZERO, "busy").expect("nobody has this one");
    told(trail.path(), |status| status.error.as_ref().is_some_and(|error| error.contains("another archiver")));
    drop(other);
    told(trail.path(), |status| status.error.is_none());
    running.finish().expect("it finishes");
    trail.check();
}

#[test]
fn frames_that_were_promised_and_are_others_now_are_named_for_ever() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    for _ in 0..4 {
        trail.write(0);
    }
    trail.archive();
    for _ in 0..4 {
        trail.write(0);
    }
    trail.promise();
    assert_eq!(breaks(trail.path()), Vec::<&str>::new());
    // Cut back to what is archived while nobody is there, and written anew.
    let position = manifest::positions(trail.path()).expect("readable")[&0];
    trail.writers.clear();
    let path = segment::ring_path(&segment::ring_dir(trail.path(), 0), position.segment);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[position.offset as usize..].fill(0);
    fs::write(&path, bytes).expect("writable");
    trail.written[0] -= 8;
    // By somebody who does not show the gateway what was promised.
    let (checkpoints, aside) = (super::checkpoint::dir(trail.path()), trail.path().join("aside"));
    fs::rename(&checkpoints, &aside).expect("moved");
    trail.restart();
    fs::rename(&aside, &checkpoints).expect("moved");
    trail.write(0);
    trail.archive();
    assert_eq!(breaks(trail.path()), ["promised"], "the promise is made again until it is met");
    for _ in 0..100 {
        trail.write(0);
        trail.keeper.look().expect("the keeper works");
    }
    trail.archive();
    while trail.keeper.look().expect("the keeper works") {}
    let damages = entries(trail.path()).iter().filter(|entry| matches!(entry.what, What::Damage(_))).count();
    assert_eq!(damages, 1);
    let found = breaks(trail.path());
    assert!(
        found.contains(&"damage") && found.iter().all(|word| ["damage", "promised_frame"].contains(word)),
        "{found:?}"
    );
    trail.check();
}
