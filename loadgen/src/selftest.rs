//! Whether the generator can be believed: it stops a server for a known time and compares what it measures with arithmetic.
//! `pgbench.rs` compares it with another generator.

use crate::cli;
use crate::measure::time;
use crate::run::{self, Settings};
use crate::schedule::{Arrivals, Profile};
use crate::sys::{self, Signal, now_ns};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How far a percentile may be from what arithmetic says, as a share of the stall.
const STALL_TOLERANCE: f64 = 0.05;
const STALL: Duration = Duration::from_millis(200);
const STALL_RATE: f64 = 2_000.0;
const STALL_RUN_S: f64 = 5.0;
const WARMUP_S: f64 = 0.5;

/// One thing that was checked.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub expected: String,
    pub found: String,
    pub passed: bool,
}

impl Check {
    pub fn json(&self) -> Value {
        json!({"name": self.name, "expected": self.expected, "found": self.found, "passed": self.passed})
    }
}

/// A responder of our own in a process of its own, ended when dropped.
#[derive(Debug)]
pub struct Responder {
    child: Child,
    pub port: u16,
}

impl Responder {
    /// `program` is this program.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Responder> {
        let mut command = Command::new(program);
        command.args(["respond", "--port", "0"]).args(arguments).stdout(Stdio::piped());
        // A signal that ends this program leaves no time to end the other.
        let mut child = sys::end_with_parent(&mut command).spawn().context("cannot start the responder")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let port = line.trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Ok(Responder { child, port: port.with_context(|| format!("the responder said `{}`", line.trim()))? })
    }

    pub fn url(&self) -> String {
        format!("postgres://selftest@127.0.0.1:{}/selftest", self.port)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // It is ours and holds nothing: gone is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the percentiles have to be when a server stands still for `stall_s` of `run_s` seconds under evenly spaced load: waits
/// run from the whole stall down to nothing, so at most the upper `1 - q` of all requests wait longer than this.
pub fn expected_percentile_s(stall_s: f64, run_s: f64, quantile: f64) -> f64 {
    (stall_s - (1.0 - quantile) * run_s).max(0.0)
}

/// Stops the responder in the middle of a run.
pub fn stall(program: &Path) -> Result<Vec<Check>> {
    let responder = Responder::start(program, &[])?;
    let settings = Settings {
        open: Some((Profile::Flat(STALL_RATE), Arrivals::Constant)),
        duration_s: Some(STALL_RUN_S),
        warmup_s: WARMUP_S,
        ..cli::plain_settings(&responder.url(), None)?
    };
    let pid = responder.child.id();
    let stopper = std::thread::spawn(move || -> Result<f64> {
        std::thread::sleep(Duration::from_secs_f64(WARMUP_S + STALL_RUN_S / 2.0));
        let begun = now_ns();
        sys::signal(pid, Signal::Stop)?;
        std::thread::sleep(STALL);
        sys::signal(pid, Signal::Continue)?;
        Ok((now_ns() - begun) as f64 / 1e9)
    });
    let outcome = run::run(&settings, &mut |_, _| {});
    let stall_s = stopper.join().map_err(|_| anyhow::anyhow!("the stopping thread failed"))??;
    let outcome = outcome?;
    let mut checks = Vec::new();
    for (name, quantile) in [("p97", 0.97), ("p99", 0.99), ("p99.9", 0.999), ("maximum", 1.0)] {
        let expected = expected_percentile_s(stall_s, STALL_RUN_S, quantile);
        let found = outcome.total.response.value_at_quantile(quantile);
        checks.push(Check {
            name: format!("response time, {name}, of a stall of {:.1} ms in {STALL_RUN_S} s", stall_s * 1e3),
            expected: time((expected * 1e9) as u64),
            found: time(found),
            passed: (found as f64 / 1e9 - expected).abs() <= stall_s * STALL_TOLERANCE,
        });
    }
    // Only as many requests as there are connections were on their way: what a generator that waits would have seen.
    let service = outcome.total.service.value_at_quantile(0.99);
    checks.push(Check {
        name: "service time, p99: hides the stall, as a closed loop would".into(),
        expected: "under 10 ms".into(),
        found: time(service),
        passed: service < 10_000_000,
    });
    let answered = outcome.total.response.len();
    let due = (STALL_RATE * STALL_RUN_S) as u64;
    checks.push(Check {
        name: "requests answered, none left out".into(),
        expected: due.to_string(),
        found: answered.to_string(),
        passed: answered == due && outcome.total.faults_total() == 0,
    });
    Ok(checks)
}

/// A server that answers wrongly must be found out: otherwise the checks check nothing.
pub fn canaries(program: &Path) -> Result<Vec<Check>> {
    let responder = Responder::start(program, &["--value", "4111-1111-1111-1111"])?;
    let base = cli::plain_settings(&responder.url(), None)?;
    let settings = Settings { count: Some(50), warmup_s: 0.0, ..base };
    let mut checks = Vec::new();
    let mut canary = |name: &str, expected: crate::check::Expectations| {
        let settings = Settings { expected, ..settings.clone() };
        let found = match run::prepare(&settings) {
            Ok(_) => "let through".to_string(),
            Err(error) => error.to_string(),
        };
        let passed = found.starts_with(name);
        checks.push(Check {
            name: format!("a wrong answer is found out: {name}"),
            expected: name.into(),
            found,
            passed,
        });
    };
    let plain = crate::check::Expectations::default;
    canary("unmasked value", crate::check::Expectations { masked: "####-####-####".parse().ok(), ..plain() });
    canary("wrong number of rows", crate::check::Expectations { rows: Some(2), ..plain() });
    canary("expected value missing", crate::check::Expectations { value: Some("no".into()), ..plain() });
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_of_a_stall() {
        assert!((expected_percentile_s(0.2, 5.0, 0.99) - 0.15).abs() < 1e-9);
        assert!((expected_percentile_s(0.2, 5.0, 1.0) - 0.2).abs() < 1e-9);
        assert_eq!(expected_percentile_s(0.2, 5.0, 0.5), 0.0);
        // Against a list of the waits themselves.
        let mut waits: Vec<f64> = (0..10_000)
            .map(|index| f64::from(index) / 2_000.0)
            .map(|at| if (2.0..2.2).contains(&at) { 2.2 - at } else { 0.0 })
            .collect();
        waits.sort_by(f64::total_cmp);
        assert!((waits[9_899] - expected_percentile_s(0.2, 5.0, 0.99)).abs() < 0.001);
    }
}
