//! Hostile programs, sent through the queue: each must be contained and leave nothing behind.
//!
//! Each file in `programs/<group>/` is one job, and its header states the required result
//! ([`header`]). A group runs on one worker with one container, which runs all of its jobs. After
//! each program, the next job in the container finds no trace of it, the container is the same and
//! has no additional process, and the worker is idle again ([`fixture`]).

mod fixture;
mod gvisor;
mod header;
mod leak_check;
mod programs;
mod walls;

use std::collections::BTreeSet;

use fixture::HostileFixture;
use programs::Program;

/// Runs a group and reports every program that was not contained, not only the first.
fn run(group: &str) {
    let programs = programs::of(group);
    let mut fixture = HostileFixture::new(group);
    let mut wrong = Vec::new();
    for program in &programs {
        wrong.extend(fixture.run(program));
    }
    wrong.extend(fixture.end());
    assert!(wrong.is_empty(), "not contained:\n{}", wrong.join("\n"));
    fixture::print_line(&format!(
        "hostile: {} programs of group {group}, all as expected{}",
        programs.len(),
        fixture.latest()
    ));
}

#[test]
fn time() {
    run("time");
}

#[test]
fn memory() {
    run("memory");
}

#[test]
fn processes() {
    run("processes");
}

#[test]
fn output() {
    run("output");
}

#[test]
fn displays() {
    run("displays");
}

#[test]
fn files() {
    run("files");
}

#[test]
fn network() {
    run("network");
}

#[test]
fn information() {
    run("information");
}

#[test]
fn grading() {
    run("grading");
}

#[test]
fn the_suite_is_whole() {
    let run = [
        "time",
        "memory",
        "processes",
        "output",
        "displays",
        "files",
        "network",
        "information",
        "grading",
    ];
    let there = programs::groups();
    assert_eq!(
        there,
        BTreeSet::from(run.map(str::to_owned)),
        "every folder has its test"
    );
    let all: Vec<Program> = run.iter().flat_map(|group| programs::of(group)).collect();
    fixture::print_line(&format!("hostile: {} programs in all", all.len()));
    assert!(all.len() >= 80, "{} programs are too few", all.len());
    let held: BTreeSet<_> = all
        .iter()
        .filter_map(|program| program.header.wall.clone())
        .collect();
    assert_eq!(
        held,
        BTreeSet::from(header::WALLS.map(str::to_owned)),
        "every wall has a program that tries it"
    );
}

#[test]
fn the_security_page_names_programs_that_exist() {
    let page = sandhog_testkit::environment::checkout().join("docs/concepts/security.md");
    let page = std::fs::read_to_string(page).expect("the security page can be read");
    let names: Vec<String> = programs::groups()
        .iter()
        .flat_map(|group| programs::of(group))
        .map(|program| program.name)
        .collect();
    let groups = programs::groups();
    let mut named = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let program = quoted
            .split_once('/')
            .is_some_and(|(group, _)| groups.contains(group));
        if program {
            named += 1;
            assert!(
                names.iter().any(|name| name == quoted),
                "docs/concepts/security.md names {quoted}, which is no program"
            );
        }
    }
    assert!(
        named > 20,
        "docs/concepts/security.md names only {named} programs"
    );
}
