//! The file as written: one struct per table. The schema, the check for unknown keys and the manual come from here.
//!
//! Doc comments are what users read in the schema: what it is, unit, default, and when to touch it.

use super::at::At;
use super::units::DURATION_PATTERN;
use crate::limits::*;
use masking::detect::Kind;
use masking::sql::Class;
use masking::style::Style;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;

/// Configuration of a Lockgate gateway. Unknown keys are errors. Durations are a number and a unit (`15s`, `10m`, `8h`,
/// `400d`, `1h30m`); relative paths start at the folder of the configuration file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Lockgate configuration")]
pub struct File {
    #[serde(default)]
    pub server: Server,
    #[serde(default)]
    pub ops: Ops,
    #[serde(default)]
    pub web: Web,
    #[serde(default)]
    pub listener: Vec<At<Listener>>,
    #[serde(default)]
    pub issuer: Vec<At<Issuer>>,
    #[serde(default)]
    pub target: Vec<At<Target>>,
    #[serde(default)]
    pub grant: Vec<At<Grant>>,
    #[serde(default)]
    pub rule: Vec<At<Rule>>,
    #[serde(default)]
    pub mask: Vec<At<Mask>>,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub sink: Vec<At<Sink>>,
}

/// The process and its shards.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Shards, each a thread with its own sockets. Default: one per core.
    #[schemars(range(min = 1, max = SHARDS_MAX))]
    pub shards: Option<At<i64>>,
    /// Folder for audit segments, archive, state and the control socket. Default: `data`.
    pub data_dir: Option<At<String>>,
    /// Pin each shard to a core. Default: true. Turn off where the cores are shared with other work.
    pub pin: Option<bool>,
    /// Hand a new connection to the shard that has the fewest. Default: true. Turn off to leave each where the kernel puts it.
    pub balance: Option<bool>,
    /// At most so many microseconds a shard looks for its next message before it sleeps, while that pays (one or two sessions that talk
    /// without a pause). Default: 100; 0: never. Costs the core of a shard in use, not of an idle one.
    #[schemars(range(min = 0, max = SPIN_US_MAX))]
    pub spin_us: Option<At<i64>>,
    /// File with the key of the encrypted credential store. Default: none.
    pub vault_key_file: Option<At<String>>,
    /// Entries of each shard's submission ring, a power of two. Default: 1024. Raise for very many busy connections.
    #[schemars(range(min = RING_ENTRIES_MIN, max = RING_ENTRIES_MAX))]
    pub ring_entries: Option<At<i64>>,
    /// Receive buffers of each shard, a power of two. Default: 1024. Raise when `doctor` or the metrics report shortage.
    #[schemars(range(min = BUFFERS_MIN, max = BUFFERS_MAX))]
    pub buffers: Option<At<i64>>,
    /// Size of one receive buffer, KiB. Default: 16.
    #[schemars(range(min = BUFFER_KIB_MIN, max = BUFFER_KIB_MAX))]
    pub buffer_kib: Option<At<i64>>,
    /// From accept to a session that is open. Default: `15s`. Approvals of a grant are not counted.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub login_timeout: Option<At<String>>,
    /// For one connection to a target. Default: `5s`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub connect_timeout: Option<At<String>>,
    /// After a first TERM, for sessions to end by themselves; then they are ended. Default: as long as it takes.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub drain_timeout: Option<At<String>>,
}

/// Health and metrics: `/livez /readyz /healthz /metrics`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    /// IP address and port. Default: `127.0.0.1:9180`.
    pub address: Option<At<String>>,
}

/// Kept for the admin API and pages: nothing listens there in this version.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// IP address and port. Default: `127.0.0.1:8444`.
    pub address: Option<At<String>>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Postgres,
}

/// Where clients connect.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// What clients speak here.
    #[schemars(extend("examples" = ["postgres"]))]
    pub protocol: Protocol,
    /// IP address and port.
    #[schemars(extend("examples" = ["127.0.0.1:6432"]))]
    pub address: At<String>,
    /// Certificate and key. Default: TLS is not offered.
    pub tls: Option<ListenerTls>,
    /// Accept tokens over unencrypted connections from beyond this host. Default: false.
    pub allow_plaintext: Option<At<bool>>,
    /// Expect a PROXY protocol header (v1 or v2) on each connection. Default: false.
    pub proxy_protocol: Option<bool>,
}

