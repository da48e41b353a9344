//! One round of upkeep in a period for all workers of a namespace: which worker does it.

use super::reply::Reply;
use super::script::DUTY;
use super::{Queue, QueueError};
use crate::id::WorkerId;
use crate::units::Millis;

/// A worker's request for the next round of upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpkeepRequest {
    /// It takes the round when a period has passed since the last one.
    Take,
    /// It takes the round now, because something is due earlier.
    Now,
    /// It is stopping: it takes the round only when there is no other worker.
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

/// A worker's part in the upkeep of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpkeepDuty {
    /// It is one of the few workers that ask once in a period; the others ask now and then.
    pub is_on_crew: bool,
    /// It is to do a round now: [`Queue::keep_up`].
    pub is_due: bool,
    /// In that round it is to look for unroutable work too.
    pub looks: bool,
    /// In that round it is to sweep too.
    pub sweeps: bool,
    /// Time for which no lease is taken back, because no worker did upkeep for a while.
    pub patient: Millis,
}

impl Queue {
    /// Asks for the next round of upkeep. `period` is how often there is one in the namespace.
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
