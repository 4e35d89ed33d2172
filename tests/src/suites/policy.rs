//! Rules on the wire: refused in order in both protocols, held until ruled on, and the session goes on.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::eventually;
use crate::harness::wire::{
    self, Complaint, Message, SYNC, Wire, bind, complaint, describe_portal, execute, first_column, parse, password,
    query, startup, tags,
};
use crate::harness::{Report, Settings, audit};

const RULES: &str = r#"
[[rule]]
name = "no-ddl"
classes = ["drop", "truncate", "alter", "copy_program"]
action = "deny"
message = "Use a migration"

[[rule]]
name = "say-which-rows"
missing_where = true
action = "deny"
message = "Say which rows"

[[rule]]
name = "no-naps"
words = ["pg_sleep_for"]
action = "deny"

[[rule]]
name = "soon-forgotten"
classes = ["delete"]
tables = ["public.expiring"]
action = "approve"
approvers = ["leads"]
expires = "2s"

[[rule]]
name = "ask-first"
classes = ["delete"]
tables = ["public.orders"]
action = "approve"
approvers = ["leads"]
expires = "1m"

[[rule]]
name = "two-must-agree"
classes = ["update"]
tables = ["public.ledger"]
action = "approve"
approvers = ["leads"]
count = 2
expires = "1m"

[[rule]]
name = "closed-books"
tables = ["billing.*"]
action = "deny"

[[rule]]
name = "watched"
tables = ["public.ledger"]
action = "alert"
"#;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT n, 'order ' || n \
                      FROM generate_series(1, 100) n; CREATE TABLE expiring AS TABLE orders; CREATE TABLE ledger AS TABLE orders;";

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let setup = Setup { more: RULES.into(), ..Setup::default() };
    let world = World::start(settings, "policy", &setup)?;
    world.target.execute("shop", TABLES)?;
    denials(report, &world);
    approvals(report, &world);
    Ok(())
}

