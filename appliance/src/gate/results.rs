//! What comes back: which columns are watched, how their values are masked, how a statement ended.

use super::meaning::{Encoding, Planned, Reads};
use super::{Context, Gate, Retry, free, refusal};
use crate::audit::{self, Entry};
use crate::policy::View;
use crate::shard::mailbox::{Catalogue, CatalogueTable, ToControl};
use codecs::postgres::{
    Answer, Column, ColumnPlan, End, Outcome, ShapeKind, TransactionStatus, Value, ValueAnswer, ValueSource,
};
use codecs::{Pipes, Side};
use masking::sql::{Analysis, Table};
use masking::style::{Masked, Style};
use std::sync::Arc;

/// What a plan's byte means. 0: the column passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Treatment {
    /// The whole value, in this style.
    Whole(Style),
    /// Findings of the content detectors.
    Detect,
}

impl Treatment {
    fn code(self) -> u8 {
        match self {
            Treatment::Detect => 1,
            Treatment::Whole(Style::Last4) => 2,
            Treatment::Whole(Style::Fill) => 3,
            Treatment::Whole(Style::Null) => 4,
            Treatment::Whole(Style::Token) => 5,
        }
    }

    /// An unknown code masks: it can only be our own mistake.
    fn of(code: u8) -> Self {
        match code {
            1 => Treatment::Detect,
            2 => Treatment::Whole(Style::Last4),
            4 => Treatment::Whole(Style::Null),
            5 => Treatment::Whole(Style::Token),
            _ => Treatment::Whole(Style::Fill),
        }
    }
}

/// How a type's values look on the wire, as far as masking goes. OIDs: pg_type.dat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nature {
    /// Text in both formats: can be overwritten byte for byte.
    Text,
    /// Text with a structure that `*` would break (json, xml, arrays, composites, unknown types).
    Structured,
    /// Numbers, dates, booleans: nothing to find, and `*` would not parse.
    Plain,
}

fn nature(type_oid: u32) -> Nature {
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

/// What the catalogue says about a column's origin.
enum Origin<'a> {
    Expression,
    Known {
        schema: &'a str,
        table: &'a str,
        column: &'a str,
    },
    /// A table or column the catalogue did not know when it was read.
    Unknown,
}

impl Gate {
    pub(super) fn shape(&mut self, kind: ShapeKind, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let view = self.view.clone().expect("results come after the login");
        match kind {
            ShapeKind::CopyOut { .. } => {
                // COPY of masked columns was refused before it began; what is left is looked through.
                let plan: Option<ColumnPlan> = view.detect.is_some().then(|| [Treatment::Detect.code()].into());
                self.session.answer(Side::Target, Answer::Watch(plan), pipes);
            }
            ShapeKind::Rows if view.column_masks.is_empty() => {
                let plan = self.kept_plan(None).unwrap_or_else(|| {
                    let plan = self.detect_plan(&view);
                    self.keep_plan(None, &plan);
                    plan
                });
                self.session.answer(Side::Target, Answer::Watch(plan), pipes);
            }
            ShapeKind::Rows => match self.fresh_catalogue(cx) {
                Some(catalogue) => match self.kept_plan(Some(&catalogue)) {
                    Some(plan) => self.session.answer(Side::Target, Answer::Watch(plan), pipes),
                    None if self.knows_columns(&catalogue) => {
                        let plan = self.mask_plan(&view, &catalogue);
                        self.keep_plan(Some(catalogue), &plan);
                        self.session.answer(Side::Target, Answer::Watch(plan), pipes);
                    }
                    None => self.ask_catalogue(kind, pipes, cx),
                },
                None => self.ask_catalogue(kind, pipes, cx),
            },
        }
    }

    /// The plan this statement's last result had, if this one has the same columns under the same catalogue.
    fn kept_plan(&self, catalogue: Option<&Arc<Catalogue>>) -> Option<Option<ColumnPlan>> {
        let kept = self.session.executing()?.plan.borrow();
        let planned = kept.as_ref()?;
        let same_catalogue = match (&planned.catalogue, catalogue) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        let same = same_catalogue && self.session.columns().iter().map(identity).eq(planned.columns.iter().copied());
        same.then(|| planned.plan.clone())
    }

