//! The search over archive files: files and row groups are passed over by time, statistics and bloom filters, the columns
//! that are asked for are read first, and the others only for the records that match.

use super::read::{ArchiveFile, Group, Unreadable};
use super::schema::{self, Column};
use crate::audit::record::Kind;
use crate::audit::row::{Row, Rows};
use crate::audit::search::{Filter, Joiner, any, any_given, contains_ignoring_case, kind_name, names};
use crate::config::Glob;
use crate::files;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// With more sessions than this that still wait for outcomes, asking each bloom filter costs more than reading the column.
const SESSIONS_ASKED_MAX: usize = 64;

/// A file of the archive, as whoever published it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub path: PathBuf,
    pub bytes: u64,
    /// Unix microseconds of the earliest and the latest record.
    pub since_us: i64,
    pub until_us: i64,
    /// First and last sequence of each shard in it.
    pub shards: BTreeMap<u32, (u64, u64)>,
}

impl Listed {
    pub fn open(&self) -> Result<ArchiveFile, Unreadable> {
        let file = files::open(&self.path).map_err(Unreadable::io)?;
        let bytes = file.metadata().map_err(Unreadable::io)?.len();
        if bytes != self.bytes {
            let what = format!("it has {bytes} bytes, the manifest says {}: it is not what was published", self.bytes);
            return Err(Unreadable::content(what));
        }
        let file = ArchiveFile::open(Box::new(file))?;
        // Another file of ours in its place is none that was published here.
        let within = |(shard, first, last): &(u32, u64, u64)| self.holds(*shard, *first) && self.holds(*shard, *last);
        if file.shards().is_none_or(|shards| !shards.iter().all(within)) {
            return Err(Unreadable::content("it holds other records than the manifest says".to_owned()));
        }
        Ok(file)
    }

    pub fn holds(&self, shard: u32, sequence: u64) -> bool {
        self.shards.get(&shard).is_some_and(|&(first, last)| (first..=last).contains(&sequence))
    }
}

/// Hands what matches in a file, and what belongs to it, to the joiner. Each damage is handed out; what else is readable is
/// searched all the same.
pub(in crate::audit) fn find(
    listed: &Listed,
    filter: &Filter,
    joiner: &mut Joiner<'_>,
    damage: &mut dyn FnMut(Unreadable),
) {
    // What matched before may have its outcome in a later file.
    if !filter.overlaps(listed.since_us, listed.until_us) && !joiner.awaits() {
        return;
    }
    match listed.open() {
        Err(error) => damage(error),
        Ok(file) => find_in_file(&file, filter, joiner, damage),
    }
}

pub(in crate::audit) fn find_in_file(
    file: &ArchiveFile,
    filter: &Filter,
    joiner: &mut Joiner<'_>,
    damage: &mut dyn FnMut(Unreadable),
) {
    file.groups().filter_map(|group| find_in(&group, filter, joiner).err()).for_each(damage);
}

fn find_in(group: &Group<'_>, filter: &Filter, joiner: &mut Joiner<'_>) -> Result<(), Unreadable> {
    let found = candidates(group, filter)?;
    hand_over(group.materialise(&found, joiner.wants_payloads())?, joiner);
    if !joiner.awaits() {
        return Ok(());
    }
    let mut parts = parts(group, joiner)?;
    parts.retain(|row| found.binary_search(row).is_err());
    let rows = group.materialise(&parts, joiner.wants_payloads())?;
    let closed: Vec<String> =
        rows.iter().filter(|row| row.kind == Kind::SessionClosed).map(|row| row.session.clone()).collect();
    hand_over(rows, joiner);
    closed.iter().for_each(|session| joiner.session_ended(session));
    Ok(())
}

fn hand_over(rows: Vec<Row>, joiner: &mut Joiner<'_>) {
    let rows = Rows::new(rows);
    for (shard, sequence, view) in rows.views() {
        joiner.take(shard, sequence, &view);
    }
}

