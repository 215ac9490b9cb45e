//! Which file of a crate uses which other, item by item, and the circles among them.
//!
//! An arrow goes from the file that names an item to the file that *defines* it: re-exports (`pub use`)
//! are followed, on any way there. A `mod` declaration is no arrow, nor is naming a module without an
//! item of it, nor a re-export: it is a door, and whoever goes through it has the arrow. Calls of methods are not seen, because a parser does not know the types; whoever holds
//! a value has nearly always named its type.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, UseTree, Visibility};

use crate::tree::{Source, attributes_of, flat};

/// The name by which the binary calls the library.
const CRATE: &str = "roomcast";

/// A path of names, as it is written.
type Names = Vec<String>;

/// The files of one crate, and who uses whom.
pub struct Graph {
    /// Paths of the files, from the root of the repository.
    pub files: Vec<String>,
    /// The file of a module; that of the innermost one with a file for a module in braces.
    modules: BTreeMap<Names, Module>,
    /// From, to, and the paths by which.
    pub arrows: BTreeMap<(usize, usize), BTreeSet<String>>,
    /// Modules with an `impl` of a type's own, the type as it is named there, and its public functions and constants.
    impls: Vec<(Names, Names, usize)>,
}

/// What a module knows by name.
#[derive(Default)]
struct Module {
    /// None for a folder that no file stands for.
    file: Option<usize>,
    /// Names, and whether they are public.
    items: BTreeMap<String, bool>,
    public_children: BTreeSet<String>,
    imports: Vec<Import>,
    globs: Vec<Import>,
}

/// A `use`, or one branch of it.
struct Import {
    /// The name here; of no meaning for a glob.
    alias: String,
    path: Names,
    is_public: bool,
}

/// An item by the module that defines it, and its name.
pub type Definition = (Names, String);

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Module(Names),
    Item(Definition),
}

/// What of a file is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Production,
    WithTests,
}

impl Graph {
    pub fn of(sources: &[Source], scope: Scope) -> Self {
        let files = sources.iter().map(|source| source.path.display().to_string()).collect();
        let mut graph = Self { files, modules: BTreeMap::new(), arrows: BTreeMap::new(), impls: Vec::new() };
        let parsed: Vec<_> = sources
            .iter()
            .map(|source| match scope {
                Scope::Production => source.production(),
                Scope::WithTests => source.file.clone(),
            })
            .collect();
        let mut uses = Vec::new();
        for (file, (source, parsed)) in sources.iter().zip(&parsed).enumerate() {
            let mut reader = Reader { graph: &mut graph, file, module: source.module(), uses: &mut uses };
            reader.declare();
            reader.visit_file(parsed);
        }
        for Use { file, module, path } in uses {
            for defines in graph.defining_files(&module, &path).into_iter().filter(|other| *other != file) {
                graph.arrows.entry((file, defines)).or_default().insert(path.join("::"));
            }
        }
        graph
    }

    fn defining_files(&self, module: &[String], path: &[String]) -> Vec<usize> {
        let targets = self.resolve(module, path, &mut BTreeSet::new());
        let file = |target| match target {
            Target::Item((module, _)) => self.modules[&module].file,
            Target::Module(_) => None,
        };
        targets.into_iter().filter_map(file).collect()
    }

