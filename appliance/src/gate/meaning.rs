//! What texts mean, remembered per shard: the parser runs once for a text, not once for a statement.

use super::catalogues::Catalogues;
use super::cursors::Traits;
use super::reading::{How, Read, ReadsHere};
use super::seats::Seats;
use super::views::Views;
use crate::limits;
use crate::metrics::ShardCounters;
use crate::policy::{Decision, View};
use crate::shard::mailbox::Catalogue;
use codecs::postgres::ColumnPlan;
use masking::sql::{self, Analysis, Class, Classes};
use smallvec::SmallVec;
use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// What the gates of one shard share: the cache of analyses, catalogues, counters. No locks: one shard, one thread.
#[derive(Default)]
pub struct Shared {
    cache: Cache,
    pub catalogues: Catalogues,
    pub(super) views: Views,
    pub counters: Arc<ShardCounters>,
    /// Bytes of each response that go into its outcome's record; 0: none.
    pub payload_bytes_max: usize,
    /// To the first ReadyForQuery of a session whose access was waited for: its login begins anew with the ruling.
    pub login_timeout_us: u64,
    pub seats: Arc<Seats>,
    pub reads_here: ReadsHere,
    pub(super) scratch: Scratch,
}

/// Buffers lent to one record at a time, so that a steady statement allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    pub text: Vec<u8>,
    pub binds: String,
    pub ends: Vec<Option<usize>>,
}

/// A text and what it does.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// The text as far as the trail keeps it: always the one that was sent, never another of its shape.
    pub text: Vec<u8>,
    pub text_bytes: u64,
    does: Rc<Does>,
    /// By which other texts of its shape are found, once one has come. `None` in it: not so.
    pattern: OnceCell<Option<sql::Pattern>>,
}

/// A text's room that is handed on to any other.
const ROOM_BYTES: usize = 512;

/// What a text does, without the text: all texts of one shape may share it.
#[derive(Debug)]
pub(crate) struct Does {
    pub analysis: Analysis,
    /// What it does instead where the target has `standard_conforming_strings` off by now and has not said so, if that is something else.
    otherwise: Option<Box<Analysis>>,
    pub classes: Classes,
    /// With those of what it does instead.
    may_be: Classes,
    /// Names for the trail, `schema.table` where the text says so.
    pub tables: Vec<String>,
    pub(super) cursors: Traits,
    /// What all texts that do this have in common, where that was found to decide.
    shape: OnceCell<Box<[u8]>>,
}

impl Deref for Meaning {
    type Target = Does;

    fn deref(&self) -> &Does {
        &self.does
    }
}

impl Does {
    pub(super) fn new(text: &[u8], analysis: Analysis, otherwise: Option<Analysis>) -> Self {
        let mut classes = Classes::default();
        let (mut tables, mut seen) = (Vec::new(), HashSet::new());
        for statement in &analysis.statements {
            classes = classes.union(statement.classes);
            for table in &statement.tables {
                let name = match &table.schema {
                    Some(schema) => format!("{schema}.{}", table.name),
                    None => table.name.clone(),
                };
                if seen.insert(name.clone()) {
                    tables.push(name);
                }
            }
        }
        let others = otherwise.iter().flat_map(|other| &other.statements);
        let may_be = others.fold(classes, |all, statement| all.union(statement.classes));
        let cursors = Traits::of(text, classes, &analysis, otherwise.as_ref());
        Self { analysis, otherwise: otherwise.map(Box::new), classes, may_be, tables, cursors, shape: OnceCell::new() }
    }
}

impl Meaning {
    fn of(text: &[u8], does: Rc<Does>) -> Self {
        Self { text: kept(text).to_vec(), text_bytes: text.len() as u64, does, pattern: OnceCell::new() }
    }

    /// The same as [`Self::of`], written over another one.
    fn become_of(&mut self, text: &[u8], does: &Rc<Does>) {
        // Much room is not handed on: what a name is given to lives long.
        if self.text.capacity() > ROOM_BYTES.max(4 * text.len()) {
            self.text = Vec::new();
        }
        kept(text).clone_into(&mut self.text);
        self.text_bytes = text.len() as u64;
        self.pattern.take();
        if !Rc::ptr_eq(&self.does, does) {
            self.does = does.clone();
        }
    }

