//! Retries that a job asks for. A real worker runs with an executor that ends as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sandhog_config::Settings;
use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_testkit::namespace::decode;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use tokio_util::sync::CancellationToken;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, named, settings};

/// Ends every attempt with the same outcome, and counts the attempts.
#[derive(Debug, Clone)]
struct FixedExecutor {
    outcome: Outcome,
    attempts: Arc<AtomicU32>,
    /// Number of the attempt that succeeds.
    good: u32,
    /// Number of the attempt that is lost through an internal fault.
    lost: u32,
    /// Number of attempts, from the first, that find no room on the machine.
    full: u32,
    /// Number of attempts, from the first, that find the keeper of the image away.
    away: u32,
}

impl FixedExecutor {
    fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            attempts: Arc::default(),
            good: u32::MAX,
            lost: u32::MAX,
            full: 0,
            away: 0,
        }
    }
}

impl Executor for FixedExecutor {
    async fn execute(
        &self,
        _job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let before = self.attempts.fetch_add(1, Ordering::SeqCst);
        if before < self.full {
            return Err(ExecutorError::Full {
                message: "the machine has no room for a filter".into(),
            });
        }
        if before < self.away {
            return Err(ExecutorError::Away {
                message: "the keeper does not answer".into(),
            });
        }
        if attempt.number == self.lost {
            return Err(ExecutorError::Fault {
                message: "the engine did not answer".into(),
            });
        }
        let outcome = if attempt.number == self.good {
            Outcome::Succeeded
        } else {
            self.outcome
        };
        Ok(Execution {
            result: JobResult::bare(attempt.id, outcome),
            stopped_by_us: false,
        })
    }
}

/// Runs one job on its own worker. Returns its result and the number of attempts.
async fn run(name: &str, routing: Routing, executor: FixedExecutor) -> (JobResult, u32) {
    let fixture = QueueFixture::shared(name).await;
    let mut of_worker = Settings {
        namespace: fixture.space.namespace().clone(),
        redis: settings(fixture.space.url()),
        ..Settings::default()
    };
    of_worker.worker.http = String::new();
    let worker = Worker::start_with(&of_worker, executor.clone())
        .await
        .unwrap();
    let id = fixture.submit(&routing).await;
    let mut waiter = fixture.queue.result_waiter().await.unwrap();
    let result = waiter.wait(&id, WAIT_TIMEOUT).await.unwrap();
    worker.stop(CancellationToken::new()).await;
    (
        decode(&result.expect("it ends long before that")),
        executor.attempts.load(Ordering::SeqCst),
    )
}

fn retried_on(outcomes: &str, max_attempts: u32) -> Routing {
    Routing {
        retry_on: outcomes.parse().unwrap(),
        max_attempts,
        backoff: Millis(1),
        ..named("again")
    }
}

#[tokio::test]
async fn a_named_outcome_is_tried_again_until_the_budget_ends() {
    let executor = FixedExecutor::of(Outcome::TimedOut);
    let (result, ran) = run("retry-on", retried_on("failed,timed_out", 3), executor).await;
    assert_eq!((result.outcome, result.attempts), (Outcome::TimedOut, 3));
    assert_eq!(ran, 3);
}

#[tokio::test]
async fn an_attempt_whose_keeper_is_away_is_not_counted() {
    let executor = FixedExecutor {
        away: 2,
        ..FixedExecutor::of(Outcome::Failed)
    };
    // No retry is allowed, and no attempt may be lost.
    let (result, ran) = run("keeper-away", named("again"), executor).await;
    assert_eq!((result.outcome, result.attempts), (Outcome::Failed, 1));
    assert_eq!(ran, 3);
}

#[tokio::test]
async fn the_first_good_attempt_is_the_result() {
    let executor = FixedExecutor {
        good: 2,
        ..FixedExecutor::of(Outcome::Failed)
    };
    let (result, ran) = run("retry-good", retried_on("failed", 5), executor).await;
    assert_eq!((result.outcome, result.attempts), (Outcome::Succeeded, 2));
    assert_eq!(ran, 2);
}

#[tokio::test]
async fn an_outcome_that_is_not_named_is_the_result_at_once() {
    for (case, outcome, retry_on) in [
        ("none named", Outcome::Failed, ""),
        ("another named", Outcome::OutOfMemory, "failed,timed_out"),
        ("cancelled", Outcome::Cancelled, "failed,timed_out"),
    ] {
        let (result, ran) = run(
            "retry-not",
            retried_on(retry_on, 3),
            FixedExecutor::of(outcome),
        )
        .await;
        assert_eq!((result.outcome, ran), (outcome, 1), "case {case}");
    }
}

#[tokio::test]
async fn an_attempt_lost_to_us_is_not_the_jobs() {
    let executor = FixedExecutor {
        lost: 1,
        ..FixedExecutor::of(Outcome::Failed)
    };
    let (result, ran) = run("retry-lost", retried_on("failed", 2), executor).await;
    assert_eq!((result.outcome, result.attempts), (Outcome::Failed, 3));
    assert_eq!(ran, 3, "one lost attempt and two failed ones");
}

#[tokio::test]
async fn a_machine_without_room_costs_a_job_no_attempt() {
    // More attempts than a job may be lost.
    let executor = FixedExecutor {
        full: 4,
        ..FixedExecutor::of(Outcome::Succeeded)
    };
    let (result, runs) = run("full", Routing::default(), executor).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert_eq!((result.attempts, runs), (1, 5));
}
