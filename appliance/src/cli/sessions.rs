//! `lockgate sessions`: who is connected, and ending it.

use super::gateway::{GatewayArgs, checked_id, field, json_line, refused, table};
use super::print;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "EXAMPLES
  lockgate sessions ls
  lockgate sessions ls -o json
  lockgate sessions kill ID")]
pub struct SessionsArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List live sessions
    Ls,
    /// End one at once
    Kill {
        #[arg(value_parser = checked_id)]
        id: String,
    },
}

pub fn run(args: SessionsArgs) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Ls => ls(&args.gateway),
        Verb::Kill { id } => kill(&args.gateway, id),
    }
}

fn ls(gateway: &GatewayArgs) -> anyhow::Result<ExitCode> {
    let answer = gateway.get("/sessions")?;
    let Some(sessions) = answer.body["sessions"].as_array().filter(|_| answer.status == 200) else {
        return Ok(refused(&answer));
    };
    if gateway.json() {
        return print(&sessions.iter().map(json_line).collect::<String>());
    }
    if sessions.is_empty() {
        note!("no live sessions");
        return Ok(ExitCode::SUCCESS);
    }
    let names = ["id", "user", "actor", "target", "client", "application", "opened"];
    let heading = names.map(str::to_uppercase);
    let rows = sessions.iter().map(|session| names.iter().map(|name| field(&session[*name])).collect()).collect();
    print(&table(&heading.each_ref().map(String::as_str), rows))
}

fn kill(gateway: &GatewayArgs, id: &str) -> anyhow::Result<ExitCode> {
    let answer = gateway.post(&format!("/sessions/{id}/kill"), &json!({}))?;
    if answer.status != 200 {
        return Ok(refused(&answer));
    }
    match gateway.json() {
        true => print(&json_line(&answer.body)),
        false => print(&format!("killed: {}\n", describe(&answer.body))),
    }
}

fn describe(session: &Value) -> String {
    format!("{} on {} from {}", field(&session["user"]), field(&session["target"]), field(&session["client"]))
}
