//! The proxy before an HTTP model server: its treatment of answers, rejections, streams and
//! silence.

use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_protocol::model::FromServer;
use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::free_port;
use serde_json::{Value, json};

use crate::fixture::ModelImageFixture;
use crate::raw_connection::{CallResult, RawConnection};

/// Starts the proxy with the toy server and waits until it is ready.
fn toy() -> RawConnection {
    before("serve.py")
}

/// Starts the proxy with a server of `toy/model` and waits until it is ready.
pub(crate) fn before(file: &str) -> RawConnection {
    let runner = environment::sandhog().with_file_name("sandhog-runner");
    let server = environment::checkout()
        .join("tests/infer/toy/model")
        .join(file);
    let port = free_port().to_string();
    let mut line = RawConnection::to(&[
        runner.to_str().unwrap(),
        "proxy",
        &port,
        "/health",
        "python3",
        "-B",
        server.to_str().unwrap(),
        &port,
    ]);
    assert_eq!(line.recv(), FromServer::Ready);
    line
}

fn raised(came: CallResult) -> (String, String) {
    match came.answer {
        Some(Err(raised)) => raised,
        other => panic!("{other:?} is no exception"),
    }
}

#[test]
fn a_body_is_the_answer_and_a_refusal_an_exception() {
    let mut line = toy();
    for (input, want) in [
        (json!({"a": 1}), json!({"method": "POST", "body": {"a": 1}})),
        (Value::Null, json!({"method": "GET", "body": ""})),
    ] {
        let came = line.call("/echo", input, false);
        assert_eq!(came.answer, Some(Ok(want)));
    }
    let text = line.call("/text", Value::Null, false).answer;
    assert_eq!(text, Some(Ok("no JSON".into())));
    // The proxy follows no redirect.
    let moved = raised(line.call("/moved", Value::Null, false));
    assert_eq!(moved, ("HTTP 302".to_owned(), "it is elsewhere".to_owned()));
    let (name, message) = raised(line.call("/broken", Value::Null, false));
    assert_eq!((name.as_str(), message.len()), ("HTTP 503", 8 << 10));
    for stream in [false, true] {
        let (name, message) = raised(line.call("/large", Value::Null, stream));
        assert_eq!(name, "AnswerTooLarge");
        assert!(message.contains("1048576 bytes"), "{message}");
    }
}

#[test]
fn a_stream_is_an_answer_only_when_it_came_to_its_end() {
    let mut line = toy();
    let whole = line.call("/stream/whole", json!({}), true);
    assert_eq!(whole.pieces, ["one ", "two"]);
    let message = json!({"role": "assistant", "content": "one two"});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    let want = json!({"object": "chat.completion", "choices": [choice]});
    assert_eq!(whole.answer, Some(Ok(want)));
    for (how, name, message, pieces) in [
        ("error", "overloaded", "no room for the next token", 1),
        ("named", "StreamError", "gone", 1),
    ] {
        let came = line.call(&format!("/stream/{how}"), json!({}), true);
        assert_eq!(came.pieces.len(), pieces, "{how}");
        assert_eq!(raised(came), (name.to_owned(), message.to_owned()), "{how}");
    }
    // Only the end of the connection marks the end of this stream, so the server may also have
    // died.
    let came = line.call("/stream/cut", json!({}), true);
    assert_eq!((came.pieces.len(), came.answer), (2, None));
    assert!(came.fault.is_some());
}

#[test]
fn a_stream_that_nobody_waits_for_is_hung_up_on() {
    let mut line = toy();
    let id = line.begin("/stream/endless", json!({}), true);
    assert!(matches!(line.recv(), FromServer::Chunk { .. }));
    line.cancel(id);
    let _whatever = line.end(id);
    // Cancelling a call that is over, or that never existed, has no effect.
    line.cancel(id);
    line.cancel(99);
    let hung_up = line.call("/hung_up", Value::Null, false).answer;
    assert_eq!(hung_up, Some(Ok(json!(true))));
}

#[test]
fn a_job_is_told_what_its_stream_came_to() {
    let mut space = TestNamespace::shared("http");
    let toy = ModelImageFixture::http(&space, "", "/health");
    let _worker = toy.worker(&space).start();
    let job = |path: &str| Job {
        path: Some(path.to_owned()),
        stream: true,
        ..Job::infer(toy.name().clone(), json!({}))
    };
    let whole = space.run(&job("/stream/whole"));
    assert_eq!(whole.outcome, Outcome::Succeeded, "{whole:?}");
    assert_eq!(whole.stdout.lossy(), "one two");
    let failed = space.run(&job("/stream/error"));
    assert_eq!(failed.outcome, Outcome::Failed, "{failed:?}");
    assert_eq!(
        failed.stdout.lossy(),
        "one ",
        "the pieces before the error are kept"
    );
    assert_eq!(failed.value, None);
    assert_eq!(failed.exception.unwrap().name, "overloaded");
}

#[test]
fn a_server_whose_health_never_answers_is_not_loaded() {
    let mut space = TestNamespace::shared("mute");
    let toy = ModelImageFixture::http(&space, "load_timeout_s = 1\n", "/never");
    let _worker = toy.worker(&space).start();
    let result = space.run(&Job::infer(toy.name().clone(), json!({})));
    assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
    let error = result.error.unwrap();
    assert_eq!(error.code, "model_not_loaded");
    assert!(error.message.contains("not ready within 1 s"), "{error:?}");
}
