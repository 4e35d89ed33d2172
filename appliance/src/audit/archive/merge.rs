//! All shards as one stream in the order of time, one frame a shard in memory.
//!
//! A shard that has nothing to say holds nobody up: what it may still say is later than the moment it was last asked, less
//! the time a record needs to become visible. Records up to that moment may go.

use super::checkpoint::Promise;
use super::follow::{Follower, Look, Taken};
use super::manifest::Position;
use crate::audit::reader::Damage;
use crate::audit::segment;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub struct Merge {
    data_dir: PathBuf,
    followers: BTreeMap<u32, Follower>,
    /// Time of the record due next, by shard; shards that are idle are not in it.
    heads: BinaryHeap<Reverse<(i64, u32)>>,
    damages: Vec<Damage>,
    /// When it was last looked for new shards.
    listed: Option<Instant>,
}

/// Between two looks for new shards: the archive's folder may be a long one.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// A record so far ahead of the clock was written before the clock was set back: it waits for nobody.
const AHEAD_US: i64 = 10_000_000;

/// What comes next.
pub enum Next {
    /// [`Merge::take`] hands it out.
    Record { shard: u32, time_us: i64 },
    /// A segment does not hold. What precedes it in its shard has been handed out.
    Damage(Damage),
    /// Nothing that may go yet.
    Nothing,
}

impl Merge {
    /// `owed`: frames behind the positions that were promised, by shard.
    pub fn new(data_dir: PathBuf, positions: &BTreeMap<u32, Position>, owed: &BTreeMap<u32, Promise>) -> Self {
        let shards: BTreeSet<u32> = positions.keys().chain(owed.keys()).copied().collect();
        let follower = |shard: u32| {
            let position = positions.get(&shard).copied().unwrap_or(Position::start(shard));
            (shard, Follower::new(data_dir.clone(), &position, owed.get(&shard)))
        };
        let followers = shards.into_iter().map(follower).collect();
        Self { data_dir, followers, heads: BinaryHeap::new(), damages: Vec::new(), listed: None }
    }

    /// Has the frame that was owed been read, as it was promised?
    pub fn has_met(&self, shard: u32) -> bool {
        self.followers.get(&shard).is_some_and(Follower::has_met)
    }

    /// Asks every shard that had nothing to say, and finds new ones.
    pub fn look(&mut self) -> io::Result<()> {
        if self.listed.is_none_or(|listed| listed.elapsed() >= LIST_EVERY) {
            for shard in segment::list_shards(&self.data_dir)? {
                let fresh = || Follower::new(self.data_dir.clone(), &Position::start(shard), None);
                self.followers.entry(shard).or_insert_with(fresh);
            }
            self.listed = Some(Instant::now());
        }
        let idle: Vec<u32> = self.followers.iter().filter(|(_, f)| f.head_us().is_none()).map(|(&s, _)| s).collect();
        idle.into_iter().try_for_each(|shard| self.look_at(shard))
    }

    fn look_at(&mut self, shard: u32) -> io::Result<()> {
        let Some(follower) = self.followers.get_mut(&shard) else { return Ok(()) };
        while follower.head_us().is_none() {
            match follower.look()? {
                Look::Records => {}
                Look::Damage(damage) => {
                    // One at a time: what follows it waits until it is written down.
                    self.damages.push(damage);
                    break;
                }
                Look::Idle => return Ok(()),
            }
        }
        if let Some(time_us) = follower.head_us() {
            self.heads.push(Reverse((time_us, shard)));
        }
        Ok(())
    }

    /// The next record that is not later than `until_us`, or what has to be said before it.
    pub fn next(&mut self, until_us: i64) -> Next {
        if let Some(damage) = self.damages.pop() {
            return Next::Damage(damage);
        }
        match self.heads.peek() {
            Some(&Reverse((time_us, shard))) if time_us <= until_us || time_us > until_us.saturating_add(AHEAD_US) => {
                Next::Record { shard, time_us }
            }
            _ => Next::Nothing,
        }
    }

    /// Hands the record out that [`Self::next`] named, then looks for the one after it.
    pub fn take(&mut self, shard: u32, give: impl FnOnce(&Taken<'_>) -> io::Result<()>) -> io::Result<()> {
        self.heads.pop();
        let Some(follower) = self.followers.get_mut(&shard) else { return Ok(()) };
        if let Some(taken) = follower.take() {
            give(&taken)?;
        }
        match follower.head_us() {
            Some(time_us) => self.heads.push(Reverse((time_us, shard))),
            None => self.look_at(shard)?,
        }
        Ok(())
    }

    /// Hands out what is left of frames that are begun, so that every shard stands between two frames.
    pub fn finish_frames(&mut self, mut give: impl FnMut(&Taken<'_>) -> io::Result<()>) -> io::Result<()> {
        for follower in self.followers.values_mut().filter(|follower| follower.is_begun()) {
            while let Some(taken) = follower.take() {
                give(&taken)?;
            }
        }
        self.heads.retain(|Reverse((_, shard))| self.followers[shard].head_us().is_some());
        Ok(())
    }

    /// Where each shard stands: behind frames all of whose records were handed out.
    pub fn taken(&self) -> impl Iterator<Item = Position> + '_ {
        self.followers.values().map(Follower::taken)
    }

    /// Where each shard has been read to.
    pub fn read(&self) -> impl Iterator<Item = Position> + '_ {
        self.followers.values().map(Follower::read)
    }

    /// Time of the oldest record that waits, by shard.
    pub fn heads(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        self.heads.iter().map(|&Reverse((time_us, shard))| (shard, time_us))
    }

    /// Of the segments that are being read, the size of the smallest. 0: none is.
    pub fn segment_bytes(&self) -> u64 {
        self.followers.values().filter_map(Follower::segment_bytes).min().unwrap_or(0)
    }

    /// Everything that was read is on stable storage afterwards.
    pub fn sync(&self) -> io::Result<()> {
        self.followers.values().try_for_each(Follower::sync)
    }
}
