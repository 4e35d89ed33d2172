//! The command line: one file a verb, and what they share.

mod args;
mod compare;
mod files;
mod out;
mod respond;
mod run;
mod saturate;
mod selftest;
mod settings;
mod thresholds;

pub use settings::plain_settings;

use crate::measure::{Point, time};
use crate::run::CheckFailed;
use crate::target::redact;
use anyhow::Result;
use args::{Cli, Verb};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;

/// The status a verdict exits with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Yes,
    No,
    CannotTell,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told_by_clap(&error),
    };
    let json = out::wants_json(&cli.verb);
    let result = match cli.verb {
        Verb::Run(args) => run::verb(&args),
        Verb::Compare(args) => compare::verb(&args),
        Verb::Saturate(args) => saturate::verb(&args),
        Verb::Selftest(args) => selftest::verb(&args),
        Verb::Respond(args) => respond::verb(&args),
    };
    match result {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Ok(Verdict::CannotTell) => ExitCode::from(3),
        Err(error) => {
            out::tell_error(json, &error);
            ExitCode::from(exit_status(&error))
        }
    }
}

/// Help, or what is wrong with an argument: clap repeats it, and there may be a password in it.
fn told_by_clap(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|one| one.to_string_lossy().into_owned()).collect();
    let hidden = arguments.iter().fold(text.clone(), |text, argument| {
        let value =
            argument.split_once('=').filter(|_| argument.starts_with("--")).map_or(&**argument, |(_, value)| value);
        let shown = redact(value);
        if shown == value { text } else { text.replace(value, &shown) }
    });
    // Nothing can be done about output that cannot be written.
    if hidden == text {
        let _ = error.print();
    } else {
        out::tell(hidden.trim_end());
    }
    let status = u8::try_from(error.exit_code()).unwrap_or(2);
    if status != 0 && out::asks_for_json(&arguments) {
        out::print_error(hidden.trim_end().trim_start_matches("error: "), status);
    }
    ExitCode::from(status)
}

fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<CheckFailed>() {
        1
    } else if error.is::<Usage>() {
        2
    } else {
        3
    }
}

/// Arguments that cannot be meant, found after clap was content.
#[derive(Debug)]
struct Usage(String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn demand(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Usage(what.into()).into()) }
}

/// Mistakes in arguments. A file that cannot be read or a host that is not known is none: that is the world's.
fn usage(error: anyhow::Error) -> anyhow::Error {
    let of_the_world = error.chain().any(|cause| cause.is::<std::io::Error>());
    if of_the_world { error } else { Usage(format!("{error:#}")).into() }
}

/// On a terminal only: a log wants no control characters.
pub fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or(ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style).with_message("logging in");
    bar.tick();
    bar
}

/// The last interval, in a line short enough for 80 columns; `of_s` is how long it will take, where that is known.
pub fn show_progress(bar: &ProgressBar, point: &Point, warmup: bool, of_s: Option<f64>) {
    if warmup {
        bar.set_message("warming up");
    } else {
        let of = of_s.map_or(String::new(), |seconds| format!(" of {seconds}"));
        let errors = if point.faults > 0 { format!("  errors {}", point.faults) } else { String::new() };
        let times = point.times.map_or("no answers".into(), |times| {
            format!("p50 {}  p99 {}  max {}", time(times.p50_ns), time(times.p99_ns), time(times.max_ns))
        });
        let at_s = (point.at_s * 10.0).round() / 10.0;
        let lag = time(point.lag_p999_ns);
        bar.set_message(format!("{at_s}{of} s  {:.0}/s  {times}{errors}  lag {lag}", point.rate()));
    }
    bar.tick();
}
