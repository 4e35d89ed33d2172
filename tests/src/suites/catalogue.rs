//! What the gateway knows of a target's tables: who is refused when it matters, and how fast it learns of DDL.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{SYNC, Wire, bind, complaint, execute, first_column, parse, tags};
use crate::harness::{Gateway, Report, Settings, audit};

const MASKS: &str = r#"
[[mask]]
except_groups = ["fraud"]
columns = ["hidden.*.x", "*.ssn"]
style = "fill"
"#;

/// `t` is found in `open` first, and in `hidden` once that one is gone.
const TABLES: &str = "\
    CREATE SCHEMA open; CREATE SCHEMA hidden; \
    ALTER ROLE service SET search_path = open, hidden; \
    CREATE TABLE open.t (x text); INSERT INTO open.t VALUES ('nothing to hide'); \
    CREATE TABLE hidden.t (x text); INSERT INTO hidden.t VALUES ('078-05-1120'); \
    CREATE TABLE open.plain (id int, body text); INSERT INTO open.plain VALUES (1, 'one'), (2, 'two'); \
    CREATE TABLE open.grows (id int, body text); INSERT INTO open.grows VALUES (1, 'one'); \
    CREATE TABLE open.people (id int, name text, ssn text); \
    INSERT INTO open.people VALUES (1, 'Ada', '078-05-1120'), (2, 'Bob', '219-09-9999'), (3, 'Ada', NULL); \
    CREATE FUNCTION open.card(open.people) RETURNS text LANGUAGE sql AS 'SELECT $1.ssn'; \
    CREATE ROLE lonely LOGIN NOSUPERUSER CONNECTION LIMIT 1 PASSWORD 'PASSWORD'; \
    GRANT ALL ON SCHEMA open TO lonely; GRANT ALL ON ALL TABLES IN SCHEMA open TO lonely";

const SECRETS: [&str; 4] = ["078-05-1120", "219-09-9999", "078/05", "219/09"];
const DEADLINE: Duration = Duration::from_secs(15);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { more: MASKS.into(), ..Setup::default() };
    let world = World::start(settings, "catalogue", &setup)?;
    let tables = TABLES.replace("'PASSWORD'", &format!("'{}'", crate::harness::postgres::PASSWORD));
    world.target.execute("shop", &tables)?;
    report.case("tables without a masked column are copied and stored", || passes(&world));
    report.case("tables with one are not", || refused(&world));
    report.case("expressions that read no masked column are shown", || shown(&world));
    report.case("all others stay masked", || hidden(&world));
    report.case("a prepared COPY is refused once its table has a masked column", || grows(&world));
    report.case("DDL of one session has every session's statements described again", || moves(&world));
    report.case("where the catalogue cannot be read, what hangs on it is refused", || blind(&world, settings, &setup));
    Ok(())
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

fn exempt(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("fay@example.com", &["fraud"], false))
}

const PASSING: [&str; 4] = [
    "COPY (SELECT id, body FROM plain) TO STDOUT",
    "COPY open.plain TO STDOUT",
    "INSERT INTO plain SELECT id + 10, body FROM plain WHERE id < 2",
    "CREATE TABLE open.copied AS SELECT * FROM plain",
];

const REFUSED: [&str; 5] = [
    "COPY (SELECT name FROM people) TO STDOUT",
    "COPY people TO STDOUT",
    "INSERT INTO plain SELECT id, ssn FROM people",
    "COPY (SELECT x FROM t) TO STDOUT",
    "CREATE TABLE open.stored AS SELECT p.id, q.ssn FROM plain p, people q",
];

fn passes(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in PASSING {
        if let Some(said) = complaint(&wire.query(sql)?) {
            anyhow::bail!("{sql}: {said:?}");
        }
    }
    let messages = wire.extended("INSERT INTO plain SELECT id + 20, body FROM plain WHERE id = $1::int", &["1"], 0)?;
    ensure!(complaint(&messages).is_none(), "{}", tags(&messages));
    ensure!(wire.value("SELECT id FROM plain WHERE id > 20")? == "21");
    Ok(())
}

fn refused(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in REFUSED {
        for messages in [wire.query(sql)?, wire.extended(sql, &[], 0)?] {
            let said = complaint(&messages).with_context(|| format!("it ran: {sql}"))?;
            ensure!(said.sqlstate == "42501" && said.detail.contains("mask"), "{sql}: {said:?}");
        }
    }
    Ok(())
}

fn shown(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for (sql, expected) in [
        ("SELECT count(*), upper(name) FROM people GROUP BY name ORDER BY name", vec!["2", "1"]),
        ("SELECT count(*) FROM people", vec!["3"]),
        ("SELECT upper(p.name) || '!' FROM people p ORDER BY id LIMIT 1", vec!["ADA!"]),
        ("SELECT count(*) FROM people JOIN plain USING (id)", vec!["2"]),
        ("SELECT count(DISTINCT name) FROM people WHERE ssn IS NOT NULL", vec!["2"]),
    ] {
        ensure!(first_column(&wire.query(sql)?) == expected, "{sql}: {:?}", first_column(&wire.query(sql)?));
        let messages = wire.extended(sql, &[], 0)?;
        ensure!(first_column(&messages) == expected, "{sql}, extended: {:?}", first_column(&messages));
    }
    Ok(())
}

