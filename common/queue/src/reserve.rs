//! Reservations of capacity: a worker keeps capacity free for a job that does not fit now, so that
//! smaller jobs do not overtake it for ever.

use crate::resp::RespValue;
use crate::script::RESERVE;
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::id::WorkerId;
use sandhog_core::units::Millis;

impl Queue {
    /// Returns the class, among `classes`, that `worker` should reserve capacity for. `classes`
    /// must be all classes that the worker serves. The result is the class whose next job has
    /// waited longest, if that is longer than `after` and fewer workers reserve capacity for the
    /// class than it has such jobs. It is `None` if no job has been passed over. The worker must
    /// call again within `life`; otherwise the reservation may go to another worker.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn reserve(
        &self,
        worker: &WorkerId,
        after: Millis,
        life: Millis,
        classes: &[Class],
    ) -> Result<Option<Class>, QueueError> {
        let mut call = RESERVE
            .call(self.keys.prefix())
            .arg(worker.as_str())
            .arg(after.0)
            .arg(life.0);
        for class in classes {
            call.push(class.as_str());
        }
        let answer = RespValue::new("reserve", call.run(&self.connection).await?);
        if answer.is_nil() {
            return Ok(None);
        }
        answer.name().map(Some)
    }
}
