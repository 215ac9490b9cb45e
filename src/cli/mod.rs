//! The command line: parsing, output, and exit codes.
//!
//! Results go to standard output, everything else to standard error. One file per command.

#[cfg(feature = "bench")]
mod bench;
mod check_config;
mod copies;
mod failure;
mod log_queue;
mod logging;
mod output;
mod serve;
mod signals;
mod sources;
mod token;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// A chat-room broadcast server: durable rooms over WebSocket, kept in a SQL database.
#[derive(Debug, Parser)]
#[command(name = "roomcast", version, propagate_version = false, after_help = NEXT_STEPS)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// The command.
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    Serve(serve::ServeArgs),
    /// Print a signed token for a user, to try a server that has a secret
    Token(token::TokenArgs),
    /// Print the configuration in effect, or say what is wrong with it
    CheckConfig(check_config::CheckConfigArgs),
    /// Copy the SQLite database, while a server runs or not
    Backup(copies::BackupArgs),
    /// Put a copy in the place of the SQLite database
    Restore(copies::RestoreArgs),
    /// Measure a server under load: Roomcast, or another program in its own protocol
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchArgs>),
    /// Print the version, and those of the databases compiled in
    Version,
}

const NEXT_STEPS: &str = "\
First steps:
  roomcast serve                     start on 127.0.0.1:8000 with the file roomcast.db
  open http://127.0.0.1:8000/        chat with yourself in two windows
  websocat ws://127.0.0.1:8000/connection/websocket
                                     type {\"id\":1,\"connect\":{}} and see the reply

Letting others in:
  export ROOMCAST_CLIENT_TOKEN_HMAC_SECRET=$(openssl rand -hex 32)
  roomcast serve --listen 0.0.0.0:8000
  roomcast token --user ann          a token for the user \"ann\", signed with that secret

`roomcast COMMAND --help` describes a command; docs/configuration.md lists every setting.";

/// Runs one command line, the program's name first.
///
/// Exit codes: 0 done, 1 wrong configuration or failed start, 2 wrong command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // When the terminal is gone, there is nowhere to report it.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Token(args) => token::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Backup(args) => copies::back_up(args),
        Command::Restore(args) => copies::restore(args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(args),
        Command::Version => output::print(&version::text()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error() {
        for line in [&["roomcast"][..], &["roomcast", "sevre"], &["roomcast", "serve", "--workers", "many"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        assert_eq!(Cli::try_parse_from(["roomcast", "--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        for command in ["serve", "token", "check-config", "backup", "restore", "bench"] {
            let help = Cli::try_parse_from(["roomcast", command, "--help"]).unwrap_err().to_string();
            assert!(help.contains(&format!("  roomcast {command}")), "{help}");
        }
    }
}
