//! The bundled load generator through the gateway: every workload in plaintext and TLS, at PostgreSQL and at its own canned
//! server, and whether it notices a value that was not masked.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use crate::harness::gateway::Setup;
use crate::harness::process::{Finished, built, run};
use crate::harness::{Endpoint, Report, Settings};

const DEADLINE: Duration = Duration::from_secs(60);
const ANSWERS: u64 = 200;
/// A connection and a login each.
const LOGINS: u64 = 40;

const MASKS: &str = "[[mask]]\ntargets = [\"orders\"]\nexcept_groups = [\"fraud\"]\ncolumns = [\"customers.card_number\"]\n\
                     style = \"last4\"\n";
const TABLE: &str = "CREATE TABLE customers (id int PRIMARY KEY, card_number text); \
                     INSERT INTO customers VALUES (1, '4111111111111111'), (2, '5500005555555559');";
const CARDS: &[&str] = &["--sql", "SELECT id, card_number FROM customers ORDER BY id"];
const ONE_CARD: &[&str] =
    &["--sql", "SELECT card_number FROM customers WHERE id = :id", "--set", "id=random(1,2)", "--expect-rows", "1"];
const UNMASKED: &[&str] = &["--expect-masked", "################"];

/// A workload, and what it is asked with.
const WORKLOADS: &[(&str, &[&str])] = &[
    ("simple", CARDS),
    ("extended", ONE_CARD),
    ("prepared", ONE_CARD),
    ("pipelined", ONE_CARD),
    ("copy-out", &["--sql", "COPY customers TO STDOUT", "--expect-rows", "2"]),
    ("churn", CARDS),
];

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let canned = Canned::start()?;
    let mut world = World::start(settings, "loadgen", &Setup::default())?;
    // The target's port is known once it runs: configured with it, and started again.
    let more = format!("{}{}{MASKS}", target("plain", world.target.port), target("canned", canned.port));
    world.gateway().configure(&world.target, &world.issuer, &Setup { more, ..Setup::default() })?;
    world.gateway_mut().kill()?;
    world.gateway_mut().start_again()?;
    world.target.execute("shop", TABLE)?;
    for tls in [false, true] {
        let way = if tls { "TLS" } else { "plaintext" };
        let endpoint = world.endpoint("ada@example.com", &["engineering"], tls);
        for (workload, what) in WORKLOADS {
            report.case(&format!("{workload} over {way}, at PostgreSQL"), || {
                all_answered(&endpoint.with_dbname("plain"), workload, what)
            });
            report.case(&format!("{workload} over {way}, at the canned server"), || {
                let copies: &[&str] = &["--sql", "COPY t TO STDOUT", "--expect-rows", "50"];
                let rows: &[&str] = &["--expect-rows", "3"];
                let what = if *workload == "copy-out" { copies } else { rows };
                all_answered(&endpoint.with_dbname("canned"), workload, what)
            });
        }
        report.case(&format!("a mask holds under load, over {way}"), || masked(&endpoint));
        report.case(&format!("what is not masked is found out, over {way}"), || {
            unmasked(&world.endpoint("eve@example.com", &["fraud"], tls))
        });
    }
    report.case("two equal PostgreSQL endpoints cost alike", || equally_dear(&world.target.endpoint(false)));
    report.case("a token nobody issued gets no load through", || {
        let stranger = world.endpoint("ada@example.com", &["engineering"], false).with_password("no token");
        let finished = load(&stranger, "simple", CARDS, ANSWERS)?;
        ensure!(finished.status == Some(3) && finished.stderr.contains("28"), "{}", finished.everything());
        Ok(())
    });
    Ok(())
}

fn target(name: &str, port: u16) -> String {
    format!(
        "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"127.0.0.1:{port}\"\ndatabase = \"shop\"\n\
         user = \"service\"\npassword_env = \"TARGET_PASSWORD\"\ntls = \"disable\"\nrequire_auth = \"none\"\n"
    )
}

/// `lockgate-loadgen respond`; ended when dropped.
struct Canned {
    child: Child,
    port: u16,
}

