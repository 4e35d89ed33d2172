//! How much of the archive a hold covers: one that is spelt otherwise than the trail covers nothing, and nothing else would say so.

use super::catalogue::{Catalogue, Item};
use super::find::{Listed, holds_any};
use super::holds::Scope;
use crate::audit::search::Filter;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files of the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Covered {
    /// That have to stay. What cannot be read may hold anything.
    pub files: u64,
    pub looked_at: u64,
    /// There are more, and the time was up.
    pub more: bool,
}

/// Looks through the archive, for as long as `patience` lasts. What is in segments only is not looked at.
pub fn covered(data_dir: &Path, scope: &Scope, patience: Duration) -> io::Result<Covered> {
    let (begun, filter, mut told) = (Instant::now(), scope.filter(), Covered::default());
    let mut catalogue = Catalogue::whole(data_dir)?;
    while let Some(item) = catalogue.next_item()? {
        let Item::File(_, file) = item else { continue };
        if begun.elapsed() >= patience {
            return Ok(Covered { more: true, ..told });
        }
        told.looked_at += 1;
        told.files += u64::from(filter.as_ref().is_none_or(|filter| holds(&file, filter)));
    }
    Ok(told)
}

fn holds(file: &Listed, filter: &Filter) -> bool {
    filter.overlaps(file.since_us, file.until_us)
        && file.open().and_then(|opened| holds_any(&opened, filter)).unwrap_or(true)
}
