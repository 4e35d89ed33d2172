//! A statement that waits for a person: the ticket, the ruling, and the way from one to the other.

use std::fmt;

/// `<shard>-<counter>-<random>`: the shard number routes the ruling back to whoever holds the statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TicketId(pub String);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a reviewer sees and rules on. Bound to `digest`: BLAKE3 over principal, target, statement text and bind values.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub id: TicketId,
    pub shard: usize,
    pub relay: u64,
    pub session: String,
    pub digest: [u8; 32],
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub statement: String,
    pub binds: Vec<Option<String>>,
    pub rule: String,
    /// Groups (or users) of whom any may rule; `local` accepts the owner of the control socket.
    pub approvers: Vec<String>,
    pub count: u32,
    /// The requester may rule on it as well.
    pub own: bool,
    /// Unix microseconds.
    pub asked_at_us: i64,
    pub expires_at_us: i64,
}

/// The end of a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    Approved {
        by: Vec<String>,
        reason: String,
    },
    Rejected {
        by: String,
        reason: String,
    },
    Expired,
    /// The requester went away.
    Abandoned,
}
