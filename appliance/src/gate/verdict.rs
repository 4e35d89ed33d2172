//! What a request means, and what is to become of it.

use super::cursors::{declares, forgets_cursors, loosens};
use super::meaning::{self, Leaning, Mark, Marked, Meaning, Reads, Touched};
use super::reading::Asked;
use super::{Context, Gate, login, masked};
use crate::policy::{Action, Decision, View};
use crate::shard::mailbox::Catalogue;
use codecs::Pipes;
use codecs::postgres::RequestKind;
use masking::sql::{Class, Named, Statement};
use std::rc::Rc;

impl Gate {
    /// Meaning and verdict of a request. `None`: its text has to be read first, and not here.
    pub(super) fn mark(&mut self, asked: &Asked, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Option<Mark> {
        let mark = self.mark_unasked(asked, pipes, cx)?;
        if mark.leaning != Leaning::Unasked {
            return Some(mark);
        }
        let Some(known) = cx.shared.catalogues.fresh(self.slot, cx.now.unix_us) else { return Some(mark) };
        let view = self.view.as_ref().expect("statements come after the login");
        Some(self.judge(mark.meaning.clone(), asked.request.kind, view, Some(known)))
    }

    /// The same where the catalogue is not asked.
    pub(super) fn mark_unasked(&mut self, asked: &Asked, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Option<Mark> {
        let view = self.view.clone().expect("statements come after the login");
        let request = &asked.request;
        Some(match request.kind {
            RequestKind::Query | RequestKind::Parse => return self.mark_text(asked, &view, pipes, cx),
            RequestKind::Execute { .. } => match self.session.requested().cloned() {
                Some(mark) if self.still_holds(&mark) => mark,
                Some(mark) => self.judge(mark.meaning.clone(), request.kind, &view, None),
                None => self.unknown(pipes.client.at(request.text), &view),
            },
            RequestKind::FunctionCall { function } => self.function_call(function, &view),
        })
    }

    fn mark_text(&mut self, asked: &Asked, view: &View, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Option<Mark> {
        let (kind, text) = (asked.request.kind, pipes.client.at(asked.request.text));
        let how = self.how(&asked.request);
        if how.is_default()
            && let Some(mut recent) = self.recent.take()
        {
            let recalled = cx.shared.recall(text, &mut recent, |mark| self.still_holds(mark));
            self.recent = Some(recent);
            if recalled.is_some() {
                return recalled;
            }
        }
        let meaning = match asked.meaning(how) {
            Some(read) => read,
            None => cx.shared.meaning(text, how)?,
        };
        if how.in_doubt {
            return Some(self.judge(meaning, kind, view, None));
        }
        if let Some(mark) = self.recent.as_ref().and_then(|recent| recent.find(&meaning))
            && self.still_holds(mark)
        {
            return Some(mark.clone());
        }
        let mark = self.judge(meaning, kind, view, None);
        if self.still_holds(&mark) {
            self.recent.get_or_insert_default().keep(mark.clone());
        }
        Some(mark)
    }

    /// What was decided when the text came, or was prepared, is what would be decided now.
    fn still_holds(&self, mark: &Marked) -> bool {
        let decided = !self.is_outdated(mark) && mark.leaning == Leaning::No;
        decided && !hangs_on_names(&mark.meaning) && !self.portal_waits(true)
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
        let mut here = Here { alone: meaning.analysis.statements.len() == 1, ..Here::default() };
        for statement in &meaning.analysis.statements {
            decision = weigh(statement).into_iter().fold(decision, Decision::stricter);
            match &statement.uses {
                Some(Named::Prepared(name)) => match self.session.prepared(name.as_bytes()) {
                    Some(used) => {
                        touched.add(used);
                        decision = decision.stricter(self.decided(used, view));
                        if (statement.stores || masked::writes_from_variables(statement)) && used.reads != Reads::Open {
                            // CREATE TABLE ... AS EXECUTE
                            decision = decision.stricter(masked::denied(masked::STORED));
                        }
                        if used.leaning != Leaning::No || self.is_outdated(used) {
                            let again = used.meaning.analysis.statements.iter().filter_map(&mut weigh);
                            decision = again.fold(decision, Decision::stricter);
                        }
                        reads = reads.max(used.reads);
                    }
                    // Parse of EXECUTE: what the name stands for is looked up when it runs.
                    None if kind == RequestKind::Parse => reads = unknown_reads(view),
                    None => {
                        decision = decision.stricter(view.decide_unknown());
                        if statement.stores && !view.column_masks.is_empty() {
                            decision = decision.stricter(masked::denied(masked::STORED));
                        }
                        reads = unknown_reads(view);
                    }
                },
                Some(Named::Cursor(name)) => {
                    let (ruled, shows) = self.fetched(Some(name), &here, view, &mut touched);
                    decision = ruled.into_iter().fold(decision, Decision::stricter);
                    reads = reads.max(shows);
                }
                None => {}
            }
            here.pass(statement, &meaning);
        }
        for name in &meaning.cursors.positions {
            let (ruled, _) = self.fetched(name.as_deref(), &here, view, &mut touched);
            decision = ruled.into_iter().fold(decision, Decision::stricter);
        }
        // Read otherwise: what a name in it would stand for is nobody's guess.
        for statement in meaning.other_statements() {
            decision = weigh(statement).into_iter().fold(decision, Decision::stricter);
            if statement.uses.is_some() {
                decision = decision.stricter(view.decide_unknown());
            }
        }
        if self.may_run_another(&meaning, kind, view) {
            decision = decision.stricter(view.decide_unknown());
        }
        Marked::new(meaning, decision, self.rules, reads, leaning).behind(touched)
    }

    /// The rules have changed since the verdict on it.
    fn is_outdated(&self, mark: &Marked) -> bool {
        mark.version != self.rules
    }

    /// The verdict on what a name stands for, under the rules of now.
    fn decided(&self, used: &Marked, view: &View) -> Decision {
        if !self.is_outdated(used) {
            return used.decision.clone();
        }
        let now = by_rules(&used.meaning, view);
        if hangs_on_names(&used.meaning) { now.stricter(view.decide_unknown()) } else { now }
    }

    /// The verdict on what was let go on under older rules, if those of now are stricter with it. (What was asked about then is not asked
    /// about again.)
    fn tightened(&self, used: &Marked, view: &View) -> Option<Decision> {
        if !self.is_outdated(used) {
            return None;
        }
        // A cursor reads what it was declared for, whatever else that text did.
        let now = if used.meaning.analysis.statements.iter().any(declares) {
            by_rules(&used.meaning, view)
        } else {
            self.decided(used, view)
        };
        (now.action > used.decision.action).then_some(now)
    }

    /// FETCH, MOVE and WHERE CURRENT OF: what the rules of now say of what the cursor or portal of that name may be, and what its rows may
    /// show. `None` for a name: one that the text does not tell.
    fn fetched(
        &self,
        name: Option<&str>,
        here: &Here<'_>,
        view: &View,
        touched: &mut Touched,
    ) -> (Option<Decision>, Reads) {
        let bound = name.and_then(|name| self.session.bound(name.as_bytes()));
        let cursors = name.map_or(&[][..], |name| self.cursors.marks(name));
        bound.into_iter().chain(cursors).for_each(|used| touched.add(used));
        let declared = cursors.last().filter(|_| name.is_some_and(|name| self.cursors.is_sure(name)));
        let known = !here.loose && (bound.is_some() || declared.is_some());
        let known = known || name.is_some_and(|name| here.declared.contains(&name));
        // A portal runs when it is fetched from.
        let runs = bound.map(|bound| self.decided(bound, view));
        let reads = cursors.iter().filter_map(|cursor| self.tightened(cursor, view));
        let unknown = !known && (self.portals_named > 0 || self.cursors.in_doubt(self.rules));
        let unknown = unknown.then(|| view.decide_unknown());
        // Among other statements the name may stand for something else by the time it is used.
        let shown = declared.or(bound).filter(|_| here.alone);
        let shows = shown.map_or_else(|| unknown_reads(view), |used| used.reads);
        (runs.into_iter().chain(reads).chain(unknown).reduce(Decision::stricter), shows)
    }

    /// It may run what no rule has let run: a body can use any name, whatever runs while a portal waits that needs a ruling can fetch
    /// from it, and what reads cursors whose names no text tells can read those that the rules of now would refuse.
    fn may_run_another(&self, meaning: &Meaning, kind: RequestKind, view: &View) -> bool {
        let waits = kind != RequestKind::Parse && self.portal_waits(matches!(kind, RequestKind::Execute { .. }));
        let harmless = |statement: &Statement| {
            const HARMLESS: [Class; 4] = [Class::Transaction, Class::Set, Class::Show, Class::Listen];
            statement.classes.iter().all(|class| HARMLESS.contains(&class))
        };
        let refused = || {
            let portals = self.session.named_portals().filter_map(|(_, bound)| bound);
            self.cursors.in_doubt(self.rules)
                || self.cursors.all().chain(portals).any(|used| self.tightened(used, view).is_some())
        };
        let fetches = |statement: &Statement| (statement.cursors_inside || statement.opaque) && refused();
        let runs =
            |statement: &Statement| statement.names_inside || waits && !harmless(statement) || fetches(statement);
        meaning.statements().any(runs)
    }

    /// A portal has been bound that needs a ruling, or that nobody knows; or the rules of now would not let it begin.
    fn portal_waits(&self, unnamed: bool) -> bool {
        let view = self.view.as_ref().expect("statements come after the login");
        let restricted = |(bound, begun): (Option<&Mark>, bool)| match bound {
            Some(mark) if begun => self.tightened(mark, view).is_some(),
            Some(mark) => self.decided(mark, view).action >= Action::Approve,
            None => !begun || self.cursors.in_doubt(self.rules),
        };
        self.session.portals_named() > 0 && self.session.waiting_portals(unnamed).any(restricted)
    }

    /// Execute of a portal that no Bind made where this gateway saw it. One that SQL has declared is told as that cursor.
    fn unknown(&self, portal: &[u8], view: &View) -> Mark {
        let cursors = std::str::from_utf8(portal).map_or(&[][..], |name| self.cursors.marks(name));
        let text = cursors.last().map_or(&b""[..], |cursor| &cursor.meaning.text);
        let mut touched = Touched::default();
        cursors.iter().for_each(|cursor| touched.add(cursor));
        self.synthetic(text, Class::Execute, view.decide_unknown(), view).behind(touched)
    }

    fn function_call(&self, function: u32, view: &View) -> Mark {
        // As in the server's own log.
        let text = format!("fastpath function call: OID {function}");
        let mut decision = view.decide_function_call();
        if login::masks_anything(view) {
            // Its result is bytes of which nobody says what they are.
            decision = decision.stricter(masked::denied("what a FunctionCall returns cannot be masked: use SELECT"));
        }
        self.synthetic(text.as_bytes(), Class::FunctionCall, decision, view)
    }

    fn synthetic(&self, text: &[u8], class: Class, decision: Decision, view: &View) -> Mark {
        let mut statement = Statement::default();
        statement.classes.insert(class);
        let meaning = Rc::new(Meaning::unread(text, statement));
        Marked::new(meaning, decision, self.rules, unknown_reads(view), Leaning::No)
    }
}

/// What the statements before this one in the same text have done to cursors.
#[derive(Default)]
struct Here<'a> {
    alone: bool,
    declared: Vec<&'a str>,
    /// What was known of cursors before this text may hold no longer.
    loose: bool,
}

impl<'a> Here<'a> {
    fn pass(&mut self, statement: &'a Statement, meaning: &Meaning) {
        if loosens(statement, &meaning.cursors) || forgets_cursors(statement) {
            self.loose = true;
            self.declared.clear();
        }
        if let Some(Named::Cursor(name)) = &statement.defines {
            self.declared.push(name);
        }
    }
}

/// What the rules say of a text, however the target reads it.
fn by_rules(meaning: &Meaning, view: &View) -> Decision {
    let decided = meaning.readings().map(|reading| view.decide(reading));
    decided.reduce(Decision::stricter).expect("there is a reading")
}

pub(super) fn uses_names(meaning: &Meaning) -> bool {
    meaning.analysis.statements.iter().any(|statement| statement.uses.is_some())
}

/// What it reads or runs hangs on names, some of which no text may tell.
fn hangs_on_names(meaning: &Meaning) -> bool {
    let inside = |statement: &Statement| statement.names_inside || statement.cursors_inside;
    uses_names(meaning) || meaning.statements().any(inside) || !meaning.cursors.positions.is_empty()
}

fn unknown_reads(view: &View) -> Reads {
    if view.column_masks.is_empty() { Reads::Open } else { Reads::Unknown }
}
