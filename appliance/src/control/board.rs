//! The tickets: who may rule, when a ticket has ended, and what is posted to the shard that waits. Pure.
//!
//! ```text
//!   ask --> Pending --+-- count distinct approvals --> Approved
//!                     +-- one rejection -------------> Rejected
//!                     +-- its time is up ------------> Expired
//!                     +-- the requester goes away ---> Abandoned
//! ```
//! Every end is posted exactly once; nothing leads out of an end.

use super::limits::{TICKET_KEPT_TEXT_BYTES_MAX, TICKETS_ENDED_KEPT, TICKETS_PENDING_BYTES_MAX, TICKETS_PENDING_MAX};
use crate::approval::{Ruling, Ticket, TicketId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};

/// Somebody who wants to rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruler {
    /// A token was believed. `actor`: through whom the user speaks, if not themselves. `agent`: one of them is more than the
    /// application that the token was issued to.
    Token { user: String, groups: Vec<String>, actor: Vec<String>, agent: bool },
    /// The owner of the control socket, by the kernel's word. The name is the operating system's.
    Local { user: String },
}

impl Ruler {
    /// As it is recorded.
    pub fn name(&self) -> String {
        match self {
            Ruler::Token { user, actor, .. } if actor.is_empty() => user.clone(),
            Ruler::Token { user, actor, .. } => format!("{user} via {}", actor.join(", ")),
            Ruler::Local { user } => format!("local:{user}"),
        }
    }

    /// Two rulings with the same key count as one person's: case and the way of proof make nobody a second person.
    fn person(&self) -> String {
        let (Ruler::Token { user, .. } | Ruler::Local { user }) = self;
        person_key(user)
    }

    fn is_among(&self, approvers: &[String]) -> bool {
        approvers.iter().any(|approver| match self {
            Ruler::Local { .. } => approver == LOCAL,
            // A group or a user that calls itself `local` does not become the socket's owner.
            Ruler::Token { .. } if approver == LOCAL => false,
            Ruler::Token { user, groups, .. } => approver == user || groups.contains(approver),
        })
    }
}

/// The approver that stands for the owner of the control socket.
pub const LOCAL: &str = "local";

fn person_key(user: &str) -> String {
    user.trim().to_lowercase()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Approve,
    Reject,
}

/// One person's approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vote {
    pub by: String,
    pub reason: String,
    /// Unix microseconds.
    pub at_us: i64,
    #[serde(default)]
    person: String,
}

/// A ticket, what was said about it and how it ended.
#[derive(Clone, Debug)]
pub struct Case {
    pub ticket: Ticket,
    pub votes: Vec<Vote>,
    /// With the time in Unix microseconds. `None`: it waits. Never changed once set.
    pub end: Option<(Ruling, i64)>,
}

impl Case {
    /// `pending approved rejected expired abandoned`
    pub fn state(&self) -> &'static str {
        self.end.as_ref().map_or("pending", |(ruling, _)| ruling.name())
    }

    fn bytes(&self) -> usize {
        self.ticket.statement.len() + self.ticket.binds.iter().flatten().map(String::len).sum::<usize>()
    }
}

/// Why a ruling was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    #[error("no such ticket")]
    Unknown,
    #[error("the ticket has ended already: {0}")]
    Ended(&'static str),
    #[error("{who} is not among the approvers: {approvers}")]
    NotAnApprover { who: String, approvers: String },
    #[error("{0} speaks through an agent: a person rules with a token of their own")]
    Agent(String),
    #[error("the requester may not rule on their own statement")]
    OwnRequest,
    #[error("{0} has approved this ticket already; another person has to")]
    SecondVote(String),
}

/// What the caller has to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// To the shard that holds the statement.
    Post { shard: usize, relay: u64, ticket: TicketId, ruling: Ruling },
    /// Into the ticket file.
    Note(Note),
}

/// What survives a restart, beside the ticket itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    Vote { id: TicketId, vote: Vote },
    Ended { id: TicketId, ruling: Ruling, at_us: i64 },
}

/// Why a ticket could not even be put up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskError {
    /// Its id is taken: the first one stands.
    Duplicate,
    Full,
}

#[derive(Default)]
pub struct Board {
    cases: HashMap<TicketId, Case>,
    pending: usize,
    pending_bytes: usize,
    /// Oldest first: the order in which they are forgotten.
    ended: VecDeque<TicketId>,
    effects: Vec<Effect>,
}

impl Board {
    /// Could this ticket be put up? Asked before it is written to the file.
    pub fn admits(&self, ticket: &Ticket) -> Result<(), AskError> {
        if self.cases.contains_key(&ticket.id) {
            return Err(AskError::Duplicate);
        }
        let bytes = ticket.statement.len() + ticket.binds.iter().flatten().map(String::len).sum::<usize>();
        if self.pending >= TICKETS_PENDING_MAX || self.pending_bytes + bytes > TICKETS_PENDING_BYTES_MAX {
            return Err(AskError::Full);
        }
        Ok(())
    }

    /// Puts up a ticket that [`Board::admits`].
    pub fn ask(&mut self, ticket: Ticket) {
        let case = Case { ticket, votes: Vec::new(), end: None };
        self.pending += 1;
        self.pending_bytes += case.bytes();
        let replaced = self.cases.insert(case.ticket.id.clone(), case);
        assert!(replaced.is_none(), "a ticket never takes another's place");
    }

