//! The control thread: everything that is not on the way of a statement.
//!
//! ```text
//!   shards --ToControl--> inbox --> Core: sessions, tickets, keys, catalogues --posters--> shards
//!                                    ^                  ^
//!              lockgate.sock (api.rs)+   signals, timers+     ops listener (ops.rs) reads the cells
//! ```
//! One std thread with a current-thread runtime. What takes long runs as a task or on a worker and comes back to the core,
//! which is only ever held for a moment.

mod api;
mod board;
mod cancel;
mod catalogue;
mod certificates;
pub mod client;
mod core;
mod derive;
mod doors;
mod hangups;
mod http;
pub mod limits;
mod login_guard;
mod lookout;
mod ops;
mod reload;
mod sessions;
mod socket;
mod target_link;
mod ticket_file;
mod time;

pub use certificates::{CertificateError, Certificates, not_a_pair};
pub use doors::Doors;
pub use hangups::Hangups;
pub use socket::{Claim, ClaimError};

use self::core::Core;
use crate::address;
use crate::audit::SealerTrouble;
use crate::audit::archive::supervise::ArchiveWatch;
use crate::audit::sinks::Sinks;
use crate::config::Config;
use crate::identity::KeyKeeper;
use crate::metrics::ShardCounters;
use crate::shard::mailbox::{ToControl, ToShard};
use crate::snapshot::{self, BuildError, Snapshot};
use crate::{threads, workers};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Puts a message into one shard's mailbox. Never blocks; a message to a shard that is gone is dropped.
pub type Poster = Box<dyn Fn(ToShard) + Send>;

/// Reads the configuration again; the error is the report to print.
pub type Loader = Box<dyn Fn() -> Result<Config, Refused> + Send + Sync>;

/// Why a configuration is not taken into use.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// The whole report, for the log and for whoever asked.
    pub report: String,
    /// One line of it, for the trail; empty: the report's first.
    pub reason: String,
    /// [`Config::hash`] of what was read, if anything was.
    pub hash: Option<String>,
}

impl From<String> for Refused {
    fn from(report: String) -> Self {
        Self { report, ..Self::default() }
    }
}

/// What a gateway starts with: the first snapshot, and who keeps the issuers' keys in it current.
pub struct Prepared {
    pub snapshot: Arc<Snapshot>,
    pub keys: KeyKeeper,
    /// Odd, but no reason not to start.
    pub warnings: Vec<String>,
}

/// Fetches the issuers' keys and builds the first snapshot. An issuer that does not answer is a warning: its tokens are
/// refused until it does. Blocks for as long as that takes.
pub fn prepare(config: &Config) -> Result<Prepared, PrepareError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PrepareError::Runtime)?;
    let mut keys = KeyKeeper::new(&config.issuers);
    runtime.block_on(keys.refresh_due());
    runtime.shutdown_background();
    let built = snapshot::build(config, 1, keys.verifier())?;
    let mut warnings = built.warnings;
    warnings.extend(keys.without_keys().map(|issuer| format!("issuer `{issuer}`: no key of it is known yet")));
    Ok(Prepared { snapshot: Arc::new(built.snapshot), keys, warnings })
}

/// Why there is no first snapshot.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("no runtime to fetch keys with: {0}")]
    Runtime(std::io::Error),
}

/// What the control thread works with.
pub struct ControlOptions {
    /// Taken before anything else touches the folder.
    pub claim: Claim,
    pub config: Config,
    /// What the shards have started with.
    pub snapshot: Arc<Snapshot>,
    pub keys: KeyKeeper,
    /// Of the listeners the shards have opened.
    pub certificates: Certificates,
    /// `None`: there is no file behind the configuration, a reload is refused.
    pub load: Option<Loader>,
    /// One per shard, in their order.
    pub shards: Vec<Poster>,
    pub counters: Vec<Arc<ShardCounters>>,
    /// The shards' own counts, of sockets and bytes.
    pub sockets: Vec<Arc<crate::shard::Counters>>,
    pub inbox: UnboundedReceiver<ToControl>,
    /// `None`: nobody archives.
    pub archive: Option<ArchiveWatch>,
    /// TERM and INT drain, HUP reloads, also one that came before. `None`: the caller has signals of its own.
    pub signals: Option<Hangups>,
    /// Replaced by a reload.
    pub sinks: Arc<Sinks>,
    pub sealer: SealerTrouble,
}

/// Why the control thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the ops listener ([ops] address, --ops-address) cannot use {address}: {}", address::refusal(*address, error))]
    Ops { address: SocketAddr, error: std::io::Error },
    #[error("the control socket {path} cannot be made: {error}")]
    Socket { path: PathBuf, error: std::io::Error },
    #[error("the ticket file in {path} cannot be used: {error}")]
    Tickets { path: PathBuf, error: std::io::Error },
    #[error("no control thread: {0}")]
    Thread(std::io::Error),
    #[error("the workers of the control thread did not start: {0} (to have more: {RAISE})", RAISE = threads::RAISE)]
    Workers(std::io::Error),
}

/// What can be asked of a running control thread from inside the process.
#[derive(Debug)]
pub(crate) enum Order {
    Drain { now: bool },
    Reload,
}

/// The running control thread.
pub struct ControlHandle {
    thread: std::thread::JoinHandle<Result<(), String>>,
    orders: UnboundedSender<Order>,
    ops_address: SocketAddr,
}

impl ControlHandle {
    /// Where the ops listener ended up: of interest when port 0 was asked for.
    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Stop accepting and end when the sessions are idle; `now`: at once.
    pub fn drain(&self, now: bool) {
        // A control thread that has ended needs no order.
        let _ = self.orders.send(Order::Drain { now });
    }

    pub fn reload(&self) {
        let _ = self.orders.send(Order::Reload);
    }

    /// Until every shard has ended. The error is the first fault of a shard, or the control thread's own.
    pub fn wait(self) -> Result<(), String> {
        self.thread.join().unwrap_or_else(|_| Err("the control thread panicked".into()))
    }
}

/// Starts the thread, which answers at these doors from then on.
pub fn start(options: ControlOptions, doors: Doors) -> Result<ControlHandle, StartError> {
    let Doors { ops, ops_address, socket } = doors;
    let runtime =
        workers::runtime(limits::workers(options.shards.len()), "control-worker").map_err(StartError::Workers)?;
    let core = Core::new(options)?;
    let (orders, ordered) = unbounded_channel();
    let thread = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || core::run(runtime, core, socket, ops, ordered))
        .map_err(StartError::Thread)?;
    Ok(ControlHandle { thread, orders, ops_address })
}

#[cfg(test)]
mod test_postgres;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_targets;
