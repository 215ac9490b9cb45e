//! Problems of a configuration, each with the source of the value.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Everything that is wrong, so that an operator can repair it in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Source of the value.
    pub origin: Origin,
    /// The path of the key, such as `client.ping_interval`; empty when the whole file is meant.
    pub key: String,
    /// The problem and the legal values.
    pub message: String,
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No source set it.
    Default,
    /// The configuration file.
    File {
        /// As named by `--config`.
        path: Arc<Path>,
        /// Counted from 1; 0 when no line is to blame.
        line: usize,
    },
    /// This environment variable.
    Variable(String),
    /// This command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Variable(name) => return write!(f, "{name}: {}", self.message),
            Origin::Flag(name) => return write!(f, "{name}: {}", self.message),
            Origin::File { path, line: 0 } => write!(f, "{}: ", path.display())?,
            Origin::File { path, line } => write!(f, "{}:{line}: ", path.display())?,
            Origin::Default => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_assert!(!self.problems.is_empty(), "an error without a problem");
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
