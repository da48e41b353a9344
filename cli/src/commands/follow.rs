//! Follows one job to its end: prints its output as it arrives, then returns its result.

use std::time::Duration;

use sandhog_core::blob::Blob;
use sandhog_core::id::JobId;
use sandhog_core::outcome::JobResult;
use sandhog_producer::{Chunk, Client, ClientError, Follow};
use sandhog_queue::{LogEntry, LogPosition, LogStream};
use serde_json::json;

use super::outage::OutageRetry;
use super::unknown_job::unknown_job;
use super::wait_reports::with_wait_reports;
use crate::error::CliError;
use crate::output::{Colour, OutputStream, Printer};

/// Longest time of one wait for a result. After it the next wait begins, so that a lost connection
/// is noticed.
const WAIT_SLICE: Duration = Duration::from_secs(5);

/// Time for which a job may be unknown before a wait for it fails. Within it, another process may
/// still submit the job.
const UNKNOWN_JOB_GRACE: Duration = Duration::from_secs(1);

/// Pause before the log is read again after an error.
const LOG_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Waits for a job's result without a time limit, and reports what prevents the job from starting.
///
/// # Errors
/// Fails when no such job is known, Redis cannot be reached for a minute, or the result is not
/// valid.
pub(crate) async fn result(
    output: Printer,
    client: &Client,
    id: &JobId,
) -> Result<JobResult, CliError> {
    let mut outage = OutageRetry::new(output);
    let result = async {
        loop {
            match client.wait_known(id, WAIT_SLICE, UNKNOWN_JOB_GRACE).await {
                Ok(result) => return Ok(result),
                Err(ClientError::NoResult { .. }) => outage.record_answer(),
                Err(ClientError::Unknown { id }) => return Err(unknown_job(&id)),
                Err(error) if outage.record_error(&error) => {}
                Err(error) => return Err(outage.final_error(error, id)),
            }
        }
    };
    with_wait_reports(output, client, id, result).await
}

/// Prints a job's output as it arrives, and returns its result once all output has been printed.
///
/// # Errors
/// Fails if no such job is known, Redis cannot be reached for a minute, or the output of this
/// command cannot be written.
pub(crate) async fn follow(
    client: &Client,
    id: &JobId,
    output: Printer,
) -> Result<JobResult, CliError> {
    let mut relay = Relay::new(output);
    let mut log = relay.relay(client, id).await?;
    let result = match log.take_result().await? {
        Some(result) => result,
        None => result(output, client, id).await?,
    };
    relay.copy_rest(&result)?;
    Ok(result)
}

/// Prints a job's output, piece by piece, until the job ends. Returns the result if it still
/// exists.
///
/// # Errors
/// If no such job is known, Redis cannot be reached for a minute, or the output of this command
/// cannot be written.
pub(crate) async fn output(
    client: &Client,
    id: &JobId,
    output: Printer,
) -> Result<Option<JobResult>, CliError> {
    let mut relay = Relay::new(output);
    let mut log = relay.relay(client, id).await?;
    let result = match log.take_result().await? {
        Some(result) => Some(result),
        None => client.result(id).await?,
    };
    if let Some(result) = &result {
        relay.copy_rest(result)?;
    }
    Ok(result)
}

/// Prints the output that a job has written so far. Returns the number of pieces.
///
/// # Errors
/// Fails if Redis cannot be reached, or the output of this command cannot be written.
pub(crate) async fn so_far(
    client: &Client,
    id: &JobId,
    output: Printer,
) -> Result<usize, CliError> {
    let mut reader = client.queue().log_reader(id).await?;
    let mut relay = Relay::new(output);
    let mut after = LogPosition::start();
    loop {
        let entries = reader.next(&after, Duration::ZERO).await?;
        let mut more = false;
        for entry in entries {
            match entry {
                LogEntry::Chunk {
                    stream,
                    data,
                    attempt,
                    after: next,
                } => {
                    relay.copy(&Chunk {
                        stream,
                        data,
                        attempt,
                    })?;
                    after = next;
                    more = true;
                }
                LogEntry::End { outcome: _ } => return Ok(relay.pieces),
            }
        }
        if !more {
            return Ok(relay.pieces);
        }
    }
}

