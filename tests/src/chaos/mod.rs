//! A chaos run over real worker processes: workers and Redis die by SIGKILL, workers freeze past
//! their lease and thaw, jobs are submitted twice and cancelled. At the end every job must have
//! exactly one result.
//!
//! `scripts/chaos` runs it at full length and the system suite runs a short version. The run only
//! counts; [`Verdict::met`] decides whether the counts are good. Nothing is asserted about the time
//! of events.

mod crew;
mod ground;
mod patient;
mod submit;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_common::id::{JobId, Namespace};
use sandhog_common::keys::Keys;

use crate::noop::NoopSpec;
use crate::private_redis::PrivateRedis;
use crew::Crew;
use patient::Patient;
use submit::Submitter;
pub use verdict::Verdict;

/// The load and the faults of a chaos run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Path of the built `sandhog-noop-worker`.
    pub program: PathBuf,
    /// Number of jobs, each with its own id.
    pub jobs: usize,
    /// Time over which the jobs are submitted. Processes are killed only during this time.
    pub span: Duration,
    /// Number of workers alive at any time.
    pub workers: usize,
    /// Number of jobs that each worker runs at once.
    pub slots: usize,
    /// Lease of the workers.
    pub lease: Duration,
    /// Longest sleep of a job.
    pub most_sleep: Duration,
    /// Interval at which a random worker is killed and replaced.
    pub kill_every: Duration,
    /// Number of times that Redis is killed and restarted, spread over the span.
    pub redis_kills: usize,
    /// Approximate share of the jobs, in percent, that a worker holds when it is frozen. Only one
    /// worker is frozen at a time.
    pub frozen_percent: usize,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Plan {
    /// Number of workers that are killed.
    fn worker_kills(&self) -> usize {
        let kills = self.span.as_millis() / self.kill_every.as_millis().max(1);
        usize::try_from(kills).expect("a storm is not that long")
    }
}

/// Runs the plan and counts the results. Calls `say` with progress messages.
///
/// # Panics
/// Panics if a process cannot be started, or Redis stays away.
pub fn run(plan: &Plan, mut say: impl FnMut(&str)) -> Verdict {
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
    let mut patient = Patient::of(&redis.url());
    submit::set_caps(&mut patient, &keys);
    let mut crew = Crew::start(spec, plan.workers, plan.seed);
    let submitter = Submitter::start(plan, &redis.url(), Arc::clone(&keys));

    let mut redis_kills = 0;
    let mut frozen_jobs = 0;
    let mut next_kill = Instant::now() + plan.kill_every;
    let mut next_word = Instant::now();
    while !submitter.is_done() || crew.kills < plan.worker_kills() || redis_kills < plan.redis_kills
    {
        crew.replace_the_ended();
        crew.thaw();
        if Instant::now() >= next_kill && crew.kills < plan.worker_kills() {
            crew.kill_one();
            next_kill += plan.kill_every;
        }
        let submitted = submitter.submitted();
        // The target runs a little ahead of the submissions, because no worker has jobs left to
        // freeze once the last job has been submitted.
        if frozen_jobs * 100 < (submitted + plan.jobs / 10) * plan.frozen_percent {
            let pending = ground::pending(&mut patient, &keys);
            frozen_jobs += crew.freeze(&pending, plan.lease * 2 + Duration::from_millis(1500));
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
                plan.jobs, crew.kills, crew.freezes
            ));
            next_word += Duration::from_secs(10);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = submitter.finish();

    say("all submitted; waiting for the last results");
    let ids = ids(plan.jobs);
    ground::wait_for_results(&mut patient, &keys, &ids, || {
        crew.replace_the_ended();
        crew.thaw();
    });
    crew.thaw_all();
    ground::wait_until_quiet(&mut patient, &keys, || crew.replace_the_ended());
    let logs = crew.drain();
    Verdict {
        seconds: began.elapsed().as_secs_f64(),
        worker_kills: crew.kills,
        worker_kills_planned: plan.worker_kills(),
        redis_kills,
        redis_kills_planned: plan.redis_kills,
        freezes: crew.freezes,
        frozen_jobs,
        duplicate_submissions: sent.duplicates,
        cancels: sent.cancels,
        ..verdict::count(&mut patient, &keys, &ids, &logs)
    }
}

/// Counts the state of a server that should hold `jobs` jobs, without a chaos run. For tests of the
/// counting.
///
/// # Panics
/// Panics if Redis stays away.
#[must_use]
pub fn look(redis: &PrivateRedis, jobs: usize) -> Verdict {
    let keys = Keys::new(&namespace());
    verdict::count(&mut Patient::of(&redis.url()), &keys, &ids(jobs), &[])
}

fn namespace() -> Namespace {
    "chaos".parse().expect("a literal name is valid")
}

fn ids(jobs: usize) -> Vec<JobId> {
    (0..jobs).map(submit::id).collect()
}
