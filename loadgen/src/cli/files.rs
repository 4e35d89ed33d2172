//! Files a run's results go to: opened before the run, so that one that cannot be written costs no run.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// What the file holds stays until there is something better.
    pub fn open(path: &Path) -> Result<Output> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Output { path: path.into(), file })
    }

    pub fn write(mut self, text: &str) -> Result<()> {
        // A terminal or a pipe has no length.
        let _ = self.file.set_len(0);
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.flush());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}
