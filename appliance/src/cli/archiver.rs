//! `lockgate archiver`: Parquet files of what a gateway records, as a process of its own.

use super::given::{self, Collect, OnLine};
use super::log::{self, LogFormat};
use super::serve::{commit_interval, retention};
use crate::audit::archive::archiver::{self, ArchiverOptions, Finish};
use crate::audit::archive::deliver::Destination;
use crate::audit::archive::key::{self, Given, KeySource};
use crate::audit::archive::supervise::{DRAIN, Program};
use crate::audit::segment;
use crate::config::{self, Archiver, Config, ConfigError};
use crate::limits::ARCHIVE_FILE_MIB_MAX;
use crate::vault;
use anyhow::{Context as _, bail};
use clap::value_parser;
use std::ffi::OsString;
use std::io::{BufRead as _, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use zeroize::Zeroizing;

pub(super) const ARCHIVE: &str = "Archive";

/// A record of one shard may become visible this much later than one of another that happened at the same time.
const SLACK: Duration = Duration::from_millis(100);

#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "The gateway starts one itself and watches it, unless its configuration says `archiver = \"external\"`. It reads no \
target's credential: neither password files nor the variables that `password_env` names. TERM archives what is recorded and ends. \
A variable that is empty counts as not set.

EXAMPLES
  lockgate archiver --config /etc/lockgate/lockgate.toml"
)]
pub struct ArchiverArgs {
    #[command(flatten)]
    on_line: OnLine,
    /// The gateway's configuration file.
    #[arg(long, value_name = "FILE", env = "LOCKGATE_CONFIG", default_value = super::CONFIG_DEFAULT)]
    config: PathBuf,
    /// The gateway's data_dir, where a flag of the gateway says another than the file [default: the file's].
    #[arg(long, value_name = "DIR", env = "LOCKGATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Its segments_per_shard, likewise [default: the file's, or 8].
    #[arg(long, value_name = "N", env = "LOCKGATE_SEGMENTS_PER_SHARD")]
    segments_per_shard: Option<u32>,
    /// Its commit_interval, likewise [default: the file's, or 5ms].
    #[arg(long, value_name = "DURATION", env = "LOCKGATE_COMMIT_INTERVAL", value_parser = commit_interval)]
    commit_interval: Option<Duration>,
    /// Its retention, likewise [default: the file's, or 400d].
    #[arg(long, value_name = "DURATION", env = "LOCKGATE_RETENTION", value_parser = retention)]
    retention: Option<Duration>,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// What to log: a level, or directives.
    #[arg(long, value_name = "FILTER", env = "LOCKGATE_LOG", default_value = "info")]
    log: String,
    /// How to log.
    #[arg(long, value_enum, env = "LOCKGATE_LOG_FORMAT", default_value_t)]
    log_format: LogFormat,
    /// Started by a gateway: it ends with it, and is told on its standard input to finish.
    #[arg(long, hide = true)]
    supervised: bool,
    /// One place that checkpoints are copied to, whatever is in its name; again for each.
    #[arg(long, hide = true, requires = "supervised")]
    checkpoint_copy: Vec<String>,
    /// The keys that sign checkpoints come on the first line of standard input.
    #[arg(long, hide = true, requires = "supervised")]
    checkpoint_keys_stdin: bool,
}

impl ArchiverArgs {
    /// Reads the file and lays flags and variables over it.
    fn load(&self) -> Result<Config, ConfigError> {
        let mut all = Collect::new(&self.on_line);
        all.add("server", "data_dir", self.data_dir.clone());
        all.add("audit", "segments_per_shard", self.segments_per_shard);
        all.add("audit", "commit_interval", self.commit_interval);
        all.add("audit", "retention", self.retention);
        self.archive.give(&mut all);
        let mut given = all.done();
        if !self.checkpoint_copy.is_empty() {
            let copies = self.checkpoint_copy.clone().into();
            given.add("--checkpoint-copy".into(), "audit", "checkpoint_copies", copies);
        }
        if self.supervised {
            // The gateway's flags say everything: a file that was changed meanwhile is the gateway's to judge.
            return config::parse_with("", &self.config, &given);
        }
        // Nobody hands this process a key out of the encrypted store.
        given.add("lockgate archiver".into(), "audit", "archiver", "external".to_owned().into());
        config::load_with(&self.config, &given)
    }
}

