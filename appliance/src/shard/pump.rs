//! The loop of a shard: submit what is queued, reap, hand each completion to its relay, write the record, repeat.

use super::accept::Acceptor;
use super::balance::Place;
use super::counters::Counters;
use super::io::Io;
use super::journal::Ledger;
use super::mailbox::{Cancel, Mailbox, RelayId, ToControl, ToShard};
use super::relay::{self, Relay};
use super::ring::{Completion, OpId, Raw, Thread};
use super::spin::Spin;
use super::turn;
use crate::audit::{Entry, NOBODY};
use crate::gate::{Cancels, Drive, Input, Now};
use slab::Slab;
use std::collections::VecDeque;
use std::io as stdio;
use std::net::TcpStream;
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;

/// The clock all shards and the control thread share: microseconds since the process first asked.
pub fn mono_us() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { mono_us: mono_us(), unix_us: unix.as_micros() as i64 }
}

/// A shard, ready to run.
pub struct Pump<D> {
    pub io: Io<D>,
    pub relays: Slab<Box<Relay<D>>>,
    pub acceptors: Vec<Acceptor>,
    pub mailbox: Mailbox,
    /// The read of its eventfd.
    pub mail: Option<OpId>,
    pub to_control: UnboundedSender<ToControl>,
    /// Which of the shards takes a new connection.
    pub place: Place,
    pub ledger: Ledger,
    pub spin: Spin,
    pub relays_max: usize,
    pub generation: u32,
    pub draining: bool,
    /// Records about the gateway that the trail has no room for yet: they go before any other.
    pub owed: VecDeque<String>,
    /// Cancel requests for sessions of this shard, to be passed on behind the statements they are for.
    pub cancels: Vec<(RelayId, Box<Cancel>)>,
    /// Receives whose relay has had its share of the round they came in: the next one begins with them.
    pub deferred: Vec<Raw>,
    /// Counts the rounds.
    pub turn: u64,
    /// When the log is looked at again.
    pub look_us: u64,
    /// Why the shard stops.
    pub fault: Option<String>,
}

impl<D: Drive> Pump<D> {
    /// Runs until drained or until the record cannot be kept.
    pub async fn run(mut self) {
        self.io.now = now();
        self.io.counters.thread.set(Thread::current().0);
        self.mail = Some(self.io.ring.mail(&self.mailbox.eventfd));
        for (number, acceptor) in self.acceptors.iter_mut().enumerate() {
            acceptor.start(number, &mut self.io.ring);
        }
        let mut last_turn_us = self.io.now.mono_us;
        let mut completions: Vec<Raw> = Vec::with_capacity(1024);
        while !self.is_over() {
            if self.io.now.mono_us >= last_turn_us + turn::PERIOD_US {
                self.io.counters.asleep.set(1);
                turn::take().await;
                self.io.counters.asleep.set(0);
                last_turn_us = mono_us();
            }
            if let Err(error) = self.wait(last_turn_us + turn::PERIOD_US, &mut completions) {
                self.fail(format!("io_uring_enter: {error}"));
                break;
            }
            let before_us = self.io.now.mono_us;
            self.io.now = now();
            self.spin.waited(self.io.now.mono_us - before_us);
            self.round(&mut completions);
        }
        self.io.counters.round_us.set(Counters::ENDED);
        self.record_end();
        self.quiesce(&mut completions);
        let ended = ToControl::Ended { shard: self.io.number, fault: self.fault.take() };
        let _ = self.to_control.send(ended);
    }

    /// Waits, briefly, for the operations that belong to no relay, so that the ring's memory can be freed.
    fn quiesce(&mut self, completions: &mut Vec<Raw>) {
        self.mail.take().into_iter().for_each(|op| self.io.ring.cancel(op));
        self.io.ring.cancel_alarms();
        let give_up_us = mono_us() + QUIESCE_US;
        while self.io.ring.in_flight() > 0 && mono_us() < give_up_us {
            let now_us = mono_us();
            self.io.ring.wake_by(now_us + QUIESCE_STEP_US, now_us);
            if self.io.ring.wait().is_err() {
                return;
            }
            self.io.ring.reap(completions);
            completions.drain(..).for_each(|raw| drop(self.io.ring.complete(raw)));
        }
    }

