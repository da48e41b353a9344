//! Allocation of GPUs: the demands that wait, the current grants, and the state of each GPU.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandhog_core::gpu::GpuFacts;
use sandhog_core::id::Tag;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::assigner::{Allocation, Assigner, Assignment, Unsatisfiable};
use super::demand::Demand;
use super::discover::FoundGpu;
use super::health::GpuSample;
use crate::metrics;
use crate::waiters::Waiters;

/// The GPUs of one worker, with their holders.
#[derive(Debug)]
pub(super) struct GpuAllocator {
    /// One permit for each job that may be claimed for GPUs.
    job_permits: Arc<Semaphore>,
    share: u32,
    table: Mutex<GpuTable>,
    /// True while a demand waits for a GPU.
    has_waiting: watch::Sender<bool>,
    /// Ends the health thread.
    _stop: DropGuard,
}

#[derive(Debug)]
struct GpuTable {
    assigner: Assigner,
    samples: Vec<GpuSample>,
    waiters: Waiters<Result<Grant, Unsatisfiable>>,
    /// Current grants by number, each with the token that notifies its holder of a failure.
    grants: HashMap<u64, (Assignment, CancellationToken)>,
}

impl GpuAllocator {
    /// Creates an allocator in which all GPUs are free. At most `share` holders may share one.
    /// `stop` is cancelled when the allocator is dropped.
    pub(super) fn new(gpus: Vec<FoundGpu>, share: u32, stop: CancellationToken) -> Arc<Self> {
        let jobs = gpus.len() * usize::try_from(share).unwrap_or(usize::MAX);
        Arc::new(Self {
            job_permits: Arc::new(Semaphore::new(jobs)),
            share,
            table: Mutex::new(GpuTable {
                samples: vec![GpuSample::default(); gpus.len()],
                assigner: Assigner::new(gpus, share),
                waiters: Waiters::default(),
                grants: HashMap::new(),
            }),
            has_waiting: watch::Sender::new(false),
            _stop: stop.drop_guard(),
        })
    }

    /// Returns the number of GPUs, including failed ones.
    pub(super) fn count(&self) -> usize {
        self.table().samples.len()
    }

    /// Returns whether a working GPU has no holder.
    pub(super) fn has_free(&self) -> bool {
        let table = self.table();
        let mut devices = table.assigner.devices.iter();
        devices.any(|device| device.failure.is_none() && device.holders == 0)
    }

    /// Returns the model tag of each working GPU.
    pub(super) fn working_models(&self) -> Vec<Option<Tag>> {
        let table = self.table();
        table
            .assigner
            .working()
            .map(|gpu| gpu.tag.clone())
            .collect()
    }

    /// Returns whether the working GPUs could meet the demand if all were free.
    pub(super) fn can_meet(&self, demand: &Demand) -> bool {
        self.table().assigner.can_meet(demand)
    }

    /// Returns whether the demand could be met if every GPU outside `kept` were free.
    pub(super) fn can_meet_outside(&self, demand: &Demand, kept: &[String]) -> bool {
        self.table().assigner.can_meet_outside(demand, kept)
    }

