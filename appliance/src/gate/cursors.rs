//! What the names of SQL cursors stand for. A name is sure as long as nothing has run that could have given it to another cursor. Behind
//! that it keeps what it may stand for, until the cursor is gone for certain: enough for rules and the trail, not enough for masks.

use super::meaning::Mark;
use crate::limits;
use masking::sql::{self, Analysis, Class, Classes, Named, Statement};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The cursors of one session.
#[derive(Default)]
pub(super) struct Cursors {
    /// The rules under which the oldest of those that nobody saw may have been opened. `None`: nothing has run in this transaction.
    opened: Option<u64>,
    /// Not before there is something to remember: most sessions know no cursor.
    book: Option<Box<Book>>,
}

#[derive(Default)]
struct Book {
    known: BTreeMap<String, Cursor>,
    /// Counts what may have changed what their names stand for.
    touched: u64,
    /// As `opened`, of those that outlive their transaction, but for those that a function of the target opens.
    held: Option<u64>,
}

#[derive(Default)]
struct Cursor {
    /// Of the statements that it may be, the latest last.
    marks: Vec<Mark>,
    /// It is the one statement there.
    sure: bool,
}

impl Cursors {
    pub fn marks(&self, name: &str) -> &[Mark] {
        self.cursor(name).map_or(&[], |cursor| &cursor.marks)
    }

    pub fn all(&self) -> impl Iterator<Item = &Mark> {
        self.book.iter().flat_map(|book| book.known.values()).flat_map(|cursor| &cursor.marks)
    }

    /// The name stands for the statement it is known by, and for nothing else.
    pub fn is_sure(&self, name: &str) -> bool {
        self.cursor(name).is_some_and(|cursor| cursor.sure)
    }

    fn cursor(&self, name: &str) -> Option<&Cursor> {
        self.book.as_ref()?.known.get(name)
    }

    pub fn touched(&self) -> u64 {
        self.book.as_ref().map_or(0, |book| book.touched)
    }

    /// There may be cursors that nobody knows, opened under other rules than these.
    pub fn in_doubt(&self, rules: u64) -> bool {
        let held = self.book.as_ref().and_then(|book| book.held);
        [self.opened, held].into_iter().flatten().any(|under| under != rules)
    }

    /// A request is about to be forwarded under these rules.
    pub fn note(&mut self, mark: &Mark, rules: u64) {
        self.opened.get_or_insert(rules);
        let (meaning, traits) = (&mark.meaning, &mark.meaning.cursors);
        for statement in &meaning.analysis.statements {
            if loosens(statement, traits) {
                self.loosen();
            }
            if let Some(Named::Cursor(name)) = &statement.defines {
                // One that fails leaves an older cursor of that name.
                self.may_be(name, mark, rules);
            }
            match statement.forgets.as_ref().filter(|_| forgets_cursors(statement)) {
                Some(Some(name)) => self.doubt(name),
                Some(None) => self.loosen(),
                None => {}
            }
        }
        if meaning.other_statements().any(handles_cursors) {
            self.loosen();
        }
        if traits.may_hold_unseen {
            self.book.get_or_insert_default().held.get_or_insert(rules);
        }
    }

    /// What was forwarded when that much had been touched has ended well, which tells what the names in it stand for, unless something
    /// has touched them since.
    pub fn learn(&mut self, mark: &Mark, touched: u64) {
        let Some(book) = self.book.as_mut().filter(|book| book.touched == touched) else { return };
        for statement in &mark.meaning.analysis.statements {
            if loosens(statement, &mark.meaning.cursors) {
                book.known.values_mut().for_each(|cursor| cursor.sure = false);
            }
            if let Some(Named::Cursor(name)) = &statement.defines
                && let Some(cursor) = book.known.get_mut(name)
            {
                *cursor = Cursor { marks: vec![mark.clone()], sure: true };
            }
            match statement.forgets.as_ref().filter(|_| forgets_cursors(statement)) {
                Some(Some(name)) => drop(book.known.remove(name)),
                Some(None) => {
                    book.known.clear();
                    book.held = None;
                }
                None => {}
            }
        }
    }

