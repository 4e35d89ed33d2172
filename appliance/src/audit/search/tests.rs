//! Searches and followers over small trails.

use super::*;
use crate::audit::tests::{groups, outcome, request, scratch, who};
use crate::audit::{Entry, Journal as _, Outcome, Request, RingOptions, SegmentWriter, Who};
use std::time::Duration;

const START_US: i64 = 1_795_142_000_000_000;

fn writer(dir: &Path, shard: u32) -> SegmentWriter {
    let options = RingOptions { data_dir: dir.to_owned(), shard, segment_bytes: 64 << 10, segments_per_shard: 2 };
    SegmentWriter::open(&options, START_US).expect("the trail opens").0
}

fn append(writer: &mut SegmentWriter, seconds: i64, who: &Who<'_>, entry: Entry<'_>) {
    writer.append(START_US + seconds * 1_000_000, who, &entry).expect("room");
    writer.write().expect("written");
}

fn glob(text: &str) -> Vec<Glob> {
    vec![Glob::new(text).expect("a glob")]
}

fn ids(dir: &Path, filter: &Filter) -> Vec<String> {
    let found = search(dir, filter, None, false, &mut |damage| panic!("{damage}")).expect("readable");
    found.into_iter().map(|record| record.id).collect()
}

/// Two shards, three people, one of everything.
fn sample() -> tempfile::TempDir {
    let dir = scratch();
    let groups = groups();
    let (alice, bob) = (who("s-a", "alice", &groups), who("s-b", "bob", &groups));
    let copilot = ["copilot@2.1".to_owned()];
    let agent = Who { actor: &copilot, target: "billing", ..alice };
    let agent = Who { session: "s-c", ..agent };
    let (orders, both) = (["public.orders".to_owned()], ["customers".to_owned(), "public.orders".to_owned()]);
    let mut zero = writer(dir.path(), 0);
    let mut one = writer(dir.path(), 1);
    append(&mut zero, 0, &alice, Entry::SessionOpened { grant: "everyone", settings: "" });
    let select = Request { tables: &both, ..request(1, "SELECT * FROM customers, public.orders") };
    append(&mut zero, 1, &alice, Entry::Request(select));
    append(
        &mut one,
        2,
        &bob,
        Entry::Request(Request {
            ticket: "1-1-x",
            decision: "approve",
            classes: 8,
            tables: &orders,
            rule: "careful",
            ..request(1, "DELETE FROM public.orders WHERE id = $1")
        }),
    );
    append(&mut zero, 3, &alice, Entry::Outcome(Outcome { more: true, ..outcome(1) }));
    append(&mut zero, 4, &alice, Entry::Outcome(outcome(1)));
    append(
        &mut one,
        5,
        &bob,
        Entry::Ruling { request: 1, ticket: "1-1-x", ruling: "approved", by: "eve", reason: "ok" },
    );
    append(&mut one, 6, &bob, Entry::Outcome(Outcome { error: "23503", ..outcome(1) }));
    append(
        &mut zero,
        7,
        &agent,
        Entry::Request(Request {
            decision: "deny",
            rule: "no-ddl",
            classes: 256,
            ..request(1, "drop table Customers")
        }),
    );
    append(&mut one, 8, &bob, Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" });
    append(&mut zero, 9, &alice, Entry::SessionClosed { reason: "terminated", duration_us: 9, statements: 1 });
    append(&mut one, 10, &bob, Entry::Request(request(2, "SELECT pg_sleep(100)")));
    dir
}

#[test]
fn a_request_and_its_outcomes_are_one_record_and_shards_are_merged_by_time() {
    let dir = sample();
    let found =
        search(dir.path(), &Filter::default(), None, false, &mut |damage| panic!("{damage}")).expect("readable");
    let kinds: Vec<_> = found.iter().map(|record| (record.id.as_str(), record.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("0-1", "session"),
            ("0-2", "statement"),
            ("1-1", "statement"),
            ("1-2", "ruling"),
            ("0-5", "statement"),
            ("1-4", "login"),
            ("0-6", "session"),
            ("1-5", "statement"),
        ]
    );
    let select = &found[1];
    assert_eq!((select.rows, select.bytes, select.masked), (Some(6), Some(198), Some(4)), "outcomes add up");
    assert_eq!((select.duration_us, &select.error, select.complete), (Some(1500), &None, true));
    assert_eq!((select.classes.as_slice(), select.decision.as_deref()), (&["select"][..], Some("allow")));
    let delete = &found[2];
    assert_eq!((delete.error.as_deref(), delete.ticket.as_deref()), (Some("23503"), Some("1-1-x")));
    assert_eq!(delete.detail.as_deref(), Some("approved by eve: ok"));
    let sleep = &found[7];
    assert_eq!((sleep.rows, sleep.duration_us, &sleep.error, sleep.complete), (None, None, &None, false));
    let login = &found[5];
    assert_eq!((login.error.as_deref(), login.detail.as_deref()), (Some("28P01"), Some("expired")));
    let newest = search(dir.path(), &Filter::default(), Some(2), false, &mut |_| {}).expect("readable");
    assert_eq!(newest.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["0-6", "1-5"]);
}

#[test]
fn json_has_the_promised_keys_first_and_in_order() {
    let dir = sample();
    let found = search(dir.path(), &Filter::default(), None, false, &mut |_| {}).expect("readable");
    let line = serde_json::to_string(&found[2]).expect("serialisable");
    let promised = "id time kind session user groups actor target client application statement binds classes tables \
                    decision rule ticket rows bytes duration_us error masked";
    let mut at = 0;
    for key in promised.split_whitespace() {
        at += line[at..].find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {line}"));
    }
    assert!(line.contains("\"time\":\"2026-11-20T02:33:22.000000Z\""), "{line}");
}

#[test]
fn filters_find_what_they_name_and_nothing_else() {
    let dir = sample();
    let check = |filter: Filter, expected: &[&str]| assert_eq!(ids(dir.path(), &filter), expected, "{filter:?}");
    let none = Filter::default;
    check(Filter { users: glob("bob"), ..none() }, &["1-1", "1-2", "1-4", "1-5"]);
    check(Filter { users: glob("*b"), kinds: glob("login"), ..none() }, &["1-4"]);
    check(Filter { targets: glob("billing"), ..none() }, &["0-5"]);
    check(Filter { tables: glob("customers"), ..none() }, &["0-2"]);
    check(Filter { tables: glob("orders"), ..none() }, &["0-2", "1-1"]);
    check(Filter { tables: glob("public.orders"), classes: glob("delete"), ..none() }, &["1-1"]);
    check(Filter { tables: glob("public.customers"), ..none() }, &["0-2"]);
    check(Filter { tables: glob("billing.customers"), ..none() }, &[]);
    check(Filter { tables: glob("public.*"), ..none() }, &["0-2", "1-1"]);
    check(Filter { tables: glob("public.cust*"), ..none() }, &["0-2"]);
    check(Filter { tables: glob("*.customers"), ..none() }, &["0-2"]);
    check(Filter { classes: glob("drop"), ..none() }, &["0-5"]);
    check(Filter { decisions: glob("deny"), ..none() }, &["0-5"]);
    check(Filter { decisions: glob("approve*"), ..none() }, &["1-1", "1-2"]);
    check(Filter { decisions: glob("approved"), ..none() }, &["1-1", "1-2"]);
    check(Filter { decisions: glob("approved"), classes: glob("delete"), tables: glob("orders"), ..none() }, &["1-1"]);
    check(Filter { decisions: glob("rejected"), classes: glob("delete"), ..none() }, &[]);
    check(
        Filter { decisions: [glob("rejected"), glob("deny")].concat(), kinds: glob("statement"), ..none() },
        &["0-5"],
    );
    check(Filter { rules: glob("careful"), ..none() }, &["1-1"]);
    check(Filter { tickets: glob("1-1-x"), ..none() }, &["1-1", "1-2"]);
    check(Filter { errors: glob("23*"), ..none() }, &["1-1"]);
    check(Filter { errors: glob("28P01"), ..none() }, &["1-4"]);
    // What is absent matches nothing.
    check(Filter { rules: glob("*"), ..none() }, &["1-1", "0-5"]);
    check(Filter { tickets: glob("*"), ..none() }, &["1-1", "1-2"]);
    check(Filter { errors: glob("*"), ..none() }, &["1-1", "1-4"]);
    check(Filter { decisions: glob("*"), ..none() }, &["0-2", "1-1", "1-2", "0-5", "1-5"]);
    check(Filter { actors: glob("copilot*"), ..none() }, &["0-5"]);
    check(Filter { sessions: glob("s-c"), ..none() }, &["0-5"]);
    check(Filter { contains: Some("TABLE customers".into()), ..none() }, &["0-5"]);
    check(Filter { contains: Some("expired".into()), ..none() }, &["1-4"]);
    let at = |seconds: i64| Some(START_US + seconds * 1_000_000);
    check(Filter { since_us: at(2), until_us: at(5), ..none() }, &["1-1", "1-2"]);
    let joined = Filter { since_us: at(1), until_us: at(1), ..none() };
    let found = search(dir.path(), &joined, None, false, &mut |_| {}).expect("readable");
    assert_eq!((found.len(), found[0].rows), (1, Some(6)), "outcomes after the end of the range still belong to it");
}

#[test]
fn show_finds_a_record_by_the_id_of_any_part() {
    let dir = sample();
    let find = |id: &str| {
        let found = show(dir.path(), id, &mut |damage| panic!("{damage}")).expect("readable");
        found.map(|record| (record.id, record.kind))
    };
    assert_eq!(find("0-2"), Some(("0-2".into(), "statement")));
    assert_eq!(find("0-4"), Some(("0-2".into(), "statement")), "the second outcome of 0-2");
    assert_eq!(find("1-2"), Some(("1-2".into(), "ruling")));
    assert_eq!(find("0-1"), Some(("0-1".into(), "session")));
    for missing in ["0-7", "2-1", "0-0", "nonsense", ""] {
        assert_eq!(find(missing), None, "{missing}");
    }
}

/// Ids that `show` finds nothing of, and what it was told of meanwhile.
fn troubles_of(dir: &Path, id: &str) -> Vec<String> {
    let mut troubles = Vec::new();
    let found = show(dir, id, &mut |trouble| troubles.push(trouble.to_string())).expect("readable");
    assert_eq!(found, None, "{id}");
    troubles
}

#[test]
fn show_names_the_damage_where_the_record_may_have_stood() {
    let dir = sample();
    let path = segment::ring_path(&segment::ring_dir(dir.path(), 0), 1);
    let mut bytes = std::fs::read(&path).expect("readable");
    // In the first frame's payload: the record 0-1.
    bytes[300] ^= 1;
    std::fs::write(&path, bytes).expect("writable");
    assert!(!troubles_of(dir.path(), "0-1").is_empty());
    assert_eq!(troubles_of(dir.path(), "2-1"), Vec::<String>::new(), "another shard's is told as what it is");
}

#[test]
fn the_newest_of_a_ruling_are_the_newest_that_were_so_ruled() {
    let dir = sample();
    let filter = Filter { decisions: glob("approved"), kinds: glob("statement"), ..Filter::default() };
    let found = search(dir.path(), &filter, Some(1), false, &mut |_| {}).expect("readable");
    assert_eq!(found.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["1-1"]);
}

#[test]
fn a_follower_tells_a_statement_by_what_came_of_it() {
    let dir = sample();
    for (filter, told) in [
        (Filter { errors: glob("23503"), ..Filter::default() }, &["1-1"][..]),
        (Filter { decisions: glob("approved"), classes: glob("delete"), ..Filter::default() }, &["1-1"]),
        (Filter { decisions: glob("expired"), ..Filter::default() }, &[]),
    ] {
        let mut follower = Follower::new(dir.path().to_owned(), filter, Duration::ZERO);
        let id = |news| match news {
            News::Record(record) => Some(record.id),
            News::Damage(_) => None,
        };
        assert_eq!(follower.poll().expect("readable").into_iter().filter_map(id).collect::<Vec<_>>(), told);
    }
}

#[test]
fn a_follower_tells_each_record_once_when_it_is_complete_and_a_long_one_while_it_runs() {
    let dir = sample();
    let ids = |news: Vec<News>| {
        let id = |news| match news {
            News::Record(record) => Some((record.id, record.complete)),
            News::Damage(_) => None,
        };
        news.into_iter().filter_map(id).collect::<Vec<_>>()
    };
    let mut follower = Follower::new(dir.path().to_owned(), Filter::default(), Duration::from_secs(3600));
    assert_eq!(ids(follower.poll().expect("readable")).len(), 7, "all but the one that has no outcome");
    assert_eq!(ids(follower.poll().expect("readable")), []);
    let groups = groups();
    let mut one = writer(dir.path(), 1);
    append(&mut one, 20, &who("s-b", "bob", &groups), Entry::Outcome(outcome(2)));
    assert_eq!(ids(follower.poll().expect("readable")), [("1-5".to_owned(), true)]);
    append(&mut one, 21, &who("s-b", "bob", &groups), Entry::Request(request(3, "SELECT 3")));
    assert_eq!(ids(follower.poll().expect("readable")), []);
    let mut eager = Follower::new(dir.path().to_owned(), Filter::default(), Duration::ZERO);
    let told = ids(eager.poll().expect("readable"));
    assert!(told.contains(&("1-7".to_owned(), false)), "{told:?}");
    append(&mut one, 22, &who("s-b", "bob", &groups), Entry::Outcome(outcome(3)));
    assert_eq!(ids(eager.poll().expect("readable")), [("1-7".to_owned(), true)]);
}

#[test]
fn a_search_over_many_segments_survives_the_sealer_at_work() {
    let dir = scratch();
    let groups = groups();
    let options = crate::audit::SealerOptions {
        data_dir: dir.path().to_owned(),
        shards: 1,
        segment_bytes: 64 << 10,
        segments_per_shard: 2,
        release: crate::audit::Release::Sealed,
    };
    let mut keeper = crate::audit::seal::Keeper::new(options);
    let mut zero = writer(dir.path(), 0);
    let mut follower = Follower::new(dir.path().to_owned(), Filter::default(), Duration::from_secs(3600));
    let mut followed = 0;
    for number in 1..=1000u64 {
        keeper.look().expect("the keeper works");
        append(&mut zero, number as i64, &who("s", "alice", &groups), Entry::Request(request(number, "SELECT 1")));
        append(&mut zero, number as i64, &who("s", "alice", &groups), Entry::Outcome(outcome(number)));
        if number.is_multiple_of(50) {
            followed += follower.poll().expect("readable").len();
        }
    }
    assert_eq!(followed, 1000);
    assert_eq!(ids(dir.path(), &Filter::default()).len(), 1000);
    let since_us = Some(START_US + 900_000_000);
    assert_eq!(ids(dir.path(), &Filter { since_us, ..Filter::default() }).len(), 101);
    assert!(segment::list(dir.path()).expect("listable")[&0].len() > 5);
}

#[test]
fn days_without_records_are_jumped_over() {
    const DAY_US: i64 = 86_400_000_000;
    let dir = scratch();
    let groups = groups();
    let alice = who("s-a", "alice", &groups);
    let mut writer = writer(dir.path(), 0);
    let midnight_us = START_US.div_euclid(DAY_US) * DAY_US;
    for (day, number) in [(0, 1), (3, 2), (400, 3)] {
        writer.append(START_US + day * DAY_US, &alice, &Entry::Request(request(number, "SELECT 1"))).expect("room");
    }
    writer.write().expect("written");
    let of =
        |since_us, until_us| days(dir.path(), since_us, until_us, &mut |damage| panic!("{damage}")).expect("readable");
    let whole = |day: i64| (midnight_us + day * DAY_US, midnight_us + (day + 1) * DAY_US - 1);
    assert_eq!(of(i64::MIN, i64::MAX), [whole(0), whole(3), whole(400)]);
    let (since, until) = (START_US + 2 * DAY_US, START_US + 3 * DAY_US);
    assert_eq!(of(since, until), [(whole(3).0, until)]);
    assert!(of(until, since).is_empty());
}

#[test]
fn days_tell_of_what_cannot_be_read() {
    let dir = sample();
    let file = &segment::list(dir.path()).expect("listed")[&0][&1].path.clone();
    let mut bytes = std::fs::read(file).expect("readable");
    let at = bytes.iter().position(|&byte| byte == b'S').expect("a statement");
    bytes[at] ^= 1;
    std::fs::write(file, bytes).expect("written");
    let mut met = 0;
    days(dir.path(), 0, i64::MAX, &mut |_| met += 1).expect("readable");
    assert!(met > 0);
}
