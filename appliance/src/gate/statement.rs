//! One statement on its way to the target: decided, recorded, then forwarded, refused or held for a person.

use super::binds::Showing;
use super::meaning::{self, Leaning, Mark, Marked, Meaning, Reads};
use super::{Context, Gate, Now, OpenRequest, Retry, State, login, masked, refusal};
use crate::approval::{Ruling, TicketId};
use crate::audit::{self, Entry, Full};
use crate::limits;
use crate::policy::{Action, ApprovalTerms, Decision, View};
use crate::shard::mailbox::{Catalogue, ToControl};
use crate::snapshot::Snapshot;
use codecs::postgres::{Answer, Refusal, Request, RequestKind};
use codecs::{Pipes, Side};
use masking::sql::{Class, Named, Statement};
use masking::style::{Style, TokenKey, mask_findings};
use smallvec::SmallVec;
use std::rc::Rc;

/// Something that waits for a ruling.
pub(super) struct Held {
    pub ticket: TicketId,
    pub request: u64,
    pub what: Waiting,
    /// Its end is in the trail.
    pub recorded: bool,
}

pub(super) enum Waiting {
    /// The session's opening.
    Access,
    /// A statement: its bytes are still undecided in the client's window.
    Statement { request: Request, mark: Mark, digest: [u8; 32] },
}

impl Held {
    pub fn access(ticket: TicketId) -> Self {
        Self { ticket, request: 0, what: Waiting::Access, recorded: false }
    }
}

/// Tells the person at the client that somebody has to say yes, and where.
pub(super) fn waiting_notice(ticket: &TicketId, terms: &ApprovalTerms) -> Refusal {
    refusal(
        b"00000",
        &format!("waiting for approval by {}: ticket {ticket}", terms.approvers.join(" or ")),
        None,
        Some(&format!("a reviewer rules with: lockgate approvals approve {ticket}")),
    )
}

/// What a session's identity is worth when a statement begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Good,
    /// The token has expired, or the grant's time is over.
    Over,
    /// The configuration has changed: grant and rules are looked up again.
    Stale,
}

impl Gate {
    /// The identity check of every statement: signature and claims were checked at the login, and the token's end became
    /// a deadline there.
    #[inline]
    pub fn standing(&self, now: Now, snapshot: &Snapshot) -> Standing {
        if self.ends_at_us.is_some_and(|end| now.mono_us >= end) {
            Standing::Over
        } else if snapshot.version != self.snapshot_version {
            Standing::Stale
        } else {
            Standing::Good
        }
    }

    pub(super) fn request(&mut self, request: Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match self.standing(cx.now, cx.snapshot) {
            Standing::Good => {}
            Standing::Over => {
                // No statement starts after the token's end: it is answered like one that arrived to find it over.
                let over =
                    refusal(b"57P01", "the identity token has expired", None, Some("connect again with a fresh token"));
                return self.end("the session's time is over", &over, pipes);
            }
            Standing::Stale if self.renew_view(pipes, cx) => {}
            Standing::Stale => return,
        }
        let mark = self.mark(&request, pipes, cx);
        if mark.leaning == Leaning::Unasked {
            return self.ask_about_tables(request, pipes, cx);
        }
        self.carry_out(request, mark, pipes, cx);
    }

    fn carry_out(&mut self, request: Request, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match mark.decision.action {
            Action::Deny => self.deny(request, &mark, pipes, cx),
            // Preparing runs nothing: the hold comes at Execute, with the values it will run with.
            Action::Approve if request.kind == RequestKind::Parse => self.forward(request, mark, pipes, cx),
            Action::Approve if matches!(request.kind, RequestKind::Execute { resumed: true }) => {
                self.forward(request, mark, pipes, cx)
            }
            Action::Approve => self.hold(request, mark, pipes, cx),
            Action::Allow | Action::Alert => self.forward(request, mark, pipes, cx),
        }
    }

    /// A mask refuses this statement unless its tables have no masked column: the catalogue tells, when it has been read.
    fn ask_about_tables(&mut self, request: Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.asking = Some(request);
        self.want_catalogue(cx);
    }

    /// Decides the request that waits for a catalogue, which has been read or cannot be: then it is refused.
    pub(super) fn answer_asking(&mut self, was_read: bool, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let Some(request) = self.asking.take() else { return };
        if was_read {
            // As if it came now: time has passed, and names may have moved since the reading.
            return self.request(request, pipes, cx);
        }
        let mark = blind(&self.mark_by(&request, None, pipes, cx));
        self.deny(request, &mark, pipes, cx);
    }

