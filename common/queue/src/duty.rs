//! Chooses the worker that does the next round of a namespace's maintenance. All workers share one
//! round in each period.

use crate::resp::RespValue;
use crate::script::DUTY;
use crate::{Queue, QueueError};
use sandhog_core::id::WorkerId;
use sandhog_core::units::Millis;

/// A worker's request for the next round of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaintenanceRequest {
    /// The worker takes the round if a period has passed since the last one.
    Take,
    /// The worker takes the round now, because something is due earlier.
    Now,
    /// The worker is stopping: it takes the round only if there is no other worker.
    Leave,
}

impl MaintenanceRequest {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Now => "now",
            Self::Leave => "leave",
        }
    }
}

/// A worker's part in the maintenance of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaintenanceDuty {
    /// True if this is one of the few workers that ask once in a period. The others ask from time
    /// to time.
    pub is_candidate: bool,
    /// True if the worker must do a round now: [`Queue::maintain`].
    pub is_due: bool,
    /// True if that round includes a check for unroutable work.
    pub checks_unroutable: bool,
    /// True if that round includes a sweep.
    pub sweeps: bool,
    /// Time for which no lease is taken back, because no worker did maintenance for a while.
    pub reclaim_pause: Millis,
}

impl Queue {
    /// Asks for the next round of maintenance. `period` is the interval of the rounds in the
    /// namespace.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn maintenance_duty(
        &self,
        worker: &WorkerId,
        period: Millis,
        lease: Millis,
        request: MaintenanceRequest,
    ) -> Result<MaintenanceDuty, QueueError> {
        let call = DUTY
            .call(self.keys.prefix())
            .arg(worker.as_str())
            .arg(period.0)
            .arg(lease.0)
            .arg(request.as_str());
        let mut parts = RespValue::new("duty", call.run(&self.connection).await?).parts()?;
        let mut flag = || Ok::<_, QueueError>(parts.part()?.number::<u8>()? == 1);
        let (is_candidate, is_due, checks_unroutable, sweeps) =
            (flag()?, flag()?, flag()?, flag()?);
        Ok(MaintenanceDuty {
            is_candidate,
            is_due,
            checks_unroutable,
            sweeps,
            reclaim_pause: Millis(parts.part()?.number()?),
        })
    }
}
