//! Reads the names in a set.

use std::str::FromStr;

use super::reply::Reply;
use super::{Queue, QueueError};
use crate::id::IdError;

impl Queue {
    /// Returns all members of the set `key`, sorted.
    pub(super) async fn members<T>(&self, key: &str) -> Result<Vec<T>, QueueError>
    where
        T: FromStr<Err = IdError> + Ord,
    {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(key);
        let answer = self.link.repeatable("SMEMBERS", &command).await?;
        let mut names = Reply::new("SMEMBERS", answer)
            .parts()?
            .map(Reply::name)
            .collect::<Result<Vec<T>, _>>()?;
        names.sort();
        Ok(names)
    }
}
