//! `selftest`: whether this generator can be believed.

use super::Verdict;
use super::args::{Format, SelftestArgs};
use crate::{manifest, selftest};
use anyhow::{Context, Result};
use serde_json::{Value, json};

pub fn verb(args: &SelftestArgs) -> Result<Verdict> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut checks = selftest::stall(&program)?;
    checks.extend(selftest::canaries(&program)?);
    match selftest::find_pgbench().filter(|_| !args.no_pgbench) {
        Some(pgbench) => checks.extend(selftest::against_pgbench(&program, &pgbench)?),
        None => eprintln!("not compared with pgbench: it is not there, or --no-pgbench was given"),
    }
    let passed = checks.iter().all(|check| check.passed);
    match args.output {
        Format::Json => {
            let checks: Vec<Value> = checks.iter().map(selftest::Check::json).collect();
            println!("{}", json!({"passed": passed, "checks": checks, "manifest": manifest::collect()}));
        }
        Format::Table => {
            for check in &checks {
                let verdict = if check.passed { "ok    " } else { "FAILED" };
                println!("{verdict} {}: expected {}, found {}", check.name, check.expected, check.found);
            }
        }
    }
    Ok(if passed { Verdict::Yes } else { Verdict::No })
}
