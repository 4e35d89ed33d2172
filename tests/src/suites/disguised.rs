//! Statements that are not what they seem, with every answer awaited: names that something else has taken, texts that are read again under
//! other settings. Each runs against the server itself too, where it must do what the gateway has to keep from happening.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::World;
use super::ahead::{Flights, close, direct, fly, session, shows, step, sync};
use super::policy::{hold, lead_rules};
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{Message, Wire, bind, complaint, copy_data, execute, message, parse, query, tags};
use crate::harness::{Report, Settings};

const POLICY: &str = r#"
[[rule]]
name = "no-drop"
classes = ["drop"]
action = "deny"

[[rule]]
name = "ask-first"
classes = ["update"]
action = "approve"
approvers = ["leads"]
expires = "1m"

[[rule]]
name = "not-theirs"
tables = ["платежи"]
action = "deny"
"#;

const MASK: &str = "[[mask]]\ncolumns = [\"people.ssn\", \"hr.staff.ssn\"]\nstyle = \"fill\"\n";

const TABLES: &str = "CREATE TABLE people (id int PRIMARY KEY, ssn text); INSERT INTO people VALUES (1, '12-34-560'); \
                      CREATE TABLE ledger (id int); INSERT INTO ledger VALUES (1); CREATE TABLE платежи (v text); \
                      INSERT INTO платежи VALUES ('065-43-21'); GRANT ALL ON ledger, people TO PUBLIC; \
                      CREATE SCHEMA hr; CREATE TABLE hr.staff (ssn text); INSERT INTO hr.staff VALUES ('065-43-21'); \
                      CREATE TABLE staff (ssn text); INSERT INTO staff VALUES ('nothing'); \
                      CREATE FUNCTION public.there() RETURNS void LANGUAGE plpgsql AS \
                      $$BEGIN PERFORM set_config('search_path', 'hr, public', false); END$$; \
                      CREATE FUNCTION public.told(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS \
                      $$BEGIN RAISE NOTICE 'it is %', v; RETURN v; END$$; \
                      CREATE EXTENSION IF NOT EXISTS tablefunc; CREATE TABLE box (v text); GRANT ALL ON box TO PUBLIC; \
                      CREATE SCHEMA odd; GRANT ALL ON SCHEMA odd, public TO PUBLIC; CREATE DOMAIN odd.text AS varchar(31); \
                      CREATE OPERATOR odd.|| (leftarg = text, rightarg = text, function = pg_catalog.ltrim);";

const READ: &str = "SELECT reverse(ssn) AS v FROM people";
const SECRET: &str = "065-43-21";
const HARMLESS: &str = "SELECT 'harmless' AS v";
/// What a function reads that is given a query.
const XML: &str = "query_to_xml('SELECT reverse(ssn) FROM people', true, false, '')::text";
/// A name that the server cuts.
const LONG: &str = "a23456789012345678901234567890123456789012345678901234567890123";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "disguised", &Setup { more: MASK.into(), ..Setup::default() })?;
    world.target.execute("shop", TABLES)?;
    for (name, script) in taken() {
        report.case(&format!("masked although the name was another's: {name}"), || keeps_masked(&world, &script));
    }
    report.case("the length of what is masked does not tell what it is", || as_long_as(&world));
    report.case("errors and notices tell nothing of what is masked, whoever says them", || says_nothing(&world));
    report.case("statements of others are masked where the server shows them", || others_statements(&world));
    report.case("a text that the scanner takes ages for stops nobody else", || takes_ages(&world));
    report.case("a COPY that fails leaves nothing waiting", || behind_a_failed_copy(&world));
    drop(world);
    let world = World::start(settings, "disguised-rules", &Setup { more: POLICY.into(), ..Setup::default() })?;
    world.target.execute("shop", TABLES)?;
    for (name, script) in unasked() {
        report.case(&format!("not run without a ruling: {name}"), || is_refused(&world, &script));
    }
    report.case("a ruling for a client that has left, behind more than is read, runs nothing", || left(&world));
    report.case("a table whose name another encoding spells is that table", || spelt_otherwise(&world));
    report.case("a large value hides none behind it", || large_value(&world));
    Ok(())
}