    fn keep_plan(&self, catalogue: Option<Arc<Catalogue>>, plan: &Option<ColumnPlan>) {
        let Some(mark) = self.session.executing() else { return };
        let columns = self.session.columns().iter().map(identity).collect();
        *mark.plan.borrow_mut() = Some(Planned { columns, catalogue, plan: plan.clone() });
    }

    /// Tells the session whether plans made earlier still hold.
    #[inline]
    pub(super) fn renew_plans(&mut self, cx: &Context<'_>) {
        let by_content = self.view.as_ref().is_some_and(|view| view.column_masks.is_empty());
        let epoch = if by_content { 1 } else { cx.shared.catalogues.epoch(self.slot, cx.now.unix_us).unwrap_or(0) };
        self.session.plans_hold(epoch);
    }

    /// A catalogue that is fresh enough.
    fn fresh_catalogue(&self, cx: &Context<'_>) -> Option<Arc<Catalogue>> {
        cx.shared.catalogues.fresh(self.slot, cx.now.unix_us).cloned()
    }

    /// Does it know every table and column of this shape?
    fn knows_columns(&self, catalogue: &Catalogue) -> bool {
        self.session.columns().iter().all(|column| !matches!(origin(column, catalogue), Origin::Unknown))
    }

    fn ask_catalogue(&mut self, kind: ShapeKind, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.session.answer(Side::Target, Answer::Hold, pipes);
        self.awaiting_catalogue = Some(kind);
        self.want_catalogue(cx);
    }

    /// Asks for a reading that begins no earlier than now; [`Self::catalogue_read`] gets it.
    pub(super) fn want_catalogue(&self, cx: &mut Context<'_>) {
        cx.control.push(ToControl::Catalogue {
            shard: self.origin.shard,
            relay: self.origin.relay,
            target: self.target.clone().expect("results come from a target"),
            not_before_us: cx.now.unix_us,
        });
    }

    pub(super) fn catalogue_read(
        &mut self,
        catalogue: Result<(i64, Arc<Catalogue>), String>,
        pipes: &mut Pipes<'_>,
        cx: &mut Context<'_>,
    ) {
        if let Ok((read_at_us, catalogue)) = &catalogue {
            cx.shared.catalogues.keep(self.slot, *read_at_us, catalogue.clone());
        }
        self.answer_asking(catalogue.is_ok(), pipes, cx);
        if self.awaiting_catalogue.take().is_none() {
            return;
        }
        match catalogue {
            Ok((_, catalogue)) => {
                // Whatever it still does not know (made in an open transaction) is masked whole, this once.
                self.session.plans_hold(0);
                let view = self.view.clone().expect("results come after the login");
                let plan = self.mask_plan(&view, &catalogue);
                self.session.answer(Side::Target, Answer::Watch(plan), pipes);
            }
            Err(reason) => {
                let reason = format!("the catalogue could not be read: {reason}");
                let blind =
                    refusal(b"58000", "the gateway cannot tell which columns are masked", None, Some("try again"));
                self.end(&reason, &blind, pipes);
            }
        }
    }

    fn detect_plan(&self, view: &View) -> Option<ColumnPlan> {
        view.detect.as_ref()?;
        plan(self.session.columns().iter().map(detect_code))
    }

