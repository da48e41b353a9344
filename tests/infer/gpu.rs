//! A model that wants a GPU, with a driver's library that is a stand-in.

use sandhog_common::job::Job;
use sandhog_common::outcome::Outcome;
use sandhog_tests::jobs::bash;
use sandhog_tests::nvml::{H100, StandIn, T4};
use sandhog_tests::space::Space;
use serde_json::Value;

use crate::ground::Toy;

const ROUTING: [(&str, &str); 2] = [("class", "gpu"), ("backoff_ms", "1")];

#[test]
fn a_model_has_a_gpu_until_somebody_else_needs_it_or_it_fails() {
    let mut space = Space::shared("gpu-model");
    let toy = Toy::build(&space, "Toy", "min_warm = 0\n\n[gpu]\ncount = 1\n");
    let stand_in = StandIn::build();
    let worker = toy
        .worker(&space)
        .set("GPU_LIBRARY", &stand_in.setting())
        .set("GPU_ATTACH", "none")
        .set("GPU_CHECK_MS", "50")
        .start();
    let which = toy.job("gpus", Value::Null);
    let ask = |space: &mut Space| {
        let id = space.submit_with(&which, &ROUTING);
        let result = space.result(&id);
        assert_eq!(
            result.outcome,
            Outcome::Succeeded,
            "{result:?}\n{}",
            worker.log()
        );
        result.value.unwrap()
    };
    assert_eq!(ask(&mut space), H100);
    assert_eq!(ask(&mut space), H100, "it stays loaded");

    // A class that does not ask for a GPU is no way to a model that has one.
    let unrouted = space.run(&which);
    assert_eq!(unrouted.error.unwrap().code, "gpu_not_routed");

    // It dies with its GPU, and is loaded on the other one.
    stand_in.say("0 lost");
    while !worker.log().contains("model server died") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(ask(&mut space), T4);

    // It is idle and holds the last one: a job that wants a whole GPU makes it go.
    let program = Job {
        image: which.image.clone(),
        ..bash("echo $SANDHOG_GPUS")
    };
    let alone = space.submit_with(&program, &[("class", "gpu"), ("tenant", "other")]);
    let result = space.result(&alone);
    assert_eq!(result.gpus, [T4], "{result:?}");
    assert_eq!(result.stdout.lossy(), format!("{T4}\n"));
    assert!(worker.log().contains("model stopped"), "{}", worker.log());
    assert_eq!(ask(&mut space), T4, "and comes back");
}
