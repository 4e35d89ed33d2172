//! The books of a run: each case is printed as it ends, and the last line says how many passed and failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Counts cases and prints them. A case that could not be tried is said to be so and counted nowhere.
#[derive(Debug, Default)]
pub struct Report {
    suite: String,
    passed: u32,
    failures: Vec<String>,
}

impl Report {
    pub fn begin(&mut self, suite: &str) {
        self.suite = suite.into();
    }

    /// Runs one case; an error or a panic fails it and the suite goes on.
    pub fn case(&mut self, name: &str, case: impl FnOnce() -> anyhow::Result<()>) {
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(Ok(())) => self.passed(&format!("{name} ({:.1} s)", began.elapsed().as_secs_f32())),
            Ok(Err(error)) => self.failed(name, &format!("{error:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
                self.failed(name, &text.unwrap_or_else(|| "panicked".into()));
            }
        }
    }

    pub fn passed(&mut self, name: &str) {
        self.passed += 1;
        println!("ok      {}: {name}", self.suite);
    }

    pub fn failed(&mut self, name: &str, why: &str) {
        println!("FAILED  {}: {name}\n        {}", self.suite, why.trim_end().replace('\n', "\n        "));
        self.failures.push(format!("{}: {name}", self.suite));
    }

    /// Not tried, and why; neither passed nor failed.
    pub fn skipped(&self, name: &str, why: &str) {
        println!("skipped {}: {name}: {why}", self.suite);
    }

    pub fn finish(&self) -> ExitCode {
        if !self.failures.is_empty() {
            println!("\nfailed:");
            self.failures.iter().for_each(|name| println!("  {name}"));
        }
        println!("suites: {} passed, {} failed", self.passed, self.failures.len());
        ExitCode::from(u8::from(!self.failures.is_empty()))
    }
}
