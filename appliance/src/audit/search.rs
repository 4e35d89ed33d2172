//! The trail as users see it: a statement's request and its outcomes as one record, filtered, merged over shards by time.

use super::printable;
use super::reader::Damage;
use super::record::{ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, CUT_PAYLOAD, Kind, View};
use super::response::Payload;
use super::segment::{self, Archived, SegmentFile};
use super::trail::{Advance, ChainReader};
use super::when;
use crate::config::Glob;
use masking::sql::{Class, Classes};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a reader waits for a writer to finish the last frame before it calls it damaged.
const UNFINISHED_LOOKS: u32 = 20;
const UNFINISHED_PAUSE: Duration = Duration::from_millis(5);
/// Records of a shard are in time order but for steps of the clock; a search reads on this far behind its end.
const CLOCK_STEP_US: i64 = 3_600_000_000;

/// One line of `lockgate audit search`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Record {
    /// `<shard>-<sequence>` of the first record it is made of.
    pub id: String,
    #[serde(rename = "time", serialize_with = "as_rfc3339")]
    pub time_us: i64,
    /// `statement session login ruling gateway`.
    pub kind: &'static str,
    pub session: String,
    pub user: String,
    pub groups: Vec<String>,
    pub actor: Vec<String>,
    pub target: String,
    pub client: String,
    pub application: String,
    pub statement: Option<String>,
    pub binds: Vec<Option<String>>,
    pub classes: Vec<&'static str>,
    pub tables: Vec<String>,
    /// A statement's verdict, or how a ruling went.
    pub decision: Option<String>,
    pub rule: Option<String>,
    pub ticket: Option<String>,
    /// Null, like the other numbers, for as long as the statement runs.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub duration_us: Option<u64>,
    /// SQLSTATE, `skipped` or `disconnected`.
    pub error: Option<String>,
    pub masked: Option<u64>,
    pub claimed_user: String,
    /// What else there is to say, in words.
    pub detail: Option<String>,
    pub shard: u32,
    pub sequence: u64,
    /// Length of the whole statement, when the record holds only its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_bytes: Option<u64>,
    /// The response as the client saw it; only `show` and `replay` ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Nothing more is to come.
    #[serde(skip)]
    pub complete: bool,
    /// Who ruled; `None`: nobody did.
    #[serde(skip)]
    pub by: Option<String>,
    #[serde(skip)]
    request: u64,
}

fn as_rfc3339<S: Serializer>(time_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&when::rfc3339(*time_us))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn owned<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    texts.map(str::to_owned).collect()
}

fn class_names(classes: u64) -> Vec<&'static str> {
    Classes(classes).iter().map(Class::name).collect()
}

impl Record {
    /// `None`: an outcome, which belongs to a request.
    pub(super) fn new(shard: u32, sequence: u64, view: &View<'_>) -> Option<Self> {
        let kind = match view.kind() {
            Kind::Outcome => return None,
            Kind::Request => "statement",
            Kind::SessionOpened | Kind::SessionClosed => "session",
            Kind::LoginRefused => "login",
            Kind::Ruling => "ruling",
            Kind::Gateway => "gateway",
        };
        let who = view.who();
        let mut record = Self {
            id: format!("{shard}-{sequence}"),
            time_us: view.time_us(),
            kind,
            session: who.session().to_owned(),
            user: who.user().to_owned(),
            groups: owned(who.groups()),
            actor: owned(who.actor()),
            target: who.target().to_owned(),
            client: who.client().to_owned(),
            application: who.application().to_owned(),
            statement: None,
            binds: Vec::new(),
            classes: Vec::new(),
            tables: Vec::new(),
            decision: None,
            rule: None,
            ticket: None,
            rows: None,
            bytes: None,
            duration_us: None,
            error: None,
            masked: None,
            claimed_user: who.claimed_user().to_owned(),
            detail: None,
            shard,
            sequence,
            statement_bytes: None,
            payload: None,
            complete: true,
            by: None,
            request: view.request(),
        };
        match view {
            View::Request(row) => record.fill_statement(row),
            View::Event(kind, row) => record.fill_event(*kind, row),
            View::Outcome(_) => return None,
        }
        Some(record)
    }

