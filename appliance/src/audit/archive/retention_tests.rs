//! What is old goes, what is held stays, and the chain tells of both.

use super::archiver::{ArchiverOptions, Finish, run};
use super::checkpoint::Checkpoints;
use super::covered::covered;
use super::holds::{self, Scope};
use super::key::KeySource;
use super::manifest::{self, Entry, Manifest, What};
use super::retention::Retention;
use super::status::{CLOCK_US, unix_us};
use crate::audit::search::{Filter, search};
use crate::audit::segment::SEGMENT_BYTES_MIN;
use crate::audit::tests::{groups, outcome, request, scratch, who};
use crate::audit::verify::{Options, Progress, verify_all};
use crate::audit::{Entry as Record, Journal as _, RingOptions, SegmentWriter};
use std::fs;
use std::path::Path;
use std::time::Duration;

const DAY_US: i64 = 86_400_000_000;

fn options(dir: &Path, retention: Option<Duration>) -> ArchiverOptions {
    ArchiverOptions { retention, ..ArchiverOptions::by_size(dir, 1 << 20) }
}

/// The archiver looks once, archives what there is and deletes what is old.
fn look(dir: &Path, keep_days: u64) {
    let finish = Finish::default();
    finish.ask();
    run(&options(dir, Some(Duration::from_secs(keep_days * 86_400))), &finish).expect("archived");
}

/// The test's clock, or the machine's.
fn now_us() -> i64 {
    unix_us()
}

/// From now on it is so many days before (or behind) the machine's time. Ends with the test, whose thread it is of.
fn days_ago(days: i64) {
    CLOCK_US.set(Some(jiff::Timestamp::now().as_microsecond() - days * DAY_US));
}

fn pass(us: i64) {
    CLOCK_US.set(Some(now_us() + us));
}

/// Days pass with an archiver at work, which looks once in each.
fn pass_days(dir: &Path, days: u32, keep_days: u64) {
    for _ in 0..days {
        pass(DAY_US);
        look(dir, keep_days);
    }
}

/// A day passes, and is covered by checkpoints.
fn pass_covered(dir: &Path) {
    let key = KeySource::File(dir.join("checkpoint.key"));
    let mut checkpoints = Checkpoints::open(dir, &key).expect("it opens");
    let (head, promises) = (checkpoints.signed().expect("one").manifest, checkpoints.promised().to_vec());
    for _ in 0..=24 * 12 {
        checkpoints.write(now_us(), head, &promises).expect("written");
        pass(300_000_000);
    }
}

/// One statement of somebody, made and archived now.
fn record(dir: &Path, user: &str) {
    let options =
        RingOptions { data_dir: dir.to_owned(), shard: 0, segment_bytes: SEGMENT_BYTES_MIN, segments_per_shard: 100 };
    let (groups, at) = (groups(), now_us());
    let (mut writer, _) = SegmentWriter::open(&options, at).expect("the trail opens");
    let who = who(user, user, &groups);
    writer.append(at, &who, &Record::Request(request(1, "SELECT 1"))).expect("room");
    writer.append(at + 7, &who, &Record::Outcome(outcome(1))).expect("room");
    writer.write().expect("written");
    drop(writer);
    look(dir, 4000);
}

/// One file a person: alice's is 30 days old, bob's 20, carol's 10. The archiver was at work all the time.
fn trail() -> tempfile::TempDir {
    let dir = scratch();
    days_ago(31);
    look(dir.path(), 4000);
    for (days, user) in [(1, "alice"), (10, "bob"), (10, "carol")] {
        pass_days(dir.path(), days, 4000);
        record(dir.path(), user);
    }
    pass_days(dir.path(), 9, 4000);
    pass_covered(dir.path());
    dir
}

fn users(dir: &Path) -> Vec<String> {
    let found = search(dir, &Filter::default(), None, false, &mut |trouble| panic!("{trouble}")).expect("readable");
    found.into_iter().filter(|record| record.kind == "statement").map(|record| record.user).collect()
}

