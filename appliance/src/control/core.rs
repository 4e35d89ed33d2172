//! What the control thread knows, and what it does about each piece of news.

use super::board::{AskError, Board, Effect};
use super::catalogue::{self, Catalogues, Place, Start};
use super::derive::{Derived, KeyOf, Wanted};
use super::limits::{CANCELS_MAX, FAULT_DRAIN, SHORT_TEXT_BYTES_MAX, readers};
use super::reload::Reloader;
use super::sessions::Sessions;
use super::socket::Socket;
use super::ticket_file::TicketFile;
use super::time::now_us;
use super::{ControlOptions, Hangups, Order, Poster, StartError, api, cancel, lookout, ops, reload};
use crate::approval::{Ruling, Ticket, TicketId};
use crate::audit::sinks::Sinks;
use crate::config::Change;
use crate::gate::Unread;
use crate::metrics::{ControlCounters, Scrape, TrailRing};
use crate::shard::mailbox::{Cancel, RelayId, SessionInfo, ToControl, ToShard};
use crate::snapshot::{Snapshot, Target};
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, Semaphore};

/// The core, what the shards tell it, and the signals it follows, if any.
type Ready = (Arc<Core>, UnboundedReceiver<ToControl>, Option<Hangups>);

/// Shared by the tasks of the control thread. The lock is held for a moment and never across an await.
pub struct Core {
    state: Mutex<State>,
    /// A deadline may have come nearer.
    wake: Notify,
    pub counters: Arc<ControlCounters>,
    pub scrape: Arc<Scrape>,
    pub reloader: tokio::sync::Mutex<Reloader>,
    cancels: Arc<Semaphore>,
    /// Texts that are read at a time: as many as there are shards, which would have read them otherwise.
    short_readers: Semaphore,
    long_readers: Semaphore,
    pub sinks: Arc<Sinks>,
    pub started_us: i64,
    /// Where the gateway listens: a reload changes none of it.
    pub addresses: Vec<SocketAddr>,
}

/// What a shard has come to.
pub enum ShardEnd {
    Drained,
    Fault(String),
}

/// How far shutting down has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Draining {
    No,
    WhenIdle,
    Now,
}

pub struct State {
    pub board: Board,
    tickets: TicketFile,
    pub sessions: Sessions,
    derived: Derived,
    catalogues: Catalogues,
    pub snapshot: Arc<Snapshot>,
    shards: Vec<Poster>,
    /// By shard; `None`: it runs.
    pub ended: Vec<Option<ShardEnd>>,
    pub draining: Draining,
    /// When a drain that is not `now` becomes one.
    drain_deadline: Option<Instant>,
    /// So long after TERM. `None`: never.
    drain_timeout: Option<Duration>,
    pub last_reload: Option<reload::Outcome>,
    /// What the file said at the last reload and the process cannot do before its next start.
    pub needs_restart: Vec<Change>,
    // Held as long as the control thread lives.
    _claim: super::Claim,
}

impl Core {
    pub fn new(options: ControlOptions) -> Result<Ready, StartError> {
        let data_dir = options.claim.data_dir().to_owned();
        let now = now_us();
        let (tickets, board) =
            TicketFile::open(&data_dir, now).map_err(|error| StartError::Tickets { path: data_dir, error })?;
        let counters = Arc::new(ControlCounters::default());
        counters.snapshot_version.store(options.snapshot.version, Relaxed);
        let state = State {
            board,
            tickets,
            sessions: Sessions::default(),
            derived: Derived::default(),
            catalogues: Catalogues::default(),
            snapshot: options.snapshot,
            ended: options.shards.iter().map(|_| None).collect(),
            shards: options.shards,
            draining: Draining::No,
            drain_deadline: None,
            drain_timeout: options.config.server.drain_timeout,
            last_reload: None,
            needs_restart: Vec::new(),
            _claim: options.claim,
        };
        let readers = readers(state.shards.len());
        let addresses = options.config.addresses().map(|(_, address)| address).collect();
        let core = Core {
            state: Mutex::new(state),
            wake: Notify::new(),
            scrape: Arc::new(Scrape {
                shards: options.counters,
                sockets: options.sockets,
                control: counters.clone(),
                archive: options.archive,
                sinks: options.sinks.board(),
                sealer: options.sealer,
                ring: TrailRing::of(&options.config.audit),
            }),
            counters,
            reloader: tokio::sync::Mutex::new(Reloader::new(
                options.config,
                options.load,
                options.keys,
                options.certificates,
            )),
            cancels: Arc::new(Semaphore::new(CANCELS_MAX)),
            short_readers: Semaphore::new(readers),
            long_readers: Semaphore::new(readers),
            sinks: options.sinks,
            started_us: now,
            addresses,
        };
        Ok((Arc::new(core), options.inbox, options.signals))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the core")
    }

