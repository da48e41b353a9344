//! GPUs assigned to one holder.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Shared;

/// GPUs assigned to one job or one model server until this is dropped. The holder keeps it as long
/// as any of its processes runs.
#[derive(Debug)]
pub struct Grant {
    number: u64,
    uuids: Vec<String>,
    lost: CancellationToken,
    shared: Arc<Shared>,
}

impl Grant {
    pub(super) fn new(
        number: u64,
        uuids: Vec<String>,
        lost: CancellationToken,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            number,
            uuids,
            lost,
            shared,
        }
    }

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
        let (lost, shared, number) = (self.lost.clone(), Arc::clone(&self.shared), self.number);
        async move {
            lost.cancelled().await;
            shared.why(number)
        }
    }

    /// Waits until a demand waits for a GPU. Intended for idle model servers, which may then stop;
    /// all of them are notified.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn asked_for(&self) {
        let mut short = self.shared.short.subscribe();
        if short.wait_for(|short| *short).await.is_err() {
            // The sender lives as long as this grant.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shared.take_back(self.number);
    }
}
