//! Payload fields that are not part of a job: the job runs, and its result lists them as warnings.

use tokio_util::sync::CancellationToken;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, settings, soon};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_of_a_payload_are_named_in_its_result() {
    let mut fixture = QueueFixture::shared("warnings").await;
    let settings_of_one = worker_settings(
        &settings(fixture.space.url()),
        fixture.space.namespace(),
        "one",
    );
    let working = start_worker(&settings_of_one, &AttemptCounter::default()).await;
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
        let id = fixture.space.add(&[("job", job)]);
        let mut waiter = fixture.queue.result_waiter().await.unwrap();
        assert!(waiter.wait(&id, WAIT_TIMEOUT).await.unwrap().is_some());
        assert_eq!(fixture.result(&id).await.warnings, warnings);
    }
    soon(working.stop(CancellationToken::new())).await;
}
