//! The Rust crates of the checkout, parsed: their modules with files, items and paths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sandhog_testkit::environment::checkout;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Ident, ImplItem, ImplItemFn, Item, ItemUse, Macro, Token, UseTree, Visibility, token,
};

use crate::tree::{files, relative, text};

/// Path of a module below the root of its crate.
pub(crate) type ModulePath = Vec<String>;

/// One crate: a root file and its modules, without test modules.
#[derive(Debug)]
pub(crate) struct Crate {
    /// The root file, relative to the checkout.
    pub(crate) root: String,
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

/// One module of a crate.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The file that contains the module, relative to the checkout.
    pub(crate) file: String,
    /// Names of all items.
    pub(crate) items: BTreeSet<String>,
    /// Names of the types, traits and type aliases.
    pub(crate) types: Vec<String>,
    /// Names of the items, methods, re-exports and modules that other files can use, and of the
    /// traits that the module implements.
    pub(crate) public: Vec<String>,
    /// `true` if the module contains more than imports and other modules.
    pub(crate) has_own_items: bool,
    pub(crate) uses: Vec<Use>,
    /// Paths of two or more segments that the code contains.
    pub(crate) paths: Vec<ModulePath>,
}

/// One imported name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    /// The path, without a final `self`; `*` is the last segment of a glob.
    pub(crate) path: ModulePath,
    /// The name that it has in the module.
    pub(crate) name: String,
    /// `true` if the module passes the name on.
    pub(crate) is_reexport: bool,
}

/// Source of the files of a crate, so that tests can parse texts.
type Reader<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Crate {
    /// Parses the crate with this root file.
    pub(crate) fn parse(root: &Path, read: Reader<'_>) -> Self {
        let mut modules = BTreeMap::new();
        let text = read(root).unwrap_or_else(|| panic!("{} cannot be read", root.display()));
        let folder = root.parent().expect("a file has a folder");
        add_file(&mut modules, Vec::new(), root, folder, &text, read);
        Self {
            root: relative(root),
            modules,
        }
    }

    /// Parses a crate from texts: pairs of a path below its source folder and the text.
    pub(crate) fn from_texts(files: &[(&str, &str)]) -> Self {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        Self::parse(Path::new("lib.rs"), &read)
    }
}

/// Returns all libraries and programs of the workspace.
pub(crate) fn crates() -> Vec<Crate> {
    let read = |path: &Path| path.exists().then(|| text(path));
    let roots = files().into_iter().filter(|path| {
        let in_src = path.parent().is_some_and(|folder| folder.ends_with("src"));
        in_src && (path.ends_with("lib.rs") || path.ends_with("main.rs"))
    });
    let crates: Vec<Crate> = roots.map(|root| Crate::parse(&root, &read)).collect();
    assert!(crates.len() > 5, "below {}", checkout().display());
    crates
}

/// Parses one file. `folder` is the folder in which the files of its child modules are.
fn add_file(
    modules: &mut BTreeMap<ModulePath, Module>,
    path: ModulePath,
    file: &Path,
    folder: &Path,
    text: &str,
    read: Reader<'_>,
) {
    let parsed = syn::parse_file(text);
    let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    add_items(modules, path, file, folder, &parsed.items, read);
}

fn add_items(
    modules: &mut BTreeMap<ModulePath, Module>,
    path: ModulePath,
    file: &Path,
    folder: &Path,
    items: &[Item],
    read: Reader<'_>,
) {
    let mut module = Module {
        file: relative(file),
        ..Module::default()
    };
    for item in items {
        if let Item::Mod(child) = item {
            if is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.unraw().to_string();
            let child_path = [path.as_slice(), std::slice::from_ref(&name)].concat();
            let child_folder = folder.join(&name);
            if is_public(&child.vis) {
                module.public.push(name.clone());
            }
            if let Some((_, items)) = &child.content {
                add_items(modules, child_path, file, &child_folder, items, read);
                continue;
            }
            let candidates: [PathBuf; 2] = [
                folder.join(format!("{name}.rs")),
                child_folder.join("mod.rs"),
            ];
            for candidate in candidates {
                if let Some(text) = read(&candidate) {
                    let child_path = child_path.clone();
                    add_file(modules, child_path, &candidate, &child_folder, &text, read);
                    break;
                }
            }
        } else {
            module.add(item);
        }
    }
    modules.insert(path, module);
}