    fn mask_plan(&self, view: &View, catalogue: &Catalogue) -> Option<ColumnPlan> {
        let reads = match self.session.executing() {
            Some(mark) if mark.reads == Reads::Masked && !meets_mask(&mark.meaning.analysis, view, catalogue) => {
                Reads::Open
            }
            Some(mark) => mark.reads,
            None => Reads::Unknown,
        };
        let columns = self.session.columns();
        let executing = self.session.executing().filter(|_| reads == Reads::Masked);
        let free = executing.and_then(|mark| free::outputs(&mark.meaning.analysis, view, catalogue));
        let free = free.filter(|free| free.len() == columns.len()).unwrap_or_default();
        plan(columns.iter().enumerate().map(|(at, column)| {
            let style = match origin(column, catalogue) {
                Origin::Known { schema, table, column } => view.column_style(schema, table, column),
                Origin::Unknown => Some(Style::Fill),
                Origin::Expression if reads == Reads::Open || free.get(at) == Some(&true) => None,
                Origin::Expression => Some(Style::Fill),
            };
            match style {
                Some(style) => Treatment::Whole(style).code(),
                None if view.detect.is_some() => detect_code(column),
                None => 0,
            }
        }))
    }

    pub(super) fn value(&mut self, side: Side, value: Value, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let view = self.view.clone().expect("values come after the login");
        let (count, answer) = match value.source {
            ValueSource::Cell { code, type_oid, .. } => {
                let bytes = pipes.from(side).at_mut(value.span);
                mask_cell(&view, Treatment::of(code), nature(type_oid), bytes, cx)
            }
            ValueSource::Copy { .. } => find(&view, pipes.from(side).at_mut(value.span), cx),
            ValueSource::Text { field } => {
                let may_show = self.session.executing().is_none_or(|mark| mark.reads != Reads::Open);
                let at = value.span.start as usize..value.span.end as usize;
                mask_text(&view, Told { field, may_show }, at, pipes.from(side).undecided_mut(), cx)
            }
        };
        if count > 0 {
            cx.shared.counters.masked_values.add(count);
        }
        if let Some(open) = self.open.front_mut() {
            open.masked += count;
        }
        self.session.answer(side, Answer::Value(answer), pipes);
    }

    pub(super) fn outcome(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Some(position) = self.open.iter().position(|open| open.id == outcome.id) else {
            return self.session.forget_response();
        };
        let response = self.session.response();
        let open = &self.open[position];
        let duration_us = cx.now.mono_us.saturating_sub(open.started_us);
        let (rows, error) = match &outcome.end {
            End::Complete { rows } => (rows.unwrap_or(0), ""),
            End::Suspended => (outcome.messages, ""),
            End::Empty => (0, ""),
            End::Error { sqlstate } => (0, std::str::from_utf8(sqlstate).unwrap_or("XX000")),
            End::Skipped => (0, "skipped"),
        };
        let entry = Entry::Outcome(audit::Outcome {
            request: open.id,
            rows,
            bytes: outcome.bytes,
            duration_us,
            error,
            masked: open.masked,
            more: !outcome.last,
            payload: response.bytes,
            payload_cut: response.cut,
        });
        if self.record(&entry, cx).is_err() {
            self.retry_target = Some(Retry::Outcome(outcome));
            return;
        }
        self.session.forget_response();
        if outcome.last {
            let open = self.open.remove(position).expect("its position was just found");
            cx.shared.counters.statement_duration.observe_ns(duration_us * 1_000);
            if open.mark.meaning.changes_catalogue() {
                self.names_moved(cx);
            }
        } else {
            self.open[position].masked = 0;
        }
    }

    /// ReadyForQuery: outside a transaction, what was changed in it is there for everybody.
    pub(super) fn ready(&mut self, status: TransactionStatus, cx: &mut Context<'_>) {
        if self.ddl_open && status == TransactionStatus::Idle {
            self.names_moved(cx);
            self.ddl_open = self.open.iter().any(|open| open.mark.meaning.changes_catalogue());
        }
    }

    /// Names may stand for other tables than they did: for this shard at once, for the others as soon as they hear of it.
    pub(super) fn names_moved(&mut self, cx: &mut Context<'_>) {
        self.session.plans_hold(0);
        let news = cx.shared.catalogues.moved(self.slot, self.origin.shard, cx.now.unix_us);
        cx.control.extend(news);
    }

