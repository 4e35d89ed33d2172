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

impl Ticket {
    /// The same with no more than the beginning of its texts: statement and values together come to about that many bytes of JSON, in
    /// which a control character takes six. What is missing is told in its place.
    pub fn shortened(&self, json_bytes_max: usize) -> Ticket {
        let mut room = json_bytes_max;
        let statement = beginning(&self.statement, &mut room);
        let mut binds = Vec::new();
        for bind in &self.binds {
            if room == 0 {
                binds.push(Some(format!("... (cut, {} values in all)", self.binds.len())));
                break;
            }
            room = room.saturating_sub(BIND_JSON_BYTES);
            binds.push(bind.as_deref().map(|text| beginning(text, &mut room)));
        }
        Ticket {
            id: self.id.clone(),
            shard: self.shard,
            relay: self.relay,
            session: self.session.clone(),
            digest: self.digest,
            user: self.user.clone(),
            groups: self.groups.clone(),
            actor: self.actor.clone(),
            target: self.target.clone(),
            statement,
            binds,
            rule: self.rule.clone(),
            approvers: self.approvers.clone(),
            count: self.count,
            own: self.own,
            asked_at_us: self.asked_at_us,
            expires_at_us: self.expires_at_us,
        }
    }
}

/// What a value takes beside its text: `null,`, or quotes and a comma.
const BIND_JSON_BYTES: usize = 5;

/// As much of the text as there is room for, which it takes.
fn beginning(text: &str, room: &mut usize) -> String {
    for (at, character) in text.char_indices() {
        let wanted = json_bytes(character);
        if wanted > *room {
            *room = 0;
            return format!("{} ... (cut, {} bytes in all)", &text[..at], text.len());
        }
        *room -= wanted;
    }
    text.to_owned()
}

/// As serde_json writes it in a text.
fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
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

#[cfg(test)]
pub fn ticket_for_tests(statement: &str, binds: &[Option<&str>]) -> Ticket {
    Ticket {
        id: TicketId("0-1-a".into()),
        shard: 0,
        relay: 1,
        session: "s".into(),
        digest: [9; 32],
        user: "alice".into(),
        groups: vec![],
        actor: vec![],
        target: "orders".into(),
        statement: statement.into(),
        binds: binds.iter().map(|bind| bind.map(String::from)).collect(),
        rule: "r".into(),
        approvers: vec!["dba".into()],
        count: 1,
        own: false,
        asked_at_us: 1,
        expires_at_us: 100,
    }
}

#[cfg(test)]
mod tests {
    use super::ticket_for_tests as ticket;
    use super::*;

    #[test]
    fn what_fits_is_kept_whole() {
        let whole = ticket("SELECT 'é\n'", &[None, Some("x\u{1}")]);
        let short = whole.shortened(100);
        assert_eq!((short.statement, short.binds), (whole.statement, whole.binds));
    }

    #[test]
    fn each_kind_of_character_counts_as_json_writes_it() {
        for character in (0..0x300).filter_map(char::from_u32).chain(['€', '🦀', '\u{2028}']) {
            let written = serde_json::to_string(&character.to_string()).expect("a text").len();
            assert_eq!(json_bytes(character) + 2, written, "{character:?}");
        }
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_says_how_long_it_was() {
        let short = ticket("ééé", &[Some("x")]).shortened(5);
        assert_eq!(short.statement, "éé ... (cut, 6 bytes in all)");
        assert_eq!(short.binds, [Some("... (cut, 1 values in all)".to_owned())]);
    }

    #[test]
    fn neither_control_characters_nor_many_values_make_it_longer() {
        let controls = "\u{1}".repeat(64_000);
        for (statement, binds) in [
            (controls.as_str(), vec![]),
            ("SELECT", vec![Some(controls.as_str()); 100]),
            ("SELECT", vec![None; 60_000]),
            ("SELECT", vec![Some(""); 60_000]),
        ] {
            let line = serde_json::to_vec(&ticket(statement, &binds).shortened(4096)).expect("JSON");
            assert!(line.len() < 5000, "{}", line.len());
        }
    }
}