    fn fill_statement(&mut self, row: &ArchivedRequestRow) {
        self.statement = Some(printable::bytes(row.statement()));
        self.statement_bytes = (row.statement_bytes() > row.statement().len() as u64).then(|| row.statement_bytes());
        self.binds = row.binds().map(|bind| bind.map(str::to_owned)).collect();
        self.classes = class_names(row.classes());
        self.tables = owned(row.tables());
        self.decision = some(row.decision());
        self.rule = some(row.rule());
        self.ticket = some(row.ticket());
        self.complete = false;
    }

    fn fill_event(&mut self, kind: Kind, row: &ArchivedEventRow) {
        match kind {
            Kind::SessionOpened => self.detail = Some(format!("opened by grant {}", row.what())),
            Kind::SessionClosed => {
                self.detail = Some(format!("closed after {} statements: {}", row.statements(), row.detail()));
                self.duration_us = Some(row.duration_us());
            }
            Kind::LoginRefused => (self.error, self.detail) = (some(row.what()), some(row.detail())),
            Kind::Ruling => {
                (self.decision, self.ticket, self.by) = (some(row.what()), some(row.ticket()), some(row.by()));
                self.detail = Some(ruling_text(row));
            }
            Kind::Request | Kind::Outcome | Kind::Gateway => self.detail = some(row.detail()),
        }
    }

    fn add_outcome(&mut self, row: &ArchivedOutcomeRow, payloads: bool) {
        let sum = |sum: Option<u64>, more: u64| Some(sum.unwrap_or(0).saturating_add(more));
        self.rows = sum(self.rows, row.rows());
        self.bytes = sum(self.bytes, row.bytes());
        self.masked = sum(self.masked, row.masked());
        self.duration_us = Some(row.duration_us().max(self.duration_us.unwrap_or(0)));
        self.error = self.error.take().or_else(|| some(row.error()));
        self.complete = !row.more();
        if payloads && !row.payload().is_empty() {
            self.payload.get_or_insert_default().push(row.payload(), row.cut & CUT_PAYLOAD != 0);
        }
    }

    fn add_ruling(&mut self, row: &ArchivedEventRow) {
        self.ticket = self.ticket.take().or_else(|| some(row.ticket()));
        let text = format!("{} {}", row.what(), ruling_text(row));
        self.detail = Some(match self.detail.take() {
            Some(before) => format!("{before}; {text}"),
            None => text,
        });
    }
}

fn ruling_text(row: &ArchivedEventRow) -> String {
    match (row.by(), row.detail()) {
        ("", reason) => reason.to_owned(),
        (by, "") => format!("by {by}"),
        (by, reason) => format!("by {by}: {reason}"),
    }
}

/// What is looked for: all that is given must hold, any of several values of one.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub users: Vec<Glob>,
    pub targets: Vec<Glob>,
    /// `table`, or `schema.table`.
    pub tables: Vec<Glob>,
    pub classes: Vec<Glob>,
    pub decisions: Vec<Glob>,
    pub sessions: Vec<Glob>,
    pub kinds: Vec<Glob>,
    /// Unix microseconds, both ends included.
    pub since_us: Option<i64>,
    pub until_us: Option<i64>,
    /// In the statement, its bind values or the detail; ASCII case does not matter.
    pub contains: Option<String>,
}

impl Filter {
    /// Classes as bits; judged before anything is copied.
    fn admits(&self, view: &View<'_>) -> bool {
        let (time_us, who) = (view.time_us(), view.who());
        if self.since_us.is_some_and(|since| time_us < since) || self.until_us.is_some_and(|until| time_us > until) {
            return false;
        }
        any(&self.users, who.user()) && any(&self.targets, who.target()) && any(&self.sessions, who.session()) && {
            match view {
                View::Request(row) => self.admits_statement(row),
                View::Outcome(_) => false,
                View::Event(kind, row) => {
                    let decision = if *kind == Kind::Ruling { row.what() } else { "" };
                    self.tables.is_empty() && self.classes.is_empty() && any(&self.decisions, decision)
                }
            }
        }
    }

    fn admits_statement(&self, row: &ArchivedRequestRow) -> bool {
        let class = |name: &&str| any(&self.classes, name);
        any(&self.decisions, row.decision())
            && (self.classes.is_empty() || class_names(row.classes()).iter().any(class))
            && (self.tables.is_empty() || row.tables().any(|table| self.tables.iter().any(|glob| names(glob, table))))
    }

