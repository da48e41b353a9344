//! Reads the names in a set.

use std::str::FromStr;

use crate::resp::RespValue;
use crate::{Queue, QueueError};
use sandhog_core::id::IdError;

impl Queue {
    /// Returns all members of the set `key`, sorted.
    pub(crate) async fn members<T>(&self, key: &str) -> Result<Vec<T>, QueueError>
    where
        T: FromStr<Err = IdError> + Ord,
    {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(key);
        let answer = self.connection.run_repeatable("SMEMBERS", &command).await?;
        let mut names = RespValue::new("SMEMBERS", answer)
            .parts()?
            .map(RespValue::name)
            .collect::<Result<Vec<T>, _>>()?;
        names.sort();
        Ok(names)
    }
}
