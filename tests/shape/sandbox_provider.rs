//! The boundary of a sandbox provider: only its own folder and the file that selects a provider
//! name it, so that a second provider touches few files.

use std::path::Path;

use crate::crates::{Crate, Module, crates};

/// Root files of the crates that run sandboxes.
const ROOTS: &[&str] = &["worker/src/lib.rs", "cli/src/main.rs"];

/// The folder of the provider Docker.
const PROVIDER_FOLDER: &str = "sandbox/docker/";

/// The file that selects a provider from the settings.
const SELECTING_FILE: &str = "sandbox/connect.rs";

/// Names of the provider: its module, its main type, and the crate that it uses.
const PROVIDER_NAMES: &[&str] = &["docker", "Engine", "bollard"];

/// Returns whether a file may name the provider.
fn may_name_provider(file: &str) -> bool {
    file.contains(PROVIDER_FOLDER) || Path::new(file).ends_with(SELECTING_FILE)
}

/// Returns the paths of a module that name the provider.
fn provider_paths(module: &Module) -> impl Iterator<Item = String> {
    let imported = module.uses.iter().map(|import| &import.path);
    imported
        .chain(&module.paths)
        .filter(|path| {
            path.iter()
                .any(|segment| PROVIDER_NAMES.contains(&segment.as_str()))
        })
        .map(|path| path.join("::"))
}

/// Returns the file and the path of each place that names the provider and may not.
fn misplaced_names(parsed: &Crate) -> Vec<String> {
    parsed
        .modules
        .values()
        .filter(|module| !may_name_provider(&module.file))
        .flat_map(|module| {
            provider_paths(module).map(move |path| format!("{}: {path}", module.file))
        })
        .collect()
}

#[test]
fn only_one_file_outside_of_its_folder_names_a_provider() {
    let checked: Vec<Crate> = crates()
        .into_iter()
        .filter(|parsed| ROOTS.contains(&parsed.root.as_str()))
        .collect();
    assert_eq!(checked.len(), ROOTS.len(), "both crates are parsed");
    let found: Vec<String> = checked.iter().flat_map(misplaced_names).collect();
    assert!(found.is_empty(), "{found:#?}");
    let selects = checked.iter().flat_map(|parsed| parsed.modules.values());
    let selects = selects.filter(|module| module.file.ends_with(SELECTING_FILE));
    let names = selects.flat_map(provider_paths).count();
    assert!(names > 0, "{SELECTING_FILE} selects the provider");
}

#[test]
fn a_provider_that_is_named_elsewhere_is_found() {
    let docker = ("sandbox/docker/mod.rs", "pub struct Engine;\n");
    let connect = ("sandbox/connect.rs", "use super::docker::Engine;\n");
    let lib = ("lib.rs", "mod pool;\nmod sandbox;\nmod reaper;\n");
    let reaper = ("reaper.rs", "use crate::sandbox::connect;\n");
    let pool = (
        "pool.rs",
        "use crate::sandbox::{Sandbox, SandboxError};\n\
         fn f(e: SandboxError) { SandboxError::EngineRequest(e) }\n",
    );
    let sandbox = ("sandbox/mod.rs", "mod connect;\npub mod docker;\n");
    let fine = Crate::from_texts(&[lib, pool, reaper, sandbox, connect, docker]);
    assert_eq!(misplaced_names(&fine), Vec::<String>::new());

    let pool = (
        "pool.rs",
        "use crate::sandbox::{Sandbox, docker};\nfn f() -> bollard::Docker { g() }\n",
    );
    let sandbox = (
        "sandbox/mod.rs",
        "mod connect;\nmod docker;\npub use docker::Engine;\n",
    );
    let reaper = (
        "reaper.rs",
        "fn f(e: &crate::sandbox::Engine) { e.reap() }\n",
    );
    let found = misplaced_names(&Crate::from_texts(&[
        lib, pool, reaper, sandbox, connect, docker,
    ]));
    let want = [
        "pool.rs: crate::sandbox::docker",
        "pool.rs: bollard::Docker",
        "reaper.rs: crate::sandbox::Engine",
        "sandbox/mod.rs: docker::Engine",
    ];
    assert_eq!(found, want);
}
