//! The replies that are still to come, in order: what the target's next message answers.
//!
//! One entry a forwarded message. An ErrorResponse to a message of the extended protocol makes the target skip everything up
//! to the next Sync, so the entries up to there are taken back, newest first, and what they did to the [`Book`] with them.
//!
//! COPY FROM STDIN bends the rule: while the target reads copy data it *ignores* Sync (manual, 55.2.6, for clients that
//! send Sync behind every Execute: libpq does). A Sync forwarded before the client's CopyDone is therefore `doubtful`: it
//! is certainly ignored when the copy succeeds; when the copy fails it may have been ignored or may be the end of the
//! skipping. The next reply tells: anything but ReadyForQuery means the doubtful ones were ignored. Where doubt would touch
//! which statement a row belongs to, the connection closes instead.

use super::book::{Book, Name, Portal, Statement};
use super::{End, Outcome, ProtocolError};
use crate::Side;
use std::collections::VecDeque;
use std::rc::Rc;

/// Outstanding replies of one session. Beyond: the client waits until the target has answered some.
const OUTSTANDING_MAX: usize = 16_384;

/// What one outstanding entry awaits.
#[derive(Debug)]
pub(super) enum Expected<T> {
    /// ParseComplete.
    Parse { name: Name, statement: Rc<Statement<T>>, before: Option<Rc<Statement<T>>> },
    /// BindComplete.
    Bind { name: Name, portal: Rc<Portal<T>>, before: Option<Rc<Portal<T>>> },
    /// ParameterDescription, then RowDescription or NoData. `ours`: the client does not know of it and sees no reply.
    DescribeStatement { statement: Rc<Statement<T>>, ours: bool },
    /// RowDescription or NoData. `ours`: as above.
    /// `tag`: of the Execute that we ask for.
    DescribePortal { portal: Rc<Portal<T>>, ours: bool, tag: Option<T> },
    /// Rows or copy data, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    /// `tag`: what it was found to do when it came, which may be something else than when it was prepared (EXECUTE, FETCH).
    Execute { id: u64, tag: T, portal: Rc<Portal<T>>, names: Definitions<T> },
    /// CloseComplete, of a statement.
    CloseStatement { name: Name, before: Option<Rc<Statement<T>>> },
    /// CloseComplete, of a portal.
    ClosePortal { name: Name, before: Option<Rc<Portal<T>>> },
    /// ReadyForQuery. `ran`: an Execute came since the Sync before. `segment`: the one it ends.
    Sync { ran: bool, doubtful: bool, segment: u64 },
    /// Results of any number of statements, then ReadyForQuery. `done`: an outcome has been marked as the last.
    Query { id: u64, tag: T, done: bool, unnamed: Option<Rc<Statement<T>>>, names: Definitions<T>, segment: u64 },
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall { id: u64, done: bool, segment: u64 },
    /// No reply: that many CopyDone or CopyFail were forwarded here.
    CopyEnd { count: u32 },
    /// A refusal of ours, to be sent when everything before it is answered. The bytes are complete messages.
    Refused { bytes: Box<[u8]> },
    /// A refusal that aborts the transaction: the target's ErrorResponse to the impossible Describe becomes these bytes.
    Aborting { bytes: Box<[u8]> },
    /// The same for a Query or FunctionCall: ErrorResponse, which becomes these bytes (none are left then), then
    /// ReadyForQuery.
    AbortingQuery { bytes: Option<Box<[u8]>>, unnamed: Option<Rc<Statement<T>>>, segment: u64 },
}

/// What the entry at the front is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    /// CopyInResponse has come.
    CopyIn,
    /// CopyOutResponse has come. `code`: each payload is watched under it (0: none is).
    CopyOut { binary: bool, code: u8 },
    /// CopyBothResponse has come (replication): copy data both ways.
    CopyBoth,
}

/// Whether the target throws away what the client sends, because of an error it awaits a Sync after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Skipping {
    #[default]
    No,
    Yes,
    /// It does unless it counted a doubtful Sync: then a ReadyForQuery is on its way.
    Doubtful,
}

