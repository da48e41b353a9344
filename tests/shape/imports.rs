//! No import loop: the files of a crate can be ordered so that each uses only earlier ones.
//!
//! A module that only passes a name on (`pub use`) does not use it: the user of the name depends on
//! the file that defines it. A `mod` declaration is no use either.

use std::collections::{BTreeMap, BTreeSet};

use crate::crates::{Crate, ModulePath, crates};

/// The files that each file uses, with the names that it uses of them.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Maximum number of re-exports that are followed for one name.
const MAX_HOPS: usize = 8;

/// Returns which files of a crate use which.
fn graph(parsed: &Crate) -> Graph {
    let mut graph = Graph::new();
    for (path, module) in &parsed.modules {
        let own_uses = module.uses.iter().filter(|import| !import.is_reexport);
        let imported = own_uses.map(|import| import.path.clone());
        let inline = module.paths.iter().map(|used| {
            let first = used.first().map_or("", String::as_str);
            let import = module.uses.iter().find(|import| import.name == first);
            match import.filter(|import| !is_child(parsed, path, &import.name)) {
                Some(import) => [import.path.as_slice(), &used[1..]].concat(),
                None => used.clone(),
            }
        });
        for used in imported.chain(inline) {
            let Some(target) = resolve(parsed, path, &used, MAX_HOPS) else {
                continue;
            };
            let target = &parsed.modules[&target].file;
            if *target != module.file {
                let users = graph.entry(module.file.clone()).or_default();
                let names = users.entry(target.clone()).or_default();
                names.extend(used.last().cloned());
            }
        }
    }
    graph
}

fn is_child(parsed: &Crate, module: &[String], name: &str) -> bool {
    let child = [module, &[name.to_owned()]].concat();
    parsed.modules.contains_key(&child)
}

/// Returns the module that defines the name at the end of `used`, as seen from `module`. `None` if
/// it belongs to another crate.
fn resolve(parsed: &Crate, module: &[String], used: &[String], hops: usize) -> Option<ModulePath> {
    let first = used.first()?;
    let mut current = match first.as_str() {
        "crate" => Vec::new(),
        "super" | "self" => module.to_vec(),
        name if is_child(parsed, module, name) => module.to_vec(),
        _ => return None,
    };
    for segment in used {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(current.pop()),
            "*" => break,
            name if is_child(parsed, &current, name) => current.push(name.to_owned()),
            name => return Some(definition(parsed, current, name, hops)),
        }
    }
    parsed.modules.contains_key(&current).then_some(current)
}

/// Returns the module that defines a name that is visible in `module`.
fn definition(parsed: &Crate, module: ModulePath, name: &str, hops: usize) -> ModulePath {
    let Some(found) = parsed.modules.get(&module) else {
        return module;
    };
    if found.items.contains(name) || hops == 0 {
        return module;
    }
    let named = found.uses.iter().find(|import| import.name == name);
    if let Some(import) = named {
        return resolve(parsed, &module, &import.path, hops - 1).unwrap_or(module);
    }
    let globs = found.uses.iter().filter(|import| import.name == "*");
    for glob in globs {
        if let Some(target) = resolve(parsed, &module, &glob.path, hops - 1)
            && parsed.modules[&target].items.contains(name)
        {
            return target;
        }
    }
    module
}

/// Returns the files that a file uses, directly or not.
fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for target in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(target.as_str()) {
                open.push(target);
            }
        }
    }
    found
}

/// Returns a description of each use that is part of a loop.
fn loops(parsed: &Crate) -> Vec<String> {
    let graph = graph(parsed);
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|file| (file.as_str(), reachable(&graph, file)))
        .collect();
    let mut found = Vec::new();
    for (file, targets) in &graph {
        for (target, names) in targets {
            let back = reach.get(target.as_str());
            if back.is_some_and(|back| back.contains(file.as_str())) {
                found.push(format!("{file} -> {target}: {names:?}"));
            }
        }
    }
    found
}

#[test]
fn no_files_of_a_crate_use_each_other() {
    let found: Vec<String> = crates().iter().flat_map(loops).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_loop_is_found() {
    let lib = ("lib.rs", "mod a;\nmod b;\nmod c;\n");
    let (a, c) = (
        ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
        (
            "c.rs",
            "use crate::a::A;\nfn f(a: A) -> crate::b::B { todo!() }\n",
        ),
    );
    let straight = Crate::from_texts(&[lib, a, ("b.rs", "pub struct B;\n"), c]);
    assert_eq!(loops(&straight), Vec::<String>::new());
    let b = (
        "b.rs",
        "pub struct B;\nfn f() { println!(\"{}\", super::a::NAME) }\n",
    );
    let round = Crate::from_texts(&[lib, a, b, c]);
    let want = [r#"a.rs -> b.rs: {"B"}"#, r#"b.rs -> a.rs: {"NAME"}"#];
    assert_eq!(loops(&round), want);
}

#[test]
fn a_child_that_uses_its_parent_is_a_loop_and_a_reexport_is_none() {
    let thin = ("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::C;\n");
    let c = ("a/c.rs", "use super::B;\npub struct C(B);\n");
    let b = ("a/b.rs", "pub struct B;\n");
    let fine = Crate::from_texts(&[("lib.rs", "mod a;\n"), thin, b, c]);
    assert_eq!(loops(&fine), Vec::<String>::new());

    let thick = (
        "a/mod.rs",
        "mod b;\nuse b::B;\npub struct Limit;\nfn f(b: B) {}\n",
    );
    let b = ("a/b.rs", "use super::Limit;\npub struct B(Limit);\n");
    let round = Crate::from_texts(&[("lib.rs", "mod a;\n"), thick, b]);
    assert_eq!(loops(&round).len(), 2);
}
