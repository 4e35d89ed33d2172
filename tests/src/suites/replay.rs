//! Recorded sessions are played as their clients saw them, masks and all, and the trail holds nothing they did not see.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockgate::audit::when;
use serde_json::Value;

use super::World;
use super::clients::python;
use crate::harness::gateway::Setup;
use crate::harness::postgres::BIN;
use crate::harness::process::{built, eventually, finish, run, spawn};
use crate::harness::wire::{SYNC, Wire, bind, complaint, execute, parse, query};
use crate::harness::{Endpoint, Gateway, Report, Settings, audit};

const RULES: &str = r#"
[[rule]]
name = "ask-first"
classes = ["delete"]
action = "approve"
approvers = ["leads"]

[[rule]]
name = "no-ddl"
classes = ["drop"]
action = "deny"

[[mask]]
except_groups = ["fraud"]
columns = ["customers.card_number", "*.ssn"]
style = "last4"

[[mask]]
except_groups = ["fraud"]
detect = ["card", "email"]
style = "fill"
"#;

const TABLES: &str = "\
    CREATE TABLE customers (id int PRIMARY KEY, name text, card_number text, ssn text, note text); \
    INSERT INTO customers VALUES \
      (1, 'Ada Krol', '4111111111111111', '078-05-1120', E'two\nlines'), \
      (2, 'Bob', '5500005555555559', '219-09-9999', 'mail bob@example.com'), \
      (3, '漢字', NULL, NULL, NULL), \
      (100, 'Eve', '4012888888881881', '457-55-5462', 'card 4012888888881881'); \
    CREATE TABLE visits (id int); INSERT INTO visits VALUES (1), (2), (3);";

/// What nobody without an exemption may find, in any file of the trail.
const SECRETS: [&str; 7] = [
    "4111111111111111",
    "5500005555555559",
    "4012888888881881",
    "078-05-1120",
    "219-09-9999",
    "457-55-5462",
    "bob@example.com",
];

const TIMEOUT: Duration = Duration::from_secs(60);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { more: RULES.into(), audit: "payload_kib = 4\nsegment_mib = 1".into(), ..Setup::default() };
    let mut world = World::start(settings, "replay", &setup)?;
    world.target.execute("shop", TABLES)?;
    report.case("a psql session is replayed line by line as psql printed it", || psql(&world));
    report.case("psycopg: text, binary, COPY, errors and cursors are replayed as they were read", || psycopg(&world));
    report.case("columns are named though the client never asks for them; portions of a portal", || protocol(&world));
    report.case("a held statement is replayed with its wait, its ruling and its result", || held(&world));
    report.case("a response beyond payload_kib is cut, and says so", || long(&world));
    report.case("what a client had got when it left is replayed", || left(&world));
    report.case("show prints the response as a table, and as JSON", || show(&world));
    report.case("an asciicast is valid, and --speed and --max-pause are in its times", || cast(&world));
    report.case("a beginning that fits one session will do; an unknown one is named with those near it", || {
        named(&world)
    });
    report.case("--from begins at a statement, a record or a time", || from(&world));
    for case in ["keys", "quits", "interrupted", "terminated"] {
        report.case(&format!("in a terminal: {case}"), || in_terminal(&world, case));
    }
    report
        .case("no secret is in the trail, in any format; the exempt analyst's own view is", || nothing_secret(&world));
    report.case("payloads = \"none\" records no response", || unrecorded(&mut world, &setup));
    Ok(())
}

fn endpoint(world: &World, user: &str) -> Endpoint {
    world.endpoint(user, &["engineering"], false)
}

/// The one session of this person.
fn session_of(world: &World, user: &str) -> Result<String> {
    let records = audit::search(world.gateway(), &["--user", user])?;
    let id = records.first().and_then(|record| record["session"].as_str()).context("no record of that user")?;
    ensure!(records.iter().all(|record| record["session"] == id), "several sessions of {user}");
    Ok(id.to_owned())
}

fn replay(gateway: &Gateway, session: &str, more: &[&str]) -> Result<String> {
    gateway.command(&[&["audit", "replay", session], more].concat())?.succeeded()
}

fn events(world: &World, session: &str, kind: &str) -> Result<Vec<Value>> {
    let mut events = world.gateway().json(&["audit", "replay", session])?;
    events.retain(|event| event["event"] == kind);
    Ok(events)
}

