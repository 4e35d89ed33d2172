//! Statements by name: what SQL and the protocol prepare, declare and suspend keeps its masks, and its verdict as long as the rules stay the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::World;
use super::clients::{python, script};
use super::policy::{hold, lead_rules, reached_target};
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{
    Message, SYNC, Wire, bind, complaint, describe_portal, execute, first_column, message, parse, query, tags,
};
use crate::harness::{Report, Settings, audit};

const POLICY: &str = r#"
[[rule]]
name = "keep-the-ledger"
tables = ["public.ledger"]
classes = ["delete", "truncate"]
action = "deny"

[[rule]]
name = "ask-first"
tables = ["public.ledger"]
classes = ["update"]
action = "approve"
approvers = ["leads"]
expires = "1m"

[[mask]]
columns = ["people.ssn"]
style = "fill"
"#;

/// What a reload adds.
const TIGHTER: &str = r#"
[[rule]]
name = "no-more-lines"
tables = ["public.ledger"]
classes = ["insert"]
action = "deny"
"#;

/// The same: denies reading the rumours, and asks somebody before the ledger is read.
const READERS: &str = r#"
[[rule]]
name = "nobody-reads-rumours"
tables = ["public.rumours"]
action = "deny"

[[rule]]
name = "ask-before-reading"
tables = ["public.ledger"]
classes = ["select"]
action = "approve"
approvers = ["leads"]
expires = "1m"
"#;

const TABLES: &str = "CREATE TABLE rumours AS SELECT 'they say' AS what; CREATE TABLE people (id int PRIMARY KEY, name text, ssn text); \
                      INSERT INTO people SELECT n, 'name ' || n, '07805' || n FROM generate_series(1, 9) n; \
                      CREATE TABLE ledger AS SELECT n AS id, 'as it was' AS note FROM generate_series(1, 9) n;";

const SECRET: &str = "07805";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "names", &Setup { more: POLICY.into(), ..Setup::default() })?;
    world.target.execute("shop", TABLES)?;
    report.case("PREPARE, EXECUTE, DEALLOCATE in SQL: masked, and gone when it is gone", || prepared(&world));
    report.case("a PREPARE that fails leaves the name what it was", || prepared_twice(&world));
    report.case("DISCARD ALL and DEALLOCATE ALL forget every name", || forgotten(&world));
    report.case("what is denied cannot be prepared, nor run by a name", || denied_by_name(&world));
    report.case("EXECUTE of what needs a ruling is held each time", || held_by_name(&world));
    report.case("a scrolled cursor, moved and closed", || scrolled(&world));
    report.case("a cursor WITH HOLD outlives its transaction, masked", || held_cursor(&world));
    report.case("WHERE CURRENT OF a cursor is judged like any other", || current_of(&world));
    report.case("two portals taken in turns, row by row", || portals_in_turns(&world));
    report.case("a portal with a ruling goes on after its row limit without another", || approved_portal(&world));
    report.case("a suspended portal is one statement in the trail, with all its rows", || suspended_recorded(&world));
    report.case("a portal does not outlive its Sync, nor a refusal in its transaction", || portal_ends(&world));
    let endpoint = world.endpoint("ada@example.com", &["engineering"], true);
    report.case("the trail tells what a FETCH read behind a savepoint, among other statements and over COMMIT", || {
        fetches_recorded(&world)
    });
    report.case("without a reload cursors go on through savepoints, blocks and functions", || cursors_go_on(&world));
    report.case("a reviewer reads what a name will stand for, not what it stood for before the text", || {
        renamed_in_the_text(&world)
    });
    report.case("rules that a reload tightens bind what was named before", || tightened(&world));
    report.case("they bind cursors and portals by whatever way these are read", || cursors_tightened(&world));
    report.case("a cursor that nobody knows is refused behind a reload until its transaction is over", || {
        unknown_behind_a_reload(&world)
    });
    script(report, "cursors of psycopg and asyncpg under a mask", python("masked_cursors.py"), &endpoint);
    Ok(())
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

