//! Archived trails: segments, manifest, Parquet files and checkpoints made by the product's own archiver, and ways to tamper with
//! them as whole files, as lines and as bits.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lockgate::audit::archive::archiver::{ArchiverOptions, Finish, run};
use lockgate::audit::archive::checkpoint::{Checkpoints, Promise};
use lockgate::audit::archive::holds::{self, Scope};
use lockgate::audit::archive::key::KeySource;
use lockgate::audit::archive::lines::Head;
use lockgate::audit::archive::manifest::{self, DeletedFile, Entry, FileEntry, Manifest, Position, Span, What};
use lockgate::audit::archive::publish;
use lockgate::audit::trail::{Advance, ChainReader};
use lockgate::audit::{Keeper, Release};

use super::random::Random;
use super::trail::{self, Files, Tampering};

fn options(dir: &Path) -> ArchiverOptions {
    ArchiverOptions::by_size(dir, 12 << 10)
}

/// Two shards, a few Parquet files, segments that have left the ring and segments that have not, the newest records promised
/// by a checkpoint. Given out besides: all files as they were a few checkpoints before the end.
pub fn write(dir: &Path, seed: u64) -> Result<Files> {
    let mut random = Random::new(seed);
    let mut writers = [trail::writer(dir, 0)?, trail::writer(dir, 1)?];
    let mut keeper: Keeper = trail::keeper_of(dir, Release::Published { keep: random.chance(30) });
    let mut number = 0;
    let mut some = |rounds: usize, keeper: &mut Keeper| -> Result<()> {
        for _ in 0..rounds {
            number += 1;
            // Both shards, so that each has frames that only a checkpoint promises.
            let writer = &mut writers[number as usize % 2];
            if !trail::append(writer, number, &mut random) {
                keeper.look()?;
                ensure!(trail::append(writer, number, &mut random), "no room");
            }
            writer.write()?;
        }
        keeper.look()?;
        Ok(())
    };
    let archive = || -> Result<()> {
        let finish = Finish::default();
        finish.ask();
        Ok(run(&options(dir), &finish)?)
    };
    let hold = |user: &str| {
        let scope = Scope { users: vec![user.to_owned()], targets: Vec::new(), since: None, until: None };
        holds::add(dir, scope, "case 7", trail::NOW_US)
    };
    for user in ["ann@example.com", "bob@example.com", "c*"] {
        some(12, &mut keeper)?;
        hold(user)?;
        archive()?;
        keeper.look()?;
    }
    let earlier = Files::read(dir)?;
    some(4, &mut keeper)?;
    promise(dir)?;
    some(4, &mut keeper)?;
    hold("dan@example.com")?;
    promise(dir)?;
    Ok(earlier)
}

/// One more checkpoint: it promises what is recorded, archived or not.
fn promise(dir: &Path) -> Result<()> {
    let mut head = Head::START;
    manifest::each(dir, &mut |_, entry| head = entry.map_or(head, |entry| entry.head))?;
    let mut promises = Vec::new();
    for position in manifest::positions(dir)?.values() {
        let mut chain = ChainReader::after(dir.to_owned(), position);
        while chain.advance()? != Advance::End {}
        promises.extend(Promise::of(&chain.position()));
    }
    Ok(Checkpoints::open(dir, &KeySource::File(dir.join("checkpoint.key")))?.write(trail::NOW_US, head, &promises)?)
}

/// What an archive says without a signature.
#[derive(Clone, Copy, Debug)]
pub enum Forgery {
    /// That files were deleted; they are still there.
    Announced,
    /// The same, and they are gone.
    Deleted,
    /// With two entries.
    DeletedTwice,
    /// That what is recorded and not archived is in a file; the segments are still there.
    Claimed,
    /// The same, and the segments are gone.
    ClaimedAndGone,
}

