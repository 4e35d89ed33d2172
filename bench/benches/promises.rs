//! What one statement may cost inside the gateway, with the bound in the name where it is a promise, or a part of one (`of at most`):
//!
//!     cargo bench -p lockgate-bench --bench promises
//!
//! On a shared machine trust the instruction counts of `bench/instructions.sh` instead.

use codecs::postgres::RequestKind;
use criterion::{Criterion, criterion_group};
use lockgate::audit::{Entry, Journal as _, PackedWho, Who};
use lockgate::gate::Standing;
use lockgate::policy::Action;
use lockgate_bench::gate::{EIGHT_WORDS, Features, Rig, ten_classes, view, view_with};
use lockgate_bench::records::{TEXT, WHO, outcome, request};
use lockgate_bench::texts::{accounts, mappers};
use lockgate_bench::trail::Trail;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW_US: i64 = 1_790_000_000_000_000;

/// Statements between two looks at the segments, which are not part of a statement.
const BATCH: u64 = 100;
/// Sessions that take turns.
const SESSIONS: usize = 32;
/// Statements that a sample has at least, two records each: of a handful all would be cold.
const SAMPLE_MIN: u64 = 5_000;

/// What `count` of something take, from what enough of them take.
fn scaled(count: u64, work: impl FnOnce(u64) -> Duration) -> Duration {
    let done = count.max(SAMPLE_MIN);
    work(done).mul_f64(count as f64 / done as f64)
}

/// Appends `count` statements, two records each, of the sessions in turn: ten statements a round are kept, and written by the [`BATCH`], as 20,000 a second
/// are. `whole`: count what that takes, too.
fn append(trail: &mut Trail, sessions: &[PackedWho], count: u64, whole: bool) -> Duration {
    let mut spent = Duration::ZERO;
    for begin in (0..count).step_by(BATCH as usize) {
        trail.keep().and_then(|()| trail.sync()).expect("there is room on disk");
        let (journal, end) = (&mut trail.writer, count.min(begin + BATCH));
        for round in (begin..end).step_by(10) {
            let start = Instant::now();
            for number in round..end.min(round + 10) {
                let who = &Who { packed: Some(&sessions[number as usize % sessions.len()]), ..WHO };
                journal.append(NOW_US, who, black_box(&Entry::Request(request(7)))).expect("there is room");
                journal.append(NOW_US, who, black_box(&Entry::Outcome(outcome(7)))).expect("there is room");
            }
            let appended = start.elapsed();
            journal.keep().expect("there is room on disk");
            spent += if whole { start.elapsed() } else { appended };
        }
        let start = Instant::now();
        journal.write().expect("there is room on disk");
        spent += if whole { start.elapsed() } else { Duration::ZERO };
    }
    spent / 2
}

/// On the path are the encoding, the keeping by the round and, by the commit interval, a frame's checksum, hash and write.
fn audit(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut trail = Trail::open(directory.path(), NOW_US).expect("the directory can be written");
    let sessions: Vec<_> = (0..SESSIONS).map(|_| PackedWho::new(&WHO)).collect();
    for (name, whole) in [
        ("audit append and frame write, a record (at most 150 ns)", true),
        ("audit append, its encoding alone, a record (of at most 150 ns)", false),
    ] {
        c.bench_function(name, |b| {
            b.iter_custom(|count| scaled(count, |count| append(&mut trail, &sessions, count, whole)));
        });
    }
}

fn identity(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let rig = Rig::open(Features::On, directory.path());
    assert_eq!(rig.standing(), Standing::Good);
    c.bench_function("identity check (at most 20 ns)", |b| b.iter(|| black_box(&rig).standing()));
}

/// What a deny list takes to look at a meaning that is known, beside the parse that made it.
fn deny_list(c: &mut Criterion) {
    c.bench_function("pg_query parse", |b| {
        b.iter(|| pg_query::parse(black_box(TEXT), pg_query::ParserOptions::DEFAULT).expect("it is SQL"))
    });
    let analysis = masking::sql::analyse(TEXT.as_bytes(), true);
    for (list, view) in [("ten classes", view(Features::On)), ("eight words", view_with(EIGHT_WORDS))] {
        let name = format!("verdict of {list} on a known meaning (of at most 1/40 of the parse)");
        c.bench_function(&name, |b| b.iter(|| view.decide(black_box(&analysis))));
    }
}

/// The verdict on what was seen before, as the gate comes to it.
fn cached(c: &mut Criterion) {
    c.bench_function("analysis of a new text", |b| b.iter(|| masking::sql::analyse(black_box(TEXT.as_bytes()), true)));
    let directory = tempfile::tempdir().expect("a directory");
    let mut waiting = Rig::open_waiting(directory.path());
    let execute = RequestKind::Execute { resumed: false };
    assert_eq!(waiting.verdict(execute, &mut []), Action::Approve, "the mark of what was prepared");
    c.bench_function("cached decision, prepared (at most 100 ns)", |b| {
        let mut nothing = [0_u8; 0];
        b.iter(|| waiting.verdict(execute, black_box(&mut nothing[..])));
    });
    let constants = accounts().into_iter().map(String::into_bytes).collect();
    for (name, texts) in [
        ("the same text", vec![TEXT.as_bytes().to_vec()]),
        ("1,024 constants", constants),
        ("a mapper's 600 bytes", mappers().into_iter().map(String::into_bytes).collect()),
    ] {
        cached_texts(c, name, texts);
    }
}

