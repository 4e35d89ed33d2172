//! Sans-I/O protocol state machines: bytes in, events and cleared ranges out. No socket, clock, file or randomness.
//!
//! ```text
//!   client bytes -> Window --+                         +--> Outgoing -> target
//!                            |   Session::step/answer  |
//!   target bytes -> Window --+                         +--> Outgoing -> client
//! ```
//!
//! Only a session clears bytes ([`Window`] has no public way to), and only cleared bytes reach an [`Outgoing`]: no code
//! outside this crate can leak around a decision or a mask.

mod window;

pub mod bare;
pub mod postgres;

pub use window::{Outgoing, Piece, Pipes, Span, Window};

/// The two ends of a relay. `Client` is whoever connected to us, `Target` is what we opened on their behalf.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    Client,
    Target,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Target,
            Side::Target => Side::Client,
        }
    }
}
