//! What errors and notices may say where columns are masked.
//!
//! They quote values: `Key (ssn)=(078-05-1120) already exists`, `invalid input syntax ...: "4111"`. Quoted parts are filled unless what is
//! quoted stands in the client's own text or is a name from the catalogue, which the server's routine tells (no message can forge it). What
//! a statement says that reads masked data, or runs what its text does not show, is believed less: text that is not the server's own is
//! hidden, and so is every number.

use super::meaning::{Mark, Marked, Reads};
use masking::sql::Class;

/// What is known of a text besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub field: u8,
    shows: Shows,
    /// The text of the statement it is about. `None`: of none that is known.
    own: Option<&'a [u8]>,
}

/// What the statement that says something may have come across.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shows {
    /// Nothing masked.
    Nothing,
    /// It runs what its text does not tell: what a session or a table has in store.
    Unseen,
    /// It reads masked data, or may.
    Masked,
}

impl Shows {
    fn of(mark: &Marked) -> Self {
        // A COMMIT runs cursors WITH HOLD and deferred triggers, ALTER DOMAIN checks what is stored, ANALYZE and REINDEX evaluate expressions.
        const UNSEEN: [Class; 8] = [
            Class::Transaction,
            Class::Set,
            Class::Vacuum,
            Class::Alter,
            Class::Call,
            Class::FunctionCall,
            Class::Other,
            Class::Unparsed,
        ];
        let commits = || mark.classes().contains(Class::Do) && mark.meaning.has_word("commit");
        match mark.reads {
            Reads::Masked | Reads::Unknown => Shows::Masked,
            Reads::Open if UNSEEN.iter().any(|class| mark.classes().contains(*class)) || commits() => Shows::Unseen,
            Reads::Open => Shows::Nothing,
        }
    }
}

impl<'a> Told<'a> {
    pub fn of(field: u8, mark: Option<&'a Mark>) -> Self {
        let shows = mark.map_or(Shows::Masked, |mark| Shows::of(mark));
        Self { field, shows, own: mark.map(|mark| &*mark.meaning.text) }
    }

    /// Fills what of a text may be masked: how much that was, and whether nothing may be told of it, not even its length.
    pub fn hide(mut self, fields: Fields<'_>, text: &mut [u8]) -> (u64, bool) {
        let by_reference = fields.by_reference || self.field == b'W' && is_by_reference(text);
        if by_reference && self.shows == Shows::Nothing {
            self.shows = Shows::Unseen;
        }
        if self.shows != Shows::Nothing && is_free_text(self.field, fields, text) {
            text.fill(b'*');
            return (1, true);
        }
        (self.fill(fields, text), false)
    }

    fn fill(self, fields: Fields<'_>, bytes: &mut [u8]) -> u64 {
        if self.field == b'C' && fields.raised() && self.shows != Shows::Nothing && bytes.len() == RAISED.len() {
            bytes.copy_from_slice(RAISED);
            return 0;
        }
        // The server names objects there, and nothing else.
        if matches!(self.field, b'C' | b's' | b't' | b'c' | b'd' | b'n') {
            return 0;
        }
        if self.names_only(fields, bytes) {
            return 0;
        }
        let mut count = fill_quoted(bytes);
        if self.shows != Shows::Nothing && self.field != b'W' {
            count += fill_unquoted(bytes) + u64::from(fill_numbers(bytes));
        }
        count
    }

    /// Nothing is quoted but names that are the client's own, or the catalogue's.
    fn names_only(self, fields: Fields<'_>, bytes: &[u8]) -> bool {
        // With a position in the client's text it was said while that was analysed. That can run what the text says (a partition's bounds),
        // and functions analyse texts of their own: what is quoted is believed where the client wrote it.
        let analysed = fields.positioned && self.field != b'D';
        match self.shows {
            _ if self.is_from_the_catalogue(fields, bytes) => true,
            Shows::Nothing => analysed || starts_with_one_of(bytes, &NAMES) && self.quotes_its_text(bytes),
            Shows::Unseen => (analysed || starts_with_one_of(bytes, &NAMES)) && self.quotes_its_text(bytes),
            Shows::Masked => analysed && self.quotes_its_text(bytes),
        }
    }

