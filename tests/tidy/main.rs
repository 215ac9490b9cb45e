//! The house rules that a compiler does not check: levels, circles, first lines, forbidden calls and
//! words, and that documentation names every setting.
//!
//! Each rule is a function from a parsed file to complaints, so that a test can show it a violation.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail by panic, as the tests do")]
#![allow(unreachable_pub, missing_debug_implementations)]

mod documents;
mod graph;
mod levels;
mod measures;
mod rules;
mod surface;
mod tree;
mod way;

use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All complaints are shown at once.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
