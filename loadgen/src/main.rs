//! `lockgate-loadgen`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen::cli::main()
}
