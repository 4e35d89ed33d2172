//! Everything one core owns: sockets, relays, gates, buffers, the segment being written.

mod accept;
mod balance;
mod bare;
mod connect;
mod counters;
mod end;
mod io;
mod journal;
mod log;
pub mod mailbox;
mod probe;
mod pump;
mod relay;
mod rest;
mod ring;
mod spin;
mod start;
pub mod timers;
mod tls;
pub mod turn;
mod watch;
mod windows;

#[cfg(test)]
mod tests;

pub use accept::{ListenerOptions, ListenerTls, must_be_free};
pub use balance::Balance;
pub use bare::BareRelay;
pub use counters::Counters;
pub use io::Deadlines;
pub use log::{Mode, NoLog, RoundLog, ShardLog};
pub use mailbox::Post;
pub use probe::{Finding, probe};
pub use pump::mono_us;
pub use ring::socket::{peer_has_left, unacknowledged};
pub use ring::{let_go_of_code, map};
pub use start::{ShardHandle, ShardOptions, start};
pub use tls::{ALPN, end_point_binding};
pub use watch::Watch;