/// As many rows as wanted, and no secret in any message.
fn masked(messages: &[Message], rows: usize) -> Result<()> {
    ensure!(complaint(messages).is_none(), "{:?}", complaint(messages));
    let found = messages.iter().filter(|message| message.tag == b'D').count();
    ensure!(found == rows, "{found} rows instead of {rows}: {}", tags(messages));
    let leak = messages.iter().find(|message| audit::holds(&message.body, SECRET));
    ensure!(leak.is_none(), "a masked value crossed the wire: {leak:?}");
    Ok(())
}

fn refused(messages: &[Message], sqlstate: &str) -> Result<()> {
    let said = complaint(messages).with_context(|| format!("not refused: {}", tags(messages)))?;
    ensure!(said.sqlstate == sqlstate, "{said:?}");
    Ok(())
}

fn prepared(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("PREPARE one (int) AS SELECT ssn, id FROM people WHERE id = $1")?;
    for number in 1..4 {
        masked(&wire.query(&format!("EXECUTE one({number})"))?, 1)?;
    }
    masked(&wire.extended("EXECUTE one(4)", &[], 0)?, 1)?;
    let plan = wire.query("EXPLAIN (COSTS off) EXECUTE one(5)")?;
    masked(&plan, tags(&plan).matches('D').count())?;
    wire.query("DEALLOCATE one")?;
    let messages = wire.query("EXECUTE one(6)")?;
    ensure!(complaint(&messages).is_some() && tags(&messages) == "EZ", "{}", tags(&messages));
    // The name is free for something else, which is not masked.
    wire.query("PREPARE one AS SELECT name FROM people ORDER BY id")?;
    ensure!(first_column(&wire.query("EXECUTE one")?)[0] == "name 1");
    Ok(())
}

fn prepared_twice(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("PREPARE same AS SELECT ssn FROM people")?;
    refused(&wire.query("PREPARE same AS SELECT name FROM people")?, "42P05")?;
    masked(&wire.query("EXECUTE same")?, 9)?;
    // PREPARE is not undone with its transaction.
    wire.query("BEGIN")?;
    wire.query("PREPARE within AS SELECT ssn FROM people")?;
    wire.query("ROLLBACK")?;
    masked(&wire.query("EXECUTE within")?, 9)?;
    // A DEALLOCATE that fails with its text frees nothing.
    let messages = wire.query("SELECT 1/0; DEALLOCATE same")?;
    refused(&messages, "22012")?;
    masked(&wire.query("EXECUTE same")?, 9)
}

fn forgotten(world: &World) -> Result<()> {
    for forget in ["DISCARD ALL", "DEALLOCATE ALL"] {
        let mut wire = session(world)?;
        wire.query("PREPARE gone AS SELECT name FROM people")?;
        wire.query(forget)?;
        ensure!(complaint(&wire.query("EXECUTE gone")?).is_some(), "{forget} left the name");
        wire.query("PREPARE gone AS SELECT ssn FROM people")?;
        masked(&wire.query("EXECUTE gone")?, 9).context(forget)?;
    }
    Ok(())
}

fn denied_by_name(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    refused(&wire.query("PREPARE wipe AS DELETE FROM ledger /* n1 */")?, "42501")?;
    refused(&wire.query("EXECUTE wipe /* n1 */")?, "42501")?;
    refused(&wire.extended("EXECUTE wipe /* n1 */", &[], 0)?, "42501")?;
    // A protocol-level statement of the same kind, under SQL's EXECUTE.
    wire.send(&[parse("wipe", "DELETE FROM ledger WHERE id = 1 /* n1 */"), SYNC.to_vec()].concat())?;
    refused(&wire.read_until_ready()?, "42501")?;
    ensure!(!reached_target(world, "/* n1 */")?, "it was forwarded");
    ensure!(wire.value("SELECT count(*) FROM ledger")? == "9");
    Ok(())
}

