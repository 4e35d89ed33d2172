//! Power loss: the code that writes, seals, archives and recovers the trail on a disk that loses what was not synced, tears
//! sectors, forgets names and returns errors, at every call it makes. After each stop the same code starts again, and:
//!
//! 1. what was reported durable is there, whole and in order; after a mere kill, all that was written is;
//! 2. nothing is there that nobody wrote, nothing twice, and no sequence is given out twice;
//! 3. a break is named only where something was lost, stays the same from then on, and is recorded once;
//! 4. the trail goes on.
//!
//! Two canaries (syncs that do nothing, counting what was not synced) must break the first law.

mod disk;
mod world;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Breach, Weather, World};

/// `POWERLOSS_SEEDS` (default 500) chooses how many each test runs; `tests/run.sh --full` asks for 2,500 of most, 11,750 together.
fn seeds() -> Range<u64> {
    let count = std::env::var("POWERLOSS_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(500);
    0..count
}

fn run(seed: u64, weather: Weather) -> Result<(), Breach> {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    World::new(seed, weather, dir.path()).run()
}

/// Runs the seeds on two threads and panics with the first breach and its seed.
fn check(weather: Weather) {
    check_seeds(weather, seeds());
}

fn check_seeds(weather: Weather, seeds: Range<u64>) {
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(breach) = run(seed, weather) {
                        next.store(end, Ordering::Relaxed);
                        panic!("seed {seed} under {weather:?}: {breach:?}");
                    }
                }
            });
        }
    });
}

fn must_break(weather: Weather) {
    let noticed = (0..200).any(|seed| matches!(run(seed, weather), Err(Breach::Lost { .. })));
    assert!(noticed, "the canary was not noticed: {weather:?}");
}

#[test]
fn strict_loses_nothing_it_reported_in_a_power_cut() {
    check(Weather { power_cuts: true, ..Weather::default() });
}

#[test]
fn group_loses_nothing_older_than_its_last_sync_in_a_power_cut() {
    check(Weather { power_cuts: true, group: true, ..Weather::default() });
}

#[test]
fn kills_alone_leave_no_break_at_all() {
    // Each lives long: nothing ends it early.
    check_seeds(Weather { group: true, ..Weather::default() }, 0..seeds().end / 10);
}

#[test]
fn errors_and_kills_lose_nothing_that_was_written() {
    check(Weather { errors: true, group: true, ..Weather::default() });
}

#[test]
fn errors_and_power_cuts_together_lose_nothing_reported() {
    check(Weather { errors: true, power_cuts: true, group: true, ..Weather::default() });
}

#[test]
fn what_an_archiver_has_leaves_the_ring_and_its_files_are_used_again() {
    let weather = Weather { archives: true, group: true, ..Weather::default() };
    check_seeds(weather, 0..seeds().end / 5);
    check_seeds(Weather { power_cuts: true, ..weather }, 0..seeds().end / 5);
    check_seeds(Weather { power_cuts: true, errors: true, ..weather }, 0..seeds().end / 5);
}

#[test]
fn canary_syncs_that_do_nothing_are_noticed() {
    must_break(Weather { power_cuts: true, lying_syncs: true, ..Weather::default() });
}

#[test]
fn canary_counting_what_was_not_synced_is_noticed() {
    must_break(Weather { power_cuts: true, group: true, counts_unsynced: true, ..Weather::default() });
}