fn denials(report: &mut Report, world: &World) {
    report.case("a denied statement says why, names the rule, and the session goes on", || denied_simple(world));
    report.case("one refused statement of a Query, and none of it runs", || denied_among_several(world));
    report.case("denied over the extended protocol, up to Sync and no further", || denied_extended(world));
    report.case("refused statements wait their turn in a pipeline", || pipeline_order(world));
    report.case("Queries sent without waiting are answered in order", || simple_order(world));
    report.case("a refused statement inside a transaction can be rolled back", || denied_in_transaction(world));
    report.case("what a statement does counts, however it is written", || disguises(world));
    report.case("words are identifiers, never strings or comments", || innocent(world));
    report.case("a statement that does not parse is refused", || unparsed(world));
    report.case("an alert lets the statement pass and records the rule", || alert(world));
    report.case("a start-up message sets nothing that a rule denies, and what it sets is in the trail", || {
        set_at_start(world)
    });
    report.case("explain gives the verdict of the live path", || explain(world));
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

fn refused(messages: &[Message], sqlstate: &str, rule: &str) -> Result<Complaint> {
    let complaint = complaint(messages).with_context(|| format!("not refused: {}", tags(messages)))?;
    ensure!(complaint.sqlstate == sqlstate, "{complaint:?}");
    ensure!(complaint.detail.contains(rule), "the rule {rule} is not named: {complaint:?}");
    Ok(complaint)
}

/// Whether the target ever saw this text.
pub(super) fn reached_target(world: &World, text: &str) -> Result<bool> {
    Ok(world.target.log()?.iter().any(|line| line.statement().is_some_and(|statement| statement.contains(text))))
}

fn set_at_start(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let log_in = |options: &str| -> Result<Option<Complaint>> {
        let mut wire = Wire::open(&endpoint)?;
        wire.send(&startup(&[("user", "ada"), ("database", &endpoint.dbname), ("options", options)]))?;
        loop {
            let message = wire.read()?;
            match message.tag {
                b'R' if message.body == [0, 0, 0, 3] => wire.send(&password(&endpoint.password))?,
                b'E' => return Ok(Some(message.complaint())),
                b'Z' => return Ok(None),
                _ => {}
            }
        }
    };
    for options in
        ["-c search_path=billing", "-ecsearch_path=billing", "-E-search-path=billing", "-c\x0bsearch_path=billing"]
    {
        let said = log_in(options)?.with_context(|| format!("let in with {options:?}"))?;
        ensure!(said.sqlstate == "42501", "{options:?}: {said:?}");
    }
    ensure!(log_in("-c work_mem=2MB --application-name=reports")?.is_none(), "refused");
    let sessions = audit::search(world.gateway(), &["--kind", "session"])?;
    let told =
        |record: &Value| record["detail"].as_str().is_some_and(|detail| detail.ends_with("begins with work_mem=2MB"));
    ensure!(sessions.iter().any(told), "{sessions:?}");
    Ok(())
}

fn denied_simple(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let messages = wire.query("DROP TABLE orders /* d1 */")?;
    ensure!(tags(&messages) == "EZ", "{}", tags(&messages));
    let said = refused(&messages, "42501", "no-ddl")?;
    ensure!(said.message.contains("Use a migration") && said.severity == "ERROR", "{said:?}");
    ensure!(messages[1].body == b"I", "not idle");
    ensure!(wire.value("SELECT count(*) FROM orders")? == "100");
    ensure!(!reached_target(world, "/* d1 */")?, "it was forwarded");
    Ok(())
}

fn denied_among_several(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let messages = wire.query("INSERT INTO orders VALUES (1001, 'd2'); DROP TABLE orders; SELECT 1")?;
    ensure!(tags(&messages) == "EZ", "{}", tags(&messages));
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 1001")? == "0", "a part of it ran");
    Ok(())
}

fn denied_extended(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let messages = wire.extended("DROP TABLE orders", &[], 0)?;
    ensure!(tags(&messages) == "EZ", "{}", tags(&messages));
    refused(&messages, "42501", "no-ddl")?;
    let messages = wire.extended("SELECT $1::int + 1", &["41"], 0)?;
    ensure!(first_column(&messages) == ["42"], "{}", tags(&messages));
    // The named statement was never made.
    wire.send(&[parse("gone", "TRUNCATE orders"), SYNC.to_vec()].concat())?;
    refused(&wire.read_until_ready()?, "42501", "no-ddl")?;
    wire.send(&[bind("", "gone", &[], 0), execute("", 0), SYNC.to_vec()].concat())?;
    let missing = complaint(&wire.read_until_ready()?).context("it exists")?;
    ensure!(missing.sqlstate == "26000", "{missing:?}");
    Ok(())
}

fn unnamed(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), describe_portal(""), execute("", 0)].concat()
}

fn pipeline_order(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    // One Sync at the end: what follows the refused one is skipped, as the server would.
    let sequence = [unnamed("SELECT 'one'"), unnamed("DROP TABLE orders"), unnamed("SELECT 'never'"), SYNC.to_vec()];
    wire.send(&sequence.concat())?;
    let messages = wire.read_until_ready()?;
    ensure!(first_column(&messages) == ["one"] && tags(&messages).ends_with("CEZ"), "{}", tags(&messages));
    // A Sync each: only the refused one is lost.
    let each: Vec<u8> = ["SELECT pg_sleep(0.2), 1", "DROP TABLE orders", "SELECT 2", "TRUNCATE orders", "SELECT 3"]
        .iter()
        .flat_map(|sql| [unnamed(sql), SYNC.to_vec()].concat())
        .collect();
    wire.send(&each)?;
    let rounds: Result<Vec<String>> = (0..5).map(|_| wire.read_until_ready().map(|messages| tags(&messages))).collect();
    ensure!(rounds.as_ref().is_ok_and(|rounds| *rounds == ["12TDCZ", "EZ", "12TDCZ", "EZ", "12TDCZ"]), "{rounds:?}");
    Ok(())
}

