//! What every source file must and must not say.

use std::path::Path;

use proc_macro2::{Span, TokenTree};
use syn::visit::{self, Visit};

use crate::tree::{Source, docs, flat, sources};
use crate::{assert_none, root};

/// Files that may call `expect`: registering a metric fails only when the program itself is wrong.
const MAY_EXPECT: &[&str] = &["src/metrics.rs"];

/// Calls that panic on a value from outside.
const UNWRAPS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];

/// Macros that are only for the time of writing.
const UNFINISHED: &[&str] = &["dbg", "todo", "unimplemented"];

/// Most characters of a test's name.
const TEST_NAME_MAX: usize = 60;

#[test]
fn every_source_file_says_what_it_is_for() {
    judge(&["src", "bench/src"], missing_header);
}

#[test]
fn nothing_unwraps_outside_tests() {
    judge(&["src", "bench/src"], |source| {
        let may = MAY_EXPECT.iter().any(|allowed| source.path == Path::new(allowed));
        if may { Vec::new() } else { unwraps(source) }
    });
}

#[test]
fn no_todo_debug_macro_or_ignored_test_stays() {
    judge(&["src", "tests", "benches", "bench", "examples"], |source| {
        // These files name what they forbid.
        if source.path.starts_with("tests/tidy") { Vec::new() } else { leftovers(source) }
    });
}

#[test]
fn documentation_says_something() {
    judge(&["src", "bench/src"], empty_docs);
}

#[test]
fn cannot_is_one_word() {
    judge(&["src", "tests", "benches", "bench"], |source| {
        // These files name what they forbid.
        if source.path.starts_with("tests/tidy") { Vec::new() } else { parted_cannots(source) }
    });
}

#[test]
fn names_of_tests_are_short() {
    judge(&["src", "tests", "bench"], long_test_names);
}

/// All complaints about the files below some folders, at once.
#[track_caller]
fn judge(folders: &[&str], rule: impl Fn(&Source) -> Vec<String>) {
    let mut complaints = Vec::new();
    for source in folders.iter().flat_map(|folder| sources(root(), folder)) {
        complaints.extend(rule(&source).into_iter().map(|text| format!("{}: {text}", source.path.display())));
    }
    assert_none(&complaints);
}

fn at(span: Span, what: &str) -> String {
    format!("line {}: {what}", span.start().line)
}

fn missing_header(source: &Source) -> Vec<String> {
    let header = source.text.starts_with("//! ");
    if header { Vec::new() } else { vec!["does not open with a `//!` line".to_owned()] }
}

fn unwraps(source: &Source) -> Vec<String> {
    struct Calls(Vec<String>);
    impl Calls {
        fn judge(&mut self, method: &syn::Ident) {
            if UNWRAPS.iter().any(|call| method == call) {
                self.0.push(at(method.span(), &format!("`.{method}(`")));
            }
        }
    }
    impl Visit<'_> for Calls {
        fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
            visit::visit_expr_method_call(self, call);
            self.judge(&call.method);
        }
        fn visit_macro(&mut self, call: &syn::Macro) {
            for pair in flat(call.tokens.clone()).windows(2) {
                if let [TokenTree::Punct(dot), TokenTree::Ident(method)] = pair
                    && dot.as_char() == '.'
                {
                    self.judge(method);
                }
            }
        }
    }
    let mut calls = Calls(Vec::new());
    calls.visit_file(&source.production());
    calls.0
}

fn leftovers(source: &Source) -> Vec<String> {
    struct Found(Vec<String>);
    impl Visit<'_> for Found {
        fn visit_macro(&mut self, call: &syn::Macro) {
            let name = call.path.segments.last().unwrap();
            if UNFINISHED.iter().any(|unfinished| name.ident == unfinished) {
                self.0.push(at(name.ident.span(), &format!("`{}!`", name.ident)));
            }
        }
        fn visit_attribute(&mut self, attribute: &syn::Attribute) {
            if let Some(name) = attribute.path().get_ident().filter(|name| *name == "ignore") {
                self.0.push(at(name.span(), "`#[ignore`"));
            }
        }
    }
    let mut found = Found(Vec::new());
    found.visit_file(&source.file);
    for word in ["TODO", "FIXME"] {
        found.0.extend(lines_with(&source.text, word));
    }
    found.0
}

/// Documentation that sends the reader away and says nothing.
fn empty_docs(source: &Source) -> Vec<String> {
    struct Found(Vec<String>);
    impl Visit<'_> for Found {
        fn visit_attribute(&mut self, attribute: &syn::Attribute) {
            if docs(std::slice::from_ref(attribute)) == ["See the module."] {
                let name = attribute.path().segments[0].ident.span();
                self.0.push(at(name, "\"See the module.\" documents nothing"));
            }
        }
    }
    let mut found = Found(Vec::new());
    found.visit_file(&source.file);
    found.0
}

