//! `lockgate audit sinks`: how far each sink is, and what keeps it.

use super::gateway::{self, GatewayArgs};
use super::{ANSWER_NO, DONE};
use crate::audit::sinks::{Position, position_json};
use crate::config::Config;
use crate::control::client::ClientError;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(args: &GatewayArgs) -> Result<ExitCode> {
    let sinks = match args.get("/sinks") {
        Ok(answer) if answer.status == 200 => answer.body["sinks"].as_array().cloned().unwrap_or_default(),
        Ok(answer) => return Ok(gateway::refused(&answer)),
        Err(error) if error.downcast_ref().is_some_and(ClientError::is_stopped) => {
            note!("lockgate: the gateway does not run; these are the positions it left");
            left(&args.config()?)?
        }
        Err(error) => return Err(error),
    };
    let text = if args.json() { sinks.iter().map(gateway::json_line).collect() } else { text(&sinks) };
    super::print(&text)?;
    // Of a gateway that is stopped, none delivers.
    let troubled = sinks.iter().any(|sink| !sink["error"].is_null() || sink["state"] == "stopped");
    Ok(ExitCode::from(if troubled { ANSWER_NO } else { DONE }))
}

/// What stands on disk.
fn left(config: &Config) -> Result<Vec<Value>> {
    let sink = |sink: &crate::config::Sink| {
        let position = Position::read(&config.server.data_dir, &sink.name).context("a sink's position")?;
        Ok(json!({
            "name": sink.name, "kind": sink.kind.name(), "state": "stopped",
            "position": position.as_ref().map(position_json),
        }))
    };
    config.sinks.iter().map(sink).collect()
}

fn text(sinks: &[Value]) -> String {
    if sinks.is_empty() {
        return "no [[sink]] is configured\n".to_owned();
    }
    let heading = ["NAME", "KIND", "STATE", "EVENTS", "WAITING", "LAG", "DROPPED", "MISSED", "NEXT RECORD"];
    let rows = sinks.iter().map(|sink| {
        let keys = ["name", "kind", "state", "events", "waiting"];
        let mut row: Vec<_> = keys.iter().map(|key| gateway::field(&sink[*key])).collect();
        row.push(sink["lag_seconds"].as_f64().map_or("-".into(), |lag| format!("{lag:.1} s")));
        row.extend(["dropped", "missed"].map(|key| gateway::field(&sink[key])));
        row.push(position(&sink["position"]));
        row
    });
    let mut text = gateway::table(&heading, rows.collect());
    for sink in sinks.iter().filter(|sink| !sink["error"].is_null()) {
        let field = |key: &str| gateway::field(&sink[key]);
        text += &format!("\n{}: {} (at {})\n", field("name"), field("error"), field("error_time"));
        if !sink["mend"].is_null() {
            text += &format!("  to do: {}\n", field("mend"));
        }
        text += &format!("  next attempt: {}\n", field("next_retry"));
    }
    text
}

/// As ids of records: `0-123 1-77`.
fn position(position: &Value) -> String {
    let places: Vec<_> =
        position.as_object().into_iter().flatten().map(|(shard, next)| format!("{shard}-{next}")).collect();
    if places.is_empty() { "-".into() } else { places.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_with_what_to_do_and_nothing_reaches_the_terminal_raw() {
        let sink = json!({
            "name": "siem", "kind": "webhook", "state": "retrying", "events": 7, "waiting": 3, "lag_seconds": 12.34,
            "dropped": 0, "missed": 0, "position": { "0": 123, "1": 77 }, "error": "answered 403\u{1b}[2J",
            "error_time": "2026-11-20T03:12:00Z", "mend": "correct it, then reload", "next_retry": "2026-11-20T03:13:00Z",
        });
        let text = text(&[sink]);
        for part in ["siem", "12.3 s", "0-123 1-77", "answered 403\\u{1b}", "to do: correct it", "03:13:00Z"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
