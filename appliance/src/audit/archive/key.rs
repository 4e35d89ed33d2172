//! The key that signs checkpoints: Ed25519, its seed in a file that only its owner reads.
//!
//! ```text
//! checkpoint.key         64 hex digits and a line end, 0600
//! checkpoint.key.next    the one that takes over, made by `lockgate audit rotate-key`
//! ```

use super::lines::{Signature, unhex};
use super::manifest::invalid;
use crate::audit::segment::{self, at, hex};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const SEED_BYTES: usize = 32;

pub type PublicKey = [u8; 32];

pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Where the key that signs comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// Made where there is none; the one that takes over is put beside it.
    File(PathBuf),
    /// From the encrypted store, by whoever may open it: 64 hex digits, and of the one that takes over, if there is one.
    Given(Given),
}

/// Keys in hex, never printed.
#[derive(Clone)]
pub struct Given(pub Vec<Zeroizing<String>>);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Given {
    pub fn keys(&self) -> io::Result<Vec<SigningKey>> {
        self.0.iter().map(|digits| SigningKey::of_hex(digits.as_bytes())).collect()
    }
}

impl SigningKey {
    pub fn read(path: &Path) -> io::Result<Self> {
        let wrap = |error| at(path, error);
        let mut file = crate::files::open(path).map_err(wrap)?;
        let metadata = file.metadata().map_err(wrap)?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
            return Err(wrap(invalid("must be a file that only its owner can read: chmod 600 it")));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        io::Read::take(&mut file, 256).read_to_end(&mut text).map_err(wrap)?;
        // Behind it there may be who said that it takes over.
        Self::of_hex(text.split(|&byte| byte == b'\n').next().unwrap_or_default()).map_err(wrap)
    }

    /// The key that is to take over from the one with this public key, as [`create_next`] made it. Else whoever can write here, and
    /// has no key, would be handed the chain.
    pub fn read_next(path: &Path, old: &PublicKey) -> io::Result<Self> {
        let next = Self::read(path)?;
        let text = crate::files::open(path).and_then(io::read_to_string).map(Zeroizing::new)?;
        let signature = text.lines().nth(1).and_then(|digits| unhex(digits.trim().as_bytes()));
        match signature.is_some_and(|signature| verifies(old, &takes_over(&next.public), &signature)) {
            true => Ok(next),
            false => Err(at(path, invalid("is not signed by the key in use: `lockgate audit rotate-key` makes one"))),
        }
    }

    pub fn of_hex(digits: &[u8]) -> io::Result<Self> {
        let seed: Option<[u8; SEED_BYTES]> = unhex(digits.trim_ascii());
        let seed = Zeroizing::new(seed.ok_or_else(|| invalid("is not a key: 64 hex digits are expected"))?);
        Self::from_seed(&*seed)
    }

    /// Reads the key, or makes one where there is none.
    pub fn read_or_create(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                Self::read(path)
            }
            other => other,
        }
    }

    fn from_seed(seed: &[u8]) -> io::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| invalid("is no Ed25519 seed"))?;
        let public = pair.public_key().as_ref().try_into().expect("32 bytes");
        Ok(Self { pair, public })
    }

    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub fn sign(&self, message: &[u8]) -> Signature {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// Makes a fresh key. Never replaces one.
pub fn create(path: &Path) -> io::Result<()> {
    let (text, _) = fresh()?;
    write_new(path, &text)
}

/// A key and how its file begins.
fn fresh() -> io::Result<(Zeroizing<String>, SigningKey)> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok((Zeroizing::new(hex(&*seed) + "\n"), SigningKey::from_seed(&*seed)?))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| at(path, error))?;
    segment::sync_dir(crate::files::folder_of(path))
}

/// What the old key signs of the new one.
fn takes_over(public: &PublicKey) -> Vec<u8> {
    format!("lockgate: the key {} takes over", hex(public)).into_bytes()
}

/// Makes the key that takes over from this one, and has this one say so.
pub fn create_next(path: &Path, old: &SigningKey) -> io::Result<PublicKey> {
    let (mut text, next) = fresh()?;
    text.push_str(&hex(&old.sign(&takes_over(&next.public))));
    text.push('\n');
    write_new(path, &text).map(|()| next.public)
}