fn hold(dir: &Path, user: &str, since_us: Option<i64>) -> u64 {
    let since = since_us.map(crate::audit::when::rfc3339);
    let scope = Scope { users: vec![user.to_owned()], targets: Vec::new(), since, until: None };
    holds::add(dir, scope, "case 7", now_us()).expect("recorded")
}

/// Paths and reasons of what was deleted.
fn deletions(dir: &Path) -> Vec<(Vec<u64>, String)> {
    let mut found = Vec::new();
    manifest::each(dir, &mut |_, entry| {
        if let Entry { what: What::Deleted { files, reason }, .. } = entry.expect("it holds") {
            found.push((files.into_iter().map(|file| file.entry).collect(), reason));
        }
    })
    .expect("readable");
    found
}

fn is_whole(dir: &Path) -> bool {
    let mut breaks = 0;
    let options = Options { data_dir: dir.to_owned(), still: true, ..Options::default() };
    verify_all(&options, &Progress::default(), &mut |_| breaks += 1).expect("readable");
    breaks == 0
}

#[test]
fn old_files_go_once_nobody_holds_them_and_the_trail_stays_whole() {
    let dir = trail();
    assert_eq!(users(dir.path()), ["alice", "bob", "carol"]);
    let first = hold(dir.path(), "al*", None);
    // Carol's file is too young, dave has none, and of bob only later records are held.
    hold(dir.path(), "dave", None);
    hold(dir.path(), "bob", Some(now_us() - 15 * DAY_US));
    look(dir.path(), 15);
    assert_eq!(users(dir.path()), ["alice", "carol"]);
    let deleted = deletions(dir.path());
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].0.len(), 1);
    assert!(deleted[0].1.contains("older than 15 days") && deleted[0].1.contains("3 holds"), "{}", deleted[0].1);
    assert!(is_whole(dir.path()));
    look(dir.path(), 15);
    assert_eq!(deletions(dir.path()).len(), 1, "nothing is deleted twice");
    assert!(holds::release(dir.path(), first, "settled", now_us()).expect("recorded"));
    look(dir.path(), 15);
    assert_eq!((users(dir.path()), deletions(dir.path()).len()), (vec!["carol".to_owned()], 2));
    assert!(is_whole(dir.path()));
}

#[test]
fn nothing_goes_by_a_clock_that_has_just_jumped() {
    // The archiver was at rest for 40 days; or it was not, and it is the clock. Or the clock was set back.
    for days in [40, -40] {
        let dir = trail();
        pass(days * DAY_US);
        look(dir.path(), 15);
        assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (3, 0), "{days}");
        pass_days(dir.path(), 2, 15);
        assert_eq!(deletions(dir.path()).len(), 0, "{days}: three checkpoints are no day of them");
        pass_covered(dir.path());
        look(dir.path(), 15);
        // Days without a checkpoint have made nothing older.
        let left: &[&str] = if days > 0 { &["carol"] } else { &["alice", "bob", "carol"] };
        assert_eq!(users(dir.path()), left, "{days}");
        assert!(is_whole(dir.path()), "{days}");
    }
    // Steps of less than a day, as soon as the last one is signed.
    let dir = trail();
    for _ in 0..12 {
        pass(23 * DAY_US / 24);
        look(dir.path(), 35);
    }
    look(dir.path(), 35);
    assert_eq!(users(dir.path()).len(), 3);
}

#[test]
fn what_was_recorded_while_the_clock_was_behind_is_kept_as_long_as_the_rest() {
    for begun in [true, false] {
        // From its first start on; or in a trail that was there, for a while.
        let dir = if begun { scratch() } else { trail() };
        days_ago(2000);
        record(dir.path(), "dave");
        days_ago(0);
        record(dir.path(), "erin");
        let before = users(dir.path()).len();
        pass_covered(dir.path());
        look(dir.path(), 60);
        assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (before, 0), "{begun}");
        pass_days(dir.path(), 65, 400);
        pass_covered(dir.path());
        look(dir.path(), 60);
        assert_eq!(users(dir.path()), Vec::<String>::new(), "{begun}");
        assert!(is_whole(dir.path()), "{begun}");
    }
}