    fn handle(self: &Arc<Self>, message: ToControl) {
        match message {
            ToControl::SessionOpened(info) => self.state().session_opened(*info),
            ToControl::SessionClosed(key) => self.state().sessions.closed(key),
            ToControl::Ask(ticket) => self.ask(*ticket),
            ToControl::Abandon(id) => self.abandon(&id),
            ToControl::Derive { shard, relay, target, salt, iterations } => {
                self.derive((shard, relay), &target, salt, iterations);
            }
            ToControl::Catalogue { shard, relay, target, not_before_us } => {
                self.catalogue((shard, relay), target, not_before_us);
            }
            ToControl::Read { shard, relay, unread } => self.read_text((shard, relay), unread),
            ToControl::NamesMoved { shard, target } => {
                let moved = |post: &Poster| post(ToShard::NamesMoved { target: target.clone(), from: shard });
                self.state().shards.iter().for_each(moved);
            }
            ToControl::Cancel { process, secret, waiter } => self.cancel(process, &secret, waiter),
            ToControl::PassCancel(cancel) => self.pass_cancel(*cancel),
            ToControl::CancelHeld { ticket, waiter } => {
                self.counters.cancels.fetch_add(1, Relaxed);
                self.abandon(&ticket);
                self.state().cancelled(waiter);
            }
            ToControl::Ended { shard, fault } => self.shard_ended(shard, fault),
        }
    }

    fn ask(&self, ticket: Ticket) {
        self.counters.approvals_total.fetch_add(1, Relaxed);
        let mut state = self.state();
        let refused = match state.board.admits(&ticket) {
            Err(AskError::Duplicate) => Some("a ticket of this id is there already"),
            Err(AskError::Full) => Some("too many statements wait for approval"),
            Ok(()) => match state.tickets.asked(&ticket) {
                Ok(()) => None,
                Err(error) => {
                    tracing::error!(%error, ticket = %ticket.id, "the ticket file cannot be written");
                    Some("the ticket could not be recorded")
                }
            },
        };
        let Some(reason) = refused else {
            tracing::info!(ticket = %ticket.id, user = ticket.user, target = ticket.target, rule = ticket.rule, "approval asked");
            state.board.ask(ticket);
            state.settle(&self.counters);
            drop(state);
            self.wake.notify_one();
            return;
        };
        let ruling = Ruling::Rejected { by: "lockgate".into(), reason: reason.into() };
        state.post(ticket.shard, ToShard::Ruling { relay: ticket.relay, ticket: ticket.id, ruling });
    }

    fn derive(self: &Arc<Self>, waiter: (usize, RelayId), target: &Arc<Target>, salt: Vec<u8>, iterations: u32) {
        let mut state = self.state();
        let key = match KeyOf::new(target, &salt, iterations) {
            Ok(key) => key,
            Err(error) => return state.post(waiter.0, ToShard::Keys { relay: waiter.1, keys: Err(error) }),
        };
        match state.derived.want(&key, waiter) {
            Wanted::Answer(keys) => state.post(waiter.0, ToShard::Keys { relay: waiter.1, keys: Ok(keys) }),
            Wanted::Wait => {}
            Wanted::Derive => {
                let (core, target) = (self.clone(), target.clone());
                tokio::spawn(async move {
                    let work = move || codecs::postgres::Session::<()>::derive(&target.password, &salt, iterations);
                    let keys = tokio::task::spawn_blocking(work).await;
                    core.state().derived_keys(key, keys.ok());
                });
            }
        }
    }