    /// Takes one person's word. `Ok`: it counted; the case tells what came of it.
    pub fn rule(
        &mut self,
        id: &TicketId,
        ruler: &Ruler,
        verdict: Verdict,
        reason: String,
        now_us: i64,
    ) -> Result<&Case, RuleError> {
        self.expire(now_us);
        let case = self.cases.get_mut(id).ok_or(RuleError::Unknown)?;
        if let Some((ruling, _)) = &case.end {
            return Err(RuleError::Ended(ruling.name()));
        }
        may_rule(ruler, &case.ticket)?;
        let ruling = match verdict {
            Verdict::Reject => Ruling::Rejected { by: ruler.name(), reason },
            Verdict::Approve => {
                let vote = Vote { by: ruler.name(), reason, at_us: now_us, person: ruler.person() };
                match approve(case, vote.clone())? {
                    Some(ruling) => ruling,
                    None => {
                        self.effects.push(Effect::Note(Note::Vote { id: id.clone(), vote }));
                        return Ok(&self.cases[id]);
                    }
                }
            }
        };
        self.end(id, ruling, now_us);
        Ok(&self.cases[id])
    }

    /// The held statement's client is gone, or has cancelled it.
    pub fn abandon(&mut self, id: &TicketId, now_us: i64) {
        if self.cases.get(id).is_some_and(|case| case.end.is_none()) {
            self.end(id, Ruling::Abandoned, now_us);
        }
    }

    /// A shard ended: nobody holds its statements any more.
    pub fn abandon_shard(&mut self, shard: usize, now_us: i64) {
        for id in self.pending_where(|ticket| ticket.shard == shard) {
            self.end(&id, Ruling::Abandoned, now_us);
        }
    }

    /// Ends what is past its time.
    pub fn expire(&mut self, now_us: i64) {
        for id in self.pending_where(|ticket| ticket.expires_at_us <= now_us) {
            self.end(&id, Ruling::Expired, now_us);
        }
    }

    /// When [`Board::expire`] has something to do. Unix microseconds.
    pub fn next_expiry_us(&self) -> Option<i64> {
        self.cases.values().filter(|case| case.end.is_none()).map(|case| case.ticket.expires_at_us).min()
    }

    pub fn case(&self, id: &TicketId) -> Option<&Case> {
        self.cases.get(id)
    }

    /// In the order they were asked.
    pub fn cases(&self, pending_only: bool) -> Vec<&Case> {
        let mut cases: Vec<_> = self.cases.values().filter(|case| !pending_only || case.end.is_none()).collect();
        cases.sort_by(|a, b| (a.ticket.asked_at_us, &a.ticket.id).cmp(&(b.ticket.asked_at_us, &b.ticket.id)));
        cases
    }

    pub fn pending(&self) -> usize {
        self.pending
    }

    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A board after a restart: what waited is expired, whatever was said about it; nothing is posted.
    pub fn restore(cases: Vec<Case>, now_us: i64) -> Self {
        let mut board = Board::default();
        for case in cases {
            let (id, end) = (case.ticket.id.clone(), case.end.unwrap_or((Ruling::Expired, now_us)));
            if board.cases.insert(id.clone(), Case { end: Some(end), ..case }).is_none() {
                board.remember_ended(id);
            }
        }
        board
    }

    fn pending_where(&self, wanted: impl Fn(&Ticket) -> bool) -> Vec<TicketId> {
        let pending = self.cases.values().filter(|case| case.end.is_none());
        pending.filter(|case| wanted(&case.ticket)).map(|case| case.ticket.id.clone()).collect()
    }

    /// The only way into an end.
    fn end(&mut self, id: &TicketId, ruling: Ruling, now_us: i64) {
        let case = self.cases.get_mut(id).expect("the caller has just found it");
        assert!(case.end.is_none(), "a ticket ends once");
        case.end = Some((ruling.clone(), now_us));
        self.pending -= 1;
        self.pending_bytes -= case.bytes();
        // Nobody rules on it any more: what is remembered is history, a thousand times.
        case.ticket = case.ticket.shortened(TICKET_KEPT_TEXT_BYTES_MAX);
        let (shard, relay) = (case.ticket.shard, case.ticket.relay);
        self.effects.push(Effect::Note(Note::Ended { id: id.clone(), ruling: ruling.clone(), at_us: now_us }));
        self.effects.push(Effect::Post { shard, relay, ticket: id.clone(), ruling });
        self.remember_ended(id.clone());
    }

    fn remember_ended(&mut self, id: TicketId) {
        self.ended.push_back(id);
        if self.ended.len() > TICKETS_ENDED_KEPT
            && let Some(oldest) = self.ended.pop_front()
        {
            self.cases.remove(&oldest);
        }
    }
}

fn may_rule(ruler: &Ruler, ticket: &Ticket) -> Result<(), RuleError> {
    // What is held waits for a person, and agents are whom it is held for.
    if matches!(ruler, Ruler::Token { agent: true, .. }) {
        return Err(RuleError::Agent(ruler.name()));
    }
    if !ruler.is_among(&ticket.approvers) {
        let approvers = ticket.approvers.join(", ");
        return Err(RuleError::NotAnApprover { who: ruler.name(), approvers });
    }
    if !ticket.own && ruler.person() == person_key(&ticket.user) {
        return Err(RuleError::OwnRequest);
    }
    Ok(())
}

/// Counts a vote; the ruling when it was the last one needed.
fn approve(case: &mut Case, vote: Vote) -> Result<Option<Ruling>, RuleError> {
    if case.votes.iter().any(|earlier| earlier.person == vote.person) {
        return Err(RuleError::SecondVote(vote.by));
    }
    case.votes.push(vote);
    if case.votes.len() < case.ticket.count.max(1) as usize {
        return Ok(None);
    }
    let by = case.votes.iter().map(|vote| vote.by.clone()).collect();
    let reasons: Vec<_> = case.votes.iter().map(|vote| vote.reason.as_str()).filter(|text| !text.is_empty()).collect();
    Ok(Some(Ruling::Approved { by, reason: reasons.join("; ") }))
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
