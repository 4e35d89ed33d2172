//! The core against a trail that is really written and a receiver that fails as it is told to.

use super::courier::Courier;
use super::deliver::{Deliver, Delivered, Failure};
use super::join::{Event, Joiner};
use super::position::{Place, Position};
use super::source::{self, Source, Step};
use super::*;
use crate::audit::NOBODY;
use crate::audit::record::View;
use crate::audit::tests::{groups, outcome, request, scratch, who};
use crate::audit::{Entry, Journal as _, Request, RingOptions, SegmentWriter};
use crate::config::{FileSink, SinkKind, SinkStart};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;

const START_US: i64 = 1_795_142_000_000_000;

/// An event that says its number.
pub fn event(number: u64) -> Event {
    Event {
        shard: 0,
        sequence: number,
        completed_by: number,
        time_us: START_US + number as i64,
        uid: format!("u-{number}"),
        session: "s-a".into(),
        class: "datastore_activity",
        severity: 1,
        json: format!("{{\"n\":{number}}}"),
    }
}

struct Trail {
    dir: tempfile::TempDir,
    writer: SegmentWriter,
    at_us: i64,
}

impl Trail {
    fn new() -> Self {
        Self::of(1 << 20)
    }

    fn of(segment_bytes: u64) -> Self {
        let dir = scratch();
        std::fs::create_dir(folder(dir.path())).expect("made");
        let options = RingOptions { data_dir: dir.path().to_owned(), shard: 0, segment_bytes, segments_per_shard: 8 };
        let (writer, _) = SegmentWriter::open(&options, START_US).expect("the trail opens");
        Self { dir, writer, at_us: START_US }
    }

    fn add(&mut self, session: &str, entry: Entry<'_>) {
        let groups = groups();
        let who = if session.is_empty() { NOBODY } else { who(session, "alice", &groups) };
        self.at_us += 1_000_000;
        self.writer.append(self.at_us, &who, &entry).expect("room");
        self.writer.write().expect("written");
    }

    fn request(&mut self, session: &str, number: u64) {
        self.add(session, Entry::Request(request(number, "SELECT 1")));
    }

    fn outcome(&mut self, session: &str, number: u64) {
        self.add(session, Entry::Outcome(outcome(number)));
    }