fn simple_order(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let all: Vec<u8> = ["SELECT pg_sleep(0.2)", "DROP TABLE orders", "SELECT 2", "SELEC", "SELECT 3"]
        .iter()
        .flat_map(|sql| query(sql))
        .collect();
    wire.send(&all)?;
    let rounds: Result<Vec<String>> = (0..5).map(|_| wire.read_until_ready().map(|messages| tags(&messages))).collect();
    ensure!(rounds.as_ref().is_ok_and(|rounds| *rounds == ["TDCZ", "EZ", "TDCZ", "EZ", "TDCZ"]), "{rounds:?}");
    Ok(())
}

fn denied_in_transaction(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("INSERT INTO orders VALUES (2001, 'in a transaction')")?;
    refused(&wire.query("DROP TABLE orders")?, "42501", "no-ddl")?;
    let end = wire.query("ROLLBACK")?;
    ensure!(tags(&end) == "CZ" && end[1].body == b"I", "{}", tags(&end));
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 2001")? == "0");
    Ok(())
}

fn disguises(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let cases = [
        ("dRoP/**/TABLE orders", "no-ddl"),
        ("EXPLAIN ANALYZE DELETE FROM ledger", "say-which-rows"),
        ("DELETE FROM ledger", "say-which-rows"),
        ("DELETE FROM ledger WHERE true", "say-which-rows"),
        ("DELETE FROM ledger WHERE 1 = 1", "say-which-rows"),
        ("UPDATE ledger SET note = 'x'", "say-which-rows"),
        ("WITH gone AS (DELETE FROM ledger RETURNING *) SELECT count(*) FROM gone", "say-which-rows"),
        ("PREPARE p AS DELETE FROM ledger", "say-which-rows"),
        ("DO $$ BEGIN DROP TABLE orders; END $$", "no-ddl"),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE orders'; END $$", "no-ddl"),
        ("COPY ledger TO PROGRAM 'cat'", "no-ddl"),
        ("SELECT pg_sleep_for('1 ms')", "no-naps"),
        ("SELECT \"pg_sleep_for\"('1 ms')", "no-naps"),
        ("SELECT PG_SLEEP_FOR ('1 ms')", "no-naps"),
        ("SELECT U&\"pg\\005fsleep_for\"('1 ms')", "no-naps"),
    ];
    for (sql, rule) in cases {
        let messages = wire.query(sql)?;
        refused(&messages, "42501", rule).with_context(|| sql.to_string())?;
        ensure!(!reached_target(world, sql)?, "forwarded: {sql}");
    }
    ensure!(wire.value("SELECT count(*) FROM ledger")? == "100");
    Ok(())
}

fn innocent(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in [
        "SELECT 'DROP TABLE orders; pg_sleep_for'",
        "SELECT 1 /* DROP TABLE orders; pg_sleep_for() */ -- TRUNCATE",
        "SELECT $x$DELETE FROM orders$x$ AS \"DELETE FROM\"",
        "SELECT E'\\'; DROP TABLE orders; --'",
        "UPDATE expiring SET note = 'DROP' WHERE id = 7",
        "SELECT",
        "",
        ";",
    ] {
        let messages = wire.query(sql)?;
        ensure!(complaint(&messages).is_none(), "{sql}: {:?}", complaint(&messages));
    }
    Ok(())
}

fn unparsed(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for sql in ["SELEC 1 /* u1 */", "SELECT ((1) /* u2 */", "\u{1}DROP TABLE orders /* u3 */"] {
        let messages = wire.query(sql)?;
        let said = complaint(&messages).with_context(|| format!("let through: {sql:?}"))?;
        ensure!(said.sqlstate == "42501", "{sql:?}: {said:?}");
    }
    ensure!(!reached_target(world, "/* u")?, "the target saw what the gateway could not read");
    ensure!(wire.value("SELECT 1")? == "1");
    Ok(())
}