    /// The name may stand for that statement too.
    pub fn may_be(&mut self, name: &str, mark: &Mark, rules: u64) {
        let book = self.book.get_or_insert_default();
        book.touched += 1;
        // Another spelling may name the same cursor where the target does not read UTF-8.
        let room = book.known.len() < limits::CURSORS_MAX || book.known.contains_key(name);
        let lost = if room && name.is_ascii() {
            let cursor = book.known.entry(name.to_owned()).or_default();
            cursor.sure = false;
            cursor.marks.retain(|known| !Rc::ptr_eq(known, mark));
            cursor.marks.push(mark.clone());
            (cursor.marks.len() > limits::CURSOR_STATEMENTS_MAX).then(|| cursor.marks.remove(0))
        } else {
            Some(mark.clone())
        };
        if lost.is_some_and(|mark| mark.meaning.cursors.holds != Holds::No) {
            book.held.get_or_insert(rules);
        }
    }

    /// Whatever was known may be gone, and its name free for others.
    pub fn loosen(&mut self) {
        let Some(book) = &mut self.book else { return };
        book.touched += 1;
        book.known.values_mut().for_each(|cursor| cursor.sure = false);
    }

    fn doubt(&mut self, name: &str) {
        let Some(book) = &mut self.book else { return };
        book.touched += 1;
        if let Some(cursor) = book.known.get_mut(name) {
            cursor.sure = false;
        }
    }

    /// No transaction is open, and nothing is under way that could open one: cursors are gone but for those WITH HOLD.
    pub fn end_transaction(&mut self) {
        self.opened = None;
        let Some(book) = &mut self.book else { return };
        book.known.retain(|_, cursor| {
            cursor.marks.retain(|mark| mark.meaning.cursors.holds != Holds::No);
            cursor.sure &= cursor.marks.iter().all(|mark| mark.meaning.cursors.holds == Holds::Surely);
            !cursor.marks.is_empty()
        });
    }
}

/// Cursors may be gone behind it, or others in their place: the end of a transaction or of a savepoint, blocks that open and close what
/// they like, and what nobody can read.
pub(super) fn loosens(statement: &Statement, traits: &Traits) -> bool {
    let has = |class| statement.classes.contains(class);
    has(Class::Do) || has(Class::Call) || has(Class::Unparsed) || has(Class::Transaction) && traits.ends_transaction
}

/// CLOSE and DISCARD ALL, which DEALLOCATE is not.
pub(super) fn forgets_cursors(statement: &Statement) -> bool {
    let has = |class| statement.classes.contains(class);
    statement.forgets.is_some() && (has(Class::Fetch) || has(Class::Set))
}

pub(super) fn declares(statement: &Statement) -> bool {
    matches!(statement.defines, Some(Named::Cursor(_)))
}

fn handles_cursors(statement: &Statement) -> bool {
    const HANDLE: [Class; 4] = [Class::Do, Class::Call, Class::Unparsed, Class::Transaction];
    declares(statement) || forgets_cursors(statement) || HANDLE.iter().any(|class| statement.classes.contains(*class))
}

/// Does a cursor that a text declares outlive its transaction?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Holds {
    #[default]
    No,
    Maybe,
    Surely,
}

/// What a text does to cursors, beyond what its analysis says of each statement.
#[derive(Default, Debug)]
pub(super) struct Traits {
    /// It may end a transaction or go back to a savepoint: of BEGIN, SAVEPOINT and RELEASE neither is true.
    ends_transaction: bool,
    holds: Holds,
    /// It may open one WITH HOLD that is not among those it declares.
    may_hold_unseen: bool,
    /// The cursors of WHERE CURRENT OF; `None`: one whose name is not in the text.
    pub positions: Vec<Option<String>>,
}