/// What the gateway and a unit of its own have in common.
#[derive(clap::Args, Default, Clone, Debug)]
pub struct ArchiveArgs {
    /// A Parquet file closes when it has this much of records, MiB [default: 128]. Smaller ones cost readers more.
    #[arg(long, help_heading = ARCHIVE, value_name = "MIB", env = "LOCKGATE_ARCHIVE_FILE_MIB", value_parser = value_parser!(u32).range(1..=ARCHIVE_FILE_MIB_MAX as i64))]
    pub archive_file_mib: Option<u32>,
    /// Age at which a Parquet file closes [default: 60s]. Lower when others read the files and cannot wait.
    #[arg(long, help_heading = ARCHIVE, value_name = "DURATION", env = "LOCKGATE_ARCHIVE_FILE_AGE", value_parser = archive_age)]
    pub archive_file_age: Option<Duration>,
    /// The same with less than 4 MiB in it [default: 5m]. Raise to have fewer files of a gateway with little to do.
    #[arg(long, help_heading = ARCHIVE, value_name = "DURATION", env = "LOCKGATE_ARCHIVE_SMALL_FILE_AGE", value_parser = archive_age)]
    pub archive_small_file_age: Option<Duration>,
    /// File with the key that signs checkpoints [default: checkpoint.key in data_dir]. Give a place with its own backup.
    #[arg(long, help_heading = ARCHIVE, value_name = "FILE", env = "LOCKGATE_CHECKPOINT_KEY_FILE")]
    pub checkpoint_key_file: Option<PathBuf>,
    /// Entry of the encrypted store with that key, instead of a file [default: none]. Give it where the trail's disk is not trusted.
    #[arg(long, help_heading = ARCHIVE, value_name = "NAME", env = "LOCKGATE_CHECKPOINT_KEY_CREDENTIAL")]
    pub checkpoint_key_credential: Option<String>,
    /// Where checkpoints are copied to, with commas [default: nowhere]. Give a place this host cannot rewrite: folder or https://...
    #[arg(long, help_heading = ARCHIVE, value_name = "PLACES", env = "LOCKGATE_CHECKPOINT_COPIES", value_delimiter = ',')]
    pub checkpoint_copies: Option<Vec<String>>,
    /// Object store that gets the archive as well [default: none]. Give s3://BUCKET/PREFIX, gs://... or az://...
    #[arg(long, help_heading = ARCHIVE, value_name = "URL", env = "LOCKGATE_ARCHIVE_URL")]
    pub archive_url: Option<String>,
    /// File with the store's credentials, NAME=VALUE lines [default: none]. Give it where the gateway starts the archiver.
    #[arg(long, help_heading = ARCHIVE, value_name = "FILE", env = "LOCKGATE_ARCHIVE_CREDENTIALS_FILE")]
    pub archive_credentials_file: Option<PathBuf>,
}

impl ArchiveArgs {
    pub(super) fn give(&self, all: &mut Collect<'_>) {
        all.add("audit", "archive_file_mib", self.archive_file_mib);
        all.add("audit", "archive_file_age", self.archive_file_age);
        all.add("audit", "archive_small_file_age", self.archive_small_file_age);
        all.add("audit", "checkpoint_key_file", self.checkpoint_key_file.clone());
        all.add("audit", "checkpoint_key_credential", self.checkpoint_key_credential.clone());
        all.add("audit", "checkpoint_copies", self.checkpoint_copies.clone());
        all.add("audit", "archive_url", self.archive_url.clone());
        all.add("audit", "archive_credentials_file", self.archive_credentials_file.clone());
    }
}

fn archive_age(text: &str) -> Result<Duration, String> {
    config::bounded_duration(text, config::ARCHIVE_AGE_BOUNDS)
}