    fn read_text(self: &Arc<Self>, (shard, relay): (usize, RelayId), unread: Box<Unread>) {
        let core = self.clone();
        tokio::spawn(async move {
            let is_short = unread.bytes() <= SHORT_TEXT_BYTES_MAX;
            let readers = if is_short { &core.short_readers } else { &core.long_readers };
            let _turn = readers.acquire().await.expect("nobody closes it");
            if !unread.is_awaited() {
                return;
            }
            let unreadable = unread.unreadable();
            let read = tokio::task::spawn_blocking(move || unread.read()).await.unwrap_or(unreadable);
            core.state().post(shard, ToShard::Read { relay, read });
        });
    }

    fn catalogue(self: &Arc<Self>, waiter: (usize, RelayId), target: Arc<Target>, not_before_us: i64) {
        let place = Place::of(&target);
        let mut state = self.state();
        match state.catalogues.want(place, waiter, not_before_us, now_us()) {
            Ok(found) => state.post(waiter.0, ToShard::Catalogue { relay: waiter.1, catalogue: Ok(found) }),
            Err(Some(start)) => {
                tokio::spawn(self.clone().read_catalogue(target, start));
            }
            Err(None) => {}
        }
    }

    /// Reads until nobody waits for a newer reading.
    async fn read_catalogue(self: Arc<Self>, target: Arc<Target>, mut start: Start) {
        let place = Place::of(&target);
        loop {
            tokio::time::sleep(start.after).await;
            let time_us = self.state().catalogues.begin(&place, now_us());
            let result = catalogue::read(&target).await.map(Arc::new);
            if let Err(error) = &result {
                tracing::warn!(target = target.name, error, "the catalogue cannot be read");
            }
            let mut state = self.state();
            let (told, next) = state.catalogues.read(&place, time_us, &result, now_us());
            for (shard, relay) in told {
                let catalogue = result.clone().map(|catalogue| (time_us, catalogue));
                state.post(shard, ToShard::Catalogue { relay, catalogue });
            }
            match next {
                Some(next) => start = next,
                None => return,
            }
        }
    }

    fn abandon(&self, ticket: &TicketId) {
        let mut state = self.state();
        state.board.abandon(ticket, now_us());
        state.settle(&self.counters);
    }

    /// An unknown key is no news to anybody: PostgreSQL ignores it as well. What a known one ends, the session's own shard knows.
    fn cancel(&self, process: i32, secret: &[u8], waiter: Option<(usize, RelayId)>) {
        let state = self.state();
        let live = state.sessions.by_cancel_key(process, secret);
        let found = live.and_then(|live| {
            let (target, secret) = (live.target.clone()?, live.info.target_secret.clone());
            Some((live.info.key.place(), Box::new(Cancel { target, process, secret, waiter })))
        });
        let Some(((shard, relay), cancel)) = found else {
            self.counters.cancels_unknown.fetch_add(1, Relaxed);
            return state.cancelled(waiter);
        };
        state.post(shard, ToShard::Cancel { relay, cancel });
    }

    fn pass_cancel(self: &Arc<Self>, Cancel { target, process, secret, waiter }: Cancel) {
        let Ok(permit) = self.cancels.clone().try_acquire_owned() else {
            self.counters.cancels_unknown.fetch_add(1, Relaxed);
            return self.state().cancelled(waiter);
        };
        self.counters.cancels.fetch_add(1, Relaxed);
        let core = self.clone();
        tokio::spawn(async move {
            if let Err(error) = cancel::send(&target, process, &secret).await {
                tracing::warn!(target = target.name, %error, "a cancel request did not reach its target");
            }
            core.state().cancelled(waiter);
            drop(permit);
        });
    }

