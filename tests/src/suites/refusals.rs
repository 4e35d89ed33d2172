//! What a refused client sees, row by row of the interface's table, read by a stock client: asyncpg, which shows the fields.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::clients::python;
use super::policy::lead_rules;
use crate::harness::gateway::Setup;
use crate::harness::issuer::{claims, header};
use crate::harness::postgres::PASSWORD;
use crate::harness::process::{eventually, finish, free_port, run, spawn};
use crate::harness::wire::{Wire, message};
use crate::harness::{Endpoint, Issuer, PrivatePostgres, Report, Settings, audit};

const DEADLINE: Duration = Duration::from_secs(60);

const RULES: &str = r#"
[[grant]]
targets = ["*"]
groups = ["engineering"]

[[rule]]
name = "no-drops"
classes = ["drop"]
action = "deny"
message = "Use a migration: go/migrations"

[[rule]]
name = "soon-forgotten"
tables = ["public.fleeting"]
classes = ["delete"]
action = "approve"
approvers = ["leads"]
expires = "2s"

[[rule]]
name = "ask-first"
classes = ["delete"]
action = "approve"
approvers = ["leads"]
expires = "1m"
"#;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let dead_port = free_port()?;
    let world = World::start_with(settings, "refusals", |target| setup(target, dead_port))?;
    world.target.execute("shop", "CREATE TABLE orders (id int); CREATE TABLE fleeting (id int)")?;
    report.case("28P01: whatever is wrong with a token, in one text", || token(&world));
    report.case("28000: no grant, or no such target, in one text", || grant(&world));
    report.case("42501: a rule's own words, its name and what to do, and the session goes on", || rule(&world));
    report.case("42501 and 57014: a ruling that says no, and none at all", || rulings(&world));
    report.case("57P01: the token's end, after the running statement", || token_ends(&world));
    report.case("54000: a message over the limit", || too_large(&world));
    report.case("08P01: a protocol violation", || violation(&world));
    report.case("08001 and 08004: no way to the target, told without its address", || target(&world, dead_port));
    report.case("each of them is in the trail", || recorded(&world));
    Ok(())
}

fn setup(target: &PrivatePostgres, dead_port: u16) -> Setup {
    let more = |name: &str, port: u16, user: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{port}\"\ndatabase = \"shop\"\n\
             user = \"{user}\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\n"
        )
    };
    let more = [more("dead", dead_port, "service"), more("locked-out", target.port, "no_such_role"), RULES.into()];
    Setup { grants: String::new(), more: more.concat(), ..Setup::default() }
}

fn ada(world: &World) -> Endpoint {
    world.endpoint("ada@example.com", &["engineering"], true)
}

/// What the client was told, line by line.
fn told(endpoint: &Endpoint, statements: &[&str]) -> Result<Vec<Value>> {
    read(&run(&mut client(endpoint, statements), DEADLINE)?.succeeded()?)
}

fn client(endpoint: &Endpoint, statements: &[&str]) -> Command {
    let mut command = python("asyncpg_words.py");
    command.envs(endpoint.environment()).args(statements);
    command
}

fn start(endpoint: &Endpoint, statements: &[&str]) -> Result<Child> {
    spawn(&mut client(endpoint, statements))
}

fn read(printed: &str) -> Result<Vec<Value>> {
    printed.lines().map(|line| serde_json::from_str(line).with_context(|| format!("it printed {line}"))).collect()
}

/// The only thing the client was told: an error of this code.
fn only_error(lines: &[Value], sqlstate: &str) -> Result<Value> {
    ensure!(lines.len() == 1, "{lines:?}");
    error_at(lines, 0, sqlstate)
}

fn error_at(lines: &[Value], place: usize, sqlstate: &str) -> Result<Value> {
    let error = &lines.get(place).with_context(|| format!("too little was said: {lines:?}"))?["error"];
    ensure!(error["sqlstate"] == sqlstate, "{lines:?}");
    Ok(error.clone())
}

fn text(error: &Value, field: &str) -> String {
    error[field].as_str().unwrap_or_default().to_string()
}

