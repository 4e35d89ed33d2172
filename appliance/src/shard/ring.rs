//! The socket ring: everything that crosses into the kernel by pointer. The one module of the product with `unsafe`.
//!
//! Memory lent to the kernel is owned by the operation it was lent for: an [`Op`] holds the payload of a send or the
//! address of a connect until its completion is reaped, and received bytes live in [`Buffers`], which outlives the ring.
//! So no caller can free or edit bytes the kernel still looks at, and a completion always finds its operation (a receive's: its relay).
#![allow(unsafe_code)]

mod buffers;
mod code;
mod mapping;
mod nudge;
pub mod socket;

pub use buffers::{Buffers, Chunk, HEADROOM_BYTES};
pub use code::let_go_of_code;
pub use mapping::map;
pub use nudge::Thread;

use super::journal::Safe;
use crate::limits::{RING_COMPLETIONS_MAX, RING_ENTRIES_MIN};
use codecs::Side;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// The most a single send hands to the kernel: progress of a slow reader is seen at this grain.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Sends of a round up to this many are handed to their sockets one by one: through the ring each round's sends wake the shard once more
/// just to say that they are done, which a lone session pays for. More are cheaper together: a call for each lets those it wakes push us
/// off the core in between (26 % more CPU a statement at 64 clients).
const FEW_SENDS: usize = 2;
/// The provided-buffer group of a shard's ring; there is only one.
const GROUP: u16 = 0;

/// Bytes on their way out, owned by whoever holds them.
pub enum Payload {
    /// Still where the kernel put them.
    Borrowed(Chunk),
    /// Composed, joined, copied or encrypted: `bytes[start..end]`.
    Owned { bytes: Vec<u8>, start: usize, end: usize },
}

impl Payload {
    pub fn owned(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Payload::Owned { bytes, start: 0, end }
    }

