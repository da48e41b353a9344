//! From the public intake stream into the queue.
//!
//! Every worker admits, and each entry is handed to one of them. What does not read becomes a dead letter and a
//! result its submitter can find; it never stops the ones behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_common::class::Class;
use sandhog_common::id::Tag;
use sandhog_common::job::Job;
use sandhog_common::queue::{Admission, EntryId, IntakeEntry, IntakeReader, Queue, QueueError};
use sandhog_common::submission::{
    Intake, Submission, readable_encoding, readable_id, readable_reply,
};
use sandhog_common::units::ByteCount;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::attempt::Executor;
use crate::metrics;
use crate::supervise::Patience;

/// Entries read at once; one script call admits them all.
const BATCH: usize = 64;

/// How long a worker without a free slot leaves the intake to others, and to more entries. Each call costs Redis more
/// than its entries do, and nothing that it could admit would start here.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two warnings of refused entries, at least.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How long one blocking read waits.
const BLOCK: Duration = Duration::from_secs(5);

/// What admitting needs.
#[derive(Debug)]
pub(crate) struct Door<E> {
    /// Where jobs come from and go.
    pub(crate) queue: Queue,
    /// What knows what jobs take.
    pub(crate) executor: Arc<E>,
    /// The largest payload admitted.
    pub(crate) max_payload: ByteCount,
    /// What this worker offers.
    pub(crate) tags: BTreeSet<Tag>,
    /// The classes this worker serves, as they become known.
    pub(crate) classes: watch::Receiver<Vec<Class>>,
    /// Told when there may be one more.
    pub(crate) learn: Arc<Notify>,
    /// Whether this worker has no slot free.
    pub(crate) full: watch::Receiver<bool>,
    /// Refused entries that the log does not have yet.
    pub(crate) refusals: Refusals,
}

/// Warnings of refused entries: at most one line in ten seconds, however many entries there are.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Refused entries since the last line.
    count: u64,
    /// The latest of them and its error code.
    latest: Option<(EntryId, String)>,
    /// Time of the last line.
    written: Option<Instant>,
}

impl Refusals {
    fn note(&mut self, entry: &EntryId, code: &str) {
        self.count += 1;
        self.latest = Some((entry.clone(), code.to_owned()));
    }

    fn report(&mut self) {
        if self.written.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        if let Some((entry, code)) = self.latest.take() {
            let refused = std::mem::take(&mut self.count);
            tracing::warn!(
                refused,
                latest = entry.as_str(),
                code,
                "intake entries refused"
            );
            self.written = Some(Instant::now());
        }
    }
}

/// Admits until `stop`; the reader is unblocked by then.
pub(crate) async fn admit<E: Executor>(
    mut door: Door<E>,
    mut reader: IntakeReader,
    stop: CancellationToken,
) {
    let mut patience = Patience::new("admit");
    while !stop.is_cancelled() {
        match door.admit_some(&mut reader).await {
            Ok(entries) => {
                patience.restore();
                if entries < BATCH {
                    door.pause().await;
                }
            }
            Err(error) => patience.wear(&error, &stop).await,
        }
    }
}

impl<E: Executor> Door<E> {
    /// Answers how many entries there were.
    async fn admit_some(&mut self, reader: &mut IntakeReader) -> Result<usize, QueueError> {
        let entries = reader.next(BATCH, BLOCK).await?;
        let count = entries.len();
        let admitted = self.admit_entries(entries).await;
        self.refusals.report();
        admitted?;
        Ok(count)
    }

    /// Waits a moment while every slot is taken.
    async fn pause(&mut self) {
        if *self.full.borrow_and_update() {
            let freed = self.full.wait_for(|full| !full);
            // Freed, or long enough, or there is no claiming any more.
            drop(tokio::time::timeout(PAUSE, freed).await);
        }
    }

    async fn admit_entries(&mut self, entries: Vec<IntakeEntry>) -> Result<(), QueueError> {
        let mut admissions = Vec::with_capacity(entries.len());
        let mut done = Vec::new();
        for entry in entries {
            match entry.parse(self.max_payload) {
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
                    self.queue.cancel_now(&id).await?;
                    done.push(entry.id);
                }
                Err(error) => {
                    let error = error.info();
                    metrics::rejected(&error.code);
                    self.refusals.note(&entry.id, &error.code);
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
            self.size(&mut admissions).await;
            self.queue.admit(&admissions).await?;
            self.tell(&admissions);
        }
        self.queue.done(&done).await
    }

    /// Says of each job what it will take of its worker.
    async fn size(&self, admissions: &mut [Admission]) {
        let submissions: Vec<&mut Submission> = admissions
            .iter_mut()
            .filter_map(|admission| match admission {
                Admission::Accept { submission, .. } => Some(submission.as_mut()),
                Admission::Reject { .. } => None,
            })
            .collect();
        let jobs: Vec<&Job> = submissions
            .iter()
            .map(|submission| &submission.job)
            .collect();
        let sizes = self.executor.sizes(&jobs).await;
        for (submission, size) in submissions.into_iter().zip(sizes) {
            submission.size = size;
        }
    }

    /// A class that this worker does not know yet is not left until it next looks.
    fn tell(&self, admissions: &[Admission]) {
        let known = self.classes.borrow();
        let is_new = |admission: &Admission| match admission {
            Admission::Accept { submission, .. } => {
                let class = submission.routing.class.sized(submission.size);
                class.is_covered_by(&self.tags) && !known.contains(&class)
            }
            Admission::Reject { .. } => false,
        };
        if admissions.iter().any(is_new) {
            self.learn.notify_one();
        }
    }
}