fn token(world: &World) -> Result<()> {
    let right = claims("ada@example.com", &["engineering"], 3_600);
    let changed = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        world.issuer.signed(&header(), &claims)
    };
    let wrong = [
        ("missing", String::new()),
        ("malformed", "no.token".into()),
        ("expired", world.issuer.token_for("ada@example.com", &["engineering"], -60)),
        ("wrong issuer", changed("iss", "https://elsewhere.test".into())),
        ("wrong audience", changed("aud", "somebody-else".into())),
        ("bad signature", Issuer::stranger()?.signed(&header(), &right)),
    ];
    let mut texts = BTreeSet::new();
    for (what, token) in wrong {
        let lines = told(&ada(world).with_password(&token), &["SELECT 1"])?;
        texts.insert(only_error(&lines, "28P01").with_context(|| what.to_string())?.to_string());
    }
    ensure!(texts.len() == 1, "{texts:?}");
    Ok(())
}

fn grant(world: &World) -> Result<()> {
    let outsider = world.endpoint("eve@example.com", &["sales"], true);
    let mut texts = BTreeSet::new();
    for endpoint in [outsider.clone(), outsider.with_dbname("nosuch"), ada(world).with_dbname("nosuch")] {
        let error = only_error(&told(&endpoint, &["SELECT 1"])?, "28000")?;
        texts.insert(error.to_string().replace(&endpoint.dbname, "TARGET"));
    }
    ensure!(texts.len() == 1, "{texts:?}");
    Ok(())
}

fn rule(world: &World) -> Result<()> {
    let lines =
        told(&ada(world), &["DROP TABLE orders", "SELECT 'on'", "simple:DROP TABLE orders", "simple:SELECT 1"])?;
    for place in [0, 2] {
        let error = error_at(&lines, place, "42501")?;
        ensure!(text(&error, "message").contains("Use a migration: go/migrations"), "{error}");
        ensure!(text(&error, "detail").contains("no-drops") && !text(&error, "hint").is_empty(), "{error}");
    }
    ensure!(lines[1]["rows"][0][0] == "on" && lines[3]["rows"] == "SELECT 1", "{lines:?}");
    Ok(())
}

fn rulings(world: &World) -> Result<()> {
    // A table each, so that the one's ticket is not taken for the other's.
    let child = start(&ada(world), &["DELETE FROM orders WHERE id = 1", "SELECT 'on'"])?;
    let mut ticket = None;
    eventually("the statement is held", DEADLINE, || {
        let rows = world.gateway().json(&["approvals", "ls"]).unwrap_or_default();
        ticket = rows.first().and_then(|row| row["id"].as_str().map(str::to_string));
        ticket.is_some()
    })?;
    let ticket = ticket.context("it was just found")?;
    lead_rules(world, "reject", &ticket)?;
    let lines = read(&finish(child, DEADLINE)?.succeeded()?)?;
    waited(&lines, Some(&ticket))?;
    let error = error_at(&lines, 1, "42501")?;
    ensure!(error.to_string().contains(&ticket), "the ticket is not named: {error}");
    ensure!(lines[2]["rows"][0][0] == "on", "{lines:?}");
    let lines = told(&ada(world), &["DELETE FROM fleeting WHERE id = 1", "SELECT 'on'"])?;
    let ticket = waited(&lines, None)?;
    let error = error_at(&lines, 1, "57014")?;
    ensure!(error.to_string().contains(&ticket), "the ticket is not named: {error}");
    ensure!(lines[2]["rows"][0][0] == "on", "{lines:?}");
    Ok(())
}

/// The notice that came first: it names the ticket and where to rule. Returns the ticket.
fn waited(lines: &[Value], ticket: Option<&str>) -> Result<String> {
    let notice = &lines.first().context("nothing was said")?["notice"];
    let (message, hint) = (text(notice, "message"), text(notice, "hint"));
    let named = message.rsplit_once("ticket ").context("the notice names no ticket")?.1.to_string();
    ensure!(hint.contains(&format!("lockgate approvals approve {named}")), "{notice}");
    ensure!(ticket.is_none_or(|ticket| ticket == named), "{notice}");
    Ok(named)
}

