//! How texts are read, and where: a long one on a thread of the control side's, so that the shard's other sessions do not wait for the
//! parser. Its request waits meanwhile at the head of its window, undecided.

use super::meaning::{Does, Mark, Marked, Meaning};
use super::{Asking, Context, Gate};
use crate::limits;
use crate::shard::mailbox::ToControl;
use codecs::postgres::{Answer, Request, RequestKind};
use codecs::{Pipes, Side};
use masking::sql::{self, Class, Statement};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// How the client's texts are encoded, as far as reading them goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Utf8,
    /// One byte a character: structure is plain ASCII.
    SingleByte,
    /// A trailing byte of a character may look like a quote or backslash: only ASCII texts can be read safely.
    Unsafe,
}

impl Encoding {
    /// From a client_encoding value.
    pub fn named(name: &[u8]) -> Self {
        let name = name.to_ascii_uppercase();
        let starts = |prefix: &[u8]| name.starts_with(prefix);
        if name == b"UTF8" || name == b"UNICODE" {
            Encoding::Utf8
        } else if starts(b"LATIN") || starts(b"WIN") || starts(b"ISO_8859") || starts(b"KOI8") || name == b"SQL_ASCII" {
            Encoding::SingleByte
        } else {
            Encoding::Unsafe
        }
    }
}

/// The client_encoding, of which the target tells only when a segment ends, however long results have been in it by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encodings {
    /// Told last.
    pub told: Encoding,
    /// The session may have set another one: the end of a transaction can bring back any that was.
    moved: bool,
    /// What is under way may have changed it since.
    in_doubt: bool,
}

impl Encodings {
    pub const DEFAULT: Self = Self { told: Encoding::Utf8, moved: false, in_doubt: false };

    pub fn is_surely_utf8(self) -> bool {
        self.told == Encoding::Utf8 && !self.in_doubt
    }

    /// A statement goes to the target.
    pub fn release(&mut self, mark: &Marked) {
        if self.may_change_by(mark) {
            (self.moved, self.in_doubt) = (true, true);
        }
    }

    /// ReadyForQuery: what was set by then has been told. `open`: statements that are still under way.
    pub fn ready<'a>(&mut self, mut open: impl Iterator<Item = &'a Mark>) {
        self.in_doubt = self.in_doubt && open.any(|mark| self.may_change_by(mark));
    }

    fn may_change_by(self, mark: &Marked) -> bool {
        const BACK: [Class; 6] =
            [Class::Transaction, Class::Execute, Class::Fetch, Class::Call, Class::Do, Class::FunctionCall];
        let stays = !self.moved && self.told == Encoding::Utf8;
        let sets = |statement: &Statement| {
            let values = statement.settings.iter().filter(|(name, _)| name == "client_encoding");
            statement.opaque || values.map(|(_, value)| value).any(|value| !(stays && keeps_utf8(statement, value)))
        };
        mark.meaning.statements().any(sets) || !stays && BACK.iter().any(|class| mark.classes().contains(*class))
    }
}

/// In a session that began with UTF-8 and has set no other.
fn keeps_utf8(statement: &Statement, value: &Option<String>) -> bool {
    match value {
        Some(name) => Encoding::named(name.as_bytes()) == Encoding::Utf8,
        // RESET and DISCARD go back to what it began with; anything else can set what its text does not tell.
        None => statement.classes == Class::Set.into(),
    }
}

/// What reading a text hangs on besides the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct How {
    pub(super) encoding: Encoding,
    pub(super) standard_strings: bool,
    /// Whatever settings have become meanwhile: unparsed where the text would be something else under others.
    pub(super) in_doubt: bool,
}

impl How {
    /// The settings that PostgreSQL has by default.
    pub const DEFAULT: Self = Self { encoding: Encoding::Utf8, standard_strings: true, in_doubt: false };

    pub fn is_default(self) -> bool {
        self == Self::DEFAULT
    }

    /// Costs what the parser costs.
    pub(super) fn read(self, text: &[u8]) -> Read {
        if self.in_doubt || !self.standard_strings {
            let read = sql::analyse(&readable(text, self.encoding), self.standard_strings);
            let sure = !self.in_doubt || sql::reads_alike(text, &read);
            let analysis = if sure { read } else { sql::analyse(UNREADABLE, true) };
            return Read { does: Does::new(text, analysis, None), by_shape: false, how: self };
        }
        let sql::Reading { analysis, otherwise, by_shape } = match self.encoding {
            Encoding::SingleByte => sql::read_bytes(text),
            Encoding::Utf8 | Encoding::Unsafe => sql::read(&readable(text, self.encoding)),
        };
        Read { does: Does::new(text, analysis, otherwise), by_shape, how: self }
    }
}

