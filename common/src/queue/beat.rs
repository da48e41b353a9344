//! The heartbeat: one call renews all leases of a worker.

use super::reply::{Reply, unknown_word};
use super::script::{BEAT, MOST};
use super::{Lease, Queue, QueueError};
use crate::id::WorkerId;

/// Answer of a heartbeat for one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatReply {
    /// The lease is held, and is renewed.
    Held,
    /// The lease is held and is renewed, and a cancel of the job was requested.
    Cancel,
    /// The lease has ended: this worker settled it while the heartbeat was in flight.
    Settled,
    /// The lease is lost. The worker ends the sandbox and publishes nothing.
    Lost,
}

impl Queue {
    /// Renews leases. Returns one answer for each lease, in order. Without leases it only checks
    /// that Redis answers.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; some of the leases may have been renewed.
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
