//! The daemon: starts every loop, and stops them in two steps.
//!
//! Stopping first ends claiming and waits a stated grace for running jobs; then what still runs is given back, its
//! sandboxes are destroyed, and the worker takes its name off the list. An interruption is never counted as a job's
//! failure.

mod patience;
mod upkeep;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use sandhog_common::clock::{Clock, SystemClock};
use sandhog_common::config::{Settings, WorkerSettings};
use sandhog_common::id::WorkerId;
use sandhog_common::queue::{Queue, QueueError, Unblocker};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Attempts, Executor, SandboxExecutor, Settler};
use crate::claim::Claim;
use crate::http::{self, Health, Phase};
use crate::lease::{self, Interrupt, Leases};
use crate::pool::{Pool, Rules};
use crate::sandbox::{Engine, SandboxError};
use crate::trace::{TraceError, Tracing};
use crate::{admit, metrics, name, schedule};

pub(crate) use patience::Patience;
use upkeep::Upkeep;

/// How long ending sandboxes may take once the grace period is over.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis is not to be had, or must not be used.
    #[error("the queue cannot be used")]
    Queue(#[source] QueueError),
    /// The container engine is not to be had.
    #[error("sandboxes cannot be made")]
    Sandbox(#[source] SandboxError),
    /// Spans cannot be sent.
    #[error("telemetry cannot be sent")]
    Trace(#[source] TraceError),
    /// The address for health and metrics is taken or not valid.
    #[error("cannot serve health and metrics on {address:?}")]
    Http {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queue(error) => error.hint(),
            Self::Sandbox(error) => error.hint(),
            Self::Trace(_) => Some(
                "set telemetry.otlp to the address of an OTLP receiver that speaks HTTP, such as http://127.0.0.1:4318, \
                 or to an empty string to turn it off",
            ),
            Self::Http { .. } => {
                Some("set worker.http to a free host:port, or to an empty string to turn it off")
            }
        }
    }
}

/// A running worker. Dropping it ends nothing: call [`Worker::stop`].
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    http: Option<SocketAddr>,
    grace: Duration,
    queue: Queue,
    leases: Leases,
    health: Arc<Health>,
    pool: Option<Pool>,
    tracing: Tracing,
    running: TaskTracker,
    /// Ends claiming and admitting.
    claiming: CancellationToken,
    claimers: Vec<JoinHandle<()>>,
    readers: Vec<Unblocker>,
    /// Ends everything else.
    serving: CancellationToken,
    servers: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker that runs jobs in sandboxes. Redis and the container engine are both checked first, and what
    /// dead workers left with the engine is removed.
    ///
    /// # Errors
    /// When Redis or the engine cannot be used, or the HTTP address cannot be bound; nothing runs then.
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        let id = name::worker_id(&settings.worker);
        let queue = connect(settings).await?;
        let sandbox = &settings.sandbox;
        let engine = Engine::connect(sandbox, &settings.namespace, &id)
            .await
            .map_err(StartError::Sandbox)?
            .serving(queue.identity().await.map_err(StartError::Queue)?);
        let rules = Rules::new(&settings.pool, slots(&settings.worker), engine.facts());
        let pool = Pool::new(engine.clone(), rules);
        let executor = SandboxExecutor::new(engine.clone(), pool.clone(), sandbox.memory);
        Self::assemble(settings, id, queue, executor, Some((engine, pool))).await
    }

    /// Starts a worker that runs jobs with `executor` and needs no container engine.
    ///
    /// # Errors
    /// When Redis cannot be used, or the HTTP address cannot be bound; nothing runs then.
    pub async fn start_with(
        settings: &Settings,
        executor: impl Executor,
    ) -> Result<Self, StartError> {
        let id = name::worker_id(&settings.worker);
        let queue = connect(settings).await?;
        Self::assemble(settings, id, queue, executor, None).await
    }

    async fn assemble<E: Executor>(
        settings: &Settings,
        id: WorkerId,
        queue: Queue,
        executor: E,
        sandboxes: Option<(Engine, Pool)>,
    ) -> Result<Self, StartError> {
        let worker = &settings.worker;
        let lease = worker.lease_ms.duration();
        let listener = listen(&worker.http).await?;
        let http = listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        metrics::install();
        let tracing = Tracing::start(
            settings
                .telemetry
                .otlp
                .as_deref()
                .filter(|endpoint| !endpoint.is_empty()),
            &settings.namespace,
            &id,
        )
        .map_err(StartError::Trace)?;
        let health = Arc::new(Health::new(lease));
        let leases = Leases::default();
        let slots = Arc::new(Semaphore::new(slots(worker)));
        let running = TaskTracker::new();
        let (claiming, serving) = (CancellationToken::new(), CancellationToken::new());

        let intake = queue.intake_reader(&id).await.map_err(StartError::Queue)?;
        let tickets = queue.ticket_reader(&id).await.map_err(StartError::Queue)?;
        let control = queue.control_reader().await.map_err(StartError::Queue)?;
        let (classes, known_classes) = watch::channel(Vec::new());
        let readers = vec![intake.unblocker(), tickets.unblocker(), control.unblocker()];

        let mut upkeep = Upkeep {
            queue: queue.clone(),
            worker: id.clone(),
            settings: worker.clone(),
            warm: settings.pool.warm.clone(),
            total_slots: slots.available_permits(),
            slots: Arc::clone(&slots),
            classes,
            ticket_reader: tickets.unblocker(),
            sandboxes: sandboxes.clone(),
            health: Arc::clone(&health),
            started_at: SystemClock.now(),
            unroutable: BTreeSet::new(),
        };
        upkeep.first().await.map_err(StartError::Queue)?;

        let attempts = Arc::new(Attempts {
            queue: queue.clone(),
            settler: Settler::start(queue.clone()),
            executor,
            tracing: tracing.clone(),
            leases: leases.clone(),
            max_payload: worker.max_payload,
            max_lost: worker.max_lost,
        });
        let claim = Claim {
            attempts,
            worker: id.clone(),
            slots,
            classes: known_classes,
            running: running.clone(),
        };
        let claimers = vec![
            tokio::spawn(admit::admit(
                queue.clone(),
                intake,
                worker.max_payload,
                claiming.clone(),
            )),
            tokio::spawn(claim.run(tickets, claiming.clone())),
            tokio::spawn(schedule::keep(queue.clone(), claiming.clone())),
        ];
        let mut servers = vec![
            tokio::spawn(upkeep.run(serving.clone())),
            tokio::spawn(upkeep::hear(control, leases.clone(), serving.clone())),
            tokio::spawn(lease::beat(
                queue.clone(),
                id.clone(),
                leases.clone(),
                lease,
                Arc::clone(&health),
                serving.clone(),
            )),
        ];
        if let Some(listener) = listener {
            servers.push(tokio::spawn(http::serve(
                listener,
                Arc::clone(&health),
                serving.clone(),
            )));
        }
        health.beat();
        health.enter(Phase::Serving);
        tracing::info!(worker = %id, http = ?http, "worker serving");
        Ok(Self {
            id,
            http,
            grace: worker.grace_ms.duration(),
            queue,
            leases,
            health,
            pool: sandboxes.map(|(_engine, pool)| pool),
            tracing,
            running,
            claiming,
            claimers,
            readers,
            serving,
            servers,
        })
    }

    /// The worker's name in Redis, in results and on its containers.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Where health and metrics are served, if they are.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops: no more claims, then up to the grace period for running jobs (cut short by `hurry`), then what still
    /// runs is given back. Returns when nothing of this worker is left.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped midway, leases lapse by themselves and containers are left to another worker.
    pub async fn stop(self, hurry: CancellationToken) {
        self.health.enter(Phase::Draining);
        self.claiming.cancel();
        let claimers = self.claimers;
        unblock(&self.readers).await;
        finish(claimers).await;
        self.running.close();
        tracing::info!(running = self.leases.count(), "worker draining");
        let drained = hurry
            .run_until_cancelled(tokio::time::timeout(self.grace, self.running.wait()))
            .await;
        if !matches!(drained, Some(Ok(()))) {
            self.leases.interrupt_all(Interrupt::Draining);
            if tokio::time::timeout(LAST_WORDS, self.running.wait())
                .await
                .is_err()
            {
                tracing::error!(running = self.leases.count(), "attempts left to lapse");
            }
        }
        self.serving.cancel();
        unblock(&self.readers).await;
        finish(self.servers).await;
        if let Some(pool) = self.pool {
            pool.close().await;
        }
        self.tracing.stop().await;
        if let Err(error) = self.queue.retire(&self.id).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "worker not taken off the list"
            );
        }
        tracing::info!(worker = %self.id, "worker stopped");
    }
}

async fn connect(settings: &Settings) -> Result<Queue, StartError> {
    let queue = Queue::connect(&settings.redis, &settings.namespace)
        .await
        .map_err(StartError::Queue)?;
    queue.check().await.map_err(StartError::Queue)?;
    Ok(queue)
}

async fn listen(address: &str) -> Result<Option<TcpListener>, StartError> {
    if address.is_empty() {
        return Ok(None);
    }
    TcpListener::bind(address)
        .await
        .map(Some)
        .map_err(|source| StartError::Http {
            address: address.to_owned(),
            source,
        })
}

/// A reader that cannot be unblocked ends by its own time-out.
async fn unblock(readers: &[Unblocker]) {
    for reader in readers {
        if let Err(error) = reader.unblock().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "reader not unblocked"
            );
        }
    }
}

async fn finish(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a worker task failed");
        }
    }
}

/// A period that is a little longer or shorter each time, so that workers take turns.
pub(crate) fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.75..=1.25))
}

fn slots(settings: &WorkerSettings) -> usize {
    match settings.slots {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        set => usize::try_from(set).unwrap_or(usize::MAX),
    }
}