    /// Of something that was not sent as a text of its own: `text` is for the trail.
    pub fn unread(text: &[u8], statement: sql::Statement) -> Self {
        let (classes, analysis) = (statement.classes, one(statement));
        let (may_be, tables, cursors) = (classes, Vec::new(), Traits::default());
        let does = Does { classes, may_be, tables, analysis, otherwise: None, cursors, shape: OnceCell::new() };
        Self::of(text, Rc::new(does))
    }

    pub fn is_of(&self, text: &[u8]) -> bool {
        self.text_bytes == text.len() as u64 && self.text == text
    }

    /// `text` has its shape, which is found to decide. `false`: it has not, or nobody has looked yet.
    fn fits(&self, text: &[u8]) -> bool {
        let pattern = self.pattern.get().and_then(Option::as_ref);
        pattern.is_some_and(|pattern| self.does.shape.get().is_some() && pattern.fits(&self.text, text))
    }

    /// From now on [`Self::fits`] tells.
    fn expect_again(&self) {
        let is_whole = self.text_bytes == self.text.len() as u64;
        self.pattern.get_or_init(|| if is_whole { sql::Pattern::of(&self.text) } else { None });
    }

    /// What it does, and what it may do instead.
    pub fn readings(&self) -> impl Iterator<Item = &Analysis> {
        std::iter::once(&self.does.analysis).chain(self.does.otherwise.as_deref())
    }

    /// The statements of every reading.
    pub fn statements(&self) -> impl Iterator<Item = &sql::Statement> {
        self.readings().flat_map(|reading| &reading.statements)
    }

    /// Those of what it may do instead.
    pub fn other_statements(&self) -> impl Iterator<Item = &sql::Statement> {
        self.does.otherwise.iter().flat_map(|other| &other.statements)
    }

    pub fn has_another_reading(&self) -> bool {
        self.does.otherwise.is_some()
    }

    /// The text or a body in it has this word, outside of constants and comments.
    pub fn has_word(&self, word: &str) -> bool {
        self.readings().any(|reading| reading.words.binary_search_by(|known| known.as_str().cmp(word)).is_ok())
    }

    /// May change names, columns or rights that the catalogue tells of.
    pub fn changes_catalogue(&self) -> bool {
        [Class::Create, Class::Alter, Class::Drop, Class::Do, Class::Call]
            .iter()
            .any(|class| self.may_be.contains(*class))
    }

    /// Afterwards a name in a statement that this session has prepared may stand for another table than when it was
    /// described. ([`Self::changes_catalogue`]: in every session's.)
    pub fn moves_own_names(&self) -> bool {
        const WHO_AND_WHERE: [&str; 3] = ["search_path", "role", "session_authorization"];
        let set = |statement: &sql::Statement| {
            statement.settings.iter().any(|(name, _)| WHO_AND_WHERE.contains(&name.as_str()))
        };
        self.statements().any(set)
    }

    /// Read otherwise it may give, take or exchange names: what they stand for behind it nobody can tell.
    pub fn may_exchange_names(&self) -> bool {
        const TOUCH: [Class; 4] = [Class::Do, Class::Call, Class::Transaction, Class::Unparsed];
        let touches = |statement: &sql::Statement| {
            let named = statement.defines.is_some() || statement.forgets.is_some();
            named || TOUCH.iter().any(|class| statement.classes.contains(*class))
        };
        self.other_statements().any(touches)
    }

    /// May end a transaction in which such a statement has run.
    pub fn ends_transaction(&self) -> bool {
        self.may_be.contains(Class::Transaction)
    }
}

/// The gate's mark on a statement: meaning and verdict, kept with prepared names and portals.
pub(crate) type Mark = Rc<Marked>;

pub(crate) struct Marked {
    pub meaning: Rc<Meaning>,
    judged: Rc<Judged>,
    /// The text as the trail shows it: with what is masked for this principal masked.
    pub shown: OnceCell<Box<[u8]>>,
    /// With what the names in it stand for; `None`: there are no such names.
    touched: Option<Box<Touched>>,
}

/// What a statement does besides what its own text says: by the names of prepared statements and cursors.
#[derive(Clone, Default)]
pub(super) struct Touched {
    classes: Classes,
    tables: Vec<String>,
    /// Of the statements that the names stand for.
    meanings: Vec<Rc<Meaning>>,
}