fn held_by_name(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let change = "UPDATE ledger SET note = 'changed by name' WHERE id = $1";
    let ticket = hold(&mut wire, &query(&format!("PREPARE change (int) AS {change}")))?;
    lead_rules(world, "approve", &ticket)?;
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    let first = hold(&mut wire, &query("EXECUTE change(1)"))?;
    lead_rules(world, "approve", &first)?;
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    let second = hold(&mut wire, &query("EXECUTE change(2)"))?;
    lead_rules(world, "reject", &second)?;
    refused(&wire.read_until_ready()?, "42501")?;
    // The protocol's Bind of the name SQL gave.
    let by_protocol = [bind("", "change", &["3"], 0), execute("", 0), SYNC.to_vec()].concat();
    let third = hold(&mut wire, &by_protocol)?;
    lead_rules(world, "reject", &third)?;
    refused(&wire.read_until_ready()?, "42501")?;
    let changed =
        wire.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM ledger WHERE note = 'changed by name'")?;
    ensure!(changed == "1", "{changed}");
    Ok(())
}

fn scrolled(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("DECLARE c SCROLL CURSOR FOR SELECT ssn, id FROM people ORDER BY id")?;
    for (sql, rows) in [
        ("FETCH 2 FROM c", 2),
        ("FETCH PRIOR FROM c", 1),
        ("MOVE 3 IN c", 0),
        ("FETCH ABSOLUTE 9 FROM c", 1),
        ("FETCH BACKWARD 4 FROM c", 4),
        ("FETCH FIRST c", 1),
        ("FETCH FORWARD ALL FROM c", 8),
    ] {
        masked(&wire.query(sql)?, rows).with_context(|| sql.to_string())?;
    }
    // By the protocol, with a row limit on the FETCH itself.
    wire.query("MOVE ABSOLUTE 0 IN c")?;
    let begin = [parse("", "FETCH ALL FROM c"), bind("", "", &[], 0), describe_portal("")].concat();
    wire.send(&[&begin[..], &execute("", 4), &execute("", 0), SYNC].concat())?;
    let messages = wire.read_until_ready()?;
    masked(&messages, 9)?;
    ensure!(tags(&messages) == "12TDDDDsDDDDDCZ", "{}", tags(&messages));
    wire.query("CLOSE c")?;
    refused(&wire.query("FETCH 1 FROM c")?, "34000")?;
    wire.query("ROLLBACK").map(drop)
}

fn held_cursor(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("DECLARE h CURSOR WITH HOLD FOR SELECT translate(ssn, '0', 'O') AS s FROM people ORDER BY id")?;
    masked(&wire.query("FETCH 1 FROM h")?, 1)?;
    wire.query("COMMIT")?;
    let messages = wire.query("FETCH ALL FROM h")?;
    masked(&messages, 8)?;
    ensure!(first_column(&messages).iter().all(|value| !value.contains("O78")), "the respelt value: {messages:?}");
    wire.query("CLOSE ALL")?;
    refused(&wire.query("FETCH 1 FROM h")?, "34000")
}

fn current_of(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("DECLARE c CURSOR FOR SELECT id FROM ledger ORDER BY id FOR UPDATE")?;
    wire.query("FETCH 1 FROM c")?;
    refused(&wire.query("DELETE FROM ledger WHERE CURRENT OF c /* n2 */")?, "42501")?;
    wire.query("ROLLBACK")?;
    ensure!(!reached_target(world, "/* n2 */")?, "it was forwarded");
    ensure!(wire.value("SELECT count(*) FROM ledger")? == "9");
    Ok(())
}

fn portals_in_turns(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    let open = |portal: &str, sql: &str| [parse(portal, sql), bind(portal, portal, &[], 0)].concat();
    let begin = [open("p", "SELECT ssn FROM people ORDER BY id"), open("q", "SELECT name FROM people ORDER BY id")];
    wire.send(&[&begin.concat()[..], SYNC].concat())?;
    ensure!(tags(&wire.read_until_ready()?) == "1212Z");
    for (portal, rows, wanted) in
        [("p", 2, "DDsZ"), ("q", 1, "DsZ"), ("p", 3, "DDDsZ"), ("q", 0, "DDDDDDDDCZ"), ("p", 0, "DDDDCZ")]
    {
        wire.send(&[&execute(portal, rows)[..], SYNC].concat())?;
        let messages = wire.read_until_ready()?;
        ensure!(tags(&messages) == wanted, "{portal}: {} instead of {wanted}", tags(&messages));
        if portal == "p" {
            masked(&messages, wanted.matches('D').count())?;
        } else {
            ensure!(first_column(&messages).iter().all(|name| name.starts_with("name ")), "{messages:?}");
        }
    }
    wire.query("COMMIT").map(drop)
}

