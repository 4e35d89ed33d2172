//! Cancel requests for what the gateway itself holds: ended at once, and nothing of it is the target's business.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::World;
use super::policy::{hold, is_pending, reached_target, rule};
use crate::harness::gateway::Setup;
use crate::harness::postgres::BIN;
use crate::harness::process::{eventually, finish, signal, spawn};
use crate::harness::wire::{SYNC, Wire, bind, complaint, execute, parse, query, tags};
use crate::harness::{Endpoint, Gateway, Report, Settings, audit};

const RULES: &str = r#"
[[rule]]
name = "ask-first"
classes = ["delete"]
action = "approve"
approvers = ["leads"]
expires = "5m"
"#;

const DEADLINE: Duration = Duration::from_secs(20);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "cancel", &Setup { more: RULES.into(), ..Setup::default() })?;
    world.target.execute("shop", "CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 100) n")?;
    report.case("a held statement that is cancelled ends at once, and the session goes on", || held(&world));
    report.case("the same over the extended protocol, and what waited behind it", || held_extended(&world));
    report.case("inside a transaction the cancelled hold aborts it", || held_in_transaction(&world));
    report.case("psql interrupted while its statement is held", || psql_interrupted(&world));
    report.case("somebody else's key cancels no hold", || wrong_key(&world));
    report.case("what runs before a held statement is cancelled, and the held one skipped with it", || {
        running_before_held(&world)
    });
    report.case("behind a Query that is cancelled a held Query waits on", || held_behind_a_query(&world));
    report.case("what has ended before a held statement is answered, and the hold is what a cancel ends", || {
        ended_before_held(&world)
    });
    report.case("a held statement that the server would skip is let go", || skipped_while_held(&world));
    report.case("a cancel that comes while a long statement is read ends it", || while_read(&world));
    for durability in ["group", "strict"] {
        let setup = Setup { more: RULES.into(), durability, ..Setup::default() };
        let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
        report.case(&format!("a client that leaves ends what runs before its held statement ({durability})"), || {
            left_while_held(&world, &gateway)
        });
    }
    let lock = Lock::start(world.target.port)?;
    let setup = Setup { target_address: Some(format!("127.0.0.1:{}", lock.port)), ..Setup::default() };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    report.case("a cancel request is answered with the close once the target has it, not before", || {
        closed_when_taken(&world, &gateway, &lock)
    });
    Ok(())
}

/// Before the target: passes everything on, but keeps cancel requests back until it is opened.
struct Lock {
    port: u16,
    /// One message for each cancel request that arrived.
    arrived: Receiver<()>,
    /// One message lets one through.
    open: Sender<()>,
}

impl Lock {
    fn start(target_port: u16) -> Result<Lock> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let ((tell, arrived), (open, opened)) = (channel(), channel());
        let opened = Arc::new(Mutex::new(opened));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (tell, opened) = (tell.clone(), opened.clone());
                // An error ends this connection; the case that needed it says so.
                thread::spawn(move || Lock::serve(client, target_port, &tell, &opened));
            }
        });
        Ok(Lock { port, arrived, open })
    }

    fn serve(
        mut client: TcpStream,
        target_port: u16,
        tell: &Sender<()>,
        opened: &Mutex<Receiver<()>>,
    ) -> std::io::Result<()> {
        let mut first = [0; 8];
        client.read_exact(&mut first)?;
        if first[4..] == CANCEL_CODE {
            let _ = tell.send(());
            let _ = opened.lock().map(|opened| opened.recv());
        }
        let mut target = TcpStream::connect(("127.0.0.1", target_port))?;
        target.write_all(&first)?;
        let (mut from_target, mut to_client) = (target.try_clone()?, client.try_clone()?);
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut from_target, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut client, &mut target);
        let _ = target.shutdown(Shutdown::Write);
        let _ = back.join();
        Ok(())
    }
}

