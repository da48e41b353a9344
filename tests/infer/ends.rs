//! Ends of single jobs: answers, streams, rejections, timeouts, cancels.

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::Millis;
use sandhog_testkit::namespace::TestNamespace;
use serde_json::{Value, json};

use crate::fixture::ModelImageFixture;

#[test]
fn only_plain_data_is_an_answer() {
    let mut space = TestNamespace::shared("odd");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let worker = toy.worker(&space).start();
    for (method, input, exception, part) in [
        ("odd", "object", "TypeError", "not plain data"),
        ("odd", "nan", "ValueError", "not JSON compliant"),
        ("odd", "large", "ValueError", "above the cap"),
        (
            "odd",
            "half",
            "UnicodeEncodeError",
            "surrogates not allowed",
        ),
        ("odd", "unsayable", "SystemExit", "cannot be looked at"),
        ("leave", "now", "SystemExit", "now"),
        ("leave", "panic", "Panic", "?"),
        ("missing", "", "AttributeError", "missing"),
        ("born", "", "AttributeError", "is no method"),
    ] {
        let result = space.run(&toy.job(method, input));
        assert_eq!(result.outcome, Outcome::Failed, "{method} {input}");
        let raised = result.exception.unwrap();
        assert_eq!(raised.name, exception, "{method} {input}");
        assert!(raised.message.contains(part), "{}", raised.message);
    }
    assert_eq!(worker.log().matches("model loaded").count(), 1);
}

#[test]
fn a_job_that_no_server_could_answer_is_refused() {
    let mut space = TestNamespace::shared("refused");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let _worker = toy.worker(&space).start();
    let path = Job {
        method: None,
        path: Some("/v1".to_owned()),
        ..toy.job("echo", 1)
    };
    let private = toy.job("__class__", 1);
    let greedy = Job {
        limits: LimitOverrides {
            timeout_ms: Some(Millis(0)),
            ..LimitOverrides::default()
        },
        ..toy.job("echo", 1)
    };
    for (case, job, code) in [
        ("path", path, "bad_job"),
        ("private", private, "bad_job"),
        ("no time", greedy, "bad_limits"),
    ] {
        let result = space.run(&job);
        assert_eq!(result.outcome, Outcome::Rejected, "{case}");
        assert_eq!(result.error.unwrap().code, code, "{case}");
    }
}

#[test]
fn pieces_are_in_the_log_before_the_end_and_a_cancel_ends_the_stream() {
    let mut space = TestNamespace::shared("stream");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let _worker = toy.worker(&space).start();
    let forever = Job {
        stream: true,
        ..toy.job("forever", Value::Null)
    };
    let id = space.submit(&forever);
    // The stream never ends by itself, so these pieces arrived before the end.
    let log = space.keys().log(&id);
    let first = space.read_stream(&log, "0");
    assert!(first[0].text("data").starts_with("tick\n"));
    space.cancel(&id);
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert!(result.stdout.lossy().starts_with("tick\n"));

    // The server accepts one call at a time, so its answer shows that the stream has ended there
    // too.
    let counted = Job {
        stream: true,
        ..toy.job("count", 3)
    };
    let result = space.run(&counted);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.value, Some(json!([{"i": 0}, {"i": 1}, {"i": 2}])));
    assert_eq!(
        result.stdout.lossy(),
        "{\"i\": 0}\n{\"i\": 1}\n{\"i\": 2}\n"
    );
}

#[test]
fn a_call_that_takes_too_long_is_over_and_its_server_replaced() {
    let mut space = TestNamespace::shared("hang");
    let toy = ModelImageFixture::build(&space, "Toy", "");
    let _worker = toy.worker(&space).start();
    let before = space.run(&toy.job("identity", Value::Null)).value;
    let hang = Job {
        limits: LimitOverrides {
            timeout_ms: Some(Millis(100)),
            ..LimitOverrides::default()
        },
        ..toy.job("hang", Value::Null)
    };
    assert_eq!(space.run(&hang).outcome, Outcome::TimedOut);
    let after = space.run(&toy.job("identity", Value::Null));
    assert_eq!(after.outcome, Outcome::Succeeded, "{after:?}");
    assert_ne!(after.value, before, "the stuck server was replaced");
}