impl Touched {
    pub fn add(&mut self, used: &Marked) {
        self.classes = self.classes.union(used.classes());
        self.tables.extend_from_slice(used.tables());
        self.meanings.push(used.meaning.clone());
    }
}

/// A verdict and what follows from it: the same for all texts of one shape.
pub(crate) struct Judged {
    pub decision: Decision,
    /// The rules the decision was made from ([`crate::snapshot::Snapshot::rules`]).
    pub version: u64,
    /// What its results may show: decided from the tables it reads.
    pub reads: Reads,
    pub leaning: Leaning,
    /// How the columns of its last result were treated.
    pub plan: RefCell<Option<Planned>>,
}

impl Deref for Marked {
    type Target = Judged;

    fn deref(&self) -> &Judged {
        &self.judged
    }
}

impl Marked {
    pub fn new(meaning: Rc<Meaning>, decision: Decision, version: u64, reads: Reads, leaning: Leaning) -> Mark {
        let judged = Judged { decision, version, reads, leaning, plan: RefCell::default() };
        Rc::new(Self { meaning, judged: Rc::new(judged), shown: OnceCell::new(), touched: None })
    }

    /// The same, with what names in it stand for.
    pub fn behind(self: Rc<Self>, mut touched: Touched) -> Mark {
        if touched.classes == Classes::default() {
            return self;
        }
        touched.classes = touched.classes.union(self.meaning.classes);
        touched.tables.splice(0..0, self.meaning.tables.iter().cloned());
        let mut seen = HashSet::new();
        touched.tables.retain(|table| seen.insert(table.clone()));
        let (meaning, judged) = (self.meaning.clone(), self.judged.clone());
        Rc::new(Self { meaning, judged, shown: OnceCell::new(), touched: Some(Box::new(touched)) })
    }

    /// Everything it does, for the trail.
    pub fn classes(&self) -> Classes {
        self.touched.as_ref().map_or(self.meaning.classes, |touched| touched.classes)
    }

    /// Every table it names, or that a name in it stands for.
    pub fn tables(&self) -> &[String] {
        self.touched.as_ref().map_or(&self.meaning.tables, |touched| &touched.tables)
    }

    /// What the names in it stand for, as far as that is known.
    pub fn behind_names(&self) -> &[Rc<Meaning>] {
        self.touched.as_ref().map_or(&[], |touched| &touched.meanings)
    }

    /// The same statement under another verdict.
    pub fn with(&self, decision: Decision) -> Mark {
        let mark = Self::new(self.meaning.clone(), decision, self.version, self.reads, self.leaning);
        self.touched.as_ref().map_or_else(|| mark.clone(), |touched| mark.clone().behind((**touched).clone()))
    }

    /// The same verdict on another text of the same shape.
    fn on(&self, text: &[u8]) -> Mark {
        let meaning = Rc::new(Meaning::of(text, self.meaning.does.clone()));
        Rc::new(Self { meaning, judged: self.judged.clone(), shown: OnceCell::new(), touched: None })
    }

    /// The same as [`Self::on`], written over `spent`. `None`: somebody still has that one.
    fn on_over(&self, text: &[u8], spent: &mut Mark) -> Option<()> {
        let over = Rc::get_mut(spent)?;
        Rc::get_mut(&mut over.meaning)?.become_of(text, &self.meaning.does);
        if !Rc::ptr_eq(&over.judged, &self.judged) {
            over.judged = self.judged.clone();
        }
        over.shown.take();
        over.touched = None;
        Some(())
    }
}

/// The latest marks of one session, found by the meaning they were made for: a text that comes again is neither decided
/// nor planned again, though its client prepares nothing.
#[derive(Default)]
pub(super) struct Recent {
    /// At most [`limits::RECENT_MARKS_MAX`], each for another meaning; the first gives way next.
    marks: Vec<Mark>,
    /// Made last for a text that was told by its shape: once its statement is over, the next one's is written over it.
    spent: Option<Mark>,
}

impl Recent {
    pub fn find(&self, meaning: &Rc<Meaning>) -> Option<&Mark> {
        self.marks.iter().find(|mark| Rc::ptr_eq(&mark.meaning, meaning))
    }

    /// Where a mark is on another text of the same shape: what was decided about that one holds for this one.
    fn of_shape(&self, shape: &[u8]) -> Option<usize> {
        let same = |mark: &Mark| mark.meaning.does.shape.get().is_some_and(|known| **known == *shape);
        self.marks.iter().position(same).inspect(|&at| self.marks[at].meaning.expect_again())
    }

