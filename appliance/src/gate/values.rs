//! What becomes of a watched value: masked whole, looked through by the content detectors, or, in errors and notices, filled
//! where it may quote data.

use super::meaning::{Mark, Reads};
use crate::policy::View;
use codecs::postgres::{Value, ValueAnswer, ValueSource, Watch};
use masking::style::{Masked, Style, TokenKey};

/// What a plan's byte means. 0: the column passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Treatment {
    /// The whole value, in this style.
    Whole(Style),
    /// The whole value, and how long it is: an expression over a masked column could be as long as its letters say.
    Hidden,
    /// Findings of the content detectors.
    Detect,
}

impl Treatment {
    pub fn code(self) -> u8 {
        match self {
            Treatment::Detect => 1,
            Treatment::Whole(Style::Last4) => 2,
            Treatment::Whole(Style::Fill) => 3,
            Treatment::Whole(Style::Null) => 4,
            Treatment::Whole(Style::Token) => 5,
            Treatment::Hidden => 6,
        }
    }

    /// An unknown code masks: it can only be our own mistake.
    #[inline]
    fn of(code: u8) -> Self {
        match code {
            1 => Treatment::Detect,
            2 => Treatment::Whole(Style::Last4),
            4 => Treatment::Whole(Style::Null),
            5 => Treatment::Whole(Style::Token),
            6 => Treatment::Hidden,
            _ => Treatment::Whole(Style::Fill),
        }
    }
}

/// How a type's values look on the wire, as far as masking goes. OIDs: pg_type.dat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// Text in both formats: can be overwritten byte for byte.
    Text,
    /// Text with a structure that `*` would break (json, xml, arrays, composites, unknown types).
    Structured,
    /// Numbers, dates, booleans: nothing to find, and `*` would not parse.
    Plain,
}

pub(super) fn nature(type_oid: u32) -> Nature {
    match type_oid {
        18 | 19 | 25 | 1042 | 1043 | 705 | 2275 => Nature::Text,
        16
        | 20
        | 21
        | 23
        | 26
        | 27
        | 28
        | 29
        | 600..=604
        | 628
        | 650
        | 700
        | 701
        | 718
        | 774
        | 790
        | 829
        | 869
        | 1000
        | 1005
        | 1007
        | 1010
        | 1011
        | 1012
        | 1016
        | 1021
        | 1022
        | 1028
        | 1082
        | 1083
        | 1114
        | 1115
        | 1182
        | 1183
        | 1184
        | 1185
        | 1186
        | 1187
        | 1231
        | 1266
        | 1270
        | 1560
        | 1562
        | 1700
        | 2205
        | 2206
        | 2950
        | 2951
        | 3220
        | 3904
        | 3906
        | 3908
        | 3910
        | 3912
        | 3926 => Nature::Plain,
        _ => Nature::Structured,
    }
}

/// Masks what the session shows it, as the principal may see it.
pub(super) struct Masker<'a> {
    /// `None`: nobody is logged in, so nothing is watched.
    pub view: Option<&'a View>,
    pub token_key: &'a TokenKey,
    /// Values that were masked.
    pub masked: u64,
}

impl Watch<Mark> for Masker<'_> {
    #[inline]
    fn value(&mut self, value: Value, message: &mut [u8], mark: Option<&Mark>) -> ValueAnswer {
        let view = self.view.expect("values come after the login");
        let at = value.span.start as usize..value.span.end as usize;
        let (count, answer) = match value.source {
            ValueSource::Cell { code, type_oid, .. } => {
                self.cell(view, Treatment::of(code), nature(type_oid), &mut message[at])
            }
            ValueSource::Copy { .. } => self.find(view, &mut message[at]),
            ValueSource::Text { field } => {
                let may_show = mark.is_none_or(|mark| mark.reads != Reads::Open);
                let own = mark.map_or(&b""[..], |mark| &mark.meaning.text);
                self.text(view, Told { field, may_show, own }, at, message)
            }
        };
        self.masked += count;
        answer
    }
}