/// Held for as long as somebody waits for a text to be read.
pub(super) type Awaited = Arc<()>;

/// A text that the shard has no time for.
pub struct Unread {
    text: Box<[u8]>,
    how: How,
    awaited: Weak<()>,
}

impl Unread {
    /// Its session has not ended meanwhile.
    pub fn is_awaited(&self) -> bool {
        self.awaited.strong_count() > 0
    }

    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    pub fn read(self) -> Box<Read> {
        Box::new(self.how.read(&self.text))
    }

    /// What it counts as if it cannot be read.
    pub fn unreadable(&self) -> Box<Read> {
        Box::new(Read { by_shape: false, how: self.how, ..How::DEFAULT.read(UNREADABLE) })
    }
}

/// What a text does, and how that was told.
pub struct Read {
    pub(super) does: Does,
    /// Every text of its shape does the same.
    pub(super) by_shape: bool,
    pub(super) how: How,
}

/// Bytes: longer texts are read elsewhere. Less than usual where a test wants that to happen often.
pub struct ReadsHere(pub usize);

impl Default for ReadsHere {
    fn default() -> Self {
        Self(limits::READ_HERE_BYTES_MAX)
    }
}

/// The text as its encoding lets it be read.
fn readable(text: &[u8], encoding: Encoding) -> Cow<'_, [u8]> {
    match encoding {
        _ if text.is_ascii() => Cow::Borrowed(text),
        Encoding::Utf8 => Cow::Borrowed(text),
        Encoding::SingleByte => sql::letters_folded(text),
        Encoding::Unsafe => Cow::Borrowed(UNREADABLE),
    }
}

/// A byte that cannot be UTF-8 makes the analysis answer "unparsed".
const UNREADABLE: &[u8] = b"\xff";

/// A request that is to be decided, perhaps not for the first time: what its text was read to mean goes with it.
pub(super) struct Asked {
    pub request: Request,
    read: Option<(How, Rc<Meaning>)>,
}

impl From<Request> for Asked {
    fn from(request: Request) -> Self {
        Self { request, read: None }
    }
}

impl Asked {
    /// What its text was read to mean, unless that was under other settings.
    pub fn meaning(&self, how: How) -> Option<Rc<Meaning>> {
        self.read.as_ref().filter(|(then, _)| *then == how).map(|(_, meaning)| meaning.clone())
    }
}

impl Gate {
    pub(super) fn how(&self, request: &Request) -> How {
        let (encoding, standard_strings) = (self.encodings.told, self.standard_conforming_strings);
        How { encoding, standard_strings, in_doubt: request.settings_in_doubt }
    }

    /// For another time: the request with what `mark` tells of its text.
    pub(super) fn asked(&self, request: Request, mark: &Mark) -> Asked {
        let reads = matches!(request.kind, RequestKind::Query | RequestKind::Parse);
        let read = reads.then(|| (self.how(&request), mark.meaning.clone()));
        Asked { request, read }
    }

    /// The request waits until its text has been read.
    pub(super) fn have_read(&mut self, request: Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let awaited = Awaited::default();
        let text = pipes.client.at(request.text).into();
        let unread = Unread { text, how: self.how(&request), awaited: Arc::downgrade(&awaited) };
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.asking = Some(Box::new(Asking::Reading { request, _awaited: awaited }));
        let (shard, relay) = (self.shard as usize, self.relay);
        cx.control.push(ToControl::Read { shard, relay, unread: Box::new(unread) });
    }

