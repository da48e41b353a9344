//! The heartbeat: one call renews all leases of a worker.

use crate::resp::{RespValue, unknown_word};
use crate::script::{BEAT, SCRIPT_BATCH};
use crate::{Lease, Queue, QueueError};
use sandhog_core::id::WorkerId;

/// Answer of a heartbeat for one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatReply {
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
    pub async fn heartbeat(
        &self,
        worker: &WorkerId,
        leases: &[Lease],
    ) -> Result<Vec<HeartbeatReply>, QueueError> {
        if leases.is_empty() {
            self.connection
                .run_repeatable("PING", &redis::cmd("PING"))
                .await?;
        }
        let mut replies = Vec::with_capacity(leases.len());
        for chunk in leases.chunks(SCRIPT_BATCH) {
            let mut call = BEAT.call(self.keys.prefix()).arg(worker.as_str());
            for lease in chunk {
                call.push(lease.class.as_str());
                call.push(lease.token.as_str());
                call.push(lease.id.as_str());
            }
            let mut parts = RespValue::new("beat", call.run(&self.connection).await?).parts()?;
            for _ in chunk {
                replies.push(match parts.part()?.text()?.as_str() {
                    "held" => HeartbeatReply::Held,
                    "cancel" => HeartbeatReply::Cancel,
                    "settled" => HeartbeatReply::Settled,
                    "lost" => HeartbeatReply::Lost,
                    other => return Err(unknown_word("beat", other)),
                });
            }
        }
        Ok(replies)
    }
}
