//! A package is made of a real archive, holds on its own, and no byte of it can be changed.

use super::check::{Checked, check};
use super::pack::{Packed, pack};
use crate::audit::archive::archiver::{ArchiverOptions, Finish, run};
use crate::audit::archive::key::{SigningKey, create};
use crate::audit::search::{Filter, search};
use crate::audit::segment::SEGMENT_BYTES_MIN;
use crate::audit::tests::{groups, outcome, request, scratch, who};
use crate::audit::{Entry, Journal as _, RingOptions, SegmentWriter};
use crate::config::Glob;
use std::fs;
use std::path::{Path, PathBuf};

const START_US: i64 = 1_795_142_000_000_000;

/// Some statements of alice and bob, in three archive files.
fn trail() -> tempfile::TempDir {
    let dir = scratch();
    let groups = groups();
    for round in 0..3u64 {
        let options = RingOptions {
            data_dir: dir.path().to_owned(),
            shard: 0,
            segment_bytes: SEGMENT_BYTES_MIN,
            segments_per_shard: 100,
        };
        let (mut writer, _) = SegmentWriter::open(&options, START_US).expect("the trail opens");
        for number in round * 4 + 1..=round * 4 + 4 {
            let (session, user) = if number % 2 == 0 { ("s-a", "alice") } else { ("s-b", "bob") };
            let who = who(session, user, &groups);
            let text = format!("SELECT {number} -- \u{1b}[31m");
            let at = START_US + number as i64 * 1_000_000;
            writer.append(at, &who, &Entry::Request(request(number, &text))).expect("room");
            writer.append(at + 7, &who, &Entry::Outcome(outcome(number))).expect("room");
        }
        writer.write().expect("written");
        drop(writer);
        archive(dir.path());
    }
    dir
}

fn archive(dir: &Path) {
    let finish = Finish::default();
    finish.ask();
    let options = ArchiverOptions::by_size(dir, 1 << 20);
    run(&options, &finish).expect("archived");
}

fn alice() -> Filter {
    let until_us = Some(START_US + 9_000_000);
    Filter { users: vec![Glob::new("alice").expect("a glob")], until_us, ..Filter::default() }
}

/// The package, in a folder of its own.
fn packed(dir: &Path, filter: &Filter, sign: bool) -> (tempfile::TempDir, PathBuf, Packed) {
    let key = SigningKey::read(&dir.join("checkpoint.key")).expect("the archiver made one");
    let elsewhere = scratch();
    let out = elsewhere.path().join("package.tar");
    let packed = pack(dir, filter, sign.then_some(&key), &out, START_US);
    (elsewhere, out, packed.expect("packed").expect("something matches"))
}

fn checked(path: &Path, keys: &[[u8; 32]]) -> (Option<Checked>, Vec<String>) {
    let mut breaks = Vec::new();
    let checked = check(path, keys, &mut |what| breaks.push(what)).expect("readable");
    (checked, breaks)
}

#[test]
fn a_package_holds_on_its_own_and_says_what_it_is() {
    let dir = trail();
    let (_elsewhere, path, packed) = packed(dir.path(), &alice(), true);
    assert_eq!((packed.records.len(), packed.files), (4, 2), "the third file holds later statements");
    let elsewhere = scratch();
    let copy = elsewhere.path().join("received");
    fs::copy(&path, &copy).expect("copied");
    let (checked, breaks) = checked(&copy, &[packed.key]);
    assert_eq!(breaks, Vec::<String>::new());
    let checked = checked.expect("it says what it is");
    assert!(checked.signed && checked.key_is_known && checked.sealed_us.is_some());
    assert_eq!((checked.records, checked.files, &*checked.question.users[0]), (4, 2, "alice"));
    let text = String::from_utf8_lossy(&fs::read(&copy).expect("readable")).into_owned();
    assert!(text.contains("EVIDENCE FROM A LOCKGATE AUDIT TRAIL") && text.contains("SELECT 4 -- \\u{1b}[31m"));
    let found = search(dir.path(), &alice(), None, false, &mut |trouble| panic!("{trouble}")).expect("readable");
    assert!(found.iter().all(|record| text.contains(&format!("\"id\":\"{}\"", record.id))));
}

