//! Follows a trail that grows: what `lockgate audit tail` prints.

use super::filter::Filter;
use super::record::Record;
use super::{Catalogue, Item, Stand, Trouble};
use crate::audit::archive::manifest::Position;
use crate::audit::reader::DamageKind;
use crate::audit::record::{Kind, View};
use crate::audit::row::{Row, Rows};
use crate::audit::segment;
use crate::audit::trail::{Advance, ChainReader};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Follows a trail that grows: every record once when it is complete, and before that once if it takes long.
pub struct Follower {
    data_dir: PathBuf,
    filter: Filter,
    chains: BTreeMap<u32, Followed>,
    /// A statement that still runs after this long is shown as running.
    patience: Duration,
}

struct Followed {
    chain: ChainReader,
    /// Where it began: in the middle of that segment, perhaps.
    begun: Position,
    /// Sequence of the last record taken.
    last: u64,
    running: HashMap<(String, u64), (Record, Instant, bool)>,
    unfinished_since: Option<Instant>,
}

/// The news of a poll.
pub enum News {
    Record(Box<Record>),
    Damage(Trouble),
}

impl Follower {
    pub fn new(data_dir: PathBuf, filter: Filter, patience: Duration) -> Self {
        Self { data_dir, filter, chains: BTreeMap::new(), patience }
    }

    /// What is new since the last poll, in time order. The first one reads what lies in the rings and is not archived: the
    /// rest is history, a search finds it.
    pub fn poll(&mut self) -> io::Result<Vec<News>> {
        let mut news = Vec::new();
        for (shard, files) in segment::list(&self.data_dir)? {
            if self.chains.contains_key(&shard) {
                continue;
            }
            let stand = Stand::of(&self.data_dir, &mut |damage| news.push(News::Damage(Trouble::Manifest(damage))))?;
            let oldest = files.values().find(|file| file.archived.is_none()).map_or(1, |file| file.number);
            let chain = match stand.positions.get(&shard) {
                Some(position) => ChainReader::after(self.data_dir.clone(), position),
                None => ChainReader::from_segment(self.data_dir.clone(), shard, oldest),
            };
            let begun = stand.positions.get(&shard).copied().unwrap_or(Position::start(shard));
            let (last, running) = (begun.record, HashMap::new());
            self.chains.insert(shard, Followed { chain, begun, last, running, unfinished_since: None });
        }
        for followed in self.chains.values_mut() {
            followed.poll(&self.data_dir, &self.filter, self.patience, &mut news)?;
        }
        news.sort_by_key(|news| match news {
            News::Record(record) => (record.time_us, record.shard, record.sequence),
            News::Damage(_) => (i64::MAX, 0, 0),
        });
        Ok(news)
    }

    /// Is the statement with this id held back until it is complete?
    pub fn awaits(&self, id: &str) -> bool {
        self.chains.values().any(|followed| followed.running.values().any(|(record, ..)| record.id == id))
    }
}

impl Followed {
    fn poll(&mut self, data_dir: &Path, filter: &Filter, patience: Duration, news: &mut Vec<News>) -> io::Result<()> {
        loop {
            match self.chain.advance()? {
                Advance::Frame(_) => {
                    self.unfinished_since = None;
                    let shard = self.chain.shard();
                    for record in self.chain.records() {
                        match record {
                            Ok((sequence, view)) => {
                                take(&mut self.running, shard, sequence, &view, filter, news);
                                self.last = sequence;
                            }
                            Err(damage) => news.push(News::Damage(Trouble::Segment(damage))),
                        }
                    }
                }
                Advance::Damage(damage) => {
                    // A segment that is gone; or the one it began in was, before it was opened, and the next one's header shows that.
                    let nothing_read = self.chain.position() == self.begun;
                    let gone = match damage.kind {
                        DamageKind::MissingSegment => Some(damage.segment),
                        DamageKind::Chain
                            if nothing_read && (damage.offset, damage.segment) == (0, self.begun.segment + 1) =>
                        {
                            Some(self.begun.segment)
                        }
                        _ => None,
                    };
                    let published = gone.map(|segment| self.catch_up(data_dir, segment, filter, news)).transpose()?;
                    if published != Some(true) {
                        news.push(News::Damage(Trouble::Segment(damage)));
                    }
                }
                Advance::End => break,
            }
        }
        if self.chain.is_unfinished() {
            let since = *self.unfinished_since.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_secs(1) {
                news.extend(self.chain.take_unfinished().map(|damage| News::Damage(Trouble::Segment(damage))));
            }
        }
        for (record, since, shown) in self.running.values_mut() {
            if !*shown && since.elapsed() >= patience && filter.admits_joined(record) {
                *shown = true;
                news.push(News::Record(Box::new(record.clone())));
            }
        }
        Ok(())
    }

    /// The archiver took a segment away before it was read here: reads what it held from the archive. `false`: it did not.
    fn catch_up(&mut self, data_dir: &Path, segment: u64, filter: &Filter, news: &mut Vec<News>) -> io::Result<bool> {
        let shard = self.chain.shard();
        let stand = Stand::of(data_dir, &mut |_| {})?;
        let Some(position) = stand.positions.get(&shard).filter(|position| position.segment > segment) else {
            return Ok(false);
        };
        let mut catalogue = Catalogue::holding(data_dir, shard, self.last + 1)?;
        let mut number = 0;
        while number < stand.number
            && let Some(item) = catalogue.next_item()?
        {
            let (Item::File(found, _) | Item::Other(found)) = &item else { continue };
            number = *found;
            let Item::File(_, listed) = item else { continue };
            if !listed.shards.contains_key(&shard) {
                continue;
            }
            let mut rows = Vec::new();
            let keep = |row: Row, rows: &mut Vec<Row>| {
                if row.shard == shard && row.sequence > self.last {
                    rows.push(row);
                }
            };
            if let Err(what) = listed.open().and_then(|file| file.for_each(|row| keep(row, &mut rows))) {
                let what = what.to_string();
                news.push(News::Damage(Trouble::Archive { file: listed.path.clone(), what }));
            }
            for (shard, sequence, view) in Rows::new(rows).views() {
                take(&mut self.running, shard, sequence, &view, filter, news);
            }
        }
        (self.last, self.begun) = (position.record, *position);
        self.chain = ChainReader::after(data_dir.to_owned(), position);
        Ok(true)
    }
}

fn take(
    running: &mut HashMap<(String, u64), (Record, Instant, bool)>,
    shard: u32,
    sequence: u64,
    view: &View<'_>,
    filter: &Filter,
    news: &mut Vec<News>,
) {
    let key = (view.who().session().to_owned(), view.request());
    if let Some((record, _, _)) = running.get_mut(&key) {
        match view {
            View::Outcome(row) => record.add_outcome(row, false),
            View::Event(Kind::Ruling, row) => record.add_ruling(row),
            View::Request(_) | View::Event(..) => {}
        }
        if record.complete
            && let Some((record, _, _)) = running.remove(&key)
            && filter.admits_joined(&record)
        {
            news.push(News::Record(Box::new(record)));
        }
    }
    if !filter.admits(view) {
        return;
    }
    match Record::new(shard, sequence, view).filter(|record| filter.admits_record(record)) {
        Some(record) if record.complete => {
            news.extend(filter.admits_joined(&record).then(|| News::Record(Box::new(record))));
        }
        Some(record) => drop(running.insert(key, (record, Instant::now(), false))),
        None => {}
    }
}