/// The certificate of a listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file with the certificate chain, the gateway's own first.
    #[schemars(extend("examples" = ["gw.pem"]))]
    pub cert: At<String>,
    /// PEM file with the private key.
    #[schemars(extend("examples" = ["gw.key"]))]
    pub key: At<String>,
    /// PEM file with the authorities that client certificates must come from. Default: none are asked for.
    pub client_ca: Option<At<String>>,
}

/// Who may issue identity tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Name for people and logs.
    #[schemars(extend("examples" = ["corp"]))]
    pub name: At<String>,
    /// The `iss` claim, byte for byte; discovery starts here when `jwks_file` is absent.
    #[schemars(extend("examples" = ["https://login.example.com"]))]
    pub issuer: At<String>,
    /// The `aud` claim must name this.
    #[schemars(extend("examples" = ["lockgate"]))]
    pub audience: At<String>,
    /// Signature algorithms this issuer uses. Never taken from the token.
    pub algorithms: At<Vec<At<AlgorithmName>>>,
    /// JWKS file with the issuer's public keys. Default: OpenID Connect discovery.
    pub jwks_file: Option<At<String>>,
    /// Claim with the user's name. Default: `email`, else `sub`.
    pub user_claim: Option<At<String>>,
    /// Claim with the list of groups. Default: `groups`.
    pub groups_claim: Option<At<String>>,
    /// Claims that tell who acts for the user, recorded and usable in rules. Default: `["act"]`.
    pub actor_claims: Option<At<Vec<At<String>>>>,
    /// Clock difference tolerated in `exp` and `nbf`. Default: `0s`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub leeway: Option<At<String>>,
}

/// TLS towards a target.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetTls {
    Disable,
    Require,
    VerifyFull,
}

/// How a target may ask for the credential, by the names of libpq's `require_auth`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum RequireAuth {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "password")]
    Password,
    #[serde(rename = "md5")]
    Md5,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
}

/// A server that sessions can be opened to, with the credential its users never see. Exactly one of `password_env`,
/// `password_file` and `credential`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What clients give as `dbname`.
    #[schemars(extend("examples" = ["orders"]))]
    pub name: At<String>,
    /// What the target speaks.
    #[schemars(extend("examples" = ["postgres"]))]
    pub protocol: Protocol,
    /// Host (or IP address) and port.
    #[schemars(extend("examples" = ["db.internal:5432"]))]
    pub address: At<String>,
    /// Database to open there.
    #[schemars(extend("examples" = ["shop"]))]
    pub database: At<String>,
    /// Role to log in with.
    #[schemars(extend("examples" = ["svc_orders"]))]
    pub user: At<String>,
    /// Environment variable of the gateway that holds the password.
    pub password_env: Option<At<String>>,
    /// File that holds the password; one line break at its end is ignored.
    pub password_file: Option<At<String>>,
    /// Name in the encrypted store, see `lockgate credentials set`.
    pub credential: Option<At<String>>,
    /// `disable`, `require` (encrypted, certificate not checked) or `verify-full`. Default: `verify-full`.
    pub tls: Option<At<TargetTls>>,
    /// PEM file with the authorities the target's certificate must come from. Default: the system's.
    pub tls_ca: Option<At<String>>,
    /// The weakest way in which it may ask for the password: `scram-sha-256`, `md5`, `password` (in clear text, over TLS only) or `none`
    /// (it asks for nothing). Whoever stands in its place could ask for less. Default: `scram-sha-256`.
    pub require_auth: Option<At<RequireAuth>>,
    /// Sessions open to it at one time; beyond: refused with 53300. Default: no bound but the target's own.
    #[schemars(range(min = 1, max = CONNECTION_LIMIT_MAX))]
    pub connection_limit: Option<At<i64>>,
}

/// Terms of an approval.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Groups or users of whom any may rule; `local` is the owner of the control socket.
    pub approvers: At<Vec<At<String>>>,
    /// Distinct people who must approve. Default: 1.
    #[schemars(range(min = 1, max = APPROVERS_MAX))]
    pub count: Option<At<i64>>,
    /// How long the request waits. Default: `15m`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub expires: Option<At<String>>,
    /// The requester may rule as well. Default: false.
    #[serde(rename = "self")]
    pub own: Option<bool>,
}