    fn shard_ended(&self, shard: usize, fault: Option<String>) {
        let mut state = self.state();
        state.board.abandon_shard(shard, now_us());
        state.sessions.shard_ended(shard);
        state.settle(&self.counters);
        if let Some(fault) = &fault {
            tracing::error!(shard, fault, "a shard cannot go on: draining the others");
        }
        let failed = fault.is_some();
        if let Some(end) = state.ended.get_mut(shard) {
            *end = Some(fault.map_or(ShardEnd::Drained, ShardEnd::Fault));
        }
        if failed {
            state.drain(Draining::WhenIdle);
            state.drain_within(FAULT_DRAIN);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// When something has to happen without news.
    fn next_deadline(&self) -> Option<Duration> {
        let state = self.state();
        let expiry = state.board.next_expiry_us();
        let expiry = expiry.map(|at| Duration::from_micros(u64::try_from(at - now_us()).unwrap_or(0)));
        let drain = state.drain_deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // The wall clock may be set: look again at least this often.
        [expiry, drain].into_iter().flatten().min().map(|wait| wait.min(Duration::from_secs(10)))
    }

    fn deadlines_passed(&self) {
        let mut state = self.state();
        state.board.expire(now_us());
        state.settle(&self.counters);
        if state.drain_deadline.is_some_and(|at| at <= Instant::now()) {
            state.drain_deadline = None;
            state.drain(Draining::Now);
        }
    }

    /// TERM once: when idle, or when the configured time is over. Twice: now.
    fn terminate(&self) {
        let mut state = self.state();
        let next = if state.draining == Draining::No { Draining::WhenIdle } else { Draining::Now };
        state.drain(next);
        drop(state);
        self.wake.notify_one();
    }
}

impl State {
    fn session_opened(&mut self, info: SessionInfo) {
        let target = self.snapshot.target(info.who.target()).cloned();
        self.sessions.opened(info, target);
    }

    /// The connection that brought a cancel request may close.
    fn cancelled(&self, waiter: Option<(usize, RelayId)>) {
        if let Some((shard, relay)) = waiter {
            self.post(shard, ToShard::Cancelled { relay });
        }
    }

    fn derived_keys(&mut self, key: KeyOf, keys: Option<codecs::postgres::ScramKeys>) {
        for (shard, relay) in self.derived.done(key, keys.clone()) {
            let keys = keys.clone().ok_or_else(|| "deriving the keys failed".to_string());
            self.post(shard, ToShard::Keys { relay, keys });
        }
    }

    /// Does what the board wants done: first the file, then the shards.
    pub fn settle(&mut self, counters: &ControlCounters) {
        for effect in self.board.take_effects() {
            match effect {
                Effect::Note(note) => {
                    // The journal keeps the ruling; without this line a restart merely calls the ticket expired.
                    if let Err(error) = self.tickets.noted(&note) {
                        tracing::error!(%error, "the ticket file cannot be written");
                    }
                }
                Effect::Post { shard, relay, ticket, ruling } => {
                    tracing::info!(%ticket, ruling = ruling.name(), "approval ended");
                    self.post(shard, ToShard::Ruling { relay, ticket, ruling });
                }
            }
        }
        self.tickets.rewrite_when_grown(&self.board);
        counters.approvals_pending.store(self.board.pending() as u64, Relaxed);
    }

    pub fn post(&self, shard: usize, message: ToShard) {
        match self.shards.get(shard) {
            Some(post) => post(message),
            None => tracing::error!(shard, "a message for a shard that does not exist"),
        }
    }

    /// A line about the gateway itself in the trail of every shard.
    pub fn record_everywhere(&self, detail: &str) {
        self.shards.iter().for_each(|post| post(ToShard::Record(detail.to_owned())));
    }

    /// The same in one trail: that of the first shard that runs.
    pub fn record_once(&self, detail: &str) {
        let running = self.ended.iter().position(Option::is_none).unwrap_or(0);
        self.post(running, ToShard::Record(detail.to_owned()));
    }

    /// All shards work from this from their next message on.
    pub fn replace_snapshot(&mut self, snapshot: Arc<Snapshot>, counters: &ControlCounters) {
        counters.snapshot_version.store(snapshot.version, Relaxed);
        self.catalogues.keep_only(&snapshot.targets);
        self.snapshot = snapshot.clone();
        self.shards.iter().for_each(|post| post(ToShard::Snapshot(snapshot.clone())));
    }

    /// Only ever towards `Now`.
    fn drain(&mut self, to: Draining) {
        if to <= self.draining {
            return;
        }
        self.draining = to;
        if let Some(timeout) = self.drain_timeout.filter(|_| to == Draining::WhenIdle) {
            self.drain_within(timeout);
        }
        tracing::info!(now = to == Draining::Now, sessions = self.sessions.len(), "draining");
        self.shards.iter().for_each(|post| post(ToShard::Drain { now: to == Draining::Now }));
    }

    /// What is left then is ended.
    fn drain_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.drain_deadline = Some(self.drain_deadline.map_or(at, |before| before.min(at)));
    }

    /// Every shard has said that it ended: the first fault among them, if any.
    fn outcome(&self) -> Option<Result<(), String>> {
        let ends: Option<Vec<_>> = self.ended.iter().map(Option::as_ref).collect();
        let fault = ends?.into_iter().enumerate().find_map(|(shard, end)| match end {
            ShardEnd::Fault(fault) => Some(format!("shard {shard}: {fault}")),
            ShardEnd::Drained => None,
        });
        Some(fault.map_or(Ok(()), Err))
    }
}

/// The thread.
pub fn run(
    runtime: Runtime,
    (core, inbox, hangups): Ready,
    socket: Socket,
    ops: TcpListener,
    orders: UnboundedReceiver<Order>,
) -> Result<(), String> {
    let path = socket.path.clone();
    let result = runtime.block_on(serve(core, inbox, hangups, socket, ops, orders));
    // Nobody is behind it any more. A failure leaves a stale file, which the next start replaces.
    let _ = std::fs::remove_file(path);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(
    core: Arc<Core>,
    inbox: UnboundedReceiver<ToControl>,
    hangups: Option<Hangups>,
    socket: Socket,
    ops: TcpListener,
    orders: UnboundedReceiver<Order>,
) -> Result<(), String> {
    let ops = tokio::net::TcpListener::from_std(ops).map_err(|error| format!("ops listener: {error}"))?;
    tokio::spawn(ops::serve(ops, core.clone()));
    let listener =
        tokio::net::UnixListener::from_std(socket.listener).map_err(|error| format!("control socket: {error}"))?;
    tokio::spawn(api::serve(listener, socket.owner, core.clone()));
    tokio::spawn(reload::keep_addresses(core.clone()));
    tokio::spawn(reload::keep_keys(core.clone()));
    tokio::spawn(reload::keep_sinks(core.clone()));
    tokio::spawn(lookout::keep(core.clone()));
    if let Some(hangups) = hangups {
        tokio::spawn(follow_signals(core.clone(), hangups));
    }
    follow(core, inbox, orders).await
}

async fn follow(
    core: Arc<Core>,
    mut inbox: UnboundedReceiver<ToControl>,
    mut orders: UnboundedReceiver<Order>,
) -> Result<(), String> {
    loop {
        if let Some(outcome) = core.state().outcome() {
            return outcome;
        }
        let deadline = core.next_deadline();
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) => core.handle(message),
                None => return Err("all shards are gone without a word".into()),
            },
            Some(order) = orders.recv() => match order {
                Order::Drain { now } => core.state().drain(if now { Draining::Now } else { Draining::WhenIdle }),
                Order::Reload => { tokio::spawn(reload::reload(core.clone())); }
            },
            () = sleep(deadline) => core.deadlines_passed(),
            () = core.wake.notified() => {}
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn follow_signals(core: Arc<Core>, mut hangups: Hangups) {
    let streams = || Ok::<_, std::io::Error>((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
    let (mut term, mut int) = match streams() {
        Ok(streams) => streams,
        Err(error) => return tracing::error!(%error, "signals cannot be followed"),
    };
    loop {
        tokio::select! {
            Some(()) = term.recv() => core.terminate(),
            Some(()) = int.recv() => core.terminate(),
            Some(()) = hangups.next() => { tokio::spawn(reload::reload(core.clone())); }
            else => return,
        }
    }
}
