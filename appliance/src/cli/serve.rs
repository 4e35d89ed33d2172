//! `lockgate serve`: run the gateway.

use super::archiver::{ARCHIVE, ArchiveArgs};
use crate::config::{self, Archiver, Config, Durability, Payloads};
use crate::control::Refused;
use crate::limits::*;
use anyhow::{Context, anyhow};
use clap::ArgAction::Set;
use clap::value_parser;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Flags win over environment variables, those over the file, that over the defaults.
#[derive(clap::Args, Default, Clone, Debug)]
#[command(
    after_help = "Every key of the file that tunes the gateway has a flag here and an environment variable. A flag wins over its
variable, and that over the file. HUP reads the file again, TERM drains, a second TERM stops at once.

EXAMPLES
  lockgate serve --config /etc/lockgate/lockgate.toml
  lockgate serve --config lockgate.toml --shards 2 --durability strict
  LOCKGATE_LOG=debug lockgate serve --config lockgate.toml"
)]
pub struct ServeArgs {
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
    /// Microseconds to spin before sleeping [default: 0]. Lowers latency with few clients, costs idle CPU.
    #[arg(long, help_heading = SHARDS, value_name = "US", env = "LOCKGATE_SPIN_US", value_parser = value_parser!(u32).range(0..=SPIN_US_MAX as i64))]
    pub spin_us: Option<u32>,
    /// Entries of each submission ring, a power of two [default: 1024]. Raise for thousands of busy connections.
    #[arg(long, help_heading = SHARDS, value_name = "N", env = "LOCKGATE_RING_ENTRIES", value_parser = ring_entries)]
    pub ring_entries: Option<u32>,
    /// Receive buffers of each shard, a power of two [default: 1024]. Raise when metrics show that they run out.
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
    /// Address of health and metrics [default: 127.0.0.1:9180]. Change it when the port is taken or a scraper comes from elsewhere.
    #[arg(long, help_heading = ADDRESSES, value_name = "IP:PORT", env = "LOCKGATE_OPS_ADDRESS")]
    pub ops_address: Option<SocketAddr>,
    /// Address of the admin API and pages [default: 127.0.0.1:8444]. Change it when the port is taken.
    #[arg(long, help_heading = ADDRESSES, value_name = "IP:PORT", env = "LOCKGATE_WEB_ADDRESS")]
    pub web_address: Option<SocketAddr>,

    /// Folder for audit segments, archive, state and control socket [default: data, beside the configuration]. Other commands find it
    /// through the file only.
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

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl ServeArgs {
    /// Reads the file and lays flags and variables over it.
    pub fn load(&self) -> anyhow::Result<Config> {
        let config = self.read().map_err(|error| {
            anyhow!("the configuration is not valid\n\n{error}\n\ncorrect {}, then start again", self.config.display())
        })?;
        self.overlay(config)
    }

    fn read(&self) -> Result<Config, config::ConfigError> {
        config::load(&self.config)
    }

    /// The same on HUP, with what the trail needs to know of a file that is refused.
    fn load_again(&self) -> Result<Config, Refused> {
        let config = self.read().map_err(|error| Refused {
            report: error.to_string(),
            reason: error.reason(),
            hash: error.hash,
        })?;
        let hash = config.hash.clone();
        self.overlay(config).map_err(|error| Refused { hash: Some(hash), ..format!("{error:#}").into() })
    }

    /// The file's configuration with these flags on top, valid as before.
    pub fn overlay(&self, mut config: Config) -> anyhow::Result<Config> {
        let server = &mut config.server;
        set(&mut server.shards, self.shards.map(|shards| shards as usize));
        set(&mut server.pin, self.pin);
        set(&mut server.balance, self.balance);
        set(&mut server.spin_us, self.spin_us);
        set(&mut server.ring_entries, self.ring_entries);
        set(&mut server.buffers, self.buffers);
        set(&mut server.buffer_kib, self.buffer_kib);
        set(&mut server.login_timeout, self.login_timeout);
        set(&mut server.connect_timeout, self.connect_timeout);
        set(&mut server.data_dir, self.data_dir.clone());
        server.vault_key_file = self.vault_key_file.clone().or(server.vault_key_file.take());
        set(&mut config.ops.address, self.ops_address);
        set(&mut config.web.address, self.web_address);
        let audit = &mut config.audit;
        set(&mut audit.durability, self.durability);
        set(&mut audit.commit_interval, self.commit_interval);
        set(&mut audit.segment_mib, self.segment_mib);
        set(&mut audit.segments_per_shard, self.segments_per_shard);
        set(&mut audit.payloads, self.payloads);
        set(&mut audit.payload_kib, self.payload_kib);
        set(&mut audit.retention, self.retention);
        set(&mut audit.archive, self.archive);
        set(&mut audit.archiver, self.archiver);
        set(&mut audit.keep_segments, self.keep_segments);
        self.archive_args.overlay(audit);
        config.audit.fits().map_err(|(what, right)| anyhow!("{what}: give {right}"))?;
        config.addresses_differ().context("flags and file together")?;
        config.sinks_stay_outside().context("flags and file together")?;
        Ok(config)
    }
}

pub(super) fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
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
    let number: u32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(min..=max).contains(&number) || !number.is_power_of_two() {
        return Err(format!("a power of two from {min} to {max}"));
    }
    Ok(number)
}

