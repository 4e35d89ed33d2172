//! The scripts of bench/ still run: `side-by-side.sh` runs each once and briefly. What they measure then says nothing and is not
//! looked at; that every server started, took load and was counted, is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::process::{Finished, built, run};
use crate::harness::{Report, Settings};

/// All of them, on a machine that does other things too: three to four minutes on a free one.
const DEADLINE: Duration = Duration::from_secs(900);

/// A section of the page, and the rows its table has to have, by their beginnings.
const SECTIONS: &[(&str, &[&str])] = &[
    (
        "cpu",
        &["| 1 | direct |", "| 8 | pgbouncer |", "| 8 | haproxy |", "| 16 | relay |", "| 16 | off |", "| 16 | on |"],
    ),
    ("simple", &["| 16 | pgbouncer |", "| 16 | on |"]),
    (
        "tail",
        &["| 8 | direct |", "| 8 | pgbouncer |", "| 16 | haproxy |", "| 16 | relay |", "| 16 | off |", "| 16 | on |"],
    ),
    ("gigabyte", &["| haproxy |", "| off |", "| mask |", "| detect |"]),
    ("idle", &["| pgbouncer |", "| haproxy |", "| off |", "| on |"]),
    ("fairness", &["| haproxy |", "| pgbouncer |", "| on |"]),
    ("tls", &["| 8 | on |", "| 8 | on-tls |", "| 16 | pgbouncer |", "| 16 | pgbouncer-tls |"]),
    ("storm", &["| rustls |", "| off-plain |", "| off-tls |", "| on-tls |", "| pgbouncer-tls |"]),
    ("enters", &["| 12 | 1 |", "| 12 | 2 |"]),
    ("shards", &["| (defaults) |", "| --shards 2 |"]),
    ("durability", &["| 16 | disk |", "| 16 | async |", "| 16 | group |", "| 1 | strict |"]),
];

pub fn suite(settings: &Settings, report: &mut Report) -> Result<()> {
    let mut page = String::new();
    report.case("side-by-side.sh measures all of them", || {
        let finished = side_by_side(settings, &["--all"], &[])?;
        let file = finished.stdout.trim();
        page = fs::read_to_string(file).with_context(|| format!("{file:?}: {}", finished.stderr))?;
        ensure!(finished.status == Some(0), "exit status {:?}\n{}{page}", finished.status, finished.stderr);
        manifest(&page)
    });
    for (section, rows) in SECTIONS {
        report.case(section, || numbers(&page, section, rows));
    }
    report.case("a gateway's archiver counts", || {
        let row = page.lines().find(|line| line.starts_with("| 16 | on |")).context("no such row")?;
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // Empty, clients, proxy, CPU us each, its ratio, with its children.
        let [own, whole]: [f64; 2] = [cells[3].parse()?, cells[5].parse()?];
        ensure!(whole > own, "{row}");
        Ok(())
    });
    report.case("a script that fails is said to have failed, and the next one runs", || {
        // pgbench takes no round of zero seconds.
        let finished = side_by_side(settings, &["--only", "shards,instructions"], &[("SECONDS_EACH", "0")])?;
        ensure!(finished.status == Some(1), "exit status {:?}\n{}", finished.status, finished.everything());
        let row = |promise| finished.stdout.lines().find(|line| line.starts_with(promise)).unwrap_or_default();
        let shards = row("| two shards");
        ensure!(shards.contains("could not be measured: set0: pgbench: error: -T/--time"), "{shards}");
        let instructions = row("| instructions");
        ensure!(instructions.contains("| yes |") || instructions.contains("| **no** |"), "{instructions}");
        Ok(())
    });
    Ok(())
}

fn side_by_side(settings: &Settings, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Finished> {
    let release = built("lockgate")?;
    let target = release.parent().and_then(Path::parent).context("the program lies in the target directory")?;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/side-by-side.sh"));
    command.arg("--smoke").args(arguments).envs(environment.iter().copied());
    command.env("BUILT", "1").env("CARGO_TARGET_DIR", target).env("TMPDIR", &settings.run_dir);
    run(&mut command, DEADLINE)
}

fn manifest(page: &str) -> Result<()> {
    for begin in ["command: ", "machine: ", "peers: ", "commit: ", "programs: lockgate sha256 ", "date: ", "took: "] {
        ensure!(page.lines().any(|line| line.trim_start().starts_with(begin)), "no {begin}in the manifest: {page}");
    }
    Ok(())
}

fn numbers(page: &str, section: &str, rows: &[&str]) -> Result<()> {
    let (_, text) = page.split_once(&format!("\n## {section}\n")).context("no such section")?;
    let text = text.split("\n## ").next().unwrap_or(text);
    for begin in rows {
        let row = text.lines().find(|line| line.starts_with(begin)).with_context(|| format!("no {begin} in {text}"))?;
        let cells = row[begin.len()..].split('|').map(str::trim).filter(|cell| !cell.is_empty());
        let numbers: Result<Vec<f64>, _> = cells.filter(|cell| *cell != "-").map(str::parse).collect();
        ensure!(numbers.is_ok_and(|numbers| !numbers.is_empty()), "not a row of numbers: {row}");
    }
    Ok(())
}
