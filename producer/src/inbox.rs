//! The table of waiting callers, and the task that delivers results to them.
//!
//! One reader of one reply stream serves all waiters. In two cases a result may not arrive through
//! the stream, so it is looked up by the job's id: after entries of the stream were lost, and for a
//! job whose id the caller chose, because a job with that id may have been submitted before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_common::queue::{JobReply, Queue, QueueError, ReplyReader};
use tokio::sync::oneshot;

use crate::client::read;
use crate::error::ClientError;

/// Longest time that one read of the stream blocks. After it, the results that may not arrive
/// through the stream are looked up.
const BLOCK: Duration = Duration::from_secs(5);

/// First pause before the stream is read again after the connection broke. It doubles with each
/// further failure.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest pause before the stream is read again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// First interval between two lookups of a result that may not arrive through the stream. It
/// doubles with each lookup.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Longest interval between two such lookups.
const LOOK_SELDOM: Duration = Duration::from_secs(60);

/// Shortest interval between two scans of the table for lookups that are due.
const GO_THROUGH: Duration = Duration::from_secs(1);

/// Most results that one call to Redis looks up.
const TOGETHER: usize = 256;

/// The result that a waiter receives, or the error of decoding it.
pub(crate) type Told = Result<JobResult, ClientError>;

/// The table of all waiters. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    waiters: HashMap<JobId, Waiters>,
    /// Number of registrations so far; gives each registration its own number.
    registrations: u64,
}

/// All waiters for one job.
#[derive(Debug)]
struct Waiters {
    told: Vec<(u64, oneshot::Sender<Told>)>,
    look: Option<Look>,
}

/// Time of the next lookup of a result that may not arrive through the stream, and the pause after
/// it.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    pause: Duration,
}

/// The registration of one waiter. Dropping it removes the waiter from the table.
#[derive(Debug)]
pub(crate) struct Place {
    inbox: Inbox,
    id: JobId,
    number: u64,
    /// `None` once the result has been received.
    told: Option<oneshot::Receiver<Told>>,
}

impl Place {
    /// The job's id.
    pub(crate) fn id(&self) -> &JobId {
        &self.id
    }

    /// Waits at most `timeout` for the result. Returns `None` when none has arrived.
    pub(crate) async fn told(&mut self, timeout: Duration) -> Option<Told> {
        let told = tokio::time::timeout(timeout, self.told.as_mut()?)
            .await
            .ok()?;
        self.told = None;
        // A sender is dropped only after it has sent, or together with the inbox.
        told.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.inbox.table();
        if let Some(waiters) = table.waiters.get_mut(&self.id) {
            waiters.told.retain(|(number, _)| *number != self.number);
            if waiters.told.is_empty() {
                table.waiters.remove(&self.id);
            }
        }
    }
}

impl Inbox {
    /// Adds a waiter for a job to the table. `elsewhere` is true when the result may go to another
    /// reply stream, because a job with this id may have been submitted before.
    pub(crate) fn register(&self, id: &JobId, elsewhere: bool) -> Place {
        let (tell, told) = oneshot::channel();
        let mut table = self.table();
        table.registrations += 1;
        let number = table.registrations;
        let waiters = table.waiters.entry(id.clone()).or_insert_with(|| Waiters {
            told: Vec::new(),
            look: None,
        });
        waiters.told.push((number, tell));
        if elsewhere {
            waiters.look = Some(Look {
                at: Instant::now() + LOOK_AGAIN,
                pause: LOOK_AGAIN,
            });
        }
        drop(table);
        Place {
            inbox: self.clone(),
            id: id.clone(),
            number,
            told: Some(told),
        }
    }

    /// Number of jobs that have waiters.
    pub(crate) fn count(&self) -> usize {
        self.table().waiters.len()
    }

    /// Sends a job's result to all its waiters.
    fn tell(&self, id: &JobId, bytes: &[u8]) {
        let Some(waiters) = self.table().waiters.remove(id) else {
            return;
        };
        for (_, tell) in waiters.told {
            // Sending fails only if the waiter has been dropped.
            drop(tell.send(read(id, bytes)));
        }
    }

    /// Returns the jobs whose results are to be looked up now: all jobs if `all` is true, otherwise
    /// those whose lookup is due.
    fn to_look_for(&self, all: bool) -> Vec<JobId> {
        let now = Instant::now();
        let mut table = self.table();
        table
            .waiters
            .iter_mut()
            .filter_map(|(id, waiters)| {
                let due = waiters.look.as_mut().filter(|look| look.at <= now);
                let is_due = due.is_some();
                if let Some(look) = due {
                    look.pause = (look.pause * 2).min(LOOK_SELDOM);
                    look.at = now + look.pause;
                }
                (all || is_due).then(|| id.clone())
            })
            .collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while the lock was held leaves the table valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the result of a job that already had one when it was submitted just now. Skips the
    /// result of a job that was turned away earlier, because the queue considers that job again.
    pub(crate) async fn look_back(&self, queue: &Queue, id: &JobId) -> Result<(), QueueError> {
        if let Some(bytes) = queue.result(id).await? {
            let is_old = read(id, &bytes).is_ok_and(|result| result.was_turned_away());
            if !is_old {
                self.tell(id, &bytes);
            }
        }
        Ok(())
    }

    /// Looks up the results of these jobs and delivers those that exist.
    pub(crate) async fn look(&self, queue: &Queue, ids: &[JobId]) -> Result<(), QueueError> {
        for ids in ids.chunks(TOGETHER) {
            let have = queue.have_results(ids).await?;
            for (id, _) in ids.iter().zip(have).filter(|(_, has)| *has) {
                if let Some(bytes) = queue.result(id).await? {
                    self.tell(id, &bytes);
                }
            }
        }
        Ok(())
    }
}

/// Reads the reply stream and delivers its results to the waiters, until the task is aborted.
pub(crate) async fn hand_out(queue: Queue, mut reader: ReplyReader, inbox: Inbox) {
    let mut pause = PAUSE;
    // True while the stream may have lost results, so that all results must be looked up.
    let mut gap = false;
    let mut gone_through = Instant::now();
    loop {
        let done = async {
            let batch = reader.next(BLOCK).await?;
            gap |= batch.gap;
            for JobReply { id, result, .. } in &batch.replies {
                inbox.tell(id, result);
            }
            if gap || gone_through.elapsed() >= GO_THROUGH {
                gone_through = Instant::now();
                inbox.look(&queue, &inbox.to_look_for(gap)).await?;
                gap = false;
            }
            Ok::<(), QueueError>(())
        };
        match done.await {
            Ok(()) => pause = PAUSE,
            Err(_away) => {
                gap = true;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