#[test]
fn without_a_signature_or_with_another_key_it_says_so() {
    let dir = trail();
    let (_elsewhere, path, packed) = packed(dir.path(), &alice(), false);
    let (without, breaks) = checked(&path, &[]);
    assert!(breaks.is_empty() && without.is_some_and(|checked| !checked.signed && !checked.key_is_known));
    // The checkpoint's key does not stand for the question and the summary.
    assert_eq!(checked(&path, &[[7; 32]]).1.len(), 2);
    let breaks = checked(&path, &[[7; 32], packed.key]).1;
    assert!(breaks.len() == 1 && breaks[0].starts_with("index.sig: it is missing"), "{breaks:?}");
    let other = dir.path().join("other.key");
    create(&other).expect("a key");
    let other = SigningKey::read(&other).expect("readable");
    let out = path.with_file_name("refused.tar");
    assert!(pack(dir.path(), &alice(), Some(&other), &out, START_US).is_err() && !out.exists());
    let nobody = Filter { users: vec![Glob::new("nobody").expect("a glob")], ..Filter::default() };
    assert!(pack(dir.path(), &nobody, None, &out, START_US).expect("readable").is_none() && !out.exists());
}

#[test]
fn no_byte_of_a_signed_package_can_be_changed() {
    let dir = trail();
    let (_elsewhere, path, packed) = packed(dir.path(), &alice(), true);
    let good = fs::read(&path).expect("readable");
    // Every place in the first kilobytes (headers, index, signature), and some of all others.
    for at in (0..good.len()).filter(|at| *at < 4096 || at % 37 == 0) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).expect("writable");
        assert!(!checked(&path, &[packed.key]).1.is_empty(), "byte {at}");
    }
    for length in (0..good.len()).step_by(499) {
        fs::write(&path, &good[..length]).expect("writable");
        assert!(!checked(&path, &[packed.key]).1.is_empty(), "cut to {length}");
    }
}

#[test]
fn files_in_another_order_are_another_package() {
    let dir = trail();
    let (_elsewhere, path, packed) = packed(dir.path(), &alice(), true);
    let file = fs::File::open(&path).expect("readable");
    let stored = super::tar::entries(&file).expect("a package");
    let bytes = fs::read(&path).expect("readable");
    let end = |index: usize| stored[index].offset as usize + (stored[index].bytes as usize).next_multiple_of(512);
    let summary = stored.iter().position(|stored| stored.name == super::SUMMARY).expect("there is one");
    let (before, last) = (end(summary - 1), end(stored.len() - 1));
    let moved = [&bytes[..before], &bytes[end(summary)..last], &bytes[before..end(summary)], &bytes[last..]].concat();
    fs::write(&path, moved).expect("writable");
    let breaks = checked(&path, &[packed.key]).1;
    assert!(breaks.len() == 1 && breaks[0].contains("not in its order"), "{breaks:?}");
}

#[test]
fn an_archive_file_that_was_changed_is_not_handed_over() {
    let dir = trail();
    let day = fs::read_dir(dir.path().join("archive/parquet")).expect("a folder").flatten().next().expect("a day");
    let file = fs::read_dir(day.path()).expect("a folder").flatten().next().expect("a file").path();
    let mut bytes = fs::read(&file).expect("readable");
    bytes[0] ^= 1;
    fs::write(&file, bytes).expect("writable");
    let elsewhere = scratch();
    let out = elsewhere.path().join("package.tar");
    let error = pack(dir.path(), &Filter::default(), None, &out, START_US).expect_err("it shows");
    assert!(error.to_string().contains("No package is made of") && !out.exists(), "{error}");
    // Nor where it would only leave something out: somebody else's file in the place of hers.
    let files = super::super::archive::publish::listed(&day.path()).expect("a folder");
    fs::copy(&files[2], &files[0]).expect("copied");
    let error = pack(dir.path(), &alice(), None, &out, START_US).expect_err("it shows").to_string();
    assert!(error.contains("not what was published") && !out.exists(), "{error}");
}

