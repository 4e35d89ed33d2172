//! Stock clients do what their users do, over TLS and in plaintext.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::postgres::BIN;
use crate::harness::process::{client, finish, run, signal, spawn};
use crate::harness::{Endpoint, Report, Settings};

const CLIENT_TIMEOUT: Duration = Duration::from_secs(300);

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let world = World::start(settings, "clients", &Setup::default())?;
    for tls in [true, false] {
        let transport = if tls { "TLS" } else { "plaintext" };
        let endpoint = world.endpoint("ada@example.com", &["engineering"], tls);
        psql(report, transport, &endpoint);
        pgbench(report, transport, &endpoint);
        script(report, &format!("psycopg over {transport}"), python("psycopg_client.py"), &endpoint);
        script(report, &format!("asyncpg over {transport}"), python("asyncpg_client.py"), &endpoint);
        script(report, &format!("node-postgres over {transport}"), node("node_client.cjs"), &endpoint);
    }
    Ok(())
}

/// A client script of tests/clients, run by the Python that run.sh prepared.
pub fn python(name: &str) -> Command {
    let program = std::env::var("LOCKGATE_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(program);
    command.arg("-B").arg(client(name));
    command
}

/// The same by Node; run.sh says in NODE_PATH where its modules are.
pub fn node(name: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(client(name));
    command
}

/// pgjdbc, as Debian packages it. A JDK is much to ask of everybody's machine, so only the full run has it; Go likewise.
pub fn jdbc(settings: &Settings, report: &mut Report) -> Result<()> {
    other_language(settings, report, "JDBC", || {
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar"]).arg(client("JdbcClient.java"));
        java
    })
}

/// pgx, built from the sources Debian packages.
pub fn pgx(settings: &Settings, report: &mut Report) -> Result<()> {
    other_language(settings, report, "pgx", || {
        let mut go = Command::new("go");
        let cache = std::env::var_os("LOCKGATE_CACHE").map_or_else(std::env::temp_dir, PathBuf::from);
        go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOCACHE", cache.join("go"));
        go.arg("run").arg(client("pgx_client.go"));
        go
    })
}

fn other_language(settings: &Settings, report: &mut Report, name: &str, command: impl Fn() -> Command) -> Result<()> {
    let world = World::start(settings, &name.to_lowercase(), &Setup::default())?;
    for tls in [true, false] {
        let transport = if tls { "TLS" } else { "plaintext" };
        let endpoint = world.endpoint("ada@example.com", &["engineering"], tls);
        script(report, &format!("{name} over {transport}"), command(), &endpoint);
    }
    Ok(())
}

/// Runs a script that reports its own cases; every planned case is counted even when the script dies before it.
pub fn script(report: &mut Report, title: &str, mut command: Command, endpoint: &Endpoint) {
    let finished = match run(command.envs(endpoint.environment()), CLIENT_TIMEOUT) {
        Ok(finished) => finished,
        Err(error) => return report.failed(title, &format!("{error:#}")),
    };
    let (mut planned, mut seen) = (None, 0_u32);
    for line in finished.stdout.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "plan" => planned = rest.parse().ok(),
            "ok" => report.passed(&format!("{title}: {rest}")),
            "failed" => report.failed(&format!("{title}: {}", rest.split(':').next().unwrap_or(rest)), rest),
            _ => continue,
        }
        seen += u32::from(word != "plan");
    }
    if planned != Some(seen) {
        report.failed(title, &format!("planned {planned:?} cases, {seen} reported\n{}", finished.everything()));
    }
}

fn psql(report: &mut Report, transport: &str, endpoint: &Endpoint) {
    report.case(&format!("psql over {transport}: meta-commands, COPY, and an error in between"), || {
        let printed =
            run(program("psql", endpoint).args(["-X", "-A", "-t", "-f"]).arg(client("session.psql")), CLIENT_TIMEOUT)?;
        ensure!(printed.stderr.contains("division by zero"), "no error seen: {}", printed.stderr);
        let wanted = include_str!("../../clients/session.expected");
        let found = printed.succeeded()?;
        ensure!(found == wanted, "printed\n{found}\ninstead of\n{wanted}");
        Ok(())
    });
    report.case(&format!("psql over {transport}: interrupt cancels"), || {
        let mut command = program("psql", endpoint);
        command.args(["-X", "-A", "-t", "-c", "SELECT 'begun'", "-c", "SELECT pg_sleep(60)"]);
        let child = spawn(&mut command)?;
        std::thread::sleep(Duration::from_millis(700)); // psql says nothing once the statement runs; early is harmless
        signal(&child, "INT")?;
        let finished = finish(child, Duration::from_secs(20))?;
        ensure!(finished.stderr.contains("canceling statement due to user request"), "{}", finished.everything());
        Ok(())
    });
    report.case(&format!("psql over {transport}: a notification is shown"), || {
        let mut command = program("psql", endpoint);
        command.args(["-X", "-A", "-t", "-c", "LISTEN news", "-c", "NOTIFY news, 'extra'", "-c", "SELECT 1"]);
        let printed = run(&mut command, CLIENT_TIMEOUT)?.succeeded()?;
        ensure!(printed.contains("Asynchronous notification \"news\" with payload \"extra\""), "{printed}");
        Ok(())
    });
}

fn pgbench(report: &mut Report, transport: &str, endpoint: &Endpoint) {
    report.case(&format!("pgbench over {transport}: initialises"), || {
        run(program("pgbench", endpoint).args(["-i", "-q", "-s", "1"]), CLIENT_TIMEOUT)?.succeeded()?;
        let mut command = program("psql", endpoint);
        command.args(["-X", "-c", "DROP TABLE IF EXISTS pipelined", "-c", "CREATE TABLE pipelined (n int)"]);
        run(&mut command, CLIENT_TIMEOUT)?.succeeded()?;
        Ok(())
    });
    for mode in ["simple", "extended", "prepared"] {
        report.case(&format!("pgbench over {transport}: -M {mode}"), || {
            bench(endpoint, &["-M", mode, "-c", "8", "-t", "100"], 800)
        });
    }
    let pipeline = client("pipeline.pgbench").display().to_string();
    for mode in ["extended", "prepared"] {
        report.case(&format!("pgbench over {transport}: a pipeline, -M {mode}"), || {
            bench(endpoint, &["-M", mode, "-c", "4", "-t", "100", "-f", &pipeline], 400)
        });
    }
}

/// Runs pgbench, which must complete exactly so many transactions and lose none.
fn bench(endpoint: &Endpoint, arguments: &[&str], transactions: u32) -> Result<()> {
    let printed = run(program("pgbench", endpoint).args(arguments).arg("-n"), CLIENT_TIMEOUT)?.succeeded()?;
    let wanted = format!("number of transactions actually processed: {transactions}/{transactions}");
    ensure!(printed.contains(&wanted), "{printed}");
    let failed = printed.lines().find(|line| line.starts_with("number of failed transactions")).context("no count")?;
    ensure!(failed.contains(": 0 "), "{failed}");
    Ok(())
}

/// One of PostgreSQL's own programs, pointed at the endpoint.
fn program(name: &str, endpoint: &Endpoint) -> Command {
    let mut command = Command::new(format!("{BIN}/{name}"));
    command.envs(endpoint.environment());
    command
}