/// How a gateway with this configuration starts its archiver. `None`: it has none of its own.
pub(super) fn command(config: &Config, log: &str, format: LogFormat) -> anyhow::Result<Option<Program>> {
    let audit = &config.audit;
    if !audit.archive || audit.archiver != Archiver::Supervised {
        return Ok(None);
    }
    let keys = stored_keys(config).context("the key that signs checkpoints")?;
    let us = |duration: Duration| format!("{}us", duration.as_micros());
    let format = if format == LogFormat::Json { "json" } else { "text" };
    let mut arguments: Vec<OsString> = vec!["archiver".into(), "--supervised".into()];
    let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
    add("--config", config.path.clone().into());
    add("--data-dir", config.server.data_dir.clone().into());
    add("--commit-interval", us(audit.commit_interval).into());
    add("--retention", us(audit.retention).into());
    add("--segments-per-shard", audit.segments_per_shard.to_string().into());
    add("--archive-file-mib", audit.archive_file_mib.to_string().into());
    add("--archive-file-age", us(audit.archive_file_age).into());
    add("--archive-small-file-age", us(audit.archive_small_file_age).into());
    add("--checkpoint-key-file", key_file(config).into());
    // The flag that people give splits at commas, which a folder may have in its name.
    audit.checkpoint_copies.iter().for_each(|copy| add("--checkpoint-copy", copy.into()));
    if let Some(url) = &audit.archive_url {
        add("--archive-url", url.into());
    }
    if let Some(file) = &audit.archive_credentials_file {
        add("--archive-credentials-file", file.into());
    }
    add("--log", log.into());
    add("--log-format", format.into());
    if keys.is_some() {
        arguments.push("--checkpoint-keys-stdin".into());
    }
    Ok(Some(Program { arguments, keys }))
}

/// From the encrypted store, as `audit.checkpoint_key_credential` says: the key, and the one that is to take over if there is one.
pub(super) fn stored_keys(config: &Config) -> anyhow::Result<Option<Given>> {
    let Some(name) = &config.audit.checkpoint_key_credential else { return Ok(None) };
    let vault = vault::open(config)?;
    let digits = |value: Zeroizing<Vec<u8>>| -> anyhow::Result<Zeroizing<String>> {
        Ok(Zeroizing::new(std::str::from_utf8(&value).context("it is no text")?.trim().to_owned()))
    };
    let mut keys = vec![digits(vault.reveal(name)?)?];
    let next = format!("{name}.next");
    if vault.names().any(|name| name == next) {
        keys.push(digits(vault.reveal(&next)?)?);
    }
    let given = Given(keys);
    given.keys().with_context(|| format!("the entry {name} (or {next}) of the encrypted store"))?;
    Ok(Some(given))
}

fn key_file(config: &Config) -> PathBuf {
    config.audit.checkpoint_key_file.clone().unwrap_or_else(|| key::path(&config.server.data_dir))
}

pub fn run(args: ArchiverArgs) -> anyhow::Result<ExitCode> {
    log::start(&args.log, &args.on_line.giver("log"), args.log_format)?;
    let config = args.load().map_err(|error| given::refused(error, &args.config))?;
    must_be_used(&config.server.data_dir)?;
    let mut options = options(&config);
    if args.checkpoint_keys_stdin {
        let mut line = Zeroizing::new(String::new());
        std::io::stdin().lock().read_line(&mut line).context("no keys on standard input")?;
        let keys = line.split_whitespace().map(|key| Zeroizing::new(key.to_owned())).collect();
        options.checkpoint_key = KeySource::Given(Given(keys));
    }
    let finish = Finish::default();
    match args.supervised {
        true => follow_gateway(finish.clone())?,
        false => follow_signals(finish.clone())?,
    }
    archiver::run(&options, &finish).context("the archiver")?;
    Ok(ExitCode::SUCCESS)
}

/// A mistyped folder has nothing to archive, and would get a key of its own that no auditor knows. A gateway makes its segments before
/// it starts its archiver.
fn must_be_used(data_dir: &Path) -> anyhow::Result<()> {
    let shown = data_dir.display();
    if let Err(error) = std::fs::read_dir(data_dir) {
        bail!("data_dir {shown}: {error}");
    }
    match std::fs::read_dir(segment::all_dir(data_dir)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "data_dir {shown}: no gateway has recorded here, it has no folder `segments`; start the gateway first, or name its data_dir"
            )
        }
        Err(error) => bail!("data_dir {shown}: segments: {error}"),
    }
}

fn options(config: &Config) -> ArchiverOptions {
    let audit = &config.audit;
    let credentials = audit.archive_credentials_file.as_deref();
    ArchiverOptions {
        data_dir: config.server.data_dir.clone(),
        file_bytes: u64::from(audit.archive_file_mib) << 20,
        file_age: audit.archive_file_age,
        small_file_age: audit.archive_small_file_age,
        // In `async` a record waits in memory for as long as the interval.
        slack: SLACK + audit.commit_interval,
        segments_per_shard: audit.segments_per_shard,
        checkpoint_key: KeySource::File(key_file(config)),
        checkpoint_copies: audit.checkpoint_copies.iter().map(|copy| Destination::parse(copy, credentials)).collect(),
        archive_url: audit.archive_url.clone(),
        archive_credentials_file: audit.archive_credentials_file.clone(),
        retention: Some(audit.retention),
        let_go: crate::shard::let_go_of_code,
    }
}

