//! The house rules that a compiler does not check: levels, first lines, forbidden calls, and that
//! documentation names every setting.
//!
//! Each rule is a function from text to complaints, so that a test can show it a violation.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail by panic, as the tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by height. A module may use only modules of lower rows, never one of its own row.
const LEVELS: &[&[&str]] = &[
    &["limits", "clock", "sync"],
    &["ids", "json"],
    &["publication"],
    &["config", "metrics"],
    &["protocol", "auth"],
    &["outbox", "store"],
    &["engine"],
    &["net", "node", "bench"],
    &["server"],
    &["cli"],
    &["main"],
];

/// Asynchronous runtimes, none of which may be in the dependency tree.
const RUNTIMES: &[&str] = &["tokio", "async-std", "smol"];

/// Files that may call `expect`: registering a metric fails only when the program itself is wrong.
const MAY_EXPECT: &[&str] = &["src/metrics.rs"];

#[test]
fn modules_use_only_lower_levels() {
    assert_tidy(sources("src"), |path, text| uses_above(&module_of(path), text));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    assert_tidy(sources("src"), |_, text| missing_header(text));
}

#[test]
fn nothing_unwraps_outside_tests() {
    let files = sources("src").into_iter().filter(|(path, _)| {
        !is_test_file(path) && !MAY_EXPECT.iter().any(|allowed| path == Path::new(allowed))
    });
    assert_tidy(files.collect(), |_, text| unwraps(text));
}

#[test]
fn nothing_is_left_over() {
    let mut files = sources("src");
    files.extend(sources("tests").into_iter().filter(|(path, _)| path != Path::new("tests/tidy.rs")));
    files.extend(sources("benches"));
    files.extend(sources("examples"));
    assert_tidy(files, |_, text| leftovers(text));
}

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

/// Every file with its path from the root and its text; all complaints are shown at once.
fn assert_tidy(files: Vec<(PathBuf, String)>, rule: impl Fn(&Path, &str) -> Vec<String>) {
    let complaints: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            rule(path, text).into_iter().map(move |complaint| format!("{}: {complaint}", path.display()))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust files below a folder; none when there is no such folder.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The path of modules a file is: `src/engine/room.rs` → `["engine", "room"]`; empty for `lib.rs`.
fn module_of(path: &Path) -> Vec<String> {
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let mut names: Vec<String> =
        path.iter().map(|part| part.to_str().unwrap().to_owned()).filter(|name| name != "mod").collect();
    names.retain(|name| name != "lib");
    names
}

/// A file that is only compiled for tests: `tests.rs` or `model.rs`, or below such a folder.
fn is_test_file(path: &Path) -> bool {
    path.with_extension("").iter().any(|part| part == "tests" || part == "model")
}

/// Complaints about modules of the same or a higher level that the text of `module` names.
fn uses_above(module: &[String], text: &str) -> Vec<String> {
    // lib.rs only declares; it is no module that others could form a circle with.
    let Some(own) = module.first() else { return Vec::new() };
    let Some(height) = level(own) else {
        return vec![format!("module `{own}` has no level; give it one in tests/tidy.rs")];
    };
    let code = without_comments_and_texts(text);
    modules_named(&code, module.len())
        .into_iter()
        .filter(|used| used != own)
        .filter_map(|used| match level(&used) {
            Some(other) if other < height => None,
            Some(_) => Some(format!("`{own}` may not use `{used}`, which is not of a lower level")),
            None => Some(format!("`{own}` uses `{used}`, which has no level in tests/tidy.rs")),
        })
        .collect()
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|row| row.contains(&module))
}

/// The top-level modules that code names by `crate::`, by `roomcast::`, or by enough `super::` to
/// reach the root from a module `depth` levels below it.
fn modules_named(code: &str, depth: usize) -> BTreeSet<String> {
    let compact: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let mut named = BTreeSet::new();
    for root in ["crate::", "roomcast::"] {
        for (at, _) in compact.match_indices(root) {
            // `use crate::` has lost its space, so a letter before is no other name.
            if !compact[..at].ends_with('$') {
                named.extend(first_names(&compact[at + root.len()..]));
            }
        }
    }
    let up = "super::".repeat(depth);
    for (at, _) in compact.match_indices(&up) {
        let names = first_names(&compact[at + up.len()..]);
        named.extend(names.into_iter().filter(|name| level(name).is_some()));
    }
    named.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    named
}

