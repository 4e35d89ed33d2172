//! What std does not offer: epoll, connecting without waiting, CPU clocks, signals. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Nanoseconds on the monotonic clock since this process first asked.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Where to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What happened to one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    pub token: u64,
    /// The other end is done, or there is an error: read to its end.
    pub hangup: bool,
}

/// An edge-triggered epoll set. Dropping a descriptor leaves the set by itself.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// Whether readiness for writing is asked for besides reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    Read,
    ReadWrite,
}

impl Epoll {
    pub fn new(events_max: usize) -> io::Result<Epoll> {
        // SAFETY: takes no pointer; the descriptor it returns is ours alone.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; events_max.max(1)] })
    }

    pub fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    pub fn modify(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let write = if interest == Interest::ReadWrite { libc::EPOLLOUT } else { 0 };
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET | write) as u32, u64: token };
        // SAFETY: `event` outlives the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// A timer that fires again before it is looked at is one event.
    pub fn add_timer(&self, timer: &Timer, token: u64) -> io::Result<()> {
        self.add(timer.0.as_raw_fd(), token, Interest::Read)
    }

    /// Waits until something happens or that many nanoseconds have passed; returns how many events there are. Signals count as none.
    pub fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        let timeout = timeout_ns.map(timespec);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const libc::timespec);
        // epoll_pwait2 (Linux 5.11), because epoll_wait counts in milliseconds.
        // SAFETY: the buffer has as many entries as we say, `timeout` points to what outlives the call, or nowhere; no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timeout,
                std::ptr::null::<libc::sigset_t>(),
                size_of::<u64>(),
            )
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
    }

    pub fn event(&self, index: usize) -> Readiness {
        let event = self.events[index];
        let bits = event.events as libc::c_int;
        let ended = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        Readiness { token: event.u64, hangup: bits & ended != 0 }
    }
}

/// Becomes readable when its time has come.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    pub fn new() -> io::Result<Timer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: takes no pointer; the descriptor it returns is ours alone.
        Ok(Timer(unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?) }))
    }

    /// Once, that many nanoseconds from now.
    pub fn set(&self, after_ns: u64) -> io::Result<()> {
        // Zero would take the timer back.
        let once = libc::itimerspec { it_interval: timespec(0), it_value: timespec(after_ns.max(1)) };
        // SAFETY: `once` outlives the call; what was set before is not asked for.
        check(unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &once, std::ptr::null_mut()) }).map(drop)
    }
}

fn timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as libc::time_t, tv_nsec: (ns % 1_000_000_000) as libc::c_long }
}

/// Begins to connect and does not wait. The socket is writable once it is known how that ended.
pub fn connect(address: &Address) -> io::Result<OwnedFd> {
    let family = match address {
        Address::Inet(SocketAddr::V4(_)) => libc::AF_INET,
        Address::Inet(SocketAddr::V6(_)) => libc::AF_INET6,
        Address::Unix(_) => libc::AF_UNIX,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointer; the descriptor it returns is ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(check(libc::socket(family, kind, 0))?) };
    match address {
        Address::Inet(SocketAddr::V4(v4)) => {
            // SAFETY: all zeroes is a valid sockaddr_in.
            let mut raw: libc::sockaddr_in = unsafe { zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            connect_raw(&fd, &raw)?;
        }
        Address::Inet(SocketAddr::V6(v6)) => {
            // SAFETY: all zeroes is a valid sockaddr_in6.
            let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            connect_raw(&fd, &raw)?;
        }
        Address::Unix(path) => connect_raw(&fd, &unix_address(path)?)?,
    }
    Ok(fd)
}

fn unix_address(path: &Path) -> io::Result<libc::sockaddr_un> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut raw: libc::sockaddr_un = unsafe { zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= raw.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket's path is longer than 107 bytes"));
    }
    raw.sun_path.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from as libc::c_char);
    Ok(raw)
}