fn alert(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    ensure!(wire.value("SELECT count(*) FROM ledger /* alerted */")? == "100");
    let records = audit::search(world.gateway(), &["--contains", "/* alerted */"])?;
    ensure!(
        records.iter().any(|record| record["decision"] == "alert" && record["rule"] == "watched"),
        "not recorded as an alert: {records:?}"
    );
    Ok(())
}

fn explain(world: &World) -> Result<()> {
    let who = ["explain", "--target", "orders", "--user", "ada@example.com", "--groups", "engineering"];
    for (sql, action, rule) in [
        ("SELECT * FROM orders", "allow", ""),
        ("DROP TABLE orders", "deny", "no-ddl"),
        ("DELETE FROM orders WHERE id = 1", "approve", "ask-first"),
        ("SELECT * FROM ledger", "alert", "watched"),
        ("DELETE FROM ledger WHERE true", "deny", "say-which-rows"),
    ] {
        let verdict = world.gateway().json(&[&who[..], &[sql]].concat())?;
        let verdict = verdict.first().context("no verdict")?;
        ensure!(verdict["action"] == action, "{sql}: {verdict}");
        ensure!(verdict["rule"].as_str().unwrap_or_default() == rule, "{sql}: {verdict}");
    }
    let finished = world.gateway().command(&[&who[..], &["--fail-on-deny", "DROP TABLE orders"]].concat())?;
    ensure!(finished.status == Some(1), "exit status {:?}", finished.status);
    Ok(())
}

fn approvals(report: &mut Report, world: &World) {
    report.case("a held statement runs once a reviewer approves", || approved(world));
    report.case("a rejected statement is refused with the reason's ticket", || rejected(world));
    report.case("a ticket nobody rules on expires", || expired(world));
    report.case("the requester cannot approve their own statement", || self_approval(world));
    report.case("somebody who is no approver cannot rule", || stranger_rules(world));
    report.case("two must agree, and the same one twice is not two", || two_of_two(world));
    report.case("held over the extended protocol, with the binds shown", || approved_extended(world));
    report.case("what is pipelined behind a held statement waits; other sessions do not", || held_pipeline(world));
    report.case("a client that leaves abandons its ticket", || abandoned(world));
    report.case("one ruling, one use", || single_use(world));
}

/// Sends a statement that must be held and returns the ticket its notice names.
pub(super) fn hold(wire: &mut Wire, bytes: &[u8]) -> Result<String> {
    wire.send(bytes)?;
    loop {
        let message = wire.read()?;
        match message.tag {
            b'N' => return ticket_in(&message.complaint()),
            b'E' => bail!("refused: {:?}", message.complaint()),
            b'1' | b'2' | b'T' | b'n' | b't' => {}
            other => bail!("not held: {}", other as char),
        }
    }
}

/// The ticket id a notice names: the shard, and something random in hexadecimal, as in `0-e0f6b69ba3`.
pub(super) fn ticket_in(notice: &Complaint) -> Result<String> {
    let text = format!("{} {} {}", notice.message, notice.detail, notice.hint);
    let is_ticket = |word: &&str| {
        word.split_once('-').is_some_and(|(shard, random)| {
            shard.parse::<u32>().is_ok() && random.len() >= 8 && random.chars().all(|c| c.is_ascii_hexdigit())
        })
    };
    let mut words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '-');
    words.find(is_ticket).map(str::to_string).with_context(|| format!("the notice names no ticket: {notice:?}"))
}

pub(super) fn pending(world: &World) -> Result<Vec<Value>> {
    world.gateway().json(&["approvals", "ls"])
}

pub(super) fn is_pending(world: &World, ticket: &str) -> Result<bool> {
    Ok(pending(world)?.iter().any(|row| row.to_string().contains(ticket)))
}

