//! The archive and the segments answer as one: whatever is archived, a search finds what it found before.

use super::archiver::{ArchiverOptions, Finish, run};
use crate::audit::search::{Filter, Follower, News, Record, Trouble, search, show};
use crate::audit::tests::{outcome, request, scratch, who};
use crate::audit::writer::RingOptions;
use crate::audit::{
    Entry, Journal as _, Keeper, Outcome, Release, Request, SealerOptions, SegmentWriter, Who, segment,
};
use crate::config::Glob;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_US: i64 = 1_795_142_000_000_000;
const STEPS: u64 = 400;

/// Two shards, in which the same steps are written every time.
struct Trail {
    dir: tempfile::TempDir,
    keeper: Keeper,
    step: u64,
}

impl Trail {
    fn new() -> Self {
        let dir = scratch();
        let keeper = Keeper::new(SealerOptions {
            data_dir: dir.path().to_owned(),
            shards: 2,
            segment_bytes: segment::SEGMENT_BYTES_MIN,
            segments_per_shard: 100,
            release: Release::Published { keep: false },
        });
        Self { dir, keeper, step: 0 }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&mut self, steps: u64) {
        let writer = |shard| {
            let options = RingOptions {
                data_dir: self.dir.path().to_owned(),
                shard,
                segment_bytes: segment::SEGMENT_BYTES_MIN,
                segments_per_shard: 100,
            };
            SegmentWriter::open(&options, START_US).expect("the trail opens").0
        };
        let mut writers = [writer(0), writer(1)];
        for step in self.step..self.step + steps {
            let mut append = |shard: usize, who: &Who<'_>, entry: Entry<'_>| {
                while writers[shard].append(START_US + step as i64 * 1_000_000, who, &entry).is_err() {
                    assert!(self.keeper.look().expect("the keeper works"), "no room");
                }
                writers[shard].write().expect("written");
            };
            write_step(step, &mut append);
        }
        self.step += steps;
    }

    fn archive(&mut self) {
        let finish = Finish::default();
        finish.ask();
        let options = ArchiverOptions::by_size(self.dir.path(), 8 << 10);
        run(&options, &finish).expect("archived");
        while self.keeper.look().expect("the keeper works") {}
    }
}