/// `T` is one of the sockaddr types, without padding that matters.
fn connect_raw<T>(fd: &OwnedFd, address: &T) -> io::Result<()> {
    // SAFETY: `address` is a whole, initialised socket address of the size we say and outlives the call.
    let result =
        unsafe { libc::connect(fd.as_raw_fd(), (address as *const T).cast(), size_of::<T>() as libc::socklen_t) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(()),
    }
}

fn clock_ns(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which fills it.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(in_ns(&time))
}

fn in_ns(time: &libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time this thread has used, user and system.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a CPU clock")
}

/// CPU time a process has used with all its threads, to the nanosecond (`/proc/PID/stat` counts in 10 ms).
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` outlives the call, which fills it.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    clock_ns(clock)
}

/// From here on the kernel notes when bytes arrive on this socket.
pub fn stamp_arrivals(fd: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` outlives the call, which reads as many bytes as we say.
    let result = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, (&on as *const libc::c_int).cast(), size)
    };
    check(result).map(drop)
}

/// Room for one timestamp and its header, aligned as headers want to be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Reads without waiting. With the bytes comes when the last of them arrived, on the clock of [`now_ns`], where the kernel
/// noted it.
pub fn receive_stamped(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all zeroes is a valid msghdr; both buffers outlive the call and have the sizes we say.
    let (message, count) = unsafe {
        let mut message: libc::msghdr = zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
        (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), size_of::<Control>());
        let count = libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT);
        (message, count)
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled `control`, which is still there; the header it begins with says what follows.
    let stamp = unsafe {
        let header = libc::CMSG_FIRSTHDR(&message).as_ref();
        header
            .filter(|header| (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS))
            .map(|header| libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned())
    };
    let Some(stamp) = stamp else { return Ok((count, None)) };
    // Stamps are of the wall clock: what counts is how long ago that was.
    let age_ns = clock_ns(libc::CLOCK_REALTIME)?.saturating_sub(in_ns(&stamp));
    Ok((count, Some(now_ns().saturating_sub(age_ns))))
}

/// Clock ticks a second, the unit of `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: takes no pointer.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

/// Timers of this thread, and of programs it starts, fire when asked, not up to 50 us later so that the kernel may bundle them.
pub fn precise_timers() {
    // SAFETY: takes no pointer. Fails only on kernels without it, where the lag will show.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// As many open files as we may have.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls; the first fills it, the second reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// The program ends when the thread that starts it does, however that ends.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    let ask = || {
        // SAFETY: takes no pointer.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) }).map(drop)
    };
    // SAFETY: between fork and exec only that system call is made, which neither allocates nor locks.
    unsafe { command.pre_exec(ask) }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    Stop,
    Continue,
}

/// To a process we started.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    // SAFETY: takes no pointer.
    check(unsafe { libc::kill(pid as libc::pid_t, number) }).map(drop)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whichever comes first is noted; the next, also the other, ends the process.
const ENDING: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

extern "C" fn note_interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
    for number in ENDING {
        // SAFETY: `signal` may be called in a signal handler, and SIG_DFL is no pointer to anything.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// A terminal that closes may say so twice, through the kernel and through the shell: the second is no order to hurry.
extern "C" fn note_hangup(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on the first Ctrl-C or SIGTERM only sets a flag; the second ends the process. A hangup sets it too, unless it was
/// ignored when the process began, as under nohup: then the run is to outlive its terminal.
pub fn catch_interrupt() {
    for number in ENDING {
        catch(number, note_interrupt);
    }
    if !is_ignored(libc::SIGHUP) {
        catch(libc::SIGHUP, note_hangup);
    }
}

/// `handler` does only what is safe in a signal handler.
fn catch(number: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is a valid sigaction; the handlers only store to an atomic and call `signal`, both safe in a signal handler.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(number, &action, std::ptr::null_mut());
    }
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction; it outlives the call, which fills it and changes nothing.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        libc::sigaction(number, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
