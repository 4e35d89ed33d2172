//! The validated configuration: plain types in which an invalid configuration cannot be represented.
//! Nothing here holds a secret: credentials are named by where they come from and read by whoever needs them.

use crate::policy::ApprovalTerms;
use codecs::postgres::AuthMethod;
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
    /// Flags and variables that were laid over the file, with their values, for the trail; empty: none.
    pub given: String,
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
    /// For the trail: what this configuration was made of.
    pub fn origin(&self) -> String {
        let with = if self.given.is_empty() { "" } else { ", with " };
        format!("configuration {}{with}{}", self.hash, self.given)
    }

    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }

    /// Where it listens, each with the table that says so. (At `[web]` nothing does.)
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        let listeners = self.listeners.iter().map(|listener| ("[[listener]]", listener.address));
        std::iter::once(("[ops]", self.ops.address)).chain(listeners)
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
    /// Microseconds to spin at most, before sleeping in the socket ring.
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
    /// For sessions to end by themselves once the gateway has been told to stop. `None`: as long as it takes.
    pub drain_timeout: Option<Duration>,
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
    /// The weakest method that we answer.
    pub require_auth: AuthMethod,
    /// Sessions at one time.
    pub connection_limit: Option<u32>,
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
    /// One user's sessions at one time.
    pub connection_limit: Option<u32>,
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
    /// Instead of a file: an entry of the encrypted store.
    pub checkpoint_key_credential: Option<String>,
    /// Folders and addresses.
    pub checkpoint_copies: Vec<String>,
    pub archive_url: Option<String>,
    pub archive_credentials_file: Option<PathBuf>,
}

/// `[[sink]]`: where records are copied to besides the trail itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sink {
    /// Unique; letters, digits, `-` and `_`: it names the files the sink keeps.
    pub name: String,
    pub kind: SinkKind,
    /// Where a sink that is new begins.
    pub start: SinkStart,
    /// Events of a batch, at least 1.
    pub batch_events: usize,
    /// Bytes of a batch; a single event may be larger.
    pub batch_bytes: usize,
    /// The longest an event waits for its batch to fill.
    pub flush: Duration,
    /// For one attempt to deliver.
    pub timeout: Duration,
    /// The longest pause between two attempts.
    pub retry_max: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkStart {
    Beginning,
    Now,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SinkKind {
    File(FileSink),
    Syslog(SyslogSink),
    Splunk(SplunkSink),
    CloudWatch(CloudWatchSink),
    Otlp(OtlpSink),
    S3(S3Sink),
    Kafka(KafkaSink),
    Webhook(WebhookSink),
}

impl SinkKind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Syslog(_) => "syslog",
            Self::Splunk(_) => "splunk",
            Self::CloudWatch(_) => "cloudwatch",
            Self::Otlp(_) => "otlp",
            Self::S3(_) => "s3",
            Self::Kafka(_) => "kafka",
            Self::Webhook(_) => "webhook",
        }
    }
}

/// Where a secret is: read by whoever needs it, never part of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    Env(String),
    File(PathBuf),
}

/// One JSON object a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSink {
    pub path: PathBuf,
    /// A file that would become larger is put aside first.
    pub rotate_bytes: u64,
    /// And one that is older.
    pub rotate_every: Option<Duration>,
    /// Rotated files that stay. `None`: all.
    pub keep: Option<usize>,
    /// To stable storage before the events count as delivered.
    pub sync: bool,
}

/// A receiver over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpPlace {
    /// https; http on loopback, or where plaintext was allowed in so many words.
    pub url: String,
    /// `None`: the system's authorities.
    pub tls_ca: Option<PathBuf>,
}

impl HttpPlace {
    /// On this machine.
    pub fn is_local(&self) -> bool {
        url_host(&self.url).is_some_and(is_loopback)
    }
}

/// RFC 5424 messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogSink {
    /// Without brackets: the name the certificate must carry.
    pub host: String,
    pub port: u16,
    pub transport: SyslogTransport,
    /// 0 to 23, see RFC 5424, 6.2.1.
    pub facility: u32,
    /// A batch counts as delivered when the receiver has closed its side, not when the kernel has taken it.
    pub confirm: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyslogTransport {
    Tcp,
    Tls(SyslogTls),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogTls {
    /// `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, where the receiver asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Splunk HTTP Event Collector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplunkSink {
    /// Its base: paths of the collector are appended.
    pub place: HttpPlace,
    pub token: Secret,
    pub index: Option<String>,
    pub source: String,
    pub sourcetype: String,
}

/// OpenTelemetry logs over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpSink {
    pub place: HttpPlace,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
}

/// A service of AWS, or one that speaks like it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AwsPlace {
    pub place: HttpPlace,
    pub region: String,
    /// `None`: all of the credential comes from the variables AWS's own tools read.
    pub access_key_id: Option<String>,
    pub secret_key: Option<Secret>,
    pub session_token: Option<Secret>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloudWatchSink {
    pub aws: AwsPlace,
    pub log_group: String,
    /// `None`: named after the appliance.
    pub log_stream: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Sink {
    /// Its URL holds the bucket.
    pub aws: AwsPlace,
    /// In front of each key.
    pub prefix: String,
}

/// A topic, one message an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaSink {
    /// `host:port`, at least one.
    pub brokers: Vec<String>,
    pub topic: String,
    /// `None`: readable; on loopback, or where that was allowed in so many words.
    pub tls: Option<KafkaTls>,
    pub sasl: Option<KafkaSasl>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaTls {
    /// `None`: the system's authorities.
    pub ca: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KafkaSasl {
    pub mechanism: SaslMechanism,
    pub user: String,
    pub password: Secret,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// POST of a JSON array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookSink {
    pub place: HttpPlace,
    /// Signs each request.
    pub secret: Option<Secret>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
}

/// Of `scheme://[user@]host[:port][/...]`, without the brackets of an IPv6 address.
pub fn url_host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    (!host.is_empty()).then_some(host)
}

pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
