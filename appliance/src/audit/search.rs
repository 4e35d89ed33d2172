//! The trail as users see it: a statement's request and its outcomes as one record, filtered, merged over shards by time.

use super::archive::catalogue::{Catalogue, Item, ManifestDamage, Stand};
use super::archive::find as archive;
use super::archive::manifest::Position;
use super::archive::read::{ArchiveFile, Unreadable};
use super::printable;
use super::reader::{Damage, DamageKind};
use super::record::{ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, CUT_PAYLOAD, Kind, View};
use super::response::Payload;
use super::row::{Row, Rows};
use super::segment::{self, Archived, SegmentFile};
use super::trail::{Advance, ChainReader};
use super::when;
use crate::config::Glob;
use masking::sql::{Class, Classes};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a reader waits for a writer to finish the last frame before it calls it damaged.
const UNFINISHED_LOOKS: u32 = 20;
const UNFINISHED_PAUSE: Duration = Duration::from_millis(5);
/// Records of a shard are in time order but for steps of the clock; a search reads on this far behind its end.
const CLOCK_STEP_US: i64 = 3_600_000_000;

/// Where the newest records are looked for first.
const NEWEST_WITHIN_US: [i64; 3] = [CLOCK_STEP_US, 24 * CLOCK_STEP_US, 30 * 24 * CLOCK_STEP_US];

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
    /// How the ruling on the statement went: `approved rejected expired abandoned`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruling: Option<String>,
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

/// `statement session login ruling gateway`; an outcome is part of its statement.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Request | Kind::Outcome => "statement",
        Kind::SessionOpened | Kind::SessionClosed => "session",
        Kind::LoginRefused => "login",
        Kind::Ruling => "ruling",
        Kind::Gateway => "gateway",
    }
}

impl Record {
    /// `None`: an outcome, which belongs to a request.
    pub(super) fn new(shard: u32, sequence: u64, view: &View<'_>) -> Option<Self> {
        let kind = match view.kind() {
            Kind::Outcome => return None,
            kind => kind_name(kind),
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
            ruling: None,
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
        // What is denied never runs.
        self.complete = row.decision() == "deny";
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
        self.ruling = some(row.what());
        // Rejected, expired or abandoned: it never runs.
        self.complete |= row.what() != "approved";
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

pub(super) fn any(globs: &[Glob], text: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
}

/// `customers` names that table in any schema. `public.customers` names that one, and a bare `customers`, which the
/// search_path leads to `public` unless somebody changed it: an auditor would rather see one record too many.
pub(super) fn names(glob: &Glob, table: &str) -> bool {
    glob.matches(table)
        || (!table.contains('.') && glob.as_str().strip_prefix("public.").is_some_and(|bare| bare == table))
        || (!glob.as_str().contains('.') && table.match_indices('.').any(|(dot, _)| glob.matches(&table[dot + 1..])))
}

pub(super) fn contains_ignoring_case(text: &str, wanted: &str) -> bool {
    let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
    let Some(&first) = wanted.first() else { return true };
    let last = match text.len().checked_sub(wanted.len()) {
        Some(last) => last,
        None => return false,
    };
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), &text[..=last])
        .any(|at| text[at..at + wanted.len()].eq_ignore_ascii_case(wanted))
}

/// Time, shard and sequence: the order of records.
type Place = (i64, u32, u64);

/// Makes records of views, of all shards and of the archive alike.
pub(super) struct Joiner<'f> {
    filter: &'f Filter,
    payloads: bool,
    /// Statements that match and still run: (session, request) -> where they are found.
    open: HashMap<(String, u64), Place>,
    found: BTreeMap<Place, Record>,
    /// Only so many are kept, the newest.
    newest: usize,
    /// Records found and parts joined to them.
    taken: u64,
    /// Per shard the last sequence that was seen: what has been archived meanwhile is not taken twice.
    seen: HashMap<u32, u64>,
}

impl<'f> Joiner<'f> {
    fn new(filter: &'f Filter, newest: Option<usize>, payloads: bool) -> Self {
        let (open, found, seen) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { filter, payloads, open, found, newest: newest.unwrap_or(usize::MAX), taken: 0, seen }
    }

    pub(super) fn wants_payloads(&self) -> bool {
        self.payloads
    }

