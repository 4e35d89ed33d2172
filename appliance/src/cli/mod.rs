//! The command line: one file per verb, one row per verb in the table below.

use clap::Parser;
use std::process::ExitCode;

mod approvals;
mod audit;
mod completions;
mod config;
mod credentials;
mod demo;
mod doctor;
mod explain;
mod healthcheck;
mod serve;
mod sessions;
mod token;

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

/// Writes to standard output. Whoever reads it may have enough and hang up (`| head`): that is no failure.
pub fn print(text: &str) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("could not write to standard output"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A layer-7 access gateway: identity, policy, approval, masking and audit on every statement.
#[derive(clap::Parser)]
#[command(name = "lockgate", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

macro_rules! verbs {
    ($($(#[$about:meta])* $Verb:ident($Args:ty) => $run:path,)*) => {
        #[derive(clap::Subcommand)]
        enum Verb { $($(#[$about])* $Verb($Args),)* }

        fn dispatch(verb: Verb) -> anyhow::Result<ExitCode> {
            match verb { $(Verb::$Verb(args) => $run(args),)* }
        }
    };
}

// A verb is a row here and a file beside this one.
verbs! {
    /// Run the gateway
    Serve(serve::ServeArgs) => serve::run,
    /// Try everything on this machine with nothing set up
    Demo(demo::DemoArgs) => demo::run,
    /// Check a configuration, print its schema or a commented example
    Config(config::ConfigArgs) => config::run,
    /// Tell what would happen to a statement, without running it
    Explain(explain::ExplainArgs) => explain::run,
    /// Search, follow and verify what happened
    Audit(audit::AuditArgs) => audit::run,
    /// List and rule on statements that wait for a person
    Approvals(approvals::ApprovalsArgs) => approvals::run,
    /// List and end live sessions
    Sessions(sessions::SessionsArgs) => sessions::run,
    /// Keep the passwords of targets in the encrypted store
    Credentials(credentials::CredentialsArgs) => credentials::run,
    /// Mint a development token (never for production issuers)
    Token(token::TokenArgs) => token::run,
    /// Find out whether this host can run the gateway
    Doctor(doctor::DoctorArgs) => doctor::run,
    /// Ask a running gateway whether it is ready
    Healthcheck(healthcheck::HealthcheckArgs) => healthcheck::run,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs) => completions::run,
    /// Print the manual page
    Man(completions::ManArgs) => completions::run_man,
}

/// Parses the command line and runs the verb. Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 could not run.
pub fn run() -> ExitCode {
    match dispatch(Cli::parse().verb) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("lockgate: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
