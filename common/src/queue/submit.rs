//! What a producer does: submit a job, ask for one to be cancelled.

use redis::Cmd;

use super::reply::{Reply, unknown_word};
use super::script::CANCEL;
use super::{Queue, QueueError};
use crate::id::JobId;
use crate::submission::Routing;
use crate::units::Millis;

/// How many submissions go out in one pipeline, and how many bytes of payload, about.
const TOGETHER: usize = 256;
const BYTES_TOGETHER: usize = 4 << 20;

/// How long the cancel of a job that is not known yet is remembered.
const REMEMBER: Millis = Millis(60_000);

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReply {
    /// It was waiting; it is over now, with outcome `cancelled`.
    Cancelled,
    /// It is running; its worker has been told.
    Asked,
    /// It had ended before.
    Ended,
    /// No such job is known. Should it be admitted within the next minute, it is cancelled then: two admitters may
    /// see a job and its cancel in either order.
    Unknown,
}

impl Queue {
    /// Submits one job: a single `XADD` to the intake stream. Answers the routing's own id, else the entry's.
    ///
    /// With an id of its own the job is safe to submit again: only the first counts. Without one a broken
    /// connection is an error, and the job may or may not have been submitted.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the entry.
    pub async fn submit(&self, routing: &Routing, payload: &[u8]) -> Result<JobId, QueueError> {
        let entry = self.entry(routing, payload);
        let answer = match &routing.id {
            Some(_) => self.link.repeatable("XADD", &entry).await?,
            None => self.link.once("XADD", &entry).await?,
        };
        id_of(routing, Reply::new("XADD", answer))
    }

    /// Submits many jobs, pipelined, in order. Answers their ids in the same order.
    ///
    /// # Errors
    /// As [`Queue::submit`]; some of the jobs may have been submitted then.
    pub async fn submit_many(&self, jobs: &[(Routing, Vec<u8>)]) -> Result<Vec<JobId>, QueueError> {
        let mut ids = Vec::with_capacity(jobs.len());
        let mut rest = jobs;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(together(rest));
            rest = later;
            let mut pipeline = redis::pipe();
            for (routing, payload) in chunk {
                pipeline.add_command(self.entry(routing, payload));
            }
            let named = chunk.iter().all(|(routing, _)| routing.id.is_some());
            let answers = if named {
                self.link.repeatable_pipeline("XADD", &pipeline).await?
            } else {
                self.link.pipeline("XADD", &pipeline).await?
            };
            for ((routing, _), answer) in chunk.iter().zip(answers) {
                ids.push(id_of(routing, Reply::new("XADD", answer))?);
            }
        }
        Ok(ids)
    }

    /// Asks for a job to be cancelled, through the intake stream: this needs no more rights than submitting.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the entry.
    pub async fn cancel(&self, id: &JobId) -> Result<(), QueueError> {
        let mut entry = redis::cmd("XADD");
        entry
            .arg(self.keys.jobs())
            .arg("*")
            .arg(&["op", "cancel", "id", id.as_str()]);
        self.link.repeatable("XADD", &entry).await.map(drop)
    }

    /// Cancels a job now: what an admitter does with the request. A waiting job ends at once; a running one gets a
    /// flag in its record, which the next heartbeat answers, and a line in the control stream.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn cancel_now(&self, id: &JobId) -> Result<CancelReply, QueueError> {
        let answer = CANCEL
            .call(self.keys.prefix())
            .arg(id.as_str())
            .arg(REMEMBER.0)
            .run(&self.link)
            .await?;
        match Reply::new("cancel", answer).text()?.as_str() {
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

/// How many of these jobs go out together: one at least.
fn together(jobs: &[(Routing, Vec<u8>)]) -> usize {
    let mut bytes = 0;
    jobs.iter()
        .take(TOGETHER)
        .take_while(|(_, payload)| {
            let fits = bytes == 0 || bytes + payload.len() <= BYTES_TOGETHER;
            bytes += payload.len();
            fits
        })
        .count()
}

fn id_of(routing: &Routing, answer: Reply) -> Result<JobId, QueueError> {
    match &routing.id {
        Some(id) => Ok(id.clone()),
        None => answer.name(),
    }
}
