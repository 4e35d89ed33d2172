//! What one statement may cost inside the gateway, one bench for each promise, with the bound in its name:
//!
//!     cargo bench -p lockgate-bench --bench promises
//!
//! On a shared machine trust the instruction counts of `bench/instructions.sh` instead.

use criterion::{Criterion, criterion_group, criterion_main};
use lockgate::audit::{Entry, Journal as _, PackedWho, RingOptions, SegmentWriter, Who};
use lockgate::gate::{Shared, Standing};
use lockgate_bench::gate::{Features, Rig, view, view_with};
use lockgate_bench::records::{TEXT, WHO, outcome, request};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW_US: i64 = 1_790_000_000_000_000;

/// Statements in one segment of this size never fill it.
const SEGMENT_BYTES: u64 = 64 << 20;
const STATEMENTS_PER_SEGMENT: u64 = 40_000;

fn journal(directory: &Path) -> SegmentWriter {
    let options =
        RingOptions { data_dir: directory.to_owned(), shard: 0, segment_bytes: SEGMENT_BYTES, segments_per_shard: 4 };
    SegmentWriter::open(&options, NOW_US).expect("the directory can be written").0
}

/// Appends `count` statements, two records each, in frames of ten statements. `writes`: count the write of each frame, too.
fn append(count: u64, writes: bool) -> Duration {
    let packed = PackedWho::new(&WHO);
    let who = Who { packed: Some(&packed), ..WHO };
    let mut spent = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let directory = tempfile::tempdir().expect("a directory");
        let mut journal = journal(directory.path());
        // Begins the segment: a file's price, not a record's.
        journal.append(NOW_US, &who, &Entry::Request(request(7))).expect("there is room");
        journal.write().expect("there is room on disk");
        let here = left.min(STATEMENTS_PER_SEGMENT);
        for begin in (0..here).step_by(10) {
            let start = Instant::now();
            for _ in begin..here.min(begin + 10) {
                journal.append(NOW_US, &who, black_box(&Entry::Request(request(7)))).expect("there is room");
                journal.append(NOW_US, &who, black_box(&Entry::Outcome(outcome(7)))).expect("there is room");
            }
            if !writes {
                spent += start.elapsed();
            }
            journal.write().expect("there is room on disk");
            if writes {
                spent += start.elapsed();
            }
        }
        left -= here;
    }
    spent / 2
}

fn audit(c: &mut Criterion) {
    c.bench_function("audit append, a record (at most 150 ns)", |b| b.iter_custom(|count| append(count, false)));
    c.bench_function("audit append and frame write, a record", |b| b.iter_custom(|count| append(count, true)));
}

fn identity(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let rig = Rig::open(Features::On, directory.path());
    assert_eq!(rig.standing(), Standing::Good);
    c.bench_function("identity check (at most 20 ns)", |b| b.iter(|| black_box(&rig).standing()));
}

const WORDS: &str = r#"
[[rule]]
name = "no-escape"
targets = ["postgres"]
words = ["pg_sleep", "dblink", "lo_import", "lo_export", "pg_read_file", "pg_ls_dir", "copy", "pg_write_file"]
action = "deny"
"#;

/// What a deny list adds to a statement whose meaning is known, beside the parse it must be a fortieth of.
fn deny_list(c: &mut Criterion) {
    c.bench_function("pg_query parse", |b| {
        b.iter(|| pg_query::parse(black_box(TEXT), pg_query::ParserOptions::DEFAULT).expect("it is SQL"))
    });
    let analysis = masking::sql::analyse(TEXT.as_bytes(), true);
    for (list, view) in [("ten classes", view(Features::On)), ("eight words", view_with(WORDS))] {
        let name = format!("deny list of {list} (at most 1/40 of the parse)");
        c.bench_function(&name, |b| b.iter(|| view.decide(black_box(&analysis))));
    }
}

/// The verdict on a text that was read before: look-up and decision.
fn cached(c: &mut Criterion) {
    let (view, mut shared) = (view(Features::On), Shared::default());
    c.bench_function("analysis of a new text", |b| b.iter(|| masking::sql::analyse(black_box(TEXT.as_bytes()), true)));
    let mut cached = move || shared.decide(black_box(TEXT.as_bytes()), &view);
    cached();
    c.bench_function("cached decision (at most 100 ns)", |b| b.iter(&mut cached));
}

/// There and back through the gate, its records and their writes included.
fn round(c: &mut Criterion) {
    type Round = (&'static str, fn(&mut Rig));
    let modes: [Round; 3] =
        [("prepared", Rig::prepared), ("simple, repeated", Rig::repeated), ("simple, new", Rig::simple)];
    for features in [Features::Off, Features::On] {
        for (mode, statement) in modes {
            c.bench_function(&format!("gate round {features:?}, {mode}"), |b| {
                let directory = tempfile::tempdir().expect("a directory");
                let mut rig = Rig::open(features, directory.path());
                b.iter_custom(|count| {
                    let mut spent = Duration::ZERO;
                    for begin in (0..count).step_by(1_000) {
                        rig.keep_segments();
                        let start = Instant::now();
                        (begin..count.min(begin + 1_000)).for_each(|_| statement(&mut rig));
                        spent += start.elapsed();
                    }
                    spent
                });
            });
        }
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
}

criterion_group! { name = promises; config = quick(); targets = audit, identity, deny_list, cached, round }
criterion_main!(promises);