    /// What a path means in a module; nothing when it leads out of the crate.
    fn resolve(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut BTreeSet<(Names, Names)>,
    ) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return vec![Target::Module(module.to_vec())] };
        if !seen.insert((module.to_vec(), path.to_vec())) {
            return Vec::new();
        }
        let here = match first.as_str() {
            // `main.rs` is a crate of its own.
            "crate" if module.first().is_some_and(|top| top == "main") => {
                vec![Target::Module(module[..1].to_vec())]
            }
            "crate" => vec![Target::Module(Vec::new())],
            "self" => vec![Target::Module(module.to_vec())],
            "super" => {
                module.split_last().map(|(_, parent)| Target::Module(parent.to_vec())).into_iter().collect()
            }
            name => {
                let known = self.look_up(module, name, seen);
                if known.is_empty() && name == CRATE { vec![Target::Module(Vec::new())] } else { known }
            }
        };
        rest.iter().fold(here, |targets, name| self.step(&targets, name, seen))
    }

    /// One name further. An unknown name in a module of ours comes from a macro there.
    fn step(&self, targets: &[Target], name: &str, seen: &mut BTreeSet<(Names, Names)>) -> Vec<Target> {
        let mut next = BTreeSet::new();
        for target in targets {
            match target {
                Target::Item(_) => {
                    next.insert(target.clone());
                }
                Target::Module(module) if name == "super" || name == "self" => {
                    next.extend(self.resolve(module, &[name.to_owned()], seen));
                }
                Target::Module(module) => {
                    let known = self.look_up(module, name, seen);
                    let has_file = self.modules.get(module).is_some_and(|here| here.file.is_some());
                    if known.is_empty() && has_file {
                        next.insert(Target::Item((module.clone(), name.to_owned())));
                    }
                    next.extend(known);
                }
            }
        }
        next.into_iter().collect()
    }

    /// What a name means in a module, without its parents.
    fn look_up(&self, module: &[String], name: &str, seen: &mut BTreeSet<(Names, Names)>) -> Vec<Target> {
        let Some(here) = self.modules.get(module) else { return Vec::new() };
        let mut found = Vec::new();
        let child = [module, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            found.push(Target::Module(child));
        }
        if here.items.contains_key(name) {
            found.push(Target::Item((module.to_vec(), name.to_owned())));
        }
        for import in here.imports.iter().filter(|import| import.alias == name) {
            found.extend(self.resolve(module, &import.path, seen));
        }
        if found.is_empty() {
            for glob in &here.globs {
                found.extend(self.through_glob(module, &glob.path, name, seen));
            }
        }
        found
    }

    fn through_glob(
        &self,
        module: &[String],
        glob: &[String],
        name: &str,
        seen: &mut BTreeSet<(Names, Names)>,
    ) -> Vec<Target> {
        let inside = self.resolve(module, glob, seen);
        let found = inside.into_iter().filter_map(|target| match target {
            Target::Module(other) => Some(other),
            Target::Item(_) => None,
        });
        let found: Vec<_> = found.collect();
        found.iter().flat_map(|other| self.look_up(other, name, seen)).collect()
    }

    /// The items that a user of the crate can name, by their definitions.
    pub fn public_items(&self) -> BTreeSet<Definition> {
        let mut items = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![Target::Module(Vec::new())];
        while let Some(target) = open.pop() {
            let module = match target {
                Target::Item(definition) => {
                    items.insert(definition);
                    continue;
                }
                Target::Module(module) => module,
            };
            let Some(here) = self.modules.get(&module).filter(|_| seen.insert(module.clone())) else {
                continue;
            };
            let public = here.items.iter().filter(|(_, is_public)| **is_public);
            items.extend(public.map(|(name, _)| (module.clone(), name.clone())));
            open.extend(
                here.public_children
                    .iter()
                    .map(|name| Target::Module([&module[..], std::slice::from_ref(name)].concat())),
            );
            for import in here.imports.iter().chain(&here.globs).filter(|import| import.is_public) {
                open.extend(self.resolve(&module, &import.path, &mut BTreeSet::new()));
            }
        }
        items
    }

    /// How many public functions and constants these types have of their own.
    pub fn methods_of(&self, types: &BTreeSet<Definition>) -> usize {
        let is_of = |module: &Names, path: &Names| {
            let targets = self.resolve(module, path, &mut BTreeSet::new());
            targets.iter().any(|target| matches!(target, Target::Item(item) if types.contains(item)))
        };
        self.impls.iter().filter(|(module, path, _)| is_of(module, path)).map(|(_, _, count)| count).sum()
    }

    /// The files of each circle, largest first. Every file of a circle can be reached from every other.
    pub fn circles(&self) -> Vec<Vec<usize>> {
        let reached: Vec<_> = (0..self.files.len()).map(|file| self.reached_from(file)).collect();
        let mut circles: Vec<Vec<usize>> = Vec::new();
        for file in 0..self.files.len() {
            let members: Vec<_> =
                reached[file].iter().copied().filter(|other| reached[*other].contains(&file)).collect();
            if members.first() == Some(&file) && members.len() > 1 {
                circles.push(members);
            }
        }
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }

    /// The files that a file needs, itself included only if it needs itself.
    fn reached_from(&self, file: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            for (_, to) in self.arrows.keys().filter(|(start, _)| *start == from) {
                if reached.insert(*to) {
                    open.push(*to);
                }
            }
        }
        reached
    }

    /// The arrows among some files, one a line.
    pub fn arrows_among(&self, files: &[usize]) -> Vec<String> {
        let inside = self.arrows.iter().filter(|((from, to), _)| files.contains(from) && files.contains(to));
        inside
            .map(|((from, to), paths)| {
                let paths: Vec<_> = paths.iter().map(String::as_str).collect();
                format!("{} -> {} by {}", self.files[*from], self.files[*to], paths.join(", "))
            })
            .collect()
    }
}