fn psql_command(endpoint: &Endpoint, statements: &[&str]) -> Command {
    // Both streams into one, in order: psql flushes after each statement.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(format!("{BIN}/psql")).arg("-X");
    statements.iter().for_each(|statement| {
        command.args(["-c", statement]);
    });
    command.envs(endpoint.environment()).env("LC_ALL", "C.UTF-8");
    command
}

const SESSION: [&str; 13] = [
    "SELECT * FROM customers ORDER BY id",
    "SELECT id, id * 1.5 AS price, note IS NULL AS silent FROM customers WHERE id > 1 ORDER BY id",
    "SELECT name FROM customers WHERE false",
    "SELECT 1/0",
    "SELECT nmae FROM customers",
    "SELECT 'one' AS a; SELECT 2 AS b, NULL AS c",
    "INSERT INTO visits VALUES (4), (5)",
    "UPDATE visits SET id = id + 10 WHERE id > 3 RETURNING id",
    "DO $$ BEGIN RAISE NOTICE 'hello %', 7; END $$",
    "COPY (SELECT id, NULL, E'tab\\there' FROM visits ORDER BY id) TO STDOUT",
    "BEGIN; DECLARE c CURSOR FOR SELECT card_number FROM customers ORDER BY id",
    "FETCH 2 FROM c",
    "ROLLBACK",
];

/// What is left of a replay without what the replay itself says.
fn spoken(replayed: &str) -> Vec<String> {
    let own = |line: &&str| line.starts_with("-- ") || line.starts_with("orders=> ") || line.starts_with("orders-> ");
    let lines = replayed.lines().skip(2).filter(|line| !own(line)).map(str::trim_end);
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn psql(world: &World) -> Result<()> {
    let endpoint = endpoint(world, "pia@example.com");
    let printed = run(&mut psql_command(&endpoint, &SESSION), TIMEOUT)?.everything();
    ensure!(printed.contains("************1111") && printed.contains("division by zero"), "{printed}");
    let session = session_of(world, "pia@example.com")?;
    let replayed = replay(world.gateway(), &session, &[])?;
    // A tab is shown as spaces, like everything that moves a cursor.
    let printed = printed.replace('\t', "    ");
    let wanted = printed.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned);
    let wanted: Vec<String> = wanted.collect();
    let found = spoken(&replayed);
    let differ = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
    ensure!(differ.is_none() && found.len() == wanted.len(), "{differ:?}, replayed\n{}", found.join("\n"));
    for statement in SESSION {
        ensure!(replayed.contains(&format!("orders=> {statement}\n")), "{statement} is not in\n{replayed}");
    }
    for said in ["pia@example.com, engineering", &session, " masked, ", "closed after 13 statements"] {
        ensure!(replayed.contains(said), "no {said} in\n{replayed}");
    }
    Ok(())
}

fn rows(event: &Value) -> &Value {
    &event["payload"]["results"][0]["rows"]
}

fn psycopg(world: &World) -> Result<()> {
    let endpoint = endpoint(world, "cy@example.com");
    let printed = run(python("psycopg_replay.py").envs(endpoint.environment()), TIMEOUT)?.succeeded()?;
    let got: Value = serde_json::from_str(&printed)?;
    let records = audit::search(world.gateway(), &["--user", "cy@example.com", "--kind", "statement"])?;
    let mut sessions: Vec<&str> = records.iter().filter_map(|record| record["session"].as_str()).collect();
    sessions.dedup();
    ensure!(sessions.len() == 2, "{sessions:?}");
    let mut statements = Vec::new();
    let mut responses = Vec::new();
    for session in sessions {
        statements.extend(events(world, session, "statement")?);
        responses.extend(events(world, session, "response")?);
    }
    ensure!(statements.len() == responses.len(), "{} statements, {} responses", statements.len(), responses.len());
    let of = |text: &str| -> Vec<&Value> {
        let both = statements.iter().zip(&responses);
        both.filter(|(one, _)| one["statement"].as_str().is_some_and(|all| all.contains(text)))
            .map(|(_, one)| one)
            .collect()
    };
    for (name, text) in [("types", "AS document"), ("masked", "AS plastic")] {
        let executions = of(text);
        ensure!(executions.len() == 4, "{name}: {} executions", executions.len());
        for (index, response) in executions.iter().enumerate() {
            ensure!(*rows(response) == got[name], "execution {index}: {response} instead of {}", got[name]);
        }
    }
    ensure!(of("AS plastic")[3]["masked"] == 6, "{}", of("AS plastic")[3]);
    ensure!(*rows(of("WHERE id = $1")[0]) == got["bound"], "{:?}", of("WHERE id = $1"));
    let failed =
        of("nonsense").iter().any(|one| one["payload"]["results"][0]["end"]["error"]["message"] == got["error"]);
    ensure!(failed, "{:?} instead of {}", of("nonsense"), got["error"]);
    let copy = of("COPY (SELECT");
    ensure!(copy[0]["payload"]["results"][0]["copy"] == got["copy"], "{:?}", copy[0]);
    let fetched: Vec<Value> = of("FETCH").iter().filter_map(|one| rows(one).as_array().cloned()).flatten().collect();
    ensure!(Value::from(fetched.clone()) == got["cursor"], "{fetched:?} instead of {}", got["cursor"]);
    Ok(())
}