fn timeout(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::TIMEOUT_BOUNDS)
}

pub(super) fn commit_interval(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::COMMIT_INTERVAL_BOUNDS)
}

pub(super) fn retention(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::RETENTION_BOUNDS)
}

pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    take_small_pages();
    start_log(&args.log, args.log_format)?;
    let config = args.load()?;
    for warning in &config.warnings {
        tracing::warn!("{}", warning.rendered);
    }
    let archiver = super::archiver::command(&config, &args.log, args.log_format)?;
    let load = Box::new(move || args.load_again());
    crate::gateway::run(config, load, archiver)?;
    Ok(ExitCode::SUCCESS)
}

/// In huge pages a gateway that has just started is 15 MiB larger, and each idle session two thirds. The allocator asks for none (Cargo.toml);
/// here the process refuses those that a kernel gives to everybody. One that does not know of them has none.
fn take_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

pub(super) fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    // What rskafka tells of each connection stands in the sink's status; `--log info,rskafka=debug` shows it all the same.
    let quiet = if cfg!(feature = "kafka") { "rskafka=off," } else { "" };
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{quiet}{filter}")).context("--log")?;
    // What cannot be written is lost; to say so in the same place would be a panic in whatever thread it is.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => {
            log.with_ansi(std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()).init()
        }
        LogFormat::Json => log.json().init(),
    }
    Ok(())
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

    fn over(file: &str, flags: &[&str]) -> anyhow::Result<Config> {
        let line = Line::try_parse_from(std::iter::once(&"serve").chain(flags))?;
        line.args.overlay(config::parse(file, Path::new("gw.toml"))?)
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
            "--ops-address=127.0.0.1:2",
            "--data-dir=/d",
            "--vault-key-file=/k",
            "--commit-interval=20ms",
            "--segment-mib=8",
            "--segments-per-shard=3",
            "--payloads=none",
            "--payload-kib=9",
            "--retention=2d",
            "--archive=false",
            "--archiver=external",
            "--keep-segments=false",
            "--archive-file-mib=7",
            "--archive-file-age=2s",
            "--archive-small-file-age=3s",
            "--checkpoint-key-file=/c",
            "--checkpoint-copies=/m,https://h/x",
            "--archive-url=s3://b/p",
            "--archive-credentials-file=/e",
            "--spin-us=5",
            "--balance=false",
        ];
        let config = over("", &flags).unwrap();
        let server = &config.server;
        assert_eq!((server.ring_entries, server.buffers, server.buffer_kib, server.spin_us), (256, 512, 8, 5));
        assert!(!server.balance && over("", &[]).unwrap().server.balance);
        assert_eq!((server.login_timeout.as_secs(), server.connect_timeout.as_secs()), (60, 1));
        assert_eq!((config.ops.address.port(), server.data_dir.to_str()), (2, Some("/d")));
        assert_eq!(server.vault_key_file.as_deref(), Some(Path::new("/k")));
        let audit = &config.audit;
        assert_eq!((audit.commit_interval.as_millis(), audit.segment_mib, audit.segments_per_shard), (20, 8, 3));
        assert_eq!((audit.payloads, audit.payload_kib, audit.archive), (Payloads::None, 9, false));
        assert_eq!(audit.retention, Duration::from_secs(2 * 86_400));
        assert_eq!((audit.archiver, audit.keep_segments, audit.archive_file_mib), (Archiver::External, false, 7));
        assert_eq!((audit.archive_file_age.as_secs(), audit.archive_small_file_age.as_secs()), (2, 3));
        assert_eq!(audit.checkpoint_key_file.as_deref(), Some(Path::new("/c")));
        assert_eq!(audit.checkpoint_copies, ["/m", "https://h/x"]);
        assert_eq!(audit.archive_url.as_deref(), Some("s3://b/p"));
        assert_eq!(audit.archive_credentials_file.as_deref(), Some(Path::new("/e")));
    }

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
        // It has one value, which is the promise that nothing is dropped.
        let only_one_value = "audit.on_full";
        let keys = tuning_keys();
        assert!(keys.len() >= 20, "{keys:?}");
        for (key, flag) in keys.iter().filter(|(key, _)| key != only_one_value) {
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

    #[test]
    fn flags_and_file_are_checked_together() {
        let error = over("[audit]\npayload_kib = 2048\n", &["--segment-mib", "1"]).unwrap_err();
        assert!(error.to_string().contains("does not fit a segment of 1 MiB"), "{error:#}");
        let error = over("[ops]\naddress = \"127.0.0.1:7\"\n", &["--web-address", "127.0.0.1:7"]).unwrap_err();
        assert!(format!("{error:#}").contains("127.0.0.1:7 is already the address of [ops]"), "{error:#}");
    }
}
