//! A producer with its own runtime.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use redis::{Commands, Connection};
use sandhog_config::RedisSettings;
use sandhog_core::id::{JobId, Namespace};
use sandhog_core::job::Job;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::Queue;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Interval between checks of whether a turn has ended.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A producer with its own runtime, so that a benchmark reads from top to bottom.
pub(crate) struct QueueClient {
    runtime: Runtime,
    counters: RefCell<Connection>,
    pub(crate) queue: Queue,
}

impl QueueClient {
    pub(crate) fn of(url: &str, namespace: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let settings = RedisSettings {
            url: Some(url.to_owned()),
            ..RedisSettings::default()
        };
        let namespace: Namespace = namespace.parse()?;
        let queue = runtime.block_on(Queue::connect(&settings, &namespace))?;
        let counters = RefCell::new(redis::Client::open(url)?.get_connection()?);
        Ok(Self {
            runtime,
            counters,
            queue,
        })
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Submits jobs that do nothing and keeps their results for `keep`.
    pub(crate) fn submit(
        &self,
        count: usize,
        input: &Value,
        keep: Duration,
    ) -> anyhow::Result<Vec<JobId>> {
        let job = Job {
            input: input.clone(),
            ..Job::code("python".parse()?, "pass")
        };
        let payload = wire::encode(&job, Encoding::Json);
        let routing = Routing {
            keep: Millis::from(keep),
            ..Routing::default()
        };
        let jobs = vec![(routing, payload); count];
        Ok(self.wait(self.queue.submit_many(&jobs))?)
    }

    /// Returns how many jobs have succeeded since the namespace began. This is one cheap command,
    /// because its cost is part of the measurement.
    ///
    /// # Errors
    /// Fails if a job ended otherwise.
    pub(super) fn finished(&self) -> anyhow::Result<u64> {
        let stats = self.queue.keys().stats();
        let mut counters: HashMap<String, u64> = self.counters.borrow_mut().hgetall(stats)?;
        let succeeded = counters.remove("finished_succeeded").unwrap_or_default();
        let other = counters
            .into_iter()
            .find(|(name, count)| name.starts_with("finished_") && *count > 0);
        if let Some((name, count)) = other {
            bail!("{count} jobs did not succeed ({name})");
        }
        Ok(succeeded)
    }

    /// Waits until this many jobs have ended.
    pub(super) fn wait_for(&self, finished: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + super::contender::WAIT_TIMEOUT;
        while self.finished()? < finished {
            ensure!(Instant::now() < deadline, "{finished} jobs did not end");
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}
