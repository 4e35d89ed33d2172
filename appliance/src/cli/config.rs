//! `lockgate config`: check a file, print the schema, print an example.

use super::{ANSWER_NO, Output, given};
use crate::config::{self, ConfigError, SinkKind, SyslogSink, SyslogTransport};
use crate::pem;
use anyhow::bail;
use rustls_pki_types::UnixTime;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "`check` lays the variables of `lockgate serve` over the file, as it does it.

EXAMPLES
  lockgate config example > lockgate.toml
  lockgate config check lockgate.toml
  lockgate config schema > lockgate.schema.json")]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Check a configuration: exit status 0 when it is valid, 1 when it is not
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Exit with status 1 on warnings as well.
        #[arg(long)]
        strict: bool,
        /// `text`, or `json`: one object for each finding.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a commented configuration with every key
    Example,
}

pub fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Check { file, strict, output } => check(&file, strict, output),
        Verb::Schema => super::print(&format!("{:#}\n", config::schema())),
        Verb::Example => super::print(config::EXAMPLE),
    }
}

/// What is found beside the text of the file.
fn finding(config: &config::Config, severity: &'static str, message: String, help: Option<String>) -> config::Finding {
    let file = config.path.display().to_string();
    let mut rendered = format!("{severity}: {message}\n --> {file}\n");
    rendered.extend(help.iter().map(|help| format!("  = {help}\n")));
    config::Finding { severity, file, line: None, column: None, message, help, rendered }
}

/// What a sink needs on this host and cannot read: a copy of the trail that silently does not happen is worse than an error.
fn unreadable(config: &config::Config) -> Vec<config::Finding> {
    let unreadable = |sink: &config::Sink| {
        let (what, mend) = crate::audit::sinks::check(sink).err()?;
        let message = format!("sink \"{}\": {what}", sink.name);
        Some(finding(config, "error", message, Some(mend).filter(|mend| !mend.is_empty())))
    };
    config.sinks.iter().filter_map(unreadable).collect()
}

/// Certificates of this host that nobody will take at this time. Those that cannot be read here may be readable where the gateway runs.
fn untimely(config: &config::Config) -> Vec<config::Finding> {
    let listeners = config
        .listeners
        .iter()
        .filter_map(|listener| Some((format!("listener {}", listener.address), &listener.tls.as_ref()?.cert)));
    let sinks = config.sinks.iter().filter_map(|sink| match &sink.kind {
        SinkKind::Syslog(SyslogSink { transport: SyslogTransport::Tls(tls), .. }) => {
            Some((format!("sink \"{}\"", sink.name), &tls.identity.as_ref()?.0))
        }
        _ => None,
    });
    let untimely = |(whose, path): (String, &PathBuf)| {
        let why = pem::untimely(&pem::certificates(path).ok()?, UnixTime::now())?;
        let help = "a certificate that is valid now; or set this host's clock".to_owned();
        Some(finding(config, "warning", format!("{whose}: {}: {why}", path.display()), Some(help)))
    };
    listeners.chain(sinks).filter_map(untimely).collect()
}

/// As `serve` would have it from here. Outside: it could not be looked at.
fn load(file: &Path) -> anyhow::Result<Result<config::Config, ConfigError>> {
    let error = match given::load(file).and_then(|config| Ok(config.servable()?)) {
        Ok(config) => return Ok(Ok(config)),
        Err(error) => error.downcast::<ConfigError>()?,
    };
    match error.hash {
        Some(_) => Ok(Err(error)),
        None if !file.exists() => bail!("{}: no such file", file.display()),
        None => bail!("{}: {}", file.display(), error.reason()),
    }
}

fn check(file: &Path, strict: bool, output: Output) -> anyhow::Result<ExitCode> {
    let (findings, error) = match load(file)? {
        Ok(config) => match (unreadable(&config), untimely(&config)) {
            (errors, warnings) if errors.is_empty() => ([config.warnings, warnings].concat(), None),
            (errors, warnings) => {
                let findings = [config.warnings, warnings, errors].concat();
                (findings.clone(), Some(ConfigError { findings, hash: Some(config.hash), by_given: false }))
            }
        },
        Err(error) => (error.findings.clone(), Some(error)),
    };
    match output {
        Output::Json => {
            let lines: Result<Vec<String>, _> = findings.iter().map(serde_json::to_string).collect();
            super::print(&lines?.into_iter().map(|line| line + "\n").collect::<String>())?;
        }
        Output::Text => match &error {
            Some(error) => note!("{error}"),
            None => findings.iter().for_each(|finding| note!("{}", finding.rendered)),
        },
    }
    if error.is_some() || (strict && !findings.is_empty()) {
        return Ok(ExitCode::from(ANSWER_NO));
    }
    if output == Output::Text {
        super::print(&format!("{} is valid\n", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_expired_is_a_warning() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut wishes = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
        wishes.not_before = rcgen::date_time_ymd(2020, 1, 1);
        wishes.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut config = config::parse(config::EXAMPLE, &dir.path().join("lockgate.toml")).expect("valid");
        let of =
            |config: &config::Config| untimely(config).into_iter().map(|finding| finding.message).collect::<Vec<_>>();
        let cert = dir.path().join("cert.pem");
        config.listeners.truncate(1);
        config.listeners[0].tls =
            Some(config::ListenerTls { cert: cert.clone(), key: dir.path().join("key.pem"), client_ca: None });
        config.sinks.clear();
        assert!(of(&config).is_empty(), "it is read where the gateway runs");
        std::fs::write(&cert, wishes.self_signed(&key).expect("signed").pem()).expect("written");
        let found = of(&config);
        assert!(found[0].ends_with("cert.pem: it expired at 2021-01-01T00:00:00Z"), "{found:?}");
    }
}
