//! One line of the chain: a checkpoint or the change of a key, and what may follow it.

use super::super::key::{self, PublicKey};
use super::super::lines::{self, Head, Line, LineBroken};
use super::super::manifest::{Position, hex_hash, rfc3339};
use super::chain::Latest;
use crate::audit::frame::Hash;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// What is promised of one shard: all frames up to this one, which has this hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    pub shard: u32,
    pub segment: u64,
    pub frame: u64,
    pub record: u64,
    #[serde(with = "hex_hash")]
    pub hash: Hash,
}

impl Promise {
    pub fn of(position: &Position) -> Option<Self> {
        let Position { shard, segment, frame, record, hash, .. } = *position;
        (frame > 0).then_some(Self { shard, segment, frame, record, hash })
    }
}

/// A line of another file: its number and hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineHead {
    pub number: u64,
    #[serde(with = "hex_hash")]
    pub hash: Hash,
}

impl From<Head> for LineHead {
    fn from(Head { number, hash }: Head) -> Self {
        Self { number, hash }
    }
}

impl From<LineHead> for Head {
    fn from(LineHead { number, hash }: LineHead) -> Self {
        Self { number, hash }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Statement {
    Checkpoint {
        manifest: LineHead,
        shards: Vec<Promise>,
        /// The last line of the holds; `None`: there never was one.
        #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
        holds: Option<LineHead>,
    },
    /// The next line is signed by another key.
    Key {
        #[serde(with = "hex_hash")]
        next: PublicKey,
    },
}

/// A member that may be missing, and is no null.
fn there<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Statement {
    fn in_range(&self) -> bool {
        let Self::Checkpoint { manifest, shards, holds } = self else { return true };
        let holds = holds.map_or(0, |holds| holds.number);
        let promises = |promise: &Promise| lines::in_range([promise.segment, promise.frame, promise.record]);
        lines::in_range([manifest.number, holds]) && shards.iter().all(promises)
    }
}

/// A line whose hash holds; whether its signature does is for whoever knows the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub head: Head,
    pub previous: Hash,
    pub time_us: i64,
    pub statement: Statement,
    pub key: PublicKey,
    /// Under the key it names.
    pub signature_holds: bool,
}

#[derive(Deserialize)]
struct Members {
    #[serde(rename = "number")]
    _number: IgnoredAny,
    #[serde(rename = "previous")]
    _previous: IgnoredAny,
    #[serde(with = "rfc3339")]
    time: i64,
    #[serde(flatten)]
    statement: Statement,
    #[serde(with = "hex_hash")]
    key: PublicKey,
}

impl Checkpoint {
    /// A line without its line end.
    pub fn parse(line: &[u8]) -> Result<Self, LineBroken> {
        let line = lines::split(line, true)?;
        let checkpoint = Self::unverified(&line)?;
        let verifies = |signature| key::verifies(&checkpoint.key, line.body, &signature);
        let signature_holds = line.signature.is_some_and(verifies);
        Ok(Self { signature_holds, ..checkpoint })
    }

    /// The same, for a line that a later one vouches for.
    pub fn unverified(line: &Line<'_>) -> Result<Self, LineBroken> {
        let Members { time, statement, key, .. } =
            serde_json::from_slice(&line.json()).map_err(|_| LineBroken::Json)?;
        if !statement.in_range() {
            return Err(LineBroken::Json);
        }
        let (head, previous, signature_holds) = (line.head, line.previous, false);
        Ok(Self { head, previous, time_us: time, statement, key, signature_holds })
    }

    pub fn promises(&self) -> impl Iterator<Item = &Promise> {
        let shards = match &self.statement {
            Statement::Checkpoint { shards, .. } => &shards[..],
            Statement::Key { .. } => &[],
        };
        shards.iter()
    }

    pub fn latest(&self) -> Option<Latest> {
        let Statement::Checkpoint { manifest, holds, .. } = &self.statement else { return None };
        let holds = holds.map_or(Head::START, Head::from);
        Some(Latest { time_us: self.time_us, manifest: (*manifest).into(), holds })
    }

    /// Whose signature the next line must bear.
    pub fn next_key(&self) -> PublicKey {
        match self.statement {
            Statement::Checkpoint { .. } => self.key,
            Statement::Key { next } => next,
        }
    }
}

/// What continues a chain of checkpoints. (Whether a signature holds is another question.)
#[derive(Clone, Copy, Debug)]
pub struct Next {
    pub number: u64,
    pub previous: Hash,
    /// Who has to sign it; `None`, at the first line of all: anybody.
    pub key: Option<PublicKey>,
}

impl Next {
    pub const FIRST: Self = Self { number: 1, previous: Head::START.hash, key: None };

    pub fn behind(line: &Checkpoint) -> Self {
        Self { number: line.head.number + 1, previous: line.head.hash, key: Some(line.next_key()) }
    }

    pub fn is(&self, line: &Checkpoint) -> bool {
        (line.head.number, line.previous) == (self.number, self.previous) && self.key.is_none_or(|key| key == line.key)
    }
}
