//! The measures of the house, which `tests/measure` prints.
//!
//! What a good house keeps is judged here too. `ROOMCAST_HOUSE` names another tree of the repository, such as an older commit's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use proc_macro2::{Span, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item};

use crate::graph::{Definition, Graph, Scope};
use crate::tree::{Source, attributes_of, docs, flat, is_for_tests, sources};
use crate::way;
use crate::{assert_none, root};

/// The first words of documentation that asks instead of saying.
const QUESTIONS: &[&str] = &["What", "Who", "Whose", "Whom", "Why", "How", "Where", "When", "Whether"];

/// A setting whose places are counted.
const SETTING: &str = "stall_timeout";

/// Lines of a file, without those of its tests, below which it is a small one.
const SMALL_FILE_LINES: usize = 60;

#[test]
fn the_house_is_measured() {
    let root = std::env::var_os("ROOMCAST_HOUSE").map_or_else(|| root().to_owned(), PathBuf::from);
    let house = sources(&root, "src");
    let measured = House::of(&house);
    let mut table = measured.table();
    table.push(("lines that name the setting stall_timeout".to_owned(), places_of_a_setting(&root, &house)));
    if root.canonicalize().unwrap() == crate::root() {
        assert_none(&measured.complaints());
        let (files, forms) = way::lengths();
        table.push(("files / forms of a publish".to_owned(), format!("{files} / {forms}")));
    }
    let text: Vec<_> = table.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect();
    assert!(text.len() > 10 && !house.is_empty(), "nothing was measured");
    #[allow(clippy::print_stdout, reason = "what the script shows")]
    {
        print!("{}", text.concat());
    }
}

/// What is counted in the files of a crate, tests left out.
#[derive(Default)]
struct House {
    files: usize,
    small_files: usize,
    lines: usize,
    circles: Vec<usize>,
    types: usize,
    public_types: usize,
    public_items: usize,
    counts: Counts,
}

/// What is counted item by item.
#[derive(Default)]
struct Counts {
    function_lines: Vec<usize>,
    fields_of: BTreeMap<String, Vec<usize>>,
    type_names: Vec<String>,
    assertions: usize,
    documented: usize,
    questions: usize,
    empty_docs: usize,
}

impl House {
    fn of(sources: &[Source]) -> Self {
        let mut house = Self::default();
        for source in sources.iter().filter(|source| !source.is_test()) {
            let lines = lines_outside_tests(source);
            house.files += 1;
            house.small_files += usize::from(lines.len() < SMALL_FILE_LINES);
            house.lines += lines.iter().filter(|line| !line.trim().is_empty()).count();
            house.counts.visit_file(&source.production());
        }
        let graph = Graph::of(sources, Scope::Production);
        house.circles = graph.circles().iter().map(Vec::len).collect();
        let public = graph.public_items();
        let is_type = |(_, name): &&Definition| house.counts.type_names.contains(name);
        house.public_types = public.iter().filter(is_type).count();
        house.public_items = public.len() + graph.methods_of(&public);
        house.types = house.counts.type_names.len();
        house.counts.function_lines.sort_unstable();
        house
    }

    /// The bounds that the house keeps; each is a little above what it has.
    fn complaints(&self) -> Vec<String> {
        let functions = &self.counts.function_lines;
        let at = |percent: usize| functions[(functions.len() - 1) * percent / 100];
        let largest_room = self.counts.fields_of.get("Room").into_iter().flatten().max();
        let kept = [
            ("a median function has at most 8 lines", at(50) <= 8),
            ("nine of ten functions have at most 25 lines", at(90) <= 25),
            ("no function has more than 70 lines", at(100) <= 70),
            ("no Room has more than 12 fields", largest_room.is_some_and(|fields| *fields <= 12)),
            ("at least 150 assertions at run time", self.counts.assertions >= 150),
            ("at most 52 public types", self.public_types <= 52),
            (
                "documents that begin with a question are rare",
                self.counts.questions * 50 <= self.counts.documented,
            ),
        ];
        kept.into_iter().filter(|(_, holds)| !holds).map(|(rule, _)| rule.to_owned()).collect()
    }

    fn table(&self) -> Vec<(String, String)> {
        let counts = &self.counts;
        let functions = &counts.function_lines;
        let at = |percent: usize| functions[(functions.len() - 1) * percent / 100];
        let over = |lines: usize| functions.iter().filter(|length| **length > lines).count();
        let largest = self.circles.first().copied().unwrap_or(0);
        let rooms: Vec<_> = counts.fields_of.get("Room").into_iter().flatten().collect();
        let row = |name: &str, value: String| (name.to_owned(), value);
        vec![
            row("files", self.files.to_string()),
            row("files in circles (largest)", format!("{} ({largest})", self.circles.iter().sum::<usize>())),
            row("files under 60 lines", self.small_files.to_string()),
            row("lines, without blank ones", self.lines.to_string()),
            row("functions", functions.len().to_string()),
            row(
                "lines of a function, median / p90 / longest",
                format!("{} / {} / {}", at(50), at(90), at(100)),
            ),
            row("functions over 40 / over 70 lines", format!("{} / {}", over(40), over(70))),
            row(
                "public items, methods included (types)",
                format!("{} ({})", self.public_items, self.public_types),
            ),
            row("types (names given to several)", format!("{} ({})", self.types, counts.doubled_names())),
            row("fields of the structs named Room", format!("{rooms:?}")),
            row("assertions at run time", counts.assertions.to_string()),
            row("documented items", counts.documented.to_string()),
            row(
                "of these begin with a question, in %",
                (counts.questions * 100 / counts.documented.max(1)).to_string(),
            ),
            row("documented by \"See the module.\"", counts.empty_docs.to_string()),
        ]
    }
}

