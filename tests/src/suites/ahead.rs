//! Sent ahead of the answers: a client need not wait for what the target says, and what it sends means what the target will take it for.
//! Each flight runs against the server itself too, where it must show what a gateway that guesses wrongly would let through.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{Message, SYNC, Wire, bind, complaint, execute, message, parse, query, tags};
use crate::harness::{Endpoint, Report, Settings, audit};

const POLICY: &str = r#"
[[rule]]
name = "keep-the-ledger"
classes = ["delete", "drop"]
action = "deny"

[[rule]]
name = "no-update-of-everything"
classes = ["update"]
missing_where = true
action = "deny"

[[mask]]
columns = ["people.ssn"]
style = "fill"
"#;

const TABLES: &str = "CREATE TABLE people (id int PRIMARY KEY, ssn text); INSERT INTO people VALUES (1, '12-34-560'); \
                      CREATE TABLE ledger AS SELECT n AS id FROM generate_series(1, 9) n; \
                      CREATE TABLE pairs (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON pairs TO PUBLIC; \
                      CREATE FUNCTION off(text) RETURNS bool LANGUAGE plpgsql AS \
                      $$BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); RETURN true; END$$; \
                      CREATE DOMAIN turned AS text CHECK (off(VALUE));";

/// What the secret looks like when it is read in a way that no column describes.
const READ: &str = "SELECT reverse(ssn) FROM people";
const SECRET: &str = "065-43-21";
const HARMLESS: &str = "SELECT 'harmless' FROM ledger LIMIT 1";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "ahead", &Setup { more: POLICY.into(), ..Setup::default() })?;
    world.target.execute("shop", TABLES)?;
    for (name, flight) in renamed() {
        report.case(&format!("a name stays what it was: {name}"), || keeps_masked(&world, &flight));
    }
    report.case("a cursor stays what it was when another DECLARE of its name fails", || declared_twice(&world));
    for (name, flight) in resettled() {
        report.case(&format!("read as the target reads it: {name}"), || is_not_fooled(&world, &flight));
    }
    for (name, setting, before, text) in RECONFIGURED {
        report.case(
            &format!("a setting that the server takes from its configuration file while nobody is told: {name}"),
            || reconfigured(&world, setting, before, text),
        );
    }
    report.case("a statement behind a Bind that fails is judged by itself", || behind_a_lost_bind(&world));
    report.case("a text that every setting reads alike passes, whatever was set before it", || reads_alike(&world));
    report.case("what fails at its commit failed, in the trail too", || failed_commit(&world));
    report.case("rows that were sent before an error or a hang-up are counted", || counted(&world));
    Ok(())
}

/// As at the server, whatever name the portal was to have, and whatever follows.
fn behind_a_lost_bind(world: &World) -> Result<()> {
    for portal in ["", "p"] {
        let flight = [bind(portal, "nobody", &[], 0), sync(), query(HARMLESS), step(HARMLESS), sync()];
        let through = fly(&mut session(world)?, &flight)?;
        let alone = fly(&mut direct(world)?, &flight)?;
        ensure!(tags(&alone) == "EZTDCZ12DCZ", "the server: {}", tags(&alone));
        ensure!(tags(&through) == tags(&alone), "portal {portal:?}: {} {:?}", tags(&through), complaint(&through[2..]));
    }
    Ok(())
}

pub(super) fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

pub(super) fn direct(world: &World) -> Result<Wire> {
    Wire::connect(&Endpoint { dbname: "shop".into(), ..world.target.endpoint(false) })
}

/// Everything in one write, and each answer.
pub(super) fn fly(wire: &mut Wire, flight: &[Vec<u8>]) -> Result<Vec<Message>> {
    wire.send(&flight.concat())?;
    let answers = flight.iter().filter(|sent| matches!(sent[0], b'S' | b'Q')).count();
    let mut all = Vec::new();
    for _ in 0..answers {
        all.extend(wire.read_until_ready()?);
    }
    Ok(all)
}

