//! The immutable bundle a shard works from: policy, targets, keys. Built on the control thread, replaced whole.

use codecs::postgres::AuthMethod;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

mod build;
pub mod tls;

pub use build::{BuildError, Built, addresses_changed, build};

/// A place a session can be opened to, with the credential the caller never sees.
#[derive(Clone)]
pub struct Target {
    pub name: String,
    /// `host:port` as configured.
    pub address: String,
    /// Resolved on the control thread at load and again on reload and after failures.
    pub resolved: Vec<SocketAddr>,
    pub database: String,
    pub user: String,
    pub password: Zeroizing<Vec<u8>>,
    /// `None`: no TLS towards the target.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name the certificate must carry.
    pub server_name: String,
    /// The weakest method that we answer.
    pub require_auth: AuthMethod,
    /// Sessions at one time.
    pub connection_limit: Option<u32>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What every shard works from.
pub struct Snapshot {
    /// Counts up with every reload, and with every other renewal of keys or addresses.
    pub version: u64,
    /// The version whose reload brought the policy: verdicts hold as long as it stays the same.
    pub rules: u64,
    pub targets: Vec<Arc<Target>>,
    pub policy: crate::policy::Policy,
    pub verifier: crate::identity::Verifier,
    /// Keyed tokens of the `token` mask style.
    pub token_key: masking::style::TokenKey,
}

impl Snapshot {
    /// No targets, no grants, no issuers: what a bare relay works from.
    pub fn empty() -> Self {
        Self {
            version: 0,
            rules: 0,
            targets: Vec::new(),
            policy: Default::default(),
            verifier: Default::default(),
            token_key: masking::style::TokenKey([0; 32]),
        }
    }

    pub fn target(&self, name: &str) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.name == name)
    }
}
