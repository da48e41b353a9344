//! Loading and unloading of models.

use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL};
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::worker::WorkerProcess;
use serde_json::Value;

use crate::fixture::{ModelImageFixture, run_all};

#[test]
fn a_server_stays_until_it_is_idle_and_comes_back() {
    let mut space = TestNamespace::shared("idle");
    let toy = ModelImageFixture::build(&space, "Toy", "idle_timeout_s = 1\n");
    let _worker = toy.worker(&space).start();
    let first = space.run(&toy.job("identity", Value::Null)).value.unwrap();
    let namespace = space.namespace().as_str().to_owned();
    // The sandbox is gone, not only the model's memory.
    let _none =
        Engine::connect().wait_for_sandboxes(NAMESPACE_LABEL, &namespace, <[String]>::is_empty);
    let second = space.run(&toy.job("identity", Value::Null)).value.unwrap();
    assert_ne!(first, second, "loaded again");
}

#[test]
fn a_warm_model_is_loaded_before_the_worker_takes_jobs() {
    let mut space = TestNamespace::shared("warm");
    let toy = ModelImageFixture::build(&space, "Toy", "min_warm = 1\nidle_timeout_s = 0\n");
    let mut worker = toy.worker(&space).start();
    assert!(worker.log().contains("model loaded"), "{}", worker.log());
    let engine = Engine::connect();
    let namespace = space.namespace().as_str().to_owned();
    let warm = engine.sandboxes_with_label(NAMESPACE_LABEL, &namespace);
    assert_eq!(warm.len(), 1);

    let jobs = [(); 2].map(|()| toy.job("identity", Value::Null));
    let born: Vec<_> = run_all(&mut space, &jobs);
    assert_eq!(born[0].value, born[1].value, "one server, never idle");
    assert_eq!(
        engine.sandboxes_with_label(NAMESPACE_LABEL, &namespace),
        warm
    );
    assert_eq!(worker.log().matches("model loaded").count(), 1);

    assert!(worker.drain().success());
    let left = engine.containers_with_label(NAMESPACE_LABEL, &namespace);
    assert!(left.is_empty(), "containers are left: {left:?}");
}

/// Waits until the worker's log contains a text this many times.
fn wait_for(worker: &WorkerProcess, said: &str, times: usize) {
    eventually(WAIT_TIMEOUT, || {
        let log = worker.log();
        if log.matches(said).count() >= times {
            return Ok(());
        }
        Err(log)
    });
}

#[test]
fn a_warm_model_that_is_built_later_or_again_is_loaded_before_anybody_asks() {
    let mut space = TestNamespace::shared("later");
    let worker = ModelImageFixture::worker_of_all(&space).start();
    let toy = ModelImageFixture::build(&space, "Toy", "min_warm = 1\n");
    wait_for(&worker, "model loaded", 1);
    toy.rebuild("min_warm = 1\nmax_batch = 2\n");
    wait_for(&worker, "model loaded", 2);
    let engine = Engine::connect();
    let namespace = space.namespace().as_str().to_owned();
    let only_one = |sandboxes: &[String]| sandboxes.len() == 1;
    let loaded = engine.wait_for_sandboxes(NAMESPACE_LABEL, &namespace, only_one);
    let asked = space.run(&toy.job("echo", 1));
    assert_eq!(asked.outcome, Outcome::Succeeded, "{asked:?}");
    assert_eq!(
        engine.sandboxes_with_label(NAMESPACE_LABEL, &namespace),
        loaded
    );

    // A build without `min_warm` is loaded on demand, like any other model.
    toy.rebuild("min_warm = 0\n");
    let none = engine.wait_for_sandboxes(NAMESPACE_LABEL, &namespace, <[String]>::is_empty);
    assert_eq!(none, Vec::<String>::new(), "the old build is unloaded");
    assert_eq!(worker.log().matches("model loaded").count(), 2);
}

#[test]
fn one_place_is_left_for_models_that_are_asked_for() {
    let mut space = TestNamespace::shared("stays");
    let toy = ModelImageFixture::build(&space, "Toy", "min_warm = 1\nidle_timeout_s = 0\n");
    let other = ModelImageFixture::build(&space, "Toy", "min_warm = 1\nidle_timeout_s = 0\n");
    let worker = ModelImageFixture::worker_of_all(&space)
        .set("WORKER_MODELS", "2")
        .start();
    wait_for(&worker, "no place to keep this model loaded", 1);
    for toy in [&toy, &other] {
        let asked = space.run(&toy.job("echo", 1));
        assert_eq!(asked.outcome, Outcome::Succeeded, "{asked:?}");
    }
    let namespace = space.namespace().as_str().to_owned();
    let only_one = |sandboxes: &[String]| sandboxes.len() == 1;
    let kept = Engine::connect().wait_for_sandboxes(NAMESPACE_LABEL, &namespace, only_one);
    assert_eq!(kept.len(), 1, "the model without room has been unloaded");
    drop(worker);

    let worker = ModelImageFixture::worker_of_all(&space)
        .set("WORKER_MODELS", "1")
        .start();
    wait_for(&worker, "no place to keep this model loaded", 2);
}

#[test]
fn a_model_that_cannot_be_loaded_is_a_dead_letter_with_its_log() {
    let mut space = TestNamespace::shared("broken");
    for (class, serve, parts) in [
        (
            "Broken",
            "",
            [
                "FileNotFoundError: no weights here",
                "looking for the weights",
            ],
        ),
        (
            "Slow",
            "load_timeout_s = 1\n",
            ["not ready within 1 s", "this takes a while"],
        ),
    ] {
        let toy = ModelImageFixture::build(&space, class, serve);
        let worker = toy.worker(&space).start();
        let id = space.submit(&toy.job("echo", 1));
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Lost, "{class}");
        assert_eq!(result.attempts, 1, "a retry would not help");
        let error = result.error.unwrap();
        assert_eq!(error.code, "model_not_loaded");
        for part in parts {
            assert!(error.message.contains(part), "{}", error.message);
        }
        let dead = space.keys().dead();
        let letters = space.stream_now(&dead);
        assert!(
            letters
                .iter()
                .any(|letter| letter.text("id") == id.as_str())
        );

        let tries = || worker.log().matches("model not loaded").count();
        assert_eq!(tries(), 3);
        let again = space.run(&toy.job("echo", 1));
        assert_eq!(again.error.unwrap().code, "model_not_loaded");
        assert_eq!(tries(), 3, "the load is not retried so soon");
    }
}

#[test]
fn an_idle_model_makes_room_for_another() {
    let mut space = TestNamespace::shared("seats");
    let (one, two) = (
        ModelImageFixture::build(&space, "Toy", ""),
        ModelImageFixture::build(&space, "Toy", ""),
    );
    let _worker = one.worker(&space).set("WORKER_MODELS", "1").start();
    let namespace = space.namespace().as_str().to_owned();
    for toy in [&one, &two, &one] {
        let result = space.run(&toy.job("echo", 1));
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        let loaded =
            Engine::connect().wait_for_sandboxes(NAMESPACE_LABEL, &namespace, |is| is.len() <= 1);
        assert_eq!(loaded.len(), 1);
    }
}
