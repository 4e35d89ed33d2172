//! Who and where, on every record: borrowed, owned, and packed as records begin with it.

use super::encode::{self, Put};
use super::record::ITEM_BYTES;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Who and where, on every record.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub session: &'a str,
    pub user: &'a str,
    pub groups: &'a [String],
    pub actor: &'a [String],
    pub target: &'a str,
    /// `address:port` of the client.
    pub client: &'a str,
    pub application: &'a str,
    /// What the client claimed as `user`; only recorded.
    pub claimed_user: &'a str,
    /// Instead of all of the above, which is not looked at then.
    pub packed: Option<&'a PackedWho>,
}

/// Which of the parts are lists.
const LISTS: [usize; 2] = [2, 3];

/// Nobody in particular: the gateway itself.
pub const NOBODY: Who<'static> = Who {
    session: "",
    user: "",
    groups: &[],
    actor: &[],
    target: "",
    client: "",
    application: "",
    claimed_user: "",
    packed: None,
};

/// The parts of a [`Who`], while they are still being learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedWho {
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub client: String,
    pub application: String,
    pub claimed_user: String,
}

impl OwnedWho {
    pub fn who(&self) -> Who<'_> {
        Who {
            session: &self.session,
            user: &self.user,
            groups: &self.groups,
            actor: &self.actor,
            target: &self.target,
            client: &self.client,
            application: &self.application,
            claimed_user: &self.claimed_user,
            packed: None,
        }
    }
}

/// Who and where as it stands in front of the first of a session's records in each payload: texts and lists behind one another. Every
/// pointer in it is relative to itself, so the bytes are the same wherever they stand (at a multiple of
/// [`super::frame::ALIGN`]). Made once for the many records of a session, and the one place where it keeps all this.
#[derive(Debug)]
pub struct PackedWho {
    /// No other one that this process ever packs has it.
    pub(super) id: WhoId,
    pub(super) bytes: Box<[u8]>,
    /// Counted from where the bytes begin; in the order of the row's fields.
    pub(super) parts: [Part; 8],
}

/// Tells what was packed from everything else that ever was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct WhoId(u64);

impl WhoId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// A [`Put`] in half the room: a token bounds what is packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    at: u32,
    count: u32,
}

impl Part {
    pub fn put(self) -> Put {
        Put { at: self.at as usize, count: self.count as usize }
    }
}

impl From<Put> for Part {
    fn from(put: Put) -> Self {
        let small = |number: usize| u32::try_from(number).expect("a token and a start-up message are small");
        Self { at: small(put.at), count: small(put.count) }
    }
}

impl PackedWho {
    pub fn new(who: &Who<'_>) -> Self {
        let (bytes, puts) = encode::pack(who);
        Self { id: WhoId::next(), bytes: bytes.into(), parts: puts.map(Part::from) }
    }

    /// Each text has at most `text` bytes, and each list `list`, counted as a record's bounds are.
    #[inline]
    pub(super) fn fits(&self, text: usize, list: usize) -> bool {
        self.bytes.len() <= text || self.fits_by_part(text, list)
    }

    fn fits_by_part(&self, text: usize, list: usize) -> bool {
        let mut start = 0;
        self.parts.iter().enumerate().all(|(part, &place)| {
            let Put { at, count } = place.put();
            if !LISTS.contains(&part) {
                start = at + count;
                return count <= text;
            }
            // The texts of its items lie between what is before it and the first pointer.
            let taken = at - start + count * ITEM_BYTES;
            start = at + count * encode::POINTER_BYTES;
            taken <= list
        })
    }

    pub fn session(&self) -> &str {
        self.text(0)
    }

    pub fn user(&self) -> &str {
        self.text(1)
    }

    pub fn groups(&self) -> Vec<String> {
        self.list(2)
    }

    pub fn actor(&self) -> Vec<String> {
        self.list(3)
    }

    pub fn target(&self) -> &str {
        self.text(4)
    }

    pub fn client(&self) -> &str {
        self.text(5)
    }

    pub fn application(&self) -> &str {
        self.text(6)
    }

    pub fn claimed_user(&self) -> &str {
        self.text(7)
    }

    /// The parts it was packed from.
    pub fn unpacked(&self) -> OwnedWho {
        OwnedWho {
            session: self.session().to_owned(),
            user: self.user().to_owned(),
            groups: self.groups(),
            actor: self.actor(),
            target: self.target().to_owned(),
            client: self.client().to_owned(),
            application: self.application().to_owned(),
            claimed_user: self.claimed_user().to_owned(),
        }
    }

    fn text(&self, part: usize) -> &str {
        self.at(self.parts[part].put())
    }

    fn list(&self, part: usize) -> Vec<String> {
        encode::items(&self.bytes, self.parts[part].put()).map(|item| self.at(item).to_owned()).collect()
    }

    fn at(&self, Put { at, count }: Put) -> &str {
        std::str::from_utf8(&self.bytes[at..at + count]).expect("packed from texts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_read_back_part_by_part() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let ann = OwnedWho {
            session: "0123456789abcdef".into(),
            user: "änn@example.com".into(),
            groups: names(&["staff", "", "on-call, at night"]),
            actor: names(&["copilot@3"]),
            target: "orders".into(),
            client: "[::1]:5432".into(),
            application: "psql".into(),
            claimed_user: "anything".into(),
        };
        let packed = PackedWho::new(&ann.who());
        assert_eq!(packed.unpacked(), ann);
        assert_eq!((packed.user(), packed.groups(), packed.actor()), ("änn@example.com", ann.groups, ann.actor));
        // The longest texts have 16 bytes; the longest list has 22, three items, and up to three bytes of padding.
        assert!(
            packed.fits(16, 22 + 3 * ITEM_BYTES + 3) && !packed.fits(15, 1000) && !packed.fits(16, 21 + 3 * ITEM_BYTES)
        );
        assert_eq!(PackedWho::new(&NOBODY).unpacked(), OwnedWho::default());
    }
}
