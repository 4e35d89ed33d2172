//! What a request means, and what is to become of it.

use super::meaning::{self, Leaning, Mark, Marked, Meaning, Reads, Touched};
use super::{Context, Gate, login, masked};
use crate::policy::{Action, Decision, View};
use crate::shard::mailbox::Catalogue;
use codecs::Pipes;
use codecs::postgres::{Request, RequestKind};
use masking::sql::{Class, Named, Statement};
use std::rc::Rc;

impl Gate {
    /// Meaning and verdict of a request.
    pub(super) fn mark(&mut self, request: &Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Mark {
        let mark = self.mark_by(request, None, pipes, cx);
        if mark.leaning != Leaning::Unasked {
            return mark;
        }
        match cx.shared.catalogues.fresh(self.slot, cx.now.unix_us).cloned() {
            Some(known) => self.mark_by(request, Some(&known), pipes, cx),
            None => mark,
        }
    }

    pub(super) fn mark_by(
        &mut self,
        request: &Request,
        known: Option<&Catalogue>,
        pipes: &mut Pipes<'_>,
        cx: &mut Context<'_>,
    ) -> Mark {
        let view = self.view.clone().expect("statements come after the login");
        match request.kind {
            RequestKind::Query | RequestKind::Parse => {
                let text = pipes.client.at(request.text);
                if request.settings_in_doubt {
                    let meaning = cx.shared.meaning_in_doubt(text, self.encoding, self.standard_conforming_strings);
                    return self.judge(meaning, request.kind, &view, known);
                }
                if self.reads_by_default()
                    && let Some(recent) = &self.recent
                    && let Some(mark) = cx.shared.recall(text, recent, |mark| self.still_holds(mark))
                {
                    return mark;
                }
                let meaning = cx.shared.meaning(text, self.encoding, self.standard_conforming_strings);
                if let Some(mark) = self.recent.as_ref().and_then(|recent| recent.find(&meaning))
                    && self.still_holds(mark)
                {
                    return mark.clone();
                }
                let mark = self.judge(meaning, request.kind, &view, known);
                if self.still_holds(&mark) {
                    self.recent.get_or_insert_default().keep(mark.clone());
                }
                mark
            }
            RequestKind::Execute { .. } => match self.session.requested().cloned() {
                Some(mark) if self.still_holds(&mark) => mark,
                Some(mark) => self.judge(mark.meaning.clone(), request.kind, &view, known),
                None => self.unknown(pipes.client.at(request.text), &view),
            },
            RequestKind::FunctionCall { function } => self.function_call(function, &view),
        }
    }

    /// What was decided when the text came, or was prepared, is what would be decided now.
    fn still_holds(&self, mark: &Marked) -> bool {
        let decided = mark.version == self.snapshot_version && mark.leaning == Leaning::No;
        decided && !uses_names(&mark.meaning) && !self.portal_waits(true)
    }

    /// Texts are read under the settings that PostgreSQL has by default.
    fn reads_by_default(&self) -> bool {
        self.standard_conforming_strings && self.encoding == meaning::Encoding::Utf8
    }

    fn judge(&self, meaning: Rc<Meaning>, kind: RequestKind, view: &View, known: Option<&Catalogue>) -> Mark {
        let mut decision = by_rules(&meaning, view);
        let mut reads = meaning.readings().map(|reading| meaning::reads(reading, view)).max().expect("there is one");
        // What a rule refuses anyway needs no catalogue.
        let ruled = decision.action == Action::Deny;
        let mut leaning = Leaning::No;
        let mut touched = Touched::default();
        let mut weigh = |statement: &Statement| {
            let (refused, leans) = masked::refused(statement, view, known);
            leaning = leaning.max(if ruled { Leaning::No } else { leans });
            refused
        };
        for statement in &meaning.analysis.statements {
            decision = weigh(statement).into_iter().fold(decision, stricter);
            match &statement.uses {
                Some(Named::Prepared(name)) => match self.session.prepared(name.as_bytes()) {
                    Some(used) => {
                        touched.add(used);
                        decision = stricter(decision, self.decided(used, view));
                        if (statement.stores || masked::writes_from_variables(statement)) && used.reads != Reads::Open {
                            // CREATE TABLE ... AS EXECUTE
                            decision = stricter(decision, masked::denied(masked::STORED));
                        }
                        if used.leaning != Leaning::No || self.is_outdated(used) {
                            let again = used.meaning.analysis.statements.iter().filter_map(&mut weigh);
                            decision = again.fold(decision, stricter);
                        }
                        reads = reads.max(used.reads);
                    }
                    // Parse of EXECUTE: what the name stands for is looked up when it runs.
                    None if kind == RequestKind::Parse => reads = unknown_reads(view),
                    None => {
                        decision = stricter(decision, view.decide_unknown());
                        if statement.stores && !view.column_masks.is_empty() {
                            decision = stricter(decision, masked::denied(masked::STORED));
                        }
                        reads = unknown_reads(view);
                    }
                },
                // Among other statements the name may stand for something else by the time it is used.
                Some(Named::Cursor(_)) if meaning.analysis.statements.len() > 1 => reads = unknown_reads(view),
                Some(Named::Cursor(name)) => {
                    // A portal runs when it is fetched from.
                    let bound = self.session.bound(name.as_bytes());
                    decision =
                        bound.iter().fold(decision, |decision, bound| stricter(decision, self.decided(bound, view)));
                    let declared = self.cursors.get(name);
                    // What was asked about when it was declared is not asked about again.
                    let tightened = declared.filter(|cursor| self.is_outdated(cursor)).and_then(|cursor| {
                        Some(self.decided(cursor, view)).filter(|now| now.action > cursor.decision.action)
                    });
                    decision = tightened.into_iter().fold(decision, stricter);
                    let used = declared.or(bound);
                    used.into_iter().for_each(|used| touched.add(used));
                    reads = reads.max(used.map_or_else(|| unknown_reads(view), |used| used.reads));
                    if used.is_none() && self.portals_named > 0 {
                        decision = stricter(decision, view.decide_unknown());
                    }
                }
                None => {}
            }
        }
        // Read otherwise: what a name in it would stand for is nobody's guess.
        for statement in meaning.readings().skip(1).flat_map(|reading| &reading.statements) {
            decision = weigh(statement).into_iter().fold(decision, stricter);
            if statement.uses.is_some() {
                decision = stricter(decision, view.decide_unknown());
            }
        }
        if self.may_run_another(&meaning, kind) {
            decision = stricter(decision, view.decide_unknown());
        }
        Marked::new(meaning, decision, self.snapshot_version, reads, leaning).behind(touched)
    }

    /// The rules have changed since the verdict on it.
    fn is_outdated(&self, mark: &Marked) -> bool {
        mark.version != self.snapshot_version
    }

    /// The verdict on what a name stands for, under the rules of now.
    fn decided(&self, used: &Marked, view: &View) -> Decision {
        if !self.is_outdated(used) {
            return used.decision.clone();
        }
        let now = by_rules(&used.meaning, view);
        if uses_names(&used.meaning) { stricter(now, view.decide_unknown()) } else { now }
    }

    /// It may run what no rule has let run: a body can use any name, and whatever runs while a portal waits that needs a ruling can fetch
    /// from it.
    fn may_run_another(&self, meaning: &Meaning, kind: RequestKind) -> bool {
        let waits = kind != RequestKind::Parse && self.portal_waits(matches!(kind, RequestKind::Execute { .. }));
        let harmless = |statement: &Statement| {
            const HARMLESS: [Class; 4] = [Class::Transaction, Class::Set, Class::Show, Class::Listen];
            statement.classes.iter().all(|class| HARMLESS.contains(&class))
        };
        let runs = |statement: &Statement| statement.names_inside || waits && !harmless(statement);
        meaning.analysis.statements.iter().any(runs)
    }

    /// A portal has been bound that needs a ruling, or that nobody knows.
    fn portal_waits(&self, unnamed: bool) -> bool {
        let view = self.view.as_ref().expect("statements come after the login");
        let restricted =
            |bound: Option<&Mark>| bound.is_none_or(|mark| self.decided(mark, view).action >= Action::Approve);
        self.session.portals_named() > 0 && self.session.waiting_portals(unnamed).any(restricted)
    }

    /// Execute of a portal that no Bind made where this gateway saw it. One that SQL has declared is told as that cursor.
    fn unknown(&self, portal: &[u8], view: &View) -> Mark {
        let cursor = std::str::from_utf8(portal).ok().and_then(|name| self.cursors.get(name));
        let text = cursor.map_or(&b""[..], |cursor| &cursor.meaning.text);
        let mut touched = Touched::default();
        cursor.into_iter().for_each(|cursor| touched.add(cursor));
        self.synthetic(text, Class::Execute, view.decide_unknown(), view).behind(touched)
    }

    fn function_call(&self, function: u32, view: &View) -> Mark {
        // As in the server's own log.
        let text = format!("fastpath function call: OID {function}");
        let mut decision = view.decide_function_call();
        if login::masks_anything(view) {
            // Its result is bytes of which nobody says what they are.
            decision = stricter(decision, masked::denied("what a FunctionCall returns cannot be masked: use SELECT"));
        }
        self.synthetic(text.as_bytes(), Class::FunctionCall, decision, view)
    }

    fn synthetic(&self, text: &[u8], class: Class, decision: Decision, view: &View) -> Mark {
        let mut statement = Statement::default();
        statement.classes.insert(class);
        let meaning = Rc::new(Meaning::unread(text, statement));
        Marked::new(meaning, decision, self.snapshot_version, unknown_reads(view), Leaning::No)
    }
}

/// What the rules say of a text, however the target reads it.
pub(super) fn by_rules(meaning: &Meaning, view: &View) -> Decision {
    let decided = meaning.readings().map(|reading| view.decide(reading));
    decided.reduce(stricter).expect("there is a reading")
}

pub(super) fn uses_names(meaning: &Meaning) -> bool {
    meaning.analysis.statements.iter().any(|statement| statement.uses.is_some())
}

fn unknown_reads(view: &View) -> Reads {
    if view.column_masks.is_empty() { Reads::Open } else { Reads::Unknown }
}

/// The stricter of two verdicts; the first when they are alike.
fn stricter(one: Decision, other: Decision) -> Decision {
    if other.action > one.action { other } else { one }
}
