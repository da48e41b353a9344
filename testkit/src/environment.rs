//! The environment of a test run: built programs, the shared Redis, a Python interpreter, Node
//! modules.
//!
//! Each item has a default that fits a checkout and a `SANDHOG_TEST_…` variable. A missing item
//! fails the test with a hint: a suite that was asked for does not skip itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandhog_config::SandboxUnit;

/// Returns the URL of the Redis that tests share: `SANDHOG_TEST_REDIS_URL`, or else the server on
/// this machine.
#[must_use]
pub fn redis_url() -> String {
    variable("SANDHOG_TEST_REDIS_URL").unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned())
}

/// Returns the server program that tests start themselves: `SANDHOG_TEST_REDIS_SERVER`, for example
/// `valkey-server`, or else `redis-server`.
#[must_use]
pub fn redis_server() -> String {
    variable("SANDHOG_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".to_owned())
}

/// Returns the reference of the images under test, with `{name}` for the name:
/// `SANDHOG_TEST_IMAGE_REFERENCE`, or else that of the settings' default.
#[must_use]
pub fn image_reference() -> String {
    variable("SANDHOG_TEST_IMAGE_REFERENCE").unwrap_or_else(|| "sandhog/{name}:latest".to_owned())
}

/// Returns the unit in which the workers under test make sandboxes: `SANDHOG_TEST_SANDBOX_UNIT`,
/// which is `container` or `sandbox`, or else a container.
///
/// # Panics
/// Panics if the variable has another value.
#[must_use]
pub fn sandbox_unit() -> SandboxUnit {
    match variable("SANDHOG_TEST_SANDBOX_UNIT").as_deref() {
        None | Some("container") => SandboxUnit::Container,
        Some("sandbox") => SandboxUnit::Sandbox,
        Some(other) => panic!(
            "SANDHOG_TEST_SANDBOX_UNIT is {other:?}; allowed are \"container\" and \"sandbox\""
        ),
    }
}

/// Returns whether keepers make the sandboxes of the workers under test.
#[must_use]
pub fn uses_keepers() -> bool {
    sandbox_unit() == SandboxUnit::Sandbox
}

/// Returns the path of the `sandhog` program of the same build as the running test.
///
/// # Panics
/// Panics if it has not been built.
#[must_use]
pub fn sandhog() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // Cargo puts a test into the folder `deps` of the profile, and a benchmark beside the program
    // itself.
    let path = test
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .map(|profile| profile.join("sandhog"))
        .expect("a program stands in a folder");
    existing(
        path,
        "run scripts/build dev first, or test the whole workspace: cargo builds no program for one \
         suite",
    )
}

/// Returns the path of the runner that can leave out a wall. `scripts/build dev` puts it beside
/// [`sandhog`].
///
/// # Panics
/// Panics if it has not been built.
#[must_use]
pub fn runner_that_can_lack_a_wall() -> PathBuf {
    let path = sandhog().with_file_name("sandhog-runner-walls-down");
    existing(path, "run scripts/build dev first")
}

/// Returns a command for `sandhog` without the settings of the person who runs the tests.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this looks at names only, to keep settings out of the program under test"
)]
pub fn sandhog_command() -> Command {
    let mut command = Command::new(sandhog());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SANDHOG_") {
            command.env_remove(name);
        }
    }
    command
}

/// Returns variables that make `home` the only folder of the user that a program knows: for
/// settings, state and temporary files.
#[must_use]
pub fn home_environment(home: &Path) -> Vec<(String, OsString)> {
    ["HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"]
        .map(|name| (name.to_owned(), home.as_os_str().to_owned()))
        .to_vec()
}

/// Returns a Python interpreter with the packages of `tests/system/python/*.txt`:
/// `SANDHOG_TEST_PYTHON`, or else the environment that `scripts/test` makes.
///
/// # Panics
/// Panics if there is none.
#[must_use]
pub fn python_with_clients() -> PathBuf {
    let path = variable("SANDHOG_TEST_PYTHON").map_or_else(
        || checkout().join("target/test-python/bin/python3"),
        PathBuf::from,
    );
    existing(
        path,
        "run scripts/test once, or name an interpreter in SANDHOG_TEST_PYTHON",
    )
}

/// Returns a folder with the `redis` package for Node: `SANDHOG_TEST_NODE_MODULES`, or else the
/// folder that `scripts/test` makes.
///
/// # Panics
/// Panics if there is none.
#[must_use]
pub fn node_modules() -> PathBuf {
    let path = variable("SANDHOG_TEST_NODE_MODULES").map_or_else(
        || checkout().join("target/test-node/node_modules"),
        PathBuf::from,
    );
    existing(
        path,
        "run scripts/test once, or name a folder in SANDHOG_TEST_NODE_MODULES",
    )
}

/// Returns the words of the compose command to test with: `SANDHOG_TEST_COMPOSE`, or else
/// `docker-compose`.
#[must_use]
pub fn compose() -> Vec<String> {
    variable("SANDHOG_TEST_COMPOSE")
        .unwrap_or_else(|| "docker-compose".to_owned())
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Returns the root folder of the checkout.
#[must_use]
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is a folder of the checkout")
}

/// Returns whether tests of generated files write them instead of comparing them:
/// `SANDHOG_TEST_WRITE`.
#[must_use]
pub fn writes() -> bool {
    variable("SANDHOG_TEST_WRITE").is_some()
}

fn existing(path: PathBuf, hint: &str) -> PathBuf {
    assert!(
        path.exists(),
        "{} does not exist\nhint: {hint}",
        path.display()
    );
    path
}

#[expect(
    clippy::disallowed_methods,
    reason = "test settings are not settings of the product, so sandhog-config leaves them alone"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