#[test]
fn a_chain_that_was_begun_anew_makes_nothing_older_than_it_is() {
    let dir = trail();
    fs::rename(dir.path().join("archive/checkpoints"), dir.path().join("aside")).expect("moved");
    pass(100 * DAY_US);
    look(dir.path(), 15);
    pass_covered(dir.path());
    look(dir.path(), 15);
    assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (3, 0));
    pass_days(dir.path(), 15, 400);
    pass_covered(dir.path());
    look(dir.path(), 15);
    assert_eq!(users(dir.path()).len(), 0);
}

#[test]
fn a_hold_tells_how_much_of_the_archive_it_covers() {
    let dir = trail();
    let told = |user: &str, since_us: Option<i64>, patience: Duration| {
        let since = since_us.map(crate::audit::when::rfc3339);
        let scope = Scope { users: vec![user.to_owned()], targets: Vec::new(), since, until: None };
        let told = covered(dir.path(), &scope, patience).expect("readable");
        (told.files, told.looked_at, told.more)
    };
    let patient = Duration::from_secs(60);
    assert_eq!(told("al*", None, patient), (1, 3, false));
    assert_eq!(told("*", None, patient), (3, 3, false));
    assert_eq!(told("Alice", None, patient), (0, 3, false), "names are spelt as in the trail");
    assert_eq!(told("bob", Some(now_us() - 15 * DAY_US), patient), (0, 3, false));
    assert_eq!(told("bob", Some(now_us() - 25 * DAY_US), patient), (1, 3, false));
    assert_eq!(told("bob", None, Duration::ZERO), (0, 0, true));
    // What cannot be read may hold anything.
    fs::write(&archived(dir.path())[0], b"nothing").expect("written");
    assert_eq!(told("bob", None, patient), (2, 3, false));
}

#[test]
fn a_deletion_that_was_not_finished_is_finished_and_a_missing_file_is_still_a_break() {
    let dir = trail();
    let day = |index: usize| {
        let mut days: Vec<_> = fs::read_dir(dir.path().join("archive/parquet")).expect("a folder").flatten().collect();
        days.sort_by_key(|day| day.path());
        days.swap_remove(index).path()
    };
    let alice = fs::read_dir(day(0)).expect("a folder").flatten().next().expect("a file").path();
    let bytes = fs::read(&alice).expect("readable");
    look(dir.path(), 25);
    assert!(!alice.exists() && !alice.parent().expect("a folder").exists());
    // As if it had been killed between the entry and the deletion, and somebody had asked for a hold then.
    fs::create_dir(alice.parent().expect("a folder")).expect("writable");
    fs::write(&alice, bytes).expect("writable");
    assert!(is_whole(dir.path()));
    let held = hold(dir.path(), "alice", None);
    look(dir.path(), 25);
    assert!(alice.exists() && users(dir.path()).contains(&"alice".to_owned()) && is_whole(dir.path()));
    assert!(holds::release(dir.path(), held, "settled", now_us()).expect("recorded"));
    look(dir.path(), 25);
    assert!(!alice.exists());
    // What lies under the name of a file that was deleted is what was deleted, or a break; and nobody reads it.
    let bob = fs::read_dir(day(0)).expect("a folder").flatten().next().expect("a file").path();
    fs::create_dir(alice.parent().expect("a folder")).expect("writable");
    fs::copy(bob, &alice).expect("writable");
    assert!(!is_whole(dir.path()));
    assert_eq!(users(dir.path()), ["bob", "carol"]);
    fs::remove_dir_all(alice.parent().expect("a folder")).expect("removed");
    assert!(is_whole(dir.path()));
    let bob = fs::read_dir(day(0)).expect("a folder").flatten().next().expect("a file").path();
    fs::remove_file(bob).expect("writable");
    assert!(!is_whole(dir.path()));
    look(dir.path(), 15);
    assert_eq!(deletions(dir.path()).len(), 1, "what somebody else took away is not said to be deleted by us");
    assert!(!is_whole(dir.path()));
}