/// A path in a file that may lead to another.
struct Use {
    file: usize,
    module: Names,
    path: Names,
}

/// Walks through a file and notes what it declares and what it names.
struct Reader<'a> {
    graph: &'a mut Graph,
    file: usize,
    module: Names,
    uses: &'a mut Vec<Use>,
}

impl Reader<'_> {
    fn declare(&mut self) {
        for depth in 0..self.module.len() {
            self.graph.modules.entry(self.module[..depth].to_vec()).or_default();
        }
        self.graph.modules.entry(self.module.clone()).or_default().file = Some(self.file);
    }

    fn here(&mut self) -> &mut Module {
        self.graph.modules.get_mut(&self.module).unwrap()
    }

    fn note(&mut self, path: Names) {
        self.uses.push(Use { file: self.file, module: self.module.clone(), path });
    }

    fn import(&mut self, tree: &UseTree, mut path: Names, visibility: &Visibility) {
        let alias = match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.import(&part.tree, path, visibility);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, path.clone(), visibility));
            }
            UseTree::Name(name) => name.ident.to_string(),
            UseTree::Rename(rename) => rename.ident.to_string(),
            UseTree::Glob(_) => "self".to_owned(),
        };
        if alias != "self" {
            path.push(alias);
        }
        if matches!(visibility, Visibility::Inherited) {
            self.note(path.clone());
        }
        let alias = match tree {
            UseTree::Rename(rename) => rename.rename.to_string(),
            _ => path.last().cloned().unwrap_or_default(),
        };
        let import = Import { alias, path, is_public: matches!(visibility, Visibility::Public(_)) };
        let here = self.here();
        let list = if matches!(tree, UseTree::Glob(_)) { &mut here.globs } else { &mut here.imports };
        list.push(import);
    }

    /// Paths among tokens that are no syntax yet. A single name says nothing: it is of this file, or
    /// imported, or local.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens = flat(tokens);
        let is = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
        let name = |at: usize| match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
            _ => None,
        };
        let mut at = 0;
        while at < tokens.len() {
            let Some(first) = name(at) else {
                at += 1;
                continue;
            };
            let follows = |mark| at > 0 && is(at - 1, mark);
            let is_free = !(follows('$') || follows('\'') || at > 1 && follows(':') && is(at - 2, ':'));
            let mut path = vec![first];
            at += 1;
            while is(at, ':') && is(at + 1, ':') {
                let Some(next) = name(at + 2) else { break };
                path.push(next);
                at += 3;
            }
            if path.len() > 1 && is_free {
                self.note(path);
            }
        }
    }
}

