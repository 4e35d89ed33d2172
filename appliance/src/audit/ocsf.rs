//! A record as an OCSF event (Open Cybersecurity Schema Framework 1.4.0): the shape every export has.
//!
//! | record | class | activity |
//! |---|---|---|
//! | statement | Datastore Activity 6005 | by its classes: Read, Update, Write, Create, Delete, else Query |
//! | session opened, session closed, login refused | Authentication 3002 | Logon, Logoff |
//! | ruling | Entity Management 3004 (the entity is the ticket) | Update |
//! | gateway | Application Lifecycle 6002 | Start, Stop, Update, else Other |
//!
//! Only attributes that 1.4.0 and 1.8.0 both have are used. What has no place there stands in `unmapped` under the names that
//! `-o json` uses.

use super::search::Record;
use super::when;
use serde_json::{Map, Value, json};

/// Of the schema the events follow.
pub const VERSION: &str = "1.4.0";

/// Severities in use.
const INFORMATIONAL: u32 = 1;
const LOW: u32 = 2;
const MEDIUM: u32 = 3;
const HIGH: u32 = 4;

/// The id of a record's event, the same whenever and wherever it is sent: receivers drop what they have already by it.
/// `APPLIANCE-SHARD-SEQUENCE`; a trail without an appliance id has only the last two.
pub fn uid(record: &Record, appliance: Option<&str>) -> String {
    match appliance {
        Some(appliance) => format!("{appliance}-{}", record.id),
        None => record.id.clone(),
    }
}

/// The class in one word, for receivers that sort by it.
pub fn class_of(record: &Record) -> &'static str {
    match record.kind {
        "statement" => "datastore_activity",
        "session" | "login" => "authentication",
        "ruling" => "entity_management",
        _ => "application_lifecycle",
    }
}

pub fn event(record: &Record, appliance: Option<&str>) -> Value {
    let mut event = common(record, appliance);
    match record.kind {
        "statement" => statement(record, &mut event),
        "session" | "login" => authentication(record, &mut event),
        "ruling" => ruling(record, &mut event),
        _ => lifecycle(record, &mut event),
    }
    Value::Object(without_nothing(event))
}

/// Names the events of a gateway among those of others.
const LOG_NAME: &str = "lockgate.audit";
/// How every event begins.
const OPENINGS: [&str; 2] = ["{\"action\"", "{\"activity_id\""];

/// Is this line an event of a gateway?
pub fn is_event(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|event| event["metadata"]["log_name"] == LOG_NAME)
}

/// May this be the beginning of one?
pub fn may_become_event(part: &[u8]) -> bool {
    let alike = |opening: &&str| part.iter().zip(opening.bytes()).all(|(&found, wanted)| found == wanted);
    OPENINGS.iter().any(alike)
}

/// What every class has.
fn common(record: &Record, appliance: Option<&str>) -> Map<String, Value> {
    let mut metadata = object(json!({
        "version": VERSION,
        "uid": uid(record, appliance),
        "sequence": record.sequence,
        "original_time": when::rfc3339(record.time_us),
        "log_name": LOG_NAME,
        "correlation_uid": record.session,
        "product": { "name": "Lockgate", "vendor_name": "Lockgate", "version": env!("CARGO_PKG_VERSION") },
    }));
    if matches!(record.kind, "statement" | "session" | "login") {
        metadata.insert("profiles".into(), json!(["security_control"]));
    }
    let unmapped = json!({
        "id": record.id, "kind": record.kind, "appliance": appliance, "shard": record.shard, "actor": record.actor,
        "claimed_user": record.claimed_user, "binds": record.binds, "classes": record.classes, "tables": record.tables,
        "decision": record.decision, "rule": record.rule, "ticket": record.ticket, "rows": record.rows,
        "bytes": record.bytes, "duration_us": record.duration_us, "masked": record.masked, "detail": record.detail,
        "ruling": record.ruling,
        "statement_bytes": record.statement_bytes, "cut": record.cut, "complete": (!record.complete).then_some(false),
    });
    object(json!({
        "time": record.time_us.div_euclid(1000), "metadata": metadata, "unmapped": unmapped, "message": message(record),
    }))
}

