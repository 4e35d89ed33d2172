//! How a session is opened and how long it may last: bearer tokens by SASL, just-in-time grants, bounded sessions.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::World;
use super::clients::{python, script};
use super::policy::{is_pending, lead_rules, rule, ticket_in};
use crate::harness::gateway::Setup;
use crate::harness::postgres::{BIN, PASSWORD};
use crate::harness::process::{eventually, finish, spawn};
use crate::harness::wire::{Complaint, TERMINATE, Wire, complaint, message, password, query, startup};
use crate::harness::{Endpoint, PrivatePostgres, Report, Settings, audit};

const DEADLINE: Duration = Duration::from_secs(20);

/// `orders` is open; `vault` wants one lead's word, `safe` two, `hasty` one within two seconds; `brief` lasts three seconds.
const GRANTS: &str = r#"
[[grant]]
targets = ["orders"]
groups = ["engineering"]

[[grant]]
name = "on-request"
targets = ["vault"]
approval = { approvers = ["leads"], expires = "1m" }

[[grant]]
name = "two-of-the-leads"
targets = ["safe"]
approval = { approvers = ["leads"], count = 2, expires = "1m" }

[[grant]]
name = "soon-or-never"
targets = ["hasty"]
approval = { approvers = ["leads"], expires = "2s" }

[[grant]]
name = "a-moment"
targets = ["brief"]
max_session = "3s"

[[grant]]
name = "a-moment-on-request"
targets = ["brief-vault"]
max_session = "3s"
approval = { approvers = ["leads"], expires = "1m" }

[[grant]]
name = "two-each"
targets = ["narrow"]
connection_limit = 2
"#;

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start_with(settings, "access", setup)?;
    bearer(report, &world);
    report.case("a session that waits for a person's word: told, let in, recorded", || granted(&world));
    report.case("psql waits, shows where to rule, and goes on", || granted_to_psql(&world));
    report.case("access that is rejected", || rejected(&world));
    report.case("access that nobody rules on", || expired(&world));
    report.case("two have to agree, and the requester is none of them", || two_of_two(&world));
    report.case("a client that stops waiting for access", || abandoned(&world));
    report.case("a token that expires while access is waited for", || expired_token(&world));
    report.case("a session ends after the grant's time, and after the running statement", || bounded(&world, "brief"));
    report.case("the grant's time begins when access is given", || bounded_from_opening(&world));
    report.case("as many sessions as `connection_limit` says, of a user and of a target, on all shards", || {
        limited(&world)
    });
    report.case("a grant that is withdrawn while access is waited for", || withdrawn(&world));
    Ok(())
}

fn setup(target: &PrivatePostgres) -> Setup {
    let more = ["vault", "safe", "hasty", "brief", "brief-vault"].map(|name| {
        format!(
            "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{}\"\ndatabase = \"shop\"\n\
             user = \"service\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\n",
            target.port
        )
    });
    let narrow = more[0].replace("\"vault\"", "\"narrow\"") + "connection_limit = 3\n";
    Setup { grants: GRANTS.into(), more: more.concat() + &narrow, ..Setup::default() }
}

fn ada(world: &World, target: &str) -> Endpoint {
    world.endpoint("ada@example.com", &["engineering"], false).with_dbname(target)
}

fn limited(world: &World) -> Result<()> {
    let of = |user: &str| world.endpoint(user, &["engineering"], false).with_dbname("narrow");
    let (ada, bob, cid) = (of("ada@example.com"), of("bob@example.com"), of("cid@example.com"));
    let mut open = vec![Wire::connect(&ada)?, Wire::connect(&ada)?];
    let refused = |endpoint: &Endpoint, words: &str| -> Result<()> {
        let said = Wire::refusal(endpoint)?;
        ensure!(said.sqlstate == "53300" && said.message.contains(words), "{said:?}");
        Ok(())
    };
    refused(&ada, "grant \"two-each\" gives a user 2 at a time")?;
    open.push(Wire::connect(&bob)?);
    refused(&cid, "target \"narrow\": it takes 3 at a time")?;
    let records = audit::search(world.gateway(), &["--kind", "login", "--error", "53300"])?;
    ensure!(records.len() == 2 && records[0]["user"] == "ada@example.com", "{records:?}");
    // However a session ends, another may come: one says so, one is gone.
    open[0].send(TERMINATE)?;
    open.remove(1);
    open.remove(1);
    for endpoint in [&ada, &bob, &ada] {
        eventually("there is room again", DEADLINE, || Wire::connect(endpoint).map(|wire| open.push(wire)).is_ok())?;
    }
    refused(&bob, "it takes 3 at a time")
}

