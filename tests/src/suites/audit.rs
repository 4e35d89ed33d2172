//! The trail answers who did what; it and the target's own log tell of the same statements; a full one blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::clients::{node, python};
use crate::harness::csvlog::Line;
use crate::harness::gateway::Setup;
use crate::harness::postgres::BIN;
use crate::harness::process::{eventually, run};
use crate::harness::wire::{SYNC, Wire, bind, complaint, execute, message, parse, query, tags};
use crate::harness::{Gateway, PrivatePostgres, Report, Settings, audit};

const RULES: &str = "[[rule]]\nname = \"fast\"\nclasses = [\"function_call\"]\naction = \"allow\"\n\
                     [[rule]]\nname = \"unwanted\"\nwords = [\"nobody_calls_this\"]\naction = \"deny\"\n";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "audit", &Setup { more: RULES.into(), ..Setup::default() })?;
    world.target.execute("shop", "CREATE TABLE orders (id int, note text); CREATE TABLE other (id int)")?;
    report.case("a record tells who, where, what, and what came of it", || whole_record(&world));
    report.case("search answers by user, table, class, decision and text", || filters(&world));
    report.case("bind values are recorded, NULL and binary too", || binds(&world));
    report.case("control characters of a statement never reach the terminal raw", || control_characters(&world));
    report.case("each run of a statement is recorded once, as the target logged it", || exact_counts(&world));
    report.case("joined with the target's log after real clients: the same statements", || joined(&world));
    report.case("what a name stands for is recorded where it is used", || by_name(&world));
    report.case("a FunctionCall is recorded with its function and values", || function_call(&world));
    report.case("the trail survives a restart", || restart(&world));
    report.case("with async durability nothing is lost by a clean stop", || asynchronous(settings, &world));
    report.case("what is kept between two frames is found at once, and after kill -9", || kept(settings, &world));
    report.case("where no stage can be made each round is written", || no_stage(settings, &world));
    report.case("a full trail blocks: nothing runs unrecorded", || full_ring(settings, &world));
    Ok(())
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

/// The one record of the statement with this text.
fn record_of(gateway: &Gateway, text: &str) -> Result<Value> {
    let mut found = audit::search(gateway, &["--contains", text])?;
    found.retain(|record| record["kind"] == "statement");
    ensure!(found.len() == 1, "{} records of {text:?}", found.len());
    Ok(found.remove(0))
}

fn whole_record(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("SET application_name = 'teller'")?;
    let messages = wire.query("INSERT INTO orders SELECT n, 'w1' FROM generate_series(1, 12) n RETURNING id")?;
    ensure!(complaint(&messages).is_none());
    let record = record_of(world.gateway(), "'w1'")?;
    ensure!(record["user"] == "ada@example.com" && record["target"] == "orders", "{record}");
    ensure!(record["groups"] == serde_json::json!(["engineering"]), "{record}");
    ensure!(record["decision"] == "allow" && record["rows"] == 12, "{record}");
    ensure!(record["error"].is_null() && record["duration_us"].as_u64().is_some(), "{record}");
    let listed =
        |name: &str, wanted: &str| record[name].as_array().is_some_and(|all| all.iter().any(|one| one == wanted));
    ensure!(listed("classes", "insert") && listed("tables", "orders"), "{record}");
    ensure!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record}");
    wire.query("SELECT 1/0 AS w2")?;
    ensure!(record_of(world.gateway(), "AS w2")?["error"] == "22012");
    wire.query("SELECT nobody_calls_this() /* w3 */")?;
    let denied = record_of(world.gateway(), "/* w3 */")?;
    ensure!(denied["decision"] == "deny" && denied["rule"] == "unwanted", "{denied}");
    for name in ["id", "time", "session", "actor", "application", "statement", "binds", "ticket", "bytes", "masked"] {
        ensure!(record.get(name).is_some(), "no {name}: {record}");
    }
    Ok(())
}

