//! Kinds that are written as text, true or false, or a list of texts.

use std::net::SocketAddr;

use super::choice::Choice;
use super::database_url::DatabaseUrl;
use super::kind::{Flaw, Kind, Literal, quoted};
use super::secret::Secret;
use super::trusted_proxies::TrustedProxies;

/// True or false.
pub(super) struct Switch;

/// A text; an empty one means none.
pub(super) struct TextOrNone;

/// A key that is never shown; an empty one, as an example file holds it, means none.
pub(super) struct SecretOrNone;

/// One of the names of a [`Choice`].
pub(super) struct OneOf;

/// IP address and port.
pub(super) struct Address;

/// The URL of the database, whose password is never shown.
pub(super) struct Url;

/// Origins of browsers, compared in lower case.
pub(super) struct Origins;

/// Addresses and networks of proxies.
pub(super) struct Proxies;

/// A filter of log lines.
pub(super) struct Filter;

const TEXT: &str = "a text in quotes";

impl Kind<bool> for Switch {
    fn read(&self, literal: Literal<'_>) -> Result<bool, Flaw> {
        let value = match literal {
            Literal::Toml(value) => value.as_bool(),
            Literal::Text("true" | "1") => Some(true),
            Literal::Text("false" | "0") => Some(false),
            Literal::Text(_) => None,
        };
        value.ok_or_else(|| literal.is_not("true or false, without quotes"))
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

impl Kind<Option<String>> for TextOrNone {
    fn read(&self, literal: Literal<'_>) -> Result<Option<String>, Flaw> {
        let text = literal.text().ok_or_else(|| literal.is_not(TEXT))?;
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    fn show(&self, value: &Option<String>) -> Option<String> {
        Some(quoted(value.as_deref().unwrap_or_default()))
    }
}

impl Kind<Option<Secret>> for SecretOrNone {
    fn read(&self, literal: Literal<'_>) -> Result<Option<Secret>, Flaw> {
        let text = literal.text().ok_or_else(|| Flaw::Type(format!("expected {TEXT}")))?;
        Ok(Some(Secret::new(text)).filter(|_| !text.is_empty()))
    }

    fn show(&self, value: &Option<Secret>) -> Option<String> {
        match value {
            Some(_) => None,
            None => Some(quoted("")),
        }
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn again(&self, value: &Option<Secret>) -> Result<Option<Secret>, Flaw> {
        match value {
            Some(secret) if secret.expose().is_empty() => Err(Flaw::Value("is empty".to_owned())),
            other => Ok(other.clone()),
        }
    }
}

impl<T: Choice> Kind<T> for OneOf {
    fn read(&self, literal: Literal<'_>) -> Result<T, Flaw> {
        literal.text().and_then(T::named).ok_or_else(|| literal.is_not(&one_of::<T>()))
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(quoted(value.as_str()))
    }
}

/// `"a", "b" or "c"`
fn one_of<T: Choice>() -> String {
    let names: Vec<String> = T::ALL.iter().map(|choice| quoted(choice.as_str())).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

impl Kind<SocketAddr> for Address {
    fn read(&self, literal: Literal<'_>) -> Result<SocketAddr, Flaw> {
        let parse = |text: &str| match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse().ok(),
            None => text.parse().ok(),
        };
        literal.text().and_then(|text| parse(text.trim())).ok_or_else(|| {
            literal
                .is_not(r#"an IP address and a port such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::]:8000""#)
        })
    }

    fn show(&self, value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

impl Kind<DatabaseUrl> for Url {
    fn read(&self, literal: Literal<'_>) -> Result<DatabaseUrl, Flaw> {
        match literal.text() {
            Some(text) => text.parse().map_err(Flaw::Type),
            None => Err(Flaw::Type(r#"expected a text such as "sqlite:roomcast.db""#.to_owned())),
        }
    }

    fn show(&self, value: &DatabaseUrl) -> Option<String> {
        Some(quoted(&value.to_string()))
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn again(&self, value: &DatabaseUrl) -> Result<DatabaseUrl, Flaw> {
        let text = match value {
            DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => url.clone(),
        };
        text.parse().map_err(Flaw::Value).map(|_: DatabaseUrl| value.clone())
    }
}

impl Kind<Vec<String>> for Origins {
    fn read(&self, literal: Literal<'_>) -> Result<Vec<String>, Flaw> {
        let origins = list(literal).ok_or_else(|| {
            literal.is_not(
                r#"a list of texts such as ["https://example.com"] (in a variable: separated by spaces or commas)"#,
            )
        })?;
        let flaws: Vec<String> = origins
            .iter()
            .filter_map(|origin| flaw_of_origin(origin).map(|flaw| format!("{origin:?} {flaw}")))
            .collect();
        if flaws.is_empty() {
            return Ok(origins.iter().map(|origin| origin.to_ascii_lowercase()).collect());
        }
        Err(Flaw::Value(format!(
            r#"{}; an origin is like "https://chat.example.com" or "https://*.example.com""#,
            flaws.join(", ")
        )))
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        let origins: Vec<String> = value.iter().map(|origin| quoted(origin)).collect();
        Some(format!("[{}]", origins.join(", ")))
    }
}

impl Kind<TrustedProxies> for Proxies {
    fn read(&self, literal: Literal<'_>) -> Result<TrustedProxies, Flaw> {
        const EXAMPLE: &str = r#"["loopback", "private", "192.0.2.7", "2001:db8::/32"]"#;
        let entries = list(literal).ok_or_else(|| {
            literal.is_not(&format!(
                "a list of texts such as {EXAMPLE} (in a variable: separated by spaces or commas)"
            ))
        })?;
        TrustedProxies::of(entries.iter().map(String::as_str))
            .map_err(|flaws| Flaw::Value(format!("{}; the list is like {EXAMPLE}", flaws.join(", "))))
    }

    fn show(&self, value: &TrustedProxies) -> Option<String> {
        let entries: Vec<String> = value.entries().map(|entry| quoted(&entry)).collect();
        Some(format!("[{}]", entries.join(", ")))
    }
}

fn list(literal: Literal<'_>) -> Option<Vec<String>> {
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

/// The reason why no `Origin` header of a browser can ever match this pattern.
fn flaw_of_origin(origin: &str) -> Option<&'static str> {
    if origin.contains('*') && !origin.contains("://") {
        return (!origin.trim_matches('*').is_empty()).then_some("has no scheme");
    }
    match origin.split_once("://") {
        None if origin == "null" => None,
        None => Some("has no scheme"),
        Some(("", _)) => Some("has no scheme"),
        Some((_, "")) => Some("has no host"),
        Some((_, host)) if host.contains('/') => Some("has a path"),
        Some((_, host)) if host.contains(|c: char| c.is_whitespace() || c == '@') => Some("is no host"),
        Some(_) => None,
    }
}

/// The host of a pattern of origins, without its port; `None` when the pattern names none.
pub(crate) fn host_of_origin(origin: &str) -> Option<&str> {
    let (_, host) = origin.split_once("://")?;
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    Some(&host[..end.unwrap_or(host.len())])
}

impl Kind<String> for Filter {
    fn read(&self, literal: Literal<'_>) -> Result<String, Flaw> {
        let text = literal.text().ok_or_else(|| literal.is_not(TEXT))?;
        match super::log_filter::flaw(text) {
            None => Ok(text.to_owned()),
            Some(flaw) => Err(Flaw::Value(format!(
                r#"expected a filter such as "info" or "info,roomcast=debug": {flaw}"#
            ))),
        }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeValue;

    use super::super::choice::Audience;
    use super::*;

    fn refusal<T: std::fmt::Debug>(kind: &impl Kind<T>, toml: &str) -> String {
        let value = DeValue::parse(toml).unwrap();
        match kind.read(Literal::Toml(value.get_ref())).unwrap_err() {
            Flaw::Type(message) | Flaw::Value(message) => message,
        }
    }

    #[test]
    fn lists_are_separated_by_spaces_or_commas() {
        assert_eq!(list(Literal::Text("a, b  c,")), Some(vec!["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn a_wrong_type_is_told_what_is_expected() {
        assert_eq!(refusal(&Switch, "\"yes\""), r#"expected true or false, without quotes, got "yes""#);
        assert!(refusal(&Origins, "[1]").ends_with("got a list"));
        assert!(refusal(&Address, "\"0.0.0.0\"").contains("0.0.0.0:8000"));
        let audience = refusal::<Audience>(&OneOf, "\"all\"");
        assert!(audience.starts_with(r#"expected "nobody", "members", "#), "{audience}");
        assert!(audience.ends_with(r#""users" or "everyone", got "all""#), "{audience}");
    }

    #[test]
    fn every_wrong_origin_of_a_list_is_named() {
        let refusal = refusal(&Origins, "['a.example', 'https://b.example/', 'https://c.example']");
        assert!(refusal.starts_with(r#""a.example" has no scheme, "https://b.example/" has a path; "#));
    }

    #[test]
    fn secrets_are_not_repeated() {
        assert_eq!(refusal(&SecretOrNone, "12345"), "expected a text in quotes");
        assert!(!refusal(&Url, "\"mysql://u:hunter2@h\"").contains("hunter2"));
    }
}
