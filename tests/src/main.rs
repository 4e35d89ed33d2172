//! Runs the integration suites and says what passed: one line a case, and `suites: N passed, N failed` at the end, for run.sh.

use std::path::PathBuf;
use std::process::ExitCode;

use lockgate_tests::harness::{Report, Settings};
use lockgate_tests::suites::{SUITES, Suite};

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    for suite in &arguments.suites {
        report.begin(suite.name);
        if let (Some(why), false, false) = (suite.held_back, arguments.named, arguments.settings.direct) {
            report.skipped("all cases", why);
            continue;
        }
        if let Err(error) = (suite.run)(&arguments.settings, &mut report) {
            report.failed("set up", &format!("{error:#}"));
        }
    }
    report.finish()
}

struct Arguments {
    settings: Settings,
    suites: Vec<&'static Suite>,
    /// Asked for by name, so also what the default run leaves out.
    named: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut settings = Settings { full: false, direct: false, run_dir: std::env::temp_dir() };
    let mut suites = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--full" => settings.full = true,
            "--direct" => settings.direct = true,
            "--run-dir" => settings.run_dir = PathBuf::from(words.next().ok_or("--run-dir needs a folder")?),
            "--suite" => suites.push(named(&words.next().ok_or("--suite needs a name")?)?),
            other => return Err(format!("unknown argument: {other}")),
        }
    }
    let by_name = !suites.is_empty();
    if !by_name {
        suites = SUITES.iter().filter(|suite| suite.runs_by_default(&settings)).collect();
    }
    Ok(Arguments { settings, suites, named: by_name })
}

fn named(name: &str) -> Result<&'static Suite, String> {
    SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        format!("no suite {name:?}; there are: {}", names.join(", "))
    })
}
