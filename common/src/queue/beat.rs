//! The heartbeat: one call renews all of a worker's leases.

use super::reply::{Reply, unknown_word};
use super::script::{BEAT, MOST};
use super::{Lease, Queue, QueueError};
use crate::id::WorkerId;

/// What the queue says of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatReply {
    /// It is held, and renewed.
    Held,
    /// It is held and renewed, and somebody wants the job cancelled.
    Cancel,
    /// It is over: this worker settled it while the question was on its way.
    Settled,
    /// It is another's now: end the sandbox, publish nothing.
    Lost,
}

impl Queue {
    /// Renews leases and answers for each, in order. Without leases it finds out whether Redis
    /// answers.
    ///
    /// # Errors
    /// When Redis cannot be reached; some may have been renewed.
    pub async fn beat(
        &self,
        worker: &WorkerId,
        leases: &[Lease],
    ) -> Result<Vec<BeatReply>, QueueError> {
        if leases.is_empty() {
            self.link.repeatable("PING", &redis::cmd("PING")).await?;
        }
        let mut replies = Vec::with_capacity(leases.len());
        for chunk in leases.chunks(MOST) {
            let mut call = BEAT.call(self.keys.prefix()).arg(worker.as_str());
            for lease in chunk {
                call.push(lease.class.as_str());
                call.push(lease.token.as_str());
                call.push(lease.id.as_str());
            }
            let mut parts = Reply::new("beat", call.run(&self.link).await?).parts()?;
            for _ in chunk {
                replies.push(match parts.part()?.text()?.as_str() {
                    "held" => BeatReply::Held,
                    "cancel" => BeatReply::Cancel,
                    "settled" => BeatReply::Settled,
                    "lost" => BeatReply::Lost,
                    other => return Err(unknown_word("beat", other)),
                });
            }
        }
        Ok(replies)
    }
}
