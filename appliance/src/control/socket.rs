//! The control socket and the claim on `data_dir`: one gateway per folder, and only its owner may talk to it.

use crate::files;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const SOCKET: &str = "lockgate.sock";
const LOCK: &str = "lockgate.lock";

/// Where the gateway of this folder listens.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("another lockgate runs in this data_dir ({0})")]
    Taken(PathBuf),
    #[error("data_dir {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// This process is the one gateway of a folder. The lock is the kernel's: it ends with the process, however that ends.
#[derive(Debug)]
pub struct Claim {
    data_dir: PathBuf,
    _lock: File,
}

impl Claim {
    /// Makes the folder when it is not there (for its owner only) and locks it.
    pub fn take(data_dir: &Path) -> Result<Self, ClaimError> {
        let io = |error| ClaimError::Io { path: data_dir.to_owned(), error };
        files::create_folder(data_dir).map_err(io)?;
        let lock = files::open_or_create(&data_dir.join(LOCK)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { data_dir: data_dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ClaimError::Taken(data_dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn socket_path(&self) -> PathBuf {
        socket_path(&self.data_dir)
    }

    /// The socket, ready to accept. What stands at its place is a dead process's: the lock says so.
    /// It is made in a folder nobody else can enter and moved into place with its mode set, so that it never stands open.
    pub(super) fn bind(&self) -> io::Result<Socket> {
        let staging = self.data_dir.join(".sock");
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(&staging)?;
        let staged = staging.join("s");
        let listener = UnixListener::bind(&staged).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                io::Error::new(error.kind(), "the path of data_dir is too long for a socket (107 bytes in all)")
            }
            _ => error,
        })?;
        std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&staged)?.uid();
        let path = self.socket_path();
        std::fs::rename(&staged, &path)?;
        std::fs::remove_dir(&staging)?;
        listener.set_nonblocking(true)?;
        Ok(Socket { listener, owner, path })
    }
}

/// The bound control socket. Its file is removed with it.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    /// The user id of its owner: who may speak, and who is `local`.
    pub owner: u32,
    pub path: PathBuf,
}

/// The operating system's name for a user id, else the number.
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_folder_has_one_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path()).unwrap();
        assert!(matches!(Claim::take(dir.path()), Err(ClaimError::Taken(_))));
        assert!(Claim::take(dir.path()).unwrap_err().to_string().contains("another lockgate runs in this data_dir"));
        drop(claim);
        Claim::take(dir.path()).unwrap();
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists() && UnixStream::connect(&path).is_err(), "a stale socket file");
        let socket = Claim::take(dir.path()).unwrap().bind().unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(socket.path, path);
    }

    #[test]
    fn the_socket_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(&dir.path().join("new")).unwrap();
        let socket = claim.bind().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&socket.path), mode(claim.data_dir())), (0o600, 0o700));
        assert_eq!(socket.owner, std::fs::metadata(claim.data_dir()).unwrap().uid());
    }

    #[test]
    fn a_path_that_is_too_long_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(&dir.path().join("x".repeat(120))).unwrap();
        assert!(claim.bind().unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn user_ids_have_names() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(u32::MAX - 7), (u32::MAX - 7).to_string());
    }
}
