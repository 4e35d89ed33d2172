//! What shards and the control thread say to each other. The only types both sides know.

use super::ring::socket;
use crate::approval::{Ruling, Ticket, TicketId};
use crate::audit::PackedWho;
use crate::gate::{Read, Unread};
use crate::snapshot::{Snapshot, Target};
use codecs::postgres::ScramKeys;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

/// Names one relay of one shard for as long as it lives: slab index in the low 32 bits, a generation above.
pub type RelayId = u64;

/// Names a live session. The process number is that of the target's backend, which sessions of different targets may share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SessionKey {
    pub process: i32,
    pub shard: u32,
    pub relay: RelayId,
}

impl SessionKey {
    pub fn place(self) -> (usize, RelayId) {
        (self.shard as usize, self.relay)
    }
}

/// A live session, for `sessions ls` and for cancel.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// As it was when the session was opened.
    pub who: Arc<PackedWho>,
    pub key: SessionKey,
    /// Unix microseconds.
    pub opened_at_us: i64,
    /// In the key for cancel requests that the client holds, and in the target's own: their process number is the same.
    pub secret: [u8; 4],
    pub target_secret: Box<[u8]>,
}

/// The catalogue of one target as far as masks need it: every table's name and column names by OID.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pub tables: HashMap<u32, CatalogueTable>,
}

#[derive(Clone, Debug)]
pub struct CatalogueTable {
    pub schema: String,
    pub name: String,
    /// Attribute number -> column name; dropped columns left out.
    pub columns: HashMap<i16, String>,
}

/// A cancel request for a target, with the target's own key.
pub struct Cancel {
    pub target: Arc<Target>,
    pub process: i32,
    pub secret: Box<[u8]>,
    pub waiter: Option<(usize, RelayId)>,
}

/// Shard -> control.
pub enum ToControl {
    SessionOpened(Box<SessionInfo>),
    SessionClosed(SessionKey),
    /// A statement is held; the ruling comes back as [`ToShard::Ruling`].
    Ask(Box<Ticket>),
    /// The held statement's client is gone: the ticket ends as Abandoned.
    Abandon(TicketId),
    /// PBKDF2 for a target login, off the shard. The answer is cached by (target, salt, iterations).
    Derive {
        shard: usize,
        relay: RelayId,
        target: Arc<Target>,
        salt: Vec<u8>,
        iterations: u32,
    },
    /// The catalogue of a target, no older than `not_before_us` (Unix microseconds).
    Catalogue {
        shard: usize,
        relay: RelayId,
        target: Arc<Target>,
        not_before_us: i64,
    },
    /// A long text is to be read, off the shard.
    Read {
        shard: usize,
        relay: RelayId,
        unread: Box<Unread>,
    },
    /// A statement that may move names passes through that shard: every shard is to hear of it.
    NamesMoved {
        shard: usize,
        target: String,
    },
    /// A CancelRequest arrived with one of our keys. `waiter`: the relay it came by, which is told with
    /// [`ToShard::Cancelled`] once the target has taken it, or there is nothing to take.
    Cancel {
        process: i32,
        secret: Vec<u8>,
        waiter: Option<(usize, RelayId)>,
    },
    /// What [`ToShard::Cancel`] asked about has gone to the target.
    PassCancel(Box<Cancel>),
    /// What it asked about runs nothing at the target, and holds a statement: that is what the cancel request ends.
    CancelHeld {
        ticket: TicketId,
        waiter: Option<(usize, RelayId)>,
    },
    /// This shard has closed its last session after [`ToShard::Drain`], or cannot go on.
    Ended {
        shard: usize,
        fault: Option<String>,
    },
}

/// Control -> shard.
pub enum ToShard {
    Snapshot(Arc<Snapshot>),
    /// What happened to the gateway itself, for this shard's trail.
    Record(String),
    Ruling {
        relay: RelayId,
        ticket: TicketId,
        ruling: Ruling,
    },
    Keys {
        relay: RelayId,
        keys: Result<ScramKeys, String>,
    },
    Catalogue {
        relay: RelayId,
        catalogue: Result<(i64, Arc<Catalogue>), String>,
    },
    Read {
        relay: RelayId,
        read: Box<Read>,
    },
    Cancelled {
        relay: RelayId,
    },
    /// Comes back with [`ToControl::PassCancel`] or [`ToControl::CancelHeld`] when nothing of that session waits here for its record to
    /// be safe: until then the target would have nothing to cancel.
    Cancel {
        relay: RelayId,
        cancel: Box<Cancel>,
    },
    /// What [`ToControl::NamesMoved`] said, to all shards with the one it came from.
    NamesMoved {
        target: String,
        from: usize,
    },
    /// `sessions kill`.
    Kill {
        relay: RelayId,
        session: String,
    },
    /// Shard -> shard: a connection another one has accepted on the listener of that number and that is this one's to serve.
    Adopt {
        listener: usize,
        socket: TcpStream,
    },
    /// Stop accepting; close sessions as they become idle. `now`: close them all at once.
    Drain {
        now: bool,
    },
}

/// The shard's end of its mailbox; the ring reads the eventfd.
pub struct Mailbox {
    messages: mpsc::Receiver<ToShard>,
    pub eventfd: Arc<OwnedFd>,
}

/// The way to a shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Post {
    messages: mpsc::Sender<ToShard>,
    eventfd: Arc<File>,
}

impl Mailbox {
    pub fn new() -> io::Result<(Mailbox, Post)> {
        let eventfd = socket::eventfd()?;
        let post = Arc::new(File::from(eventfd.try_clone()?));
        let (sender, receiver) = mpsc::channel();
        let mailbox = Mailbox { messages: receiver, eventfd: Arc::new(eventfd) };
        Ok((mailbox, Post { messages: sender, eventfd: post }))
    }

    pub fn next(&self) -> Option<ToShard> {
        self.messages.try_recv().ok()
    }
}

impl Post {
    /// Posts a message and wakes the shard. Lost when the shard has ended.
    pub fn send(&self, message: ToShard) {
        if self.messages.send(message).is_ok() {
            // Cannot fail: the counter would have to overflow 64 bits between two reads.
            let _ = (&*self.eventfd).write(&1u64.to_ne_bytes());
        }
    }
}