#[test]
fn a_hold_that_was_signed_cannot_be_made_unsaid() {
    for harm in ["cut by a byte", "cut by a line", "removed", "begun anew", "put back"] {
        let dir = trail();
        let path = holds::path(dir.path());
        hold(dir.path(), "nobody", None);
        let old = fs::read(&path).expect("readable");
        hold(dir.path(), "bob", None);
        look(dir.path(), 400);
        assert!(is_whole(dir.path()));
        let good = fs::read(&path).expect("readable");
        match harm {
            "cut by a byte" => fs::write(&path, &good[..good.len() - 1]).expect("writable"),
            "cut by a line" | "put back" => fs::write(&path, &old).expect("writable"),
            _ => fs::remove_file(&path).expect("removed"),
        }
        let scope = Scope { users: vec!["x".into()], targets: Vec::new(), since: None, until: None };
        assert!(holds::add(dir.path(), scope, "over it", now_us()).is_err(), "{harm}");
        if harm == "begun anew" {
            // By somebody who knows the form.
            let other = trail();
            hold(other.path(), "x", None);
            hold(other.path(), "y", None);
            fs::copy(holds::path(other.path()), &path).expect("copied");
        }
        assert!(!is_whole(dir.path()), "{harm}");
        look(dir.path(), 5);
        assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (3, 0), "{harm}");
        assert!(!is_whole(dir.path()), "{harm}: still, after the archiver has signed again");
        fs::write(&path, &good).expect("writable");
        look(dir.path(), 5);
        assert_eq!(users(dir.path()), ["bob"], "{harm}");
        assert!(is_whole(dir.path()), "{harm}");
    }
}

/// The archive files, oldest first.
fn archived(dir: &Path) -> Vec<std::path::PathBuf> {
    let days = super::publish::listed(&dir.join("archive/parquet")).expect("a folder");
    days.iter().flat_map(|day| super::publish::listed(day).expect("a folder")).collect()
}

#[test]
fn a_file_that_is_not_what_was_published_is_never_deleted() {
    let dir = trail();
    hold(dir.path(), "alice", None);
    let files = archived(dir.path());
    // Nothing of alice in her own file: bob's stands in its place, and the other way round a longer one.
    let alice = fs::read(&files[0]).expect("readable");
    fs::copy(&files[1], &files[0]).expect("copied");
    look(dir.path(), 15);
    assert!(files[0].exists() && !files[1].exists(), "bob's goes, what is in the place of alice's stays");
    assert!(!is_whole(dir.path()));
    fs::write(&files[0], alice).expect("writable");
    assert!(is_whole(dir.path()));
    look(dir.path(), 15);
    assert_eq!(users(dir.path()), ["alice", "carol"]);
}

/// Rewrites a line of the manifest, with a hash of its own, as somebody would who has no key.
fn rewrite(dir: &Path, number: usize, change: impl Fn(&str) -> String) {
    let path = manifest::path(dir);
    let text = fs::read_to_string(&path).expect("readable");
    let lines = text.lines().enumerate().map(|(at, line)| match at + 1 == number {
        false => line.to_owned() + "\n",
        true => super::lines::seal(&change(&line[..line.len() - 75]), None),
    });
    fs::write(&path, lines.collect::<String>()).expect("writable");
}

#[test]
fn a_manifest_that_was_rewritten_in_its_middle_deletes_nothing() {
    for harm in ["older", "deleted"] {
        let dir = trail();
        let good = fs::read(manifest::path(dir.path())).expect("readable");
        let files = archived(dir.path());
        rewrite(dir.path(), 2, |body| match harm {
            "older" => body.replace("\"until\":\"20", "\"until\":\"19"),
            _ => {
                let path = files[0].strip_prefix(dir.path().join("archive")).expect("below it").display().to_string();
                let positions = &body[body.find(",\"positions\"").expect("there are some")..];
                let head = &body[..body.find(",\"kind\"").expect("it has one")];
                let what =
                    format!(",\"kind\":\"deleted\",\"files\":[{{\"entry\":1,\"path\":\"{path}\"}}],\"reason\":\"x\"");
                format!("{head}{what}{positions}")
            }
        });
        look(dir.path(), 25);
        assert_eq!(archived(dir.path()), files, "{harm}");
        fs::write(manifest::path(dir.path()), good).expect("writable");
        assert!(is_whole(dir.path()), "{harm}: the archiver has said nothing of it");
        look(dir.path(), 25);
        assert_eq!(users(dir.path()), ["bob", "carol"], "{harm}");
    }
}

