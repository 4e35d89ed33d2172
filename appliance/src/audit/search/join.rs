//! Makes records of the trail's rows, in whatever order shards and archive hand them over.

use super::filter::Filter;
use super::record::Record;
use crate::audit::record::{Kind, View};
use std::collections::{BTreeMap, HashMap};

/// Time, shard and sequence: the order of records.
pub(super) type Place = (i64, u32, u64);

/// Makes records of views, of all shards and of the archive alike.
pub(in crate::audit) struct Joiner<'f> {
    pub(super) filter: &'f Filter,
    payloads: bool,
    /// Statements that match and still run: (session, request) -> where they are found.
    open: HashMap<(String, u64), Place>,
    found: BTreeMap<Place, Record>,
    /// Only so many are kept, the newest; where ends decide what matches, only at the end.
    newest: usize,
    /// Records found and parts joined to them.
    pub(super) taken: u64,
    /// Per shard the last sequence that was seen: what has been archived meanwhile is not taken twice.
    seen: HashMap<u32, u64>,
}

impl<'f> Joiner<'f> {
    pub(super) fn new(filter: &'f Filter, newest: Option<usize>, payloads: bool) -> Self {
        let (open, found, seen) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { filter, payloads, open, found, newest: newest.unwrap_or(usize::MAX), taken: 0, seen }
    }

    pub(in crate::audit) fn wants_payloads(&self) -> bool {
        self.payloads
    }

    /// Statements were found that still wait for their outcome.
    pub(in crate::audit) fn awaits(&self) -> bool {
        !self.open.is_empty()
    }

    /// Sessions and requests of those.
    pub(in crate::audit) fn awaited(&self) -> impl Iterator<Item = (&str, i64)> {
        self.open.keys().map(|(session, request)| (session.as_str(), *request as i64))
    }

    /// Nothing more is to come of this session.
    pub(in crate::audit) fn session_ended(&mut self, session: &str) {
        self.open.retain(|(open, _), _| open != session);
    }

    /// Everything of the shard up to this sequence has been seen.
    pub(super) fn saw(&mut self, shard: u32, sequence: u64) {
        let seen = self.seen.entry(shard).or_default();
        *seen = sequence.max(*seen);
    }

    pub(in crate::audit) fn take(&mut self, shard: u32, sequence: u64, view: &View<'_>) {
        if self.seen.get(&shard).is_some_and(|seen| sequence <= *seen) {
            return;
        }
        if !self.open.is_empty() && view.request() != 0 {
            self.join(view);
        }
        if !self.filter.admits(view) {
            return;
        }
        let Some(record) = Record::new(shard, sequence, view) else { return };
        if !self.filter.admits_record(&record) {
            return;
        }
        if record.complete && !self.filter.admits_joined(&record) {
            return;
        }
        let place = (record.time_us, shard, sequence);
        if !record.complete {
            self.open.insert((record.session.clone(), record.request), place);
        }
        self.found.insert(place, record);
        self.taken += 1;
        if self.found.len() > self.newest
            && !self.filter.waits_for_ends()
            && let Some((_, record)) = self.found.pop_first()
        {
            self.open.remove(&(record.session, record.request));
        }
    }

    /// Everything was handed over: what matches, in order.
    pub(super) fn into_records(mut self) -> Vec<Record> {
        self.found.retain(|_, record| self.filter.admits_joined(record));
        let surplus = self.found.len().saturating_sub(self.newest);
        self.found.into_values().skip(surplus).collect()
    }

    fn join(&mut self, view: &View<'_>) {
        let key = (view.who().session().to_owned(), view.request());
        let Some(place) = self.open.get(&key) else { return };
        let Some(record) = self.found.get_mut(place) else { return };
        self.taken += 1;
        match view {
            View::Outcome(row) => record.add_outcome(row, self.payloads),
            View::Event(Kind::Ruling, row) => record.add_ruling(row),
            View::Request(_) | View::Event(..) => {}
        }
        if record.complete {
            if !self.filter.admits_joined(record) {
                self.found.remove(place);
            }
            self.open.remove(&key);
        }
    }
}