fn filters(world: &World) -> Result<()> {
    let mut eve = Wire::connect(&world.endpoint("eve@example.com", &["sales"], false))?;
    eve.query("DELETE FROM orders WHERE id = 3 /* f1 */")?;
    eve.query("SELECT * FROM other /* f2 */")?;
    session(world)?.query("DELETE FROM public.other WHERE id = 3 /* f3 */")?;
    let found = |arguments: &[&str]| -> Result<BTreeSet<String>> {
        let records = audit::search(world.gateway(), &[&["--contains", "/* f"], arguments].concat())?;
        let text = |record: &Value| record["statement"].as_str().unwrap_or_default().to_string();
        Ok(records.iter().map(|record| text(record)[text(record).len() - 8..].to_string()).collect())
    };
    let all = |wanted: &[&str]| wanted.iter().map(|name| format!("/* {name} */")).collect::<BTreeSet<_>>();
    for (arguments, wanted) in [
        (&["--user", "eve@example.com"][..], &["f1", "f2"][..]),
        (&["--table", "orders"], &["f1"]),
        (&["--table", "other"], &["f2", "f3"]),
        (&["--class", "delete"], &["f1", "f3"]),
        (&["--class", "delete", "--user", "ada@example.com"], &["f3"]),
        (&["--target", "orders"], &["f1", "f2", "f3"]),
        (&["--target", "elsewhere"], &[]),
        (&["--decision", "deny"], &[]),
        (&["--until", "2020-01-01T00:00:00Z"], &[]),
        (&["--since", "2020-01-01T00:00:00Z"], &["f1", "f2", "f3"]),
    ] {
        let seen = found(arguments)?;
        ensure!(seen == all(wanted), "{arguments:?}: {seen:?}");
    }
    Ok(())
}

fn binds(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.extended("SELECT $1::text /* b1 */, $2::text", &["späße ' \" \\", "second"], 0)?;
    let record = record_of(world.gateway(), "/* b1 */")?;
    ensure!(record["binds"] == serde_json::json!(["späße ' \" \\", "second"]), "{record}");
    run(
        python("psycopg_binds.py").envs(world.endpoint("ada@example.com", &["engineering"], false).environment()),
        Duration::from_secs(60),
    )?
    .succeeded()?;
    let record = record_of(world.gateway(), "/* b2 */")?;
    let binds = record["binds"].as_array().context("no binds")?;
    ensure!(binds.len() == 3 && binds[0].is_null() && binds[1] == "text", "{record}");
    ensure!(binds[2].as_str().is_some_and(|hex| hex.to_lowercase().contains("00ff41")), "{record}");
    Ok(())
}

fn by_name(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in [
        "PREPARE gone (int) AS DELETE FROM orders WHERE id = $1",
        "EXECUTE gone(999) /* n1 */",
        "BEGIN",
        "DECLARE k CURSOR FOR SELECT * FROM other",
        "FETCH 3 FROM k /* n2 */",
        "COMMIT",
    ] {
        let messages = wire.query(sql)?;
        ensure!(complaint(&messages).is_none(), "{sql}: {messages:?}");
    }
    let (run, fetched) = (record_of(world.gateway(), "/* n1 */")?, record_of(world.gateway(), "/* n2 */")?);
    ensure!(run["classes"] == serde_json::json!(["delete", "execute", "prepare"]), "{run}");
    ensure!(run["tables"] == serde_json::json!(["orders"]), "{run}");
    ensure!(fetched["tables"] == serde_json::json!(["other"]), "{fetched}");
    ensure!(fetched["classes"].as_array().is_some_and(|all| all.iter().any(|class| class == "select")), "{fetched}");
    Ok(())
}

/// abs(int4) of -5, values and result as text.
fn function_call(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let body = [&1397u32.to_be_bytes()[..], b"\0\x01\0\0", b"\0\x01\0\0\0\x02-5", b"\0\0"].concat();
    wire.send(&message(b'F', &body))?;
    let messages = wire.read_until_ready()?;
    ensure!(tags(&messages) == "VZ", "{messages:?}");
    let record = record_of(world.gateway(), "fastpath function call: OID 1397")?;
    ensure!(record["binds"] == serde_json::json!(["-5"]), "{record}");
    ensure!(record["classes"] == serde_json::json!(["function_call"]) && record["rule"] == "fast", "{record}");
    Ok(())
}

fn control_characters(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("SELECT 'c1 \u{1b}[2J\r\n\u{7}' /* \u{9b}31m */")?;
    for output in ["table", "json", "csv"] {
        let shown = world.gateway().command(&["audit", "search", "--contains", "c1 ", "-o", output])?.succeeded()?;
        ensure!(shown.contains("c1"), "{output}: {shown:?}");
        let raw = |character: char| {
            (character.is_control() && character != '\n') || ('\u{80}'..'\u{a0}').contains(&character)
        };
        ensure!(!shown.contains(raw), "{output}: {shown:?}");
    }
    Ok(())
}

