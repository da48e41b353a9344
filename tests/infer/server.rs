//! The Python model server, frame by frame.

use sandhog_protocol::model::FromServer;
use sandhog_testkit::environment;
use serde_json::{Value, json};

use crate::raw_connection::RawConnection;

/// Starts the server of `toy:Toy` and waits until the model is loaded.
fn toy() -> RawConnection {
    let checkout = environment::checkout();
    let server = checkout.join("runner/harness/python/model.py");
    let folder = checkout.join("tests/infer/toy/model");
    let paths = [server, folder].map(|path| path.to_str().unwrap().to_owned());
    let mut line = RawConnection::to(&["python3", "-B", &paths[0], &paths[1], "toy:Toy", "1"]);
    assert_eq!(line.recv(), FromServer::Ready);
    line
}

#[test]
fn a_cancel_that_comes_after_the_end_is_forgotten() {
    let mut line = toy();
    for _ in 0..10 {
        let id = line.begin("identity", Value::Null, false);
        line.end(id);
        line.cancel(id);
    }
    let kept = line.call("remembered", Value::Null, false).answer;
    assert_eq!(kept, Some(Ok(json!(1))), "only the current call is kept");
}

#[test]
fn a_piece_that_no_frame_could_hold_comes_in_several() {
    let mut line = toy();
    // Each character takes six bytes as JSON.
    let text = "\u{1}".repeat(150_000);
    let came = line.call("once", text.as_str(), true);
    assert_eq!(came.pieces.concat(), text);
    assert_eq!(came.answer, Some(Ok(Value::from(text))));

    let long = "\u{1F600}".repeat(300_000);
    let came = line.call("once", long.as_str(), true);
    assert_eq!(came.pieces.concat(), long);
    let Some(Err((name, message))) = came.answer else {
        panic!("no answer is so large");
    };
    assert_eq!(name, "ValueError");
    assert!(message.contains("above the cap"), "{message}");
}
