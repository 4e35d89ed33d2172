//! Running it: sessions, metrics, reload, drain, credentials, and TLS towards the target.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::postgres::PASSWORD;
use crate::harness::process::{built, eventually, run};
use crate::harness::wire::{Wire, complaint, query};
use crate::harness::{Endpoint, Gateway, Issuer, Report, Settings, audit};

const DEADLINE: Duration = Duration::from_secs(15);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut world = World::start(settings, "operations", &Setup::default())?;
    // The target's port and certificate are known once it runs: configured with them, and started again.
    let setup = Setup { more: targets_over_tls(&world), ..Setup::default() };
    world.gateway().configure(&world.target, &world.issuer, &setup)?;
    world.gateway_mut().kill()?;
    world.gateway_mut().start_again()?;
    report.case("live sessions are listed and can be killed", || sessions(&world));
    report.case("the ops pages answer, and the metrics count", || metrics(&world));
    report.case("sessions opened one after another lie evenly on both shards", || even(&world));
    report.case("healthcheck says whether it is ready", || healthcheck(&world));
    report.case("HUP applies a new rule to a session that is open", || reload(&world, &setup));
    report.case("HUP with a wrong file changes nothing", || wrong_reload(&world));
    report.case("each HUP tells what of the file waits for a restart", || restart_needed(&world, &setup));
    report.case("the trail tells of each reload, with the configuration's hash", || reloads_recorded(&world));
    report.case("a token of lockgate's own development issuer is accepted", || development_token(settings, &world));
    report.case("an actor's version is in every record", || actor(&world));
    report.case("the target's certificate is verified, or the connect fails", || target_tls(&world));
    report
        .case("a password from the encrypted store works and is nowhere in the clear", || credential(settings, &world));
    report.case("TERM lets a running statement end, and takes nobody new", || drain(&mut world));
    Ok(())
}

/// `verified`, whose authority we know, and `stranger`, the same server, whose authority we do not.
fn targets_over_tls(world: &World) -> String {
    let target = |name: &str, authority: &str| {
        format!(
            "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"localhost:{}\"\ndatabase = \"shop\"\n\
             user = \"service\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"verify-full\"\n{authority}\n",
            world.target.port
        )
    };
    let authority = format!("tls_ca = \"{}\"", world.target.ca.display());
    format!("{}{}", target("verified", &authority), target("stranger", ""))
}

fn session(world: &World) -> Result<Wire> {
    Wire::connect(&world.endpoint("ada@example.com", &["engineering"], false))
}

fn sessions(world: &World) -> Result<()> {
    let mut wire = session(world)?;
    wire.query("SET application_name = 'to-be-killed'")?;
    let of_ada = |rows: &[Value]| rows.iter().find(|row| row.to_string().contains("ada@example.com")).cloned();
    let rows = world.gateway().json(&["sessions", "ls"])?;
    let row = of_ada(&rows).with_context(|| format!("not listed: {rows:?}"))?;
    let id = row["id"].as_str().or(row["session"].as_str()).context("no id")?.to_string();
    world.gateway().command(&["sessions", "kill", &id])?.succeeded()?;
    let last = wire.read()?.complaint();
    ensure!(last.sqlstate == "57P01", "{last:?}");
    ensure!(wire.read_or_end()?.is_none(), "still open");
    eventually("it is no longer listed", DEADLINE, || {
        world.gateway().json(&["sessions", "ls"]).is_ok_and(|rows| of_ada(&rows).is_none())
    })
}

/// Sum over all labels of one metric.
fn metric(page: &str, name: &str) -> Result<f64> {
    let mut values = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' ')));
    let first = values.next().with_context(|| format!("no {name}"))?;
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(value(first) + values.map(value).sum::<f64>())
}

