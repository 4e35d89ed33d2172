//! What a gate writes into the trail, and who it says it was.

use super::{Context, Gate, Origin};
use crate::audit::{Entry, Full, Outcome, PackedWho, Who};
use crate::identity::Principal;
use codecs::postgres::Startup;

/// Who and where, owned once per session and borrowed for every record. Parts change only through methods here: they are
/// kept in the form that records begin with as well.
pub(super) struct Identity {
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub client: String,
    pub application: String,
    pub claimed_user: String,
    /// Made from the parts above by [`Self::repack`].
    packed: PackedWho,
}

impl Identity {
    pub fn new(origin: &Origin) -> Self {
        let mut identity = Self {
            session: crate::approval::hex(&origin.entropy[..8]),
            user: String::new(),
            groups: Vec::new(),
            actor: Vec::new(),
            target: String::new(),
            client: origin.client.to_string(),
            application: String::new(),
            claimed_user: String::new(),
            packed: PackedWho::default(),
        };
        identity.repack();
        identity
    }

    pub fn admit(&mut self, principal: &Principal) {
        self.user = principal.user.clone();
        self.groups = principal.groups.clone();
        self.actor = principal.actor.clone();
        self.repack();
    }

    /// What the start-up message claims.
    pub fn claim(&mut self, startup: &Startup) {
        self.target.clone_from(&startup.database);
        self.application.clone_from(&startup.application_name);
        self.claimed_user.clone_from(&startup.user);
        self.repack();
    }

    pub fn name_application(&mut self, name: &[u8]) {
        self.application = String::from_utf8_lossy(name).into_owned();
        self.repack();
    }

    fn repack(&mut self) {
        self.packed = PackedWho::new(&Who { packed: None, ..self.who() });
    }

    #[inline]
    pub fn who(&self) -> Who<'_> {
        Who {
            session: &self.session,
            user: &self.user,
            groups: &self.groups,
            actor: &self.actor,
            target: &self.target,
            client: &self.client,
            application: &self.application,
            claimed_user: &self.claimed_user,
            packed: Some(&self.packed),
        }
    }
}

/// Appends lower-case hexadecimal.
pub(super) fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

impl Gate {
    /// Appends one record about this session.
    pub(super) fn record(&self, entry: &Entry<'_>, cx: &mut Context<'_>) -> Result<(), Full> {
        cx.shared.counters.audit_records.add(1);
        cx.journal.append(cx.now.unix_us, &self.identity.who(), entry).inspect_err(|Full| {
            cx.shared.counters.journal_full.add(1);
        })
    }

    /// Records what a closing session still owes: the statement that was held, those that never ended, the end itself.
    /// Each is taken off its list only once it is written.
    pub(super) fn record_owed(&mut self, cx: &mut Context<'_>) -> Result<(), Full> {
        if let Some(held) = &self.held
            && !held.recorded
        {
            let ticket = held.ticket.to_string();
            let entry = Entry::Ruling {
                request: held.request,
                ticket: &ticket,
                ruling: "abandoned",
                by: "",
                reason: "the requester went away",
            };
            self.record(&entry, cx)?;
            self.held.as_mut().expect("just looked at").recorded = true;
        }
        // What the client has got of the oldest one's response. Tried again, it is still there.
        if !self.open.is_empty() {
            self.session.end_response();
        }
        while let Some(open) = self.open.front() {
            let response = self.session.response();
            let (rows, bytes) = self.session.sent(open.id);
            let entry = Entry::Outcome(Outcome {
                request: open.id,
                rows,
                bytes,
                duration_us: cx.now.mono_us.saturating_sub(open.started_us),
                error: "disconnected",
                masked: open.masked,
                more: false,
                payload: response.bytes,
                payload_cut: response.cut,
            });
            self.record(&entry, cx)?;
            self.session.forget_response();
            self.open.pop_front();
        }
        if self.recorded_open {
            let entry = Entry::SessionClosed {
                reason: &self.end_reason,
                duration_us: cx.now.mono_us.saturating_sub(self.opened_us),
                statements: self.statements,
            };
            self.record(&entry, cx)?;
            self.recorded_open = false;
            cx.control.push(crate::shard::mailbox::ToControl::SessionClosed { id: self.identity.session.clone() });
            cx.shared.counters.sessions.subtract(1);
        }
        Ok(())
    }
}
