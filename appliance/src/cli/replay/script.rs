//! A recorded session as a sequence of events, each with its time and the text a terminal shows for it. Pure.

use super::session::{Session, Turn};
use super::table;
use crate::audit::printable::{escape, escape_lines, one_line};
use crate::audit::search::Record;
use crate::audit::when;
use serde_json::{Value, json};
use std::time::Duration;

/// One thing that happens on the screen.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Unix microseconds; never before the one ahead of it.
    pub time_us: i64,
    /// The statement it belongs to, from 0.
    pub turn: Option<usize>,
    /// A statement's first: where a seek lands.
    pub starts_turn: bool,
    pub text: String,
    pub json: Value,
}

/// Colours where somebody looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ink {
    pub coloured: bool,
}

impl Ink {
    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }
}

/// Everything that happened, in order. Statements that were sent before the one ahead was answered are shown behind it, as
/// a person at a prompt would have sent them.
pub fn events(session: &Session, ink: Ink) -> Vec<Event> {
    let mut script = Script { ink, events: Vec::new() };
    script.heading(session);
    for ruling in &session.access {
        script.ruling(None, ruling, session.opened.as_ref().map_or(ruling.time_us, |opened| opened.time_us));
    }
    for (index, turn) in session.turns.iter().enumerate() {
        script.turn(index, turn);
    }
    script.end(session);
    script.events
}

struct Script {
    ink: Ink,
    events: Vec<Event>,
}

impl Script {
    fn push(&mut self, time_us: i64, turn: Option<usize>, text: String, json: Value) {
        let time_us = self.events.last().map_or(time_us, |last| last.time_us.max(time_us));
        self.events.push(Event { time_us, turn, starts_turn: false, text, json });
    }

    fn heading(&mut self, session: &Session) {
        let Some(who) = session.anyone() else { return };
        let via = if who.actor.is_empty() { String::new() } else { format!(" via {}", escape(&who.actor.join(" < "))) };
        let groups = if who.groups.is_empty() { String::new() } else { format!(", {}", escape(&who.groups.join(" "))) };
        let first = format!("session {}: {}{via}{groups}", escape(&session.id), escape(&who.user));
        let client = [&who.application, &who.client].map(|text| escape(text)).join(" from ");
        let grant = match &session.opened {
            Some(opened) => escape(opened.detail.as_deref().unwrap_or("")),
            None => "its opening is not in the trail".to_owned(),
        };
        let second = format!("{client} on {}, {} UTC, {grant}", escape(&who.target), when::short(who.time_us));
        let text = format!("{}\n{}\n", self.ink.bold(&first), self.ink.dim(&second));
        let json = json!({
            "event": "opened", "time": when::rfc3339(who.time_us), "session": session.id, "user": who.user, "groups": who.groups,
            "actor": who.actor, "target": who.target, "client": who.client, "application": who.application,
            "detail": session.opened.as_ref().and_then(|opened| opened.detail.as_ref()),
        });
        // Its statements may be all that is left: then it begins with them.
        self.push(who.time_us, None, text, json);
    }

    fn turn(&mut self, index: usize, turn: &Turn) {
        let statement = &turn.statement;
        self.statement(index, statement);
        let mut since_us = statement.time_us;
        if statement.decision.as_deref() == Some("approve") {
            self.waiting(index, statement);
            for ruling in &turn.rulings {
                self.ruling(Some(index), ruling, statement.time_us);
                since_us = since_us.max(ruling.time_us);
            }
        }
        if statement.decision.as_deref() == Some("deny") {
            return self.denied(index, statement);
        }
        self.response(index, statement, since_us, turn);
    }