fn statement(record: &Record, event: &mut Map<String, Value>) {
    let has = |names: &[&str]| record.classes.iter().any(|class| names.contains(class));
    let activity = match () {
        () if has(&["delete", "truncate", "drop"]) => (7, "Delete"),
        () if has(&["create"]) => (6, "Create"),
        () if has(&["update", "merge", "alter"]) => (2, "Update"),
        () if has(&["insert", "copy_in"]) => (5, "Write"),
        () if has(&["select", "copy_out", "fetch", "show"]) => (1, "Read"),
        () => (4, "Query"),
    };
    let verdict = Verdict::of(record);
    class(event, (6, "Application Activity"), (6005, "Datastore Activity"), activity, verdict.severity());
    status(event, verdict.status(record), record.error.as_deref(), None);
    let datastore = if record.tables.is_empty() { (1, "Database") } else { (3, "Table") };
    event.extend(object(json!({
        "duration": record.duration_us.map(|us| us.div_ceil(1000)),
        "type_id": datastore.0, "type": datastore.1,
        "action_id": verdict.action().0, "action": verdict.action().1,
        "disposition_id": verdict.disposition().0, "disposition": verdict.disposition().1,
        "is_alert": matches!(verdict, Verdict::Alert).then_some(true),
        "policy": record.rule.as_ref().map(|rule| json!({ "name": rule, "is_applied": true })),
        "actor": { "user": user(record), "session": session(record), "app_name": record.application },
        "src_endpoint": source(record),
        "dst_endpoint": { "svc_name": record.target },
        "database": { "name": record.target, "type_id": 1, "type": "Relational" },
        "table": record.tables.first().map(|name| json!({ "name": name })),
        "query_info": record.statement.as_deref().and_then(non_empty)
            .map(|text| json!({ "query_string": text, "bytes": record.bytes })),
    })));
}

/// What became of a statement.
#[derive(Clone, Copy)]
enum Verdict {
    Allowed,
    Alert,
    Denied,
    /// It was held, and ran.
    Approved,
    Rejected,
    /// It is held, or nobody knows.
    Open,
}

impl Verdict {
    fn of(record: &Record) -> Self {
        let ran = record.duration_us.is_some();
        match record.decision.as_deref() {
            Some("deny") => Self::Denied,
            Some("alert") => Self::Alert,
            Some("approve") if ran => Self::Approved,
            Some("approve") if record.complete => Self::Rejected,
            Some("approve") => Self::Open,
            _ => Self::Allowed,
        }
    }

    fn action(self) -> (u32, &'static str) {
        match self {
            Self::Allowed | Self::Alert | Self::Approved => (1, "Allowed"),
            Self::Denied | Self::Rejected => (2, "Denied"),
            Self::Open => (0, "Unknown"),
        }
    }

    fn disposition(self) -> (u32, &'static str) {
        match self {
            Self::Allowed => (1, "Allowed"),
            Self::Alert => (19, "Alert"),
            Self::Denied => (2, "Blocked"),
            Self::Approved => (8, "Approved"),
            Self::Rejected => (25, "Rejected"),
            Self::Open => (14, "Delayed"),
        }
    }

    fn severity(self) -> u32 {
        match self {
            Self::Allowed | Self::Approved | Self::Open => INFORMATIONAL,
            Self::Denied | Self::Rejected => MEDIUM,
            Self::Alert => HIGH,
        }
    }

    fn status(self, record: &Record) -> Status {
        match self {
            Self::Denied | Self::Rejected => Status::Failure,
            _ if record.error.is_some() => Status::Failure,
            _ if record.duration_us.is_some() && record.complete => Status::Success,
            _ => Status::Unknown,
        }
    }
}

fn authentication(record: &Record, event: &mut Map<String, Value>) {
    let refused = record.kind == "login";
    // Only a session that has closed has lasted.
    let closed = record.duration_us.is_some();
    let activity = if closed { (2, "Logoff") } else { (1, "Logon") };
    let severity = if refused { MEDIUM } else { INFORMATIONAL };
    class(event, (3, "Identity & Access Management"), (3002, "Authentication"), activity, severity);
    let outcome = if refused { Status::Failure } else { Status::Success };
    status(event, outcome, record.error.as_deref(), record.detail.as_deref());
    let (action, disposition) =
        if refused { ((2, "Denied"), (2, "Blocked")) } else { ((1, "Allowed"), (1, "Allowed")) };
    event.extend(object(json!({
        "duration": record.duration_us.map(|us| us.div_ceil(1000)),
        "action_id": action.0, "action": action.1, "disposition_id": disposition.0, "disposition": disposition.1,
        "user": user(record), "session": session(record),
        "actor": { "user": user(record), "session": session(record), "app_name": record.application },
        "src_endpoint": source(record),
        "dst_endpoint": { "svc_name": record.target },
        "service": { "name": non_empty(&record.target).unwrap_or("Lockgate") },
        "auth_protocol_id": 4, "auth_protocol": "OpenID", "logon_type_id": 3, "logon_type": "Network", "is_remote": true,
    })));
}

fn ruling(record: &Record, event: &mut Map<String, Value>) {
    let word = record.decision.as_deref().unwrap_or_default();
    class(event, (3, "Identity & Access Management"), (3004, "Entity Management"), (3, "Update"), INFORMATIONAL);
    let outcome = if word == "approved" { Status::Success } else { Status::Failure };
    status(event, outcome, Some(word), record.detail.as_deref());
    // Without a person it was the gateway's clock, or the requester going away.
    let actor = match &record.by {
        Some(by) => json!({ "user": { "name": by } }),
        None => json!({ "app_name": "Lockgate" }),
    };
    event.extend(object(json!({
        "actor": actor,
        "src_endpoint": source(record),
        "comment": record.detail,
        "entity": { "uid": record.ticket.as_deref().unwrap_or("unknown"), "name": "approval ticket", "type_id": 99,
                    "type": "Ticket", "user": user(record) },
    })));
}

