//! One statement on its way to the target: decided, recorded, then forwarded, refused or held for a person.

use super::binds::Showing;
use super::cursors::{forgets_cursors, loosens};
use super::meaning::{Leaning, Mark, Marked, Meaning};
use super::reading::Asked;
use super::verdict::uses_names;
use super::{Asking, CLIENT_LEFT, Context, Gate, Now, OpenRequest, Retry, State, login, masked, refusal};
use crate::approval::{Ruling, TicketId};
use crate::audit::{self, Entry, Full, printable};
use crate::limits;
use crate::policy::{Action, ApprovalTerms, Decision, View};
use crate::shard::mailbox::ToControl;
use crate::snapshot::Snapshot;
use codecs::postgres::{Answer, BindValues, Refusal, Request, RequestKind, fair_share};
use codecs::{Pipes, Side};
use masking::sql::{Class, Named, Statement};
use masking::style::{Style, TokenKey, mask_findings};
use smallvec::SmallVec;

/// Something that waits for a ruling.
pub(super) struct Held {
    pub ticket: TicketId,
    pub request: u64,
    pub what: Waiting,
    /// Its end is in the trail.
    pub recorded: bool,
    /// A cancel request has gone to the target for what ran before it, and has not hit anything yet.
    pub cancelled: bool,
    /// Nobody is asked for a ruling any more.
    pub let_go: bool,
    /// Nobody waits for the ruling any more.
    pub left: bool,
}

pub(super) enum Waiting {
    /// The session's opening.
    Access,
    /// A statement: its bytes are still undecided in the client's window.
    Statement { asked: Asked, mark: Mark, digest: [u8; 32] },
}

impl Held {
    fn new(ticket: TicketId, request: u64, what: Waiting) -> Self {
        Self { ticket, request, what, recorded: false, cancelled: false, let_go: false, left: false }
    }

    pub fn access(ticket: TicketId) -> Self {
        Self::new(ticket, 0, Waiting::Access)
    }
}

/// A statement that was approved and is refused all the same.
pub(super) struct NotRun {
    pub request: u64,
    pub refusal: Refusal,
    /// Why the session ends with it, if it does.
    pub ends: Option<&'static str>,
}

impl NotRun {
    fn ask_again(request: u64, why: &str) -> Self {
        Self { request, refusal: refusal(b"42501", why, None, Some("ask again")), ends: None }
    }