impl Masker<'_> {
    fn cell(&self, view: &View, treatment: Treatment, nature: Nature, bytes: &mut [u8]) -> (u64, ValueAnswer) {
        match (treatment, nature) {
            (Treatment::Detect, _) => self.find(view, bytes),
            (Treatment::Whole(style), Nature::Text) => (1, answer(style.apply(bytes, self.token_key))),
            (Treatment::Hidden, Nature::Text) => {
                bytes.fill(b'*');
                (1, ValueAnswer::Replace(HIDDEN.to_vec()))
            }
            // `***` would not parse as a number or as JSON: NULL says the same and breaks no driver.
            (Treatment::Whole(_) | Treatment::Hidden, Nature::Structured | Nature::Plain) => (1, ValueAnswer::Null),
        }
    }

    fn find(&self, view: &View, bytes: &mut [u8]) -> (u64, ValueAnswer) {
        let Some((detectors, style)) = &view.detect else { return (0, ValueAnswer::Keep) };
        let (count, masked) = masking::style::mask_findings(detectors, *style, self.token_key, bytes);
        (u64::from(count), answer(masked))
    }

    /// Errors and notices quote values: `Key (ssn)=(078-05-1120) already exists`, `invalid input syntax ...: "4111"`.
    /// Under column masks, quoted parts are filled unless the message can quote names only. What a statement that reads
    /// masked data says is believed less: text of its own (RAISE) is filled, and so is every number.
    /// `at`: the text in the message.
    fn text(&self, view: &View, told: Told<'_>, at: std::ops::Range<usize>, message: &mut [u8]) -> (u64, ValueAnswer) {
        let mut count = 0;
        if !view.column_masks.is_empty() && told.field != b'A' {
            let rest = FieldsBehind::of(&message[at.end..]);
            let free = told.may_show && is_free_text(told, rest, &message[at.clone()]);
            count += fill_told(told, rest, &mut message[at.clone()]);
            if free {
                return (count, ValueAnswer::Replace(HIDDEN.to_vec()));
            }
        }
        let (found, answer) = self.find(view, &mut message[at]);
        (count + found, answer)
    }
}

/// What stands where nothing of a value may be told, not even its length.
const HIDDEN: &[u8] = b"********";

fn answer(masked: Masked) -> ValueAnswer {
    match masked {
        Masked::Overwritten => ValueAnswer::Keep,
        Masked::Null => ValueAnswer::Null,
        Masked::Replace(bytes) => ValueAnswer::Replace(bytes),
    }
}

/// What is known of a text besides its bytes.
#[derive(Clone, Copy, Debug)]
struct Told<'a> {
    field: u8,
    /// The statement it is about reads masked data, or may.
    may_show: bool,
    /// That statement's text.
    own: &'a [u8],
}

