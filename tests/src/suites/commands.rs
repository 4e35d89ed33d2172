//! Commands that need no running gateway: what they print, where, and how they exit.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::process::{Finished, built, finish, run};
use crate::harness::{Report, Settings};

const DEADLINE: Duration = Duration::from_secs(30);

/// `demo` has a suite of its own.
const VERBS: &[&str] = &[
    "serve",
    "config",
    "explain",
    "audit",
    "archiver",
    "approvals",
    "policy",
    "sessions",
    "credentials",
    "token",
    "doctor",
    "healthcheck",
    "completions",
    "man",
];

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let folder = settings.run_dir.join("suite-commands");
    fs::create_dir_all(&folder)?;
    report.case("every command has help, and wrong usage exits with 2", usage);
    report.case("the example configuration is valid, and its schema is JSON", || example(&folder));
    report.case("errors of a configuration point at their lines", || config_errors(&folder));
    report.case("explain answers a batch line by line", || batch(&folder));
    report.case("a development issuer is made once and never replaced", || new_issuer(&folder));
    report.case("doctor tells what it found", doctor);
    report.case("what cannot run exits with 3 and says why", || cannot_run(&folder));
    report.case("the systemd unit calls what there is", unit);
    Ok(())
}

fn lockgate(arguments: &[&str]) -> Result<Finished> {
    run(Command::new(built("lockgate")?).args(arguments).env("ORDERS_PASSWORD", "x"), DEADLINE)
}

fn usage() -> Result<()> {
    for verb in VERBS {
        let help = lockgate(&[verb, "--help"])?.succeeded().with_context(|| verb.to_string())?;
        ensure!(help.contains("Usage: lockgate"), "{verb}: {help}");
        let wrong = lockgate(&[verb, "--no-such-option"])?;
        ensure!(wrong.status == Some(2), "{verb}: exit status {:?}", wrong.status);
        ensure!(wrong.stdout.is_empty() && !wrong.stderr.is_empty(), "{verb}: {}", wrong.everything());
    }
    ensure!(lockgate(&["no-such-verb"])?.status == Some(2));
    ensure!(lockgate(&["completions", "bash"])?.succeeded()?.contains("lockgate"));
    Ok(())
}

fn example(folder: &Path) -> Result<()> {
    let file = folder.join("example.toml");
    fs::write(&file, lockgate(&["config", "example"])?.succeeded()?)?;
    lockgate(&["config", "check", &file.display().to_string()])?.succeeded()?;
    let schema: Value = serde_json::from_str(&lockgate(&["config", "schema"])?.succeeded()?)?;
    for table in ["server", "listener", "issuer", "target", "grant", "rule", "mask", "audit"] {
        ensure!(!schema["properties"][table].is_null(), "the schema does not know [{table}]");
    }
    Ok(())
}

fn config_errors(folder: &Path) -> Result<()> {
    let example = lockgate(&["config", "example"])?.succeeded()?;
    let cases = [
        ("durability = \"group\"", "durability = \"grupo\"", "group"),
        ("segment_mib = 64", "segment_mb = 64", "segment_mib"),
        ("address = \"127.0.0.1:6432\"", "address = \"127.0.0.1:none\"", "address"),
        ("action = \"deny\"", "action = \"denied\"", "deny"),
        ("classes = [\"drop\"", "classes = [\"dorp\"", "drop"),
        ("[audit]", "[audit", "audit"),
    ];
    for (right, wrong, hint) in cases {
        let text = example.replacen(right, wrong, 1);
        ensure!(text != example, "the example has no {right:?}: this case tests nothing");
        let line = text.lines().position(|line| line.contains(wrong)).context("the changed line")? + 1;
        let file = folder.join("wrong.toml");
        fs::write(&file, text)?;
        let checked = lockgate(&["config", "check", &file.display().to_string()])?;
        ensure!(checked.status == Some(1), "{wrong}: exit status {:?}", checked.status);
        let told = checked.everything();
        ensure!(
            told.contains(&format!(":{line}"))
                || told.contains(&format!("{line} │"))
                || told.contains(&format!("{line} |")),
            "{wrong}: line {line} is not named: {told}"
        );
        ensure!(told.contains(hint), "{wrong}: no word of {hint:?}: {told}");
    }
    Ok(())
}

