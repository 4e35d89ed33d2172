//! No protocol at all: every byte is cleared as it comes. What a relay costs before it understands anything.

use crate::{Pipes, Side};

/// A session that clears everything it is given and nothing else.
#[derive(Debug, Default)]
pub struct Session {}

impl Session {
    /// Clears all undecided bytes that came from `side`.
    pub fn step(&mut self, side: Side, pipes: &mut Pipes<'_>) {
        let (window, out) = match side {
            Side::Client => (&mut pipes.client, &mut *pipes.to_target),
            Side::Target => (&mut pipes.target, &mut *pipes.to_client),
        };
        window.clear(window.undecided().len(), out);
    }
}
