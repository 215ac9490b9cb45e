//! Rust sources, read and parsed, and which parts of them exist only for tests.
//!
//! Everything that judges a file asks here; nothing here judges.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Item, Meta, Stmt, Token};

/// A parsed file.
pub struct Source {
    /// The path from the root of the repository.
    pub path: PathBuf,
    pub text: String,
    pub file: syn::File,
}

impl Source {
    pub fn parse(path: &Path, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_owned(), text: text.to_owned(), file }
    }

    /// The path of modules the file is: `src/engine/room.rs` → `["engine", "room"]`; empty for `lib.rs`.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let below_src = path.iter().skip_while(|part| *part != "src").skip(1);
        let names = below_src.map(|part| part.to_str().unwrap().to_owned());
        names.filter(|name| name != "mod" && name != "lib").collect()
    }

    /// A file that is only compiled for tests: `tests.rs` or `model.rs`, or below such a folder.
    pub fn is_test(&self) -> bool {
        self.path.with_extension("").iter().any(|part| part == "tests" || part == "model")
    }

    /// The file without everything that is only compiled for tests.
    pub fn production(&self) -> syn::File {
        let mut file = self.file.clone();
        if self.is_test() {
            file.items.clear();
        }
        WithoutTests.visit_file_mut(&mut file);
        file
    }
}

/// All Rust files below a folder of `root`, in the order of their paths; none when there is no such folder.
pub fn sources(root: &Path, folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let parse =
        |path: &PathBuf| Source::parse(path.strip_prefix(root).unwrap(), &fs::read_to_string(path).unwrap());
    paths.iter().map(parse).collect()
}

/// Every token, those in brackets included; of a group only what it holds.
pub fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => all.extend(flat(group.stream())),
            other => all.push(other),
        }
    }
    all
}

/// The texts of the documentation among these attributes, line by line.
pub fn docs(attributes: &[Attribute]) -> Vec<String> {
    let text = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(text).map(|line| line.trim().to_owned()).collect()
}

/// True for `#[cfg(…)]` that never holds outside tests, and for `#[test]`.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            holds_outside_tests(&list.parse_args().unwrap()) == Some(false)
        }
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

/// What a condition is in a product; `None` when that depends on more than being a test.
fn holds_outside_tests(condition: &Meta) -> Option<bool> {
    let parts = |list: &syn::MetaList| -> Vec<Option<bool>> {
        let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap();
        parts.iter().map(holds_outside_tests).collect()
    };
    let all_are = |parts: &[Option<bool>], value| parts.iter().all(|part| *part == Some(value));
    match condition {
        Meta::Path(path) => path.is_ident("test").then_some(false),
        Meta::NameValue(pair) => is_model_feature(pair).then_some(false),
        Meta::List(list) if list.path.is_ident("not") => parts(list)[0].map(|holds| !holds),
        Meta::List(list) if list.path.is_ident("all") => {
            let parts = parts(list);
            if parts.contains(&Some(false)) { Some(false) } else { all_are(&parts, true).then_some(true) }
        }
        Meta::List(list) if list.path.is_ident("any") => {
            let parts = parts(list);
            if parts.contains(&Some(true)) { Some(true) } else { all_are(&parts, false).then_some(false) }
        }
        Meta::List(_) => None,
    }
}

/// `feature = "model"`, with which nothing but tests is built.
fn is_model_feature(pair: &syn::MetaNameValue) -> bool {
    let is_model = matches!(&pair.value, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if text.value() == "model");
    pair.path.is_ident("feature") && is_model
}

/// Takes out what is only compiled for tests.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !is_for_tests(attributes_of(item)));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !is_for_tests(attributes_of(item)));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !is_for_tests(&function.attrs),
            syn::ImplItem::Const(constant) => !is_for_tests(&constant.attrs),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_fields_named_mut(&mut self, fields: &mut syn::FieldsNamed) {
        let kept = std::mem::take(&mut fields.named).into_iter().filter(|field| !is_for_tests(&field.attrs));
        fields.named = kept.collect();
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|statement| match statement {
            Stmt::Item(item) => !is_for_tests(attributes_of(item)),
            Stmt::Local(local) => !is_for_tests(&local.attrs),
            Stmt::Macro(call) => !is_for_tests(&call.attrs),
            Stmt::Expr(syn::Expr::Block(inner), _) => !is_for_tests(&inner.attrs),
            Stmt::Expr(..) => true,
        });
        visit_mut::visit_block_mut(self, block);
    }
}

pub fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

mod rules {
    use super::*;

    fn production(text: &str) -> usize {
        Source::parse(Path::new("src/a.rs"), text).production().items.len()
    }

    #[test]
    fn items_only_for_tests_are_left_out() {
        for text in [
            "#[cfg(test)] mod tests { fn f() {} }",
            "#[cfg(test)] mod tests;",
            "#[cfg(all(test, not(feature = \"model\")))] use a::B;",
            "#[cfg(feature = \"model\")] use a::B;",
            "#[cfg(not(not(test)))] fn f() {}",
            "#[test] fn f() {}",
        ] {
            assert_eq!(production(text), 0, "{text}");
        }
        for text in [
            "#[cfg(unix)] fn f() {}",
            "#[cfg(not(test))] fn f() {}",
            "#[cfg(not(all(test, feature = \"model\")))] fn f() {}",
            "#[cfg(any(test, unix))] fn f() {}",
        ] {
            assert_eq!(production(text), 1, "{text}");
        }
    }

    #[test]
    fn files_of_tests_are_empty() {
        for path in ["src/a/tests.rs", "src/a/tests/b.rs", "src/a/model/mod.rs", "src/a/b/model.rs"] {
            let source = Source::parse(Path::new(path), "fn f() {}");
            assert_eq!(source.production().items.len(), 0, "{path}");
        }
    }

    #[test]
    fn a_file_is_a_module() {
        let module = |path| Source::parse(Path::new(path), "").module().join("::");
        assert_eq!(module("src/lib.rs"), "");
        assert_eq!(module("src/engine/mod.rs"), "engine");
        assert_eq!(module("src/engine/room.rs"), "engine::room");
        assert_eq!(module("bench/src/wire.rs"), "wire");
    }
}
