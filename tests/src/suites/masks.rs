//! Masked data stays masked however it is asked for: the secret bytes must not cross the wire, nor reach the audit.

use anyhow::{Context, Result, ensure};

use super::World;
use super::clients::{python, script};
use crate::harness::gateway::Setup;
use crate::harness::wire::{Message, SYNC, Wire, bind, complaint, execute, first_column, parse, tags};
use crate::harness::{Report, Settings, audit};

const MASKS: &str = r#"
[[mask]]
except_groups = ["fraud"]
columns = ["customers.card_number", "*.ssn"]
style = "last4"

[[mask]]
except_groups = ["fraud"]
detect = ["card", "email", "iban"]
style = "fill"
"#;

const TABLES: &str = "\
    CREATE TABLE customers (id int PRIMARY KEY, name text, card_number text, email text, ssn text, iban text); \
    INSERT INTO customers VALUES \
      (1, 'Ada', '4111111111111111', 'ada@example.com', '078-05-1120', 'DE89370400440532013000'), \
      (2, 'Bob', '5500005555555559', 'bob@example.com', '219-09-9999', 'GB29NWBK60161331926819'), \
      (3, 'Cyd', NULL, NULL, NULL, NULL); \
    CREATE VIEW cards AS SELECT id, card_number AS plastic FROM customers; \
    CREATE TABLE notes (id int, body text); \
    INSERT INTO notes VALUES (1, 'card 4111111111111111, write to ada@example.com');";

/// Values of masked columns, whole and in the shapes a leak would take.
const SECRETS: &[&str] = &[
    "4111111111111111",
    "5500005555555559",
    "411111111111",
    "078-05-1120",
    "219-09-9999",
    "078051120",
    "078-05",
    "219-09",
    "078/05",
    "219/09",
];
/// What only content detectors hide.
const DETECTED: &[&str] = &["ada@example.com", "bob@example.com", "DE89370400440532013000", "GB29NWBK60161331926819"];

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "masks", &Setup { more: MASKS.into(), ..Setup::default() })?;
    world.target.execute("shop", TABLES)?;
    report.case("a masked column in text: same length, last four kept, NULL stays NULL", || shape(&world));
    for (name, sql) in SHOWN {
        report.case(&format!("masked and answered: {name}"), || masked(&world, sql, true));
    }
    for (name, sql) in HIDDEN {
        report.case(&format!("masked or refused: {name}"), || masked(&world, sql, false));
    }
    report.case("binary results are masked or refused", || binary(&world));
    report.case("a prepared statement executed without Describe is masked", || without_describe(&world));
    report.case("a cursor's portions are masked", || cursor(&world));
    report.case("a statement prepared in SQL and run by the protocol is masked", || prepared_in_sql(&world));
    report.case("a cursor that was exchanged behind a prepared FETCH is masked", || exchanged_cursor(&world));
    report.case("a portal fetched row by row is masked", || portal(&world));
    report.case("an error message does not carry the value", || error_text(&world));
    report.case("masked data cannot be stored elsewhere", || stored_elsewhere(&world));
    report.case("masked data cannot be parked where another statement shows it", || parked(&world));
    report.case("every function of the server that changes something is told apart or known to keep nothing", || {
        functions_known(&world)
    });
    report.case("an exempt group sees the data, in the same run", || exempt(&world));
    report.case("a large masked result is masked to the last row", || large(&world));
    script(
        report,
        "psycopg under masks",
        python("psycopg_masks.py"),
        &world.endpoint("ada@example.com", &["engineering"], true),
    );
    report.case("what was masked is masked in the audit too", || audit_masked(&world));
    Ok(())
}

/// Must answer rows, without the secret.
const SHOWN: &[(&str, &str)] = &[
    ("the column", "SELECT card_number, ssn FROM customers"),
    ("all columns", "SELECT * FROM customers"),
    ("an alias", "SELECT c.card_number AS harmless FROM customers AS c"),
    ("quoted and qualified", "SELECT \"public\".\"customers\".\"card_number\" FROM public.customers"),
    ("a subquery", "SELECT x FROM (SELECT card_number AS x FROM customers) s"),
    ("a CTE", "WITH s AS (SELECT card_number AS x FROM customers) SELECT x FROM s"),
    ("a join", "SELECT c.card_number FROM customers c JOIN notes n ON n.id = c.id"),
    ("content in another column", "SELECT body FROM notes"),
    ("content in a constant", "SELECT 'mail ada@example.com, card 4111111111111111'"),
    ("RETURNING", "UPDATE customers SET name = name WHERE id < 3 RETURNING card_number, ssn, email, iban"),
];

