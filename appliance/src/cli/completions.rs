//! `lockgate completions` and `lockgate man`: what shells and manual readers want, written from the same table as the help.

use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate completions bash > /etc/bash_completion.d/lockgate
  lockgate completions zsh > \"${fpath[1]}/_lockgate\"")]
pub struct CompletionsArgs {
    /// The shell to write for.
    shell: clap_complete::Shell,
}

pub fn run(args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "lockgate", &mut script);
    super::print(&String::from_utf8(script)?)
}

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate man | man -l -
  lockgate man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write one page per command into this folder instead of printing lockgate(1).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run_man(args: ManArgs) -> anyhow::Result<ExitCode> {
    let command = super::command();
    match args.dir {
        Some(dir) => clap_mangen::generate_to(command, &dir)
            .with_context(|| format!("could not write manual pages into {}", dir.display()))?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            return super::print(&String::from_utf8(page)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
