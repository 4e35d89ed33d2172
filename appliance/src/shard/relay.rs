//! One relay: two ends and the drive between them. Turns completions into inputs, and wishes into submissions.
//!
//! ```text
//!   received -> window -> drive.handle -> pieces -> send (one in flight an end, a queue behind it)
//!                         drive.poll   -> connect, TLS, deadline, close
//! ```

mod secure;

use super::accept::Terms;
use super::connect::Connecting;
use super::end::{End, Receive};
use super::io::Io;
use super::log::Watched;
use super::mailbox::RelayId;
use super::ring::{Payload, Received, socket};
use super::timers::NEVER;
use crate::gate::{Cancels, Context, Drive, Input, Origin, Output};
use crate::limits;
use crate::snapshot::Target;
use codecs::{Outgoing, Piece, Pipes, Side, Window};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// A cleared stretch at least this long is sent from where it lies; shorter ones are gathered by one copy.
const GATHER_BYTES_MAX: usize = 8 << 10;
/// The first byte of a TLS record that carries a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// How far a relay has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The client has said nothing yet; there is no drive.
    AwaitFirstByte,
    /// The client began with a ClientHello; there is no drive.
    DirectTls,
    /// The drive decides.
    Open,
    /// Sending what is queued; nothing is read any more but to be dropped.
    Flushing,
    /// All is sent; waiting for the client to close, so that it can read our last words.
    Lingering,
    /// Waiting for the operations in flight to complete.
    Dead,
}

pub struct Relay<D> {
    id: RelayId,
    phase: Phase,
    drive: Option<D>,
    ends: [End; 2],
    /// Operations in flight; the relay lives until there are none.
    operations: u16,
    terms: Rc<Terms>,
    /// Whose connection it is, until there is a drive that knows.
    client: Option<Box<SocketAddr>>,
    target: Option<Arc<Target>>,
    connecting: Option<Box<Connecting>>,
    /// The drive's own deadline, and that of the phase.
    wake_us: u64,
    phase_us: u64,
    /// The earliest entry in the shard's timers.
    armed_us: u64,
    /// The round that `taken` and `deferred` are about.
    turn: u64,
    /// Bytes looked at in it, and bytes that came and wait for the next.
    taken: u32,
    deferred: u32,
    /// What the client had acknowledged when it was last looked at whether it reads (the lower half of it, odd); `None`: not since its queue
    /// last moved.
    acknowledged: Option<NonZeroU32>,
    /// Has been silent, and given back what only work needs.
    resting: bool,
    /// The last round this relay recorded something in; 0: never. Its sends wait until that round is safe.
    recorded: u64,
}

impl<D: Drive> Relay<D> {
    pub fn new(id: RelayId, socket: TcpStream, client: SocketAddr, terms: Rc<Terms>, io: &mut Io<D>) -> Self {
        let mut ends = [End::new(), End::new()];
        ends[Side::Client as usize].socket = Some(socket);
        let mut relay = Self {
            id,
            phase: Phase::AwaitFirstByte,
            drive: None,
            ends,
            operations: 0,
            terms,
            client: Some(Box::new(client)),
            target: None,
            connecting: None,
            wake_us: NEVER,
            phase_us: io.now.mono_us + io.deadlines.login_us,
            armed_us: NEVER,
            turn: 0,
            taken: 0,
            deferred: 0,
            acknowledged: None,
            resting: true,
            recorded: 0,
        };
        relay.settle(io);
        relay
    }

    pub fn id(&self) -> RelayId {
        self.id
    }

