//! What a statement does, from PostgreSQL's own grammar: classes, tables, conditions, words, where its outputs come from.

mod alike;
mod body;
mod children;
mod class;
mod condition;
mod constant;
mod depth;
mod ends;
mod inputs;
mod kinds;
mod later;
mod lexer;
mod otherwise;
mod outputs;
mod pattern;
mod plain;
mod plpgsql;
mod reach;
mod reader;
mod session;
mod shape;
mod tokens;
mod words;

#[cfg(test)]
mod cases;

pub use alike::{letters_folded, reads_alike};
pub use class::{Class, Classes};
pub use inputs::{Inputs, Name, Read, Source};
pub use outputs::Expressions;
pub use pattern::Pattern;
pub use reach::Reach;
pub use session::is_told_apart;
pub use shape::shape;

use pg_query::ParserOptions;
use pg_query::protobuf as pg;

/// A table (or view) a statement names. Lower-cased unless it was quoted; schema only when written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    pub schema: Option<String>,
    pub name: String,
    /// The statement changes it (insert, update, delete, truncate, alter, drop, copy in ...).
    pub written: bool,
    /// What it holds goes into the statement: results, conditions, or what is stored.
    pub read: bool,
}

/// One statement of a text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statement {
    pub classes: Classes,
    /// Not looked into, because there is more of it than is read: it may well be PostgreSQL.
    pub too_much: bool,
    /// Sorted by schema and name, each once.
    pub tables: Vec<Table>,
    /// Tables it touches without naming them (DROP SCHEMA ... CASCADE, DROP OWNED, TRUNCATE ... CASCADE).
    pub reach: Reach,
    /// UPDATE or DELETE (also inside a CTE, MERGE excepted) without a condition, or with one that is always true.
    pub missing_where: bool,
    /// It would store what it reads elsewhere: CREATE TABLE AS, SELECT INTO, INSERT ... SELECT, CREATE [MATERIALIZED] VIEW,
    /// CREATE RULE/FUNCTION bodies that read, UPDATE ... FROM / SET from a subquery or from another column, ALTER TABLE;
    /// or give a relation another name, where masks by name no longer find it (ALTER ... RENAME, SET SCHEMA).
    pub stores: bool,
    /// It makes a table run something over its rows, whatever statement touches them, that is not surely PostgreSQL's own: in a CHECK, an
    /// EXCLUDE, an index, statistics, a policy.
    pub runs_later: bool,
    /// Columns and attributes that it gives another name, of whatever table or type.
    pub renames: Vec<String>,
    /// It makes something that keeps, reads or runs what it is called with, where the call does not show it: a function that writes, an
    /// operator over one of PostgreSQL's that do, a domain whose CHECK does.
    pub keeps: bool,
    /// It reads at least one relation, or may.
    pub reads: bool,
    /// It may read relations that the text does not show: a dynamic EXECUTE, a body in a language we do not read,
    /// `query_to_xml` of an expression. Such a statement counts as reading every table.
    pub opaque: bool,
    /// PREPARE name / DECLARE name: what is named.
    pub defines: Option<Named>,
    /// EXECUTE name / FETCH name / MOVE name: what is used.
    pub uses: Option<Named>,
    /// DEALLOCATE name (`Some(None)`: all; also DISCARD ALL), CLOSE.
    pub forgets: Option<Option<String>>,
    /// A body in it (DO, CREATE FUNCTION) gives, takes or uses names of prepared statements or cursors.
    pub names_inside: bool,
    /// A body in it opens, reads or closes cursors whose names no text tells.
    pub cursors_inside: bool,
    /// A body in it opens or moves cursors by what variables hold: from then on a cursor's name or place tells that.
    pub cursors_tell: bool,
    /// SET/RESET/set_config of one of the settings that change how text is read or results look:
    /// standard_conforming_strings, backslash_quote, client_encoding, search_path, role, session_authorization.
    /// `None`: back to the default, or the text does not tell the value.
    pub settings: Vec<(String, Option<String>)>,
    /// COPY only.
    pub copy: Option<Copy>,
    /// COPY from or to a file on the server. (A program has a class of its own.)
    pub copy_file: bool,
    /// Output columns that are not plain columns, as far as the text tells; only a refinement of what RowDescription says.
    pub expression_columns: Expressions,
    /// What its outputs are made of, where the text proves it.
    pub inputs: Option<Inputs>,
}

/// Prepared statements and cursors have names of their own each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Named {
    Prepared(String),
    Cursor(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// `COPY (query)` rather than `COPY table`.
    pub query: bool,
    /// Columns listed; empty: all.
    pub columns: Vec<String>,
    pub format: CopyFormat,
    /// Its DELIMITER, QUOTE or ESCAPE may stand within what a detector looks for, and be escaped there.
    pub breaks_values: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// The meaning of one text, which may hold several statements.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Analysis {
    pub statements: Vec<Statement>,
    /// Identifiers and keywords of the whole text, lower-cased, sorted, without duplicates; never from inside string
    /// constants or comments. Function bodies and DO blocks given as strings are looked into as well.
    pub words: Vec<String>,
}

/// The meaning of a text, and how far it carries.
#[derive(Clone, Debug)]
pub struct Reading {
    pub analysis: Analysis,
    /// What it does instead under the other value of `standard_conforming_strings`, if that is something else.
    pub otherwise: Option<Analysis>,
    /// Every text of the same [`shape`] has this analysis: it hangs on none of the constants.
    pub by_shape: bool,
}

/// The first words of the commands of a replication connection, which are not SQL.
const REPLICATION: [&str; 9] = [
    "identify_system",
    "start_replication",
    "create_replication_slot",
    "alter_replication_slot",
    "drop_replication_slot",
    "read_replication_slot",
    "timeline_history",
    "base_backup",
    "upload_manifest",
];

