//! Certificates on both legs: those clients have to show, and those a target has to show, bound to the login inside.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::World;
use super::clients::python;
use crate::harness::authority::{Authority, Pair};
use crate::harness::gateway::Setup;
use crate::harness::postgres::{BIN, PASSWORD};
use crate::harness::process::{Finished, eventually, run};
use crate::harness::wire::Wire;
use crate::harness::{Endpoint, Gateway, Report, Settings, audit};

const DEADLINE: Duration = Duration::from_secs(30);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "certificates", &Setup::default())?;
    clients(settings, report, &world)?;
    targets(settings, report, &world)
}

// ---- the client's certificate ----

fn clients(settings: &Settings, report: &mut Report, world: &World) -> Result<()> {
    let staff = Authority::new(&world.folder, "staff")?;
    let strangers = Authority::new(&world.folder, "strangers")?;
    let (ada, eve) = (staff.issue("ada", "DNS:ada")?, strangers.issue("eve", "DNS:eve")?);
    let setup = Setup { client_ca: Some(staff.certificate()), ..Setup::default() };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let endpoint = gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), true);
    report.case("a client with a certificate of the authority, and a token, gets in", || {
        let printed = psql(&endpoint, Some(&ada))?.succeeded()?;
        ensure!(printed == "certified\n", "{printed}");
        let mut direct = python_direct(&endpoint, &ada);
        ensure!(run(&mut direct, DEADLINE)?.succeeded()? == "direct\n");
        Ok(())
    });
    report.case("a certificate is no token", || {
        let finished = psql(&endpoint.with_password("wrong"), Some(&ada))?;
        ensure!(finished.stderr.contains("identity token was not accepted"), "{}", finished.everything());
        Ok(())
    });
    report.case("without a certificate the handshake fails, and nothing is asked", || {
        refused_in_handshake(&gateway, &endpoint, None, "certificate required")
    });
    report.case("with a stranger's certificate the handshake fails", || {
        refused_in_handshake(&gateway, &endpoint, Some(&eve), "")
    });
    report.case("where certificates are asked for, nobody logs in unencrypted", || {
        let refusal = Wire::refusal(&Endpoint { tls_ca: None, ..endpoint.clone() })?;
        ensure!(refusal.sqlstate == "28000" && refusal.message.contains("TLS"), "{refusal:?}");
        Ok(())
    });
    report.case("a reload that begins to ask for certificates asks every new client", || {
        let other = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &Setup::default())?;
        let endpoint = other.endpoint(&endpoint.password, false);
        Wire::connect(&endpoint)?;
        other.configure(&world.target, &world.issuer, &setup)?;
        other.reload()?;
        crate::harness::process::eventually("plaintext is refused", DEADLINE, || {
            Wire::refusal(&endpoint).is_ok_and(|refusal| refusal.sqlstate == "28000")
        })?;
        refused_in_handshake(&other, &other.endpoint(&endpoint.password, true), None, "certificate required")
    });
    Ok(())
}

fn psql(endpoint: &Endpoint, pair: Option<&Pair>) -> Result<Finished> {
    let mut psql = Command::new(format!("{BIN}/psql"));
    psql.envs(endpoint.environment()).args(["-X", "-A", "-t", "-c", "SELECT 'certified'"]);
    if let Some(pair) = pair {
        psql.env("PGSSLCERT", &pair.certificate).env("PGSSLKEY", &pair.key);
    }
    run(&mut psql, DEADLINE)
}

/// Direct TLS, which libpq 18 speaks.
fn python_direct(endpoint: &Endpoint, pair: &Pair) -> Command {
    let mut command = python("psycopg_once.py");
    command.envs(endpoint.environment()).env("PGSSLNEGOTIATION", "direct").arg("SELECT 'direct'");
    command.env("PGSSLCERT", &pair.certificate).env("PGSSLKEY", &pair.key);
    command
}

fn refused_in_handshake(gateway: &Gateway, endpoint: &Endpoint, pair: Option<&Pair>, words: &str) -> Result<()> {
    let before = audit::search(gateway, &[])?.len();
    let finished = psql(endpoint, pair)?;
    ensure!(finished.status == Some(2), "{}", finished.everything());
    ensure!(finished.stderr.contains(words) && !finished.stderr.contains("token"), "{}", finished.stderr);
    ensure!(audit::search(gateway, &[])?.len() == before, "it got as far as a login");
    Ok(())
}

// ---- the target's certificate ----

