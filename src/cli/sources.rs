//! Where the commands take their configuration from.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::{Flag, Loaded, Sources};

/// `--config`, the same for every command.
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// Configuration file (TOML); see roomcast.example.toml
    #[arg(long, value_name = "FILE", env = "ROOMCAST_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, this process's environment, and the given flags.
    ///
    /// # Errors
    /// When anything in them is wrong; the failure lists all of it.
    pub fn load(&self, flags: Vec<Flag>) -> Result<Loaded, Failure> {
        let file = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        let variables = std::env::vars_os().collect();
        Ok(Sources { file, variables, flags }.load()?)
    }
}
