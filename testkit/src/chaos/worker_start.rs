//! Start of a worker process of a chaos run.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use sandhog_config::SandboxUnit;

use super::plan::{ChaosPlan, ChaosWorkers};
use crate::environment;
use crate::noop::NoopSpec;
use crate::worker_child::WorkerChild;

/// Arguments of the workers.
#[derive(Debug)]
pub(super) enum WorkerStart {
    Noop(NoopSpec),
    Real(Vec<(&'static str, String)>),
}

impl WorkerStart {
    /// Returns the arguments for workers of this plan that serve a namespace of the Redis at `url`.
    pub(super) fn new(plan: &ChaosPlan, url: String, namespace: String) -> Self {
        let unit = match &plan.workers_of {
            ChaosWorkers::Noop(program) => {
                return Self::Noop(NoopSpec {
                    program: program.clone(),
                    url,
                    namespace,
                    slots: plan.slots,
                    lease: plan.lease,
                    most_sleep: plan.most_sleep,
                });
            }
            ChaosWorkers::Real(unit) if *unit == SandboxUnit::Sandbox => "sandbox",
            ChaosWorkers::Real(_) => "container",
        };
        Self::Real(vec![
            ("SANDHOG_REDIS_URL", url),
            ("SANDHOG_NAMESPACE", namespace),
            ("SANDHOG_WORKER_SLOTS", plan.slots.to_string()),
            (
                "SANDHOG_WORKER_LEASE_MS",
                plan.lease.as_millis().to_string(),
            ),
            // With a worker killed every few seconds, a job is sometimes lost more than three
            // times.
            ("SANDHOG_WORKER_MAX_LOST", "1000".to_owned()),
            ("SANDHOG_WORKER_HTTP", "127.0.0.1:0".to_owned()),
            ("SANDHOG_SANDBOX_UNIT", unit.to_owned()),
            ("SANDHOG_POOL_WORKERS", plan.workers.to_string()),
        ])
    }

    /// Starts a worker that logs to `log`, without waiting for it to become ready.
    ///
    /// # Panics
    /// Panics if the process cannot be started.
    pub(super) fn start(&self, id: &str, log: &Path) -> WorkerChild {
        match self {
            Self::Noop(spec) => spec.start(id, log),
            Self::Real(variables) => {
                let log = File::create(log).expect("a log file can be made");
                let child = environment::sandhog_command()
                    .arg("worker")
                    .env("SANDHOG_WORKER_ID", id)
                    .envs(variables.iter().map(|(name, value)| (name, value)))
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().expect("a file handle can be copied"))
                    .stderr(log)
                    .spawn()
                    .expect("the worker's program starts");
                WorkerChild::new(id, child)
            }
        }
    }
}
