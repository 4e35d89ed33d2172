//! What the gateway recorded, as its own commands tell it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use super::Gateway;

/// `lockgate audit search` with these filters.
pub fn search(gateway: &Gateway, filters: &[&str]) -> Result<Vec<Value>> {
    gateway.json(&[&["audit", "search"], filters].concat())
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// What the files below a folder hold. One that a running gateway has renamed since it was listed is read under its
/// new name: the folder is listed until all of a listing could be read.
pub fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    for _ in 0..100 {
        let read: Vec<_> = files(folder).into_iter().map(|file| (fs::read(&file), file)).collect();
        let moved = |(read, _): &(std::io::Result<Vec<u8>>, PathBuf)| {
            read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        if !read.iter().any(moved) {
            return read.into_iter().map(|(read, file)| Ok((file, read?))).collect();
        }
    }
    bail!("the files below {} change faster than they can be read", folder.display())
}

/// Whether bytes hold a text.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Statements by their text: how often each was recorded, and how often with an outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub requests: u32,
    /// Ended well, or with an error the target gave.
    pub outcomes: u32,
}

/// The statements that were let through, by their text.
pub fn forwarded(records: &[Value]) -> BTreeMap<String, Recorded> {
    let mut statements: BTreeMap<String, Recorded> = BTreeMap::new();
    for record in records {
        let let_through = ["allow", "alert", "approve"].iter().any(|decision| record["decision"] == *decision);
        if let (true, Some(text)) = (record["kind"] == "statement" && let_through, record["statement"].as_str()) {
            let recorded = statements.entry(text.to_string()).or_default();
            recorded.requests += 1;
            recorded.outcomes += u32::from(!record["duration_us"].is_null());
        }
    }
    statements
}