/// Rows that may match: no row is left out that does.
fn candidates(group: &Group<'_>, filter: &Filter) -> Result<Vec<u32>, Unreadable> {
    let kinds = kinds(filter);
    let mut picks = Vec::new();
    if kinds.is_empty() || !overlaps(group, filter) || !may_match(group, filter, &kinds)? {
        return Ok(picks);
    }
    picks.extend(0..group.rows());
    retain_times(group, filter, &mut picks)?;
    for (column, globs) in
        [(Column::Session, &filter.sessions), (Column::User, &filter.users), (Column::Target, &filter.targets)]
    {
        if !globs.is_empty() && !picks.is_empty() {
            group.retain_texts(column, &mut picks, |text| any(globs, text))?;
        }
    }
    if picks.is_empty() {
        return Ok(picks);
    }
    group.retain_texts(Column::Kind, &mut picks, |name| {
        schema::kind_of(name.as_bytes()).is_some_and(|kind| kinds.contains(&kind))
    })?;
    if !filter.tables.is_empty() {
        let named = |table: &str| filter.tables.iter().any(|glob| names(glob, table));
        group.retain_lists(Column::Tables, &mut picks, named)?;
    }
    if !filter.classes.is_empty() {
        group.retain_lists(Column::Classes, &mut picks, |class| any(&filter.classes, class))?;
    }
    if !filter.decisions.is_empty() && kinds == [Kind::Request] {
        group.retain_texts(Column::Decision, &mut picks, |decision| filter.may_be_decided(decision))?;
    }
    for (column, globs) in [(Column::Rule, &filter.rules), (Column::Ticket, &filter.tickets)] {
        if !globs.is_empty() {
            group.retain_texts(column, &mut picks, |text| any_given(globs, text))?;
        }
    }
    if !filter.actors.is_empty() {
        group.retain_lists(Column::Actor, &mut picks, |actor| any(&filter.actors, actor))?;
    }
    if let Some(wanted) = &filter.contains {
        picks = containing(group, picks, wanted)?;
    }
    Ok(picks)
}

fn retain_times(group: &Group<'_>, filter: &Filter, picks: &mut Vec<u32>) -> Result<(), Unreadable> {
    let within = |time: i64| {
        filter.since_us.is_none_or(|since| time >= since) && filter.until_us.is_none_or(|until| time <= until)
    };
    // Most row groups lie within as a whole.
    if group.times().is_some_and(|(first, last)| within(first) && within(last)) {
        return Ok(());
    }
    group.retain_longs(Column::Time, picks, within)
}

/// Statements with this text in them or in a bind value, and all that is no statement: what those say is composed later.
fn containing(group: &Group<'_>, picks: Vec<u32>, wanted: &str) -> Result<Vec<u32>, Unreadable> {
    let mut others = picks.clone();
    group.retain_texts(Column::Kind, &mut others, |name| name != schema::kind_name(Kind::Request))?;
    let mut statements: Vec<u32> = difference(&picks, &others);
    let mut binds = statements.clone();
    group.retain_texts(Column::Statement, &mut statements, |text| contains_ignoring_case(text, wanted))?;
    binds = difference(&binds, &statements);
    group.retain_lists(Column::Binds, &mut binds, |bind| contains_ignoring_case(bind, wanted))?;
    let mut all = [others, statements, binds].concat();
    all.sort_unstable();
    Ok(all)
}

/// Those of `all` that are not in `some`; both ascend.
fn difference(all: &[u32], some: &[u32]) -> Vec<u32> {
    all.iter().copied().filter(|row| some.binary_search(row).is_err()).collect()
}

fn overlaps(group: &Group<'_>, filter: &Filter) -> bool {
    group.times().is_none_or(|(first, last)| filter.overlaps(first, last))
}

/// The kinds of records that can match; outcomes belong to their requests.
fn kinds(filter: &Filter) -> Vec<Kind> {
    let statements_only = !filter.tables.is_empty() || !filter.classes.is_empty() || !filter.rules.is_empty();
    let all =
        [Kind::Request, Kind::SessionOpened, Kind::LoginRefused, Kind::Ruling, Kind::SessionClosed, Kind::Gateway];
    let may_match = |kind: &Kind| {
        let ruled = filter.decisions.is_empty() && filter.tickets.is_empty();
        let decided = matches!(kind, Kind::Request | Kind::Ruling) || ruled;
        decided && (*kind == Kind::Request || !statements_only) && any(&filter.kinds, kind_name(*kind))
    };
    all.into_iter().filter(may_match).collect()
}

