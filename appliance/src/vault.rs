//! The encrypted store of target credentials: `lockgate credentials set NAME`.
//!
//! ```text
//!   data_dir/credentials.json   {"version":1,"credentials":{"NAME":{"nonce":"..","sealed":".."}}}   0600
//!   vault_key_file              32 random bytes as 64 hex digits and a line end                     0600
//! ```
//!
//! Each value is sealed by AES-256-GCM-SIV under a fresh nonce, with its name bound to it: a sealed value moved under
//! another name does not open. Nothing here protects against whoever can read both files, nor notices an older
//! store put back in place of a newer one; keep the key file away from the data and its backups.

use crate::config::Config;
use crate::identity::base64url;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const STORE_NAME: &str = "credentials.json";
const KEY_NAME: &str = "vault.key";
const VERSION: u32 = 1;
const KEY_BYTES: usize = 32;
/// A credential. Beyond: refused; a password is not a file.
pub const VALUE_BYTES_MAX: usize = 8 << 10;
/// The store as a whole. Beyond: refused, it is not ours.
const STORE_BYTES_MAX: u64 = 16 << 20;
/// A name: letters, digits, `.`, `_` and `-`.
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("there is no key file {}: `lockgate credentials init` creates it", .0.display())]
    NoKey(PathBuf),
    #[error("{} already exists; a new key would make the stored credentials unreadable", .0.display())]
    KeyExists(PathBuf),
    #[error("{} can be read by others: chmod 600 it", .0.display())]
    KeyIsOpen(PathBuf),
    #[error("{} is not a key file: 64 hex digits are expected", .0.display())]
    BadKey(PathBuf),
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("a credential's name has 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-', not {0:?}")]
    BadName(String),
    #[error("a credential has 1 to {VALUE_BYTES_MAX} bytes")]
    BadValue,
    #[error("there is no credential {0:?}; `lockgate credentials ls` lists them")]
    Unknown(String),
    #[error("credential {0:?} does not open with this key: another key file, or the store was changed")]
    Sealed(String),
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// The store, opened with its key.
pub struct Vault {
    store: Store,
    key: LessSafeKey,
}

/// The store without its key: names can be listed and removed.
pub struct Store {
    path: PathBuf,
    sealed: BTreeMap<String, Sealed>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    credentials: BTreeMap<String, Sealed>,
}

#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    nonce: String,
    sealed: String,
}

/// The store of a configuration.
pub fn open(config: &Config) -> Result<Vault, VaultError> {
    Vault::open(&config.server.data_dir, &key_file(config))
}

/// `vault_key_file`, else `vault.key` beside the store.
pub fn key_file(config: &Config) -> PathBuf {
    config.server.vault_key_file.clone().unwrap_or_else(|| config.server.data_dir.join(KEY_NAME))
}

/// Creates a key file with a fresh key. Never replaces one.
pub fn create_key(path: &Path) -> Result<(), VaultError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => VaultError::KeyExists(path.to_owned()),
        _ => VaultError::File { path: path.to_owned(), error },
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        crate::files::create_folder(folder).map_err(failed)?;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random(&mut *key);
    let digits = |byte: &u8| [hex_digit(byte >> 4), hex_digit(byte & 15)];
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_BYTES * 2 + 1));
    text.extend(key.iter().flat_map(digits));
    text.push(b'\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)
}

impl Vault {
    pub fn open(data_dir: &Path, key_file: &Path) -> Result<Self, VaultError> {
        Ok(Self { store: Store::open(data_dir)?, key: read_key(key_file)? })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.store.names()
    }

