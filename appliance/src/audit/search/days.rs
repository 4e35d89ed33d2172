//! On which days something was recorded: a trail is longer than memory, and is judged a day at a time.

use super::{End, Trouble, report_once, rounds, search_shard, shards};
use crate::audit::archive::catalogue::{ManifestDamage, Stand};
use crate::audit::archive::lines::LineBroken;
use crate::audit::archive::manifest::{self, What};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

const DAY_US: i64 = 86_400_000_000;

/// A UTC day, or the part of it that was asked for. Unix microseconds, both ends included.
pub type Day = (i64, i64);

/// The days of this time, both ends included, on which there may be records, in their order. What cannot be read is handed out: nobody
/// knows of which day that was.
pub fn days(data_dir: &Path, since_us: i64, until_us: i64, trouble: &mut dyn FnMut(Trouble)) -> io::Result<Vec<Day>> {
    if since_us > until_us {
        return Ok(Vec::new());
    }
    let mut found = BTreeSet::new();
    let mut reported = Vec::new();
    let mut once = |met| report_once(&mut reported, met, trouble);
    let mut note = |first_us: i64, last_us: i64| {
        let (first, last) = (first_us.max(since_us), last_us.min(until_us));
        found.extend(first.div_euclid(DAY_US)..=last.div_euclid(DAY_US));
    };
    rounds(|| {
        // What leaves the ring meanwhile is in the manifest by the next round.
        let stand = Stand::of(data_dir, &mut |damage| once(Trouble::Manifest(damage)))?;
        archived(data_dir, &mut note, &mut once)?;
        let mut moved = false;
        for (shard, files) in shards(data_dir, &stand)? {
            let position = stand.positions.get(&shard);
            let mut take = |_, _, view: &crate::audit::record::View<'_>| note(view.time_us(), view.time_us());
            let End { moved: gone, .. } =
                search_shard(data_dir, shard, &files, position, Some(since_us), &mut take, &mut once)?;
            moved |= gone;
        }
        Ok(!moved)
    })?;
    let bounds = |day: i64| {
        let first_us = day.saturating_mul(DAY_US);
        (first_us.max(since_us), first_us.saturating_add(DAY_US - 1).min(until_us))
    };
    Ok(found.into_iter().map(bounds).collect())
}

/// As the manifest says it of each file.
fn archived(data_dir: &Path, note: &mut dyn FnMut(i64, i64), trouble: &mut dyn FnMut(Trouble)) -> io::Result<()> {
    manifest::each(data_dir, &mut |place, entry| match entry.map(|entry| entry.what) {
        Ok(What::File(file)) => note(file.since_us, file.until_us),
        Ok(_) | Err(LineBroken::Unfinished) => {}
        Err(broken) => trouble(Trouble::Manifest(ManifestDamage { file: manifest::path(data_dir), place, broken })),
    })
}