    /// Drained, and the record of it kept to the last line; or beyond keeping one.
    fn is_over(&self) -> bool {
        let kept = self.fault.is_some() || self.draining && self.ledger.is_settled(&self.io);
        kept && self.relays.is_empty()
    }

    /// Submits and sleeps until there is something to do.
    fn wait(&mut self, next_turn_us: u64, completions: &mut Vec<Raw>) -> stdio::Result<()> {
        let mut until_us = next_turn_us.min(self.io.timers.next_us()).min(self.look_us);
        if self.fault.is_none() {
            until_us = until_us.min(self.ledger.next_us());
        }
        until_us = until_us.min(self.io.awake.next_us(self.io.now.mono_us));
        if self.awaits_room() {
            until_us = until_us.min(self.io.now.mono_us + ROOM_EVERY_US);
        }
        for acceptor in &self.acceptors {
            until_us = until_us.min(acceptor.resume_us);
        }
        if !self.deferred.is_empty() || !self.io.later.is_empty() {
            self.io.ring.look()?;
            self.io.ring.reap(completions);
            return Ok(());
        }
        if !self.spin(until_us, completions)? {
            self.io.ring.wake_by(until_us, self.io.now.mono_us);
            self.io.counters.asleep.set(1);
            let woken = self.io.ring.wait();
            self.io.counters.asleep.set(0);
            woken?;
            self.io.ring.reap(completions);
        }
        Ok(())
    }

    /// Looks for something to do, as long as that pays and no longer. Others who want the core get it: on a small machine the one whose
    /// message it is.
    fn spin(&mut self, until_us: u64, completions: &mut Vec<Raw>) -> stdio::Result<bool> {
        let for_us = self.spin.for_us();
        if for_us == 0 {
            return Ok(false);
        }
        let began_us = mono_us();
        let until_us = until_us.min(began_us + for_us);
        let mut now_us = began_us;
        while now_us < until_us {
            self.io.ring.peek()?;
            if self.io.ring.reap(completions) {
                break;
            }
            std::thread::yield_now();
            now_us = mono_us();
        }
        self.io.counters.spun_us.add(now_us - began_us);
        Ok(!completions.is_empty())
    }

    /// One round: everything that has happened, then the record of it, then the sends (many of them with the next enter).
    fn round(&mut self, completions: &mut Vec<Raw>) {
        self.io.counters.rounds.add(1);
        self.io.counters.round_us.set(self.io.now.mono_us);
        let decided_before = self.io.shared.counters.decided();
        self.record_owed();
        self.turn += 1;
        let deferred = std::mem::take(&mut self.deferred);
        for raw in deferred.into_iter().chain(completions.drain(..)) {
            if self.must_wait(&raw) {
                self.deferred.push(raw);
                continue;
            }
            let completion = self.io.ring.complete(raw);
            self.complete(completion);
        }
        self.keep_time();
        self.let_rest();
        self.offer_room();
        self.carry_on();
        self.look_at_log();
        self.commit_and_send(decided_before);
        self.pass_cancels();
        self.feed_starved();
        self.io.counters.buffers_held.set(self.io.ring.buffers().held() as u64);
        self.tell_control();
    }

    /// A cancel that overtook its statement would find nothing to cancel: it waits here until that is decided, and in strict mode until
    /// its record is safe.
    fn pass_cancels(&mut self) {
        for (id, cancel) in std::mem::take(&mut self.cancels) {
            let slot = id as u32;
            let cancels = match self.relays.get_mut(slot as usize).filter(|relay| relay.id() == id) {
                Some(_) if self.io.ring.holds_for_target_of(slot) => Cancels::Undecided,
                Some(relay) => relay.cancel(),
                None => Cancels::Running,
            };
            match cancels {
                Cancels::Undecided => self.cancels.push((id, cancel)),
                Cancels::Held(ticket) => self.io.control.push(ToControl::CancelHeld { ticket, waiter: cancel.waiter }),
                Cancels::Running => self.io.control.push(ToControl::PassCancel(cancel)),
            }
        }
    }

