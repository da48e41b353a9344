//! The client: one call for each operation of a producer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use sandhog_config::RedisSettings;
use sandhog_core::id::{JobId, Namespace};
use sandhog_core::job::{CheckedJob, Job};
use sandhog_core::outcome::JobResult;
use sandhog_core::submission::Routing;
use sandhog_core::units::ByteCount;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{JobRecord, Queue, QueueError, ResultWaiter};

use crate::decode::decode;
use crate::error::ClientError;
use crate::follow::Follow;

/// Most jobs that are submitted in one round trip to Redis.
const SUBMIT_BATCH: usize = 256;

/// Most idle connections that are kept for later waits.
const IDLE_WAITERS_MAX: usize = 16;

/// Pause before a wait is repeated after its connection broke.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A producer's view of one namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    queue: Queue,
    waiters: Arc<Mutex<Vec<ResultWaiter>>>,
}

impl Client {
    /// Connects to the queue of `namespace`.
    ///
    /// # Errors
    /// Fails if no address is set, the address is not valid, or Redis cannot be reached.
    pub async fn connect(
        settings: &RedisSettings,
        namespace: &Namespace,
    ) -> Result<Self, ClientError> {
        Ok(Self::from_queue(Queue::connect(settings, namespace).await?))
    }

    /// Returns a client of a queue that is already connected.
    #[must_use]
    pub fn from_queue(queue: Queue) -> Self {
        Self {
            queue,
            waiters: Arc::default(),
        }
    }

    /// The queue that this client uses.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Submits a job and returns its id. A job without an id gets one, so that the call can be
    /// repeated after a broken connection and the job still runs once.
    ///
    /// # Errors
    /// Fails if the job is too large, Redis cannot be reached, or Redis rejects the submission.
    pub async fn submit(&self, job: &CheckedJob, routing: Routing) -> Result<JobId, ClientError> {
        let (routing, payload) = prepare(job, routing)?;
        self.check_size(payload.len()).await?;
        Ok(self.queue.submit(&routing, &payload).await?)
    }

    /// Checks a payload that is larger than workers admit by default against the limits that the
    /// live workers announce, before the payload is written to Redis. Accepts the payload when the
    /// limits are not known, for example because the Redis user of this client may not read them.
    async fn check_size(&self, bytes: usize) -> Result<(), ClientError> {
        if bytes <= wire::MAX_PAYLOAD.as_usize() {
            return Ok(());
        }
        let workers = self.queue.workers().await.unwrap_or_default();
        let said: Option<Vec<_>> = workers
            .iter()
            .map(|worker| worker.facts.max_payload)
            .collect();
        match said.and_then(|said| said.into_iter().max()) {
            Some(most) => within(bytes, most),
            None => Ok(()),
        }
    }

    /// Submits a list of jobs, in order, and returns their ids in the same order.
    ///
    /// # Errors
    /// Fails if one of the jobs is too large; no job has been sent in that case. Otherwise as
    /// [`Client::submit`]; some of the jobs may have been submitted in that case.
    pub async fn submit_batch(
        &self,
        jobs: impl IntoIterator<Item = (CheckedJob, Routing)>,
    ) -> Result<Vec<JobId>, ClientError> {
        let prepared = jobs
            .into_iter()
            .map(|(job, routing)| prepare(&job, routing))
            .collect::<Result<Vec<_>, _>>()?;
        let sizes = prepared.iter().map(|(_, payload)| payload.len());
        self.check_size(sizes.max().unwrap_or(0)).await?;
        Ok(self.queue.submit_many(&prepared).await?)
    }