/// `approvals approve|reject` with a reviewer's token; its exit status and words.
pub(super) fn rule(
    world: &World,
    verb: &str,
    ticket: &str,
    user: &str,
    groups: &[&str],
) -> Result<(Option<i32>, String)> {
    let token = world.issuer.token(user, groups);
    let finished =
        world.gateway().command(&["approvals", verb, ticket, "--reason", "because-tested", "--token", &token])?;
    Ok((finished.status, finished.everything()))
}

pub(super) fn lead_rules(world: &World, verb: &str, ticket: &str) -> Result<()> {
    let (status, words) = rule(world, verb, ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(0), "exit status {status:?}: {words}");
    Ok(())
}

fn approved(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 1 /* a1 */"))?;
    ensure!(is_pending(world, &ticket)?, "{ticket} is not listed: {:?}", pending(world)?);
    ensure!(!reached_target(world, "/* a1 */")?, "forwarded before anybody ruled");
    lead_rules(world, "approve", &ticket)?;
    let messages = wire.read_until_ready()?;
    ensure!(tags(&messages) == "CZ", "{}", tags(&messages));
    ensure!(messages[0].body == b"DELETE 1\0", "{:?}", messages[0]);
    ensure!(!is_pending(world, &ticket)?, "still listed");
    let records = audit::search(world.gateway(), &["--contains", "/* a1 */"])?;
    ensure!(records.iter().any(|record| record["ticket"] == ticket.as_str()), "{records:?}");
    let all = audit::search(world.gateway(), &[])?;
    let ruled = all.iter().any(|record| {
        let text = record.to_string();
        text.contains(&ticket) && text.contains("lee@example.com") && text.contains("because-tested")
    });
    ensure!(ruled, "who ruled and why is not recorded");
    Ok(())
}

fn rejected(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 2 /* r1 */"))?;
    lead_rules(world, "reject", &ticket)?;
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not refused")?;
    ensure!(said.sqlstate == "42501", "{said:?}");
    ensure!(format!("{said:?}").contains(&ticket), "the ticket is not named: {said:?}");
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 2")? == "1");
    ensure!(!reached_target(world, "/* r1 */")?, "forwarded");
    Ok(())
}

fn expired(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM expiring WHERE id = 1"))?;
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not refused")?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(1), "approved after it had expired: {status:?} {words}");
    ensure!(wire.value("SELECT count(*) FROM expiring WHERE id = 1")? == "1");
    Ok(())
}

fn self_approval(world: &World) -> Result<()> {
    // A requester who is an approver, and still may not.
    let mut wire = Wire::connect(&world.endpoint("lou@example.com", &["leads"], false))?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 3"))?;
    let (status, words) = rule(world, "approve", &ticket, "lou@example.com", &["leads"])?;
    ensure!(status == Some(1), "exit status {status:?}: {words}");
    ensure!(is_pending(world, &ticket)?, "the attempt ended the ticket");
    lead_rules(world, "approve", &ticket)?;
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    Ok(())
}

fn stranger_rules(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 4"))?;
    let (status, words) = rule(world, "approve", &ticket, "eve@example.com", &["engineering"])?;
    ensure!(status == Some(1), "no approver: exit status {status:?}: {words}");
    let forged = world.gateway().command(&["approvals", "approve", &ticket, "--token", "forged"])?;
    ensure!(forged.status == Some(1), "forged token: exit status {:?}", forged.status);
    let unnamed = world.gateway().command(&["approvals", "approve", &ticket])?;
    ensure!(unnamed.status != Some(0), "nobody ruled, and it counted");
    ensure!(is_pending(world, &ticket)?, "the attempts ended the ticket");
    lead_rules(world, "reject", &ticket)
}