    /// The text of the request that waits for that has been read.
    pub(super) fn text_read(&mut self, read: Read, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let asking = self.asking.take_if(|asking| matches!(**asking, Asking::Reading { .. }));
        let Some(Asking::Reading { request, .. }) = asking.map(|asking| *asking) else { return };
        let how = read.how;
        let meaning = cx.shared.learn(pipes.client.at(request.text), read);
        self.request(Asked { request, read: Some((how, meaning)) }, pipes, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::meaning::{Leaning, Reads};
    use super::super::{Shared, masked};
    use super::*;

    const LONG: &str = "SELECT a FROM t WHERE b IN (1, 2, 3) AND c = 'x' ORDER BY a, b, c, d, e, f";

    fn shared() -> Shared {
        let mut shared = Shared::default();
        shared.reads_here = ReadsHere(20);
        shared
    }

    #[test]
    fn a_long_text_is_read_elsewhere_once_and_means_the_same() {
        let shared = &mut shared();
        assert!(shared.meaning(LONG.as_bytes(), How::DEFAULT).is_none());
        let unread = Unread { text: LONG.as_bytes().into(), how: How::DEFAULT, awaited: Weak::new() };
        let read = std::thread::spawn(move || unread.read()).join().expect("it is read");
        let meaning = shared.learn(LONG.as_bytes(), *read);
        assert_eq!((&*meaning.text, &*meaning.tables), (LONG.as_bytes(), &["t".to_owned()][..]));
        let other = LONG.replace("'x'", "'y'");
        let known = shared.meaning(other.as_bytes(), How::DEFAULT).expect("a known shape needs no reading");
        assert_eq!(*known.text, *other.as_bytes());
        assert_eq!(shared.counters.parsed_texts.value(), 1);
        assert!(shared.meaning(b"SELECT 1", How::DEFAULT).is_some(), "a short one is read at once");
    }

    #[test]
    fn what_was_read_under_other_settings_is_neither_kept_nor_believed() {
        let shared = &mut shared();
        let doubted = How { in_doubt: true, ..How::DEFAULT };
        let meaning = shared.learn(LONG.as_bytes(), doubted.read(LONG.as_bytes()));
        assert!(shared.meaning(LONG.as_bytes(), How::DEFAULT).is_none());
        let request =
            Request { kind: RequestKind::Query, text: codecs::Span { start: 0, end: 0 }, settings_in_doubt: false };
        let asked = Asked { request, read: Some((doubted, meaning)) };
        assert!(asked.meaning(doubted).is_some() && asked.meaning(How::DEFAULT).is_none());
    }

    fn marked(text: &str) -> Mark {
        let meaning = Shared::default().meaning(text.as_bytes(), How::DEFAULT).expect("a short text");
        Marked::new(meaning, masked::denied(""), 0, Reads::Open, Leaning::No)
    }

    #[test]
    fn an_encoding_is_in_doubt_until_the_target_has_told_it() {
        let mut encodings = Encodings::DEFAULT;
        for harmless in [
            "BEGIN",
            "SET client_encoding = 'UTF8'",
            "SET NAMES 'utf8'; SELECT v FROM t",
            "SET work_mem = '1MB'",
            "DISCARD ALL",
            "RESET client_encoding",
        ] {
            encodings.release(&marked(harmless));
            assert!(encodings.is_surely_utf8(), "{harmless}");
        }
        for turns in [
            "SET client_encoding = 'WIN866'; SELECT v FROM t",
            "SELECT set_config('client_encoding', 'WIN866', false), v FROM t",
            "SELECT set_config($1, $2, false)",
            "PREPARE p AS SELECT set_config('client_encoding', 'WIN866', false)",
            "DO $$ BEGIN SET client_encoding = 'WIN866'; END $$",
            "not SQL",
        ] {
            let mut encodings = Encodings::DEFAULT;
            encodings.release(&marked(turns));
            assert!(!encodings.is_surely_utf8(), "{turns}");
            encodings.ready([marked("SELECT 1")].iter());
            assert!(encodings.is_surely_utf8(), "{turns}");
        }
        encodings.release(&marked("SET LOCAL client_encoding = 'WIN866'"));
        encodings.ready([marked("ROLLBACK; SELECT v FROM t")].iter());
        assert!(!encodings.is_surely_utf8(), "what was before comes back");
        encodings.ready([].iter());
        assert!(encodings.is_surely_utf8());
        encodings.release(&marked("EXECUTE p"));
        assert!(!encodings.is_surely_utf8(), "it may set what it was prepared for");
    }

    #[test]
    fn what_cannot_be_read_counts_as_unparsed() {
        let unread = Unread { text: LONG.as_bytes().into(), how: How::DEFAULT, awaited: Weak::new() };
        let meaning = shared().learn(LONG.as_bytes(), *unread.unreadable());
        assert!(meaning.classes.contains(sql::Class::Unparsed) && !unread.unreadable().by_shape);
    }
}
