//! Names of types and files: a type name has one meaning in a crate, and a file is named for one of
//! its public items. A `mod.rs` only declares modules and passes names on, so its folder may be
//! named for a subject.

use std::collections::BTreeMap;
use std::path::Path;

use crate::crates::{Crate, crates};

/// Type names that may occur twice in a crate: the folder of the crate, the name and the reason.
const SAME_NAME: &[(&str, &str, &str)] = &[];

/// Files without a public item of their name: the path, which may be only an end, and the reason.
const OTHER_NAME: &[(&str, &str)] = &[
    ("mod.rs", "has no items of its own"),
    ("lib.rs", "the root of a library"),
    ("main.rs", "the root of a program"),
    ("error.rs", "holds the error type of its folder"),
    ("tests.rs", "holds tests"),
    (
        "runner/src/cell/fd_passing.rs",
        "passes descriptors with two functions",
    ),
];

/// Returns each type name that several modules of a crate define, with their files.
fn repeated_types(parsed: &Crate) -> BTreeMap<&str, Vec<&str>> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in parsed.modules.values() {
        for name in &module.types {
            files.entry(name).or_default().push(&module.file);
        }
    }
    files.retain(|_, files| files.len() > 1);
    files
}

/// Returns the public names in each file of a crate.
fn public_names(parsed: &Crate) -> BTreeMap<&str, Vec<&str>> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in parsed.modules.values() {
        let names = files.entry(&module.file).or_default();
        names.extend(module.public.iter().map(String::as_str));
    }
    files
}

/// Returns each `mod.rs` of a crate that contains items of its own.
fn thick_folders(parsed: &Crate) -> Vec<&str> {
    let modules = parsed.modules.values();
    modules
        .filter(|module| Path::new(&module.file).ends_with("mod.rs") && module.has_own_items)
        .map(|module| module.file.as_str())
        .collect()
}

/// Returns whether a file is named for one of its public items. The name may be their plural.
fn is_named_for_an_item(file: &str, public: &[&str]) -> bool {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let stem = Path::new(file).file_stem().unwrap_or_default();
    let name = plain(&stem.to_string_lossy());
    let one = name.strip_suffix('s').unwrap_or(&name);
    public.iter().any(|item| plain(item).contains(one))
}

#[test]
fn a_type_name_has_one_meaning_in_a_crate() {
    let mut found = Vec::new();
    for parsed in crates() {
        for (name, files) in repeated_types(&parsed) {
            let listed = SAME_NAME
                .iter()
                .any(|(folder, listed, _)| parsed.root.starts_with(folder) && *listed == name);
            if !listed {
                found.push(format!("{name}: {files:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_file_is_named_for_one_of_its_items() {
    let mut found = Vec::new();
    for parsed in crates() {
        for (file, public) in public_names(&parsed) {
            let listed = OTHER_NAME.iter().any(|(end, _)| file.ends_with(end));
            if !listed && !is_named_for_an_item(file, &public) {
                found.push(format!("{file}: {public:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_folder_has_its_logic_in_named_files() {
    let crates = crates();
    let found: Vec<&str> = crates.iter().flat_map(thick_folders).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_repeated_type_is_found() {
    let parsed = Crate::from_texts(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "struct State;\nstruct Other;\n"),
        ("b.rs", "enum State {}\nfn f() { struct Other; }\n"),
    ]);
    let found = repeated_types(&parsed);
    assert_eq!(found, BTreeMap::from([("State", vec!["a.rs", "b.rs"])]));
}

#[test]
fn a_file_with_another_name_is_found() {
    let parsed = Crate::from_texts(&[
        ("lib.rs", "mod load_permits;\nmod seats;\nmod pool;\n"),
        (
            "load_permits.rs",
            "struct Hidden;\npub struct LoadPermits;\n",
        ),
        ("seats.rs", "struct Seats;\npub fn take() {}\n"),
        ("pool/mod.rs", "mod budget;\npub use budget::PoolBudget;\n"),
        ("pool/budget.rs", "pub struct PoolBudget;\n"),
    ]);
    assert_eq!(thick_folders(&parsed), Vec::<&str>::new());
    let found: Vec<&str> = public_names(&parsed)
        .into_iter()
        .filter(|(file, public)| !is_named_for_an_item(file, public))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(found, ["lib.rs", "pool/mod.rs", "seats.rs"]);
}

#[test]
fn a_folder_with_logic_is_found() {
    let lib = ("lib.rs", "mod a;\n");
    let thick = Crate::from_texts(&[
        lib,
        ("a/mod.rs", "use std::fmt;\nimpl fmt::Debug for A {}\n"),
    ]);
    assert_eq!(thick_folders(&thick), ["a/mod.rs"]);
}