    /// The same without the shape, where a text of it has come before. Each of them may have to read a long constant to its end, so a long
    /// text is left to its shape.
    fn fitting(&self, text: &[u8]) -> Option<usize> {
        let is_short = text.len() <= limits::CACHED_TEXT_BYTES_MAX;
        is_short.then(|| self.marks.iter().position(|mark| mark.meaning.fits(text)))?
    }

    /// The verdict of the mark at `at` on another text of its shape.
    fn on(&mut self, at: usize, text: &[u8]) -> Mark {
        let known = &self.marks[at];
        // A long text is not kept for the sake of its room.
        if text.len() > limits::CACHED_TEXT_BYTES_MAX {
            return known.on(text);
        }
        if let Some(spent) = &mut self.spent
            && known.on_over(text, spent).is_some()
        {
            return spent.clone();
        }
        self.spent.insert(known.on(text)).clone()
    }

    /// Long texts are not cached, so each has a meaning of its own every time: keeping it would serve nobody.
    pub fn keep(&mut self, mark: Mark) {
        if mark.meaning.text_bytes > limits::CACHED_TEXT_BYTES_MAX as u64 {
            return;
        }
        if let Some(older) = self.marks.iter_mut().find(|older| Rc::ptr_eq(&older.meaning, &mark.meaning)) {
            *older = mark;
        } else if self.marks.len() < limits::RECENT_MARKS_MAX {
            self.marks.push(mark);
        } else {
            self.marks.rotate_left(1);
            *self.marks.last_mut().expect("full") = mark;
        }
    }
}

/// A column plan and what it was made from: it serves again for the same columns under the same catalogue.
pub(crate) struct Planned {
    pub columns: SmallVec<[(u32, i16, u32); 8]>,
    /// `None`: no column is masked, so nobody asked.
    pub catalogue: Option<Arc<Catalogue>>,
    pub plan: Option<ColumnPlan>,
}

/// Whether the verdict hangs on which columns the tables of a statement have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Leaning {
    No,
    /// A mask would refuse it, were it not that the catalogue knows no masked column in its tables.
    Passed,
    /// A mask refuses it, and the catalogue has not been asked.
    Unasked,
}

/// What expression columns (those without a table of their own) of a result may contain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reads {
    /// Nothing masked for this principal.
    Open,
    /// Values of a masked table: expression columns are masked whole.
    Masked,
    /// Cannot be told: the same.
    Unknown,
}

fn one(statement: sql::Statement) -> Analysis {
    Analysis { statements: vec![statement], words: Vec::new() }
}

/// Two generations of meanings: when the young one is full it becomes the old one, and the old one is forgotten. Keys are
/// compared whole, so that no choice of texts can make two of them meet; the hash (aHash, keyed by chance) only finds them.
#[derive(Default)]
struct Generations {
    young: Known,
    old: Known,
}

type Known = ahash::AHashMap<Box<[u8]>, Rc<Meaning>>;

impl Generations {
    fn find(&mut self, key: &[u8]) -> Option<Rc<Meaning>> {
        if let Some(meaning) = self.young.get(key) {
            return Some(meaning.clone());
        }
        let (key, meaning) = self.old.remove_entry(key)?;
        self.keep(key, meaning.clone());
        Some(meaning)
    }

    fn keep(&mut self, key: Box<[u8]>, meaning: Rc<Meaning>) {
        if self.young.len() >= limits::CACHED_TEXTS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, meaning);
    }
}

/// What was read before, for texts read under the default settings.
struct Cache {
    /// Texts that hang on none of their constants, by their shape. The meaning is the first such text's.
    by_shape: Generations,
    /// All others, by themselves.
    by_text: Generations,
    /// Where a shape is written.
    room: Box<[u8]>,
}

impl Default for Cache {
    fn default() -> Self {
        let room = vec![0; limits::CACHED_TEXT_BYTES_MAX].into();
        Self { by_shape: Generations::default(), by_text: Generations::default(), room }
    }
}

