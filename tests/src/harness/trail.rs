//! Small trails written by the product's own writer, held in memory file by file, and the ways to tamper with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use lockgate::audit::seal::SealerOptions;
use lockgate::audit::segment::SEGMENT_BYTES_MIN;
use lockgate::audit::{
    Entry, Journal, Keeper, NOBODY, Outcome, PackedWho, Release, Request, RingOptions, SegmentWriter, Who,
};

use super::random::Random;

pub const NOW_US: i64 = 1_795_142_000_000_000;
const SEGMENTS: u32 = 4;
const HEADER_BYTES: usize = 128;
const FRAME_HEADER_BYTES: usize = 96;

/// One statement and its outcome, with texts that differ from record to record.
pub fn append(writer: &mut SegmentWriter, number: u64, random: &mut Random) -> bool {
    static ADA: LazyLock<PackedWho> = LazyLock::new(|| {
        let groups = ["engineering".to_owned()];
        PackedWho::new(&Who {
            session: "0-1-0123456789abcdef",
            user: "ada@example.com",
            groups: &groups,
            target: "orders",
            client: "127.0.0.1:50000",
            application: "psql",
            claimed_user: "ada",
            ..NOBODY
        })
    });
    let tables = ["public.orders".to_owned()];
    let who = Who { packed: Some(&ADA), ..NOBODY };
    let statement = format!("SELECT {number} /* {} */", "ä".repeat(random.below(400)));
    let request = Request {
        request: number,
        statement: statement.as_bytes(),
        statement_bytes: statement.len() as u64,
        binds: &[Some("42"), None],
        classes: 1,
        tables: &tables,
        decision: "allow",
        rule: "",
        ticket: "",
    };
    let outcome = Outcome {
        request: number,
        rows: 1,
        bytes: 9,
        duration_us: 1500,
        error: "",
        masked: 0,
        more: false,
        payload: b"\x00\xff",
        payload_cut: false,
    };
    let at = NOW_US + number as i64 * 1_000;
    writer.append(at, &who, &Entry::Request(request)).is_ok()
        && writer.append(at + 7, &who, &Entry::Outcome(outcome)).is_ok()
}

pub fn writer(dir: &Path, shard: u32) -> Result<SegmentWriter> {
    let options =
        RingOptions { data_dir: dir.to_owned(), shard, segment_bytes: SEGMENT_BYTES_MIN, segments_per_shard: SEGMENTS };
    Ok(SegmentWriter::open(&options, NOW_US)?.0)
}

pub fn keeper(dir: &Path, archive: bool) -> Keeper {
    keeper_of(dir, if archive { Release::Sealed } else { Release::Never })
}

pub fn keeper_of(dir: &Path, release: Release) -> Keeper {
    Keeper::new(SealerOptions {
        data_dir: dir.to_owned(),
        shards: 2,
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_per_shard: SEGMENTS,
        release,
    })
}

/// Shard 0: two archived segments, a sealed one, the newest, a prepared one. Shard 1: one in use, one prepared.
pub fn write(dir: &Path, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let (mut long, mut short) = (writer(dir, 0)?, writer(dir, 1)?);
    let (mut number, mut archiving, mut idle) = (0, keeper(dir, true), keeper(dir, false));
    let newest = |writer: &SegmentWriter| -> Result<u64> { Ok(writer.ring_used_bytes()?) };
    let in_use =
        |dir: &Path| -> Result<usize> { Ok(Files::read(dir)?.names(|file| file.shard == 0 && !file.blank).len()) };
    for wanted in [3, 4] {
        while in_use(dir)? < wanted {
            number += 1;
            ensure!(append(&mut long, number, &mut random), "the ring is full with {} bytes", newest(&long)?);
            if random.chance(60) {
                long.write()?;
            }
            if wanted == 3 {
                archiving.look()?
            } else {
                idle.look()?
            };
        }
    }
    for more in 1..=6 + random.below(6) as u64 {
        ensure!(append(&mut long, number + more, &mut random) && append(&mut short, more, &mut random), "no room");
        long.write()?;
        short.write()?;
    }
    idle.look()?;
    Ok(())
}

/// What a file is, by its name and its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub shard: u32,
    pub number: u64,
    pub archived: bool,
    /// Nothing but zeros.
    pub blank: bool,
}