fn metrics(world: &World) -> Result<()> {
    for page in ["/livez", "/readyz", "/healthz"] {
        world.gateway().ops(page)?;
    }
    let before = world.gateway().ops("/metrics")?;
    for name in [
        "lockgate_statements_total",
        "lockgate_statement_duration_seconds_count",
        "lockgate_overhead_seconds_count",
        "lockgate_client_connections",
        "lockgate_approvals_pending",
        "lockgate_masked_values_total",
        "lockgate_audit_records_total",
        "lockgate_audit_lag_seconds",
        "lockgate_audit_ring_used_ratio",
        "lockgate_build_info",
    ] {
        metric(&before, name)?;
    }
    let mut wire = session(world)?;
    for _ in 0..10 {
        wire.query("SELECT 1")?;
    }
    eventually("ten more statements are counted", DEADLINE, || {
        let after = world.gateway().ops("/metrics").unwrap_or_default();
        let grown = |name: &str| metric(&after, name).unwrap_or(0.0) - metric(&before, name).unwrap_or(0.0);
        grown("lockgate_statements_total") >= 10.0
            && grown("lockgate_audit_records_total") >= 20.0
            && grown("lockgate_statement_duration_seconds_count") >= 10.0
            && metric(&after, "lockgate_client_connections").is_ok_and(|now| now >= 1.0)
    })
}