fn closed_when_taken(world: &World, gateway: &Gateway, lock: &Lock) -> Result<()> {
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), false);
    let mut wire = Wire::connect(&endpoint)?;
    wire.send(&query("SELECT 'to-be-cancelled', pg_sleep(600)"))?;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%to-be-cancelled%' \
                   AND pid <> pg_backend_pid()";
    let runs = || world.target.execute("shop", running).is_ok_and(|count| count.trim() == "1");
    eventually("the statement runs", DEADLINE, runs)?;
    let mut request = Wire::open(&endpoint)?;
    request.send(&cancel_request(&own_key(&wire)?))?;
    lock.arrived.recv_timeout(DEADLINE).context("no cancel request came through")?;
    request.stream.set_nonblocking(true)?;
    let seen = request.stream.read(&mut [0; 1]);
    let waits = matches!(&seen, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    ensure!(waits, "closed before the target had the cancel request: {seen:?}");
    request.stream.set_nonblocking(false)?;
    lock.open.send(())?;
    ensure!(request.read_or_end()?.is_none(), "a cancel request was answered");
    let said = complaint(&wire.read_until_ready()?).context("not cancelled")?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    Ok(())
}

/// CancelRequest: PostgreSQL manual, "Message Formats".
const CANCEL_CODE: [u8; 4] = [4, 210, 22, 46];

fn cancel_request(key: &[u8]) -> Vec<u8> {
    [&(key.len() as u32 + 8).to_be_bytes()[..], &CANCEL_CODE, key].concat()
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&ada(world))
}

fn ada(world: &World) -> Endpoint {
    world.endpoint("ada@example.com", &["engineering"], false)
}

/// Sends a CancelRequest with this key and waits until the server has taken it: it answers with a close.
fn cancel(world: &World, key: &[u8]) -> Result<()> {
    let mut wire = Wire::open(&ada(world))?;
    wire.send(&cancel_request(key))?;
    ensure!(wire.read_or_end()?.is_none(), "a cancel request was answered");
    Ok(())
}

/// Several times: once the statement runs, any cancel would do.
fn while_read(world: &World) -> Result<()> {
    let long = format!("SELECT pg_sleep(600) WHERE 0 NOT IN ({}1)", "1,".repeat(120_000));
    for _ in 0..3 {
        let mut wire = session(world)?;
        wire.stream.set_read_timeout(Some(DEADLINE))?;
        wire.send(&query(&long))?;
        thread::sleep(Duration::from_millis(100));
        cancel(world, &own_key(&wire)?)?;
        let said = wire.read_until_ready().map(|answer| complaint(&answer));
        match said {
            Ok(said) if said.as_ref().is_some_and(|said| said.sqlstate == "57014") => return Ok(()),
            Ok(said) => bail!("{said:?}"),
            // The cancel came before the statement.
            Err(_) => continue,
        }
    }
    bail!("three cancels were lost")
}

fn own_key(wire: &Wire) -> Result<Vec<u8>> {
    wire.key.clone().context("no key was given")
}

/// The ticket ended because its client cancelled; the target never saw the statement, nor a cancel.
fn abandoned(world: &World, ticket: &str, text: &str) -> Result<()> {
    ensure!(!is_pending(world, ticket)?, "the ticket still waits");
    let (status, words) = rule(world, "approve", ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(1), "approved for nobody: {status:?} {words}");
    let records = audit::search(world.gateway(), &[])?;
    let of_ticket = |kind: &str| records.iter().find(|record| record["kind"] == kind && record["ticket"] == ticket);
    let ruling = of_ticket("ruling").context("no ruling is recorded")?;
    ensure!(ruling["decision"] == "abandoned", "{ruling}");
    ensure!(of_ticket("statement").is_some(), "the request is not recorded");
    ensure!(!reached_target(world, text)?, "it reached the target");
    let cancelled = world.target.log()?.iter().any(|line| line.sqlstate == "57014");
    ensure!(!cancelled, "the target was told to cancel something");
    Ok(())
}

fn held(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 1 /* k1 */"))?;
    cancel(world, &own_key(&wire)?)?;
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not refused")?;
    ensure!(said.sqlstate == "57014" && tags(&messages) == "EZ", "{said:?}");
    // A cancel that came late would hit this one.
    ensure!(wire.value("SELECT 'goes-on' FROM pg_sleep(0.3)")? == "goes-on");
    abandoned(world, &ticket, "/* k1 */")?;
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 1")? == "1");
    Ok(())
}

