//! Reads `ROOMCAST_…` variables into the raw configuration.
//!
//! A variable is the upper-cased path of its key joined by `_`. The name of a namespace stands in
//! the middle; the longest option that fits the end is meant, so only names without `-` can be
//! written this way.

use std::ffi::{OsStr, OsString};

use super::error::{Origin, Problem};
use super::kind::Literal;
use super::nearest::nearest;
use super::root::{NAMED, RawConfig, keys};
use super::secret_file;
use super::setting::Refusal;

const PREFIX: &str = "ROOMCAST_";

/// Variable that names the configuration file when `--config` does not; read by the command line.
pub const CONFIG_FILE: &str = "ROOMCAST_CONFIG";

/// What the name of a variable ends with when its value is the path of a file.
const FILE_SUFFIX: &str = "_FILE";

/// Takes every variable of ours. An empty one counts as not set, unless it should hold a secret.
pub(super) fn read(variables: &[(OsString, OsString)], raw: &mut RawConfig, problems: &mut Vec<Problem>) {
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || is_not_ours(&name) {
            continue;
        }
        let secret = secret(&name);
        let is_twice = |plain: &str| plain != name && variables.iter().any(|(other, _)| other == plain);
        let taken = match &secret {
            Some(_) if value.is_empty() => Err(EMPTY.to_owned()),
            Some(plain) if is_twice(plain) => Err(format!("{plain} is set as well; set one of them")),
            None if value.is_empty() => continue,
            _ => take(&name, value, raw),
        };
        if let Err(message) = taken {
            problems.push(Problem {
                origin: Origin::Variable(name.into_owned()),
                key: String::new(),
                message,
            });
        }
    }
}

/// An empty secret is one that was not handed over. A server that went on without it would be open, or have
/// its messages elsewhere.
const EMPTY: &str = "the variable is set, but empty; give it a value, or remove it";

/// The variable of the secret that a variable holds or names the file of.
fn secret(variable: &str) -> Option<String> {
    let mut secrets = keys().filter(|key| (key.is_secret)()).map(|key| key.variable());
    secrets.find(|secret| variable == secret || variable.strip_suffix(FILE_SUFFIX) == Some(secret))
}

fn take(name: &str, value: &OsStr, raw: &mut RawConfig) -> Result<(), String> {
    let Some((section, key)) = key_of(name) else { return Err(unknown(name)) };
    let value = value.to_str().ok_or("the value is not UTF-8")?;
    match raw.set(&section, &key, Literal::Text(value), Origin::Variable(name.to_owned())) {
        Ok(()) => Ok(()),
        Err(Refusal::Wrong(message)) => Err(message),
        Err(Refusal::Unknown) => Err(unknown(name)),
    }
}

/// Section and key of a variable.
fn key_of(variable: &str) -> Option<(String, String)> {
    let fixed = |variable: &str| keys().find(|key| key.section != NAMED && key.variable() == variable);
    if let Some(key) = fixed(variable) {
        return Some((key.section.to_owned(), key.name.to_owned()));
    }
    let secret = variable.strip_suffix(FILE_SUFFIX).and_then(fixed).filter(|key| (key.is_secret)());
    if let Some(key) = secret {
        return Some((key.section.to_owned(), format!("{}{}", key.name, secret_file::SUFFIX)));
    }
    let rest = variable.strip_prefix("ROOMCAST_NAMESPACE_")?;
    keys()
        .filter(|key| key.section == NAMED)
        .filter_map(|key| {
            let name = rest.strip_suffix(&key.name.to_ascii_uppercase())?.strip_suffix('_')?;
            (!name.is_empty()).then(|| (name.to_ascii_lowercase(), key.name))
        })
        .max_by_key(|(_, key)| key.len())
        .map(|(name, key)| (format!("namespace.{name}"), key.to_owned()))
}