fn run(name: &str) -> Vec<Vec<u8>> {
    vec![bind("", name, &[], 0), execute("", 0), sync()]
}

fn block(body: &str) -> Vec<u8> {
    query(&format!("DO $do$ {body} $do$"))
}

/// Each reads the secret at the server, under a name that stood for something harmless.
#[rustfmt::skip]
fn taken() -> Flights {
    let longer = format!("{LONG}b");
    let named = |name: &str, sql: &str| vec![parse(name, sql), sync()];
    let never = |sql: &str| block(&format!("BEGIN IF false THEN EXECUTE '{}'; END IF; END", sql.replace('\'', "''")));
    let renamed = |name: &str| block(&format!("BEGIN EXECUTE 'DEALLOCATE {name}'; EXECUTE 'PREPARE {name} AS {READ}'; END"));
    vec![
        ("a portal that a block has opened again", [
            vec![query("BEGIN"), parse("a", HARMLESS), bind("p", "a", &[], 0), sync()],
            vec![block(&format!("DECLARE c refcursor := 'p'; BEGIN CLOSE c; OPEN c FOR {READ}; END"))],
            vec![execute("p", 0), sync(), query("COMMIT")],
        ].concat()),
        ("a cursor whose name was bound", [
            vec![query("BEGIN"), query(&format!("DECLARE c CURSOR FOR {HARMLESS}")), close(b'P', "c"), parse("a", READ)],
            vec![bind("c", "a", &[], 0), sync(), query("FETCH ALL FROM c"), query("COMMIT")],
        ].concat()),
        ("a statement that a block has prepared again",
            vec![query(&format!("PREPARE q AS {HARMLESS}")), renamed("q"), query("EXECUTE q")]),
        ("a block that fails behind it", vec![
            query(&format!("PREPARE q AS {HARMLESS}")),
            block(&format!("BEGIN EXECUTE 'DEALLOCATE q'; EXECUTE 'PREPARE q AS {READ}'; RAISE 'x'; END")),
            query("EXECUTE q"),
        ]),
        ("a PREPARE that is never reached", vec![
            block(&format!("BEGIN EXECUTE 'PREPARE r AS {READ}'; END")),
            never(&format!("PREPARE r AS {HARMLESS}")),
            query("EXECUTE r"),
        ]),
        ("a DISCARD ALL that fails", vec![
            query(&format!("PREPARE q AS {READ}")), query("BEGIN"), query("DISCARD ALL"), query("ROLLBACK"),
            never(&format!("PREPARE q AS {HARMLESS}")), query("EXECUTE q"),
        ]),
        ("a DECLARE that is never reached", vec![
            query("BEGIN"), query(&format!("DECLARE c CURSOR FOR {READ}")),
            never(&format!("DECLARE c CURSOR FOR {HARMLESS}")), query("FETCH ALL FROM c"), query("COMMIT"),
        ]),
        ("a DECLARE that is explained", vec![
            query("BEGIN"), query(&format!("DECLARE c CURSOR FOR {READ}")),
            query(&format!("EXPLAIN DECLARE c CURSOR FOR {HARMLESS}")), query("FETCH ALL FROM c"), query("COMMIT"),
        ]),
        ("an EXECUTE that was parsed before", [
            vec![query(&format!("PREPARE q AS {HARMLESS}"))], named("x", "EXECUTE q"),
            vec![query("DEALLOCATE q"), query(&format!("PREPARE q AS {READ}"))], run("x"),
        ].concat()),
        ("a FETCH that was parsed before", [
            vec![query("BEGIN"), query(&format!("DECLARE c CURSOR FOR {HARMLESS}"))], named("x", "FETCH ALL FROM c"),
            vec![query("CLOSE c"), query(&format!("DECLARE c CURSOR FOR {READ}"))], run("x"), vec![query("COMMIT")],
        ].concat()),
        ("a name that the server cuts", [
            named(LONG, HARMLESS), vec![close(b'S', &longer), parse(&longer, READ), sync()], run(LONG),
        ].concat()),
        ("a function that reads, in what a COPY hands out",
            vec![query("COPY (SELECT query_to_xml(format('SELECT reverse(ssn) FROM %s', 'people'), true, false, '')) TO STDOUT")]),
        ("a function that reads, in what a setting keeps", vec![query(&format!("SELECT set_config('a.b', {XML}, false)"))]),
        ("a function that reads, in a value of EXECUTE", vec![
            query("BEGIN"), query("PREPARE q AS INSERT INTO box VALUES ($1) RETURNING v"), query(&format!("EXECUTE q({XML})")),
            query("SELECT v FROM box"), query("ROLLBACK"),
        ]),
        ("a function that reads, in a default", vec![
            query(&format!("CREATE TEMP TABLE t (n int, v text DEFAULT {XML})")), query("INSERT INTO t VALUES (1)"), query("SELECT v FROM t"),
        ]),
        ("a function that reads, in a conversion", vec![
            query("CREATE TEMP TABLE t AS SELECT ''::text AS v"),
            query(&format!("ALTER TABLE t ALTER v TYPE text USING {XML}")), query("SELECT v FROM t"),
        ]),
        ("a function that reads, in a partition's bounds", vec![
            query("BEGIN"), query("CREATE TABLE parted (v text) PARTITION BY RANGE (v)"),
            query(&format!("CREATE TABLE part PARTITION OF parted FOR VALUES FROM (({XML})) TO ('0')")), query("ROLLBACK"),
        ]),
        ("a rule that keeps the rows of its table", vec![
            query("BEGIN"), query("CREATE RULE keep AS ON UPDATE TO people DO ALSO INSERT INTO box VALUES (reverse(old.ssn))"),
            query("UPDATE people SET id = id"), query("SELECT v FROM box"), query("ROLLBACK"),
        ]),
        ("a type's name in an error", vec![query("SELECT ('\"' || reverse(ssn))::regtype FROM people")]),
        ("a query that a function makes, in an error",
            vec![query("SELECT query_to_xml('SELECT nope -- ' || reverse(ssn), true, true, '') FROM people")]),
        ("an operator over a function that reads", vec![
            query("BEGIN"), query("CREATE OPERATOR public.### (leftarg = tsquery, rightarg = text, function = ts_rewrite)"),
            query("SELECT 'a'::tsquery ### $$SELECT 'a'::tsquery, quote_literal(reverse(ssn))::tsquery FROM people$$"), query("ROLLBACK"),
        ]),
        ("a domain that keeps what it checks", vec![
            query("BEGIN"), query("CREATE DOMAIN kept AS text CHECK (set_config('a.b', VALUE, false) IS NOT NULL)"),
            query("SELECT reverse(ssn)::kept FROM people"), query("SELECT current_setting('a.b')"), query("ROLLBACK"),
        ]),
        ("a function that keeps what it is given", vec![
            query("BEGIN"), query("CREATE FUNCTION keep(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('a.b', $1, false) $$"),
            query("SELECT keep(reverse(ssn)) FROM people"), query("SELECT current_setting('a.b')"), query("ROLLBACK"),
        ]),
        ("a default of a variable that is called cursor", vec![
            block(&format!("DECLARE a int := 1 begin; cursor record := ROW({XML}); BEGIN RAISE NOTICE '%', cursor; END")),
        ]),
        ("an operator in an error", vec![query("SELECT reverse(ssn)::regoper FROM people")]),
        ("a table that connectby reads",
            vec![query("SELECT * FROM connectby('people', 'reverse(ssn)', 'ssn', '12-34-560', 1) AS t (k text, p text, l int)")]),
        ("a variable's default", vec![
            block(&format!("DECLARE r record := ROW({XML}); BEGIN RAISE NOTICE '%', r; END")),
        ]),
        ("a text that another schema's operator makes", vec![
            query("SELECT query_to_xml('--SELECT reverse(ssn) FROM people' OPERATOR(odd.||) '-', true, false, '')"),
        ]),
        ("a function that sets the search_path",
            [named("s", "SELECT ssn FROM staff"), run("s"), vec![query("SELECT public.there()")], run("s")].concat()),
    ]
}