/// A trail in memory: path below the data directory -> bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<PathBuf, Vec<u8>>);

impl Files {
    pub fn read(dir: &Path) -> Result<Files> {
        let mut files = Files::default();
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "seg" || kind == "jsonl" || kind == "parquet") {
                    files.0.insert(path.strip_prefix(dir)?.to_owned(), fs::read(&path)?);
                }
            }
        }
        Ok(files)
    }

    /// Makes the folder hold exactly these, where it now holds `from`.
    pub fn put(&self, dir: &Path, from: &Files) -> Result<()> {
        for name in from.0.keys().filter(|name| !self.0.contains_key(*name)) {
            fs::remove_file(dir.join(name))?;
        }
        for (name, bytes) in self.0.iter().filter(|(name, bytes)| from.0.get(*name) != Some(bytes)) {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().context("a file in a folder")?)?;
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    pub fn names(&self, wanted: impl Fn(&Place) -> bool) -> Vec<PathBuf> {
        self.0.iter().filter(|(name, bytes)| wanted(&place(name, bytes))).map(|(name, _)| name.clone()).collect()
    }

    pub fn place(&self, name: &Path) -> Place {
        place(name, &self.0[name])
    }

    /// The segment of a shard that is being written.
    pub fn is_newest(&self, name: &Path) -> bool {
        let at = self.place(name);
        !at.blank && self.names(|other| other.shard == at.shard && !other.blank && other.number > at.number).is_empty()
    }

    /// Where the frames of a file lie, with their numbers.
    pub fn frames(&self, name: &Path) -> Vec<Spot> {
        let (bytes, mut at, mut frames) = (&self.0[name], HEADER_BYTES, Vec::new());
        while bytes.get(at..at + 4) == Some(b"LGFR") {
            let payload = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("4 bytes")) as usize;
            let number = u64::from_le_bytes(bytes[at + 24..at + 32].try_into().expect("8 bytes"));
            frames.push(Spot { start: at, end: at + FRAME_HEADER_BYTES + payload, number });
            at += FRAME_HEADER_BYTES + payload;
        }
        frames
    }
}

/// One frame of a file.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub start: usize,
    pub end: usize,
    pub number: u64,
}

fn place(name: &Path, bytes: &[u8]) -> Place {
    let text = name.to_string_lossy();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    let (shard, number) = (numbers.next().unwrap_or(0) as u32, numbers.next().unwrap_or(0));
    let blank = bytes.iter().all(|&byte| byte == 0);
    Place { shard, number, archived: text.starts_with("archive"), blank }
}

/// How a trail is tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    Flip,
    Delete,
    Swap,
    Truncate,
    Replay,
    RollBack,
}

/// A trail after it was tampered with, and which segments may be named for it first.
#[derive(Debug)]
pub struct Tampered {
    pub files: Files,
    pub what: String,
    pub named: BTreeSet<(u32, u64)>,
    /// A frame and the kinds of break that are the only right answer, where there is one.
    pub exactly: Option<(Option<u64>, &'static [&'static str])>,
}

/// `other`: a trail of the same shape with another history.
pub fn tamper(files: &Files, other: &Files, how: Tampering, random: &mut Random) -> Tampered {
    loop {
        let made = match how {
            Tampering::Flip => flip(files, random),
            Tampering::Delete => delete(files, random),
            Tampering::Swap => swap(files, random),
            Tampering::Truncate => truncate(files, random),
            Tampering::Replay => replay(files, random),
            Tampering::RollBack => roll_back(files, other, random),
        };
        // What changes nothing is no tampering.
        if let Some(made) = made.filter(|made| made.files != *files) {
            return made;
        }
    }
}

fn made(files: Files, what: String, named: impl IntoIterator<Item = Place>) -> Option<Tampered> {
    let named = named.into_iter().map(|place| (place.shard, place.number)).collect();
    Some(Tampered { files, what, named, exactly: None })
}

fn any(files: &Files, random: &mut Random) -> PathBuf {
    random.pick(&files.names(|_| true)).clone()
}

fn any_in_use(files: &Files, random: &mut Random) -> PathBuf {
    random.pick(&files.names(|file| !file.blank)).clone()
}

