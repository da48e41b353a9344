//! Writes the output of a running job to its log stream in Redis.
//!
//! Chunks are collected for a short time, so that a program that prints byte by byte causes a few
//! writes per second rather than one per byte. Output that is not yet written when the program ends
//! is written by the settlement, so the log of a short job needs no call of its own. The log is for
//! watching; the result contains the same bytes again. So if the log cannot be written, this is
//! logged once, the rest of the log is dropped, and the attempt continues.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sandhog_queue::{Lease, LogChunk, LogStream, Queue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Time for which output is collected before it is written.
const CHUNK_COLLECTION_TIME: Duration = Duration::from_millis(20);

/// Number of collected bytes that are written at once.
const CHUNK_FLUSH_BYTES: usize = 64 << 10;

/// Number of collected pieces that are written at once.
const CHUNK_FLUSH_COUNT: usize = 64;

/// Capacity of the chunk channel. A program that prints faster than Redis accepts must wait.
const CHUNK_QUEUE_DEPTH: usize = 16;

/// Writes one attempt's output to its job's log. Nothing is created in Redis before the first
/// chunk.
#[derive(Debug)]
pub struct OutputLog {
    queue: Queue,
    lease: Lease,
    unflushed: UnflushedOutput,
    writer: Option<LogWriter>,
}

/// The last output of an attempt, which its settlement writes to the log. Filled when the log is
/// finished.
#[derive(Debug, Clone, Default)]
pub struct UnflushedOutput(Arc<Mutex<Vec<LogChunk>>>);

impl UnflushedOutput {
    /// Takes the output out.
    pub(super) fn take(&self) -> Vec<LogChunk> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, chunks: Vec<LogChunk>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chunks;
    }
}

/// The task that writes a log.
#[derive(Debug)]
struct LogWriter {
    chunks: mpsc::Sender<(LogStream, Bytes)>,
    task: JoinHandle<()>,
}

impl OutputLog {
    /// Creates a log for the attempt that holds `lease`; the lease fences every write. Output that
    /// is left at the end is put into `unflushed`.
    #[must_use]
    pub fn new(queue: Queue, lease: Lease, unflushed: UnflushedOutput) -> Self {
        Self {
            queue,
            lease,
            unflushed,
            writer: None,
        }
    }

    /// Queues a chunk. Waits while Redis is slower than the program.
    pub async fn write(&mut self, stream: LogStream, data: Bytes) {
        let writer = self.writer.get_or_insert_with(|| {
            let (chunks, waiting) = mpsc::channel(CHUNK_QUEUE_DEPTH);
            LogWriter {
                chunks,
                task: tokio::spawn(write_chunks(
                    self.queue.clone(),
                    self.lease.clone(),
                    self.unflushed.clone(),
                    waiting,
                )),
            }
        });
        if writer.chunks.send((stream, data)).await.is_err() {
            tracing::trace!("chunk dropped: the log is not written any further");
        }
    }

    /// Waits until all queued output is written, left to the settlement, or dropped.
    pub async fn finish(self) {
        if let Some(LogWriter { chunks, task }) = self.writer {
            drop(chunks);
            if let Err(error) = task.await {
                tracing::error!(%error, "the log writer failed");
            }
        }
    }
}

async fn write_chunks(
    queue: Queue,
    lease: Lease,
    unflushed: UnflushedOutput,
    mut waiting: mpsc::Receiver<(LogStream, Bytes)>,
) {
    while let Some((stream, data)) = waiting.recv().await {
        let mut bytes = data.len();
        let mut collected = vec![log_chunk(stream, &data)];
        let deadline = tokio::time::Instant::now() + CHUNK_COLLECTION_TIME;
        while bytes < CHUNK_FLUSH_BYTES && collected.len() < CHUNK_FLUSH_COUNT {
            match tokio::time::timeout_at(deadline, waiting.recv()).await {
                Ok(Some((stream, data))) => {
                    bytes += data.len();
                    match collected.last_mut() {
                        Some(last) if last.stream == stream => last.data.extend_from_slice(&data),
                        Some(_) | None => collected.push(log_chunk(stream, &data)),
                    }
                }
                Ok(None) => {
                    unflushed.put(collected);
                    return;
                }
                Err(_elapsed) => break,
            }
        }
        if !append(&queue, &lease, &collected).await {
            return;
        }
    }
}

fn log_chunk(stream: LogStream, data: &[u8]) -> LogChunk {
    LogChunk {
        stream,
        data: data.to_vec(),
    }
}

/// Writes the chunks. Returns whether the log may still be written.
async fn append(queue: &Queue, lease: &Lease, chunks: &[LogChunk]) -> bool {
    match queue.log_all(lease, chunks).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(
                job = %lease.id,
                error = &error as &dyn std::error::Error,
                "job log not written any further"
            );
            false
        }
    }
}