/// Outstanding replies, and what follows from them for the two ends.
#[derive(Debug)]
pub(super) struct Queue<T> {
    entries: VecDeque<Expected<T>>,
    pub mode: Mode,
    /// What the client's messages meet.
    pub skipping: Skipping,
    /// An Execute was forwarded since the last Sync.
    pub ran: bool,
    /// Anything was that the target analyses, plans or runs: a constant, a default or a parameter may call a function on the way, and that
    /// may change settings.
    pub analysed: bool,
    /// Counts what ReadyForQuery answers (Sync, Query, FunctionCall): what is forwarded now belongs to this segment. The first is 1.
    segment: u64,
    /// What was forwarded in this segment, or before, has been answered.
    settled: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            mode: Mode::Plain,
            skipping: Skipping::No,
            ran: false,
            analysed: false,
            segment: 1,
            settled: 0,
        }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub fn front(&self) -> Option<&Expected<T>> {
        self.entries.front()
    }

    /// The mark of the statement whose replies are due next.
    #[inline]
    pub fn executing(&self) -> Option<&T> {
        match self.front()? {
            Expected::Query { tag, .. } | Expected::Execute { tag, .. } => Some(tag),
            Expected::DescribePortal { tag: Some(tag), .. } => Some(tag),
            Expected::DescribePortal { portal, .. } => portal.statement.tag.as_ref(),
            Expected::DescribeStatement { statement, .. } => statement.tag.as_ref(),
            _ => None,
        }
    }

    /// The mark of the statement that an error or notice is about which comes now.
    pub fn told_of(&self) -> Option<&T> {
        match self.front()? {
            Expected::Parse { statement, .. } => statement.tag.as_ref(),
            Expected::Bind { portal, .. } => portal.statement.tag.as_ref(),
            _ => self.executing(),
        }
    }

    /// Behind the front entry comes a Sync that has been forwarded, past Closes, which run nothing: what the target says next tells
    /// whether that committed.
    #[inline]
    pub fn is_in_front_of_sync(&self) -> bool {
        let closes =
            |entry: &&Expected<T>| matches!(entry, Expected::ClosePortal { .. } | Expected::CloseStatement { .. });
        let next = self.entries.iter().skip(1).find(|entry| !closes(entry));
        matches!(next, Some(Expected::Sync { doubtful: false, .. }))
    }

    /// The front entry is one that the target sends nothing for.
    #[inline]
    pub fn front_is_unasked(&self) -> bool {
        matches!(self.entries.front(), Some(Expected::Refused { .. } | Expected::CopyEnd { .. }))
    }

    /// Nothing is outstanding: the room for it is given back.
    pub fn rest(&mut self) {
        self.entries.shrink_to_fit();
    }

    pub fn front_mut(&mut self) -> Option<&mut Expected<T>> {
        self.entries.front_mut()
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= OUTSTANDING_MAX
    }

    #[inline]
    pub fn push(&mut self, entry: Expected<T>) {
        self.entries.push_back(entry);
    }

    /// The front entry is answered.
    #[inline]
    pub fn pop(&mut self) -> Option<Expected<T>> {
        self.mode = Mode::Plain;
        let popped = self.entries.pop_front();
        if let Some(segment) = popped.as_ref().and_then(Expected::segment) {
            self.settled = segment;
        }
        popped
    }

    /// The segment of what is forwarded now.
    #[inline]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// What is forwarded now ends the segment, whose number is returned.
    #[inline]
    pub fn end_segment(&mut self) -> u64 {
        self.segment += 1;
        self.segment - 1
    }

    /// Something before this segment may be unanswered.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.settled + 1 < self.segment
    }

    /// What was named in that segment may have been refused, and what is forwarded now would run all the same: a Sync is
    /// between them.
    #[inline]
    pub fn is_in_doubt(&self, since: u64) -> bool {
        since > self.settled && since < self.segment && self.awaits_ready()
    }

    /// ReadyForQuery is on its way. For a Sync in doubt it may not be: what was forwarded in front of it counts as being in the segment behind.
    pub fn awaits_ready(&self) -> bool {
        let certain = |entry: &Expected<T>| !matches!(entry, Expected::Sync { doubtful: true, .. });
        self.entries.iter().any(|entry| certain(entry) && entry.segment().is_some())
    }

    /// Nothing is outstanding, but perhaps for Syncs that may have been ignored.
    pub fn is_idle(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| matches!(entry, Expected::Sync { doubtful: true, .. } | Expected::CopyEnd { .. }))
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Something outstanding can be part of a transaction, or decide whether one is open.
    pub fn is_unsettled(&self) -> bool {
        self.ran
            || self.entries.iter().any(|entry| match entry {
                Expected::Execute { .. }
                | Expected::Query { .. }
                | Expected::FunctionCall { .. }
                | Expected::Aborting { .. }
                | Expected::AbortingQuery { .. } => true,
                Expected::Sync { ran, doubtful, .. } => *ran || *doubtful,
                Expected::Parse { .. }
                | Expected::Bind { .. }
                | Expected::DescribeStatement { .. }
                | Expected::DescribePortal { .. }
                | Expected::CloseStatement { .. }
                | Expected::ClosePortal { .. }
                | Expected::CopyEnd { .. }
                | Expected::Refused { .. } => false,
            })
    }

    /// Messages of the extended protocol have been forwarded and no Sync behind them.
    pub fn is_inside_pipeline(&self) -> bool {
        !matches!(
            self.entries.iter().rev().find(|entry| !matches!(entry, Expected::CopyEnd { .. })),
            None | Some(
                Expected::Sync { .. }
                    | Expected::Query { .. }
                    | Expected::FunctionCall { .. }
                    | Expected::AbortingQuery { .. }
                    | Expected::Refused { .. }
            )
        )
    }

    /// The client's CopyDone or CopyFail was forwarded. Where nothing is outstanding the target drops it.
    pub fn push_copy_end(&mut self) {
        match self.entries.back_mut() {
            Some(Expected::CopyEnd { count }) => *count = count.saturating_add(1),
            Some(_) => self.push(Expected::CopyEnd { count: 1 }),
            None => {}
        }
    }

    /// The client's Sync was forwarded: the end of any skipping.
    #[inline]
    pub fn push_sync(&mut self) {
        let doubtful = self.mode == Mode::CopyIn && self.copy_end().is_none();
        let segment = self.end_segment();
        self.push(Expected::Sync { ran: self.ran, doubtful, segment });
        if !doubtful {
            self.skipping = Skipping::No;
            (self.ran, self.analysed) = (false, false);
        }
    }

    /// The target reads copy data and the client has not said that it ends: any other message is an error.
    pub fn awaits_copy_end(&self) -> bool {
        match self.mode {
            Mode::CopyIn => self.copy_end().is_none(),
            Mode::Plain | Mode::CopyOut { .. } | Mode::CopyBoth => false,
        }
    }

    /// Where the CopyDone or CopyFail of the copy at the front is, if the client has sent it.
    fn copy_end(&self) -> Option<usize> {
        self.entries.iter().position(|entry| matches!(entry, Expected::CopyEnd { .. }))
    }

    /// The front entry turned out to be COPY FROM STDIN: Syncs already sent behind it are doubtful from now on.
    pub fn start_copy_in(&mut self) -> Result<(), ProtocolError> {
        self.mode = Mode::CopyIn;
        for entry in self.entries.iter_mut().skip(1) {
            match entry {
                Expected::Sync { doubtful, .. } => *doubtful = true,
                Expected::CopyEnd { .. } => break,
                // Servers from 14 on lose synchronisation over it; older ones abort the copy.
                _ => return Err(ProtocolError::PipelinedBehindCopy),
            }
        }
        Ok(())
    }

    /// The copy at the front succeeded, so the target has read its CopyDone: Syncs before that were ignored.
    pub fn end_copy_in(&mut self) -> Result<(), ProtocolError> {
        let unexpected = ProtocolError::UnexpectedMessage { side: Side::Target, kind: b'C' };
        let end = self.copy_end().ok_or(unexpected)?;
        self.entries.drain(1..end);
        self.take_copy_end();
        self.mode = Mode::Plain;
        Ok(())
    }

    /// The copy stream at the front (replication) is over.
    pub fn end_copy_both(&mut self) {
        if matches!(self.entries.get(1), Some(Expected::CopyEnd { .. })) {
            self.take_copy_end();
        }
        self.mode = Mode::Plain;
    }

    /// Takes one CopyDone off the entry behind the front.
    fn take_copy_end(&mut self) {
        if let Some(Expected::CopyEnd { count }) = self.entries.get_mut(1) {
            *count -= 1;
            if *count == 0 {
                self.entries.remove(1);
            }
        }
    }

    /// Drops from the front what gets no reply: CopyDones nobody read, and, when a reply other than ReadyForQuery is
    /// here, Syncs that were in doubt and so turned out ignored.
    #[inline]
    pub fn settle_front(&mut self, kind: u8) {
        loop {
            match self.entries.front() {
                Some(Expected::CopyEnd { .. }) => drop(self.entries.pop_front()),
                Some(Expected::Sync { doubtful: true, .. }) if kind != b'Z' && self.other_follows() => {
                    drop(self.entries.pop_front())
                }
                _ => return,
            }
        }
    }

    /// Behind the Syncs at the front something else is outstanding.
    fn other_follows(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| !matches!(entry, Expected::CopyEnd { .. } | Expected::Sync { doubtful: true, .. }))
    }

    /// ReadyForQuery answers the Sync at the front. If that one was in doubt, so are the ones right behind it now:
    /// the reply may have been theirs.
    pub fn pop_sync(&mut self) {
        let popped = self.pop();
        if !matches!(popped, Some(Expected::Sync { doubtful: true, .. })) {
            return;
        }
        if self.skipping == Skipping::Doubtful {
            self.skipping = Skipping::No;
        }
        for entry in &mut self.entries {
            match entry {
                Expected::Sync { doubtful, .. } => *doubtful = true,
                Expected::CopyEnd { .. } => {}
                _ => break,
            }
        }
    }

    /// An ErrorResponse to a message of the extended protocol at the front: the target skips to the next Sync.
    /// Executes among the skipped are reported; the front one itself failed, or what it was to run was not made.
    pub fn fail(
        &mut self,
        sqlstate: [u8; 5],
        book: &mut Book<T>,
        news: &mut VecDeque<Outcome>,
        counts: Counts,
    ) -> Result<(), ProtocolError> {
        let definite = self.entries.iter().position(|entry| matches!(entry, Expected::Sync { doubtful: false, .. }));
        let doubtful = self.entries.iter().position(|entry| matches!(entry, Expected::Sync { doubtful: true, .. }));
        let end = definite.unwrap_or(self.entries.len());
        let end = match doubtful.filter(|&first| first < end) {
            None => end,
            Some(first) => {
                let replies = self.entries.range(first..end);
                if replies.into_iter().any(|entry| !matches!(entry, Expected::Sync { .. } | Expected::CopyEnd { .. })) {
                    return Err(ProtocolError::PipelinedBehindCopy);
                }
                first
            }
        };
        let failed =
            self.entries.front().and_then(|front| self.entries.range(..end).position(|entry| front.fails(entry)));
        for (index, entry) in self.entries.range(..end).enumerate() {
            let Some(id) = entry.id() else { continue };
            let counts = if index == 0 { counts } else { Counts::default() };
            let how = if failed == Some(index) { End::Error { sqlstate } } else { End::Skipped };
            news.push_back(counts.outcome(id, how, true));
        }
        let kept = self.entries.split_off(end);
        while let Some(entry) = self.entries.pop_back() {
            entry.take_back(book);
        }
        self.entries.extend(kept);
        self.mode = Mode::Plain;
        if definite.is_none() {
            self.skipping = if doubtful.is_some() { Skipping::Doubtful } else { Skipping::Yes };
        }
        Ok(())
    }

    /// The Query or FunctionCall at the front failed. Returns its id, and whether its last outcome is still to be told.
    pub fn fail_front(&mut self, book: &mut Book<T>) -> Option<(u64, bool)> {
        match self.entries.front_mut()? {
            Expected::Query { id, done, names, .. } => {
                std::mem::take(names).fail(book);
                Some((*id, !std::mem::replace(done, true)))
            }
            Expected::FunctionCall { id, done, .. } => Some((*id, !std::mem::replace(done, true))),
            _ => None,
        }
    }

    /// What the target says of the statement at the front will not be heard. Returns its id if its last outcome is still
    /// to be told.
    pub fn give_up_front(&mut self) -> Option<u64> {
        self.mode = Mode::Plain;
        self.entries.pop_front().and_then(|entry| entry.id())
    }

    /// Ids of everything outstanding; nothing is expected any more.
    pub fn abandon(&mut self) -> impl Iterator<Item = u64> + use<'_, T> {
        self.mode = Mode::Plain;
        self.entries.drain(..).filter_map(|entry| entry.id())
    }
}

