//! The same programs under gVisor, except those that test something else there.
//!
//! A container runs only one job there, so no later job could find a trace. The test therefore
//! checks only that the result matches the program's header and that the host was not reached. The
//! worker is configured like that of a site that lets jobs choose their runtime.

use std::io::ErrorKind;
use std::net::TcpListener;

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::units::Millis;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::json;

use super::{fixture, programs};

/// Groups that run. The group about time only tests the runner's clock, which is the same under
/// every runtime.
const GROUPS: [&str; 7] = [
    "files",
    "grading",
    "information",
    "memory",
    "network",
    "output",
    "processes",
];

/// Programs with another result under gVisor, and the reason. None of them reaches the host. The
/// walls under gVisor are described in docs/concepts/security.md, "Under a kernel of its own".
const DIFFERENT_UNDER_GVISOR: [(&str, &str); 21] = [
    (
        "files/descriptors_of_many",
        "open files are its kernel's, and cost memory, so that runs out first",
    ),
    (
        "files/devices",
        "a tmpfs of this gVisor takes device nodes, of which none leads anywhere",
    ),
    (
        "files/inodes",
        "the number of files is capped by memory alone",
    ),
    (
        "files/secrets",
        "/proc shows the cell's init, which holds nothing of ours",
    ),
    (
        "information/message",
        "the next job would be in another container",
    ),
    (
        "files/terminals",
        "its terminals are its own kernel's and have no cap of ours",
    ),
    (
        "files/terminals_of_many",
        "its terminals are its own kernel's and have no cap of ours",
    ),
    ("information/processes", "/proc shows the cell's init"),
    ("information/runner", "/proc shows the cell's init"),
    (
        "memory/mapped_files",
        "its kernel's files are not the machine's, and cost its own memory",
    ),
    (
        "memory/stack_of_all",
        "nothing counts stacks there, so they are 8 MiB and that runs out first",
    ),
    (
        "memory/whole_container",
        "the score is noted and means nothing: the container ends as a whole",
    ),
    (
        "memory/untouchable",
        "the score is noted and means nothing: the container ends as a whole",
    ),
    ("network/listener", "its abstract sockets take no such name"),
    ("output/packets", "its pipes have no packets"),
    ("output/packets_by_turns", "its pipes have no packets"),
    (
        "processes/capabilities",
        "its /proc has no line for ambient capabilities",
    ),
    (
        "processes/foreign_code",
        "a 32-bit call is answered by gVisor's kernel, and the host's never sees it",
    ),
    (
        "processes/fork_bomb",
        "processes cost more memory, so that runs out first",
    ),
    (
        "processes/fork_bomb_of_all",
        "processes cost more memory, so that runs out first",
    ),
    (
        "processes/realtime",
        "priorities are noted and mean nothing",
    ),
];

/// Time limit that replaces each program's own: none of these programs is about time, and system
/// calls take far longer under gVisor.
const PROGRAM_TIMEOUT: Millis = Millis(600_000);

#[test]
fn what_means_the_same_is_contained_the_same() {
    let mut space = TestNamespace::shared("hostile-gvisor");
    let _worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "30000")
        .set("SANDBOX_JOB_RUNTIMES", "runsc")
        .start();
    let listener = TcpListener::bind(("0.0.0.0", 0)).expect("the machine has a free port");
    listener
        .set_nonblocking(true)
        .expect("a listener can be nonblocking");
    let port = listener.local_addr().expect("a listener has a port").port();
    let input = json!({"hosts": fixture::host_addresses(), "port": port});

    let chosen: Vec<_> = GROUPS
        .iter()
        .flat_map(|group| programs::of(group))
        .filter(|program| {
            DIFFERENT_UNDER_GVISOR
                .iter()
                .all(|(name, _why)| *name != program.name)
        })
        .collect();
    let ids: Vec<_> = chosen
        .iter()
        .map(|program| {
            let job = program.job(&input);
            space.submit(&Job {
                runtime: Some("runsc".parse().expect("a literal name is valid")),
                limits: LimitOverrides {
                    timeout_ms: Some(PROGRAM_TIMEOUT),
                    ..job.limits
                },
                ..job
            })
        })
        .collect();
    let mut wrong = Vec::new();
    for (program, id) in chosen.iter().zip(&ids) {
        let result = space.result(id);
        let mut differences = program.header.differences_if_counted(&result);
        if result.runtime.as_deref() != Some("runsc") {
            differences.push(format!("runtime is {:?}", result.runtime));
        }
        if !differences.is_empty() {
            let name = &program.name;
            let differences = differences.join(", ");
            wrong.push(format!(
                "{name}: {differences}: {}",
                fixture::describe(&result)
            ));
        }
    }
    if !matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        wrong.push("the host's listener was reached".to_owned());
    }
    assert!(wrong.is_empty(), "not contained:\n{}", wrong.join("\n"));
    fixture::print_line(&format!(
        "hostile: {} programs under gVisor, all as expected",
        chosen.len()
    ));
}