// ---- bearer tokens ----

fn bearer(report: &mut Report, world: &World) {
    report.case("SASL OAUTHBEARER: a right token, byte for byte", || bearer_admitted(world));
    report.case("SASL OAUTHBEARER: a wrong token is refused as RFC 7628 has it, in the one text", || {
        bearer_refused(world)
    });
    report.case("SASL OAUTHBEARER: an envelope that is none", || bearer_malformed(world));
    for tls in [true, false] {
        let endpoint = world.endpoint("ada@example.com", &["engineering"], tls);
        let mut client = python("libpq_oauth.py");
        client.env("BEARER", &endpoint.password);
        client.env("EXPIRED", world.issuer.token_for("ada@example.com", &["engineering"], -60));
        client.env("OUTSIDER", world.issuer.token("eve@example.com", &["sales"]));
        let transport = if tls { "TLS" } else { "plaintext" };
        script(report, &format!("libpq 18 with OAUTHBEARER over {transport}"), client, &endpoint);
    }
}

/// Asks for OAUTHBEARER and sends what is inside of the SASLInitialResponse.
fn begin_bearer(endpoint: &Endpoint, data: &[u8]) -> Result<Wire> {
    let mut wire = Wire::open(endpoint)?;
    let parameters = [("user", "claimed"), ("database", &endpoint.dbname), ("_pq_.lockgate_auth", "oauthbearer")];
    wire.send(&startup(&parameters))?;
    let offered = wire.read()?;
    ensure!(offered.tag == b'R' && offered.body == b"\0\0\0\x0aOAUTHBEARER\0\0", "{offered:?}");
    let length = (data.len() as u32).to_be_bytes();
    wire.send(&message(b'p', &[b"OAUTHBEARER\0", &length[..], data].concat()))?;
    Ok(wire)
}