/// Prints the output in a result, for a job whose log was not followed.
///
/// # Errors
/// Fails if the output of this command cannot be written.
pub(crate) fn show(output: Printer, result: &JobResult) -> Result<(), CliError> {
    output.bytes(OutputStream::Out, &result.stdout.0)?;
    output.bytes(OutputStream::Err, &result.stderr.0)
}

/// Copies output from a job's log to the streams of this process.
struct Relay {
    output: Printer,
    attempt: u32,
    pieces: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Relay {
    fn new(output: Printer) -> Self {
        Self {
            output,
            attempt: 1,
            pieces: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Copies the output until the job ends, and reports what prevents the job from starting.
    async fn relay(&mut self, client: &Client, id: &JobId) -> Result<Follow, CliError> {
        let output = self.output;
        tokio::select! {
            biased;
            log = with_wait_reports(output, client, id, self.copy_all(client, id)) => log,
            () = Box::pin(client.until_unknown(id, UNKNOWN_JOB_GRACE)) => Err(unknown_job(id)),
        }
    }

    /// Copies the output until the job ends, across restarts of Redis.
    async fn copy_all(&mut self, client: &Client, id: &JobId) -> Result<Follow, CliError> {
        let mut log = client.follow(id).await?;
        let mut outage = OutageRetry::new(self.output);
        loop {
            match log.next().await {
                Ok(Some(chunk)) => {
                    outage.record_answer();
                    self.copy(&chunk)?;
                }
                Ok(None) => return Ok(log),
                Err(error) if outage.record_error(&error) => {
                    tokio::time::sleep(LOG_RETRY_PAUSE).await
                }
                Err(error) => return Err(outage.final_error(error, id)),
            }
        }
    }

    fn copy(&mut self, chunk: &Chunk) -> Result<(), CliError> {
        let Chunk {
            stream,
            data,
            attempt,
        } = chunk;
        self.pieces += 1;
        if *attempt != self.attempt {
            if !self.stdout.is_empty() || !self.stderr.is_empty() {
                self.output.note(&format!(
                    "sandhog: attempt {attempt} starts from the beginning"
                ));
            }
            self.attempt = *attempt;
            self.stdout.clear();
            self.stderr.clear();
        }
        let (name, to, passed) = match stream {
            LogStream::Stdout => ("stdout", OutputStream::Out, &mut self.stdout),
            LogStream::Stderr => ("stderr", OutputStream::Err, &mut self.stderr),
        };
        passed.extend_from_slice(data);
        if self.output.is_json() {
            let data = Blob(data.clone());
            return self
                .output
                .json(&json!({"stream": name, "attempt": attempt, "data": data}));
        }
        self.output.bytes(to, data)
    }

    /// Prints output that is in the result but was not in the log. The log is bounded, it is
    /// removed soon if the result is large, and pieces may be lost with a connection.
    fn copy_rest(&mut self, result: &JobResult) -> Result<(), CliError> {
        let rest = |blob: &Blob, passed: &[u8]| blob.0.strip_prefix(passed).map(<[u8]>::to_vec);
        let left = (
            rest(&result.stdout, &self.stdout),
            rest(&result.stderr, &self.stderr),
        );
        let (Some(out), Some(err)) = left else {
            let line = format!(
                "some output was lost on the way; `sandhog wait {}` prints all of it",
                result.id
            );
            return self.output.warn(Colour::Yellow, &line, None);
        };
        for (stream, data) in [(LogStream::Stdout, out), (LogStream::Stderr, err)] {
            if !data.is_empty() {
                self.copy(&Chunk {
                    stream,
                    data,
                    attempt: self.attempt,
                })?;
            }
        }
        Ok(())
    }
}
