//! `lockgate audit`: not built yet.

use std::process::ExitCode;

/// Placeholder: this verb is not built yet.
#[derive(clap::Args)]
pub struct AuditArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let _ = args.rest;
    eprintln!("lockgate: audit is not built yet");
    Ok(ExitCode::from(3))
}
