//! Which appliance a trail is of: what makes the ids of its events differ from those of every other trail.

use super::segment::at;
use crate::files;
use std::fs::{self};
use std::io::{self, Read as _};
use std::path::Path;

const FILE: &str = "appliance.id";
const DIGITS: usize = 16;

/// The id in `data_dir/appliance.id`: sixteen hex digits, made once. `None`: there is none, as in a trail written before ids
/// were.
pub fn read(data_dir: &Path) -> io::Result<Option<String>> {
    let path = data_dir.join(FILE);
    let mut text = String::new();
    match files::open(&path) {
        Ok(file) => file.take(64).read_to_string(&mut text).map_err(|error| at(&path, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path, error)),
    };
    let id = text.trim();
    if id.len() != DIGITS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let what = format!("holds no appliance id ({DIGITS} hex digits): put back the one the trail was written with");
        return Err(at(&path, io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    Ok(Some(id.to_owned()))
}

/// The same; the first call makes it, on stable storage before anybody sees it.
pub fn read_or_make(data_dir: &Path) -> io::Result<String> {
    if let Some(id) = read(data_dir)? {
        return Ok(id);
    }
    let mut random = [0; DIGITS / 2];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers for the appliance's id"))?;
    let (path, unfinished) = (data_dir.join(FILE), data_dir.join("appliance.id.tmp"));
    let id = super::segment::hex(&random);
    files::write(&unfinished, format!("{id}\n").as_bytes()).map_err(|error| at(&path, error))?;
    fs::rename(&unfinished, &path).map_err(|error| at(&path, error))?;
    super::segment::sync_dir(data_dir)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_a_damaged_one_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("readable"), None);
        let id = read_or_make(dir.path()).expect("made");
        assert_eq!((id.len(), read_or_make(dir.path()).expect("kept")), (16, id.clone()));
        assert_eq!(read(dir.path()).expect("readable"), Some(id));
        fs::write(dir.path().join(FILE), "not an id").expect("writable");
        assert!(read_or_make(dir.path()).expect_err("refused").to_string().contains("appliance.id"));
    }
}
