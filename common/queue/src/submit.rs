//! The producer's operations: submits jobs and requests cancels.

use redis::Cmd;

use crate::resp::{RespValue, unknown_word};
use crate::script::CANCEL;
use crate::{Queue, QueueError};
use sandhog_core::id::JobId;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;

/// Maximum number of submissions of one pipeline, and their payload bytes, approximately.
const PIPELINE_BATCH: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// Time for which the cancel of an unknown job is remembered.
const CANCEL_MEMORY: Millis = Millis(60_000);

/// Result of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReply {
    /// The job was waiting. It has now ended, with outcome `cancelled`.
    Cancelled,
    /// The job is running; its worker was notified.
    Asked,
    /// The job had ended before.
    Ended,
    /// The job is unknown. If it is admitted within the next minute, it is cancelled then, because
    /// two admitters may process a job and its cancel in either order.
    Unknown,
}

impl Queue {
    /// Submits one job with a single `XADD` to the intake stream. Returns the id in the routing, or
    /// else the id of the entry.
    ///
    /// A job with an id is safe to submit again: only the first submission counts. Without an id, a
    /// broken connection is an error, and the job may or may not have been submitted.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached or rejects the entry.
    pub async fn submit(&self, routing: &Routing, payload: &[u8]) -> Result<JobId, QueueError> {
        let entry = self.entry(routing, payload);
        let answer = match &routing.id {
            Some(_) => self.connection.run_repeatable("XADD", &entry).await?,
            None => self.connection.run_once("XADD", &entry).await?,
        };
        id_of(routing, RespValue::new("XADD", answer))
    }

    /// Submits many jobs in order, in pipelines. Returns their ids in the same order.
    ///
    /// # Errors
    /// As [`Queue::submit`]; some of the jobs may have been submitted.
    pub async fn submit_many(&self, jobs: &[(Routing, Vec<u8>)]) -> Result<Vec<JobId>, QueueError> {
        let mut ids = Vec::with_capacity(jobs.len());
        let mut rest = jobs;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(batch_len(rest));
            rest = later;
            let mut pipeline = redis::pipe();
            for (routing, payload) in chunk {
                pipeline.add_command(self.entry(routing, payload));
            }
            let named = chunk.iter().all(|(routing, _)| routing.id.is_some());
            let answers = if named {
                self.connection
                    .run_repeatable_pipeline("XADD", &pipeline)
                    .await?
            } else {
                self.connection.run_pipeline("XADD", &pipeline).await?
            };
            for ((routing, _), answer) in chunk.iter().zip(answers) {
                ids.push(id_of(routing, RespValue::new("XADD", answer))?);
            }
        }
        Ok(ids)
    }

    /// Requests the cancel of a job through the intake stream. This needs the same permissions as a
    /// submission.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached or rejects the entry.
    pub async fn cancel(&self, id: &JobId) -> Result<(), QueueError> {
        let mut entry = redis::cmd("XADD");
        entry
            .arg(self.keys.jobs())
            .arg("*")
            .arg(&["op", "cancel", "id", id.as_str()]);
        self.connection
            .run_repeatable("XADD", &entry)
            .await
            .map(drop)
    }

    /// Cancels a job now. An admitter does this with a request from the intake. A waiting job ends
    /// at once. A running job gets a flag in its record, which the next heartbeat returns, and an
    /// event in the control stream.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn cancel_now(&self, id: &JobId) -> Result<CancelReply, QueueError> {
        let answer = CANCEL
            .call(self.keys.prefix())
            .arg(id.as_str())
            .arg(CANCEL_MEMORY.0)
            .run(&self.connection)
            .await?;
        match RespValue::new("cancel", answer).text()?.as_str() {
            "cancelled" => Ok(CancelReply::Cancelled),
            "asked" => Ok(CancelReply::Asked),
            "ended" => Ok(CancelReply::Ended),
            "unknown" => Ok(CancelReply::Unknown),
            other => Err(unknown_word("cancel", other)),
        }
    }

    fn entry(&self, routing: &Routing, payload: &[u8]) -> Cmd {
        let mut entry = redis::cmd("XADD");
        entry.arg(self.keys.jobs()).arg("*").arg("job").arg(payload);
        for (field, value) in routing.fields() {
            entry.arg(field).arg(value);
        }
        entry
    }
}

/// Returns how many of these jobs go into one pipeline: at least one.
fn batch_len(jobs: &[(Routing, Vec<u8>)]) -> usize {
    let mut bytes = 0;
    jobs.iter()
        .take(PIPELINE_BATCH)
        .take_while(|(_, payload)| {
            let fits = bytes == 0 || bytes + payload.len() <= BATCH_BYTES;
            bytes += payload.len();
            fits
        })
        .count()
}

fn id_of(routing: &Routing, answer: RespValue) -> Result<JobId, QueueError> {
    match &routing.id {
        Some(id) => Ok(id.clone()),
        None => answer.name(),
    }
}
