//! Events against the schema, as far as it can be kept by hand: the tables below are read off OCSF 1.4.0
//! (github.com/ocsf/ocsf-schema, tag 1.4.0: events/, objects/, profiles/security_control.json, dictionary.json).

use super::super::tests::{groups, outcome, request, scratch, who};
use super::super::{Entry, Journal as _, RingOptions, SegmentWriter, search};
use super::*;

/// Attributes of a class or object: `name type`, `!` in front of what is required, `[]` behind what is a list.
const OBJECTS: &[(&str, &[&str])] = &[
    (
        "base",
        &[
            "!activity_id int",
            "activity_name str",
            "!category_uid int",
            "category_name str",
            "!class_uid int",
            "class_name str",
            "duration int",
            "message str",
            "!metadata metadata",
            "!severity_id int",
            "severity str",
            "status str",
            "status_code str",
            "status_detail str",
            "status_id int",
            "!time int",
            "!type_uid int",
            "type_name str",
            "unmapped any",
        ],
    ),
    (
        "security_control",
        &["action str", "action_id int", "disposition str", "disposition_id int", "is_alert bool", "policy policy"],
    ),
    (
        "6005",
        &[
            "!actor actor",
            "database database",
            "dst_endpoint endpoint",
            "query_info query_info",
            "!src_endpoint endpoint",
            "table entity",
            "type str",
            "type_id int",
        ],
    ),
    (
        "3002",
        &[
            "actor actor",
            "src_endpoint endpoint",
            "auth_protocol str",
            "auth_protocol_id int",
            "dst_endpoint endpoint",
            "is_remote bool",
            "logon_type str",
            "logon_type_id int",
            "service entity",
            "session session",
            "!user user",
        ],
    ),
    ("3004", &["actor actor", "src_endpoint endpoint", "comment str", "!entity managed_entity"]),
    ("6002", &["!app product"]),
    (
        "metadata",
        &[
            "correlation_uid str",
            "log_name str",
            "original_time str",
            "!product product",
            "profiles str[]",
            "sequence int",
            "uid str",
            "!version str",
        ],
    ),
    ("product", &["name str", "vendor_name str", "version str"]),
    ("actor", &["app_name str", "session session", "user user"]),
    ("user", &["name str", "groups entity[]"]),
    ("session", &["uid str", "is_remote bool"]),
    ("endpoint", &["ip ip", "port port", "name str", "svc_name str"]),
    ("entity", &["name str"]),
    ("policy", &["name str", "is_applied bool"]),
    ("database", &["name str", "!type_id int", "type str"]),
    ("query_info", &["!query_string str", "bytes int"]),
    ("managed_entity", &["uid str", "name str", "type str", "type_id int", "user user"]),
];

/// Of these at least one.
const AT_LEAST_ONE: &[(&str, &[&str])] = &[
    ("6005", &["database", "databucket", "table"]),
    ("3002", &["service", "dst_endpoint"]),
    ("actor", &["process", "user", "invoked_by", "session", "app_name", "app_uid"]),
    ("user", &["account", "name", "uid"]),
    ("endpoint", &["ip", "uid", "name", "hostname", "svc_name"]),
    ("entity", &["name", "uid"]),
    ("policy", &["name", "uid"]),
    ("database", &["name", "uid"]),
    ("product", &["name", "uid"]),
    ("managed_entity", &["name", "uid", "user"]),
];

/// Ids with their captions.
type Names = &'static [(u64, &'static str)];

/// (class, category, class's caption, activities)
const CLASSES: &[(u64, u64, &str, Names)] = &[
    (
        6005,
        6,
        "Datastore Activity",
        &[(1, "Read"), (2, "Update"), (3, "Connect"), (4, "Query"), (5, "Write"), (6, "Create"), (7, "Delete")],
    ),
    (3002, 3, "Authentication", &[(1, "Logon"), (2, "Logoff")]),
    (3004, 3, "Entity Management", &[(3, "Update")]),
    (6002, 6, "Application Lifecycle", &[(3, "Start"), (4, "Stop"), (8, "Update"), (99, "Other")]),
];

/// Ids and the captions that must stand beside them.
const CAPTIONS: &[(&str, &str, Names)] = &[
    ("severity_id", "severity", &[(1, "Informational"), (2, "Low"), (3, "Medium"), (4, "High")]),
    ("status_id", "status", &[(0, "Unknown"), (1, "Success"), (2, "Failure")]),
    ("action_id", "action", &[(0, "Unknown"), (1, "Allowed"), (2, "Denied")]),
    (
        "disposition_id",
        "disposition",
        &[(1, "Allowed"), (2, "Blocked"), (8, "Approved"), (14, "Delayed"), (19, "Alert"), (25, "Rejected")],
    ),
    ("auth_protocol_id", "auth_protocol", &[(4, "OpenID")]),
    ("logon_type_id", "logon_type", &[(3, "Network")]),
];

fn rows(name: &str) -> &'static [&'static str] {
    OBJECTS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no table {name}")).1
}

