//! Where a shard's chain ends after a stop of any kind, and how it goes on from there.
//!
//! | found at the end | done |
//! |---|---|
//! | frames, then zeros | goes on behind the last frame |
//! | a footer, or no segment in use | begins the next segment |
//! | an unfinished frame with nothing behind it | kept in a file of its own, zeroed in the segment, goes on there |
//! | damage with good frames behind it | the file is left as it is; a new segment begins |
//! | less than what is archived or promised | a new segment begins, behind what is archived or promised |
//!
//! Nothing that holds is ever overwritten (but by itself, where a sync may have failed), and what was done is recorded.

use super::archive::checkpoint::{self, Promise};
use super::archive::manifest;
use super::disk::{self, Disk};
use super::frame::{Footer, Hash, is_zero};
use super::reader::{DamageKind, Expected, SegmentReader, Step};
use super::segment::{self, SegmentFile, at};
use super::writer::{Current, FIRST, boot_id};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Read and written again at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Where to go on.
pub(super) struct Recovered {
    /// The segment to append to; `None`: the next one has to be begun.
    pub current: Option<Current>,
    pub next_number: u64,
    pub next_frame: u64,
    pub next_record: u64,
    pub previous: Hash,
    pub after_damage: bool,
    /// The header of the last segment in use says where its numbers begin.
    header_held: bool,
    /// What had to be done, in sentences.
    pub notes: Vec<String>,
}

pub(super) fn recover(disk: &impl Disk, data_dir: &Path, shard: u32) -> io::Result<Recovered> {
    remove_unfinished(disk, &segment::ring_dir(data_dir, shard))?;
    let mut files = segment::list_shard(data_dir, shard)?;
    let mut last = None;
    while let Some((_, file)) = files.pop_last() {
        if in_use(&file)? {
            last = Some(file);
            break;
        }
    }
    let mut recovered = match last {
        Some(file) => {
            let mut recovered = recover_segment(disk, &file)?;
            recovered.not_before(&files)?;
            recovered
        }
        None => {
            let (next_number, next_frame, next_record, previous) = FIRST;
            let (current, after_damage, header_held, notes) = (None, false, true, Vec::new());
            Recovered { current, next_number, next_frame, next_record, previous, after_damage, header_held, notes }
        }
    };
    if let Some((last, what)) = last_known(data_dir, shard) {
        recovered.go_behind(&last, what);
    }
    Ok(recovered)
}

/// The greatest frame that is archived or that the last checkpoint promises. A manifest or checkpoints that do not hold are the
/// archiver's trouble, and `verify` names them.
fn last_known(data_dir: &Path, shard: u32) -> Option<(Promise, &'static str)> {
    let archived = manifest::positions(data_dir).unwrap_or_default().get(&shard).and_then(Promise::of);
    let promised =
        checkpoint::promised(data_dir).unwrap_or_default().into_iter().find(|promise| promise.shard == shard);
    let archived = archived.map(|archived| (archived, "which is archived"));
    let promised = promised.map(|promised| (promised, "which a checkpoint promises"));
    archived.into_iter().chain(promised).rev().max_by_key(|(promise, _)| promise.frame)
}

impl Recovered {
    /// Numbers that are archived or promised are never used again, even if the ring was removed or put back from an older copy: a
    /// segment under such a number would be taken for the one that is archived, and another record for the one that was promised.
    fn go_behind(&mut self, last: &Promise, what: &str) {
        if self.next_frame > last.frame {
            return;
        }
        self.notes.push(format!(
            "the ring ended before frame {}, {what}: it was removed or rolled back; going on behind that",
            last.frame
        ));
        (self.current, self.after_damage) = (None, true);
        self.next_number = self.next_number.max(last.segment + 1);
        (self.next_frame, self.next_record, self.previous) = (last.frame + 1, last.record + 1, last.hash);
    }
}

