//! Which module is above which, and that no file of the crate lies in a circle.

use std::collections::BTreeSet;

use crate::graph::{Graph, Scope};
use crate::tree::sources;
use crate::{assert_none, root};

/// Modules by height. A module may use only modules of lower rows, never one of its own row.
const LEVELS: &[&[&str]] = &[
    &["limits", "clock", "mutation", "sync"],
    &["ids", "json"],
    &["publication"],
    &["config", "metrics"],
    &["protocol", "auth"],
    &["outbox", "store"],
    &["engine"],
    &["node"],
    &["net"],
    &["fuzzing", "server"],
    &["cli"],
    &["main"],
];

/// Modules that another one asks only through the node, which names what it needs of them.
const BEHIND_THE_NODE: &[&str] = &["engine", "store"];

#[test]
fn modules_use_only_lower_levels() {
    assert_none(&uses_above(&Graph::of(&sources(root(), "src"), Scope::WithTests)));
}

#[test]
fn the_network_goes_through_the_node() {
    assert_none(&ways_round_the_node(&Graph::of(&sources(root(), "src"), Scope::Production)));
}

#[test]
fn no_file_lies_in_a_circle() {
    for folder in ["src", "bench/src"] {
        assert_none(&circles(&Graph::of(&sources(root(), folder), Scope::Production)));
    }
}

/// Complaints about modules that use one of the same or a higher level, or have no level.
fn uses_above(graph: &Graph) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    for module in graph.files.iter().map(|file| top(file)).filter(|module| *module != "lib") {
        if level(module).is_none() {
            complaints.insert(format!("module `{module}` has no level; give it one in tests/tidy/levels.rs"));
        }
    }
    for ((from, to), paths) in &graph.arrows {
        let (file, defines) = (&graph.files[*from], &graph.files[*to]);
        // lib.rs only declares; it is no module that others could form a circle with.
        let is_down = level(top(defines)) < level(top(file));
        if top(file) != "lib" && top(file) != top(defines) && !is_down {
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            complaints.insert(format!("{file} may not use {defines} (by {})", paths.join(", ")));
        }
    }
    complaints.into_iter().collect()
}

/// Complaints about files of the network that name something behind the node by a path of its own.
fn ways_round_the_node(graph: &Graph) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    let is_in_front = |file: &str| ["net", "server", "cli"].contains(&top(file));
    for ((from, _), paths) in graph.arrows.iter().filter(|((from, _), _)| is_in_front(&graph.files[*from])) {
        for path in paths {
            let mut names = path.split("::").skip_while(|name| ["crate", "self", "super"].contains(name));
            if names.next().is_some_and(|module| BEHIND_THE_NODE.contains(&module)) {
                complaints.insert(format!("{} goes round the node by {path}", graph.files[*from]));
            }
        }
    }
    complaints.into_iter().collect()
}

/// The module at the top of the crate that a file belongs to.
fn top(file: &str) -> &str {
    let path = file.rsplit_once("src/").map_or(file, |(_, path)| path);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|row| row.contains(&module))
}

/// Complaints about circles.
fn circles(graph: &Graph) -> Vec<String> {
    let told = |circle: &Vec<usize>| {
        let files: Vec<_> = circle.iter().map(|file| graph.files[*file].as_str()).collect();
        let arrows = graph.arrows_among(circle).join("\n    ");
        format!("a circle of {} files: {}\n    {arrows}", circle.len(), files.join(", "))
    };
    graph.circles().iter().map(told).collect()
}

mod rules {
    use super::*;
    use crate::graph::examples::graph;