impl Visit<'_> for Reader<'_> {
    fn visit_item(&mut self, item: &Item) {
        let named = match item {
            Item::Const(item) => Some((&item.ident, Some(&item.vis))),
            Item::Enum(item) => Some((&item.ident, Some(&item.vis))),
            Item::Fn(item) => Some((&item.sig.ident, Some(&item.vis))),
            Item::Macro(item) => item.ident.as_ref().map(|name| (name, None)),
            Item::Static(item) => Some((&item.ident, Some(&item.vis))),
            Item::Struct(item) => Some((&item.ident, Some(&item.vis))),
            Item::Trait(item) => Some((&item.ident, Some(&item.vis))),
            Item::Type(item) => Some((&item.ident, Some(&item.vis))),
            Item::Union(item) => Some((&item.ident, Some(&item.vis))),
            _ => None,
        };
        let is_shown = !is_hidden(attributes_of(item));
        if let Some((name, visibility)) = named {
            let is_public = matches!(visibility, Some(Visibility::Public(_))) && is_shown;
            self.here().items.insert(name.to_string(), is_public);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_impl(&mut self, block: &syn::ItemImpl) {
        if let (None, syn::Type::Path(path)) = (&block.trait_, &*block.self_ty) {
            let is_public = |item: &&ImplItem| match item {
                ImplItem::Fn(function) => matches!(function.vis, Visibility::Public(_)),
                ImplItem::Const(constant) => matches!(constant.vis, Visibility::Public(_)),
                _ => false,
            };
            let count = block.items.iter().filter(is_public).count();
            let name = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.graph.impls.push((self.module.clone(), name, count));
        }
        visit::visit_item_impl(self, block);
    }

    fn visit_item_mod(&mut self, module: &syn::ItemMod) {
        if matches!(module.vis, Visibility::Public(_)) && !is_hidden(&module.attrs) {
            self.here().public_children.insert(module.ident.to_string());
        }
        if module.content.is_some() {
            self.module.push(module.ident.to_string());
            self.declare();
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.import(&item.tree, Vec::new(), &item.vis);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        self.visit_path(&call.path);
        self.scan(call.tokens.clone());
    }

    // Who may see something is not who uses what, and attributes name no files.
    fn visit_vis_restricted(&mut self, _: &syn::VisRestricted) {}
    fn visit_attribute(&mut self, _: &syn::Attribute) {}
}

/// `#[doc(hidden)]`
fn is_hidden(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    })
}

pub mod examples {
    //! Small trees that show what is an arrow and what is not.

    use std::path::Path;

    use super::*;

    pub fn graph(files: &[(&str, &str)], scope: Scope) -> Graph {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::parse(Path::new(path), text)).collect();
        Graph::of(&sources, scope)
    }

