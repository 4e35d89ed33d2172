//! `lockgate serve`: run the gateway.

use super::archiver::{ARCHIVE, ArchiveArgs};
use super::given::{self, Collect, OnLine, address};
use super::log::{self, LogFormat};
use crate::config::{self, Archiver, Config, ConfigError, Durability, Given, Payloads};
use crate::control::{Hangups, Refused};
use crate::limits::*;
use anyhow::Context as _;
use clap::ArgAction::Set;
use clap::value_parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Flags win over environment variables, those over the file, that over the defaults.
#[derive(clap::Args, Default, Clone, Debug)]
#[command(
    after_help = "Every key of the file that tunes the gateway has a flag here and an environment variable. A flag wins over its \
variable, and that over the file; a variable that is empty counts as not set. Other commands that read the configuration lay the \
variables over it as well, and know nothing of flags.

HUP reads the file again, TERM drains, a second TERM stops at once. What takes effect at the next start only is told at each reload.

EXAMPLES
  lockgate serve --config /etc/lockgate/lockgate.toml
  lockgate serve --config lockgate.toml --shards 2 --durability strict
  LOCKGATE_LOG=debug lockgate serve --config lockgate.toml"
)]
pub struct ServeArgs {
    #[command(flatten)]
    pub on_line: OnLine,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "LOCKGATE_CONFIG", default_value = super::CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// What to log: a level, or directives like `info,lockgate::control=debug`. Statements are never logged.
    #[arg(long, value_name = "FILTER", env = "LOCKGATE_LOG", default_value = "info")]
    pub log: String,
    /// How to log.
    #[arg(long, value_enum, env = "LOCKGATE_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// Shards, each a thread with its own sockets [default: one per core]. Fewer leaves cores to the target.
    #[arg(long, help_heading = SHARDS, value_name = "N", env = "LOCKGATE_SHARDS", value_parser = value_parser!(u32).range(1..=SHARDS_MAX as i64))]
    pub shards: Option<u32>,
    /// Pin each shard to a core [default: true]. Turn off where the cores are shared with other work.
    #[arg(long, help_heading = SHARDS, value_name = "BOOL", env = "LOCKGATE_PIN", action = Set, num_args = 0..=1, default_missing_value = "true")]
    pub pin: Option<bool>,
    /// Hand a new connection to the shard that has the fewest [default: true]. Turn off where connections are many and short: it
    /// saves a wake of another shard for some of them.
    #[arg(long, help_heading = SHARDS, value_name = "BOOL", env = "LOCKGATE_BALANCE", action = Set, num_args = 0..=1, default_missing_value = "true")]
    pub balance: Option<bool>,
    /// Microseconds a shard looks for its next message before it sleeps, at most [default: 100; 0: never]. It looks only while one or two
    /// sessions talk without a pause and trials show that they wait less. Lowers their latency, costs the core meanwhile (`lockgate_shard_spun_seconds_total`).
    #[arg(long, help_heading = SHARDS, value_name = "US", env = "LOCKGATE_SPIN_US", value_parser = value_parser!(u32).range(0..=SPIN_US_MAX as i64))]
    pub spin_us: Option<u32>,
    /// Entries of each submission ring, a power of two [default: 1024]. Raise for thousands of busy connections.
    #[arg(long, help_heading = SHARDS, value_name = "N", env = "LOCKGATE_RING_ENTRIES", value_parser = ring_entries)]
    pub ring_entries: Option<u32>,
    /// Receive buffers of each shard, a power of two [default: 1024]. Raise when `lockgate_buffers_starved_total` grows.
    #[arg(long, help_heading = SHARDS, value_name = "N", env = "LOCKGATE_BUFFERS", value_parser = buffers)]
    pub buffers: Option<u16>,
    /// Size of a receive buffer, KiB [default: 16]. Raise for large rows and COPY, if memory allows.
    #[arg(long, help_heading = SHARDS, value_name = "KIB", env = "LOCKGATE_BUFFER_KIB", value_parser = value_parser!(u32).range(BUFFER_KIB_MIN as i64..=BUFFER_KIB_MAX as i64))]
    pub buffer_kib: Option<u32>,