#[test]
fn old_checkpoints_put_behind_the_last_one_are_not_gone_on_with() {
    for place in ["behind", "in a file of their own"] {
        let dir = trail();
        let path = super::checkpoint::files(dir.path()).expect("listable").pop().expect("there is one");
        let before = fs::read_to_string(&path).expect("readable");
        hold(dir.path(), "bob", None);
        look(dir.path(), 400);
        let good = fs::read_to_string(&path).expect("readable");
        assert!(good.len() > before.len());
        let old = before.split_inclusive('\n').next_back().expect("a line");
        let later = path.with_file_name("9999-12-31.jsonl");
        match place {
            "behind" => fs::write(&path, good.clone() + old).expect("writable"),
            _ => fs::write(&later, old).expect("writable"),
        }
        let holds = fs::read(holds::path(dir.path())).expect("readable");
        fs::remove_file(holds::path(dir.path())).expect("removed");
        let finish = Finish::default();
        finish.ask();
        let refused = run(&options(dir.path(), Some(Duration::from_secs(5 * 86_400))), &finish);
        assert!(refused.is_err_and(|error| error.to_string().contains("does not continue")), "{place}");
        assert_eq!((archived(dir.path()).len(), deletions(dir.path()).len()), (3, 0), "{place}");
        fs::write(holds::path(dir.path()), holds).expect("writable");
        fs::write(&path, good).expect("writable");
        let _ = fs::remove_file(&later);
        look(dir.path(), 5);
        assert_eq!(users(dir.path()), ["bob"], "{place}");
        assert!(is_whole(dir.path()), "{place}");
    }
}

#[test]
fn an_unfinished_hold_stops_deletions_until_it_is_told_again() {
    let dir = trail();
    hold(dir.path(), "nobody", None);
    look(dir.path(), 400);
    let path = holds::path(dir.path());
    let good = fs::read(&path).expect("readable");
    fs::write(&path, [&good[..], b"{\"number\":2,"].concat()).expect("writable");
    look(dir.path(), 5);
    assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (3, 0));
    hold(dir.path(), "bob", None);
    look(dir.path(), 5);
    assert_eq!(users(dir.path()), ["bob"]);
    assert!(is_whole(dir.path()));
}

#[test]
fn a_deletion_that_nobody_signed_deletes_nothing() {
    let dir = trail();
    let mut manifest = Manifest::open(dir.path(), None).expect("it opens");
    let mut files = Vec::new();
    manifest::each(dir.path(), &mut |_, entry| {
        if let Entry { head, what: What::File(file), .. } = entry.expect("it holds") {
            files.push(manifest::DeletedFile { entry: head.number, path: file.path });
        }
    })
    .expect("readable");
    let paths: Vec<_> = files.iter().map(|file| dir.path().join("archive").join(&file.path)).collect();
    let reason = "older than 1 days (audit.retention)".to_owned();
    manifest.append(now_us(), &What::Deleted { files, reason }, &[]).expect("written");
    drop(manifest);
    assert!(is_whole(dir.path()), "it may be ours, and its checkpoint be written next");
    for path in &paths {
        fs::remove_file(path).expect("removed");
    }
    let mut missing = 0;
    let options = Options { data_dir: dir.path().to_owned(), still: true, ..Options::default() };
    verify_all(&options, &Progress::default(), &mut |_| missing += 1).expect("readable");
    assert_eq!(missing, 3);
    look(dir.path(), 400);
    assert_eq!(deletions(dir.path()).len(), 0, "the archiver takes back what it did not sign");
    assert!(!is_whole(dir.path()));
    let mut troubles = 0;
    search(dir.path(), &Filter::default(), None, false, &mut |_| troubles += 1).expect("readable");
    assert_eq!(troubles, 3);
}