    pub(super) fn setting(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.standard_conforming_strings = value == b"on",
            b"client_encoding" => self.encoding = Encoding::named(value),
            b"application_name" => self.identity.name_application(value),
            _ => {}
        }
    }
}

/// What a column's treatment depends on.
fn identity(column: &Column) -> (u32, i16, u32) {
    (column.table_oid, column.attribute, column.type_oid)
}

fn plan(codes: impl Iterator<Item = u8>) -> Option<ColumnPlan> {
    let codes: Vec<u8> = codes.collect();
    codes.iter().any(|code| *code != 0).then(|| codes.into())
}

fn detect_code(column: &Column) -> u8 {
    if nature(column.type_oid) == Nature::Plain { 0 } else { Treatment::Detect.code() }
}

fn origin<'a>(column: &Column, catalogue: &'a Catalogue) -> Origin<'a> {
    if column.table_oid == 0 {
        return Origin::Expression;
    }
    let Some(table) = catalogue.tables.get(&column.table_oid) else { return Origin::Unknown };
    // System columns (ctid, xmin, tableoid) have negative numbers and show nothing of the row.
    if column.attribute < 0 {
        return Origin::Known { schema: &table.schema, table: &table.name, column: "" };
    }
    match table.columns.get(&column.attribute) {
        Some(name) => Origin::Known { schema: &table.schema, table: &table.name, column: name },
        None => Origin::Unknown,
    }
}

fn mask_cell(
    view: &View,
    treatment: Treatment,
    nature: Nature,
    bytes: &mut [u8],
    cx: &Context<'_>,
) -> (u64, ValueAnswer) {
    match (treatment, nature) {
        (Treatment::Detect, _) => find(view, bytes, cx),
        (Treatment::Whole(style), Nature::Text) => (1, answer(style.apply(bytes, &cx.snapshot.token_key))),
        // `***` would not parse as a number or as JSON: NULL says the same and breaks no driver.
        (Treatment::Whole(_), Nature::Structured | Nature::Plain) => (1, ValueAnswer::Null),
    }
}

fn find(view: &View, bytes: &mut [u8], cx: &Context<'_>) -> (u64, ValueAnswer) {
    let Some((detectors, style)) = &view.detect else { return (0, ValueAnswer::Keep) };
    let (count, masked) = masking::style::mask_findings(detectors, *style, &cx.snapshot.token_key, bytes);
    (u64::from(count), answer(masked))
}

fn answer(masked: Masked) -> ValueAnswer {
    match masked {
        Masked::Overwritten => ValueAnswer::Keep,
        Masked::Null => ValueAnswer::Null,
        Masked::Replace(bytes) => ValueAnswer::Replace(bytes),
    }
}

/// Do the tables that a text names have a masked column, now that their columns are known? A pattern like `*.ssn` names
/// every table, few have the column.
fn meets_mask(analysis: &Analysis, view: &View, catalogue: &Catalogue) -> bool {
    analysis.statements.iter().any(|statement| {
        // What an older name stands for is not in this text.
        statement.uses.is_some() || statement.tables.iter().any(|table| table_meets_mask(table, view, catalogue))
    })
}

pub(super) fn table_meets_mask(named: &Table, view: &View, catalogue: &Catalogue) -> bool {
    if !view.masks_table(named.schema.as_deref(), &named.name) {
        return false;
    }
    let fits = |table: &&CatalogueTable| {
        table.name == named.name && named.schema.as_ref().is_none_or(|schema| *schema == table.schema)
    };
    let mut known = false;
    let masked = catalogue.tables.values().filter(fits).any(|table| {
        known = true;
        table.columns.values().any(|column| view.column_style(&table.schema, &table.name, column).is_some())
    });
    masked || !known
}

/// What is known of a text besides its bytes.
#[derive(Clone, Copy, Debug)]
struct Told {
    field: u8,
    /// The statement it is about reads masked data, or may.
    may_show: bool,
}