impl Cache {
    fn find(&mut self, text: &[u8], counters: &ShardCounters) -> Option<Rc<Meaning>> {
        if let Some(known) = shape(text, &mut self.room).and_then(|shape| self.by_shape.find(shape)) {
            if known.is_of(text) {
                counters.known_texts.add(1);
                return Some(known);
            }
            counters.known_shapes.add(1);
            return Some(Rc::new(Meaning::of(text, known.does.clone())));
        }
        self.by_text.find(text).inspect(|_| counters.known_texts.add(1))
    }

    fn keep(&mut self, text: &[u8], does: Does, by_shape: bool) -> Rc<Meaning> {
        let meaning = Rc::new(Meaning::of(text, Rc::new(does)));
        let short = text.len() <= limits::CACHED_TEXT_BYTES_MAX;
        let shape = if by_shape { shape(text, &mut self.room) } else { None };
        if let Some(shape) = shape {
            meaning.does.shape.get_or_init(|| shape.into());
        }
        match shape {
            Some(shape) if short => self.by_shape.keep(shape.into(), meaning.clone()),
            // A short shape of a long text is kept without the text.
            Some(shape) => self.by_shape.keep(shape.into(), Rc::new(Meaning::of(b"", meaning.does.clone()))),
            None if short => self.by_text.keep(text.into(), meaning.clone()),
            None => {}
        }
        meaning
    }
}

impl Shared {
    /// What `text` does. `None`: that has to be read first, and it is too long to be read here.
    pub(super) fn meaning(&mut self, text: &[u8], how: How) -> Option<Rc<Meaning>> {
        let known = if how.is_default() { self.cache.find(text, &self.counters) } else { None };
        known.or_else(|| (text.len() <= self.reads_here.0).then(|| self.learn(text, how.read(text))))
    }

    /// What `text` was read to do, here or elsewhere. Remembered where it was read under the default settings.
    pub(super) fn learn(&mut self, text: &[u8], read: Read) -> Rc<Meaning> {
        self.counters.parsed_texts.add(1);
        if read.how.is_default() {
            self.cache.keep(text, read.does, read.by_shape)
        } else {
            Rc::new(Meaning::of(text, Rc::new(read.does)))
        }
    }

    /// The mark on a text of a shape that this session has had a verdict on, if `holds` says that it still stands.
    pub(super) fn recall(&mut self, text: &[u8], recent: &mut Recent, holds: impl Fn(&Marked) -> bool) -> Option<Mark> {
        let at = recent.fitting(text).or_else(|| recent.of_shape(shape(text, &mut self.cache.room)?))?;
        let mark = recent.marks.get(at).filter(|mark| holds(mark))?;
        if mark.meaning.is_of(text) {
            self.counters.known_texts.add(1);
            return Some(mark.clone());
        }
        self.counters.known_shapes.add(1);
        Some(recent.on(at, text))
    }
}

/// As much of a text as the trail keeps.
fn kept(text: &[u8]) -> &[u8] {
    &text[..text.len().min(limits::AUDIT_STATEMENT_BYTES_MAX)]
}

/// What texts that differ in constants only have in common.
fn shape<'r>(text: &[u8], room: &'r mut [u8]) -> Option<&'r [u8]> {
    if text.len() <= limits::SHAPED_TEXT_BYTES_MAX { sql::shape(text, room) } else { None }
}

/// A DO block that handles prepared statements or cursors: what it reads of them, and what they stand for behind it, nobody sees.
pub(super) fn runs_names(statement: &sql::Statement) -> bool {
    statement.classes.contains(Class::Do) && (statement.names_inside || statement.cursors_inside)
}

