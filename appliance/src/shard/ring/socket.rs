//! Sockets as the ring needs them: listeners that share a port, sockets to connect, and the eventfd of a mailbox.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections the kernel completes before we accept them. Beyond: clients retry their SYN.
const BACKLOG: i32 = 4096;
/// A silent peer is probed after this many seconds, and given up after `KEEPALIVE_PROBES` unanswered probes.
const KEEPALIVE_IDLE_S: i32 = 60;
const KEEPALIVE_INTERVAL_S: i32 = 15;
const KEEPALIVE_PROBES: i32 = 4;

/// A socket address in the kernel's layout.
pub struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    pub(super) fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (&raw const self.storage as *const libc::sockaddr, self.len)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = match address {
            SocketAddr::V4(v4) => {
                let sin = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is larger than and aligned for every socket address.
                unsafe { (&raw mut storage as *mut libc::sockaddr_in).write(sin) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let sin6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage as *mut libc::sockaddr_in6).write(sin6) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, len: len as libc::socklen_t }
    }
}

/// The peer has closed its half, though bytes of it may still wait to be read. What cannot be asked has not.
pub fn peer_has_left(socket: &TcpStream) -> bool {
    const ESTABLISHED: u8 = 1;
    // SAFETY: all-zero bytes are a valid tcp_info.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let into = (&raw mut info).cast();
    // SAFETY: the kernel writes at most `len` bytes to where that many are.
    let asked = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut len) };
    asked == 0 && info.tcpi_state != ESTABLISHED
}

/// Bytes of the peer have come that nobody has read, or it cannot be told.
pub fn has_unread(socket: &TcpStream) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int during the call.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    asked != 0 || bytes != 0
}

/// How many bytes the peer has acknowledged so far. `None`: it cannot be told.
pub fn acknowledged(socket: &TcpStream) -> Option<u64> {
    // Where `tcpi_bytes_acked` stands in the kernel's struct (linux/tcp.h, since 4.1): libc's ends before it.
    const AT: usize = 120 / size_of::<u64>();
    let mut info = [0_u64; AT + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    let into = info.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to where that many are.
    let asked = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &mut len) };
    (asked == 0 && len as usize == size_of_val(&info)).then_some(info[AT])
}

/// How much of what was sent the peer has not acknowledged; our end of it counts as a byte.
pub fn unacknowledged(socket: &TcpStream) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one int during the call. (TIOCOUTQ is what tcp(7) calls SIOCOUTQ.)
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// A listener that shares its address with those of the other shards.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, true)?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(socket))
}

/// An error: somebody listens there, whether he shares the address or not. Connections that are still open or linger there are no
/// hindrance, and nobody can connect to what only tries.
pub fn try_address(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let socket = stream(address)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, shared.into())?;
    if address.is_ipv6() {
        option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    let address = Address::from(address);
    let (pointer, len) = address.parts();
    // SAFETY: the address outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), pointer, len) })?;
    Ok(socket)
}

/// A TCP socket of the address's family, not yet connected, set up like every socket of ours.
pub fn connectable(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::from(stream(address)?);
    configure(&socket)?;
    Ok(socket)
}

/// No delay, and probes that notice a peer that has silently gone.
pub fn configure(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_IDLE_S)?;
    option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)?;
    option(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES)
}

/// Closing this socket will reset the connection: a peer that goes on talking learns at once that nobody listens, and
/// what it has not read is not kept for it.
pub fn reset_on_close(socket: &TcpStream) -> io::Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    let (pointer, len) = (&raw const now as *const libc::c_void, size_of::<libc::linger>() as libc::socklen_t);
    // SAFETY: the kernel reads one linger during the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, pointer, len) }).map(drop)
}

/// A counter that wakes whoever reads it.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: fresh and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: fresh and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let pointer = &raw const value as *const libc::c_void;
    // SAFETY: the kernel reads one int during the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, size_of::<i32>() as libc::socklen_t) })
        .map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The cores this process may run on.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: all-zero bytes are a valid, empty cpu_set_t.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size given.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) })?;
    // SAFETY: each index is within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}