    /// From accept to a session that is open [default: 15s]. Lower where strangers can connect.
    #[arg(long, help_heading = DEADLINES, value_name = "DURATION", env = "LOCKGATE_LOGIN_TIMEOUT", value_parser = timeout)]
    pub login_timeout: Option<Duration>,
    /// For one connection to a target [default: 5s]. Raise for targets that are far away.
    #[arg(long, help_heading = DEADLINES, value_name = "DURATION", env = "LOCKGATE_CONNECT_TIMEOUT", value_parser = timeout)]
    pub connect_timeout: Option<Duration>,
    /// After a first TERM, for sessions to end by themselves; then they are ended as by a second TERM [default: as long as it takes].
    /// Set it below the time that your supervisor gives a stop.
    #[arg(long, help_heading = DEADLINES, value_name = "DURATION", env = "LOCKGATE_DRAIN_TIMEOUT", value_parser = drain_timeout)]
    pub drain_timeout: Option<Duration>,
    /// Address of health and metrics [default: 127.0.0.1:9180]. Change it when the port is taken or a scraper comes from elsewhere.
    #[arg(long, help_heading = ADDRESSES, value_name = "IP:PORT", env = "LOCKGATE_OPS_ADDRESS", value_parser = address)]
    pub ops_address: Option<SocketAddr>,
    /// Kept for the admin API and pages [default: 127.0.0.1:8444]. Leave it: nothing listens there in this version.
    #[arg(long, help_heading = ADDRESSES, value_name = "IP:PORT", env = "LOCKGATE_WEB_ADDRESS", value_parser = address)]
    pub web_address: Option<SocketAddr>,

    /// Folder for audit segments, archive, state and control socket [default: data, beside the configuration]. Other commands
    /// know of the variable and the file only.
    #[arg(long, help_heading = FILES, value_name = "DIR", env = "LOCKGATE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// File with the key of the encrypted credential store [default: none]. Give it when a target's `credential` names an entry.
    #[arg(long, help_heading = FILES, value_name = "FILE", env = "LOCKGATE_VAULT_KEY_FILE")]
    pub vault_key_file: Option<PathBuf>,

    /// When a record is safe [default: group]. Give strict when a power cut may cost no statement's record (what came of the last ones, it may), async when a crash may cost some.
    #[arg(long, help_heading = AUDIT, value_enum, env = "LOCKGATE_DURABILITY")]
    pub durability: Option<Durability>,
    /// Time between syncs to disk [default: 5ms]. Longer costs less and risks more at a power cut.
    #[arg(long, help_heading = AUDIT, value_name = "DURATION", env = "LOCKGATE_COMMIT_INTERVAL", value_parser = commit_interval)]
    pub commit_interval: Option<Duration>,
    /// Size of a segment file, MiB [default: 64]. Raise when statements wait for room.
    #[arg(long, help_heading = AUDIT, value_name = "MIB", env = "LOCKGATE_SEGMENT_MIB", value_parser = value_parser!(u32).range(1..=SEGMENT_MIB_MAX as i64))]
    pub segment_mib: Option<u32>,
    /// Segment files of each shard [default: 8]. Raise when statements wait for room.
    #[arg(long, help_heading = AUDIT, value_name = "N", env = "LOCKGATE_SEGMENTS_PER_SHARD", value_parser = value_parser!(u32).range(SEGMENTS_MIN as i64..=SEGMENTS_MAX as i64))]
    pub segments_per_shard: Option<u32>,
    /// How much of each response is recorded [default: masked]: none, or masked as its user saw it. Give none to save disk.
    #[arg(long, help_heading = AUDIT, value_enum, env = "LOCKGATE_PAYLOADS")]
    pub payloads: Option<Payloads>,
    /// Recorded bytes of each response, KiB [default: 64]. Lower to save disk.
    #[arg(long, help_heading = AUDIT, value_name = "KIB", env = "LOCKGATE_PAYLOAD_KIB", value_parser = value_parser!(u32).range(1..=PAYLOAD_KIB_MAX as i64))]
    pub payload_kib: Option<u32>,
    /// How long sealed records are kept [default: 400d]. Set what your auditors ask for.
    #[arg(long, help_heading = AUDIT, value_name = "DURATION", env = "LOCKGATE_RETENTION", value_parser = retention)]
    pub retention: Option<Duration>,
    /// Let full segments leave the ring [default: true]. Turn off only to look at segments as they are: the ring fills.
    #[arg(long, help_heading = AUDIT, value_name = "BOOL", env = "LOCKGATE_ARCHIVE", action = Set, num_args = 0..=1, default_missing_value = "true")]
    pub archive: Option<bool>,
    /// Who makes Parquet files of the segments [default: supervised]. Give external where `lockgate archiver` is a unit of its own.
    #[arg(long, help_heading = ARCHIVE, value_enum, env = "LOCKGATE_ARCHIVER")]
    pub archiver: Option<Archiver>,
    /// Keep segments as well once their records are in Parquet files [default: false]. Turn on to have the frames themselves at hand: they take their room a second time, and each new segment costs CPU that reusing one saves.
    #[arg(long, help_heading = ARCHIVE, value_name = "BOOL", env = "LOCKGATE_KEEP_SEGMENTS", action = Set, num_args = 0..=1, default_missing_value = "true")]
    pub keep_segments: Option<bool>,
    #[command(flatten)]
    pub archive_args: ArchiveArgs,
}