fn lifecycle(record: &Record, event: &mut Map<String, Value>) {
    let detail = record.detail.as_deref().unwrap_or_default();
    let activity = match detail.split_once(':').map(|(word, _)| word) {
        Some("started") => (3, "Start"),
        Some("stopped") => (4, "Stop"),
        Some("reloaded" | "reload refused") => (8, "Update"),
        _ => (99, "Other"),
    };
    let refused = detail.starts_with("reload refused");
    let severity = if refused { LOW } else { INFORMATIONAL };
    class(event, (6, "Application Activity"), (6002, "Application Lifecycle"), activity, severity);
    let outcome = match activity.0 {
        99 => Status::Unknown,
        _ if refused => Status::Failure,
        _ => Status::Success,
    };
    status(event, outcome, None, Some(detail));
    event.insert(
        "app".into(),
        json!({ "name": "Lockgate", "vendor_name": "Lockgate", "version": env!("CARGO_PKG_VERSION") }),
    );
}

/// The event's place in the schema.
fn class(
    event: &mut Map<String, Value>,
    category: (u32, &str),
    class: (u32, &str),
    activity: (u32, &str),
    severity: u32,
) {
    let severity_name = match severity {
        INFORMATIONAL => "Informational",
        LOW => "Low",
        MEDIUM => "Medium",
        _ => "High",
    };
    event.extend(object(json!({
        "category_uid": category.0, "category_name": category.1, "class_uid": class.0, "class_name": class.1,
        "activity_id": activity.0, "activity_name": activity.1,
        "type_uid": class.0 * 100 + activity.0, "type_name": format!("{}: {}", class.1, activity.1),
        "severity_id": severity, "severity": severity_name,
    })));
}

#[derive(Clone, Copy)]
enum Status {
    Unknown,
    Success,
    Failure,
}

fn status(event: &mut Map<String, Value>, status: Status, code: Option<&str>, detail: Option<&str>) {
    let (id, name) = match status {
        Status::Unknown => (0, "Unknown"),
        Status::Success => (1, "Success"),
        Status::Failure => (2, "Failure"),
    };
    event.extend(object(json!({ "status_id": id, "status": name, "status_code": code, "status_detail": detail })));
}

/// A login that was refused may have no user that is known: what the client claimed is all there is.
fn user(record: &Record) -> Value {
    let name = non_empty(&record.user).or(non_empty(&record.claimed_user)).unwrap_or("unknown");
    let groups: Vec<_> = record.groups.iter().map(|name| json!({ "name": name })).collect();
    json!({ "name": name, "groups": groups })
}

fn session(record: &Record) -> Option<Value> {
    non_empty(&record.session).map(|uid| json!({ "uid": uid, "is_remote": true }))
}

/// `address:port`, `[v6]:port`.
fn source(record: &Record) -> Value {
    let (ip, port) = record.client.rsplit_once(':').unwrap_or((&record.client, ""));
    let ip = ip.trim_matches(['[', ']']);
    match ip.parse::<std::net::IpAddr>() {
        Ok(_) => json!({ "ip": ip, "port": port.parse::<u16>().ok() }),
        Err(_) => json!({ "name": non_empty(&record.client).unwrap_or("unknown") }),
    }
}

/// One line for people; the statement's own text is not in it.
fn message(record: &Record) -> String {
    let user = non_empty(&record.user).unwrap_or("somebody");
    let detail = record.detail.as_deref().unwrap_or_default();
    match record.kind {
        "statement" => format!(
            "{user}: {} on {}: {}{}",
            record.classes.join("+"),
            record.target,
            record.decision.as_deref().unwrap_or("open"),
            record.rule.as_ref().map(|rule| format!(" (rule {rule})")).unwrap_or_default(),
        ),
        "session" => format!("{user}: session on {} {detail}", record.target),
        "login" => {
            format!("a login to {} was refused: {detail}", non_empty(&record.target).unwrap_or("an unknown target"))
        }
        "ruling" => format!(
            "ticket {} of {user}: {} {detail}",
            record.ticket.as_deref().unwrap_or("unknown"),
            record.decision.as_deref().unwrap_or_default()
        ),
        _ => format!("gateway {detail}"),
    }
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Leaves out what says nothing: null, empty texts, lists and objects. (A NULL among bind values stays: its place counts.)
fn without_nothing(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| match value {
            Value::Object(inner) => (key, Value::Object(without_nothing(inner))),
            other => (key, other),
        })
        .filter(|(_, value)| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(_) | Value::Number(_) => true,
        })
        .collect()
}

#[cfg(test)]
mod tests;
