//! Following one job to its end: its output as it comes, then its result.

use std::time::Duration;

use anyhow::Context as _;
use sandhog_common::blob::Blob;
use sandhog_common::id::JobId;
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::{LogEntry, LogPosition, LogReader, LogStream, Queue};
use sandhog_common::units::ByteCount;
use sandhog_common::wire;
use serde_json::json;

use super::verdict::{advice, verdict};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Colour, Output, Stream};

/// One wait for more output. Only a bound: entries and the end of the log end it at once.
const BLOCK: Duration = Duration::from_secs(5);

/// No wait to speak of. Not zero, which Redis takes for ever.
const AT_ONCE: Duration = Duration::from_millis(1);

/// One wait for a result.
const WAIT: Duration = Duration::from_secs(30);

/// The largest result read: the caps on output and value allow less.
const MAX_RESULT: ByteCount = ByteCount::mib(256);

/// Waits for a job's result for as long as it takes.
///
/// # Errors
/// When Redis cannot be reached.
pub(crate) async fn result(queue: &Queue, id: &JobId) -> Result<JobResult, Fault> {
    let mut waiter = queue.result_waiter().await?;
    loop {
        if let Some(bytes) = waiter.wait(id, WAIT).await? {
            return read(id, &bytes);
        }
    }
}

/// Reads a result as it was published.
///
/// # Errors
/// When it is none.
pub(crate) fn read(id: &JobId, bytes: &[u8]) -> Result<JobResult, Fault> {
    wire::decode(bytes, MAX_RESULT)
        .map(|(result, _encoding)| result)
        .with_context(|| format!("the result of {id} does not read"))
        .map_err(|e| Fault::new(Exit::Fault, e))
}

/// Passes on a job's output as it comes, and returns its result once all has been passed on.
///
/// # Errors
/// When Redis cannot be reached, or our own output cannot be written.
pub(crate) async fn follow(queue: &Queue, id: &JobId, output: Output) -> Result<JobResult, Fault> {
    let mut tail = Tail::new(queue.log_reader(id).await?, output);
    let result = result(queue, id);
    tokio::pin!(result);
    let result = loop {
        if tail.ended {
            break result.await?;
        }
        tokio::select! {
            result = &mut result => break result?,
            read = tail.more(BLOCK) => drop(read?),
        }
    };
    // What the last wait left unread was written before the result was published.
    while !tail.ended && tail.more(AT_ONCE).await? > 0 {}
    tail.rest(&result)?;
    Ok(result)
}

/// Passes on a job's output: what there is, or with `until_end` all of it. Answers how many entries there were.
///
/// # Errors
/// When Redis cannot be reached, or our own output cannot be written.
pub(crate) async fn output(
    queue: &Queue,
    id: &JobId,
    output: Output,
    until_end: bool,
) -> Result<usize, Fault> {
    let mut tail = Tail::new(queue.log_reader(id).await?, output);
    let mut entries = 0;
    loop {
        let block = if until_end { BLOCK } else { AT_ONCE };
        let read = tail.more(block).await?;
        entries += read;
        if tail.ended || (read == 0 && !until_end) {
            return Ok(entries);
        }
    }
}

/// Shows a whole result that was not followed: its output, and how it ended.
///
/// # Errors
/// When our own output cannot be written.
pub(crate) fn show(output: Output, result: &JobResult) -> Result<(), Fault> {
    output.bytes(Stream::Out, &result.stdout.0)?;
    output.bytes(Stream::Err, &result.stderr.0)
}

/// Says what the program's output does not: its value if wanted, its exception, and how it ended.
///
/// # Errors
/// When our own output cannot be written.
pub(crate) fn conclude(output: Output, result: &JobResult, value: bool) -> Result<Exit, Fault> {
    if value {
        let value = result.value.as_ref();
        output.json(value.unwrap_or(&serde_json::Value::Null))?;
    }
    if let Some(exception) = &result.exception {
        // The harness leaves the printing to us; a program that prints its own is not repeated.
        let told = result.stderr.lossy();
        if !told.trim_end().ends_with(exception.traceback.trim_end()) {
            let text = format!("{}\n", exception.traceback.trim_end());
            output.bytes(Stream::Err, text.as_bytes())?;
        }
    }
    if !result.truncated.is_none() {
        output.note("sandhog: output above the cap was cut (see --output)");
    }
    if let Some(verdict) = verdict(result) {
        let line = crate::output::tame(&verdict);
        let colour = match result.outcome {
            Outcome::Lost | Outcome::Rejected => Colour::Red,
            _the_programs_own => Colour::Yellow,
        };
        output.remark(colour, &line, advice(result))?;
    }
    Ok(Exit::of(result))
}

/// A job's log, passed on as far as it has been read.
struct Tail {
    reader: LogReader,
    output: Output,
    after: LogPosition,
    attempt: u32,
    /// Bytes of this attempt passed on, of standard output and of standard error.
    written: [usize; 2],
    ended: bool,
}

impl Tail {
    fn new(reader: LogReader, output: Output) -> Self {
        Self {
            reader,
            output,
            after: LogPosition::start(),
            attempt: 1,
            written: [0, 0],
            ended: false,
        }
    }

    /// Reads on, waiting at most `block`, and passes on what there is. Answers how many entries there were.
    ///
    /// # Cancel safety
    /// Safe: what was read is passed on without a pause.
    async fn more(&mut self, block: Duration) -> Result<usize, Fault> {
        let entries = self.reader.next(&self.after, block).await?;
        let read = entries.len();
        for entry in entries {
            match entry {
                LogEntry::Chunk {
                    stream,
                    data,
                    attempt,
                    after,
                } => {
                    self.pass_on(stream, &data, attempt)?;
                    self.after = after;
                }
                LogEntry::End { outcome: _ } => self.ended = true,
            }
        }
        Ok(read)
    }

    fn pass_on(&mut self, stream: LogStream, data: &[u8], attempt: u32) -> Result<(), Fault> {
        if attempt != self.attempt {
            if self.written != [0, 0] {
                self.output
                    .note(&format!("sandhog: attempt {attempt} starts over"));
            }
            self.attempt = attempt;
            self.written = [0, 0];
        }
        if self.output.is_json() {
            let name = match stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let data = Blob(data.to_vec());
            return self
                .output
                .json(&json!({"stream": name, "attempt": attempt, "data": data}));
        }
        match stream {
            LogStream::Stdout => {
                self.written[0] += data.len();
                self.output.bytes(Stream::Out, data)
            }
            LogStream::Stderr => {
                self.written[1] += data.len();
                self.output.bytes(Stream::Err, data)
            }
        }
    }

    /// What the result has and the log had not: a log is bounded, and its last words may be lost with a connection.
    fn rest(&self, result: &JobResult) -> Result<(), Fault> {
        let [out, err] = self.written;
        let out = result.stdout.0.get(out..).unwrap_or_default();
        let err = result.stderr.0.get(err..).unwrap_or_default();
        self.output.bytes(Stream::Out, out)?;
        self.output.bytes(Stream::Err, err)
    }
}
