//! From the first byte to the first ReadyForQuery: TLS, token, grant, the target's own login.

use super::seats::{Bounded, Taken};
use super::settings::Settings;
use super::statement::Held;
use super::views::Met;
use super::{Context, Gate, Now, Output, Retry, State, refusal};
use crate::approval::{Ticket, TicketId};
use crate::audit::Entry;
use crate::identity::Verified;
use crate::limits;
use crate::metrics::Fault;
use crate::policy::{ApprovalTerms, Decision, View};
use crate::shard::mailbox::{SessionInfo, ToControl};
use crate::snapshot::Target;
use codecs::postgres::{Answer, Refusal, ScramKeys, Startup, TargetLogin};
use codecs::{Pipes, Side, Span};
use std::rc::Rc;
use std::sync::Arc;

/// One text for every bad token: the caller learns nothing about why; the trail does.
fn bad_token() -> Refusal {
    refusal(
        b"28P01",
        "the identity token was not accepted",
        None,
        Some("pass a valid, unexpired token as the password (PGPASSWORD)"),
    )
}

/// One text for "no such target" and "no grant": the caller cannot list targets by trying.
fn no_grant(target: &str) -> Refusal {
    refusal(
        b"28000",
        &format!("no access to target \"{target}\""),
        None,
        Some("dbname names the target; ask for a grant if it exists"),
    )
}

/// What cannot be recorded does not happen.
pub(super) fn journal_full() -> Refusal {
    refusal(b"58030", "the audit journal is full", None, Some("try again"))
}

impl Gate {
    pub(super) fn secure(&mut self, pipes: &mut Pipes<'_>) {
        let offered = self.channel.tls_offered;
        self.session.answer(Side::Client, Answer::Secure(offered), pipes);
        if offered {
            self.wishes.push_back(Output::StartTls(Side::Client));
        }
    }

    pub(super) fn login(&mut self, startup: Startup, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.identity.claim(&startup);
        if !self.channel.may_carry_token() {
            return self.refuse_login(Side::Client, *b"28000", "token over an unencrypted connection", pipes, cx);
        }
        if startup.oauth {
            self.session.oauth_challenge(cx.snapshot.verifier.bearer_error());
        }
        self.session.answer(Side::Client, Answer::AskCredential, pipes);
    }

    pub(super) fn credential(&mut self, span: Span, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let now_s = cx.now.unix_us.div_euclid(1_000_000);
        let token = pipes.client.at(span);
        let Verified { principal, expires_at } = match cx.snapshot.verifier.verify(token, now_s) {
            Ok(verified) => verified,
            Err(error) => {
                let reason = format!("token: {error:?}");
                return self.refuse_login(Side::Client, *b"28P01", &reason, pipes, cx);
            }
        };
        self.identity.admit(&principal);
        let target = cx.snapshot.target(self.identity.target()).cloned();
        let view = cx.shared.views.of(cx.snapshot, self.identity.target(), &Rc::new(principal));
        let (Some(target), Some(view)) = (target, view) else {
            return self.refuse_login(Side::Client, *b"28000", "no grant for this target", pipes, cx);
        };
        if self.session.startup().is_some_and(|startup| startup.replication) && !view.replication {
            return self.refuse_login(Side::Client, *b"28000", "replication without a grant for it", pipes, cx);
        }
        let settings = self.session.startup().map(|startup| Settings::of(&startup.parameters)).unwrap_or_default();
        if let Some((setting, decision)) = settings.refused(&view) {
            return self.refuse_setting(setting, &decision, pipes, cx);
        }
        self.identity.note_settings(&settings);
        if let Err(taken) = self.take_seat(&target, &view, cx) {
            return self.refuse_login(Side::Client, *b"53300", &taken.to_string(), pipes, cx);
        }
        let approval = view.approval.clone();
        self.view = Some(view);
        self.rules = cx.snapshot.rules;
        self.expires_at = expires_at;
        self.slot = cx.shared.catalogues.slot(self.identity.target());
        self.names_moved_at_open = cx.shared.catalogues.moves(self.slot);
        self.target = Some(target.clone());
        match approval {
            Some(terms) => self.ask_for_access(terms, pipes, cx),
            None => self.admit(target, pipes, cx),
        }
    }

