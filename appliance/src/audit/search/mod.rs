//! The trail as users see it: filtered, merged over shards by time, archive and segments as one.
//!
//! ```text
//! manifest -> catalogue -> archive files that may match --\
//!                                                          >-- Joiner -> Record
//! segments behind the manifest's positions ---------------/
//! ```

mod days;
mod filter;
mod follow;
mod join;
mod record;
mod walk;

pub use days::days;
pub use filter::{Filter, RULINGS};
pub(super) use filter::{any, any_given, contains_ignoring_case, names};
pub use follow::{Follower, News};
pub(super) use join::Joiner;
pub use record::Record;
pub(super) use record::kind_name;

use super::archive::catalogue::{Catalogue, Item, ManifestDamage, Stand};
use super::archive::find as archive;
use super::archive::manifest::{FileEntry, Position, invalid};
use super::archive::read::{ArchiveFile, Unreadable};
use super::reader::{Damage, DamageKind};
use super::record::View;
use super::row::Row;
use super::segment::{self, Archived, SegmentFile};
use super::stage::Left;
use super::trail::ChainReader;
use crate::config::Glob;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use walk::{Next, Walk};

const HOUR_US: i64 = 3_600_000_000;
/// Where the newest records are looked for first.
const NEWEST_WITHIN_US: [i64; 3] = [HOUR_US, 24 * HOUR_US, 30 * 24 * HOUR_US];

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
    /// What is kept and not written yet; the file is named.
    Stage(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(damage) => damage.fmt(f),
            Self::Manifest(damage) => damage.fmt(f),
            Self::Archive { file, what } => write!(f, "{}: {what}", file.display()),
            Self::Stage(what) => f.write_str(what),
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
        let found = joiner.into_records();
        if newest.is_some_and(|newest| found.len() >= newest) {
            return Ok(found);
        }
    }
    let mut joiner = Joiner::new(filter, newest, payloads);
    search_all(data_dir, &mut joiner, &mut |found| report_once(&mut reported, found, trouble))?;
    Ok(joiner.into_records())
}

/// Hands out what has not been met yet.
pub fn report_once(reported: &mut Vec<Trouble>, found: Trouble, trouble: &mut dyn FnMut(Trouble)) {
    if !reported.contains(&found) {
        reported.push(found.clone());
        trouble(found);
    }
}

/// The archive may take segments away while we read: then what it published meanwhile is read as well.
const ROUNDS_MAX: u32 = 100;

fn search_all(data_dir: &Path, joiner: &mut Joiner<'_>, trouble: &mut dyn FnMut(Trouble)) -> io::Result<()> {
    let mut catalogue = Catalogue::whole(data_dir)?;
    let mut searched = 0;
    rounds(|| {
        let stand = Stand::of(data_dir, &mut |damage| trouble(Trouble::Manifest(damage)))?;
        search_archive(&mut catalogue, searched, stand.number, joiner, trouble)?;
        searched = stand.number;
        for (&shard, position) in &stand.positions {
            joiner.saw(shard, position.record);
        }
        let since_us = joiner.filter.since_us;
        let (mut moved, mut ends) = (false, Vec::new());
        for (shard, files) in shards(data_dir, &stand)? {
            let position = stand.positions.get(&shard);
            let mut take = |shard, sequence, view: &View<'_>| joiner.take(shard, sequence, view);
            let end = search_shard(data_dir, shard, &files, position, since_us, &mut take, trouble)?;
            moved |= end.moved;
            ends.push((shard, end.last));
        }
        if moved {
            ends.into_iter().for_each(|(shard, last)| joiner.saw(shard, last));
        }
        Ok(!moved)
    })
}

/// The segments of each shard: also of one that has none, though a shard with records in the archive has one that it writes to.
fn shards(data_dir: &Path, stand: &Stand) -> io::Result<BTreeMap<u32, BTreeMap<u64, SegmentFile>>> {
    let mut shards = segment::list(data_dir)?;
    for &shard in stand.positions.keys() {
        shards.entry(shard).or_default();
    }
    Ok(shards)
}

