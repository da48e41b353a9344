//! Follows one job to its end: prints its output as it arrives, then returns its result.

use std::time::Duration;

use sandhog_common::blob::Blob;
use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_common::queue::{LogEntry, LogPosition, LogStream};
use sandhog_producer::{Chunk, Client, ClientError, Follow};
use serde_json::json;

use super::away::Away;
use super::status::unknown;
use super::waiting;
use crate::fault::Fault;
use crate::output::{Colour, Output, Stream};

/// Longest time of one wait for a result. After it the next wait begins, so that a lost connection
/// is noticed.
const SLICE: Duration = Duration::from_secs(5);

/// Time for which a job may be unknown before a wait for it fails. Within it, another process may
/// still submit the job.
const GRACE: Duration = Duration::from_secs(1);

/// Pause before the log is read again after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits for a job's result without a time limit, and reports what prevents the job from starting.
///
/// # Errors
/// Fails when no such job is known, Redis cannot be reached for a minute, or the result is not
/// valid.
pub(crate) async fn result(
    output: Output,
    client: &Client,
    id: &JobId,
) -> Result<JobResult, Fault> {
    let mut away = Away::new(output);
    let result = async {
        loop {
            match client.wait_known(id, SLICE, GRACE).await {
                Ok(result) => return Ok(result),
                Err(ClientError::NoResult { .. }) => away.is_back(),
                Err(ClientError::Unknown { id }) => return Err(unknown(&id)),
                Err(error) if away.may_try_again(&error) => {}
                Err(error) => return Err(away.fault(error, id)),
            }
        }
    };
    waiting::meanwhile(output, client, id, result).await
}

/// Prints a job's output as it arrives, and returns its result once all output has been printed.
///
/// # Errors
/// When no such job is known, Redis cannot be reached for a minute, or the output of this command
/// cannot be written.
pub(crate) async fn follow(
    client: &Client,
    id: &JobId,
    output: Output,
) -> Result<JobResult, Fault> {
    let mut relay = Relay::new(output);
    let mut log = relay.relay(client, id).await?;
    let result = match log.take_result().await? {
        Some(result) => result,
        None => result(output, client, id).await?,
    };
    relay.rest(&result)?;
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
    output: Output,
) -> Result<Option<JobResult>, Fault> {
    let mut relay = Relay::new(output);
    let mut log = relay.relay(client, id).await?;
    let result = match log.take_result().await? {
        Some(result) => Some(result),
        None => client.result(id).await?,
    };
    if let Some(result) = &result {
        relay.rest(result)?;
    }
    Ok(result)
}

/// Prints the output that a job has written so far. Returns the number of pieces.
///
/// # Errors
/// When Redis cannot be reached, or the output of this command cannot be written.
pub(crate) async fn so_far(client: &Client, id: &JobId, output: Output) -> Result<usize, Fault> {
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
                    relay.pass_on(&Chunk {
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
/// When the output of this command cannot be written.
pub(crate) fn show(output: Output, result: &JobResult) -> Result<(), Fault> {
    output.bytes(Stream::Out, &result.stdout.0)?;
    output.bytes(Stream::Err, &result.stderr.0)
}

/// Copies output from a job's log to the streams of this process.
struct Relay {
    output: Output,
    attempt: u32,
    pieces: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Relay {
    fn new(output: Output) -> Self {
        Self {
            output,
            attempt: 1,
            pieces: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Copies the output until the job ends, and reports what prevents the job from starting.
    async fn relay(&mut self, client: &Client, id: &JobId) -> Result<Follow, Fault> {
        let output = self.output;
        tokio::select! {
            biased;
            log = waiting::meanwhile(output, client, id, self.all(client, id)) => log,
            () = Box::pin(client.until_unknown(id, GRACE)) => Err(unknown(id)),
        }
    }

    /// Copies the output until the job ends, across restarts of Redis.
    async fn all(&mut self, client: &Client, id: &JobId) -> Result<Follow, Fault> {
        let mut log = client.follow(id).await?;
        let mut away = Away::new(self.output);
        loop {
            match log.next().await {
                Ok(Some(chunk)) => {
                    away.is_back();
                    self.pass_on(&chunk)?;
                }
                Ok(None) => return Ok(log),
                Err(error) if away.may_try_again(&error) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(away.fault(error, id)),
            }
        }
    }

    fn pass_on(&mut self, chunk: &Chunk) -> Result<(), Fault> {
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
            LogStream::Stdout => ("stdout", Stream::Out, &mut self.stdout),
            LogStream::Stderr => ("stderr", Stream::Err, &mut self.stderr),
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
    fn rest(&mut self, result: &JobResult) -> Result<(), Fault> {
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
            return self.output.remark(Colour::Yellow, &line, None);
        };
        for (stream, data) in [(LogStream::Stdout, out), (LogStream::Stderr, err)] {
            if !data.is_empty() {
                self.pass_on(&Chunk {
                    stream,
                    data,
                    attempt: self.attempt,
                })?;
            }
        }
        Ok(())
    }
}
