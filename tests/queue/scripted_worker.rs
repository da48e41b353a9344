//! A real worker in the test's own process, whose jobs do what their input says and need no
//! container.

use std::time::Duration;

use sandhog_config::Settings;
use sandhog_core::job::{CheckedJob, Job};
use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome};
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{QueueFixture, settings};

/// Settings of such a worker: its Redis and namespace, two slots, and no HTTP.
pub(crate) fn worker_settings(fixture: &QueueFixture) -> Settings {
    let mut all = Settings {
        namespace: fixture.space.namespace().clone(),
        redis: settings(fixture.space.url()),
        ..Settings::default()
    };
    all.worker.http = String::new();
    all.worker.slots = 2;
    all
}

/// Starts a worker whose jobs do what their input says.
pub(crate) async fn start(settings: &Settings) -> Worker {
    Worker::start_with(settings, ScriptedExecutor)
        .await
        .expect("the worker starts")
}

/// Stops the worker and waits until all of its tasks have ended.
pub(crate) async fn stop(worker: Worker) {
    tokio::time::timeout(
        Duration::from_secs(60),
        worker.stop(CancellationToken::new()),
    )
    .await
    .expect("a worker stops");
}

/// Returns a job that ends as `how` says. Its value is the list of variables that its program would
/// get.
pub(crate) fn ending(how: &str) -> Job {
    Job {
        input: json!(how),
        ..crate::fixture::job()
    }
}

/// Ends each job as its input says: with an outcome, as `rejected`, or with an internal fault.
#[derive(Debug)]
struct ScriptedExecutor;

impl Executor for ScriptedExecutor {
    async fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        drop(attempt.trace.step("sandbox"));
        let cell = attempt.trace.step("cell");
        let how = job.input.as_str().unwrap_or("succeeded");
        if how == "fault" && attempt.number == 1 {
            cell.fail("died");
            let message = "it was told to".to_owned();
            return Err(ExecutorError::Fault { message });
        }
        if how == "rejected" {
            return Err(ExecutorError::Rejected(ErrorInfo::new(
                "bad_job", "told to",
            )));
        }
        let outcome = Outcome::ALL.into_iter().find(|known| known.as_str() == how);
        Ok(Execution {
            result: JobResult {
                value: Some(json!(cell.variables())),
                ..JobResult::bare(attempt.id, outcome.unwrap_or(Outcome::Succeeded))
            },
            stopped_by_us: false,
        })
    }
}