fn envelope(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

fn bearer_admitted(world: &World) -> Result<()> {
    let endpoint = ada(world, "orders");
    let mut wire = begin_bearer(&endpoint, &envelope(&endpoint.password))?;
    let admitted = wire.read()?;
    ensure!(admitted.tag == b'R' && admitted.body == [0; 4], "{admitted:?}");
    wire.read_until_ready()?;
    ensure!(wire.value("SELECT 'by-bearer'")? == "by-bearer");
    let records = audit::search(world.gateway(), &["--contains", "by-bearer"])?;
    ensure!(records.iter().any(|record| record["user"] == "ada@example.com"), "{records:?}");
    Ok(())
}

fn bearer_refused(world: &World) -> Result<()> {
    let endpoint = ada(world, "orders");
    let by_password = Wire::refusal(&endpoint.with_password("wrong"))?;
    let stale = world.issuer.token_for("late@example.com", &["engineering"], -60);
    let nothing = b"n,,\x01auth=\x01\x01".to_vec();
    for data in [envelope("wrong"), envelope(&stale), nothing] {
        let mut wire = begin_bearer(&endpoint, &data)?;
        let challenge = wire.read()?;
        let status = challenge.body.strip_prefix(&[0, 0, 0, 11]).context("no SASL challenge")?;
        let status: Value = serde_json::from_slice(status)?;
        ensure!(challenge.tag == b'R' && status["status"] == "invalid_token", "{challenge:?}");
        wire.send(&message(b'p', b"\x01"))?;
        let refusal = wire.read()?.complaint();
        ensure!(refusal == by_password && refusal.sqlstate == "28P01", "{refusal:?} and by password {by_password:?}");
        ensure!(wire.read_or_end()?.is_none(), "still open");
    }
    let records = audit::search(world.gateway(), &[])?;
    let refused = |reason: &str| {
        records.iter().any(|record| {
            let text = record.to_string();
            record["kind"] == "login" && text.contains("28P01") && text.contains(reason)
        })
    };
    ensure!(refused("Expired") && refused("Missing"), "a refused bearer token is not in the trail with its reason");
    Ok(())
}

fn bearer_malformed(world: &World) -> Result<()> {
    let endpoint = ada(world, "orders");
    let token = &endpoint.password;
    for data in [
        format!("n,,\x01auth=Bearer {token}\x01"),
        format!("n,a=admin,\x01auth=Bearer {token}\x01\x01"),
        format!("p=tls-unique,,\x01auth=Bearer {token}\x01\x01"),
        format!("n,,\x01auth=Basic {token}\x01\x01"),
        format!("n,,\x01auth=Bearer {token}\x01auth=Bearer {token}\x01\x01"),
    ] {
        let refusal = begin_bearer(&endpoint, data.as_bytes())?.read()?.complaint();
        ensure!(refusal.sqlstate == "08P01", "{data:?}: {refusal:?}");
    }
    // After a refusal only the acknowledgement may come: not a second try.
    let mut wire = begin_bearer(&endpoint, &envelope("wrong"))?;
    wire.read()?;
    wire.send(&message(b'p', &envelope(token)))?;
    let refusal = wire.read()?.complaint();
    ensure!(refusal.sqlstate == "08P01", "{refusal:?}");
    Ok(())
}

// ---- just-in-time grants ----

/// A login that waits for access, and the ticket its notice names.
fn ask(endpoint: &Endpoint) -> Result<(Wire, String)> {
    let mut wire = Wire::open(endpoint)?;
    let application = format!("jit-{}", endpoint.dbname);
    let parameters = [("user", "claimed"), ("database", &endpoint.dbname), ("application_name", application.as_str())];
    wire.send(&startup(&parameters))?;
    loop {
        let message = wire.read()?;
        match message.tag {
            b'R' if message.body == [0, 0, 0, 3] => wire.send(&password(&endpoint.password))?,
            b'R' if message.body == [0; 4] => {}
            b'N' => return ticket_in(&message.complaint()).map(|ticket| (wire, ticket)),
            _ => bail!("instead of a notice: {message:?} {:?}", message.complaint()),
        }
    }
}

fn refusal(wire: &mut Wire) -> Result<Complaint> {
    let message = wire.read()?;
    ensure!(message.tag == b'E', "instead of a refusal: {message:?}");
    ensure!(wire.read_or_end()?.is_none(), "still open");
    Ok(message.complaint())
}

/// How often the target was logged in at by a client that said it was waiting for this.
fn opened(world: &World, target: &str) -> Result<usize> {
    let application = format!("application_name=jit-{target}");
    Ok(world.target.log()?.iter().filter(|line| line.message.contains(&application)).count())
}

/// The records of a ruling on this ticket.
fn rulings(world: &World, ticket: &str) -> Result<Vec<Value>> {
    let mut records = audit::search(world.gateway(), &[])?;
    records.retain(|record| record["kind"] == "ruling" && record["ticket"] == ticket);
    Ok(records)
}

fn ruled_once(world: &World, ticket: &str, decision: &str) -> Result<Value> {
    let records = rulings(world, ticket)?;
    let [record] = &records[..] else { bail!("not one ruling: {records:?}") };
    let of_ada = record["user"] == "ada@example.com" && record["target"].is_string();
    ensure!(record["decision"] == decision && of_ada, "{record}");
    Ok(record.clone())
}

fn granted(world: &World) -> Result<()> {
    let (mut wire, ticket) = ask(&ada(world, "vault"))?;
    let shown = world.gateway().command(&["approvals", "show", &ticket, "-o", "json"])?.succeeded()?;
    for word in ["ada@example.com", "vault", "open a session", "on-request"] {
        ensure!(shown.contains(word), "{word} is not shown: {shown}");
    }
    ensure!(opened(world, "vault")? == 0, "the target was logged in at before anybody ruled");
    lead_rules(world, "approve", &ticket)?;
    let messages = wire.read_until_ready()?;
    ensure!(complaint(&messages).is_none(), "{:?}", complaint(&messages));
    ensure!(wire.value("SELECT 'inside-the-vault'")? == "inside-the-vault");
    let record = ruled_once(world, &ticket, "approved")?.to_string();
    ensure!(record.contains("lee@example.com") && record.contains("because-tested"), "who and why: {record}");
    // One ruling, one use.
    let (_second, other) = ask(&ada(world, "vault"))?;
    ensure!(other != ticket, "the same ticket again");
    let (status, words) = rule(world, "approve", &ticket, "max@example.com", &["leads"])?;
    ensure!(status == Some(1), "a ticket was used twice: {status:?} {words}");
    Ok(())
}

fn granted_to_psql(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], true).with_dbname("vault");
    let mut psql = Command::new(format!("{BIN}/psql"));
    psql.envs(endpoint.environment()).args(["-X", "-A", "-t", "-c", "SELECT 'psql-inside'"]);
    let before = waiting(world)?;
    let child = spawn(&mut psql)?;
    let mut ticket = None;
    eventually("psql's ticket is listed", DEADLINE, || {
        let now = waiting(world).unwrap_or_default();
        ticket = now.into_iter().find(|id| !before.contains(id));
        ticket.is_some()
    })?;
    let ticket = ticket.context("it was just found")?;
    lead_rules(world, "approve", &ticket)?;
    let finished = finish(child, DEADLINE)?;
    ensure!(finished.status == Some(0) && finished.stdout == "psql-inside\n", "{}", finished.everything());
    ensure!(finished.stderr.contains(&ticket) && finished.stderr.contains("approvals approve"), "{}", finished.stderr);
    Ok(())
}

