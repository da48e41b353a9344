//! The Python package of `clients/python`: its own tests, run with pytest.
//!
//! Each group of files has a test here, because each starts a worker. pytest starts the worker
//! itself, so the files also run without cargo.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sandhog_testkit::environment;

const CHECKS: &[&str] = &[
    "test_pages.py",
    "test_unit_address.py",
    "test_unit_job.py",
    "test_unit_result.py",
];
const DOCSTRINGS: &[&str] = &["test_docstrings.py"];
const JOBS: &[&str] = &["test_jobs.py", "test_outcomes.py", "test_schedules.py"];
const MAPS: &[&str] = &["test_functions.py", "test_map.py"];
const REDIS: &[&str] = &["test_redis.py"];

fn package() -> PathBuf {
    environment::checkout().join("clients/python")
}

fn pytest(files: &[&str]) {
    let run = Command::new(environment::python_with_clients())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .args(files.iter().map(|file| format!("tests/{file}")))
        .current_dir(package())
        .env("SANDHOG_TEST_PROGRAM", environment::sandhog())
        .env("SANDHOG_TEST_REDIS_URL", environment::redis_url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python starts");
    assert!(
        run.status.success(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn every_file_of_the_package_is_in_a_group() {
    let found: BTreeSet<String> = fs::read_dir(package().join("tests"))
        .expect("the package has tests")
        .map(|entry| entry.expect("a folder can be read").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("test_"))
        .collect();
    let grouped: BTreeSet<String> = [CHECKS, DOCSTRINGS, JOBS, MAPS, REDIS]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(found, grouped);
}

#[test]
fn checks_pages_and_units() {
    pytest(CHECKS);
}

#[test]
fn examples_of_docstrings() {
    pytest(DOCSTRINGS);
}

#[test]
fn jobs_outcomes_and_schedules() {
    pytest(JOBS);
}

#[test]
fn maps_functions_and_models() {
    pytest(MAPS);
}

#[test]
fn outages_permissions_and_topologies_of_redis() {
    pytest(REDIS);
}