pub(super) fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[kind], name.as_bytes(), b"\0"].concat())
}

/// Parse, Bind and Execute, with no Sync.
pub(super) fn step(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), execute("", 0)].concat()
}

pub(super) fn sync() -> Vec<u8> {
    SYNC.to_vec()
}

/// With a name for each: the messages, as they are sent.
pub(super) type Flights = Vec<(&'static str, Vec<Vec<u8>>)>;

/// Each runs READ at the server, under a name that was to stand for HARMLESS.
fn renamed() -> Flights {
    let run = |portal: &str, name: &str| vec![bind(portal, name, &[], 0), execute(portal, 0), sync()];
    let lost = || bind("", "nobody", &[], 0);
    vec![
        (
            "a Parse that is refused",
            [vec![parse("s", READ), sync(), parse("s", HARMLESS), sync()], run("", "s")].concat(),
        ),
        (
            "a Close and a Parse that are skipped",
            [vec![parse("s", READ), sync(), lost(), close(b'S', "s"), parse("s", HARMLESS), sync()], run("", "s")]
                .concat(),
        ),
        (
            "a Parse without a name that is skipped",
            [vec![parse("", READ), sync(), lost(), parse("", HARMLESS), sync()], run("", "")].concat(),
        ),
        (
            "SQL that fails halfway",
            vec![
                query(&format!("PREPARE q AS {READ}")),
                query("SELECT 1/0; DEALLOCATE q"),
                query(&format!("PREPARE q AS {HARMLESS}")),
                query("EXECUTE q"),
            ],
        ),
        ("a portal that is bound twice", bound_twice(vec![])),
        ("a portal whose Close is skipped", bound_twice(vec![lost(), close(b'P', "p")])),
    ]
}

/// A portal of READ, and another Bind of its name, with what comes before that one, which fails.
fn bound_twice(before: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bound = vec![
        query("BEGIN"),
        parse("a", READ),
        parse("b", HARMLESS),
        bind("p", "a", &[], 0),
        sync(),
        query("SAVEPOINT x"),
    ];
    let again = vec![bind("p", "b", &[], 0), sync(), query("ROLLBACK TO x"), execute("p", 0), sync(), query("COMMIT")];
    [bound, before, again].concat()
}

pub(super) fn shows(messages: &[Message], secret: &str) -> bool {
    messages.iter().any(|message| audit::holds(&message.body, secret))
}

fn keeps_masked(world: &World, flight: &[Vec<u8>]) -> Result<()> {
    let server = fly(&mut direct(world)?, flight).context("the server")?;
    ensure!(shows(&server, SECRET), "the server shows no secret: {}", tags(&server));
    let gateway = fly(&mut session(world)?, flight).context("the gateway")?;
    ensure!(!shows(&gateway, SECRET), "the secret crossed the wire: {gateway:?}");
    // Masked where the gateway knows what it is, refused where it cannot tell.
    let refused = complaint(&gateway[gateway.len().saturating_sub(4)..]).is_some();
    ensure!(refused || tags(&gateway) == tags(&server), "{} instead of {}", tags(&gateway), tags(&server));
    Ok(())
}

fn declared_twice(world: &World) -> Result<()> {
    let script = [
        format!("DECLARE c CURSOR WITH HOLD FOR {READ}"),
        "COMMIT".into(),
        format!("DECLARE c CURSOR WITH HOLD FOR {HARMLESS}"),
        "FETCH ALL FROM c".into(),
        "CLOSE c".into(),
    ];
    let run = |mut wire: Wire| -> Result<Vec<Message>> {
        Ok(script.iter().map(|sql| wire.query(sql)).collect::<Result<Vec<_>>>()?.concat())
    };
    ensure!(shows(&run(direct(world)?)?, SECRET), "the server shows no secret");
    ensure!(!shows(&run(session(world)?)?, SECRET), "the secret crossed the wire");
    let mut wire = session(world)?;
    wire.query(&format!("DECLARE d CURSOR WITH HOLD FOR {HARMLESS}"))?;
    ensure!(shows(&wire.query("FETCH 1 FROM d")?, "harmless"), "a cursor that reads nothing masked is not masked");
    Ok(())
}

/// Deletes where its constants are read with standard_conforming_strings off.
const BY_VALUE: &str = "DO 'BEGIN /* \\x2a/ DELETE FROM ledger WHERE id = 1; -- */\n NULL; END'";
/// The same, one text further in.
const RUNS_BY_VALUE: &str = "EXECUTE 'SELECT 1 /* \\x2a/; DELETE FROM ledger WHERE id = 1; -- */'";

/// Deletes where the last byte of the letter and the backslash are one letter.
const BY_LETTER: &str = "SELECT E'\u{3083}\\' ; DELETE FROM ledger WHERE id = 1; --'";

/// Each changes the ledger at the server, and does nothing that is refused as the settings before it read it.
fn resettled() -> Flights {
    let by_string = "SELECT '\\'' ; DELETE FROM ledger WHERE id = 1; --'";
    let by_function = "SELECT set_config('standard_' || 'conforming_strings', 'off', false)";
    vec![
        ("a SET of strings", vec![query("SET standard_conforming_strings = off"), query(by_string)]),
        ("a SET of strings that nobody can see", vec![query(by_function), query(by_string)]),
        ("a SET of the encoding", vec![query("SET client_encoding = 'SJIS'"), query(BY_LETTER)]),
        ("a SET in the same pipeline", vec![step(by_function), query(by_string)]),
        (
            "a setting that a constant changes while it is parsed",
            vec![parse("a", "SELECT '{x}'::turned[]"), query(by_string)],
        ),
        (
            "what a constant says after a SET of strings",
            vec![query("SET standard_conforming_strings = off"), query(BY_VALUE)],
        ),
        (
            "what a constant says after a SET in the same pipeline",
            vec![step("SET standard_conforming_strings = off"), step(BY_VALUE), sync()],
        ),
        ("what a constant says where nobody sees the SET", vec![query(by_function), query(BY_VALUE)]),
        (
            "a condition that a constant makes true",
            vec![
                query("SET standard_conforming_strings = off"),
                query("UPDATE ledger SET id = id + 100 WHERE 'a' = '\\141'"),
            ],
        ),
        (
            "a block that sets what it runs under",
            vec![query(&format!("DO $$ BEGIN SET standard_conforming_strings = off; {RUNS_BY_VALUE}; END $$"))],
        ),
        (
            "a function made under another setting",
            vec![
                query(&format!(
                    "CREATE FUNCTION pg_temp.later() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {RUNS_BY_VALUE}; END $$"
                )),
                query("SET standard_conforming_strings = off"),
                query("SELECT pg_temp.later()"),
            ],
        ),
        (
            "a function with a setting of its own",
            vec![
                query(
                    "CREATE FUNCTION pg_temp.own() RETURNS void LANGUAGE plpgsql SET standard_conforming_strings = off AS \
                     $$ BEGIN UPDATE ledger SET id = id + 100 WHERE 'a' = '\\141'; END $$",
                ),
                query("SELECT pg_temp.own()"),
            ],
        ),
        (
            "a comparison with NULL that a setting makes true",
            vec![query("SET transform_null_equals = on"), query("UPDATE ledger SET id = id + 100 WHERE NULL = NULL")],
        ),
        ("an encoding in the same pipeline", vec![step("SET client_encoding = 'SJIS'"), query(BY_LETTER)]),
    ]
}

fn is_not_fooled(world: &World, flight: &[Vec<u8>]) -> Result<()> {
    let left = || Ok::<_, anyhow::Error>(world.target.execute("shop", "SELECT sum(id) FROM ledger")?.trim().to_owned());
    let before = left()?;
    let gateway = fly(&mut session(world)?, flight)?;
    ensure!(complaint(&gateway).is_some_and(|said| said.sqlstate == "42501"), "not refused: {}", tags(&gateway));
    ensure!(left()? == before, "the ledger was changed");
    world.target.execute("shop", "BEGIN; CREATE TABLE kept AS TABLE ledger; COMMIT")?;
    let server = fly(&mut direct(world)?, flight);
    let changed = left()?;
    world.target.execute("shop", "TRUNCATE ledger; INSERT INTO ledger TABLE kept; DROP TABLE kept")?;
    ensure!(changed != before, "the server changes nothing either: {:?}", server.map(|server| tags(&server)));
    Ok(())
}

/// What it is about, the setting and its value, what the session does before, and what it sends then.
const RECONFIGURED: [(&str, [&str; 3], &str, &str); 5] = [
    ("where a string ends", STRINGS, "SELECT 1", r"SELECT '\'' ; DELETE FROM ledger WHERE id = 1; --'"),
    (
        "a text that our grammar refuses so",
        STRINGS,
        "BEGIN",
        // Reserved from 16 on.
        r"SELECT '\', '; DELETE FROM ledger WHERE id = 1; CREATE TEMP TABLE system_user (a int); --'",
    ),
    ("what a string says", STRINGS, "SELECT 1", BY_VALUE),
    // Outside of a transaction the server takes it only where it has seen the encoding before.
    ("what a letter is, in a transaction", LETTERS, "BEGIN", BY_LETTER),
    ("what a letter is", LETTERS, "SET client_encoding = 'SJIS'; RESET client_encoding", BY_LETTER),
];
const STRINGS: [&str; 3] = ["standard_conforming_strings", "off", "on"];
const LETTERS: [&str; 3] = ["client_encoding", "SJIS", "UTF8"];

/// The server reads its configuration again when the next message has come, and tells of it behind the answer.
fn reconfigured(world: &World, [setting, other, usual]: [&str; 3], before: &str, text: &str) -> Result<()> {
    let (mut through, mut straight) = (session(world)?, direct(world)?);
    let like = through.query(r"SELECT 'a_c' LIKE 'a\_c' ESCAPE '\'")?;
    ensure!(complaint(&like).is_none(), "{:?}", complaint(&like));
    world.target.execute("shop", "CREATE TABLE kept AS TABLE ledger")?;
    let left = || world.target.execute("shop", "SELECT count(*) FROM ledger");
    let whole = left()?;
    let configure = |how: &str, now: &str| {
        world.target.execute("shop", &format!("ALTER SYSTEM {how}"))?;
        world.target.execute("shop", "SELECT pg_reload_conf()")?;
        eventually("the server has read its configuration", Duration::from_secs(10), || {
            world.target.execute("shop", &format!("SHOW {setting}")).is_ok_and(|shown| shown.trim() == now)
        })
    };
    through.query(before)?;
    straight.query(before)?;
    configure(&format!("SET {setting} = '{other}'"), other)?;
    let gateway = through.query(text)?;
    through.query("COMMIT")?;
    let kept = left()?;
    let server = straight.query(text);
    straight.query("COMMIT")?;
    let harmed = left()?;
    configure(&format!("RESET {setting}"), usual)?;
    world.target.execute("shop", "TRUNCATE ledger; INSERT INTO ledger TABLE kept; DROP TABLE kept")?;
    ensure!(complaint(&gateway).is_some_and(|said| said.sqlstate == "42501"), "not refused: {}", tags(&gateway));
    ensure!(kept == whole, "the ledger was changed");
    ensure!(harmed != whole, "the server changes nothing either: {:?}", server.map(|server| tags(&server)));
    Ok(())
}

fn reads_alike(world: &World) -> Result<()> {
    let texts = [
        "SELECT 'h\u{e9}', '\\d+' -- \u{fc}",
        "SELECT E'a\\tb'",
        "SELECT quote_literal('C:\\users'), quote_literal('\\x00ff'::bytea::text), '\\d'::text",
        "DO $$ BEGIN PERFORM regexp_replace('a1', '\\d', '') FROM ledger; END $$",
    ];
    let flight: Vec<Vec<u8>> =
        std::iter::once("SELECT 1").chain(texts).map(step).chain([sync(), query(texts[0])]).collect();
    let (server, gateway) = (fly(&mut direct(world)?, &flight)?, fly(&mut session(world)?, &flight)?);
    ensure!(tags(&server) == tags(&gateway), "{} instead of {}", tags(&gateway), tags(&server));
    Ok(())
}

/// The record of a statement, once it has an outcome.
fn record(world: &World, marked: &str) -> Result<Value> {
    let mut found = Vec::new();
    eventually("its outcome is in the trail", Duration::from_secs(10), || {
        found = audit::search(world.gateway(), &["--contains", marked]).unwrap_or_default();
        found.len() == 1 && !found[0]["rows"].is_null()
    })
    .with_context(|| format!("{marked}: {found:?}"))?;
    Ok(found.swap_remove(0))
}

fn failed_commit(world: &World) -> Result<()> {
    let flight = |sql: &str| vec![step(sql), sync()];
    let mut wire = session(world)?;
    let answer = fly(&mut wire, &flight("INSERT INTO pairs VALUES (2), (2) /* fails late */"))?;
    ensure!(tags(&answer) == "12CEZ", "{}", tags(&answer));
    let told = record(world, "/* fails late */")?;
    ensure!(told["error"] == "23505", "{told}");
    let closed = [step("INSERT INTO pairs VALUES (4), (4) /* closed */"), close(b'P', ""), sync()];
    ensure!(tags(&fly(&mut wire, &closed)?) == "12C3EZ");
    let told = record(world, "/* closed */")?;
    ensure!(told["error"] == "23505", "{told}");
    let limited = [
        parse("", "INSERT INTO pairs VALUES (5), (5) RETURNING n /* limited */"),
        bind("", "", &[], 0),
        execute("", 1),
        sync(),
    ];
    ensure!(tags(&fly(&mut wire, &limited)?) == "12DsEZ");
    let told = record(world, "/* limited */")?;
    ensure!(told["error"] == "23505", "{told}");
    ensure!(tags(&fly(&mut wire, &flight("INSERT INTO pairs VALUES (3) /* holds */"))?) == "12CZ");
    let told = record(world, "/* holds */")?;
    ensure!(told["error"].is_null() && told["rows"] == 1, "{told}");
    Ok(())
}

fn counted(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let answer = wire.query("SELECT 1 / (4 - n) FROM generate_series(1, 9) n /* divides */")?;
    ensure!(tags(&answer) == "TDDDEZ", "{}", tags(&answer));
    let told = record(world, "/* divides */")?;
    ensure!(told["rows"] == 3 && told["error"] == "22012", "{told}");
    wire.send(&query("SELECT n, pg_sleep(n / 5 * 60) FROM generate_series(1, 9) n /* hangs up */"))?;
    // The server sends what fills its buffer, or what there is: rows that are large enough.
    drop(wire);
    let told = record(world, "/* hangs up */")?;
    ensure!(told["error"] == "disconnected", "{told}");
    let mut wire = session(world)?;
    wire.send(&query("SELECT repeat('x', 9000), pg_sleep(n / 5 * 60) FROM generate_series(1, 9) n /* reads some */"))?;
    while wire.read()?.tag != b'D' {}
    for _ in 0..2 {
        ensure!(wire.read()?.tag == b'D');
    }
    drop(wire);
    let told = record(world, "/* reads some */")?;
    ensure!(told["rows"].as_u64().is_some_and(|rows| (3..=4).contains(&rows)), "{told}");
    ensure!(told["bytes"].as_u64().is_some_and(|bytes| bytes > 27_000), "{told}");
    Ok(())
}