impl<T> Expected<T> {
    /// When the target refuses this one, that Execute is what it was for.
    fn fails(&self, execute: &Self) -> bool {
        let Expected::Execute { portal: ran, .. } = execute else { return false };
        match self {
            Expected::Parse { statement, .. } | Expected::DescribeStatement { statement, .. } => {
                Rc::ptr_eq(statement, &ran.statement)
            }
            Expected::Bind { portal, .. }
            | Expected::DescribePortal { portal, .. }
            | Expected::Execute { portal, .. } => Rc::ptr_eq(portal, ran),
            _ => false,
        }
    }

    /// The id whose last outcome is still to come.
    pub fn id(&self) -> Option<u64> {
        match self {
            Expected::Execute { id, .. } => Some(*id),
            Expected::Query { id, done, .. } | Expected::FunctionCall { id, done, .. } => (!done).then_some(*id),
            Expected::Parse { .. }
            | Expected::Bind { .. }
            | Expected::DescribeStatement { .. }
            | Expected::DescribePortal { .. }
            | Expected::CloseStatement { .. }
            | Expected::ClosePortal { .. }
            | Expected::Sync { .. }
            | Expected::CopyEnd { .. }
            | Expected::Refused { .. }
            | Expected::Aborting { .. }
            | Expected::AbortingQuery { .. } => None,
        }
    }