fn batch(folder: &Path) -> Result<()> {
    let file = folder.join("example.toml");
    fs::write(&file, lockgate(&["config", "example"])?.succeeded()?)?;
    let mut explain = Command::new(built("lockgate")?);
    explain.args(["explain", "--batch", "--config"]).arg(&file).env("ORDERS_PASSWORD", "x");
    let mut child = explain.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let statements = ["SELECT 1", "DROP TABLE orders", "DELETE FROM orders", "SELECT pg_sleep(1)"];
    let mut stdin = child.stdin.take().context("no input")?;
    for (number, statement) in statements.iter().enumerate() {
        let line = serde_json::json!({"id": number.to_string(), "target": "orders", "user": "ada", "groups": ["engineering"],
            "statement": statement});
        writeln!(stdin, "{line}")?;
    }
    drop(stdin);
    let printed = finish(child, DEADLINE)?.succeeded()?;
    let answers = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let actions: Vec<_> = answers.iter().map(|answer| answer["action"].as_str().unwrap_or_default()).collect();
    ensure!(actions == ["allow", "deny", "approve", "deny"], "{actions:?}");
    let ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_str().unwrap_or_default()).collect();
    ensure!(ids == ["0", "1", "2", "3"], "{ids:?}");
    Ok(())
}

fn new_issuer(folder: &Path) -> Result<()> {
    let home = folder.join("issuer").display().to_string();
    lockgate(&["token", "--new-issuer", &home])?.succeeded()?;
    let key = fs::read(format!("{home}/issuer.pem"))?;
    let again = lockgate(&["token", "--new-issuer", &home])?;
    ensure!(again.status != Some(0) && fs::read(format!("{home}/issuer.pem"))? == key, "the key was replaced");
    let token = lockgate(&["token", "--issuer-key", &format!("{home}/issuer.pem"), "--user", "ada"])?.succeeded()?;
    ensure!(token.trim().split('.').count() == 3 && token.lines().count() == 1, "{token:?}");
    Ok(())
}

fn doctor() -> Result<()> {
    let found = lockgate(&["doctor", "-o", "json"])?;
    ensure!(matches!(found.status, Some(0 | 1)), "exit status {:?}: {}", found.status, found.everything());
    let findings = found.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    ensure!(findings.len() >= 4, "{} findings", findings.len());
    ensure!(findings.iter().all(|finding| finding["state"].is_string()), "{findings:?}");
    Ok(())
}

/// Its command line and its variables are known: it comes as far as the configuration, which is not there.
fn unit() -> Result<()> {
    let unit = include_str!("../../../deploy/lockgate.service");
    let values = |key: &'static str| unit.lines().filter_map(move |line| line.strip_prefix(key));
    let line = values("ExecStart=").next().context("it starts nothing")?;
    let (program, arguments) = line.split_once(' ').context("it starts nothing")?;
    ensure!(program == "/usr/local/bin/lockgate", "{program}");
    let help = lockgate(&["serve", "--help"])?.succeeded()?;
    let variables: Vec<_> = values("Environment=").filter_map(|pair| pair.split_once('=')).collect();
    ensure!(variables.len() == 2, "{variables:?}");
    for (name, _) in &variables {
        ensure!(help.contains(&format!("[env: {name}=")), "`serve` knows no {name}");
    }
    let mut command = Command::new(built("lockgate")?);
    let finished = run(command.args(arguments.split(' ')).envs(variables), DEADLINE)?;
    let said = finished.stderr.contains("/etc/lockgate/lockgate.toml");
    ensure!(matches!(finished.status, Some(1 | 3)) && said, "{}", finished.everything());
    Ok(())
}

fn cannot_run(folder: &Path) -> Result<()> {
    let absent = folder.join("absent.toml").display().to_string();
    for arguments in [&["serve", "--config", &absent][..], &["sessions", "ls", "--config", &absent]] {
        let finished = lockgate(arguments)?;
        ensure!(matches!(finished.status, Some(1 | 3)), "{arguments:?}: exit status {:?}", finished.status);
        ensure!(finished.stderr.contains("absent.toml"), "{arguments:?}: {}", finished.everything());
    }
    Ok(())
}
