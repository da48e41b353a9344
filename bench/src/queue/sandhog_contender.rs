//! Sandhog as a contender, with a worker whose jobs do nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sandhog_testkit::noop::NoopSpec;
use sandhog_testkit::worker_child::WorkerChild;
use serde_json::Value;
use tempfile::TempDir;

use super::contender::Contender;
use super::queue_client::QueueClient;

/// Sandhog as a contender.
pub(super) struct SandhogContender {
    pub(super) client: QueueClient,
    spec: NoopSpec,
    folder: TempDir,
    started: usize,
    worker: Option<WorkerChild>,
}

impl SandhogContender {
    pub(super) fn new(url: &str, slots: usize, program: PathBuf) -> anyhow::Result<Self> {
        Ok(Self {
            client: QueueClient::of(url, "bench")?,
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
pub(super) fn start(spec: &NoopSpec, folder: &Path, name: &str) -> WorkerChild {
    spec.start(name, &folder.join(name))
}

impl Contender for SandhogContender {
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
        let before = self.client.finished()?;
        let began = Instant::now();
        self.client
            .submit(jobs, &Value::Null, Duration::from_secs(3600))?;
        self.client.wait_for(before + u64::try_from(jobs)?)?;
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
