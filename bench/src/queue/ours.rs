//! Sandhog as a contender, with a worker whose jobs do nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redis::{Commands, Connection};
use sandhog_common::config::RedisSettings;
use sandhog_common::id::{JobId, Namespace};
use sandhog_common::job::Job;
use sandhog_common::queue::Queue;
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_common::wire::{self, Encoding};
use sandhog_tests::noop::{NoopSpec, NoopWorker};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::contender::Contender;

/// Interval between checks of whether a turn has ended.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Sandhog as a contender.
pub(super) struct Ours {
    pub(super) desk: Desk,
    spec: NoopSpec,
    folder: TempDir,
    started: usize,
    worker: Option<NoopWorker>,
}

/// A producer with its own runtime, so that a benchmark reads from top to bottom.
pub(crate) struct Desk {
    runtime: Runtime,
    counters: RefCell<Connection>,
    pub(crate) queue: Queue,
}

impl Desk {
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
        let deadline = Instant::now() + super::contender::PATIENCE;
        while self.finished()? < finished {
            ensure!(Instant::now() < deadline, "{finished} jobs did not end");
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Ours {
    pub(super) fn new(url: &str, slots: usize, program: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            desk: Desk::of(url, "bench")?,
            spec: spec(url, "bench", slots, program, Duration::from_secs(15)),
            folder: tempfile::tempdir()?,
            started: 0,
            worker: None,
        })
    }
}

/// Returns a worker of this namespace whose jobs end at once.
pub(super) fn spec(
    url: &str,
    namespace: &str,
    slots: usize,
    program: PathBuf,
    lease: Duration,
) -> NoopSpec {
    NoopSpec {
        program,
        url: url.to_owned(),
        namespace: namespace.to_owned(),
        slots,
        lease,
        most_sleep: Duration::ZERO,
    }
}

/// Starts a worker of this name whose log is in `folder`.
pub(super) fn start(spec: &NoopSpec, folder: &Path, name: &str) -> NoopWorker {
    spec.start(name, &folder.join(name))
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "sandhog"
    }

    fn is_fast(&self) -> bool {
        true
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let name = format!("w{}", self.started);
        self.worker = Some(start(&self.spec, self.folder.path(), &name));
        self.turn(1).map(drop)
    }

    fn turn(&mut self, jobs: usize) -> anyhow::Result<Duration> {
        let before = self.desk.finished()?;
        let began = Instant::now();
        self.desk
            .submit(jobs, &Value::Null, Duration::from_secs(3600))?;
        self.desk.wait_for(before + u64::try_from(jobs)?)?;
        let took = began.elapsed();
        let worker = self.worker.as_mut().context("the worker was started")?;
        ensure!(worker.ended().is_none(), "the worker ended");
        Ok(took)
    }

    fn stop(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            worker.drain();
        }
    }
}