/// The gateway holds the other end of our standard input: one line asks us to finish, its end says that the gateway is gone.
fn follow_gateway(finish: Finish) -> anyhow::Result<()> {
    ignore_signals()?;
    std::thread::Builder::new().name("gateway".into()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_ok_and(|line| line == DRAIN) {
                finish.ask();
            }
        }
        if !finish.is_asked() {
            // Anywhere is a good place to end. What is not published yet is made by the next one.
            std::process::exit(i32::from(super::FAILED));
        }
    })?;
    Ok(())
}

/// A service manager that ends a whole group asks us as well, before the gateway has written its last record.
fn ignore_signals() -> anyhow::Result<()> {
    signals(|| {})
}

fn follow_signals(finish: Finish) -> anyhow::Result<()> {
    signals(move || finish.ask())
}

fn signals(mut on_signal: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    drop(guard);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    Some(()) = term.recv() => on_signal(),
                    Some(()) = int.recv() => on_signal(),
                    else => return,
                }
            }
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ArchiverArgs,
    }

    fn load(file: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gw.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        Line::try_parse_from([&["archiver", "--config", path], flags].concat()).unwrap().args.load()
    }

    #[test]
    fn a_unit_of_its_own_is_held_to_the_bounds_of_the_file() {
        for (flags, who) in [
            (&["--archive-url=x"][..], "--archive-url"),
            (&["--checkpoint-copies="], "--checkpoint-copies"),
            (&["--segments-per-shard=1"], "--segments-per-shard"),
        ] {
            let error = load("", flags).unwrap_err();
            assert!(error.by_given && error.to_string().contains(&format!(" --> {who}\n")), "{error}");
        }
        assert_eq!(load("", &["--segments-per-shard=3"]).unwrap().audit.segments_per_shard, 3);
    }

    /// Half a name was taken for a folder.
    #[test]
    fn a_comma_in_the_name_of_a_place_reaches_the_supervised_archiver() {
        let flags =
            ["--supervised", "--data-dir=/d", "--checkpoint-copy", "/mnt/a,b", "--checkpoint-copy", "https://h/x"];
        assert_eq!(load("", &flags).unwrap().audit.checkpoint_copies, ["/mnt/a,b", "https://h/x"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gw.toml");
        let config = config::parse("[audit]\ncheckpoint_copies = [\"/mnt/a,b\", \"/c\"]\n", &path).unwrap();
        let program = command(&config, "info", LogFormat::Text).unwrap().expect("one of its own");
        let arguments: Vec<_> = program.arguments.iter().filter_map(|argument| argument.to_str()).collect();
        assert!(arguments.join(" ").contains("--checkpoint-copy /mnt/a,b --checkpoint-copy /c "), "{arguments:?}");
        assert!(Line::try_parse_from([&["archiver"], &arguments[1..]].concat()).is_ok());
        // What people type is split as it always was.
        let config = load("", &["--checkpoint-copies=/a,/b"]).unwrap();
        assert_eq!(config.audit.checkpoint_copies, ["/a", "/b"]);
    }

    /// A typing error made the folders, and a key that no auditor knew.
    #[test]
    fn a_folder_that_no_gateway_has_used_is_no_data_dir() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        assert!(
            must_be_used(&absent).unwrap_err().to_string().ends_with("absent: No such file or directory (os error 2)")
        );
        let error = must_be_used(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no gateway has recorded here"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::create_dir(segment::all_dir(folder.path())).unwrap();
        must_be_used(folder.path()).unwrap();
    }

    /// It signed with another key, without a word.
    #[test]
    fn a_unit_of_its_own_has_no_key_from_the_encrypted_store() {
        let error = load("", &["--checkpoint-key-credential=x"]).unwrap_err().to_string();
        assert!(error.contains("cannot get this key\n --> --checkpoint-key-credential\n"), "{error}");
        let error = load("[audit]\ncheckpoint_key_credential = \"x\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("cannot get this key\n --> lockgate archiver\n"), "{error}");
        // A gateway that has it starts its own with nothing but flags.
        let flags = ["--supervised", "--checkpoint-keys-stdin", "--checkpoint-key-file=/c", "--data-dir=/d"];
        let config = load("[audit]\ncheckpoint_key_credential = \"x\"\n", &flags).unwrap();
        assert_eq!(config.audit.checkpoint_key_file, Some("/c".into()));
    }
}
