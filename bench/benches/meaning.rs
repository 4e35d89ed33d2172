//! What it costs to know what a text does: its shape, a remembered verdict, and PostgreSQL's parser beside them.
//!
//!     cargo bench -p lockgate-bench --bench meaning

use codecs::postgres::RequestKind;
use criterion::{BenchmarkId, Criterion, Throughput};
use lockgate_bench::gate::{EIGHT_WORDS, Rig, ten_classes};
use lockgate_bench::texts::{accounts, mapper};
use masking::sql;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn insert_of(bytes: usize) -> String {
    format!("INSERT INTO documents (id, body) VALUES (17, '{}')", "lorem ipsum ".repeat(bytes / 12))
}

fn shapes(c: &mut Criterion) {
    let mut group = c.benchmark_group("shape");
    let mut room = vec![0; 16 << 10];
    for (name, text) in
        [("pgbench", accounts().swap_remove(9)), ("mapper", mapper()), ("64 KiB constant", insert_of(64 << 10))]
    {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| sql::shape(black_box(text.as_bytes()), &mut room).expect("has a shape").len());
        });
    }
    group.finish();
}

fn verdicts(c: &mut Criterion) {
    let mut group = c.benchmark_group("verdict");
    let mut texts: Vec<Vec<u8>> = accounts().into_iter().map(String::into_bytes).collect();
    for (name, rules) in [("no rules", ""), ("ten rules", &ten_classes()), ("eight words", EIGHT_WORDS)] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut rig, mut next) = (Rig::open_with(rules, directory.path()), 0);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                next = (next + 1) % texts.len();
                rig.verdict(RequestKind::Query, black_box(&mut texts[next]))
            });
        });
    }
    group.finish();
}

fn parser(c: &mut Criterion) {
    let mut group = c.benchmark_group("parser");
    for (name, text) in [("pgbench", accounts().swap_remove(9)), ("mapper", mapper())] {
        group.bench_function(BenchmarkId::new("pg_query::parse", name), |b| {
            b.iter(|| pg_query::parse(black_box(&text), pg_query::ParserOptions::DEFAULT).expect("parses"));
        });
        group.bench_function(BenchmarkId::new("sql::read", name), |b| {
            b.iter(|| sql::read(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    shapes(&mut criterion);
    verdicts(&mut criterion);
    parser(&mut criterion);
    criterion.final_summary();
}