    /// Every record.
    fn each(&self, each: &mut dyn FnMut(u32, u64, &View<'_>)) {
        let mut source = source::Trail::open(self.dir.path(), &Position::default()).expect("readable");
        while !matches!(source.step(each).expect("readable"), Step::End) {}
    }

    /// Everything behind a position: the events, and where the joiner then stands.
    fn events(&self, position: &Position) -> (Vec<Event>, Joiner) {
        self.joined(Joiner::new("aa".into(), position), position)
    }

    fn joined(&self, mut joiner: Joiner, position: &Position) -> (Vec<Event>, Joiner) {
        let mut source = source::Trail::open(self.dir.path(), position).expect("readable");
        let mut events = Vec::new();
        loop {
            let step = source.step(&mut |shard, sequence, view| {
                joiner.take(shard, sequence, view, &mut |event| events.push(event));
            });
            match step.expect("readable") {
                Step::Frame => {}
                Step::Damage(damage) => panic!("{damage}"),
                Step::End => return (events, joiner),
            }
        }
    }
}

fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

/// One of everything that ends a statement.
fn sample() -> Trail {
    let mut trail = Trail::new();
    trail.add("", Entry::Gateway { detail: "started: lockgate" });
    trail.add("s-a", Entry::SessionOpened { grant: "everyone", settings: "" });
    trail.request("s-a", 1);
    trail.request("s-b", 1);
    trail.add("s-a", Entry::Request(Request { decision: "deny", ..request(2, "DROP TABLE x") }));
    trail.add("s-a", Entry::Outcome(crate::audit::Outcome { more: true, ..outcome(1) }));
    trail.outcome("s-b", 1);
    trail.outcome("s-a", 1);
    trail.add("s-a", Entry::Request(Request { decision: "approve", ..request(3, "DELETE FROM x") }));
    trail.add("s-a", Entry::Ruling { request: 3, ticket: "t", ruling: "rejected", by: "eve", reason: "" });
    trail.request("s-a", 4);
    trail.request("s-c", 1);
    trail.request("s-a", 5);
    trail.add("s-a", Entry::SessionClosed { reason: "gone", duration_us: 1, statements: 5 });
    trail.request("s-d", 1);
    trail.add("", Entry::Gateway { detail: "started: lockgate" });
    trail
}

/// In this order: each when it is complete, what one record completes by their own order.
const TOLD: [u64; 14] = [1, 2, 5, 4, 3, 9, 10, 11, 13, 14, 12, 15, 16, 17];

#[test]
fn each_record_is_told_once_when_the_trail_says_that_it_is_complete() {
    let mut trail = sample();
    trail.add("s-e", Entry::SessionOpened { grant: "everyone", settings: "" });
    trail.request("s-e", 1);
    let (events, joiner) = trail.events(&Position::default());
    assert_eq!(sequences(&events), TOLD);
    let place = Place { next: 19, open: [18].into() };
    assert_eq!(joiner.position([].iter()).shards[&0], place, "the last one still runs");
    assert_eq!(joiner.missed, 0);
    let three: serde_json::Value = serde_json::from_str(&events[4].json).expect("JSON");
    assert_eq!(
        (&three["metadata"]["uid"], &three["unmapped"]["rows"]),
        (&"aa-0-3".into(), &6.into()),
        "outcomes add up"
    );
    let rejected: serde_json::Value = serde_json::from_str(&events[5].json).expect("JSON");
    assert_eq!((&rejected["disposition"], &rejected["status"]), (&"Rejected".into(), &"Failure".into()));
}

/// Wherever a sink is killed, what it delivered and what it delivers afterwards are the whole, in order, without a gap or a
/// duplicate: position and events are functions of the trail.
#[test]
fn a_reader_that_begins_anew_behind_any_position_makes_the_same_events() {
    let trail = sample();
    let (all, _) = trail.events(&Position::default());
    for delivered in 0..=all.len() {
        // Everything was read, so many were delivered.
        let (events, joiner) = trail.events(&Position::default());
        let position = joiner.position(events[delivered..].iter());
        let (rest, after) = trail.events(&position);
        assert_eq!(rest, all[delivered..], "{delivered} delivered, {position:?}");
        assert_eq!(after.position([].iter()), joiner.position([].iter()));
        let text = serde_json::to_string(&position).expect("JSON");
        assert_eq!(serde_json::from_str::<Position>(&text).expect("JSON"), position);
    }
}

#[test]
fn what_a_source_says_twice_is_heard_once() {
    let trail = sample();
    let mut joiner = Joiner::new("aa".into(), &Position::default());
    let mut events = Vec::new();
    for _ in 0..2 {
        trail.each(&mut |shard, sequence, view| joiner.take(shard, sequence, view, &mut |event| events.push(event)));
    }
    assert_eq!(events, trail.events(&Position::default()).0);
}

#[test]
fn a_sink_that_begins_now_tells_nothing_of_before() {
    let mut trail = sample();
    let shards = source::end_of(trail.dir.path()).expect("readable");
    let position = Position { appliance: "aa".into(), shards };
    assert_eq!(position.shards[&0], Place { next: 17, open: Default::default() });
    trail.request("s-e", 1);
    trail.outcome("s-e", 1);
    assert_eq!(sequences(&trail.events(&position).0), [17]);
}

#[test]
fn a_flood_of_long_statements_that_never_end_is_told_while_they_run() {
    let mut trail = Trail::of(8 << 20);
    let text = "x".repeat(200 << 10);
    for number in 1..=20 {
        trail.add("s-a", Entry::Request(request(number, &text)));
    }
    let mut joiner = Joiner::new("aa".into(), &Position::default());
    joiner.open_bytes_max = 2 << 20;
    let (events, joiner) = trail.joined(joiner, &Position::default());
    assert_eq!(sequences(&events), (1..=10).collect::<Vec<_>>(), "the oldest");
    let running: serde_json::Value = serde_json::from_str(&events[0].json).expect("JSON");
    assert_eq!((&running["status"], &running["unmapped"]["complete"]), (&"Unknown".into(), &false.into()));
    assert_eq!(joiner.position([].iter()).shards[&0].open, (11..=20).collect());
}

/// What a receiver does with the next batch.
type Answer = Box<dyn FnMut(&[Event]) -> Result<Delivered, Failure> + Send>;

struct Scripted {
    answer: Arc<Mutex<Answer>>,
    taken: mpsc::Sender<u64>,
}

impl Deliver for Scripted {
    fn deliver(&mut self, batch: &[Event]) -> Result<Delivered, Failure> {
        let answer = (self.answer.lock().expect("not poisoned"))(batch);
        if let Ok(delivered) = &answer {
            let refused = |index: &usize| delivered.refused.iter().any(|(other, _)| other == index);
            for (_, event) in batch.iter().take(delivered.events).enumerate().filter(|(index, _)| !refused(index)) {
                self.taken.send(event.sequence).expect("the test listens");
            }
        }
        answer
    }
}

fn sink(batch_events: usize) -> Sink {
    Sink {
        name: "siem".into(),
        kind: SinkKind::File(FileSink {
            path: "unused".into(),
            rotate_bytes: 1 << 20,
            rotate_every: None,
            keep: None,
            sync: false,
        }),
        start: SinkStart::Beginning,
        batch_events,
        batch_bytes: 1 << 20,
        flush: Duration::ZERO,
        timeout: Duration::from_secs(1),
        retry_max: Duration::from_millis(1),
    }
}

/// Runs a courier until so many events were taken, then stops it; what was taken, and its status.
fn run(trail: &Trail, sink: Sink, events: usize, answer: Answer) -> (Vec<u64>, Arc<Status>) {
    let (sender, taken) = mpsc::channel();
    let (orders, board) = (Arc::new(Orders::default()), Board::default());
    let answer = Arc::new(Mutex::new(answer));
    let open = move |_: &Sink, _: &str| {
        Ok(Box::new(Scripted { answer: answer.clone(), taken: sender.clone() }) as Box<dyn Deliver>)
    };
    let status = board.add(&sink);
    let place = (trail.dir.path().to_owned(), "aa".to_owned());
    let courier = Courier::new(sink, Box::new(open), place, status.clone(), orders.clone());
    let thread = std::thread::spawn(move || courier.run());
    let mut got: Vec<u64> =
        (0..events).map(|_| taken.recv_timeout(Duration::from_secs(20)).expect("taken in time")).collect();
    orders.stop(Instant::now() + Duration::from_secs(5));
    thread.join().expect("it ends");
    got.extend(taken.try_iter());
    (got, status)
}

fn all_of(trail: &Trail) -> Vec<u64> {
    sequences(&trail.events(&Position::default()).0)
}

#[test]
fn a_receiver_that_is_away_gets_everything_once_and_in_order_when_it_is_back() {
    let trail = sample();
    let mut calls = 0;
    let answer = Box::new(move |batch: &[Event]| {
        calls += 1;
        if calls % 3 == 0 { Ok(Delivered::all(batch)) } else { Err(Failure::later("away")) }
    });
    let (taken, status) = run(&trail, sink(4), 13, answer);
    assert_eq!(taken, all_of(&trail));
    assert_eq!((status.events.load(Relaxed), status.failures.load(Relaxed)), (13, 8));
    let position = Position::read(trail.dir.path(), "siem").expect("readable").expect("there");
    assert_eq!(position.shards[&0].next, 17);
    // Nothing is left for the next one.
    let (again, _) = run(&trail, sink(4), 0, Box::new(|batch| Ok(Delivered::all(batch))));
    assert_eq!(again, Vec::<u64>::new());
}

#[test]
fn poison_is_put_aside_and_its_neighbours_are_delivered_in_order() {
    let trail = sample();
    let answer = Box::new(|batch: &[Event]| {
        let poison = |event: &Event| matches!(event.sequence, 5 | 14);
        if batch.iter().any(poison) { Err(Failure::Refused { what: "bad".into() }) } else { Ok(Delivered::all(batch)) }
    });
    let (taken, status) = run(&trail, sink(100), 11, answer);
    let expected: Vec<_> = all_of(&trail).into_iter().filter(|sequence| !matches!(sequence, 5 | 14)).collect();
    assert_eq!(taken, expected);
    assert_eq!((status.events.load(Relaxed), status.dropped.load(Relaxed)), (11, 2));
    let dead = std::fs::read_to_string(dead::path(trail.dir.path(), "siem")).expect("there");
    let uids: Vec<_> = dead.lines().map(|line| line.contains("\"uid\":\"aa-0-5\"")).collect();
    assert_eq!(uids, [true, false]);
}

#[test]
fn a_receiver_may_take_the_beginning_of_a_batch_and_refuse_some_of_it() {
    let trail = sample();
    let answer =
        Box::new(|batch: &[Event]| Ok(Delivered { events: batch.len().min(2), refused: vec![(0, "old".into())] }));
    let (taken, status) = run(&trail, sink(100), 6, answer);
    let expected: Vec<_> = all_of(&trail).chunks(2).filter_map(|pair| pair.get(1).copied()).collect();
    assert_eq!(taken, expected);
    assert_eq!((status.events.load(Relaxed), status.dropped.load(Relaxed)), (6, 7));
}

/// A kill between the acknowledgement and the position: that batch alone comes again, under the same ids.
#[test]
fn a_kill_costs_at_most_one_batch_twice() {
    let trail = sample();
    let place = trail.dir.path().to_owned();
    let copy = Arc::new(Mutex::new(None));
    let kept = copy.clone();
    let mut calls = 0;
    let answer = Box::new(move |batch: &[Event]| {
        calls += 1;
        if calls == 3 {
            // The position as it is while the third batch is on its way.
            *kept.lock().expect("not poisoned") = Position::read(&place, "siem").expect("readable");
        }
        Ok(Delivered::all(batch))
    });
    let (first, _) = run(&trail, sink(3), 13, answer);
    let position = copy.lock().expect("not poisoned").take().expect("kept");
    position.write(trail.dir.path(), "siem").expect("written");
    let (second, _) = run(&trail, sink(3), 7, Box::new(|batch| Ok(Delivered::all(batch))));
    assert_eq!(second, first[6..], "from the third batch on");
}

#[test]
fn a_position_in_another_trail_is_not_believed() {
    let trail = sample();
    let shards = [(0, Place { next: 1000, open: Default::default() })].into();
    Position { appliance: "bb".into(), shards }.write(trail.dir.path(), "siem").expect("written");
    let (taken, _) = run(&trail, sink(100), 13, Box::new(|batch| Ok(Delivered::all(batch))));
    assert_eq!(taken, all_of(&trail));
}

#[test]
fn a_sink_that_cannot_be_made_says_why_and_how_far_it_is_behind() {
    let trail = sample();
    let (orders, board) = (Arc::new(Orders::default()), Board::default());
    let status = board.add(&sink(10));
    let (tried, tries) = mpsc::channel();
    let open = move |_: &Sink, _: &str| {
        tried.send(()).expect("the test listens");
        Err(Failure::mend("no token", "put it there"))
    };
    let place = (trail.dir.path().to_owned(), "aa".to_owned());
    let courier = Courier::new(sink(10), Box::new(open), place, status.clone(), orders.clone());
    let thread = std::thread::spawn(move || courier.run());
    (0..2).for_each(|_| tries.recv_timeout(Duration::from_secs(20)).expect("tried"));
    orders.stop(Instant::now());
    thread.join().expect("it ends");
    let json = status.json(trail.at_us + 5_000_000);
    assert_eq!(
        (&json["state"], &json["error"], &json["mend"]),
        (&"retrying".into(), &"no token".into(), &"put it there".into())
    );
    assert_eq!(json["lag_seconds"], 20.0, "the oldest of sixteen records a second apart");
}

#[test]
fn a_sink_that_could_not_be_started_is_missed_until_it_is() {
    let dir = scratch();
    let sinks = Sinks::start(dir.path(), "0000000000000000", &[]).expect("there are none");
    let (place, wanted) = (folder(dir.path()), [sink(1)]);
    std::fs::remove_dir(&place).expect("it is empty");
    std::fs::write(&place, "in the way").expect("written");
    assert!(!sinks.lacks(&[]) && sinks.replace(&wanted).is_err() && sinks.lacks(&wanted));
    std::fs::remove_file(&place).expect("removed");
    assert!(sinks.replace(&wanted).is_ok() && !sinks.lacks(&wanted));
    assert!(sinks.replace(&[]).is_ok() && sinks.lacks(&wanted));
}