fn exact_counts(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.send(&[parse("n", "SELECT $1::int /* n-prepared */"), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    for number in 0..7 {
        wire.send(&[bind("", "n", &[&number.to_string()], 0), execute("", 0), SYNC.to_vec()].concat())?;
        wire.read_until_ready()?;
    }
    for _ in 0..5 {
        wire.query("SELECT 1 /* n-simple */")?;
        wire.extended("SELECT 1 /* n-extended */", &[], 0)?;
    }
    wire.query("SELECT 1 /* n-several */; SELECT 2")?;
    wire.send(&(0..9).flat_map(|_| query("SELECT 3 /* n-pipelined */")).collect::<Vec<_>>())?;
    for _ in 0..9 {
        wire.read_until_ready()?;
    }
    let mut logged: BTreeMap<String, u32> = BTreeMap::new();
    for line in world.target.log()? {
        if let Some(text) = line.statement().filter(|text| text.contains("/* n-")) {
            *logged.entry(text.to_string()).or_default() += 1;
        }
    }
    ensure!(logged.len() == 5, "{logged:?}");
    let recorded = audit::forwarded(&audit::search(world.gateway(), &["--contains", "/* n-"])?);
    for (statement, count) in logged {
        let found = recorded.get(&statement).copied().unwrap_or_default();
        ensure!(found.requests == count && found.outcomes == count, "{statement}: logged {count}, recorded {found:?}");
    }
    Ok(())
}

fn joined(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], true);
    let deadline = Duration::from_secs(300);
    for mut client in [python("psycopg_client.py"), python("asyncpg_client.py"), node("node_client.cjs")] {
        run(client.envs(endpoint.environment()), deadline)?.succeeded()?;
    }
    for arguments in [&["-i", "-q"][..], &["-M", "simple", "-t", "50"], &["-M", "prepared", "-t", "50"]] {
        let mut pgbench = Command::new(format!("{BIN}/pgbench"));
        run(pgbench.args(arguments).envs(endpoint.environment()), deadline)?.succeeded()?;
    }
    let joined = Joined::of(world.gateway(), &world.target, "shop", "service")?;
    joined.agree(300)
}

/// The trail beside the target's own log.
pub(super) struct Joined {
    /// Different statements in the target's log.
    logged: usize,
    unrecorded: Vec<String>,
    unlogged: Vec<String>,
}

impl Joined {
    /// `database` and `user`: what the gateway opens, and as whom; nobody else does.
    pub(super) fn of(gateway: &Gateway, target: &PrivatePostgres, database: &str, user: &str) -> Result<Joined> {
        let records = audit::search(gateway, &[])?;
        let recorded = audit::forwarded(&records);
        let mut logged = BTreeSet::new();
        let mut unrecorded = Vec::new();
        let through_us =
            |line: &&Line| line.user == user && line.database == database && !is_the_gateways_own(&line.application);
        for line in target.log()?.iter().filter(through_us) {
            let Some(text) = line.statement() else { continue };
            logged.insert(text.to_string());
            if !is_recorded(&recorded, text) {
                unrecorded.push(text.to_string());
            }
        }
        // The other way: whatever ended well was run. What fails to parse at the target is logged as an error, not a statement.
        let unlogged = records
            .iter()
            .filter(|record| {
                record["kind"] == "statement" && record["error"].is_null() && !record["duration_us"].is_null()
            })
            .filter(|record| record["statement_bytes"].is_null())
            .filter_map(|record| record["statement"].as_str().map(str::to_string))
            .filter(|text| !text.trim().is_empty() && !logged.contains(text))
            .collect();
        Ok(Joined { logged: logged.len(), unrecorded, unlogged })
    }

    /// On no fewer than so many different statements.
    pub(super) fn agree(&self, at_least: usize) -> Result<()> {
        ensure!(self.logged >= at_least, "only {} statements in the target's log: too little was done", self.logged);
        let first = |list: &[String]| list.first().map(|text| text.chars().take(400).collect::<String>());
        let (unrecorded, unlogged) = (&self.unrecorded, &self.unlogged);
        ensure!(unrecorded.is_empty(), "{} logged and not recorded, first: {:?}", unrecorded.len(), first(unrecorded));
        ensure!(unlogged.is_empty(), "{} recorded and never run, first: {:?}", unlogged.len(), first(unlogged));
        Ok(())
    }
}

/// A long statement is recorded by its beginning.
fn is_recorded(recorded: &BTreeMap<String, audit::Recorded>, text: &str) -> bool {
    const CUT_BYTES_MIN: usize = 16 * 1024;
    recorded.contains_key(text)
        || (text.len() > CUT_BYTES_MIN
            && recorded
                .keys()
                .any(|beginning| beginning.len() >= CUT_BYTES_MIN && text.starts_with(beginning.as_str())))
}