/// Eight sessions take turns; a statement ends some steps after it began, some are ruled on, some are denied.
fn write_step(step: u64, append: &mut impl FnMut(usize, &Who<'_>, Entry<'_>)) {
    let session = |step: u64| step % 8;
    let name = |session: u64| format!("s-{session}");
    let groups = ["engineering".to_owned()];
    let number = |step: u64| step / 8 + 1;
    let of = |step: u64, f: &mut dyn FnMut(usize, &Who<'_>)| {
        let session = session(step);
        let name = name(session);
        let user = if session % 3 == 0 { "alice" } else { "bob" };
        let target = if session % 2 == 0 { "orders" } else { "billing" };
        f((session % 2) as usize, &Who { target, ..who(&name, user, &groups) });
    };
    let ruled = |step: u64| step % 13 == 5;
    let tables = [if step.is_multiple_of(5) { "public.orders".to_owned() } else { "customers".to_owned() }];
    let text = format!("SELECT {step} FROM {} WHERE note = 'Note{}'", tables[0], step % 7);
    of(step, &mut |shard, who| {
        let (decision, rule, ticket) = match step {
            step if ruled(step) => ("approve", "careful", "t-1"),
            step if step % 11 == 3 => ("deny", "no", ""),
            _ => ("allow", "", ""),
        };
        let classes = 1 << (step % 4);
        let binds = [Some("needle"), None];
        let entry = Request { decision, rule, ticket, classes, tables: &tables, ..request(number(step), &text) };
        append(
            shard,
            who,
            Entry::Request(Request { binds: if step.is_multiple_of(9) { &binds } else { &[] }, ..entry }),
        );
    });
    // What began 20 steps ago ends, or had been ruled on 10 steps ago.
    if let Some(before) = step.checked_sub(10).filter(|before| ruled(*before)) {
        let ruling = ["approved", "rejected", "expired"][(before % 3) as usize];
        of(before, &mut |shard, who| {
            let request = number(before);
            append(shard, who, Entry::Ruling { request, ticket: "t-1", ruling, by: "eve", reason: "why" });
        });
    }
    if let Some(before) = step.checked_sub(20) {
        let runs = before % 11 != 3 && (!ruled(before) || before % 3 == 0) && before % 17 != 0;
        of(before, &mut |shard, who| {
            if runs {
                let more = before % 6 == 1;
                append(shard, who, Entry::Outcome(Outcome { more, payload: b"part one, ", ..outcome(number(before)) }));
                if more {
                    append(shard, who, Entry::Outcome(Outcome { payload: b"two", ..outcome(number(before)) }));
                }
            }
        });
    }
    if step % 50 == 49 {
        append(0, &who("", "", &[]), Entry::Gateway { detail: "still here" });
        append(1, &who("s-x", "mallory", &[]), Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" });
        append(0, &who("s-y", "carol", &[]), Entry::SessionOpened { grant: "all", settings: "" });
    }
}

fn globs(text: &str) -> Vec<Glob> {
    vec![Glob::new(text).expect("a glob")]
}

fn filters() -> Vec<Filter> {
    let none = Filter::default;
    let at = |step: i64| Some(START_US + step * 1_000_000);
    vec![
        none(),
        Filter { users: globs("alice"), ..none() },
        Filter { users: globs("*l*"), kinds: globs("login"), ..none() },
        Filter { users: globs("nobody"), ..none() },
        Filter { sessions: globs("s-3"), classes: globs("delete"), ..none() },
        Filter { targets: globs("billing"), tables: globs("orders"), ..none() },
        Filter { tables: globs("public.customers"), since_us: at(100), until_us: at(140), ..none() },
        Filter { tables: globs("elsewhere.orders"), ..none() },
        Filter { decisions: globs("deny"), ..none() },
        Filter { decisions: globs("rejected"), ..none() },
        Filter { decisions: globs("approve*"), ..none() },
        Filter { decisions: globs("rejected"), classes: globs("*"), ..none() },
        Filter { decisions: globs("expired"), tables: globs("customers"), kinds: globs("statement"), ..none() },
        Filter { rules: globs("careful"), ..none() },
        Filter { rules: globs("no"), users: globs("bob"), ..none() },
        Filter { tickets: globs("t-1"), ..none() },
        Filter { tickets: globs("nowhere"), ..none() },
        Filter { errors: globs("28*"), ..none() },
        Filter { errors: globs("*"), kinds: globs("statement"), ..none() },
        Filter { errors: globs("*"), ..none() },
        Filter { rules: globs("*"), ..none() },
        Filter { tickets: globs("*"), ..none() },
        Filter { decisions: globs("*"), ..none() },
        Filter { tables: globs("public.*"), ..none() },
        Filter { tables: globs("*.customers"), ..none() },
        Filter { actors: globs("nobody"), ..none() },
        Filter { kinds: globs("ruling"), ..none() },
        Filter { kinds: globs("gateway"), since_us: at(200), ..none() },
        Filter { contains: Some("NOTE3".into()), ..none() },
        Filter { contains: Some("needle".into()), users: globs("bob"), ..none() },
        Filter { contains: Some("why".into()), ..none() },
        Filter { since_us: at(150), until_us: at(150), ..none() },
        Filter { until_us: at(30), ..none() },
    ]
}

fn found(dir: &Path, filter: &Filter, newest: Option<usize>) -> Vec<Record> {
    search(dir, filter, newest, true, &mut |trouble| panic!("{trouble}")).expect("readable")
}

#[test]
fn whatever_is_archived_a_search_finds_what_it_found_in_segments() {
    let mut plain = Trail::new();
    plain.write(STEPS);
    for archived in [[0, 0], [1, 15], [130, 45], [200, 200]] {
        let mut trail = Trail::new();
        for steps in archived {
            trail.write(steps);
            trail.archive();
        }
        trail.write(STEPS - archived.iter().sum::<u64>());
        for filter in filters() {
            let wanted = found(plain.path(), &filter, None);
            assert_eq!(found(trail.path(), &filter, None), wanted, "{archived:?} {filter:?}");
            let newest = found(trail.path(), &filter, Some(7));
            assert_eq!(newest, wanted[wanted.len().saturating_sub(7)..], "{archived:?} {filter:?}");
        }
        let all = found(plain.path(), &Filter::default(), None);
        assert!(all.len() > 400 && all.iter().any(|record| record.payload.is_some()));
        for id in ["0-1", "0-77", "1-133", "0-300", "1-9", "0-99999", "7-1"] {
            let shown = |dir: &Path| show(dir, id, &mut |trouble| panic!("{trouble}")).expect("readable");
            assert_eq!(shown(trail.path()), shown(plain.path()), "{archived:?} {id}");
        }
    }
}

#[test]
fn the_archive_really_holds_what_was_archived_and_the_ring_lets_go_of_it() {
    let mut trail = Trail::new();
    trail.write(STEPS);
    let before = segment::list(trail.path()).expect("listable").values().map(|files| files.len()).sum::<usize>();
    trail.archive();
    let after = segment::list(trail.path()).expect("listable").values().map(|files| files.len()).sum::<usize>();
    assert!(before > 8 && after <= 4, "{before} {after}");
    assert!(files(trail.path()).len() > 3);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for day in fs::read_dir(dir.join("archive/parquet")).expect("a folder").flatten() {
        files.extend(fs::read_dir(day.path()).expect("a folder").flatten().map(|file| file.path()));
    }
    files.sort();
    files
}

#[test]
fn a_damaged_file_is_named_once_and_the_rest_is_searched() {
    let mut trail = Trail::new();
    trail.write(STEPS);
    trail.archive();
    let all = found(trail.path(), &Filter::default(), None);
    let file = files(trail.path()).swap_remove(1);
    let good = fs::read(&file).expect("readable");
    let check = |bytes: Option<&[u8]>, says: &str| {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).expect("writable"),
            None => fs::remove_file(&file).expect("removable"),
        }
        let mut troubles = Vec::new();
        let rest = search(trail.path(), &Filter::default(), None, true, &mut |trouble| troubles.push(trouble));
        let rest = rest.expect("the rest is readable");
        let [Trouble::Archive { file: named, what }] = &troubles[..] else { panic!("{troubles:?}") };
        assert!(*named == file && what.contains(says), "{what}");
        assert!(rest.len() > all.len() / 2 && rest.len() < all.len());
        let known =
            |record: &Record| all.iter().any(|whole| (whole.shard, whole.sequence) == (record.shard, record.sequence));
        assert!(rest.iter().all(known));
        // What it held is not said to be nowhere.
        let lost = all.iter().find(|record| rest.iter().all(|found| found.id != record.id)).expect("something is lost");
        let mut troubles = Vec::new();
        let shown = show(trail.path(), &lost.id, &mut |trouble| troubles.push(trouble)).expect("the rest is readable");
        let names_it = |trouble: &Trouble| matches!(trouble, Trouble::Archive { file: named, .. } if *named == file);
        assert!(shown.is_none() && troubles.iter().any(names_it), "{}: {troubles:?}", lost.id);
    };
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    check(Some(&flipped), "row group 0, column");
    let tail = good.len() - 200;
    flipped = good.clone();
    flipped[tail] ^= 1;
    check(Some(&flipped), "checksum");
    check(Some(&good[..good.len() / 2]), "the manifest says");
    check(Some(b""), "the manifest says");
    check(None, "No such file");
    fs::write(&file, &good).expect("writable");
    assert_eq!(found(trail.path(), &Filter::default(), None), all);
}