fn token_ends(world: &World) -> Result<()> {
    let token = world.issuer.token_for("ada@example.com", &["engineering"], 3);
    let lines = told(&ada(world).with_password(&token), &["SELECT 'whole' FROM pg_sleep(4)", "SELECT 'too-late'"])?;
    ensure!(lines[0]["rows"][0][0] == "whole", "the running statement was cut off: {lines:?}");
    // asyncpg may find the connection closed before it asks; if it was told something, then this.
    if let Ok(error) = error_at(&lines, 1, "57P01") {
        ensure!(text(&error, "severity") == "FATAL", "{error}");
    } else {
        ensure!(lines[1]["closed"].is_string(), "{lines:?}");
    }
    ensure!(!super::policy::reached_target(world, "too-late")?, "a statement started after the token's end");
    let token = world.issuer.token_for("ada@example.com", &["engineering"], 3);
    let mut wire = Wire::connect(&Endpoint { tls_ca: None, ..ada(world).with_password(&token) })?;
    let last = wire.read()?.complaint(); // says nothing, and waits for the end
    ensure!(last.sqlstate == "57P01" && !last.hint.is_empty(), "{last:?}");
    Ok(())
}

fn too_large(world: &World) -> Result<()> {
    // 256 MiB is the limit of one message; a megabyte more is refused, whatever the client still has to say.
    let mut wire = Wire::connect(&Endpoint { tls_ca: None, ..ada(world) })?;
    wire.send(&[&b"Q"[..], &((256_u32 << 20) + 1).to_be_bytes(), b"SELECT 'too-large'"].concat())?;
    let said = wire.read()?.complaint();
    ensure!(said.sqlstate == "54000", "{said:?}");
    ensure!(wire.read_or_end()?.is_none(), "still open");
    ensure!(!super::policy::reached_target(world, "too-large")?, "a part of it was forwarded");
    Ok(())
}

fn violation(world: &World) -> Result<()> {
    for bytes in [message(b'!', b"what"), message(b'Q', b"SELECT 'no end'"), message(b'p', b"again\0")] {
        let mut wire = Wire::connect(&Endpoint { tls_ca: None, ..ada(world) })?;
        wire.send(&bytes)?;
        let said = wire.read()?.complaint();
        ensure!(said.sqlstate == "08P01" && said.severity == "FATAL", "{said:?}");
        ensure!(wire.read_or_end()?.is_none(), "still open");
    }
    Ok(())
}

fn target(world: &World, dead_port: u16) -> Result<()> {
    for (name, sqlstate) in [("dead", "08001"), ("locked-out", "08004")] {
        let error = only_error(&told(&ada(world).with_dbname(name), &["SELECT 1"])?, sqlstate)?.to_string();
        let ports = [dead_port.to_string(), world.target.port.to_string()];
        let secrets = ["127.0.0.1", PASSWORD, "service", "no_such_role", &ports[0], &ports[1]];
        let leak = secrets.iter().find(|secret| error.contains(**secret));
        ensure!(leak.is_none(), "the client is told {leak:?}: {error}");
    }
    Ok(())
}

fn recorded(world: &World) -> Result<()> {
    let records = audit::search(world.gateway(), &[])?;
    for (what, words) in [
        ("a bad token", &["login", "28P01", "Expired"][..]),
        ("no grant", &["login", "28000", "no grant"]),
        ("a rule", &["statement", "deny", "no-drops"]),
        ("a rejected ruling", &["ruling", "rejected", "because-tested"]),
        ("an expired ruling", &["ruling", "expired"]),
        ("the token's end", &["session", "the session's time is over"]),
        ("a message over the limit", &["session", "TooLarge"]),
        ("a protocol violation", &["session", "protocol violation by the Client"]),
        ("a dead target", &["login", "08001", "dead"]),
        ("a target that refuses", &["login", "08004", "locked-out"]),
    ] {
        let found = records.iter().any(|record| {
            let text = record.to_string();
            words.iter().all(|word| text.contains(word))
        });
        ensure!(found, "{what} is not in the trail: {words:?}");
    }
    Ok(())
}