/// Who may open what. Nobody may open what no grant names.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// For the audit. Default: `grant-` and its position in the file.
    pub name: Option<At<String>>,
    /// Names of targets, or globs.
    pub targets: At<Vec<At<String>>>,
    /// Any of these groups; with `users`: or any of those users. Both absent: everyone with a valid token.
    pub groups: Option<At<Vec<At<String>>>>,
    /// Any of these users, names or globs.
    pub users: Option<At<Vec<At<String>>>>,
    /// Only through one of these actors: `name` or `name@version`, globs.
    pub actors: Option<At<Vec<At<String>>>>,
    /// How long a session may last. Default: no bound but the token's expiry.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub max_session: Option<At<String>>,
    /// Sessions that one user has open at one time by this grant; beyond: refused with 53300. Default: no bound.
    #[schemars(range(min = 1, max = CONNECTION_LIMIT_MAX))]
    pub connection_limit: Option<At<i64>>,
    /// Replication connections are allowed. Default: false.
    pub replication: Option<bool>,
    /// Opening needs a ruling.
    pub approval: Option<Approval>,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Allow,
    Deny,
    Approve,
    Alert,
}

/// The first rule in file order whose conditions all hold decides; no match: allow.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique; users and the audit see it.
    #[schemars(extend("examples" = ["no-ddl-in-production"]))]
    pub name: At<String>,
    /// Names of targets, or globs. Default: all.
    pub targets: Option<At<Vec<At<String>>>>,
    /// Any of these groups; with `users`: or any of those users. Default: everyone.
    pub groups: Option<At<Vec<At<String>>>>,
    /// Nobody who is in one of these groups.
    pub except_groups: Option<At<Vec<At<String>>>>,
    /// Any of these users, names or globs.
    pub users: Option<At<Vec<At<String>>>>,
    /// Only through one of these actors: `name` or `name@version`, globs.
    pub actors: Option<At<Vec<At<String>>>>,
    /// Any of these statement classes. Default: any statement.
    pub classes: Option<At<Vec<At<ClassName>>>>,
    /// A statement that names any of these tables: `[schema.]table`, globs.
    pub tables: Option<At<Vec<At<String>>>>,
    /// Only UPDATE and DELETE without a condition, or with one that is always true. Default: false.
    pub missing_where: Option<bool>,
    /// A statement with any of these identifiers or keywords; never matched inside strings or comments.
    pub words: Option<At<Vec<At<String>>>>,
    /// What happens then.
    #[schemars(extend("examples" = ["deny"]))]
    pub action: At<Action>,
    /// What a refused user reads. Default: a general text with the rule's name.
    pub message: Option<At<String>>,
    /// `approve` only: groups or users of whom any may rule; `local` is the owner of the control socket.
    pub approvers: Option<At<Vec<At<String>>>>,
    /// `approve` only: distinct people who must approve. Default: 1.
    #[schemars(range(min = 1, max = APPROVERS_MAX))]
    pub count: Option<At<i64>>,
    /// `approve` only: how long the statement waits. Default: `10m`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub expires: Option<At<String>>,
    /// `approve` only: the requester may rule as well. Default: false.
    #[serde(rename = "self")]
    pub own: Option<At<bool>>,
}

/// What is hidden from whom. At least one of `columns` and `detect`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Names of targets, or globs. Default: all.
    pub targets: Option<At<Vec<At<String>>>>,
    /// Any of these groups; with `users`: or any of those users. Default: everyone.
    pub groups: Option<At<Vec<At<String>>>>,
    /// Nobody who is in one of these groups.
    pub except_groups: Option<At<Vec<At<String>>>>,
    /// Any of these users, names or globs.
    pub users: Option<At<Vec<At<String>>>>,
    /// Only through one of these actors: `name` or `name@version`, globs.
    pub actors: Option<At<Vec<At<String>>>>,
    /// `[schema.]table.column`, globs.
    pub columns: Option<At<Vec<At<String>>>>,
    /// By content, in every text value.
    pub detect: Option<At<Vec<At<KindName>>>>,
    /// How. Default: `last4`.
    pub style: Option<At<StyleName>>,
}

/// When a record is safe; each step costs more than the one before.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    Async,
    Group,
    Strict,
}

/// How much of each response is recorded.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Payloads {
    None,
    Masked,
}

/// A full ring has one answer.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    Block,
}

/// Who archives.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Archiver {
    Supervised,
    External,
    Off,
}