/// Goes round until nothing has moved meanwhile: then `round` says `true`.
fn rounds(mut round: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    for _ in 0..ROUNDS_MAX {
        if round()? {
            return Ok(());
        }
    }
    Err(io::Error::other("segments are archived faster than they are read; narrow the search with --since"))
}

/// What is found in the archive alone.
pub(super) struct FromArchive {
    pub records: Vec<Record>,
    /// Numbers of the manifest entries whose files hold a part of them.
    pub entries: BTreeSet<u64>,
}

/// Searches the files that these entries name, as `read` hands them out; it is asked for none that the question does not concern.
pub(super) fn search_read<'a>(
    filter: &Filter,
    files: impl Iterator<Item = (u64, &'a FileEntry)>,
    mut read: impl FnMut(&FileEntry) -> io::Result<ArchiveFile>,
) -> io::Result<FromArchive> {
    let mut joiner = Joiner::new(filter, None, false);
    let mut entries = BTreeSet::new();
    for (number, entry) in files {
        // What matched before may have its outcome in a later file.
        if !filter.overlaps(entry.since_us, entry.until_us) && !joiner.awaits() {
            continue;
        }
        let (file, before, mut unreadable) = (read(entry)?, joiner.taken, None);
        archive::find_in_file(&file, filter, &mut joiner, &mut |what| unreadable = Some(what));
        if let Some(what) = unreadable {
            return Err(invalid(&format!("{}: {what}", entry.path)));
        }
        if joiner.taken > before {
            entries.insert(number);
        }
    }
    Ok(FromArchive { records: joiner.into_records(), entries })
}

/// What these files hold, which nobody vouches for here.
pub(super) fn search_files(
    files: &[ArchiveFile],
    filter: &Filter,
    unreadable: &mut dyn FnMut(Unreadable),
) -> Vec<Record> {
    let mut joiner = Joiner::new(filter, None, false);
    files.iter().for_each(|file| archive::find_in_file(file, filter, &mut joiner, unreadable));
    joiner.into_records()
}

