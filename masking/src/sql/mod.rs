//! What a statement does, from PostgreSQL's own grammar: classes, tables, conditions, words, where its outputs come from.

/// Statement classes of the contract with users.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Class {
    Select, Insert, Update, Delete, Merge, Truncate, Create, Alter, Drop, Grant, Revoke, CopyIn, CopyOut, CopyProgram,
    Call, Do, Execute, Prepare, Declare, Fetch, Explain, Set, Show, Transaction, Lock, Listen, Vacuum, Comment,
    Replication, FunctionCall, Other, Unparsed,
}

/// A set of classes: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Classes(pub u64);

/// A table (or view) a statement names. Lower-cased unless it was quoted; schema only when written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    pub schema: Option<String>,
    pub name: String,
    /// The statement changes it (insert, update, delete, truncate, alter, drop, copy in ...).
    pub written: bool,
}

/// One statement of a text.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    pub classes: Classes,
    pub tables: Vec<Table>,
    /// UPDATE or DELETE (also inside a CTE, MERGE excepted) without a condition, or with one that is always true.
    pub missing_where: bool,
    /// It would store what it reads elsewhere: CREATE TABLE AS, SELECT INTO, INSERT ... SELECT, CREATE [MATERIALIZED] VIEW,
    /// CREATE RULE/FUNCTION bodies that read, UPDATE ... FROM / SET from a subquery.
    pub stores: bool,
    /// PREPARE name / DECLARE name: what is named.
    pub defines: Option<Named>,
    /// EXECUTE name / FETCH name / MOVE name: what is used.
    pub uses: Option<Named>,
    /// DEALLOCATE name (`Some(None)`: all; also DISCARD ALL), CLOSE.
    pub forgets: Option<Option<String>>,
    /// SET/RESET/set_config of one of the settings that change how text is read or results look:
    /// standard_conforming_strings, backslash_quote, client_encoding, search_path, role, session_authorization.
    pub settings: Vec<(String, Option<String>)>,
    /// COPY only.
    pub copy: Option<Copy>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
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
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// The meaning of one text, which may hold several statements.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    pub statements: Vec<Statement>,
    /// Identifiers and keywords of the whole text, lower-cased, sorted, without duplicates; never from inside string
    /// constants or comments. Function bodies and DO blocks given as strings are looked into as well.
    pub words: Vec<String>,
}

/// Analyses a text. A text that PostgreSQL's grammar refuses gives one statement of class `Unparsed`.
/// `standard_conforming_strings`: the session's setting; when it is off, a text with backslashes is `Unparsed`.
pub fn analyse(text: &[u8], standard_conforming_strings: bool) -> Analysis {
    let _ = (text, standard_conforming_strings);
    Analysis::default()
}
