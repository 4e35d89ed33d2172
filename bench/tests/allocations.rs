//! A steady prepared statement allocates nothing and its bytes are not copied inside the gateway. Nor does a simple Query that came before
//! or differs in constants from one that did; its text is copied, for the trail.
//!
//! Covered: the gate, the session, the SQL cache, the masks and the real journal with its writes, played without sockets
//! (`bench/src/gate.rs`), from the client's bytes to the outcome record. That the bytes of a message leave as one
//! [`codecs::Piece::Pass`] means that the shard sends them from the buffer they were received into
//! (`Relay::carry`): no copy at all. Where a value is replaced by one of another length, or a refusal is put between, it
//! gathers the pieces shorter than 8 KiB in one vector from its pool: the one copy.
//!
//! Not covered: the shard itself (ring, buffer pool, timers), TLS, which encrypts into a vector of its own, and the change
//! of a segment, which opens a file.

use lockgate_bench::gate::{Features, Left, Rig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Allocations of this thread. Needs no allocation itself: constant, and nothing to drop.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call goes on to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above; every block is the system's.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; every block is the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const STATEMENTS: u64 = 1_000;

/// Runs a warm session for a thousand statements. Returns what left the gate towards client and target in the meantime.
fn check(features: Features, statement: fn(&mut Rig)) -> [Left; 2] {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::open(features, directory.path());
    let run = |rig: &mut Rig| (0..STATEMENTS).for_each(|_| statement(rig));
    run(&mut rig);
    rig.keep_segments();
    let before = rig.left;
    let allocated = allocations(|| run(&mut rig));
    assert_eq!(allocated, 0, "{features:?}: a steady statement allocates");
    let masked = if features == Features::Masked { 2 * STATEMENTS } else { 0 };
    assert_eq!(rig.masked_values(), masked, "{features:?}: values masked");
    [rig.left[0].since(before[0]), rig.left[1].since(before[1])]
}

/// Whole messages in one stretch, none of it composed by the gate.
fn check_prepared(features: Features) {
    for (side, left) in ["client", "target"].iter().zip(check(features, Rig::prepared)) {
        assert_eq!(
            (left.composed_pieces, left.passed_pieces),
            (0, STATEMENTS),
            "{features:?}, to the {side}: {left:?}"
        );
    }
}

#[test]
fn a_prepared_execution_allocates_nothing_and_passes_uncopied() {
    check_prepared(Features::Off);
    check_prepared(Features::Unrecorded);
    // With each response recorded.
    check_prepared(Features::On);
}

#[test]
fn a_value_masked_at_its_length_is_overwritten_where_it_lies() {
    check_prepared(Features::Masked);
}

#[test]
fn a_simple_query_seen_before_allocates_nothing() {
    for features in [Features::Off, Features::On] {
        check(features, Rig::repeated);
    }
}

#[test]
fn a_simple_query_with_new_constants_allocates_nothing() {
    for features in [Features::Off, Features::On] {
        check(features, Rig::simple);
    }
}

#[test]
fn the_counter_notices_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    let mut vector = Vec::with_capacity(1);
    assert_eq!(allocations(|| vector.extend_from_slice(&[0u8; 64])), 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![0u8; 9]))), 1);
}