    /// Complaints about one file among files of every level.
    fn complaints(path: &str, text: &str) -> Vec<String> {
        let others = [
            ("src/auth.rs", "pub fn f() {}"),
            ("src/cli/mod.rs", "pub fn f() {}"),
            ("src/engine/mod.rs", "pub fn f() {} pub mod shard { pub struct Shard; }"),
            ("src/ids.rs", "pub fn f() {}"),
            ("src/lib.rs", "mod ids; pub use engine::f as e;"),
            ("src/limits.rs", "pub const X: u32 = 1;"),
            ("src/net/mod.rs", "pub fn f() {}"),
            ("src/protocol/mod.rs", "pub fn f() {}"),
            ("src/server.rs", "pub fn f() {}"),
        ];
        let mut files: Vec<_> = others.into_iter().filter(|(other, _)| *other != path).collect();
        files.push((path, text));
        uses_above(&graph(&files, Scope::WithTests))
    }

    #[test]
    fn upward_and_sideways_uses_are_seen() {
        for (path, text) in [
            ("src/store/lane.rs", "use crate::engine::f;"),
            ("src/store/mod.rs", "use crate::net::f;"),
            ("src/protocol/decode.rs", "use crate::{ids::f, auth::f as g};"),
            ("src/auth.rs", "fn f() { crate::protocol::f() }"),
            ("src/auth.rs", "use super::protocol::f;"),
            ("src/auth.rs", "#[cfg(test)] mod tests { use super::super::protocol::f; }"),
            ("src/engine/delivery/inline.rs", "use super::super::super::net::f;"),
            ("src/config/mod.rs", "use crate::e;"),
            ("src/limits.rs", "use crate :: ids :: f ;"),
            (
                "src/cli/serve.rs",
                "use crate::novelty; fn g() { roomcast::main::f() }\nmod main { pub fn f() {} }",
            ),
            ("src/novelty.rs", ""),
        ] {
            let expected = usize::from(!path.contains("serve"));
            assert_eq!(complaints(path, text).len(), expected, "{path}: {text}");
        }
    }

    #[test]
    fn lower_uses_are_allowed() {
        for (path, text) in [
            ("src/engine/room.rs", "use crate::{engine::shard::Shard, ids::f};"),
            ("src/engine/room.rs", "use super::shard::Shard; // crate::net is above"),
            ("src/store/mod.rs", "fn g() { let text = \"crate::engine\"; let raw = r#\"crate::net\"#; }"),
            ("src/ids.rs", "use crate::limits::X;"),
            ("src/metrics.rs", "macro_rules! m { () => { $crate::server::f() } }"),
            ("src/lib.rs", "pub use crate::engine::f;"),
            ("src/main.rs", "fn main() { roomcast::cli::f() }"),
        ] {
            assert_eq!(complaints(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn ways_round_the_node_are_seen() {
        for (path, text, count) in [
            ("src/net/api.rs", "use crate::engine::Presence;", 1),
            ("src/net/api.rs", "fn f() { super::super::store::head() }", 1),
            ("src/server.rs", "use crate::{engine::Presence, node::Health, store::head};", 2),
            ("src/net/api.rs", "use crate::node::{Health, Presence};", 0),
            ("src/node/history.rs", "use crate::engine::Presence;", 0),
            ("src/net/api.rs", "#[cfg(test)] mod tests { use crate::engine::Presence; }", 0),
        ] {
            let files = [
                ("src/engine/mod.rs", "pub struct Presence;"),
                ("src/node/mod.rs", "pub use crate::{engine::Presence, store::Health};"),
                ("src/store/mod.rs", "pub struct Health; pub fn head() {}"),
                (path, text),
            ];
            let complaints = ways_round_the_node(&graph(&files, Scope::Production));
            assert_eq!(complaints.len(), count, "{path}: {text}: {complaints:?}");
        }
    }

    #[test]
    fn a_circle_is_told_with_its_files() {
        let files =
            [("src/a.rs", "use crate::b::B; pub struct A;"), ("src/b.rs", "use crate::a::A; pub struct B;")];
        let complaints = circles(&graph(&files, Scope::Production));
        assert!(complaints[0].starts_with("a circle of 2 files: src/a.rs, src/b.rs\n"), "{complaints:?}");
    }
}
