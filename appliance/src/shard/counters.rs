//! What a shard counts. Written by its owner alone, read by the control thread whenever it likes.

use crate::metrics::Cell;

/// One shard's counts, on cache lines of their own.
#[derive(Default)]
#[repr(align(64))]
pub struct Counters {
    /// Rounds of the pump.
    pub rounds: Cell,
    /// When the last one began, by [`super::mono_us`]; 0: none has, [`Counters::ENDED`]: none will.
    pub round_us: Cell,
    /// 1: between two rounds, in the ring or in a turn.
    pub asleep: Cell,
    /// Microseconds it looked for its next message instead of sleeping.
    pub spun_us: Cell,
    /// The shard's thread, as the kernel numbers it.
    pub thread: Cell,
    /// Signals it got because it slept through its alarm. Written by the watch.
    pub nudges: Cell,
    pub accepted: Cell,
    /// Connections another shard accepted and handed to this one.
    pub adopted: Cell,
    /// Accepting paused for want of descriptors or memory.
    pub accept_paused: Cell,
    /// Connections turned away because the shard was full.
    pub turned_away: Cell,
    /// Relays alive.
    pub relays: Cell,
    /// Bytes received from clients and from targets.
    pub client_bytes: Cell,
    pub target_bytes: Cell,
    /// Receives that found no buffer although the shard had given the kernel all it has.
    pub starved: Cell,
    /// Receives that waited for a later round: their relay had had its share of the one they came in.
    pub deferred: Cell,
    /// Buffers with bytes that are undecided or unsent, as of the last round.
    pub buffers_held: Cell,
    pub connect_failures: Cell,
    pub tls_failures: Cell,
    /// Relays closed because their peer did not read for too long.
    pub stalled: Cell,
    /// Relays closed because their drive panicked.
    pub panics: Cell,
    pub journal_writes: Cell,
    pub journal_syncs: Cell,
    /// Since when somebody has waited for room in the journal, by [`super::mono_us`]; 0: nobody does.
    pub room_awaited_since_us: Cell,
    /// 1: the journal failed and this shard has stopped.
    pub journal_failed: Cell,
}

impl Counters {
    pub const ENDED: u64 = u64::MAX;

    /// Since when there has been no round, in microseconds; 0 before the first and after the last.
    pub fn silent_us(&self, now_us: u64) -> u64 {
        match self.round_us.value() {
            0 | Self::ENDED => 0,
            round_us => now_us.saturating_sub(round_us),
        }
    }
}