    fn statement(&mut self, index: usize, statement: &Record) {
        let text = statement.statement.as_deref().unwrap_or("");
        let prompt = one_line(&statement.target, 40);
        let shown = escape_lines(text.trim_end()).replace('\n', &format!("\n{prompt}-> "));
        let head = format!("-- {}  #{}  {}", &when::short(statement.time_us)[11..], index + 1, statement.id);
        let mut out = format!("\n{}\n{}{shown}\n", self.ink.dim(&head), self.ink.bold(&format!("{prompt}=> ")));
        if let Some(bytes) = statement.statement_bytes {
            out.push_str(&self.ink.dim(&format!("-- cut, the whole statement has {bytes} bytes\n")));
        }
        if !statement.binds.is_empty() {
            let bind = |(index, bind): (usize, &Option<String>)| match bind {
                Some(text) => format!("${} = '{}'", index + 1, one_line(text, 200)),
                None => format!("${} = NULL", index + 1),
            };
            let binds: Vec<String> = statement.binds.iter().enumerate().map(bind).collect();
            out.push_str(&self.ink.dim(&format!("-- {}\n", binds.join(", "))));
        }
        if statement.decision.as_deref() == Some("alert") {
            out.push_str(&self.ink.yellow(&format!("-- alert{}\n", by_rule(statement))));
        }
        let json = json!({
            "event": "statement", "time": when::rfc3339(statement.time_us), "number": index + 1, "id": statement.id,
            "statement": statement.statement, "binds": statement.binds, "classes": statement.classes, "tables": statement.tables,
            "decision": statement.decision, "rule": statement.rule, "ticket": statement.ticket,
        });
        self.push(statement.time_us, Some(index), out, json);
        if let Some(event) = self.events.last_mut() {
            event.starts_turn = true;
        }
    }

    fn waiting(&mut self, index: usize, statement: &Record) {
        let ticket = statement.ticket.as_deref().unwrap_or("");
        let text = format!("-- waits for approval{}: ticket {}\n", by_rule(statement), escape(ticket));
        let json = json!({"event": "waiting", "time": when::rfc3339(statement.time_us), "number": index + 1, "ticket": ticket});
        self.push(statement.time_us, Some(index), self.ink.yellow(&text), json);
    }

    fn ruling(&mut self, turn: Option<usize>, ruling: &Record, since_us: i64) {
        let decision = ruling.decision.as_deref().unwrap_or("");
        let detail = ruling.detail.as_deref().unwrap_or("");
        let waited = ruling.time_us.saturating_sub(since_us);
        let after = if waited > 0 { format!(" after {}", span(waited)) } else { String::new() };
        let text = format!("-- {}{after} {}\n", escape(decision), escape(detail));
        let text = if decision == "approved" { self.ink.yellow(&text) } else { self.ink.red(&text) };
        let json = json!({
            "event": "ruling", "time": when::rfc3339(ruling.time_us), "number": turn.map(|index| index + 1), "ticket": ruling.ticket,
            "ruling": decision, "detail": detail, "waited_us": waited.max(0),
        });
        self.push(ruling.time_us, turn, text, json);
    }

    fn denied(&mut self, index: usize, statement: &Record) {
        let text = format!("-- denied{}: nothing of it was run\n", by_rule(statement));
        let json = json!({
            "event": "denied", "time": when::rfc3339(statement.time_us), "number": index + 1, "rule": statement.rule,
        });
        self.push(statement.time_us, Some(index), self.ink.red(&text), json);
    }

