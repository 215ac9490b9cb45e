//! Puts file, environment and flags together, each over the one before, and has the result checked.

use std::ffi::OsString;
use std::path::PathBuf;

use super::check::check;
use super::error::{ConfigError, Origin, Problem};
use super::kind::Literal;
use super::root::{Config, RawConfig};
use super::setting::Refusal;
use super::{env, file};

/// The sources of a configuration, in rising precedence.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those of other programs are passed over.
    pub variables: Vec<(OsString, OsString)>,
    /// Command-line flags.
    pub flags: Vec<Flag>,
}

/// A command-line flag that sets a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Name as typed: `--listen`.
    pub name: &'static str,
    /// Section of the key; empty for the top.
    pub section: &'static str,
    /// Name of the key in its section.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
}

/// A legal configuration, and warnings for the operator.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Sentences about legal but doubtful settings.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] lists all problems found, each with its location and the legal values.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut raw = RawConfig::default();
        let mut problems = Vec::new();
        if let Some(path) = &self.file {
            file::read(path, &mut raw, &mut problems);
        }
        env::read(&self.variables, &mut raw, &mut problems);
        for flag in &self.flags {
            set_flag(flag, &mut raw, &mut problems);
        }
        checked(&raw, problems)
    }
}

fn set_flag(flag: &Flag, raw: &mut RawConfig, problems: &mut Vec<Problem>) {
    let origin = Origin::Flag(flag.name);
    let message = match raw.set(flag.section, flag.key, Literal::Text(&flag.value), origin.clone()) {
        Ok(()) => return,
        Err(Refusal::Wrong(message)) => message,
        Err(Refusal::Unknown) => format!("there is no key {:?}", flag.key),
    };
    problems.push(Problem { origin, key: String::new(), message });
}

/// The check runs even after problems of reading, so that one look shows them all.
fn checked(raw: &RawConfig, mut problems: Vec<Problem>) -> Result<Loaded, ConfigError> {
    let checked = check(raw);
    problems.extend(checked.problems);
    if problems.is_empty() {
        Ok(Loaded { config: checked.config, warnings: checked.warnings })
    } else {
        Err(ConfigError { problems })
    }
}

impl Config {
    /// Reads a configuration from TOML, for programs that embed the server; messages
    /// call the text `name`.
    ///
    /// # Errors
    /// [`ConfigError`] lists all problems found.
    pub fn from_toml(name: &str, text: &str) -> Result<Loaded, ConfigError> {
        let mut raw = RawConfig::default();
        let mut problems = Vec::new();
        file::read_text(name.as_ref(), text, &mut raw, &mut problems);
        checked(&raw, problems)
    }

    /// Checks a configuration that a program put together by the same rules as one that is read: ranges, and what
    /// holds between settings. Settings that stand for a choice, such as 0 workers, are resolved in the result.
    ///
    /// # Errors
    /// [`ConfigError`] lists all problems found.
    pub fn check(&self) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let raw = self.to_raw(&mut problems);
        checked(&raw, problems)
    }
}

impl Default for Config {
    /// Open mode on loopback with every default: the same as an empty file.
    fn default() -> Self {
        check(&RawConfig::default()).config
    }
}