/// Each shows the masked column if one of its outputs passes.
const HIDDEN: [&str; 21] = [
    "SELECT count(*), max(ssn) FROM people",
    "SELECT upper(name), replace(ssn, '-', '/') FROM people",
    "SELECT people FROM people",
    "SELECT row_to_json(p), count(*) OVER () FROM people p",
    "SELECT string_agg(people::text, ',') FROM people",
    "SELECT string_agg(p.card, ',') FROM people p",
    "SELECT max(p.card), count(*) FROM people p, (VALUES (1)) AS v (card)",
    "SELECT max(c.name) FROM people AS c (id, other, name)",
    "SELECT max(name) FROM (SELECT ssn AS name FROM people) q",
    "WITH people AS (SELECT ssn AS name FROM open.people) SELECT max(name) FROM people",
    "SELECT max(name) FROM (people CROSS JOIN plain) AS j (id, body, name)",
    "SELECT max(ssn) FROM people NATURAL JOIN plain",
    "SELECT concat(people) FROM people",
    "SELECT concat(name, (SELECT ssn FROM people p WHERE p.id = people.id)) FROM people",
    "SELECT format('%s', people.*) FROM people",
    "SELECT to_char(1, '9') || (people).ssn FROM people",
    "SELECT coalesce(NULL, ssn) FROM people",
    "SELECT CASE WHEN true THEN ssn END FROM people",
    "SELECT max(name) FROM people GROUP BY name UNION ALL SELECT ssn FROM people",
    "SELECT array_agg(ssn ORDER BY name) FROM people",
    "SELECT first_value(ssn) OVER (ORDER BY name) FROM people",
];

fn hidden(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in HIDDEN {
        for messages in [wire.query(sql)?, wire.extended(sql, &[], 0)?, wire.extended(sql, &[], 1)?] {
            for message in &messages {
                ensure!(SECRETS.iter().all(|secret| !audit::holds(&message.body, secret)), "{sql}: it is shown");
            }
        }
    }
    // How many rows share a masked value, in its order.
    ensure!(first_column(&wire.query("SELECT count(*) FROM people GROUP BY ssn ORDER BY ssn")?) == ["NULL"; 3]);
    // Each of them does show it to somebody who is exempt, or the check above would check nothing.
    let mut exempt = exempt(world)?;
    for sql in HIDDEN {
        let messages = exempt.query(sql)?;
        let seen = messages.iter().any(|message| SECRETS.iter().any(|secret| audit::holds(&message.body, secret)));
        ensure!(seen || complaint(&messages).is_some(), "{sql} shows no secret to anybody");
    }
    Ok(())
}

fn grows(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let copy = |wire: &mut Wire| -> Result<String> {
        wire.send(&[bind("", "c", &[], 0), execute("", 0), SYNC.to_vec()].concat())?;
        Ok(tags(&wire.read_until_ready()?))
    };
    wire.send(&[parse("c", "COPY (SELECT * FROM grows) TO STDOUT"), SYNC.to_vec()].concat())?;
    ensure!(tags(&wire.read_until_ready()?) == "1Z");
    ensure!(copy(&mut wire)? == "2HdcCZ");
    let mut other = exempt(world)?;
    let messages = other.query("ALTER TABLE grows ADD COLUMN ssn text DEFAULT '078-05-1120'")?;
    ensure!(complaint(&messages).is_none(), "{}", tags(&messages));
    let refused = || copy(&mut wire).is_ok_and(|tags| tags == "2EZ");
    eventually("the prepared COPY is refused", DEADLINE, refused)
}

/// Sessions enough to be on both shards; each has prepared a statement that reads another table after the DROP.
fn moves(world: &World) -> Result<()> {
    let mut sessions = (0..12).map(|_| session(world)).collect::<Result<Vec<_>>>()?;
    let run = |wire: &mut Wire| -> Result<String> {
        wire.send(&[bind("", "s", &[], 0), execute("", 0), SYNC.to_vec()].concat())?;
        Ok(first_column(&wire.read_until_ready()?).concat())
    };
    for wire in &mut sessions {
        wire.send(&[parse("s", "SELECT x FROM t"), SYNC.to_vec()].concat())?;
        wire.read_until_ready()?;
        ensure!(run(wire)? == "nothing to hide");
    }
    let mut other = exempt(world)?;
    let messages = other.query("DROP TABLE open.t")?;
    ensure!(complaint(&messages).is_none(), "{}", tags(&messages));
    for wire in &mut sessions {
        // The other shard hears of it a turn of its mailbox later.
        eventually("the other table's rows are masked", DEADLINE, || run(wire).is_ok_and(|x| x == "***********"))?;
    }
    Ok(())
}

/// The one connection that the role may have is the session's own.
fn blind(world: &World, settings: &Settings, setup: &Setup) -> Result<()> {
    let alone = Setup { role: "lonely", ..setup.clone() };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &alone)?;
    let token = world.issuer.token("ada@example.com", &["engineering"]);
    let mut wire = Wire::connect(&gateway.endpoint(&token, false))?;
    for sql in ["COPY (SELECT id FROM open.plain) TO STDOUT", "INSERT INTO open.plain SELECT 1, 'x' FROM open.plain"] {
        let messages = wire.query(sql)?;
        let said = complaint(&messages).with_context(|| format!("it ran: {sql}"))?;
        ensure!(said.sqlstate == "42501" && said.message.contains("cannot tell"), "{sql}: {said:?}");
    }
    ensure!(tags(&wire.query("SET work_mem = '1MB'")?).ends_with("CZ"), "the session ended");
    Ok(())
}
