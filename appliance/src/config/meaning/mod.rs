//! Raw structs -> [`Config`]: what the structure cannot tell. Every problem is reported; where there is an error the value
//! built beside it is a stand-in, and the caller throws the whole away.

mod connect;
mod policy;
mod sink;

use super::at::At;
use super::given::{Over, Value};
use super::model::*;
use super::pattern::Glob;
use super::report::{Problem, Severity};
use super::units::{
    ARCHIVE_AGE_BOUNDS, Bounds, COMMIT_INTERVAL_BOUNDS, DRAIN_BOUNDS, DURATION_FORM, RETENTION_BOUNDS, TIMEOUT_BOUNDS,
    parse_duration, parse_socket, show_duration,
};
use super::{raw, suggest};
use crate::audit::archive::store;
use crate::limits::*;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A warning here; [`Config::servable`] refuses it.
pub const NO_LISTENER: &str = "there is no [[listener]]: nobody can connect";

type Span = Range<usize>;
type Names = Option<At<Vec<At<String>>>>;

/// The result is a configuration only if no error was added to `problems`.
pub fn check(file: &raw::File, path: &Path, over: Over<'_>, problems: &mut Vec<Problem>) -> Config {
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut check = Check { folder, over, problems };
    let config = Config {
        hash: String::new(),
        given: over.to_string(),
        path: path.to_owned(),
        server: check.server(&file.server),
        ops: Ops { address: check.socket_or(file.ops.address.as_ref(), 9180) },
        web: Web { address: check.socket_or(file.web.address.as_ref(), 8444) },
        listeners: file.listener.iter().map(|listener| check.listener(listener)).collect(),
        issuers: file.issuer.iter().map(|issuer| check.issuer(issuer)).collect(),
        targets: file.target.iter().map(|target| check.target(target)).collect(),
        grants: file.grant.iter().enumerate().map(|(at, grant)| check.grant(at, grant)).collect(),
        rules: file.rule.iter().map(|rule| check.rule(rule)).collect(),
        masks: file.mask.iter().map(|mask| check.mask(mask)).collect(),
        audit: check.audit(&file.audit),
        sinks: file.sink.iter().map(|sink| check.sink(sink)).collect(),
        warnings: Vec::new(),
    };
    check.unique(file);
    check.addresses(file, &config);
    check.sink_places(file, &config);
    check.references(file);
    check.reachable(file, &config.rules);
    check.present(&config);
    config
}