/// May answer or refuse, and never with the secret.
const HIDDEN: &[(&str, &str)] = &[
    ("an expression", "SELECT upper(card_number), ssn || '' FROM customers"),
    ("a cast", "SELECT card_number::bytea, card_number::varchar(12) FROM customers"),
    ("a part", "SELECT substr(card_number, 1, 12), left(ssn, 8) FROM customers"),
    ("reversed", "SELECT reverse(reverse(card_number)) FROM customers"),
    ("digits only", "SELECT replace(ssn, '-', '') FROM customers"),
    ("an aggregate", "SELECT string_agg(card_number, ','), array_agg(ssn), max(card_number) FROM customers"),
    ("a whole row", "SELECT customers FROM customers"),
    ("a whole row in JSON", "SELECT row_to_json(c), to_jsonb(c) FROM customers c"),
    ("XML of the table", "SELECT table_to_xml('customers', true, false, '')"),
    ("a set operation", "SELECT name FROM customers UNION ALL SELECT card_number FROM customers"),
    ("the other side of a set operation", "SELECT card_number FROM customers UNION SELECT name FROM customers"),
    ("lateral", "SELECT x FROM customers c, LATERAL (SELECT c.card_number AS x) l"),
    ("unnest", "SELECT unnest(ARRAY[card_number, ssn]) FROM customers"),
    ("a view", "SELECT plastic FROM cards"),
    ("a scalar subquery", "SELECT (SELECT card_number FROM customers WHERE id = 1)"),
    ("coalesce and case", "SELECT coalesce(card_number, ''), CASE WHEN true THEN ssn END FROM customers"),
    ("a window", "SELECT first_value(card_number) OVER (ORDER BY id) FROM customers"),
    ("TABLE", "TABLE customers"),
    ("COPY of the table", "COPY customers TO STDOUT"),
    ("COPY of a query", "COPY (SELECT card_number AS x, ssn FROM customers) TO STDOUT CSV"),
    ("COPY in binary", "COPY customers TO STDOUT (FORMAT binary)"),
    (
        "statistics that hold samples",
        "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE tablename = 'customers'",
    ),
    (
        "a notice",
        "DO $$ DECLARE c text; BEGIN SELECT card_number INTO c FROM customers WHERE id = 1; RAISE NOTICE '%', c; END $$",
    ),
    ("a prepared statement in SQL", "PREPARE s AS SELECT card_number FROM customers; EXECUTE s"),
    ("format()", "SELECT format('%s', customers) FROM customers"),
    ("query_to_xml", "SELECT query_to_xml('SELECT card_number FROM customers', true, false, '')"),
];

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

/// No secret in any byte of any message.
fn keeps_secrets(messages: &[Message]) -> Result<()> {
    for message in messages {
        for secret in SECRETS.iter().chain(DETECTED) {
            let shown = String::from_utf8_lossy(&message.body).into_owned();
            ensure!(!audit::holds(&message.body, secret), "{secret} came through in {}: {shown}", message.tag as char);
        }
    }
    Ok(())
}

fn shape(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let cards = first_column(&wire.query("SELECT card_number FROM customers ORDER BY id")?);
    ensure!(cards.len() == 3 && cards[2] == "NULL", "{cards:?}");
    for (masked, original) in cards.iter().zip(["4111111111111111", "5500005555555559"]) {
        ensure!(masked.len() == original.len() && masked.ends_with(&original[12..]), "{masked}");
        ensure!(!masked.contains(&original[..8]), "{masked}");
    }
    Ok(())
}

fn masked(world: &World, sql: &str, must_answer: bool) -> Result<()> {
    let mut wire = session(world)?;
    for statement in sql.split("; ").filter(|_| !sql.starts_with("DO")).chain(sql.starts_with("DO").then_some(sql)) {
        let messages = wire.query(statement)?;
        keeps_secrets(&messages)?;
        if must_answer {
            ensure!(complaint(&messages).is_none(), "refused: {:?}", complaint(&messages));
            ensure!(messages.iter().any(|message| message.tag == b'D'), "no rows: {}", tags(&messages));
        }
    }
    // Whatever happened, the session goes on.
    ensure!(wire.value("SELECT 'on'")? == "on");
    let mut wire = session(world)?;
    if !sql.contains("; ") {
        keeps_secrets(&wire.extended(sql, &[], 0)?)?;
        keeps_secrets(&wire.extended(sql, &[], 1)?)?;
    }
    Ok(())
}

