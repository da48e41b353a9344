//! The table of waiting callers, and the task that delivers results to them.
//!
//! One reader of one reply stream serves all waiters. In two cases a result may not arrive through
//! the stream, so it is looked up by the job's id: after entries of the stream were lost, and for a
//! job whose id the caller chose, because a job with that id may have been submitted before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandhog_core::backoff::Backoff;
use sandhog_core::id::JobId;
use sandhog_core::outcome::JobResult;
use sandhog_queue::{JobReply, Queue, QueueError, ReplyReader};
use tokio::sync::oneshot;

use crate::decode::decode;
use crate::error::ClientError;

/// Longest time that one read of the stream blocks. After it, the results that may not arrive
/// through the stream are looked up.
const READ_BLOCK: Duration = Duration::from_secs(5);

/// First pause before the stream is read again after the connection broke. It doubles with each
/// further failure.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause before the stream is read again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// First interval between two lookups of a result that may not arrive through the stream. It
/// doubles with each lookup.
const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Longest interval between two such lookups.
const LOOKUP_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Shortest interval between two scans of the table for lookups that are due.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Most results that one call to Redis looks up.
const LOOKUP_BATCH: usize = 256;

/// The result that a waiter receives, or the error of decoding it.
pub(crate) type WaitResult = Result<JobResult, ClientError>;

/// The table of all waiters. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<WaiterTable>>);

#[derive(Debug, Default)]
struct WaiterTable {
    waiters: HashMap<JobId, JobWaiters>,
    /// Number of registrations so far; gives each registration its own number.
    registrations: u64,
}

/// All waiters for one job.
#[derive(Debug)]
struct JobWaiters {
    senders: Vec<(u64, oneshot::Sender<WaitResult>)>,
    lookup: Option<Lookup>,
}

/// Time of the next lookup of a result that may not arrive through the stream, and the intervals
/// after it.
#[derive(Debug)]
struct Lookup {
    at: Instant,
    intervals: Backoff,
}

/// The registration of one waiter. Dropping it removes the waiter from the table.
#[derive(Debug)]
pub(crate) struct Waiter {
    inbox: Inbox,
    id: JobId,
    number: u64,
    /// `None` once the result has been received.
    receiver: Option<oneshot::Receiver<WaitResult>>,
}

impl Waiter {
    /// The job's id.
    pub(crate) fn id(&self) -> &JobId {
        &self.id
    }

    /// Waits at most `timeout` for the result. Returns `None` when none has arrived.
    pub(crate) async fn wait(&mut self, timeout: Duration) -> Option<WaitResult> {
        let received = tokio::time::timeout(timeout, self.receiver.as_mut()?)
            .await
            .ok()?;
        self.receiver = None;
        // A sender is dropped only after it has sent, or together with the inbox.
        received.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.inbox.table();
        if let Some(waiters) = table.waiters.get_mut(&self.id) {
            waiters.senders.retain(|(number, _)| *number != self.number);
            if waiters.senders.is_empty() {
                table.waiters.remove(&self.id);
            }
        }
    }
}

impl Inbox {
    /// Adds a waiter for a job to the table. `elsewhere` is true when the result may go to another
    /// reply stream, because a job with this id may have been submitted before.
    pub(crate) fn register(&self, id: &JobId, elsewhere: bool) -> Waiter {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.registrations += 1;
        let number = table.registrations;
        let waiters = table
            .waiters
            .entry(id.clone())
            .or_insert_with(|| JobWaiters {
                senders: Vec::new(),
                lookup: None,
            });
        waiters.senders.push((number, sender));
        if elsewhere {
            let mut intervals = Backoff::new(LOOKUP_INTERVAL_MIN, LOOKUP_INTERVAL_MAX);
            waiters.lookup = Some(Lookup {
                at: Instant::now() + intervals.next_wait(),
                intervals,
            });
        }
        drop(table);
        Waiter {
            inbox: self.clone(),
            id: id.clone(),
            number,
            receiver: Some(receiver),
        }
    }

    /// Number of jobs that have waiters.
    pub(crate) fn count(&self) -> usize {
        self.table().waiters.len()
    }

    /// Sends a job's result to all its waiters.
    fn deliver(&self, id: &JobId, bytes: &[u8]) {
        let Some(waiters) = self.table().waiters.remove(id) else {
            return;
        };
        for (_, sender) in waiters.senders {
            // Sending fails only if the waiter has been dropped.
            drop(sender.send(decode(id, bytes)));
        }
    }

    /// Returns the jobs whose results are to be looked up now: all jobs if `all` is true, otherwise
    /// those whose lookup is due.
    fn due_lookups(&self, all: bool) -> Vec<JobId> {
        let now = Instant::now();
        let mut table = self.table();
        table
            .waiters
            .iter_mut()
            .filter_map(|(id, waiters)| {
                let due = waiters.lookup.as_mut().filter(|lookup| lookup.at <= now);
                let is_due = due.is_some();
                if let Some(lookup) = due {
                    lookup.at = now + lookup.intervals.next_wait();
                }
                (all || is_due).then(|| id.clone())
            })
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, WaiterTable> {
        // A panic while the lock was held leaves the table valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the result of a job that already had one when it was submitted just now. Skips the
    /// result of a job that was turned away earlier, because the queue considers that job again.
    pub(crate) async fn deliver_earlier_result(
        &self,
        queue: &Queue,
        id: &JobId,
    ) -> Result<(), QueueError> {
        if let Some(bytes) = queue.result(id).await? {
            let is_old = decode(id, &bytes).is_ok_and(|result| result.is_resubmittable());
            if !is_old {
                self.deliver(id, &bytes);
            }
        }
        Ok(())
    }

    /// Looks up the results of these jobs and delivers those that exist.
    pub(crate) async fn look_up(&self, queue: &Queue, ids: &[JobId]) -> Result<(), QueueError> {
        for ids in ids.chunks(LOOKUP_BATCH) {
            let have = queue.have_results(ids).await?;
            for (id, _) in ids.iter().zip(have).filter(|(_, has)| *has) {
                if let Some(bytes) = queue.result(id).await? {
                    self.deliver(id, &bytes);
                }
            }
        }
        Ok(())
    }
}

/// Reads the reply stream and delivers its results to the waiters, until the task is aborted.
pub(crate) async fn deliver_replies(queue: Queue, mut reader: ReplyReader, inbox: Inbox) {
    let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
    // True while the stream may have lost results, so that all results must be looked up.
    let mut gap = false;
    let mut last_scan = Instant::now();
    loop {
        let done = async {
            let batch = reader.next(READ_BLOCK).await?;
            gap |= batch.gap;
            for JobReply { id, result, .. } in &batch.replies {
                inbox.deliver(id, result);
            }
            if gap || last_scan.elapsed() >= SCAN_INTERVAL {
                last_scan = Instant::now();
                inbox.look_up(&queue, &inbox.due_lookups(gap)).await?;
                gap = false;
            }
            Ok::<(), QueueError>(())
        };
        match done.await {
            Ok(()) => backoff.reset(),
            Err(_away) => {
                gap = true;
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}
