//! What bench/durability.sh compares the trail with.
//!
//! `durability disk FOLDER SECONDS BYTES`: the disk alone, with what a shard does in `strict` for one record: BYTES written behind
//! each other into a file that was filled before, `fdatasync` after each. Prints syncs a second, and p50, p99 of one in us.
//!
//! `durability trail FOLDER SECONDS SESSIONS`: the gateway's own trail in `group` on that disk, with nobody to wait for: no socket, no
//! target, no archiver. Each round every session adds the record of a request and the next round that of its outcome; a round is one write, every
//! 5 ms the thread stops for an `fdatasync`. Prints records a second that are on stable storage, and us of CPU per record.
//!
//! `durability prepare FOLDER ROUNDS`: ms of CPU to prepare a segment of 64 MiB, of a new file and of one that was a segment before; medians.
//!
//! `durability proof BYTES`: nanoseconds to checksum (CRC-32C) and hash (BLAKE3) a frame of BYTES, and to sign (Ed25519) a
//! checkpoint.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use lockgate::audit::disk::RealDisk;
use lockgate::audit::segment::Spare;
use lockgate::audit::{Entry, Journal as _, SegmentWriter, Who, segment};
use lockgate_bench::records;
use lockgate_bench::trail::{SEGMENT_BYTES, Trail};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = SEGMENT_BYTES as usize;
const REPEAT: u32 = 20_000;
const COMMIT_INTERVAL: Duration = Duration::from_millis(5);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["disk", folder, seconds, bytes] => disk(Path::new(folder), number(seconds), number(bytes)),
        ["trail", folder, seconds, sessions] => trail(Path::new(folder), number(seconds), number(sessions)),
        ["prepare", folder, rounds] => prepare(Path::new(folder), number(rounds)),
        ["proof", bytes] => {
            proof(number(bytes));
            Ok(())
        }
        _ => {
            eprintln!(
                "usage: durability disk FOLDER SECONDS BYTES | trail FOLDER SECONDS SESSIONS | prepare FOLDER ROUNDS | proof BYTES"
            );
            std::process::exit(2);
        }
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

fn disk(folder: &Path, seconds: usize, bytes: usize) -> io::Result<()> {
    let path = folder.join("durability-probe");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let (frame, mut at, mut taken) = (vec![7; bytes], 0, Vec::new());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        let start = Instant::now();
        file.write_all_at(&frame, at as u64)?;
        file.sync_data()?;
        taken.push(start.elapsed());
        at = if at + 2 * bytes > FILE_BYTES { 0 } else { at + bytes };
    }
    let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    taken.sort();
    let part = |of: usize| taken[(taken.len() * of / 100).min(taken.len() - 1)].as_secs_f64() * 1e6;
    println!("{rate:.0} {:.0} {:.0}", part(50), part(99));
    Ok(())
}

fn trail(folder: &Path, seconds: usize, sessions: usize) -> io::Result<()> {
    let dir = folder.join("durability-trail");
    let names: Vec<String> = (0..sessions).map(|session| format!("20261128T031200Z-0-{session}")).collect();
    let (mut now_us, mut durable, mut request) = (1_795_000_000_000_000_i64, 0, 0);
    let mut trail = Trail::open(&dir, now_us)?;
    let (began, before) = (Instant::now(), cpu_seconds());
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        trail.keep()?;
        let writer = &mut trail.writer;
        let start = Instant::now();
        while start.elapsed() < COMMIT_INTERVAL {
            request += 1;
            for session in &names {
                now_us += 7;
                append(writer, now_us, session, &Entry::Request(records::request(request)))?;
            }
            writer.keep()?;
            for session in &names {
                now_us += 7;
                append(writer, now_us, session, &Entry::Outcome(records::outcome(request)))?;
            }
            writer.keep()?;
        }
        writer.write()?;
        if let Some(fd) = writer.sync_fd() {
            File::open(format!("/proc/self/fd/{fd}"))?.sync_data()?;
        }
        durable = writer.next_record() - 1;
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - before);
    fs::remove_dir_all(&dir)?;
    println!("{:.0} {:.2}", durable as f64 / elapsed, cpu * 1e6 / durable as f64);
    Ok(())
}

fn prepare(folder: &Path, rounds: usize) -> io::Result<()> {
    let dir = folder.join("durability-prepare");
    fs::create_dir(&dir)?;
    let (mut fresh, mut reused, bytes) = (Vec::new(), Vec::new(), FILE_BYTES as u64);
    for round in 1..=rounds as u64 {
        // Each file stays until the end: a new one then cannot be given what the one before has just freed.
        let before = cpu_seconds();
        let path = segment::prepare(&RealDisk, &dir, 2 * round, bytes)?;
        let between = cpu_seconds();
        let spare = Spare::from_segment(&RealDisk, &path, bytes)?.expect("nobody else has it");
        spare.prepare(&RealDisk, &dir, 2 * round + 1, bytes)?;
        fresh.push(between - before);
        reused.push(cpu_seconds() - between);
    }
    fs::remove_dir_all(&dir)?;
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2] * 1e3
    };
    println!("{:.0} {:.0}", median(fresh), median(reused));
    Ok(())
}

/// CPU time of this program, which has one thread.
fn cpu_seconds() -> f64 {
    // The kernel brings the number up to date when a thread gives way.
    std::thread::yield_now();
    let stat = fs::read_to_string("/proc/self/schedstat").expect("a Linux with /proc");
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn append(writer: &mut SegmentWriter, now_us: i64, session: &str, entry: &Entry<'_>) -> io::Result<()> {
    writer
        .append(now_us, &Who { session, ..records::WHO }, entry)
        .map_err(|_| io::Error::other("the ring is full: a longer one is needed"))
}

fn proof(bytes: usize) {
    let frame: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let checksum = nanoseconds(REPEAT, || crc32c::crc32c(black_box(&frame)));
    let hash = nanoseconds(REPEAT, || blake3::hash(black_box(&frame)));
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("our own key");
    black_box(key.public_key());
    let checkpoint = vec![b'x'; 600];
    let sign = nanoseconds(REPEAT / 10, || key.sign(black_box(&checkpoint)));
    println!("{checksum:.0} {hash:.0} {sign:.0}");
}

fn nanoseconds<T>(times: u32, what: impl Fn() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        black_box(what());
    }
    start.elapsed().as_nanos() as f64 / f64::from(times)
}