fn check_object(at: &str, value: &Value, names: &[&str], problems: &mut Vec<String>) {
    let Some(map) = value.as_object() else { return problems.push(format!("{at} is no object")) };
    let rows: Vec<_> = names.iter().flat_map(|name| rows(name)).filter_map(|row| row.split_once(' ')).collect();
    for (name, _) in rows.iter().filter_map(|(name, kind)| Some((name.strip_prefix('!')?, kind))) {
        if !map.contains_key(name) {
            problems.push(format!("{at} needs {name}"));
        }
    }
    for (key, value) in map {
        let at = format!("{at}.{key}");
        match rows.iter().find(|(name, _)| name.trim_start_matches('!') == key) {
            Some((_, kind)) => check_value(&at, value, kind, problems),
            None => problems.push(format!("{at} is not in the schema")),
        }
    }
    for (_, any) in AT_LEAST_ONE.iter().filter(|(name, _)| names.contains(name)) {
        if !any.iter().any(|name| map.contains_key(*name)) {
            problems.push(format!("{at} needs one of {any:?}"));
        }
    }
}

fn check_value(at: &str, value: &Value, kind: &str, problems: &mut Vec<String>) {
    if let Some(kind) = kind.strip_suffix("[]") {
        let Some(items) = value.as_array() else { return problems.push(format!("{at} is no list")) };
        return items.iter().for_each(|item| check_value(at, item, kind, problems));
    }
    let right = match kind {
        "any" => true,
        "int" => value.is_u64(),
        "str" => value.is_string(),
        "bool" => value.is_boolean(),
        "port" => value.as_u64().is_some_and(|port| port <= 65_535),
        "ip" => value.as_str().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok()),
        object => return check_object(at, value, &[object], problems),
    };
    if !right {
        problems.push(format!("{at} = {value} is not {kind}"));
    }
}

/// What the schema says against an event.
fn problems(event: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let number = |key: &str| event[key].as_u64().unwrap_or(u64::MAX);
    let class = number("class_uid");
    let Some((_, category, caption, activities)) = CLASSES.iter().find(|(uid, ..)| *uid == class) else {
        return vec![format!("class {class} is not one of ours")];
    };
    let mut tables = vec!["base".to_owned(), class.to_string()];
    if event["metadata"]["profiles"].as_array().is_some_and(|profiles| profiles.contains(&json!("security_control"))) {
        tables.push("security_control".to_owned());
    }
    let names: Vec<_> = tables.iter().map(String::as_str).collect();
    check_object("event", event, &names, &mut problems);
    let activity = activities.iter().find(|(id, _)| *id == number("activity_id"));
    if number("category_uid") != *category || event["class_name"] != *caption {
        problems.push("category or caption of the class".into());
    }
    match activity {
        Some((id, name)) if event["activity_name"] == *name && number("type_uid") == class * 100 + id => {}
        _ => problems.push(format!("activity {} of type {}", event["activity_id"], event["type_uid"])),
    }
    for (id, caption, known) in CAPTIONS {
        if let Some(value) = event[*id].as_u64()
            && !known.iter().any(|(known, name)| *known == value && event[*caption] == *name)
        {
            problems.push(format!("{id} {value} is {}", event[*caption]));
        }
    }
    problems
}

/// One of everything, as a gateway writes it.
fn records() -> Vec<Record> {
    use super::super::{Outcome, Request};
    let dir = scratch();
    let options =
        RingOptions { data_dir: dir.path().to_owned(), shard: 3, segment_bytes: 64 << 10, segments_per_shard: 2 };
    let (mut writer, _) = SegmentWriter::open(&options, 1_795_142_000_123_456).expect("the trail opens");
    let groups = groups();
    let (alice, nobody) = (who("s-a", "alice", &groups), super::super::NOBODY);
    let mut at = 1_795_142_000_123_456;
    let mut add = |who: &super::super::Who<'_>, entry: Entry<'_>| {
        at += 1_000_000;
        writer.append(at, who, &entry).expect("room");
        writer.write().expect("written");
    };
    add(&nobody, Entry::Gateway { detail: "started: lockgate 0.1.0" });
    add(&alice, Entry::SessionOpened { grant: "everyone", settings: "" });
    let tables = ["public.customers".to_owned(), "orders".to_owned()];
    let binds = [Some("1"), None];
    add(&alice, Entry::Request(Request { tables: &tables, binds: &binds, ..request(1, "SELECT\n\u{1b}[2J 1") }));
    add(&alice, Entry::Outcome(outcome(1)));
    for (number, decision, classes) in
        [(2, "deny", 1 << 7), (3, "alert", 1 << 2), (4, "approve", 1 << 3), (5, "approve", 1 << 1), (6, "allow", 0)]
    {
        add(&alice, Entry::Request(Request { decision, rule: "careful", classes, ..request(number, "") }));
    }
    add(&alice, Entry::Outcome(Outcome { error: "23503", ..outcome(3) }));
    for (request, ruling, by) in [(4, "approved", "eve"), (5, "expired", "")] {
        add(&alice, Entry::Ruling { request, ticket: "3-4-x", ruling, by, reason: "ok" });
    }
    add(&alice, Entry::Outcome(outcome(4)));
    add(&alice, Entry::SessionClosed { reason: "terminated", duration_us: 9, statements: 6 });
    let stranger = super::super::Who { claimed_user: "root", client: "[::1]:5", ..nobody };
    add(&stranger, Entry::LoginRefused { sqlstate: *b"28P01", reason: "expired" });
    for detail in ["reloaded: configuration x", "reload refused: x", "stopped: drained", "cut 3 bytes of a frame"] {
        add(&nobody, Entry::Gateway { detail });
    }
    search::search(dir.path(), &search::Filter::default(), None, false, &mut |damage| panic!("{damage}"))
        .expect("readable")
}

