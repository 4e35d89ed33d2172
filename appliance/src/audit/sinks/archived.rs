//! Records that have left the segments: read from the archive's Parquet files, a row group at a time.

use crate::audit::archive::catalogue::{deleted, is_readable};
use crate::audit::archive::manifest::{self, FileEntry, What};
use crate::audit::archive::read::{ArchiveFile, Group, Unreadable, UnreadableKind};
use crate::audit::archive::schema::Column;
use crate::audit::record::View;
use crate::audit::row::Rows;
use crate::audit::segment::{archive_dir, at};
use crate::files;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows in memory at a time, beside what was made of them.
const ROWS: usize = 256;

/// Records of one shard, in the order of their sequences.
pub struct Archived {
    shard: u32,
    wanted: Range<u64>,
    /// Files that hold some of them, the next one last.
    files: Vec<PathBuf>,
    open: Option<(PathBuf, ArchiveFile, usize)>,
}

impl Archived {
    /// `None`: the archive holds none of them.
    pub fn find(data_dir: &Path, shard: u32, wanted: Range<u64>) -> io::Result<Option<Self>> {
        let deleted = deleted(data_dir, 0)?;
        let mut files = Vec::new();
        let mut broken = None;
        manifest::each(data_dir, &mut |place, entry| match entry.map(|entry| entry.what) {
            Ok(What::File(file)) if holds(&file, shard, &wanted) && is_readable(data_dir, &deleted, &file) => {
                files.push(archive_dir(data_dir).join(&file.path));
            }
            Ok(What::File(_) | What::Damage(_) | What::Deleted { .. }) => {}
            Err(error) => broken = Some(format!("line {}: {error}", place.line)),
        })?;
        if let (Some(broken), true) = (broken, files.is_empty()) {
            return Err(at(&manifest::path(data_dir), io::Error::other(broken)));
        }
        files.reverse();
        Ok((!files.is_empty()).then_some(Self { shard, wanted, files, open: None }))
    }

