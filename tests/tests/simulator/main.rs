//! The simulator: whole gateway sessions as a function of a seed. Splits, delays, disconnects, rulings and a full journal
//! come from the seed; four laws are checked at every byte:
//!
//! 1. no uncleared byte leaves: a masked value never reaches the client;
//! 2. nothing reaches the target unrecorded, and nothing that was refused reaches it at all;
//! 3. no completed result reaches the client without its outcome record;
//! 4. the rows in those records are the rows the client got, masked as it got them.
//!
//! Four canaries (no mask, a journal that forgets requests, one that forgets outcomes, one that alters responses) must break
//! their law.

mod peers;
mod world;

use world::{Breach, Faults, World};

/// Runs `seeds` and panics with the seed of the first breach.
fn check(seeds: std::ops::Range<u64>, faults: Faults) {
    for seed in seeds {
        if let Err(breach) = World::new(seed, faults).run() {
            panic!("seed {seed} under {faults:?}: {breach:?}");
        }
    }
}

/// At least one of the seeds must end in `expected`.
fn must_break(faults: Faults, expected: fn(&Breach) -> bool) {
    let broken = (0..50).any(|seed| World::new(seed, faults).run().is_err_and(|breach| expected(&breach)));
    assert!(broken, "the canary was not noticed: {faults:?}");
}

/// `SIMULATOR_SEEDS` (default 2,000) chooses how many.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SIMULATOR_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    0..count
}

#[test]
fn laws_hold_under_splits_and_delays() {
    check(seeds(), Faults::default());
}

#[test]
fn laws_hold_when_the_journal_is_full_now_and_then() {
    check(seeds(), Faults { journal_full: true, ..Faults::default() });
}

#[test]
fn laws_hold_when_either_end_goes_away() {
    check(seeds(), Faults { disconnects: true, journal_full: true, ..Faults::default() });
}

#[test]
fn canary_without_a_mask_the_secret_is_noticed() {
    must_break(Faults { no_mask: true, ..Faults::default() }, |breach| matches!(breach, Breach::SecretLeft));
}

#[test]
fn canary_a_journal_that_forgets_requests_is_noticed() {
    must_break(Faults { forget_requests: true, ..Faults::default() }, |breach| matches!(breach, Breach::Unrecorded(_)));
}

#[test]
fn canary_a_journal_that_forgets_outcomes_is_noticed() {
    must_break(Faults { forget_outcomes: true, ..Faults::default() }, |breach| matches!(breach, Breach::NoOutcome));
}

#[test]
fn canary_a_journal_that_alters_responses_is_noticed() {
    must_break(Faults { alter_responses: true, ..Faults::default() }, |breach| {
        matches!(breach, Breach::Misrecorded(..))
    });
}
