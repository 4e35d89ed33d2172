//! Runs statements through one gate and exits: something for `valgrind --tool=callgrind` to count. Usage: gate-rounds
//! on|off|unrecorded prepared|repeated|simple COUNT

use lockgate_bench::gate::{Features, Rig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [features, mode, count] = &args[..] else {
        panic!("usage: gate-rounds on|off|unrecorded prepared|repeated|simple COUNT")
    };
    let features = match features.as_str() {
        "on" => Features::On,
        "unrecorded" => Features::Unrecorded,
        _ => Features::Off,
    };
    let count: u64 = count.parse().expect("a number of statements");
    let directory = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::open(features, directory.path());
    let mut spent = std::time::Duration::ZERO;
    for _ in 0..count.div_ceil(BATCH) {
        rig.keep_segments();
        let start = std::time::Instant::now();
        for _ in 0..BATCH {
            match mode.as_str() {
                "simple" => rig.simple(),
                "repeated" => rig.repeated(),
                _ => rig.prepared(),
            }
        }
        spent += start.elapsed();
    }
    println!("{:.0} ns a statement", spent.as_nanos() as f64 / (count.div_ceil(BATCH) * BATCH) as f64);
}

/// Statements between two looks at the segments, which are not part of a statement.
const BATCH: u64 = 1_000;