    fn response(&mut self, index: usize, statement: &Record, since_us: i64, turn: &Turn) {
        let Some(duration_us) = statement.duration_us else {
            let refused = turn.rulings.iter().any(|ruling| ruling.decision.as_deref() != Some("approved"));
            if !refused {
                let text =
                    self.ink.red("-- no outcome in the trail: it still runs, or the gateway was killed while it did\n");
                let json = json!({"event": "response", "time": null, "number": index + 1});
                self.push(since_us, Some(index), text, json);
            }
            return;
        };
        let time_us = since_us.saturating_add(i64::try_from(duration_us).unwrap_or(i64::MAX));
        let mut out = String::new();
        match &statement.payload {
            Some(payload) => table::response(&mut out, &payload.read(), statement.statement.as_deref().unwrap_or("")),
            None if statement.bytes.is_some_and(|bytes| bytes > 0) => out.push_str("(the response was not recorded)\n"),
            None => {}
        }
        let what = match statement.error.as_deref() {
            None if statement.rows == Some(1) => "1 row".to_owned(),
            None => format!("{} rows", statement.rows.unwrap_or(0)),
            Some("skipped") => "skipped: it never ran".to_owned(),
            Some("disconnected") => "the connection ended before it was over".to_owned(),
            Some(sqlstate) => format!("error {}", escape(sqlstate)),
        };
        let masked = statement.masked.filter(|&masked| masked > 0);
        let masked = masked.map(|masked| format!(", {masked} masked")).unwrap_or_default();
        out.push_str(&self.ink.dim(&format!("-- {what}{masked}, {}\n", span(duration_us as i64))));
        let json = json!({
            "event": "response", "time": when::rfc3339(time_us), "number": index + 1, "id": statement.id, "rows": statement.rows,
            "bytes": statement.bytes, "masked": statement.masked, "duration_us": statement.duration_us, "error": statement.error,
            "payload": statement.payload,
        });
        self.push(time_us, Some(index), out, json);
    }

    fn end(&mut self, session: &Session) {
        let (time_us, text) = match &session.closed {
            Some(closed) => (closed.time_us, escape(closed.detail.as_deref().unwrap_or("closed"))),
            None => {
                let last = self.events.last().map_or(0, |last| last.time_us);
                (last, "the trail has no end of this session: it is open, or the gateway was killed".to_owned())
            }
        };
        let json = match &session.closed {
            Some(closed) => json!({"event": "closed", "time": when::rfc3339(closed.time_us), "detail": closed.detail}),
            None => json!({"event": "closed", "time": null}),
        };
        self.push(time_us, None, format!("\n{}\n", self.ink.dim(&format!("-- {text}"))), json);
    }
}

fn by_rule(statement: &Record) -> String {
    statement.rule.as_deref().map(|rule| format!(" by rule {}", escape(rule))).unwrap_or_default()
}

/// A time span as people say it.
pub fn span(us: i64) -> String {
    match us {
        us if us < 1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        us if us < 120_000_000 => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        us if us < 7_200_000_000 => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
        us => format!("{} h {} min", us / 3_600_000_000, us / 60_000_000 % 60),
    }
}

/// When each event is shown, from the start of the replay at its own speed: no pause is longer than `pause_max`.
pub fn offsets(events: &[Event], pause_max: Duration) -> Vec<Duration> {
    let mut at = Duration::ZERO;
    let mut before = events.first().map_or(0, |event| event.time_us);
    let mut offsets = Vec::with_capacity(events.len());
    for event in events {
        let pause = u64::try_from(event.time_us.saturating_sub(before)).unwrap_or(0);
        at += Duration::from_micros(pause).min(pause_max);
        before = event.time_us;
        offsets.push(at);
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time_us: i64) -> Event {
        Event { time_us, turn: None, starts_turn: false, text: String::new(), json: Value::Null }
    }

    #[test]
    fn pauses_are_kept_up_to_their_bound() {
        let events = [0, 500_000, 500_000, 3_600_000_000, 3_600_000_001].map(event);
        let offsets = offsets(&events, Duration::from_secs(2));
        assert_eq!(offsets.map_us(), [0, 500_000, 500_000, 2_500_000, 2_500_001]);
    }

    trait MapUs {
        fn map_us(&self) -> Vec<u128>;
    }

    impl MapUs for Vec<Duration> {
        fn map_us(&self) -> Vec<u128> {
            self.iter().map(Duration::as_micros).collect()
        }
    }

    #[test]
    fn spans_are_said_in_their_own_unit() {
        assert_eq!(
            [78_700, 12_340_000, 600_000_000, 7_500_000_000].map(span),
            ["78.7 ms", "12.3 s", "10 min 0 s", "2 h 5 min"]
        );
    }
}
