//! `lockgate doctor`: can this host run the gateway, and this configuration on it.

mod certificate;
mod host;
mod setup;
mod target;

use super::{ANSWER_NO, Output};
use crate::config::Config;
use crate::threads;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// For a target or an issuer to answer. Longer is of no use to somebody who waits for a list.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(
    after_help = "Each finding is ok, warn or fail, with the mend beside it. Exit status 1 when anything fails. Nothing is \
changed; a file is written to the data folder, and to those of file sinks, and removed again. The variables of `lockgate serve` are laid over the file as it does it.

EXAMPLES
  lockgate doctor
  lockgate doctor --config /etc/lockgate/lockgate.toml
  lockgate doctor -o json | jq 'select(.state != \"ok\")'"
)]
pub struct DoctorArgs {
    /// Also check what this configuration needs: addresses, disk, certificates, targets, credentials, issuers.
    #[arg(long, value_name = "FILE", env = "LOCKGATE_CONFIG")]
    config: Option<PathBuf>,
    /// `text`, or `json`: one object for each finding.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
struct Finding {
    check: String,
    state: State,
    /// What was found.
    detail: String,
    /// What to do about it; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, detail: detail.into(), mend: String::new() }
    }

    fn warn(check: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warn, detail: detail.into(), mend: mend.into() }
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Fail, detail: detail.into(), mend: mend.into() }
    }
}

pub fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let (config, mut findings) = match &args.config {
        Some(path) => setup::configuration(path)?,
        None => (None, Vec::new()),
    };
    findings.extend(host::examine(config.as_ref()));
    if let Some(config) = &config {
        findings.extend(setup::examine(config));
    }
    match args.output {
        Output::Json => {
            let lines: Result<Vec<String>, _> = findings.iter().map(serde_json::to_string).collect();
            super::print(&lines?.into_iter().map(|line| line + "\n").collect::<String>())?;
        }
        Output::Text => {
            super::print(&table(&findings))?;
            if args.config.is_none() {
                note!("with --config FILE also: disk, addresses, certificates, targets, credentials and issuers");
            }
        }
    }
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { ExitCode::from(ANSWER_NO) } else { ExitCode::SUCCESS })
}

/// An error: what keeps this gateway from running here, in the words of `doctor`.
pub(super) fn must_run_here(config: &Config) -> anyhow::Result<()> {
    let shards = config.server.shards;
    let mut findings = host::of_shards(shards, threads::needed(shards, Some(config)));
    findings.retain(|finding| finding.state == State::Fail);
    match findings.is_empty() {
        true => Ok(()),
        false => anyhow::bail!("this host cannot run the gateway:\n{}", table(&findings).trim_end()),
    }
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, state, detail, mend } in findings {
        let state = match state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let indent = " ".repeat(width + 8);
        let mut lines = detail.lines();
        text += &format!("{state}  {check:width$}  {}\n", lines.next().unwrap_or_default());
        lines.for_each(|line| text += &format!("{indent}{line}\n"));
        if !mend.is_empty() {
            text += &format!("{indent}-> {mend}\n");
        }
    }
    text
}

/// Of a file with a secret.
fn readable_by_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