    /// The rest, judged on what the record will show.
    fn admits_record(&self, record: &Record) -> bool {
        let contains = |text: &str| self.contains.as_ref().is_none_or(|wanted| contains_ignoring_case(text, wanted));
        any(&self.kinds, record.kind)
            && (contains(record.statement.as_deref().unwrap_or(""))
                || contains(record.detail.as_deref().unwrap_or(""))
                || record.binds.iter().flatten().any(|bind| contains(bind)))
    }
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

/// `customers` names that table in any schema. `public.customers` names that one, and a bare `customers`, which the
/// search_path leads to `public` unless somebody changed it: an auditor would rather see one record too many.
fn names(glob: &Glob, table: &str) -> bool {
    glob.matches(table)
        || (!table.contains('.') && glob.as_str().strip_prefix("public.").is_some_and(|bare| bare == table))
        || (!glob.as_str().contains('.') && table.match_indices('.').any(|(dot, _)| glob.matches(&table[dot + 1..])))
}

fn contains_ignoring_case(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    wanted.is_empty() || text.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
}

/// Makes records of a shard's views.
struct Joiner<'f> {
    filter: &'f Filter,
    payloads: bool,
    /// Statements that match and still run: (session, request) -> how many were found before it.
    open: HashMap<(String, u64), usize>,
    found: VecDeque<Record>,
    /// Only so many are kept, the newest; the number of those let go.
    newest: usize,
    dropped: usize,
}

impl<'f> Joiner<'f> {
    fn new(filter: &'f Filter, newest: Option<usize>, payloads: bool) -> Self {
        let newest = newest.unwrap_or(usize::MAX);
        Self { filter, payloads, open: HashMap::new(), found: VecDeque::new(), newest, dropped: 0 }
    }

    fn take(&mut self, shard: u32, sequence: u64, view: &View<'_>) {
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
        if !record.complete {
            self.open.insert((record.session.clone(), record.request), self.dropped + self.found.len());
        }
        self.found.push_back(record);
        if self.found.len() > self.newest
            && let Some(record) = self.found.pop_front()
        {
            self.dropped += 1;
            self.open.remove(&(record.session, record.request));
        }
    }

    fn join(&mut self, view: &View<'_>) {
        let key = (view.who().session().to_owned(), view.request());
        let Some(place) = self.open.get(&key) else { return };
        let Some(record) = self.found.get_mut(place - self.dropped) else { return };
        match view {
            View::Outcome(row) => {
                record.add_outcome(row, self.payloads);
                if record.complete {
                    self.open.remove(&key);
                }
            }
            View::Event(Kind::Ruling, row) => record.add_ruling(row),
            View::Request(_) | View::Event(..) => {}
        }
    }
}

/// Everything that matches, in time order. Damage is handed out as it is met; what is readable is searched all the same.
/// `newest`: only that many, the newest.
pub fn search(
    data_dir: &Path,
    filter: &Filter,
    newest: Option<usize>,
    payloads: bool,
    damage: &mut dyn FnMut(Damage),
) -> io::Result<Vec<Record>> {
    let mut found = Vec::new();
    for (shard, files) in segment::list(data_dir)? {
        found.extend(search_shard(data_dir, shard, &files, Joiner::new(filter, newest, payloads), damage)?);
    }
    found.sort_by_key(|record| (record.time_us, record.shard, record.sequence));
    if let Some(newest) = newest {
        found.drain(..found.len().saturating_sub(newest));
    }
    Ok(found)
}

fn search_shard(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    mut joiner: Joiner<'_>,
    damage: &mut dyn FnMut(Damage),
) -> io::Result<VecDeque<Record>> {
    let filter = joiner.filter;
    let mut chain = ChainReader::from_segment(data_dir.to_owned(), shard, first_segment(files, filter.since_us));
    let mut looks = 0;
    loop {
        match chain.advance()? {
            Advance::Frame(header) => {
                looks = 0;
                let past = |until: i64| header.time_us > until.saturating_add(CLOCK_STEP_US);
                if filter.until_us.is_some_and(past) && joiner.open.is_empty() {
                    return Ok(joiner.found);
                }
                for record in chain.records() {
                    match record {
                        Ok((sequence, view)) => joiner.take(shard, sequence, &view),
                        Err(found) => damage(found),
                    }
                }
            }
            Advance::Damage(found) => damage(found),
            Advance::End if chain.is_unfinished() && looks < UNFINISHED_LOOKS => {
                looks += 1;
                std::thread::sleep(UNFINISHED_PAUSE);
            }
            Advance::End => {
                chain.take_unfinished().into_iter().for_each(damage);
                return Ok(joiner.found);
            }
        }
    }
}

