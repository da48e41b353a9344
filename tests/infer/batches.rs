//! Jobs that share a call to a model, and the result of each.

use redis::Commands;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_queue::{ModelFacts, ModelState};
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL};
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use serde_json::{Value, json};

use crate::fixture::{ModelImageFixture, run_all};

#[test]
fn waiting_jobs_are_gathered_and_hold_no_slot() {
    let mut space = TestNamespace::shared("gather");
    // A batch is full only with four jobs, and the worker has two slots.
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
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
    let mut space = TestNamespace::shared("bad");
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let worker = toy.worker(&space).start();
    for (bad, exception) in [
        ("raise", "ValueError"),
        ("worse", "KeyError"),
        ("exit", "SystemExit"),
        ("panic", "Panic"),
    ] {
        let jobs = ["a", bad, "b", "c"].map(|input| toy.job("echo", input));
        let results = run_all(&mut space, &jobs);
        let outcomes: Vec<Outcome> = results.iter().map(|result| result.outcome).collect();
        use Outcome::{Failed, Succeeded};
        assert_eq!(outcomes, [Succeeded, Failed, Succeeded, Succeeded], "{bad}");
        let raised = results[1].exception.as_ref().unwrap();
        assert_eq!(raised.name, exception);
    }
    assert_eq!(worker.log().matches("model loaded").count(), 1);
}

#[test]
fn no_exception_tells_of_an_input_beside_its_own() {
    let mut space = TestNamespace::shared("apart");
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 2\nbatch_wait_ms = 10000\n");
    let _worker = toy.worker(&space).start();
    let inputs = ["bad-of-one", "bad-of-two"];
    let results = run_all(&mut space, &inputs.map(|input| toy.job("echo", input)));
    for (result, (own, others)) in results.iter().zip([(0, 1), (1, 0)]) {
        let raised = result.exception.as_ref().unwrap();
        let told = format!("{}\n{}", raised.message, raised.traceback);
        assert!(told.contains(inputs[own]), "{told}");
        assert!(!told.contains(inputs[others]), "{told}");
    }
}

#[test]
fn a_server_that_dies_in_mid_batch_costs_no_other_job_its_result() {
    let mut space = TestNamespace::shared("dies");
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
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
                "calls of a lost batch are retried one at a time"
            );
        }
    }
    let reply = space.keys().reply(&"all".parse().unwrap());
    assert_eq!(space.stream_now(&reply).len(), 4, "one result for each job");
}

#[test]
fn what_a_server_printed_of_others_reaches_nobody() {
    let mut space = TestNamespace::shared("sharing");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let worker = toy
        .worker(&space)
        .set("WORKER_MAX_LOST", "1")
        .set("LOG_FILTER", "sandhog_worker=debug")
        .start();
    let secret = "the-other-tenants-words";
    for (end, how) in [("die", "signal 9"), ("babble", "broke its protocol")] {
        let asked = space.run(&toy.job("echo", secret));
        assert_eq!(asked.outcome, Outcome::Succeeded, "{asked:?}");
        let id = space.submit(&toy.job("echo", end));
        let lost = space.result(&id);
        assert_eq!(lost.outcome, Outcome::Lost, "{end}: {lost:?}");
        let message = lost.error.unwrap().message;
        assert!(message.contains(how), "{end}: {message}");
        let dead = space.keys().dead();
        let letters = space.stream_now(&dead);
        let letter = letters
            .iter()
            .find(|letter| letter.text("id") == id.as_str());
        for (where_, text) in [
            ("result", message),
            ("dead letter", letter.unwrap().text("error").to_owned()),
            ("log", worker.log()),
        ] {
            assert!(!text.contains(secret), "{end}, {where_}: {text}");
            assert!(!text.contains("its log ends"), "{end}, {where_}: {text}");
        }
    }
}

/// Waits until the facts that the worker announces about its one model satisfy `wanted`.
pub(crate) fn wait_for_model(
    space: &TestNamespace,
    wanted: impl Fn(&ModelFacts) -> bool,
) -> ModelFacts {
    let mut redis = space.connection();
    eventually(WAIT_TIMEOUT, || {
        let workers: Vec<String> = redis.zrange(space.keys().workers(), 0, -1).unwrap();
        let key = space.keys().worker(&workers[0].parse().unwrap());
        let text: String = redis.hget(key, "models").unwrap();
        let models: Vec<ModelFacts> = serde_json::from_str(&text).unwrap();
        let model = models.into_iter().find(&wanted);
        model.ok_or_else(|| format!("the worker says {text}"))
    })
}

#[test]
fn a_server_killed_from_outside_in_mid_batch_leaves_each_job_one_result() {
    let mut space = TestNamespace::shared("kill");
    let toy = ModelImageFixture::build(&space, "Toy", "max_batch = 4\nbatch_wait_ms = 10000\n");
    let worker = toy.worker(&space).start();
    let inputs = ["a", "hold", "b", "c"];
    let jobs = inputs.map(|input| toy.job("echo", input));
    let routing = [("reply", "all"), ("backoff_ms", "1")];
    let ids: Vec<_> = jobs
        .iter()
        .map(|job| space.submit_with(job, &routing))
        .collect();
    let busy = wait_for_model(&space, |model| model.running == 4);
    assert_eq!((busy.state, busy.waiting), (ModelState::Busy, 0));
    assert_eq!((busy.loads, busy.deaths, busy.calls), (1, 0, 1));
    assert_eq!(busy.memory.0, 256 << 20);

    let engine = Engine::connect();
    let containers = engine.containers_with_label(NAMESPACE_LABEL, space.namespace().as_str());
    assert_eq!(containers.len(), 1, "only the container of the model");
    let kill = "for p in /proc/[0-9]*; do grep -qa 'sandhog/mode[l]' $p/cmdline && kill -9 \
                ${p##*/} && echo killed; done";
    let printed = engine.shell(&containers[0], kill);
    assert!(printed.starts_with("killed"), "{printed}");

    for (id, input) in ids.iter().zip(inputs) {
        let result = space.result(id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{}", worker.log());
        assert_eq!(result.value, Some(json!({"input": input, "together": 1})));
        assert_eq!(result.attempts, 2);
    }
    let reply = space.keys().reply(&"all".parse().unwrap());
    assert_eq!(space.stream_now(&reply).len(), 4, "one result for each job");
    let after = wait_for_model(&space, |model| model.deaths == 1 && model.running == 0);
    assert_eq!((after.state, after.loads), (ModelState::Ready, 2));

    let (_status, text) = worker.get("/metrics").unwrap();
    let served = |name: &str| text.contains(&format!("\n# TYPE {name} "));
    for metric in sandhog_worker::metrics::CATALOGUE {
        assert!(!metric.is_of_models() || served(metric.name), "{text}");
    }
    let label = format!("{{image=\"{}\"}}", toy.name());
    for (name, want) in [("jobs_total", 8), ("calls_total", 5), ("deaths_total", 1)] {
        let line = format!("\nsandhog_model_{name}{label} {want}\n");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}