fn each(wire: &mut Wire, script: &[Vec<u8>]) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    for flight in script.split_inclusive(|sent| matches!(sent[0], b'S' | b'Q')) {
        all.extend(fly(wire, flight)?);
    }
    Ok(all)
}

fn keeps_masked(world: &World, script: &[Vec<u8>]) -> Result<()> {
    let server = each(&mut direct(world)?, script).context("the server")?;
    ensure!(shows(&server, SECRET), "the server shows no secret: {}", tags(&server));
    let gateway = each(&mut session(world)?, script).context("the gateway")?;
    ensure!(!shows(&gateway, SECRET), "the secret crossed the wire: {gateway:?}");
    Ok(())
}

/// The server has a process for each; here a neighbour would wait.
fn takes_ages(world: &World) -> Result<()> {
    let (mut slow, mut neighbour) = (session(world)?, session(world)?);
    let texts = [
        format!("SELECT 1 {}", "/*".repeat(40_000)),
        format!("SELECT 1{}1", "+-".repeat(20_000)),
        format!("DO $$ DECLARE {} BEGIN NULL; END $$", "DECLARE ".repeat(60_000)),
        format!("SELECT {} FROM people GROUP BY {}", vec!["id AS a"; 15_000].join(","), vec!["a"; 15_000].join(",")),
    ];
    for text in texts {
        slow.send(&query(&text))?;
        std::thread::sleep(Duration::from_millis(20));
        neighbour.send(&query("SELECT 1"))?;
        neighbour.read_until_ready().with_context(|| text[..40].to_owned())?;
    }
    Ok(())
}

