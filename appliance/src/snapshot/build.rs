//! Configuration -> [`Snapshot`]: reads the credentials, makes the TLS settings, looks the names up, compiles the policy.
//! Runs before the shards start and later on a worker of the control thread: it reads files and asks name servers.

use super::{Snapshot, Target, tls};
use crate::config::{self, Config, Credential};
use crate::identity::Verifier;
use crate::policy::Policy;
use crate::vault::{self, VaultError};
use masking::style::TokenKey;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A password file beyond this many bytes is something else.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// A snapshot, and what is odd about it but no error; what is odd about the configuration itself is in [`Config::warnings`].
pub struct Built {
    pub snapshot: Snapshot,
    pub warnings: Vec<String>,
}

/// Why a configuration that is right in itself cannot be used here and now. Never holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("target `{target}`: the environment variable {name} is not set")]
    EnvMissing { target: String, name: String },
    #[error("target `{target}`: the environment variable {name} is empty")]
    EnvEmpty { target: String, name: String },
    #[error("target `{target}`: the password file {path} cannot be read: {error}")]
    PasswordFile { target: String, path: PathBuf, error: io::Error },
    #[error("target `{target}`: the password file {path} is empty")]
    PasswordEmpty { target: String, path: PathBuf },
    #[error("target `{target}`: the credential `{name}`: {error}")]
    Store { target: String, name: String, error: VaultError },
    #[error("target `{target}`: {error}")]
    Tls { target: String, error: tls::TlsError },
    #[error("the key of mask tokens in {path}: {error}")]
    TokenKey { path: PathBuf, error: io::Error },
}

/// `verifier`: the issuers' keys as known by now.
pub fn build(config: &Config, version: u64, verifier: Verifier) -> Result<Built, BuildError> {
    let mut warnings = Vec::new();
    let mut roots = tls::Roots::default();
    let mut targets = Vec::with_capacity(config.targets.len());
    for target in &config.targets {
        targets.push(Arc::new(build_target(config, target, &mut roots, &mut warnings)?));
    }
    let path = config.server.data_dir.join("mask-token.key");
    let token_key = token_key(&path).map_err(|error| BuildError::TokenKey { path, error })?;
    let snapshot = Snapshot { version, rules: version, targets, policy: Policy::compile(config), verifier, token_key };
    Ok(Built { snapshot, warnings })
}

impl Snapshot {
    /// The same targets under a new version, with other keys. Needs no file and no name server: new keys are taken into
    /// use whatever else is out of order.
    pub fn with_keys(&self, config: &Config, version: u64, verifier: Verifier) -> Self {
        let targets = self.targets.clone();
        let (rules, token_key) = (self.rules, self.token_key.clone());
        Self { version, rules, targets, policy: Policy::compile(config), verifier, token_key }
    }

    /// The same under a new version, with the addresses that the targets' names have now.
    pub fn with_addresses(&self, config: &Config, version: u64) -> Self {
        let mut fresh = self.with_keys(config, version, self.verifier.clone());
        for target in &mut fresh.targets {
            if let Some(resolved) = changed_addresses(target) {
                *target = Arc::new(Target { resolved, ..(**target).clone() });
            }
        }
        fresh
    }
}

fn build_target(
    config: &Config,
    target: &config::Target,
    roots: &mut tls::Roots,
    warnings: &mut Vec<String>,
) -> Result<Target, BuildError> {
    let tls =
        tls::client_config(target, roots).map_err(|error| BuildError::Tls { target: target.name.clone(), error })?;
    if target.tls == config::TargetTls::Require {
        warnings.push(format!(
            "target `{}`: tls = \"require\" encrypts but does not check who answers; `verify-full` does",
            target.name
        ));
    }
    let resolved = resolve(&target.host, target.port);
    if resolved.is_empty() {
        warnings.push(format!("target `{}`: `{}` has no address yet; it is looked up again", target.name, target.host));
    }
    Ok(Target {
        name: target.name.clone(),
        address: target.address.clone(),
        resolved,
        database: target.database.clone(),
        user: target.user.clone(),
        password: password(config, target, warnings)?,
        tls,
        server_name: target.host.clone(),
        require_auth: target.require_auth,
        connection_limit: target.connection_limit,
    })
}