    /// The configuration changed: what may this session do now? `false`: the session ends here.
    fn renew_view(&mut self, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> bool {
        let principal = self.principal.as_ref().expect("statements come after the login");
        let old = self.view.as_ref().expect("statements come after the login");
        let Some(new) = cx.snapshot.policy.view(&self.identity.target, principal) else {
            let gone = refusal(b"57P01", "the grant for this target was withdrawn", None, None);
            self.end("the grant was withdrawn", &gone, pipes);
            return false;
        };
        // Column plans were made under the old masks and live with prepared statements: a session that would need
        // new ones starts again.
        if !same_masks(&new, old) {
            let changed = refusal(b"57P01", "the masking rules for this session changed", None, Some("connect again"));
            self.end("the masks changed", &changed, pipes);
            return false;
        }
        self.view = Some(Rc::new(new));
        self.snapshot_version = cx.snapshot.version;
        true
    }

    /// Meaning and verdict of a request.
    fn mark(&mut self, request: &Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Mark {
        let mark = self.mark_by(request, None, pipes, cx);
        if mark.leaning != Leaning::Unasked {
            return mark;
        }
        match cx.shared.catalogues.fresh(self.slot, cx.now.unix_us).cloned() {
            Some(known) => self.mark_by(request, Some(&known), pipes, cx),
            None => mark,
        }
    }

    fn mark_by(
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
                if self.reads_by_default()
                    && let Some(mark) = cx.shared.recall(text, &self.recent, |mark| self.still_holds(mark))
                {
                    return mark;
                }
                let meaning = cx.shared.meaning(text, self.encoding, self.standard_conforming_strings);
                if let Some(mark) = self.recent.find(&meaning)
                    && self.still_holds(mark)
                {
                    return mark.clone();
                }
                let mark = self.judge(meaning, request.kind, &view, known);
                if self.still_holds(&mark) {
                    self.recent.keep(mark.clone());
                }
                mark
            }
            RequestKind::Execute { .. } => match self.session.requested().cloned() {
                Some(mark) if self.still_holds(&mark) => mark,
                Some(mark) => self.judge(mark.meaning.clone(), request.kind, &view, known),
                None => self.unknown(&view),
            },
            RequestKind::FunctionCall { .. } => self.function_call(&view),
        }
    }

    /// What was decided when the text came, or was prepared, is what would be decided now.
    fn still_holds(&self, mark: &Marked) -> bool {
        mark.version == self.snapshot_version && !uses_names(&mark.meaning) && mark.leaning == Leaning::No
    }

    /// Texts are read under the settings that PostgreSQL has by default.
    fn reads_by_default(&self) -> bool {
        self.standard_conforming_strings && self.encoding == meaning::Encoding::Utf8
    }

    fn judge(&self, meaning: Rc<Meaning>, kind: RequestKind, view: &View, known: Option<&Catalogue>) -> Mark {
        let mut decision = view.decide(&meaning.analysis);
        let mut reads = meaning::reads(&meaning.analysis, view);
        // What a rule refuses anyway needs no catalogue.
        let ruled = decision.action == Action::Deny;
        let mut leaning = Leaning::No;
        for statement in &meaning.analysis.statements {
            let mut weigh = |statement: &Statement| {
                let (refused, leans) = masked::refused(statement, view, known);
                leaning = leaning.max(if ruled { Leaning::No } else { leans });
                refused
            };
            decision = weigh(statement).into_iter().fold(decision, stricter);
            match &statement.uses {
                Some(Named::Prepared(name)) => match self.session.prepared(name.as_bytes()) {
                    Some(used) => {
                        decision = stricter(decision, used.decision.clone());
                        if statement.stores && used.reads != Reads::Open {
                            // CREATE TABLE ... AS EXECUTE
                            decision = stricter(decision, masked::denied(masked::STORED));
                        }
                        if used.leaning != Leaning::No {
                            let again = used.meaning.analysis.statements.iter().filter_map(weigh);
                            decision = again.fold(decision, stricter);
                        }
                        reads = reads.max(used.reads);
                    }
                    // Parse of EXECUTE: what the name stands for is looked up when it runs.
                    None if kind == RequestKind::Parse => reads = unknown_reads(view),
                    None => {
                        decision = stricter(decision, view.decide_unknown());
                        reads = unknown_reads(view);
                    }
                },
                // Among other statements the name may stand for something else by the time it is used.
                Some(Named::Cursor(_)) if meaning.analysis.statements.len() > 1 => reads = unknown_reads(view),
                Some(Named::Cursor(name)) => {
                    reads = reads.max(self.cursors.get(name).map_or_else(|| unknown_reads(view), |used| used.reads));
                }
                None => {}
            }
        }
        Marked::new(meaning, decision, self.snapshot_version, reads, leaning)
    }