fn protocol(world: &World) -> Result<()> {
    let mut wire = Wire::connect(&endpoint(world, "wim@example.com"))?;
    wire.send(&[parse("s", "SELECT id, ssn FROM customers ORDER BY id"), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    wire.send(&[bind("", "s", &[], 1), execute("", 0), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    wire.send(&[bind("p", "s", &[], 0), execute("p", 1), execute("p", 2), execute("p", 0), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    drop(wire);
    let responses = events(world, &session_of(world, "wim@example.com")?, "response")?;
    let shown: Vec<String> = responses.iter().map(|one| rows(one).to_string()).collect();
    for response in &responses {
        let columns = &response["payload"]["results"][0]["columns"];
        ensure!(columns[0]["name"] == "id" && columns[1]["name"] == "ssn", "{response}");
    }
    ensure!(shown.len() == 4 && shown[0].starts_with("[[\"1\",") && shown[0].contains("\"100\""), "{shown:?}");
    ensure!(shown[1].starts_with("[[\"1\",") && !shown[1].contains("\"2\""), "{shown:?}");
    ensure!(shown[2].starts_with("[[\"2\",") && shown[2].contains("[\"3\",null]"), "{shown:?}");
    ensure!(responses[1]["payload"]["results"][0]["end"] == "suspended", "{}", responses[1]);
    Ok(())
}

fn held(world: &World) -> Result<()> {
    let endpoint = endpoint(world, "hal@example.com");
    let deleting = spawn(&mut psql_command(&endpoint, &["DROP TABLE visits", "DELETE FROM visits WHERE id = 1"]))?;
    let gateway = world.gateway();
    let mut ticket = None;
    eventually("the statement is held", TIMEOUT, || {
        let held = gateway.json(&["approvals", "ls"]).unwrap_or_default();
        ticket =
            held.iter().find(|one| one["state"] == "pending").and_then(|one| one["id"].as_str()).map(str::to_owned);
        ticket.is_some()
    })?;
    let ticket = ticket.context("a ticket")?;
    let lead = world.issuer.token("lee@example.com", &["leads"]);
    gateway.command(&["approvals", "approve", &ticket, "--reason", "asked nicely", "--token", &lead])?.succeeded()?;
    let printed = finish(deleting, TIMEOUT)?.everything();
    ensure!(printed.contains("DELETE 1"), "{printed}");
    let session = session_of(world, "hal@example.com")?;
    let replayed = replay(gateway, &session, &[])?;
    let mut rest = &replayed[..];
    for said in [
        "orders=> DROP TABLE visits",
        "-- denied by rule no-ddl: nothing of it was run",
        "orders=> DELETE FROM visits WHERE id = 1",
        &format!("-- waits for approval by rule ask-first: ticket {ticket}"),
        "-- approved after ",
        "by lee@example.com: asked nicely",
        "DELETE 1\n",
        "-- 1 row, ",
    ] {
        let at = rest.find(said).with_context(|| format!("no {said} where it belongs in\n{replayed}"))?;
        rest = &rest[at + said.len()..];
    }
    let ruling = events(world, &session, "ruling")?;
    ensure!(ruling.len() == 1 && ruling[0]["waited_us"].as_u64().is_some_and(|us| us > 0), "{ruling:?}");
    Ok(())
}

fn long(world: &World) -> Result<()> {
    let mut wire = Wire::connect(&endpoint(world, "lu@example.com"))?;
    wire.query("SELECT n, repeat('x', 50) AS filler FROM generate_series(1, 5000) n")?;
    wire.query("SELECT repeat('y', 100000) AS one")?;
    let messages = wire.query("SELECT repeat('z', 9000)::int")?;
    ensure!(complaint(&messages).is_some());
    drop(wire);
    let session = session_of(world, "lu@example.com")?;
    let responses = events(world, &session, "response")?;
    let [many, one, error] = &responses[..] else { anyhow::bail!("{} responses", responses.len()) };
    let kept = rows(many).as_array().context("no rows")?;
    ensure!(many["payload"]["cut"] == true && many["rows"] == 5000, "{many}");
    ensure!(kept.len() > 20 && kept.len() < 70 && kept[0][0] == "1", "{} rows", kept.len());
    ensure!(many["payload"]["results"][0]["end"]["tag"] == "SELECT 5000", "{many}");
    let value = rows(one)[0][0].as_str().context("no value")?;
    ensure!(one["payload"]["cut"] == true && value.starts_with("yyyy") && value.ends_with('…'), "{one}");
    ensure!(value.len() > 2000 && value.len() < 4096, "{} bytes", value.len());
    ensure!(error["error"] == "22P02" && error["payload"]["cut"] == true, "{error}");
    ensure!(replay(world.gateway(), &session, &[])?.contains("longer than payload_kib"));
    Ok(())
}

fn left(world: &World) -> Result<()> {
    let mut wire = Wire::connect(&endpoint(world, "gus@example.com"))?;
    // A notice is what makes the target send what it has.
    let waits = "SELECT 'seen' AS word; DO $$ BEGIN RAISE NOTICE 'on'; PERFORM pg_sleep(60); END $$";
    wire.send(&query(waits))?;
    while wire.read()?.tag != b'D' {}
    drop(wire);
    eventually("the session is closed", TIMEOUT, || {
        let closed = audit::search(world.gateway(), &["--user", "gus@example.com", "--contains", "closed after"]);
        closed.is_ok_and(|closed| closed.len() == 1)
    })?;
    let session = session_of(world, "gus@example.com")?;
    let response = events(world, &session, "response")?.pop().context("no response")?;
    ensure!(response["error"] == "disconnected" && *rows(&response) == serde_json::json!([["seen"]]), "{response}");
    let replayed = replay(world.gateway(), &session, &[])?;
    ensure!(replayed.contains(" seen\n") && replayed.contains("the connection ended before it was over"), "{replayed}");
    Ok(())
}

fn show(world: &World) -> Result<()> {
    let records =
        audit::search(world.gateway(), &["--user", "pia@example.com", "--contains", "SELECT * FROM customers"])?;
    let id = records.first().and_then(|record| record["id"].as_str()).context("no record")?;
    let shown = world.gateway().command(&["audit", "show", id])?.succeeded()?;
    for part in ["|   card_number    |", "| Bob      | ************5559 |", "| two   ", "(4 rows)"] {
        ensure!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    let json = world.gateway().json(&["audit", "show", id])?;
    ensure!(json[0]["payload"]["results"][0]["columns"][2]["name"] == "card_number", "{:?}", json[0]);
    ensure!(
        json[0]["payload"]["results"][0]["rows"][2] == serde_json::json!(["3", "漢字", null, null, null]),
        "{:?}",
        json[0]
    );
    Ok(())
}

/// Seconds, kind, text.
type Shown = (f64, String, String);

/// Header and events of a cast, checked against the format's rules.
fn read_cast(text: &str) -> Result<(Value, Vec<Shown>)> {
    let mut lines = text.lines();
    let header: Value = serde_json::from_str(lines.next().context("no header")?)?;
    ensure!(header["version"] == 2, "{header}");
    for size in ["width", "height"] {
        ensure!(header[size].as_u64().is_some_and(|size| size > 0), "{header}");
    }
    let mut events: Vec<Shown> = Vec::new();
    for line in lines {
        let event: Shown = serde_json::from_str(line)?;
        ensure!(matches!(event.1.as_str(), "o" | "m"), "{line}");
        ensure!(events.last().is_none_or(|before| before.0 <= event.0), "time runs backwards: {line}");
        ensure!(event.1 == "m" || !event.2.replace("\r\n", "").contains('\n'), "a bare line feed: {line}");
        events.push(event);
    }
    Ok((header, events))
}

fn cast(world: &World) -> Result<()> {
    let user = "tim@example.com";
    let endpoint = endpoint(world, user);
    let statements = ["SELECT 'first'", "SELECT pg_sleep(0.3)", "SELECT 'third'"];
    run(&mut psql_command(&endpoint, &statements), TIMEOUT)?.succeeded()?;
    let session = session_of(world, user)?;
    let file = world.folder.join("session.cast");
    let path = file.display().to_string();
    let mut casts = Vec::new();
    for more in [&[][..], &["--speed", "4"], &["--max-pause", "100ms"]] {
        replay(world.gateway(), &session, &[&["--export", &path], more].concat())?;
        casts.push(read_cast(&std::fs::read_to_string(&file)?)?);
    }
    let [(header, plain), (_, fast), (_, short)] = &casts[..] else { anyhow::bail!("three casts") };
    let records = audit::search(world.gateway(), &["--user", user])?;
    let opened = records[0]["time"].as_str().context("no time")?;
    let stamp = header["timestamp"].as_i64().context("no timestamp")?;
    ensure!(when::rfc3339(stamp * 1_000_000)[..19] == opened[..19], "{opened} is not {stamp}");
    ensure!(plain.len() == fast.len() && plain.len() == short.len());
    let markers: Vec<&str> = plain.iter().filter(|event| event.1 == "m").map(|event| event.2.as_str()).collect();
    ensure!(markers == ["#1 SELECT 'first'", "#2 SELECT pg_sleep(0.3)", "#3 SELECT 'third'"], "{markers:?}");
    for (one, four) in plain.iter().zip(fast) {
        ensure!((one.0 / 4.0 - four.0).abs() < 2e-6 && one.2 == four.2, "{one:?} {four:?}");
    }
    let gaps = |cast: &[Shown]| cast.windows(2).map(|two| two[1].0 - two[0].0).fold(0.0, f64::max);
    // What the target slept at least, and the bound on pauses at most.
    ensure!((0.3..2.000_001).contains(&gaps(plain)), "the sleep takes {} s", gaps(plain));
    ensure!((gaps(short) - 0.1).abs() < 1e-6, "a pause of {} s", gaps(short));
    let everything: String = plain.iter().map(|event| event.2.as_str()).collect();
    ensure!(everything.contains("SELECT 'third'") && everything.contains("(1 row)"), "{everything}");
    let printed = replay(world.gateway(), &session, &["--export", "-"])?;
    ensure!(read_cast(&printed)?.1.len() == plain.len());
    Ok(())
}

fn named(world: &World) -> Result<()> {
    let session = session_of(world, "pia@example.com")?;
    let whole = replay(world.gateway(), &session, &[])?;
    ensure!(replay(world.gateway(), &session[..12], &[])? == whole, "twelve digits");
    let record = audit::search(world.gateway(), &["--session", &session[..12], "--limit", "1"])?;
    let id = record.first().and_then(|record| record["id"].as_str()).context("a record")?;
    ensure!(replay(world.gateway(), id, &[])? == whole, "by its record {id}");
    let mut wrong = session.clone();
    wrong.replace_range(15.., if session.ends_with('0') { "1" } else { "0" });
    for unknown in [wrong.as_str(), "nonsense", "*", "\u{1b}[31m", "0-999999"] {
        let answer = world.gateway().command(&["audit", "replay", unknown])?;
        ensure!(answer.status == Some(1) && answer.stdout.is_empty(), "{unknown}: {}", answer.everything());
        ensure!(
            answer.stderr.contains("there is no session") && !answer.stderr.contains('\u{1b}'),
            "{}",
            answer.stderr
        );
        ensure!(
            unknown != wrong || answer.stderr.contains(&session),
            "{session} is not near {unknown}: {}",
            answer.stderr
        );
    }
    let several = world.gateway().command(&["audit", "replay", ""])?;
    ensure!(several.status == Some(1), "{}", several.everything());
    Ok(())
}

fn from(world: &World) -> Result<()> {
    let session = session_of(world, "pia@example.com")?;
    let by_number = replay(world.gateway(), &session, &["--from", "4"])?;
    ensure!(by_number.trim_start().starts_with("-- ") && by_number.contains("#4"), "{by_number}");
    ensure!(!by_number.contains("#3 ") && by_number.contains("SELECT 1/0"), "{by_number}");
    let fourth = &events(world, &session, "statement")?[3];
    for name in ["id", "time"] {
        let from = fourth[name].as_str().context("a name")?;
        ensure!(replay(world.gateway(), &session, &["--from", from])? == by_number, "--from {from}");
    }
    // Its outcome is a record as well, and stands in files others read.
    let (shard, sequence) = fourth["id"].as_str().and_then(|id| id.split_once('-')).context("an id")?;
    let sequence: u64 = sequence.parse()?;
    let part = (sequence + 1..sequence + 20).map(|sequence| format!("{shard}-{sequence}")).find(|part| {
        let shown = world.gateway().json(&["audit", "show", part]);
        shown.is_ok_and(|shown| shown.first().is_some_and(|shown| shown["id"] == fourth["id"]))
    });
    let part = part.context("no outcome of the fourth statement")?;
    ensure!(replay(world.gateway(), &session, &["--from", &part])? == by_number, "--from {part}");
    let behind = world.gateway().command(&["audit", "replay", &session, "--from", "99"])?;
    ensure!(behind.status == Some(2) && behind.stderr.contains("13 statements"), "{}", behind.everything());
    Ok(())
}

fn in_terminal(world: &World, case: &str) -> Result<()> {
    let user = "kay@example.com";
    if audit::search(world.gateway(), &["--user", user])?.is_empty() {
        let statements = ["SELECT 'first'", "SELECT 'second'", "SELECT 'third'"];
        run(&mut psql_command(&endpoint(world, user), &statements), TIMEOUT)?.succeeded()?;
    }
    let session = session_of(world, user)?;
    let config = world.gateway().config().display().to_string();
    let mut command = python("replay_keys.py");
    command.arg(case).arg(built("lockgate")?);
    command.args(["audit", "replay", &session, "--speed", "0.01", "--config", &config]);
    run(&mut command, TIMEOUT)?.succeeded()?;
    Ok(())
}

fn nothing_secret(world: &World) -> Result<()> {
    let data = world.gateway().home().join("data");
    for (file, bytes) in audit::contents(&data)? {
        for secret in SECRETS {
            ensure!(!audit::holds(&bytes, secret), "{secret} is in {}", file.display());
        }
    }
    let mut fay = Wire::connect(&world.endpoint("fay@example.com", &["fraud"], false))?;
    fay.extended("SELECT card_number FROM customers WHERE id = 1", &[], 1)?;
    let found = audit::contents(&data)?.iter().any(|(_, bytes)| audit::holds(bytes, SECRETS[0]));
    ensure!(found, "what the exempt analyst saw is not in the trail: this search would find nothing at all");
    let responses = events(world, &session_of(world, "fay@example.com")?, "response")?;
    ensure!(*rows(&responses[0]) == serde_json::json!([[SECRETS[0]]]), "{}", responses[0]);
    Ok(())
}

fn unrecorded(world: &mut World, setup: &Setup) -> Result<()> {
    let none = Setup { audit: "payloads = \"none\"".into(), ..setup.clone() };
    world.gateway().configure(&world.target, &world.issuer, &none)?;
    world.gateway_mut().terminate()?;
    world.gateway_mut().start_again()?;
    run(&mut psql_command(&endpoint(world, "non@example.com"), &["SELECT 'a word that is not kept' || ''"]), TIMEOUT)?
        .succeeded()?;
    let session = session_of(world, "non@example.com")?;
    let responses = events(world, &session, "response")?;
    ensure!(responses.len() == 1 && responses[0]["payload"].is_null() && responses[0]["rows"] == 1, "{responses:?}");
    ensure!(replay(world.gateway(), &session, &[])?.contains("(the response was not recorded)"));
    // What was recorded before is still there.
    ensure!(replay(world.gateway(), &session_of(world, "pia@example.com")?, &[])?.contains("************1111"));
    Ok(())
}