    /// Returns the semaphore with one permit for each job that may be claimed for GPUs.
    pub(super) fn job_permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.job_permits)
    }

    /// Returns the number of jobs that may have GPUs at once.
    pub(super) fn max_jobs(&self) -> usize {
        let working = self.table().assigner.working().count();
        working * usize::try_from(self.share).unwrap_or(usize::MAX)
    }

    /// Returns the state of each GPU, including failed ones.
    pub(super) fn facts(&self) -> Vec<GpuFacts> {
        let table = self.table();
        let devices = table.assigner.devices.iter().zip(&table.samples);
        devices
            .map(|(device, sample)| GpuFacts {
                uuid: device.gpu.uuid.clone(),
                name: device.gpu.name.clone(),
                tag: device.gpu.tag.clone(),
                memory: device.gpu.memory,
                memory_used: sample.memory_used,
                utilisation_percent: sample.utilisation_percent,
                assigned: device.holders,
                failure: device.failure.clone(),
            })
            .collect()
    }

    /// Waits until GPUs that meet the demand are free, and returns them.
    ///
    /// # Errors
    /// If there are not enough such GPUs in working order.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future gives up its place in the queue, or the GPUs already
    /// granted.
    pub(super) async fn acquire(self: &Arc<Self>, demand: Demand) -> Result<Grant, Unsatisfiable> {
        let waiting = {
            let mut table = self.table();
            let number = table.assigner.enqueue(demand);
            table.waiters.add(number, move || self.withdraw(number))
        };
        self.allocate();
        waiting.answer().await
    }

    /// Stores the measurements of a GPU.
    pub(super) fn record(&self, index: usize, sample: GpuSample) {
        if let Some(last) = self.table().samples.get_mut(index) {
            *last = sample;
        }
    }

    /// Takes a GPU out of service and notifies its holders.
    pub(super) fn fail(self: &Arc<Self>, index: usize, why: &str) {
        {
            let mut table = self.table();
            if !table.assigner.fail(index, why) {
                return;
            }
            let uuid = table
                .assigner
                .devices
                .get(index)
                .map(|device| &device.gpu.uuid);
            tracing::error!(uuid, why, "gpu failed");
            for (assignment, lost) in table.grants.values() {
                if assignment.devices.contains(&index) {
                    lost.cancel();
                }
            }
        }
        metrics::gpu_lost();
        let (permits, share) = (self.job_permits(), self.share);
        // Permits in use are removed when their jobs end.
        tokio::spawn(async move {
            if let Ok(removed) = permits.acquire_many_owned(share).await {
                removed.forget();
            }
        });
        self.allocate();
    }

    fn table(&self) -> MutexGuard<'_, GpuTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends every answer that can be given now.
    fn allocate(self: &Arc<Self>) {
        let mut undelivered = Vec::new();
        {
            let mut table = self.table();
            for (number, allocation) in table.assigner.allocate() {
                let answer = match allocation {
                    Allocation::Unsatisfiable(unsatisfiable) => Err(unsatisfiable),
                    Allocation::Assigned(assignment) => {
                        let lost = CancellationToken::new();
                        let devices = assignment.devices.iter();
                        let devices =
                            devices.filter_map(|index| table.assigner.devices.get(*index));
                        let uuids = devices.map(|device| device.gpu.uuid.clone()).collect();
                        table.grants.insert(number, (assignment, lost.clone()));
                        Ok(Grant {
                            number,
                            uuids,
                            lost,
                            allocator: Arc::clone(self),
                        })
                    }
                };
                // An undelivered grant is released when it is dropped, which takes the lock again.
                undelivered.extend(table.waiters.answer(number, answer));
            }
            let waiting = table.assigner.has_waiting();
            self.has_waiting
                .send_if_modified(|known| std::mem::replace(known, waiting) != waiting);
        }
        drop(undelivered);
    }

    /// Removes a demand from the queue, if it is still there.
    fn withdraw(self: &Arc<Self>, number: u64) {
        let was_waiting = {
            let mut table = self.table();
            table.assigner.withdraw(number);
            table.waiters.remove(number)
        };
        if was_waiting {
            self.allocate();
        }
    }

    fn release(self: &Arc<Self>, number: u64) {
        {
            let mut table = self.table();
            if let Some((assignment, _)) = table.grants.remove(&number) {
                table.assigner.release(&assignment);
            }
        }
        self.allocate();
    }

    /// Returns the failure of one of a grant's GPUs.
    fn failure_of(&self, number: u64) -> String {
        let table = self.table();
        let devices = table
            .grants
            .get(&number)
            .map(|(assignment, _)| assignment.devices.as_slice());
        let failed = devices.unwrap_or_default().iter().find_map(|index| {
            let device = table.assigner.devices.get(*index)?;
            Some(format!(
                "{}: {}",
                device.gpu.uuid,
                device.failure.as_deref()?
            ))
        });
        failed.unwrap_or_else(|| "a gpu: it failed".to_owned())
    }
}

/// GPUs assigned to one job or one model server until this is dropped. The holder keeps it as long
/// as any of its processes runs.
#[derive(Debug)]
pub struct Grant {
    number: u64,
    uuids: Vec<String>,
    lost: CancellationToken,
    allocator: Arc<GpuAllocator>,
}

impl Grant {
    /// Returns the driver's names of the GPUs, in the driver's order.
    #[must_use]
    pub fn uuids(&self) -> &[String] {
        &self.uuids
    }

    /// Waits until one of the GPUs fails. Returns its name and the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn lost(&self) -> impl Future<Output = String> + use<> {
        let (lost, allocator, number) =
            (self.lost.clone(), Arc::clone(&self.allocator), self.number);
        async move {
            lost.cancelled().await;
            allocator.failure_of(number)
        }
    }

    /// Waits until a demand waits for a GPU. Intended for idle model servers, which may then stop;
    /// all of them are notified.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_demand(&self) {
        let mut has_waiting = self.allocator.has_waiting.subscribe();
        if has_waiting.wait_for(|waiting| *waiting).await.is_err() {
            // The sender lives as long as this grant.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.allocator.release(self.number);
    }
}