const SHARDS: &str = "Shards";
const DEADLINES: &str = "Deadlines";
const ADDRESSES: &str = "Addresses";
const FILES: &str = "Files";
const AUDIT: &str = "Audit";

impl ServeArgs {
    /// Reads the file and lays flags and variables over it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        config::load_with(&self.config, &self.given())?.servable()
    }

    /// The same on HUP, with what the trail needs to know of a file that is refused.
    fn load_again(&self) -> Result<Config, Refused> {
        self.load().map_err(|error| Refused { report: error.to_string(), reason: error.reason(), hash: error.hash })
    }

    /// What flags and variables say, by the keys of the file.
    pub(super) fn given(&self) -> Given {
        let mut all = Collect::new(&self.on_line);
        all.add("server", "shards", self.shards);
        all.add("server", "pin", self.pin);
        all.add("server", "balance", self.balance);
        all.add("server", "spin_us", self.spin_us);
        all.add("server", "ring_entries", self.ring_entries);
        all.add("server", "buffers", self.buffers);
        all.add("server", "buffer_kib", self.buffer_kib);
        all.add("server", "login_timeout", self.login_timeout);
        all.add("server", "connect_timeout", self.connect_timeout);
        all.add("server", "drain_timeout", self.drain_timeout);
        all.add("server", "data_dir", self.data_dir.clone());
        all.add("server", "vault_key_file", self.vault_key_file.clone());
        all.add("ops", "address", self.ops_address);
        all.add("web", "address", self.web_address);
        all.choice("audit", "durability", self.durability);
        all.add("audit", "commit_interval", self.commit_interval);
        all.add("audit", "segment_mib", self.segment_mib);
        all.add("audit", "segments_per_shard", self.segments_per_shard);
        all.choice("audit", "payloads", self.payloads);
        all.add("audit", "payload_kib", self.payload_kib);
        all.add("audit", "retention", self.retention);
        all.add("audit", "archive", self.archive);
        all.choice("audit", "archiver", self.archiver);
        all.add("audit", "keep_segments", self.keep_segments);
        self.archive_args.give(&mut all);
        all.done()
    }
}

fn ring_entries(text: &str) -> Result<u32, String> {
    power_of_two(text, RING_ENTRIES_MIN, RING_ENTRIES_MAX)
}

fn buffers(text: &str) -> Result<u16, String> {
    let buffers = power_of_two(text, BUFFERS_MIN, BUFFERS_MAX)?;
    u16::try_from(buffers).map_err(|_| format!("at most {BUFFERS_MAX}"))
}

fn power_of_two(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number: &u32| (min..=max).contains(number) && number.is_power_of_two());
    number.ok_or_else(|| format!("a power of two from {min} to {max}"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::TIMEOUT_BOUNDS)
}

fn drain_timeout(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::DRAIN_BOUNDS)
}

pub(super) fn commit_interval(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::COMMIT_INTERVAL_BOUNDS)
}

pub(super) fn retention(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::RETENTION_BOUNDS)
}

pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // Ahead of all else: until then, HUP ends the process.
    let hangups = Hangups::catch().context("HUP cannot be caught")?;
    take_small_pages();
    log::start(&args.log, &args.on_line.giver("log"), args.log_format)?;
    let config = args.load().map_err(|error| given::refused(error, &args.config))?;
    for warning in &config.warnings {
        tracing::warn!("{}", warning.rendered);
    }
    crate::open_files::raise();
    super::doctor::must_run_here(&config)?;
    let archiver = super::archiver::command(&config, &args.log, args.log_format)?;
    let load = Box::new(move || args.load_again());
    crate::gateway::run(config, hangups, load, archiver)?;
    Ok(ExitCode::SUCCESS)
}