fn approved_portal(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let sql = "UPDATE ledger SET note = note WHERE id < $1::int RETURNING id";
    let begin = [parse("", sql), bind("r", "", &["4"], 0)].concat();
    let bytes = [&begin[..], &execute("r", 1), &execute("r", 1), &execute("r", 0), SYNC].concat();
    let ticket = hold(&mut wire, &bytes)?;
    lead_rules(world, "approve", &ticket)?;
    let messages = wire.read_until_ready()?;
    ensure!(tags(&messages) == "12DsDsDCZ", "{}", tags(&messages));
    Ok(())
}

fn suspended_recorded(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let begin = [parse("", "SELECT id FROM people /* n3 */"), bind("", "", &[], 0)].concat();
    wire.send(&[&begin[..], &execute("", 4), &execute("", 4), &execute("", 4), SYNC].concat())?;
    ensure!(tags(&wire.read_until_ready()?) == "12DDDDsDDDDsDCZ");
    let rows = |records: &[serde_json::Value]| records.iter().filter_map(|record| record["rows"].as_u64()).sum::<u64>();
    let mut records = Vec::new();
    eventually("every row is in the trail", Duration::from_secs(10), || {
        records = audit::search(world.gateway(), &["--contains", "/* n3 */"]).unwrap_or_default();
        rows(&records) == 9
    })
    .with_context(|| format!("{records:?}"))?;
    ensure!(records.iter().all(|record| record["decision"] == "allow" && record["error"].is_null()), "{records:?}");
    Ok(())
}

/// A portal that is no more: the gateway does not know what it would run, and rules apply to this session.
fn portal_ends(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let open =
        |portal: &str| [parse("", "SELECT ssn FROM people"), bind(portal, "", &[], 0), execute(portal, 2)].concat();
    wire.send(&[&open("p")[..], SYNC].concat())?;
    masked(&wire.read_until_ready()?, 2)?;
    wire.send(&[&execute("p", 0)[..], SYNC].concat())?;
    refused(&wire.read_until_ready()?, "42501").context("outside a transaction")?;
    // Closed by name.
    wire.query("BEGIN")?;
    wire.send(&[&open("p")[..], &message(b'C', b"Pp\0"), &execute("p", 0), SYNC].concat())?;
    refused(&wire.read_until_ready()?, "42501").context("after Close")?;
    wire.query("ROLLBACK")?;
    // A refusal aborts the transaction the portal lives in.
    wire.query("BEGIN")?;
    wire.send(&[&open("p")[..], SYNC].concat())?;
    masked(&wire.read_until_ready()?, 2)?;
    refused(&wire.query("TRUNCATE ledger")?, "42501")?;
    wire.send(&[&execute("p", 0)[..], SYNC].concat())?;
    refused(&wire.read_until_ready()?, "25P02").context("after a refusal")?;
    wire.query("ROLLBACK").map(drop)
}