/// The gateway asks the target's catalogue for table and column names, on connections of its own.
fn is_the_gateways_own(application: &str) -> bool {
    application.starts_with("lockgate")
}

fn restart(world: &World) -> Result<()> {
    let before = audit::search(world.gateway(), &[])?.len();
    let setup = Setup { more: RULES.into(), audit: "commit_interval = \"10s\"\n".into(), ..Setup::default() };
    let mut other = Gateway::start(world.folder.as_path(), &world.target, &world.issuer, &setup)?;
    let endpoint = other.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    Wire::connect(&endpoint)?.query("SELECT 'before the restart'")?;
    let asked = Instant::now();
    ensure!(other.terminate()? == Some(0), "TERM did not end it well: {}", other.log());
    ensure!(asked.elapsed() < Duration::from_secs(8), "a stop does not wait for the commit interval");
    let stage = other.home().join("data/segments/shard-0/stage");
    ensure!(!stage.exists(), "a clean stop keeps nothing that a start would have to write");
    other.start_again()?;
    Wire::connect(&endpoint)?.query("SELECT 'after the restart'")?;
    let found = audit::search(&other, &["--contains", "the restart"])?;
    ensure!(found.len() == 2, "{found:?}");
    let verified = other.command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    ensure!(audit::search(world.gateway(), &[])?.len() >= before, "one gateway's trail is not another's");
    Ok(())
}

fn asynchronous(settings: &Settings, world: &World) -> Result<()> {
    const STATEMENTS: u32 = 300;
    // All of it within one interval: what a clean stop leaves behind is what it wrote last.
    let setup = Setup { durability: "async", audit: "commit_interval = \"1s\"\n".into(), ..Setup::default() };
    let mut gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    let mut wires = (0..4).map(|_| Wire::connect(&endpoint)).collect::<Result<Vec<_>>>()?;
    let mut wanted = BTreeSet::new();
    for number in 0..STATEMENTS {
        let text = format!("SELECT 'async-{number}'");
        let wire = &mut wires[number as usize % 4];
        ensure!(wire.value(&text)? == format!("async-{number}"));
        wanted.insert(text);
    }
    let refused = Wire::refusal(&endpoint.with_password("wrong"))?;
    ensure!(refused.sqlstate == "28P01", "{refused:?}");
    drop(wires);
    ensure!(gateway.terminate()? == Some(0), "TERM did not end it well: {}", gateway.log());
    let records = audit::search(&gateway, &[])?;
    let recorded = audit::forwarded(&records);
    let found: BTreeSet<String> = recorded.keys().filter(|text| text.contains("async-")).cloned().collect();
    ensure!(found == wanted, "not in the trail: {:?}", wanted.difference(&found).collect::<Vec<_>>());
    let once = audit::Recorded { requests: 1, outcomes: 1 };
    let wrong = recorded.iter().find(|(text, recorded)| text.contains("async-") && **recorded != once);
    ensure!(wrong.is_none(), "{wrong:?}");
    let count = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    ensure!((count("session"), count("login")) == (8, 1), "{} sessions, {} logins", count("session"), count("login"));
    let verified = gateway.command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    Ok(())
}

fn kept(settings: &Settings, world: &World) -> Result<()> {
    const STATEMENTS: usize = 40;
    // No frame is written while this looks.
    let audit = "commit_interval = \"10s\"\nsegment_mib = 1\n".to_owned();
    let setup = Setup { durability: "group", audit, ..Setup::default() };
    let mut gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    let mut wires = (0..4).map(|_| Wire::connect(&endpoint)).collect::<Result<Vec<_>>>()?;
    for number in 0..STATEMENTS {
        wires[number % 4].query(&format!("SELECT 'kept-{number}'"))?;
    }
    let found = |gateway: &Gateway, how: &[&str], when: &str| -> Result<()> {
        let records = gateway.json(&[&["audit"], how, &["--contains", "'kept-"]].concat())?;
        let ended = records.iter().filter(|record| !record["duration_us"].is_null()).count();
        ensure!((records.len(), ended) == (STATEMENTS, STATEMENTS), "{when}: {} found, {ended} ended", records.len());
        Ok(())
    };
    found(&gateway, &["search"], "at once")?;
    found(&gateway, &["tail", "--no-follow", "-n", "100"], "by tail")?;
    ensure!(!is_written(&gateway, "'kept-")?, "written already: this shows nothing about the stage");
    gateway.kill()?;
    found(&gateway, &["search"], "after kill -9")?;
    gateway.configure(&world.target, &world.issuer, &Setup { shards: 1, ..setup })?;
    gateway.start_again()?;
    found(&gateway, &["search"], "after a start with one shard")?;
    let told = audit::search(&gateway, &["--kind", "gateway", "--contains", "were kept, and are written now"])?;
    ensure!(told.len() == 2, "of both shards: {told:?}");
    let verified = gateway.command(&["audit", "verify"])?;
    ensure!(verified.status == Some(0), "{}", verified.everything());
    Ok(())
}