impl Canned {
    fn start() -> Result<Canned> {
        let mut command = Command::new(built("lockgate-loadgen")?);
        command.args(["respond", "--port", "0", "--rows", "3", "--copy-rows", "50"]).stdout(Stdio::piped());
        let mut child = command.spawn().context("could not start lockgate-loadgen")?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        let mut canned = Canned { child, port: 0 };
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        canned.port = port.with_context(|| format!("the canned server said `{}`", line.trim()))?;
        Ok(canned)
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        // Nothing more can be done about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Generous with lag: answers are checked here, not time.
fn load(endpoint: &Endpoint, workload: &str, what: &[&str], count: u64) -> Result<Finished> {
    let Endpoint { host, port, dbname, user, password, tls_ca } = endpoint;
    let tls = tls_ca.as_ref().map(|file| format!("?sslmode=verify-full&sslrootcert={}", file.display()));
    let url = format!("postgres://{user}@{host}:{port}/{dbname}{}", tls.unwrap_or_default());
    let rate = if workload == "churn" { "100" } else { "1000" };
    let mut command = Command::new(built("lockgate-loadgen")?);
    command.args(["run", "--target", &url, "--workload", workload, "--rate", rate, "--count", &count.to_string()]);
    command.args(["--connections", "4", "--warmup", "100ms", "--lag-limit", "10s", "-o", "json"]);
    run(command.args(what).env("PGPASSWORD", password), DEADLINE)
}

fn all_answered(endpoint: &Endpoint, workload: &str, what: &[&str]) -> Result<()> {
    let count = if workload == "churn" { LOGINS } else { ANSWERS };
    let printed = load(endpoint, workload, what, count)?.succeeded()?;
    let told: Value = serde_json::from_str(&printed)?;
    ensure!(told["answered"] == count && told["errors"] == 0, "{printed}");
    Ok(())
}

/// PostgreSQL has a process for each connection, which ends with it: no reading may come too late for them.
fn equally_dear(endpoint: &Endpoint) -> Result<()> {
    let url = format!("postgres://{}@127.0.0.1:{}/{}", endpoint.user, endpoint.port, endpoint.dbname);
    let mut command = Command::new(built("lockgate-loadgen")?);
    command.args(["compare", "-e", &format!("a={url}"), "-e", &format!("b={url}"), "--workload", "prepared"]);
    command.args(["--rate", "500", "-c", "8", "--rounds", "6", "--round-time", "500ms", "--warmup", "200ms"]);
    command.args(["--lag-limit", "10s", "-o", "json"]);
    let printed = run(command.env("PGPASSWORD", &endpoint.password), DEADLINE)?.succeeded()?;
    let told: Value = serde_json::from_str(&printed)?;
    let rounds = told["endpoints"].as_array().into_iter().flatten().map(|one| &one["cpu_per_request"]["rounds"]);
    let readings: Vec<Option<f64>> =
        rounds.flat_map(|of| of.as_array().into_iter().flatten()).map(Value::as_f64).collect();
    ensure!(readings.len() == 12, "{printed}");
    // What is lost with a process that has ended is all that it did. How far busy machines let equals differ is no matter.
    let most = readings.iter().flatten().fold(0.0f64, |most, &reading| most.max(reading));
    ensure!(readings.iter().all(|reading| reading.is_some_and(|reading| reading > most / 5.0)), "{readings:?}");
    Ok(())
}

fn masked(endpoint: &Endpoint) -> Result<()> {
    for (workload, what) in WORKLOADS.iter().filter(|(workload, _)| *workload != "copy-out") {
        all_answered(endpoint, workload, &[what, UNMASKED].concat()).with_context(|| workload.to_string())?;
    }
    Ok(())
}

/// The canary of [`masked`]: without a mask the same load fails, with the status that says so.
fn unmasked(endpoint: &Endpoint) -> Result<()> {
    for (workload, what) in WORKLOADS {
        let finished = load(endpoint, workload, &[what, UNMASKED].concat(), LOGINS)?;
        let said = finished.everything();
        ensure!(
            finished.status == Some(1) && said.contains("unmasked value"),
            "{workload}: {:?} {said}",
            finished.status
        );
    }
    Ok(())
}