/// The files of the entries behind `searched`, up to `last`. All of them are looked at, whatever time is asked for: behind a file of a later
/// time may come one of an earlier, where the clock was set.
fn search_archive(
    catalogue: &mut Catalogue,
    searched: u64,
    last: u64,
    joiner: &mut Joiner<'_>,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<()> {
    let filter = joiner.filter;
    let mut number = searched;
    while number < last {
        // What matched before may have its outcome in a later file.
        let wanted = |since_us, until_us| joiner.awaits() || filter.overlaps(since_us, until_us);
        let Some(item) = catalogue.next_of(wanted)? else { return Ok(()) };
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
        let mut unreadable = Vec::new();
        archive::find(&listed, filter, joiner, &mut |what| unreadable.push(what));
        for what in unreadable {
            if what.is_missing() && catalogue.is_deleted(&listed.path)? {
                continue;
            }
            trouble(Trouble::Archive { file: listed.path.clone(), what: what.to_string() });
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

/// Hands `take` the records from that time on and, where they stand among those, earlier ones.
fn search_shard(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    position: Option<&Position>,
    since_us: Option<i64>,
    take: &mut dyn FnMut(u32, u64, &View<'_>),
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<End> {
    // Where what is not archived begins, by the stand that the archive was read up to.
    let begin = position.map_or(1, |position| position.segment);
    let first = first_segment(files, begin, since_us);
    if !files.contains_key(&begin) && has_passed(data_dir, shard, begin)? {
        return Ok(End { last: position.map_or(0, |position| position.record), moved: true });
    }
    let mut walk = Walk::along(match position {
        Some(position) if position.segment == first => ChainReader::after(data_dir.to_owned(), position),
        _ => ChainReader::from_segment(data_dir.to_owned(), shard, first),
    });
    let mut end = End { last: position.map_or(0, |position| position.record), moved: false };
    loop {
        match walk.next(trouble)? {
            // A later time is no end: behind it the clock may have been set back.
            Next::Frame(_) => {
                for record in walk.records() {
                    match record {
                        Ok((sequence, view)) => {
                            take(shard, sequence, &view);
                            end.last = sequence;
                        }
                        Err(found) => trouble(Trouble::Segment(found)),
                    }
                }
            }
            Next::Damage(found) => {
                // A segment that is gone, or one that continues it: published since.
                let gone = found.kind == DamageKind::MissingSegment && has_passed(data_dir, shard, found.segment)?;
                if gone || (found.kind == DamageKind::Chain && has_passed(data_dir, shard, begin)?) {
                    return Ok(End { moved: true, ..end });
                }
                trouble(Trouble::Segment(found));
            }
            Next::End(kept) => {
                for (sequence, view) in kept.iter().flat_map(Left::records) {
                    take(shard, sequence, &view);
                    end.last = sequence;
                }
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

/// The first segment from `begin` on that may hold a record of that time or later: one that is missing may.
fn first_segment(files: &BTreeMap<u64, SegmentFile>, begin: u64, since_us: Option<i64>) -> u64 {
    let Some(since_us) = since_us else { return begin };
    let over = |file: &SegmentFile| match file.archived {
        Some(Archived::Sealed { until_s, .. }) => until_s.saturating_mul(1_000_000) < since_us,
        Some(Archived::Damaged) | None => false,
    };
    (begin..).find(|number| !files.get(number).is_some_and(over)).unwrap_or(begin)
}

/// One record in full, by its id or the id of a part of it. `None`: there is none; or it may stand where `trouble` was told of.
pub fn show(data_dir: &Path, id: &str, trouble: &mut dyn FnMut(Trouble)) -> io::Result<Option<Record>> {
    let Some((shard, sequence)) = parse_id(id) else { return Ok(None) };
    let Some((session, request, time_us)) = find_sequence(data_dir, shard, sequence, trouble)? else { return Ok(None) };
    if request == 0 {
        let moment = Filter { since_us: Some(time_us), until_us: Some(time_us), ..Filter::default() };
        let found = search(data_dir, &moment, None, true, trouble)?;
        return Ok(found.into_iter().find(|record| (record.shard, record.sequence) == (shard, sequence)));
    }
    let sessions: Vec<Glob> = Glob::new(&session).into_iter().collect();
    // A part of a statement comes after its request, most often soon; where the clock was set back meanwhile, before it.
    for back_us in [Some(0), Some(HOUR_US), None] {
        let since_us = back_us.map(|back_us| time_us.saturating_sub(back_us));
        let until_us = back_us.map(|_| time_us);
        let filter = Filter { sessions: sessions.clone(), since_us, until_us, ..Filter::default() };
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

/// `<shard>-<sequence>`.
pub fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (shard, sequence) = id.trim().split_once('-')?;
    Some((shard.parse().ok()?, sequence.parse().ok()?))
}

/// Session, request and time of a record.
type Found = (String, u64, i64);

/// The record with that sequence. Where there is none, `trouble` is told of what could not be read and may have held it.
fn find_sequence(
    data_dir: &Path,
    shard: u32,
    sequence: u64,
    trouble: &mut dyn FnMut(Trouble),
) -> io::Result<Option<Found>> {
    let mut troubles = Vec::new();
    let stand = Stand::of(data_dir, &mut |damage| troubles.push(Trouble::Manifest(damage)))?;
    if stand.positions.get(&shard).is_some_and(|position| position.record >= sequence)
        && let Some(row) = find_archived(data_dir, shard, sequence, &mut troubles)?
    {
        return Ok(Some((row.session, row.request, row.time_us)));
    }
    let files = segment::list(data_dir)?.remove(&shard).unwrap_or_default();
    troubles
        .extend(missing_before(data_dir, shard, &files, stand.positions.get(&shard), sequence).map(Trouble::Segment));
    let found = find_in_segments(data_dir, shard, &files, sequence, &mut troubles)?;
    if found.is_none() {
        // Published since, and its segment has left the ring: that is no damage.
        let now = Stand::of(data_dir, &mut |_| {})?;
        if now.number > stand.number {
            return find_sequence(data_dir, shard, sequence, trouble);
        }
        troubles.into_iter().for_each(trouble);
    }
    Ok(found)
}

fn of_view(view: &View<'_>) -> Found {
    (view.who().session().to_owned(), view.request(), view.time_us())
}

fn find_archived(data_dir: &Path, shard: u32, sequence: u64, troubles: &mut Vec<Trouble>) -> io::Result<Option<Row>> {
    let mut catalogue = Catalogue::holding(data_dir, shard, sequence)?;
    while let Some(item) = catalogue.next_item()? {
        let listed = match item {
            Item::File(_, listed) => listed,
            Item::Other(_) => continue,
            Item::Damage(damage) => {
                troubles.push(Trouble::Manifest(damage));
                continue;
            }
        };
        if listed.shards.get(&shard).is_some_and(|&(first, _)| first > sequence) {
            break;
        }
        if listed.holds(shard, sequence) {
            return Ok(archive::find_sequence(&listed, shard, sequence).unwrap_or_else(|what| {
                troubles.push(Trouble::Archive { file: listed.path.clone(), what: what.to_string() });
                None
            }));
        }
    }
    Ok(None)
}

/// The segment that would hold a record which is not archived, where all that are there begin behind it.
fn missing_before(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    position: Option<&Position>,
    sequence: u64,
) -> Option<Damage> {
    let archived = position.map_or(0, |position| position.record);
    let segment = match files.values().next() {
        Some(first) if segment::header_of(first).is_some_and(|header| header.first_record > sequence) => {
            first.number.saturating_sub(1).max(1)
        }
        Some(_) => return None,
        None => position?.segment,
    };
    let file = segment::ring_path(&segment::ring_dir(data_dir, shard), segment);
    let kind = DamageKind::MissingSegment;
    (sequence > archived).then_some(Damage { file, shard, segment, offset: 0, frame: None, kind })
}

fn find_in_segments(
    data_dir: &Path,
    shard: u32,
    files: &BTreeMap<u64, SegmentFile>,
    sequence: u64,
    troubles: &mut Vec<Trouble>,
) -> io::Result<Option<Found>> {
    let first_record = |file: &SegmentFile| segment::header_of(file).map(|header| header.first_record);
    let begun = files.values().rfind(|file| first_record(file).is_some_and(|first| first <= sequence));
    // It may stand in the first of all, whose header does not hold.
    let begin = begun.or_else(|| files.values().next().filter(|file| first_record(file).is_none()));
    let Some(first) = begin.map(|file| file.number) else { return Ok(None) };
    let mut walk = Walk::along(ChainReader::from_segment(data_dir.to_owned(), shard, first));
    let mut trouble = |found| troubles.push(found);
    loop {
        match walk.next(&mut trouble)? {
            Next::Frame(header) if header.first_record.saturating_add(u64::from(header.records)) > sequence => {
                let mut found = None;
                for record in walk.records() {
                    match record {
                        Ok((at, view)) if at == sequence => found = Some(of_view(&view)),
                        Ok(_) => {}
                        Err(damage) => trouble(Trouble::Segment(damage)),
                    }
                }
                return Ok(found);
            }
            Next::Frame(_) => {}
            Next::Damage(damage) => trouble(Trouble::Segment(damage)),
            Next::End(kept) => {
                let mut kept = kept.iter().flat_map(Left::records);
                return Ok(kept.find(|(at, _)| *at == sequence).map(|(_, view)| of_view(&view)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