/// Open client connections, shard by shard.
fn connections(world: &World) -> Vec<f64> {
    let page = world.gateway().ops("/metrics").unwrap_or_default();
    let lines = page.lines().filter(|line| line.starts_with("lockgate_client_connections{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

fn even(world: &World) -> Result<()> {
    let open = |count: usize| (0..count).map(|_| session(world)).collect::<Result<Vec<Wire>>>();
    let total_is =
        |count: f64| eventually("sessions have ended", DEADLINE, || connections(world).iter().sum::<f64>() == count);
    total_is(0.0)?;
    let mut sessions = open(8)?;
    ensure!(connections(world) == [4.0, 4.0], "{:?}", connections(world));
    // Whichever shards these lie on.
    sessions.drain(2..5);
    total_is(5.0)?;
    sessions.extend(open(3)?);
    ensure!(connections(world) == [4.0, 4.0], "{:?}", connections(world));
    Ok(())
}

fn healthcheck(world: &World) -> Result<()> {
    world.gateway().command(&["healthcheck"])?.succeeded()?;
    let dead = run(Command::new(built("lockgate")?).args(["healthcheck", "--address", "127.0.0.1:9"]), DEADLINE)?;
    ensure!(dead.status.is_some_and(|status| status != 0), "{dead:?}");
    Ok(())
}

fn reload(world: &World, setup: &Setup) -> Result<()> {
    let mut wire = session(world)?;
    ensure!(complaint(&wire.query("SELECT 'soon-forbidden' FROM pg_class LIMIT 1")?).is_none());
    let rule = "[[rule]]\nname = \"added\"\nwords = [\"pg_class\"]\naction = \"deny\"\n";
    let with_rule = Setup { more: format!("{}{rule}", setup.more), ..setup.clone() };
    world.gateway().configure(&world.target, &world.issuer, &with_rule)?;
    world.gateway().reload()?;
    eventually("the rule applies", DEADLINE, || {
        wire.query("SELECT 'soon-forbidden' FROM pg_class LIMIT 1")
            .is_ok_and(|messages| complaint(&messages).is_some_and(|said| said.sqlstate == "42501"))
    })
}

fn wrong_reload(world: &World) -> Result<()> {
    let right = fs::read_to_string(world.gateway().config())?;
    fs::write(world.gateway().config(), format!("{right}\n[[rule]]\naction = \"explode\"\n"))?;
    world.gateway().reload()?;
    let told = eventually("the log names the mistake", DEADLINE, || world.gateway().log().contains("explode"));
    // As an editor leaves it that was stopped in the middle.
    fs::write(world.gateway().config(), "")?;
    world.gateway().reload()?;
    let cut = || world.gateway().log().contains("there is no [[listener]]");
    let told = told.and_then(|()| eventually("the log says what is missing", DEADLINE, cut));
    let mut wire = session(world)?;
    let still = wire.query("SELECT 1 FROM pg_class LIMIT 1")?;
    fs::write(world.gateway().config(), right)?;
    world.gateway().reload()?;
    ensure!(complaint(&still).is_some_and(|said| said.sqlstate == "42501"), "the old rules no longer hold");
    told
}

/// The first said nothing of most keys, and the second nothing at all.
fn restart_needed(world: &World, setup: &Setup) -> Result<()> {
    let gateway = world.gateway();
    let told = || gateway.log().matches("audit.payload_kib").count();
    let needed = |wanted: f64| {
        let page = gateway.ops("/metrics").unwrap_or_default();
        metric(&page, "lockgate_restart_needed").is_ok_and(|needed| needed == wanted)
    };
    gateway.configure(&world.target, &world.issuer, &Setup { audit: "payload_kib = 7".into(), ..setup.clone() })?;
    for times in 1..=2 {
        gateway.reload()?;
        eventually("the log names the key", DEADLINE, || told() >= times && needed(1.0))?;
    }
    let doctor = gateway.command(&["doctor"])?;
    ensure!(doctor.stdout.contains("what its file says of audit.payload_kib"), "{doctor:?}");
    // Of the addresses that the file names, each is the gateway's own.
    ensure!(doctor.stdout.contains(": the gateway runs there") && !doctor.stdout.contains("in use"), "{doctor:?}");
    let recorded = || gateway.json(&["audit", "search", "--contains", "needs a restart: audit.payload_kib"]);
    eventually("the trail of each shard names it", DEADLINE, || recorded().is_ok_and(|records| records.len() >= 4))?;
    gateway.configure(&world.target, &world.issuer, setup)?;
    gateway.reload()?;
    eventually("the file is what runs", DEADLINE, || needed(0.0))
}

fn reloads_recorded(world: &World) -> Result<()> {
    let recorded = |text: &str| -> Result<Vec<Value>> {
        audit::search(world.gateway(), &["--kind", "gateway", "--contains", text])
    };
    let config = fs::read(world.gateway().config())?;
    let hash = format!("configuration blake3:{}", blake3::hash(&config).to_hex());
    // Both shards took it into use: one record each, ahead of what they decide by it.
    eventually("the reload is in the trail of each shard", DEADLINE, || {
        recorded(&format!("reloaded: {hash}")).is_ok_and(|records| records.len() >= 2)
    })?;
    let refused = recorded("reload refused: configuration blake3:")?;
    ensure!(!refused.is_empty(), "the refused configuration is not recorded");
    let named = [": line ", ": there is no [[listener]]"];
    let named = refused.iter().all(|record| named.iter().any(|reason| record.to_string().contains(reason)));
    ensure!(named, "{refused:?}");
    ensure!(!recorded("started: lockgate")?.is_empty(), "the start is not recorded");
    Ok(())
}

fn development_token(settings: &Settings, world: &World) -> Result<()> {
    let home = settings.run_dir.join("development-issuer");
    let lockgate = |arguments: &[&str]| run(Command::new(built("lockgate")?).args(arguments), DEADLINE)?.succeeded();
    lockgate(&["token", "--new-issuer", &home.display().to_string()])?;
    let mut issuer = Issuer::stranger()?;
    issuer.jwks_file = home.join("jwks.json");
    let gateway = Gateway::start(&settings.run_dir, &world.target, &issuer, &Setup::default())?;
    let key = home.join("issuer.pem").display().to_string();
    let mint = |more: &[&str]| {
        let token = lockgate(
            &[&["token", "--issuer-key", &key, "--issuer", "https://issuer.test", "--user", "dev@example.com"], more]
                .concat(),
        );
        token.map(|token| token.trim().to_string())
    };
    ensure!(Wire::connect(&gateway.endpoint(&mint(&[])?, false))?.value("SELECT 1")? == "1");
    let refusal = Wire::refusal(&gateway.endpoint(&mint(&["--audience", "elsewhere"])?, false))?;
    ensure!(refusal.sqlstate == "28P01", "{refusal:?}");
    Ok(())
}

fn actor(world: &World) -> Result<()> {
    use crate::harness::issuer::{claims, header};
    for version in ["1.4", "2.0"] {
        let mut claims = claims("ada@example.com", &["engineering"], 600);
        claims["act"] = serde_json::json!({"sub": "deploy-bot"});
        claims["agent_version"] = serde_json::json!(version);
        let token = world.issuer.signed(&header(), &claims);
        let mut wire = Wire::connect(&world.gateway().endpoint(&token, false))?;
        wire.query(&format!("SELECT 'acted by {version}'"))?;
        let records = audit::search(world.gateway(), &["--contains", &format!("acted by {version}")])?;
        let actor = records.first().context("not recorded")?["actor"].to_string();
        ensure!(actor.contains("deploy-bot"), "{actor}");
    }
    Ok(())
}

fn target_tls(world: &World) -> Result<()> {
    let endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let mut wire = Wire::connect(&endpoint.with_dbname("verified"))?;
    ensure!(wire.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")? == "t", "not encrypted");
    let refusal = Wire::refusal(&endpoint.with_dbname("stranger"))?;
    ensure!(["08001", "08004"].contains(&refusal.sqlstate.as_str()), "{refusal:?}");
    ensure!(!format!("{refusal:?}").contains(&world.target.port.to_string()), "{refusal:?}");
    Ok(())
}

fn credential(settings: &Settings, world: &World) -> Result<()> {
    let home = settings.run_dir.join("vault");
    fs::create_dir_all(&home)?;
    let setup = Setup {
        server: format!("vault_key_file = \"{}/vault.key\"", home.display()),
        more: format!(
            "[[target]]\nname = \"sealed\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{}\"\ndatabase = \"shop\"\n\
             user = \"service\"\ncredential = \"sealed\"\ntls = \"disable\"\n",
            world.target.port
        ),
        ..Setup::default()
    };
    let gateway = Gateway::start_after(&settings.run_dir, &world.target, &world.issuer, &setup, |config| {
        use std::io::Write;
        use std::process::Stdio;
        let mut set = Command::new(built("lockgate")?);
        set.args(["credentials", "set", "sealed", "--config"]).arg(config).stdin(Stdio::piped());
        set.env("TARGET_PASSWORD", PASSWORD).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = set.spawn()?;
        writeln!(child.stdin.take().context("no input")?, "{PASSWORD}")?;
        let told = crate::harness::process::finish(child, DEADLINE)?;
        ensure!(!told.everything().contains(PASSWORD), "it printed the password");
        told.succeeded().map(drop)
    })?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &[]), false);
    ensure!(Wire::connect(&endpoint.with_dbname("sealed"))?.value("SELECT session_user")? == "service");
    for (file, bytes) in audit::contents(&gateway.home().join("data"))?.into_iter().chain(audit::contents(&home)?) {
        ensure!(!audit::holds(&bytes, PASSWORD), "the password is readable in {}", file.display());
    }
    Ok(())
}

fn drain(world: &mut World) -> Result<()> {
    let endpoint: Endpoint = world.endpoint("ada@example.com", &["engineering"], false);
    let mut wire = Wire::connect(&endpoint)?;
    wire.send(&query("SELECT 'finished' FROM pg_sleep(2)"))?;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid()";
    let target = &world.target;
    eventually("the statement runs", DEADLINE, || target.execute("shop", running).is_ok_and(|n| n.trim() == "1"))?;
    let reader = std::thread::spawn(move || wire.read_until_ready());
    let status = world.gateway_mut().terminate()?;
    let messages = reader.join().expect("the reader does not panic")?;
    ensure!(messages.iter().any(|message| message.tag == b'D'), "the running statement was cut off");
    ensure!(status == Some(0), "exit status {status:?}");
    ensure!(Wire::connect(&endpoint).is_err(), "somebody new was taken");
    Ok(())
}
