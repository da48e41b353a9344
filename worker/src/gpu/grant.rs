//! GPUs that somebody has, until this is dropped.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Shared;

/// GPUs that are one job's or one model server's until this is dropped. Keep it as long as anything of theirs runs.
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

    /// The driver's names of the GPUs, in its order.
    #[must_use]
    pub fn uuids(&self) -> &[String] {
        &self.uuids
    }

    /// Ends when one of the GPUs fails, and says which and why.
    ///
    /// # Cancel safety
    /// Safe.
    pub fn lost(&self) -> impl Future<Output = String> + use<> {
        let (lost, shared, number) = (self.lost.clone(), Arc::clone(&self.shared), self.number);
        async move {
            lost.cancelled().await;
            shared.why(number)
        }
    }

    /// Ends when somebody waits for a GPU. Only for a model server that is idle and can go; everyone that hears it may.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn asked_for(&self) {
        let mut short = self.shared.short.subscribe();
        if short.wait_for(|short| *short).await.is_err() {
            // Its sender lives as long as this grant.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shared.take_back(self.number);
    }
}
