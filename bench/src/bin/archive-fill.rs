//! Fills an archive with made-up records, for measuring a search: `archive-fill DIR RECORDS`.
//!
//! A day of statements, evenly spread, each with its outcome: 1000 users (a few of them busy), 200 tables, sessions of 50
//! statements, 250,000 records a file. The same arguments give the same records.

use lockgate::audit::archive::manifest::{FileEntry, Manifest, Position, Span, What};
use lockgate::audit::archive::publish::relative_path;
use lockgate::audit::archive::write::FileWriter;
use lockgate::audit::record::Kind;
use lockgate::audit::row::{Row, Rows};
use std::fs;
use std::io;
use std::path::Path;

/// 2026-11-20T00:00:00Z.
const START_US: i64 = 1_795_132_800_000_000;
const DAY_US: i64 = 86_400_000_000;
const RECORDS_PER_FILE: u64 = 250_000;
const STATEMENTS_PER_SESSION: u64 = 50;
/// Rows made at a time.
const BATCH: u64 = 10_000;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(records)) = (arguments.next(), arguments.next().and_then(|text| text.parse().ok())) else {
        eprintln!("usage: archive-fill DIR RECORDS");
        std::process::exit(2);
    };
    fill(Path::new(&dir), records)
}

fn fill(dir: &Path, records: u64) -> io::Result<()> {
    let archive = dir.join("archive");
    fs::create_dir_all(&archive)?;
    fs::create_dir_all(dir.join("segments"))?;
    let mut manifest = Manifest::open(dir, None)?;
    let mut position = Position::start(0);
    while position.record < records {
        let first = position.record + 1;
        let last = (position.record + RECORDS_PER_FILE).min(records);
        let path = relative_path(time_us(first, records), manifest.head().number + 1);
        let file = archive.join(&path);
        fs::create_dir_all(file.parent().expect("a folder of its date"))?;
        let (bytes, since_us, until_us) = write_file(&file, first, last, records)?;
        let next = Position { frame: position.frame + 1, record: last, ..position };
        let shards = vec![Span::between(&position, &next).expect("a frame further")];
        let rows = last - first + 1;
        let entry = FileEntry { path, bytes, blake3: [0; 32], rows, schema: 1, since_us, until_us, shards };
        manifest.append(until_us + 1_000_000, &What::File(entry), &[next])?;
        position = next;
    }
    Ok(())
}

fn write_file(path: &Path, first: u64, last: u64, records: u64) -> io::Result<(u64, i64, i64)> {
    let mut writer = FileWriter::new(io::BufWriter::new(fs::File::create(path)?))?;
    for start in (first..=last).step_by(BATCH as usize) {
        let end = last.min(start + BATCH - 1);
        let rows = Rows::new((start..=end).map(|sequence| row(sequence, records)).collect());
        for (shard, sequence, view) in rows.views() {
            writer.append(&view, shard, sequence, None)?;
        }
    }
    let (sink, contents) = writer.finish(&[])?;
    sink.into_inner()?.sync_all()?;
    let (since_us, until_us) = contents.times.expect("a file has records");
    Ok((contents.bytes, since_us, until_us))
}

fn time_us(sequence: u64, records: u64) -> i64 {
    START_US + (DAY_US as i128 * i128::from(sequence) / i128::from(records)) as i64
}

/// Requests have odd sequences, their outcomes the next even ones.
fn row(sequence: u64, records: u64) -> Row {
    let statement = sequence.div_ceil(2);
    let session = statement / STATEMENTS_PER_SESSION;
    // Small numbers are more likely: some people and tables are busier than others.
    let user = mix(session) % (mix(session ^ 0x5151) % 1000 + 1);
    let table = mix(statement) % (mix(statement ^ 0x7777) % 200 + 1);
    let is_request = sequence % 2 == 1;
    let mut row = Row {
        shard: 0,
        sequence,
        time_us: time_us(sequence, records),
        session: format!("{session:08x}-{:08x}", mix(session) as u32),
        user: format!("user{user:04}@example.com"),
        groups: vec!["engineering".into(), format!("team{}", user % 20)],
        target: format!("target{}", user % 5),
        client: format!("10.0.{}.{}:{}", user / 250, user % 250, 40000 + session % 20000),
        application: "psql".into(),
        claimed_user: "app".into(),
        request: statement % STATEMENTS_PER_SESSION + 1,
        ..Row::empty(if is_request { Kind::Request } else { Kind::Outcome })
    };
    if is_request {
        let text = format!(
            "SELECT id, name, amount FROM public.table{table:03} WHERE account = {} AND state = 'open' ORDER BY created_at LIMIT {}",
            mix(statement ^ 0xabcd) % 1_000_000,
            statement % 100 + 1
        );
        row.statement_bytes = text.len() as u64;
        row.statement = text.into_bytes();
        row.classes = 1 << (mix(statement ^ 0x1234) % 4);
        row.tables = vec![format!("public.table{table:03}")];
        row.decision = "allow".into();
    } else {
        (row.rows, row.bytes) = (mix(statement) % 100, mix(statement) % 10_000);
        (row.duration_us, row.masked) = (200 + mix(statement ^ 9) % 50_000, statement % 3);
    }
    row
}

/// SplitMix64's finisher.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