    pub fn len(&self) -> usize {
        match self {
            Payload::Borrowed(chunk) => chunk.len(),
            Payload::Owned { start, end, .. } => end - start,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` bytes have been sent.
    fn advance(&mut self, count: usize) {
        match self {
            Payload::Borrowed(chunk) => chunk.advance(count),
            Payload::Owned { start, end, .. } => {
                *start += count;
                debug_assert!(*start <= *end);
            }
        }
    }
}

/// What an operation in flight is for, and the memory it lends to the kernel.
enum Op {
    Accept { listener: usize },
    Send { relay: u32, side: Side, payload: Payload },
    Connect { relay: u32, _address: Box<socket::Address> },
    Sync { round: u64 },
    Alarm { _after: Box<types::Timespec> },
    Mail { _count: Box<[u8; 8]>, _eventfd: Arc<OwnedFd> },
    Cancel,
}

/// A receive has no [`Op`]: there are two for each idle session. It lends nothing, and its user data say whose it is. An end has one in
/// flight at most.
const RECEIVE: u64 = 1 << 63;
const RECEIVE_FROM_TARGET: u64 = 1 << 62;

fn receive_data(relay: u32, side: Side) -> u64 {
    let from = match side {
        Side::Client => 0,
        Side::Target => RECEIVE_FROM_TARGET,
    };
    RECEIVE | from | u64::from(relay)
}

fn receiver(user_data: u64) -> Option<(u32, Side)> {
    let side = if user_data & RECEIVE_FROM_TARGET == 0 { Side::Client } else { Side::Target };
    (user_data & RECEIVE != 0).then_some((user_data as u32, side))
}

/// Names an operation in flight, to cancel it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpId(u64);

/// What a receive came to.
pub enum Received {
    Bytes(Chunk),
    /// The peer closed its sending half.
    Ended,
    /// No buffer was free: arm again once one is. Nothing is lost, the bytes wait in the socket. `for_good`: not one was left.
    Starved {
        for_good: bool,
    },
    Cancelled,
    /// The connection is gone.
    Failed,
}

/// News from the kernel. `last`: the operation is over, a multishot one must be armed again.
pub enum Completion {
    Accepted {
        listener: usize,
        result: io::Result<TcpStream>,
        last: bool,
    },
    Received {
        relay: u32,
        side: Side,
        received: Received,
        last: bool,
    },
    /// `payload` is what is left to send.
    Sent {
        relay: u32,
        side: Side,
        payload: Payload,
        result: io::Result<usize>,
    },
    Connected {
        relay: u32,
        result: io::Result<()>,
    },
    Synced {
        round: u64,
        result: io::Result<()>,
    },
    Mail,
    Nothing,
}

/// A completion as the kernel wrote it.
#[derive(Clone, Copy)]
pub struct Raw {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// A send whose operation is in [`Ring::ops`] and keeps the bytes.
#[derive(Clone, Copy)]
struct Departure {
    fd: RawFd,
    start: *const u8,
    len: u32,
    data: u64,
}

impl Departure {
    fn entry(self) -> squeue::Entry {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        opcode::Send::new(types::Fd(self.fd), self.start, self.len).flags(flags).build().user_data(self.data)
    }

    /// Hands over what the socket takes without waiting.
    fn go(self) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the operation owns `len` bytes at `start`.
        let count = unsafe { libc::send(self.fd, self.start.cast(), self.len as usize, flags) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Submission entries; completions get four times as many, as far as the kernel goes.
    pub entries: u32,
    /// Provided buffers, a power of two.
    pub buffers: u16,
    /// Bytes a receive may put into one.
    pub buffer_bytes: u32,
}

/// An io_uring for sockets, its buffers, and the operations in flight.
pub struct Ring {
    uring: IoUring,
    buffers: Buffers,
    ops: Slab<Op>,
    /// Receives in flight.
    receiving: usize,
    /// Sends that wait for the record of their round. Never in the submission queue: a full queue submits itself.
    parked: Vec<(u64, Side, Departure)>,
    /// Sends that may go, until [`Ring::depart`].
    ready: Vec<Departure>,
    /// Completions of what the kernel took at once.
    taken: Vec<Raw>,
    /// The alarms that are set, and when they ring: a few.
    alarms: Vec<(u64, OpId)>,
}

impl Ring {
    /// Fails with a sentence that names the missing feature.
    pub fn new(sizes: RingSizes) -> io::Result<Self> {
        let uring = build(sizes.entries)?;
        let buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes)?;
        // SAFETY: the entries are a page-aligned mapping for exactly this many buffers that lives until no operation is
        // in flight (see Drop).
        unsafe { uring.submitter().register_buf_ring_with_flags(buffers.entries_address(), sizes.buffers, GROUP, 0) }
            .map_err(|e| explain(e, "a provided-buffer ring (Linux 5.19 or later)"))?;
        Ok(Self {
            uring,
            buffers,
            ops: Slab::with_capacity(256),
            receiving: 0,
            parked: Vec::new(),
            ready: Vec::new(),
            taken: Vec::new(),
            alarms: Vec::new(),
        })
    }

    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub fn buffers_mut(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// The operations a shard submits that this kernel does not know.
    pub fn missing_operations(&self) -> Vec<&'static str> {
        let needed = [
            (opcode::AcceptMulti::CODE, "accept"),
            (opcode::RecvMulti::CODE, "recv"),
            (opcode::Send::CODE, "send"),
            (opcode::Connect::CODE, "connect"),
            (opcode::Fsync::CODE, "fsync"),
            (opcode::Timeout::CODE, "timeout"),
            (opcode::Read::CODE, "read"),
            (opcode::AsyncCancel::CODE, "cancel"),
        ];
        let mut probe = io_uring::Probe::new();
        if self.uring.submitter().register_probe(&mut probe).is_err() {
            return vec!["probe"];
        }
        needed.into_iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| name).collect()
    }

    /// Enters the kernel, for nothing.
    pub fn try_enter(&mut self) -> io::Result<()> {
        self.look().map_err(|error| explain(error, "io_uring_enter"))
    }

    /// Operations the kernel still owes a completion for.
    pub fn in_flight(&self) -> usize {
        self.ops.len() + self.receiving
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the memory an entry names is owned by its Op, or static for the ring, until the completion is reaped.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // EBUSY and EINTR clear up by themselves once completions are reaped; the loop tries again.
            let _ = self.uring.submit();
        }
    }

    fn begin(&mut self, op: Op) -> u64 {
        self.ops.insert(op) as u64
    }

    /// Accepts on a listener until cancelled or failed.
    pub fn accept(&mut self, listener: usize, fd: RawFd) -> OpId {
        let data = self.begin(Op::Accept { listener });
        self.push(&opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(data));
        OpId(data)
    }

    /// Receives from a socket into provided buffers until it ends, fails, starves or is cancelled.
    pub fn receive(&mut self, relay: u32, side: Side, fd: RawFd) {
        self.receiving += 1;
        self.push(&opcode::RecvMulti::new(types::Fd(fd), GROUP).build().user_data(receive_data(relay, side)));
    }

    /// As [`Self::cancel`].
    pub fn cancel_receive(&mut self, relay: u32, side: Side) {
        self.cancel(OpId(receive_data(relay, side)));
    }

    /// Sends a payload (or its first part). `after`: the round whose record must be safe first, if any.
    pub fn send(&mut self, relay: u32, side: Side, fd: RawFd, payload: Payload, after: Option<u64>) {
        let (start, len) = match &payload {
            Payload::Borrowed(chunk) => (self.buffers.bytes(chunk).as_ptr(), chunk.len()),
            Payload::Owned { bytes, start, end } => (bytes[*start..*end].as_ptr(), end - start),
        };
        let len = len.min(SEND_BYTES_MAX) as u32;
        // The payload moves into the Op; its bytes stay where they are.
        let data = self.begin(Op::Send { relay, side, payload });
        let departure = Departure { fd, start, len, data };
        match after {
            Some(round) => self.parked.push((round, side, departure)),
            None => self.ready.push(departure),
        }
    }

    /// The records of these rounds are safe: their sends may go.
    pub fn release(&mut self, safe: Safe) {
        if self.parked.is_empty() {
            return;
        }
        let ready = &mut self.ready;
        self.parked.retain(|(after, side, departure)| {
            let waits = *after > safe.of(*side);
            if !waits {
                ready.push(*departure);
            }
            waits
        });
    }

    /// Sends what may go. What a socket does not take at once waits in the ring.
    pub fn depart(&mut self) {
        self.hand_over(FEW_SENDS);
    }

    /// Through the ring, unless there are no more than `few`.
    fn hand_over(&mut self, few: usize) {
        if self.ready.is_empty() {
            return;
        }
        let mut ready = std::mem::take(&mut self.ready);
        let few = ready.len() <= few;
        for departure in ready.drain(..) {
            match few.then(|| departure.go()) {
                Some(Ok(count)) => self.taken.push(Raw { user_data: departure.data, result: count as i32, flags: 0 }),
                // What is wrong with the socket, if anything, the ring will say.
                Some(Err(_)) | None => self.push(&departure.entry()),
            }
        }
        self.ready = ready;
    }

    /// The next send that its socket has taken at once.
    pub fn departed(&mut self) -> Option<Raw> {
        self.taken.pop()
    }

    /// Something for a target waits for its record.
    pub fn holds_for_target(&self) -> bool {
        self.parked.iter().any(|(_, side, _)| *side == Side::Target)
    }

    /// The same of one relay.
    pub fn holds_for_target_of(&self, relay: u32) -> bool {
        let is_of = |data: u64| matches!(self.ops.get(data as usize), Some(Op::Send { relay: of, .. }) if *of == relay);
        self.parked.iter().any(|(_, side, departure)| *side == Side::Target && is_of(departure.data))
    }

    /// Records could not be made safe: the parked sends are never submitted. Tells whose they were.
    pub fn forsake(&mut self) -> Vec<(u32, Side, Payload)> {
        let parked = std::mem::take(&mut self.parked);
        let lost = parked.iter().map(|(_, _, departure)| self.ops.remove(departure.data as usize));
        lost.filter_map(|op| match op {
            Op::Send { relay, side, payload } => Some((relay, side, payload)),
            _ => None,
        })
        .collect()
    }

    /// Connects a socket.
    pub fn connect(&mut self, relay: u32, fd: RawFd, address: SocketAddr) -> OpId {
        let address = Box::new(socket::Address::from(address));
        let (pointer, len) = address.parts();
        let data = self.begin(Op::Connect { relay, _address: address });
        self.push(&opcode::Connect::new(types::Fd(fd), pointer, len).build().user_data(data));
        OpId(data)
    }

    /// Brings a file's data to stable storage (fdatasync) on a kernel worker.
    pub fn sync(&mut self, fd: RawFd, round: u64) {
        let data = self.begin(Op::Sync { round });
        let entry = opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build();
        self.push(&entry.user_data(data));
    }

    /// The same, and waits for it: nothing else happens meanwhile.
    pub fn sync_now(&self, fd: RawFd) -> io::Result<()> {
        loop {
            // SAFETY: a plain call; a descriptor that is not open is an error.
            match unsafe { libc::fdatasync(fd) } {
                0 => return Ok(()),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Waits for the mailbox's eventfd to be written.
    pub fn mail(&mut self, eventfd: &Arc<OwnedFd>) -> OpId {
        let mut count = Box::new([0u8; 8]);
        let (fd, pointer) = (eventfd.as_raw_fd(), count.as_mut_ptr());
        let data = self.begin(Op::Mail { _count: count, _eventfd: eventfd.clone() });
        self.push(&opcode::Read::new(types::Fd(fd), pointer, 8).build().user_data(data));
        OpId(data)
    }

    /// Asks the kernel to end an operation early; it still completes, as cancelled or as whatever it had come to.
    pub fn cancel(&mut self, op: OpId) {
        let data = self.begin(Op::Cancel);
        self.push(&opcode::AsyncCancel::new(op.0).build().user_data(data));
    }

    /// Makes a waiting ring wake no later than `at_us`. A timer of its own, not a bound on the wait: the kernel would set
    /// and clear that one at every wait, which costs more than the wait itself where the clock is virtual.
    pub fn wake_by(&mut self, at_us: u64, now_us: u64) {
        if self.alarms.iter().any(|(set_us, _)| *set_us <= at_us) {
            return;
        }
        let after = Box::new(types::Timespec::from(Duration::from_micros(at_us.saturating_sub(now_us))));
        let pointer: *const types::Timespec = &*after;
        let data = self.begin(Op::Alarm { _after: after });
        self.alarms.push((at_us, OpId(data)));
        self.push(&opcode::Timeout::new(pointer).build().user_data(data));
    }

    /// Nobody waits for the alarms that are set.
    pub fn cancel_alarms(&mut self) {
        for (_, op) in std::mem::take(&mut self.alarms) {
            self.cancel(op);
        }
    }

    /// Submits what is queued and waits for a completion.
    pub fn wait(&mut self) -> io::Result<()> {
        self.hand_over(0);
        self.buffers.top_up();
        forgive(self.uring.submit_and_wait(1))
    }

    /// Submits what is queued and runs what the kernel has put off, without waiting.
    pub fn look(&mut self) -> io::Result<()> {
        self.hand_over(0);
        self.buffers.top_up();
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no pointer is passed. GETEVENTS makes a DEFER_TASKRUN ring run the work it has put off.
        forgive(unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, libc_getevents(), None) })
    }

    /// As `look`, where there is something to submit or to run; else it costs a load.
    pub fn peek(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        let idle = self.ready.is_empty() && queue.is_empty() && !queue.taskrun();
        drop(queue);
        self.buffers.top_up();
        if idle { Ok(()) } else { self.look() }
    }

    /// Moves completions out of the kernel's queue. `true`: there were some.
    pub fn reap(&mut self, into: &mut Vec<Raw>) -> bool {
        into.extend(self.uring.completion().map(|c| Raw {
            user_data: c.user_data(),
            result: c.result(),
            flags: c.flags(),
        }));
        !into.is_empty()
    }

    /// The relay and the side that a completed receive belongs to, and its bytes. `None`: it is no receive.
    pub fn receiver_of(&self, raw: &Raw) -> Option<(u32, Side, usize)> {
        let (relay, side) = receiver(raw.user_data)?;
        Some((relay, side, usize::try_from(raw.result).unwrap_or(0)))
    }

    /// What a completion means; ends its operation when it was the last.
    pub fn complete(&mut self, raw: Raw) -> Completion {
        let last = !cqueue::more(raw.flags);
        if let Some((relay, side)) = receiver(raw.user_data) {
            self.receiving -= usize::from(last);
            return Completion::Received { relay, side, received: self.received(raw), last };
        }
        let key = raw.user_data as usize;
        if let Op::Accept { listener } = self.ops[key] {
            if last {
                self.ops.remove(key);
            }
            // SAFETY: the kernel has just given us this descriptor.
            let result = outcome(raw.result).map(|_| unsafe { TcpStream::from_raw_fd(raw.result) });
            return Completion::Accepted { listener, result, last };
        }
        match self.ops.remove(key) {
            Op::Send { relay, side, mut payload } => {
                let result = outcome(raw.result);
                if let Ok(count) = result {
                    payload.advance(count);
                }
                Completion::Sent { relay, side, payload, result }
            }
            Op::Connect { relay, .. } => Completion::Connected { relay, result: outcome(raw.result).map(drop) },
            Op::Sync { round } => Completion::Synced { round, result: outcome(raw.result).map(drop) },
            Op::Mail { .. } => Completion::Mail,
            Op::Alarm { .. } => {
                self.alarms.retain(|(_, op)| op.0 != raw.user_data);
                Completion::Nothing
            }
            Op::Cancel | Op::Accept { .. } => Completion::Nothing,
        }
    }

    fn received(&mut self, raw: Raw) -> Received {
        let chunk = cqueue::buffer_select(raw.flags).map(|buffer| self.buffers.taken(buffer, raw.result.max(0) as u32));
        match (raw.result, chunk) {
            (1.., Some(chunk)) => return Received::Bytes(chunk),
            // Some kernels name a buffer with the end of the stream: it goes straight back.
            (_, Some(empty)) => self.buffers.release(empty),
            (_, None) => {}
        }
        match raw.result {
            0 => Received::Ended,
            failed if failed == -libc::ENOBUFS => Received::Starved { for_good: self.buffers.ran_out() },
            failed if failed == -libc::ECANCELED => Received::Cancelled,
            _ => Received::Failed,
        }
    }
}

impl Drop for Ring {
    /// Closing the ring ends its operations some time later: until then their memory must stay.
    fn drop(&mut self) {
        if self.in_flight() == 0 {
            return;
        }
        std::mem::forget(std::mem::take(&mut self.ops));
        self.buffers.keep_for_ever();
    }
}

/// What an interrupted or a busy enter leaves undone is done by the next.
fn forgive(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
        Err(e) => Err(e),
    }
}

fn libc_getevents() -> u32 {
    // IORING_ENTER_GETEVENTS of the kernel's interface; the crate keeps its own constant private.
    1
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn build(entries: u32) -> io::Result<IoUring> {
    set_up(entries).map_err(|error| match error.raw_os_error() {
        // A kernel that makes a small ring lacks nothing.
        Some(libc::EINVAL) if set_up(RING_ENTRIES_MIN).is_ok() => {
            let why = format!("no ring of {entries} entries: {error}; lower --ring-entries ([server] ring_entries)");
            io::Error::new(error.kind(), why)
        }
        _ => explain(error, "SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1 or later)"),
    })
}

fn set_up(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(RING_COMPLETIONS_MAX.min(entries * 4))
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag();
    // Without the indirection array (Linux 6.6) a submission touches one cache line less.
    builder.clone().setup_no_sqarray().build(entries).or_else(|_| builder.build(entries))
}

fn explain(error: io::Error, feature: &str) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is not permitted: the container's seccomp profile blocks it (install deploy/seccomp.json) or \
             kernel.io_uring_disabled is set"
                .to_string()
        }
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring, or a seccomp profile hides it (install deploy/seccomp.json)".to_string()
        }
        Some(libc::ENOMEM) => "not enough locked memory for io_uring (raise RLIMIT_MEMLOCK: LimitMEMLOCK in the unit, or `ulimit -l`; or lower \
             --ring-entries)"
                .to_string(),
        Some(libc::EINVAL) => format!("this kernel's io_uring lacks {feature}"),
        _ => format!("io_uring: {error}"),
    };
    io::Error::new(error.kind(), why)
}
