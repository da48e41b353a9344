//! A job's output while it runs. The worker that holds the job appends it; any client may follow
//! it.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::blocking::BlockingConnection;
use crate::resp::RespValue;
use crate::script::LOG;
use crate::stream_entry::{self, StreamEntry};
use crate::{Lease, Queue, QueueError, Unblocker, record};
use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;

/// Longest single wait for output. After it, the reader checks whether it was asked to stop.
const WAIT_SLICE: Duration = Duration::from_secs(5);

/// Shortest and longest interval between two checks for the result, for a user who may not block on
/// it. The checks are needed because a job that prints nothing has no log whose end could be read.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(5);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Length of one wait for a result. Another wait follows it.
const RESULT_WAIT: Duration = Duration::from_secs(86_400);

/// Pause before the next wait for the result after the connection broke.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Longest time by which the result may reach the reader after the end of the log. Both are written
/// in one step.
const RESULT_GRACE: Duration = Duration::from_millis(200);

/// Maximum number of entries of one read.
const READ_BATCH: usize = 128;

/// Output stream of a program from which a chunk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Returns the name in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A chunk of a program's output that is to be appended to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Output stream of the program.
    pub stream: LogStream,
    /// The bytes, as they came.
    pub data: Vec<u8>,
}

/// A position in a log: after the entry of this stream id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition(String);

impl LogPosition {
    /// Returns the position before the first entry.
    #[must_use]
    pub fn start() -> Self {
        Self("0".to_owned())
    }

    /// Returns the position as Redis writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// A chunk of the program's output.
    Chunk {
        /// Output stream of the program.
        stream: LogStream,
        /// The bytes, as they came.
        data: Vec<u8>,
        /// The attempt that wrote the chunk, from 1. A new attempt starts its output from the
        /// beginning.
        attempt: u32,
        /// Position after this entry.
        after: LogPosition,
    },
    /// The end of the log: the job has ended.
    End {
        /// Outcome of the job, if the log contains it.
        outcome: Option<Outcome>,
    },
}

impl Queue {
    /// Appends one chunk; see [`Queue::log_all`].
    ///
    /// # Errors
    /// As [`Queue::log_all`].
    pub async fn log(
        &self,
        lease: &Lease,
        stream: LogStream,
        bytes: &[u8],
    ) -> Result<bool, QueueError> {
        let data = bytes.to_vec();
        self.log_all(lease, &[LogChunk { stream, data }]).await
    }

    /// Appends to a job's log if the lease is still held. Returns whether it is held.
    ///
    /// A chunk is written at most once. It is lost if Redis is full or the connection breaks; the
    /// job's result contains the output in any case.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn log_all(&self, lease: &Lease, chunks: &[LogChunk]) -> Result<bool, QueueError> {
        let mut call = LOG
            .call(self.keys.prefix())
            .arg(lease.worker.as_str())
            .arg(lease.class.as_str())
            .arg(lease.token.as_str())
            .arg(lease.id.as_str());
        for chunk in chunks {
            call.push(chunk.stream.as_str());
            call.push(&chunk.data);
        }
        let answer = call.run_once(&self.connection).await?;
        Ok(RespValue::new("log", answer).number::<u8>()? == 1)
    }

    /// Opens a reader of one job's log. It has a connection of its own for the log, and opens a
    /// second one for the result when it first waits.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn log_reader(&self, id: &JobId) -> Result<LogReader, QueueError> {
        Ok(LogReader {
            queue: self.clone(),
            blocking: BlockingConnection::open(&self.connection).await?,
            id: id.clone(),
            end: JobEnd::Unwatched,
        })
    }
}

/// Reader that follows one job's log.
#[derive(Debug)]
pub struct LogReader {
    queue: Queue,
    blocking: BlockingConnection,
    id: JobId,
    end: JobEnd,
}

/// The reader's knowledge of the job's end. The log alone does not show it if the job printed
/// nothing.
#[derive(Debug)]
enum JobEnd {
    /// The reader has not waited yet.
    Unwatched,
    /// A task waits for the result.
    Watched(ResultTask),
    /// The user may not block on the result, so the reader has checked for it periodically since
    /// this time.
    Polled(Instant),
    /// The job has ended. Holds its result until the caller takes it.
    Ended(Option<Vec<u8>>),
}

/// A task that waits for a result. Its value is `None` if the user may not wait. The wait takes
/// nothing away from other readers, so the task may be aborted.
#[derive(Debug)]
struct ResultTask(JoinHandle<Option<Vec<u8>>>);