fn parted_cannots(source: &Source) -> Vec<String> {
    ["can not", "can_not"].iter().flat_map(|parted| lines_with(&source.text, parted)).collect()
}

fn long_test_names(source: &Source) -> Vec<String> {
    struct Found(Vec<String>);
    impl Visit<'_> for Found {
        fn visit_item_fn(&mut self, function: &syn::ItemFn) {
            let name = &function.sig.ident;
            let is_test = function.attrs.iter().any(|attribute| attribute.path().is_ident("test"));
            if is_test && name.to_string().len() > TEST_NAME_MAX {
                self.0.push(at(name.span(), &format!("`{name}` is longer than {TEST_NAME_MAX} characters")));
            }
            visit::visit_item_fn(self, function);
        }
    }
    let mut found = Found(Vec::new());
    found.visit_file(&source.file);
    found.0
}

fn lines_with(text: &str, needle: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains(needle));
    lines.map(|(index, _)| format!("line {}: `{needle}`", index + 1)).collect()
}

mod examples {
    //! Each rule is shown what it forbids, and what only looks like it.

    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(Path::new("src/a.rs"), text)
    }

    #[track_caller]
    fn assert_seen(rule: fn(&Source) -> Vec<String>, text: &str, complaint: &str) {
        assert_eq!(rule(&source(text)), [complaint], "{text}");
    }

    #[track_caller]
    fn assert_content(rule: fn(&Source) -> Vec<String>, text: &str) {
        assert_eq!(rule(&source(text)), [] as [&str; 0], "{text}");
    }

    #[test]
    fn unwraps_are_seen_outside_tests_only() {
        let tests = "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\n";
        assert_seen(unwraps, &format!("{tests}fn g() {{ y.expect(\"why\") }}"), "line 3: `.expect(`");
        assert_seen(unwraps, "fn g() { y.unwrap() }", "line 1: `.unwrap(`");
        assert_seen(unwraps, "fn g() {\n  println!(\"{}\", y.unwrap())\n}", "line 2: `.unwrap(`");
        assert_seen(unwraps, "fn g<'a>(x: &'a str) { '{'; x.unwrap() }", "line 1: `.unwrap(`");
        assert_seen(unwraps, "#[cfg(test)]\nmod tests;\nfn g() { x.unwrap() }", "line 3: `.unwrap(`");
        assert_content(unwraps, "/// y.unwrap()\nfn g() { \".unwrap()\"; '\"'; y.unwrap_or(1) }");
        assert_content(unwraps, "fn g() { println!(\"x.unwrap()\") }");
    }

    #[test]
    fn todos_debug_macros_and_ignored_tests_are_seen() {
        assert_seen(leftovers, "// TODO: later", "line 1: `TODO`");
        assert_seen(leftovers, "/// FIXME\nfn f() {}", "line 1: `FIXME`");
        assert_seen(leftovers, "fn f() { dbg!(x); }", "line 1: `dbg!`");
        assert_seen(leftovers, "fn f() {\n todo!() }", "line 2: `todo!`");
        assert_seen(leftovers, "#[test]\n#[ignore]\nfn f() {}", "line 2: `#[ignore`");
        assert_seen(leftovers, "#[ignore = \"slow\"]\nfn f() {}", "line 1: `#[ignore`");
        assert_content(leftovers, "fn f() { let text = \"dbg!\"; }");
    }

    #[test]
    fn missing_headers_are_seen() {
        assert_eq!(missing_header(&source("use std::fmt;")).len(), 1);
        assert_content(missing_header, "//! Why.\n");
    }

    #[test]
    fn empty_documentation_is_seen() {
        let text = "struct B;\n/// See the module.\nstruct A;";
        assert_seen(empty_docs, text, "line 2: \"See the module.\" documents nothing");
        assert_content(empty_docs, "/// A thing. See the module.\nstruct A;");
    }

    #[test]
    fn cannot_in_two_words_is_seen() {
        let parted = ["it can", "not be"].join(" ");
        assert_eq!(parted_cannots(&source(&format!("fn f() {{ \"{parted}\" }}"))).len(), 1);
        let name = ["it_can", "not"].join("_");
        assert_eq!(parted_cannots(&source(&format!("fn {name}() {{}}"))).len(), 1);
        assert_content(parted_cannots, "/// It cannot.\nstruct A;");
    }

    #[test]
    fn long_names_of_tests_are_seen() {
        let name = "a".repeat(TEST_NAME_MAX + 1);
        assert_eq!(long_test_names(&source(&format!("#[test] fn {name}() {{}}"))).len(), 1);
        assert_content(long_test_names, &format!("fn {name}() {{}} #[test] fn short() {{}}"));
    }
}
