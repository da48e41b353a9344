//! Keeping room: no job waits for ever because smaller ones always fit first.

use super::reply::Reply;
use super::script::RESERVE;
use super::{Queue, QueueError};
use crate::class::Class;
use crate::id::WorkerId;
use crate::units::Millis;

impl Queue {
    /// Which of `classes`, all that `worker` serves, it should keep room for: the one whose next job has waited
    /// longest, when that is longer than `after` and no other workers keep room for it already. None when nobody is
    /// passed over. Ask again within `life`, or another worker is given the duty.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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
        let answer = Reply::new("reserve", call.run(&self.link).await?);
        if answer.is_nil() {
            return Ok(None);
        }
        answer.name().map(Some)
    }
}
