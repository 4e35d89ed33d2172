//! Files of our own in folders where others may put something else in their place, and files that a reload reads while others wait
//! for it: a FIFO is an error and never waited for, and what is written anew follows no link.

use rustix::fs::SeekFrom;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at a lock that somebody has.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// For reading.
pub fn open(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true), path)
}

/// For writing to what is there already, or to a file that is made for us alone.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().create(true).write(true).truncate(false).mode(0o600), path)
}

/// The same, at its end.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().create(true).append(true).mode(0o600), path)
}

/// The file locked for us alone, made where there is none. Whoever has it is waited for that long; `busy` says who that may be.
pub fn lock(path: &Path, patience: Duration, busy: &str) -> io::Result<File> {
    let file = open_or_create(path)?;
    wait_for(patience, busy, || file.try_lock())?;
    Ok(file)
}

/// Locks a file together with others who read it: nobody has it [alone](keep_alone) meanwhile. Where there are no locks, nobody ever
/// has; who keeps it for himself longer than that is nobody of ours, and keeps us from having it alone as well.
pub fn share(file: &File, patience: Duration) {
    let _ = wait_for(patience, "", || file.try_lock_shared());
}

/// `true`: it is locked for us alone from now on, and has no other name.
pub fn keep_alone(file: &File) -> io::Result<bool> {
    Ok(file.try_lock().is_ok() && file.metadata()?.nlink() == 1)
}

/// Where a path lies: here, if it is a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Is it still what has that name? An error: nobody can tell (a folder that may not be looked into is not one that is gone).
pub fn is_called(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.symlink_metadata() {
        Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Still what has that name, or an error that says so in these words.
pub fn must_be_called(file: &File, path: &Path, gone: &str) -> io::Result<()> {
    match is_called(file, path)? {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::NotFound, gone)),
    }
}

fn wait_for(patience: Duration, busy: &str, lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// For writing to what is there already, and reading it.
pub fn open_existing(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).write(true), path)
}

/// Can a file be made in this folder, by this user? None is left there.
pub fn try_folder(folder: &Path) -> io::Result<()> {
    let trial = folder.join(format!(".lockgate-trial-{}", std::process::id()));
    let made =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&trial).and_then(|file| file.sync_all());
    let _ = fs::remove_file(&trial);
    made
}

/// A folder for us alone, and those above it that are not there either. One that is there stays as it is.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// An empty file for us alone, in place of whatever stands there.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The same with these bytes, on stable storage.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first byte from there on that is not in a hole, which reads as zeros; `None`: there is none. A file of terabytes that holds
/// nothing takes no time. (Where the file system knows of no holes: that byte itself.)
pub fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

/// Where the data that stands there ends: at a hole, or at the end of the file.
fn next_hole(file: &File, from: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(from)) {
        Ok(at) => Ok(at),
        Err(_) => Ok(file.metadata()?.len()),
    }
}

/// From where to where there is data.
pub fn extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let (mut extents, mut at) = (Vec::new(), 0);
    while let Some(start) = next_data(file, at)? {
        at = next_hole(file, start)?;
        if at <= start {
            break;
        }
        extents.push(start..at);
    }
    Ok(extents)
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK a FIFO would be waited for; a file does not care.
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "is not a file but a folder, a FIFO or a device")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_is_an_error_and_never_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
        assert!(made.success());
        for opened in [open(&fifo), open_or_create(&fifo), open_to_append(&fifo), open_existing(&fifo)] {
            assert!(opened.is_err());
        }
        assert!(open(dir.path()).is_err() && read(&fifo).is_err());
        write(&fifo, b"ours").expect("it is replaced");
        assert_eq!(read(&fifo).expect("readable"), b"ours");
    }

    #[test]
    fn a_name_that_cannot_be_looked_at_is_an_error_and_no_other_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("folder").join("file");
        fs::create_dir(dir.path().join("folder")).expect("made");
        let file = create(&path).expect("made");
        assert!(is_called(&file, &path).expect("known"));
        assert!(!is_called(&file, &dir.path().join("none")).expect("known"));
        assert!(!is_called(&file, &path.join("below")).expect("known"));
        // (Root may look everywhere: a name that is too long cannot be looked at by anybody.)
        assert!(is_called(&file, &dir.path().join("x".repeat(300))).is_err());
    }

    #[test]
    fn holes_are_passed_over() {
        use std::os::unix::fs::FileExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = create(&dir.path().join("sparse")).expect("made");
        file.set_len(1 << 40).expect("a hole");
        assert_eq!((next_data(&file, 0).expect("known"), extents(&file).expect("known")), (None, vec![]));
        file.write_all_at(b"x", 1 << 39).expect("written");
        let found = extents(&file).expect("known");
        assert!(
            found.len() == 1 && found[0].contains(&(1 << 39)) && found[0].end - found[0].start < 1 << 20,
            "{found:?}"
        );
        assert_eq!(next_data(&file, found[0].end).expect("known"), None);
    }

    #[test]
    fn what_is_made_anew_follows_no_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (key, link) = (dir.path().join("key"), dir.path().join("link"));
        fs::write(&key, "secret").expect("writable");
        symlink(&key, &link).expect("made");
        write(&link, b"status").expect("written");
        assert_eq!(
            (fs::read(&key).expect("there"), fs::read(&link).expect("there")),
            (b"secret".to_vec(), b"status".to_vec())
        );
        assert_eq!(link.symlink_metadata().expect("there").mode() & 0o777, 0o600);
    }
}
