//! The validated configuration: plain types in which an invalid configuration cannot be represented.
//! Nothing here holds a secret: credentials are named by where they come from and read by whoever needs them.

use crate::policy::ApprovalTerms;
use masking::detect::Kind;
use masking::sql::Class;
use masking::style::Style;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::pattern::{ColumnPattern, Glob, TablePattern};

/// One configuration file, checked as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from; relative paths in it were resolved against its folder.
    pub path: PathBuf,
    /// `blake3:` and the hash of the file's bytes, for the trail.
    pub hash: String,
    pub server: Server,
    pub ops: Ops,
    pub web: Web,
    pub listeners: Vec<Listener>,
    pub issuers: Vec<Issuer>,
    pub targets: Vec<Target>,
    pub grants: Vec<Grant>,
    /// In file order: the first match decides.
    pub rules: Vec<Rule>,
    pub masks: Vec<Mask>,
    pub audit: Audit,
    pub sinks: Vec<Sink>,
    /// What is allowed but probably not meant: for the log and for `config check`.
    pub warnings: Vec<super::Finding>,
}

impl Config {
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }
}

/// `[server]`: the process and its shards.
#[derive(Clone, Debug)]
pub struct Server {
    /// At least 1; the default was already replaced by the number of cores.
    pub shards: usize,
    pub data_dir: PathBuf,
    /// Pin each shard to its core.
    pub pin: bool,
    /// New connections go to the shard that has the fewest.
    pub balance: bool,
    /// Microseconds to spin before sleeping in the socket ring.
    pub spin_us: u32,
    pub vault_key_file: Option<PathBuf>,
    /// Submission entries of a shard's socket ring: a power of two.
    pub ring_entries: u32,
    /// Receive buffers lent to the kernel per shard: a power of two.
    pub buffers: u16,
    /// Size of one of them.
    pub buffer_kib: u32,
    /// From accept to the first statement.
    pub login_timeout: Duration,
    /// For the connection to a target.
    pub connect_timeout: Duration,
}

/// `[ops]`: `/livez /readyz /healthz /metrics`.
#[derive(Clone, Debug)]
pub struct Ops {
    pub address: SocketAddr,
}

/// `[web]`: admin API and pages.
#[derive(Clone, Debug)]
pub struct Web {
    pub address: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Postgres,
}

/// `[[listener]]`
#[derive(Clone, Debug)]
pub struct Listener {
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// `None`: TLS is not offered.
    pub tls: Option<ListenerTls>,
    /// Tokens over an unencrypted connection are accepted from beyond loopback.
    pub allow_plaintext: bool,
    pub proxy_protocol: bool,
}

#[derive(Clone, Debug)]
pub struct ListenerTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// A signature algorithm an issuer may use. Symmetric ones and `none` are not here on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// The name in the `alg` header (RFC 7518, RFC 8037) and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// Where an issuer's public keys come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// A JWKS file, read at start and on reload.
    File(PathBuf),
    /// OpenID Connect discovery below [`Issuer::issuer`], which is an https URL (or http on loopback).
    Discovery,
}

/// `[[issuer]]`
#[derive(Clone, Debug)]
pub struct Issuer {
    pub name: String,
    /// The `iss` claim, byte for byte.
    pub issuer: String,
    pub audience: String,
    /// At least one, without duplicates.
    pub algorithms: Vec<Algorithm>,
    pub keys: KeySource,
    /// `None`: `email`, else `sub`.
    pub user_claim: Option<String>,
    pub groups_claim: String,
    /// In this order; `act` is the nested chain of RFC 8693.
    pub actor_claims: Vec<String>,
    /// Clock difference tolerated in `exp` and `nbf`.
    pub leeway: Duration,
}

