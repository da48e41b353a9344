//! A storm over real worker processes: workers and Redis die by SIGKILL, workers freeze past their lease and thaw,
//! jobs are submitted twice and cancelled, and in the end every job must have exactly one result.
//!
//! `scripts/chaos` runs it at full length and the system suite in short. It only counts; whether the counts are good
//! is [`Verdict::met`]. Nothing is asserted about when things happen.

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

/// What is done to the queue.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The built `sandhog-noop-worker`.
    pub program: PathBuf,
    /// Jobs, each with an id of its own.
    pub jobs: usize,
    /// Over how long they are submitted. Nothing more is killed than this span takes.
    pub span: Duration,
    /// Workers alive at any time.
    pub workers: usize,
    /// Jobs each runs at once.
    pub slots: usize,
    /// Their lease.
    pub lease: Duration,
    /// The longest a job sleeps.
    pub most_sleep: Duration,
    /// How often a random worker is killed and replaced.
    pub kill_every: Duration,
    /// How often Redis is killed and restarted, spread over the span.
    pub redis_kills: usize,
    /// About this percent of the jobs are in the hands of a worker when it is frozen; one is frozen at a time.
    pub frozen_percent: usize,
    /// What chance follows from.
    pub seed: u64,
}

impl Plan {
    /// How many workers are killed.
    fn worker_kills(&self) -> usize {
        let kills = self.span.as_millis() / self.kill_every.as_millis().max(1);
        usize::try_from(kills).expect("a storm is not that long")
    }
}

/// Does what the plan says and counts what came of it. `say` hears how far it is.
///
/// # Panics
/// When something cannot be started, or Redis stays away.
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
        // A little ahead, because there is nobody to freeze any more when the last job has been submitted.
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
                "{submitted} of {} submitted, {} workers killed, redis killed {redis_kills} times, {} frozen",
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

/// Counts what a server holds of so many jobs, without a storm: for tests of the counting.
///
/// # Panics
/// When Redis stays away.
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