    fn is_from_the_catalogue(self, fields: Fields<'_>, bytes: &[u8]) -> bool {
        let by = |routines: &[&str]| routines.iter().any(|routine| routine.as_bytes() == fields.routine);
        let says = |(start, routines): &(&str, &[&str])| bytes.starts_with(start.as_bytes()) && by(routines);
        fields.is_of_server()
            && (FROM_THE_CATALOGUE.iter().any(says) || self.own.is_none() && OF_MESSAGES.iter().any(says))
    }

    /// What is quoted stands in the client's own text.
    fn quotes_its_text(self, bytes: &[u8]) -> bool {
        let own = self.own.unwrap_or_default().to_ascii_lowercase();
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'"').collect();
        let is_own =
            |part: &&[u8]| !part.is_empty() && memchr::memmem::find(&own, &part.to_ascii_lowercase()).is_some();
        // A value can hold quotes: between two of them there is nothing but what the server says there.
        let between = parts.iter().skip(2).step_by(2);
        parts.len() % 2 == 1
            && parts.iter().skip(1).step_by(2).all(is_own)
            && between.rev().skip(1).all(|part| BETWEEN_NAMES.contains(part))
    }
}

/// What the server says between two names that it quotes.
const BETWEEN_NAMES: [&[u8]; 5] = [b" of relation ", b" for relation ", b" on table ", b" of type ", b" in table "];

/// Text that is not the server's own, or quotes a document.
fn is_free_text(field: u8, fields: Fields<'_>, bytes: &[u8]) -> bool {
    match field {
        // Whatever the code wanted to say.
        b'M' | b'D' | b'H' if !fields.is_of_server() => true,
        b'M' | b'D' | b'H' | b's' | b't' | b'c' | b'd' | b'n' if fields.raised() => true,
        // The text that a function put together.
        b'q' => true,
        // `line 1: ...` quotes the XML document.
        b'D' => bytes.starts_with(b"line "),
        // `JSON data, line 1: ...` quotes the document.
        b'W' => !CONTEXTS.iter().any(|start| bytes.starts_with(start)),
        _ => false,
    }
}

/// What the fields of an ErrorResponse or NoticeResponse behind the one at hand say of where it comes from. (Manual, 55.8.)
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Fields<'a> {
    /// There is a position in the client's statement.
    positioned: bool,
    /// File and routine of the source that said it: no message can forge them.
    file: &'a [u8],
    routine: &'a [u8],
    /// It was said while rows followed those that they refer to (ON UPDATE CASCADE): of a table that the statement does not name.
    by_reference: bool,
}

impl<'a> Fields<'a> {
    /// `before`: the message up to the field at hand, in which what was quoted is filled by now. `rest`: from its end on.
    pub fn of(before: &[u8], rest: &'a [u8]) -> Self {
        let mut found = Self::default();
        let filled = |field: &[u8]| field.starts_with(b"W") && memchr::memmem::find(field, b"\"*").is_some();
        found.by_reference = before.split(|byte| *byte == 0).any(filled);
        let mut fields = rest.split(|byte| *byte == 0);
        // What ends the field at hand.
        fields.next();
        while let Some([code, text @ ..]) = fields.next() {
            match code {
                b'P' => found.positioned = true,
                b'W' => found.by_reference |= is_by_reference(text),
                b'F' => found.file = text,
                b'R' => found.routine = text,
                _ => {}
            }
        }
        found
    }

    /// A function said it in words of its own: PL/pgSQL's RAISE or ASSERT, elog of PL/Perl, PL/Python or PL/Tcl.
    fn raised(self) -> bool {
        const LANGUAGES: [&[u8]; 3] = [b"plperl", b"plpy_", b"pltcl"];
        self.routine.starts_with(b"exec_stmt_") || LANGUAGES.iter().any(|language| self.file.starts_with(language))
    }