#[test]
fn a_damaged_manifest_entry_is_named_and_the_other_files_are_searched() {
    let mut trail = Trail::new();
    trail.write(STEPS);
    trail.archive();
    let all = found(trail.path(), &Filter::default(), None).len();
    let manifest = trail.path().join("archive/manifest.jsonl");
    let good = fs::read(&manifest).expect("readable");
    let lines: Vec<&[u8]> = good.split_inclusive(|&byte| byte == b'\n').collect();
    let mut bad = good.clone();
    bad[lines[0].len() + 60] ^= 1;
    fs::write(&manifest, &bad).expect("writable");
    let mut troubles = Vec::new();
    let rest = search(trail.path(), &Filter::default(), None, true, &mut |trouble| troubles.push(trouble));
    assert!(matches!(&troubles[..], [Trouble::Manifest(_)]), "{troubles:?}");
    let rest = rest.expect("the rest is readable").len();
    assert!(rest > all / 2 && rest < all, "{rest} of {all}");
}

/// A statement that begins at one time of the clock and ends at another, archived in between and afterwards.
fn say_by_the_clock(trail: &mut Trail, number: u64, begins_us: i64, ends_us: i64, archived: bool) {
    for (at_us, entry) in
        [(begins_us, Entry::Request(request(number, "SELECT 1"))), (ends_us, Entry::Outcome(outcome(number)))]
    {
        let options = RingOptions {
            data_dir: trail.path().to_owned(),
            shard: 0,
            segment_bytes: segment::SEGMENT_BYTES_MIN,
            segments_per_shard: 100,
        };
        let (mut writer, _) = SegmentWriter::open(&options, at_us).expect("the trail opens");
        let groups = ["engineering".to_owned()];
        while writer.append(at_us, &who("s-0", "alice", &groups), &entry).is_err() {
            assert!(trail.keeper.look().expect("the keeper works"), "no room");
        }
        writer.write().expect("written");
        drop(writer);
        if archived {
            trail.archive();
        }
    }
}

