//! What all relays of a shard share while one of them is driven: the ring, the clock, the journal, the spare memory.

use super::counters::Counters;
use super::journal::Safe;
use super::log::ShardLog;
use super::mailbox::{RelayId, ToControl};
use super::rest::Awake;
use super::ring::{Payload, Ring};
use super::timers::Timers;
use super::windows::Pool;
use crate::gate::{Context, Input, Now, Origin, Shared};
use crate::limits;
use crate::snapshot::Snapshot;
use codecs::{Outgoing, Side};
use std::collections::VecDeque;
use std::sync::Arc;

/// Makes the drive of a new relay.
pub type Factory<D> = Box<dyn Fn(Origin, &mut Context<'_>) -> D>;

/// How long a relay waits for others, in microseconds. What happens then is written beside the defaults in `limits.rs`.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From accept on.
    pub login_us: u64,
    pub connect_us: u64,
    pub stalled_us: u64,
    pub flush_us: u64,
    pub linger_us: u64,
    pub rest_us: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            login_us: limits::LOGIN_US,
            connect_us: limits::CONNECT_US,
            stalled_us: limits::STALLED_US,
            flush_us: limits::FLUSH_US,
            linger_us: limits::LINGER_US,
            rest_us: limits::REST_US,
        }
    }
}

/// The shard, but for its relays.
pub struct Io<D> {
    pub number: usize,
    pub ring: Ring,
    pub pool: Pool,
    pub timers: Timers,
    pub counters: Arc<Counters>,
    pub snapshot: Arc<Snapshot>,
    pub factory: Factory<D>,
    pub log: Box<dyn ShardLog>,
    pub control: Vec<ToControl>,
    pub shared: Shared,
    pub deadlines: Deadlines,
    pub now: Now,
    /// Scratch for what one call queues: to the client, to the target. Empty between calls.
    pub out: [Outgoing; 2],
    /// News that came out of carrying out a wish, for after the call that wished it.
    pub later: VecDeque<(RelayId, Input)>,
    /// Receives to arm again once a buffer is free.
    pub starved: Vec<(RelayId, Side)>,
    /// Relays that hold so much of their client that no more of it is read, its end neither: they are looked at now and then.
    pub unheard: ahash::AHashSet<RelayId>,
    /// Relays that have had bytes lately.
    pub awake: Awake,
    /// Relays whose append was answered `Full`.
    pub waiting_for_room: Vec<RelayId>,
    /// The round whose records are being appended; the first is 1.
    pub round: u64,
    /// How far records are as safe as the mode promises.
    pub safe: Safe,
}

impl<D> Io<D> {
    pub fn discard(&mut self, payload: Payload) {
        match payload {
            Payload::Borrowed(chunk) => self.ring.buffers_mut().release(chunk),
            Payload::Owned { bytes, .. } => self.pool.give(bytes),
        }
    }

    /// The payload's bytes in memory of their own; a borrowed buffer is free.
    pub fn copied_out(&mut self, payload: Payload) -> Payload {
        match payload {
            Payload::Borrowed(chunk) => {
                let mut bytes = self.pool.take();
                bytes.extend_from_slice(self.ring.buffers().bytes(&chunk));
                self.ring.buffers_mut().release(chunk);
                Payload::owned(bytes)
            }
            owned @ Payload::Owned { .. } => owned,
        }
    }

    /// Appends the payload's bytes to `bytes` and discards it.
    pub fn append_to(&mut self, bytes: &mut Vec<u8>, payload: Payload) {
        match &payload {
            Payload::Borrowed(chunk) => bytes.extend_from_slice(self.ring.buffers().bytes(chunk)),
            Payload::Owned { bytes: more, start, end } => bytes.extend_from_slice(&more[*start..*end]),
        }
        self.discard(payload);
    }
}
