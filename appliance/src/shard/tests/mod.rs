//! The shard against real sockets: peers are threads with blocking sockets, and every wait ends with an event.

mod carry;
mod faults;
mod record;
mod secure;

use super::mailbox::{ToControl, ToShard};
use super::*;
use crate::gate::{Cancels, Context, Drive, Input, Origin, Output};
use crate::snapshot::{Snapshot, Target};
use codecs::{Pipes, Side};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// A test that hangs is a failure: no read of ours waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running shard with one listener; drained when dropped.
struct Shard {
    handle: Option<ShardHandle>,
    control: UnboundedReceiver<ToControl>,
}

impl Shard {
    fn start<D: Drive + 'static>(
        options: ShardOptions,
        log: Box<dyn ShardLog + Send>,
        factory: impl Fn(Origin, &mut Context<'_>) -> D + Send + 'static,
    ) -> Self {
        let (to_control, control) = tokio::sync::mpsc::unbounded_channel();
        let handle = start(options, Arc::new(Snapshot::empty()), log, to_control, factory).expect("the shard starts");
        Self { handle: Some(handle), control }
    }

    /// Carries bytes to `target`.
    fn bare(options: ShardOptions, target: Arc<Target>) -> Self {
        Self::start(options, Box::new(NoLog::default()), move |_, _| BareRelay::new(target.clone()))
    }

    fn handle(&self) -> &ShardHandle {
        self.handle.as_ref().expect("taken only when dropped")
    }

    fn counters(&self) -> &Counters {
        &self.handle().counters
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.handle().addresses[0]).expect("the shard listens"))
    }

    /// Waits for the shard's own word that it has ended.
    fn fault(&mut self) -> Option<String> {
        loop {
            match self.control.blocking_recv() {
                Some(ToControl::Ended { fault, .. }) => return fault,
                Some(_) => {}
                None => panic!("the shard went without a word"),
            }
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let handle = self.handle.take().expect("dropped once");
        handle.post.send(ToShard::Drain { now: true });
        let ended = handle.join();
        if !std::thread::panicking() {
            ended.expect("the shard ends in good order");
        }
    }
}

fn options() -> ShardOptions {
    options_with(None)
}

fn options_with(tls: Option<Arc<rustls::ServerConfig>>) -> ShardOptions {
    let tls = tls.map(|config| {
        let tls = super::ListenerTls { config, client_certificate: false };
        Arc::new(arc_swap::ArcSwap::from_pointee(tls))
    });
    let listener = ListenerOptions { address: loopback(), tls, allow_plaintext: true };
    ShardOptions { listeners: vec![listener], ..ShardOptions::default() }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    socket.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
    socket
}

fn target(resolved: Vec<SocketAddr>) -> Arc<Target> {
    target_with(resolved, None)
}

fn target_with(resolved: Vec<SocketAddr>, tls: Option<Arc<rustls::ClientConfig>>) -> Arc<Target> {
    Arc::new(Target {
        name: "peer".into(),
        address: "peer".into(),
        resolved,
        database: String::new(),
        user: String::new(),
        password: zeroize::Zeroizing::new(Vec::new()),
        tls,
        server_name: "localhost".into(),
        require_auth: codecs::postgres::AuthMethod::Trust,
        connection_limit: None,
    })
}

/// A target that gives each connection to `serve`, on a thread of its own.
fn peer(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Arc<Target> {
    target(vec![listening(serve)])
}

fn listening(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).expect("loopback has a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(patient(socket)));
        }
    });
    address
}

fn echo(mut socket: TcpStream) {
    let mut bytes = [0; 50_000];
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        if socket.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// xorshift64*: enough to vary sizes and contents, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

/// Sends `sent` in pieces of random sizes and reads the same number of bytes back, both at the same time.
fn exchange(mut socket: TcpStream, sent: &[u8], piece_max: usize, seed: u64) -> Vec<u8> {
    let mut writer = socket.try_clone().expect("a second handle");
    let mut received = Vec::with_capacity(sent.len());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut dice, mut rest) = (Dice(seed), sent);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(1 + dice.below(piece_max)));
                writer.write_all(piece).expect("the shard reads");
                rest = after;
            }
        });
        let mut dice = Dice(seed ^ 0x9e37_79b9);
        while received.len() < sent.len() {
            let mut bytes = vec![0; 1 + dice.below(piece_max)];
            match socket.read(&mut bytes).expect("the shard sends") {
                0 => break,
                count => received.extend_from_slice(&bytes[..count]),
            }
        }
    });
    received
}