fn waiting(world: &World) -> Result<Vec<String>> {
    let rows = world.gateway().json(&["approvals", "ls"])?;
    Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_string)).collect())
}

fn rejected(world: &World) -> Result<()> {
    let before = opened(world, "vault")?;
    let (mut wire, ticket) = ask(&ada(world, "vault"))?;
    lead_rules(world, "reject", &ticket)?;
    let said = refusal(&mut wire)?;
    ensure!(said.sqlstate == "42501" && said.severity == "FATAL", "{said:?}");
    ensure!(format!("{said:?}").contains(&ticket), "the ticket is not named: {said:?}");
    ruled_once(world, &ticket, "rejected")?;
    ensure!(opened(world, "vault")? == before, "the target was logged in at");
    Ok(())
}

fn expired(world: &World) -> Result<()> {
    let (mut wire, ticket) = ask(&ada(world, "hasty"))?;
    let said = refusal(&mut wire)?;
    ensure!(said.sqlstate == "57014" && format!("{said:?}").contains(&ticket), "{said:?}");
    ruled_once(world, &ticket, "expired")?;
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(1), "approved after it had expired: {status:?} {words}");
    ensure!(opened(world, "hasty")? == 0, "the target was logged in at");
    Ok(())
}

fn two_of_two(world: &World) -> Result<()> {
    let endpoint = world.endpoint("lou@example.com", &["leads"], false).with_dbname("safe");
    let (mut wire, ticket) = ask(&endpoint)?;
    let (status, words) = rule(world, "approve", &ticket, "lou@example.com", &["leads"])?;
    ensure!(status == Some(1), "the requester approved: {status:?} {words}");
    lead_rules(world, "approve", &ticket)?;
    ensure!(is_pending(world, &ticket)?, "one was enough");
    let (status, words) = rule(world, "approve", &ticket, "max@example.com", &["leads"])?;
    ensure!(status == Some(0), "exit status {status:?}: {words}");
    wire.read_until_ready()?;
    ensure!(wire.value("SELECT 'two-agreed'")? == "two-agreed");
    Ok(())
}