impl Traits {
    pub fn of(text: &[u8], classes: Classes, analysis: &Analysis, otherwise: Option<&Analysis>) -> Self {
        let readings = || std::iter::once(analysis).chain(otherwise);
        let statements = || readings().flat_map(|reading| &reading.statements);
        let knows =
            |reading: &Analysis, word: &str| reading.words.binary_search_by(|known| (**known).cmp(word)).is_ok();
        let has = |word: &str| readings().any(|reading| knows(reading, word));
        let any_has = |words: &[&str]| words.iter().any(|word| has(word));
        let unread = readings().any(|reading| reading.words.is_empty() && reading.statements.iter().any(is_unread));
        let hold = has("hold");
        let holds = match analysis.statements.iter().any(declares) && hold {
            false => Holds::No,
            true if analysis.statements.len() == 1 && otherwise.is_none() && declares_with_hold(text) => Holds::Surely,
            true => Holds::Maybe,
        };
        let in_body = |statement: &Statement| statement.classes.contains(Class::Do) || is_unread(statement);
        let hidden = |statement: &Statement| statement.classes.contains(Class::Do) && statement.opaque;
        let other_declares = otherwise.is_some_and(|reading| reading.statements.iter().any(declares));
        Self {
            ends_transaction: unread || any_has(&["abort", "commit", "end", "prepare", "rollback"]),
            holds,
            may_hold_unseen: unread
                || statements().any(hidden)
                || hold && (other_declares || statements().any(in_body)),
            positions: positions(text, classes, has("current") && has("of")),
        }
    }
}

fn is_unread(statement: &Statement) -> bool {
    statement.classes.contains(Class::Unparsed)
}

/// `spelt`: the words for it are there.
fn positions(text: &[u8], classes: Classes, spelt: bool) -> Vec<Option<String>> {
    const POSITIONED: [Class; 3] = [Class::Update, Class::Delete, Class::Unparsed];
    if !spelt || !POSITIONED.iter().any(|class| classes.contains(*class)) {
        return Vec::new();
    }
    let tokens = words_of(text).unwrap_or_default();
    let behind = |three: &[Token]| match three {
        [Token::Word(current), Token::Word(of), cursor] if current == "current" && of == "of" => Some(cursor.name()),
        _ => None,
    };
    let mut found: Vec<Option<String>> = tokens.windows(3).filter_map(behind).collect();
    // In a body, or where the tokens cannot be told.
    let hidden = found.is_empty() || classes.contains(Class::Do) || classes.contains(Class::Unparsed);
    if hidden && !found.contains(&None) {
        found.push(None);
    }
    found
}

/// `DECLARE name [options] CURSOR WITH HOLD FOR`, and nothing before it.
fn declares_with_hold(text: &[u8]) -> bool {
    const OPTIONS: [&str; 5] = ["binary", "asensitive", "insensitive", "no", "scroll"];
    let tokens = words_of(text).unwrap_or_default();
    let word = |token: &Token, word: &str| matches!(token, Token::Word(found) if found == word);
    let Some((declare, rest)) = tokens.split_first() else { return false };
    let options = rest.iter().skip(1).take_while(|token| OPTIONS.iter().any(|option| word(token, option))).count();
    let Some(behind) = rest.get(1 + options..) else { return false };
    let clause = ["cursor", "with", "hold", "for"];
    word(declare, "declare")
        && behind.len() >= 4
        && behind.iter().zip(clause).all(|(token, wanted)| word(token, wanted))
}

/// A token of a text's shape.
#[derive(PartialEq, Eq, Debug)]
enum Token {
    /// Lower-cased.
    Word(String),
    Quoted(String),
    Other,
}

impl Token {
    /// What it names, for the server as well.
    fn name(&self) -> Option<String> {
        let (Token::Word(name) | Token::Quoted(name)) = self else { return None };
        name.is_ascii().then(|| name[..name.len().min(NAME_BYTES_MAX)].to_owned())
    }
}