fn held_extended(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let begin = [parse("d", "DELETE FROM orders WHERE id = $1::int /* k2 */"), bind("", "d", &["2"], 0)];
    let rest = [execute("", 0), SYNC.to_vec(), query("SELECT 'waited-behind'")];
    let ticket = hold(&mut wire, &[begin.concat(), rest.concat()].concat())?;
    cancel(world, &own_key(&wire)?)?;
    let said = complaint(&wire.read_until_ready()?).context("not refused")?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    let behind = wire.read_until_ready()?;
    ensure!(tags(&behind) == "TDCZ", "what waited behind it: {}", tags(&behind));
    let log = world.target.log()?;
    let ran = log.iter().any(|line| line.message.starts_with("execute") && line.message.contains("/* k2 */"));
    ensure!(!ran, "it ran");
    abandoned(world, &ticket, "never said")?;
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 2")? == "1");
    Ok(())
}

fn held_in_transaction(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("BEGIN")?;
    wire.query("INSERT INTO orders VALUES (1001)")?;
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 3 /* k3 */"))?;
    cancel(world, &own_key(&wire)?)?;
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not refused")?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    ensure!(messages.last().is_some_and(|ready| ready.body == b"E"), "the transaction goes on");
    let next = complaint(&wire.query("SELECT 1")?).context("it ran in an aborted transaction")?;
    ensure!(next.sqlstate == "25P02", "{next:?}");
    wire.query("COMMIT")?;
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id IN (3, 1001)")? == "1", "half of it was committed");
    abandoned(world, &ticket, "/* k3 */")
}

fn psql_interrupted(world: &World) -> Result<()> {
    let mut psql = Command::new(format!("{BIN}/psql"));
    psql.envs(ada(world).environment()).args(["-X", "-A", "-t", "-c", "DELETE FROM orders WHERE id = 4 /* k4 */"]);
    let child = spawn(&mut psql)?;
    let mut ticket = None;
    eventually("psql's statement is held", DEADLINE, || {
        let rows = world.gateway().json(&["approvals", "ls"]).unwrap_or_default();
        let row = rows.into_iter().find(|row| row.to_string().contains("/* k4 */"));
        ticket = row.and_then(|row| row["id"].as_str().map(str::to_string));
        ticket.is_some()
    })?;
    signal(&child, "INT")?;
    let finished = finish(child, DEADLINE)?;
    ensure!(finished.stderr.contains("canceling statement due to user request"), "{}", finished.everything());
    abandoned(world, &ticket.context("it was just found")?, "/* k4 */")
}

fn wrong_key(world: &World) -> Result<()> {
    let (mut wire, neighbour) = (session(world)?, session(world)?);
    let ticket = hold(&mut wire, &query("DELETE FROM orders WHERE id = 5"))?;
    let mut guessed = own_key(&wire)?;
    *guessed.last_mut().context("an empty key")? ^= 1;
    cancel(world, &guessed)?;
    cancel(world, &own_key(&neighbour)?)?;
    ensure!(is_pending(world, &ticket)?, "a stranger ended the hold");
    cancel(world, &own_key(&wire)?)?;
    match complaint(&wire.read_until_ready()?) {
        Some(said) if said.sqlstate == "57014" => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// Parse, Bind and Execute.
fn steps(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[], 0), execute("", 0)].concat()
}

fn runs(world: &World, text: &str) -> bool {
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{text}%' AND pid <> pg_backend_pid()"
    );
    world.target.execute("shop", &running).is_ok_and(|count| count.trim() != "0")
}

/// A statement that takes its time, and one behind it that is held, when both are under way.
fn held_behind(world: &World, wire: &mut Wire, text: &str, bytes: &[u8]) -> Result<String> {
    let ticket = hold(wire, bytes)?;
    eventually("the statement before it runs", DEADLINE, || runs(world, text))?;
    Ok(ticket)
}

fn ends_abandoned(world: &World, ticket: &str) -> Result<()> {
    eventually("the ticket is abandoned", DEADLINE, || {
        let records = audit::search(world.gateway(), &[]).unwrap_or_default();
        records
            .iter()
            .any(|record| record["kind"] == "ruling" && record["ticket"] == ticket && record["decision"] == "abandoned")
    })?;
    ensure!(!is_pending(world, ticket)?, "the ticket still waits");
    Ok(())
}