/// Errors and notices quote values: `Key (ssn)=(078-05-1120) already exists`, `invalid input syntax ...: "4111"`.
/// Under column masks, quoted parts are filled unless the message can quote names only. What a statement that reads
/// masked data says is believed less: text of its own (RAISE) is filled, and so is every number.
/// `message`: from the message's start on; `at`: the text in it.
fn mask_text(
    view: &View,
    told: Told,
    at: std::ops::Range<usize>,
    message: &mut [u8],
    cx: &Context<'_>,
) -> (u64, ValueAnswer) {
    let mut count = 0;
    if !view.column_masks.is_empty() && told.field != b'A' {
        let rest = FieldsBehind::of(&message[at.end..]);
        count += fill_told(told, rest, &mut message[at.clone()]);
    }
    let (found, answer) = find(view, &mut message[at], cx);
    (count + found, answer)
}

fn fill_told(told: Told, rest: FieldsBehind, bytes: &mut [u8]) -> u64 {
    let free_text = match told.field {
        // RAISE: whatever the code wanted to say.
        b'M' | b'D' | b'H' if rest.raised => true,
        // `line 1: ...` quotes the XML document.
        b'D' => bytes.starts_with(b"line "),
        // `JSON data, line 1: ...` quotes the document.
        b'W' => !CONTEXTS.iter().any(|start| bytes.starts_with(start)),
        _ => false,
    };
    if told.may_show && free_text {
        bytes.fill(b'*');
        return 1;
    }
    // With a position in the client's text it was said while that was analysed: nothing had been read.
    if rest.positioned || starts_with_one_of(bytes, &NAMES_FROM_THE_CATALOGUE) {
        return 0;
    }
    if !told.may_show {
        return if starts_with_one_of(bytes, &NAMES_ONLY) { 0 } else { fill_quoted(bytes) };
    }
    let mut count = fill_quoted(bytes);
    if told.field != b'W' {
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
    /// PL/pgSQL's RAISE said it: the routine's name, which no message can forge.
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
            found.raised |= *code == b'R' && text == b"exec_stmt_raise";
        }
        found
    }
}

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
const NAMES_ONLY: [&[u8]; 14] = [
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
];

fn starts_with_one_of(bytes: &[u8], starts: &[&[u8]]) -> bool {
    starts.iter().any(|start| bytes.starts_with(start))
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
        fill_told(Told { field: fields[0].0, may_show }, FieldsBehind::of(&rest), &mut text);
        String::from_utf8(text).expect("stars are text")
    }

    #[test]
    fn what_a_statement_over_masked_data_says_shows_none_of_it() {
        let cast = [(b'M', "relation \"078-05-1120\" does not exist"), (b'R', "RangeVarGetRelidExtended")];
        assert_eq!(told(true, &cast), "relation \"***********\" does not exist");
        let raised = [(b'M', "column 078/05/1120"), (b'F', "pl_exec.c"), (b'R', "exec_stmt_raise")];
        assert_eq!(told(true, &raised), "******************");
        let number = [(b'M', "large object 78051120 does not exist"), (b'R', "inv_open")];
        assert_eq!(told(true, &number), "large object ******** does not exist");
        let json = [(b'W', "JSON data, line 1: 078/...")];
        assert_eq!(told(true, &json), "**************************");
    }

    #[test]
    fn names_of_the_clients_own_text_stay_readable() {
        let analysed = [(b'M', "column \"nmae\" does not exist"), (b'P', "8"), (b'R', "errorMissingColumn")];
        assert_eq!(told(true, &analysed), analysed[0].1);
        let dropped = [(b'M', "table \"nothing\" does not exist"), (b'R', "DropErrorMsgNonExistent")];
        assert_eq!(told(false, &dropped), dropped[0].1);
    }

    #[test]
    fn every_treatment_survives_its_code() {
        for treatment in [Style::Last4, Style::Fill, Style::Null, Style::Token]
            .map(Treatment::Whole)
            .into_iter()
            .chain([Treatment::Detect])
        {
            assert_eq!(Treatment::of(treatment.code()), treatment);
            assert_ne!(treatment.code(), 0, "0 means: passes");
        }
    }
}
