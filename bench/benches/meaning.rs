//! What it costs to know what a text does: its shape, a remembered verdict, and PostgreSQL's parser beside them.
//!
//!     cargo bench -p lockgate-bench --bench meaning

use criterion::{BenchmarkId, Criterion, Throughput};
use lockgate::config;
use lockgate::gate::Shared;
use lockgate::identity::Principal;
use lockgate::policy::{Policy, View};
use masking::sql;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// pgbench -S: one statement for each account.
fn accounts() -> Vec<String> {
    (0..1024).map(|n| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {};", 1 + n * 977)).collect()
}

/// As an object-relational mapper writes it.
fn mapper() -> String {
    let columns: Vec<String> = (0..12).map(|n| format!("\"public\".\"Customer\".\"column_{n}\"")).collect();
    format!(
        "SELECT {} FROM \"public\".\"Customer\" LEFT JOIN orders AS o ON o.customer_id = \"Customer\".id AND o.placed >= \
         '2024-01-01' WHERE (\"public\".\"Customer\".\"email\" = 'someone@example.com' AND o.total BETWEEN 10 AND 99.5) \
         LIMIT 50 OFFSET 100",
        columns.join(", ")
    )
}

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

fn view(rules: &str) -> View {
    let text = format!(
        r#"
[[listener]]
protocol = "postgres"
address = "127.0.0.1:6432"
[[issuer]]
name = "bench"
issuer = "https://bench.example"
audience = "lockgate"
algorithms = ["ES256"]
jwks_file = "jwks.json"
[[target]]
name = "postgres"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "postgres"
user = "svc"
password_env = "BENCH_PASSWORD"
tls = "disable"
[[grant]]
targets = ["postgres"]
{rules}"#
    );
    let config = config::parse(&text, Path::new("bench.toml")).expect("the bench's configuration");
    let principal = Principal {
        user: "bench@example.com".into(),
        subject: "bench".into(),
        issuer: "bench".into(),
        groups: Vec::new(),
        actor: Vec::new(),
    };
    Policy::compile(&config).view("postgres", &principal).expect("a grant")
}

fn ten_rules() -> String {
    ["drop", "truncate", "alter", "grant", "revoke", "copy_program", "do", "vacuum", "lock", "comment"]
        .map(|class| format!("[[rule]]\nname = \"no-{class}\"\ntargets = [\"postgres\"]\nclasses = [\"{class}\"]\naction = \"deny\"\n"))
        .concat()
}

const WORDS: &str = r#"
[[rule]]
name = "no-escape"
targets = ["postgres"]
words = ["pg_sleep", "dblink", "lo_import", "lo_export", "pg_read_file", "pg_ls_dir", "copy", "pg_write_file"]
action = "deny"
"#;

fn verdicts(c: &mut Criterion) {
    let mut group = c.benchmark_group("verdict");
    let texts = accounts();
    for (name, rules) in [("no rules", String::new()), ("ten rules", ten_rules()), ("eight words", WORDS.to_owned())] {
        let (view, mut shared, mut next) = (view(&rules), Shared::default(), 0);
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                next = (next + 1) % texts.len();
                shared.decide(black_box(texts[next].as_bytes()), &view).action
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