fn two_of_two(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("UPDATE ledger SET note = 'agreed' WHERE id = 1"))?;
    lead_rules(world, "approve", &ticket)?;
    ensure!(is_pending(world, &ticket)?, "one was enough");
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(is_pending(world, &ticket)?, "the same one twice was enough: {status:?} {words}");
    let (status, words) = rule(world, "approve", &ticket, "max@example.com", &["leads"])?;
    ensure!(status == Some(0), "exit status {status:?}: {words}");
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    eventually("the first vote and the refused one are in the trail", Duration::from_secs(10), || {
        let told = ["--kind", "gateway", "--contains", &ticket];
        let told = audit::search(world.gateway(), &told).unwrap_or_default();
        let has = |text: &str| told.iter().any(|record| record.to_string().contains(text));
        has("approved by lee@example.com, 1 of 2") && has("lee@example.com may not approve it")
    })?;
    Ok(())
}

fn approved_extended(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let sequence = [
        parse("del", "DELETE FROM orders WHERE id = $1::int AND note <> $2"),
        bind("", "del", &["5", "bind-shown"], 0),
        execute("", 0),
        SYNC.to_vec(),
    ];
    let ticket = hold(&mut wire, &sequence.concat())?;
    let shown = world.gateway().command(&["approvals", "show", &ticket, "-o", "json"])?.succeeded()?;
    ensure!(shown.contains("bind-shown") && shown.contains("DELETE FROM orders"), "{shown}");
    lead_rules(world, "approve", &ticket)?;
    let messages = wire.read_until_ready()?;
    ensure!(complaint(&messages).is_none() && tags(&messages).ends_with("CZ"), "{}", tags(&messages));
    // The statement stays prepared; other values need another ruling.
    wire.send(&[bind("", "del", &["6", "x"], 0), execute("", 0), SYNC.to_vec()].concat())?;
    let second = loop {
        let message = wire.read()?;
        if message.tag == b'N' {
            break ticket_in(&message.complaint())?;
        }
        ensure!(message.tag == b'2', "ran without a ruling: {}", message.tag as char);
    };
    ensure!(second != ticket);
    lead_rules(world, "reject", &second)?;
    ensure!(complaint(&wire.read_until_ready()?).is_some_and(|said| said.sqlstate == "42501"));
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 6")? == "1");
    Ok(())
}

fn held_pipeline(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let bytes = [query("DELETE FROM orders WHERE id = 7"), query("SELECT 'behind' /* h1 */")].concat();
    let ticket = hold(&mut wire, &bytes)?;
    let mut neighbour = session(world)?;
    ensure!(neighbour.value("SELECT 'free'")? == "free");
    ensure!(!reached_target(world, "/* h1 */")?, "it overtook the held statement");
    lead_rules(world, "approve", &ticket)?;
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    ensure!(first_column(&wire.read_until_ready()?) == ["behind"]);
    Ok(())
}

fn abandoned(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 8 /* left */"))?;
    drop(wire);
    eventually("the ticket is gone", Duration::from_secs(10), || is_pending(world, &ticket).is_ok_and(|is| !is))?;
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(1), "approved for nobody: {status:?} {words}");
    thread::sleep(Duration::from_millis(200)); // a wrongly released statement would need a moment to arrive
    ensure!(!reached_target(world, "/* left */")?, "it ran though its client had left");
    Ok(())
}

fn single_use(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let sql = query("DELETE FROM orders WHERE id = 9");
    let first = hold(&mut wire, &sql)?;
    lead_rules(world, "approve", &first)?;
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    let second = hold(&mut wire, &sql)?;
    ensure!(first != second, "the same ticket again");
    let (status, words) = rule(world, "approve", &first, "max@example.com", &["leads"])?;
    ensure!(status == Some(1), "a ticket was used twice: {status:?} {words}");
    lead_rules(world, "reject", &second)?;
    ensure!(wire::complaint(&wire.read_until_ready()?).is_some());
    Ok(())
}