impl Module {
    fn add(&mut self, item: &Item) {
        if let Item::Use(import) = item {
            let uses = uses_of(import);
            let names = uses.iter().filter(|import| import.is_reexport);
            self.public.extend(names.map(|import| import.name.clone()));
            self.uses.extend(uses);
            return;
        }
        self.has_own_items = true;
        if let Some((ident, vis, attrs)) = head(item) {
            if is_test(attrs) {
                return;
            }
            let name = ident.unraw().to_string();
            if matches!(
                item,
                Item::Struct(_) | Item::Enum(_) | Item::Trait(_) | Item::Type(_) | Item::Union(_)
            ) {
                self.types.push(name.clone());
            }
            if vis.is_none_or(is_public) {
                self.public.push(name.clone());
            }
            self.items.insert(name);
        }
        if let Item::Impl(block) = item {
            let interface = block
                .trait_
                .as_ref()
                .and_then(|(path, _)| path.segments.last());
            let interface = interface.map(|segment| segment.ident.unraw().to_string());
            self.public.extend(interface);
            for member in &block.items {
                if let ImplItem::Fn(method) = member
                    && is_public(&method.vis)
                {
                    self.public.push(method.sig.ident.unraw().to_string());
                }
            }
        }
        let mut paths = Paths(Vec::new());
        paths.visit_item(item);
        self.paths.append(&mut paths.0);
    }
}