/// Adds to a manifest what nobody signed. Returns the paths of the files it takes away.
pub fn forge(dir: &Path, forgery: Forgery, random: &mut Random) -> Result<Vec<PathBuf>> {
    let mut manifest = Manifest::open(dir, None)?;
    let mut files = Vec::new();
    manifest::each(dir, &mut |_, entry| {
        if let Ok(Entry { head, what: What::File(FileEntry { path, .. }), .. }) = entry {
            files.push(DeletedFile { entry: head.number, path });
        }
    })?;
    if matches!(forgery, Forgery::Claimed | Forgery::ClaimedAndGone) {
        claim(dir, &mut manifest)?;
        let ring = |name: &PathBuf| name.starts_with("segments") && name.extension().is_some_and(|kind| kind == "seg");
        let segments: Vec<PathBuf> = Files::read(dir)?.0.into_keys().filter(ring).collect();
        return Ok(if matches!(forgery, Forgery::Claimed) { Vec::new() } else { segments });
    }
    files.retain(|_| random.chance(70));
    let deleted = |files: Vec<DeletedFile>| What::Deleted { files, reason: "older than 1 days".into() };
    let paths = files.iter().map(|file| Path::new("archive").join(&file.path)).collect();
    if matches!(forgery, Forgery::DeletedTwice) {
        manifest.append(trail::NOW_US, &deleted(Vec::new()), &[])?;
    }
    manifest.append(trail::NOW_US, &deleted(files), &[])?;
    Ok(if matches!(forgery, Forgery::Announced) { Vec::new() } else { paths })
}

fn claim(dir: &Path, manifest: &mut Manifest) -> Result<()> {
    let (mut spans, mut moved): (Vec<Span>, Vec<Position>) = Default::default();
    for position in manifest.positions().values() {
        let mut chain = ChainReader::after(dir.to_owned(), position);
        while chain.advance()? != Advance::End {}
        let span = Span::between(position, &chain.position());
        moved.extend(span.map(|_| chain.position()));
        spans.extend(span);
    }
    let number = manifest.head().number + 1;
    let text = b"hardly Parquet";
    let path = publish::relative_path(trail::NOW_US, number);
    let place = dir.join("archive").join(&path);
    std::fs::create_dir_all(place.parent().expect("it has a folder"))?;
    std::fs::write(&place, text)?;
    let file = FileEntry {
        path,
        bytes: text.len() as u64,
        blake3: *blake3::hash(text).as_bytes(),
        rows: spans.iter().map(Span::records).sum(),
        schema: manifest::SCHEMA,
        since_us: trail::NOW_US,
        until_us: trail::NOW_US,
        shards: spans,
    };
    Ok(manifest.append(trail::NOW_US, &What::File(file), &moved)?)
}

/// What a break's file belongs to: a segment by shard and number, the manifest, the checkpoints, or the file itself.
pub fn group(file: &str) -> String {
    if file.contains("checkpoints") || file.contains("elsewhere") {
        return "checkpoints".into();
    }
    if file.ends_with(".seg") {
        let mut digits = file.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
        return format!("segment {}-{}", digits.next().unwrap_or(0), digits.next().unwrap_or(0));
    }
    file.rsplit('/').next().unwrap_or(file).into()
}

/// A trail after it was tampered with; one break at least must belong to one of `named`.
#[derive(Debug)]
pub struct Tampered {
    pub files: Files,
    pub what: String,
    pub named: Vec<String>,
}

pub fn tamper(files: &Files, earlier: &Files, other: &Files, how: Tampering, random: &mut Random) -> Tampered {
    loop {
        let made = match how {
            Tampering::Flip => flip(files, random),
            Tampering::Delete => delete(files, random),
            Tampering::Swap => swap(files, random),
            Tampering::Truncate => truncate(files, random),
            Tampering::Replay => replay(files, random),
            Tampering::RollBack => roll_back(files, earlier, other, random),
        };
        if let Some(made) = made.filter(|made| made.files != *files) {
            return made;
        }
    }
}

/// Any file that the trail needs: not a prepared segment.
fn any(files: &Files, random: &mut Random) -> PathBuf {
    let needed = files.0.iter().filter(|(_, bytes)| bytes.iter().any(|&byte| byte != 0)).map(|(name, _)| name);
    random.pick(&needed.cloned().collect::<Vec<_>>()).clone()
}

fn made(files: Files, what: String, touched: &[&Path]) -> Option<Tampered> {
    let mut named: Vec<String> = touched.iter().map(|name| group(&name.to_string_lossy())).collect();
    // What is gone or shorter is known by what speaks of it.
    if named.iter().any(|group| group == "manifest.jsonl" || group == "holds.jsonl") {
        named.push("checkpoints".into());
    }
    Some(Tampered { files, what, named })
}

