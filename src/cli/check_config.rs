//! `roomcast check-config`: the configuration in effect, without secrets, or its problems.

use clap::Args;

use super::failure::Failure;
use super::output::print;
use super::sources::ConfigFile;
use crate::config::{Loaded, Mode};

const EXAMPLES: &str = "\
Examples:
  roomcast check-config
        only the defaults and the environment
  roomcast check-config --config roomcast.toml && systemctl restart roomcast
        restart only with a configuration that works

Prints TOML on standard output, warnings as comments above it. Exits with 1 when something is wrong.";

/// Print the configuration in effect.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckConfigArgs {
    /// Source of the configuration.
    #[command(flatten)]
    pub file: ConfigFile,
}

pub(super) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    print(&report(&args.file.load(Vec::new())?))
}

/// The page that is printed.
fn report(loaded: &Loaded) -> String {
    let mode = match loaded.config.mode() {
        Mode::Open => "open: everybody on this machine",
        Mode::Insecure => "insecure: everybody who can reach the address",
        Mode::Secured => "secured: clients with a token",
    };
    let warnings: Vec<String> =
        loaded.warnings.iter().map(|warning| format!("# warning: {warning}\n")).collect();
    format!("# mode {mode}\n{}\n{}", warnings.concat(), loaded.config.to_toml())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_report_is_toml_with_warnings_and_without_secrets() {
        let given = "[client]\ntoken_hmac_secret = 'hunter2'";
        let report = report(&Config::from_toml("", given).unwrap());
        assert!(report.starts_with("# mode secured"), "{report}");
        assert!(report.contains("# warning: client.token_hmac_secret is shorter"), "{report}");
        assert!(report.contains("# token_hmac_secret is set and not shown"), "{report}");
        assert!(!report.contains("hunter2") && report.parse::<toml::Table>().is_ok(), "{report}");
    }
}