    /// Statements were found that still wait for their outcome.
    pub(super) fn awaits(&self) -> bool {
        !self.open.is_empty()
    }

    /// Sessions and requests of those.
    pub(super) fn awaited(&self) -> impl Iterator<Item = (&str, i64)> {
        self.open.keys().map(|(session, request)| (session.as_str(), *request as i64))
    }

    /// Nothing more is to come of this session.
    pub(super) fn session_ended(&mut self, session: &str) {
        self.open.retain(|(open, _), _| open != session);
    }

    /// Everything of the shard up to this sequence has been seen.
    fn saw(&mut self, shard: u32, sequence: u64) {
        let seen = self.seen.entry(shard).or_default();
        *seen = sequence.max(*seen);
    }

    pub(super) fn take(&mut self, shard: u32, sequence: u64, view: &View<'_>) {
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
        let place = (record.time_us, shard, sequence);
        if !record.complete {
            self.open.insert((record.session.clone(), record.request), place);
        }
        self.found.insert(place, record);
        self.taken += 1;
        if self.found.len() > self.newest
            && let Some((_, record)) = self.found.pop_first()
        {
            self.open.remove(&(record.session, record.request));
        }
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
            self.open.remove(&key);
        }
    }
}

/// What cannot be read of a trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    Segment(Damage),
    Manifest(ManifestDamage),
    /// A file of the archive, or the part of it that is named.
    Archive {
        file: PathBuf,
        what: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(damage) => damage.fmt(f),
            Self::Manifest(damage) => damage.fmt(f),
            Self::Archive { file, what } => write!(f, "{}: {what}", file.display()),
        }
    }
}