    /// Nothing refers to this relay any more: its slot is free.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Dead && self.operations == 0
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::AwaitFirstByte || self.drive.as_ref().is_some_and(|drive| drive.idle())
    }

    // ---- completions ----

    /// Must `bytes` that have come from `side` wait for the next round, so that the neighbours get their turn? Whatever comes
    /// behind them in this round waits as well, so their order stays.
    pub fn must_wait(&mut self, side: Side, bytes: usize, turn: u64, io: &mut Io<D>) -> bool {
        if self.turn != turn {
            (self.turn, self.taken, self.deferred) = (turn, 0, 0);
            if std::mem::take(&mut self.resting) {
                io.awake.add(self.id, turn, io.now.mono_us + io.deadlines.rest_us);
            }
        }
        if (self.taken as usize) < limits::SHARE_BYTES {
            // A buffer is far smaller than 4 GiB, and so is what may wait.
            self.taken += bytes as u32;
            return false;
        }
        io.counters.deferred.add(1);
        self.deferred = self.deferred.saturating_add(bytes as u32);
        // What waits holds buffers of everybody's ring: no more of it.
        let end = &mut self.ends[side as usize];
        if end.receive == Receive::Armed && self.deferred as usize > limits::QUEUED_BYTES_MAX {
            io.ring.cancel_receive(self.id as u32, side);
            end.receive = Receive::Cancelling;
        }
        true
    }

    pub fn received(&mut self, side: Side, received: Received, last: bool, io: &mut Io<D>) {
        let end = &mut self.ends[side as usize];
        if last {
            self.operations -= 1;
            end.receive = Receive::Off;
        }
        match received {
            Received::Bytes(chunk) if matches!(self.phase, Phase::Flushing | Phase::Lingering | Phase::Dead) => {
                io.discard(Payload::Borrowed(chunk));
            }
            Received::Bytes(chunk) => {
                match side {
                    Side::Client => io.counters.client_bytes.add(chunk.len() as u64),
                    Side::Target => io.counters.target_bytes.add(chunk.len() as u64),
                }
                if end.tls.is_some() {
                    self.decrypt(side, chunk, io);
                } else {
                    end.window.push(chunk, io.ring.buffers_mut(), &mut io.pool);
                    self.look(side, io);
                }
            }
            Received::Starved { for_good } => {
                io.counters.starved.add(u64::from(for_good));
                end.receive = Receive::Starved;
                io.starved.push((self.id, side));
            }
            Received::Cancelled => {}
            Received::Ended | Received::Failed => self.end(side, io),
        }
        self.settle(io);
    }

    /// A buffer may be free again.
    pub fn feed(&mut self, side: Side, io: &mut Io<D>) {
        let end = &mut self.ends[side as usize];
        if end.receive == Receive::Starved {
            end.receive = Receive::Off;
        }
        self.settle(io);
    }

    pub fn sent(&mut self, side: Side, payload: Payload, result: io::Result<usize>, io: &mut Io<D>) {
        self.operations -= 1;
        let end = &mut self.ends[side as usize];
        end.sending = false;
        let failed = match result {
            Ok(count) => {
                end.queued_bytes -= count as u32;
                end.stalled_us = NEVER;
                if side == Side::Client {
                    self.acknowledged = None;
                }
                count == 0
            }
            Err(_) => true,
        };
        if failed || self.phase == Phase::Dead {
            end.queued_bytes -= payload.len() as u32;
            io.discard(payload);
            self.lose(side, io);
        } else if !payload.is_empty() {
            self.submit(side, payload, io);
        } else {
            io.discard(payload);
            match end.queue.pop_front() {
                Some(next) => self.submit(side, next, io),
                None => self.drained(side, io),
            }
        }
        self.settle(io);
    }

    pub fn connected(&mut self, result: io::Result<()>, io: &mut Io<D>) {
        self.operations -= 1;
        let Some(connecting) = self.connecting.take() else { return };
        if self.phase != Phase::Open {
            return;
        }
        match result {
            Ok(()) => {
                self.ends[Side::Target as usize].socket = Some(connecting.socket);
                self.drive(Input::Connected, io);
            }
            Err(error) => {
                io.counters.connect_failures.add(1);
                self.connect(connecting.next(&error, io.now.mono_us), io);
            }
        }
        self.settle(io);
    }

    /// The shard's timer set for `at_us` has come due.
    pub fn tick(&mut self, at_us: u64, io: &mut Io<D>) {
        if at_us != self.armed_us {
            // An entry that an earlier one has replaced; the one that counts is still to come.
            return;
        }
        self.armed_us = NEVER;
        let now_us = io.now.mono_us;
        if self.wake_us <= now_us {
            self.wake_us = NEVER;
            self.drive(Input::Wake, io);
        }
        if let Some(connecting) = &mut self.connecting
            && connecting.deadline_us <= now_us
        {
            connecting.deadline_us = NEVER;
            connecting.op.into_iter().for_each(|op| io.ring.cancel(op));
        }
        match self.phase {
            _ if self.phase_us > now_us => {}
            Phase::Dead => {}
            // What the kernel still holds it goes on sending: a reset would throw it away.
            Phase::Lingering if !self.has_unread() => self.die(io),
            _ => self.cut_off(io),
        }
        if self.ends.iter().any(|end| end.stalled_us <= now_us) && self.phase == Phase::Open && !self.client_takes(io) {
            io.counters.stalled.add(1);
            self.drive(Input::Kill("the peer did not read what was sent to it"), io);
            self.cut_off(io);
        }
        self.settle(io);
    }

    /// Nothing may have come since round `turn`: then the memory is given back that only work needs.
    pub fn rest(&mut self, turn: u64, io: &mut Io<D>) {
        let idle = self.phase == Phase::Open && self.drive.as_ref().is_some_and(|drive| drive.idle());
        if self.turn != turn || !idle {
            return io.awake.add(self.id, self.turn, io.now.mono_us + io.deadlines.rest_us);
        }
        self.resting = true;
        self.ends.iter_mut().for_each(End::rest);
        if let Some(drive) = &mut self.drive
            && catch_unwind(AssertUnwindSafe(|| drive.rest())).is_err()
        {
            self.panicked(io);
        }
    }

    /// Behind a statement that is held nothing is read for long: a client that has left is noticed here.
    pub fn listen(&mut self, io: &mut Io<D>) {
        if self.hears_nothing() && self.client_has_left() {
            self.end(Side::Client, io);
        }
        self.settle(io);
    }

    /// Closing the client's socket would reset the connection.
    fn has_unread(&self) -> bool {
        self.ends[Side::Client as usize].socket.as_ref().is_none_or(socket::has_unread)
    }

    fn client_has_left(&self) -> bool {
        self.ends[Side::Client as usize].socket.as_ref().is_some_and(socket::peer_has_left)
    }

    /// The client's bytes are held, and there are so many that none are read.
    fn hears_nothing(&self) -> bool {
        self.phase == Phase::Open && !self.ends[Side::Client as usize].ended && self.holds_enough(Side::Client)
    }

    /// The drive holds the bytes of that side, and more of them would only pile up.
    fn holds_enough(&self, side: Side) -> bool {
        let is_much = self.ends[side as usize].window.len() > limits::HELD_BYTES_MAX;
        is_much && self.drive.as_ref().is_some_and(|drive| !drive.wants(side))
    }

    /// A cancel request for this connection.
    pub fn cancel(&mut self) -> Cancels {
        self.drive.as_mut().map_or(Cancels::Running, Drive::cancel)
    }

    // ---- the drive ----

    /// News for the drive from outside the relay.
    pub fn tell(&mut self, input: Input, io: &mut Io<D>) {
        // Behind a statement that waits for its ruling nothing is read for long, the client's end neither: nobody rules for who has left.
        let left = matches!(input, Input::Ruling { .. }) && self.client_has_left();
        if left {
            self.drive(Input::Left, io);
        }
        self.drive(input, io);
        if left {
            self.end(Side::Client, io);
        }
        self.settle(io);
    }

    /// The shard ends every session now: the drive says what it has to say and what is queued is sent.
    pub fn evict(&mut self, io: &mut Io<D>) {
        self.drive(Input::Kill("the gateway is shutting down"), io);
        match self.phase {
            Phase::Open => self.close(io),
            Phase::AwaitFirstByte | Phase::DirectTls => self.die(io),
            Phase::Flushing | Phase::Lingering | Phase::Dead => {}
        }
        self.settle(io);
    }

    /// Ends the relay without asking the drive: what it wants can no longer be recorded.
    pub fn abort(&mut self, io: &mut Io<D>) {
        self.die(io);
    }

    /// A send that was parked will never be submitted.
    pub fn forsaken(&mut self, side: Side, payload: Payload, io: &mut Io<D>) {
        self.operations -= 1;
        let end = &mut self.ends[side as usize];
        end.sending = false;
        end.queued_bytes -= payload.len() as u32;
        io.discard(payload);
        self.die(io);
    }

    /// There are undecided bytes from `side`.
    fn look(&mut self, side: Side, io: &mut Io<D>) {
        if self.phase == Phase::AwaitFirstByte {
            let first = self.ends[side as usize].window.bytes(io.ring.buffers()).first().copied();
            if first == Some(TLS_HANDSHAKE) && self.terms.tls.is_some() {
                return self.begin_direct_tls(io);
            }
            self.open(false, io);
        }
        self.drive(Input::Bytes(side), io);
    }

    /// Makes the drive.
    fn open(&mut self, encrypted: bool, io: &mut Io<D>) {
        let client = *self.client.take().expect("a relay is opened once");
        let mut entropy = [0; 42];
        aws_lc_rs::rand::fill(&mut entropy).expect("the system has randomness");
        let origin = Origin {
            shard: io.number,
            relay: self.id,
            client,
            tls_offered: self.terms.tls.is_some(),
            encrypted,
            allow_plaintext: self.terms.allow_plaintext,
            certificate_required: self.terms.tls.as_ref().is_some_and(|tls| tls.load().client_certificate),
            login_by_us: self.phase_us,
            entropy,
        };
        let mut watched = Watched { log: &mut *io.log, appended: false, full: false };
        let mut cx = Context {
            now: io.now,
            snapshot: &io.snapshot,
            journal: &mut watched,
            control: &mut io.control,
            shared: &mut io.shared,
        };
        let made = catch_unwind(AssertUnwindSafe(|| (io.factory)(origin, &mut cx)));
        if watched.appended {
            self.recorded = io.round;
        }
        let Ok(drive) = made else { return self.panicked(io) };
        self.drive = Some(drive);
        self.phase = Phase::Open;
        self.phase_us = NEVER;
    }

    /// Hands one input to the drive, sends what it cleared and carries out what it wishes.
    fn drive(&mut self, input: Input, io: &mut Io<D>) {
        let (Some(drive), Phase::Open) = (&mut self.drive, self.phase) else { return };
        let [to_client, to_target] = &mut io.out;
        let [client, target] = &mut self.ends;
        let buffers = io.ring.buffers();
        let mut pipes = Pipes {
            client: Window::new(client.window.bytes_mut(buffers)),
            target: Window::new(target.window.bytes_mut(buffers)),
            to_client,
            to_target,
        };
        let mut journal = Watched { log: &mut *io.log, appended: false, full: false };
        let mut cx = Context {
            now: io.now,
            snapshot: &io.snapshot,
            journal: &mut journal,
            control: &mut io.control,
            shared: &mut io.shared,
        };
        // One guard per relay: a panic closes this session and its neighbours go on.
        let handled = catch_unwind(AssertUnwindSafe(|| drive.handle(input, &mut pipes, &mut cx)));
        let decided = [pipes.client.decided(), pipes.target.decided()];
        if journal.appended {
            self.recorded = io.round;
        }
        if journal.full {
            io.waiting_for_room.push(self.id);
        }
        if handled.is_err() {
            return self.panicked(io);
        }
        self.carry(Side::Client, decided[Side::Client as usize], io);
        self.carry(Side::Target, decided[Side::Target as usize], io);
        self.grant(io);
    }

    fn panicked(&mut self, io: &mut Io<D>) {
        io.out.iter_mut().for_each(Outgoing::reset);
        io.counters.panics.add(1);
        self.die(io);
    }

    /// Carries out the drive's wishes until it has none.
    fn grant(&mut self, io: &mut Io<D>) {
        while let Some(drive) = &mut self.drive {
            let Ok(wish) = catch_unwind(AssertUnwindSafe(|| drive.poll())) else { return self.panicked(io) };
            match wish {
                Output::Idle => return,
                Output::Connect(target) => {
                    self.target = Some(target.clone());
                    self.connect(Connecting::first(target, io.now.mono_us, io.deadlines.connect_us), io);
                }
                Output::StartTls(side) => self.start_tls(side, io),
                Output::Finish(side) => self.finish(side, io),
                Output::WakeAt(at_us) => self.wake_us = at_us,
                Output::Close => return self.close(io),
            }
        }
    }

    /// Sends what the drive has cleared from `from` and composed for the other side, and forgets what is decided.
    fn carry(&mut self, from: Side, decided: usize, io: &mut Io<D>) {
        let to = from.other();
        let mut out = std::mem::take(&mut io.out[to as usize]);
        let mut left = decided;
        match out.pieces() {
            [] => {}
            pieces if self.ends[to as usize].tls.is_some() => {
                self.encrypt(from, to, pieces, out.composed(), io);
            }
            [Piece::Pass { start, end }] => {
                let window = &mut self.ends[from as usize].window;
                let payload = window.take(*start, *end, io.ring.buffers_mut(), &mut io.pool);
                left -= end;
                self.queue(to, payload, io);
            }
            pieces => left -= self.gather(from, to, pieces, out.composed(), io),
        }
        out.reset();
        io.out[to as usize] = out;
        if left > 0 {
            let window = &mut self.ends[from as usize].window;
            window.advance(left, io.ring.buffers_mut(), &mut io.pool);
        }
    }

    /// Queues several pieces in order: short ones together in one vector, long ones from where they lie. Returns how
    /// many bytes of the window it has forgotten.
    fn gather(&mut self, from: Side, to: Side, pieces: &[Piece], composed: &[u8], io: &mut Io<D>) -> usize {
        let mut gone = 0;
        let mut bytes = io.pool.take();
        for piece in pieces {
            match *piece {
                Piece::Composed { start, end } => bytes.extend_from_slice(&composed[start..end]),
                Piece::Pass { start, end } if end - start < GATHER_BYTES_MAX => {
                    let window = self.ends[from as usize].window.bytes(io.ring.buffers());
                    bytes.extend_from_slice(&window[start - gone..end - gone]);
                }
                Piece::Pass { start, end } => {
                    if !bytes.is_empty() {
                        let before = std::mem::replace(&mut bytes, io.pool.take());
                        self.queue(to, Payload::owned(before), io);
                    }
                    let window = &mut self.ends[from as usize].window;
                    let payload = window.take(start - gone, end - gone, io.ring.buffers_mut(), &mut io.pool);
                    gone = end;
                    self.queue(to, payload, io);
                }
            }
        }
        if bytes.is_empty() {
            io.pool.give(bytes);
        } else {
            self.queue(to, Payload::owned(bytes), io);
        }
        gone
    }

    // ---- sending ----

    /// Sends `payload` to `to` behind everything queued before it.
    fn queue(&mut self, to: Side, payload: Payload, io: &mut Io<D>) {
        let end = &mut self.ends[to as usize];
        if end.socket.is_none() || end.broken || end.finishing {
            return io.discard(payload);
        }
        end.queued_bytes += payload.len() as u32;
        if end.sending {
            return end.queue_behind(payload, io);
        }
        let payload = if io.ring.buffers().scarce() { io.copied_out(payload) } else { payload };
        self.submit(to, payload, io);
    }

    fn submit(&mut self, to: Side, payload: Payload, io: &mut Io<D>) {
        let end = &mut self.ends[to as usize];
        let Some(socket) = &end.socket else { unreachable!("bytes are queued only for an end that has a socket") };
        end.sending = true;
        self.operations += 1;
        let after = (self.recorded > io.safe.of(to)).then_some(self.recorded);
        io.ring.send(self.id as u32, to, socket.as_raw_fd(), payload, after);
    }

    /// Everything queued for `side` has been sent.
    fn drained(&mut self, side: Side, io: &mut Io<D>) {
        if self.ends[side as usize].finishing {
            self.ends[side as usize].shutdown(Shutdown::Write);
        }
        if self.phase == Phase::Flushing {
            self.linger(io);
        }
    }

    /// Nothing more can be sent to `side`.
    fn lose(&mut self, side: Side, io: &mut Io<D>) {
        let end = &mut self.ends[side as usize];
        end.broken = true;
        while let Some(payload) = end.queue.pop_front() {
            end.queued_bytes -= payload.len() as u32;
            io.discard(payload);
        }
        end.stalled_us = NEVER;
        match self.phase {
            Phase::Flushing => self.linger(io),
            Phase::Open => self.end(side, io),
            Phase::AwaitFirstByte | Phase::DirectTls => self.die(io),
            Phase::Lingering | Phase::Dead => {}
        }
    }

    // ---- ends ----

    /// `side` will send no more.
    fn end(&mut self, side: Side, io: &mut Io<D>) {
        if std::mem::replace(&mut self.ends[side as usize].ended, true) {
            return;
        }
        match self.phase {
            Phase::Open => self.drive(Input::Ended(side), io),
            Phase::AwaitFirstByte | Phase::DirectTls => self.die(io),
            Phase::Lingering if side == Side::Client => self.die(io),
            Phase::Lingering | Phase::Flushing | Phase::Dead => {}
        }
    }

    /// After the bytes queued for `side`, no more will follow.
    fn finish(&mut self, side: Side, io: &mut Io<D>) {
        self.say_goodbye(side, io);
        let end = &mut self.ends[side as usize];
        end.finishing = true;
        if end.drained() {
            end.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, io: &mut Io<D>) {
        self.phase = Phase::Flushing;
        self.phase_us = io.now.mono_us + io.deadlines.flush_us;
        self.wake_us = NEVER;
        self.cancel_connecting(io);
        for side in [Side::Client, Side::Target] {
            self.say_goodbye(side, io);
            let end = &mut self.ends[side as usize];
            // From here on the phase's own deadline counts.
            end.stalled_us = NEVER;
            // Each end hears of the close as soon as its own queue is sent, not when the other's is.
            end.finishing = true;
            if end.drained() {
                end.shutdown(Shutdown::Write);
            }
        }
        self.linger(io);
    }

    /// Once all is sent: lets the client read our last words before the socket goes. Closing a socket with unread bytes
    /// resets the connection, and a reset can overtake them.
    fn linger(&mut self, io: &mut Io<D>) {
        if !self.ends.iter().all(End::drained) {
            return;
        }
        let client = &self.ends[Side::Client as usize];
        if client.ended || client.broken {
            return self.die(io);
        }
        self.ends[Side::Target as usize].shutdown(Shutdown::Both);
        self.phase = Phase::Lingering;
        self.phase_us = io.now.mono_us + io.deadlines.linger_us;
    }

    fn cancel_connecting(&mut self, io: &mut Io<D>) {
        if let Some(op) = self.connecting.as_ref().and_then(|connecting| connecting.op) {
            io.ring.cancel(op);
        }
    }

    /// The client has had its time.
    fn cut_off(&mut self, io: &mut Io<D>) {
        if let Some(socket) = &self.ends[Side::Client as usize].socket {
            // Fails only when the connection is gone already.
            let _ = socket::reset_on_close(socket);
        }
        self.die(io);
    }

    /// Gives everything up; the slot is freed when the kernel has given back the operations in flight.
    fn die(&mut self, io: &mut Io<D>) {
        if self.phase == Phase::Dead {
            return;
        }
        self.phase = Phase::Dead;
        self.phase_us = NEVER;
        self.wake_us = NEVER;
        self.cancel_connecting(io);
        for end in &mut self.ends {
            end.abandon(io);
            end.stalled_us = NEVER;
            end.tls = None;
            // Completes a receive and a send in flight.
            end.shutdown(Shutdown::Both);
        }
        let drive = self.drive.take();
        if catch_unwind(AssertUnwindSafe(|| drop(drive))).is_err() {
            io.counters.panics.add(1);
        }
    }

    // ---- the target ----

    /// Tries the next address, or reports that there is none left.
    fn connect(&mut self, attempt: Result<Connecting, String>, io: &mut Io<D>) {
        match attempt {
            Ok(mut connecting) => {
                connecting.op =
                    Some(io.ring.connect(self.id as u32, connecting.socket.as_raw_fd(), connecting.address));
                self.operations += 1;
                self.connecting = Some(Box::new(connecting));
            }
            Err(reason) => io.later.push_back((self.id, Input::ConnectFailed(reason))),
        }
    }

    // ---- after every piece of news ----

    /// Brings receives, deadlines and buffers in line with the state just reached.
    fn settle(&mut self, io: &mut Io<D>) {
        for side in [Side::Client, Side::Target] {
            self.settle_receive(side, io);
            let window = &mut self.ends[side as usize].window;
            window.settle(io.ring.buffers_mut(), &mut io.pool);
        }
        self.watch_reader(io);
        if self.hears_nothing() {
            io.unheard.insert(self.id);
        }
        let next_us = self.next_deadline_us();
        if next_us < self.armed_us {
            self.armed_us = next_us;
            io.timers.add(next_us, self.id);
        }
    }

    /// Has the client taken anything since it was last looked at? Its kernel tells of a slow reader long before ours has room for the next send,
    /// whose completion may take minutes.
    fn client_takes(&mut self, io: &mut Io<D>) -> bool {
        let client = &mut self.ends[Side::Client as usize];
        let acknowledged = client.socket.as_ref().and_then(socket::acknowledged);
        let now = acknowledged.and_then(|bytes| NonZeroU32::new(bytes as u32 | 1));
        let before = std::mem::replace(&mut self.acknowledged, now);
        let takes = now.is_some() && before != now;
        if takes {
            client.stalled_us = io.now.mono_us + io.deadlines.stalled_us / 2;
        }
        takes
    }

    /// A client that does not read has a while to begin; a target may be busy for as long as it likes.
    fn watch_reader(&mut self, io: &mut Io<D>) {
        let client = &mut self.ends[Side::Client as usize];
        // Half the bound: from there on the target may already be waiting for the queue to drain.
        let waits = client.queued_bytes as usize > limits::QUEUED_BYTES_MAX / 2;
        if client.stalled_us == NEVER && waits && self.phase == Phase::Open {
            // Looked at twice, so that the second look can tell.
            client.stalled_us = io.now.mono_us + io.deadlines.stalled_us / 2;
        }
    }

    fn next_deadline_us(&self) -> u64 {
        let connecting_us = self.connecting.as_ref().map_or(NEVER, |connecting| connecting.deadline_us);
        let stalled_us = self.ends[0].stalled_us.min(self.ends[1].stalled_us);
        self.wake_us.min(self.phase_us).min(connecting_us).min(stalled_us)
    }

    fn settle_receive(&mut self, side: Side, io: &mut Io<D>) {
        let reads = self.reads(side);
        let end = &mut self.ends[side as usize];
        match (end.receive, &end.socket) {
            (Receive::Off, Some(socket)) if reads => {
                io.ring.receive(self.id as u32, side, socket.as_raw_fd());
                end.receive = Receive::Armed;
                self.operations += 1;
            }
            (Receive::Armed, Some(_)) if !reads && self.phase != Phase::Dead => {
                io.ring.cancel_receive(self.id as u32, side);
                end.receive = Receive::Cancelling;
            }
            (Receive::Off | Receive::Armed | Receive::Cancelling | Receive::Starved, _) => {}
        }
    }

    /// Bytes from `side` are welcome: whoever they go to keeps up, and the drive is not holding them.
    fn reads(&self, side: Side) -> bool {
        let (end, other) = (&self.ends[side as usize], &self.ends[side.other() as usize]);
        if end.ended {
            return false;
        }
        match self.phase {
            Phase::AwaitFirstByte | Phase::DirectTls | Phase::Open => {}
            Phase::Flushing | Phase::Lingering => return side == Side::Client,
            Phase::Dead => return false,
        }
        let bound = if end.receive == Receive::Armed { limits::QUEUED_BYTES_MAX } else { limits::QUEUED_BYTES_MAX / 2 };
        if other.queued_bytes as usize > bound {
            return false;
        }
        // The target is read all the same: it may wait for that before it reads on.
        let answered = limits::ANSWERED_BYTES_MAX / limits::QUEUED_BYTES_MAX * bound;
        if side == Side::Client && end.queued_bytes as usize > answered {
            return false;
        }
        !self.holds_enough(side)
    }
}

/// Sets up a socket that has just been accepted.
pub fn prepare(socket: &TcpStream) -> io::Result<SocketAddr> {
    socket::configure(socket)?;
    socket.peer_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;

    #[test]
    fn a_session_fits_a_small_class_of_the_allocator() {
        assert!(size_of::<Relay<Gate>>() <= 896, "{} bytes", size_of::<Relay<Gate>>());
    }
}
