//! The command line: one file per verb, one row per verb in the command table.

/// Parses the command line and runs the verb. Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 could not run.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