/// The first segment that may hold a record of that time or later.
fn first_segment(files: &BTreeMap<u64, SegmentFile>, since_us: Option<i64>) -> u64 {
    let Some(since_us) = since_us else { return 1 };
    let over = |file: &SegmentFile| match file.archived {
        Some(Archived::Sealed { until_s, .. }) => until_s.saturating_mul(1_000_000) < since_us,
        Some(Archived::Damaged) | None => false,
    };
    files.values().find(|file| !over(file)).map_or(1, |file| file.number)
}

/// One record in full, by its id or the id of a part of it. `None`: there is none.
pub fn show(data_dir: &Path, id: &str, damage: &mut dyn FnMut(Damage)) -> io::Result<Option<Record>> {
    let Some((shard, sequence)) = parse_id(id) else { return Ok(None) };
    let Some(files) = segment::list(data_dir)?.remove(&shard) else { return Ok(None) };
    let Some((session, request, time_us)) = find_sequence(data_dir, shard, &files, sequence)? else { return Ok(None) };
    let mut filter = Filter::default();
    if request == 0 {
        (filter.since_us, filter.until_us) = (Some(time_us), Some(time_us));
    } else {
        filter.sessions.extend(Glob::new(&session).ok());
    }
    let found = search_shard(data_dir, shard, &files, Joiner::new(&filter, None, true), damage)?;
    let exact = found.iter().position(|record| record.sequence == sequence);
    let part = || {
        found.iter().position(|record| {
            record.kind == "statement" && record.request == request && record.session == session && request != 0
        })
    };
    Ok(exact.or_else(part).map(|place| found.into_iter().nth(place).expect("its own place")))
}

fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (shard, sequence) = id.trim().split_once('-')?;
    Some((shard.parse().ok()?, sequence.parse().ok()?))
}

/// Session, request and time of the record with that sequence.
fn find_sequence(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    sequence: u64,
) -> io::Result<Option<(String, u64, i64)>> {
    let mut first = 1;
    for file in files.values().rev() {
        let header = File::open(&file.path).and_then(|file| segment::read_header(&file));
        let header = header.ok().and_then(|raw| super::frame::SegmentHeader::decode(&raw).ok());
        if header.is_some_and(|header| header.first_record <= sequence) {
            first = file.number;
            break;
        }
    }
    let mut chain = ChainReader::from_segment(data_dir.to_owned(), shard, first);
    loop {
        match chain.advance()? {
            Advance::Frame(header) if header.first_record.saturating_add(u64::from(header.records)) > sequence => {
                let record = chain.records().flatten().find(|(found, _)| *found == sequence);
                return Ok(record.map(|(_, view)| (view.who().session().to_owned(), view.request(), view.time_us())));
            }
            Advance::Frame(_) | Advance::Damage(_) => {}
            Advance::End => return Ok(None),
        }
    }
}

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
    running: HashMap<(String, u64), (Record, Instant, bool)>,
    unfinished_since: Option<Instant>,
}

/// The news of a poll.
pub enum News {
    Record(Box<Record>),
    Damage(Damage),
}

impl Follower {
    pub fn new(data_dir: PathBuf, filter: Filter, patience: Duration) -> Self {
        Self { data_dir, filter, chains: BTreeMap::new(), patience }
    }

    /// What is new since the last poll, in time order. The first one reads what lies in the rings.
    pub fn poll(&mut self) -> io::Result<Vec<News>> {
        for (shard, files) in segment::list(&self.data_dir)? {
            // What was archived before we began is history; a search finds it.
            let oldest = files.values().find(|file| file.archived.is_none()).map_or(1, |file| file.number);
            let chain = || ChainReader::from_segment(self.data_dir.clone(), shard, oldest);
            self.chains.entry(shard).or_insert_with(|| Followed {
                chain: chain(),
                running: HashMap::new(),
                unfinished_since: None,
            });
        }
        let mut news = Vec::new();
        for followed in self.chains.values_mut() {
            followed.poll(&self.filter, self.patience, &mut news)?;
        }
        news.sort_by_key(|news| match news {
            News::Record(record) => (record.time_us, record.shard, record.sequence),
            News::Damage(_) => (i64::MAX, 0, 0),
        });
        Ok(news)
    }
}