impl Counts {
    fn doubled_names(&self) -> usize {
        let mut counted = BTreeMap::<_, usize>::new();
        self.type_names.iter().for_each(|name| *counted.entry(name).or_default() += 1);
        counted.values().filter(|count| **count > 1).count()
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = body.brace_token.span.close().end().line - signature.fn_token.span.start().line + 1;
        self.function_lines.push(lines);
    }

    fn documentation(&mut self, attributes: &[Attribute]) {
        let lines = docs(attributes);
        let Some(first) = lines.first() else { return };
        self.documented += 1;
        let word = first.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        self.questions += usize::from(QUESTIONS.contains(&word));
        self.empty_docs += usize::from(lines == ["See the module."]);
    }
}

impl Visit<'_> for Counts {
    fn visit_item(&mut self, item: &Item) {
        self.documentation(attributes_of(item));
        let name = match item {
            Item::Enum(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.type_names.extend(name.map(ToString::to_string));
        match item {
            Item::Fn(item) => self.function(&item.sig, &item.block),
            Item::Struct(item) => {
                self.fields_of.entry(item.ident.to_string()).or_default().push(item.fields.len());
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        match item {
            ImplItem::Fn(item) => {
                self.documentation(&item.attrs);
                self.function(&item.sig, &item.block);
            }
            ImplItem::Const(item) => self.documentation(&item.attrs),
            _ => {}
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &syn::TraitItemFn) {
        self.documentation(&item.attrs);
        if let Some(body) = &item.default {
            self.function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_field(&mut self, field: &syn::Field) {
        self.documentation(&field.attrs);
    }

    fn visit_variant(&mut self, variant: &syn::Variant) {
        self.documentation(&variant.attrs);
        visit::visit_variant(self, variant);
    }

    // An assertion of a constant is made by the compiler.
    fn visit_item_const(&mut self, _: &syn::ItemConst) {}

    fn visit_macro(&mut self, call: &syn::Macro) {
        let is_assertion = |name: &syn::Ident| {
            let name = name.to_string();
            name.trim_start_matches("debug_").starts_with("assert")
        };
        self.assertions += usize::from(call.path.get_ident().is_some_and(is_assertion));
        for pair in flat(call.tokens.clone()).windows(2) {
            if let [TokenTree::Ident(name), TokenTree::Punct(mark)] = pair {
                self.assertions += usize::from(mark.as_char() == '!' && is_assertion(name));
            }
        }
    }
}

/// The lines of a file that belong to no test.
fn lines_outside_tests(source: &Source) -> Vec<&str> {
    struct Tests(BTreeSet<usize>);
    impl Tests {
        fn look_at(&mut self, attributes: &[Attribute], span: Span) {
            if is_for_tests(attributes) {
                self.0.extend(span.start().line..=span.end().line);
            }
        }
    }
    impl Visit<'_> for Tests {
        fn visit_item(&mut self, item: &Item) {
            self.look_at(attributes_of(item), item.span());
            visit::visit_item(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &syn::ImplItemFn) {
            self.look_at(&item.attrs, item.span());
        }
    }
    let mut tests = Tests(BTreeSet::new());
    tests.visit_file(&source.file);
    let lines = source.text.lines().enumerate();
    lines.filter(|(index, _)| !tests.0.contains(&(index + 1))).map(|(_, line)| line).collect()
}

/// Lines of the configuration's code, the example and the documentation that name one setting.
fn places_of_a_setting(root: &std::path::Path, house: &[Source]) -> String {
    let names = |line: &&str| line.to_lowercase().contains(SETTING);
    let code = house.iter().filter(|source| source.path.starts_with("src/config") && !source.is_test());
    let code: usize = code.map(|source| lines_outside_tests(source).into_iter().filter(names).count()).sum();
    let documents = ["roomcast.example.toml", "docs/configuration.md"];
    let read = |path: &&str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let documents: usize = documents.iter().map(read).map(|text| text.lines().filter(names).count()).sum();
    format!("{code} of code, {documents} of documents")
}

mod examples {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_small_house_is_counted() {
        let text = "//! A house.\n\n/// How it is.\npub struct Room {\n    /// The door.\n    door: u8,\n    wall: u8,\n}\n\n\
                    /// See the module.\nstruct Door;\nimpl Room {\n    fn f() {\n        assert!(true, \"{}\", 1);\n    }\n}\n\
                    fn g() {\n    if true {\n        debug_assert_eq!(1, 1);\n    }\n}\n\
                    #[cfg(test)]\nmod tests {\n    struct Room;\n    fn h() {\n        assert!(true);\n    }\n}\n";
        let files = [("src/a.rs", text), ("src/b.rs", "struct Room;"), ("src/lib.rs", "pub mod a;")];
        let files: Vec<_> = files.iter().map(|(path, text)| Source::parse(Path::new(path), text)).collect();
        let house = House::of(&files);
        let counts = &house.counts;
        assert_eq!((house.files, house.small_files, house.lines), (3, 3, 19 + 2));
        assert_eq!(counts.function_lines, [3, 5]);
        assert_eq!(counts.fields_of["Room"], [2, 0]);
        assert_eq!((counts.type_names.len(), counts.doubled_names()), (3, 1));
        assert_eq!(counts.assertions, 2);
        assert_eq!((counts.documented, counts.questions, counts.empty_docs), (3, 1, 1));
        assert_eq!((house.public_types, house.public_items), (1, 1));
    }
}
