//! What a program that uses the library can name, written down in `docs/api.txt`: a change of it is seen by whoever
//! reviews the change of that file. `UPDATE_API=1 cargo test --test tidy surface` writes it anew.

use std::collections::BTreeSet;
use std::fs;

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, UseTree, Visibility};

use crate::tree::{Source, sources};
use crate::{read, root};

const LIST: &str = "docs/api.txt";

#[test]
fn the_public_surface_is_the_one_that_is_written_down() {
    let now = surface(&sources(root(), "src"));
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(root().join(LIST), &now).unwrap();
    }
    let before = read(LIST);
    let only = |of: &str, other: &str, sign: char| -> String {
        let other: BTreeSet<&str> = other.lines().collect();
        of.lines().filter(|line| !other.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    assert_eq!(
        before,
        now,
        "the public surface has changed:\n{}{}if that is meant, UPDATE_API=1 cargo test --test tidy surface",
        only(&before, &now, '-'),
        only(&now, &before, '+'),
    );
}

/// One line for each thing that can be named, by the module that gives it out.
fn surface(sources: &[Source]) -> String {
    let lib =
        sources.iter().find(|source| source.module().is_empty() && source.path.ends_with("lib.rs")).unwrap();
    let mut lines = BTreeSet::new();
    for (name, module) in exported(&lib.file.items, &[]) {
        describe(sources, &module, &name, "", &mut lines);
    }
    for item in lib.file.items.iter().filter(|item| is_public_module(item)) {
        let Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        let inside = sources.iter().find(|source| source.module() == [name.as_str()]).unwrap();
        for (item, path) in exported(&inside.file.items, std::slice::from_ref(&name)) {
            describe(sources, &path, &item, &format!("{name}::"), &mut lines);
        }
        for item in &inside.file.items {
            if let (Some((name_of, _)), Item::Struct(_) | Item::Enum(_) | Item::Fn(_) | Item::Trait(_)) =
                (named(item), item)
            {
                describe(sources, std::slice::from_ref(&name), &name_of, &format!("{name}::"), &mut lines);
            }
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn is_public_module(item: &Item) -> bool {
    matches!(item, Item::Mod(module) if is_public(&module.vis) && !is_hidden(&module.attrs) && module.content.is_none())
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("doc") && words(&attribute.meta).contains("hidden"))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The names that `pub use` gives out, each with the module it is from.
fn exported(items: &[Item], below: &[String]) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for item in items {
        if let Item::Use(item) = item
            && is_public(&item.vis)
            && !is_hidden(&item.attrs)
        {
            flatten(&item.tree, below.to_vec(), &mut all);
        }
    }
    all
}

fn flatten(tree: &UseTree, mut path: Vec<String>, all: &mut Vec<(String, Vec<String>)>) {
    match tree {
        UseTree::Path(step) => {
            if step.ident == "crate" {
                path.clear();
            } else if step.ident != "self" {
                path.push(step.ident.to_string());
            }
            flatten(&step.tree, path, all);
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, path.clone(), all)),
        UseTree::Name(name) => all.push((name.ident.to_string(), path)),
        UseTree::Rename(name) => all.push((name.ident.to_string(), path)),
        UseTree::Glob(_) => panic!("a list of exports names each of them"),
    }
}

/// Files that may define what a module gives out: its own first, then those below it.
fn candidates<'s>(sources: &'s [Source], module: &[String]) -> Vec<&'s Source> {
    let mut found: Vec<_> = sources.iter().filter(|source| source.module().starts_with(module)).collect();
    found.sort_by_key(|source| source.module().len());
    found
}

fn describe(sources: &[Source], module: &[String], name: &str, prefix: &str, lines: &mut BTreeSet<String>) {
    let files = candidates(sources, module);
    let definition = files
        .iter()
        .flat_map(|source| source.production().items)
        .find(|item| named(item).is_some_and(|(found, visibility)| found == name && is_public(&visibility)));
    let Some(definition) = definition else {
        lines.insert(format!("{prefix}{name}: made by a macro"));
        return;
    };
    let mut add = |line: String| lines.insert(format!("{prefix}{name}: {line}"));
    match &definition {
        Item::Struct(item) => {
            add(format!("{}struct{}", growing(&item.attrs), words(&item.generics)));
            if let Fields::Named(fields) = &item.fields {
                for field in fields.named.iter().filter(|field| is_public(&field.vis)) {
                    add(format!("field {}: {}", words(&field.ident), words(&field.ty)));
                }
            } else {
                for field in item.fields.iter().filter(|field| is_public(&field.vis)) {
                    add(format!("field {}", words(&field.ty)));
                }
            }
        }
        Item::Enum(item) => {
            add(format!("{}enum", growing(&item.attrs)));
            for variant in &item.variants {
                let mut variant = variant.clone();
                variant.attrs.clear();
                variant.fields.iter_mut().for_each(|field| field.attrs.clear());
                add(format!("variant {}", words(&variant)));
            }
        }
        Item::Trait(item) => {
            add(format!("trait{}", words(&item.supertraits)));
            for method in &item.items {
                if let TraitItem::Fn(method) = method {
                    add(words(&method.sig));
                }
            }
        }
        Item::Fn(item) => {
            add(words(&item.sig));
        }
        Item::Type(item) => {
            add(format!("type = {}", words(&item.ty)));
        }
        Item::Const(item) => {
            add(format!("const {}", words(&item.ty)));
        }
        other => panic!("{name} is of a kind that is not listed: {}", words(other)),
    }
    // A type of another module may have the same name.
    for item in files.iter().flat_map(|source| source.production().items) {
        let Item::Impl(item) = item else { continue };
        let of = words(&item.self_ty);
        if of.split(['<', ' ', '&']).find(|part| !part.is_empty()) != Some(name) {
            continue;
        }
        if let Some((_, of_trait, _)) = &item.trait_ {
            add(format!("impl {} for {of}", words(of_trait)));
            continue;
        }
        for method in &item.items {
            if let ImplItem::Fn(method) = method
                && is_public(&method.vis)
            {
                add(words(&method.sig));
            }
        }
    }
}

/// An item's name and how visible it is.
fn named(item: &Item) -> Option<(String, Visibility)> {
    let (name, visibility) = match item {
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility.clone()))
}

fn growing(attributes: &[Attribute]) -> &'static str {
    if attributes.iter().any(|attribute| attribute.path().is_ident("non_exhaustive")) {
        "growing "
    } else {
        ""
    }
}

/// Tokens as one line.
fn words(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}