fn is_lines(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "jsonl")
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn flip(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any(files, random);
    let mut harmed = files.clone();
    let bytes = harmed.0.get_mut(&name)?;
    let written = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let (byte, bit) = (random.below(written), random.below(8));
    bytes[byte] ^= 1 << bit;
    made(harmed, format!("bit {bit} of byte {byte} of {} flipped", name.display()), &[&name])
}

fn delete(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any(files, random);
    let mut harmed = files.clone();
    if is_lines(&name) && random.chance(70) {
        let mut lines = lines(&files.0[&name]);
        let gone = random.below(lines.len());
        lines.remove(gone);
        harmed.0.insert(name.clone(), lines.concat());
        return made(harmed, format!("line {} of {} deleted", gone + 1, name.display()), &[&name]);
    }
    if is_kept(files, &name) {
        return None; // the manifest vouches for what it held: anybody may remove it
    }
    harmed.0.remove(&name);
    made(harmed, format!("{} deleted", name.display()), &[&name])
}

/// A segment that is in the archive beside its records.
fn is_kept(files: &Files, name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "seg") && files.place(name).archived
}

fn swap(files: &Files, random: &mut Random) -> Option<Tampered> {
    let (one, two) = (any(files, random), any(files, random));
    let mut harmed = files.clone();
    if is_lines(&one) && random.chance(60) {
        let mut lines = lines(&files.0[&one]);
        let (a, b) = (random.below(lines.len()), random.below(lines.len()));
        lines.swap(a, b);
        harmed.0.insert(one.clone(), lines.concat());
        return made(harmed, format!("lines {} and {} of {} swapped", a + 1, b + 1, one.display()), &[&one]);
    }
    harmed.0.insert(one.clone(), files.0[&two].clone());
    harmed.0.insert(two.clone(), files.0[&one].clone());
    made(harmed, format!("{} and {} swapped", one.display(), two.display()), &[&one, &two])
}

fn truncate(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any(files, random);
    let mut harmed = files.clone();
    let bytes = harmed.0.get_mut(&name)?;
    let length = match is_lines(&name) && random.chance(50) {
        true => lines(bytes).iter().take(random.below(lines(bytes).len())).map(Vec::len).sum(),
        false => random.below(bytes.len()),
    };
    bytes.truncate(length);
    made(harmed, format!("{} truncated to {length} bytes", name.display()), &[&name])
}

fn replay(files: &Files, random: &mut Random) -> Option<Tampered> {
    let name = any(files, random);
    let mut harmed = files.clone();
    if is_lines(&name) {
        let mut lines = lines(&files.0[&name]);
        let (from, to) = (random.below(lines.len()), random.below(lines.len() + 1));
        lines.insert(to, lines[from].clone());
        harmed.0.insert(name.clone(), lines.concat());
        return made(harmed, format!("line {} of {} again as line {}", from + 1, name.display(), to + 1), &[&name]);
    }
    let copy = match name.extension()?.to_str()? {
        "parquet" => name.with_file_name(format!("20261120T000000.000000Z-{:010}.parquet", 900 + random.below(9))),
        _ => {
            let place = files.place(&name);
            PathBuf::from(format!(
                "segments/shard-{}/{:010}.seg",
                place.shard,
                place.number + 20 + random.below(9) as u64
            ))
        }
    };
    harmed.0.insert(copy.clone(), files.0[&name].clone());
    made(harmed, format!("{} again as {}", name.display(), copy.display()), &[&copy])
}

fn roll_back(files: &Files, earlier: &Files, other: &Files, random: &mut Random) -> Option<Tampered> {
    if random.chance(20) {
        // Everything, as a backup of an earlier moment would have it: only what is kept elsewhere knows better.
        let named = vec!["checkpoints".to_string()];
        return Some(Tampered { files: earlier.clone(), what: "all of it rolled back".into(), named });
    }
    let name = any(files, random);
    let source = if random.chance(50) { earlier } else { other };
    let mut harmed = files.clone();
    harmed.0.insert(name.clone(), source.0.get(&name)?.clone());
    let made = made(harmed, format!("{} as it was or as another trail has it", name.display()), &[&name])?;
    let mut named = made.named.clone();
    if name.extension().is_some_and(|extension| extension == "seg") {
        let place = files.place(&name);
        named.push(format!("segment {}-{}", place.shard, place.number + 1));
        // Of an emptied one a checkpoint still promises frames: they are missed behind what is left.
        named.push(format!("segment {}-{}", place.shard, place.number.saturating_sub(1)));
    }
    Some(Tampered { named, ..made })
}