fn as_long_as(world: &World) -> Result<()> {
    let letters = "SELECT repeat('x', ascii(substr(ssn, n, 1))) FROM people, generate_series(1, 9) n";
    let raised = "DECLARE v text; BEGIN SELECT ssn INTO v FROM people; FOR n IN 1..9 LOOP \
                  RAISE NOTICE '%', repeat('x', ascii(substr(v, n, 1))); END LOOP; END";
    let mut wire = session(world)?;
    let rows = wire.query(letters)?;
    ensure!(rows.iter().filter(|row| row.tag == b'D').count() == 9, "{}", tags(&rows));
    ensure!(rows.iter().filter(|row| row.tag == b'D').all(|row| row.body == rows[1].body), "{rows:?}");
    let said = fly(&mut wire, &[block(raised)])?;
    let texts: Vec<_> = said.iter().filter(|said| said.tag == b'N').map(|said| &said.body).collect();
    ensure!(texts.len() == 9 && texts.iter().all(|text| *text == texts[0]), "{said:?}");
    Ok(())
}

/// Each makes the server say it (without the signs between the digits), in a message that it says of names otherwise, or in a statement that
/// does not name the table.
fn says_nothing(world: &World) -> Result<()> {
    const PLAIN: &str = "replace(ssn, '-', 'x')";
    let hold = |shown: &str| format!("DECLARE c CURSOR WITH HOLD FOR SELECT {shown} FROM people");
    let scripts = [
        vec![format!("SELECT to_ascii('a', 'portal ' || {PLAIN}) FROM people")],
        vec![format!("SELECT to_ascii('a', 'permission denied ' || {PLAIN}) FROM people")],
        vec![format!("SELECT {PLAIN}::regclass FROM people")],
        vec!["BEGIN".into(), hold(&format!("{PLAIN}::regclass")), "COMMIT".into()],
        vec!["BEGIN".into(), hold(&format!("told({PLAIN})")), "COMMIT AND CHAIN".into(), "COMMIT".into()],
        vec!["BEGIN".into(), hold(&format!("told({PLAIN})")), "DO 'BEGIN COMMIT; END'".into(), "COMMIT".into()],
    ];
    for script in scripts {
        let said = |mut wire: Wire| -> Result<bool> {
            let mut said = false;
            for text in &script {
                let messages = wire.query(text)?;
                let texts = messages.iter().filter(|message| matches!(message.tag, b'E' | b'N'));
                said |= texts.into_iter().any(|text| text.body.windows(5).any(|part| part == b"12x34"));
            }
            Ok(said)
        };
        ensure!(!said(session(world)?)?, "told: {script:?}");
        // A block with a COMMIT is refused in a transaction.
        ensure!(
            said(direct(world)?)? || script.iter().any(|text| text.starts_with("DO")),
            "the server does not say it: {script:?}"
        );
    }
    for later in [
        "CREATE INDEX told ON people (told(ssn))",
        "ALTER TABLE people ADD CHECK (ssn ||| 'x') NOT VALID",
        "ALTER TABLE people ADD EXCLUDE USING btree ((told(ssn)) WITH =)",
        "ALTER TABLE people ADD COLUMN told text CHECK (told(ssn) IS NOT NULL)",
    ] {
        let refused = session(world)?.query(later)?;
        let why = complaint(&refused);
        ensure!(why.is_some_and(|why| why.message.contains("runs over a masked table")), "{later}: {}", tags(&refused));
    }
    Ok(())
}

