//! A chaos run, from the start of the processes to the verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_core::id::{JobId, Namespace};
use sandhog_queue::keys::Keys;

use super::fleet::WorkerFleet;
use super::plan::ChaosPlan;
use super::retrying_connection::RetryingConnection;
use super::submit::{self, Submitter};
use super::verdict::{self, Verdict};
use super::wait;
use crate::noop::NoopSpec;
use crate::private_redis::PrivateRedis;

/// Runs the plan and counts the results. Calls `say` with progress messages.
///
/// # Panics
/// Panics if a process cannot be started, or Redis stays away.
pub fn run(plan: &ChaosPlan, mut say: impl FnMut(&str)) -> Verdict {
    let began = Instant::now();
    let mut redis = PrivateRedis::start(&[]);
    let namespace = namespace();
    let keys = Arc::new(Keys::new(&namespace));
    let spec = NoopSpec {
        program: plan.program.clone(),
        url: redis.url(),
        namespace: namespace.to_string(),
        slots: plan.slots,
        lease: plan.lease,
        most_sleep: plan.most_sleep,
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
    Verdict {
        seconds: began.elapsed().as_secs_f64(),
        worker_kills: fleet.kills,
        worker_kills_planned: plan.worker_kills(),
        redis_kills,
        redis_kills_planned: plan.redis_kills,
        freezes: fleet.freezes,
        frozen_jobs,
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