#[test]
fn records_are_found_by_their_time_whatever_the_clock_did_in_between() {
    const DAY_US: i64 = 86_400_000_000;
    // The archiver takes nothing from the next few seconds: those are still to come.
    let now_us = jiff::Timestamp::now().as_microsecond() - DAY_US / 24;
    // Right, a day ahead, right, weeks behind, weeks ahead and, once more and for long, right.
    let days = [0, 1, 0, -20, 20, 0].into_iter().chain(std::iter::repeat_n(0, 60));
    let times: Vec<i64> = days.zip(0..).map(|(day, second)| now_us + day * DAY_US + second * 1_000_000).collect();
    for archived in [false, true] {
        let mut trail = Trail::new();
        for (number, &begins_us) in times.iter().enumerate() {
            // It ends when the next one begins.
            let ends_us = times.get(number + 1).copied().unwrap_or(begins_us);
            say_by_the_clock(&mut trail, number as u64 + 1, begins_us, ends_us, archived);
        }
        if archived {
            let entered = fs::metadata(trail.path().join("archive/manifest.jsonl")).expect("there").len();
            assert!(entered > 80_000, "{entered}: too short to be halved");
        }
        let edges = [-21, -10, 0, 1, 2, 19, 21].map(|day| now_us + day * DAY_US - DAY_US / 2);
        for since_us in edges {
            for until_us in edges {
                let filter = Filter { since_us: Some(since_us), until_us: Some(until_us), ..Filter::default() };
                let told = found(trail.path(), &filter, None);
                let wanted = times.iter().filter(|time_us| (since_us..=until_us).contains(time_us)).count();
                assert_eq!(told.len(), wanted, "{archived} {filter:?}");
                assert!(told.iter().all(|record| record.complete), "{archived} {filter:?}");
            }
        }
        // The outcome of the one that began a day ahead.
        let shown = show(trail.path(), "0-4", &mut |trouble| panic!("{trouble}")).expect("readable");
        assert_eq!(shown.map(|record| record.id).as_deref(), Some("0-3"), "{archived}");
    }
}

#[test]
fn a_follower_misses_nothing_that_is_archived_while_it_sleeps() {
    let mut trail = Trail::new();
    trail.write(50);
    trail.archive();
    let mut follower = Follower::new(trail.path().to_owned(), Filter::default(), Duration::from_secs(3600));
    let ids = |news: Vec<News>| {
        let id = |news| match news {
            News::Record(record) => record.id,
            News::Damage(trouble) => panic!("{trouble}"),
        };
        news.into_iter().map(id).collect::<Vec<_>>()
    };
    let mut told = ids(follower.poll().expect("readable"));
    trail.write(150);
    trail.archive();
    trail.write(100);
    told.extend(ids(follower.poll().expect("readable")));
    let all = found(trail.path(), &Filter::default(), None);
    let since = START_US + 50 * 1_000_000;
    let wanted: Vec<_> = all.iter().filter(|record| record.time_us >= since && record.complete).collect();
    assert!(wanted.len() > 200);
    for record in wanted {
        assert_eq!(told.iter().filter(|id| **id == record.id).count(), 1, "{}", record.id);
    }
}
