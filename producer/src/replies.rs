//! Waiting for any number of results on one connection.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use sandhog_core::id::{JobId, ReplyName};
use sandhog_core::job::{CheckedJob, Job};
use sandhog_core::outcome::JobResult;
use sandhog_core::submission::Routing;
use tokio::task::JoinHandle;

use crate::client::{Client, prepare};
use crate::error::ClientError;
use crate::inbox::{Inbox, Waiter, deliver_replies};

/// A reply stream that belongs to this client, and the callers that wait for its results. Cheap to
/// clone.
///
/// ```no_run
/// # use std::time::Duration;
/// # use futures_util::StreamExt;
/// # use sandhog_core::job::Job;
/// # use sandhog_core::submission::Routing;
/// # async fn example(client: sandhog_producer::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let replies = client.replies().await?;
/// let python: sandhog_core::id::ImageName = "python".parse()?;
/// let jobs = (0..100_000).map(|n| {
///     let job = Job::code(python.clone(), format!("print({n} ** 2)"));
///     (job, Routing::default())
/// });
/// // At most 1,000 jobs are unfinished at a time; results arrive as they are ready.
/// let jobs = futures_util::stream::iter(jobs);
/// let mut results = replies.run_many(jobs, 1_000, Duration::from_secs(600));
/// while let Some(result) = results.next().await {
///     println!("{}", result?.stdout.lossy());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Every job that is submitted through it names the reply stream. One connection reads the stream,
/// however many jobs are waited for. Waiting survives a broken connection and a restart of Redis.
/// Fails if the stream may have lost entries (it is trimmed at about 10,000 unread results), the
/// results are looked up by id. The stream expires with the results in it.
#[derive(Debug, Clone)]
pub struct Replies {
    client: Client,
    name: ReplyName,
    inbox: Inbox,
    reader_task: Arc<ReaderTask>,
}

/// The task that reads the stream. It is aborted when the last handle is dropped; that is safe
/// because reading removes nothing from the stream.
#[derive(Debug)]
struct ReaderTask(JoinHandle<()>);

impl Drop for ReaderTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A submitted job whose result is awaited. Dropping it leaves the job running.
#[derive(Debug)]
#[must_use = "to submit a job without waiting for its result, use Client::submit"]
pub struct Pending {
    waiter: Waiter,
    _reader: Arc<ReaderTask>,
}

impl Pending {
    /// The job's id.
    #[must_use]
    pub fn id(&self) -> &JobId {
        self.waiter.id()
    }

    /// Waits for the result, at most `timeout`.
    ///
    /// # Cancel safety
    /// Safe: a result that arrives after the call was dropped is returned by the next call.
    ///
    /// # Errors
    /// [`ClientError::NoResult`] when no result arrived in time; the next call continues to wait.
    /// [`ClientError::Result`] when the result cannot be decoded. The result is returned once;
    /// later calls return `NoResult`.
    pub async fn wait(&mut self, timeout: Duration) -> Result<JobResult, ClientError> {
        match self.waiter.wait(timeout).await {
            Some(result) => result,
            None => Err(ClientError::NoResult {
                id: self.id().clone(),
                waited: timeout,
            }),
        }
    }
}

impl Client {
    /// Creates a new reply stream and a connection that reads it, to wait for many jobs at once.
    ///
    /// # Errors
    /// Fails if Redis cannot be reached, or the Redis user of this client may not read reply
    /// streams.
    pub async fn replies(&self) -> Result<Replies, ClientError> {
        let name: ReplyName = format!("client:{}", uuid::Uuid::now_v7().simple())
            .parse()
            .expect("letters, a colon and hexadecimal digits are a valid name");
        let mut reader = self.queue().reply_reader(&name).await?;
        // Reports a missing permission now; otherwise the caller would wait for ever.
        reader.next(Duration::ZERO).await?;
        let inbox = Inbox::default();
        let reader_task =
            tokio::spawn(deliver_replies(self.queue().clone(), reader, inbox.clone()));
        Ok(Replies {
            client: self.clone(),
            name,
            inbox,
            reader_task: Arc::new(ReaderTask(reader_task)),
        })
    }
}

impl Replies {
    /// The reply stream's name.
    #[must_use]
    pub fn name(&self) -> &ReplyName {
        &self.name
    }

    /// Number of jobs that callers wait for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.count()
    }

    /// Submits a job whose result goes to this reply stream. The stream replaces any reply stream
    /// that `routing` names.
    ///
    /// If `routing` gives the job an id, a job with this id may have been submitted before. Its
    /// result may then exist already or go to another reply stream. It is delivered here in either
    /// case, up to a minute after it was published.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit(&self, job: &CheckedJob, routing: Routing) -> Result<Pending, ClientError> {
        let named = routing.id.is_some();
        let (mut routing, payload) = prepare(job, routing)?;
        routing.reply = Some(self.name.clone());
        let id = routing
            .id
            .clone()
            .expect("a prepared job has an id of its own");
        // Registers before the submission, because the result may arrive before its reply.
        let waiter = self.inbox.register(&id, named);
        let queue = self.client.queue();
        queue.submit(&routing, &payload).await?;
        if named {
            self.inbox.deliver_earlier_result(queue, &id).await?;
        }
        Ok(Pending {
            waiter,
            _reader: Arc::clone(&self.reader_task),
        })
    }

    /// Submits a job and waits for its result.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call leaves the job running.
    ///
    /// # Errors
    /// As [`Replies::submit`] and [`Pending::wait`].
    pub async fn run(
        &self,
        job: &CheckedJob,
        routing: Routing,
        timeout: Duration,
    ) -> Result<JobResult, ClientError> {
        self.submit(job, routing).await?.wait(timeout).await
    }

    /// Runs the jobs of a stream with at most `in_flight` unfinished jobs at a time (zero counts as
    /// one), and yields each result when it is ready, in no particular order. Once `in_flight` jobs
    /// are unfinished, the next job is taken from `jobs` only when one of them has ended, so
    /// `in_flight` bounds the memory.
    ///
    /// Each job is checked here. A job that is invalid, cannot be submitted, or has no result
    /// within `timeout` of its submission, yields an error; the other jobs continue.
    pub fn run_many<'a>(
        &'a self,
        jobs: impl Stream<Item = (Job, Routing)> + Send + 'a,
        in_flight: usize,
        timeout: Duration,
    ) -> impl Stream<Item = Result<JobResult, ClientError>> + Send + Unpin + 'a {
        jobs.map(
            move |(job, routing)| async move { self.run(&job.check()?, routing, timeout).await },
        )
        .buffer_unordered(in_flight.max(1))
        .boxed()
    }
}
