//! Lists the jobs that run now.

use crate::resp::RespValue;
use crate::script::{RUNNING, SCRIPT_BATCH};
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Tenant, WorkerId};
use sandhog_core::units::{Millis, UnixMillis};

/// Number of classes that one call of the script examines. Each may have many running jobs.
const CLASS_BATCH: usize = 8;

/// A job that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Its class.
    pub class: Class,
    /// The tenant that owns the job.
    pub tenant: Tenant,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// Attempts begun, including this one.
    pub attempts: u32,
    /// Time for which this attempt has run, by the clock of Redis.
    pub age: Millis,
}

impl Queue {
    /// Returns the running jobs of these classes, longest first; at most 64 of each class.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn running(&self, classes: &[Class]) -> Result<Vec<RunningJob>, QueueError> {
        let mut jobs = Vec::new();
        for chunk in classes.chunks(CLASS_BATCH) {
            let mut call = RUNNING.call(self.keys.prefix()).arg(SCRIPT_BATCH);
            for class in chunk {
                call.push(class.as_str());
            }
            let mut parts = RespValue::new("running", call.run(&self.connection).await?).parts()?;
            let now = UnixMillis(parts.part()?.number()?);
            while let Some(id) = parts.next() {
                jobs.push(RunningJob {
                    id: id.name()?,
                    class: parts.part()?.name()?,
                    tenant: parts.part()?.name()?,
                    worker: parts.part()?.name()?,
                    attempts: parts.part()?.number()?,
                    age: Millis(now.0.saturating_sub(parts.part()?.number()?)),
                });
            }
        }
        jobs.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.id.cmp(&b.id)));
        Ok(jobs)
    }
}
