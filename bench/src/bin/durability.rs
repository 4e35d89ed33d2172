//! What bench/durability.sh compares the trail with.
//!
//! `durability disk FOLDER SECONDS BYTES`: the disk alone, with what a shard does in `strict` for one record: BYTES written behind
//! each other into a file that was filled before, `fdatasync` after each. Prints syncs a second, and p50, p99 of one in us.
//!
//! `durability proof BYTES`: nanoseconds to checksum (CRC-32C) and hash (BLAKE3) a frame of BYTES, and to sign (Ed25519) a
//! checkpoint.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 64 << 20;
const REPEAT: u32 = 20_000;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["disk", folder, seconds, bytes] => disk(Path::new(folder), number(seconds), number(bytes)),
        ["proof", bytes] => {
            proof(number(bytes));
            Ok(())
        }
        _ => {
            eprintln!("usage: durability disk FOLDER SECONDS BYTES | durability proof BYTES");
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