    fn take_seat(&mut self, target: &Target, view: &Met, cx: &Context<'_>) -> Result<(), Taken> {
        let of_target = || Bounded::Target(target.name.clone());
        let of_user = || Bounded::User { grant: view.grant.clone(), user: view.principal.user.clone() };
        let bounds = [
            target.connection_limit.map(|limit| (of_target(), limit)),
            view.connection_limit.map(|limit| (of_user(), limit)),
        ];
        self.seat = cx.shared.seats.take(bounds.into_iter().flatten().collect())?;
        Ok(())
    }

    /// The session would begin with what a rule keeps it from.
    fn refuse_setting(&mut self, setting: &str, decision: &Decision, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let refusal = decision.refusal();
        let reason = format!("{setting} at start-up: {}", decision.reason);
        let entry = Entry::LoginRefused { sqlstate: refusal.sqlstate, reason: &reason };
        // A full journal: the client is told to come again, nothing was opened and nothing is owed.
        let refusal = match self.record(&entry, cx) {
            Ok(()) => refusal,
            Err(_) => journal_full(),
        };
        cx.shared.counters.fault(Fault::LoginRefused);
        self.session.answer(Side::Client, Answer::Refuse(refusal), pipes);
        self.close("a setting at start-up");
    }

    /// The session ends with the token, or with the grant's bound when that is earlier. The bound counts from here: not
    /// from the time somebody was asked.
    fn bound_session(&mut self, cx: &Context<'_>) {
        let view = self.view.as_ref().expect("set before a session is opened");
        let expires_us = self.expires_at.saturating_mul(1_000_000);
        let left_us = expires_us.saturating_sub(cx.now.unix_us).max(0) as u64;
        let bound_us = view.max_session_s.map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000_000));
        self.ends_at_us = cx.now.mono_us.saturating_add(left_us.min(bound_us));
    }

    fn admit(&mut self, target: Arc<Target>, pipes: &mut Pipes<'_>, cx: &Context<'_>) {
        self.bound_session(cx);
        self.state = State::AwaitTarget;
        self.session.answer(Side::Client, Answer::Admit, pipes);
        self.wishes.push_back(Output::Connect(target));
    }

    /// Just-in-time access: opening the session waits for a ruling.
    fn ask_for_access(&mut self, terms: ApprovalTerms, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let text = format!("open a session to {}", self.identity.target());
        let grant = self.view.as_ref().expect("set before access is asked for").grant.clone();
        let ticket = self.ticket(&text, Vec::new(), &grant, &terms, self.digest(text.as_bytes(), &[]), cx);
        let id = ticket.id.clone();
        self.state = State::AwaitAccess;
        self.session.answer(Side::Client, Answer::Hold, pipes);
        self.session.notice(&super::statement::waiting_notice(&id, &terms), pipes);
        self.held = Some(Box::new(Held::access(id)));
        cx.control.push(ToControl::Ask(Box::new(ticket)));
    }

    /// The access ticket was approved: on with the login, which has its own time again. Token and grant are looked at
    /// again: both may have ended while somebody made up their mind.
    pub(super) fn access_granted(&mut self, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        self.login_deadline_us = cx.now.mono_us + cx.shared.login_timeout_us;
        if self.expires_at <= cx.now.unix_us.div_euclid(1_000_000) {
            return self.refuse_login(Side::Client, *b"28P01", "token: expired before access was approved", pipes, cx);
        }
        if self.is_of_another(cx.snapshot) {
            let old = self.view.take().expect("set before access is asked for");
            self.view = cx.shared.views.of(cx.snapshot, self.identity.target(), &old.principal);
            self.target = cx.snapshot.target(self.identity.target()).cloned();
            self.rules = cx.snapshot.rules;
        }
        match (self.target.clone(), &self.view) {
            (Some(target), Some(_)) => self.admit(target, pipes, cx),
            _ => self.refuse_login(Side::Client, *b"28000", "no grant for this target any more", pipes, cx),
        }
    }

    /// Records why, tells the client what it may know, and ends. On a full journal: later.
    pub(super) fn refuse_login(
        &mut self,
        side: Side,
        sqlstate: [u8; 5],
        reason: &str,
        pipes: &mut Pipes<'_>,
        cx: &mut Context<'_>,
    ) {
        if self.record(&Entry::LoginRefused { sqlstate, reason }, cx).is_err() {
            let retry = Box::new(Retry::Refuse { sqlstate, reason: reason.to_string() });
            match side {
                Side::Client => self.retry_client = Some(retry),
                Side::Target => self.retry_target = Some(retry),
            }
            return;
        }
        if self.state == State::AwaitLogin {
            let full = &sqlstate == b"53300";
            cx.shared.counters.fault(if full { Fault::ConnectionLimit } else { Fault::LoginRefused });
        }
        let refusal = match &sqlstate {
            b"28P01" => bad_token(),
            b"28000" if reason.starts_with("token over") => {
                refusal(b"28000", "a token is accepted over TLS only", None, Some("connect with sslmode=require"))
            }
            b"28000" => no_grant(self.identity.target()),
            b"53300" => refusal(b"53300", reason, None, Some("try again when a session has ended")),
            b"08004" => {
                refusal(b"08004", "the target refused the gateway's login", None, Some("tell the gateway's operator"))
            }
            _ => refusal(
                &sqlstate,
                "the target is unreachable",
                None,
                Some("try again; tell the gateway's operator if it stays"),
            ),
        };
        match self.state {
            State::AwaitLogin => self.session.answer(Side::Client, Answer::Refuse(refusal), pipes),
            _ => self.session.fail(&refusal, pipes),
        }
        // An OAUTHBEARER client is told in two steps; the login's deadline bounds how long it may take to listen.
        if !self.session.awaits_acknowledgement() {
            self.close(reason);
        }
    }

    pub(super) fn target_connected(&mut self, pipes: &mut Pipes<'_>) {
        let target = self.target.as_ref().expect("a target is connected only after it was chosen");
        let nonce = super::cut(&blake3::derive_key("lockgate SCRAM client nonce", &self.seed)[..18]);
        let login = TargetLogin {
            user: target.user.clone(),
            database: target.database.clone(),
            password: Rc::new(target.password.clone()),
            weakest: target.require_auth,
            tls: target.tls.is_some(),
            nonce,
            client_process: 0,
            client_secret: self.secret.to_vec(),
        };
        self.session.connect(login, pipes);
    }

    pub(super) fn target_secure(&mut self, accepted: bool, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if accepted {
            self.wishes.push_back(Output::StartTls(Side::Target));
        } else {
            self.target_failed(*b"08001", "the target does not offer TLS and the configuration requires it", pipes, cx);
        }
    }

    pub(super) fn target_failed(
        &mut self,
        sqlstate: [u8; 5],
        reason: &str,
        pipes: &mut Pipes<'_>,
        cx: &mut Context<'_>,
    ) {
        if sqlstate == *b"08004" {
            cx.shared.counters.fault(Fault::TargetRefused);
        }
        self.refuse_login(Side::Target, sqlstate, reason, pipes, cx);
    }

    pub(super) fn target_refused(&mut self, sqlstate: [u8; 5], pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        let reason = format!("the target refused the login with {}", String::from_utf8_lossy(&sqlstate));
        self.target_failed(*b"08004", &reason, pipes, cx);
    }

    pub(super) fn derive_keys(&mut self, salt: Vec<u8>, iterations: u32, pipes: &mut Pipes<'_>, cx: &mut Context<'_>) {
        if iterations > limits::SCRAM_ITERATIONS_MAX {
            let reason = format!("the target asks for {iterations} SCRAM iterations");
            return self.target_failed(*b"08004", &reason, pipes, cx);
        }
        let target = self.target.clone().expect("the target is known when it challenges");
        let (shard, relay) = self.key().place();
        cx.control.push(ToControl::Derive { shard, relay, target, salt, iterations });
    }

    pub(super) fn keys_derived(
        &mut self,
        keys: Result<ScramKeys, String>,
        pipes: &mut Pipes<'_>,
        cx: &mut Context<'_>,
    ) {
        match keys {
            Ok(keys) => self.session.answer(Side::Target, Answer::Keys(keys), pipes),
            Err(reason) => self.target_failed(*b"08004", &reason, pipes, cx),
        }
    }

    /// The first ReadyForQuery is about to pass: the session is on record before the client knows it is open.
    pub(super) fn opened(&mut self, cx: &mut Context<'_>) {
        let view = self.view.clone().expect("a session opens with a view");
        let settings = self.identity.settings();
        if self.record(&Entry::SessionOpened { grant: &view.grant, settings: &settings }, cx).is_err() {
            self.retry_target = Some(Box::new(Retry::Opened));
            return;
        }
        self.recorded_open = true;
        self.state = State::Open;
        self.opened_us = cx.now.mono_us;
        cx.shared.counters.sessions.add(1);
        cx.shared.counters.sessions_total.add(1);
        self.session.watch_texts(masks_anything(&view));
        // The process number is the target's own, so that `pg_backend_pid()` and a client's idea of it agree; the secret is ours.
        let (process, target_secret) = self.session.take_target_key().unwrap_or_default();
        self.process = process;
        cx.control.push(ToControl::SessionOpened(Box::new(SessionInfo {
            who: self.identity.pack(),
            key: self.key(),
            opened_at_us: cx.now.unix_us,
            secret: self.secret,
            target_secret: target_secret.into(),
        })));
    }

    /// Nobody is asked beyond the session's own end: it would be for nothing.
    fn asks_until(&self, terms: &ApprovalTerms, now: Now) -> i64 {
        let seconds = |seconds: i64| seconds.saturating_mul(1_000_000);
        let expires_us = now.unix_us.saturating_add(seconds(i64::try_from(terms.expires_s).unwrap_or(i64::MAX)));
        let left_us = i64::try_from(self.ends_at_us.saturating_sub(now.mono_us)).unwrap_or(i64::MAX);
        expires_us.min(seconds(self.expires_at)).min(now.unix_us.saturating_add(left_us))
    }

    /// A ticket about this session.
    pub(super) fn ticket(
        &mut self,
        statement: &str,
        binds: Vec<Option<String>>,
        rule: &str,
        terms: &ApprovalTerms,
        digest: [u8; 32],
        cx: &Context<'_>,
    ) -> Ticket {
        let principal = &self.view.as_ref().expect("whoever asks has logged in").principal;
        let random = blake3::keyed_hash(&digest, &[&self.seed[..], &self.next_request.to_le_bytes()].concat());
        let suffix = crate::approval::hex(&random.as_bytes()[..5]);
        Ticket {
            id: TicketId(format!("{}-{suffix}", self.shard)),
            shard: self.shard as usize,
            relay: self.relay,
            session: self.identity.session().to_owned(),
            digest,
            user: principal.user.clone(),
            groups: principal.groups.clone(),
            actor: principal.actor.clone(),
            target: self.identity.target().to_owned(),
            statement: statement.to_string(),
            binds,
            rule: rule.to_string(),
            approvers: terms.approvers.clone(),
            count: terms.count,
            own: terms.own,
            asked_at_us: cx.now.unix_us,
            expires_at_us: self.asks_until(terms, cx.now),
        }
    }
}

/// Could anything in a result of this session be masked?
pub(super) fn masks_anything(view: &View) -> bool {
    view.detect.is_some() || !view.column_masks.is_empty()
}
