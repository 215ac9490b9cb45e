//! What documents and lists must say because the code says it: settings, migrations, dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{read, root};

/// Asynchronous runtimes, none of which may be in the dependency tree.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol"];

#[test]
fn no_async_runtime_is_linked() {
    assert_eq!(runtimes_in(&read("Cargo.lock")), Vec::<String>::new());
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(database);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(!names("sqlite").is_empty(), "there are no migrations");
    assert_eq!(names("sqlite"), names("postgres"));
}

#[test]
fn documentation_names_every_key() {
    let complaints = undocumented(&read("docs/configuration.md"));
    assert!(complaints.is_empty(), "docs/configuration.md:\n{}", complaints.join("\n"));
    let complaints = not_in_example(&read("roomcast.example.toml"));
    assert!(complaints.is_empty(), "roomcast.example.toml:\n{}", complaints.join("\n"));
}

fn runtimes_in(lock: &str) -> Vec<String> {
    let packages = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    packages.filter(|name| RUNTIMES.contains(name)).map(str::to_owned).collect()
}

/// Keys without their row `| `key` | `default` | … | `VARIABLE` |` in the section's table.
fn undocumented(page: &str) -> Vec<String> {
    let rows: BTreeMap<String, &str> = page
        .lines()
        .filter_map(|line| Some((line.strip_suffix("` |")?.rsplit('`').next()?.to_owned(), line)))
        .collect();
    roomcast::internals::keys()
        .filter(|key| !key.section.starts_with("namespace."))
        .filter(|key| {
            let start = format!("| `{}` | `{}` | ", key.name, key.default);
            !rows.get(&key.variable()).is_some_and(|row| row.starts_with(&start) && row.contains(key.help))
        })
        .map(|key| format!("no row with the key, default, help and variable of {}", key.path()))
        .collect()
}

/// Keys without their line `#key = default` in the section.
fn not_in_example(example: &str) -> Vec<String> {
    let mut section = "";
    let mut given = BTreeSet::new();
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(setting) = line.strip_prefix('#') {
            given.insert((section, setting));
        }
    }
    roomcast::internals::keys()
        .filter(|key| !key.section.starts_with("namespace."))
        .filter(|key| !given.contains(&(key.section, format!("{} = {}", key.name, key.default).as_str())))
        .map(|key| format!("no line for {} with its default {}", key.path(), key.default))
        .collect()
}

mod rules {
    use super::*;

    #[test]
    fn runtimes_are_seen() {
        assert_eq!(
            runtimes_in("[[package]]\nname = \"tokio\"\n[[package]]\nname = \"tokio-like\""),
            ["tokio"]
        );
    }

    #[test]
    fn missing_keys_are_seen() {
        let (page, example) = (read("docs/configuration.md"), read("roomcast.example.toml"));
        for key in roomcast::internals::keys().filter(|key| !key.section.starts_with("namespace.")) {
            let without = page.replace(&format!("`{}` |\n", key.variable()), "|\n");
            assert_eq!(undocumented(&without).len(), 1, "{}", key.path());
        }
        assert_eq!(not_in_example(&example.replace("#ping_interval = ", "#ping_intervall = ")).len(), 1);
        assert_eq!(not_in_example(&example.replace("[api]", "[apis]")).len(), 1);
    }
}
