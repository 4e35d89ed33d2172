//! Whatever is done to a trail, `verify` sees it, and sees nothing where nothing was done.

use super::archiver_tests::{Trail, published};
use super::key;
use super::{checkpoint, manifest};
use crate::audit::verify::{Break, Options, Progress, Report, verify_all};
use crate::audit::{Release, segment};
use std::fs;
use std::path::{Path, PathBuf};

/// Two shards, several files, segments that are gone and segments that are not.
fn trail() -> Trail {
    let mut trail = Trail::new(2, Release::Published { keep: false });
    for part in 0..3 {
        for round in 0..40 {
            trail.write((round + part) % 2);
        }
        trail.archive();
        trail.keeper.look().expect("the keeper works");
    }
    // Recorded, promised and not archived.
    trail.write(0);
    trail.promise();
    trail
}

fn check(options: &Options) -> (Vec<String>, Report) {
    let mut breaks = Vec::new();
    let mut broken = |found: &Break| breaks.push(found.to_string());
    let report = verify_all(options, &Progress::default(), &mut broken).expect("readable");
    assert_eq!(report.breaks(), breaks.len() as u64, "{breaks:?}");
    (breaks, report)
}

fn options(dir: &Path) -> Options {
    Options { data_dir: dir.to_owned(), ..Options::default() }
}

/// All files of a trail.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in super::publish::listed(&dir).unwrap() {
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn checkpoints(dir: &Path) -> PathBuf {
    checkpoint::files(dir).unwrap().pop().expect("there is one")
}

fn without_last_line(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let cut = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
    fs::write(path, &text[..cut]).unwrap();
}

/// What is found when this is done to a trail that was whole.
fn after(harm: impl FnOnce(&Path)) -> Vec<String> {
    let trail = trail();
    harm(trail.path());
    check(&options(trail.path())).0
}

fn assert_one(breaks: &[String], what: &str) {
    assert!(breaks.len() == 1 && breaks[0].contains(what), "{what}: {breaks:#?}");
}

