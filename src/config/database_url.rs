//! The value of `database.url`: parsing, and display without the password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The database of `database.url`. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of the embedded SQLite.
    Sqlite(PathBuf),
    /// A libpq connection URL.
    Postgres(String),
}

const EXPECTED: &str =
    r#"expected "sqlite:FILE" such as "sqlite:roomcast.db", or "postgres://USER:PASSWORD@HOST/DATABASE""#;

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Never repeats the text in its error: it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let Some(path) = text.strip_prefix("sqlite:") else {
            return Err(EXPECTED.to_owned());
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err(format!("{EXPECTED}; the file name is missing"));
        }
        if path.starts_with(":memory:") {
            return Err("an in-memory SQLite database cannot be shared by several connections; name a file"
                .to_owned());
        }
        if path.contains(['?', '\0']) {
            return Err(format!("{EXPECTED}; parameters after the file name are not supported"));
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hides the password before the last `@`, so that one with an unescaped `/`, `@` or `?` is hidden
/// whole, and the value of every parameter that is named after a password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let rest = match rest.rsplit_once('@') {
        Some((login, server)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{server}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let Some((address, query)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let parameters: Vec<String> = query.split('&').map(without_secret_value).collect();
    format!("{scheme}://{address}?{}", parameters.join("&"))
}

/// `password=x` → `password=***`; libpq decodes names, so an escaped name is hidden too.
fn without_secret_value(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.contains('%') || name.to_ascii_lowercase().contains("password") => {
            format!("{name}=***")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        let url: DatabaseUrl = url.parse().unwrap();
        assert_eq!(format!("{url}"), format!("{url:?}"));
        url.to_string()
    }

    #[test]
    fn sqlite_urls_name_a_file() {
        for (url, path) in [
            ("sqlite:roomcast.db", "roomcast.db"),
            ("sqlite:/var/lib/chat.db", "/var/lib/chat.db"),
            ("sqlite://chat.db", "chat.db"),
            ("sqlite:///var/lib/chat.db", "/var/lib/chat.db"),
        ] {
            assert_eq!(url.parse(), Ok(DatabaseUrl::Sqlite(PathBuf::from(path))), "{url}");
        }
        for url in ["sqlite:", "sqlite::memory:", "sqlite:a.db?mode=rwc", "a.db", "mysql://u:pw@h/d", ""] {
            let refusal = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(!refusal.contains("pw"), "{url}: {refusal}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("postgres://ann@db:5432/chat"), "postgres://ann@db:5432/chat");
        assert_eq!(shown("postgres:///chat?host=/run/pg"), "postgres:///chat?host=/run/pg");
        for url in [
            "postgres://ann:hunter2@db/chat",
            "postgresql://ann:hunter2@db/chat",
            "postgres://ann:hunter2/x@db/chat",
            "postgres://ann:x@hunter2@db/chat",
            "postgres://ann:x?hunter2@db/chat",
            "postgres://db/chat?user=ann&password=hunter2",
            "postgres://db/chat?sslpassword=hunter2&user=ann",
            "postgres://db/chat?p%61ssword=hunter2",
        ] {
            assert!(!shown(url).contains("hunter2"), "{url} is shown as {}", shown(url));
        }
        assert_eq!(shown("postgres://ann:hunter2@db/chat?x=1"), "postgres://ann:***@db/chat?x=1");
    }
}