struct Check<'a> {
    folder: PathBuf,
    over: Over<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn error(&mut self, span: Span, what: impl Into<String>, right: impl Into<String>) {
        self.add(Severity::Error, Some(span), what.into(), right.into());
    }

    fn warn(&mut self, span: Span, what: impl Into<String>, right: impl Into<String>) {
        self.add(Severity::Warning, Some(span), what.into(), right.into());
    }

    fn add(&mut self, severity: Severity, span: Option<Span>, what: String, right: String) {
        self.problems.push(Problem { severity, span, what, right: Some(right).filter(|right| !right.is_empty()) });
    }

    /// Of things that do not go together the one that was laid over the file, for the file by itself is sound; else the first
    /// that is there.
    fn blame<const N: usize>(&self, spans: [Option<Span>; N]) -> Span {
        let given = spans.iter().flatten().find(|span| self.over.value(span).is_some());
        given.or(spans.iter().flatten().next()).cloned().unwrap_or(0..0)
    }

    fn server(&mut self, raw: &raw::Server) -> Server {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX as usize);
        let data_dir = raw.data_dir.as_ref().map(|dir| self.path(dir));
        Server {
            shards: raw.shards.as_ref().map_or(cores, |shards| **shards as usize),
            data_dir: data_dir.unwrap_or_else(|| self.folder.join("data")),
            pin: raw.pin.unwrap_or(true),
            balance: raw.balance.unwrap_or(true),
            spin_us: number(raw.spin_us.as_ref(), SPIN_US),
            vault_key_file: raw.vault_key_file.as_ref().map(|file| self.path(file)),
            ring_entries: self.power_of_two("ring_entries", raw.ring_entries.as_ref(), 1024),
            buffers: u16::try_from(self.power_of_two("buffers", raw.buffers.as_ref(), 1024)).unwrap_or(u16::MAX),
            buffer_kib: number(raw.buffer_kib.as_ref(), 16),
            login_timeout: self.timeout("login_timeout", raw.login_timeout.as_ref(), 15),
            connect_timeout: self.timeout("connect_timeout", raw.connect_timeout.as_ref(), 5),
            drain_timeout: raw
                .drain_timeout
                .as_ref()
                .map(|text| self.duration("drain_timeout", Some(text), DRAIN_BOUNDS.1, DRAIN_BOUNDS)),
        }
    }

    fn audit(&mut self, raw: &raw::Audit) -> Audit {
        let audit = Audit {
            durability: match raw.durability.unwrap_or(raw::Durability::Group) {
                raw::Durability::Async => Durability::Async,
                raw::Durability::Group => Durability::Group,
                raw::Durability::Strict => Durability::Strict,
            },
            commit_interval: self.duration(
                "commit_interval",
                raw.commit_interval.as_ref(),
                Duration::from_millis(5),
                COMMIT_INTERVAL_BOUNDS,
            ),
            segment_mib: number(raw.segment_mib.as_ref(), 64),
            segments_per_shard: number(raw.segments_per_shard.as_ref(), 8),
            payloads: match raw.payloads.unwrap_or(raw::Payloads::Masked) {
                raw::Payloads::None => Payloads::None,
                raw::Payloads::Masked => Payloads::Masked,
            },
            payload_kib: number(raw.payload_kib.as_ref(), 64),
            retention: self.duration(
                "retention",
                raw.retention.as_ref(),
                Duration::from_secs(400 * 86_400),
                RETENTION_BOUNDS,
            ),
            archive: raw.archive.as_ref().is_none_or(|archive| **archive),
            archiver: match raw.archiver.as_ref().map_or(raw::Archiver::Supervised, |archiver| **archiver) {
                raw::Archiver::Supervised => Archiver::Supervised,
                raw::Archiver::External => Archiver::External,
                raw::Archiver::Off => Archiver::Off,
            },
            archive_file_mib: number(raw.archive_file_mib.as_ref(), 128),
            archive_file_age: self.duration(
                "archive_file_age",
                raw.archive_file_age.as_ref(),
                Duration::from_secs(60),
                ARCHIVE_AGE_BOUNDS,
            ),
            archive_small_file_age: self.duration(
                "archive_small_file_age",
                raw.archive_small_file_age.as_ref(),
                Duration::from_secs(300),
                ARCHIVE_AGE_BOUNDS,
            ),
            keep_segments: raw.keep_segments.as_ref().is_some_and(|keep| **keep),
            checkpoint_key_file: raw.checkpoint_key_file.as_ref().map(|file| self.path(file)),
            checkpoint_key_credential: raw
                .checkpoint_key_credential
                .as_ref()
                .map(|name| self.text("checkpoint_key_credential", name)),
            checkpoint_copies: raw
                .checkpoint_copies
                .iter()
                .flat_map(|copies| copies.iter())
                .map(|copy| self.copy(copy))
                .collect(),
            archive_url: raw.archive_url.as_ref().map(|url| self.store(url)),
            archive_credentials_file: raw.archive_credentials_file.as_ref().map(|file| self.path(file)),
        };
        self.archived(raw, &audit);
        self.pointless(raw, &audit);
        if let Some(name) = &raw.checkpoint_key_credential {
            if let Some(file) = &raw.checkpoint_key_file {
                let at = self.blame([Some(name.span()), Some(file.span())]);
                self.error(at, "checkpoints have two keys", "a file or an entry of the encrypted store");
            } else if audit.archiver != Archiver::Supervised {
                let right =
                    "`archiver = \"supervised\"`: only the gateway opens the encrypted store; or `checkpoint_key_file`";
                let at = self.blame([Some(name.span()), raw.archiver.as_ref().map(At::span)]);
                self.error(at, "the archiver cannot get this key", right);
            }
        }
        let raw::OnFull::Block = raw.on_full.unwrap_or(raw::OnFull::Block);
        if let Err((what, right)) = audit.fits() {
            let at = self.blame([raw.payload_kib.as_ref().map(At::span), raw.segment_mib.as_ref().map(At::span)]);
            self.error(at, what, right);
        }
        audit
    }

    /// What nobody makes goes nowhere: whoever names a place for it counts on it.
    fn archived(&mut self, raw: &raw::Audit, audit: &Audit) {
        let (off, (key, value)) = match (&raw.archive, &raw.archiver) {
            (Some(archive), _) if !audit.archive => (archive.span(), ("archive", "false")),
            (_, Some(archiver)) if audit.archiver == Archiver::Off => (archiver.span(), ("archiver", "off")),
            (None | Some(_), None | Some(_)) => return,
        };
        let places = [
            ("archive_url", raw.archive_url.as_ref().map(At::span)),
            ("checkpoint_copies", raw.checkpoint_copies.as_ref().filter(|copies| !copies.is_empty()).map(At::span)),
        ];
        for (place, span) in places.into_iter().filter_map(|(place, span)| Some((place, span?))) {
            let (place, key) = (self.giver(&span, place), self.giver(&off, key));
            let at = self.blame([Some(span), Some(off.clone())]);
            let what = format!("{place} goes without an archive: {key} is {value}");
            self.error(at, what, "take one of them out");
        }
    }

    /// What is allowed and changes nothing, or ends in a standstill.
    fn pointless(&mut self, raw: &raw::Audit, audit: &Audit) {
        if let Some(archive) = raw.archive.as_ref().filter(|_| !audit.archive) {
            let what = "nothing leaves the ring of segments: statements block once it is full";
            self.warn(archive.span(), what, "`archive = true`, but to look at segments as they are");
            if let Some(archiver) = &raw.archiver {
                self.warn(archiver.span(), "no archiver has work to do: `archive` is false", "");
            }
        }
        if let Some(keep) =
            raw.keep_segments.as_ref().filter(|_| audit.keep_segments && audit.archiver == Archiver::Off)
        {
            self.warn(
                keep.span(),
                "without an archiver all segments are kept as they are, with `keep_segments` or not",
                "",
            );
        }
        let used = audit.archive_url.is_some() || audit.checkpoint_copies.iter().any(|copy| store::is_address(copy));
        if let Some(file) = raw.archive_credentials_file.as_ref().filter(|_| !used) {
            self.warn(file.span(), "nobody reads these credentials: nothing goes to an object store", "`archive_url`");
        }
    }

    /// The flag or variable that gave what stands here, or the file's own words.
    fn giver(&self, span: &Span, key: &str) -> String {
        self.over.name(span).map_or_else(|| format!("`{key}`"), str::to_owned)
    }

    /// An address as it is, a folder from the configuration's.
    fn copy(&mut self, copy: &At<String>) -> String {
        let webhook = copy.starts_with("https://") || copy.starts_with("http://");
        if !copy.contains("://") {
            return self.path(copy).display().to_string();
        }
        if !webhook && !store::is_address(copy) {
            let what = format!("`{}` is no place for checkpoints", **copy);
            self.error(copy.span(), what, "a folder, https://... or s3://...");
        } else if !webhook {
            self.store_is_built(copy);
        }
        copy.to_string()
    }

    fn store(&mut self, url: &At<String>) -> String {
        if !store::is_address(url) {
            let what = format!("`{}` is no object store", **url);
            self.error(url.span(), what, "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX");
        } else {
            self.store_is_built(url);
        }
        url.to_string()
    }

    fn store_is_built(&mut self, address: &At<String>) {
        if !cfg!(feature = "object-store") {
            let what = "this program was built without object stores (cargo feature `object-store`)";
            self.error(address.span(), what, "build with `--features object-store`, or take it out");
        }
    }

    /// Names that must tell things apart.
    fn unique(&mut self, file: &raw::File) {
        self.distinct("[[issuer]] named", file.issuer.iter().map(|issuer| &issuer.name));
        self.distinct("[[issuer]] with issuer", file.issuer.iter().map(|issuer| &issuer.issuer));
        self.distinct("[[target]] named", file.target.iter().map(|target| &target.name));
        self.distinct("[[grant]] named", file.grant.iter().filter_map(|grant| grant.name.as_ref()));
        self.distinct("[[rule]] named", file.rule.iter().map(|rule| &rule.name));
        self.distinct("[[sink]] with path", file.sink.iter().filter_map(|sink| sink.path.as_ref()));
        self.distinct_sinks(&file.sink);
    }

    fn distinct<'r>(&mut self, what: &str, list: impl Iterator<Item = &'r At<String>>) {
        let mut seen: HashMap<&str, ()> = HashMap::new();
        for name in list {
            if seen.insert(name.as_str(), ()).is_some() {
                self.error(
                    name.span(),
                    format!("there is more than one {what} \"{}\"", name.escape_debug()),
                    "each needs its own",
                );
            }
        }
    }

    /// Says at which line, where the configuration only says what.
    fn addresses(&mut self, file: &raw::File, config: &Config) {
        let mut spans = vec![file.ops.address.as_ref().map(At::span), file.web.address.as_ref().map(At::span)];
        spans.extend(file.listener.iter().map(|listener| Some(listener.address.span())));
        if let Some(clash) = config.clash() {
            let (last, first) = (spans[clash.at].clone(), spans[clash.with].clone());
            let at = self.blame([last.clone(), first]);
            let other = if Some(&at) == last.as_ref() { clash.with } else { clash.at };
            let what = format!("{} is already the address of {}", clash.address, owner(other));
            self.error(at, what, "choose another port");
        }
    }

    /// What no gateway can do without. Not errors: `explain` and a first look at a file work all the same.
    fn present(&mut self, config: &Config) {
        let absent = [
            (config.listeners.is_empty(), NO_LISTENER),
            (config.issuers.is_empty(), "there is no [[issuer]]: no token will be believed"),
            (config.targets.is_empty(), "there is no [[target]]: there is nothing to open"),
            (config.grants.is_empty() && !config.targets.is_empty(), "there is no [[grant]]: nobody may open a target"),
        ];
        for (_, what) in absent.into_iter().filter(|(absent, _)| *absent) {
            self.add(Severity::Warning, None, what.into(), String::new());
        }
    }

    // Values.

    /// Never empty; relative to the folder of the file, or to the working directory where it is not the file's.
    fn path(&mut self, text: &At<String>) -> PathBuf {
        if text.is_empty() || text.contains('\0') {
            self.error(text.span(), "a path must not be empty", "name one, or leave it out");
        }
        match self.over.value(&text.span()) {
            Some(Value::Path(path)) => path.clone(),
            Some(_) => PathBuf::from(text.as_str()),
            None => self.folder.join(text.as_str()),
        }
    }

    fn text(&mut self, key: &str, text: &At<String>) -> String {
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            self.error(text.span(), format!("`{key}` must be text without control characters, not empty"), "");
        }
        text.to_string()
    }

    fn socket_or(&mut self, text: Option<&At<String>>, default_port: u16) -> SocketAddr {
        text.map_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port), |text| self.socket(text))
    }

    fn socket(&mut self, text: &At<String>) -> SocketAddr {
        parse_socket(text).unwrap_or_else(|(what, right)| {
            self.error(text.span(), what, right);
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
        })
    }

    fn timeout(&mut self, key: &str, text: Option<&At<String>>, default_s: u64) -> Duration {
        self.duration(key, text, Duration::from_secs(default_s), TIMEOUT_BOUNDS)
    }

    fn duration(&mut self, key: &str, text: Option<&At<String>>, default: Duration, (min, max): Bounds) -> Duration {
        let Some(text) = text else { return default };
        match parse_duration(text) {
            Ok(duration) if duration < min => {
                self.error(text.span(), format!("`{key}` is too short"), format!("at least {}", show_duration(min)));
            }
            Ok(duration) if duration > max => {
                self.error(text.span(), format!("`{key}` is too long"), format!("at most {}", show_duration(max)));
            }
            Ok(duration) => return duration,
            Err(what) => self.error(text.span(), what, DURATION_FORM),
        }
        default
    }

    fn power_of_two(&mut self, key: &str, value: Option<&At<i64>>, default: u32) -> u32 {
        let Some(at) = value else { return default };
        let value = number(Some(at), default);
        if !value.is_power_of_two() {
            let (below, above) = (value.next_power_of_two() / 2, value.next_power_of_two());
            self.error(at.span(), format!("`{key}` must be a power of two"), format!("{below} or {above}"));
        }
        value
    }

    /// A list that is there but empty would match nothing, or everything: neither is what somebody meant.
    fn not_empty<'r, T>(&mut self, key: &str, list: &'r Option<At<Vec<At<T>>>>) -> &'r [At<T>] {
        let Some(list) = list else { return &[] };
        if list.is_empty() {
            self.error(list.span(), format!("`{key}` is empty"), format!("leave `{key}` out to mean any"));
        }
        list
    }

    fn texts(&mut self, key: &str, list: &Names) -> Vec<String> {
        self.not_empty(key, list).iter().map(|text| self.text(key, text)).collect()
    }

    fn globs(&mut self, key: &str, list: &Names) -> Vec<Glob> {
        self.not_empty(key, list).iter().map(|text| self.pattern(text, Glob::new).unwrap_or_else(Glob::any)).collect()
    }

    fn pattern<T>(&mut self, text: &At<String>, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        parse(text)
            .map_err(|right| {
                self.error(text.span(), format!("\"{}\" is not a valid pattern", text.escape_debug()), right)
            })
            .ok()
    }
}