    /// The arrows without their folder and paths.
    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let graph = graph(files, Scope::Production);
        let short = |file: usize| graph.files[file].trim_start_matches("src/").to_owned();
        graph.arrows.keys().map(|(from, to)| format!("{} -> {}", short(*from), short(*to))).collect()
    }

    #[test]
    fn every_way_to_write_a_path_is_an_arrow() {
        let b = ("src/b/c.rs", "pub struct B; pub fn f() {} pub enum E { One }");
        let root = ("src/lib.rs", "mod a; mod b;");
        let parent = ("src/b/mod.rs", "mod c;");
        for text in [
            "use crate::b::c::B;",
            "use crate::b::{self, c::{B as X}};",
            "use super::b::c::f;",
            "use crate::b::c; fn g() { c::f() }",
            "use crate::b::c as d; fn g() -> d::B { todo() }",
            "fn g(b: &crate::b::c::B) {}",
            "impl Clone for crate::b::c::B {}",
            "type T = Option<Vec<crate::b::c::B>>;",
            "fn g() { use crate::b::c::E; match e { E::One => {} } }",
            "use crate::b::c::E::*;",
            "fn g() { println!(\"{}\", crate::b::c::f()) }",
            "use crate::b::c; fn g() { assert!(matches!(e, c::E::One)) }",
            "mod inner { use super::super::b::c::B; }",
        ] {
            let found = arrows(&[("src/a.rs", text), parent, b, root]);
            assert_eq!(found, ["a.rs -> b/c.rs"], "{text}");
        }
    }

    #[test]
    fn a_re_export_leads_to_the_file_that_defines() {
        let found = arrows(&[
            ("src/a.rs", "use crate::b::B;"),
            ("src/b/c.rs", "pub use self::d::B;"),
            ("src/b/c/d.rs", "pub struct B;"),
            ("src/b/mod.rs", "mod c; pub use c::B;"),
        ]);
        assert!(found.contains(&"a.rs -> b/c/d.rs".to_owned()), "{found:?}");
        assert!(!found.contains(&"a.rs -> b/mod.rs".to_owned()), "{found:?}");
        let glob = arrows(&[
            ("src/a.rs", "use crate::b::B;"),
            ("src/b.rs", "pub use crate::c::*;"),
            ("src/c.rs", "pub struct B;"),
        ]);
        assert_eq!(glob, ["a.rs -> c.rs"]);
    }

    #[test]
    fn text_and_comments_are_no_arrow() {
        for text in [
            "mod b;",
            "use std::b::B; use b::B;",
            "/// `crate::b::B`\nfn f() { \"crate::b::B\"; } // crate::b::B",
            "pub(in crate::b) struct A;",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(all(test, feature = \"model\"))] use crate::b::B;",
            "#[test] fn f() { crate::b::f() }",
            "use crate::b;",
            "macro_rules! m { () => { $crate::b::f() } }",
            "pub use crate::b::B;",
            "pub(super) use crate::b::*;",
        ] {
            assert_eq!(
                arrows(&[("src/a.rs", text), ("src/b.rs", "pub struct B;")]),
                [] as [&str; 0],
                "{text}"
            );
        }
    }

    #[test]
    fn items_of_a_macro_belong_to_the_file_of_its_call() {
        let found = arrows(&[("src/a.rs", "use crate::b::Code;"), ("src/b.rs", "codes! { Code { A = 1 } }")]);
        assert_eq!(found, ["a.rs -> b.rs"]);
    }

    #[test]
    fn the_binary_uses_the_library() {
        let found = arrows(&[
            ("src/main.rs", "fn main() { roomcast::cli::run() }"),
            ("src/cli.rs", "pub fn run() {}"),
            ("src/lib.rs", "pub mod cli;"),
        ]);
        assert_eq!(found, ["main.rs -> cli.rs"]);
    }

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let graph = graph(files, Scope::Production);
        let named = |circle: &Vec<usize>| circle.iter().map(|file| graph.files[*file].clone()).collect();
        graph.circles().iter().map(named).collect()
    }

    #[test]
    fn a_circle_is_found_with_all_its_files_and_nothing_else() {
        let found = circles(&[
            ("src/a.rs", "use crate::b::B; pub struct A;"),
            ("src/b.rs", "pub struct B(crate::c::C);"),
            ("src/c.rs", "pub struct C; fn f() { crate::a::A; crate::low::L; }"),
            ("src/low.rs", "pub struct L;"),
            ("src/top.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [["src/a.rs", "src/b.rs", "src/c.rs"]]);
    }

    #[test]
    fn a_child_that_uses_what_its_parent_defines_closes_a_circle() {
        let child = ("src/a/b.rs", "use super::A; pub struct B(A);");
        let found = circles(&[("src/a/mod.rs", "mod b; pub struct A; fn f() { b::B; }"), child]);
        assert_eq!(found, [["src/a/mod.rs", "src/a/b.rs"]]);
    }

    #[test]
    fn a_parent_that_only_shows_its_children_is_in_no_circle() {
        let child = ("src/a/b.rs", "use super::C; pub struct B(C);");
        let sibling = ("src/a/c.rs", "pub struct C;");
        let found = circles(&[("src/a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C;"), child, sibling]);
        assert_eq!(found, [] as [[&str; 0]; 0]);
    }

    #[test]
    fn only_items_a_user_can_name_are_public() {
        let graph = graph(
            &[
                (
                    "src/lib.rs",
                    "mod a; pub mod b; #[doc(hidden)] pub mod internals { pub use crate::a::Inner; } pub use a::A;",
                ),
                (
                    "src/a.rs",
                    "pub struct A; pub struct Inner; impl A { pub fn f() {} fn g() {} pub const C: u8 = 1; }",
                ),
                (
                    "src/b.rs",
                    "pub use crate::c::*; pub fn f() {} fn g() {} pub(crate) struct H; #[doc(hidden)] pub struct I;",
                ),
                (
                    "src/c.rs",
                    "pub trait T {} impl super::a::A { pub fn h() {} } impl super::a::Inner { pub fn i() {} }",
                ),
            ],
            Scope::Production,
        );
        let items = graph.public_items();
        let names: Vec<_> =
            items.iter().map(|(module, name)| format!("{}::{name}", module.join("::"))).collect();
        assert_eq!(names, ["a::A", "b::f", "c::T"]);
        assert_eq!(graph.methods_of(&items), 3);
    }

    #[test]
    fn an_arrow_of_tests_closes_no_circle() {
        let found = circles(&[
            ("src/a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("src/b.rs", "use crate::a::A; pub struct B;"),
            ("src/b/tests.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [] as [[&str; 0]; 0]);
    }
}