/// Everything that matches, in time order: in the archive and, as one with it, in the segments. Damage is handed out as it is
/// met; what is readable is searched all the same. `newest`: only that many, the newest.
pub fn search(
    data_dir: &Path,
    filter: &Filter,
    newest: Option<usize>,
    payloads: bool,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<Vec<Record>> {
    let now_us = jiff::Timestamp::now().as_microsecond();
    let until_us = filter.until_us.map_or(now_us, |until_us| until_us.min(now_us));
    let mut reported = Vec::new();
    // The newest few most often lie in the last hour, and a long archive is not read for them.
    for back_us in NEWEST_WITHIN_US.into_iter().filter(|_| newest.is_some() && filter.since_us.is_none()) {
        let recent = Filter { since_us: Some(until_us.saturating_sub(back_us)), ..filter.clone() };
        let mut joiner = Joiner::new(&recent, newest, payloads);
        search_all(data_dir, &mut joiner, &mut |found| report_once(&mut reported, found, trouble))?;
        if newest.is_some_and(|newest| joiner.found.len() >= newest) {
            return Ok(joiner.found.into_values().collect());
        }
    }
    let mut joiner = Joiner::new(filter, newest, payloads);
    search_all(data_dir, &mut joiner, &mut |found| report_once(&mut reported, found, trouble))?;
    Ok(joiner.found.into_values().collect())
}

fn report_once(reported: &mut Vec<Trouble>, found: Trouble, trouble: &mut dyn FnMut(Trouble)) {
    if !reported.contains(&found) {
        reported.push(found.clone());
        trouble(found);
    }
}

/// The archive may take segments away while we read: then what it published meanwhile is read as well.
const ROUNDS_MAX: u32 = 100;

fn search_all(data_dir: &Path, joiner: &mut Joiner<'_>, trouble: &mut dyn FnMut(Trouble)) -> io::Result<()> {
    let mut catalogue = Catalogue::since(data_dir, joiner.filter.since_us)?;
    let mut searched = 0;
    for _ in 0..ROUNDS_MAX {
        let stand = Stand::of(data_dir, &mut |damage| trouble(Trouble::Manifest(damage)))?;
        search_archive(&mut catalogue, searched, stand.number, joiner, &mut |_| {}, trouble)?;
        searched = stand.number;
        for (&shard, position) in &stand.positions {
            joiner.saw(shard, position.record);
        }
        let (mut moved, mut ends) = (false, Vec::new());
        for (shard, files) in segment::list(data_dir)? {
            let position = stand.positions.get(&shard);
            let end = search_shard(data_dir, shard, &files, position, joiner, trouble)?;
            moved |= end.moved;
            ends.push((shard, end.last));
        }
        if !moved {
            return Ok(());
        }
        ends.into_iter().for_each(|(shard, last)| joiner.saw(shard, last));
    }
    Err(io::Error::other("segments are archived faster than they are read; narrow the search with --since"))
}

/// What is found in the archive alone.
pub(super) struct FromArchive {
    pub records: Vec<Record>,
    /// Numbers of the manifest entries whose files hold a part of them.
    pub entries: BTreeSet<u64>,
}

pub(super) fn search_archived(
    data_dir: &Path,
    filter: &Filter,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<FromArchive> {
    let mut joiner = Joiner::new(filter, None, false);
    let mut entries = BTreeSet::new();
    let mut catalogue = Catalogue::since(data_dir, filter.since_us)?;
    let stand = Stand::of(data_dir, &mut |damage| trouble(Trouble::Manifest(damage)))?;
    let mut used = |number: u64| entries.extend([number]);
    search_archive(&mut catalogue, 0, stand.number, &mut joiner, &mut used, trouble)?;
    Ok(FromArchive { records: joiner.found.into_values().collect(), entries })
}

/// What these files hold, which nobody vouches for here.
pub(super) fn search_files(
    files: &[ArchiveFile],
    filter: &Filter,
    unreadable: &mut dyn FnMut(Unreadable),
) -> Vec<Record> {
    let mut joiner = Joiner::new(filter, None, false);
    files.iter().for_each(|file| archive::find_in_file(file, filter, &mut joiner, unreadable));
    joiner.found.into_values().collect()
}

/// The files of the entries behind `searched`, up to `last`. Told besides: the entries whose files held something.
fn search_archive(
    catalogue: &mut Catalogue,
    searched: u64,
    last: u64,
    joiner: &mut Joiner<'_>,
    used: &mut dyn FnMut(u64),
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<()> {
    let filter = joiner.filter;
    let mut number = searched;
    while number < last {
        let Some(item) = catalogue.next_item()? else { return Ok(()) };
        let listed = match item {
            Item::Damage(damage) => {
                trouble(Trouble::Manifest(damage));
                continue;
            }
            Item::Other(found) => {
                number = found;
                continue;
            }
            Item::File(found, listed) => {
                number = found;
                listed
            }
        };
        let past = |until: i64| listed.since_us > until.saturating_add(CLOCK_STEP_US);
        if filter.until_us.is_some_and(past) && !joiner.awaits() {
            return Ok(());
        }
        let (mut unreadable, before) = (Vec::new(), joiner.taken);
        archive::find(&listed, filter, joiner, &mut |what| unreadable.push(what));
        for what in unreadable {
            if what.is_missing() && catalogue.is_deleted(&listed.path)? {
                continue;
            }
            trouble(Trouble::Archive { file: listed.path.clone(), what: what.to_string() });
        }
        if joiner.taken > before {
            used(number);
        }
    }
    Ok(())
}

/// How far a shard's segments were read.
struct End {
    /// Sequence of the last record.
    last: u64,
    /// A segment was gone: archived meanwhile.
    moved: bool,
}

fn search_shard(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    position: Option<&Position>,
    joiner: &mut Joiner<'_>,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<End> {
    let filter = joiner.filter;
    let first = first_segment(files, filter.since_us);
    let mut chain = match position {
        Some(position) if position.segment >= first => ChainReader::after(data_dir.to_owned(), position),
        _ => ChainReader::from_segment(data_dir.to_owned(), shard, first),
    };
    let mut end = End { last: position.map_or(0, |position| position.record), moved: false };
    let mut looks = 0;
    loop {
        match chain.advance()? {
            Advance::Frame(header) => {
                looks = 0;
                let past = |until: i64| header.time_us > until.saturating_add(CLOCK_STEP_US);
                if filter.until_us.is_some_and(past) && joiner.open.is_empty() {
                    return Ok(end);
                }
                for record in chain.records() {
                    match record {
                        Ok((sequence, view)) => {
                            joiner.take(shard, sequence, &view);
                            end.last = sequence;
                        }
                        Err(found) => trouble(Trouble::Segment(found)),
                    }
                }
            }
            Advance::Damage(found) => {
                if found.kind == DamageKind::MissingSegment && has_passed(data_dir, shard, found.segment)? {
                    return Ok(End { moved: true, ..end });
                }
                trouble(Trouble::Segment(found));
            }
            Advance::End if chain.is_unfinished() && looks < UNFINISHED_LOOKS => {
                looks += 1;
                std::thread::sleep(UNFINISHED_PAUSE);
            }
            Advance::End => {
                chain.take_unfinished().into_iter().for_each(|found| trouble(Trouble::Segment(found)));
                return Ok(end);
            }
        }
    }
}

/// Has the archiver passed that segment by now?
fn has_passed(data_dir: &Path, shard: u32, segment: u64) -> io::Result<bool> {
    let stand = Stand::of(data_dir, &mut |_| {})?;
    Ok(stand.positions.get(&shard).is_some_and(|position| position.segment > segment))
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
pub fn show(data_dir: &Path, id: &str, trouble: &mut dyn FnMut(Trouble)) -> io::Result<Option<Record>> {
    let Some((shard, sequence)) = parse_id(id) else { return Ok(None) };
    let Some((session, request, time_us)) = find_sequence(data_dir, shard, sequence)? else { return Ok(None) };
    if request == 0 {
        let moment = Filter { since_us: Some(time_us), until_us: Some(time_us), ..Filter::default() };
        let found = search(data_dir, &moment, None, true, trouble)?;
        return Ok(found.into_iter().find(|record| (record.shard, record.sequence) == (shard, sequence)));
    }
    let sessions: Vec<Glob> = Glob::new(&session).into_iter().collect();
    // A part of a statement comes after its request, most often soon.
    for back_us in [Some(0), Some(CLOCK_STEP_US), None] {
        let since_us = back_us.map(|back_us| time_us.saturating_sub(back_us));
        let filter = Filter { sessions: sessions.clone(), since_us, until_us: Some(time_us), ..Filter::default() };
        let mut unreadable = Vec::new();
        let found = search(data_dir, &filter, None, true, &mut |found| unreadable.push(found))?;
        let exact = found.iter().position(|record| (record.shard, record.sequence) == (shard, sequence));
        let whole =
            |record: &Record| record.kind == "statement" && record.request == request && record.session == session;
        let place = exact.or_else(|| found.iter().position(whole));
        if place.is_some() || back_us.is_none() {
            unreadable.into_iter().for_each(trouble);
            return Ok(place.and_then(|place| found.into_iter().nth(place)));
        }
    }
    Ok(None)
}

fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (shard, sequence) = id.trim().split_once('-')?;
    Some((shard.parse().ok()?, sequence.parse().ok()?))
}

/// Session, request and time of the record with that sequence.
fn find_sequence(data_dir: &Path, shard: u32, sequence: u64) -> io::Result<Option<(String, u64, i64)>> {
    let stand = Stand::of(data_dir, &mut |_| {})?;
    if stand.positions.get(&shard).is_some_and(|position| position.record >= sequence)
        && let Some(row) = find_archived(data_dir, shard, sequence)?
    {
        return Ok(Some((row.session, row.request, row.time_us)));
    }
    let Some(files) = segment::list(data_dir)?.remove(&shard) else { return Ok(None) };
    find_in_segments(data_dir, shard, &files, sequence)
}

fn find_archived(data_dir: &Path, shard: u32, sequence: u64) -> io::Result<Option<Row>> {
    let mut catalogue = Catalogue::holding(data_dir, shard, sequence)?;
    while let Some(item) = catalogue.next_item()? {
        let Item::File(_, listed) = item else { continue };
        if listed.shards.get(&shard).is_some_and(|&(first, _)| first > sequence) {
            break;
        }
        if listed.holds(shard, sequence) {
            // What cannot be read is said by the search that follows.
            return Ok(archive::find_sequence(&listed, shard, sequence).ok().flatten());
        }
    }
    Ok(None)
}

fn find_in_segments(
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
            let last = stand.positions.get(&shard).map_or(0, |position| position.record);
            self.chains.insert(shard, Followed { chain, last, running: HashMap::new(), unfinished_since: None });
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
                    let gone = damage.kind == DamageKind::MissingSegment;
                    if !gone || !self.catch_up(data_dir, damage.segment, filter, news)? {
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
            if !*shown && since.elapsed() >= patience {
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
        self.last = position.record;
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
        assert_eq!(ids(follower.poll().expect("readable")).len(), 7, "all but the one that has no outcome");
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
