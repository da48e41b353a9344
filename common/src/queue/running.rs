//! What runs right now, for people who watch.

use super::reply::Reply;
use super::script::{MOST, RUNNING};
use super::{Queue, QueueError};
use crate::class::Class;
use crate::id::{JobId, Tenant, WorkerId};
use crate::units::{Millis, UnixMillis};

/// How many classes one call looks at: each may have many running jobs.
const CLASSES_TOGETHER: usize = 8;

/// A job that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Its class.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// Who runs it.
    pub worker: WorkerId,
    /// Attempts begun, this one included.
    pub attempts: u32,
    /// How long this attempt has run, by Redis' clock.
    pub age: Millis,
}

impl Queue {
    /// The running jobs of these classes, longest first: at most 64 of each.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn running(&self, classes: &[Class]) -> Result<Vec<RunningJob>, QueueError> {
        let mut jobs = Vec::new();
        for chunk in classes.chunks(CLASSES_TOGETHER) {
            let mut call = RUNNING.call(self.keys.prefix()).arg(MOST);
            for class in chunk {
                call.push(class.as_str());
            }
            let mut parts = Reply::new("running", call.run(&self.link).await?).parts()?;
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
