//! A chaos run, from the start of the processes to the verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_core::id::{JobId, Namespace};
use sandhog_queue::keys::Keys;

use super::fleet::WorkerFleet;
use super::plan::{ChaosPlan, ChaosWorkers};
use super::retrying_connection::RetryingConnection;
use super::sandbox_faults::SandboxFaults;
use super::submit::{self, Submitter};
use super::verdict::{self, Verdict};
use super::wait;
use super::worker_start::WorkerStart;
use crate::private_redis::PrivateRedis;

/// Runs the plan and counts the results. Calls `say` with progress messages.
///
/// # Panics
/// Panics if a process cannot be started, or Redis stays away.
pub fn run(plan: &ChaosPlan, mut say: impl FnMut(&str)) -> Verdict {
    let began = Instant::now();
    let mut redis = PrivateRedis::start(&[]);
    // Its own name, because the engine is shared with other runs.
    let namespace = match plan.workers_of {
        ChaosWorkers::Noop(_) => namespace(),
        ChaosWorkers::Real(_) => format!("chaos-{}", uuid::Uuid::now_v7().simple())
            .parse()
            .expect("a plain name is valid"),
    };
    let keys = Arc::new(Keys::new(&namespace));
    let spec = WorkerStart::new(plan, redis.url(), namespace.to_string());
    let mut sandboxes = match plan.workers_of {
        ChaosWorkers::Noop(_) => None,
        ChaosWorkers::Real(_) => Some(SandboxFaults::new(&namespace, plan.kill_every)),
    };
    let mut connection = RetryingConnection::of(&redis.url());
    submit::set_caps(&mut connection, &keys);
    let mut fleet = WorkerFleet::start(spec, plan.workers, plan.seed);
    let submitter = Submitter::start(plan, &redis.url(), Arc::clone(&keys));

    let mut redis_kills = 0;
    let mut frozen_jobs = 0;
    let mut next_kill = Instant::now() + plan.kill_every;
    let mut next_word = Instant::now();
    while !submitter.is_done()
        || fleet.kills < plan.worker_kills()
        || redis_kills < plan.redis_kills
    {
        fleet.replace_ended();
        fleet.thaw();
        if let Some(sandboxes) = &mut sandboxes {
            sandboxes.advance();
        }
        if Instant::now() >= next_kill && fleet.kills < plan.worker_kills() {
            fleet.kill_one();
            next_kill += plan.kill_every;
        }
        let submitted = submitter.submitted();
        // The target runs a little ahead of the submissions, because no worker has jobs left to
        // freeze once the last job has been submitted.
        if frozen_jobs * 100 < (submitted + plan.jobs / 10) * plan.frozen_percent {
            let pending = wait::pending(&mut connection, &keys);
            frozen_jobs += fleet.freeze(&pending, plan.lease * 2 + Duration::from_millis(1500));
        }
        if submitted * (plan.redis_kills + 1) >= plan.jobs * (redis_kills + 1)
            && redis_kills < plan.redis_kills
        {
            redis.kill();
            std::thread::sleep(Duration::from_millis(200));
            redis.start_again();
            redis_kills += 1;
        }
        if Instant::now() >= next_word {
            say(&format!(
                "{submitted} of {} submitted, {} workers killed, redis killed {redis_kills} times, \
                 {} frozen",
                plan.jobs, fleet.kills, fleet.freezes
            ));
            next_word += Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = submitter.finish();

    say("all submitted; waiting for the last results");
    let ids = ids(plan.jobs);
    wait::wait_for_results(&mut connection, &keys, &ids, || {
        fleet.replace_ended();
        fleet.thaw();
    });
    fleet.thaw_all();
    wait::wait_until_quiet(&mut connection, &keys, || fleet.replace_ended());
    let logs = fleet.drain();
    let left = sandboxes.as_ref().map(SandboxFaults::wait_until_gone);
    Verdict {
        seconds: began.elapsed().as_secs_f64(),
        worker_kills: fleet.kills,
        worker_kills_planned: plan.worker_kills(),
        redis_kills,
        redis_kills_planned: plan.redis_kills,
        freezes: fleet.freezes,
        frozen_jobs,
        has_sandboxes: sandboxes.is_some(),
        container_kills: sandboxes.as_ref().map_or(0, |all| all.container_kills),
        runner_kills: sandboxes.as_ref().map_or(0, |all| all.runner_kills),
        containers_left: left.unwrap_or_default(),
        duplicate_submissions: sent.duplicates,
        cancels: sent.cancels,
        ..verdict::count(&mut connection, &keys, &ids, &logs)
    }
}

/// Counts the state of a server that should hold `jobs` jobs, without a chaos run. For tests of the
/// counting.
///
/// # Panics
/// Panics if Redis stays away.
#[must_use]
pub fn count_state(redis: &PrivateRedis, jobs: usize) -> Verdict {
    let keys = Keys::new(&namespace());
    verdict::count(
        &mut RetryingConnection::of(&redis.url()),
        &keys,
        &ids(jobs),
        &[],
    )
}

fn namespace() -> Namespace {
    "chaos".parse().expect("a literal name is valid")
}

fn ids(jobs: usize) -> Vec<JobId> {
    (0..jobs).map(submit::id).collect()
}
