//! Chooses the worker that does the next round of a namespace's maintenance. All workers share one
//! round in each period.

use super::reply::Reply;
use super::script::DUTY;
use super::{Queue, QueueError};
use crate::id::WorkerId;
use crate::units::Millis;

/// A worker's request for the next round of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpkeepRequest {
    /// The worker takes the round if a period has passed since the last one.
    Take,
    /// The worker takes the round now, because something is due earlier.
    Now,
    /// The worker is stopping: it takes the round only if there is no other worker.
    Leave,
}

impl UpkeepRequest {
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
pub struct UpkeepDuty {
    /// True if this is one of the few workers that ask once in a period. The others ask from time
    /// to time.
    pub is_on_crew: bool,
    /// True if the worker must do a round now: [`Queue::keep_up`].
    pub is_due: bool,
    /// True if that round includes a check for unroutable work.
    pub looks: bool,
    /// True if that round includes a sweep.
    pub sweeps: bool,
    /// Time for which no lease is taken back, because no worker did maintenance for a while.
    pub patient: Millis,
}

impl Queue {
    /// Asks for the next round of maintenance. `period` is the interval of the rounds in the
    /// namespace.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn upkeep_duty(
        &self,
        worker: &WorkerId,
        period: Millis,
        lease: Millis,
        request: UpkeepRequest,
    ) -> Result<UpkeepDuty, QueueError> {
        let call = DUTY
            .call(self.keys.prefix())
            .arg(worker.as_str())
            .arg(period.0)
            .arg(lease.0)
            .arg(request.as_str());
        let mut parts = Reply::new("duty", call.run(&self.link).await?).parts()?;
        let mut flag = || Ok::<_, QueueError>(parts.part()?.number::<u8>()? == 1);
        let (is_on_crew, is_due, looks, sweeps) = (flag()?, flag()?, flag()?, flag()?);
        Ok(UpkeepDuty {
            is_on_crew,
            is_due,
            looks,
            sweeps,
            patient: Millis(parts.part()?.number()?),
        })
    }
}