    /// The value of a credential. It is wiped when dropped.
    pub fn reveal(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let sealed = self.store.sealed.get(name).ok_or_else(|| VaultError::Unknown(name.to_owned()))?;
        let refused = || VaultError::Sealed(name.to_owned());
        let nonce = base64url::decode(sealed.nonce.as_bytes()).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| refused())?;
        let mut value = Zeroizing::new(base64url::decode(sealed.sealed.as_bytes()).ok_or_else(refused)?);
        let len = self.key.open_in_place(nonce, bound_to(name), &mut value).map_err(|_| refused())?.len();
        value.truncate(len);
        Ok(value)
    }

    /// Stores a credential under a name, in place of what was there, and writes the store.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        check_name(name)?;
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return Err(VaultError::BadValue);
        }
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut sealed = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM_SIV.tag_len()));
        sealed.extend_from_slice(value);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound_to(name), &mut *sealed)
            .expect("a value of at most VALUE_BYTES_MAX can be sealed");
        let sealed = Sealed { nonce: base64url::encode(&nonce), sealed: base64url::encode(&sealed) };
        self.store.sealed.insert(name.to_owned(), sealed);
        self.store.write()
    }
}

impl Store {
    /// A store that was never written is empty.
    pub fn open(data_dir: &Path) -> Result<Self, VaultError> {
        let path = data_dir.join(STORE_NAME);
        let mut text = String::new();
        let read = crate::files::open(&path).and_then(|file| file.take(STORE_BYTES_MAX + 1).read_to_string(&mut text));
        match read {
            Ok(len) if len as u64 > STORE_BYTES_MAX => {
                return Err(VaultError::Damaged { path, reason: "it is too long".to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self { path, sealed: BTreeMap::new() }),
            Err(error) => return Err(VaultError::File { path, error }),
        }
        match serde_json::from_str::<Document>(&text) {
            Ok(document) if document.version == VERSION => Ok(Self { path, sealed: document.credentials }),
            Ok(document) => {
                let reason = format!("version {} is not known here, {VERSION} is", document.version);
                Err(VaultError::Damaged { path, reason })
            }
            Err(error) => Err(VaultError::Damaged { path, reason: error.to_string() }),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sealed.keys().map(String::as_str)
    }

    pub fn remove(&mut self, name: &str) -> Result<(), VaultError> {
        self.sealed.remove(name).ok_or_else(|| VaultError::Unknown(name.to_owned()))?;
        self.write()
    }

    /// Beside the old store, synced, then renamed over it: a crash leaves one or the other, whole.
    fn write(&self) -> Result<(), VaultError> {
        let failed = |error| VaultError::File { path: self.path.clone(), error };
        let document = Document { version: VERSION, credentials: self.sealed.clone() };
        let mut text = serde_json::to_vec_pretty(&document).expect("names and texts are JSON");
        text.push(b'\n');
        let folder = self.path.parent().expect("the store has a folder");
        crate::files::create_folder(folder).map_err(failed)?;
        let fresh = folder.join(format!(".{STORE_NAME}.{}", std::process::id()));
        let written = (|| {
            crate::files::write(&fresh, &text)?;
            std::fs::rename(&fresh, &self.path)?;
            File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written.map_err(failed)
    }
}

fn check_name(name: &str) -> Result<(), VaultError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=NAME_BYTES_MAX).contains(&name.len()) { Ok(()) } else { Err(VaultError::BadName(name.to_owned())) }
}

/// What is authenticated beside the value.
fn bound_to(name: &str) -> Aad<Vec<u8>> {
    Aad::from([b"lockgate credential 1\0", name.as_bytes()].concat())
}

fn read_key(path: &Path) -> Result<LessSafeKey, VaultError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => VaultError::NoKey(path.to_owned()),
        _ => VaultError::File { path: path.to_owned(), error },
    };
    let file = crate::files::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(VaultError::KeyIsOpen(path.to_owned()));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES + 2));
    file.take(2 * KEY_BYTES as u64 + 2).read_to_end(&mut text).map_err(failed)?;
    let bad = || VaultError::BadKey(path.to_owned());
    let digits = text.trim_ascii_end();
    if digits.len() != 2 * KEY_BYTES {
        return Err(bad());
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = hex_value(pair[0]).ok_or_else(bad)? << 4 | hex_value(pair[1]).ok_or_else(bad)?;
    }
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*key).map_err(|_| bad())?))
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