    /// Written in the server itself, whose messages are known, and in PL/pgSQL but for RAISE.
    fn is_of_server(self) -> bool {
        let known = |file: &[u8]| !file.is_empty() && SERVER_FILES.split(|byte| *byte == b'\n').any(|own| own == file);
        known(self.file) || self.file.starts_with(b"pl_") && !self.routine.starts_with(b"exec_stmt_")
    }
}

/// The context is a statement that the server has put together for a foreign key: those alone it writes with such operators.
fn is_by_reference(context: &[u8]) -> bool {
    memchr::memmem::find(context, b" OPERATOR(").is_some()
}

/// The names of the server's source files, versions 12 to 18. What another says under column masks is hidden: an extension may say anything.
const SERVER_FILES: &[u8] = include_bytes!("server_files.txt");

/// RAISE takes any five characters for a code; raise_exception stands for all of them where they could be data.
const RAISED: &[u8; 5] = b"P0001";

const CONTEXTS: [&[u8]; 5] = [b"PL/pgSQL function ", b"SQL function ", b"SQL statement ", b"COPY ", b"while "];

/// These quote a name out of the catalogue, never one made of data, where these routines say them.
const FROM_THE_CATALOGUE: [(&str, &[&str]); 6] = [
    ("duplicate key value violates", &["_bt_check_unique"]),
    ("null value in column", &["ExecConstraints", "ReportNotNullViolationError"]),
    ("new row for relation", &["ExecConstraints", "ExecPartitionCheckEmitError"]),
    ("insert or update on table", &["ri_ReportViolation"]),
    ("update or delete on table", &["ri_ReportViolation"]),
    ("permission denied", &["aclcheck_error", "aclcheck_error_col"]),
];

/// These quote what a message of the protocol named.
const OF_MESSAGES: [(&str, &[&str]); 2] = [
    ("prepared statement ", &["FetchPreparedStatement", "StorePreparedStatement", "exec_bind_message"]),
    ("portal ", &["exec_execute_message", "exec_describe_portal_message"]),
];

/// These quote names, which are the client's own unless a cast made them out of data (`ssn::regclass`).
const NAMES: [&[u8]; 17] = [
    b"column ",
    b"relation ",
    b"table ",
    b"schema ",
    b"database ",
    b"role ",
    b"function ",
    b"operator ",
    b"type ",
    b"syntax error",
    b"missing FROM-clause",
    b"missing data for column",
    b"cursor ",
    b"Perhaps you meant",
    b"unrecognized configuration parameter ",
    b"check constraint ",
    b"savepoint ",
];

fn starts_with_one_of(bytes: &[u8], starts: &[&[u8]]) -> bool {
    starts.iter().any(|start| bytes.starts_with(start))
}

/// What an error of a statement over masked data may hold without quotes, or in those of another language: what stands behind a colon, a
/// name that a cast made (`ssn::regoperator`), and everything between bytes that English has not.
fn fill_unquoted(bytes: &mut [u8]) -> u64 {
    const MISSING: &[u8] = b" does not exist";
    const NO_ENCODING: &[u8] = b" is not a valid encoding name";
    const OBJECTS: [&[u8]; 6] = [b"operator ", b"function ", b"procedure ", b"routine ", b"aggregate ", b"type "];
    let length = bytes.len();
    let colon = memchr::memmem::find(bytes, b": ").map_or(length, |at| at + 2);
    let object = OBJECTS.iter().find(|object| bytes.starts_with(object)).map_or(length, |object| object.len());
    let no_encoding = bytes.len().checked_sub(NO_ENCODING.len()).filter(|_| bytes.ends_with(NO_ENCODING)).unwrap_or(0);
    let missing = if bytes.ends_with(MISSING) { length - MISSING.len() } else { 0 };
    let foreign = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(length);
    let foreign_end = bytes.iter().rposition(|byte| !byte.is_ascii()).map_or(0, |at| at + 1);
    let (converted, not_converted) = between(bytes, b"encoding conversion from ", b" to ASCII not supported");
    let mut fill = |from: usize, to: usize| {
        let shows = from < to;
        if shows {
            bytes[from..to].fill(b'*');
        }
        u64::from(shows)
    };
    fill(colon, length)
        + fill(0, no_encoding)
        + fill(object, missing)
        + fill(converted, not_converted)
        + fill(foreign, foreign_end)
}