fn targets(settings: &Settings, report: &mut Report, world: &World) -> Result<()> {
    let authority = Authority::new(&world.folder, "servers")?;
    let pair = authority.issue("middle", "DNS:localhost")?;
    let middle = Middle::start(world, &pair, None)?;
    let (server, middle_port) = (world.target.port, middle.port);
    let own = world.target.ca.display().to_string();
    let theirs = authority.certificate().display().to_string();
    let verified = |ca: &str| format!("tls = \"verify-full\"\ntls_ca = \"{ca}\"");
    let more = [
        target("verified", "localhost", server, &verified(&own)),
        target("wrong-authority", "localhost", server, &verified(&theirs)),
        target("wrong-name", "127.0.0.1", middle_port, &verified(&theirs)),
        target("middle", "localhost", middle_port, &verified(&theirs)),
        target("middle-unchecked", "localhost", middle_port, "tls = \"require\""),
    ];
    let setup = Setup { more: more.concat(), ..Setup::default() };
    let gateway = Gateway::start(&settings.run_dir, &world.target, &world.issuer, &setup)?;
    let endpoint = |name: &str| {
        gateway.endpoint(&world.issuer.token("ada@example.com", &["engineering"]), false).with_dbname(name)
    };
    report.case("a target is verified, and logged in at with SCRAM over TLS", || {
        let mut wire = Wire::connect(&endpoint("verified"))?;
        ensure!(wire.value("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")? == "TLSv1.3");
        Ok(())
    });
    for name in ["wrong-authority", "wrong-name"] {
        report.case(&format!("a target with the {} is refused, and told nothing", name.replace('-', " ")), || {
            refused(&gateway, &endpoint(name), "08001", "TLS with the target failed", &[server, middle_port])
        });
    }
    report.case("who decrypts in the middle is let in by a client that does not bind", || {
        // What the next case is worth: the same way works for a client without channel binding.
        let direct = Endpoint { port: middle_port, user: "service".into(), ..world.target.endpoint(true) };
        let direct = Endpoint { tls_ca: Some(authority.certificate()), ..direct };
        let mut command = Command::new(format!("{BIN}/psql"));
        command
            .envs(direct.environment())
            .env("PGCHANNELBINDING", "disable")
            .args(["-X", "-A", "-t", "-c", "SELECT 1"]);
        ensure!(run(&mut command, DEADLINE)?.succeeded()? == "1\n");
        Ok(())
    });
    for name in ["middle", "middle-unchecked"] {
        report.case(&format!("the login is bound to the target's certificate: {name} is found out"), || {
            let failures = || -> Result<usize> {
                let log = world.target.log()?;
                Ok(log.iter().filter(|line| line.message.contains("channel binding check failed")).count())
            };
            let before = failures()?;
            refused(&gateway, &endpoint(name), "08004", "refused the login", &[server, middle_port])?;
            ensure!(failures()? == before + 1, "the target did not refuse it for its channel binding");
            Ok(())
        });
    }
    drop(middle);
    for asks in ["cleartext", "md5", "nothing"] {
        report.case(&format!("who stands in the target's place and asks for {asks} is told nothing"), || {
            let middle = Middle::start(world, &pair, Some(asks))?;
            let more = target(asks, "localhost", middle.port, &verified(&theirs));
            gateway.configure(&world.target, &world.issuer, &Setup { more, ..Setup::default() })?;
            gateway.reload()?;
            let is_there = || Wire::refusal(&endpoint(asks)).is_ok_and(|said| said.sqlstate != "28000");
            eventually("the target is known", DEADLINE, is_there)?;
            refused(&gateway, &endpoint(asks), "08004", "require_auth", &[middle.port])?;
            let told = middle.told()?;
            ensure!(told.lines().all(|line| line.trim() == "told b''"), "{told}");
            Ok(())
        });
    }
    Ok(())
}

fn target(name: &str, host: &str, port: u16, tls: &str) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"{host}:{port}\"\ndatabase = \"shop\"\n\
         user = \"service\"\npassword_env = \"TARGET_PASSWORD\"\n{tls}\n"
    )
}

/// Refused with this code, the reason in the trail, and neither credential nor address at the client.
fn refused(gateway: &Gateway, endpoint: &Endpoint, sqlstate: &str, reason: &str, ports: &[u16]) -> Result<()> {
    let refusal = Wire::refusal(endpoint)?;
    ensure!(refusal.sqlstate == sqlstate, "{refusal:?}");
    let told = format!("{refusal:?}");
    let secrets = [PASSWORD.to_string(), "service".into(), "127.0.0.1".into()];
    let secrets = secrets.into_iter().chain(ports.iter().map(u16::to_string));
    secrets.into_iter().try_for_each(|secret| {
        ensure!(!told.contains(&secret), "the client is told {secret}: {told}");
        Ok(())
    })?;
    let records = audit::search(gateway, &["--target", &endpoint.dbname])?;
    ensure!(
        records.iter().any(|record| record.to_string().contains(reason)),
        "not in the trail: {reason}: {records:?}"
    );
    Ok(())
}

/// The program between gateway and target; ended when dropped.
struct Middle {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Middle {
    /// `asks`: for less than the target would.
    fn start(world: &World, pair: &Pair, asks: Option<&str>) -> Result<Middle> {
        let mut command = python("middle.py");
        command.env("CERTIFICATE", &pair.certificate).env("KEY", &pair.key);
        command.env("TARGET_PORT", world.target.port.to_string());
        command.envs(asks.map(|asks| ("ASKS", asks)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        stdout.read_line(&mut line)?;
        let port = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok());
        Ok(Middle { child, stdin, stdout, port: port.with_context(|| format!("it said {line:?}"))? })
    }

    /// What it was told, once it has ended.
    fn told(mut self) -> Result<String> {
        drop(self.stdin.take());
        let mut told = String::new();
        self.stdout.read_to_string(&mut told)?;
        Ok(told)
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