/// The trail.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// `async` (batched in memory), `group` (with the kernel before it moves) or `strict` (on stable storage before the
    /// target gets it; its outcome, as with `group`). Default: `group`.
    pub durability: Option<Durability>,
    /// Time between syncs to stable storage. Default: `5ms`. Longer costs less and risks more at a power cut.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub commit_interval: Option<At<String>>,
    /// Size of one segment file, MiB. Default: 64.
    #[schemars(range(min = 1, max = SEGMENT_MIB_MAX))]
    pub segment_mib: Option<At<i64>>,
    /// Segment files of each shard. Default: 8.
    #[schemars(range(min = SEGMENTS_MIN, max = SEGMENTS_MAX))]
    pub segments_per_shard: Option<At<i64>>,
    /// `none`, or `masked`: each response as its user saw it, up to `payload_kib`. Default: `masked`.
    pub payloads: Option<Payloads>,
    /// Bytes of each response that are recorded, KiB. Default: 64.
    #[schemars(range(min = 1, max = PAYLOAD_KIB_MAX))]
    pub payload_kib: Option<At<i64>>,
    /// How long sealed records are kept. Default: `400d`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub retention: Option<At<String>>,
    /// What statements do when there is no room for their record. Default and only value: `block`.
    pub on_full: Option<OnFull>,
    /// Let full segments leave the ring for the archive. Default: true.
    pub archive: Option<At<bool>>,
    /// Who makes Parquet files of the segments: `supervised` (a process the gateway starts and watches), `external` (`lockgate
    /// archiver`, run as a unit of its own) or `off` (nobody: segments are kept in the archive as they are). Default:
    /// `supervised`.
    pub archiver: Option<At<Archiver>>,
    /// Bytes of records after which a Parquet file closes, MiB. Default: 128.
    #[schemars(range(min = 1, max = ARCHIVE_FILE_MIB_MAX))]
    pub archive_file_mib: Option<At<i64>>,
    /// Age at which a Parquet file closes. Default: `60s`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub archive_file_age: Option<At<String>>,
    /// The same for a file with less than 4 MiB of records. Default: `5m`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub archive_small_file_age: Option<At<String>>,
    /// Keep segments in the archive as well once their records are in Parquet files. Default: false.
    pub keep_segments: Option<At<bool>>,
    /// File with the key that signs checkpoints, made where there is none. Default: `checkpoint.key` in `data_dir`.
    #[schemars(extend("examples" = ["checkpoint.key"]))]
    pub checkpoint_key_file: Option<At<String>>,
    /// Entry of the encrypted store with that key (64 hex digits), instead of a file. The entry `NAME.next` takes over at the next
    /// start. Only with `archiver = "supervised"`.
    #[schemars(extend("examples" = ["checkpoints"]))]
    pub checkpoint_key_credential: Option<At<String>>,
    /// Where checkpoints are copied to, so that a trail rolled back as a whole shows: folders on other mounts, addresses of
    /// webhooks (`https://...`) or of object stores (`s3://...`). Default: nowhere.
    #[schemars(extend("examples" = [["/mnt/worm/lockgate"]]))]
    pub checkpoint_copies: Option<At<Vec<At<String>>>>,
    /// An object store that gets every Parquet file and the manifest as well: `s3://BUCKET/PREFIX`, `gs://...`, `az://...`.
    /// Default: none.
    #[schemars(extend("examples" = ["s3://audit/lockgate"]))]
    pub archive_url: Option<At<String>>,
    /// File with the store's credentials, `NAME=VALUE` lines by the names of the cloud's own tools. Default: the environment of
    /// an archiver that is a unit of its own.
    #[schemars(extend("examples" = ["archive.env"]))]
    pub archive_credentials_file: Option<At<String>>,
}

/// Where a copy of the records goes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    File,
    Syslog,
    Splunk,
    CloudWatch,
    Otlp,
    S3,
    Kafka,
    Webhook,
}

/// How a producer says who it is.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// How syslog messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyslogTransport {
    Tls,
    Tcp,
}

/// Where a new sink begins.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SinkStart {
    Beginning,
    Now,
}

