//! From the public intake stream into the queue.
//!
//! Every worker admits, and each entry is handed to one of them. What does not read becomes a dead letter and a
//! result its submitter can find; it never stops the ones behind it.

use std::time::Duration;

use sandhog_common::queue::{Admission, IntakeEntry, IntakeReader, Queue, QueueError};
use sandhog_common::submission::{Intake, readable_encoding, readable_id, readable_reply};
use sandhog_common::units::ByteCount;
use tokio_util::sync::CancellationToken;

use crate::metrics;
use crate::supervise::Patience;

/// Entries read at once; one script call admits them all.
const BATCH: usize = 64;

/// How long one blocking read waits.
const BLOCK: Duration = Duration::from_secs(5);

/// Admits until `stop`; the reader is unblocked by then.
pub(crate) async fn admit(
    queue: Queue,
    mut reader: IntakeReader,
    max_payload: ByteCount,
    stop: CancellationToken,
) {
    let mut patience = Patience::new("admit");
    while !stop.is_cancelled() {
        match admit_some(&queue, &mut reader, max_payload).await {
            Ok(()) => patience.restore(),
            Err(error) => patience.wear(&error, &stop).await,
        }
    }
}

async fn admit_some(
    queue: &Queue,
    reader: &mut IntakeReader,
    max_payload: ByteCount,
) -> Result<(), QueueError> {
    let entries = reader.next(BATCH, BLOCK).await?;
    admit_entries(queue, entries, max_payload).await
}

async fn admit_entries(
    queue: &Queue,
    entries: Vec<IntakeEntry>,
    max_payload: ByteCount,
) -> Result<(), QueueError> {
    let mut admissions = Vec::with_capacity(entries.len());
    let mut done = Vec::new();
    for entry in entries {
        match Intake::parse(&entry.fields, max_payload) {
            Ok(Intake::Submit(submission)) => {
                metrics::admitted();
                admissions.push(Admission::Accept {
                    entry: entry.id,
                    submission,
                });
            }
            Ok(Intake::Cancel(id)) => {
                // Before the jobs that came with it: a job and its cancel in one batch must not run for a moment.
                // The queue remembers a cancel of a job that it does not know yet.
                queue.cancel_now(&id).await?;
                done.push(entry.id);
            }
            Err(error) => {
                let error = error.info();
                metrics::rejected(&error.code);
                tracing::warn!(entry = entry.id.as_str(), code = %error.code, "entry refused");
                admissions.push(Admission::Reject {
                    id: readable_id(&entry.fields),
                    reply: readable_reply(&entry.fields),
                    encoding: readable_encoding(&entry.fields),
                    entry: entry.id,
                    error,
                });
            }
        }
    }
    if !admissions.is_empty() {
        queue.admit(&admissions).await?;
    }
    queue.done(&done).await
}
