//! How far a sink has come: `data_dir/sinks/NAME.position`, replaced as a whole after each acknowledgement.

use crate::audit::segment::{at, sync_dir};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Everything before `next` was read and delivered, but for what is open.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Sequence of the record to be read next.
    pub next: u64,
    /// Requests before it that had not ended: told when they do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub open: BTreeSet<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Of the trail it is a place in: after a data directory was made anew, the numbers mean nothing.
    pub appliance: String,
    /// Shard -> place.
    pub shards: BTreeMap<u32, Place>,
}

pub fn path(data_dir: &Path, sink: &str) -> PathBuf {
    super::folder(data_dir).join(format!("{sink}.position"))
}

impl Position {
    /// `None`: the sink is new.
    pub fn read(data_dir: &Path, sink: &str) -> io::Result<Option<Self>> {
        let path = path(data_dir, sink);
        let text = match crate::files::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path, error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let what = format!("is no position of a sink ({error}): remove it to send the whole trail again");
            at(&path, io::Error::new(io::ErrorKind::InvalidData, what))
        })
    }

    /// On stable storage when it returns, the old one or the new one at any moment before.
    pub fn write(&self, data_dir: &Path, sink: &str) -> io::Result<()> {
        let path = path(data_dir, sink);
        let unfinished = path.with_extension("position.tmp");
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let written = crate::files::write(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|error| at(&path, error))?;
        sync_dir(&super::folder(data_dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(super::super::folder(dir.path())).expect("made");
        assert_eq!(Position::read(dir.path(), "siem").expect("readable"), None);
        let place = Place { next: 7, open: [3, 5].into() };
        let position = Position { appliance: "aa".into(), shards: [(0, place), (4, Place::default())].into() };
        position.write(dir.path(), "siem").expect("written");
        assert_eq!(Position::read(dir.path(), "siem").expect("readable"), Some(position));
        fs::write(path(dir.path(), "siem"), "{\"app").expect("written");
        let error = Position::read(dir.path(), "siem").expect_err("damaged").to_string();
        assert!(error.contains("siem.position") && error.contains("remove it"), "{error}");
    }
}