/// A copy of the trail for another system: each record as an OCSF event, at least once and in order. A sink that cannot
/// deliver holds nothing up: it catches up later. Keys that say `KIND only` have no effect in others and are an error there.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// What kind of sink.
    #[schemars(extend("examples" = ["file"]))]
    pub kind: SinkKind,
    /// Unique; letters, digits, `-` and `_`. It names the sink in metrics, and its position on disk: with another name it begins
    /// anew. Default: its kind.
    pub name: Option<At<String>>,
    /// Where a sink that is new begins: `beginning` (of what the trail still has) or `now`. Default: `beginning`.
    pub start: Option<At<SinkStart>>,
    /// Events of one batch at most. Default: 500; `s3`: 10000. Fewer where the receiver has a limit.
    #[schemars(range(min = 1, max = SINK_BATCH_EVENTS_MAX))]
    pub batch_events: Option<At<i64>>,
    /// Size of one batch at most, KiB before compression. Default: 512; `s3`: 8192. A single larger event goes alone.
    #[schemars(range(min = 1, max = SINK_BATCH_KIB_MAX))]
    pub batch_kib: Option<At<i64>>,
    /// The longest an event waits for its batch to fill. Default: `1s`; `s3`: `1m`. Longer means fewer requests and objects.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub flush: Option<At<String>>,
    /// For one attempt to deliver a batch. Default: `10s`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub timeout: Option<At<String>>,
    /// The longest pause between two attempts; pauses double up to it. Default: `1m`.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub retry_max: Option<At<String>>,
    /// `file` only, needed: the file.
    #[schemars(extend("examples" = ["audit.ndjson"]))]
    pub path: Option<At<String>>,
    /// `file` only: a file that would become larger is renamed with a time stamp first, MiB. Default: 100.
    #[schemars(range(min = 1, max = SINK_ROTATE_MIB_MAX))]
    pub rotate_mib: Option<At<i64>>,
    /// `file` only: and one that is older than this. Default: never by age.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub rotate_every: Option<At<String>>,
    /// `file` only: renamed files that are kept. Default: all.
    #[schemars(range(min = 1, max = SINK_KEEP_MAX))]
    pub keep: Option<At<i64>>,
    /// `file` only: each batch goes to stable storage before it counts as delivered. Default: true.
    pub sync: Option<At<bool>>,
    /// `syslog` only, needed: host and port of the receiver; 6514 is usual for TLS.
    #[schemars(extend("examples" = ["siem.internal:6514"]))]
    pub address: Option<At<String>>,
    /// `syslog` only: `tls` (RFC 5425) or `tcp` (RFC 6587, readable on the way). Default: `tls`.
    pub transport: Option<At<SyslogTransport>>,
    /// `syslog` only: PEM file with the gateway's own certificate, where the receiver asks for one. With `tls_key`.
    pub tls_cert: Option<At<String>>,
    /// `syslog` only: PEM file with its key.
    pub tls_key: Option<At<String>>,
    /// `syslog` only: facility, 0 to 23. Default: 13 (log audit).
    #[schemars(range(min = 0, max = SYSLOG_FACILITY_MAX))]
    pub facility: Option<At<i64>>,
    /// `syslog` only: a connection for each batch, which counts as delivered when the receiver has read to its end and closes.
    /// `false`: one connection, and what the kernel took counts as delivered. Default: true.
    pub confirm: Option<At<bool>>,
    /// `splunk`, `otlp` and `webhook` only, needed: where to send to. `splunk`: the collector's base, `https://splunk:8088`; `otlp`: the whole
    /// URL, `https://collector:4318/v1/logs`. https; http on loopback only, unless `allow_plaintext`.
    #[schemars(extend("examples" = ["https://siem.internal/lockgate"]))]
    pub url: Option<At<String>>,
    /// `splunk`: environment variable with the collector's token, needed unless there is `token_file`. `otlp` and `webhook`: one with
    /// a token that is sent as `Authorization: Bearer`; default: none.
    pub token_env: Option<At<String>>,
    /// `splunk`, `otlp` and `webhook` only: file with that token; one line break at its end is ignored.
    pub token_file: Option<At<String>>,
    /// `webhook` only: environment variable with the secret that signs each request (`X-Lockgate-Signature`). Default: not signed.
    pub secret_env: Option<At<String>>,
    /// `webhook` only: file with that secret.
    pub secret_file: Option<At<String>>,
    /// `splunk` only: index of the events. Default: the token's.
    pub index: Option<At<String>>,
    /// `splunk` only: source of the events. Default: `lockgate`.
    pub source: Option<At<String>>,
    /// `splunk` only: source type of the events. Default: `lockgate:ocsf`.
    pub sourcetype: Option<At<String>>,
    /// `cloudwatch` and `s3` only, needed: region.
    #[schemars(extend("examples" = ["eu-central-1"]))]
    pub region: Option<At<String>>,
    /// `cloudwatch` and `s3` only: URL of the service instead of AWS's own; `s3`: then the bucket is the path's first part.
    pub endpoint: Option<At<String>>,
    /// `cloudwatch` and `s3` only: id of the access key. Default: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN` of the gateway's environment, else the role of the machine in EC2.
    pub access_key_id: Option<At<String>>,
    /// `cloudwatch` and `s3` only: environment variable with the secret access key. With `access_key_id`.
    pub secret_key_env: Option<At<String>>,
    /// `cloudwatch` and `s3` only: file with the secret access key.
    pub secret_key_file: Option<At<String>>,
    /// `cloudwatch` and `s3` only: file with a session token, where the key is a temporary one. Read again after each refusal.
    pub session_token_file: Option<At<String>>,
    /// `cloudwatch` only, needed: log group; made when it is not there.
    #[schemars(extend("examples" = ["/lockgate/audit"]))]
    pub log_group: Option<At<String>>,
    /// `cloudwatch` only: log stream; made when it is not there. Default: `lockgate-` and the appliance's id.
    pub log_stream: Option<At<String>>,
    /// `s3` only, needed: the bucket.
    #[schemars(extend("examples" = ["corp-audit"]))]
    pub bucket: Option<At<String>>,
    /// `s3` only: in front of each object's key, with its slash: `lockgate/`. Default: none.
    pub prefix: Option<At<String>>,
    /// `kafka` only, needed: brokers to begin with; the others are learnt from them. Needs a program built with `--features kafka`.
    #[schemars(extend("examples" = [["kafka-1.internal:9093"]]))]
    pub brokers: Option<At<Vec<At<String>>>>,
    /// `kafka` only, needed: the topic; it has to be there.
    #[schemars(extend("examples" = ["lockgate-audit"]))]
    pub topic: Option<At<String>>,
    /// `kafka` only: TLS towards the brokers. Default: true. `false` on loopback only, unless `allow_plaintext`.
    pub tls: Option<At<bool>>,
    /// `kafka` only: `plain`, `scram-sha-256` or `scram-sha-512`. Default: the gateway does not log in.
    pub sasl: Option<At<SaslMechanism>>,
    /// `kafka` only: the name it logs in with. With `sasl`.
    pub user: Option<At<String>>,
    /// `kafka` only: environment variable with the password. With `sasl`.
    pub password_env: Option<At<String>>,
    /// `kafka` only: file with the password.
    pub password_file: Option<At<String>>,
    /// All but `file`: PEM file with the authorities the receiver's certificate must come from. Default: the system's.
    pub tls_ca: Option<At<String>>,
    /// `kafka` and kinds with a URL only: records may cross the network readable. Default: false.
    pub allow_plaintext: Option<At<bool>>,
}