#[test]
fn a_whole_trail_is_whole_with_and_without_what_is_kept() {
    for release in [Release::Published { keep: false }, Release::Published { keep: true }, Release::Never] {
        let mut trail = Trail::new(3, release);
        for round in 0..100 {
            trail.write(round % 3);
            if round % 30 == 29 {
                trail.archive();
                trail.keeper.look().expect("the keeper works");
                let (breaks, report) = check(&options(trail.path()));
                assert!(breaks.is_empty(), "{breaks:#?}");
                let archive = report.archive.expect("there is one");
                assert!(archive.files > 0 && archive.checkpoints > 0 && archive.keys.len() == 1);
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let trail = trail();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut tried = 0;
    for path in files(trail.path()) {
        let name = path.to_string_lossy().into_owned();
        // What is no part of the proof: news, locks, the key itself, and what is not published.
        let no_part =
            ["archiver.json", "lock", "checkpoint.key", "checkpoint.pub"].iter().any(|end| name.ends_with(end));
        if no_part || name.contains("archive/tmp/") {
            continue;
        }
        let good = fs::read(&path).unwrap();
        for _ in 0..60 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bit = (random >> 20) as usize % (good.len() * 8);
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let breaks = check(&options(trail.path())).0;
            assert!(!breaks.is_empty(), "bit {bit} of {name} went unnoticed");
            tried += 1;
        }
        fs::write(&path, good).unwrap();
    }
    assert!(tried > 300, "{tried}");
    assert!(check(&options(trail.path())).0.is_empty());
}

#[test]
fn what_is_done_to_files_is_named() {
    let first = |dir: &Path| segment::archive_dir(dir).join(&published(dir)[0].path);
    let second = |dir: &Path| segment::archive_dir(dir).join(&published(dir)[1].path);
    assert_one(&after(|dir| fs::remove_file(first(dir)).unwrap()), "the file is missing");
    let swapped = after(|dir| {
        let (one, two) = (fs::read(first(dir)).unwrap(), fs::read(second(dir)).unwrap());
        fs::write(first(dir), two).unwrap();
        fs::write(second(dir), one).unwrap();
    });
    assert_eq!(swapped.len(), 2, "{swapped:?}");
    let copied = after(|dir| {
        fs::copy(first(dir), first(dir).with_file_name("x-0000000001.parquet")).unwrap();
    });
    assert_one(&copied, "no entry of the manifest names it");
    let cut = after(|dir| fs::write(first(dir), &fs::read(first(dir)).unwrap()[..100]).unwrap());
    assert_one(&cut, "it has 100 bytes");
}

#[test]
fn only_regular_files_count_and_nothing_is_waited_for() {
    let first = |dir: &Path| segment::archive_dir(dir).join(&published(dir)[0].path);
    let linked = after(|dir| {
        let (path, elsewhere) = (first(dir), dir.join("elsewhere"));
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    });
    assert_one(&linked, "is a symbolic link");
    let folder = after(|dir| {
        let (path, elsewhere) = (first(dir).parent().unwrap().to_owned(), dir.join("elsewhere"));
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    });
    let files = published(trail().path()).len();
    assert!(folder.iter().filter(|text| text.contains("is a symbolic link")).count() == files, "{folder:#?}");
    assert!(folder.iter().filter(|text| text.contains("no entry of the manifest names it")).count() == 1);
    let gone = after(|dir| {
        let parquet = super::publish::parquet_dir(&segment::archive_dir(dir));
        fs::remove_dir_all(&parquet).unwrap();
        fs::write(&parquet, "").unwrap();
    });
    assert!(gone.len() == files && gone.iter().all(|text| text.contains("the file is missing")), "{gone:#?}");
}

#[test]
fn a_file_with_the_number_of_an_entry_that_nobody_signed_is_surplus() {
    let breaks = after(|dir| {
        let mut manifest = manifest::Manifest::open(dir, None).expect("it opens");
        let deleted = manifest::What::Deleted { files: Vec::new(), reason: "x".into() };
        manifest.append(1, &deleted, &[]).expect("written");
        let published = published(dir).pop().expect("there is one");
        let place = segment::archive_dir(dir).join(published.path);
        let number = manifest.head().number;
        fs::write(place.with_file_name(format!("20261120T031200.000000Z-{number:010}.parquet")), "x").expect("written");
    });
    assert_one(&breaks, "no entry of the manifest names it");
}

#[test]
fn a_ring_that_is_gone_is_missed_though_all_of_it_is_archived() {
    let mut trail = Trail::new(1, Release::Published { keep: false });
    trail.write(0);
    trail.archive();
    assert!(check(&options(trail.path())).0.is_empty());
    fs::remove_dir_all(segment::ring_dir(trail.path(), 0)).unwrap();
    assert_one(&check(&options(trail.path())).0, "the segment is missing");
}

#[test]
fn a_chain_of_checkpoints_that_was_begun_anew_says_so() {
    let trail = trail();
    fs::remove_dir_all(checkpoint::dir(trail.path())).unwrap();
    assert!(!check(&options(trail.path())).0.is_empty());
    trail.archive();
    let breaks = check(&options(trail.path())).0;
    assert_one(&breaks, "the chain of checkpoints begins with entry");
}

#[test]
fn lines_that_were_cut_are_missed_by_those_that_promise_them() {
    let manifest_cut = after(|dir| without_last_line(&manifest::path(dir)));
    assert!(manifest_cut.iter().any(|text| text.contains("does not have the entry")), "{manifest_cut:#?}");
    let gone = after(|dir| fs::remove_file(manifest::path(dir)).unwrap());
    assert!(gone.iter().any(|text| text.contains("does not have the entry")), "{gone:#?}");
    let checkpoints_gone = after(|dir| fs::remove_file(checkpoints(dir)).unwrap());
    assert_one(&checkpoints_gone, "the end of the checkpoints was cut");
    let removed = after(|dir| {
        let text = fs::read_to_string(checkpoints(dir)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        fs::write(checkpoints(dir), [&lines[..1], &lines[2..]].concat().join("\n") + "\n").unwrap();
    });
    assert_one(&removed, "it has number 3, 2 was due");
}

#[test]
fn a_cut_end_of_the_newest_segment_is_what_checkpoints_are_for() {
    let cut = after(|dir| {
        let ring = segment::list_ring(&segment::ring_dir(dir, 0), 0).unwrap();
        let path = ring.values().rev().map(|file| &file.path).find(|path| fs::read(path).unwrap()[0] != 0).unwrap();
        let mut bytes = fs::read(path).unwrap();
        // Back to the whole frame before the last one: the chain alone does not notice.
        let last = bytes.windows(4).rposition(|magic| magic == b"LGFR").unwrap();
        bytes[last..].fill(0);
        fs::write(path, bytes).unwrap();
    });
    assert_one(&cut, "which a checkpoint promises");
    let gone = after(|dir| fs::remove_dir_all(segment::ring_dir(dir, 0)).unwrap());
    assert!(gone.iter().any(|text| text.contains("the segment is missing")), "{gone:#?}");
    assert!(gone.iter().any(|text| text.contains("which a checkpoint promises")), "{gone:#?}");
}

#[test]
fn a_trail_rolled_back_as_a_whole_is_noticed_by_checkpoints_kept_elsewhere() {
    let mut trail = trail();
    let old: Vec<(PathBuf, Vec<u8>)> =
        files(trail.path()).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    trail.write(1);
    trail.archive();
    let elsewhere = trail.path().join("elsewhere");
    fs::copy(checkpoints(trail.path()), &elsewhere).unwrap();
    let known = Options { elsewhere: vec![elsewhere.clone()], ..options(trail.path()) };
    assert!(check(&known).0.is_empty());
    for path in files(trail.path()).iter().filter(|path| **path != elsewhere) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in old {
        fs::write(path, bytes).unwrap();
    }
    assert!(check(&options(trail.path())).0.is_empty(), "in itself it is whole");
    let breaks = check(&known).0;
    assert!(breaks.iter().any(|text| text.contains("is kept elsewhere")), "{breaks:#?}");
    assert!(breaks.iter().any(|text| text.contains("does not have the entry")), "{breaks:#?}");
}

#[test]
fn only_keys_that_are_vouched_for_are_believed() {
    let mut trail = trail();
    let path = trail.path().join("checkpoint.key");
    let first = key::SigningKey::read(&path).unwrap().public();
    key::create_next(&key::next_path(&path), &key::SigningKey::read(&path).unwrap()).unwrap();
    trail.write(0);
    trail.promise();
    let rotated = Options { keys: vec![first], ..options(trail.path()) };
    let (breaks, report) = check(&rotated);
    assert!(breaks.is_empty(), "{breaks:#?}");
    assert_eq!(report.archive.expect("there is one").keys.len(), 2);
    let strange = Options { keys: vec![[7; 32]], ..options(trail.path()) };
    assert!(check(&strange).0.iter().any(|text| text.contains("nothing vouches for")));
    // A forger who signs the whole chain anew with a key of his own.
    fs::remove_dir_all(checkpoint::dir(trail.path())).unwrap();
    fs::remove_file(&path).unwrap();
    trail.promise();
    assert!(!check(&rotated).0.is_empty());
}

#[test]
fn surplus_segments_and_things_that_are_no_files_are_named() {
    let copied = after(|dir| {
        let ring = segment::list_ring(&segment::ring_dir(dir, 0), 0).unwrap();
        let (&number, file) = ring.first_key_value().unwrap();
        let copy = segment::ring_path(&segment::ring_dir(dir, 0), number + 70);
        fs::copy(&file.path, copy).unwrap();
    });
    assert!(copied.iter().any(|text| text.contains("a file too many")), "{copied:#?}");
    let low = after(|dir| {
        let ring = segment::list_ring(&segment::ring_dir(dir, 0), 0).unwrap();
        let file = ring.first_key_value().unwrap().1;
        fs::copy(&file.path, segment::archive_dir(dir).join(segment::damaged_name(0, 0))).unwrap();
    });
    assert!(!low.is_empty());
    let fifo = after(|dir| {
        let path = segment::archive_dir(dir).join(segment::damaged_name(0, 1));
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    });
    assert_one(&fifo, "a file too many");
}

/// `cargo test --release -p lockgate --lib -- --ignored --nocapture speed_of_the_archiver`
#[test]
#[ignore = "a measurement"]
fn speed_of_the_archiver_and_of_verify() {
    use crate::audit::tests::{groups, outcome, request, scratch, who};
    use crate::audit::{Entry, Journal as _, RingOptions, SegmentWriter};
    const RECORDS: u64 = 400_000;
    let dir = scratch();
    let ring =
        |shard| RingOptions { data_dir: dir.path().to_owned(), shard, segment_bytes: 64 << 20, segments_per_shard: 64 };
    let groups = groups();
    for shard in 0..2 {
        let (mut writer, _) = SegmentWriter::open(&ring(shard), 0).unwrap();
        let mut keeper = crate::audit::Keeper::new(crate::audit::SealerOptions {
            data_dir: dir.path().to_owned(),
            shards: 2,
            segment_bytes: 64 << 20,
            segments_per_shard: 64,
            release: Release::Never,
        });
        for number in 0..RECORDS {
            let statement = format!("SELECT * FROM orders WHERE id = {number} /* {} */", "x".repeat(300));
            let entry = match number % 2 {
                0 => Entry::Request(request(number, &statement)),
                _ => Entry::Outcome(outcome(number)),
            };
            let who = who("session-1", "alice@example.com", &groups);
            while writer.append(1_795_000_000_000_000 + number as i64 * 10, &who, &entry).is_err() {
                assert!(keeper.look().unwrap());
            }
            if number % 8 == 7 {
                writer.write().unwrap();
            }
        }
        writer.write().unwrap();
    }
    let started = std::time::Instant::now();
    let finish = super::archiver::Finish::default();
    finish.ask();
    let archiver =
        super::archiver::ArchiverOptions { file_bytes: 128 << 20, ..super::archiver_tests::options(dir.path()) };
    super::archiver::run(&archiver, &finish).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let bytes: u64 = published(dir.path()).iter().map(|file| file.bytes).sum();
    println!(
        "archived {} records in {seconds:.2} s: {:.0} a second, {bytes} bytes",
        2 * RECORDS,
        2.0 * RECORDS as f64 / seconds
    );
    for _ in 0..3 {
        let started = std::time::Instant::now();
        let (breaks, report) = check(&options(dir.path()));
        let seconds = started.elapsed().as_secs_f64();
        assert!(breaks.is_empty());
        println!(
            "verified {} MB in {seconds:.2} s: {:.2} GB/s",
            report.bytes() >> 20,
            report.bytes() as f64 / 1e9 / seconds
        );
    }
}
