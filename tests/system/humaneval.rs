//! Every HumanEval problem, each as one job: the canonical solution passes its tests, and a
//! function that returns nothing fails them. The failure is a result, not an internal error.
//!
//! The expected result comes from plain Python without Sandhog, which runs the same programs in the
//! same test.

use std::collections::HashMap;
use std::process::Command;

use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::worker::WorkerSpec;
use sandhog_testkit::{environment, jobs};
use serde_json::Value;

/// One problem, with two programs and the result of each in plain Python: the type of the
/// exception, or none.
struct Problem {
    name: String,
    solved: String,
    empty: String,
    solved_exception: Option<String>,
    empty_exception: Option<String>,
}

fn problems() -> Vec<Problem> {
    let run = Command::new(environment::python_with_clients())
        .arg(environment::checkout().join("tests/system/python/humaneval.py"))
        .output()
        .expect("python starts");
    assert!(
        run.status.success(),
        "{}\nhint: run scripts/test once, which installs what tests/system/python/*.txt name",
        String::from_utf8_lossy(&run.stderr)
    );
    let list: Vec<Value> = serde_json::from_slice(&run.stdout).expect("the script prints JSON");
    let text = |problem: &Value, field: &str| problem[field].as_str().map(str::to_owned);
    let program = |problem: &Value, field| text(problem, field).expect("a problem has programs");
    list.iter()
        .map(|problem| Problem {
            name: program(problem, "name"),
            solved: program(problem, "solved"),
            empty: program(problem, "empty"),
            solved_exception: text(problem, "solved_exception"),
            empty_exception: text(problem, "empty_exception"),
        })
        .collect()
}

/// Submits every program and reads all results from the stream `reply`.
fn run_all<'a>(
    space: &mut TestNamespace,
    reply: &str,
    programs: impl Iterator<Item = &'a str>,
) -> Vec<JobResult> {
    let ids: Vec<JobId> = programs
        .map(|code| space.submit_with(&jobs::python(code), &[("reply", reply)]))
        .collect();
    let reply = space
        .keys()
        .reply(&reply.parse().expect("a literal name is valid"));
    let mut results: HashMap<JobId, JobResult> = space
        .read_stream_until(&reply, ids.len())
        .iter()
        .map(|entry| decode(entry.bytes("result").expect("a reply holds the result")))
        .map(|result| (result.id.clone(), result))
        .collect();
    assert_eq!(results.len(), ids.len(), "one result for each job");
    ids.iter()
        .map(|id| results.remove(id).expect("every job has a result"))
        .collect()
}

#[test]
fn canonical_solutions_pass_and_empty_ones_fail_their_tests() {
    let problems = problems();
    assert_eq!(problems.len(), 164);
    let mut space = TestNamespace::shared("humaneval");
    let _worker = WorkerSpec::of(&space).start();

    let solved = run_all(
        &mut space,
        "solved",
        problems.iter().map(|p| p.solved.as_str()),
    );
    for (problem, result) in problems.iter().zip(&solved) {
        assert_eq!(
            (result.outcome, &result.exception, &problem.solved_exception),
            (Outcome::Succeeded, &None, &None),
            "problem {}: {result:?}",
            problem.name
        );
    }

    let empty = run_all(
        &mut space,
        "empty",
        problems.iter().map(|p| p.empty.as_str()),
    );
    let mut rejected = 0;
    for (problem, result) in problems.iter().zip(&empty) {
        let raised = result.exception.as_ref().map(|e| e.name.clone());
        assert_eq!(raised, problem.empty_exception, "problem {}", problem.name);
        match &result.exception {
            None => assert_eq!(result.outcome, Outcome::Succeeded, "{}", problem.name),
            Some(exception) => {
                rejected += 1;
                assert_eq!(result.outcome, Outcome::Failed, "{}", problem.name);
                assert_eq!(result.error, None, "it is a result, not an error of ours");
                assert!(
                    exception.traceback.contains("in check"),
                    "problem {}: the traceback shows the failing test: {}",
                    problem.name,
                    exception.traceback
                );
            }
        }
    }
    assert!(
        rejected > 0,
        "some tests reject a function that does nothing"
    );
    assert_eq!(
        space.stream_now(&space.keys().dead()),
        [],
        "a failed program is no dead letter"
    );
}