/// A string out of a closed set that another crate or module owns: the schema lists it, the checker maps it.
macro_rules! names {
    ($(#[$about:meta])* $Name:ident, $list:expr) => {
        $(#[$about])*
        #[derive(Deserialize)]
        #[serde(transparent)]
        pub struct $Name(pub String);

        impl JsonSchema for $Name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($Name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let names: Vec<&str> = $list;
                json_schema!({ "type": "string", "enum": names })
            }
        }
    };
}

names!(AlgorithmName, super::Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect());
names!(ClassName, Class::ALL.iter().map(|class| class.name()).collect());
names!(KindName, Kind::ALL.iter().map(|kind| kind.name()).collect());
names!(StyleName, STYLES.iter().map(|(name, _)| *name).collect());

const STYLES: [(&str, Style); 4] =
    [("last4", Style::Last4), ("fill", Style::Fill), ("null", Style::Null), ("token", Style::Token)];

impl AlgorithmName {
    pub fn meaning(&self) -> Option<super::Algorithm> {
        super::Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == self.0)
    }
}

impl ClassName {
    pub fn meaning(&self) -> Option<Class> {
        Class::from_name(&self.0)
    }
}

impl KindName {
    pub fn meaning(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == self.0)
    }
}

impl StyleName {
    pub fn meaning(&self) -> Option<Style> {
        STYLES.iter().find(|(name, _)| *name == self.0).map(|(_, style)| *style)
    }
}
