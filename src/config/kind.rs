//! A kind of value: the contract that every setting names in its line, and the text it reads.

use toml::de::DeValue;

/// Reads, checks and writes values of type `T`. The kind holds its range.
pub(super) trait Kind<T> {
    /// Reads a value and checks it on its own; rules between settings are in `check`.
    fn read(&self, literal: Literal<'_>) -> Result<T, Flaw>;

    /// The value as TOML that `read` takes; `None` for a secret, which is never shown.
    fn show(&self, value: &T) -> Option<String>;

    /// The range in a few words, for the reference; empty when there is none.
    fn range(&self) -> String {
        String::new()
    }

    /// True when the value is a secret or holds one.
    fn is_secret(&self) -> bool {
        false
    }

    /// Takes a value that a program made, by the rules of one that is read.
    fn again(&self, value: &T) -> Result<T, Flaw> {
        let shown = self.show(value).unwrap_or_default();
        let read = DeValue::parse(&shown).map_err(|error| Flaw::Type(error.message().to_owned()))?;
        self.read(Literal::Toml(read.get_ref()))
    }
}

/// A reason not to take a value. The message completes the name of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The value is of another type. An error wherever it is written.
    Type(String),
    /// The type is right, the value is not legal. No error when a later source replaces it.
    Value(String),
}

/// A value as it is written.
#[derive(Clone, Copy)]
pub(super) enum Literal<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// In a variable or flag, without quotes.
    Text(&'a str),
}

impl<'a> Literal<'a> {
    /// The text of a TOML string, variable or flag.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    /// The flaw of a value that is not what `expected` describes. Repeats the value, so not for secrets.
    pub(super) fn is_not(self, expected: &str) -> Flaw {
        Flaw::Type(format!("expected {expected}, got {}", self.describe()))
    }

    fn describe(self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(DeValue::String(text)) => format!("{text:?}"),
            Self::Toml(DeValue::Integer(number)) => format!("the number {number}"),
            Self::Toml(DeValue::Float(number)) => format!("the number {number}"),
            Self::Toml(DeValue::Boolean(value)) => format!("{value} without quotes"),
            Self::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a section".to_owned(),
            Self::Toml(DeValue::Datetime(_)) => "a date".to_owned(),
        }
    }
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
