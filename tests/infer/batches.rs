//! Jobs that share a call, and what each is told.

use sandhog_common::job::Job;
use sandhog_common::outcome::Outcome;
use sandhog_tests::space::Space;
use serde_json::{Value, json};

use crate::ground::{Toy, run_all};

#[test]
fn waiting_jobs_are_gathered_and_hold_no_slot() {
    let mut space = Space::shared("gather");
    // A batch is only full with four jobs, and the worker has two slots.
    let toy = Toy::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let _worker = toy.worker(&space).start();
    let jobs: Vec<Job> = (0..4).map(|i| toy.job("echo", i)).collect();
    for (i, result) in run_all(&mut space, &jobs).iter().enumerate() {
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        let want = json!({"input": i, "together": 4});
        assert_eq!(result.value, Some(want));
        assert_eq!(result.attempts, 1);
    }
}

#[test]
fn a_bad_input_fails_alone() {
    let mut space = Space::shared("bad");
    let toy = Toy::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let _worker = toy.worker(&space).start();
    for (bad, exception) in [("raise", "ValueError"), ("worse", "KeyError")] {
        let jobs = ["a", bad, "b", "c"].map(|input| toy.job("echo", input));
        let results = run_all(&mut space, &jobs);
        let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
        use Outcome::{Failed, Succeeded};
        assert_eq!(outcomes, [Succeeded, Failed, Succeeded, Succeeded], "{bad}");
        let raised = results[1].exception.as_ref().unwrap();
        assert_eq!(raised.name, exception);
    }
}

#[test]
fn a_server_that_dies_in_mid_batch_costs_no_other_job_its_result() {
    let mut space = Space::shared("dies");
    let toy = Toy::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let worker = toy.worker(&space).start();
    let jobs = ["a", "die", "b", "c"].map(|input| toy.job("echo", input));
    let routing = [("reply", "all"), ("backoff_ms", "1")];
    let ids: Vec<_> = jobs
        .iter()
        .map(|job| space.submit_with(job, &routing))
        .collect();
    for (id, input) in ids.iter().zip(["a", "die", "b", "c"]) {
        let result = space.result(id);
        if input == "die" {
            assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
            let error = result.error.unwrap();
            assert_eq!(error.code, "attempts_lost");
            assert!(error.message.contains("signal 9"), "{}", error.message);
        } else {
            assert_eq!(result.outcome, Outcome::Succeeded, "{}", worker.log());
            let value = result.value.unwrap();
            assert_eq!(value["input"], Value::from(input));
            assert_eq!(
                value["together"],
                Value::from(1),
                "lost ones are asked alone"
            );
        }
    }
    let reply = space.keys().reply(&"all".parse().unwrap());
    assert_eq!(space.stream_now(&reply).len(), 4, "one result for each job");
}
