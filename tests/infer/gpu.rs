//! A model that needs a GPU, with a fake of the driver's library.

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::Millis;
use sandhog_queue::ModelState;
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::jobs::bash;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::nvml::{FakeNvml, H100, T4};
use serde_json::{Value, json};

use crate::batches::wait_for_model;
use crate::fixture::ModelImageFixture;

const ROUTING: [(&str, &str); 2] = [("class", "gpu"), ("backoff_ms", "1")];

#[test]
fn a_model_has_a_gpu_until_somebody_else_needs_it_or_it_fails() {
    let mut space = TestNamespace::shared("gpu-model");
    let toy = ModelImageFixture::build(&space, "Toy", "min_warm = 0\n\n[gpu]\ncount = 1\n");
    let nvml = FakeNvml::build();
    let worker = toy
        .worker(&space)
        .set("GPU_LIBRARY", &nvml.setting())
        .set("GPU_ATTACH", "none")
        .set("GPU_CHECK_MS", "50")
        .start();
    let which = toy.job("gpus", Value::Null);
    let ask = |space: &mut TestNamespace| {
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
    assert_eq!(ask(&mut space), H100, "the model stays loaded");

    // A class without a GPU gives no access to a model that has one.
    let unrouted = space.run(&which);
    assert_eq!(unrouted.error.unwrap().code, "gpu_not_routed");

    // The model dies with its GPU and is loaded on the other one.
    nvml.set_faults("0 lost");
    eventually(WAIT_TIMEOUT, || {
        let log = worker.log();
        if log.contains("model server died") {
            return Ok(());
        }
        Err(log)
    });
    assert_eq!(ask(&mut space), T4);

    // The model is idle and holds the last GPU: it is unloaded for a job that needs a whole GPU.
    let program = Job {
        image: which.image.clone(),
        ..bash("echo $SANDHOG_GPUS")
    };
    let alone = space.submit_with(&program, &[("class", "gpu"), ("tenant", "other")]);
    let result = space.result(&alone);
    assert_eq!(result.gpus, [T4], "{result:?}");
    assert_eq!(result.stdout.lossy(), format!("{T4}\n"));
    assert!(worker.log().contains("model stopped"), "{}", worker.log());
    assert_eq!(ask(&mut space), T4, "the model is loaded again");
}

#[test]
fn a_model_that_waits_for_a_gpu_keeps_nothing_from_others() {
    let mut space = TestNamespace::shared("gpu-wait");
    let large = ModelImageFixture::build(&space, "Toy", "min_warm = 0\n\n[gpu]\ncount = 1\n");
    let small = ModelImageFixture::build(&space, "Toy", "");
    let nvml = FakeNvml::build();
    // Two jobs may be claimed for the one GPU, and the first has it alone.
    let _worker = ModelImageFixture::worker_of_all(&space)
        .set("GPU_SHARE", "2")
        .set("GPU_LIBRARY", &nvml.setting())
        .set("GPU_ATTACH", "none")
        .set("GPU_DEVICES", T4)
        .set("WORKER_MODELS", "1")
        .start();
    let holder = Job {
        image: large.name().clone(),
        limits: LimitOverrides {
            timeout_ms: Some(Millis(600_000)),
            ..LimitOverrides::default()
        },
        ..bash("echo has it; sleep 600")
    };
    let holder = space.submit_with(&holder, &ROUTING);
    let log = space.keys().log(&holder);
    assert_eq!(space.read_stream(&log, "0")[0].text("data"), "has it\n");
    let waits = large.job("gpus", Value::Null);
    let waits = space.submit_with(&waits, &[("class", "gpu"), ("tenant", "other")]);
    wait_for_model(&space, |model| model.state == ModelState::Loading);
    let answered = space.run(&small.job("identity", Value::Null));
    assert_eq!(answered.outcome, Outcome::Succeeded, "{answered:?}");
    space.cancel(&holder);
    let answered = space.result(&waits);
    assert_eq!(answered.value, Some(T4.into()), "{answered:?}");
}

#[test]
fn a_program_is_told_when_the_gpu_that_it_waits_for_is_its_own() {
    let mut space = TestNamespace::shared("gpu-own");
    let toy = ModelImageFixture::build(&space, "Toy", "min_warm = 0\n\n[gpu]\ncount = 1\n");
    let nvml = FakeNvml::build();
    let program = toy.program(
        r#"
def main():
    try:
        return ask("gpus", None)
    except sandhog.InferError as error:
        return [error.code, "that this program holds" in str(error)]
"#,
    );
    for (devices, want) in [
        (T4.to_owned(), json!(["no_gpu", true])),
        // The test does not depend on which of the two GPUs the program has: the model gets the
        // other.
        ("all".to_owned(), Value::Null),
    ] {
        let worker = toy
            .worker(&space)
            .set("GPU_LIBRARY", &nvml.setting())
            .set("GPU_ATTACH", "none")
            .set("GPU_DEVICES", &devices)
            .start();
        let id = space.submit_with(&program, &ROUTING);
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        let value = result.value.unwrap();
        if want.is_null() {
            assert!([T4, H100].contains(&value.as_str().unwrap()), "{value}");
            assert_ne!([value.as_str().unwrap()], *result.gpus, "not its own");
        } else {
            assert_eq!(value, want);
        }
        drop(worker);
    }
}