/// Statistics and bloom filters of the row group do not rule it out.
fn may_match(group: &Group<'_>, filter: &Filter, kinds: &[Kind]) -> Result<bool, Unreadable> {
    let may = |column: Column, globs: &[Glob]| may_hold_any(group, column, globs);
    if !(may(Column::Session, &filter.sessions)?
        && may(Column::User, &filter.users)?
        && may(Column::Target, &filter.targets)?
        && may(Column::Classes, &filter.classes)?
        && may(Column::Rule, &filter.rules)?
        && may(Column::Ticket, &filter.tickets)?)
    {
        return Ok(false);
    }
    if kinds == [Kind::Request] && !filter.asks_for_rulings() && !may(Column::Decision, &filter.decisions)? {
        return Ok(false);
    }
    may_name(group, &filter.tables)
}

fn may_hold_any(group: &Group<'_>, column: Column, globs: &[Glob]) -> Result<bool, Unreadable> {
    if globs.is_empty() || !globs.iter().all(Glob::is_literal) {
        return Ok(true);
    }
    for glob in globs {
        if group.may_hold(column, glob.as_str())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A name without its schema stands for any, so only whole names can be ruled out.
fn may_name(group: &Group<'_>, tables: &[Glob]) -> Result<bool, Unreadable> {
    for glob in tables {
        let name = glob.as_str();
        let bare = name.strip_prefix("public.");
        if !glob.is_literal()
            || !name.contains('.')
            || group.may_hold(Column::Tables, name)?
            || bare.is_some_and(|bare| group.may_hold(Column::Tables, bare).unwrap_or(true))
        {
            return Ok(true);
        }
    }
    Ok(tables.is_empty())
}

/// Outcomes and rulings of statements that wait for them, and ends of their sessions.
fn parts(group: &Group<'_>, joiner: &Joiner<'_>) -> Result<Vec<u32>, Unreadable> {
    let (sessions, requests): (HashSet<&str>, HashSet<i64>) = joiner.awaited().unzip();
    if sessions.len() <= SESSIONS_ASKED_MAX {
        let mut held = false;
        for session in &sessions {
            held = held || group.may_hold(Column::Session, session)?;
        }
        if !held {
            return Ok(Vec::new());
        }
    }
    let mut picks: Vec<u32> = (0..group.rows()).collect();
    group.retain_texts(Column::Session, &mut picks, |session| sessions.contains(session))?;
    let mut ends = picks.clone();
    group.retain_longs(Column::Request, &mut picks, |request| requests.contains(&request))?;
    group.retain_texts(Column::Kind, &mut picks, |name| name != schema::kind_name(Kind::Request))?;
    group.retain_texts(Column::Kind, &mut ends, |name| name == schema::kind_name(Kind::SessionClosed))?;
    picks.extend(ends);
    picks.sort_unstable();
    picks.dedup();
    Ok(picks)
}

/// Is there any record, of whatever kind, of these users and targets in this time?
pub(in crate::audit) fn holds_any(file: &ArchiveFile, filter: &Filter) -> Result<bool, Unreadable> {
    for group in file.groups() {
        let named = |column: Column, globs: &[Glob]| may_hold_any(&group, column, globs);
        if !overlaps(&group, filter) || !named(Column::User, &filter.users)? || !named(Column::Target, &filter.targets)?
        {
            continue;
        }
        let mut picks: Vec<u32> = (0..group.rows()).collect();
        retain_times(&group, filter, &mut picks)?;
        group.retain_texts(Column::User, &mut picks, |user| any(&filter.users, user))?;
        group.retain_texts(Column::Target, &mut picks, |target| any(&filter.targets, target))?;
        if !picks.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The record with that sequence. `None`: the file does not have it.
pub(in crate::audit) fn find_sequence(listed: &Listed, shard: u32, sequence: u64) -> Result<Option<Row>, Unreadable> {
    let file = listed.open()?;
    for group in file.groups() {
        let mut picks: Vec<u32> = (0..group.rows()).collect();
        group.retain_longs(Column::Sequence, &mut picks, |found| found as u64 == sequence)?;
        let rows = group.materialise(&picks, false)?;
        if let Some(row) = rows.into_iter().find(|row| row.shard == shard) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