fn flip(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any(files, random);
    let frames = files.frames(&name);
    let written = frames.last().map_or(HEADER_BYTES, |frame| frame.end);
    let length = files.0[&name].len();
    // Mostly where something was written.
    let within = if random.chance(80) { written } else { length };
    let byte = random.below(within);
    let bit = random.below(8);
    let mut harmed = files.clone();
    harmed.0.get_mut(&name).expect("listed")[byte] ^= 1 << bit;
    let hit = frames.iter().find(|frame| (frame.start..frame.end).contains(&byte)).map(|frame| frame.number);
    let next = frames.last().map(|frame| frame.number + 1);
    let exactly: (Option<u64>, &[&str]) = match hit {
        _ if files.place(&name).blank => (None, &["after_end", "header"]),
        _ if byte < HEADER_BYTES => (None, &["header"]),
        Some(number) => (Some(number), &["frame", "tail"]),
        None => (next, &["after_end", "tail"]),
    };
    let made = made(harmed, format!("bit {bit} of byte {byte} of {} flipped", name.display()), [files.place(&name)])?;
    Some(Tampered { exactly: Some(exactly), ..made })
}

fn delete(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any_in_use(files, random);
    let mut harmed = files.clone();
    if random.chance(50) {
        harmed.0.remove(&name);
        // The only segment of a shard: its prepared successor is then missed first, or there is nothing.
        return made(harmed, format!("{} deleted", name.display()), [files.place(&name)]);
    }
    let frames = files.frames(&name);
    let index = random.below(frames.len());
    if files.is_newest(&name) && index + 1 == frames.len() {
        return None; // a cut tail: `cut_tail` says what becomes of it
    }
    let (gone, bytes) = (frames[index], harmed.0.get_mut(&name).expect("listed"));
    let length = bytes.len();
    bytes.drain(gone.start..gone.end);
    bytes.resize(length, 0);
    made(harmed, format!("frame {} cut out of {}", gone.number, name.display()), [files.place(&name)])
}

fn swap(files: &Files, random: &mut Random) -> Option<Tampered> {
    let (one, two) = (any_in_use(files, random), any(files, random));
    let mut harmed = files.clone();
    let both = [files.place(&one), files.place(&two)];
    if random.chance(50) {
        // The newest emptied: of two files of zeros the second is the one without a place.
        let behind = both.into_iter().map(|place| Place { number: place.number + 1, ..place });
        let both = both.into_iter().chain(behind.filter(|_| both.iter().any(|place| place.blank)));
        harmed.0.insert(one.clone(), files.0[&two].clone());
        harmed.0.insert(two.clone(), files.0[&one].clone());
        return made(harmed, format!("{} and {} swapped", one.display(), two.display()), both);
    }
    let (first, second) = (files.frames(&one), files.frames(&one));
    let (a, b) = (*random.pick(&first), *random.pick(&second));
    if a.start >= b.start {
        return None;
    }
    let bytes = &files.0[&one];
    let swapped =
        [&bytes[..a.start], &bytes[b.start..b.end], &bytes[a.end..b.start], &bytes[a.start..a.end], &bytes[b.end..]];
    harmed.0.insert(one.clone(), swapped.concat());
    made(harmed, format!("frames {} and {} of {} swapped", a.number, b.number, one.display()), [both[0]])
}

fn truncate(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any_in_use(files, random);
    let mut harmed = files.clone();
    let bytes = harmed.0.get_mut(&name).expect("listed");
    let frames = files.frames(&name);
    let last = frames.last()?;
    if random.chance(50) {
        let length = random.below(bytes.len());
        bytes.truncate(length);
        return made(harmed, format!("{} truncated to {length} bytes", name.display()), [files.place(&name)]);
    }
    let from = random.below(last.end);
    let whole =
        from <= HEADER_BYTES || frames.iter().any(|frame| frame.start == from || only_zeros(bytes, from, frame));
    if files.is_newest(&name) && whole {
        return None;
    }
    bytes[from..].fill(0);
    made(harmed, format!("{} zeros from byte {from} on", name.display()), [files.place(&name)])
}

/// Would zeros from there on leave the frame as it is, or nothing of it?
fn only_zeros(bytes: &[u8], from: usize, frame: &Spot) -> bool {
    (frame.start..=frame.end).contains(&from) && bytes[from..frame.end].iter().all(|&byte| byte == 0)
}

