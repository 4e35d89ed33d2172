//! One end of a relay: its socket, the bytes that came from it and are undecided, the bytes on their way to it.

use super::io::Io;
use super::ring::Payload;
use super::timers::NEVER;
use super::tls::Tls;
use super::windows::Store;
use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};

/// A payload up to this size is copied behind another that waits, instead of keeping a buffer of the ring.
const COALESCE_BYTES_MAX: usize = 4 << 10;
/// How much waits in one coalesced vector.
const COALESCED_BYTES_MAX: usize = 64 << 10;

/// The state of an end's multishot receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Receive {
    #[default]
    Off,
    Armed,
    /// Cancelled, but not yet over: bytes may still come.
    Cancelling,
    /// Found no free buffer; armed again by the pump once there is one.
    Starved,
}

#[derive(Default)]
pub struct End {
    pub socket: Option<TcpStream>,
    pub tls: Option<Box<Tls>>,
    pub window: Store,
    pub receive: Receive,
    /// A send is with the ring; those behind it wait in `queue`.
    pub sending: bool,
    pub queue: VecDeque<Payload>,
    /// Bytes queued and in flight: [`crate::limits::QUEUED_BYTES_MAX`] and what had come in when it was met.
    pub queued_bytes: u32,
    /// The peer has closed its sending half or failed.
    pub ended: bool,
    /// Nothing can be sent any more.
    pub broken: bool,
    /// Shut down the sending half once all is sent.
    pub finishing: bool,
    /// When a queue over its bound must have moved.
    pub stalled_us: u64,
}

impl End {
    pub fn new() -> Self {
        Self { stalled_us: NEVER, ..Self::default() }
    }

    /// Gives back the room of a queue that is empty.
    pub fn rest(&mut self) {
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    /// Everything queued has been handed to the kernel.
    pub fn drained(&self) -> bool {
        !self.sending && self.queue.is_empty()
    }

    pub fn shutdown(&self, how: Shutdown) {
        if let Some(socket) = &self.socket {
            // Fails only when the peer has already gone, which is what we want.
            let _ = socket.shutdown(how);
        }
    }

    /// Queues behind the send in flight, keeping no more of the ring's buffers than needed.
    pub fn queue_behind<D>(&mut self, payload: Payload, io: &mut Io<D>) {
        if payload.len() > COALESCE_BYTES_MAX && !io.ring.buffers().scarce() {
            self.queue.push_back(payload);
            return;
        }
        match self.queue.back_mut() {
            Some(Payload::Owned { bytes, end, .. })
                if *end == bytes.len() && bytes.len() + payload.len() <= COALESCED_BYTES_MAX =>
            {
                io.append_to(bytes, payload);
                *end = bytes.len();
            }
            Some(_) | None => {
                let payload = io.copied_out(payload);
                self.queue.push_back(payload);
            }
        }
    }

    /// Gives up what is queued and undecided. A send in flight still completes.
    pub fn abandon<D>(&mut self, io: &mut Io<D>) {
        while let Some(payload) = self.queue.pop_front() {
            self.queued_bytes -= payload.len() as u32;
            io.discard(payload);
        }
        let buffers = io.ring.buffers_mut();
        self.window.clear(buffers, &mut io.pool);
    }
}
