//! Moves entries from the public intake stream into the queue.
//!
//! Every worker admits; each entry goes to one of them. An entry that cannot be parsed becomes a
//! dead letter and a result that its submitter can find. It never blocks the entries behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_core::class::Class;
use sandhog_core::id::Tag;
use sandhog_core::job::CheckedJob;
use sandhog_core::submission::{
    Intake, Submission, readable_encoding, readable_id, readable_reply,
};
use sandhog_core::units::ByteCount;
use sandhog_queue::{Admission, EntryId, IntakeEntry, IntakeReader, Queue, QueueError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::attempt::Executor;
use crate::backoff::LoopBackoff;
use crate::metrics;

/// Maximum number of entries per read; one script call admits them all.
const ADMISSION_BATCH_SIZE: usize = 64;

/// Pause between two reads of the intake while this worker has no free slot. Each call costs Redis
/// more than its entries do, and no job that this worker admits could start here, so it leaves the
/// entries to other workers and lets more of them collect.
const NO_SLOT_PAUSE: Duration = Duration::from_millis(20);

/// Minimum time between two warnings about refused entries.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Timeout of one blocking read.
const INTAKE_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// State of the admission loop.
#[derive(Debug)]
pub(crate) struct AdmissionLoop<E> {
    /// The queue that jobs are read from and admitted to.
    pub(crate) queue: Queue,
    /// Executor that determines the size of each job.
    pub(crate) executor: Arc<E>,
    /// Maximum size of an admitted payload.
    pub(crate) max_payload: ByteCount,
    /// The tags that this worker offers.
    pub(crate) tags: BTreeSet<Tag>,
    /// The classes that this worker serves, updated as it learns of new ones.
    pub(crate) classes: watch::Receiver<Vec<Class>>,
    /// Notified when there may be a class that this worker does not know yet.
    pub(crate) class_found: Arc<Notify>,
    /// `true` while this worker has no free slot.
    pub(crate) full: watch::Receiver<bool>,
    /// Refused entries that are not logged yet.
    pub(crate) refusals: Refusals,
}

/// Warnings about refused entries: at most one log line in ten seconds, regardless of the number of
/// entries.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Number of refused entries since the last log line.
    count: u64,
    /// The latest refused entry and its error code.
    latest: Option<(EntryId, String)>,
    /// Time of the last log line.
    written: Option<Instant>,
}

impl Refusals {
    fn note(&mut self, entry: &EntryId, code: &str) {
        self.count += 1;
        self.latest = Some((entry.clone(), code.to_owned()));
    }

    fn report(&mut self) {
        if self
            .written
            .is_some_and(|last| last.elapsed() < REFUSAL_LOG_INTERVAL)
        {
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

impl<E: Executor> AdmissionLoop<E> {
    /// Admits entries until `stop` is cancelled. The caller unblocks the reader after that.
    pub(crate) async fn run(mut self, mut reader: IntakeReader, stop: CancellationToken) {
        let mut backoff = LoopBackoff::new("admit");
        while !stop.is_cancelled() {
            match self.admit_batch(&mut reader).await {
                Ok(entries) => {
                    backoff.reset();
                    if entries < ADMISSION_BATCH_SIZE {
                        self.pause().await;
                    }
                }
                Err(error) => backoff.record_failure(&error, &stop).await,
            }
        }
    }

    /// Admits one batch and returns the number of entries read.
    async fn admit_batch(&mut self, reader: &mut IntakeReader) -> Result<usize, QueueError> {
        let entries = reader
            .next(ADMISSION_BATCH_SIZE, INTAKE_READ_TIMEOUT)
            .await?;
        let count = entries.len();
        let admitted = self.admit_entries(entries).await;
        self.refusals.report();
        admitted?;
        Ok(count)
    }

    /// Pauses for up to [`NO_SLOT_PAUSE`] while every slot is taken.
    async fn pause(&mut self) {
        if *self.full.borrow_and_update() {
            let freed = self.full.wait_for(|full| !full);
            // Ends when a slot is free, after `NO_SLOT_PAUSE`, or when the claim loop has ended.
            drop(tokio::time::timeout(NO_SLOT_PAUSE, freed).await);
        }
    }

    async fn admit_entries(&mut self, entries: Vec<IntakeEntry>) -> Result<(), QueueError> {
        let mut admissions = Vec::with_capacity(entries.len());
        let mut done = Vec::new();
        for entry in entries {
            match entry.parse(self.max_payload) {
                Ok(Intake::Submit(submission)) => {
                    metrics::job_admitted();
                    admissions.push(Admission::Accept {
                        entry: entry.id,
                        submission,
                    });
                }
                Ok(Intake::Cancel(id)) => {
                    // Cancels are processed before the jobs of the same batch, so that a job which
                    // arrives together with its cancel does not run even for a moment. The queue
                    // remembers a cancel of a job that it does not know yet.
                    self.queue.cancel_now(&id).await?;
                    done.push(entry.id);
                }
                Err(error) => {
                    let error = error.info();
                    metrics::job_rejected(&error.code);
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
            self.notify_unknown_classes(&admissions);
        }
        self.queue.done(&done).await
    }

    /// Sets the size of each accepted job.
    async fn size(&self, admissions: &mut [Admission]) {
        let submissions: Vec<&mut Submission> = admissions
            .iter_mut()
            .filter_map(|admission| match admission {
                Admission::Accept { submission, .. } => Some(submission.as_mut()),
                Admission::Reject { .. } => None,
            })
            .collect();
        let jobs: Vec<&CheckedJob> = submissions
            .iter()
            .map(|submission| &submission.job)
            .collect();
        let sizes = self.executor.sizes(&jobs).await;
        for (submission, size) in submissions.into_iter().zip(sizes) {
            submission.size = size;
        }
    }

    /// Triggers the search for new classes if one of the admitted jobs has a class that this worker
    /// could serve but does not know yet. Otherwise the class would wait until the next periodic
    /// search.
    fn notify_unknown_classes(&self, admissions: &[Admission]) {
        let known = self.classes.borrow();
        let is_new = |admission: &Admission| match admission {
            Admission::Accept { submission, .. } => {
                let class = submission.routing.class.sized(submission.size);
                class.is_covered_by(&self.tags) && !known.contains(&class)
            }
            Admission::Reject { .. } => false,
        };
        if admissions.iter().any(is_new) {
            self.class_found.notify_one();
        }
    }
}
