//! `lockgate approvals`: statements that wait for a person, and the person's word.

use super::gateway::{GatewayArgs, checked_id, cut, field, json_line, printable, refused, table};
use super::out::{print, stdout, written};
use crate::control::client::Answer;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(
    after_help = "A ruling needs a reviewer's identity: a token (--token or LOCKGATE_TOKEN). Without one it is the ruling of the \
gateway's own user, which only rules with approvers = [\"local\"] accept.

EXAMPLES
  lockgate approvals ls
  lockgate approvals show 0-17-a9f3
  LOCKGATE_TOKEN=$(cat my.token) lockgate approvals approve 0-17-a9f3 --reason 'ticket OPS-12'
  lockgate approvals watch -o json"
)]
pub struct ApprovalsArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List what waits
    Ls {
        /// Ended ones too, as far as they are remembered
        #[arg(long)]
        all: bool,
    },
    /// Everything about one
    Show {
        #[arg(value_parser = checked_id)]
        id: String,
    },
    /// Let it run
    Approve(RulingArgs),
    /// Refuse it
    Reject(RulingArgs),
    /// Print new ones as they come, until stopped
    Watch,
}

#[derive(clap::Args)]
struct RulingArgs {
    #[arg(value_parser = checked_id)]
    id: String,
    /// Why: the requester and the audit read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// The reviewer's identity token (better in LOCKGATE_TOKEN: arguments are visible to others)
    #[arg(long, value_name = "TOKEN", env = "LOCKGATE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

pub fn run(args: ApprovalsArgs) -> anyhow::Result<ExitCode> {
    let gateway = &args.gateway;
    match &args.verb {
        Verb::Ls { all } => ls(gateway, *all),
        Verb::Show { id } => show(gateway, id),
        Verb::Approve(ruling) => rule(gateway, "approve", ruling),
        Verb::Reject(ruling) => rule(gateway, "reject", ruling),
        Verb::Watch => watch(gateway),
    }
}

fn ls(gateway: &GatewayArgs, all: bool) -> anyhow::Result<ExitCode> {
    let answer = gateway.get(if all { "/approvals?all=true" } else { "/approvals" })?;
    let Some(cases) = list(&answer) else { return Ok(refused(&answer)) };
    if gateway.json() {
        return print(&cases.iter().map(json_line).collect::<String>());
    }
    if cases.is_empty() {
        note!("nothing waits for a ruling");
        return Ok(ExitCode::SUCCESS);
    }
    let heading = ["ID", "STATE", "USER", "TARGET", "RULE", "APPROVERS", "EXPIRES", "STATEMENT"];
    print(&table(&heading, cases.iter().map(row).collect()))
}

fn list(answer: &Answer) -> Option<&Vec<Value>> {
    (answer.status == 200).then(|| answer.body["approvals"].as_array())?
}

fn row(case: &Value) -> Vec<String> {
    let votes = case["votes"].as_array().map_or(0, Vec::len);
    let state = match (case["state"].as_str(), case["count"].as_u64()) {
        (Some("pending"), Some(count)) if count > 1 => format!("{votes} of {count}"),
        (state, _) => state.unwrap_or("-").to_owned(),
    };
    vec![
        field(&case["id"]),
        state,
        who(case),
        field(&case["target"]),
        field(&case["rule"]),
        field(&case["approvers"]),
        seconds(&case["expires"]),
        cut(case["statement"].as_str().unwrap_or_default(), 60),
    ]
}

/// The user, and the agent that acts for them.
fn who(case: &Value) -> String {
    match case["actor"].as_array() {
        Some(actor) if !actor.is_empty() => format!("{} via {}", field(&case["user"]), field(&case["actor"])),
        _ => field(&case["user"]),
    }
}

/// A time without its fraction.
fn seconds(time: &Value) -> String {
    let text = field(time);
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

fn show(gateway: &GatewayArgs, id: &str) -> anyhow::Result<ExitCode> {
    let answer = gateway.get(&format!("/approvals/{id}"))?;
    if answer.status != 200 {
        return Ok(refused(&answer));
    }
    match gateway.json() {
        true => print(&json_line(&answer.body)),
        false => print(&described(&answer.body)),
    }
}

fn described(case: &Value) -> String {
    let mut text = String::new();
    for name in [
        "id",
        "state",
        "time",
        "expires",
        "user",
        "groups",
        "actor",
        "target",
        "session",
        "rule",
        "approvers",
        "count",
        "own",
        "digest",
        "by",
        "reason",
        "ended",
    ] {
        text.push_str(&format!("{name:<10} {}\n", field(&case[name])));
    }
    for vote in case["votes"].as_array().into_iter().flatten() {
        text.push_str(&format!("{:<10} {} at {}\n", "approved", field(&vote["by"]), field(&vote["time"])));
    }
    for (number, bind) in case["binds"].as_array().into_iter().flatten().enumerate() {
        let value = if bind.is_null() { "NULL".into() } else { field(bind) };
        text.push_str(&format!("{:<10} {value}\n", format!("${}", number + 1)));
    }
    text.push_str("statement\n");
    for line in case["statement"].as_str().unwrap_or_default().lines() {
        text.push_str(&format!("  {}\n", printable(line)));
    }
    text
}

fn rule(gateway: &GatewayArgs, verb: &str, ruling: &RulingArgs) -> anyhow::Result<ExitCode> {
    let mut body = json!({ "reason": ruling.reason });
    if let Some(token) = ruling.token.as_deref().filter(|token| !token.is_empty()) {
        body["token"] = token.into();
    }
    let answer = gateway.post(&format!("/approvals/{}/{verb}", ruling.id), &body)?;
    if answer.status != 200 {
        let status = refused(&answer);
        if body["token"].is_null() && matches!(answer.status, 401 | 403) {
            note!("give your identity token with LOCKGATE_TOKEN or --token");
        }
        return Ok(status);
    }
    if gateway.json() {
        return print(&json_line(&answer.body));
    }
    let votes = answer.body["votes"].as_array().map_or(0, Vec::len);
    let text = match answer.body["state"].as_str() {
        Some("pending") => format!("approved: {votes} of {} so far\n", answer.body["count"]),
        state => format!("{}\n", state.unwrap_or("done")),
    };
    print(&text)
}

/// Asks every second: the gateway keeps no watchers.
fn watch(gateway: &GatewayArgs) -> anyhow::Result<ExitCode> {
    let (mut seen, mut out) = (HashSet::new(), stdout());
    loop {
        let answer = gateway.get("/approvals")?;
        let Some(cases) = list(&answer) else { return Ok(refused(&answer)) };
        let fresh: Vec<_> = cases.iter().filter(|case| seen.insert(case["id"].to_string())).collect();
        let lines = fresh.iter().map(|case| match gateway.json() {
            true => json_line(case),
            false => row(case).join("  ") + "\n",
        });
        written(out.write_all(lines.collect::<String>().as_bytes()).and_then(|()| out.flush()))?;
        if out.is_over() {
            return Ok(ExitCode::SUCCESS);
        }
        let waiting: HashSet<_> = cases.iter().map(|case| case["id"].to_string()).collect();
        seen.retain(|id| waiting.contains(id));
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Value {
        json!({
            "id": "0-1-a", "state": "pending", "user": "alice", "actor": ["bot@2"], "target": "orders", "rule": "r",
            "approvers": ["dba"], "count": 2, "votes": [{ "by": "bob", "time": "t", "reason": "" }],
            "expires": "2026-11-20T10:00:00.123456Z", "binds": ["7", null], "statement": "DELETE\nFROM \u{1b}[1m orders",
        })
    }

    #[test]
    fn a_row_says_who_for_whom_and_how_many_are_missing() {
        let row = row(&case()).join("|");
        assert_eq!(row, "0-1-a|1 of 2|alice via bot@2|orders|r|dba|2026-11-20T10:00:00Z|DELETE FROM \\u{1b}[1m orders");
    }

    #[test]
    fn the_whole_statement_is_shown_with_its_binds() {
        let text = described(&case());
        for line in ["$1         7", "$2         NULL", "  DELETE", "  FROM \\u{1b}[1m orders", "approved   bob at t"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