/// Where a target's password is: read by the gateway, never part of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    Env(String),
    File(PathBuf),
    /// A name in the encrypted store (`lockgate credentials set NAME`).
    Store(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetTls {
    Disable,
    /// Encrypted, certificate not checked.
    Require,
    /// Encrypted, certificate and host name checked.
    VerifyFull,
}

/// `[[target]]`
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub protocol: Protocol,
    /// `host:port` as written; an IPv6 host is in brackets.
    pub address: String,
    /// The host of `address` without brackets: the name the certificate must carry.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub credential: Credential,
    pub tls: TargetTls,
    /// `None`: the system's roots.
    pub tls_ca: Option<PathBuf>,
}

/// Who something is for: (`groups` or `users` holds, or both are empty) and (an actor holds, or `actors` is empty) and no
/// group is in `except_groups`.
#[derive(Clone, Debug, Default)]
pub struct Who {
    pub groups: Vec<String>,
    pub except_groups: Vec<String>,
    pub users: Vec<Glob>,
    /// Against each member of the actor chain, `name` or `name@version`.
    pub actors: Vec<Glob>,
}

/// `[[grant]]`: who may open what.
#[derive(Clone, Debug)]
pub struct Grant {
    /// For the audit: its `name`, else `grant-<n>` by position in the file, counting from 1.
    pub name: String,
    /// At least one.
    pub targets: Vec<Glob>,
    /// `except_groups` is always empty here.
    pub who: Who,
    pub max_session: Option<Duration>,
    /// Replication connections are allowed.
    pub replication: bool,
    /// Opening needs a ruling.
    pub approval: Option<ApprovalTerms>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleAction {
    Allow,
    Deny,
    /// Has at least one approver.
    Approve(ApprovalTerms),
    Alert,
}

/// `[[rule]]`: every condition that is present must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    /// `*` when the file names none.
    pub targets: Vec<Glob>,
    pub who: Who,
    /// Empty: any class.
    pub classes: Vec<Class>,
    /// Empty: any or no table.
    pub tables: Vec<TablePattern>,
    /// `true`: only UPDATE and DELETE without a condition. `false`: not looked at.
    pub missing_where: bool,
    /// Lower-cased identifiers and keywords; empty: not looked at.
    pub words: Vec<String>,
    pub action: RuleAction,
    pub message: Option<String>,
}

/// `[[mask]]`: at least one of `columns` and `detect` is not empty.
#[derive(Clone, Debug)]
pub struct Mask {
    /// `*` when the file names none.
    pub targets: Vec<Glob>,
    pub who: Who,
    pub columns: Vec<ColumnPattern>,
    pub detect: Vec<Kind>,
    pub style: Style,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Durability {
    Async,
    Group,
    Strict,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Payloads {
    None,
    Masked,
}

/// Who makes Parquet files of the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Archiver {
    /// A process that the gateway starts and watches.
    Supervised,
    /// `lockgate archiver`, run as a unit of its own.
    External,
    /// Nobody: sealed segments are moved to the archive as they are.
    Off,
}

/// `[audit]`. A full ring always blocks: `on_full` has no other value.
#[derive(Clone, Debug)]
pub struct Audit {
    pub durability: Durability,
    /// Time between syncs in `group` and `async`.
    pub commit_interval: Duration,
    pub segment_mib: u32,
    pub segments_per_shard: u32,
    pub payloads: Payloads,
    pub payload_kib: u32,
    pub retention: Duration,
    /// Let filled segments leave the ring. `false`: it fills.
    pub archive: bool,
    pub archiver: Archiver,
    pub archive_file_mib: u32,
    /// A Parquet file closes at this age,
    pub archive_file_age: Duration,
    /// or at this one when it is small.
    pub archive_small_file_age: Duration,
    /// Segments are kept in the archive besides.
    pub keep_segments: bool,
    /// `None`: beside the archive.
    pub checkpoint_key_file: Option<PathBuf>,
    /// Folders and addresses.
    pub checkpoint_copies: Vec<String>,
    pub archive_url: Option<String>,
    pub archive_credentials_file: Option<PathBuf>,
}

/// `[[sink]]`: where records are copied to besides the trail itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// One JSON object a line.
    File { path: PathBuf },
}