fn abandoned(world: &World) -> Result<()> {
    let before = opened(world, "vault")?;
    let (wire, ticket) = ask(&ada(world, "vault"))?;
    drop(wire);
    eventually("the ticket is gone", DEADLINE, || is_pending(world, &ticket).is_ok_and(|is| !is))?;
    let (status, words) = rule(world, "approve", &ticket, "lee@example.com", &["leads"])?;
    ensure!(status == Some(1), "approved for nobody: {status:?} {words}");
    ruled_once(world, &ticket, "abandoned")?;
    ensure!(opened(world, "vault")? == before, "the target was logged in at");
    Ok(())
}

fn expired_token(world: &World) -> Result<()> {
    const TTL_S: i64 = 2;
    let before = opened(world, "vault")?;
    let token = world.issuer.token_for("ada@example.com", &["engineering"], TTL_S);
    let (mut wire, ticket) = ask(&ada(world, "vault").with_password(&token))?;
    // Nobody can be asked for longer than the token lasts.
    let said = refusal(&mut wire)?;
    ensure!(said.sqlstate == "57014", "{said:?}");
    ensure!(lead_rules(world, "approve", &ticket).is_err(), "approved for a token that has expired");
    ensure!(opened(world, "vault")? == before, "the target was logged in at with an expired token");
    Ok(())
}

fn withdrawn(world: &World) -> Result<()> {
    let before = opened(world, "vault")?;
    let (mut wire, ticket) = ask(&ada(world, "vault"))?;
    // Both grants go in one reload: whether it is done can be asked at the one that answers at once.
    let without = GRANTS.replace("targets = [\"vault\"]", "targets = [\"vault\"]\ngroups = [\"nobody\"]");
    let without = without.replace("[\"engineering\"]", "[\"nobody\"]");
    let setup = Setup { grants: without, ..setup(&world.target) };
    world.gateway().configure(&world.target, &world.issuer, &setup)?;
    world.gateway().reload()?;
    let refused = || Wire::refusal(&ada(world, "orders")).is_ok_and(|said| said.sqlstate == "28000");
    eventually("the grant is gone", DEADLINE, refused)?;
    lead_rules(world, "approve", &ticket)?;
    let said = refusal(&mut wire)?;
    ensure!(said.sqlstate == "28000", "{said:?}");
    ensure!(opened(world, "vault")? == before, "the target was logged in at without a grant");
    Ok(())
}

// ---- bounded sessions ----

fn bounded(world: &World, target: &str) -> Result<()> {
    outlives(world, Wire::connect(&ada(world, target))?)
}

/// A statement that runs past the session's end completes; the next one never starts, and the trail says why.
fn outlives(world: &World, mut wire: Wire) -> Result<()> {
    let session = audit::search(world.gateway(), &[])?.pop().context("nothing recorded")?["session"].clone();
    wire.send(&query("SELECT 'outlived' FROM pg_sleep(4)"))?;
    let mut seen = Vec::new();
    while let Some(message) = wire.read_or_end()? {
        let ready = message.tag == b'Z';
        seen.push(message);
        if ready {
            let _ = wire.send(&query("SELECT 'too-late'")); // the session may be over already
        }
    }
    ensure!(seen.iter().any(|message| message.tag == b'D'), "the running statement was cut off");
    let said = complaint(&seen).context("closed without a word")?;
    ensure!(said.sqlstate == "57P01" && said.severity == "FATAL", "{said:?}");
    ensure!(!super::policy::reached_target(world, "too-late")?, "a statement started after the session's time");
    let records = audit::search(world.gateway(), &[])?;
    let over = records.iter().filter(|record| record["session"] == session && record["kind"] == "session");
    ensure!(over.into_iter().any(|record| record.to_string().contains("the session's time is over")), "{records:?}");
    Ok(())
}

fn bounded_from_opening(world: &World) -> Result<()> {
    let (mut wire, ticket) = ask(&ada(world, "brief-vault"))?;
    thread::sleep(Duration::from_secs(4)); // longer than the session may last: waiting must not count
    lead_rules(world, "approve", &ticket)?;
    wire.read_until_ready()?;
    ensure!(wire.value("SELECT 'just-opened'")? == "just-opened");
    outlives(world, wire)?;
    ensure!(!world.gateway().log().contains(PASSWORD));
    Ok(())
}