/// In huge pages a gateway that has just started is 15 MiB larger, and each idle session two thirds. The allocator asks for none (Cargo.toml);
/// here the process refuses those that a kernel gives to everybody. One that does not know of them has none.
fn take_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn line(flags: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from(std::iter::once(&"serve").chain(flags))
    }

    fn over(file: &str, flags: &[&str]) -> anyhow::Result<Config> {
        let line = line(flags)?;
        Ok(config::parse_with(file, Path::new("gw.toml"), &line.args.given())?)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file =
            "[server]\nshards = 3\npin = true\nspin_us = 7\n[audit]\ndurability = \"strict\"\nretention = \"30d\"\n";
        let flags = ["--shards", "2", "--pin", "false", "--durability", "async", "--web-address", "127.0.0.1:1"];
        let config = over(file, &flags).unwrap();
        assert_eq!((config.server.shards, config.server.pin, config.server.spin_us), (2, false, 7));
        assert_eq!((config.audit.durability, config.audit.segment_mib), (Durability::Async, 64));
        assert_eq!(config.audit.retention, Duration::from_secs(30 * 86_400));
        assert_eq!(config.web.address.port(), 1);
    }

    #[test]
    fn every_tuning_flag_reaches_its_key() {
        let flags = [
            "--ring-entries=256",
            "--buffers=512",
            "--buffer-kib=8",
            "--login-timeout=1m",
            "--connect-timeout=1s",
            "--drain-timeout=2m",
            "--ops-address=127.0.0.1:2",
            "--data-dir=/d",
            "--vault-key-file=/k",
            "--commit-interval=20ms",
            "--segment-mib=8",
            "--segments-per-shard=3",
            "--payloads=none",
            "--payload-kib=9",
            "--retention=2d",
            "--archive=true",
            "--archiver=external",
            "--keep-segments=false",
            "--archive-file-mib=7",
            "--archive-file-age=2s",
            "--archive-small-file-age=3s",
            "--checkpoint-key-file=/c",
            "--checkpoint-copies=/m,https://h/x",
            "--archive-credentials-file=/e",
            "--spin-us=5",
            "--balance=false",
        ];
        let config = over("", &flags).unwrap();
        let server = &config.server;
        assert_eq!((server.ring_entries, server.buffers, server.buffer_kib, server.spin_us), (256, 512, 8, 5));
        assert!(!server.balance && over("", &[]).unwrap().server.balance);
        assert_eq!((server.login_timeout.as_secs(), server.connect_timeout.as_secs()), (60, 1));
        assert_eq!(server.drain_timeout, Some(Duration::from_secs(120)));
        assert_eq!((config.ops.address.port(), server.data_dir.to_str()), (2, Some("/d")));
        assert_eq!(server.vault_key_file.as_deref(), Some(Path::new("/k")));
        let audit = &config.audit;
        assert_eq!((audit.commit_interval.as_millis(), audit.segment_mib, audit.segments_per_shard), (20, 8, 3));
        assert_eq!((audit.payloads, audit.payload_kib, audit.archive), (Payloads::None, 9, true));
        assert!(!over("", &["--archive=false"]).unwrap().audit.archive);
        assert_eq!(audit.retention, Duration::from_secs(2 * 86_400));
        assert_eq!((audit.archiver, audit.keep_segments, audit.archive_file_mib), (Archiver::External, false, 7));
        assert_eq!((audit.archive_file_age.as_secs(), audit.archive_small_file_age.as_secs()), (2, 3));
        assert_eq!(audit.checkpoint_key_file.as_deref(), Some(Path::new("/c")));
        assert_eq!(audit.checkpoint_copies, ["/m", "https://h/x"]);
        assert_eq!(audit.archive_credentials_file.as_deref(), Some(Path::new("/e")));
        // A flag that is not laid over the file would change nothing.
        let url = "--archive-url=s3://b/p";
        let more = ["--shards=2", "--pin=false", "--web-address=127.0.0.1:3", "--durability=strict", url];
        let mut given: Vec<String> = line(&[&flags[..], &more].concat()).unwrap().args.given().keys().collect();
        given.extend(line(&["--checkpoint-key-credential=c"]).unwrap().args.given().keys());
        given.sort();
        let mut keys: Vec<String> = tuning_keys().into_iter().map(|(key, _)| key).collect();
        keys.retain(|key| key != ONLY_ONE_VALUE);
        keys.sort();
        assert_eq!(given, keys);
    }

    /// It has one value, which is the promise that nothing is dropped.
    const ONLY_ONE_VALUE: &str = "audit.on_full";

    /// Every key of the tables that tune the gateway, as the schema names them, and the flag that it should have.
    fn tuning_keys() -> Vec<(String, String)> {
        let schema = config::schema();
        let mut keys = Vec::new();
        for (table, definition) in [("server", "Server"), ("ops", "Ops"), ("web", "Web"), ("audit", "Audit")] {
            let properties = &schema["$defs"][definition]["properties"];
            for key in properties.as_object().expect("the table has keys").keys() {
                let flag = if key == "address" { format!("{table}-address") } else { key.replace('_', "-") };
                keys.push((format!("{table}.{key}"), flag));
            }
        }
        keys
    }

    #[test]
    fn every_tuning_key_has_a_flag_and_a_variable_with_default_and_heading() {
        use clap::CommandFactory as _;
        let command = Line::command();
        let keys = tuning_keys();
        assert!(keys.len() >= 20, "{keys:?}");
        for (key, flag) in keys.iter().filter(|(key, _)| key != ONLY_ONE_VALUE) {
            let found = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
            let argument = found.unwrap_or_else(|| panic!("{key} has no flag --{flag}"));
            let variable = format!("LOCKGATE_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(&*variable), "{key}");
            assert!(argument.get_help_heading().is_some(), "{key} is in no group");
            let help = argument.get_help().expect("it has a help text").to_string();
            let after =
                help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).map(|(_, after)| after);
            assert!(after.is_some_and(|after| after.len() > 10), "--{flag}: default, then when to touch it: {help}");
        }
    }

    #[test]
    fn flags_are_held_to_the_bounds_of_the_file() {
        for flags in [
            ["--shards", "0"],
            ["--ring-entries", "1000"],
            ["--buffers", "65536"],
            ["--login-timeout", "5"],
            ["--commit-interval", "1h"],
            ["--segments-per-shard", "1"],
            ["--durability", "never"],
            ["--ops-address", "localhost:1"],
        ] {
            assert!(over("", &flags).is_err(), "{flags:?}");
        }
    }

    /// What is wrong and who is to blame, as the report has them.
    #[track_caller]
    fn check_refused(file: &str, flags: &[&str], what: &str, who: &str) {
        let error = over(file, flags).expect_err("the flags are refused");
        let error = error.downcast::<ConfigError>().expect("a report");
        let report = error.to_string();
        assert!(report.contains(&format!("error: {what}")), "{flags:?}: {report}");
        assert!(report.contains(&format!(" --> {who}\n")), "{flags:?}: {report}");
        assert!(error.by_given, "{flags:?}");
        // In the command's manner, and its status.
        assert!(given::refused(error, Path::new("gw.toml")).is::<crate::cli::WrongUsage>());
    }

    /// All of these once ran, to fail later or never.
    #[test]
    fn flags_meet_every_check_of_the_file_and_the_report_names_them() {
        for url in ["nonsense", "", "http://x"] {
            let flag = format!("--archive-url={url}");
            check_refused("", &[&flag], &format!("`{url}` is no object store"), "--archive-url");
        }
        for (copies, what) in [
            ("ftp://x", "`ftp://x` is no place for checkpoints"),
            ("/m,ftp://x", "`ftp://x` is no place for checkpoints"),
            (",", "a path must not be empty"),
            ("", "a path must not be empty"),
        ] {
            check_refused("", &[&format!("--checkpoint-copies={copies}")], what, "--checkpoint-copies");
        }
        let credential = "--checkpoint-key-credential";
        for archiver in ["external", "off"] {
            let flag = format!("--archiver={archiver}");
            check_refused("", &[credential, "x", &flag], "the archiver cannot get this key", credential);
            let file = "[audit]\ncheckpoint_key_credential = \"x\"\n";
            check_refused(file, &[&flag], "the archiver cannot get this key", "--archiver");
            let file = format!("[audit]\narchiver = \"{archiver}\"\n");
            check_refused(&file, &[credential, "x"], "the archiver cannot get this key", credential);
        }
        let file = "[audit]\ncheckpoint_key_file = \"k\"\n";
        check_refused(file, &[credential, "x"], "checkpoints have two keys", credential);
        let file = "[audit]\ncheckpoint_key_credential = \"k\"\n";
        check_refused(file, &["--checkpoint-key-file=x"], "checkpoints have two keys", "--checkpoint-key-file");
        check_refused("", &[credential, " "], "`checkpoint_key_credential` must be text", credential);
    }

    /// Such a gateway ran, archived nowhere, and said so in one line.
    #[test]
    fn stores_that_this_program_cannot_reach_are_refused() {
        let url = "--archive-url=s3://b/p";
        if cfg!(feature = "object-store") {
            assert_eq!(over("", &[url]).unwrap().audit.archive_url.as_deref(), Some("s3://b/p"));
            return;
        }
        let what = "this program was built without object stores";
        check_refused("", &[url], what, "--archive-url");
        check_refused("", &["--checkpoint-copies=/m,s3://b/p"], what, "--checkpoint-copies");
        let error = over("[audit]\narchive_url = \"s3://b/p\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(" --> gw.toml:2:15\n"), "{error}");
    }

    #[test]
    fn places_for_an_archive_that_nobody_makes_are_refused_by_their_givers() {
        let copies = "--checkpoint-copies=/m";
        let what = "--checkpoint-copies goes without an archive: --archive is false";
        check_refused("", &["--archive=false", copies], what, "--checkpoint-copies");
        let file = "[audit]\ncheckpoint_copies = [\"/m\"]\n";
        let what = "`checkpoint_copies` goes without an archive: --archiver is off";
        check_refused(file, &["--archiver=off"], what, "--archiver");
        let what = "--checkpoint-copies goes without an archive: `archiver` is off";
        check_refused("[audit]\narchiver = \"off\"\n", &[copies], what, "--checkpoint-copies");
        let error = over("[audit]\narchive = false\narchive_url = \"s3://b/p\"\n", &[]).unwrap_err().to_string();
        let what = "`archive_url` goes without an archive: `archive` is false";
        assert!(error.contains(what) && error.contains(" --> gw.toml:3:15\n"), "{error}");
        assert!(over("[audit]\narchive = false\ncheckpoint_copies = []\n", &[]).is_ok());
    }

    #[test]
    fn an_address_is_refused_in_the_words_of_the_file() {
        for flag in ["--ops-address", "--web-address"] {
            let error = line(&[flag, "localhost:1"]).err().unwrap().to_string();
            assert!(error.contains("write `127.0.0.1:1`; names are not resolved here"), "{error}");
        }
    }

    #[test]
    fn the_trail_is_told_of_flags_and_variables_with_their_values() {
        let line =
            line(&["--shards=2", "--checkpoint-copies=/m,https://u:p@hooks.example:1/s3cret?t=1", "--pin"]).unwrap();
        let args = ServeArgs { payloads: Some(Payloads::None), ..line.args };
        let config = config::parse_with("", Path::new("gw.toml"), &args.given()).unwrap();
        let wanted =
            "--shards 2, --pin true, LOCKGATE_PAYLOADS none, --checkpoint-copies /m,https://hooks.example:1/...";
        assert_eq!(config.origin(), format!("configuration {}, with {wanted}", config.hash));
        let plain = config::parse("", Path::new("gw.toml")).unwrap();
        assert_eq!(plain.origin(), format!("configuration {}", plain.hash));
    }

    /// The log named the flag, the trail only what was wrong.
    #[test]
    fn a_reload_that_a_flag_prevents_is_recorded_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gw.toml");
        std::fs::write(&file, "[audit]\ncheckpoint_key_file = \"k\"\n").unwrap();
        let line = line(&["--checkpoint-key-credential=x", "--config", file.to_str().unwrap()]).unwrap();
        let refused = line.args.load_again().unwrap_err();
        assert_eq!(refused.reason, "--checkpoint-key-credential: checkpoints have two keys");
    }

    /// What an editor leaves behind that was stopped in the middle took everything from a gateway at its next reload.
    #[test]
    fn a_file_without_a_listener_is_nothing_to_serve_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gw.toml");
        std::fs::write(&file, "").unwrap();
        let line = line(&["--config", file.to_str().unwrap()]).unwrap();
        let refused = line.args.load_again().unwrap_err();
        assert_eq!(refused.reason, "there is no [[listener]]: nobody can connect");
        assert!(refused.hash.is_some() && refused.report.matches("[[listener]]").count() == 1, "{}", refused.report);
        std::fs::write(&file, "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:1\"\n").unwrap();
        assert!(line.args.load_again().is_ok());
    }

    #[test]
    fn a_value_that_no_flag_gave_came_from_its_variable() {
        // Clap reads variables of the process; what it would have found is put where it puts it.
        let args = ServeArgs {
            archive_args: ArchiveArgs { archive_url: Some("x".into()), ..Default::default() },
            ..Default::default()
        };
        let error = config::parse_with("", Path::new("gw.toml"), &args.given()).unwrap_err();
        assert!(error.to_string().contains(" --> LOCKGATE_ARCHIVE_URL\n"), "{error}");
    }

    #[test]
    fn a_file_that_is_wrong_by_itself_stays_wrong_under_a_flag() {
        let error = over("[audit]\narchive_url = \"x\"\n", &["--archive-url=s3://b/p"]).unwrap_err();
        let error = error.downcast::<ConfigError>().unwrap();
        assert!(!error.by_given && error.to_string().contains(" --> gw.toml:2:15\n"), "{error}");
    }

    #[test]
    fn paths_of_flags_start_where_the_command_does() {
        let line = line(&["--data-dir=d", "--checkpoint-copies=c"]).unwrap();
        let config = config::parse_with("", Path::new("/etc/gw.toml"), &line.args.given()).unwrap();
        assert_eq!(config.server.data_dir, Path::new("d"));
        assert_eq!(config.audit.checkpoint_copies, ["c"]);
        let odd = std::ffi::OsString::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff"));
        let args = ServeArgs { data_dir: Some(odd.clone().into()), ..ServeArgs::default() };
        let config = config::parse_with("", Path::new("/etc/gw.toml"), &args.given()).unwrap();
        assert_eq!(config.server.data_dir.as_os_str(), odd);
    }

    fn is_duration(argument: &clap::Arg) -> bool {
        argument.get_value_names().is_some_and(|names| names.iter().any(|name| name == "DURATION"))
    }

    #[test]
    fn help_of_a_number_or_duration_tells_its_range() {
        use clap::CommandFactory as _;
        let command = given::tell_ranges(Line::command());
        let help = |flag| {
            let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
            argument.and_then(|argument| argument.get_help()).expect("a flag with help").to_string()
        };
        for (flag, range) in [
            ("shards", format!(". From 1 to {SHARDS_MAX}")),
            ("buffers", format!(". From {BUFFERS_MIN} to {BUFFERS_MAX}")),
            ("archive-file-mib", format!(". From 1 to {ARCHIVE_FILE_MIB_MAX}")),
        ] {
            assert!(help(flag).ends_with(&range), "{}", help(flag));
        }
        assert!(help("login-timeout").ends_with(". From 10ms to 10m"), "{}", help("login-timeout"));
        assert!(help("retention").ends_with(". At least 1m"), "{}", help("retention"));
        for argument in command.get_arguments().filter(|argument| is_duration(argument)) {
            let range = argument.get_help().expect("a flag with help").to_string();
            assert!(range.contains(". From ") || range.contains(". At least "), "{range}");
        }
        assert!(!help("pin").contains("From"));
    }

    #[test]
    fn flags_and_file_are_checked_together() {
        let what = "a record with a payload of 2048 KiB does not fit a segment of 1 MiB";
        check_refused("[audit]\npayload_kib = 2048\n", &["--segment-mib", "1"], what, "--segment-mib");
        let what = "127.0.0.1:7 is already the address of [ops]";
        check_refused("[ops]\naddress = \"127.0.0.1:7\"\n", &["--web-address", "127.0.0.1:7"], what, "--web-address");
        // The file's own listener is not to blame.
        let listener = "[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:7\"\n";
        let what = "127.0.0.1:7 is already the address of a [[listener]]";
        check_refused(listener, &["--ops-address", "127.0.0.1:7"], what, "--ops-address");
        let sink = "[[sink]]\nkind = \"file\"\npath = \"/nowhere/audit/x.ndjson\"\n";
        let what = "the sink \"file\" would write to /nowhere/audit/x.ndjson, which lies among the files of the trail";
        check_refused(sink, &["--data-dir=/nowhere"], what, "--data-dir");
    }
}