    /// The segment that it ends.
    #[inline]
    fn segment(&self) -> Option<u64> {
        match self {
            Expected::Sync { segment, .. }
            | Expected::Query { segment, .. }
            | Expected::FunctionCall { segment, .. }
            | Expected::AbortingQuery { segment, .. } => Some(*segment),
            Expected::Parse { .. }
            | Expected::Bind { .. }
            | Expected::DescribeStatement { .. }
            | Expected::DescribePortal { .. }
            | Expected::Execute { .. }
            | Expected::CloseStatement { .. }
            | Expected::ClosePortal { .. }
            | Expected::CopyEnd { .. }
            | Expected::Refused { .. }
            | Expected::Aborting { .. } => None,
        }
    }

    /// The target refused or skipped it: the names mean what they meant before.
    fn take_back(self, book: &mut Book<T>) {
        match self {
            Expected::Parse { name, statement, before } => {
                statement.refuse();
                book.restore_statement(&name, Some(&statement), before)
            }
            Expected::CloseStatement { name, before } => book.restore_statement(&name, None, before),
            Expected::Query { unnamed, names, .. } => {
                names.take_back(book);
                book.restore_statement(b"", None, unnamed);
            }
            Expected::AbortingQuery { unnamed, .. } => book.restore_statement(b"", None, unnamed),
            Expected::Execute { names, .. } => names.take_back(book),
            Expected::Bind { name, portal, before } => {
                portal.refuse();
                book.restore_portal(&name, Some(&portal), before)
            }
            Expected::ClosePortal { name, before } => book.restore_portal(&name, None, before),
            Expected::DescribeStatement { .. }
            | Expected::DescribePortal { .. }
            | Expected::Sync { .. }
            | Expected::FunctionCall { .. }
            | Expected::CopyEnd { .. }
            | Expected::Refused { .. }
            | Expected::Aborting { .. } => {}
        }
    }
}