impl Followed {
    fn poll(&mut self, filter: &Filter, patience: Duration, news: &mut Vec<News>) -> io::Result<()> {
        loop {
            match self.chain.advance()? {
                Advance::Frame(_) => {
                    self.unfinished_since = None;
                    let shard = self.chain.shard();
                    for record in self.chain.records() {
                        match record {
                            Ok((sequence, view)) => take(&mut self.running, shard, sequence, &view, filter, news),
                            Err(damage) => news.push(News::Damage(damage)),
                        }
                    }
                }
                Advance::Damage(damage) => news.push(News::Damage(damage)),
                Advance::End => break,
            }
        }
        if self.chain.is_unfinished() {
            let since = *self.unfinished_since.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_secs(1) {
                news.extend(self.chain.take_unfinished().map(News::Damage));
            }
        }
        for (record, since, shown) in self.running.values_mut() {
            if !*shown && since.elapsed() >= patience {
                *shown = true;
                news.push(News::Record(Box::new(record.clone())));
            }
        }
        Ok(())
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
        {
            news.push(News::Record(Box::new(record)));
        }
    }
    if !filter.admits(view) {
        return;
    }
    match Record::new(shard, sequence, view).filter(|record| filter.admits_record(record)) {
        Some(record) if record.complete => news.push(News::Record(Box::new(record))),
        Some(record) => drop(running.insert(key, (record, Instant::now(), false))),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{groups, outcome, request, scratch, who};
    use super::super::{Entry, Journal as _, Outcome, Request, RingOptions, SegmentWriter, Who};
    use super::*;

    const START_US: i64 = 1_795_142_000_000_000;

    fn writer(dir: &Path, shard: u32) -> SegmentWriter {
        let options = RingOptions { data_dir: dir.to_owned(), shard, segment_bytes: 64 << 10, segments_per_shard: 2 };
        SegmentWriter::open(&options, START_US).expect("the trail opens").0
    }

    fn append(writer: &mut SegmentWriter, seconds: i64, who: &Who<'_>, entry: Entry<'_>) {
        writer.append(START_US + seconds * 1_000_000, who, &entry).expect("room");
        writer.write().expect("written");
    }

    fn glob(text: &str) -> Vec<Glob> {
        vec![Glob::new(text).expect("a glob")]
    }

    fn ids(dir: &Path, filter: &Filter) -> Vec<String> {
        let found = search(dir, filter, None, false, &mut |damage| panic!("{damage}")).expect("readable");
        found.into_iter().map(|record| record.id).collect()
    }

    /// Two shards, three people, one of everything.
    fn sample() -> tempfile::TempDir {
        let dir = scratch();
        let groups = groups();
        let (alice, bob) = (who("s-a", "alice", &groups), who("s-b", "bob", &groups));
        let copilot = ["copilot@2.1".to_owned()];
        let agent = Who { actor: &copilot, target: "billing", ..alice };
        let agent = Who { session: "s-c", ..agent };
        let (orders, both) = (["public.orders".to_owned()], ["customers".to_owned(), "public.orders".to_owned()]);
        let mut zero = writer(dir.path(), 0);
        let mut one = writer(dir.path(), 1);
        append(&mut zero, 0, &alice, Entry::SessionOpened { grant: "everyone" });
        let select = Request { tables: &both, ..request(1, "SELECT * FROM customers, public.orders") };
        append(&mut zero, 1, &alice, Entry::Request(select));
        append(
            &mut one,
            2,
            &bob,
            Entry::Request(Request {
                ticket: "1-1-x",
                decision: "approve",
                classes: 8,
                tables: &orders,
                rule: "careful",
                ..request(1, "DELETE FROM public.orders WHERE id = $1")
            }),
        );
        append(&mut zero, 3, &alice, Entry::Outcome(Outcome { more: true, ..outcome(1) }));
        append(&mut zero, 4, &alice, Entry::Outcome(outcome(1)));
        append(
            &mut one,
            5,
            &bob,
            Entry::Ruling { request: 1, ticket: "1-1-x", ruling: "approved", by: "eve", reason: "ok" },
        );
        append(&mut one, 6, &bob, Entry::Outcome(Outcome { error: "23503", ..outcome(1) }));
        append(
            &mut zero,
            7,
            &agent,
            Entry::Request(Request {
                decision: "deny",
                rule: "no-ddl",
                classes: 256,
                ..request(1, "drop table Customers")
            }),
        );
        append(&mut one, 8, &bob, Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" });
        append(&mut zero, 9, &alice, Entry::SessionClosed { reason: "terminated", duration_us: 9, statements: 1 });
        append(&mut one, 10, &bob, Entry::Request(request(2, "SELECT pg_sleep(100)")));
        dir
    }

    #[test]
    fn a_request_and_its_outcomes_are_one_record_and_shards_are_merged_by_time() {
        let dir = sample();
        let found =
            search(dir.path(), &Filter::default(), None, false, &mut |damage| panic!("{damage}")).expect("readable");
        let kinds: Vec<_> = found.iter().map(|record| (record.id.as_str(), record.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("0-1", "session"),
                ("0-2", "statement"),
                ("1-1", "statement"),
                ("1-2", "ruling"),
                ("0-5", "statement"),
                ("1-4", "login"),
                ("0-6", "session"),
                ("1-5", "statement"),
            ]
        );
        let select = &found[1];
        assert_eq!((select.rows, select.bytes, select.masked), (Some(6), Some(198), Some(4)), "outcomes add up");
        assert_eq!((select.duration_us, &select.error, select.complete), (Some(1500), &None, true));
        assert_eq!((select.classes.as_slice(), select.decision.as_deref()), (&["select"][..], Some("allow")));
        let delete = &found[2];
        assert_eq!((delete.error.as_deref(), delete.ticket.as_deref()), (Some("23503"), Some("1-1-x")));
        assert_eq!(delete.detail.as_deref(), Some("approved by eve: ok"));
        let sleep = &found[7];
        assert_eq!((sleep.rows, sleep.duration_us, &sleep.error, sleep.complete), (None, None, &None, false));
        let login = &found[5];
        assert_eq!((login.error.as_deref(), login.detail.as_deref()), (Some("28P01"), Some("expired")));
        let newest = search(dir.path(), &Filter::default(), Some(2), false, &mut |_| {}).expect("readable");
        assert_eq!(newest.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["0-6", "1-5"]);
    }

    #[test]
    fn json_has_the_promised_keys_first_and_in_order() {
        let dir = sample();
        let found = search(dir.path(), &Filter::default(), None, false, &mut |_| {}).expect("readable");
        let line = serde_json::to_string(&found[2]).expect("serialisable");
        let promised = "id time kind session user groups actor target client application statement binds classes tables \
                        decision rule ticket rows bytes duration_us error masked";
        let mut at = 0;
        for key in promised.split_whitespace() {
            at += line[at..].find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {line}"));
        }
        assert!(line.contains("\"time\":\"2026-11-20T02:33:22.000000Z\""), "{line}");
    }

    #[test]
    fn filters_find_what_they_name_and_nothing_else() {
        let dir = sample();
        let check = |filter: Filter, expected: &[&str]| assert_eq!(ids(dir.path(), &filter), expected, "{filter:?}");
        let none = Filter::default;
        check(Filter { users: glob("bob"), ..none() }, &["1-1", "1-2", "1-4", "1-5"]);
        check(Filter { users: glob("*b"), kinds: glob("login"), ..none() }, &["1-4"]);
        check(Filter { targets: glob("billing"), ..none() }, &["0-5"]);
        check(Filter { tables: glob("customers"), ..none() }, &["0-2"]);
        check(Filter { tables: glob("orders"), ..none() }, &["0-2", "1-1"]);
        check(Filter { tables: glob("public.orders"), classes: glob("delete"), ..none() }, &["1-1"]);
        check(Filter { tables: glob("public.customers"), ..none() }, &["0-2"]);
        check(Filter { tables: glob("billing.customers"), ..none() }, &[]);
        check(Filter { tables: glob("public.*"), ..none() }, &["0-2", "1-1"]);
        check(Filter { classes: glob("drop"), ..none() }, &["0-5"]);
        check(Filter { decisions: glob("deny"), ..none() }, &["0-5"]);
        check(Filter { decisions: glob("approve*"), ..none() }, &["1-1", "1-2"]);
        check(Filter { sessions: glob("s-c"), ..none() }, &["0-5"]);
        check(Filter { contains: Some("TABLE customers".into()), ..none() }, &["0-5"]);
        check(Filter { contains: Some("expired".into()), ..none() }, &["1-4"]);
        let at = |seconds: i64| Some(START_US + seconds * 1_000_000);
        check(Filter { since_us: at(2), until_us: at(5), ..none() }, &["1-1", "1-2"]);
        let joined = Filter { since_us: at(1), until_us: at(1), ..none() };
        let found = search(dir.path(), &joined, None, false, &mut |_| {}).expect("readable");
        assert_eq!(
            (found.len(), found[0].rows),
            (1, Some(6)),
            "outcomes after the end of the range still belong to it"
        );
    }

    #[test]
    fn show_finds_a_record_by_the_id_of_any_part() {
        let dir = sample();
        let find = |id: &str| {
            let found = show(dir.path(), id, &mut |damage| panic!("{damage}")).expect("readable");
            found.map(|record| (record.id, record.kind))
        };
        assert_eq!(find("0-2"), Some(("0-2".into(), "statement")));
        assert_eq!(find("0-4"), Some(("0-2".into(), "statement")), "the second outcome of 0-2");
        assert_eq!(find("1-2"), Some(("1-2".into(), "ruling")));
        assert_eq!(find("0-1"), Some(("0-1".into(), "session")));
        for missing in ["0-7", "2-1", "0-0", "nonsense", ""] {
            assert_eq!(find(missing), None, "{missing}");
        }
    }

    #[test]
    fn a_follower_tells_each_record_once_when_it_is_complete_and_a_long_one_while_it_runs() {
        let dir = sample();
        let ids = |news: Vec<News>| {
            let id = |news| match news {
                News::Record(record) => Some((record.id, record.complete)),
                News::Damage(_) => None,
            };
            news.into_iter().filter_map(id).collect::<Vec<_>>()
        };
        let mut follower = Follower::new(dir.path().to_owned(), Filter::default(), Duration::from_secs(3600));
        assert_eq!(ids(follower.poll().expect("readable")).len(), 6, "all but the two that have no outcome");
        assert_eq!(ids(follower.poll().expect("readable")), []);
        let groups = groups();
        let mut one = writer(dir.path(), 1);
        append(&mut one, 20, &who("s-b", "bob", &groups), Entry::Outcome(outcome(2)));
        assert_eq!(ids(follower.poll().expect("readable")), [("1-5".to_owned(), true)]);
        append(&mut one, 21, &who("s-b", "bob", &groups), Entry::Request(request(3, "SELECT 3")));
        assert_eq!(ids(follower.poll().expect("readable")), []);
        let mut eager = Follower::new(dir.path().to_owned(), Filter::default(), Duration::ZERO);
        let told = ids(eager.poll().expect("readable"));
        assert!(told.contains(&("1-7".to_owned(), false)), "{told:?}");
        append(&mut one, 22, &who("s-b", "bob", &groups), Entry::Outcome(outcome(3)));
        assert_eq!(ids(eager.poll().expect("readable")), [("1-7".to_owned(), true)]);
    }

    #[test]
    fn a_search_over_many_segments_survives_the_sealer_at_work() {
        let dir = scratch();
        let groups = groups();
        let options = super::super::SealerOptions {
            data_dir: dir.path().to_owned(),
            shards: 1,
            segment_bytes: 64 << 10,
            segments_per_shard: 2,
            release: crate::audit::Release::Sealed,
        };
        let mut keeper = super::super::seal::Keeper::new(options);
        let mut zero = writer(dir.path(), 0);
        let mut follower = Follower::new(dir.path().to_owned(), Filter::default(), Duration::from_secs(3600));
        let mut followed = 0;
        for number in 1..=1000u64 {
            keeper.look().expect("the keeper works");
            append(&mut zero, number as i64, &who("s", "alice", &groups), Entry::Request(request(number, "SELECT 1")));
            append(&mut zero, number as i64, &who("s", "alice", &groups), Entry::Outcome(outcome(number)));
            if number.is_multiple_of(50) {
                followed += follower.poll().expect("readable").len();
            }
        }
        assert_eq!(followed, 1000);
        assert_eq!(ids(dir.path(), &Filter::default()).len(), 1000);
        let since_us = Some(START_US + 900_000_000);
        assert_eq!(ids(dir.path(), &Filter { since_us, ..Filter::default() }).len(), 101);
        assert!(segment::list(dir.path()).expect("listable")[&0].len() > 5);
    }
}
