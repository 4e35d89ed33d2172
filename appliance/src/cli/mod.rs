//! The command line: one file per verb, one row per verb in the table below.

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::process::ExitCode;

#[macro_use]
mod out;
mod approvals;
mod archiver;
mod audit;
mod audit_sinks;
mod completions;
mod config;
mod credentials;
mod demo;
mod doctor;
mod evidence;
mod explain;
mod gateway;
mod given;
mod healthcheck;
mod hold;
mod log;
mod policy;
mod replay;
mod serve;
mod sessions;
mod token;
mod variables;

pub use log::LogFormat;
pub use out::print;
pub use serve::ServeArgs;

/// Where the configuration is when nobody says.
pub const CONFIG_DEFAULT: &str = "/etc/lockgate/lockgate.toml";

/// Done.
pub const DONE: u8 = 0;
/// The answer is no: a check found an error, verify found a break.
pub const ANSWER_NO: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Could not run.
pub const FAILED: u8 = 3;

/// What is printed on standard output: for people, or one JSON object a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Lockgate, a layer-7 access gateway for PostgreSQL: identity, policy, approval, masking and audit on every statement
#[derive(clap::Parser)]
#[command(name = "lockgate", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "`lockgate VERB --help` explains a verb, with examples. Start with `lockgate demo`, or with \
`lockgate config example > lockgate.toml` and `lockgate doctor --config lockgate.toml`.

Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 could not run. NO_COLOR is respected.")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

macro_rules! verbs {
    ($($heading:literal { $($(#[$about:meta])* $Verb:ident($Args:ty) => $run:path,)* })*) => {
        #[derive(clap::Subcommand)]
        enum Verb { $($($(#[$about])* $Verb($Args),)*)* }

        fn dispatch(verb: Verb) -> anyhow::Result<ExitCode> {
            match verb { $($(Verb::$Verb(args) => $run(args),)*)* }
        }

        /// Headings of the help with their verbs.
        const HEADINGS: &[(&str, &[&str])] = &[$(($heading, &[$(stringify!($Verb)),*])),*];
    };
}

// A verb is a row here and a file beside this one.
verbs! {
    "Run" {
        /// Run the gateway
        Serve(serve::ServeArgs) => serve::run,
        /// Archive what a gateway records, as a unit of its own
        Archiver(archiver::ArchiverArgs) => archiver::run,
        /// Try everything on this machine with nothing set up
        Demo(demo::DemoArgs) => demo::run,
        /// Find out whether this host can run the gateway
        Doctor(doctor::DoctorArgs) => doctor::run,
        /// Ask a running gateway whether it is ready
        Healthcheck(healthcheck::HealthcheckArgs) => healthcheck::run,
    }
    "Decide" {
        /// Check a configuration, print its schema or a commented example
        Config(config::ConfigArgs) => config::run,
        /// Tell what would happen to a statement, without running it
        Explain(explain::ExplainArgs) => explain::run,
        /// Tell what a changed policy would have decided on recorded traffic
        Policy(policy::PolicyArgs) => policy::run,
        /// List and rule on statements that wait for a person
        Approvals(approvals::ApprovalsArgs) => approvals::run,
    }
    "Watch" {
        /// Search, follow and verify what happened
        Audit(audit::AuditArgs) => audit::run,
        /// List and end live sessions
        Sessions(sessions::SessionsArgs) => sessions::run,
    }
    "Keys" {
        /// Keep the passwords of targets in the encrypted store
        Credentials(credentials::CredentialsArgs) => credentials::run,
        /// Mint a development token (never for production issuers)
        Token(token::TokenArgs) => token::run,
    }
    "Shell" {
        /// Print a completion script for a shell
        Completions(completions::CompletionsArgs) => completions::run,
        /// Print the manual page
        Man(completions::ManArgs) => completions::run_man,
    }
}

/// What only shows once options are seen together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// Parses the command line and runs the verb. Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 could not run.
pub fn run() -> ExitCode {
    match parse(&std::env::args_os().collect::<Vec<_>>()).map(dispatch) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            note!("lockgate: {error:#}");
            ExitCode::from(if error.is::<WrongUsage>() { USAGE } else { FAILED })
        }
        Err(error) => refuse(&error),
    }
}

fn parse(arguments: &[OsString]) -> Result<Verb, clap::Error> {
    let matches = variables::parse(command(), arguments)?;
    Cli::from_arg_matches(&matches).map(|cli| cli.verb)
}

/// Help and version were asked for; all else is wrong usage.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_answer(error.kind()) {
        // A reader who hangs up has seen enough.
        if let Err(error) = error.print().or_else(out::unless_hung_up) {
            note!("lockgate: could not write to standard output: {error}");
            return ExitCode::from(FAILED);
        }
    } else {
        note!("lockgate: {}", said(error));
    }
    if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
}

/// A help, and no mistake.
fn is_answer(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(kind, DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// In our own manner.
fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned()
}

/// The command with its verbs listed under their headings.
fn command() -> clap::Command {
    let command =
        Cli::command().mut_subcommand("serve", given::tell_ranges).mut_subcommand("archiver", given::tell_ranges);
    let style = *command.get_styles().get_header();
    let literal = *command.get_styles().get_literal();
    let mut list = String::new();
    for (heading, verbs) in HEADINGS {
        list += &format!("{style}{heading}:{style:#}\n");
        for name in verbs.iter().map(|verb| verb.to_lowercase()) {
            let about = command.find_subcommand(&name).and_then(|verb| verb.get_about()).map(ToString::to_string);
            list += &format!("  {literal}{name:<13}{literal:#}{}\n", about.unwrap_or_default());
        }
        list.push('\n');
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}{style}Options:{style:#}\n{{options}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a narrow terminal each line of a paragraph broke once where it was written so and once where the terminal ends.
    #[test]
    fn paragraphs_below_a_help_are_one_line_for_the_terminal_to_break() {
        check_epilogues(&command());
    }

    fn check_epilogues(command: &clap::Command) {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        for pair in
            lines.windows(2).filter(|pair| pair.iter().all(|line| line.starts_with(|c: char| !c.is_whitespace())))
        {
            assert!(pair[0].len() < 60, "{}: {pair:?}", command.get_name());
        }
        command.get_subcommands().for_each(check_epilogues);
    }

    #[test]
    fn the_command_table_is_consistent() {
        command().debug_assert();
        let help = command().render_help().to_string();
        for verb in command().get_subcommands() {
            assert!(help.contains(&format!("\n  {:<13}", verb.get_name())), "{} is not in the help", verb.get_name());
            assert!(verb.get_about().is_some(), "{} says nothing of itself", verb.get_name());
        }
    }
}