impl Drop for ResultTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LogReader {
    /// Returns the entries after `after`. Waits at most `block` for the first; empty when none
    /// came. The last entry is [`LogEntry::End`] once the job has ended and all has been read.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn next(
        &mut self,
        after: &LogPosition,
        block: Duration,
    ) -> Result<Vec<LogEntry>, QueueError> {
        let _call = self.blocking.enter();
        let deadline = Instant::now() + block;
        loop {
            if self.blocking.is_unblocked() {
                return Ok(Vec::new());
            }
            if matches!(self.end, JobEnd::Ended(_)) {
                return self.rest(after).await;
            }
            if matches!(self.end, JobEnd::Unwatched) && !block.is_zero() {
                self.end = JobEnd::Watched(spawn_result_task(&self.queue, &self.id));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let found = self.wait_once(after, left).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            let checks_result = matches!(self.end, JobEnd::Unwatched | JobEnd::Polled(_));
            if checks_result && self.has_result().await? {
                return self.rest(after).await;
            }
            if matches!(self.end, JobEnd::Ended(_)) {
                continue;
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    /// Returns the job's result if this reader learned of the job's end through it. Each result is
    /// returned once.
    ///
    /// # Cancel safety
    /// Safe: a caller that loses the answer reads the result from the queue.
    pub async fn take_result(&mut self) -> Option<Vec<u8>> {
        if let JobEnd::Watched(watch) = &mut self.end
            && let Ok(finished) = tokio::time::timeout(RESULT_GRACE, &mut watch.0).await
        {
            self.end = JobEnd::Ended(finished.ok().flatten());
        }
        match &mut self.end {
            JobEnd::Ended(result) => result.take(),
            JobEnd::Unwatched | JobEnd::Watched(_) | JobEnd::Polled(_) => None,
        }
    }

    /// Returns a handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    /// Waits once for output or for the job's end.
    async fn wait_once(
        &mut self,
        after: &LogPosition,
        left: Duration,
    ) -> Result<Vec<LogEntry>, QueueError> {
        let (blocking, queue, id) = (&mut self.blocking, &self.queue, &self.id);
        let mut read = async |wait| {
            let command = read_command(queue, id, after, wait);
            entries(blocking.wait("XREAD", &command, wait).await?)
        };
        match &mut self.end {
            JobEnd::Watched(watch) => {
                // A dropped read closes its connection. This happens at most once for each job.
                let finished = tokio::select! {
                    biased;
                    found = read(left.min(WAIT_SLICE)) => return found,
                    finished = &mut watch.0 => finished,
                };
                self.end = match finished {
                    Ok(Some(result)) => JobEnd::Ended(Some(result)),
                    // Unless it panicked, a task without a result means that the user may not wait.
                    Ok(None) | Err(_) => JobEnd::Polled(Instant::now()),
                };
                Ok(Vec::new())
            }
            JobEnd::Polled(since) => {
                // The wait is a quarter of the time so far: the end of a short job is noticed soon,
                // and a long job costs two checks per second.
                let slice = (since.elapsed() / 4).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX);
                read(left.min(slice)).await
            }
            JobEnd::Unwatched | JobEnd::Ended(_) => read(Duration::ZERO).await,
        }
    }

    /// Returns the rest of the log after the job's end. The log was complete when the result was
    /// published, or has been removed since then.
    async fn rest(&mut self, after: &LogPosition) -> Result<Vec<LogEntry>, QueueError> {
        let command = read_command(&self.queue, &self.id, after, Duration::ZERO);
        let answer = self
            .queue
            .connection
            .run_repeatable("XREAD", &command)
            .await?;
        let mut rest = entries(answer)?;
        if rest.is_empty() {
            rest.push(LogEntry::End { outcome: None });
        }
        Ok(rest)
    }

    async fn has_result(&self) -> Result<bool, QueueError> {
        let mut command = redis::cmd("EXISTS");
        command.arg(self.queue.keys.result(&self.id));
        let answer = self
            .queue
            .connection
            .run_repeatable("EXISTS", &command)
            .await?;
        Ok(RespValue::new("EXISTS", answer).number::<u8>()? == 1)
    }
}

/// Starts a task that waits for a result, across restarts of Redis.
fn spawn_result_task(queue: &Queue, id: &JobId) -> ResultTask {
    let (queue, id) = (queue.clone(), id.clone());
    ResultTask(tokio::spawn(async move {
        loop {
            let waited = async { queue.result_waiter().await?.wait(&id, RESULT_WAIT).await };
            match waited.await {
                Ok(Some(result)) => return Some(result),
                Ok(None) => {}
                Err(error) if error.is_transient() => tokio::time::sleep(RECONNECT_DELAY).await,
                // Most likely the user lacks the permission. Any other error is reported to the
                // reader by its own checks.
                Err(_) => return None,
            }
        }
    }))
}

/// Returns the command that reads the entries after `after`.
fn read_command(queue: &Queue, id: &JobId, after: &LogPosition, wait: Duration) -> Cmd {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(READ_BATCH);
    if let Some(block) = stream_entry::block(wait) {
        command.arg("BLOCK").arg(block);
    }
    command
        .arg("STREAMS")
        .arg(queue.keys.log(id))
        .arg(after.as_str());
    command
}

fn entries(answer: Value) -> Result<Vec<LogEntry>, QueueError> {
    stream_entry::by_stream(RespValue::new("XREAD", answer))?
        .into_iter()
        .flat_map(|(_, entries)| entries)
        .map(entry)
        .collect()
}

fn entry(entry: StreamEntry) -> Result<LogEntry, QueueError> {
    let word = entry.text("stream").unwrap_or_default();
    let stream = match word {
        "stdout" => LogStream::Stdout,
        "stderr" => LogStream::Stderr,
        "end" => {
            return Ok(LogEntry::End {
                outcome: entry
                    .text("outcome")
                    .map(|outcome| record::known(outcome, Outcome::ALL, Outcome::as_str))
                    .transpose()?,
            });
        }
        other => return Err(crate::resp::unknown_word("XREAD", other)),
    };
    Ok(LogEntry::Chunk {
        stream,
        data: entry.field("data").unwrap_or_default().to_vec(),
        attempt: entry
            .text("attempt")
            .and_then(|attempt| attempt.parse().ok())
            .unwrap_or(1),
        after: LogPosition(entry.id),
    })
}
