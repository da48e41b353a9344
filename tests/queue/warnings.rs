//! Payload fields that are not part of a job: the job runs, and its result lists them as warnings.

use tokio_util::sync::CancellationToken;

use crate::crew::{Tally, hire, worker_settings};
use crate::desk::{Desk, PATIENCE, settings, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_of_a_payload_are_named_in_its_result() {
    let mut desk = Desk::shared("warnings").await;
    let hired = worker_settings(&settings(desk.space.url()), desk.space.namespace(), "one");
    let working = hire(&hired, &Tally::default()).await;
    for (job, warnings) in [
        (&br#"{"image":"python","code":"1"}"#[..], &[][..]),
        (
            br#"{"image":"python","code":"1","limits":{"timeoutms":1},"fetches":["*"]}"#,
            &[
                "unknown field \"limits.timeoutms\" was ignored",
                "unknown field \"fetches\" was ignored",
            ],
        ),
    ] {
        let id = desk.space.add(&[("job", job)]);
        let mut waiter = desk.queue.result_waiter().await.unwrap();
        assert!(waiter.wait(&id, PATIENCE).await.unwrap().is_some());
        assert_eq!(desk.result(&id).await.warnings, warnings);
    }
    soon(working.stop(CancellationToken::new())).await;
}