    /// Hands out the next row group's records. `false`: that was all. What is damaged is told and passed over: the joiner
    /// counts what it does not get.
    pub fn step(&mut self, each: &mut dyn FnMut(u32, u64, &View<'_>)) -> io::Result<bool> {
        let Some((path, file, group)) = &mut self.open else {
            let Some(path) = self.files.pop() else { return Ok(false) };
            match files::open(&path) {
                Ok(file) => match ArchiveFile::open(Box::new(file)) {
                    Ok(file) => self.open = Some((path, file, 0)),
                    Err(damage) => told(&path, damage)?,
                },
                // Its time was over: retention has removed it since the manifest named it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path, error)),
            }
            return Ok(true);
        };
        let Some(rows) = file.groups().nth(*group) else {
            self.open = None;
            return Ok(true);
        };
        *group += 1;
        match hand_out(&rows, self.shard, &self.wanted, each) {
            Ok(()) => Ok(true),
            Err(damage) => told(path, damage).map(|()| true),
        }
    }
}

fn hand_out(
    group: &Group<'_>,
    shard: u32,
    wanted: &Range<u64>,
    each: &mut dyn FnMut(u32, u64, &View<'_>),
) -> Result<(), Unreadable> {
    let mut picks: Vec<u32> = (0..group.rows()).collect();
    group.retain_longs(Column::Sequence, &mut picks, |sequence| wanted.contains(&(sequence as u64)))?;
    for picks in picks.chunks(ROWS) {
        let rows = group.materialise(picks, false)?;
        let rows = Rows::new(rows.into_iter().filter(|row| row.shard == shard).collect());
        rows.views().for_each(|(shard, sequence, view)| each(shard, sequence, &view));
    }
    Ok(())
}

/// A file that cannot be read now may be readable later; one that is damaged stays so.
fn told(path: &Path, damage: Unreadable) -> io::Result<()> {
    match damage.kind {
        UnreadableKind::Io(error) => Err(at(path, error)),
        _ => {
            tracing::warn!("damaged archive: {}: {damage}", path.display());
            Ok(())
        }
    }
}

fn holds(file: &FileEntry, shard: u32, wanted: &Range<u64>) -> bool {
    let within = |span: &manifest::Span| span.first_record < wanted.end && span.last_record >= wanted.start;
    file.shards.iter().any(|span| span.shard == shard && within(span))
}

#[cfg(test)]
mod tests {
    use super::super::join::Joiner;
    use super::super::position::Position;
    use super::super::source::{self, Source as _, Step};
    use super::*;
    use crate::audit::archive::archiver::{ArchiverOptions, Finish, run};
    use crate::audit::tests::{groups, outcome, request, scratch, who};
    use crate::audit::{Entry, Journal as _, Keeper, Release, RingOptions, SealerOptions, SegmentWriter, segment};

    const STATEMENTS: u64 = 600;

    /// Statements over many segments.
    fn trail() -> (tempfile::TempDir, Keeper) {
        let dir = scratch();
        let (data_dir, segment_bytes) = (dir.path().to_owned(), segment::SEGMENT_BYTES_MIN);
        let ring = RingOptions { data_dir: data_dir.clone(), shard: 0, segment_bytes, segments_per_shard: 100 };
        let release = Release::Published { keep: false };
        let options =
            SealerOptions { data_dir: data_dir.clone(), shards: 1, segment_bytes, segments_per_shard: 100, release };
        let mut keeper = Keeper::new(options);
        let mut writer = SegmentWriter::open(&ring, 0).expect("the trail opens").0;
        let groups = groups();
        for number in 1..=STATEMENTS {
            for entry in [Entry::Request(request(number, "SELECT 1")), Entry::Outcome(outcome(number))] {
                while writer.append(number as i64, &who("s", "alice", &groups), &entry).is_err() {
                    assert!(keeper.look().expect("the keeper works"), "no room");
                }
            }
            writer.write().expect("written");
        }
        (dir, keeper)
    }

    /// Archives them all; of the segments only the last are left.
    fn archive(data_dir: &Path, keeper: &mut Keeper) {
        let before = segment::list(data_dir).expect("listable")[&0].len();
        let finish = Finish::default();
        finish.ask();
        let archiver = ArchiverOptions::by_size(data_dir, 20 << 10);
        run(&archiver, &finish).expect("the archiver finishes");
        while keeper.look().expect("the keeper works") {}
        let after = segment::list(data_dir).expect("listable")[&0].len();
        assert!(after < before && before > 5, "{before} segments, {after} left");
    }

    fn archived_trail() -> tempfile::TempDir {
        let (dir, mut keeper) = trail();
        archive(dir.path(), &mut keeper);
        dir
    }

    fn sequences(dir: &Path, position: &Position) -> (Vec<u64>, u64) {
        sequences_around(dir, position, usize::MAX, &mut || ())
    }

    /// After so many steps something happens.
    fn sequences_around(dir: &Path, position: &Position, steps: usize, happens: &mut dyn FnMut()) -> (Vec<u64>, u64) {
        let mut source = source::Trail::open(dir, position).expect("readable");
        let mut joiner = Joiner::new("aa".into(), position);
        let mut sequences = Vec::new();
        for count in 0.. {
            if count == steps {
                happens();
            }
            let step = source.step(&mut |shard, sequence, view| {
                joiner.take(shard, sequence, view, &mut |event| sequences.push(event.sequence));
            });
            match step.expect("readable") {
                Step::Frame => {}
                Step::Damage(damage) => panic!("{damage}"),
                Step::End => break,
            }
        }
        (sequences, joiner.missed)
    }

    #[test]
    fn segments_that_leave_on_the_way_to_them_are_read_from_the_archive() {
        for steps in [0, 1, 50, 300] {
            let (dir, mut keeper) = trail();
            let mut happens = || archive(dir.path(), &mut keeper);
            let (found, missed) = sequences_around(dir.path(), &Position::default(), steps, &mut happens);
            let all: Vec<u64> = (0..STATEMENTS).map(|number| 2 * number + 1).collect();
            assert_eq!((found, missed), (all, 0), "after {steps} steps");
        }
    }

    #[test]
    fn what_has_left_the_segments_is_read_from_the_archive_and_then_the_segments_go_on() {
        let dir = archived_trail();
        let all: Vec<u64> = (0..STATEMENTS).map(|number| 2 * number + 1).collect();
        assert_eq!(sequences(dir.path(), &Position::default()), (all.clone(), 0));
        let place = super::super::position::Place { next: 302, open: [301].into() };
        let position = Position { appliance: "aa".into(), shards: [(0, place)].into() };
        let rest: Vec<u64> = all.iter().copied().filter(|sequence| *sequence >= 301).collect();
        assert_eq!(sequences(dir.path(), &position), (rest, 0));
    }

    #[test]
    fn what_is_in_neither_is_counted_as_missed() {
        let dir = archived_trail();
        let archive = archive_dir(dir.path());
        std::fs::remove_file(manifest::path(dir.path())).expect("removed");
        assert!(archive.is_dir());
        let place = super::super::position::Place { next: 5, open: Default::default() };
        let position = Position { appliance: "aa".into(), shards: [(0, place)].into() };
        let (found, missed) = sequences(dir.path(), &position);
        // A statement whose request is missing is not told by its outcome.
        let begins = missed + 5;
        assert!(missed > 100 && (begins..=begins + 1).contains(&found[0]), "{missed} missed, then {}", found[0]);
    }
}
