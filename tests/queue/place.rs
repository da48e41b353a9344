//! A slot gets its next job while the cell of its last job is still being removed. A real worker
//! runs with an executor that ends the removal when the test says so.

use std::sync::{Arc, Mutex};

use sandhog_common::job::Job;
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::LogStream;
use sandhog_common::submission::Routing;
use sandhog_tests::space::decode;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError, Place};

use crate::desk::{Desk, PATIENCE, soon};
use crate::in_process::{quiet, stop};

/// Ends jobs at once, and holds each slot occupied until the test releases it.
#[derive(Debug, Clone, Default)]
struct Lingering(Arc<Mutex<Vec<Place>>>);

impl Lingering {
    fn clear(&self) -> usize {
        let places = std::mem::take(&mut *self.0.lock().unwrap());
        places.len()
    }
}

impl Executor for Lingering {
    async fn execute(&self, _job: &Job, attempt: Attempt) -> Result<Execution, ExecutorError> {
        let mut output = attempt.output;
        output.write(LogStream::Stdout, "done\n".into()).await;
        output.finish().await;
        self.0.lock().unwrap().push(attempt.place);
        Ok(Execution {
            result: JobResult::bare(attempt.id, Outcome::Succeeded),
            stopped_by_us: false,
        })
    }
}

#[tokio::test]
async fn a_job_whose_place_is_not_cleared_goes_back_and_runs_later() {
    let desk = Desk::shared("place").await;
    let executor = Lingering::default();
    let mut settings = quiet(&desk);
    settings.worker.slots = 1;
    let first = desk.submit(&Routing::default()).await;
    let second = desk.submit(&Routing::default()).await;
    desk.admit().await;
    let worker = Worker::start_with(&settings, executor.clone())
        .await
        .unwrap();
    let mut waiter = desk.queue.result_waiter().await.unwrap();
    let published = waiter.wait(&first, PATIENCE).await.unwrap().unwrap();
    assert_eq!(decode(&published).outcome, Outcome::Succeeded);
    // The settlement of the first job claimed the second job for the same slot, which stays
    // occupied.
    soon(async {
        while desk.counter("given_back").await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(executor.clear(), 1, "the occupied slot ran only one job");
    let published = waiter.wait(&second, PATIENCE).await.unwrap().unwrap();
    let result = decode(&published);
    assert_eq!((result.outcome, result.attempts), (Outcome::Succeeded, 1));
    let log: u64 = desk.plain(&["XLEN", &desk.queue.keys().log(&second)]).await;
    assert_eq!(log, 2, "the output and the end mark");
    assert_eq!(executor.clear(), 1);
    stop(worker).await;
}