#[test]
fn nothing_goes_while_the_holds_cannot_be_read() {
    let dir = trail();
    hold(dir.path(), "nobody", None);
    let path = holds::path(dir.path());
    let mut bytes = fs::read(&path).expect("readable");
    bytes[20] ^= 1;
    fs::write(&path, bytes).expect("writable");
    look(dir.path(), 5);
    assert_eq!((users(dir.path()).len(), deletions(dir.path()).len()), (3, 0));
}

/// Signs as the archiver does, after somebody has had their hands in the holds.
struct Meddled {
    checkpoints: Checkpoints,
    holds: std::path::PathBuf,
    before: Vec<u8>,
}

impl Meddled {
    fn judge(&mut self, retention: &mut Retention, manifest: &Manifest) -> std::io::Result<bool> {
        retention.judge(now_us(), manifest.head(), self.checkpoints.signed_holds())
    }

    fn delete(&mut self, retention: &mut Retention, manifest: &mut Manifest) -> std::io::Result<u64> {
        let signed = self.checkpoints.signed_holds();
        retention.delete(now_us(), manifest, signed, &mut |manifest, holds| {
            fs::write(&self.holds, &self.before)?;
            self.checkpoints.name_holds(holds);
            self.checkpoints.write(now_us(), manifest.head(), &[])
        })
    }
}

#[test]
fn a_release_by_which_something_was_deleted_cannot_be_made_unsaid() {
    let dir = trail();
    let held = hold(dir.path(), "bob", None);
    look(dir.path(), 400);
    let holds = holds::path(dir.path());
    let before = fs::read(&holds).expect("readable");
    assert!(holds::release(dir.path(), held, "by somebody else", now_us()).expect("recorded"));
    let checkpoints =
        Checkpoints::open(dir.path(), &KeySource::File(dir.path().join("checkpoint.key"))).expect("it opens");
    let signed = checkpoints.signed().expect("signed");
    let mut manifest = Manifest::open(dir.path(), Some(signed.manifest)).expect("it opens");
    let mut signs = Meddled { checkpoints, holds, before };
    let mut retention = Retention::new(dir.path().to_owned(), Duration::from_secs(5 * 86_400));
    assert!(signs.judge(&mut retention, &manifest).expect("readable"));
    assert_eq!(signs.delete(&mut retention, &mut manifest).expect("deleted"), 3);
    drop((manifest, signs));
    assert!(!is_whole(dir.path()), "the checkpoint names the release, which is not there any more");
    look(dir.path(), 400);
    assert!(!is_whole(dir.path()));
}

#[test]
fn what_was_judged_by_older_holds_is_judged_again() {
    let dir = trail();
    let checkpoints =
        Checkpoints::open(dir.path(), &KeySource::File(dir.path().join("checkpoint.key"))).expect("it opens");
    let signed = checkpoints.signed().expect("signed");
    let mut manifest = Manifest::open(dir.path(), Some(signed.manifest)).expect("it opens");
    let mut signs = Meddled { checkpoints, holds: dir.path().join("unused"), before: Vec::new() };
    let mut retention = Retention::new(dir.path().to_owned(), Duration::from_secs(5 * 86_400));
    assert!(signs.judge(&mut retention, &manifest).expect("readable"));
    hold(dir.path(), "bob", None);
    assert_eq!(signs.delete(&mut retention, &mut manifest).expect("none"), 0);
    assert!(retention.is_due() && signs.judge(&mut retention, &manifest).expect("readable"));
    assert_eq!(signs.delete(&mut retention, &mut manifest).expect("deleted"), 2);
    assert_eq!(users(dir.path()), ["bob"]);
    // Whoever keeps the lock keeps nothing but deletions waiting.
    let _lock = holds::lock(dir.path(), Duration::ZERO).expect("free");
    assert!(signs.judge(&mut retention, &manifest).is_ok_and(|ready| ready));
    assert!(signs.delete(&mut retention, &mut manifest).is_err());
}
