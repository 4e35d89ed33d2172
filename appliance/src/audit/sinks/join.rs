//! Records of the trail -> events: a statement with what came of it is one.
//!
//! When a statement is told is decided by the trail alone, never by a clock: at its last outcome; at once when it was denied; at the
//! ruling that refused it; at the latest when its session closed or the gateway started again. A reader that begins anew behind
//! a position therefore makes the same events.

use super::position::{Place, Position};
use crate::audit::ocsf;
use crate::audit::printable::json_safe;
use crate::audit::record::{Kind, View};
use crate::audit::search::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Statement texts and binds of what runs, of all shards. Beyond: the oldest are told as running, and their end is not.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// What a receiver gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub shard: u32,
    /// Of the record it tells of.
    pub sequence: u64,
    /// Of the record that completed it: what has to be read again until it is delivered.
    pub completed_by: u64,
    pub time_us: i64,
    /// The same for ever.
    pub uid: String,
    /// Empty: of no session.
    pub session: String,
    pub class: &'static str,
    pub severity: u64,
    /// The OCSF event: JSON without a line end or any other control character.
    pub json: String,
}

#[derive(Default)]
struct Shard {
    next: u64,
    /// The last one taken: a source that tells something twice, from the archive and from a segment, is heard once.
    taken: u64,
    /// Before `next`: told when they end. Their texts are read again after a start.
    resumed: BTreeSet<u64>,
    /// (session, request) -> what is known so far.
    open: HashMap<(String, u64), Record>,
}

pub struct Joiner {
    appliance: String,
    shards: BTreeMap<u32, Shard>,
    open_bytes: usize,
    pub open_bytes_max: usize,
    /// Records that were never seen although later ones were.
    pub missed: u64,
}

fn text_bytes(record: &Record) -> usize {
    let binds: usize = record.binds.iter().flatten().map(String::len).sum();
    512 + record.statement.as_ref().map_or(0, String::len) + binds
}

impl Joiner {
    pub fn new(appliance: String, position: &Position) -> Self {
        let shard = |place: &Place| Shard { next: place.next, resumed: place.open.clone(), ..Shard::default() };
        let shards = position.shards.iter().map(|(&number, place)| (number, shard(place))).collect();
        Self { appliance, shards, open_bytes: 0, open_bytes_max: OPEN_BYTES_MAX, missed: 0 }
    }

    /// Takes the next record of a shard; what it completes is pushed.
    pub fn take(&mut self, number: u32, sequence: u64, view: &View<'_>, events: &mut dyn FnMut(Event)) {
        let shard = self.shards.entry(number).or_default();
        if sequence <= shard.taken {
            return;
        }
        shard.taken = sequence;
        let new = sequence >= shard.next;
        if new {
            // A trail whose oldest part is gone begins where it begins.
            self.missed += if shard.next == 0 { 0 } else { sequence - shard.next };
            shard.next = sequence.saturating_add(1);
        } else if view.kind() == Kind::Request && !shard.resumed.remove(&sequence) {
            return;
        }
        let mut done = shard.join(view);
        if new && ends_all(view) {
            done.extend(shard.open.drain().map(|(_, record)| record));
        }
        done.sort_by_key(|record| record.sequence);
        self.open_bytes -= done.iter().map(text_bytes).sum::<usize>();
        match Record::new(number, sequence, view) {
            Some(record) if record.kind == "statement" && record.decision.as_deref() != Some("deny") => {
                self.open_bytes += text_bytes(&record);
                shard.open.insert((record.session.clone(), view.request()), record);
            }
            Some(mut record) if new => {
                record.complete = true;
                done.push(record);
            }
            Some(_) | None => {}
        }
        done.into_iter().for_each(|record| events(self.event(&record, sequence)));
        self.shed(number, sequence, events);
    }

    fn event(&self, record: &Record, completed_by: u64) -> Event {
        let event = ocsf::event(record, Some(&self.appliance));
        Event {
            shard: record.shard,
            sequence: record.sequence,
            completed_by,
            time_us: record.time_us,
            uid: ocsf::uid(record, Some(&self.appliance)),
            session: record.session.clone(),
            class: ocsf::class_of(record),
            severity: event["severity_id"].as_u64().unwrap_or(1),
            json: json_safe(&event.to_string()),
        }
    }

    /// Memory has a bound: a flood of long statements that never end are told while they run.
    fn shed(&mut self, number: u32, sequence: u64, events: &mut dyn FnMut(Event)) {
        while self.open_bytes > self.open_bytes_max {
            let Some(shard) = self.shards.get_mut(&number) else { return };
            let oldest = shard.open.iter().min_by_key(|(_, record)| record.sequence).map(|(key, _)| key.clone());
            let Some(record) = oldest.and_then(|key| shard.open.remove(&key)) else { return };
            self.open_bytes -= text_bytes(&record);
            events(self.event(&record, sequence));
        }
    }

    /// Where to begin again when of all events those in `waiting` are not delivered.
    pub fn position<'e>(&self, waiting: impl Iterator<Item = &'e Event>) -> Position {
        let place = |shard: &Shard| {
            let open = shard.open.values().map(|record| record.sequence).chain(shard.resumed.iter().copied());
            Place { next: shard.next, open: open.collect() }
        };
        let mut shards: BTreeMap<u32, Place> =
            self.shards.iter().map(|(&number, shard)| (number, place(shard))).collect();
        for event in waiting {
            if let Some(place) = shards.get_mut(&event.shard) {
                place.next = place.next.min(event.completed_by);
                place.open.insert(event.sequence);
            }
        }
        for place in shards.values_mut() {
            // What is read again anyway needs no mention.
            let next = place.next;
            place.open.retain(|&sequence| sequence < next);
        }
        Position { appliance: self.appliance.clone(), shards }
    }
}

impl Shard {
    /// Adds what the record says of a running statement; what it completes is taken out.
    fn join(&mut self, view: &View<'_>) -> Vec<Record> {
        if view.kind() == Kind::SessionClosed {
            let session = view.who().session();
            return self.open.extract_if(|(of, _), _| of == session).map(|(_, record)| record).collect();
        }
        if view.request() == 0 || view.kind() == Kind::Request || self.open.is_empty() {
            return Vec::new();
        }
        let key = (view.who().session().to_owned(), view.request());
        let Some(record) = self.open.get_mut(&key) else { return Vec::new() };
        let over = match view {
            View::Outcome(row) => {
                record.add_outcome(row, false);
                record.complete
            }
            View::Event(Kind::Ruling, row) => {
                record.add_ruling(row);
                // It never runs: nothing else will be told of it.
                record.complete = row.what() != "approved";
                record.complete
            }
            View::Request(_) | View::Event(..) => false,
        };
        if over { self.open.remove(&key).into_iter().collect() } else { Vec::new() }
    }
}

/// A gateway that starts knows nothing of what ran before it.
fn ends_all(view: &View<'_>) -> bool {
    matches!(view, View::Event(Kind::Gateway, row) if row.detail().starts_with("started:"))
}