    /// What the round has for the control thread.
    fn tell_control(&mut self) {
        if self.fault.is_some() {
            // What was to be said rests on records that were never kept.
            self.io.control.clear();
        }
        for message in self.io.control.drain(..) {
            // The control thread is gone only when the process ends.
            let _ = self.to_control.send(message);
        }
    }

    /// The record of the round, then its sends; what those bring about is of the same round.
    fn commit_and_send(&mut self, decided_before: u64) {
        self.commit_or_fail();
        // Before anybody reads of it: whoever does may ask about it at once (rule on a ticket, cancel what waits for it).
        self.tell_control();
        self.tell_overhead(decided_before);
        self.io.ring.depart();
        while let Some(raw) = self.io.ring.departed() {
            let completion = self.io.ring.complete(raw);
            self.complete(completion);
        }
        // What followed goes through the ring: one relay's queue does not go out while its neighbours wait.
        self.commit_or_fail();
    }

    fn commit_or_fail(&mut self) {
        if self.fault.is_none()
            && let Err(reason) = self.commit()
        {
            self.fail(reason);
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        self.ledger.commit(self.relays.len() <= 1, &mut self.io)?;
        if self.draining && self.relays.is_empty() {
            self.ledger.hurry(self.io.now.mono_us);
        }
        // An append may have failed for good, and who was refused it waits for room.
        self.io.log.failed().map_or(Ok(()), |reason| Err(format!("no audit record is accepted any more: {reason}")))
    }

    /// What it finds is a failed log, which ends the round as a failed write does.
    fn look_at_log(&mut self) {
        if self.io.now.mono_us >= self.look_us {
            self.look_us = self.io.now.mono_us + LOOK_EVERY_US;
            self.io.log.look();
            self.io.ring.buffers_mut().relax();
            self.look_for_leavers();
        }
    }

    fn look_for_leavers(&mut self) {
        for id in std::mem::take(&mut self.io.unheard) {
            self.with_id(id, |relay, io| relay.listen(io));
        }
    }

    fn must_wait(&mut self, raw: &Raw) -> bool {
        match self.io.ring.receiver_of(raw) {
            Some((relay, side, bytes)) => self.relays[relay as usize].must_wait(side, bytes, self.turn, &mut self.io),
            None => false,
        }
    }

    fn record_owed(&mut self) {
        while let Some(detail) = self.owed.front() {
            if self.io.log.append(self.io.now.unix_us, &NOBODY, &Entry::Gateway { detail }).is_err() {
                return;
            }
            self.owed.pop_front();
        }
    }

    /// The last record of a shard that ends well. It may fail: the next start is on record whatever happens.
    fn record_end(&mut self) {
        if self.fault.is_some() {
            return;
        }
        self.owed.push_back("stopped: drained".to_owned());
        self.record_owed();
        if let Err(error) = self.io.log.write() {
            self.fail(format!("the last audit records could not be written: {error}"));
        }
        self.io.log.look();
        if let Some(reason) = self.io.log.failed().map(str::to_owned) {
            return self.fail(reason);
        }
        if let Err(error) = self.io.log.close() {
            self.fail(format!("the audit record could not be closed: {error}"));
        }
    }

    /// What this round's statements waited for us: from reading their bytes to having them ready to send.
    fn tell_overhead(&self, decided_before: u64) {
        let counters = &self.io.shared.counters;
        let decided = counters.decided() - decided_before;
        if decided > 0 {
            let spent_us = mono_us().saturating_sub(self.io.now.mono_us);
            counters.overhead.observe_many_ns(spent_us * 1_000, decided);
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { relay, side, received, last } => {
                self.spin.heard(relay);
                self.with(relay, |relay, io| relay.received(side, received, last, io));
            }
            Completion::Sent { relay, side, payload, result } => {
                self.with(relay, |relay, io| relay.sent(side, payload, result, io));
            }
            Completion::Connected { relay, result } => self.with(relay, |relay, io| relay.connected(result, io)),
            Completion::Accepted { listener, result, last } => self.accepted(listener, result, last),
            Completion::Synced { round, result } => {
                if self.fault.is_none()
                    && let Err(reason) = self.ledger.synced(round, result, &mut self.io)
                {
                    self.fail(reason);
                }
            }
            Completion::Mail => {
                self.mail = Some(self.io.ring.mail(&self.mailbox.eventfd));
                while let Some(message) = self.mailbox.next() {
                    self.read(message);
                }
            }
            Completion::Nothing => {}
        }
    }

    /// Hands the relay in a slot to `news`, and frees the slot if that was the end of it. Operations in flight keep
    /// their relay's slot, so a completion always finds the relay it belongs to.
    fn with(&mut self, slot: u32, news: impl FnOnce(&mut Relay<D>, &mut Io<D>)) {
        let relay = &mut self.relays[slot as usize];
        news(relay, &mut self.io);
        if relay.is_over() {
            self.forget(slot);
        } else if self.draining && relay.is_idle() {
            relay.evict(&mut self.io);
            if relay.is_over() {
                self.forget(slot);
            }
        }
    }

    /// As `with`, for news that may come after the relay's end.
    fn with_id(&mut self, id: RelayId, news: impl FnOnce(&mut Relay<D>, &mut Io<D>)) {
        if self.relays.get(id as u32 as usize).is_some_and(|relay| relay.id() == id) {
            self.with(id as u32, news);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.relays.remove(slot as usize);
        self.place.left();
        self.io.counters.relays.set(self.relays.len() as u64);
    }

    fn accepted(&mut self, listener: usize, result: stdio::Result<TcpStream>, last: bool) {
        let (io, acceptor) = (&mut self.io, &mut self.acceptors[listener]);
        if last && acceptor.ended(listener, result.as_ref().err(), io.now.mono_us, &mut io.ring) {
            io.counters.accept_paused.add(1);
        }
        if let Some(socket) = result.ok().and_then(|socket| self.place.deal(listener, socket)) {
            self.adopt(listener, socket);
        }
    }

    /// Serves a connection that was accepted here or by another shard.
    fn adopt(&mut self, listener: usize, socket: TcpStream) {
        let (io, acceptor) = (&mut self.io, &self.acceptors[listener]);
        if self.draining || self.fault.is_some() || self.relays.len() >= self.relays_max {
            self.place.left();
            return io.counters.turned_away.add(1);
        }
        // Fails when the client has gone again.
        let Ok(client) = relay::prepare(&socket) else { return self.place.left() };
        io.counters.accepted.add(1);
        self.generation = self.generation.wrapping_add(1);
        let slot = self.relays.vacant_entry();
        let id = (self.generation as u64) << 32 | slot.key() as u64;
        slot.insert(Box::new(Relay::new(id, socket, client, acceptor.terms.clone(), io)));
        self.io.counters.relays.set(self.relays.len() as u64);
    }

    fn read(&mut self, message: ToShard) {
        match message {
            ToShard::Snapshot(snapshot) => self.io.snapshot = snapshot,
            ToShard::Record(detail) => {
                self.owed.push_back(detail);
                self.record_owed();
            }
            ToShard::Ruling { relay, ticket, ruling } => self.tell(relay, Input::Ruling { ticket, ruling }),
            ToShard::Keys { relay, keys } => self.tell(relay, Input::Keys(keys)),
            ToShard::Catalogue { relay, catalogue } => self.tell(relay, Input::Catalogue(catalogue)),
            ToShard::Read { relay, read } => self.tell(relay, Input::Read(read)),
            ToShard::Cancelled { relay } => self.tell(relay, Input::Cancelled),
            ToShard::Cancel { relay, cancel } => self.cancels.push((relay, cancel)),
            ToShard::NamesMoved { target, from } => {
                let (number, now_us) = (self.io.number, self.io.now.unix_us);
                let more = self.io.shared.catalogues.heard(&target, from == number, number, now_us);
                self.io.control.extend(more);
            }
            ToShard::Kill { relay, session: _ } => self.tell(relay, Input::Kill(KILLED)),
            ToShard::Adopt { listener, socket } => {
                self.io.counters.adopted.add(1);
                self.adopt(listener, socket);
            }
            ToShard::Drain { now } => self.drain(now),
        }
    }

    fn tell(&mut self, relay: RelayId, input: Input) {
        self.with_id(relay, |relay, io| relay.tell(input, io));
    }

    fn slots(&self) -> Vec<u32> {
        self.relays.iter().map(|(slot, _)| slot as u32).collect()
    }

    fn drain(&mut self, at_once: bool) {
        self.draining = true;
        self.stop_accepting();
        for slot in self.slots() {
            self.with(slot, |relay, io| {
                if at_once {
                    relay.evict(io);
                }
            });
        }
    }

    fn stop_accepting(&mut self) {
        self.place.retire();
        for acceptor in &mut self.acceptors {
            acceptor.stop(&mut self.io.ring);
        }
    }

    fn keep_time(&mut self) {
        let now_us = self.io.now.mono_us;
        while let Some((at_us, id)) = self.io.timers.due(now_us) {
            self.with_id(id, |relay, io| relay.tick(at_us, io));
        }
        for (number, acceptor) in self.acceptors.iter_mut().enumerate() {
            if acceptor.resume_us <= now_us {
                acceptor.start(number, &mut self.io.ring);
            }
        }
    }

    /// What carrying out wishes has brought about. News may bring more news; each is carried out this round.
    fn carry_on(&mut self) {
        while let Some((id, input)) = self.io.later.pop_front() {
            self.tell(id, input);
        }
    }

    /// Is there something that the log had no room for? Room is made by others, who send no word of it.
    fn awaits_room(&self) -> bool {
        !self.owed.is_empty() || !self.io.waiting_for_room.is_empty()
    }

    fn offer_room(&mut self) {
        self.record_owed();
        if !self.io.waiting_for_room.is_empty() && self.io.log.has_room() {
            for id in std::mem::take(&mut self.io.waiting_for_room) {
                self.tell(id, Input::JournalRoom);
            }
        }
        let since = &self.io.counters.room_awaited_since_us;
        match (self.io.waiting_for_room.is_empty(), since.value()) {
            (true, 0) | (false, 1..) => {}
            (true, _) => since.set(0),
            (false, 0) => since.set(self.io.now.mono_us.max(1)),
        }
    }

    /// Who has been silent rests. A few in a round: the others do not wait for it.
    fn let_rest(&mut self) {
        for _ in 0..RESTED_MAX {
            let Some((id, turn)) = self.io.awake.due(self.io.now.mono_us) else { return };
            self.with_id(id, |relay, io| relay.rest(turn, io));
        }
    }

    fn feed_starved(&mut self) {
        if self.io.starved.is_empty() || !self.io.ring.buffers().any_free() {
            return;
        }
        for (id, side) in std::mem::take(&mut self.io.starved) {
            self.with_id(id, |relay, io| relay.feed(side, io));
        }
    }

    /// The record cannot be kept: nothing that waited for it is sent, nobody is served any more.
    fn fail(&mut self, reason: String) {
        self.io.counters.journal_failed.set(1);
        self.fault.get_or_insert(reason);
        self.stop_accepting();
        for (slot, side, payload) in self.io.ring.forsake() {
            self.with(slot, |relay, io| relay.forsaken(side, payload, io));
        }
        for slot in self.slots() {
            self.with(slot, |relay, io| relay.abort(io));
        }
    }
}

/// Relays that are looked at in a round, whether they may rest.
const RESTED_MAX: usize = 64;
/// Between two looks for room in the log, while something waits for it.
const ROOM_EVERY_US: u64 = 10_000;
/// Between two looks at the log: what is written into a segment that was taken away is lost, at most for so long. And at clients that are
/// not read.
const LOOK_EVERY_US: u64 = 1_000_000;
/// Beyond: the ring's memory is left to the end of the process.
const QUIESCE_US: u64 = 1_000_000;
const QUIESCE_STEP_US: u64 = 10_000;
/// What a session reads that is ended from outside.
const KILLED: &str = "the session was ended by an operator";
