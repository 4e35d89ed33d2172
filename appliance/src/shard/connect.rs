//! Opening the target: its addresses in order, each with its share of the time.

use super::ring::{OpId, socket};
use super::timers::NEVER;
use crate::snapshot::Target;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// One address of a target being tried.
pub struct Connecting {
    pub socket: TcpStream,
    pub address: SocketAddr,
    /// The connect in flight, once it has been submitted.
    pub op: Option<OpId>,
    /// When to turn to the next address.
    pub deadline_us: u64,
    attempts: Attempts,
}

struct Attempts {
    target: Arc<Target>,
    tried: usize,
    give_up_us: u64,
    failures: String,
}

impl Connecting {
    /// The first address, or why there is none.
    pub fn first(target: Arc<Target>, now_us: u64, patience_us: u64) -> Result<Self, String> {
        let give_up_us = now_us + patience_us;
        Attempts { target, tried: 0, give_up_us, failures: String::new() }.next(now_us)
    }

    /// The address after this one, or why there is none: what became of each.
    pub fn next(mut self, error: &io::Error, now_us: u64) -> Result<Self, String> {
        self.attempts.failed(self.address, error);
        self.attempts.next(now_us)
    }
}

impl Attempts {
    fn next(mut self, now_us: u64) -> Result<Connecting, String> {
        while let Some(&address) = self.target.resolved.get(self.tried) {
            let left = (self.target.resolved.len() - self.tried) as u64;
            let share_us = self.give_up_us.saturating_sub(now_us) / left;
            self.tried += 1;
            if share_us == 0 {
                self.failed(address, &io::ErrorKind::TimedOut.into());
                continue;
            }
            match socket::connectable(address) {
                Ok(socket) => {
                    let deadline_us = now_us.saturating_add(share_us).min(NEVER - 1);
                    return Ok(Connecting { socket, address, op: None, deadline_us, attempts: self });
                }
                Err(error) => self.failed(address, &error),
            }
        }
        if self.tried == 0 {
            return Err(format!("{} has no known address", self.target.address));
        }
        Err(self.failures)
    }

    fn failed(&mut self, address: SocketAddr, error: &io::Error) {
        if !self.failures.is_empty() {
            self.failures.push_str("; ");
        }
        let cancelled = error.raw_os_error() == Some(libc::ECANCELED);
        let why = if cancelled { "no answer in time".to_string() } else { error.to_string() };
        self.failures.push_str(&format!("{address}: {why}"));
    }
}
