//! `lockgate approvals`: not built yet.

use std::process::ExitCode;

/// Placeholder: this verb is not built yet.
#[derive(clap::Args)]
pub struct ApprovalsArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub fn run(args: ApprovalsArgs) -> anyhow::Result<ExitCode> {
    let _ = args.rest;
    eprintln!("lockgate: approvals is not built yet");
    Ok(ExitCode::from(3))
}