fn replay(files: &Files, random: &mut Random) -> Option<Tampered> {
    let (source, place) = (any_in_use(files, random), any_in_use(files, random));
    let mut harmed = files.clone();
    if random.chance(50) {
        return replay_file(files, &source, random);
    }
    let frame = *random.pick(&files.frames(&source));
    let copy = &files.0[&source][frame.start..frame.end];
    let spots = files.frames(&place);
    let (end, index) = (spots.last()?.end, random.below(spots.len() + 1));
    let at = spots.get(index).map_or(end, |spot| spot.start);
    let bytes = &files.0[&place];
    // Inserted, what follows moves on; or laid over what is there.
    let over = if random.chance(50) { spots.get(index).map_or(end, |spot| spot.end) } else { at };
    if source == place && spots.get(index).is_some_and(|spot| spot.number == frame.number) && over != at {
        return None;
    }
    let mut replayed = [&bytes[..at], copy, &bytes[over..end]].concat();
    if replayed.len() > bytes.len() {
        return None;
    }
    replayed.resize(bytes.len(), 0);
    harmed.0.insert(place.clone(), replayed);
    let what = format!("frame {} of {} again in {} at byte {at}", frame.number, source.display(), place.display());
    made(harmed, what, [files.place(&place)])
}

/// A whole segment a second time: in the place of another, or under a number or a name of its own.
fn replay_file(files: &Files, source: &Path, random: &mut Random) -> Option<Tampered> {
    let (mut harmed, from) = (files.clone(), files.place(source));
    let beyond = files.names(|file| file.shard == from.shard).len() as u64 + 1 + random.below(5) as u64;
    let number = if random.chance(50) { beyond } else { random.below(beyond as usize) as u64 };
    let target = match random.below(3) {
        0 => any(files, random),
        1 => PathBuf::from(format!("segments/shard-{}/{number:010}.seg", from.shard)),
        _ => {
            let since = random.below(9);
            let name = format!(
                "shard-{}-{number:010}-2026111{since}T000000Z-20261119T000000Z-{:064x}.seg",
                from.shard, number
            );
            Path::new("archive").join(name)
        }
    };
    let bytes = files.0[source].clone();
    let at = place(&target, &bytes);
    harmed.0.insert(target.clone(), bytes);
    made(harmed, format!("{} again as {}", source.display(), target.display()), [at])
}

fn roll_back(files: &Files, other: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any_in_use(files, random);
    let (mut harmed, at) = (files.clone(), files.place(&name));
    let mut named = vec![at];
    match random.below(3) {
        // As it was when it had fewer frames, or none yet.
        0 | 1 if !files.is_newest(&name) => {
            let frames = files.frames(&name);
            let kept = random.below(frames.len() + 1);
            let from = if kept == frames.len() { 0 } else { frames[kept].start };
            harmed.0.get_mut(&name).expect("listed")[from..].fill(0);
        }
        2 => {
            // The same segment of another history, under this name or its own. It may hold in itself: then the next one does not.
            let twin = other.names(|file| (file.shard, file.number) == (at.shard, at.number)).pop()?;
            if at.number == 1 && files.is_newest(&name) {
                return None; // the whole shard replaced: nothing here contradicts it
            }
            let bytes = other.0[&twin].clone();
            let keep_name = random.chance(50) || twin.components().count() != name.components().count();
            if keep_name {
                harmed.0.insert(name.clone(), bytes);
            } else {
                harmed.0.remove(&name);
                harmed.0.insert(twin, bytes);
            }
            named.push(Place { number: at.number + 1, ..at });
        }
        _ => return None,
    }
    made(harmed, format!("{} rolled back", name.display()), named)
}

/// The newest segment of a shard cut back to an earlier whole frame: a chain alone cannot know.
pub fn cut_tail(files: &Files, random: &mut Random) -> Files {
    let mut newest = files.names(|_| true);
    newest.retain(|name| name.extension().is_some_and(|kind| kind == "seg") && files.is_newest(name));
    newest.retain(|name| !files.frames(name).is_empty());
    let name = random.pick(&newest);
    let mut cut = files.clone();
    let from = random.pick(&files.frames(name)).start;
    cut.0.get_mut(name).expect("listed")[from..].fill(0);
    cut
}