/// What stands between a message's beginning and its end.
fn between(bytes: &[u8], start: &[u8], end: &[u8]) -> (usize, usize) {
    let is_it = bytes.starts_with(start) && bytes.ends_with(end) && bytes.len() >= start.len() + end.len();
    if is_it { (start.len(), bytes.len() - end.len()) } else { (0, 0) }
}

/// Fills digits, those of hexadecimal numbers as well: bytes of a value that an encoding has no character for.
fn fill_numbers(bytes: &mut [u8]) -> bool {
    let (mut shows, mut hexadecimal) = (false, false);
    let mut before = 0;
    for byte in bytes {
        let is_prefix = before == b'0' && matches!(*byte, b'x' | b'X');
        hexadecimal = is_prefix || hexadecimal && byte.is_ascii_hexdigit();
        before = *byte;
        if byte.is_ascii_digit() || hexadecimal && !is_prefix {
            *byte = b'*';
            shows = true;
        }
    }
    shows
}

/// Fills what stands between double quotes and, behind `=` or `contains `, between parentheses.
fn fill_quoted(bytes: &mut [u8]) -> u64 {
    let mut count = 0;
    let mut at = 0;
    while at < bytes.len() {
        let closing = match bytes[at] {
            b'"' => Some(b'"'),
            b'(' if bytes[..at].ends_with(b"=") || bytes[..at].ends_with(b"contains ") => Some(b')'),
            _ => None,
        };
        at += 1;
        let Some(closing) = closing else { continue };
        // A value may hold the closing character itself: everything up to the last one goes.
        let end = bytes[at..].iter().rposition(|byte| *byte == closing).map_or(bytes.len(), |length| at + length);
        bytes[at..end].fill(b'*');
        count += 1;
        at = end + 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        fill_quoted(&mut bytes);
        String::from_utf8(bytes).expect("stars are text")
    }

    #[test]
    fn quoted_values_in_errors_are_filled() {
        assert_eq!(
            filled("invalid input syntax for type integer: \"4111-22\""),
            "invalid input syntax for type integer: \"*******\""
        );
        assert_eq!(filled("Key (ssn)=(078-05-1120) already exists."), "Key (ssn)=(***********) already exists.");
        assert_eq!(filled("Failing row contains (1, 4111)."), "Failing row contains (*******).");
    }

    /// The first field as the client gets it, of a server's message unless another file is among them.
    fn told_of(shows: Shows, fields: &[(u8, &str)]) -> String {
        let mut text = fields[0].1.as_bytes().to_vec();
        let mut rest = vec![0];
        let file = (b'F', "postgres.c");
        let is_told = fields.iter().any(|(code, _)| *code == b'F');
        for (code, text) in fields[1..].iter().chain((!is_told).then_some(&file)) {
            rest.push(*code);
            rest.extend_from_slice(text.as_bytes());
            rest.push(0);
        }
        rest.push(0);
        let own = Some(&b"SELECT Nmae, rest FROM people"[..]);
        Told { field: fields[0].0, shows, own }.hide(Fields::of(&[], &rest), &mut text);
        String::from_utf8(text).expect("stars are text")
    }

    fn told(may_show: bool, fields: &[(u8, &str)]) -> String {
        told_of(if may_show { Shows::Masked } else { Shows::Nothing }, fields)
    }

    #[test]
    fn data_cannot_dress_as_a_message_that_quotes_names() {
        for said in [
            "portal 078/05 is not a valid encoding name",
            "permission denied 078/05 is not a valid encoding name",
            "duplicate key value violates 078/05 is not a valid encoding name",
        ] {
            let message = [(b'M', said), (b'F', "ascii.c"), (b'R', "to_ascii_encname")];
            assert_eq!(told(true, &message), format!("{} is not a valid encoding name", "*".repeat(said.len() - 29)));
        }
        let unique = "duplicate key value violates unique constraint \"people_pkey\"";
        assert_eq!(told(true, &[(b'M', unique), (b'R', "_bt_check_unique")]), unique);
        let named = "prepared statement \"s1\" does not exist";
        let starred = "prepared statement \"**\" does not exist";
        assert_eq!(told(true, &[(b'M', named), (b'R', "FetchPreparedStatement")]), starred);
        let converted = "encoding conversion from KOI8R to ASCII not supported";
        let message = [(b'M', converted), (b'R', "pg_to_ascii")];
        assert_eq!(told(true, &message), "encoding conversion from ***** to ASCII not supported");
        let bytes = "character with byte sequence 0xea 0xaa 0xaa in encoding \"UTF8\"";
        let message = [(b'M', bytes), (b'R', "report_untranslatable_char")];
        assert_eq!(told(true, &message), "character with byte sequence *x** *x** *x** in encoding \"****\"");
    }

    #[test]
    fn what_is_not_the_servers_own_may_be_data() {
        let perl = [(b'M', "alpha-bravo"), (b'F', "plperl.c"), (b'R', "do_plperl_util_elog")];
        assert_eq!((told(true, &perl), told(false, &perl)), ("***********".into(), "alpha-bravo".into()));
        let extension = [(b'M', "no such thing: alpha"), (b'F', "lwgeom.c"), (b'R', "f")];
        assert_eq!(told(true, &extension), "********************");
        let core = [(b'M', "division by zero"), (b'F', "int.c"), (b'R', "int4div")];
        assert_eq!(told(true, &core), "division by zero");
        let plpgsql = [(b'M', "control reached end of function without RETURN"), (b'F', "pl_exec.c")];
        assert_eq!(told(true, &plpgsql), plpgsql[0].1);
    }

    #[test]
    fn a_statement_that_runs_what_nobody_sees_shows_the_clients_names_only() {
        let unseen = |fields: &[(u8, &str)]| told_of(Shows::Unseen, fields);
        let made = [(b'M', "relation \"4111x1111\" does not exist"), (b'R', "RangeVarGetRelidExtended")];
        assert_eq!(
            (unseen(&made), told(false, &made)),
            ("relation \"*********\" does not exist".into(), "relation \"*********\" does not exist".into())
        );
        let own = [(b'M', "relation \"people\" does not exist"), (b'R', "RangeVarGetRelidExtended")];
        assert_eq!((unseen(&own), told(false, &own)), (own[0].1.into(), own[0].1.into()));
        let raised = [(b'M', "v=alpha"), (b'F', "pl_exec.c"), (b'R', "exec_stmt_raise")];
        assert_eq!((unseen(&raised), told(false, &raised)), ("*******".into(), "v=alpha".into()));
    }

    #[test]
    fn what_is_said_while_rows_follow_a_reference_is_believed_less() {
        const CASCADE: &str =
            "SQL statement \"UPDATE ONLY \"public\".\"people\" SET \"m\" = $1 WHERE $2 OPERATOR(pg_catalog.=) \"m\"\"";
        let told = |fields: &[(u8, &str)]| told(false, fields);
        let raised = [(b'F', "pl_exec.c"), (b'R', "exec_stmt_raise")];
        let cascade = format!("PL/pgSQL function leak(text) line 1 at RAISE\n{CASCADE}");
        assert_eq!(told(&[&[(b'M', "got 078x05"), (b'W', &*cascade)], &raised[..]].concat()), "**********");
        let trigger = "PL/pgSQL function stock() line 1 at RAISE\nSQL statement \"update goods set n = n - 1\"";
        assert_eq!(told(&[&[(b'M', "out of stock"), (b'W', trigger)], &raised[..]].concat()), "out of stock");
        let json = format!("JSON data, line 1: 078-...\n{CASCADE}");
        assert!(told(&[(b'W', &json)]).bytes().all(|byte| byte == b'*'));
        let names_a_column = Fields::of(b"Mx\0WSQL statement \"*****\"\0c", b"\0Fpl_exec.c\0Rexec_stmt_raise\0\0");
        let told = Told { field: b'c', shows: Shows::Nothing, own: None };
        assert!(told.hide(names_a_column, &mut b"078x05".to_vec()).1);
    }

    #[test]
    fn what_a_statement_over_masked_data_says_shows_none_of_it() {
        let cast = [(b'M', "relation \"078-05-1120\" does not exist"), (b'R', "RangeVarGetRelidExtended")];
        assert_eq!(told(true, &cast), "relation \"***********\" does not exist");
        let raised = [(b'M', "column 078/05/1120"), (b'F', "pl_exec.c"), (b'R', "exec_stmt_raise")];
        assert_eq!(told(true, &raised), "******************");
        let asserted = [(b'M', "column xyz"), (b'R', "exec_stmt_assert")];
        assert_eq!(told(true, &asserted), "**********");
        let named = [(b't', "078-05-1120"), (b'R', "exec_stmt_raise")];
        assert_eq!((told(true, &named), told(false, &named)), ("***********".into(), "078-05-1120".into()));
        let by_server = [(b't', "people2"), (b'R', "_bt_check_unique")];
        assert_eq!(told(true, &by_server), "people2");
        let coded = [(b'C', "07805"), (b'R', "exec_stmt_raise")];
        assert_eq!(told(true, &coded), "P0001");
        let operator = [(b'M', "operator does not exist: alpha-bravo"), (b'R', "regoperin")];
        assert_eq!(told(true, &operator), "operator does not exist: ***********");
        let encoding = [(b'M', "alpha-bravo is not a valid encoding name"), (b'R', "to_ascii_encname")];
        assert_eq!(told(true, &encoding), "*********** is not a valid encoding name");
        let function = [(b'M', "function alpha-bravo() does not exist"), (b'R', "LookupFuncName")];
        assert_eq!(told(true, &function), "function ************* does not exist");
        let german = [(b'M', "Relation \u{bb}alpha-bravo\u{ab} existiert nicht"), (b'R', "RangeVarGetRelidExtended")];
        assert_eq!(told(true, &german), "Relation *************** existiert nicht");
        assert_eq!(told(false, &german), german[0].1);
        let number = [(b'M', "large object 78051120 does not exist"), (b'R', "inv_open")];
        assert_eq!(told(true, &number), "large object ******** does not exist");
        let json = [(b'W', "JSON data, line 1: 078/...")];
        assert_eq!(told(true, &json), "**************************");
    }

    #[test]
    fn names_of_the_clients_own_text_stay_readable() {
        let analysed = [(b'M', "column \"nmae\" does not exist"), (b'P', "8"), (b'R', "errorMissingColumn")];
        assert_eq!(told(true, &analysed), analysed[0].1);
        let two = [(b'M', "column \"nmae\" of relation \"people\" does not exist"), (b'P', "8")];
        assert_eq!(told(true, &two), two[0].1);
        let cast = [(b'M', "unterminated quoted identifier at or near \"\"078-05\""), (b'P', "1")];
        assert_eq!(told(true, &cast), "unterminated quoted identifier at or near \"*******\"");
        let made = [(b'M', "syntax error at or near \"nmae\" 078-05 \"people\""), (b'P', "1")];
        assert_eq!(told(true, &made), "syntax error at or near \"********************\"");
        let inner = [(b'q', "select nope -- 078-05"), (b'R', "errorMissingColumn")];
        assert_eq!(told(true, &inner), "*********************");
        let another = [(b'M', "syntax error at or near \"078051120\""), (b'P', "1"), (b'R', "scanner_yyerror")];
        assert_eq!(told(true, &another), "syntax error at or near \"*********\"");
        let dropped = [(b'M', "table \"people\" does not exist"), (b'R', "DropErrorMsgNonExistent")];
        assert_eq!(told(false, &dropped), dropped[0].1);
    }
}
