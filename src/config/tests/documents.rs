//! The reference for operators is written from the table of settings: the tables of
//! docs/configuration.md and the whole of roomcast.example.toml.
//!
//! `UPDATE_DOCS=1 cargo test --lib config::tests::documents` writes both anew; without it, a difference
//! is a failure.

use std::fs;
use std::path::PathBuf;

use super::super::{Key, keys};

const HEAD: &str = "\
# Configuration of Roomcast: every key with its default.
#
# Use it by `roomcast serve --config FILE`; check a file by `roomcast check-config --config FILE`.
# A key is commented out: remove the \"#\" before it to set it. What is set here is overridden by
# the environment (ROOMCAST_CLIENT_PING_INTERVAL=20s), and that by flags (--listen).
# docs/configuration.md tells more about each.
";

const NAMESPACES: &str = "
# One section for each other namespace, with the options of [default_namespace]; an option that is
# left out has the default given there, whatever [default_namespace] itself says. A room
# \"chat:lobby\" is in namespace \"chat\". Rooms of namespaces that are not configured do not exist
# (error 102). \"direct\", the rooms of two contacts, always exists: its rooms are stored, only their
# two members use them, and they are created with the contact. It may be tuned, but not opened.
#
# Two examples:
#[namespace.typing]
#persist = false

#[namespace.support]
#history_ttl = \"90days\"
#subscribe = \"members\"
#publish = \"members\"
#read_presence = \"members\"
#read_history = \"members\"
";

/// First line of each table of settings.
const HEADER: &str = "| key | default | range | meaning | variable |";
/// Longest line of the example file, in bytes.
const WIDTH: usize = 98;

#[test]
fn the_tables_of_the_document_are_the_settings() {
    compare("docs/configuration.md", with_tables);
}

#[test]
fn the_example_file_is_the_settings() {
    compare("roomcast.example.toml", |_| example());
}

/// Compares a file with what it should be, or writes it.
fn compare(name: &str, written: impl Fn(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    let found = fs::read_to_string(&path).unwrap();
    let expected = written(&found);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(
            found, expected,
            "{name}: UPDATE_DOCS=1 cargo test --lib config::tests::documents writes it"
        );
    }
    assert_eq!(found.len(), expected.len(), "{name} ends otherwise");
}

/// The document with its tables, one a section, in the order of the settings.
fn with_tables(document: &str) -> String {
    let mut sections = sections().into_iter();
    let mut written = String::new();
    let mut in_table = false;
    for line in document.lines() {
        if in_table && line.starts_with('|') {
            continue;
        }
        in_table = line.starts_with("| key |");
        match in_table {
            true => written.push_str(&table(&sections.next().unwrap())),
            false => written.push_str(&format!("{line}\n")),
        }
    }
    assert_eq!(sections.next().map(|keys| keys[0].section), None, "docs/configuration.md lacks a table");
    written
}

/// The settings of each section; the named namespaces have those of the default one.
fn sections() -> Vec<Vec<Key>> {
    let keys: Vec<Key> = keys().filter(|key| !key.section.starts_with("namespace.")).collect();
    keys.chunk_by(|one, next| one.section == next.section).map(<[Key]>::to_vec).collect()
}

fn table(keys: &[Key]) -> String {
    let rows: Vec<String> = keys.iter().map(row).collect();
    format!("{HEADER}\n|---|---|---|---|---|\n{}", rows.concat())
}

fn row(key: &Key) -> String {
    let (range, help) = ((key.range)(), key.help);
    format!("| `{}` | `{}` | {range} | {help} | `{}` |\n", key.name, key.default, key.variable())
}

fn example() -> String {
    let sections: Vec<String> = sections().iter().map(|keys| example_section(keys)).collect();
    format!("{HEAD}{}{NAMESPACES}", sections.concat())
}

fn example_section(keys: &[Key]) -> String {
    let header = match keys[0].section {
        "" => String::new(),
        "default_namespace" => "\n# Rooms whose names have no \":\".\n[default_namespace]\n".to_owned(),
        section => format!("\n[{section}]\n"),
    };
    let settings: Vec<String> = keys.iter().map(example_setting).collect();
    format!("{header}{}", settings.concat())
}

/// A setting with its help; a comment has a space after `#`, a setting has none.
fn example_setting(key: &Key) -> String {
    format!("\n{}#{} = {}\n", comment(key.help), key.name, key.default)
}

fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}
