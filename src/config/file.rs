//! Reads a TOML file into the raw configuration.
//!
//! A line of the file is never repeated in a message: it may hold a secret.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::kind::Literal;
use super::nearest::nearest;
use super::root::{NAMED, RawConfig, keys, secret_of_file};
use super::setting::{Refusal, join};

/// Takes every value of the file at `path`.
pub(super) fn read(path: &Path, raw: &mut RawConfig, problems: &mut Vec<Problem>) {
    match std::fs::read_to_string(path) {
        Ok(text) => read_text(path, &text, raw, problems),
        Err(error) => problems.push(Problem {
            origin: Origin::File { path: Arc::from(path), line: 0 },
            key: String::new(),
            message: format!("the configuration file cannot be read: {error}"),
        }),
    }
}

/// Takes every value of a TOML text that is called `path` in messages.
pub(super) fn read_text(path: &Path, text: &str, raw: &mut RawConfig, problems: &mut Vec<Problem>) {
    let mut reader = Reader { path: Arc::from(path), text, raw, problems };
    match DeTable::parse(text) {
        Ok(document) => reader.top(document.get_ref()),
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            reader.problem(start, String::new(), format!("this is not TOML: {}", error.message()));
        }
    }
}

struct Reader<'a> {
    path: Arc<Path>,
    text: &'a str,
    raw: &'a mut RawConfig,
    problems: &'a mut Vec<Problem>,
}

/// A key of the file as the parser gives it: its name and its byte position.
type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn top(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let section: &str = name.get_ref();
            match (sections().contains(&section), value.get_ref()) {
                (true, DeValue::Table(table)) if section == "namespace" => self.namespaces(table),
                (true, DeValue::Table(table)) => self.section(section, table),
                (true, _) => self.problem(
                    name.span().start,
                    section.to_owned(),
                    format!("expected a section; write [{section}] and its keys below"),
                ),
                (false, DeValue::Table(_)) if !is_key(section) => self.unknown_section(name),
                (false, value) => self.key("", name, value),
            }
        }
    }

    fn namespaces(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = join("namespace", name.get_ref());
            match value.get_ref() {
                DeValue::Table(options) => match self.raw.namespaces.entry(name.get_ref()) {
                    Ok(_) => self.section(&key, options),
                    Err(message) => self.problem(name.span().start, key, message),
                },
                _ => self.problem(
                    name.span().start,
                    key,
                    format!(
                        "expected a section per namespace; write [namespace.NAME] and {} below",
                        name.get_ref()
                    ),
                ),
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            match secret_of_file(section, name.get_ref()) {
                Some(secret) if table.contains_key(secret.name) => {
                    let message = format!("{} is set as well; set one of them", secret.name);
                    self.problem(name.span().start, join(section, name.get_ref()), message);
                }
                _ => self.key(section, name, value.get_ref()),
            }
        }
    }

    fn key(&mut self, section: &str, name: &Name<'_>, value: &DeValue<'_>) {
        let origin = self.origin(name.span().start);
        let key = join(section, name.get_ref());
        match self.raw.set(section, name.get_ref(), Literal::Toml(value), origin) {
            Ok(()) => {}
            Err(Refusal::Wrong(message)) => self.problem(name.span().start, key, message),
            Err(Refusal::Unknown) => {
                let hint = known_key_like(section, &key);
                self.problem(name.span().start, key, format!("unknown key; {hint}"));
            }
        }
    }

    fn unknown_section(&mut self, name: &Name<'_>) {
        let hint = match nearest(name.get_ref(), sections().into_iter()) {
            Some("namespace") => "did you mean [namespace.NAME]?".to_owned(),
            Some(section) => format!("did you mean [{section}]?"),
            None => format!("known sections: {}", sections().join(", ")),
        };
        self.problem(name.span().start, name.get_ref().to_string(), format!("unknown section; {hint}"));
    }

    fn problem(&mut self, start: usize, key: String, message: String) {
        let origin = self.origin(start);
        self.problems.push(Problem { origin, key, message });
    }

    fn origin(&self, start: usize) -> Origin {
        debug_assert!(start <= self.text.len(), "a position behind the end");
        let line = self.text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        Origin::File { path: self.path.clone(), line }
    }
}

/// The tables a document may hold; `namespace` holds one per name.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = keys().filter_map(|key| key.section.split('.').next()).collect();
    sections.retain(|section| !section.is_empty());
    sections.dedup();
    sections
}

/// True for keys outside any section.
fn is_key(name: &str) -> bool {
    keys().any(|key| key.section.is_empty() && key.name == name)
}

/// Names the key that was probably meant, else all keys of the section.
fn known_key_like(section: &str, unknown: &str) -> String {
    let family = if section.starts_with("namespace.") { NAMED } else { section };
    let paths: Vec<String> = keys().map(|key| join(&key.section.replace(NAMED, section), key.name)).collect();
    let own = |path: &&str| keys().any(|key| key.section == family && join(section, key.name) == **path);
    let all = || paths.iter().map(String::as_str);
    if let Some(path) = nearest(unknown, all().filter(own)).or_else(|| nearest(unknown, all())) {
        return format!("did you mean {path}?");
    }
    let names: Vec<&str> = keys().filter(|key| key.section == family).map(|key| key.name).collect();
    format!("known keys here: {}", names.join(", "))
}