fn others_statements(world: &World) -> Result<()> {
    let mut other = direct(world)?;
    other.query("SELECT 'a-value-of-theirs'")?;
    for shows in ["SELECT query FROM pg_stat_activity", "SELECT upper(query) FROM pg_stat_get_activity(NULL)"] {
        let shown = session(world)?.query(shows)?;
        let rows = || shown.iter().filter(|message| message.tag == b'D');
        let told = |row: &Message| row.body.to_ascii_lowercase().windows(17).any(|part| part == b"a-value-of-theirs");
        ensure!(rows().count() > 0 && !rows().any(told), "{shows}: {}", tags(&shown));
        ensure!(direct(world)?.query(shows)?.iter().any(told), "the server does not show it");
    }
    for kept in [
        "CREATE TABLE theirs AS SELECT pg_stat_get_backend_activity(b) FROM pg_stat_get_backend_idset() b",
        "CREATE FUNCTION theirs() RETURNS SETOF text LANGUAGE sql AS 'SELECT query FROM pg_stat_get_activity(NULL)'",
    ] {
        let refused = session(world)?.query(kept)?;
        let why = complaint(&refused);
        ensure!(why.as_ref().is_some_and(|why| why.detail == "rule \"mask\""), "{kept}: {} {why:?}", tags(&refused));
    }
    Ok(())
}

/// Behind it come texts and names that wait for what is outstanding, of which there is nothing.
fn behind_a_failed_copy(world: &World) -> Result<()> {
    for next in [query("SELECT 'h\u{e9}'"), [bind("", "nobody", &[], 0), sync()].concat()] {
        let mut answers = Vec::new();
        for mut wire in [direct(world)?, session(world)?] {
            wire.send(&[step("COPY ledger FROM STDIN"), sync()].concat())?;
            while wire.read()?.tag != b'G' {}
            wire.send(&[copy_data(b"no number\n"), message(b'c', b""), sync()].concat())?;
            ensure!(tags(&wire.read_until_ready()?) == "EZ");
            wire.send(&next)?;
            answers.push(tags(&wire.read_until_ready()?));
        }
        ensure!(answers[0] == answers[1], "{answers:?}");
    }
    Ok(())
}

/// Each changes the ledger at the server; its last word at the gateway is a refusal.
#[rustfmt::skip]
fn unasked() -> Flights {
    let change = "UPDATE ledger SET id = id + 100 RETURNING id::text";
    let bound = || vec![query("BEGIN"), parse("d", change), bind("p", "d", &[], 0), sync()];
    vec![
        ("FETCH of a portal", [bound(), vec![query("FETCH ALL FROM p")]].concat()),
        ("MOVE of a portal", [bound(), vec![query("MOVE ALL FROM p")]].concat()),
        ("a block that fetches from a portal", [bound(), vec![
            block("DECLARE c refcursor := 'p'; r record; BEGIN FETCH c INTO r; END"),
        ]].concat()),
        ("a block that executes two names", vec![
            parse("one", HARMLESS), parse("two", change), sync(),
            block("BEGIN EXECUTE 'EXECUTE one'; EXECUTE 'EXECUTE two'; END"),
        ]),
        ("a block whose text another schema's operator makes", vec![
            block("BEGIN EXECUTE '--UPDATE ledger SET id = id + 100' OPERATOR(odd.||) '-'; END"),
        ]),
        ("a block whose text another schema's type cuts", vec![
            query("SET search_path = odd, pg_catalog, public"),
            block("BEGIN EXECUTE 'UPDATE ledger SET id = id + 100 WHERE false'::text; END"),
        ]),
        ("a block whose strings end elsewhere when it runs", vec![
            block("BEGIN SET LOCAL standard_conforming_strings = off; INSERT INTO staff VALUES ('\\''); UPDATE ledger SET id = id + 100; --');\n END"),
        ]),
    ]
}