#[test]
fn a_package_takes_nobodys_place() {
    use std::os::unix::fs::symlink;
    let (dir, elsewhere) = (trail(), scratch());
    let place = |name: &str| elsewhere.path().join(name);
    let refused =
        |out: &Path| pack(dir.path(), &alice(), None, out, START_US).map(drop).expect_err("refused").to_string();
    fs::write(place("file"), "theirs").expect("writable");
    symlink(place("file"), place("link")).expect("possible");
    symlink(place("nowhere"), place("dangling")).expect("possible");
    fs::create_dir(place("folder")).expect("possible");
    for out in [place("file"), place("link"), place("dangling"), place("folder"), "/dev/null".into()] {
        assert!(refused(&out).contains("remove it, or choose another name"), "{}", out.display());
    }
    for inside in ["package.tar", "archive/package.tar", "archive/holds.jsonl"] {
        assert!(refused(&dir.path().join(inside)).contains("outside of it"), "{inside}");
    }
    symlink(dir.path(), place("trail")).expect("possible");
    assert!(refused(&place("trail/package.tar")).contains("outside of it"));
    // The archive on another mount.
    fs::rename(dir.path().join("archive"), place("mount")).expect("possible");
    symlink(place("mount"), dir.path().join("archive")).expect("possible");
    assert!(refused(&place("mount/package.tar")).contains("outside of it"));
    // What is written first follows no link either.
    symlink(place("file"), place("package.tar.part")).expect("possible");
    assert!(refused(&place("package.tar")).contains("left by an export"));
    assert_eq!(fs::read(place("file")).expect("there"), b"theirs");
    fs::remove_file(place("package.tar.part")).expect("there");
    pack(dir.path(), &alice(), None, &place("package.tar"), START_US).expect("packed").expect("something matches");
    assert!(!place("package.tar.part").exists() && !place("nowhere").exists());
}

#[test]
fn an_outcome_that_is_not_archived_is_said_to_be_missing() {
    let dir = trail();
    let options = RingOptions {
        data_dir: dir.path().to_owned(),
        shard: 0,
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_per_shard: 100,
    };
    let (groups, (mut writer, _)) = (groups(), SegmentWriter::open(&options, START_US).expect("the trail opens"));
    let (who, at) = (who("s-a", "alice", &groups), START_US + 8_500_000);
    writer.append(at, &who, &Entry::Request(request(99, "SELECT pg_sleep(9)"))).expect("room");
    writer.write().expect("written");
    archive(dir.path());
    writer.append(at + 7, &who, &Entry::Outcome(outcome(99))).expect("room");
    writer.write().expect("written");
    let (_elsewhere, path, packed) = packed(dir.path(), &alice(), false);
    let open: Vec<_> = packed.records.iter().filter(|record| !record.complete).collect();
    assert_eq!((packed.records.len(), open.len()), (5, 1));
    let found = search(dir.path(), &alice(), None, false, &mut |trouble| panic!("{trouble}")).expect("readable");
    assert_eq!(found.iter().zip(&packed.records).filter(|(all, packed)| all != packed).count(), 1);
    let text = String::from_utf8_lossy(&fs::read(&path).expect("readable")).into_owned();
    assert!(text.contains("open         1 of them"));
    assert!(checked(&path, &[]).1.is_empty());
}

#[test]
fn a_file_that_belongs_in_no_package_breaks_it_though_the_index_names_it() {
    let dir = trail();
    let (_elsewhere, path, _) = packed(dir.path(), &alice(), false);
    let bytes = fs::read(&path).expect("readable");
    let stored = super::tar::entries(&fs::File::open(&path).expect("readable")).expect("a package");
    let content = |index: usize| &bytes[stored[index].offset as usize..][..stored[index].bytes as usize];
    for name in ["../x", "/abs", "index.json2"] {
        let mut index: super::Index = serde_json::from_slice(content(0)).expect("ours");
        index.files.push(super::Content { path: name.to_owned(), bytes: 2, blake3: blake3::hash(b"hi").into() });
        let index = serde_json::to_vec(&index).expect("serializable");
        let mut tar = super::tar::Writer::new(fs::File::create(&path).expect("writable"));
        tar.append("index.json", index.len() as u64, 0, &mut &index[..]).expect("written");
        for (at, stored) in stored.iter().enumerate().skip(1) {
            tar.append(&stored.name, stored.bytes, 0, &mut content(at)).expect("written");
        }
        tar.append(name, 2, 0, &mut &b"hi"[..]).expect("written");
        tar.finish().expect("written");
        let breaks = checked(&path, &[]).1;
        assert!(breaks.len() == 1 && breaks[0].contains("belongs in a package"), "{name}: {breaks:?}");
    }
}