/// Kubernetes and Docker set variables of these shapes for a service that is called "roomcast".
fn is_not_ours(variable: &str) -> bool {
    variable == CONFIG_FILE
        || variable == "ROOMCAST_PORT"
        || variable == "ROOMCAST_NAME"
        || variable == "ROOMCAST_SERVICE_HOST"
        || variable.starts_with("ROOMCAST_SERVICE_PORT")
        || variable
            .strip_prefix("ROOMCAST_PORT_")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        || variable.starts_with("ROOMCAST_ENV_")
}

fn unknown(variable: &str) -> String {
    let known: Vec<String> = keys().map(|key| key.variable()).collect();
    match nearest_option(variable)
        .or_else(|| nearest(variable, known.iter().map(String::as_str)).map(str::to_owned))
    {
        Some(name) => format!("unknown variable; did you mean {name}?"),
        None => {
            "unknown variable; ROOMCAST_ is followed by the path of a key, such as ROOMCAST_CLIENT_INSECURE"
                .to_owned()
        }
    }
}

/// The variable meant by one of a namespace with a typo in its option: as many words of the end as
/// make the best match are the option.
fn nearest_option(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("ROOMCAST_NAMESPACE_")?;
    let options: Vec<String> =
        keys().filter(|key| key.section == NAMED).map(|key| key.name.to_ascii_uppercase()).collect();
    rest.match_indices('_')
        .filter_map(|(at, _)| {
            let (name, option) = (&rest[..at], &rest[at + 1..]);
            let known = nearest(option, options.iter().map(String::as_str))?;
            Some((strsim::damerau_levenshtein(option, known), format!("ROOMCAST_NAMESPACE_{name}_{known}")))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, variable)| variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_keys() {
        let key = |variable| key_of(variable).map(|(section, key)| format!("{section} {key}"));
        assert_eq!(key("ROOMCAST_LISTEN").as_deref(), Some(" listen"));
        assert_eq!(key("ROOMCAST_DATABASE_URL").as_deref(), Some("database url"));
        assert_eq!(key("ROOMCAST_CLIENT_TOKEN_HMAC_SECRET").as_deref(), Some("client token_hmac_secret"));
        assert_eq!(key("ROOMCAST_NAMESPACE_CHAT_PERSIST").as_deref(), Some("namespace.chat persist"));
        assert_eq!(
            key("ROOMCAST_NAMESPACE_BIG_CHAT_READ_PRESENCE").as_deref(),
            Some("namespace.big_chat read_presence")
        );
        assert_eq!(key("ROOMCAST_DEFAULT_NAMESPACE_PERSIST").as_deref(), Some("default_namespace persist"));
        assert_eq!(key("ROOMCAST_API_KEY_FILE").as_deref(), Some("api key_file"));
        assert_eq!(key("ROOMCAST_DATABASE_URL_FILE").as_deref(), Some("database url_file"));
        assert_eq!(key("ROOMCAST_LISTEN_FILE"), None);
        assert_eq!(key("ROOMCAST_NAMESPACE_PERSIST"), None);
        assert_eq!(key("ROOMCAST_NAMESPACE__PERSIST"), None);
    }

    #[test]
    fn unknown_variables_are_told_the_nearest() {
        assert!(unknown("ROOMCAST_DATABSE_URL").ends_with("did you mean ROOMCAST_DATABASE_URL?"));
        assert!(
            unknown("ROOMCAST_NAMESPACE_BIG_CHAT_PERSISTT")
                .ends_with("did you mean ROOMCAST_NAMESPACE_BIG_CHAT_PERSIST?")
        );
        assert!(unknown("ROOMCAST_X").contains("ROOMCAST_CLIENT_INSECURE"));
    }

    #[test]
    fn service_links_are_not_ours() {
        for name in [
            "ROOMCAST_PORT",
            "ROOMCAST_SERVICE_HOST",
            "ROOMCAST_SERVICE_PORT_HTTP",
            "ROOMCAST_PORT_8000_TCP_ADDR",
        ] {
            assert!(is_not_ours(name), "{name}");
        }
        assert!(!is_not_ours("ROOMCAST_LISTEN"));
    }
}
