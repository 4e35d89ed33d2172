//! A replay as an asciicast file, version 2 (https://docs.asciinema.org/manual/asciicast/v2): a header line, then one event
//! a line, `[seconds, "o", text]`, with a marker at each statement.

use super::script::Event;
use crate::audit::printable::{json_safe, one_line};
use std::io::{self, Write};
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

const WIDTH_MIN: usize = 80;
const WIDTH_MAX: usize = 200;
const HEIGHT: usize = 40;

/// `offsets`: when each event is shown, at single speed.
pub fn write(out: &mut impl Write, title: &str, events: &[Event], offsets: &[Duration], speed: f64) -> io::Result<()> {
    let header = serde_json::json!({
        "version": 2,
        "width": width(events),
        "height": HEIGHT,
        "timestamp": events.first().map_or(0, |event| event.time_us.div_euclid(1_000_000)),
        "title": title,
        "env": { "TERM": "xterm-256color" },
    });
    writeln!(out, "{}", json_safe(&header.to_string()))?;
    for (event, offset) in events.iter().zip(offsets) {
        // Six decimals, as asciinema writes them.
        let seconds = (offset.as_secs_f64() / speed * 1e6).round() / 1e6;
        if event.starts_turn {
            let number = event.json["number"].as_u64().unwrap_or(0);
            let label = format!("#{number} {}", one_line(event.json["statement"].as_str().unwrap_or(""), 60));
            writeln!(out, "{}", json_safe(&serde_json::json!([seconds, "m", label]).to_string()))?;
        }
        // A terminal's own line ends: the cast has no line discipline that would add them.
        let text = event.text.replace('\n', "\r\n");
        writeln!(out, "{}", json_safe(&serde_json::json!([seconds, "o", text]).to_string()))?;
    }
    out.flush()
}

/// Room for the widest line, within what screens have.
fn width(events: &[Event]) -> usize {
    let lines = events.iter().flat_map(|event| event.text.lines());
    lines.map(|line| plain(line).width()).max().unwrap_or(0).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// Without colours.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        text.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_cast_has_a_header_and_events_at_their_times() {
        let event = |time_us, text: &str, starts_turn| Event {
            time_us,
            turn: None,
            starts_turn,
            text: text.into(),
            json: json!({"number": 1, "statement": "SELECT\n1"}),
        };
        let events =
            [event(1_795_142_000_500_000, "a\n", false), event(1_795_142_001_500_000, "\u{1b}[2mb\u{1b}[0m\n", true)];
        let mut out = Vec::new();
        write(&mut out, "t\u{202e}", &events, &[Duration::ZERO, Duration::from_secs(1)], 4.0).expect("written");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains('\u{202e}'));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((lines[0]["version"].as_u64(), lines[0]["timestamp"].as_i64()), (Some(2), Some(1_795_142_000)));
        assert_eq!(lines[1], json!([0.0, "o", "a\r\n"]));
        assert_eq!(lines[2], json!([0.25, "m", "#1 SELECT 1"]));
        assert_eq!(lines[3], json!([0.25, "o", "\u{1b}[2mb\u{1b}[0m\r\n"]));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn colours_have_no_width() {
        assert_eq!(plain("\u{1b}[1ma\u{1b}[0mb"), "ab");
    }
}
