//! Proof that a trail is what was written: every byte of every file, along the chain of every shard.

use super::reader::Damage;
use super::segment;
use super::trail::{Advance, ChainReader};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a live gateway gets to finish the last frame.
const UNFINISHED_LOOKS: u32 = 50;
const UNFINISHED_PAUSE: Duration = Duration::from_millis(10);

/// What was found to hold.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    pub shard: u32,
    pub segments: u64,
    pub frames: u64,
    pub records: u64,
    /// File bytes looked at.
    pub bytes: u64,
    /// Unix microseconds of the earliest and the latest frame.
    pub times: Option<(i64, i64)>,
    pub breaks: u64,
}

/// Checks all shards. Every break is handed out as it is met.
pub fn verify(data_dir: &Path, broken: &mut dyn FnMut(&Damage)) -> io::Result<Vec<ShardReport>> {
    verify_all(data_dir, UNFINISHED_LOOKS, broken)
}

/// The same for a trail that nobody is writing: nothing is waited for.
pub fn verify_still(data_dir: &Path, broken: &mut dyn FnMut(&Damage)) -> io::Result<Vec<ShardReport>> {
    verify_all(data_dir, 0, broken)
}

fn verify_all(data_dir: &Path, looks: u32, broken: &mut dyn FnMut(&Damage)) -> io::Result<Vec<ShardReport>> {
    let mut reports = Vec::new();
    for (shard, files) in segment::list(data_dir)? {
        let mut report = ShardReport { shard, segments: files.len() as u64, ..ShardReport::default() };
        for file in files.values() {
            // One that has just moved to the archive counts all the same.
            report.bytes += file.path.metadata().map_or(0, |metadata| metadata.len());
        }
        verify_shard(data_dir, looks, &mut report, broken)?;
        reports.push(report);
    }
    Ok(reports)
}

fn verify_shard(
    data_dir: &Path,
    looks_max: u32,
    report: &mut ShardReport,
    broken: &mut dyn FnMut(&Damage),
) -> io::Result<()> {
    let mut chain = ChainReader::whole(data_dir.to_owned(), report.shard).thorough();
    let mut looks = 0;
    let mut found = |damage: Damage, report: &mut ShardReport| {
        report.breaks += 1;
        broken(&damage);
    };
    loop {
        match chain.advance()? {
            Advance::Frame(header) => {
                looks = 0;
                report.frames += 1;
                let (first, last) = report.times.unwrap_or((header.time_us, header.time_us));
                report.times = Some((first.min(header.time_us), last.max(header.time_us)));
                for record in chain.records() {
                    match record {
                        Ok(_) => report.records += 1,
                        Err(damage) => found(damage, report),
                    }
                }
            }
            Advance::Damage(damage) => found(damage, report),
            Advance::End if chain.is_unfinished() && looks < looks_max => {
                looks += 1;
                std::thread::sleep(UNFINISHED_PAUSE);
            }
            Advance::End => {
                if let Some(damage) = chain.take_unfinished() {
                    found(damage, report);
                }
                let Some(behind) = chain.behind()? else { continue };
                behind.into_iter().for_each(|damage| found(damage, report));
                return Ok(());
            }
        }
    }
}