fn running_before_held(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let flight =
        [steps("SELECT 'before-1', pg_sleep(600)"), steps("DELETE FROM orders WHERE id = 6 /* k6 */"), SYNC.to_vec()];
    let ticket = held_behind(world, &mut wire, "before-1", &flight.concat())?;
    cancel(world, &own_key(&wire)?)?;
    // Nobody has to rule for the answer to the Sync.
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not cancelled")?;
    ensure!(said.sqlstate == "57014" && tags(&messages).ends_with("EZ"), "{said:?} {}", tags(&messages));
    ensure!(tags(&messages).matches('E').count() == 1, "{}", tags(&messages));
    ends_abandoned(world, &ticket)?;
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 6")? == "1");
    let ran =
        world.target.log()?.iter().any(|line| line.message.starts_with("execute") && line.message.contains("/* k6 */"));
    ensure!(!ran, "it ran");
    Ok(())
}

fn held_behind_a_query(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let flight = [query("SELECT 'before-2', pg_sleep(600)"), query("DELETE FROM orders WHERE id = 7")];
    let ticket = held_behind(world, &mut wire, "before-2", &flight.concat())?;
    cancel(world, &own_key(&wire)?)?;
    let said = complaint(&wire.read_until_ready()?).context("not cancelled")?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    ensure!(is_pending(world, &ticket)?, "the server would have run the second Query");
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(0), "{words}");
    ensure!(tags(&wire.read_until_ready()?) == "CZ");
    // A second request ends the hold, when nothing runs before it.
    let flight = [query("SELECT 'before-3', pg_sleep(600)"), query("DELETE FROM orders WHERE id = 8")];
    let ticket = held_behind(world, &mut wire, "before-3", &flight.concat())?;
    for _ in 0..2 {
        cancel(world, &own_key(&wire)?)?;
        let said = complaint(&wire.read_until_ready()?).context("not cancelled")?;
        ensure!(said.sqlstate == "57014", "{said:?}");
    }
    ends_abandoned(world, &ticket)?;
    ensure!(wire.value("SELECT string_agg(id::text, ',') FROM orders WHERE id IN (7, 8)")? == "8");
    Ok(())
}

fn ended_before_held(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    let flight = [steps("SELECT 'ended'"), steps("DELETE FROM orders WHERE id = 9"), SYNC.to_vec()];
    let ticket = hold(&mut wire, &flight.concat())?;
    let mut seen = String::new();
    while !seen.ends_with('C') {
        seen.push(wire.read()?.tag as char);
    }
    ensure!(seen.ends_with("DC"), "{seen}");
    cancel(world, &own_key(&wire)?)?;
    let messages = wire.read_until_ready()?;
    let said = complaint(&messages).context("not cancelled")?;
    ensure!(said.sqlstate == "57014", "{said:?} {}", tags(&messages));
    ends_abandoned(world, &ticket)?;
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id = 9")? == "1");
    Ok(())
}

fn skipped_while_held(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    for (number, failing) in
        ["SELECT 1 / length(pg_sleep(0.2)::text)", "SELECT nothing FROM nowhere"].iter().enumerate()
    {
        let delete = format!("DELETE FROM orders WHERE id = {}", 10 + number);
        let ticket = hold(&mut wire, &[steps(failing), steps(&delete), SYNC.to_vec()].concat())?;
        let messages = wire.read_until_ready()?;
        ensure!(tags(&messages).ends_with("EZ"), "{failing}: {}", tags(&messages));
        ends_abandoned(world, &ticket).with_context(|| failing.to_string())?;
    }
    ensure!(wire.value("SELECT count(*) FROM orders WHERE id IN (10, 11)")? == "2");
    Ok(())
}

fn left_while_held(world: &World, gateway: &Gateway) -> Result<()> {
    for pipelined in [true, false] {
        let mut wire =
            Wire::connect(&gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), false))?;
        let (sleep, delete) = ("SELECT 'left-alone', pg_sleep(600)", "DELETE FROM orders WHERE id = 12");
        let flight = match pipelined {
            true => [steps(sleep), steps(delete), SYNC.to_vec()].concat(),
            false => [query(sleep), query(delete)].concat(),
        };
        // That the server finds its own client gone ends it as well, but not by a cancel request.
        let cancelled = || world.target.log().map(|log| log.iter().filter(|line| line.sqlstate == "57014").count());
        let before = cancelled()?;
        held_behind(world, &mut wire, "left-alone", &flight)?;
        drop(wire);
        eventually("it is cancelled", DEADLINE, || cancelled().is_ok_and(|now| now > before))?;
        ensure!(!runs(world, "left-alone"), "it runs on");
        ensure!(
            gateway.json(&["approvals", "ls"])?.iter().all(|row| row["state"] != "pending"),
            "a ticket still waits"
        );
    }
    Ok(())
}