/// In the resolver's order, without duplicates. A name nobody knows is no reason not to start: other targets may do.
fn resolve(host: &str, port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs().into_iter().flatten() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// The target's name now leads elsewhere. No answer at all is no change: the addresses that were good stay.
pub fn addresses_changed(target: &Target) -> bool {
    changed_addresses(target).is_some()
}

fn changed_addresses(target: &Target) -> Option<Vec<SocketAddr>> {
    let port = target.address.rsplit_once(':')?.1.parse().ok()?;
    let now = resolve(&target.server_name, port);
    let sorted = |addresses: &[SocketAddr]| {
        let mut addresses = addresses.to_vec();
        addresses.sort();
        addresses
    };
    (!now.is_empty() && sorted(&now) != sorted(&target.resolved)).then_some(now)
}

fn password(
    config: &Config,
    target: &config::Target,
    warnings: &mut Vec<String>,
) -> Result<Zeroizing<Vec<u8>>, BuildError> {
    let name_of = || target.name.clone();
    match &target.credential {
        Credential::Env(name) => match std::env::var_os(name) {
            None => Err(BuildError::EnvMissing { target: name_of(), name: name.clone() }),
            Some(value) if value.is_empty() => Err(BuildError::EnvEmpty { target: name_of(), name: name.clone() }),
            Some(value) => Ok(Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))),
        },
        Credential::File(path) => {
            let (password, mode) = read_password(path).map_err(|error| BuildError::PasswordFile {
                target: name_of(),
                path: path.clone(),
                error,
            })?;
            if password.is_empty() {
                return Err(BuildError::PasswordEmpty { target: name_of(), path: path.clone() });
            }
            if mode & 0o007 != 0 {
                let path = path.display();
                warnings.push(format!(
                    "target `{}`: everybody on this host may read the password file {path}",
                    target.name
                ));
            }
            Ok(password)
        }
        Credential::Store(name) => vault::open(config)
            .and_then(|vault| vault.reveal(name))
            .map_err(|error| BuildError::Store { target: name_of(), name: name.clone(), error }),
    }
}

/// Without the line's end that editors add.
fn read_password(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let file = crate::files::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut password = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX as usize + 1));
    file.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut password)?;
    if password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too large for a password"));
    }
    if password.last() == Some(&b'\n') {
        password.pop();
        if password.last() == Some(&b'\r') {
            password.pop();
        }
    }
    Ok((password, mode))
}

/// Made once per installation and kept: the same value must give the same token tomorrow.
fn token_key(path: &Path) -> io::Result<TokenKey> {
    match crate::files::read(path) {
        Ok(bytes) => {
            let key = bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not 32 bytes"))?;
            Ok(TokenKey(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_token_key(path),
        Err(error) => Err(error),
    }
}

fn make_token_key(path: &Path) -> io::Result<TokenKey> {
    use aws_lc_rs::rand::{SecureRandom, SystemRandom};
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Whole or not at all: half a key would be refused at every later start.
    let fresh = path.with_extension("new");
    crate::files::write(&fresh, &key)?;
    std::fs::rename(&fresh, path)?;
    Ok(TokenKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_read_without_its_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (text, expected) in
            [("secret\n", "secret"), ("secret\r\n", "secret"), ("secret", "secret"), ("a\nb\n\n", "a\nb\n"), ("", "")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_password(&path).unwrap().0.as_slice(), expected.as_bytes());
        }
        std::fs::write(&path, vec![b'x'; PASSWORD_BYTES_MAX as usize + 1]).unwrap();
        assert!(read_password(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(read_password(&path).is_err(), "nobody waits for who would write into it");
    }

    #[test]
    fn the_token_key_is_made_once_and_kept_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("mask-token.key");
        let first = token_key(&path).unwrap();
        assert_eq!(token_key(&path).unwrap().0, first.0);
        assert_ne!(first.0, [0; 32]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(token_key(&path).is_err(), "a damaged key is not replaced in silence");
    }

    #[test]
    fn an_address_that_changed_is_noticed_and_no_answer_is_no_change() {
        let mut target = crate::control::tests::target("orders");
        assert!(!addresses_changed(&target));
        target.resolved = vec!["127.0.0.9:5432".parse().unwrap()];
        assert_eq!(changed_addresses(&target), Some(vec!["127.0.0.1:5432".parse().unwrap()]));
        target.server_name = "no-such-host.invalid".into();
        assert!(!addresses_changed(&target));
    }

    #[test]
    fn names_are_resolved_and_unknown_ones_are_no_error() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(resolve("127.0.0.1", 5432), [address("127.0.0.1:5432")]);
        assert_eq!(resolve("::1", 5432), [address("[::1]:5432")]);
        assert!(resolve("no-such-host.invalid", 5432).is_empty());
    }
}