fn hex_value(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

fn random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system has random numbers");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self { dir: tempfile::tempdir().expect("a folder") };
            create_key(&fixture.key()).expect("a key file");
            fixture
        }
        fn key(&self) -> PathBuf {
            self.dir.path().join("keys/vault.key")
        }
        fn data(&self) -> PathBuf {
            self.dir.path().join("data")
        }
        fn store(&self) -> PathBuf {
            self.data().join(STORE_NAME)
        }
        fn open(&self) -> Vault {
            Vault::open(&self.data(), &self.key()).expect("opens")
        }
        fn reveal(&self, name: &str) -> Result<Vec<u8>, VaultError> {
            Vault::open(&self.data(), &self.key())?.reveal(name).map(|value| value.to_vec())
        }
    }

    #[test]
    fn a_credential_comes_back_and_is_not_in_the_file() {
        let fixture = Fixture::new();
        fixture.open().set("orders", b"hunter2-hunter2").expect("stored");
        fixture.open().set("billing", b"other\0bytes\xff").expect("stored");
        assert_eq!(fixture.reveal("orders").expect("there"), b"hunter2-hunter2");
        assert_eq!(fixture.reveal("billing").expect("there"), b"other\0bytes\xff");
        let text = std::fs::read_to_string(fixture.store()).expect("a store");
        assert!(!text.contains("hunter2") && !text.contains(&base64url::encode(b"hunter2-hunter2")));
        fixture.open().set("orders", b"new").expect("replaced");
        assert_eq!(fixture.reveal("orders").expect("there"), b"new");
        assert_eq!(fixture.open().store.names().collect::<Vec<_>>(), ["billing", "orders"]);
    }

    /// Before the first start: the gateway makes its folder for its owner only, and so does whoever comes before it.
    #[test]
    fn folders_that_are_made_are_their_owners_alone() {
        let fixture = Fixture::new();
        fixture.open().set("orders", b"secret").expect("stored");
        for folder in [fixture.data(), fixture.dir.path().join("keys")] {
            let mode = std::fs::metadata(&folder).expect("made").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let fixture = Fixture::new();
        let mut vault = fixture.open();
        vault.set("a", b"secret").expect("stored");
        let first = vault.store.sealed["a"].clone();
        vault.set("a", b"secret").expect("stored");
        assert_ne!(vault.store.sealed["a"].sealed, first.sealed);
        assert_ne!(vault.store.sealed["a"].nonce, first.nonce);
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let fixture = Fixture::new();
        fixture.open().set("orders", b"x").expect("stored");
        for path in [fixture.key(), fixture.store()] {
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(fixture.data()).expect("a folder").count(), 1, "nothing is left behind");
        std::fs::set_permissions(fixture.key(), std::fs::Permissions::from_mode(0o640)).expect("changes");
        assert!(matches!(fixture.reveal("orders"), Err(VaultError::KeyIsOpen(_))));
    }

    #[test]
    fn a_value_moved_under_another_name_does_not_open() {
        let fixture = Fixture::new();
        fixture.open().set("low", b"low").expect("stored");
        fixture.open().set("high", b"high").expect("stored");
        let mut store = Store::open(&fixture.data()).expect("opens");
        let (low, high) = (store.sealed["low"].clone(), store.sealed["high"].clone());
        store.sealed.insert("low".into(), high);
        store.sealed.insert("high".into(), low);
        store.write().expect("written");
        assert!(matches!(fixture.reveal("low"), Err(VaultError::Sealed(_))));
        assert!(matches!(fixture.reveal("high"), Err(VaultError::Sealed(_))));
    }

    #[test]
    fn every_changed_bit_of_a_sealed_value_is_noticed() {
        let fixture = Fixture::new();
        fixture.open().set("orders", b"pw").expect("stored");
        let good = Store::open(&fixture.data()).expect("opens").sealed["orders"].clone();
        let flipped = |text: &str, bit: usize| {
            let mut bytes = base64url::decode(text.as_bytes()).expect("base64url");
            bytes[bit / 8] ^= 1 << (bit % 8);
            base64url::encode(&bytes)
        };
        let mut vault = fixture.open();
        for bit in 0..18 * 8 {
            vault.store.sealed.insert("orders".into(), Sealed { sealed: flipped(&good.sealed, bit), ..good.clone() });
            assert!(matches!(vault.reveal("orders"), Err(VaultError::Sealed(_))), "bit {bit} of the value");
        }
        for bit in 0..NONCE_LEN * 8 {
            vault.store.sealed.insert("orders".into(), Sealed { nonce: flipped(&good.nonce, bit), ..good.clone() });
            assert!(matches!(vault.reveal("orders"), Err(VaultError::Sealed(_))), "bit {bit} of the nonce");
        }
        for short in ["", "AAAA"] {
            vault.store.sealed.insert("orders".into(), Sealed { sealed: short.into(), ..good.clone() });
            assert!(matches!(vault.reveal("orders"), Err(VaultError::Sealed(_))));
        }
        vault.store.sealed.insert("orders".into(), good);
        assert_eq!(vault.reveal("orders").expect("unchanged").as_slice(), b"pw");
    }

    #[test]
    fn another_key_opens_nothing() {
        let fixture = Fixture::new();
        fixture.open().set("orders", b"pw").expect("stored");
        assert!(matches!(create_key(&fixture.key()), Err(VaultError::KeyExists(_))));
        std::fs::remove_file(fixture.key()).expect("removes");
        assert!(matches!(fixture.reveal("orders"), Err(VaultError::NoKey(_))));
        create_key(&fixture.key()).expect("another key");
        assert!(matches!(fixture.reveal("orders"), Err(VaultError::Sealed(_))));
    }

    #[test]
    fn damaged_files_are_told_apart_from_missing_ones() {
        let fixture = Fixture::new();
        assert!(matches!(fixture.reveal("orders"), Err(VaultError::Unknown(_))), "no store yet");
        std::fs::create_dir_all(fixture.data()).expect("a folder");
        for text in ["", "{}", "{\"version\":2,\"credentials\":{}}", "{\"version\":1,\"credentials\":{},\"more\":1}"] {
            std::fs::write(fixture.store(), text).expect("writes");
            assert!(matches!(fixture.reveal("orders"), Err(VaultError::Damaged { .. })), "{text:?}");
        }
        for text in ["", "00", &"g0".repeat(32), &"00".repeat(33)] {
            std::fs::write(fixture.key(), text).expect("writes");
            assert!(matches!(read_key(&fixture.key()), Err(VaultError::BadKey(_))), "{text:?}");
        }
    }

    #[test]
    fn names_and_values_have_bounds() {
        let fixture = Fixture::new();
        let mut vault = fixture.open();
        for name in ["", "a b", "../x", "a/b", "naïve", "a\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(matches!(vault.set(name, b"x"), Err(VaultError::BadName(_))), "{name:?}");
        }
        assert!(matches!(vault.set("a", b""), Err(VaultError::BadValue)));
        assert!(matches!(vault.set("a", &vec![0; VALUE_BYTES_MAX + 1]), Err(VaultError::BadValue)));
        vault.set("a.b_c-D9", &vec![7; VALUE_BYTES_MAX]).expect("the longest value");
        assert!(matches!(vault.store.remove("b"), Err(VaultError::Unknown(_))));
        vault.store.remove("a.b_c-D9").expect("removed");
        assert!(matches!(fixture.reveal("a.b_c-D9"), Err(VaultError::Unknown(_))));
    }
}
