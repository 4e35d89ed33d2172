//! What the archiver tells of itself: a small file that the gateway reads when it is scraped. Never a truth, only news.

use crate::audit::segment::at;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A status older than this is that of an archiver that is gone.
pub const STALE_US: i64 = 5_000_000;

pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("archiver.json")
}

/// Counters are of one run of the archiver.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub time_us: i64,
    /// When records were read and published as they should be for the last time.
    pub well_us: i64,
    /// By shard, the time of the oldest record that is not read yet, or while publishing fails not published.
    pub behind_since_us: BTreeMap<u32, i64>,
    pub files: u64,
    pub bytes: u64,
    pub records: u64,
    pub failures: u64,
    pub damages: u64,
    pub checkpoints: u64,
    /// Of checkpoints to other places.
    #[serde(default)]
    pub copy_failures: u64,
    #[serde(default)]
    pub copies_behind_since_us: Option<i64>,
    /// The last error, until all is well again.
    pub error: Option<String>,
}

impl Status {
    /// Publishing failed: whatever was not behind is so since all was well for the last time.
    pub fn failed(&mut self, shards: impl IntoIterator<Item = u32>) {
        self.failures += 1;
        for shard in shards.into_iter().filter(|_| self.well_us != 0) {
            self.behind_since_us.entry(shard).or_insert(self.well_us);
        }
    }

    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let (path, tmp) = (path(data_dir), path(data_dir).with_extension("json.tmp"));
        let write = || -> io::Result<()> {
            io::Write::write_all(&mut files::create(&tmp)?, &serde_json::to_vec(self)?)?;
            fs::rename(&tmp, &path)
        };
        write().map_err(|error| at(&path, error))
    }

    /// `None`: there never was an archiver here, or what it wrote is not readable.
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&files::read(&path(data_dir)).ok()?).ok()
    }

    pub fn is_stale(&self, now_us: i64) -> bool {
        // Whichever way the clock was set.
        (now_us - self.time_us).abs() > STALE_US
    }

    /// How far the archiver is behind in this shard, in microseconds.
    pub fn lag_us(&self, shard: u32, now_us: i64) -> i64 {
        let since_us = self.behind_since_us.get(&shard).copied();
        // Of what happened since it fell silent nothing is read.
        let since_us = if self.is_stale(now_us) { since_us.or(Some(self.time_us)) } else { since_us };
        since_us.map_or(0, |since_us| (now_us - since_us).max(0))
    }
}

#[cfg(test)]
thread_local! {
    /// What a test has set the clock to.
    pub static CLOCK_US: std::cell::Cell<Option<i64>> = const { std::cell::Cell::new(None) };
}

/// Unix microseconds.
pub fn unix_us() -> i64 {
    #[cfg(test)]
    if let Some(now_us) = CLOCK_US.get() {
        return now_us;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archiver_that_is_gone_falls_behind() {
        let status = Status { time_us: 100_000_000, behind_since_us: [(1, 97_000_000)].into(), ..Status::default() };
        assert_eq!((status.lag_us(0, 101_000_000), status.lag_us(1, 101_000_000)), (0, 4_000_000));
        assert_eq!((status.lag_us(0, 110_000_000), status.lag_us(1, 110_000_000)), (10_000_000, 13_000_000));
    }

    #[test]
    fn a_status_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Status::read(dir.path()), None);
        let status = Status { pid: 7, files: 3, behind_since_us: [(0, 5)].into(), ..Status::default() };
        status.write(dir.path()).unwrap();
        assert_eq!(Status::read(dir.path()), Some(status));
    }
}