    /// Execute of a statement this gateway has not seen the text of.
    fn unknown(&self, view: &View) -> Mark {
        let mut statement = Statement::default();
        statement.classes.insert(Class::Execute);
        self.synthetic(statement, view.decide_unknown(), view)
    }

    fn function_call(&self, view: &View) -> Mark {
        let mut statement = Statement::default();
        statement.classes.insert(Class::FunctionCall);
        self.synthetic(statement, view.decide_function_call(), view)
    }

    fn synthetic(&self, statement: Statement, decision: Decision, view: &View) -> Mark {
        let meaning = Rc::new(Meaning::without_text(statement));
        Marked::new(meaning, decision, self.snapshot_version, unknown_reads(view), Leaning::No)
    }

    fn deny(&mut self, request: Request, mark: &Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.record_request(&request, mark, "deny", "", pipes, cx).is_err() {
            return self.wait_for_room(request, pipes);
        }
        cx.shared.counters.statement(Action::Deny);
        self.next_request += 1;
        self.statements += 1;
        self.session.answer(Side::Client, Answer::Refuse(mark.decision.refusal()), pipes);
    }

    fn forward(&mut self, request: Request, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if request.kind == RequestKind::Parse {
            let describe = login::masks_anything(self.view.as_ref().expect("logged in"));
            return self.session.answer(Side::Client, Answer::Forward { id: 0, tag: mark, describe }, pipes);
        }
        // A portal that was approved and goes on after its row limit is not asked about again.
        let action = if mark.decision.action == Action::Alert { Action::Alert } else { Action::Allow };
        if self.record_request(&request, &mark, action.name(), "", pipes, cx).is_err() {
            return self.wait_for_room(request, pipes);
        }
        cx.shared.counters.statement(action);
        let id = self.next_request;
        self.next_request += 1;
        self.release(request.kind, id, mark, pipes, cx);
    }

    /// Lets a recorded statement go.
    fn release(&mut self, kind: RequestKind, id: u64, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.statements += 1;
        let describe = matches!(kind, RequestKind::Execute { .. }) && self.shape_may_differ(&mark, cx);
        self.own_names_moved |= mark.meaning.moves_own_names();
        self.ddl_open |= mark.meaning.changes_catalogue();
        if mark.meaning.changes_catalogue() || self.ddl_open && mark.meaning.ends_transaction() {
            self.names_moved(cx);
        }
        self.note_names(&mark);
        self.open.push_back(OpenRequest { id, started_us: cx.now.mono_us, masked: 0, mark: mark.clone() });
        self.session.answer(Side::Client, Answer::Forward { id, tag: mark, describe }, pipes);
    }

    /// The rows of this Execute may be others than the ones its statement was described with: nobody described it (SQL
    /// PREPARE, DECLARE), it runs what another name stands for by now, or tables have changed their names since.
    fn shape_may_differ(&self, mark: &Mark, cx: &Context<'_>) -> bool {
        let moved = cx.shared.catalogues.moves(self.slot) != self.names_moved_at_open;
        let stale = moved || self.own_names_moved;
        let view = self.view.as_ref().expect("logged in");
        login::masks_anything(view) && (stale || !self.session.requested_is_guarded() || uses_names(&mark.meaning))
    }

