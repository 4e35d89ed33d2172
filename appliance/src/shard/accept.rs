//! Listeners: one a shard and address, the port shared between shards (SO_REUSEPORT), accepting until told to stop.

use super::ring::{OpId, Ring, socket};
use super::timers::NEVER;
use crate::address;
use crate::limits;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a listener encrypts.
#[derive(Clone)]
pub struct ListenerTls {
    pub config: Arc<ServerConfig>,
    /// Clients have to show a certificate: whoever does not encrypt cannot.
    pub client_certificate: bool,
}

/// A place clients may connect to.
#[derive(Clone)]
pub struct ListenerOptions {
    pub address: SocketAddr,
    /// Replaced whole when certificates change; a handshake finishes on the one it began with.
    pub tls: Option<Arc<ArcSwap<ListenerTls>>>,
    /// Tokens over an unencrypted connection are accepted from beyond loopback.
    pub allow_plaintext: bool,
}

/// What connections of one listener share.
pub struct Terms {
    pub tls: Option<Arc<ArcSwap<ListenerTls>>>,
    pub allow_plaintext: bool,
}

/// Opens the listener; the error says which address and why.
pub fn bind(options: &ListenerOptions) -> io::Result<TcpListener> {
    socket::listen(options.address)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {}: {e}", options.address)))
}

/// A process that was killed has its listeners for a moment longer: the kernel takes its rings apart behind its end.
const LEAVING: Duration = Duration::from_secs(3);
const LEAVING_STEP: Duration = Duration::from_millis(20);

/// An error: somebody listens there already. The shards share an address with whoever asks to: another gateway would get a part of the
/// connections, and lose them when it ends.
pub fn must_be_free(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let give_up = Instant::now() + LEAVING;
    let tried = loop {
        match socket::try_address(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                std::thread::sleep(LEAVING_STEP);
            }
            tried => break tried,
        }
    };
    tried.map_err(|error| {
        let why = address::refusal(address, &error);
        io::Error::new(error.kind(), format!("the listener ([[listener]] address) cannot use {address}: {why}"))
    })
}

/// One listener of this shard.
pub struct Acceptor {
    /// Gone once stopped: connects are refused instead of waiting for nobody.
    listener: Option<TcpListener>,
    pub terms: Rc<Terms>,
    accepting: Option<OpId>,
    /// When to accept again after a pause.
    pub resume_us: u64,
}

impl Acceptor {
    pub fn new(listener: TcpListener, options: ListenerOptions) -> Self {
        let terms = Rc::new(Terms { tls: options.tls, allow_plaintext: options.allow_plaintext });
        Self { listener: Some(listener), terms, accepting: None, resume_us: NEVER }
    }

    pub fn start(&mut self, number: usize, ring: &mut Ring) {
        if let (Some(listener), None) = (&self.listener, self.accepting) {
            self.resume_us = NEVER;
            self.accepting = Some(ring.accept(number, listener.as_raw_fd()));
        }
    }

    /// The accept is over: begins again, after a pause where going on at once would only fail again.
    pub fn ended(&mut self, number: usize, error: Option<&io::Error>, now_us: u64, ring: &mut Ring) -> bool {
        self.accepting = None;
        let exhausted = error.and_then(|e| e.raw_os_error()).is_some_and(|code| {
            matches!(code, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL | libc::EBADF)
        });
        if exhausted {
            self.resume_us = now_us + limits::ACCEPT_PAUSE_US;
        } else {
            self.start(number, ring);
        }
        exhausted
    }

    /// Accepts no more.
    pub fn stop(&mut self, ring: &mut Ring) {
        self.resume_us = NEVER;
        self.accepting.take().into_iter().for_each(|op| ring.cancel(op));
        self.listener = None;
    }
}
