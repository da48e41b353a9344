//! The client: one call for each thing a producer does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use sandhog_common::config::RedisSettings;
use sandhog_common::id::{JobId, Namespace};
use sandhog_common::job::Job;
use sandhog_common::outcome::JobResult;
use sandhog_common::queue::{JobRecord, Queue, QueueError, ResultWaiter};
use sandhog_common::submission::Routing;
use sandhog_common::units::ByteCount;
use sandhog_common::wire::{self, Encoding};

use crate::error::ClientError;
use crate::follow::Follow;

/// The largest result read. Results are capped where they are made; this bounds what a broken writer can cost us.
const RESULT_CAP: ByteCount = ByteCount::mib(256);

/// How many jobs go out in one trip.
const TOGETHER: usize = 256;

/// How many waiting connections are kept for the next wait.
const WAITERS_KEPT: usize = 16;

/// How long to pause before waiting again after the connection broke.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// When no address is set or it does not read, and when Redis cannot be reached.
    pub async fn connect(
        settings: &RedisSettings,
        namespace: &Namespace,
    ) -> Result<Self, ClientError> {
        Ok(Self::over(Queue::connect(settings, namespace).await?))
    }

    /// A client of a queue that is connected already.
    #[must_use]
    pub fn over(queue: Queue) -> Self {
        Self {
            queue,
            waiters: Arc::default(),
        }
    }

    /// The queue underneath.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Submits a job. One without an id of its own is given one, so that the call can repeat itself after a broken
    /// connection and the job still runs once.
    ///
    /// # Errors
    /// When the job cannot be meant, or Redis cannot be reached or refuses it.
    pub async fn submit(&self, job: &Job, routing: Routing) -> Result<JobId, ClientError> {
        let (routing, payload) = prepare(job, routing)?;
        self.check_size(payload.len()).await?;
        Ok(self.queue.submit(&routing, &payload).await?)
    }

    /// Compares a payload that is larger than workers admit by default with what those that live
    /// say of themselves, before all of it is written into Redis. A client that may not read that
    /// sends it.
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

    /// Submits a list of jobs, in order. Answers their ids in the same order.
    ///
    /// # Errors
    /// When one of the jobs cannot be meant, before any is sent; otherwise as [`Client::submit`], and some may have
    /// been submitted then.
    pub async fn submit_batch(
        &self,
        jobs: impl IntoIterator<Item = (Job, Routing)>,
    ) -> Result<Vec<JobId>, ClientError> {
        let prepared = jobs
            .into_iter()
            .map(|(job, routing)| prepare(&job, routing))
            .collect::<Result<Vec<_>, _>>()?;
        let sizes = prepared.iter().map(|(_, payload)| payload.len());
        self.check_size(sizes.max().unwrap_or(0)).await?;
        Ok(self.queue.submit_many(&prepared).await?)
    }

    /// Submits jobs as they come, in order, and answers the id of each once Redis has it. Jobs that are there at once
    /// go out together, up to 256 in one trip; no more than that many are held in memory.
    ///
    /// A job that cannot be meant is an error in the stream, and those behind it go on. After an error of the queue
    /// the stream ends: those that went out with the failed trip may have been submitted. Give jobs ids of their own,
    /// and all of them may be submitted again.
    pub fn submit_many<'a>(
        &'a self,
        jobs: impl Stream<Item = (Job, Routing)> + Send + 'a,
    ) -> impl Stream<Item = Result<JobId, ClientError>> + Send + Unpin + 'a {
        let trips = jobs.ready_chunks(TOGETHER);
        let state = (Box::pin(trips), VecDeque::new(), false);
        stream::unfold(state, move |(mut trips, mut ready, mut over)| async move {
            loop {
                if let Some(answer) = ready.pop_front() {
                    return Some((answer, (trips, ready, over)));
                }
                if over {
                    return None;
                }
                let trip = trips.next().await?;
                over = self.trip(trip, &mut ready).await;
            }
        })
        .boxed()
    }

    /// Submits what goes out together; answers whether the queue failed.
    async fn trip(
        &self,
        jobs: Vec<(Job, Routing)>,
        answers: &mut VecDeque<Result<JobId, ClientError>>,
    ) -> bool {
        let mut good = Vec::with_capacity(jobs.len());
        // What came of each job, or none for one that goes out.
        let mut bad = Vec::with_capacity(jobs.len());
        for (job, routing) in jobs {
            match prepare(&job, routing) {
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

    /// Waits for a job's result, at most `timeout`, across restarts of Redis. Reading leaves it in place.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed.
    ///
    /// # Errors
    /// [`ClientError::NoResult`] when none came in time, or Redis was not to be reached to the end.
    pub async fn wait(&self, id: &JobId, timeout: Duration) -> Result<JobResult, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            match self.wait_once(id, left).await {
                Ok(Some(bytes)) => return read(id, &bytes),
                Ok(None) => {
                    return Err(ClientError::NoResult {
                        id: id.clone(),
                        waited: timeout,
                    });
                }
                Err(error) if error.is_transient() && started.elapsed() < timeout => {
                    tokio::time::sleep(PAUSE).await;
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
        job: &Job,
        routing: Routing,
        timeout: Duration,
    ) -> Result<JobResult, ClientError> {
        let id = self.submit(job, routing).await?;
        self.wait(&id, timeout).await
    }

    /// A job's result, if it has one now.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the result does not read.
    pub async fn result(&self, id: &JobId) -> Result<Option<JobResult>, ClientError> {
        match self.queue.result(id).await? {
            Some(bytes) => read(id, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Follows a job's output, from its beginning to the job's end.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn follow(&self, id: &JobId) -> Result<Follow, ClientError> {
        Ok(Follow::over(id.clone(), self.queue.log_reader(id).await?))
    }

    /// Asks for a job to be cancelled. Its result tells whether it was.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses.
    pub async fn cancel(&self, id: &JobId) -> Result<(), ClientError> {
        Ok(self.queue.cancel(id).await?)
    }

    /// What the queue knows of a job; none before it is admitted and after its retention has passed.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn inspect(&self, id: &JobId) -> Result<Option<JobRecord>, ClientError> {
        Ok(self.queue.job(id).await?)
    }

    /// One wait, on a kept connection where there is one.
    async fn wait_once(
        &self,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let kept = self.kept_waiters().pop();
        let mut waiter = match kept {
            Some(waiter) => waiter,
            None => self.queue.result_waiter().await?,
        };
        let answer = waiter.wait(id, timeout).await;
        let mut kept = self.kept_waiters();
        if kept.len() < WAITERS_KEPT {
            kept.push(waiter);
        }
        answer
    }

    fn kept_waiters(&self) -> std::sync::MutexGuard<'_, Vec<ResultWaiter>> {
        // Whoever panicked while pushing left a list that is still one.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a job and gives it an id, where it has none.
pub(crate) fn prepare(job: &Job, mut routing: Routing) -> Result<(Routing, Vec<u8>), ClientError> {
    job.check()?;
    if routing.id.is_none() {
        let id = uuid::Uuid::now_v7().simple().to_string();
        routing.id = Some(id.parse().expect("hexadecimal digits are a valid id"));
    }
    #[cfg(feature = "opentelemetry")]
    if routing.trace.is_none() {
        routing.trace = crate::trace::current();
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

/// Reads the bytes of a published result, as [`Queue`]'s readers hand them out.
///
/// # Errors
/// If they are not a result.
pub fn read(id: &JobId, bytes: &[u8]) -> Result<JobResult, ClientError> {
    wire::decode(bytes, RESULT_CAP)
        .map(|(result, _encoding)| result)
        .map_err(|source| ClientError::Result {
            id: id.clone(),
            source,
        })
}