impl Told<'_> {
    /// What is quoted stands in the client's own text.
    fn quotes_its_text(&self, bytes: &[u8]) -> bool {
        let own = self.own.to_ascii_lowercase();
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
fn is_free_text(told: Told<'_>, rest: FieldsBehind, bytes: &[u8]) -> bool {
    match told.field {
        // RAISE: whatever the code wanted to say.
        b'M' | b'D' | b'H' | b's' | b't' | b'c' | b'd' | b'n' if rest.raised => true,
        // The text that a function put together.
        b'q' => true,
        // `line 1: ...` quotes the XML document.
        b'D' => bytes.starts_with(b"line "),
        // `JSON data, line 1: ...` quotes the document.
        b'W' => !CONTEXTS.iter().any(|start| bytes.starts_with(start)),
        _ => false,
    }
}

fn fill_told(told: Told<'_>, rest: FieldsBehind, bytes: &mut [u8]) -> u64 {
    if told.field == b'C' && rest.raised && told.may_show && bytes.len() == RAISED.len() {
        bytes.copy_from_slice(RAISED);
        return 0;
    }
    if told.may_show && is_free_text(told, rest, bytes) {
        bytes.fill(b'*');
        return 1;
    }
    // The server names objects there, and nothing else.
    if matches!(told.field, b'C' | b's' | b't' | b'c' | b'd' | b'n') {
        return 0;
    }
    // With a position in the client's text it was said while that was analysed. That can run what the text says (a partition's bounds), and
    // functions analyse texts of their own: what is quoted is believed where the client wrote it.
    let of_its_text = rest.positioned && told.field != b'D' && (!told.may_show || told.quotes_its_text(bytes));
    if of_its_text || starts_with_one_of(bytes, &NAMES_FROM_THE_CATALOGUE) {
        return 0;
    }
    if !told.may_show {
        return if starts_with_one_of(bytes, &NAMES_ONLY) { 0 } else { fill_quoted(bytes) };
    }
    let mut count = fill_quoted(bytes);
    if told.field != b'W' {
        count += fill_unquoted(bytes);
        let digits = bytes.iter_mut().filter(|byte| byte.is_ascii_digit());
        count += u64::from(digits.map(|digit| *digit = b'*').count() > 0);
    }
    count
}

/// What the fields of an ErrorResponse or NoticeResponse behind the one at hand say of where it comes from.
#[derive(Clone, Copy, Default, Debug)]
struct FieldsBehind {
    /// There is a position in the client's statement.
    positioned: bool,
    /// PL/pgSQL's RAISE or ASSERT said it: the routine's name, which no message can forge.
    raised: bool,
}

impl FieldsBehind {
    fn of(rest: &[u8]) -> Self {
        let mut found = Self::default();
        let mut fields = rest.split(|byte| *byte == 0);
        // What ends the field at hand.
        fields.next();
        while let Some([code, text @ ..]) = fields.next() {
            found.positioned |= *code == b'P';
            found.raised |= *code == b'R' && text.starts_with(b"exec_stmt_");
        }
        found
    }
}

/// RAISE takes any five characters for a code; raise_exception stands for all of them where they could be data.
const RAISED: &[u8; 5] = b"P0001";

const CONTEXTS: [&[u8]; 5] = [b"PL/pgSQL function ", b"SQL function ", b"SQL statement ", b"COPY ", b"while "];

/// These quote a name out of the catalogue, never one made of data.
const NAMES_FROM_THE_CATALOGUE: [&[u8]; 8] = [
    b"duplicate key value violates",
    b"null value in column",
    b"new row for relation",
    b"insert or update on table",
    b"update or delete on table",
    b"permission denied",
    b"prepared statement ",
    b"portal ",
];

/// These quote names, which are the client's own unless a cast made them out of data (`ssn::regclass`).
const NAMES_ONLY: [&[u8]; 16] = [
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
    let mut fill = |from: usize, to: usize| {
        let shows = from < to;
        if shows {
            bytes[from..to].fill(b'*');
        }
        u64::from(shows)
    };
    fill(colon, length) + fill(0, no_encoding) + fill(object, missing) + fill(foreign, foreign_end)
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

    fn told(may_show: bool, fields: &[(u8, &str)]) -> String {
        let mut text = fields[0].1.as_bytes().to_vec();
        let mut rest = vec![0];
        for (code, text) in &fields[1..] {
            rest.push(*code);
            rest.extend_from_slice(text.as_bytes());
            rest.push(0);
        }
        rest.push(0);
        fill_told(
            Told { field: fields[0].0, may_show, own: b"SELECT Nmae, rest FROM people" },
            FieldsBehind::of(&rest),
            &mut text,
        );
        String::from_utf8(text).expect("stars are text")
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
        let dropped = [(b'M', "table \"nothing\" does not exist"), (b'R', "DropErrorMsgNonExistent")];
        assert_eq!(told(false, &dropped), dropped[0].1);
    }

    #[test]
    fn every_treatment_survives_its_code() {
        for treatment in [Style::Last4, Style::Fill, Style::Null, Style::Token]
            .map(Treatment::Whole)
            .into_iter()
            .chain([Treatment::Detect, Treatment::Hidden])
        {
            assert_eq!(Treatment::of(treatment.code()), treatment);
            assert_ne!(treatment.code(), 0, "0 means: passes");
        }
    }
}
