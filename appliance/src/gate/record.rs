//! What a gate writes into the trail, and who it says it was.

use super::settings::Settings;
use super::{CLIENT_LEFT, Context, Gate, Origin, Retry};
use crate::audit::{Entry, Full, NOBODY, Outcome, OwnedWho, PackedWho, Who};
use crate::identity::Principal;
use crate::shard::mailbox::ToControl;
use codecs::postgres::Startup;
use std::sync::Arc;

/// Who and where, borrowed for every record: parts until the session is open, then as records begin with it.
pub(super) enum Identity {
    Told(Box<Told>),
    /// The control thread has it as well.
    Packed(Arc<PackedWho>),
}

pub(super) struct Told {
    who: OwnedWho,
    /// What the session begins with, for the record of its opening.
    settings: String,
}

impl Identity {
    pub fn new(origin: &Origin) -> Self {
        let session = crate::approval::hex(&origin.entropy[..8]);
        let who = OwnedWho { session, client: origin.client.to_string(), ..OwnedWho::default() };
        Self::Told(Box::new(Told { who, settings: String::new() }))
    }

    pub fn admit(&mut self, principal: &Principal) {
        let who = self.told();
        who.user = principal.user.clone();
        who.groups = principal.groups.clone();
        who.actor = principal.actor.clone();
    }

    /// What the start-up message claims.
    pub fn claim(&mut self, startup: &Startup) {
        let who = self.told();
        who.target.clone_from(&startup.database);
        who.application.clone_from(&startup.application_name);
        who.claimed_user.clone_from(&startup.user);
    }

    pub fn note_settings(&mut self, settings: &Settings) {
        if let Self::Told(told) = self {
            told.settings = settings.told();
        }
    }

    pub fn settings(&self) -> String {
        match self {
            Self::Told(told) => told.settings.clone(),
            Self::Packed(_) => String::new(),
        }
    }

    pub fn name_application(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let is_packed = match self {
            Self::Told(_) => false,
            // Most reports only confirm what the start-up message said.
            Self::Packed(packed) if packed.application() == name => return,
            Self::Packed(_) => true,
        };
        self.told().application = name.into_owned();
        if is_packed {
            self.pack();
        }
    }

    /// Its parts, to change them.
    fn told(&mut self) -> &mut OwnedWho {
        if let Self::Packed(packed) = self {
            *self = Self::Told(Box::new(Told { who: packed.unpacked(), settings: String::new() }));
        }
        match self {
            Self::Told(told) => &mut told.who,
            Self::Packed(_) => unreachable!("unpacked just above"),
        }
    }

    /// From here on it is seldom changed and often written.
    pub fn pack(&mut self) -> Arc<PackedWho> {
        match self {
            Self::Packed(packed) => packed.clone(),
            Self::Told(told) => {
                let packed = Arc::new(PackedWho::new(&told.who.who()));
                *self = Self::Packed(packed.clone());
                packed
            }
        }
    }

    #[inline]
    pub fn who(&self) -> Who<'_> {
        match self {
            Self::Told(told) => told.who.who(),
            Self::Packed(packed) => Who { packed: Some(packed), ..NOBODY },
        }
    }

    pub fn session(&self) -> &str {
        match self {
            Self::Told(told) => &told.who.session,
            Self::Packed(packed) => packed.session(),
        }
    }

    pub fn target(&self) -> &str {
        match self {
            Self::Told(told) => &told.who.target,
            Self::Packed(packed) => packed.target(),
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
            let left = &*self.end_reason == CLIENT_LEFT;
            let reason = if left { "the requester went away" } else { &*self.end_reason };
            let entry = Entry::Ruling { request: held.request, ticket: &ticket, ruling: "abandoned", by: "", reason };
            self.record(&entry, cx)?;
            self.held.as_mut().expect("just looked at").recorded = true;
        }
        if let Some(Retry::NotRun(not_run)) = self.retry_client.as_deref() {
            self.record(&not_run.entry(), cx)?;
            self.retry_client = None;
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
            cx.control.push(ToControl::SessionClosed(self.key()));
            cx.shared.counters.sessions.subtract(1);
        }
        Ok(())
    }
}