/// Does a segment hold it, whatever a stage holds?
fn is_written(gateway: &Gateway, text: &str) -> Result<bool> {
    let files = audit::contents(&gateway.home().join("data/segments"))?;
    let is_segment = |path: &Path| path.extension().is_some_and(|it| it == "seg");
    Ok(files.iter().any(|(path, bytes)| is_segment(path) && audit::holds(bytes, text)))
}

/// A full disk keeps a stage from being made, and so does a folder in its place.
fn no_stage(settings: &Settings, world: &World) -> Result<()> {
    let audit = "commit_interval = \"10s\"\nsegment_mib = 1\n".to_owned();
    let setup = Setup { durability: "group", shards: 1, audit, ..Setup::default() };
    let mut gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    gateway.kill()?;
    std::fs::create_dir(gateway.home().join("data/segments/shard-0/stage.tmp"))?;
    gateway.start_again()?;
    let mut wire = Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false))?;
    for number in 0..5 {
        wire.query(&format!("SELECT 'unstaged-{number}'"))?;
        let written = is_written(&gateway, &format!("'unstaged-{number}"))?;
        ensure!(written, "statement {number} was answered and is in no segment");
    }
    ensure!(gateway.log().contains("there is no stage"), "the log does not say why");
    gateway.kill()?;
    let found = audit::search(&gateway, &["--contains", "'unstaged-"])?;
    ensure!(found.len() == 5, "{found:?}");
    Ok(())
}

fn full_ring(settings: &Settings, world: &World) -> Result<()> {
    let setup = Setup {
        shards: 1,
        audit: "segment_mib = 1\nsegments_per_shard = 2\narchive = false\n".into(),
        server: "login_timeout = \"2s\"\n".into(),
        ..Setup::default()
    };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let mut wire = Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false))?;
    wire.stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let filler = "x".repeat(8_000);
    let mut answered = 0;
    let mut refused = false;
    for number in 0..2_000 {
        match wire.query(&format!("SELECT 'full-{number}' /* {filler} */")) {
            Ok(messages) => match complaint(&messages) {
                None => answered += 1,
                Some(said) => {
                    ensure!(said.sqlstate == "58030", "{said:?}");
                    refused = true;
                    break;
                }
            },
            Err(_) => break, // it waits: nobody answers
        }
    }
    for token in [world.issuer.token("ada@example.com", &[]), "wrong".into()] {
        // What is left of the room may take a few records that are smaller than the one that waits.
        let endpoint = gateway.endpoint(&token, false);
        let refused = (0..50).any(|_| Wire::refusal(&endpoint).is_ok_and(|refusal| refusal.sqlstate == "58030"));
        ensure!(refused, "logins go on while there is no room");
    }
    let said = || refused || gateway.log().contains("since audit.archive is false");
    eventually("the log says why the statement waits", Duration::from_secs(30), said)?;
    ensure!(answered > 50, "blocked after {answered} statements already");
    ensure!(answered < 2_000, "2 MiB held {answered} records of 8 KB: something was dropped");
    let ran: BTreeSet<String> = world
        .target
        .log()?
        .iter()
        .filter_map(|line| line.statement())
        .filter_map(|text| text.strip_prefix("SELECT 'full-"))
        .filter_map(|text| text.split('\'').next().map(str::to_string))
        .collect();
    let records = audit::forwarded(&audit::search(&gateway, &["--contains", "full-"])?);
    let unrecorded = ran.iter().find(|number| !records.keys().any(|text| text.contains(&format!("'full-{number}'"))));
    ensure!(unrecorded.is_none(), "ran unrecorded: {unrecorded:?}");
    ensure!(ran.len() >= answered, "{answered} answers from {} statements", ran.len());
    println!("        blocked after {answered} statements{}", if refused { ", with an error" } else { "" });
    Ok(())
}