    /// Keeps the books of names that SQL itself makes: PREPARE, DECLARE, DEALLOCATE, CLOSE, DISCARD.
    fn note_names(&mut self, mark: &Mark) {
        for statement in &mark.meaning.analysis.statements {
            if ends_cursors(statement) {
                // Whatever has such a name from now on was not declared where we saw it: it counts as unknown.
                self.cursors.clear();
            }
            match &statement.defines {
                Some(Named::Prepared(name)) => self.session.define(name.as_bytes(), mark.clone()),
                Some(Named::Cursor(name)) => {
                    self.session.forget_portal(Some(name.as_bytes()));
                    // A DECLARE that fails leaves the older cursor: keep whichever shows more care.
                    match self.cursors.get(name) {
                        Some(older) if older.reads > mark.reads => {}
                        _ if self.cursors.len() >= limits::CURSORS_MAX => {}
                        _ => drop(self.cursors.insert(name.clone(), mark.clone())),
                    }
                }
                None => {}
            }
            let Some(name) = &statement.forgets else { continue };
            let name = name.as_deref().map(str::as_bytes);
            if statement.classes.contains(Class::Fetch) {
                // CLOSE: a prepared statement of the same name stays.
                self.session.forget_portal(name);
            } else {
                self.session.forget(name);
            }
        }
    }

    /// The journal is full: the statement stays where it is, undecided.
    fn wait_for_room(&mut self, request: Request, pipes: &mut Pipes<'_>) {
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.retry_client = Some(Retry::Request(request));
    }

    fn hold(&mut self, request: Request, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let Some(terms) = mark.decision.approval.clone() else {
            return self.deny(request, &mark, pipes, cx);
        };
        if self.exceeds_ruling(&mark) {
            return self.deny(request, &beyond_ruling(&mark), pipes, cx);
        }
        let digest = self.request_digest(&request, &mark, pipes);
        let shown = shown_text(&mark.meaning, self.view.as_ref().expect("logged in"), cx);
        let showing = self.showing(cx);
        let bind_text = |bytes: &[u8], binary| {
            let mut text = String::new();
            showing.push(&mut text, &bytes[..bytes.len().min(limits::AUDIT_BINDS_BYTES_MAX)], binary);
            text
        };
        let binds =
            self.session.binds().iter().map(|(value, binary)| value.map(|bytes| bind_text(bytes, binary))).collect();
        let rule = mark.decision.rule.clone().unwrap_or_else(|| "".into());
        let ticket = self.ticket(&shown, binds, &rule, &terms, digest, cx);
        let id = ticket.id.clone();
        if self.record_request(&request, &mark, "approve", &id.to_string(), pipes, cx).is_err() {
            return self.wait_for_room(request, pipes);
        }
        cx.shared.counters.statement(Action::Approve);
        let number = self.next_request;
        self.next_request += 1;
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.session.notice(&waiting_notice(&id, &terms), pipes);
        let what = Waiting::Statement { request, mark, digest };
        self.held = Some(Held { ticket: id, request: number, what, recorded: false });
        cx.control.push(ToControl::Ask(Box::new(ticket)));
    }

    /// A reviewer could not read all of it, and the ruling would not be bound to all of it.
    fn exceeds_ruling(&self, mark: &Mark) -> bool {
        let binds = self.session.binds();
        let long =
            |(value, _): (Option<&[u8]>, bool)| value.is_some_and(|value| value.len() > limits::AUDIT_BINDS_BYTES_MAX);
        mark.meaning.text_bytes > mark.meaning.text.len() as u64 || binds.cut || binds.iter().any(long)
    }

    pub(super) fn ruled(&mut self, ticket: &TicketId, ruling: Ruling, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.held.as_ref().is_some_and(|held| held.ticket == *ticket) && self.retry_client.is_none() {
            self.apply_ruling(ruling, pipes, cx);
        }
    }

    /// Records the ruling, then does what it says.
    pub(super) fn apply_ruling(&mut self, ruling: Ruling, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let held = self.held.as_ref().expect("a ruling is applied to what is held");
        let (word, by, reason) = match &ruling {
            Ruling::Approved { by, reason } => ("approved", by.join(", "), reason.as_str()),
            Ruling::Rejected { by, reason } => ("rejected", by.clone(), reason.as_str()),
            Ruling::Expired => ("expired", String::new(), "nobody ruled in time"),
            Ruling::Abandoned => ("abandoned", String::new(), "the requester went away or cancelled"),
        };
        let ticket = held.ticket.to_string();
        let entry = Entry::Ruling { request: held.request, ticket: &ticket, ruling: word, by: &by, reason };
        if self.record(&entry, cx).is_err() {
            self.retry_client = Some(Retry::Ruling(ruling));
            return;
        }
        let held = self.held.take().expect("just looked at");
        match ruling {
            Ruling::Approved { .. } => self.approved(held, pipes, cx),
            Ruling::Rejected { by, reason } => {
                let detail =
                    format!("ticket {ticket}, rejected by {by}{}{reason}", if reason.is_empty() { "" } else { ": " });
                self.refuse_held(&held, refusal(b"42501", "the approval was refused", Some(detail), None), pipes);
            }
            Ruling::Abandoned => {
                let cancelled = refusal(b"57014", "canceling statement due to user request", None, None);
                self.refuse_held(&held, cancelled, pipes);
            }
            Ruling::Expired => {
                let hint = Some("ask again when a reviewer is there");
                let over = refusal(b"57014", "nobody approved in time", Some(format!("ticket {ticket}")), hint);
                self.refuse_held(&held, over, pipes);
            }
        }
    }

