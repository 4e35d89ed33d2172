//! `lockgate credentials`: the passwords of targets in the encrypted store. Values go in and are never shown.

use crate::config::{Config, Credential};
use crate::vault::{self, Store, VALUE_BYTES_MAX, Vault};
use anyhow::{Context, bail};
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use zeroize::Zeroizing;

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate credentials set orders --config lockgate.toml          (asks, without echo)
  pass show db/orders | lockgate credentials set orders --config lockgate.toml

In the configuration: credential = \"orders\" in a [[target]]. A running gateway sees a changed value after HUP.")]
pub struct CredentialsArgs {
    #[command(subcommand)]
    verb: Verb,
    /// The gateway's configuration: where the store and its key file are
    #[arg(long, global = true, default_value = "/etc/lockgate/lockgate.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Create the key file. `set` does it by itself for the first credential
    Init,
    /// Store a credential, read from standard input (one line end at its end is not part of it)
    Set { name: String },
    /// List the names of stored credentials
    Ls,
    /// Remove a credential
    Rm { name: String },
}

pub fn run(args: CredentialsArgs) -> anyhow::Result<ExitCode> {
    let config = super::given::load(&args.config)?;
    match args.verb {
        Verb::Init => init(&config)?,
        Verb::Set { name } => {
            let value = if std::io::stdin().is_terminal() { ask(&name)? } else { read(std::io::stdin().lock())? };
            set(&config, &name, &value)?;
        }
        Verb::Ls => list(&config)?,
        Verb::Rm { name } => {
            Store::open(&config.server.data_dir)?.remove(&name)?;
            note!("lockgate: removed {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn init(config: &Config) -> anyhow::Result<()> {
    let path = vault::key_file(config);
    vault::create_key(&path)?;
    note!("lockgate: created {}; keep it away from the data folder's backups", path.display());
    Ok(())
}

fn set(config: &Config, name: &str, value: &[u8]) -> anyhow::Result<()> {
    // Only a store without credentials may get a key by itself: a lost key file must be noticed, not replaced.
    if !vault::key_file(config).exists() && Store::open(&config.server.data_dir)?.names().next().is_none() {
        init(config)?;
    }
    Vault::open(&config.server.data_dir, &vault::key_file(config))?.set(name, value)?;
    let users = config.targets.iter().filter(|target| target.credential == Credential::Store(name.to_owned()));
    let users: Vec<&str> = users.map(|target| target.name.as_str()).collect();
    match users.as_slice() {
        [] => note!("lockgate: stored {name}; no target uses it yet (credential = \"{name}\")"),
        _ => note!("lockgate: stored {name}, used by {}; a running gateway needs HUP", users.join(", ")),
    }
    Ok(())
}

fn list(config: &Config) -> anyhow::Result<()> {
    let store = Store::open(&config.server.data_dir)?;
    super::print(&store.names().map(|name| format!("{name}\n")).collect::<String>()).map(drop)
}

/// Everything up to the end, without one line end.
fn read(from: impl Read) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let most = VALUE_BYTES_MAX + 2;
    let mut value = Zeroizing::new(Vec::with_capacity(most + 1));
    from.take(most as u64 + 1).read_to_end(&mut value).context("could not read the credential")?;
    if value.len() > most {
        bail!("a credential has at most {VALUE_BYTES_MAX} bytes");
    }
    for end in [b'\n', b'\r'] {
        if value.last() == Some(&end) {
            value.pop();
        }
    }
    Ok(value)
}

/// Reads a line from the terminal without showing it.
fn ask(name: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let _ = write!(std::io::stderr(), "Credential {name} (not shown): ");
    let echo = |how: &str| Command::new("stty").arg(how).status().is_ok_and(|status| status.success());
    if !echo("-echo") {
        bail!("the terminal's echo could not be turned off; pipe the credential to standard input instead");
    }
    let mut line = Zeroizing::new(String::with_capacity(VALUE_BYTES_MAX));
    let answer = std::io::stdin().read_line(&mut line);
    echo("echo");
    note!();
    answer.context("could not read the credential")?;
    read(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_credential() {
        for (input, value) in [("pw\n", "pw"), ("pw\r\n", "pw"), ("pw", "pw"), ("pw\n\n", "pw\n"), (" p w ", " p w ")] {
            assert_eq!(read(input.as_bytes()).expect("reads").as_slice(), value.as_bytes());
        }
        assert!(read("x".repeat(VALUE_BYTES_MAX + 3).as_bytes()).is_err());
    }
}