#[test]
fn events_of_every_kind_follow_the_schema() {
    let records = records();
    assert_eq!(records.len(), 16);
    let mut seen = std::collections::BTreeSet::new();
    for record in &records {
        let event = event(record, Some("00ff00ff00ff00ff"));
        assert_eq!(problems(&event), Vec::<String>::new(), "{event:#}");
        let line = event.to_string();
        assert!(is_event(line.as_bytes()) && !is_event(&line.as_bytes()[1..]), "{line}");
        // The file sink knows its own by this, also what a crash left of one.
        assert!((0..line.len()).all(|end| may_become_event(&line.as_bytes()[..end])), "{line}");
        seen.insert(event["type_uid"].as_u64().expect("a type"));
    }
    let expected = [300201, 300202, 300403, 600203, 600204, 600208, 600299, 600501, 600502, 600504, 600505, 600507];
    let missing: Vec<_> = expected.iter().filter(|uid| !seen.contains(*uid)).collect();
    assert!(missing.len() <= 1, "{missing:?} of {seen:?}");
}

#[test]
fn what_is_no_event_of_ours_is_told_from_one() {
    for other in ["", "{}", "[server]", "{\"metadata\":{\"log_name\":\"other\"}}", "{\"metadata\":1}", "x"] {
        assert!(!is_event(other.as_bytes()), "{other}");
    }
    for other in ["[server]", "{\"a\":1", "{\"n", "\n"] {
        assert!(!may_become_event(other.as_bytes()), "{other}");
    }
}

#[test]
fn the_check_itself_finds_what_is_wrong() {
    let good = event(&records()[2], None);
    let broken = |edit: &dyn Fn(&mut Value)| {
        let mut event = good.clone();
        edit(&mut event);
        problems(&event).len()
    };
    assert_eq!(broken(&|_| ()), 0);
    assert_eq!(broken(&|event| drop(event.as_object_mut().expect("an object").remove("actor"))), 1);
    assert_eq!(broken(&|event| event["tables"] = json!([])), 1);
    assert_eq!(broken(&|event| event["time"] = json!("now")), 1);
    assert_eq!(broken(&|event| event["type_uid"] = json!(1)), 1);
    assert_eq!(broken(&|event| event["status"] = json!("Failure")), 1);
    assert_eq!(broken(&|event| event["src_endpoint"] = json!({ "ip": "localhost" })), 1);
    assert_eq!(broken(&|event| event["actor"]["user"] = json!({})), 1);
}

#[test]
fn an_event_tells_who_what_and_what_came_of_it_under_a_stable_id() {
    let records = records();
    let of = |id: &str| {
        let record = records.iter().find(|record| record.id == id).unwrap_or_else(|| panic!("{id}"));
        event(record, Some("00ff00ff00ff00ff"))
    };
    let select = of("3-3");
    assert_eq!(select["metadata"]["uid"], "00ff00ff00ff00ff-3-3");
    assert_eq!((&select["time"], &select["metadata"]["sequence"]), (&json!(1_795_142_003_123_i64), &json!(3)));
    assert_eq!(select["metadata"]["original_time"], "2026-11-20T02:33:23.123456Z");
    assert_eq!(select["actor"]["user"]["name"], "alice");
    assert_eq!(select["query_info"]["query_string"], "SELECT\n\u{1b}[2J 1");
    assert_eq!(select["table"]["name"], "public.customers");
    assert_eq!(select["unmapped"]["tables"], json!(["public.customers", "orders"]));
    assert_eq!(select["unmapped"]["binds"], json!(["1", null]));
    let outcomes: Vec<_> = ["3-3", "3-5", "3-6", "3-7", "3-8", "3-9"]
        .iter()
        .map(|id| {
            let event = of(id);
            let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("action"), text("disposition"), text("status"))
        })
        .collect();
    let expected = [
        "Allowed Allowed Success",
        "Denied Blocked Failure",
        "Allowed Alert Failure",
        "Allowed Approved Success",
        "Denied Rejected Failure",
        "Allowed Allowed Unknown",
    ];
    assert_eq!(outcomes, expected);
    let ruling = of("3-11");
    assert_eq!((&ruling["actor"]["user"]["name"], &ruling["entity"]["uid"]), (&json!("eve"), &json!("3-4-x")));
    let refused = of("3-15");
    assert_eq!((&refused["user"]["name"], &refused["src_endpoint"]["ip"]), (&json!("root"), &json!("::1")));
    assert_eq!(uid(&records[0], None), "3-1");
}