fn binary(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in
        ["SELECT card_number, ssn FROM customers", "SELECT id, email, iban FROM customers", "SELECT body FROM notes"]
    {
        let messages = wire.extended(sql, &[], 1)?;
        keeps_secrets(&messages).with_context(|| sql.to_string())?;
    }
    // A column nobody masks is exact.
    let messages = wire.extended("SELECT id FROM customers ORDER BY id", &[], 1)?;
    let row = messages.iter().find(|message| message.tag == b'D').context("no row")?;
    ensure!(row.cells() == [Some(vec![0, 0, 0, 1])], "{row:?}");
    Ok(())
}

fn without_describe(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.send(&[parse("s", "SELECT card_number, ssn, id FROM customers WHERE id < $1::int"), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    for format in [0, 1, 0] {
        wire.send(&[bind("", "s", &["3"], format), execute("", 0), SYNC.to_vec()].concat())?;
        let messages = wire.read_until_ready()?;
        keeps_secrets(&messages)?;
        if format == 0 {
            // No Describe was asked for, so none is answered.
            ensure!(tags(&messages) == "2DDCZ", "{}", tags(&messages));
        }
    }
    Ok(())
}

/// No detector knows this spelling: only the column's mask hides it.
const RESPELT: &str = "SELECT translate(ssn, '-', '/') FROM customers";

fn prepared_in_sql(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    keeps_secrets(&wire.query(&format!("PREPARE a AS {RESPELT}"))?)?;
    for format in [0, 1] {
        wire.send(&[bind("", "a", &[], format), execute("", 0), SYNC.to_vec()].concat())?;
        let messages = wire.read_until_ready()?;
        keeps_secrets(&messages)?;
        ensure!(tags(&messages) == "2DDDCZ", "{}", tags(&messages));
    }
    Ok(())
}

fn exchanged_cursor(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("DECLARE c CURSOR FOR SELECT body FROM notes")?;
    wire.send(&[parse("f", "FETCH 1 FROM c"), SYNC.to_vec()].concat())?;
    wire.read_until_ready()?;
    wire.query("CLOSE c")?;
    wire.query(&format!("DECLARE c CURSOR FOR {RESPELT}"))?;
    wire.send(&[bind("", "f", &[], 0), execute("", 0), SYNC.to_vec()].concat())?;
    let messages = wire.read_until_ready()?;
    keeps_secrets(&messages)?;
    ensure!(tags(&messages).ends_with('Z'), "{}", tags(&messages));
    Ok(())
}

fn cursor(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    for sql in ["DECLARE c CURSOR FOR SELECT card_number, ssn FROM customers", "FETCH 1 FROM c", "FETCH ALL FROM c"] {
        keeps_secrets(&wire.query(sql)?)?;
    }
    keeps_secrets(&wire.extended("FETCH BACKWARD ALL FROM c", &[], 0)?)?;
    wire.query("ROLLBACK").map(drop)
}

fn portal(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let begin = [parse("", "SELECT card_number FROM customers ORDER BY id"), bind("p", "", &[], 0)].concat();
    wire.send(&[&begin[..], &execute("p", 1), &execute("p", 1), &execute("p", 0), SYNC].concat())?;
    let messages = wire.read_until_ready()?;
    keeps_secrets(&messages)?;
    ensure!(tags(&messages) == "12DsDsDCZ", "{}", tags(&messages));
    Ok(())
}

fn error_text(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in [
        "SELECT card_number::date FROM customers",
        "SELECT ssn::int FROM customers",
        "SELECT name::int FROM customers WHERE name = (SELECT 'ada@example.com')",
        "SELECT email::uuid FROM customers",
    ] {
        keeps_secrets(&wire.query(sql)?).with_context(|| sql.to_string())?;
    }
    Ok(())
}

fn stored_elsewhere(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in [
        "CREATE TABLE copied AS SELECT card_number AS x FROM customers",
        "SELECT ssn AS x INTO copied FROM customers",
        "INSERT INTO notes SELECT id, card_number FROM customers",
        "UPDATE notes SET body = (SELECT ssn FROM customers WHERE customers.id = 1) WHERE id = 1",
        "CREATE VIEW copied AS SELECT card_number AS x FROM customers",
        "CREATE MATERIALIZED VIEW copied AS SELECT * FROM customers",
        "UPDATE customers SET name = ssn",
        "INSERT INTO customers SELECT id + 10, ssn FROM customers",
    ] {
        let said = complaint(&wire.query(sql)?).with_context(|| format!("stored: {sql}"))?;
        ensure!(said.sqlstate == "42501", "{sql}: {said:?}");
    }
    Ok(())
}

/// The names and places of what a session has, which views and functions show unmasked.
const PARKED: &[&str] = &[
    "DO $$ DECLARE r refcursor; BEGIN SELECT ssn INTO r FROM customers WHERE id = 1; OPEN r FOR SELECT 1; END $$",
    "DO $$ DECLARE v text; c CURSOR FOR SELECT 1; BEGIN SELECT ssn INTO v FROM customers WHERE id = 1; c := v; OPEN c; END $$",
    "DO $$ DECLARE n int; r refcursor := 'numbers'; BEGIN \
     SELECT left(ssn, 3)::int INTO n FROM customers WHERE id = 1; MOVE RELATIVE n FROM r; END $$",
    "DO $$ BEGIN EXECUTE $q$DO $r$ DECLARE r refcursor; BEGIN SELECT ssn INTO r FROM customers; OPEN r FOR SELECT 1; END $r$ $q$; END $$",
    "CREATE FUNCTION named(r refcursor) RETURNS refcursor LANGUAGE plpgsql AS $$ BEGIN OPEN r FOR SELECT 1; RETURN r; END $$",
    "SELECT lo_lseek64(0, replace(ssn, '-', '')::bigint, 0) FROM customers WHERE id = 1",
    "SELECT lo_lseek(0, replace(ssn, '-', '')::int, 0) FROM customers WHERE id = 1",
    "SELECT lo_truncate64(0, replace(ssn, '-', '')::bigint) FROM customers WHERE id = 1",
    "SELECT lo_truncate(0, replace(ssn, '-', '')::int) FROM customers WHERE id = 1",
    "SELECT loread(0, replace(ssn, '-', '')::int) FROM customers WHERE id = 1",
    "SELECT pg_advisory_lock(replace(ssn, '-', '')::bigint) FROM customers WHERE id = 1",
    "DO $$ DECLARE v bigint; BEGIN SELECT replace(ssn, '-', '') INTO v FROM customers WHERE id = 1; PERFORM lo_lseek64(0, v, 0); END $$",
];

fn parked(world: &World) -> Result<()> {
    for sql in PARKED {
        let mut wire = session(world)?;
        wire.query("BEGIN")?;
        wire.query("DECLARE numbers SCROLL CURSOR FOR SELECT generate_series(1, 1000) AS n")?;
        wire.query("SELECT lo_open(lo_create(0), 393216)")?;
        let said = complaint(&wire.query(sql)?).with_context(|| format!("parked: {sql}"))?;
        ensure!(said.sqlstate == "42501", "{sql}: {said:?}");
    }
    // What tells of nothing masked goes on.
    let mut wire = session(world)?;
    for sql in [
        "BEGIN",
        "SELECT lo_open(lo_create(0), 393216)",
        "SELECT lo_lseek64(0, 12, 0)",
        "DO $$ DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP NULL; END LOOP; END $$",
    ] {
        let said = complaint(&wire.query(sql)?);
        ensure!(said.is_none(), "{sql}: {said:?}");
    }
    ensure!(wire.value("SELECT lo_tell64(0)")? == "12");
    Ok(())
}

/// Functions that change something, or may, and keep nothing that they are called with: at most they choose, as a condition does, what is
/// ended, emptied or gone on with.
#[rustfmt::skip]
const KEEP_NOTHING: &[&str] = &[
    "amvalidate", "brin_desummarize_range", "brin_summarize_new_values", "brin_summarize_range", "currtid2", "currval",
    "gin_clean_pending_list", "lo_close", "lo_get", "lo_open", "lo_tell", "lo_tell64", "lo_unlink", "nextval", "pg_backup_stop",
    "pg_blocking_pids", "pg_cancel_backend", "pg_collation_actual_version", "pg_current_logfile",
    "pg_database_collation_actual_version", "pg_database_size", "pg_drop_replication_slot", "pg_get_multixact_members",
    "pg_import_system_collations", "pg_indexes_size", "pg_isolation_test_session_is_blocked", "pg_log_backend_memory_contexts",
    "pg_ls_dir", "pg_ls_replslotdir", "pg_ls_tmpdir", "pg_nextoid", "pg_partition_ancestors", "pg_partition_tree", "pg_promote",
    "pg_relation_size", "pg_replication_origin_drop", "pg_replication_origin_progress", "pg_replication_origin_session_progress",
    "pg_safe_snapshot_blocking_pids", "pg_sequence_last_value", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_stat_file",
    "pg_stat_have_stats", "pg_stat_reset_replication_slot", "pg_stat_reset_shared", "pg_stat_reset_single_function_counters",
    "pg_stat_reset_single_table_counters", "pg_stat_reset_slru", "pg_stat_reset_subscription_stats", "pg_table_size",
    "pg_tablespace_size", "pg_terminate_backend", "pg_total_relation_size", "pg_xact_commit_timestamp",
    "pg_xact_commit_timestamp_origin", "pg_xact_status", "plpgsql_validator", "txid_status",
    // In an extension's script only.
    "pg_extension_config_dump",
];
/// Refused but while a server is upgraded; counts of this transaction.
const KEEP_NOTHING_BY_PREFIX: [&str; 2] = ["binary_upgrade_", "pg_stat_get_xact_"];

fn functions_known(world: &World) -> Result<()> {
    let listed = world.target.execute(
        "shop",
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v' \
         AND pronargs > 0 AND prorettype <> 'trigger'::regtype AND 'internal'::regtype <> ALL (proargtypes::oid[])",
    )?;
    let keeps_nothing = |name: &str| {
        KEEP_NOTHING.contains(&name) || KEEP_NOTHING_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
    };
    let names: Vec<&str> = listed.split_whitespace().collect();
    ensure!(names.len() > 100, "{listed}");
    let unknown: Vec<&&str> =
        names.iter().filter(|name| !masking::sql::is_told_apart(name) && !keeps_nothing(name)).collect();
    ensure!(unknown.is_empty(), "does one of these keep what it is called with? {unknown:?}");
    Ok(())
}

fn exempt(world: &World) -> Result<()> {
    let mut masked = session(world)?;
    let mut exempt = Wire::connect(&world.endpoint("fay@example.com", &["engineering", "fraud"], false))?;
    const SQL: &str = "SELECT card_number || ' ' || email FROM customers WHERE id = 1";
    for _ in 0..2 {
        keeps_secrets(&masked.query(SQL)?)?;
        ensure!(exempt.value(SQL)? == "4111111111111111 ada@example.com");
    }
    Ok(())
}

fn large(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let sql = "SELECT c.card_number, c.ssn, repeat('x', n % 5000) FROM customers c, generate_series(1, 5000) n WHERE c.id < 3";
    let messages = wire.query(sql)?;
    ensure!(messages.iter().filter(|message| message.tag == b'D').count() == 10_000);
    for message in &messages {
        // Only the first two cells can hold a secret; the rest is a known filler.
        let head = &message.body[..message.body.len().min(64)];
        ensure!(SECRETS.iter().all(|secret| !audit::holds(head, secret)), "a row came through unmasked");
    }
    Ok(())
}

fn audit_masked(world: &World) -> Result<()> {
    // The secrets that stood in statements of this suite are texts of the requester, so only column values are searched.
    for (file, bytes) in audit::contents(&world.gateway().home().join("data"))? {
        for secret in ["5500005555555559", "219-09-9999", "GB29NWBK60161331926819"] {
            // The exempt analyst read row 1 only, and saw it.
            ensure!(!audit::holds(&bytes, secret), "{secret} is in {}", file.display());
        }
    }
    let records = audit::search(world.gateway(), &["--user", "ada@example.com"])?;
    let counted = records.iter().any(|record| record["masked"].as_u64().is_some_and(|cells| cells > 0));
    ensure!(counted, "no record says how many values were masked");
    Ok(())
}
