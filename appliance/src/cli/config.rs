//! `lockgate config`: check a file, print the schema, print an example.

use super::{ANSWER_NO, Output, given};
use crate::config::{self, ConfigError};
use anyhow::bail;
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

/// What a sink needs on this host and cannot read: a copy of the trail that silently does not happen is worse than an error.
fn unreadable(config: &config::Config) -> Vec<config::Finding> {
    let file = config.path.display().to_string();
    let finding = |sink: &config::Sink| {
        let (what, mend) = crate::audit::sinks::check(sink).err()?;
        let message = format!("sink \"{}\": {what}", sink.name);
        let help = Some(mend).filter(|mend| !mend.is_empty());
        let mut rendered = format!("error: {message}\n --> {file}\n");
        rendered.extend(help.iter().map(|help| format!("  = {help}\n")));
        Some(config::Finding {
            severity: "error",
            file: file.clone(),
            line: None,
            column: None,
            message,
            help,
            rendered,
        })
    };
    config.sinks.iter().filter_map(finding).collect()
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
        Ok(config) => match unreadable(&config) {
            findings if findings.is_empty() => (config.warnings, None),
            findings => {
                let findings = [config.warnings, findings].concat();
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
