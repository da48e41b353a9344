//! Directories whose defaults depend on the machine.

use std::path::PathBuf;

use super::environment::{Environment, program_dir};
use super::settings::{SandboxSettings, Settings};

/// Returns the data directory of the Redis server that `sandhog up` starts: `state.dir`, else
/// `sandhog` in the user's state directory.
///
/// None if neither `state.dir` nor `HOME` is set.
#[must_use]
pub fn state_dir(settings: &Settings, environment: &Environment) -> Option<PathBuf> {
    settings
        .state
        .dir
        .clone()
        .or_else(|| Some(environment.state_home()?.join("sandhog")))
}

/// Returns the folder that contains one folder for each image: `sandbox.images_dir`, else the first
/// existing one of `../share/sandhog/images` relative to this program's folder and `images` in a
/// checkout above it.
#[must_use]
pub fn images_dir(settings: &Settings) -> Option<PathBuf> {
    if let Some(folder) = &settings.sandbox.images_dir {
        return Some(folder.clone());
    }
    let program = program_dir()?;
    let shared = program.parent()?.join("share/sandhog/images");
    let checkouts = program
        .ancestors()
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| folder.join("images"));
    std::iter::once(shared)
        .chain(checkouts)
        .find(|folder| folder.is_dir())
}

/// Returns the directories in which a worker may make the sockets of its keepers, the best first:
/// `sandbox.sockets_dir` alone if it is set, else `XDG_RUNTIME_DIR`, `/run`, and the directory for
/// temporary files.
#[must_use]
pub fn socket_dirs(settings: &SandboxSettings, environment: &Environment) -> Vec<PathBuf> {
    if let Some(set) = &settings.sockets_dir {
        return vec![set.clone()];
    }
    let own = environment.path("XDG_RUNTIME_DIR");
    own.into_iter()
        .chain([PathBuf::from("/run"), std::env::temp_dir()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_for_sockets_that_is_set_is_the_only_one() {
        let environment = Environment::of([("XDG_RUNTIME_DIR", "/run/user/1000")]);
        let settings = SandboxSettings::default();
        let found = socket_dirs(&settings, &environment);
        assert_eq!(found.first(), Some(&PathBuf::from("/run/user/1000")));
        let settings = SandboxSettings {
            sockets_dir: Some("/srv/sockets".into()),
            ..settings
        };
        let found = socket_dirs(&settings, &environment);
        assert_eq!(found, [PathBuf::from("/srv/sockets")]);
    }
}