fn is_refused(world: &World, script: &[Vec<u8>]) -> Result<()> {
    let ledger = || world.target.execute("shop", "SELECT string_agg(id::text, ',') FROM ledger");
    let before = ledger()?;
    let last = [script, &[query("COMMIT")]].concat();
    let mut wire = session(world)?;
    let gateway = each(&mut wire, script)?;
    ensure!(complaint(&gateway).is_some_and(|said| said.sqlstate == "42501"), "not refused: {}", tags(&gateway));
    wire.query("COMMIT")?;
    ensure!(ledger()? == before, "the ledger was changed");
    let server = each(&mut direct(world)?, &last)?;
    ensure!(ledger()? != before, "the server changes nothing either: {server:?}");
    Ok(())
}

fn left(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("UPDATE ledger SET id = id + 100 /* left */"))?;
    wire.send(&query("SELECT 1").repeat(20_000))?;
    drop(wire);
    std::thread::sleep(Duration::from_millis(300));
    // Whether there is still something to rule on is not asked.
    let _ = lead_rules(world, "approve", &ticket);
    std::thread::sleep(Duration::from_secs(1));
    // Nobody rules on this one.
    let mut wire = session(world)?;
    hold(&mut wire, &query("UPDATE ledger SET id = id + 100 /* left too */"))?;
    wire.send(&query("SELECT 1").repeat(20_000))?;
    // By then the shard has stopped reading.
    std::thread::sleep(Duration::from_millis(300));
    drop(wire);
    eventually("nobody is asked for who has left", Duration::from_secs(10), || {
        let found =
            crate::harness::audit::search(world.gateway(), &["--contains", "/* left too */"]).unwrap_or_default();
        found.first().is_some_and(|record| record["ruling"].as_str() == Some("abandoned"))
    })?;
    let ran = world.target.log()?.iter().any(|line| line.statement().is_some_and(|text| text.contains("/* left */")));
    ensure!(!ran, "it ran for nobody");
    Ok(())
}

fn spelt_otherwise(world: &World) -> Result<()> {
    let in_win1251 = b"SELECT v FROM \xef\xeb\xe0\xf2\xe5\xe6\xe8\0";
    let script = [query("SET client_encoding = 'WIN1251'"), message(b'Q', in_win1251)];
    let server = each(&mut direct(world)?, &script)?;
    ensure!(shows(&server, SECRET), "the server finds no such table: {server:?}");
    let gateway = each(&mut session(world)?, &script)?;
    ensure!(complaint(&gateway).is_some_and(|said| said.sqlstate == "42501"), "not refused: {}", tags(&gateway));
    // In a string it is a string.
    let said = each(&mut session(world)?, &[script[0].clone(), message(b'Q', b"SELECT '\xef\xeb'\0")])?;
    ensure!(complaint(&said).is_none(), "{said:?}");
    Ok(())
}

fn large_value(world: &World) -> Result<()> {
    let large = "x".repeat(100_000);
    session(world)?.extended("SELECT length($1::text), $2::text /* hides */", &[&large, "the key"], 0)?;
    let mut found = Vec::new();
    eventually("the record is there", Duration::from_secs(10), || {
        found = crate::harness::audit::search(world.gateway(), &["--contains", "/* hides */"]).unwrap_or_default();
        found.len() == 1
    })?;
    let binds = found[0]["binds"].as_array().context("no binds")?;
    ensure!(binds.len() == 2 && binds[1] == "the key", "{:?}", binds.get(1));
    ensure!(binds[0].as_str().is_some_and(|text| text.starts_with("xxxx") && text.ends_with('\u{2026}')));
    Ok(())
}