fn cached_texts(c: &mut Criterion, name: &str, mut texts: Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::open(Features::On, directory.path());
    let count = texts.len();
    let mut decide = |rig: &mut Rig, at: usize| rig.verdict(RequestKind::Query, black_box(&mut texts[at % count]));
    assert_eq!(decide(&mut rig, 0), Action::Allow, "{name}");
    let (parsed, mut next) = (rig.parsed_texts(), 0);
    c.bench_function(&format!("cached decision, {name} (at most 100 ns)"), |b| {
        b.iter(|| {
            next += 1;
            decide(&mut rig, next)
        });
    });
    assert_eq!(rig.parsed_texts(), parsed, "{name}: it was not cached");
}

/// There and back through the gate, its records and their writes included.
fn round(c: &mut Criterion) {
    type Round = (&'static str, fn(&mut Rig));
    let modes: [Round; 3] =
        [("prepared", Rig::prepared), ("simple, repeated", Rig::repeated), ("simple, new", Rig::simple)];
    for features in [Features::Off, Features::On] {
        for (mode, statement) in modes {
            let directory = tempfile::tempdir().expect("a directory");
            let mut rig = Rig::open(features, directory.path());
            c.bench_function(&format!("gate round {features:?}, {mode}"), |b| {
                b.iter_custom(|count| scaled(count, |count| rounds(&mut rig, statement, count)));
            });
        }
    }
}

fn rounds(rig: &mut Rig, statement: fn(&mut Rig), count: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for begin in (0..count).step_by(BATCH as usize) {
        rig.keep_segments();
        let start = Instant::now();
        (begin..count.min(begin + BATCH)).for_each(|_| statement(rig));
        spent += start.elapsed();
    }
    spent
}

/// So many pairs of new texts, each judged without a deny list and with it.
const PAIRS: u64 = 20_000;

/// What a deny list adds to a new text: criterion would measure each by itself, and the difference drowns in what the machine does
/// meanwhile. Here they take turns; told are the median of the differences and its 95 % interval, as criterion tells them.
fn added(name: &str, rules: &str, text: fn(u64) -> String, action: Action) {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let mut rigs = [Rig::open_with("", directories[0].path()), Rig::open_with(rules, directories[1].path())];
    let mut number = 0;
    let mut took = |first: usize| {
        number += 1;
        let mut text = text(number).into_bytes();
        let mut ns = [0.0; 2];
        for at in [first, 1 - first] {
            let start = Instant::now();
            let verdict = rigs[at].verdict(RequestKind::Query, &mut text);
            ns[at] = start.elapsed().as_nanos() as f64;
            assert_eq!(verdict, if at == 0 { Action::Allow } else { action }, "{}", String::from_utf8_lossy(&text));
        }
        ns[1] - ns[0]
    };
    // Whoever comes first finds colder memory: each does as often.
    let mut differences: Vec<f64> = (0..PAIRS).map(|_| (took(0) + took(1)) / 2.0).collect();
    differences.sort_by(f64::total_cmp);
    let half = PAIRS as f64 / 2.0;
    let [low, middle, high] =
        [-1.0, 0.0, 1.0].map(|side| differences[(half + side * 0.98 * (2.0 * half).sqrt()) as usize]);
    println!("{name} (at most 1/40 of the parse)\n{:24}time:   [{low:.2} ns {middle:.2} ns {high:.2} ns]\n", "");
    assert!(rigs.iter().all(|rig| rig.parsed_texts() >= 2 * PAIRS), "not every text was new");
}

fn new_texts() {
    let other = |n| format!("SELECT abalance FROM pgbench_accounts WHERE aid = 90449 AND c{n} = 1");
    let named = |n| format!("DROP TABLE t{n}");
    for (name, rules, text, action) in [
        ("ten classes added to a new text", &*ten_classes(), other as fn(u64) -> String, Action::Allow),
        ("eight words added to a new text", EIGHT_WORDS, other, Action::Allow),
        ("ten classes added to a new text that one names", &ten_classes(), named, Action::Deny),
    ] {
        if wanted(name) {
            added(name, rules, text, action);
        }
    }
}

/// By the filter on the command line, whose parts criterion takes as well.
fn wanted(name: &str) -> bool {
    let mut filters =
        std::env::args().skip(1).filter(|word| !word.starts_with('-') && word.parse::<f64>().is_err()).peekable();
    filters.peek().is_none()
        || filters.any(|filter| filter.split('|').any(|part| part == "at most" || name.contains(part)))
}

/// Long enough that all is warm, and that another run says the same.
fn quick() -> Criterion {
    Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(5))
}

criterion_group! { name = promises; config = quick(); targets = audit, identity, deny_list, cached, round }

fn main() {
    promises();
    new_texts();
    Criterion::default().configure_from_args().final_summary();
}
