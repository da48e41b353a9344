//! Start of the loops of one namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use sandhog_config::Settings;
use sandhog_core::class::Class;
use sandhog_core::id::{Namespace, Tag};
use sandhog_queue::{Queue, QueueError, TicketReader, Unblocker};
use tokio::sync::{Notify, Semaphore, watch};

use super::namespace_connection::NamespaceConnection;
use super::namespace_tasks::NamespaceTasks;
use super::worker_context::WorkerContext;
use crate::admission::{AdmissionLoop, Refusals};
use crate::attempt::{Attempts, ClaimOptions, Executor, SettlementBatcher};
use crate::claim::ClaimLoop;
use crate::control::ControlLoop;
use crate::health::RedisLiveness;
use crate::lease::{Leases, run_heartbeat};
use crate::maintenance::{
    Announcer, MaintenanceLoop, NamespaceIdentity, Promoter, QueueSurvey, Reaper, Reserver,
    WarmContainers, WorkerLoad,
};
use crate::schedule::run_schedules;
use crate::served_classes::{ClassFeed, ServedClasses};

/// Builds and starts every loop of one namespace.
#[derive(Debug)]
pub(super) struct NamespaceBuilder<'a, E> {
    settings: &'a Settings,
    context: &'a WorkerContext<E>,
    namespace: Namespace,
    queue: Queue,
    /// `true` for the namespace that also maintains the containers.
    is_first: bool,
    /// `true` if the worker serves no other namespace.
    is_only_namespace: bool,
    leases: Leases,
    liveness: RedisLiveness,
    /// Notified when there may be a class that the worker does not know yet.
    class_found: Arc<Notify>,
    /// Notified when the worker does a round of the namespace's maintenance.
    round: Arc<Notify>,
}

/// Parts of the claim loop for GPU jobs.
struct GpuClaimParts {
    tickets: TicketReader,
    classes: watch::Receiver<Vec<Class>>,
    permits: Arc<Semaphore>,
}

impl<'a, E: Executor> NamespaceBuilder<'a, E> {
    /// Creates the builder for the worker's namespace number `n`. The first namespace, number zero,
    /// also maintains the containers.
    pub(super) fn new(
        connection: NamespaceConnection,
        settings: &'a Settings,
        context: &'a WorkerContext<E>,
        n: usize,
        is_only_namespace: bool,
    ) -> Self {
        let NamespaceConnection { namespace, queue } = connection;
        Self {
            settings,
            context,
            namespace,
            queue,
            is_first: n == 0,
            is_only_namespace,
            leases: Leases::default(),
            liveness: context.health.redis_liveness(n),
            class_found: Arc::new(Notify::new()),
            round: Arc::new(Notify::new()),
        }
    }

    /// Starts every loop.
    pub(super) async fn start(self) -> Result<NamespaceTasks, QueueError> {
        let context = self.context;
        let worker = &self.settings.worker;
        let intake =
            (self.queue.intake_reader(&context.worker).await?).with_max_payload(worker.max_payload);
        let tickets = self.queue.ticket_reader(&context.worker).await?;
        let control = self.queue.control_reader().await?;
        let (class_sender, classes) = watch::channel(Vec::new());
        let mut readers = vec![intake.unblocker(), tickets.unblocker(), control.unblocker()];
        let mut feeds = vec![ClassFeed {
            for_gpus: false,
            classes: class_sender,
            reader: tickets.unblocker(),
        }];
        let gpu_claims = self.gpu_claims(&mut feeds, &mut readers).await?;
        let served = ServedClasses::new(worker.tags.clone(), context.gpus.clone(), feeds);
        let plain_tags = served.without_gpus();
        let mut maintenance = self.maintenance_loop(Arc::new(served));
        maintenance.prepare().await?;

        let (full_sender, full) = watch::channel(false);
        let batcher = self.claiming_batcher(&classes);
        let slots = Arc::clone(&context.slots);
        let claim = self.claim_loop(classes.clone(), slots, batcher, full_sender);
        let admission = self.admission_loop(plain_tags, classes, full);
        let schedules = run_schedules(
            self.queue.clone(),
            Arc::clone(&self.round),
            context.claiming.clone(),
        );
        let mut claimers = vec![
            tokio::spawn(admission.run(intake, context.claiming.clone())),
            tokio::spawn(claim.run(tickets, context.claiming.clone())),
            tokio::spawn(schedules),
        ];
        if let Some(GpuClaimParts {
            tickets,
            classes,
            permits,
        }) = gpu_claims
        {
            // A settlement does not claim the next job here: each claim must check again that a GPU
            // is left.
            let batcher = SettlementBatcher::start(self.queue.clone(), None);
            let claim = self.claim_loop(classes, permits, batcher, watch::Sender::new(false));
            claimers.push(tokio::spawn(claim.run(tickets, context.claiming.clone())));
        }
        let control_loop = self.control_loop();
        let heartbeat = run_heartbeat(
            self.queue.clone(),
            context.worker.clone(),
            self.leases.clone(),
            worker.lease_ms.duration(),
            self.liveness.clone(),
            context.serving.clone(),
        );
        let servers = vec![
            tokio::spawn(maintenance.run(context.serving.clone())),
            tokio::spawn(control_loop.run(control, context.serving.clone())),
            tokio::spawn(heartbeat),
        ];
        self.liveness.record();
        Ok(NamespaceTasks {
            queue: self.queue,
            leases: self.leases,
            claimers,
            servers,
            readers,
        })
    }

