//! What the writing side of the trail asks of the disk: everything that changes bytes or names, and nothing else. The seam
//! through which the simulator of power loss drives the code that writes, seals, archives and recovers.
//!
//! Generic and resolved at compile time: with [`RealDisk`], which has no size, each call is the system call it names.

use super::segment::at;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;

pub trait Disk {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// What was written to it survives a power cut once this returns.
    fn sync_data(&self, file: &File) -> io::Result<()>;
    /// The same, size and times included.
    fn sync_all(&self, file: &File) -> io::Result<()>;
    /// An empty file for the gateway alone.
    fn create(&self, path: &Path) -> io::Result<File>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// One folder for the gateway alone; its parent is there. `Ok(false)`: it was there already.
    fn make_dir(&self, dir: &Path) -> io::Result<bool>;
    /// What was created, renamed or removed in it survives a power cut once this returns.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    #[inline]
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        crate::files::create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // What lies above a relative path of one name.
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir).and_then(|dir| dir.sync_all())
    }
}

/// [`Disk::sync_dir`], the folder named in the error.
pub(super) fn sync_dir(disk: &impl Disk, dir: &Path) -> io::Result<()> {
    disk.sync_dir(dir).map_err(|error| at(dir, error))
}

/// Makes a folder and those above it that are missing, each brought to stable storage in its parent: a power cut must not
/// take a folder away from under synced files.
pub(super) fn make_dirs(disk: &impl Disk, dir: &Path) -> io::Result<()> {
    let parent = crate::files::folder_of(dir);
    if dir.is_dir() {
        // Whoever made it may have failed here.
        return match disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced.map_err(|error| at(dir, error)),
        };
    }
    make_dirs(disk, parent)?;
    disk.make_dir(dir).and_then(|_| disk.sync_dir(parent)).map_err(|error| at(dir, error))
}
