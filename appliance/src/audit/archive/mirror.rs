//! The archive in an object store as well: every published file, then its entry of the manifest, in their order.
//!
//! ```text
//! PREFIX/parquet/date=2026-11-20/20261120T031200.123456Z-0000000042.parquet
//! PREFIX/manifest/0000000042.json      the entry's line, byte for byte
//! ```
//!
//! Publishing does not wait for it: a store that does not answer holds up no statement. How far it has come is in
//! `archive/delivery/`; what is there twice is the same twice.

use super::checkpoint;
use super::deliver::{Backlog, Delivery, Place};
use super::lines::{self, Lines};
use super::manifest::{self, Entry, What};
use super::store::{self, Store};
use crate::audit::segment::{self, at};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One archive on its way to one store.
pub struct Mirror {
    data_dir: PathBuf,
    address: String,
    credentials: Option<PathBuf>,
    store: Option<Store>,
    delivery: Arc<Delivery>,
}

impl Mirror {
    pub fn new(data_dir: &Path, address: &str, credentials: Option<&Path>, delivery: Arc<Delivery>) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            address: address.to_owned(),
            credentials: credentials.map(Path::to_owned),
            store: None,
            delivery,
        }
    }

    fn store(&mut self) -> io::Result<&Store> {
        if self.store.is_none() {
            // Again after each failure: credentials may have been renewed.
            self.store = Some(store::open(&self.address, self.credentials.as_deref())?);
        }
        Ok(self.store.as_ref().expect("just opened"))
    }

    /// Sends the entry that begins at this byte of the manifest. `None`: there is none yet; else where the next begins.
    fn send(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let path = manifest::path(&self.data_dir);
        if !path.exists() {
            return Ok(None);
        }
        let mut lines = Lines::open_at(&path, offset)?;
        let Some(Ok(line)) = lines.next_line()? else { return Ok(None) };
        let entry = Entry::parse(line).map_err(|broken| at(&path, io::Error::other(broken.to_string())))?;
        // Until then it may be taken back.
        if checkpoint::latest(&self.data_dir)?.is_none_or(|signed| signed.manifest.number < entry.head.number) {
            return Ok(None);
        }
        let object = [line, b"\n"].concat();
        if let What::File(file) = &entry.what {
            let place = segment::archive_dir(&self.data_dir).join(&file.path);
            match crate::files::read(&place) {
                Ok(bytes) => self.store()?.put(&file.path, bytes)?,
                // Deleted on purpose before it was sent: the entry that says so follows.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&place, error)),
            }
        }
        self.store()?.put(&format!("manifest/{:010}.json", entry.head.number), object)?;
        self.delivery.sent(1);
        Ok(Some(lines.next_offset))
    }
}

impl Backlog for Mirror {
    fn name(&self) -> String {
        format!("archive {}", self.address)
    }

    fn shown(&self) -> String {
        self.address.clone()
    }

    fn resume(&mut self, kept: Place) -> io::Result<Place> {
        let tail = lines::tail_until(&manifest::path(&self.data_dir), kept.offset)?;
        if kept.offset == 0 || tail.whole_bytes == kept.offset {
            return Ok(kept);
        }
        let (to, offset) = (&self.address, kept.offset);
        tracing::error!(
            "the archive goes to {to} again: byte {offset} of the manifest, where it was left, is no end of a line"
        );
        Ok(Place::default())
    }

    fn deliver(&mut self, place: &mut Place) -> io::Result<bool> {
        let sent = self.send(place.offset);
        if sent.is_err() {
            self.store = None;
        }
        let Some(next) = sent? else { return Ok(false) };
        place.offset = next;
        Ok(true)
    }
}