impl Recovered {
    /// Numbers are never given out twice: where the last segment's header is lost, and perhaps all frames behind it, those
    /// before it say where to go on.
    fn not_before(&mut self, earlier: &BTreeMap<u64, SegmentFile>) -> io::Result<()> {
        if self.header_held {
            return Ok(());
        }
        for file in earlier.values().rev() {
            let mut reader = SegmentReader::open(file, Expected::default())?;
            // To the last frame that holds, also behind a gap.
            loop {
                match reader.step()? {
                    Step::Sealed(_) => break,
                    Step::End if reader.check_rest()?.is_none() => break,
                    Step::End | Step::Frame(_) | Step::Damage(_) => {}
                }
            }
            let (frame, record) = reader.continues();
            if (frame, record) > (self.next_frame, self.next_record) {
                (self.next_frame, self.next_record) = (frame, record);
                self.previous = reader.expected().previous.unwrap_or_default();
            }
            if reader.header().is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// Preparations that a stop interrupted, and files that were kept for the next.
fn remove_unfinished(disk: &impl Disk, ring: &Path) -> io::Result<()> {
    for entry in fs::read_dir(ring).map_err(|error| at(ring, error))? {
        let path = entry.map_err(|error| at(ring, error))?.path();
        if path.is_dir() {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "tmp" || extension == segment::SPARE) {
            disk.remove(&path).map_err(|error| at(&path, error))?;
        }
    }
    Ok(())
}

/// Anything in it at all? A header lost in a power cut must not hide frames behind it.
fn in_use(file: &SegmentFile) -> io::Result<bool> {
    if file.archived.is_some() {
        return Ok(true);
    }
    let opened = crate::files::open(&file.path).map_err(|error| at(&file.path, error))?;
    let header = segment::read_header(&opened);
    if header.is_ok_and(|header| !is_zero(&header)) {
        return Ok(true);
    }
    Ok(segment::last_nonzero(&opened).map_err(|error| at(&file.path, error))?.is_some())
}

fn recover_segment(disk: &impl Disk, file: &SegmentFile) -> io::Result<Recovered> {
    let mut reader = SegmentReader::open(file, Expected::default())?;
    let (mut damage, mut torn, mut sealed) = (None, None, false);
    loop {
        match reader.step()? {
            Step::Frame(_) => {}
            Step::Damage(found) if matches!(found.kind, DamageKind::Tail(_)) => {
                torn = Some(found.offset);
                break;
            }
            Step::Damage(found) => damage = damage.or(Some(found)),
            Step::Sealed(_) => {
                sealed = true;
                break;
            }
            Step::End => match reader.check_rest()? {
                Some(found) => damage = damage.or(Some(found)),
                None => break,
            },
        }
    }
    let (next_frame, next_record) = reader.continues();
    let mut recovered = Recovered {
        current: None,
        next_number: file.number + 1,
        next_frame,
        next_record,
        previous: reader.expected().previous.unwrap_or_default(),
        after_damage: false,
        header_held: reader.header().is_some(),
        notes: Vec::new(),
    };
    let damaged = damage.is_some();
    if let Some(damage) = damage {
        recovered.after_damage = !sealed;
        recovered.notes.push(format!("the trail was found damaged and is left as it is: {damage}"));
    } else if file.archived.is_some() {
        recovered.after_damage = !sealed;
    } else if !sealed {
        let current = reopen(file, &reader)?;
        if let Some(offset) = torn {
            recovered.notes.push(set_aside(disk, file, &current.file, offset)?);
        }
        recovered.current = Some(current);
    }
    // A killed gateway may not have synced what it wrote, and one whose sync failed could not: no sync after that writes what
    // the failed one was to write (the kernel takes those pages for clean). What is damaged is never touched.
    let stays = damaged || file.archived.is_some();
    let end = if stays || !may_be_unwritten(&reader) { 0 } else { reader.offset() };
    write_again(disk, file, end).map_err(|error| at(&file.path, error))?;
    Ok(recovered)
}

/// Since another start of the machine, what a file says is what the disk holds.
fn may_be_unwritten(reader: &SegmentReader) -> bool {
    let boot = boot_id();
    boot == [0; 16] || reader.header().is_none_or(|header| header.boot == boot)
}

/// Brings the beginning of a file to stable storage, whatever became of earlier syncs.
fn write_again(disk: &impl Disk, file: &SegmentFile, end: u64) -> io::Result<()> {
    let opened = OpenOptions::new().read(true).write(end > 0).open(&file.path)?;
    let mut chunk = vec![0; CHUNK_BYTES.min(end as usize)];
    let mut offset = 0;
    while offset < end {
        let part = &mut chunk[..CHUNK_BYTES.min((end - offset) as usize)];
        opened.read_exact_at(part, offset)?;
        disk.write_all_at(&opened, part, offset)?;
        offset += part.len() as u64;
    }
    disk.sync_data(&opened)
}

fn reopen(file: &SegmentFile, reader: &SegmentReader) -> io::Result<Current> {
    let opened = crate::files::open_existing(&file.path).map_err(|error| at(&file.path, error))?;
    let bytes = opened.metadata().map_err(|error| at(&file.path, error))?.len();
    let held: Footer = reader.held();
    Ok(Current { file: opened, bytes, offset: reader.offset(), held })
}

/// Moves the bytes of an unfinished frame into a file of their own. They were never confirmed to anybody, but they may
/// be evidence.
fn set_aside(disk: &impl Disk, file: &SegmentFile, segment: &File, offset: u64) -> io::Result<String> {
    let wrap = |error| at(&file.path, error);
    let end = segment::last_nonzero(segment).map_err(wrap)?.map_or(offset, |last| last + 1);
    let mut torn = vec![0; (end - offset) as usize];
    segment.read_exact_at(&mut torn, offset).map_err(wrap)?;
    let aside = file.path.with_extension(format!("torn-{offset}"));
    keep(disk, &aside, &torn).map_err(|error| at(&aside, error))?;
    disk::sync_dir(disk, aside.parent().expect("a file in the ring"))?;
    torn.fill(0);
    disk.write_all_at(segment, &torn, offset).and_then(|()| disk.sync_data(segment)).map_err(wrap)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!(
        "{} bytes of an unfinished frame were cut from segment {} at byte {offset}; they are kept in {}",
        torn.len(),
        name(&file.path),
        name(&aside)
    ))
}

fn keep(disk: &impl Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(path)?;
    disk.write_all_at(&file, bytes, 0)?;
    disk.sync_all(&file)
}