/// The first name of a path, or of each path in braces: `{a::b, c}` → `a`, `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    if !path.starts_with('{') {
        return vec![name(path)];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(c, '{' | ',') {
            names.push(name(&path[at + 1..]));
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn missing_header(text: &str) -> Vec<String> {
    let header = text.starts_with("//! ");
    if header { Vec::new() } else { vec!["does not open with a `//!` line".to_owned()] }
}

fn unwraps(text: &str) -> Vec<String> {
    let code = without_tests(&without_comments_and_texts(text));
    [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("]
        .iter()
        .flat_map(|call| lines_with(&code, call).map(move |line| format!("line {line}: `{call}`")))
        .collect()
}

fn leftovers(text: &str) -> Vec<String> {
    let code = without_comments_and_texts(text);
    let words = ["TODO", "FIXME"].iter().map(|word| (text, word));
    let calls = ["dbg!", "todo!", "unimplemented!", "#[ignore"].iter().map(|call| (code.as_str(), call));
    words
        .chain(calls)
        .flat_map(|(text, word)| lines_with(text, word).map(move |line| format!("line {line}: `{word}`")))
        .collect()
}

fn lines_with<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.lines().enumerate().filter(move |(_, line)| line.contains(needle)).map(|(index, _)| index + 1)
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

/// The code with comments, texts and characters blanked out; lines stay where they are.
fn without_comments_and_texts(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + inert_len(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).unwrap_or_else(|error| panic!("blanked inside a character: {error}"))
}

/// Length of the comment, text or character that begins here; 0 when none does.
fn inert_len(rest: &[u8], before: Option<u8>) -> usize {
    let until = |end: &[u8], from: usize| {
        rest[from..].windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| from + at)
    };
    match rest {
        [b'/', b'/', ..] => until(b"\n", 2),
        [b'/', b'*', ..] => block_comment_len(rest),
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !before.is_some_and(is_word) || before == Some(b'b') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return 0;
            }
            let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            (until(&end, 2 + hashes) + end.len()).min(rest.len())
        }
        [b'\'', b'\\', ..] => quoted_len(rest, b'\''),
        // A lifetime has no closing quote; one character, of up to four bytes, has.
        [b'\'', first, ..] if *first != b'\'' => (2..=5)
            .find(|at| rest.get(*at) == Some(&b'\'') && (*at == 2 || *first >= 0x80))
            .map_or(0, |at| at + 1),
        _ => 0,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}

/// The code with every item under `#[cfg(test)]` blanked out, up to its closing brace or `;`.
fn without_tests(code: &str) -> String {
    let mut code = code.to_owned();
    while let Some(start) = code.find("#[cfg(test)]") {
        let item = &code[start..];
        let mut depth = 0;
        let end = item
            .char_indices()
            .find(|(_, c)| {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                depth == 0 && matches!(c, '}' | ';')
            })
            .map_or(item.len(), |(at, _)| at + 1);
        let blank: String = item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(start..start + end, &blank);
    }
    code
}

mod rules {
    //! Each rule is shown what it forbids, and what only looks like it.

    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        uses_above(&module_of(Path::new(path)), text)
    }

    #[test]
    fn upward_and_sideways_uses_are_seen() {
        for (path, text) in [
            ("src/store/lane.rs", "use crate::engine::Engine;"),
            ("src/store/mod.rs", "use crate::outbox::Frame;"),
            ("src/protocol/decode.rs", "use crate::{ids::Channel, auth};"),
            ("src/auth.rs", "fn f() { crate::protocol::decode() }"),
            ("src/auth.rs", "use super::protocol;"),
            ("src/engine/delivery/inline.rs", "use super::super::super::net::Reader;"),
            ("src/net/mod.rs", "use crate::node;"),
            ("src/config/mod.rs", "use crate::metrics::Metrics;"),
            ("src/limits.rs", "use crate :: ids ;"),
            ("src/cli/serve.rs", "use roomcast::main;"),
            ("src/novelty.rs", ""),
            ("src/engine/mod.rs", "use crate::novelty::X;"),
        ] {
            assert_eq!(complaints(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn lower_uses_are_allowed() {
        for (path, text) in [
            ("src/engine/room.rs", "use crate::{config::Rooms, engine::shard::{Shard, net}, ids::Seq};"),
            ("src/engine/room.rs", "use super::shard::Shard; // crate::net is above"),
            ("src/store/mod.rs", "let text = \"crate::engine\"; let raw = r#\"crate::net\"#;"),
            ("src/ids.rs", "use crate::limits::X;"),
            ("src/metrics.rs", "macro_rules! m { () => { $crate::server::x() } }"),
            ("src/lib.rs", "pub use crate::engine::Engine;"),
            ("src/main.rs", "roomcast::run_command_line()"),
        ] {
            assert_eq!(complaints(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn unwraps_are_seen_outside_tests_only() {
        let tests = "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n";
        assert_eq!(unwraps(&format!("{tests}fn g() {{ y.expect(\"why\") }}")), ["line 3: `.expect(`"]);
        assert_eq!(unwraps("fn g() { y.unwrap() }").len(), 1);
        assert_eq!(
            unwraps("/// y.unwrap()\nfn g() { \".unwrap()\"; '\"'; y.unwrap_or(1) }"),
            Vec::<String>::new()
        );
        assert_eq!(unwraps("fn g<'a>(x: &'a str) { '{'; x.unwrap() }").len(), 1);
        assert_eq!(unwraps("#[cfg(test)]\nmod tests;\nfn g() { x.unwrap() }").len(), 1);
    }

    #[test]
    fn leftovers_are_seen() {
        for text in ["// TODO: later", "/// FIXME", "dbg!(x);", "todo!()", "#[ignore]\nfn f() {}"] {
            assert_eq!(leftovers(text).len(), 1, "{text}");
        }
        assert_eq!(leftovers("let text = \"dbg!\";"), Vec::<String>::new());
    }

    #[test]
    fn missing_headers_and_runtimes_are_seen() {
        assert_eq!(missing_header("use std::fmt;").len(), 1);
        assert_eq!(missing_header("//! Why.\n"), Vec::<String>::new());
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