/// Analyses a text. A text that PostgreSQL's grammar refuses gives one statement of class `Unparsed`.
/// `standard_conforming_strings`: the session's setting; when it is off, a text with backslashes is `Unparsed`.
pub fn analyse(text: &[u8], standard_conforming_strings: bool) -> Analysis {
    let Ok(text) = std::str::from_utf8(text) else {
        return unparsed(&String::from_utf8_lossy(text));
    };
    if text.contains('\0') || (!standard_conforming_strings && text.contains('\\')) {
        return unparsed(text);
    }
    try_parse(text, ParserOptions::DEFAULT, statements_of).unwrap_or_else(|why| unread(text, why))
}

/// [`analyse`] for a text read with `standard_conforming_strings`, which also tells whether other texts of its shape do the
/// same. (Such a text means the same with the setting off: its constants then hold something else, and nothing hangs on them.)
pub fn read(text: &[u8]) -> Reading {
    let whole = |tree: &pg::ParseResult, text: &str, words| {
        let analysis = statements_of(tree, text, words);
        let by_shape = plain::plain(tree, text, &analysis);
        Reading { analysis, otherwise: None, by_shape }
    };
    let parsed = match std::str::from_utf8(text) {
        Ok(text) if !text.contains('\0') => try_parse(text, ParserOptions::DEFAULT, whole),
        Ok(_) | Err(_) => Err(Unread::Refused),
    };
    let mut reading = parsed.unwrap_or_else(|why| {
        let analysis = unread(&String::from_utf8_lossy(text), why);
        Reading { analysis, otherwise: None, by_shape: false }
    });
    if !reading.by_shape {
        reading.otherwise = otherwise::otherwise(text, &reading.analysis);
    }
    reading
}

/// [`read`] for a text in whose encoding every byte beyond ASCII is a letter.
pub fn read_bytes(text: &[u8]) -> Reading {
    let mut reading = read(&alike::letters_folded(text));
    if !reading.by_shape && reading.otherwise.is_none() {
        reading.otherwise = otherwise::by_letters(text, &reading.analysis);
    }
    reading
}

fn statements_of(tree: &pg::ParseResult, text: &str, words: Vec<String>) -> Analysis {
    let mut analysis = Analysis { statements: Vec::new(), words };
    for raw in &tree.stmts {
        let mut reader = reader::Reader::new(source_of(raw, text), 0);
        if let Some(node) = raw.stmt.as_ref().and_then(|node| node.node.as_ref()) {
            reader.statement(node.to_ref());
            analysis.words.append(&mut reader.words);
            analysis.statements.push(reader.statement);
        }
    }
    tidy(&mut analysis.words);
    analysis
}

fn unread(text: &str, why: Unread) -> Analysis {
    let mut analysis = unparsed(text);
    analysis.statements.iter_mut().for_each(|statement| statement.too_much = why == Unread::TooMuch);
    analysis
}

fn unparsed(text: &str) -> Analysis {
    let mut classes = Classes::from(Class::Unparsed);
    let first = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| !word.is_empty());
    if first.is_some_and(|first| REPLICATION.contains(&first.to_ascii_lowercase().as_str())) {
        classes.insert(Class::Replication);
    }
    let mut analysis = Analysis {
        statements: vec![Statement {
            classes,
            opaque: true,
            expression_columns: Expressions::Unknown,
            ..Default::default()
        }],
        words: vec![],
    };
    if !text.contains('\0') {
        words::collect(text, &mut analysis.words);
        tidy(&mut analysis.words);
    }
    analysis
}

fn tidy(words: &mut Vec<String>) {
    words.sort_unstable();
    words.dedup();
}

/// PostgreSQL's parser: `read` is given the tree, the text and its words, and runs with stack enough for them. `None`: the
/// text is refused, or nests too deeply. (A panic in the binding counts as a refusal.)
fn parse<T: Send>(
    text: &str,
    mode: ParserOptions,
    read: impl FnOnce(&pg::ParseResult, &str, Vec<String>) -> T + Send,
) -> Option<T> {
    try_parse(text, mode, read).ok()
}

/// Why there is no tree of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unread {
    /// PostgreSQL refuses it as well.
    Refused,
    /// It is beyond our bounds.
    TooMuch,
}

fn try_parse<T: Send>(
    text: &str,
    mode: ParserOptions,
    read: impl FnOnce(&pg::ParseResult, &str, Vec<String>) -> T + Send,
) -> Result<T, Unread> {
    let tokens = tokens::scan(text)?;
    let mut words = Vec::new();
    words::collect_from(text, &tokens, &mut words);
    let bound = depth::bound(&tokens);
    drop(tokens);
    let parsed = depth::with_stack(bound, || {
        let parsed = std::panic::catch_unwind(|| pg_query::parse(text, mode)).map_err(|_| Unread::TooMuch)?;
        let parsed = parsed.map_err(|error| match error {
            pg_query::Error::Parse(why) if !why.contains("stack depth") && !why.contains("memory") => Unread::Refused,
            _ => Unread::TooMuch,
        })?;
        Ok(read(&parsed.protobuf, text, words))
    });
    parsed.unwrap_or(Err(Unread::TooMuch))
}

/// A statement's own part of the text it stands in.
fn source_of<'t>(raw: &pg::RawStmt, text: &'t str) -> &'t str {
    let start = raw.stmt_location as usize;
    let end = if raw.stmt_len == 0 { text.len() } else { start + raw.stmt_len as usize };
    text.get(start..end).unwrap_or(text)
}
