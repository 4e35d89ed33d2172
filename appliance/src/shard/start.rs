//! Starting a shard: its listeners are bound and its ring exists before `start` returns.

use super::accept::{self, Acceptor, ListenerOptions};
use super::balance::{Balance, Place};
use super::counters::Counters;
use super::io::{Deadlines, Io};
use super::journal::Ledger;
use super::log::{Mode, ShardLog};
use super::mailbox::{Mailbox, Post, ToControl};
use super::pump::Pump;
use super::rest::Awake;
use super::ring::{Ring, RingSizes};
use super::spin::Spin;
use super::turn;
use crate::gate::{Context, Drive, Now, Origin, Shared};
use crate::limits::RELAYS_MAX;
use crate::snapshot::Snapshot;
use slab::Slab;
use std::collections::VecDeque;
use std::io as stdio;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

#[derive(Clone)]
pub struct ShardOptions {
    pub number: usize,
    /// How the shards even out their connections; shared by all of them.
    pub balance: Arc<Balance>,
    /// Keep the shard on the core of its number.
    pub pin: bool,
    /// Look for completions at most this long before sleeping.
    pub spin_us: u64,
    pub listeners: Vec<ListenerOptions>,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    pub buffer_bytes: u32,
    pub ring_entries: u32,
    /// When a record counts as safe, and how often records are brought to stable storage.
    pub durability: Mode,
    pub commit_interval: Duration,
    /// Connections at one time. Beyond: turned away.
    pub relays_max: usize,
    pub deadlines: Deadlines,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            number: 0,
            balance: Arc::default(),
            pin: false,
            spin_us: 0,
            listeners: Vec::new(),
            buffers: 1024,
            buffer_bytes: 16 << 10,
            ring_entries: 1024,
            durability: Mode::Group,
            commit_interval: Duration::from_millis(5),
            relays_max: RELAYS_MAX,
            deadlines: Deadlines::default(),
        }
    }
}

/// A running shard.
pub struct ShardHandle {
    pub number: usize,
    pub post: Post,
    pub counters: Arc<Counters>,
    /// Where it listens, in the order of the options; a port of 0 has become a real one.
    pub addresses: Vec<SocketAddr>,
    thread: JoinHandle<()>,
}

impl ShardHandle {
    /// Waits until the shard has ended.
    pub fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// Everything that moves to the shard's thread.
struct Seed<F> {
    options: ShardOptions,
    listeners: Vec<TcpListener>,
    mailbox: Mailbox,
    snapshot: Arc<Snapshot>,
    log: Box<dyn ShardLog + Send>,
    to_control: UnboundedSender<ToControl>,
    counters: Arc<Counters>,
    factory: F,
}

/// Binds the listeners, starts the shard's thread and waits until its ring is ready.
pub fn start<D, F>(
    options: ShardOptions,
    snapshot: Arc<Snapshot>,
    log: Box<dyn ShardLog + Send>,
    to_control: UnboundedSender<ToControl>,
    factory: F,
) -> stdio::Result<ShardHandle>
where
    D: Drive + 'static,
    F: Fn(Origin, &mut Context<'_>) -> D + Send + 'static,
{
    let listeners = options.listeners.iter().map(accept::bind).collect::<stdio::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<stdio::Result<Vec<_>>>()?;
    let (mailbox, post) = Mailbox::new()?;
    let counters = Arc::new(Counters::default());
    let number = options.number;
    let (allowed, pin) = (super::ring::socket::cores()?, options.pin);
    let seed = Seed { options, listeners, mailbox, snapshot, log, to_control, counters: counters.clone(), factory };
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
        let core = allowed[number % allowed.len()];
        let executor = match turn::executor(core, (!pin).then_some(&allowed[..])) {
            Ok(executor) => executor,
            Err(error) => {
                let _ = ready.send(Err(stdio::Error::other(format!("shard {number}: {error}"))));
                return;
            }
        };
        executor.run(async move {
            match seed.grow() {
                Ok(pump) => {
                    let _ = ready.send(Ok(()));
                    // Broken shard-wide state must not serve on: a panic past the relays' guards ends the process.
                    let bomb = AbortOnPanic;
                    pump.run().await;
                    std::mem::forget(bomb);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        });
    })?;
    is_ready.recv().map_err(|_| stdio::Error::other(format!("shard {number} ended while it started")))??;
    Ok(ShardHandle { number, post, counters, addresses, thread })
}

impl<F> Seed<F> {
    fn grow<D>(self) -> stdio::Result<Pump<D>>
    where
        D: Drive,
        F: Fn(Origin, &mut Context<'_>) -> D + 'static,
    {
        let options = self.options;
        let sizes =
            RingSizes { entries: options.ring_entries, buffers: options.buffers, buffer_bytes: options.buffer_bytes };
        let acceptors = self.listeners.into_iter().zip(options.listeners);
        let ledger = Ledger::new(options.durability, options.commit_interval.as_micros() as u64);
        let io = Io {
            number: options.number,
            ring: Ring::new(sizes)?,
            pool: Default::default(),
            timers: Default::default(),
            counters: self.counters,
            snapshot: self.snapshot,
            factory: Box::new(self.factory),
            log: self.log,
            control: Vec::new(),
            shared: Shared::default(),
            deadlines: options.deadlines,
            now: Now::default(),
            out: Default::default(),
            later: VecDeque::new(),
            starved: Vec::new(),
            unheard: Default::default(),
            waiting_for_room: Vec::new(),
            awake: Awake::default(),
            round: 1,
            safe: ledger.safe_at_start(),
        };
        Ok(Pump {
            io,
            relays: Slab::new(),
            acceptors: acceptors.map(|(listener, options)| Acceptor::new(listener, options)).collect(),
            mailbox: self.mailbox,
            mail: None,
            to_control: self.to_control,
            place: Place::new(options.balance, options.number),
            ledger,
            spin: Spin::new(options.spin_us),
            relays_max: options.relays_max,
            generation: 0,
            draining: false,
            owed: VecDeque::new(),
            cancels: Vec::new(),
            deferred: Vec::new(),
            turn: 0,
            look_us: 0,

            fault: None,
        })
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
