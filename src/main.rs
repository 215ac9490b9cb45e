//! The program: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    roomcast::cli::run(std::env::args_os())
}