    /// Prepares the claim loop for GPU jobs, if the worker has GPUs.
    async fn gpu_claims(
        &self,
        feeds: &mut Vec<ClassFeed>,
        readers: &mut Vec<Unblocker>,
    ) -> Result<Option<GpuClaimParts>, QueueError> {
        let Some(gpus) = self.context.gpus.as_ref().filter(|gpus| gpus.has_any()) else {
            return Ok(None);
        };
        let tickets = self.queue.ticket_reader(&self.context.worker).await?;
        let (class_sender, classes) = watch::channel(Vec::new());
        readers.push(tickets.unblocker());
        feeds.push(ClassFeed {
            for_gpus: true,
            classes: class_sender,
            reader: tickets.unblocker(),
        });
        Ok(Some(GpuClaimParts {
            tickets,
            classes,
            permits: gpus.job_permits(),
        }))
    }

    fn maintenance_loop(&self, served: Arc<ServedClasses>) -> MaintenanceLoop {
        let context = self.context;
        let (namespace, queue) = (&self.namespace, &self.queue);
        let settings = &self.settings.worker;
        let containers = context.sandboxes.as_ref().filter(|_| self.is_first);
        let load = Arc::new(WorkerLoad {
            slots_without_gpu: context.slot_count,
            running: context.running.clone(),
            served: Arc::clone(&served),
            pool: context.sandboxes.as_ref().map(|(_, pool)| pool.clone()),
            models: context.models.clone(),
        });
        MaintenanceLoop {
            class_found: Arc::clone(&self.class_found),
            is_first: self.is_first,
            health: Arc::clone(&context.health),
            load: Arc::clone(&load),
            identity: NamespaceIdentity::new(namespace.clone(), queue.clone(), self.leases.clone()),
            announcer: Announcer {
                namespace: namespace.clone(),
                queue: queue.clone(),
                worker: context.worker.clone(),
                settings: settings.clone(),
                capacity: context.capacity.clone(),
                health: Arc::clone(&context.health),
                started_at: context.started_at,
                served: Arc::clone(&served),
                load,
            },
            promoter: Promoter::new(
                queue.clone(),
                context.worker.clone(),
                settings.clone(),
                Arc::clone(&context.health),
                self.liveness.clone(),
                Arc::clone(&self.round),
            ),
            reserver: Reserver {
                namespace: namespace.clone(),
                queue: queue.clone(),
                worker: context.worker.clone(),
                reserve_after: settings.reserve_after_ms,
                capacity: context.capacity.clone(),
                is_only_namespace: self.is_only_namespace,
                served: Arc::clone(&served),
                health: Arc::clone(&context.health),
            },
            survey: QueueSurvey::new(
                namespace.clone(),
                queue.clone(),
                context.capacity.clone(),
                served,
                Arc::clone(&context.health),
            ),
            warm_containers: containers.map(|(_, pool)| WarmContainers {
                pool: pool.clone(),
                models: context.models.clone(),
                images: self.settings.pool.warm.clone(),
            }),
            reaper: containers.map(|(sandboxes, _)| Reaper {
                queue: queue.clone(),
                worker: context.worker.clone(),
                sandboxes: sandboxes.clone(),
            }),
        }
    }

    /// Starts a batcher that claims the next jobs with its settlements, unless other namespaces use
    /// the slots.
    fn claiming_batcher(&self, classes: &watch::Receiver<Vec<Class>>) -> SettlementBatcher {
        let claim_options = self.is_only_namespace.then(|| ClaimOptions {
            namespace: self.namespace.clone(),
            classes: classes.clone(),
            capacity: self.context.capacity.clone(),
            stop: self.context.claiming.clone(),
        });
        SettlementBatcher::start(self.queue.clone(), claim_options)
    }

    fn claim_loop(
        &self,
        classes: watch::Receiver<Vec<Class>>,
        slots: Arc<Semaphore>,
        batcher: SettlementBatcher,
        full: watch::Sender<bool>,
    ) -> ClaimLoop<E> {
        let context = self.context;
        let worker = &self.settings.worker;
        ClaimLoop {
            attempts: Arc::new(Attempts {
                tracing: context.tracing.of(&self.namespace),
                namespace: self.namespace.clone(),
                queue: self.queue.clone(),
                batcher,
                executor: Arc::clone(&context.executor),
                leases: self.leases.clone(),
                max_payload: worker.max_payload,
                max_lost: worker.max_lost,
            }),
            worker: context.worker.clone(),
            namespace: self.namespace.clone(),
            slots,
            capacity: context.capacity.clone(),
            is_only_namespace: self.is_only_namespace,
            classes,
            running: context.running.clone(),
            turn: 0,
            full,
        }
    }

    fn admission_loop(
        &self,
        tags: BTreeSet<Tag>,
        classes: watch::Receiver<Vec<Class>>,
        full: watch::Receiver<bool>,
    ) -> AdmissionLoop<E> {
        AdmissionLoop {
            queue: self.queue.clone(),
            executor: Arc::clone(&self.context.executor),
            max_payload: self.settings.worker.max_payload,
            tags,
            classes,
            class_found: Arc::clone(&self.class_found),
            full,
            refusals: Refusals::default(),
        }
    }

    fn control_loop(&self) -> ControlLoop {
        let has_gpus = self.context.gpus.is_some();
        ControlLoop {
            leases: self.leases.clone(),
            tags: (!has_gpus).then(|| self.settings.worker.tags.clone()),
            class_found: Arc::clone(&self.class_found),
        }
    }
}