fn tightened(world: &World) -> Result<()> {
    let mut wires = [session(world)?, session(world)?, session(world)?, session(world)?, session(world)?];
    let [by_sql, by_protocol, cursor, portal, held] = &mut wires;
    by_sql.query("PREPARE line AS INSERT INTO ledger VALUES (10, 'stale') /* n4 */")?;
    by_protocol.send(&[parse("line", "INSERT INTO ledger VALUES (11, 'stale') /* n4 */"), SYNC.to_vec()].concat())?;
    by_protocol.read_until_ready()?;
    cursor.query("BEGIN")?;
    cursor.query("DECLARE c CURSOR FOR SELECT what FROM rumours")?;
    portal.query("BEGIN")?;
    let open = [parse("", "SELECT id FROM ledger"), bind("p", "", &[], 0), execute("p", 2)].concat();
    portal.send(&[&open[..], SYNC].concat())?;
    ensure!(tags(&portal.read_until_ready()?) == "12DDsZ");
    let ticket = hold(held, &query("UPDATE ledger SET note = 'late' /* n5 */"))?;

    // What waits for one group's word does not go by that of others.
    let others = POLICY.replace("[\"leads\"]", "[\"leads\", \"owners\"]");
    let setup = Setup { more: format!("{others}{TIGHTER}{READERS}"), ..Setup::default() };
    world.gateway().configure(&world.target, &world.issuer, &setup)?;
    world.gateway().reload()?;
    eventually("the rules apply", Duration::from_secs(10), || {
        by_sql.query("TABLE rumours").is_ok_and(|messages| refused(&messages, "42501").is_ok())
    })?;
    refused(&by_sql.query("EXECUTE line")?, "42501").context("PREPARE")?;
    refused(&by_protocol.query("EXECUTE line")?, "42501").context("EXECUTE of a Parse")?;
    refused(&cursor.query("FETCH 1 FROM c")?, "42501").context("FETCH")?;
    let resumed = hold(portal, &[&execute("p", 2)[..], SYNC].concat())?;
    lead_rules(world, "reject", &resumed)?;
    refused(&portal.read_until_ready()?, "42501").context("a suspended portal")?;
    ensure!(world.target.execute("shop", "SELECT max(id) FROM ledger")?.trim() == "9", "a line was added");

    lead_rules(world, "approve", &ticket)?;
    refused(&held.read_until_ready()?, "42501").context("approved under other rules")?;
    let mut records = Vec::new();
    eventually("the trail says that it was not run", Duration::from_secs(10), || {
        records = audit::search(world.gateway(), &["--contains", "/* n5 */"]).unwrap_or_default();
        matches!(&records[..], [one] if one["error"] == "42501" && one["rows"] == 0)
    })
    .with_context(|| format!("{records:?}"))
}

/// A session in a transaction, in which these have run.
fn in_transaction(world: &World, texts: &[&str]) -> Result<Wire> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    run(&mut wire, texts)?;
    Ok(wire)
}

fn run(wire: &mut Wire, texts: &[&str]) -> Result<()> {
    for text in texts {
        let said = complaint(&wire.query(text)?);
        ensure!(said.is_none(), "{text}: {said:?}");
    }
    Ok(())
}