    pub fn entry(&self) -> Entry<'_> {
        Entry::Outcome(audit::Outcome {
            request: self.request,
            rows: 0,
            bytes: 0,
            duration_us: 0,
            error: str::from_utf8(&self.refusal.sqlstate).expect("letters and digits"),
            masked: 0,
            more: false,
            payload: b"",
            payload_cut: false,
        })
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
        if now.mono_us >= self.ends_at_us {
            Standing::Over
        } else if self.is_of_another(snapshot) {
            Standing::Stale
        } else {
            Standing::Good
        }
    }

    /// What this session may do was worked out from another snapshot.
    pub(super) fn is_of_another(&self, snapshot: &Snapshot) -> bool {
        self.view.as_ref().is_none_or(|view| view.version != snapshot.version)
    }

    /// What is to become of a request, before it is recorded and carried out: what deciding costs can be measured here.
    /// `None`: its text has to be read first, and not here.
    pub fn verdict(&mut self, request: Request, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Option<Action> {
        self.decide(&request.into(), pipes, cx).map(|mark| mark.decision.action)
    }

    fn decide(&mut self, asked: &Asked, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) -> Option<Mark> {
        self.look_at_portals();
        self.mark(asked, pipes, cx)
    }

    pub(super) fn request(&mut self, asked: Asked, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match self.standing(cx.now, cx.snapshot) {
            Standing::Good => {}
            Standing::Over => {
                // No statement starts after the token's end: it is answered like one that arrived to find it over.
                let over =
                    refusal(b"57P01", "the identity token has expired", None, Some("connect again with a fresh token"));
                return self.end("the session's time is over", &over, pipes);
            }
            Standing::Stale => {
                if let Err((reason, refusal)) = self.renew_view(cx) {
                    return self.end(reason, &refusal, pipes);
                }
            }
        }
        let decided = self.decide(&asked, pipes, cx);
        let request = asked.request;
        let Some(mark) = decided else { return self.have_read(request, pipes, cx) };
        if mark.leaning == Leaning::Unasked {
            return self.ask_about_tables(self.asked(request, &mark), pipes, cx);
        }
        self.carry_out(request, mark, pipes, cx);
    }

    fn carry_out(&mut self, request: Request, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        match mark.decision.action {
            Action::Deny => self.deny(request, &mark, pipes, cx),
            // Preparing runs nothing: the hold comes at Execute, with the values it will run with.
            Action::Approve if request.kind == RequestKind::Parse => self.forward(request, mark, pipes, cx),
            Action::Approve if self.goes_on(&request) => self.forward(request, mark, pipes, cx),
            Action::Approve => self.hold(request, mark, pipes, cx),
            Action::Allow | Action::Alert => self.forward(request, mark, pipes, cx),
        }
    }

    /// A portal that was asked about when it began goes on behind its row limit unasked. (One that began under other rules was not.)
    fn goes_on(&self, request: &Request) -> bool {
        let asked = |mark: &Mark| mark.decision.action == Action::Approve;
        matches!(request.kind, RequestKind::Execute { resumed: true }) && self.session.requested().is_some_and(asked)
    }

    /// A mask refuses this statement unless its tables have no masked column: the catalogue tells, when it has been read.
    fn ask_about_tables(&mut self, asked: Asked, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.asking = Some(Box::new(Asking::Catalogue(asked)));
        self.want_catalogue(cx);
    }

    /// Decides the request that waits for a catalogue, which has been read or cannot be: then it is refused.
    pub(super) fn answer_asking(&mut self, was_read: bool, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let asked = self.asking.take_if(|asking| matches!(**asking, Asking::Catalogue(_)));
        let Some(Asking::Catalogue(asked)) = asked.map(|asking| *asking) else { return };
        if was_read {
            // As if it came now: time has passed, and names may have moved since the reading.
            return self.request(asked, pipes, cx);
        }
        match self.mark_unasked(&asked, pipes, cx) {
            Some(mark) => self.deny(asked.request, &blind(&mark), pipes, cx),
            None => self.have_read(asked.request, pipes, cx),
        }
    }

    /// The configuration changed: what may this session do now? An error: it ends, for that reason and with that refusal.
    fn renew_view(&mut self, cx: &mut Context<'_>) -> Result<(), (&'static str, Refusal)> {
        let old = self.view.as_ref().expect("statements come after the login");
        let Some(new) = cx.shared.views.of(cx.snapshot, self.identity.target(), &old.principal) else {
            let gone = refusal(b"57P01", "the grant for this target was withdrawn", None, None);
            return Err(("the grant was withdrawn", gone));
        };
        // Column plans were made under the old masks and live with prepared statements: a session that would need
        // new ones starts again.
        if !same_masks(&new, old) {
            let changed = refusal(b"57P01", "the masking rules for this session changed", None, Some("connect again"));
            return Err(("the masks changed", changed));
        }
        self.view = Some(new);
        self.rules = cx.snapshot.rules;
        Ok(())
    }

    fn deny(&mut self, request: Request, mark: &Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.record_request(&request, mark, "deny", "", pipes, cx).is_err() {
            return self.wait_for_room(self.asked(request, mark), pipes);
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
        // What goes on after its row limit was approved before.
        let action = if mark.decision.action == Action::Alert { Action::Alert } else { Action::Allow };
        if self.record_request(&request, &mark, action.name(), "", pipes, cx).is_err() {
            return self.wait_for_room(self.asked(request, &mark), pipes);
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
        self.encodings.release(&mark);
        self.own_names_moved |= mark.meaning.moves_own_names();
        self.ddl_open |= mark.meaning.changes_catalogue();
        if mark.meaning.changes_catalogue() || self.ddl_open && mark.meaning.ends_transaction() {
            self.names_moved(cx);
        }
        self.note_names(&mark);
        let (started_us, cursors_touched) = (cx.now.mono_us, self.cursors.touched());
        self.open.push_back(OpenRequest { id, started_us, masked: 0, mark: mark.clone(), cursors_touched });
        self.session.answer(Side::Client, Answer::Forward { id, tag: mark, describe }, pipes);
    }

    /// The rows of this Execute may be others than the ones its statement was described with: nobody described it (SQL
    /// PREPARE, DECLARE), it runs what another name stands for by now, or tables have changed their names since.
    fn shape_may_differ(&self, mark: &Mark, cx: &Context<'_>) -> bool {
        let moved = cx.shared.catalogues.moves(self.slot) != self.names_moved_at_open;
        let stale = moved || self.own_names_moved;
        let view = self.view.as_ref().expect("logged in");
        // Nobody tells when a function has set the search_path: of the tables it finds, a mask may mean some only.
        let by_path = || {
            let unqualified =
                |statement: &Statement| statement.tables.iter().any(|table| table.read && table.schema.is_none());
            view.column_masks.iter().any(|mask| mask.schema.is_some()) && mark.meaning.statements().any(unqualified)
        };
        login::masks_anything(view)
            && (stale || !self.session.requested_is_guarded() || uses_names(&mark.meaning) || by_path())
    }

    /// The journal is full: the statement stays where it is, undecided.
    fn wait_for_room(&mut self, asked: Asked, pipes: &mut Pipes<'_>) {
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.retry_client = Some(Box::new(Retry::Request(asked)));
    }

    fn hold(&mut self, request: Request, mark: Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let Some(terms) = mark.decision.approval.clone() else {
            return self.deny(request, &mark, pipes, cx);
        };
        if exceeds_ruling(&mark, self.values(&request, pipes)) {
            return self.deny(request, &beyond_ruling(&mark), pipes, cx);
        }
        let digest = self.request_digest(&request, &mark, pipes);
        let shown = self.shown_text(&mark.meaning, cx);
        let showing = self.showing(cx);
        let bind_text = |bytes: &[u8], binary| {
            let mut text = String::new();
            showing.push(&mut text, &bytes[..bytes.len().min(limits::AUDIT_BINDS_BYTES_MAX)], binary);
            text
        };
        let values = self.values(&request, pipes);
        let binds = values.iter().map(|(value, binary)| value.map(|bytes| bind_text(bytes, binary))).collect();
        let rule = mark.decision.rule.clone().unwrap_or_else(|| "".into());
        let ticket = self.ticket(&shown, binds, &rule, &terms, digest, cx);
        let id = ticket.id.clone();
        if self.record_request(&request, &mark, "approve", &id.to_string(), pipes, cx).is_err() {
            return self.wait_for_room(self.asked(request, &mark), pipes);
        }
        cx.shared.counters.statement(Action::Approve);
        let number = self.next_request;
        self.next_request += 1;
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.session.notice(&waiting_notice(&id, &terms), pipes);
        let what = Waiting::Statement { asked: self.asked(request, &mark), mark, digest };
        self.held = Some(Box::new(Held::new(id, number, what)));
        cx.control.push(ToControl::Ask(Box::new(ticket)));
        // The client reads what came before it while it waits, and a cancel request finds what still runs.
        self.session.flush(pipes);
    }

    /// Nobody needs to rule on what will not run: the server skips it behind an error, or a cancel request came too late for what ran
    /// before it.
    pub(super) fn let_held_go(&mut self, cx: &mut Context<'_>) {
        let Some(held) = self.held.as_mut().filter(|held| matches!(held.what, Waiting::Statement { .. })) else {
            return;
        };
        if !held.let_go && (self.session.is_skipping() || held.cancelled && self.open.is_empty()) {
            held.let_go = true;
            cx.control.push(ToControl::Abandon(held.ticket.clone()));
        }
    }

    /// The statement as a reviewer reads it: with what the names in it stand for, and what is masked for the requester masked.
    fn shown_text(&self, meaning: &Meaning, cx: &Context<'_>) -> String {
        let mut text = meaning.text.to_vec();
        let mut tell = |name: &str, is: &str, used: &Mark| {
            text.extend_from_slice(format!("\n-- {name} {is}: ").as_bytes());
            text.extend_from_slice(&used.meaning.text);
        };
        for (at, statement) in meaning.analysis.statements.iter().enumerate() {
            let Some(used) = &statement.uses else { continue };
            let earlier = &meaning.analysis.statements[..at];
            if earlier.iter().any(|earlier| takes_over(earlier, used)) {
                // What it stands for by then is in the text, if anywhere.
                continue;
            }
            match used {
                Named::Prepared(name) => {
                    self.session.prepared(name.as_bytes()).into_iter().for_each(|used| tell(name, "is", used));
                }
                Named::Cursor(name) => {
                    let loose = earlier.iter().any(|earlier| loosens(earlier, &meaning.cursors));
                    let is = if self.cursors.is_sure(name) && !loose { "is" } else { "may be" };
                    self.cursors.marks(name).iter().for_each(|used| tell(name, is, used));
                    self.session.bound(name.as_bytes()).into_iter().for_each(|used| tell(name, "is", used));
                }
            }
        }
        if let Some((detectors, _)) = &self.view.as_ref().expect("logged in").detect {
            mask_findings(detectors, Style::Last4, &cx.snapshot.token_key, &mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The values that a request runs with.
    fn values<'a>(&'a self, request: &Request, pipes: &'a Pipes<'_>) -> BindValues<'a> {
        match request.kind {
            RequestKind::FunctionCall { .. } => BindValues { raw: pipes.client.at(request.text), cut: None },
            RequestKind::Query | RequestKind::Parse | RequestKind::Execute { .. } => self.session.binds(),
        }
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
            Ruling::Abandoned => {
                ("abandoned", String::new(), "the requester went away or cancelled, or what ran before it failed")
            }
        };
        let ticket = held.ticket.to_string();
        let entry = Entry::Ruling { request: held.request, ticket: &ticket, ruling: word, by: &by, reason };
        if self.record(&entry, cx).is_err() {
            self.retry_client = Some(Box::new(Retry::Ruling(ruling)));
            return;
        }
        let held = *self.held.take().expect("just looked at");
        match ruling {
            Ruling::Approved { .. } => self.approved(held, pipes, cx),
            Ruling::Rejected { by, reason } => {
                // It is shown in a terminal.
                let reason = printable::escape(&reason);
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
            Waiting::Access if held.left => self.close(CLIENT_LEFT),
            Waiting::Statement { .. } if held.left => {
                let gone = refusal(b"57P01", "nobody waits for it any more", None, None);
                self.not_run(NotRun { request: held.request, refusal: gone, ends: Some(CLIENT_LEFT) }, pipes, cx);
            }
            Waiting::Access => self.access_granted(pipes, cx),
            Waiting::Statement { asked, mark, digest } => {
                if cx.now.mono_us >= self.ends_at_us {
                    let over = refusal(b"57P01", "the identity token has expired", None, Some("connect again"));
                    let ends = Some("the session's time is over");
                    return self.not_run(NotRun { request: held.request, refusal: over, ends }, pipes, cx);
                }
                if self.is_of_another(cx.snapshot) {
                    return self.decide_again(asked, held.request, &mark, pipes, cx);
                }
                if mark.leaning == Leaning::Passed && !self.still_passes(&mark, cx) {
                    let changed = "the tables of this statement changed while it waited";
                    return self.not_run(NotRun::ask_again(held.request, changed), pipes, cx);
                }
                // One ruling, one use, for exactly these bytes.
                assert_eq!(
                    digest,
                    self.request_digest(&asked.request, &mark, pipes),
                    "held bytes changed while they were held"
                );
                self.release(asked.request.kind, held.request, mark, pipes, cx);
            }
        }
    }

    /// The configuration has changed while the statement waited: the ruling is worth what it was if the same would be asked now.
    fn decide_again(&mut self, asked: Asked, number: u64, old: &Mark, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if let Err((reason, refusal)) = self.renew_view(cx) {
            return self.not_run(NotRun { request: number, refusal, ends: Some(reason) }, pipes, cx);
        }
        let changed = "the rules changed while this statement waited for approval";
        let Some(new) = self.mark(&asked, pipes, cx) else {
            // Settings have changed as well: what was read is not what would run.
            return self.not_run(NotRun::ask_again(number, changed), pipes, cx);
        };
        let (then, now) = (&old.decision, &new.decision);
        let same = (&then.rule, then.action, &then.approval) == (&now.rule, now.action, &now.approval);
        let allowed = matches!(now.action, Action::Allow | Action::Alert);
        if new.leaning != Leaning::Unasked && (same || allowed) {
            return self.release(asked.request.kind, number, new, pipes, cx);
        }
        self.not_run(NotRun::ask_again(number, changed), pipes, cx);
    }

    /// Approved, and not run all the same: the trail says so before the client reads it.
    pub(super) fn not_run(&mut self, not_run: NotRun, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if self.record(&not_run.entry(), cx).is_err() {
            self.retry_client = Some(Box::new(Retry::NotRun(not_run)));
            return;
        }
        match not_run.ends {
            Some(reason) => self.end(reason, &not_run.refusal, pipes),
            None => self.session.answer(Side::Client, Answer::Refuse(not_run.refusal), pipes),
        }
    }

    /// No mask refuses it by the last reading of the catalogue, and nothing has moved since that.
    fn still_passes(&self, mark: &Marked, cx: &Context<'_>) -> bool {
        let view = self.view.as_ref().expect("logged in");
        let known = cx.shared.catalogues.unmoved(self.slot);
        let passes = |statement: &Statement| masked::refused(statement, view, known.map(|known| &**known)).0.is_none();
        mark.meaning.statements().all(passes)
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
            _ => self.digest(&mark.meaning.text, self.values(request, pipes).raw),
        }
    }

    /// What a ruling is bound to: who, where, what, with which values. Lengths keep the parts apart.
    pub(super) fn digest(&self, text: &[u8], binds: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let principal = &self.view.as_ref().expect("whoever asks has logged in").principal;
        let (user, subject) = (principal.user.as_bytes(), principal.subject.as_bytes());
        for part in [user, subject, self.identity.target().as_bytes(), text, binds] {
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
        if matches!(request.kind, RequestKind::Execute { .. } | RequestKind::FunctionCall { .. }) {
            self.collect_binds(self.values(request, pipes), cx, &mut scratch.binds, &mut scratch.ends);
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
            classes: mark.classes().0,
            tables: mark.tables(),
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
    fn collect_binds(&self, values: BindValues<'_>, cx: &Context<'_>, out: &mut String, ends: &mut Vec<Option<usize>>) {
        let showing = self.showing(cx);
        // None of them hides those behind it.
        let share =
            fair_share(values.iter().map(|(value, _)| value.map_or(0, <[u8]>::len)), limits::AUDIT_BINDS_BYTES_MAX);
        for (value, binary) in values.iter() {
            let Some(bytes) = value else {
                ends.push(None);
                continue;
            };
            let cut = &bytes[..bytes.len().min(share)];
            showing.push(out, cut, binary);
            if cut.len() < bytes.len() || values.cut == Some(bytes.len()) {
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

/// Behind this statement of a text the name no longer stands for what it stood for before the text.
fn takes_over(statement: &Statement, used: &Named) -> bool {
    let (prepared, name) = match used {
        Named::Prepared(name) => (true, name),
        Named::Cursor(name) => (false, name),
    };
    let forgets = |forgotten: &Option<String>| forgotten.as_ref().is_none_or(|forgotten| forgotten == name);
    let closes = statement.classes.contains(Class::Fetch);
    let of_its_kind = if prepared { !closes } else { forgets_cursors(statement) };
    statement.defines.as_ref() == Some(used) || of_its_kind && statement.forgets.as_ref().is_some_and(forgets)
}

/// What is masked for this principal is masked in the trail as well.
fn masked_text<'a>(view: &View, text: &'a [u8], key: &TokenKey, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let Some((detectors, _)) = &view.detect else { return text };
    scratch.extend_from_slice(text);
    mask_findings(detectors, Style::Last4, key, scratch);
    scratch
}

/// A reviewer could not read all of it, and the ruling would not be bound to all of it.
fn exceeds_ruling(mark: &Mark, values: BindValues<'_>) -> bool {
    let long =
        |(value, _): (Option<&[u8]>, bool)| value.is_some_and(|value| value.len() > limits::AUDIT_BINDS_BYTES_MAX);
    mark.meaning.text_bytes > mark.meaning.text.len() as u64 || values.cut.is_some() || values.iter().any(long)
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
