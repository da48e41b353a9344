//! The daemon: starts every loop and stops them in two steps.
//!
//! Stopping first ends claiming and gives running jobs a grace period. Then the jobs that still run
//! are given back, their sandboxes are destroyed, and the worker's record is removed. An
//! interruption never counts as a failure of a job.

mod lanes;
mod patience;
mod served;
mod upkeep;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use sandhog_common::clock::{Clock, SystemClock};
use sandhog_common::config::{Settings, WorkerSettings};
use sandhog_common::id::{Namespace, Tag, WorkerId};
use sandhog_common::queue::{PoolFacts, Queue, QueueError};
use sandhog_common::units::ByteCount;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempt::{Executor, SandboxExecutor};
use crate::gpu::{GpuError, Gpus};
use crate::http::{self, Health, Phase};
use crate::models::Models;
use crate::pool::{self, Pool, Rules};
use crate::room::Room;
use crate::sandbox::{Engine, SandboxError};
use crate::secrets::{SecretError, Secrets};
use crate::trace::{TraceError, Tracing};
use crate::{machine, metrics, name, sharing};

pub(crate) use patience::Patience;
use served::{Connected, Served, Shared};

/// Time that interrupted attempts have to end after the grace period.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Reason for which a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Redis cannot be reached, or its configuration may lose jobs.
    #[error("the queue of namespace {namespace} cannot be used")]
    Queue {
        /// The namespace.
        namespace: Namespace,
        /// The cause.
        #[source]
        source: QueueError,
    },
    /// The container engine cannot be used.
    #[error("sandboxes cannot be made")]
    Sandbox(#[source] SandboxError),
    /// The configured GPUs cannot be used.
    #[error("gpus cannot be used")]
    Gpus(#[source] GpuError),
    /// The configured secrets cannot be used.
    #[error("worker.secrets cannot be used")]
    Secrets(#[source] SecretError),
    /// The configured tags offer only GPUs, and no GPU was found.
    #[error("worker.tags offers {tags} alone, and no such gpu was found")]
    NothingOffered {
        /// The configured tags.
        tags: String,
    },
    /// Spans cannot be sent.
    #[error("telemetry cannot be sent")]
    Trace(#[source] TraceError),
    /// The address for health and metrics is in use or invalid.
    #[error("cannot serve health and metrics on {address:?}")]
    Http {
        /// The address.
        address: String,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Returns advice for the operator.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queue { source, .. } => source.hint(),
            Self::Sandbox(error) => error.hint(),
            Self::Gpus(error) => Some(error.hint()),
            Self::Secrets(_) => {
                Some("worker.secrets is a folder with a policy.toml: docs/secrets.md shows one")
            }
            Self::NothingOffered { .. } => Some(
                "`sandhog doctor` shows which GPUs there are; a worker for CPUs has the tag cpu",
            ),
            Self::Trace(_) => Some(
                "set telemetry.otlp to the address of an OTLP receiver that speaks HTTP, such as \
                 http://127.0.0.1:4318, or to an empty string to turn it off",
            ),
            Self::Http { .. } => {
                Some("set worker.http to a free host:port, or to an empty string to turn it off")
            }
        }
    }
}

/// The parts that only a worker with a container engine has.
struct Sandboxes {
    engine: Engine,
    pool: Pool,
    models: Models,
    gpus: Gpus,
}

/// A running worker. Dropping it does not stop anything: call [`Worker::stop`].
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    http: Option<SocketAddr>,
    grace: Duration,
    health: Arc<Health>,
    pool: Option<Pool>,
    tracing: Tracing,
    models: Option<Models>,
    running: TaskTracker,
    /// The served namespaces. The first one also maintains the containers.
    served: Vec<Served>,
    /// Stops claiming and admitting.
    claiming: CancellationToken,
    /// Stops everything else.
    serving: CancellationToken,
    http_server: Option<JoinHandle<()>>,
}

/// Logs a warning if this worker and the others on its machine together claim more than the machine
/// has.
async fn warn_of_overclaim(queue: &Queue, own: PoolFacts) {
    // An error is ignored: the list serves this warning only, and Redis has already answered more
    // important calls.
    let others = queue.workers().await.unwrap_or_default();
    let pools = others.iter().filter_map(|worker| worker.facts.pool);
    for overclaim in sharing::overclaims(pools.chain([own])) {
        if own.machine.is_some_and(|machine| overclaim.is_of(machine)) {
            tracing::warn!(
                %overclaim,
                hint = sharing::HINT,
                "workers claim more than their machine has"
            );
        }
    }
}

impl Worker {
    /// Starts a worker that runs jobs in sandboxes. It first checks Redis and the container engine
    /// and removes the containers of dead workers.
    ///
    /// # Errors
    /// If Redis or the engine cannot be used, or the HTTP address cannot be bound. Nothing runs in
    /// that case.
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        let id = name::worker_id(&settings.worker);
        let queues = connect(settings).await?;
        let first = queues
            .first()
            .expect("a worker serves one namespace at least");
        let identity = (first.queue.identity().await).map_err(first.refuse())?;
        let sandbox = &settings.sandbox;
        let engine = Engine::connect(sandbox, &first.namespace, &id)
            .await
            .map_err(StartError::Sandbox)?
            .serving(identity)
            .attaching(settings.gpu.attach);
        let secrets = Secrets::new(settings.worker.secrets.as_deref());
        secrets.check().await.map_err(StartError::Secrets)?;
        let gpus = Gpus::start(&settings.gpu).await.map_err(StartError::Gpus)?;
        let tags = &settings.worker.tags;
        if gpus.offered(tags).is_empty() {
            let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            return Err(StartError::NothingOffered {
                tags: tags.join(", "),
            });
        }
        let rules = Rules::new(&settings.pool, slots(&settings.worker), engine.facts());
        machine::warn(settings, engine.facts());
        let room = Room::new(rules.memory, rules.cpu_millis, pool::UNMEASURED);
        let pool = Pool::new(engine.clone(), rules);
        let models = Models::new(
            engine.clone(),
            gpus.clone(),
            &settings.worker,
            sandbox.memory,
        );
        let executor = SandboxExecutor::new(
            engine.clone(),
            pool.clone(),
            models.clone(),
            gpus.clone(),
            secrets,
            sandbox.memory,
            settings.worker.max_result,
        );
        models.warm().await.map_err(StartError::Sandbox)?;
        warn_of_overclaim(&first.queue, pool.counts().facts()).await;
        let sandboxes = Sandboxes {
            engine,
            pool,
            models,
            gpus,
        };
        Self::assemble(settings, id, queues, executor, room, Some(sandboxes)).await
    }

    /// Starts a worker that runs jobs with `executor` and needs no container engine. It has the
    /// memory and CPU that `pool` sets; zero means no bound.
    ///
    /// # Errors
    /// If Redis cannot be used or the HTTP address cannot be bound. Nothing runs in that case.
    pub async fn start_with(
        settings: &Settings,
        executor: impl Executor,
    ) -> Result<Self, StartError> {
        let id = name::worker_id(&settings.worker);
        let queues = connect(settings).await?;
        let pool = &settings.pool;
        let room = Room::new(pool.memory, pool.cpu_millis, ByteCount(0));
        Self::assemble(settings, id, queues, executor, room, None).await
    }

    async fn assemble<E: Executor>(
        settings: &Settings,
        id: WorkerId,
        queues: Vec<Connected>,
        executor: E,
        room: Room,
        sandboxes: Option<Sandboxes>,
    ) -> Result<Self, StartError> {
        let worker = &settings.worker;
        let (sandboxes, models, gpus) = match sandboxes {
            Some(Sandboxes {
                engine,
                pool,
                models,
                gpus,
            }) => (Some((engine, pool)), Some(models), Some(gpus)),
            None => (None, None, None),
        };
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
        let total_slots = slots(worker);
        let shared = Shared {
            worker: id.clone(),
            executor: Arc::new(executor),
            slots: Arc::new(Semaphore::new(total_slots)),
            total_slots,
            room,
            running: TaskTracker::new(),
            sandboxes,
            models: models.clone(),
            gpus,
            tracing,
            health: Arc::new(Health::new(worker.lease_ms.duration(), queues.len())),
            started_at: SystemClock.now(),
            claiming: CancellationToken::new(),
            serving: CancellationToken::new(),
        };
        let mut served = Vec::with_capacity(queues.len());
        let alone = queues.len() == 1;
        for (n, queue) in queues.into_iter().enumerate() {
            let refuse = queue.refuse();
            let started = queue.serve(settings, &shared, n, alone).await;
            served.push(started.map_err(refuse)?);
        }
        let Shared {
            running,
            sandboxes,
            tracing,
            health,
            claiming,
            serving,
            ..
        } = shared;
        let http_server = listener.map(|listener| {
            tokio::spawn(http::serve(listener, Arc::clone(&health), serving.clone()))
        });
        health.enter(Phase::Serving);
        tracing::info!(
            worker = %id,
            http = http.map(tracing::field::display),
            namespaces = served.len(),
            "worker serving"
        );
        Ok(Self {
            id,
            http,
            grace: worker.grace_ms.duration(),
            health,
            pool: sandboxes.map(|(_engine, pool)| pool),
            tracing,
            models,
            running,
            served,
            claiming,
            serving,
            http_server,
        })
    }

    /// Returns the worker's id, as it appears in Redis, in results and on its containers.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Returns the address of health and metrics, if they are served.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops the worker: ends claiming, waits up to the grace period for running jobs (cut short by
    /// `hurry`), then gives back the jobs that still run. Returns when nothing of this worker is
    /// left.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped midway, leases expire by themselves and the
    /// containers are left to another worker.
    pub async fn stop(mut self, hurry: CancellationToken) {
        self.health.enter(Phase::Draining);
        self.claiming.cancel();
        for served in &mut self.served {
            served.stop_claiming().await;
        }
        self.running.close();
        tracing::info!(running = self.running.len(), "worker draining");
        let drained = hurry
            .run_until_cancelled(tokio::time::timeout(self.grace, self.running.wait()))
            .await;
        if !matches!(drained, Some(Ok(()))) {
            self.served.iter().for_each(Served::interrupt_all);
            if tokio::time::timeout(LAST_WORDS, self.running.wait())
                .await
                .is_err()
            {
                tracing::error!(
                    running = self.running.len(),
                    "attempts did not end in time; their leases will expire"
                );
            }
        }
        self.serving.cancel();
        let ended = self.served.into_iter().map(|served| served.stop(&self.id));
        futures_util::future::join_all(ended).await;
        if let Some(Err(error)) = match self.http_server {
            Some(server) => Some(server.await),
            None => None,
        } {
            tracing::error!(%error, "a worker task failed");
        }
        if let Some(models) = self.models {
            models.close().await;
        }
        if let Some(pool) = self.pool {
            pool.close().await;
        }
        self.tracing.stop().await;
        tracing::info!(worker = %self.id, "worker stopped");
    }
}

/// Connects to every configured namespace, in order.
async fn connect(settings: &Settings) -> Result<Vec<Connected>, StartError> {
    let mut connected = Vec::new();
    for namespace in settings.served() {
        let refused = refusal(&namespace);
        connected.push(Connected::to(settings, namespace).await.map_err(refused)?);
    }
    Ok(connected)
}

impl Connected {
    fn refuse(&self) -> impl FnOnce(QueueError) -> StartError + use<> {
        refusal(&self.namespace)
    }
}

fn refusal(namespace: &Namespace) -> impl FnOnce(QueueError) -> StartError + use<> {
    let namespace = namespace.clone();
    move |source| StartError::Queue { namespace, source }
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

/// Returns the period changed at random by up to a quarter, so that workers do not act at the same
/// moment.
pub(crate) fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.75..=1.25))
}

/// Returns the number of jobs that these settings allow at once.
pub(crate) fn slots(settings: &WorkerSettings) -> usize {
    match settings.slots {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        set => usize::try_from(set).unwrap_or(usize::MAX),
    }
}