/// Returns the name, the visibility and the attributes of an item. Macros have no visibility.
fn head(item: &Item) -> Option<(&Ident, Option<&Visibility>, &[Attribute])> {
    Some(match item {
        Item::Const(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Enum(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Fn(item) => (&item.sig.ident, Some(&item.vis), &item.attrs),
        Item::Macro(item) => (item.ident.as_ref()?, None, &item.attrs),
        Item::Static(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Struct(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Trait(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::TraitAlias(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Type(item) => (&item.ident, Some(&item.vis), &item.attrs),
        Item::Union(item) => (&item.ident, Some(&item.vis), &item.attrs),
        _ => return None,
    })
}

fn is_public(vis: &Visibility) -> bool {
    !matches!(vis, Visibility::Inherited)
}

/// Returns whether an item exists only in tests.
fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let Ok(list) = attr.meta.require_list() else {
            return false;
        };
        let condition = list.tokens.to_string();
        let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
        let negated = condition.starts_with("not");
        list.path.is_ident("cfg") && !negated && words.any(|word| word == "test")
    })
}

/// Returns the names that an import binds.
fn uses_of(import: &ItemUse) -> Vec<Use> {
    let root = Use {
        path: Vec::new(),
        name: String::new(),
        is_reexport: is_public(&import.vis),
    };
    let mut found = Vec::new();
    add_uses(&import.tree, &root, &mut found);
    found
}

/// Adds the names that an import tree binds. `above` is the path so far.
fn add_uses(tree: &UseTree, above: &Use, uses: &mut Vec<Use>) {
    let below = |segment: String| {
        let mut path = above.path.clone();
        path.push(segment.clone());
        Use {
            path,
            name: segment,
            ..above.clone()
        }
    };
    match tree {
        UseTree::Path(part) => {
            add_uses(&part.tree, &below(part.ident.unraw().to_string()), uses);
        }
        UseTree::Name(leaf) if leaf.ident == "self" => uses.push(above.clone()),
        UseTree::Name(leaf) => uses.push(below(leaf.ident.unraw().to_string())),
        UseTree::Rename(leaf) => {
            let found = match leaf.ident == "self" {
                true => above.clone(),
                false => below(leaf.ident.unraw().to_string()),
            };
            uses.push(Use {
                name: leaf.rename.unraw().to_string(),
                ..found
            });
        }
        UseTree::Glob(_) => uses.push(below("*".to_owned())),
        UseTree::Group(group) => {
            for tree in &group.items {
                add_uses(tree, above, uses);
            }
        }
    }
}

/// Collects the paths of two or more segments in code, inside macros too.
struct Paths(Vec<ModulePath>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        let names: ModulePath = segments
            .map(|part| part.ident.unraw().to_string())
            .collect();
        self.0.extend((names.len() > 1).then_some(names));
        visit::visit_path(self, path);
    }

    /// An import within a function.
    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        let paths = uses_of(import).into_iter().map(|import| import.path);
        self.0.extend(paths.filter(|path| path.len() > 1));
    }

    fn visit_impl_item_fn(&mut self, method: &'ast ImplItemFn) {
        if !is_test(&method.attrs) {
            visit::visit_impl_item_fn(self, method);
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        let found = call.parse_body_with(paths_in_tokens);
        self.0.extend(found.expect("any tokens are accepted"));
    }
}

/// Returns the paths in tokens that may be no Rust code.
fn paths_in_tokens(input: ParseStream<'_>) -> syn::Result<Vec<ModulePath>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        if input.peek(token::Paren) {
            let inner;
            syn::parenthesized!(inner in input);
            found.append(&mut paths_in_tokens(&inner)?);
        } else if input.peek(token::Brace) {
            let inner;
            syn::braced!(inner in input);
            found.append(&mut paths_in_tokens(&inner)?);
        } else if input.peek(token::Bracket) {
            let inner;
            syn::bracketed!(inner in input);
            found.append(&mut paths_in_tokens(&inner)?);
        } else if input.peek(Ident::peek_any) {
            let mut path = vec![input.call(Ident::parse_any)?.unraw().to_string()];
            while input.peek(Token![::]) && input.peek3(Ident::peek_any) {
                input.parse::<Token![::]>()?;
                path.push(input.call(Ident::parse_any)?.unraw().to_string());
            }
            found.extend((path.len() > 1).then_some(path));
        } else {
            input.step(|cursor| match cursor.token_tree() {
                Some((_, rest)) => Ok(((), rest)),
                None => Err(cursor.error("no token")),
            })?;
        }
    }
    Ok(found)
}

#[test]
fn imports_paths_and_public_names_are_read() {
    let text = "use a::{self, b::*, C as D};\npub use e::F;\nstruct G;\npub(crate) fn h() {\n\
                let x = i::j(); println!(\"{}\", k::l(m::N)); }\n\
                impl G { pub fn o(&self) {} fn p() {} }\nimpl s::T for G {}\n\
                #[cfg(test)]\nmod tests { struct Hidden; }\nmod q;\n";
    let parsed = Crate::from_texts(&[("lib.rs", text), ("q.rs", "enum R {}")]);
    let root = &parsed.modules[&ModulePath::new()];
    let names: Vec<(String, &str)> = root
        .uses
        .iter()
        .map(|import| (import.path.join("::"), import.name.as_str()))
        .collect();
    let want = [("a", "a"), ("a::b::*", "*"), ("a::C", "D"), ("e::F", "F")];
    assert_eq!(names, want.map(|(path, name)| (path.to_owned(), name)));
    assert_eq!(root.public, ["F", "h", "o", "T"]);
    assert_eq!(root.types, ["G"]);
    let paths: Vec<String> = root.paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["i::j", "k::l", "m::N", "s::T"]);
    assert_eq!(parsed.modules[&vec!["q".to_owned()]].types, ["R"]);
    assert_eq!(parsed.modules.len(), 2);
}