/// PostgreSQL cuts identifiers after this many bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// The tokens of a text; `None`: only PostgreSQL's own scanner could tell them apart.
fn words_of(text: &[u8]) -> Option<Vec<Token>> {
    if text.len() > limits::SHAPED_TEXT_BYTES_MAX {
        return None;
    }
    // A token is followed by one blank at most.
    let mut room = vec![0; 2 * text.len()];
    let mut rest = sql::shape(text, &mut room)?;
    let mut tokens = Vec::new();
    while let Some(first) = rest.first() {
        let length = match *first {
            b'"' => quoted_bytes(rest),
            b'a'..=b'z' | b'_' | 0x80.. => rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len()),
            _ => 1,
        };
        let (token, behind) = rest.split_at(length);
        let spelt = std::str::from_utf8(token).ok()?;
        tokens.push(match *first {
            b'"' => Token::Quoted(spelt[1..spelt.len() - 1].replace("\"\"", "\"")),
            b'a'..=b'z' | b'_' | 0x80.. => Token::Word(spelt.to_owned()),
            _ => Token::Other,
        });
        rest = if length > 1 || spelt != " " { behind.strip_prefix(b" ").unwrap_or(behind) } else { behind };
    }
    Some(tokens)
}

/// How long the quoted name at the front is, with its quotes.
fn quoted_bytes(shape: &[u8]) -> usize {
    let mut at = 1;
    while at < shape.len() {
        match (shape[at], shape.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', _) => return at + 1,
            _ => at += 1,
        }
    }
    shape.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::meaning::{Leaning, Marked, Reads, Shared};
    use crate::gate::reading::How;
    use crate::policy::{Action, Decision};

    /// A session's cursors under rules that a test can change.
    #[derive(Default)]
    struct Rig {
        cursors: Cursors,
        shared: Shared,
        rules: u64,
    }

    impl Rig {
        fn mark(&mut self, text: &str) -> Mark {
            let allow =
                Decision { action: Action::Allow, rule: None, message: None, approval: None, reason: String::new() };
            let meaning = self.shared.meaning(text.as_bytes(), How::DEFAULT).expect("a short text");
            Marked::new(meaning, allow, self.rules, Reads::Open, Leaning::No)
        }

        fn send(&mut self, text: &str) -> (Mark, u64) {
            let mark = self.mark(text);
            self.cursors.note(&mark, self.rules);
            (mark, self.cursors.touched())
        }

        /// Each text is sent, and ends well before the next.
        fn run(&mut self, texts: &[&str]) {
            for text in texts {
                let (mark, touched) = self.send(text);
                self.cursors.learn(&mark, touched);
            }
        }

        /// What a name stands for: `declared text` when it is sure, `text or text` when it may be either.
        #[track_caller]
        fn check(&self, name: &str, expected: &str) {
            let texts: Vec<_> =
                self.cursors.marks(name).iter().map(|mark| String::from_utf8_lossy(&mark.meaning.text)).collect();
            let sure = if self.cursors.is_sure(name) { "" } else { "perhaps " };
            let found = if texts.is_empty() { String::new() } else { format!("{sure}{}", texts.join(" or ")) };
            assert_eq!(found, expected, "{name}");
        }
    }

    const C: &str = "DECLARE c CURSOR FOR SELECT 1";
    const H: &str = "DECLARE h CURSOR WITH HOLD FOR SELECT 2";

    #[test]
    fn what_ends_no_cursor_leaves_names_sure() {
        let mut rig = Rig::default();
        rig.run(&["BEGIN", C, "SAVEPOINT s", "RELEASE s", "SELECT 1", "FETCH 1 FROM c", "SET x.y = 1", "CLOSE d"]);
        rig.check("c", C);
    }

    #[test]
    fn what_may_end_cursors_leaves_what_they_may_be() {
        for text in ["ROLLBACK TO s", "COMMIT", "DO $$ BEGIN NULL; END $$", "CALL p()", "SELECT 1; ROLLBACK", "what"] {
            let mut rig = Rig::default();
            rig.run(&["BEGIN", C, text]);
            rig.check("c", &format!("perhaps {C}"));
            rig.run(&["FETCH 1 FROM c"]);
            rig.check("c", &format!("perhaps {C}"));
        }
    }

    #[test]
    fn a_closed_cursor_is_gone_when_the_close_has_ended_well() {
        let mut rig = Rig::default();
        rig.run(&["BEGIN", C, H]);
        let (close, touched) = rig.send("CLOSE c");
        rig.check("c", &format!("perhaps {C}"));
        rig.check("h", H);
        rig.cursors.learn(&close, touched);
        rig.check("c", "");
        rig.run(&["CLOSE ALL"]);
        rig.check("h", "");
    }

    #[test]
    fn a_declare_that_has_not_ended_well_may_be_either() {
        let mut rig = Rig::default();
        let other = "DECLARE c CURSOR FOR SELECT 3";
        rig.run(&["BEGIN", C]);
        let (second, touched) = rig.send(other);
        rig.check("c", &format!("perhaps {C} or {other}"));
        rig.send("ROLLBACK TO s");
        rig.cursors.learn(&second, touched);
        rig.check("c", &format!("perhaps {C} or {other}"));
    }

    #[test]
    fn the_end_of_a_transaction_takes_all_but_what_is_held() {
        let mut rig = Rig::default();
        rig.run(&["BEGIN", C, H, "COMMIT"]);
        rig.cursors.end_transaction();
        rig.check("c", "");
        rig.check("h", &format!("perhaps {H}"));
        // Of one that was declared outside a transaction the name is as sure as before.
        let mut rig = Rig::default();
        rig.run(&[H]);
        rig.cursors.end_transaction();
        rig.check("h", H);
        let (several, called_so) =
            ("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 2; COMMIT", "DECLARE c CURSOR FOR SELECT hold");
        rig.run(&["CLOSE h", several, "BEGIN", called_so]);
        rig.cursors.end_transaction();
        rig.check("h", &format!("perhaps {several}"));
        rig.check("c", &format!("perhaps {called_so}"));
    }

    #[test]
    fn doubt_comes_with_other_rules_while_a_cursor_may_be_open_and_goes_with_its_transaction() {
        let mut rig = Rig::default();
        assert!(!rig.cursors.in_doubt(1), "nothing has run");
        rig.run(&["BEGIN", "SELECT f()"]);
        assert!(!rig.cursors.in_doubt(0) && rig.cursors.in_doubt(1));
        rig.rules = 1;
        rig.run(&["SELECT f()"]);
        assert!(rig.cursors.in_doubt(1), "opened before");
        rig.cursors.end_transaction();
        assert!(!rig.cursors.in_doubt(1));
        rig.run(&["BEGIN", "SELECT f()"]);
        assert!(!rig.cursors.in_doubt(1));
    }

    #[test]
    fn doubt_outlasts_the_transaction_where_a_cursor_may_have_been_held_unseen() {
        let dynamic = "DO $$ BEGIN EXECUTE concat('DECLARE h', ' CURSOR WITH', ' HOLD FOR SELECT 1'); END $$";
        let constant = "DO $$ BEGIN EXECUTE 'DECLARE h CURSOR WITH HOLD FOR SELECT 1'; END $$";
        for text in
            [dynamic, constant, "DECLARE \"\u{e9}\" CURSOR WITH HOLD FOR SELECT 1", "DECLARE h CURSOR WITH HOLD FOR ()"]
        {
            let mut rig = Rig::default();
            rig.run(&[text]);
            rig.cursors.end_transaction();
            assert!(rig.cursors.in_doubt(1), "{text}");
            rig.run(&["DISCARD ALL"]);
            rig.cursors.end_transaction();
            assert!(!rig.cursors.in_doubt(1), "{text}");
        }
        for text in ["DO $$ BEGIN PERFORM 1; END $$", "SELECT 'hold'", "SELEC", C] {
            let mut rig = Rig::default();
            rig.run(&[text]);
            rig.cursors.end_transaction();
            assert!(!rig.cursors.in_doubt(1), "{text}");
        }
    }

    #[test]
    fn beyond_the_bounds_what_may_be_held_leaves_doubt() {
        let mut rig = Rig::default();
        rig.run(&["BEGIN"]);
        for number in 0..limits::CURSORS_MAX {
            rig.run(&[&format!("DECLARE c{number} CURSOR FOR SELECT {number}")]);
        }
        rig.run(&["DECLARE one_more CURSOR FOR SELECT 1", H]);
        rig.check("one_more", "");
        rig.check("h", "");
        rig.cursors.end_transaction();
        assert!(rig.cursors.in_doubt(1));

        let mut rig = Rig::default();
        for number in 0..2 * limits::CURSOR_STATEMENTS_MAX {
            rig.send(&format!("DECLARE c CURSOR WITH HOLD FOR SELECT a{number}"));
        }
        assert_eq!(rig.cursors.marks("c").len(), limits::CURSOR_STATEMENTS_MAX);
        rig.cursors.end_transaction();
        assert!(rig.cursors.in_doubt(1));
    }

    #[test]
    fn with_hold_is_told_from_texts_that_only_say_so() {
        let mut rig = Rig::default();
        let mut holds = |text: &str| rig.mark(text).meaning.cursors.holds;
        for text in [
            H,
            "declare \"cursor\" no scroll /* x */ cursor with hold for select 1",
            "DECLARE a BINARY INSENSITIVE CURSOR WITH HOLD FOR SELECT 'a\"b'",
        ] {
            assert_eq!(holds(text), Holds::Surely, "{text}");
        }
        for text in [
            "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
            "DECLARE \"x cursor with hold for \" CURSOR FOR SELECT 1 AS hold",
            "DECLARE c CURSOR FOR SELECT hold /* cursor with hold for */ FROM t",
            "DECLARE h CURSOR WITH HOLD FOR SELECT 2; SELECT 1",
        ] {
            assert_eq!(holds(text), Holds::Maybe, "{text}");
        }
        for text in [C, "SELECT hold FROM t"] {
            assert_eq!(holds(text), Holds::No, "{text}");
        }
    }

    #[test]
    fn where_current_of_names_its_cursor() {
        let mut rig = Rig::default();
        let mut positions = |text: &str| {
            let mark = rig.mark(text);
            mark.meaning.cursors.positions.iter().map(|name| name.clone().unwrap_or("?".into())).collect::<Vec<_>>()
        };
        let long = "x".repeat(80);
        assert_eq!(positions("UPDATE t SET a = 1 WHERE CURRENT OF C"), ["c"]);
        assert_eq!(positions("DELETE FROM t WHERE current /* x */ of \"C \"\"1\""), ["C \"1"]);
        assert_eq!(positions(&format!("DELETE FROM t WHERE CURRENT OF {long}")), [&long[..63]]);
        assert_eq!(positions("UPDATE t SET a = 1 WHERE CURRENT OF c; DELETE FROM t WHERE CURRENT OF d"), ["c", "d"]);
        assert_eq!(positions("UPDATE t SET a = 1 WHERE CURRENT OF $1"), ["?"]);
        assert_eq!(positions("UPDATE t SET a = 1 WHERE CURRENT OF \"\u{e9}\""), ["?"]);
        assert_eq!(positions("DO $$ BEGIN UPDATE t SET a = 1 WHERE CURRENT OF c; END $$"), ["?"]);
        assert!(positions("UPDATE t SET a = 1 WHERE b = 'CURRENT OF c'").is_empty());
        assert!(positions("SELECT current, \"of\" FROM t").is_empty());
    }
}
