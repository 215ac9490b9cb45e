//! The sources of the configuration of a command: file, environment and flags.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::{CONFIG_FILE, Flag, Loaded, Sources};

/// `--config`, the same for every command.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigFile {
    /// Configuration file (TOML), else the one named by ROOMCAST_CONFIG; see roomcast.example.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, this process's environment, and the given flags.
    ///
    /// # Errors
    /// When any of them is wrong; the failure lists every problem.
    pub(super) fn load(&self, flags: Vec<Flag>) -> Result<Loaded, Failure> {
        // An empty variable counts as not set, as everywhere; clap would refuse it.
        let named = || std::env::var_os(CONFIG_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = self.config.clone().or_else(named);
        let variables = std::env::vars_os().collect();
        Ok(Sources { file, variables, flags }.load()?)
    }
}