    /// Submits the jobs of a stream, in order, and yields the id of each job once Redis has it.
    /// Jobs that are ready at the same time share a round trip, up to 256 in one. At most that many
    /// jobs are held in memory.
    ///
    /// Each job is checked here. An invalid job yields an error, and the jobs after it are still
    /// submitted. An error of the queue ends the stream; the jobs of the failed round trip may have
    /// been submitted. If the caller gives each job its own id, it can safely submit all of them
    /// again.
    pub fn submit_many<'a>(
        &'a self,
        jobs: impl Stream<Item = (Job, Routing)> + Send + 'a,
    ) -> impl Stream<Item = Result<JobId, ClientError>> + Send + Unpin + 'a {
        let chunks = jobs.ready_chunks(SUBMIT_BATCH);
        let state = (Box::pin(chunks), VecDeque::new(), false);
        stream::unfold(
            state,
            move |(mut chunks, mut ready, mut failed)| async move {
                loop {
                    if let Some(answer) = ready.pop_front() {
                        return Some((answer, (chunks, ready, failed)));
                    }
                    if failed {
                        return None;
                    }
                    let chunk = chunks.next().await?;
                    failed = self.submit_chunk(chunk, &mut ready).await;
                }
            },
        )
        .boxed()
    }

    /// Submits the jobs of one round trip. Returns whether the queue failed.
    async fn submit_chunk(
        &self,
        jobs: Vec<(Job, Routing)>,
        answers: &mut VecDeque<Result<JobId, ClientError>>,
    ) -> bool {
        let mut good = Vec::with_capacity(jobs.len());
        // The error of each job, in order; `None` for a valid job, which is submitted.
        let mut bad = Vec::with_capacity(jobs.len());
        for (job, routing) in jobs {
            let checked = job.check().map_err(ClientError::from);
            match checked.and_then(|job| prepare(&job, routing)) {
                Ok(prepared) => {
                    good.push(prepared);
                    bad.push(None);
                }
                Err(error) => bad.push(Some(error)),
            }
        }
        match self.queue.submit_many(&good).await {
            Ok(ids) => {
                let mut ids = ids.into_iter();
                answers.extend(bad.into_iter().filter_map(|error| match error {
                    Some(error) => Some(Err(error)),
                    None => ids.next().map(Ok),
                }));
                false
            }
            Err(error) => {
                answers.extend(bad.into_iter().flatten().map(Err));
                answers.push_back(Err(error.into()));
                true
            }
        }
    }

    /// Waits for a job's result, at most `timeout`, across restarts of Redis. The result stays in
    /// Redis.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed.
    ///
    /// # Errors
    /// [`ClientError::NoResult`] when no result arrived in time. An error of the queue when Redis
    /// could still not be reached at the end of `timeout`.
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<JobResult, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            match self.wait_once(id, left).await {
                Ok(Some(bytes)) => return decode(id, &bytes),
                Ok(None) => {
                    return Err(ClientError::NoResult {
                        id: id.clone(),
                        waited: timeout,
                    });
                }
                Err(error) if error.is_transient() && started.elapsed() < timeout => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Submits a job and waits for its result.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call leaves the job running.
    ///
    /// # Errors
    /// As [`Client::submit`] and [`Client::wait`].
    pub async fn run(
        &self,
        job: &CheckedJob,
        routing: Routing,
        timeout: Duration,
    ) -> Result<JobResult, ClientError> {
        let id = self.submit(job, routing).await?;
        self.wait(&id, timeout).await
    }

    /// Returns a job's result, or `None` if the job has none yet.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached, or the result cannot be decoded.
    pub async fn result(&self, id: &JobId) -> Result<Option<JobResult>, ClientError> {
        match self.queue.result(id).await? {
            Some(bytes) => decode(id, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Follows a job's output from its beginning until the job ends.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn follow(&self, id: &JobId) -> Result<Follow, ClientError> {
        Ok(Follow::new(id.clone(), self.queue.log_reader(id).await?))
    }

    /// Requests the cancellation of a job. The job's result shows whether it was cancelled.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached or rejects the request.
    pub async fn cancel(&self, id: &JobId) -> Result<(), ClientError> {
        Ok(self.queue.cancel(id).await?)
    }

    /// Returns the queue's record of a job. Returns `None` before the job is admitted and after its
    /// retention has passed.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached.
    pub async fn inspect(&self, id: &JobId) -> Result<Option<JobRecord>, ClientError> {
        Ok(self.queue.job(id).await?)
    }

    /// Waits once, on a kept connection if there is one.
    async fn wait_once(
        &self,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let kept = self.idle_waiters().pop();
        let mut waiter = match kept {
            Some(waiter) => waiter,
            None => self.queue.result_waiter().await?,
        };
        let answer = waiter.wait(id, timeout).await;
        let mut kept = self.idle_waiters();
        if kept.len() < IDLE_WAITERS_MAX {
            kept.push(waiter);
        }
        answer
    }

    fn idle_waiters(&self) -> std::sync::MutexGuard<'_, Vec<ResultWaiter>> {
        // A panic while the lock was held leaves the list valid.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a job an id if it has none. Returns its routing and its encoded payload.
pub(crate) fn prepare(
    job: &CheckedJob,
    mut routing: Routing,
) -> Result<(Routing, Vec<u8>), ClientError> {
    if routing.id.is_none() {
        let id = uuid::Uuid::now_v7().simple().to_string();
        routing.id = Some(id.parse().expect("hexadecimal digits are a valid id"));
    }
    #[cfg(feature = "opentelemetry")]
    if routing.trace.is_none() {
        routing.trace = crate::trace::current_trace();
    }
    let payload = wire::encode(job, Encoding::Json);
    within(payload.len(), wire::LARGEST_PAYLOAD)?;
    Ok((routing, payload))
}

fn within(bytes: usize, most: ByteCount) -> Result<(), ClientError> {
    if bytes <= most.as_usize() {
        return Ok(());
    }
    Err(ClientError::TooLarge {
        size: ByteCount(bytes as u64),
        most,
    })
}
