//! A slot gets its next job while the cell of its last job is still being removed. A real worker
//! runs with an executor that ends the removal when the test says so.

use std::sync::{Arc, Mutex};

use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_queue::LogStream;
use sandhog_testkit::namespace::decode;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError, OccupancyGuard};

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, soon};
use crate::scripted_worker::{stop, worker_settings};

/// Ends jobs at once, and holds each slot occupied until the test releases it.
#[derive(Debug, Clone, Default)]
struct OccupyingExecutor(Arc<Mutex<Vec<OccupancyGuard>>>);

impl OccupyingExecutor {
    fn clear(&self) -> usize {
        let places = std::mem::take(&mut *self.0.lock().unwrap());
        places.len()
    }
}

impl Executor for OccupyingExecutor {
    async fn execute(
        &self,
        _job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let mut output = attempt.output;
        output.write(LogStream::Stdout, "done\n".into()).await;
        output.finish().await;
        self.0.lock().unwrap().push(attempt.occupancy);
        Ok(Execution {
            result: JobResult::bare(attempt.id, Outcome::Succeeded),
            stopped_by_us: false,
        })
    }
}

#[tokio::test]
async fn a_job_whose_place_is_not_cleared_goes_back_and_runs_later() {
    let fixture = QueueFixture::shared("place").await;
    let executor = OccupyingExecutor::default();
    let mut settings = worker_settings(&fixture);
    settings.worker.slots = 1;
    let first = fixture.submit(&Routing::default()).await;
    let second = fixture.submit(&Routing::default()).await;
    fixture.admit().await;
    let worker = Worker::start_with(&settings, executor.clone())
        .await
        .unwrap();
    let mut waiter = fixture.queue.result_waiter().await.unwrap();
    let published = waiter.wait(&first, WAIT_TIMEOUT).await.unwrap().unwrap();
    assert_eq!(decode(&published).outcome, Outcome::Succeeded);
    // The settlement of the first job claimed the second job for the same slot, which stays
    // occupied.
    soon(async {
        while fixture.counter("given_back").await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(executor.clear(), 1, "the occupied slot ran only one job");
    let published = waiter.wait(&second, WAIT_TIMEOUT).await.unwrap().unwrap();
    let result = decode(&published);
    assert_eq!((result.outcome, result.attempts), (Outcome::Succeeded, 1));
    let log: u64 = fixture
        .plain(&["XLEN", &fixture.queue.keys().log(&second)])
        .await;
    assert_eq!(log, 2, "the output and the end mark");
    assert_eq!(executor.clear(), 1);
    stop(worker).await;
}
