//! A statement that waits for a person: the ticket, the ruling, and the way from one to the other.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `<shard>-<counter>-<random>`: the shard number routes the ruling back to whoever holds the statement.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketId(pub String);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a reviewer sees and rules on. Bound to `digest`: BLAKE3 over principal, target, statement text and bind values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    pub id: TicketId,
    pub shard: usize,
    pub relay: u64,
    pub session: String,
    #[serde(with = "digest_as_hex")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Ruling {
    /// `approved rejected expired abandoned`: the word in records and in `-o json`.
    pub fn name(&self) -> &'static str {
        match self {
            Ruling::Approved { .. } => "approved",
            Ruling::Rejected { .. } => "rejected",
            Ruling::Expired => "expired",
            Ruling::Abandoned => "abandoned",
        }
    }
}

/// The digest as people quote it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

mod digest_as_hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::hex(digest))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(D::Error::custom("a digest is 64 hexadecimal digits"));
        }
        for (byte, pair) in digest.iter_mut().zip(0..) {
            *byte = u8::from_str_radix(&text[pair * 2..pair * 2 + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(digest)
    }
}