    fn approved(&mut self, held: Held, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match held.what {
            Waiting::Access => self.access_granted(pipes, cx),
            Waiting::Statement { request, mark, digest } => {
                let late = self.ends_at_us.is_some_and(|end| cx.now.mono_us >= end);
                if late {
                    let over = refusal(b"57P01", "the identity token has expired", None, Some("connect again"));
                    return self.end("the session's time is over", &over, pipes);
                }
                if mark.leaning == Leaning::Passed && !self.still_passes(&mark, cx) {
                    let changed = refusal(
                        b"42501",
                        "the tables of this statement changed while it waited",
                        None,
                        Some("ask again"),
                    );
                    return self.session.answer(Side::Client, Answer::Refuse(changed), pipes);
                }
                // One ruling, one use, for exactly these bytes.
                assert_eq!(
                    digest,
                    self.request_digest(&request, &mark, pipes),
                    "held bytes changed while they were held"
                );
                self.release(request.kind, held.request, mark, pipes, cx);
            }
        }
    }

    /// No mask refuses it by the last reading of the catalogue, and nothing has moved since that.
    fn still_passes(&self, mark: &Marked, cx: &Context<'_>) -> bool {
        let view = self.view.as_ref().expect("logged in");
        let known = cx.shared.catalogues.unmoved(self.slot);
        let passes = |statement: &Statement| masked::refused(statement, view, known.map(|known| &**known)).0.is_none();
        mark.meaning.analysis.statements.iter().all(passes)
    }

    fn refuse_held(&mut self, held: &Held, refusal: Refusal, pipes: &mut Pipes<'_>) {
        self.session.answer(Side::Client, Answer::Refuse(refusal), pipes);
        if matches!(held.what, Waiting::Access) {
            debug_assert_eq!(self.state, State::AwaitAccess);
            self.close("access was not approved");
        }
    }

    fn request_digest(&self, request: &Request, mark: &Mark, pipes: &Pipes<'_>) -> [u8; 32] {
        match request.kind {
            RequestKind::Query | RequestKind::Parse => self.digest(pipes.client.at(request.text), &[]),
            _ => self.digest(&mark.meaning.text, self.session.binds().raw),
        }
    }

