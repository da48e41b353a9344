//! One connection for any number of results.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use sandhog_common::id::{JobId, ReplyName};
use sandhog_common::job::Job;
use sandhog_common::outcome::JobResult;
use sandhog_common::submission::Routing;
use tokio::task::JoinHandle;

use crate::client::{Client, prepare};
use crate::error::ClientError;
use crate::inbox::{Inbox, Place, hand_out};

/// A reply stream of this client's own, and everybody who waits for its results. Cheap to clone.
///
/// ```no_run
/// # use std::time::Duration;
/// # use futures_util::StreamExt;
/// # use sandhog_common::job::Job;
/// # use sandhog_common::submission::Routing;
/// # async fn example(client: sandhog_producer::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let replies = client.replies().await?;
/// let python: sandhog_common::id::ImageName = "python".parse()?;
/// let jobs = (0..100_000).map(|n| (Job::code(python.clone(), format!("print({n} ** 2)")), Routing::default()));
/// // At most a thousand jobs are under way, whoever submits how many; results come as they are ready.
/// let mut results = replies.run_many(futures_util::stream::iter(jobs), 1_000, Duration::from_secs(600));
/// while let Some(result) = results.next().await {
///     println!("{}", result?.stdout.lossy());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Every job that is submitted through it names the reply stream, which one connection reads, however many jobs are
/// waited for. It survives a broken connection and a restart of Redis, and where the stream may have lost something
/// (it is trimmed at about 10,000 unread results) the results themselves are looked for. The stream expires with the
/// results in it.
#[derive(Debug, Clone)]
pub struct Replies {
    client: Client,
    name: ReplyName,
    inbox: Inbox,
    reading: Arc<Reading>,
}

/// The task that reads; it ends with the last handle. Reading takes nothing from others, so it may be cut off.
#[derive(Debug)]
struct Reading(JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A submitted job whose result will come. Dropping it leaves the job running.
#[derive(Debug)]
#[must_use = "a job whose result nobody wants is submitted with Client::submit"]
pub struct Pending {
    place: Place,
    _reading: Arc<Reading>,
}

impl Pending {
    /// The job.
    #[must_use]
    pub fn id(&self) -> &JobId {
        self.place.id()
    }

    /// Waits for the result, at most `timeout`.
    ///
    /// # Cancel safety
    /// Safe: a result that came meanwhile is there for the next call.
    ///
    /// # Errors
    /// [`ClientError::NoResult`] when none came in time; the next call goes on waiting. [`ClientError::Result`] when
    /// it does not read. Each result is handed out once: after it, `NoResult` again.
    pub async fn wait(&mut self, timeout: Duration) -> Result<JobResult, ClientError> {
        match self.place.told(timeout).await {
            Some(told) => told,
            None => Err(ClientError::NoResult {
                id: self.id().clone(),
                waited: timeout,
            }),
        }
    }
}

impl Client {
    /// A reply stream of one's own with a connection that reads it, for waiting for many jobs at once.
    ///
    /// # Errors
    /// When Redis cannot be reached, or this user may not read reply streams.
    pub async fn replies(&self) -> Result<Replies, ClientError> {
        let name: ReplyName = format!("client:{}", uuid::Uuid::now_v7().simple())
            .parse()
            .expect("letters, a colon and hexadecimal digits are a valid name");
        let mut reader = self.queue().reply_reader(&name).await?;
        // A user who may not read is told so now, not by waiting in vain.
        reader.next(Duration::ZERO).await?;
        let inbox = Inbox::default();
        let reading = tokio::spawn(hand_out(self.queue().clone(), reader, inbox.clone()));
        Ok(Replies {
            client: self.clone(),
            name,
            inbox,
            reading: Arc::new(Reading(reading)),
        })
    }
}

impl Replies {
    /// The reply stream's name.
    #[must_use]
    pub fn name(&self) -> &ReplyName {
        &self.name
    }

    /// How many jobs are waited for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inbox.count()
    }

    /// Submits a job whose result comes here; it takes the place of a reply stream that `routing` names.
    ///
    /// A job with an `id` of its own may be known already, and then its result goes to another reply stream or is there
    /// already: it comes here all the same, up to a minute after it was published.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit(&self, job: &Job, routing: Routing) -> Result<Pending, ClientError> {
        let named = routing.id.is_some();
        let (mut routing, payload) = prepare(job, routing)?;
        routing.reply = Some(self.name.clone());
        let id = routing
            .id
            .clone()
            .expect("a prepared job has an id of its own");
        // Before it is submitted: its result may be quicker than the answer.
        let place = self.inbox.register(&id, named);
        let queue = self.client.queue();
        queue.submit(&routing, &payload).await?;
        if named {
            self.inbox.look_back(queue, &id).await?;
        }
        Ok(Pending {
            place,
            _reading: Arc::clone(&self.reading),
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
        job: &Job,
        routing: Routing,
        timeout: Duration,
    ) -> Result<JobResult, ClientError> {
        self.submit(job, routing).await?.wait(timeout).await
    }

    /// Runs jobs as they come, with at most `in_flight` unfinished ones at a time (zero is taken for one), and
    /// answers each result as it is ready, in no order. A job is taken from `jobs` only when one of those before it
    /// is over, so memory is bounded by `in_flight`.
    ///
    /// A job that fails to be submitted, or has no result within `timeout` of its submission, is an error in the
    /// stream; the others go on.
    pub fn run_many<'a>(
        &'a self,
        jobs: impl Stream<Item = (Job, Routing)> + Send + 'a,
        in_flight: usize,
        timeout: Duration,
    ) -> impl Stream<Item = Result<JobResult, ClientError>> + Send + Unpin + 'a {
        jobs.map(move |(job, routing)| async move { self.run(&job, routing, timeout).await })
            .buffer_unordered(in_flight.max(1))
            .boxed()
    }
}