/// Names that a request's SQL gives or takes (PREPARE, DEALLOCATE): taken back when it fails.
#[derive(Debug)]
pub(super) struct Definitions<T> {
    changes: Vec<Change<T>>,
    /// A statement of the Query has ended well: it may be the one that changed the names.
    pub one_ended: bool,
}

#[derive(Debug)]
struct Change<T> {
    name: Name,
    now: Option<Rc<Statement<T>>>,
    before: Option<Rc<Statement<T>>>,
}

impl<T> Change<T> {
    fn refuse(&self) {
        self.now.iter().for_each(|statement| statement.refuse());
    }
}

impl<T> Default for Definitions<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Definitions<T> {
    pub const fn new() -> Self {
        Self { changes: Vec::new(), one_ended: false }
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.one_ended
    }

    pub fn note(&mut self, name: &[u8], now: Option<Rc<Statement<T>>>, before: Option<Rc<Statement<T>>>) {
        self.changes.push(Change { name: name.into(), now, before });
    }

    /// Nothing of the request ran.
    pub fn take_back(self, book: &mut Book<T>) {
        for change in self.changes.into_iter().rev() {
            change.refuse();
            book.restore_statement(&change.name, change.now.as_ref(), change.before);
        }
    }

    /// The request failed. If a part of it had ended, nobody can tell what the names mean now: they are unknown, and
    /// stay so (a later PREPARE of an existing name is refused by the target).
    fn fail(self, book: &mut Book<T>) {
        if !self.one_ended {
            return self.take_back(book);
        }
        for change in self.changes {
            change.refuse();
            let unknown = Some(Book::unseen());
            book.restore_statement(&change.name, change.now.as_ref(), unknown);
        }
    }
}

/// What has passed for the statement at the front.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub messages: u64,
    pub bytes: u64,
    /// Of the messages, those that went to the client. Set when they are taken.
    pub sent: u64,
}

impl Counts {
    pub const NONE: Self = Self { messages: 0, bytes: 0, sent: 0 };

    #[inline]
    pub fn add(&mut self, payload: usize) {
        self.messages += 1;
        self.bytes += payload as u64;
    }

    pub fn outcome(self, id: u64, end: End, last: bool) -> Outcome {
        Outcome { id, end, messages: self.messages, bytes: self.bytes, sent: self.sent, last }
    }
}
