//! The worker process: its start, and its stop in two steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sandhog_config::Settings;
use sandhog_core::clock::{Clock, SystemClock};
use sandhog_core::id::{Tag, WorkerId};
use sandhog_core::units::ByteCount;
use sandhog_queue::{PoolFacts, Queue};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::namespace_builder::NamespaceBuilder;
use super::namespace_connection::NamespaceConnection;
use super::namespace_tasks::NamespaceTasks;
use super::start_error::StartError;
use super::worker_context::WorkerContext;
use crate::attempt::{Executor, slot_count};
use crate::capacity::Capacity;
use crate::doctor::warn_of_low_limits;
use crate::execute::SandboxExecutor;
use crate::gpu::Gpus;
use crate::health::{Health, WorkerPhase};
use crate::http::serve_http;
use crate::metrics;
use crate::models::Models;
use crate::overclaim::{OVERCLAIM_HINT, overclaims};
use crate::pool::{self, Pool, Rules};
use crate::sandbox::{self, SandboxOwner, SandboxSource, Sandboxes};
use crate::secrets::Secrets;
use crate::trace::Tracing;
use crate::worker_id::worker_id;

/// Time that interrupted attempts have to end after the grace period.
const INTERRUPTED_JOBS_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts that only a worker with sandboxes has.
struct SandboxServices {
    sandboxes: Sandboxes,
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
    sandbox_source: Option<SandboxSource>,
    pool: Option<Pool>,
    tracing: Tracing,
    models: Option<Models>,
    running: TaskTracker,
    /// The served namespaces. The first one also maintains the containers.
    namespaces: Vec<NamespaceTasks>,
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
    for overclaim in overclaims(pools.chain([own])) {
        if own.machine.is_some_and(|machine| overclaim.is_of(machine)) {
            tracing::warn!(
                %overclaim,
                hint = OVERCLAIM_HINT,
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
        let id = worker_id(&settings.worker);
        let queues = connect(settings).await?;
        let first = queues
            .first()
            .expect("a worker serves one namespace at least");
        let identity =
            (first.queue.identity().await).map_err(StartError::of_queue(&first.namespace))?;
        let owner = SandboxOwner {
            namespace: first.namespace.clone(),
            worker: id.clone(),
            queue: Some(identity),
        };
        let attach = settings.gpu.attach;
        let sandboxes = sandbox::connect(&settings.sandbox, &settings.pool, attach, owner)
            .await
            .map_err(StartError::Sandbox)?;
        let sandbox_memory = settings.sandbox.memory;
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
        let slots = slot_count(&settings.worker);
        let rules = Rules::new(&settings.pool, slots, sandboxes.facts());
        // A worker with one slot, such as that of `sandhog run`, has no other job to protect.
        if slots > 1 {
            warn_of_low_limits(settings, sandboxes.facts());
        }
        let capacity = Capacity::new(rules.memory, rules.cpu_millis, pool::UNMEASURED_MEMORY);
        let pool = Pool::new(sandboxes.clone(), rules);
        let models = Models::new(
            sandboxes.clone(),
            pool.clone(),
            gpus.clone(),
            &settings.worker,
            sandbox_memory,
        );
        let executor = SandboxExecutor::new(
            sandboxes.clone(),
            pool.clone(),
            models.clone(),
            gpus.clone(),
            secrets,
            sandbox_memory,
            settings.worker.max_result,
        );
        models.warm().await.map_err(StartError::Sandbox)?;
        warn_of_overclaim(&first.queue, pool.counts().facts()).await;
        let services = SandboxServices {
            sandboxes,
            pool,
            models,
            gpus,
        };
        Self::assemble(settings, id, queues, executor, capacity, Some(services)).await
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
        let id = worker_id(&settings.worker);
        let queues = connect(settings).await?;
        let pool = &settings.pool;
        let capacity = Capacity::new(pool.memory, pool.cpu_millis, ByteCount(0));
        Self::assemble(settings, id, queues, executor, capacity, None).await
    }

    async fn assemble<E: Executor>(
        settings: &Settings,
        id: WorkerId,
        queues: Vec<NamespaceConnection>,
        executor: E,
        capacity: Capacity,
        services: Option<SandboxServices>,
    ) -> Result<Self, StartError> {
        let worker = &settings.worker;
        let (sandboxes, models, gpus) = match services {
            Some(SandboxServices {
                sandboxes,
                pool,
                models,
                gpus,
            }) => (Some((sandboxes, pool)), Some(models), Some(gpus)),
            None => (None, None, None),
        };
        let listener = listen(&worker.http).await?;
        let http = listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        metrics::install_recorder();
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
        let slot_count = slot_count(worker);
        let context = WorkerContext {
            worker: id.clone(),
            executor: Arc::new(executor),
            slots: Arc::new(Semaphore::new(slot_count)),
            slot_count,
            capacity,
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
        let mut namespaces = Vec::with_capacity(queues.len());
        let is_only_namespace = queues.len() == 1;
        for (n, queue) in queues.into_iter().enumerate() {
            let refused = StartError::of_queue(&queue.namespace);
            let builder = NamespaceBuilder::new(queue, settings, &context, n, is_only_namespace);
            namespaces.push(builder.start().await.map_err(refused)?);
        }
        let WorkerContext {
            running,
            sandboxes,
            tracing,
            health,
            claiming,
            serving,
            ..
        } = context;
        let http_server = listener.map(|listener| {
            tokio::spawn(serve_http(listener, Arc::clone(&health), serving.clone()))
        });
        health.enter(WorkerPhase::Serving);
        tracing::info!(
            worker = %id,
            http = http.map(tracing::field::display),
            namespaces = namespaces.len(),
            "worker serving"
        );
        Ok(Self {
            id,
            http,
            grace: worker.grace_ms.duration(),
            health,
            sandbox_source: (sandboxes.as_ref()).map(|(sandboxes, _)| sandboxes.source().clone()),
            pool: sandboxes.map(|(_sandboxes, pool)| pool),
            tracing,
            models,
            running,
            namespaces,
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

    /// Returns the way in which the sandboxes are made; `None` for a worker without sandboxes.
    #[must_use]
    pub fn sandbox_source(&self) -> Option<&SandboxSource> {
        self.sandbox_source.as_ref()
    }

    /// Returns the address of health and metrics, if they are served.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Stops the worker: ends claiming, waits up to the grace period for running jobs (cut short by
    /// `skip_grace`), then gives back the jobs that still run. Returns when nothing of this worker
    /// is left.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped midway, leases expire by themselves and the
    /// containers are left to another worker.
    pub async fn stop(mut self, skip_grace: CancellationToken) {
        self.health.enter(WorkerPhase::Draining);
        self.claiming.cancel();
        for namespace in &mut self.namespaces {
            namespace.stop_claiming().await;
        }
        self.running.close();
        tracing::info!(running = self.running.len(), "worker draining");
        let drained = skip_grace
            .run_until_cancelled(tokio::time::timeout(self.grace, self.running.wait()))
            .await;
        if !matches!(drained, Some(Ok(()))) {
            self.namespaces
                .iter()
                .for_each(NamespaceTasks::interrupt_all);
            if tokio::time::timeout(INTERRUPTED_JOBS_TIMEOUT, self.running.wait())
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
        let ended = self
            .namespaces
            .into_iter()
            .map(|namespace| namespace.stop(&self.id));
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
async fn connect(settings: &Settings) -> Result<Vec<NamespaceConnection>, StartError> {
    let mut connected = Vec::new();
    for namespace in settings.served() {
        let refused = StartError::of_queue(&namespace);
        connected.push(
            NamespaceConnection::open(settings, namespace)
                .await
                .map_err(refused)?,
        );
    }
    Ok(connected)
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
