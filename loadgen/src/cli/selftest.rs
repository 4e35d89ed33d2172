//! `selftest`: whether this generator can be believed.

use super::args::{Format, SelftestArgs};
use super::settings::plain_settings;
use super::{Verdict, out, usage};
use crate::{manifest, pgbench, selftest};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub fn verb(args: &SelftestArgs) -> Result<Verdict> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut checks = selftest::stall(&program)?;
    checks.extend(selftest::canaries(&program)?);
    match pgbench::find().filter(|_| !args.no_pgbench) {
        Some(pgbench) => {
            checks.extend(pgbench::on_a_queue(&program, &pgbench)?);
            if let Some(url) = &args.target {
                let settings = plain_settings(url, args.password_file.as_deref()).map_err(usage)?;
                checks.extend(pgbench::on_a_target(settings, args.rate, usize::from(args.connections), &pgbench)?);
            }
        }
        None if args.target.is_some() => bail!("there is no pgbench in the path or under /usr/lib/postgresql"),
        None => out::tell("not compared with pgbench: it is not there, or --no-pgbench was given"),
    }
    let passed = checks.iter().all(|check| check.passed);
    match args.output {
        Format::Json => {
            let checks: Vec<Value> = checks.iter().map(selftest::Check::json).collect();
            out::print_json(&json!({"passed": passed, "checks": checks, "manifest": manifest::collect()}))?;
        }
        Format::Table => {
            for check in &checks {
                let verdict = if check.passed { "ok    " } else { "FAILED" };
                out::print(&format!("{verdict} {}: expected {}, found {}\n", check.name, check.expected, check.found))?;
            }
        }
    }
    Ok(if passed { Verdict::Yes } else { Verdict::No })
}