    /// What a ruling is bound to: who, where, what, with which values. Lengths keep the parts apart.
    pub(super) fn digest(&self, text: &[u8], binds: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let subject = self.principal.as_ref().map(|principal| principal.subject.as_bytes()).unwrap_or_default();
        for part in [self.identity.user.as_bytes(), subject, self.identity.target.as_bytes(), text, binds] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// Appends the request's record: nothing goes to the target before this has succeeded.
    fn record_request(
        &mut self,
        request: &Request,
        mark: &Mark,
        decision: &str,
        ticket: &str,
        pipes: &Pipes<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Full> {
        let mut scratch = std::mem::take(&mut cx.shared.scratch);
        scratch.text.clear();
        scratch.binds.clear();
        scratch.ends.clear();
        let view = self.view.as_ref().expect("logged in");
        let key = &cx.snapshot.token_key;
        let (text_bytes, kept) = match request.kind {
            RequestKind::Query | RequestKind::Parse => {
                let text = pipes.client.at(request.text);
                let kept = &text[..text.len().min(limits::AUDIT_STATEMENT_BYTES_MAX)];
                (text.len(), masked_text(view, kept, key, &mut scratch.text))
            }
            RequestKind::Execute { .. } | RequestKind::FunctionCall { .. } => {
                let text = &*mark.meaning.text;
                let mask = || masked_text(view, text, key, &mut scratch.text).into();
                (text.len(), &**mark.shown.get_or_init(mask))
            }
        };
        if matches!(request.kind, RequestKind::Execute { .. }) {
            self.collect_binds(cx, &mut scratch.binds, &mut scratch.ends);
        }
        let mut binds: SmallVec<[Option<&str>; 16]> = SmallVec::new();
        let mut start = 0;
        for end in &scratch.ends {
            binds.push(end.map(|end| &scratch.binds[start..end]));
            start = end.unwrap_or(start);
        }
        let entry = Entry::Request(audit::Request {
            request: self.next_request,
            statement: kept,
            statement_bytes: mark.meaning.text_bytes.max(text_bytes as u64),
            binds: &binds,
            classes: mark.meaning.classes.0,
            tables: &mark.meaning.tables,
            decision,
            rule: mark.decision.rule.as_deref().unwrap_or(""),
            ticket,
        });
        let result = self.record(&entry, cx);
        drop(binds);
        cx.shared.scratch = scratch;
        result
    }

    /// Bind values as text, one after the other, with where each ends.
    fn collect_binds(&self, cx: &Context<'_>, out: &mut String, ends: &mut Vec<Option<usize>>) {
        let showing = self.showing(cx);
        for (value, binary) in self.session.binds().iter() {
            let Some(bytes) = value else {
                ends.push(None);
                continue;
            };
            let room = limits::AUDIT_BINDS_BYTES_MAX.saturating_sub(out.len());
            let cut = &bytes[..bytes.len().min(room)];
            showing.push(out, cut, binary);
            if cut.len() < bytes.len() {
                out.push('…');
            }
            ends.push(Some(out.len()));
        }
    }

    /// What is masked for this principal is masked for whoever reads of it.
    fn showing<'a>(&'a self, cx: &'a Context<'_>) -> Showing<'a> {
        let view = self.view.as_ref().expect("logged in");
        Showing { detectors: view.detect.as_ref().map(|(detectors, _)| detectors), key: &cx.snapshot.token_key }
    }
}

/// What is masked for this principal is masked in the trail as well.
fn masked_text<'a>(view: &View, text: &'a [u8], key: &TokenKey, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some((detectors, _)) = &view.detect else { return text };
    scratch.extend_from_slice(text);
    mask_findings(detectors, Style::Last4, key, scratch);
    scratch
}

/// What becomes of a statement that is too long for a ruling.
fn beyond_ruling(mark: &Mark) -> Mark {
    let decision = Decision {
        action: Action::Deny,
        approval: None,
        message: Some("the statement or one of its values is too long to be approved".into()),
        ..mark.decision.clone()
    };
    mark.with(decision)
}

/// What becomes of a statement that only the catalogue could have let through.
fn blind(mark: &Mark) -> Mark {
    let decision = masked::denied("the gateway cannot tell which columns are masked: try again");
    mark.with(decision)
}

/// The statement as a reviewer reads it: with what is masked for the requester masked.
fn shown_text(meaning: &Meaning, view: &View, cx: &Context<'_>) -> String {
    let mut text = meaning.text.to_vec();
    if let Some((detectors, _)) = &view.detect {
        mask_findings(detectors, Style::Last4, &cx.snapshot.token_key, &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Cursors may be gone afterwards, and their names free for others: CLOSE, the end of a transaction or of a savepoint, and
/// blocks that open and close what they like.
fn ends_cursors(statement: &Statement) -> bool {
    const ENDS: [Class; 3] = [Class::Transaction, Class::Do, Class::Call];
    let closes = statement.forgets.is_some() && statement.classes.contains(Class::Fetch);
    closes || ENDS.iter().any(|class| statement.classes.contains(*class))
}

fn uses_names(meaning: &Meaning) -> bool {
    meaning.analysis.statements.iter().any(|statement| statement.uses.is_some())
}

fn unknown_reads(view: &View) -> Reads {
    if view.column_masks.is_empty() { Reads::Open } else { Reads::Unknown }
}

/// Do two views mask alike?
fn same_masks(one: &View, other: &View) -> bool {
    let columns = |view: &View| -> Vec<_> {
        view.column_masks
            .iter()
            .map(|mask| (mask.schema.clone(), mask.table.clone(), mask.column.clone(), mask.style))
            .collect()
    };
    let content = |view: &View| view.detect.as_ref().map(|(detectors, style)| (detectors.kinds().to_vec(), *style));
    columns(one) == columns(other) && content(one) == content(other)
}

/// The stricter of two verdicts; the first when they are alike.
fn stricter(one: Decision, other: Decision) -> Decision {
    if other.action > one.action { other } else { one }
}
