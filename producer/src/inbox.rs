//! Who waits for which result, and the task that hands results out.
//!
//! One reader of one reply stream serves every waiter. Where the stream may have lost something, and for jobs whose
//! names somebody else may have used before, the results themselves are looked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_common::queue::{JobReply, Queue, QueueError, ReplyReader};
use tokio::sync::oneshot;

use crate::client::read;
use crate::error::ClientError;

/// How long one read waits; after it, results that may not come by the stream are looked for.
const BLOCK: Duration = Duration::from_secs(5);

/// How long to pause before reading again after the connection broke, at first; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long until a result that may not come by the stream is looked for the second time; it doubles.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The longest time between two such looks.
const LOOK_SELDOM: Duration = Duration::from_secs(60);

/// How often the list is gone through for them, at most.
const GO_THROUGH: Duration = Duration::from_secs(1);

/// How many results are looked for at once.
const TOGETHER: usize = 256;

/// What a waiter is told.
pub(crate) type Told = Result<JobResult, ClientError>;

/// Those who wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    waiters: HashMap<JobId, Waiters>,
    /// Tells one registration of a job from the next.
    registrations: u64,
}

/// Everybody who waits for one job.
#[derive(Debug)]
struct Waiters {
    told: Vec<(u64, oneshot::Sender<Told>)>,
    look: Option<Look>,
}

/// When to look for a result that may not come by the stream.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    pause: Duration,
}

/// One wait; taken off the list when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    inbox: Inbox,
    id: JobId,
    number: u64,
    /// None once it has been told.
    told: Option<oneshot::Receiver<Told>>,
}

impl Place {
    /// The job.
    pub(crate) fn id(&self) -> &JobId {
        &self.id
    }

    /// What came, waiting at most `timeout`; none when nothing did.
    pub(crate) async fn told(&mut self, timeout: Duration) -> Option<Told> {
        let told = tokio::time::timeout(timeout, self.told.as_mut()?)
            .await
            .ok()?;
        self.told = None;
        // A sender is dropped only after it has been used, or with the inbox.
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
    /// Puts a job's waiter on the list. `elsewhere`: its result may be told to another reply stream, because somebody
    /// may have submitted a job of that name before.
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

    /// How many jobs are waited for.
    pub(crate) fn count(&self) -> usize {
        self.table().waiters.len()
    }

    /// Tells everybody who waits for a job.
    fn tell(&self, id: &JobId, bytes: &[u8]) {
        let Some(waiters) = self.table().waiters.remove(id) else {
            return;
        };
        for (_, tell) in waiters.told {
            // Who has stopped waiting needs nothing.
            drop(tell.send(read(id, bytes)));
        }
    }

    /// The jobs whose results are to be looked for now: all, or those whose time has come.
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
        // Whoever panicked here left a list that is still one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the result of a job that was known before it was submitted just now; but not that of one that was turned
    /// away before: it is looked at anew.
    pub(crate) async fn look_back(&self, queue: &Queue, id: &JobId) -> Result<(), QueueError> {
        if let Some(bytes) = queue.result(id).await? {
            let is_old = read(id, &bytes).is_ok_and(|result| result.was_turned_away());
            if !is_old {
                self.tell(id, &bytes);
            }
        }
        Ok(())
    }

    /// Looks for results where they are published, and hands out those that are there.
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

/// Hands out what the reader reads, for as long as the task lives.
pub(crate) async fn hand_out(queue: Queue, mut reader: ReplyReader, inbox: Inbox) {
    let mut pause = PAUSE;
    // Whether results are to be looked for that may have gone by unseen.
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
