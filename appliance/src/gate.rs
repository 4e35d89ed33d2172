//! The product as a state machine: identity, policy, hold, mask, journal around one protocol session. Pure.

use crate::approval::{Ruling, TicketId};
use crate::audit::Journal;
use crate::shard::mailbox::{Catalogue, RelayId, ToControl};
use crate::snapshot::{Snapshot, Target};
use codecs::postgres::ScramKeys;
use codecs::{Pipes, Side};
use std::sync::Arc;

/// The shard's clock, read once a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic microseconds since the process started.
    pub mono_us: u64,
    /// Unix microseconds.
    pub unix_us: i64,
}

/// News for a gate.
pub enum Input {
    /// More bytes in the window of that side, or room where there was none: look (again).
    Bytes(Side),
    /// That side has closed its sending half or failed.
    Ended(Side),
    /// The target's socket is connected.
    Connected,
    /// No connection to the target: the reason, for the audit (the client reads a fixed text).
    ConnectFailed(String),
    /// A TLS handshake is complete. Target: tls-server-end-point binding (RFC 5929). `false` in `Result`: it failed.
    Secured {
        side: Side,
        binding: Option<Vec<u8>>,
    },
    TlsFailed {
        side: Side,
        reason: String,
    },
    /// A deadline asked for with [`Output::WakeAt`] has passed (or none has: harmless).
    Wake,
    /// The journal was full and has room again.
    JournalRoom,
    Ruling {
        ticket: TicketId,
        ruling: Ruling,
    },
    Keys(Result<ScramKeys, String>),
    Catalogue(Result<(i64, Arc<Catalogue>), String>),
    /// `sessions kill`, or the shard drains.
    Kill(&'static str),
}

/// A gate's wish. Polled until `Idle` after every input; queued bytes (`to_client`, `to_target`) are sent first, in order.
pub enum Output {
    /// Connect to the target; answer with Connected or ConnectFailed.
    Connect(Arc<Target>),
    /// After the queued bytes for that side have been handed to the kernel, all its later bytes are TLS.
    StartTls(Side),
    /// After the queued bytes for that side have been sent, no more will follow: its sending half is shut down.
    Finish(Side),
    /// Only the latest counts; `None`: no deadline. Monotonic microseconds.
    WakeAt(Option<u64>),
    /// Send what is queued, then close both sockets and drop the relay.
    Close,
    Idle,
}

/// What a gate may use during one call: borrowed from the shard.
pub struct Context<'a> {
    pub now: Now,
    pub snapshot: &'a Arc<Snapshot>,
    pub journal: &'a mut dyn Journal,
    /// Messages for the control thread, posted after the round's records are written.
    pub control: &'a mut Vec<ToControl>,
    pub shared: &'a mut Shared,
}

/// What the gates of one shard share: the cache of analyses, counters. No locks: one shard, one thread.
#[derive(Default)]
pub struct Shared {}

/// What a relay knows about its client when it starts.
pub struct Origin {
    pub shard: usize,
    pub relay: RelayId,
    pub client: std::net::SocketAddr,
    /// The listener offers TLS.
    pub tls_offered: bool,
    /// TLS is already up: the first byte was a ClientHello (direct TLS).
    pub encrypted: bool,
    /// Tokens over an unencrypted connection are accepted from beyond loopback.
    pub allow_plaintext: bool,
    /// Random, fresh: session id, cancel secret and SCRAM nonce are cut from it.
    pub entropy: [u8; 64],
}

/// What a relay drives. Two implementers: [`Gate`] and the bench's bare relay.
pub trait Drive {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>);
    fn poll(&mut self) -> Output;
    /// `false`: this side is held, more of its bytes would only pile up. A partial message is no reason to say so.
    fn wants(&self, side: Side) -> bool {
        let _ = side;
        true
    }
    /// Nothing is running and nothing is owed: a draining shard may end this session now (with [`Input::Kill`]).
    fn idle(&self) -> bool {
        false
    }
}

/// One gateway session.
pub struct Gate {}

impl Gate {
    pub fn new(origin: Origin, cx: &mut Context<'_>) -> Self {
        let _ = (origin, cx);
        Self {}
    }
}

impl Drive for Gate {
    fn handle(&mut self, input: Input, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let _ = (input, pipes, cx);
    }
    fn poll(&mut self) -> Output {
        Output::Close
    }
}
