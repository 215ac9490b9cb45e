//! How one value is read from TOML or from the text of a variable or flag.
//!
//! A kind says what it expects in words an operator can act on. Text that may be a secret is never
//! repeated in a message.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::{Audience, DatabaseUrl, Delivery, Durability, Secret};

/// A value as somebody wrote it.
#[derive(Clone, Copy)]
pub(super) enum Literal<'a> {
    /// In the file.
    Toml(&'a DeValue<'a>),
    /// In a variable or flag, without quotes.
    Text(&'a str),
}

/// A type that configuration values have.
pub(super) trait Kind: Sized {
    /// Completes "expected …", with an example.
    const EXPECTED: &'static str;

    /// Reads a value; `None` when it is no such thing.
    fn read(literal: Literal<'_>) -> Option<Self>;

    /// Reads a value or says what was expected instead.
    fn read_or_explain(literal: Literal<'_>) -> Result<Self, String> {
        Self::read(literal).ok_or_else(|| format!("expected {}, got {}", Self::EXPECTED, literal.describe()))
    }
}

impl<'a> Literal<'a> {
    /// The text of a TOML string, variable or flag.
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
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

impl Kind for bool {
    const EXPECTED: &'static str = "true or false, without quotes";

    fn read(literal: Literal<'_>) -> Option<Self> {
        match literal {
            Literal::Toml(value) => value.as_bool(),
            Literal::Text("true" | "1") => Some(true),
            Literal::Text("false" | "0") => Some(false),
            Literal::Text(_) => None,
        }
    }
}

impl Kind for u64 {
    const EXPECTED: &'static str = "a whole number such as 100, without quotes";

    fn read(literal: Literal<'_>) -> Option<Self> {
        match literal {
            Literal::Toml(value) => {
                let integer = value.as_integer()?;
                Self::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Literal::Text(text) => text.replace('_', "").parse().ok(),
        }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteSize(pub(super) u64);

impl Kind for ByteSize {
    const EXPECTED: &'static str = r#"a number of bytes such as 65536, or a text such as "64KiB" or "4MiB""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        if let Some(bytes) = u64::read(literal) {
            return Some(Self(bytes));
        }
        let text = literal.text()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(1 << shift).map(Self)
    }
}

impl Kind for Duration {
    const EXPECTED: &'static str = r#"a duration in quotes such as "25s", "10m" or "250ms""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        humantime::parse_duration(literal.text()?.trim()).ok()
    }
}

impl Kind for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn read(literal: Literal<'_>) -> Option<Self> {
        literal.text().map(str::to_owned)
    }
}

impl Kind for Secret {
    const EXPECTED: &'static str = "a text in quotes";

    fn read(literal: Literal<'_>) -> Option<Self> {
        literal.text().map(Self::new)
    }

    fn read_or_explain(literal: Literal<'_>) -> Result<Self, String> {
        Self::read(literal).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

impl Kind for Vec<String> {
    const EXPECTED: &'static str =
        r#"a list of texts such as ["https://example.com"] (in a variable: separated by spaces or commas)"#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        match literal {
            Literal::Toml(value) => {
                value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            Literal::Text(text) => Some(
                text.split(|c: char| c == ',' || c.is_whitespace())
                    .filter(|item| !item.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        }
    }
}

impl Kind for SocketAddr {
    const EXPECTED: &'static str =
        r#"an IP address and a port such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::]:8000""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        let text = literal.text()?.trim();
        match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse().ok(),
            None => text.parse().ok(),
        }
    }
}

impl Kind for DatabaseUrl {
    const EXPECTED: &'static str = r#"a text such as "sqlite:roomcast.db""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        literal.text()?.parse().ok()
    }

    fn read_or_explain(literal: Literal<'_>) -> Result<Self, String> {
        match literal.text() {
            Some(text) => text.parse(),
            None => Err(format!("expected {}", Self::EXPECTED)),
        }
    }
}

impl Kind for Durability {
    const EXPECTED: &'static str = r#""full" or "normal""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        match literal.text()? {
            "full" => Some(Self::Full),
            "normal" => Some(Self::Normal),
            _ => None,
        }
    }
}

impl Kind for Audience {
    const EXPECTED: &'static str = r#""nobody", "members", "subscribers", "users" or "everyone""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        let text = literal.text()?;
        Self::ALL.into_iter().find(|audience| audience.name() == text)
    }
}

impl Audience {
    const ALL: [Self; 5] = [Self::Nobody, Self::Members, Self::Subscribers, Self::Users, Self::Everyone];

    /// As written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Members => "members",
            Self::Subscribers => "subscribers",
            Self::Users => "users",
            Self::Everyone => "everyone",
        }
    }
}

impl Kind for Delivery {
    const EXPECTED: &'static str = r#""auto", "inline", "worker" or "parallel""#;

    fn read(literal: Literal<'_>) -> Option<Self> {
        Self::named(literal.text()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<K: Kind>(text: &str) -> Option<K> {
        K::read(Literal::Text(text))
    }

    fn refusal<K: Kind>(toml: &str) -> String {
        let value = DeValue::parse(toml).unwrap();
        K::read_or_explain(Literal::Toml(value.get_ref())).err().unwrap()
    }

    #[test]
    fn sizes_have_units() {
        let size = |given| text::<ByteSize>(given).map(|size| size.0);
        assert_eq!(size("65536"), Some(65_536));
        assert_eq!(size("256KiB"), Some(262_144));
        assert_eq!(size("4 MiB"), Some(4 << 20));
        assert_eq!(size("1GiB"), Some(1 << 30));
        for wrong in ["", "KiB", "4MB", "-1", "1.5MiB", "99999999999999999999", "18446744073709551615GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_are_read_in_every_toml_form() {
        for (given, number) in [("1_000", 1000), ("0x10", 16), ("0b11", 3)] {
            let value = DeValue::parse(given).unwrap();
            assert_eq!(u64::read(Literal::Toml(value.get_ref())), Some(number), "{given}");
        }
    }

    #[test]
    fn lists_are_separated_by_spaces_or_commas() {
        assert_eq!(text::<Vec<String>>("a, b  c,"), Some(vec!["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn a_wrong_type_is_told_what_is_expected() {
        assert_eq!(
            refusal::<Duration>("25"),
            r#"expected a duration in quotes such as "25s", "10m" or "250ms", got the number 25"#
        );
        assert_eq!(refusal::<bool>("\"yes\""), r#"expected true or false, without quotes, got "yes""#);
        assert!(refusal::<u64>("-1").ends_with("got the number -1"));
        assert!(refusal::<Vec<String>>("[1]").ends_with("got a list"));
        assert!(refusal::<SocketAddr>("\"0.0.0.0\"").contains("0.0.0.0:8000"));
    }

    #[test]
    fn secrets_are_not_repeated() {
        assert_eq!(refusal::<Secret>("12345"), "expected a text in quotes");
        assert!(!refusal::<DatabaseUrl>("\"mysql://u:hunter2@h\"").contains("hunter2"));
    }
}
