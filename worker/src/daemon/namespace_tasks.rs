//! The running loops of one namespace that a worker serves.

use sandhog_core::id::WorkerId;
use sandhog_queue::{Queue, Unblocker};
use tokio::task::JoinHandle;

use crate::lease::{Interrupt, Leases};

/// The tasks of a namespace that is served.
#[derive(Debug)]
pub(super) struct NamespaceTasks {
    pub(super) queue: Queue,
    pub(super) leases: Leases,
    /// Tasks that admit and claim jobs.
    pub(super) claimers: Vec<JoinHandle<()>>,
    /// All other tasks.
    pub(super) servers: Vec<JoinHandle<()>>,
    /// Unblock the readers of both.
    pub(super) readers: Vec<Unblocker>,
}

impl NamespaceTasks {
    /// Waits until claiming has ended. The caller has already cancelled its token.
    pub(super) async fn stop_claiming(&mut self) {
        unblock(&self.readers).await;
        join_all(std::mem::take(&mut self.claimers)).await;
    }

    /// Interrupts every attempt because the worker is stopping.
    pub(super) fn interrupt_all(&self) {
        self.leases.interrupt_all(Interrupt::Draining);
    }

    /// Waits until everything else has ended and removes the worker's record. The caller has
    /// already cancelled the token.
    pub(super) async fn stop(self, worker: &WorkerId) {
        unblock(&self.readers).await;
        join_all(self.servers).await;
        if let Err(error) = self.queue.retire(worker).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "worker record not removed"
            );
        }
    }
}

/// Unblocks the readers. A reader that cannot be unblocked ends by its own timeout.
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

async fn join_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a worker task failed");
        }
    }
}
