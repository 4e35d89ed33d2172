//! The scripts of bench/ still run: each once and briefly. What they measure then says nothing and is not looked at; that every
//! server started, took load and was counted, is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::process::{built, run};
use crate::harness::{Report, Settings};

const DEADLINE: Duration = Duration::from_secs(120);

/// A script, and the rows its table has to have, by their beginnings.
const SCRIPTS: &[(&str, &[&str])] = &[
    (
        "cpu.sh",
        &["| 8 | direct |", "| 8 | pgbouncer |", "| 8 | haproxy |", "| 8 | relay |", "| 8 | off |", "| 8 | on |"],
    ),
    ("knobs.sh", &["| (defaults) |", "| --shards 2 |"]),
    ("tls.sh", &["| 4 | on |", "| 4 | on-tls |", "| 4 | pgbouncer |", "| 4 | pgbouncer-tls |"]),
    ("storm.sh", &["| rustls |", "| off-plain |", "| off-tls |", "| on-tls |", "| pgbouncer-tls |"]),
    ("gigabyte.sh", &["| haproxy |", "| off |", "| mask |", "| detect |"]),
    ("idle.sh", &["| pgbouncer |", "| haproxy |", "| off |", "| on |"]),
    ("fairness.sh", &["| haproxy |", "| pgbouncer |", "| on |"]),
    ("durability.sh", &["| 4 | disk |", "| 4 | async |", "| 4 | group |", "| 4 | strict |"]),
    ("enters.sh", &["| 4 | 1 |", "| 4 | 2 |"]),
];

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    for (script, rows) in SCRIPTS {
        report.case(&format!("bench/{script}"), || smoke(settings, script, rows));
    }
    Ok(())
}

fn smoke(settings: &Settings, script: &str, rows: &[&str]) -> Result<()> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench");
    let release = built("lockgate")?;
    let target = release.parent().and_then(Path::parent).context("the program lies in the target directory")?;
    let mut command = Command::new(bench.join(script));
    command.arg("--smoke").env("BUILT", "1").env("CARGO_TARGET_DIR", target).env("TMPDIR", &settings.run_dir);
    let printed = run(&mut command, DEADLINE)?.succeeded()?;
    for begin in ["machine: ", "peers: ", "commit: ", "date: "] {
        ensure!(printed.lines().any(|line| line.starts_with(begin)), "no manifest: {printed}");
    }
    for begin in rows {
        let row =
            printed.lines().find(|line| line.starts_with(begin)).with_context(|| format!("no {begin} in {printed}"))?;
        let numbers = row[begin.len()..].split('|').map(str::trim).filter(|cell| !cell.is_empty());
        let numbers: Result<Vec<f64>, _> = numbers.filter(|cell| *cell != "-").map(str::parse).collect();
        ensure!(numbers.is_ok_and(|numbers| !numbers.is_empty()), "not a row of numbers: {row}");
    }
    Ok(())
}