impl Audit {
    /// The largest record must fit a segment. The error is what is wrong and what would be right.
    fn fits(&self) -> Result<(), (String, String)> {
        let payload = self.payload_bytes();
        let record = AUDIT_STATEMENT_BYTES_MAX + AUDIT_BINDS_BYTES_MAX + RECORD_OVERHEAD_BYTES + payload;
        // A payload gets half of a segment at most: what says whose it is has its shares as well.
        let least = record.max(2 * payload);
        let segment = (self.segment_mib as usize) << 20;
        if least <= segment {
            return Ok(());
        }
        let what = format!(
            "a record with a payload of {} KiB does not fit a segment of {} MiB",
            self.payload_kib, self.segment_mib
        );
        let mib = least.div_ceil(1 << 20);
        Err((what, format!("a smaller payload_kib, or segment_mib = {mib} or more")))
    }

    /// Bytes of each response that are recorded.
    pub fn payload_bytes(&self) -> usize {
        match self.payloads {
            Payloads::None => 0,
            Payloads::Masked => (self.payload_kib as usize) << 10,
        }
    }
}

/// An address that is taken twice.
struct Clash {
    /// Position in: ops, web, then the listeners.
    at: usize,
    /// That of who has it already.
    with: usize,
    address: SocketAddr,
}

/// Who listens there, by the same position.
fn owner(at: usize) -> &'static str {
    match at {
        0 => "[ops]",
        1 => "[web]",
        _ => "a [[listener]]",
    }
}

impl Config {
    /// Two things cannot listen on one address. Port 0 asks for any free one.
    fn clash(&self) -> Option<Clash> {
        let own = [self.ops.address, self.web.address];
        let all: Vec<_> = own.into_iter().chain(self.listeners.iter().map(|listener| listener.address)).collect();
        all.iter().enumerate().find_map(|(at, &address)| {
            let with = all[..at].iter().position(|other| address.port() != 0 && overlap(*other, address))?;
            Some(Clash { at, with, address })
        })
    }
}

/// The structure has checked its range.
fn number(value: Option<&At<i64>>, default: u32) -> u32 {
    value.map_or(default, bounded)
}

fn bounded(value: &At<i64>) -> u32 {
    u32::try_from(**value).expect("the schema bounds it")
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}