/// What a result of these statements may show to the holder of `view`.
pub(super) fn reads(analysis: &Analysis, view: &View) -> Reads {
    if view.column_masks.is_empty() {
        return Reads::Open;
    }
    if analysis.statements.iter().any(|statement| statement.opaque || runs_names(statement)) {
        return Reads::Unknown;
    }
    let masked = analysis
        .statements
        .iter()
        .flat_map(|statement| &statement.tables)
        .any(|table| view.masks_table(table.schema.as_deref(), &table.name));
    if masked { Reads::Masked } else { Reads::Open }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Action;

    /// As a session does it, but that long texts are read here as well.
    fn read_as(shared: &mut Shared, text: &[u8], how: How) -> Rc<Meaning> {
        shared.meaning(text, how).unwrap_or_else(|| shared.learn(text, how.read(text)))
    }

    fn read(shared: &mut Shared, text: &[u8]) -> Rc<Meaning> {
        read_as(shared, text, How::DEFAULT)
    }

    /// What every later step uses, and the counters: known text, known shape, parsed.
    #[track_caller]
    fn check(shared: &mut Shared, text: &str, counted: [u64; 3]) -> Rc<Meaning> {
        let meaning = read(shared, text.as_bytes());
        let fresh = Does::new(text.as_bytes(), sql::analyse(text.as_bytes(), true), None);
        let does = |does: &Does| format!("{:?} {:?} {:?}", does.analysis, does.classes, does.tables);
        assert_eq!(does(&meaning.does), does(&fresh), "{text}");
        assert_eq!(meaning.text_bytes, text.len() as u64);
        let kept = text.len().min(limits::AUDIT_STATEMENT_BYTES_MAX);
        assert_eq!(*meaning.text, text.as_bytes()[..kept], "the text that was sent");
        let c = &shared.counters;
        assert_eq!([c.known_texts.value(), c.known_shapes.value(), c.parsed_texts.value()], counted, "{text}");
        meaning
    }

    #[test]
    fn texts_that_differ_in_constants_are_parsed_once_and_keep_their_own_text() {
        let shared = &mut Shared::default();
        let first = check(shared, "SELECT abalance FROM pgbench_accounts WHERE aid = 17;", [0, 0, 1]);
        let second = check(shared, "SELECT abalance FROM pgbench_accounts WHERE aid = 4;", [0, 1, 1]);
        check(shared, "select abalance /* x */ from pgbench_accounts where aid=9999 ;", [0, 2, 1]);
        let again = check(shared, "SELECT abalance FROM pgbench_accounts WHERE aid = 17;", [1, 2, 1]);
        assert!(Rc::ptr_eq(&first, &again) && Rc::ptr_eq(&first.does, &second.does));
        check(shared, "SELECT abalance FROM pgbench_accounts WHERE aid = 'x';", [1, 2, 2]);
        check(shared, "SELECT abalance FROM pgbench_tellers WHERE aid = 17;", [1, 2, 3]);
    }

    #[test]
    fn a_mark_is_written_over_when_its_statement_is_over_and_not_before() {
        let (shared, recent) = (&mut Shared::default(), &mut Recent::default());
        let text = |number: u32| format!("SELECT a FROM t WHERE b = {number}").into_bytes();
        let allow =
            Decision { action: Action::Allow, rule: None, message: None, approval: None, reason: String::new() };
        let meaning = read(shared, &text(0));
        recent.keep(Marked::new(meaning, allow, 1, Reads::Open, Leaning::No));
        let mut recall = |number| shared.recall(&text(number), recent, |_| true).expect("a known shape");
        let (first, second) = (recall(1), recall(23));
        assert_eq!([&first.meaning.text, &second.meaning.text], [&text(1), &text(23)], "both under way");
        first.shown.set(Box::default()).expect("nothing yet");
        let meant = second.meaning.clone();
        let first_at = Rc::as_ptr(&first);
        drop((first, second));
        let third = recall(456);
        assert_eq!([&meant.text, &third.meaning.text], [&text(23), &text(456)], "what it meant is still in use");
        let third_at = Rc::as_ptr(&third);
        third.shown.set(Box::default()).expect("nothing yet");
        drop(third);
        let fourth = recall(7);
        assert!(Rc::as_ptr(&fourth) == third_at && third_at != first_at);
        assert_eq!((&fourth.meaning.text, fourth.meaning.text_bytes), (&text(7), text(7).len() as u64));
        assert!(fourth.shown.get().is_none(), "what was shown of another text");
        assert_eq!(recall(0).meaning.text, text(0));
        drop(fourth);
        let long = format!("SELECT a FROM t WHERE b = {}1", " ".repeat(limits::CACHED_TEXT_BYTES_MAX - 30));
        drop(shared.recall(long.as_bytes(), recent, |_| true).expect("a known shape"));
        let short = shared.recall(&text(8), recent, |_| true).expect("a known shape");
        assert!(short.meaning.text.capacity() <= ROOM_BYTES, "the room of a long text goes with it");
    }

    #[test]
    fn texts_whose_meaning_hangs_on_a_constant_are_parsed_each() {
        let shared = &mut Shared::default();
        check(shared, "DELETE FROM t WHERE 1 = 2", [0, 0, 1]);
        let all = check(shared, "DELETE FROM t WHERE 1 = 1", [0, 0, 2]);
        assert!(all.analysis.statements[0].missing_where);
        check(shared, "SELECT set_config('application_name', 'a', false)", [0, 0, 3]);
        check(shared, "SELECT set_config('search_path', 'billing', false)", [0, 0, 4]);
        check(shared, "DO 'BEGIN DROP TABLE a; END'", [0, 0, 5]);
        check(shared, "DO 'BEGIN DROP TABLE b; END'", [0, 0, 6]);
        check(shared, "SET search_path = 'a'", [0, 0, 7]);
        check(shared, "SET search_path = 'b'", [0, 0, 8]);
        check(shared, "SET search_path = 'b'", [1, 0, 8]);
    }

    #[test]
    fn a_backslash_shares_a_verdict_only_where_nothing_hangs_on_what_it_says() {
        let shared = &mut Shared::default();
        let mut readings = |text: &str| read(shared, text.as_bytes()).readings().count();
        for (text, expected) in [
            ("SELECT a FROM t WHERE b = 'x'", 1),
            (r"SELECT a FROM t WHERE b = '\x2a'", 1),
            (r"SELECT a FROM t WHERE b = E'\n'", 1),
            ("UPDATE t SET a = 1 WHERE 'a' = 'b'", 1),
            (r"UPDATE t SET a = 1 WHERE 'a' = '\141'", 2),
            ("UPDATE t SET a = 1 WHERE 'a' = '1234'", 1),
            (r"UPDATE t SET a = 1 WHERE 'a' = '\141'", 2),
            ("SELECT query_to_xml('TABLE t /* a */', true, false, '')", 1),
            (r"SELECT query_to_xml('TABLE t /* \x2a/ UNION TABLE u -- */', true, false, '')", 2),
            ("DO 'BEGIN /* a */ NULL; END'", 1),
            ("DO 'BEGIN /* \\x2a/ DROP TABLE t; -- */\n NULL; END'", 2),
            ("SELECT E'A\\\\', ' ; drop table t; --'", 1),
            ("SELECT E'\u{c1}\\\\', ' ; drop table t; --'", 2),
        ] {
            assert_eq!(readings(text), expected, "{text}");
        }
    }

    #[test]
    fn a_constant_that_makes_the_text_unreadable_is_noticed() {
        let shared = &mut Shared::default();
        check(shared, "SELECT * FROM t WHERE a = 'x'", [0, 0, 1]);
        let unreadable = read(shared, b"SELECT * FROM t WHERE a = '\xff'");
        assert!(unreadable.classes.contains(Class::Unparsed));
        let backslash = b"SELECT * FROM t WHERE a = '\\'";
        let nonstandard = How { standard_strings: false, ..How::DEFAULT };
        assert!(read_as(shared, backslash, nonstandard).classes.contains(Class::Unparsed));
        assert!(!read(shared, backslash).classes.contains(Class::Unparsed));
    }

    #[test]
    fn long_constants_are_known_by_their_shape_and_not_kept() {
        let shared = &mut Shared::default();
        let insert = |byte: &str, count| format!("INSERT INTO t (a) VALUES ('{}')", byte.repeat(count));
        check(shared, &insert("a", limits::CACHED_TEXT_BYTES_MAX), [0, 0, 1]);
        check(shared, &insert("b", limits::CACHED_TEXT_BYTES_MAX), [0, 1, 1]);
        check(shared, &insert("c", limits::AUDIT_STATEMENT_BYTES_MAX), [0, 2, 1]);
        assert!(shared.cache.by_shape.young.values().all(|kept| kept.text.is_empty()));
        check(shared, &insert("d", limits::SHAPED_TEXT_BYTES_MAX), [0, 2, 2]);
        check(shared, &insert("d", limits::SHAPED_TEXT_BYTES_MAX), [0, 2, 3]);
    }

    #[test]
    fn the_older_generation_is_forgotten() {
        let shared = &mut Shared::default();
        for table in 0..3 * limits::CACHED_TEXTS_MAX {
            read(shared, format!("SELECT 1 FROM t{table}").as_bytes());
            read(shared, format!("SET a = {table}").as_bytes());
        }
        for generations in [&shared.cache.by_shape, &shared.cache.by_text] {
            assert!(generations.young.len() + generations.old.len() <= 2 * limits::CACHED_TEXTS_MAX);
        }
    }
}