/// How often the key in use may change under our hands.
const ROTATIONS_MET_MAX: u32 = 10;

/// Makes the key that takes over from the one in this file. One that waits there, signed by a key that is in use no longer, will never
/// be taken: it is replaced. `None`: one waits that will be.
pub fn rotate(file: &Path) -> io::Result<Option<PublicKey>> {
    rotate_between(file, &mut || {})
}

/// `between`: the key in use was read, the next is not there yet. (An archiver may take over just then.)
fn rotate_between(file: &Path, between: &mut dyn FnMut()) -> io::Result<Option<PublicKey>> {
    let (next, mut made) = (next_path(file), None);
    for _ in 0..ROTATIONS_MET_MAX {
        let old = SigningKey::read(file)?;
        if made == Some(old.public) {
            return Ok(made);
        }
        between();
        match create_next(&next, &old) {
            Ok(public) => made = Some(public),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let in_use = SigningKey::read(file)?.public;
        let waiting = SigningKey::read_next(&next, &in_use);
        match waiting {
            Ok(waiting) => return Ok(made.filter(|made| *made == waiting.public)),
            // Taken meanwhile: ours, as the next look shows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The key in use has not changed since it was judged: nobody takes what it did not sign.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                if SigningKey::read(file)?.public == in_use {
                    remove(&next)?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(at(file, io::Error::other("the key in use changes all the time")))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, error)),
        _ => Ok(()),
    }
}

/// Where the key is unless the configuration says otherwise.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("checkpoint.key")
}

/// Where the key that takes over is put.
pub fn next_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

pub fn verifies(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// Public keys, 64 hex digits a line; empty lines and what follows a `#` do not count.
pub fn read_public(path: &Path) -> io::Result<Vec<PublicKey>> {
    let text = crate::files::open(path).and_then(io::read_to_string).map_err(|error| at(path, error))?;
    let mut keys = Vec::new();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if !line.is_empty() {
            let key = unhex(line.as_bytes());
            keys.push(key.ok_or_else(|| at(path, invalid("public keys are expected, 64 hex digits a line")))?);
        }
    }
    if keys.is_empty() { Err(at(path, invalid("holds no public key"))) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_signs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.key");
        let key = SigningKey::read_or_create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::read_or_create(&path).unwrap().public(), key.public());
        assert!(create(&path).is_err());
        let signature = key.sign(b"message");
        assert!(verifies(&key.public(), b"message", &signature));
        assert!(!verifies(&key.public(), b"massage", &signature));
        assert!(!verifies(&[1; 32], b"message", &signature));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SigningKey::read(&path).is_err());
    }

    #[test]
    fn a_next_key_is_always_signed_by_the_one_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("checkpoint.key");
        let in_use = || SigningKey::read(&file).unwrap().public();
        let waiting = || SigningKey::read_next(&next_path(&file), &in_use()).map(|next| next.public());
        let take_over = || std::fs::rename(next_path(&file), &file).unwrap();
        create(&file).unwrap();
        let first = rotate(&file).unwrap().expect("made");
        assert_eq!(waiting().unwrap(), first);
        assert_eq!(rotate(&file).unwrap(), None, "one waits");
        // The archiver takes the first over while the second is made of what it replaces.
        let mut once = true;
        let second = rotate_between(&file, &mut || {
            if std::mem::take(&mut once) {
                take_over();
            }
        });
        let second = second.unwrap().expect("made");
        assert_eq!((in_use(), waiting().unwrap()), (first, second));
        // One is left by a key that is not in use any more.
        std::fs::remove_file(&file).unwrap();
        create(&file).unwrap();
        assert!(waiting().is_err());
        let third = rotate(&file).unwrap().expect("made");
        assert_eq!(waiting().unwrap(), third);
    }

    #[test]
    fn the_signature_is_that_of_rfc_8032() {
        let seed: [u8; 32] = unhex(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(hex(&key.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(hex(&key.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"));
    }

    #[test]
    fn public_keys_are_read_with_their_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("# ours\n{}  # 2026\n\n{}\n", "0a".repeat(32), "0b".repeat(32))).unwrap();
        assert_eq!(read_public(&path).unwrap(), [[10; 32], [11; 32]]);
        for bad in ["", "xyz", "0A0a"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read_public(&path).is_err(), "{bad}");
        }
    }
}