fn fetches_recorded(world: &World) -> Result<()> {
    let declare = "DECLARE told CURSOR FOR SELECT id FROM ledger";
    let held = "DECLARE told CURSOR WITH HOLD FOR SELECT id FROM ledger";
    for (number, (before, fetch)) in [
        (vec![declare, "SAVEPOINT s"], "FETCH 1 FROM told"),
        (vec!["SAVEPOINT s", declare, "RELEASE s"], "MOVE 1 IN told"),
        (vec!["SAVEPOINT s", "SAVEPOINT t", declare, "SAVEPOINT u", "ROLLBACK TO u"], "FETCH 1 FROM told"),
        (vec![declare, "DO $$ BEGIN NULL; END $$"], "FETCH 1 FROM told"),
        (vec![declare], "SELECT 1; FETCH 1 FROM told"),
        (vec![held, "COMMIT"], "FETCH 1 FROM told"),
        (vec![held, "COMMIT", "BEGIN", "ROLLBACK"], "SELECT 1; FETCH 1 FROM told"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = in_transaction(world, &before)?;
        let fetch = format!("{fetch} /* f{number}. */");
        run(&mut wire, &[&fetch]).with_context(|| format!("{before:?}"))?;
        let about = ["--table", "ledger", "--contains", &format!("/* f{number}. */")];
        eventually("the trail tells the table", Duration::from_secs(10), || {
            audit::search(world.gateway(), &about).is_ok_and(|records| records.len() == 1)
        })
        .with_context(|| format!("{before:?}, then {fetch}"))?;
    }
    Ok(())
}

fn cursors_go_on(world: &World) -> Result<()> {
    world.target.execute(
        "shop",
        "CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS \
         $$ DECLARE r refcursor := 'opened'; BEGIN OPEN r FOR SELECT name FROM people ORDER BY id; RETURN r; END $$",
    )?;
    let (c, h) = ("DECLARE c CURSOR FOR SELECT id FROM ledger", "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM ledger");
    let fetch = "FETCH 1 FROM c";
    for texts in [
        &[c, "SAVEPOINT s", fetch, "RELEASE s", fetch, "SAVEPOINT t", "ROLLBACK TO t", fetch][..],
        &[c, "DO $$ BEGIN NULL; END $$", fetch, "SELECT 1; FETCH 1 FROM c", "CLOSE c", c, fetch],
        &[c, "DO $$ DECLARE r refcursor := 'c'; x record; BEGIN FETCH r INTO x; END $$", fetch],
        &["SELECT opened()", "FETCH 2 FROM opened", "SELECT 1; FETCH ALL FROM opened"],
        &["SELECT opened(); FETCH ALL FROM opened", "COMMIT"],
        &[h, "COMMIT", "FETCH 1 FROM h", "SELECT 1; FETCH 1 FROM h", "CLOSE h"],
        &[
            "DECLARE u CURSOR FOR SELECT id FROM people FOR UPDATE",
            "FETCH 1 FROM u",
            "SAVEPOINT s",
            "UPDATE people SET name = name WHERE CURRENT OF u",
        ],
    ] {
        in_transaction(world, texts)?;
    }
    Ok(())
}

fn renamed_in_the_text(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    run(&mut wire, &["PREPARE a AS SELECT 'the old meaning'"])?;
    let change = "UPDATE ledger SET note = 'by another name' WHERE id = 1";
    let ticket = hold(&mut wire, &query(&format!("DEALLOCATE a; PREPARE a AS {change}; EXECUTE a")))?;
    let shown = shown_for(world, &ticket)?;
    ensure!(shown.contains(change) && !shown.contains("the old meaning"), "{shown}");
    lead_rules(world, "reject", &ticket)?;
    refused(&wire.read_until_ready()?, "42501")?;
    // Where the text leaves it alone, it is told.
    let ticket = hold(&mut wire, &query(&format!("DEALLOCATE ALL; PREPARE a AS {change}")))?;
    lead_rules(world, "approve", &ticket)?;
    ensure!(complaint(&wire.read_until_ready()?).is_none());
    let ticket = hold(&mut wire, &query("SELECT 1; EXECUTE a"))?;
    let shown = shown_for(world, &ticket)?;
    ensure!(shown.contains(&format!("-- a is: DEALLOCATE ALL; PREPARE a AS {change}")), "{shown}");
    lead_rules(world, "reject", &ticket)?;
    refused(&wire.read_until_ready()?, "42501")
}

/// The statement of a ticket as a reviewer reads it.
fn shown_for(world: &World, ticket: &str) -> Result<String> {
    let rows = world.gateway().json(&["approvals", "ls"])?;
    let row = rows.iter().find(|row| row["id"] == ticket).context("the ticket is not listed")?;
    Ok(row["statement"].as_str().context("no statement")?.to_owned())
}

/// Takes other rules into use, and waits until they are.
fn tighten(world: &World, more: &str) -> Result<()> {
    let marker = format!("{:?}", std::time::Instant::now()).replace(|c: char| !c.is_ascii_digit(), "");
    let rule = format!("[[rule]]\nname = \"marker\"\nwords = [\"marker{marker}\"]\naction = \"deny\"\n");
    let setup = Setup { more: format!("{POLICY}{more}{rule}"), ..Setup::default() };
    world.gateway().configure(&world.target, &world.issuer, &setup)?;
    world.gateway().reload()?;
    // Each shard takes them into use by itself.
    let mut asking = (0..4).map(|_| session(world)).collect::<Result<Vec<_>>>()?;
    for wire in &mut asking {
        eventually("the rules apply", Duration::from_secs(10), || {
            let asked = wire.query(&format!("SELECT 1 AS marker{marker}"));
            asked.is_ok_and(|messages| refused(&messages, "42501").is_ok())
        })?;
    }
    Ok(())
}

fn cursors_tightened(world: &World) -> Result<()> {
    tighten(world, "")?;
    let c = "DECLARE c CURSOR FOR SELECT what FROM rumours";
    let h = "DECLARE h CURSOR WITH HOLD FOR SELECT what FROM rumours";
    let block = "DO $$ DECLARE r refcursor := 'c'; x record; BEGIN FETCH r INTO x; END $$";
    let cases = [
        (vec![c], "FETCH ALL FROM c"),
        (vec![c], "SELECT 1; FETCH ALL FROM c"),
        (vec![c], "MOVE 1 IN c; SELECT 1"),
        (vec![c, "SAVEPOINT s"], "FETCH ALL FROM c"),
        (vec![c], "SAVEPOINT s; FETCH ALL FROM c"),
        (vec!["SAVEPOINT s", c, "RELEASE s"], "FETCH ALL FROM c"),
        (vec![c, "SAVEPOINT s", "ROLLBACK TO s"], "FETCH ALL FROM c"),
        (vec![c, "DO $$ BEGIN NULL; END $$"], "FETCH ALL FROM c"),
        (vec![c], block),
        (vec![c], "SELECT cursor_to_xml('c', 10, false, false, '')"),
        (
            vec!["DECLARE c CURSOR FOR SELECT what FROM rumours FOR UPDATE", "FETCH 1 FROM c"],
            "UPDATE rumours SET what = 'else' WHERE CURRENT OF c",
        ),
        (vec![h, "COMMIT"], "FETCH ALL FROM h"),
        (vec![h, "COMMIT", "BEGIN", "SAVEPOINT s"], "SELECT 1; FETCH ALL FROM h"),
        (vec!["COMMIT", "BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT what FROM rumours; COMMIT"], "FETCH ALL FROM h"),
        (vec!["DECLARE c CURSOR WITH HOLD FOR SELECT what FROM rumours", "COMMIT"], block),
    ];
    let wires = cases.iter().map(|(before, _)| in_transaction(world, before)).collect::<Result<Vec<_>>>()?;
    let mut portals = [in_transaction(world, &[])?, in_transaction(world, &[])?, in_transaction(world, &[])?];
    for wire in &mut portals {
        let open = [parse("", "SELECT name FROM people, rumours"), bind("p", "", &[], 0), execute("p", 2)].concat();
        wire.send(&[&open[..], SYNC].concat())?;
        ensure!(tags(&wire.read_until_ready()?) == "12DDsZ");
    }
    run(&mut portals[1], &["SAVEPOINT s"])?;
    let mut asking = in_transaction(world, &["DECLARE c CURSOR FOR SELECT id FROM ledger", "SAVEPOINT s"])?;
    let mut open = in_transaction(world, &["DECLARE c CURSOR FOR SELECT id FROM people", "SAVEPOINT s"])?;
    tighten(world, READERS)?;
    for ((before, fetch), mut wire) in cases.iter().zip(wires) {
        let messages = wire.query(fetch)?;
        refused(&messages, "42501").with_context(|| format!("{before:?}, then {fetch}"))?;
        ensure!(!tags(&messages).contains('D'), "{before:?}, then {fetch}: {}", tags(&messages));
    }
    for (wire, fetch) in portals.iter_mut().zip(["SELECT 1; FETCH ALL FROM p", "FETCH ALL FROM p", block]) {
        refused(&wire.query(fetch)?, "42501").with_context(|| format!("a suspended portal, then {fetch}"))?;
    }
    let ticket = hold(&mut asking, &query("SELECT 1; FETCH 1 FROM c"))?;
    lead_rules(world, "approve", &ticket)?;
    let messages = asking.read_until_ready()?;
    ensure!(tags(&messages) == "TDCTDCZ", "{}", tags(&messages));
    // What the new rules do not touch goes on.
    run(&mut open, &["FETCH 1 FROM c", "SELECT 1; FETCH 1 FROM c", "RELEASE s", "FETCH 1 FROM c", "CLOSE c"])
}

fn unknown_behind_a_reload(world: &World) -> Result<()> {
    tighten(world, "")?;
    let mut within = in_transaction(world, &["SELECT opened()"])?;
    let mut between = session(world)?;
    run(&mut between, &["SELECT opened()"])?;
    tighten(world, READERS)?;
    refused(&within.query("FETCH 1 FROM opened")?, "42501").context("opened before the reload")?;
    within.query("ROLLBACK")?;
    for wire in [&mut within, &mut between] {
        run(wire, &["BEGIN", "SELECT opened()", "FETCH 1 FROM opened", "SELECT 1; FETCH 1 FROM opened", "COMMIT"])?;
    }
    Ok(())
}
