//! What comes back: which columns are watched, and how a statement ended. (What becomes of a watched value: `values.rs`.)

use super::meaning::{Mark, Marked, Planned, Reads};
use super::reading::Encoding;
use super::values::{Nature, Treatment, nature};
use super::{Context, Gate, Retry, free, refusal};
use crate::audit::{self, Entry};
use crate::policy::View;
use crate::shard::mailbox::{Catalogue, CatalogueTable, ToControl};
use codecs::postgres::{Answer, Column, ColumnPlan, End, Outcome, ShapeKind, TransactionStatus};
use codecs::{Pipes, Side};
use masking::sql::{Statement, Table};
use std::sync::Arc;

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
            shard: self.shard as usize,
            relay: self.relay,
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
            Some(mark) if mark.reads == Reads::Masked && !meets_mask(mark, view, catalogue) => Reads::Open,
            Some(mark) => mark.reads,
            None => Reads::Unknown,
        };
        let columns = self.session.columns();
        // Read otherwise its outputs may be others.
        let told = |mark: &&Mark| reads == Reads::Masked && !mark.meaning.has_another_reading();
        let executing = self.session.executing().filter(told);
        let free = executing.and_then(|mark| free::outputs(&mark.meaning.analysis, view, catalogue));
        let free = free.filter(|free| free.len() == columns.len()).unwrap_or_default();
        plan(columns.iter().enumerate().map(|(at, column)| {
            let treatment = match origin(column, catalogue) {
                Origin::Known { schema, table, column } => {
                    view.column_style(schema, table, column).map(Treatment::Whole)
                }
                Origin::Expression if reads == Reads::Open || free.get(at) == Some(&true) => None,
                Origin::Unknown | Origin::Expression => Some(Treatment::Hidden),
            };
            match treatment {
                Some(treatment) => treatment.code(),
                None if view.detect.is_some() => detect_code(column),
                None => 0,
            }
        }))
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
            // What it had sent by then was read.
            End::Error { sqlstate } => (outcome.sent, std::str::from_utf8(sqlstate).unwrap_or("XX000")),
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
            self.retry_target = Some(Box::new(Retry::Outcome(outcome)));
            return;
        }
        self.session.forget_response();
        if let Some(held) = &mut self.held
            && error == "57014"
        {
            held.cancelled = false;
        }
        if outcome.last {
            let open = self.open.remove(position).expect("its position was just found");
            cx.shared.counters.statement_duration.observe_ns(duration_us * 1_000);
            if open.mark.meaning.changes_catalogue() {
                self.names_moved(cx);
            }
            if matches!(outcome.end, End::Complete { .. }) {
                self.look_at_portals();
                self.cursors.learn(&open.mark, open.cursors_touched);
            }
        } else {
            self.open[position].masked = 0;
        }
    }

    /// ReadyForQuery: outside a transaction, what was changed in it is there for everybody.
    pub(super) fn ready(&mut self, status: TransactionStatus, cx: &mut Context<'_>) {
        self.encodings.ready(self.open.iter().map(|open| &open.mark));
        if self.ddl_open && status == TransactionStatus::Idle {
            self.names_moved(cx);
            self.ddl_open = self.open.iter().any(|open| open.mark.meaning.changes_catalogue());
        }
        if status == TransactionStatus::Idle && self.open.is_empty() {
            self.cursors.end_transaction();
        }
    }

    /// Names may stand for other tables than they did: for this shard at once, for the others as soon as they hear of it.
    pub(super) fn names_moved(&mut self, cx: &mut Context<'_>) {
        self.session.plans_hold(0);
        let news = cx.shared.catalogues.moved(self.slot, self.shard as usize, cx.now.unix_us);
        cx.control.extend(news);
    }

    pub(super) fn setting(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.standard_conforming_strings = value == b"on",
            b"client_encoding" => self.encodings.told = Encoding::named(value),
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

/// Do the tables that a text names have a masked column, now that their columns are known? A pattern like `*.ssn` names
/// every table, few have the column.
fn meets_mask(mark: &Marked, view: &View, catalogue: &Catalogue) -> bool {
    let names = |statement: &Statement| {
        // Each is looked for in the whole catalogue.
        statement.tables.len() > TABLES_MAX
            || statement.tables.iter().any(|table| table_meets_mask(table, view, catalogue))
    };
    let uses = |statement: &Statement| statement.uses.is_some();
    let own = || mark.meaning.statements();
    let behind = mark.behind_names();
    // What a name stands for is not in this text; it was told, unless that was not known or is another name.
    let untold = own().any(uses) && (own().count() != 1 || behind.len() != 1);
    let other = || behind.iter().flat_map(|meaning| meaning.statements());
    untold || other().any(uses) || own().chain(other()).any(names)
}

/// Tables that one statement is believed to have no masked column in.
const TABLES_MAX: usize = 1_000;

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
