//! The failure of a command: a sentence for the person who typed it.

use std::fmt;

use crate::config::ConfigError;

/// Ends the program with exit code 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure(String);

impl Failure {
    /// A failure that is told by `message`.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let problems: Vec<String> = error.problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Self(format!("the configuration is not valid:{}", problems.concat()))
    }
}
