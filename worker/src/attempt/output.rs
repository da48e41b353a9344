//! A running job's output on its way to the log stream in Redis.
//!
//! Chunks are gathered for a moment, so that a program that prints byte by byte costs a few writes a second and not
//! one each. The log is for watching; the result carries the same bytes again. So a log that cannot be written is
//! told once and given up, and never ends an attempt.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sandhog_common::queue::{Lease, LogStream, Queue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long output is gathered before it is written.
const GATHER: Duration = Duration::from_millis(20);

/// How much is gathered before it is written at once.
const ENOUGH: usize = 64 << 10;

/// How many chunks may wait; a program that outruns Redis waits too.
const WAITING: usize = 16;

/// Writes one attempt's output to its job's log. Nothing is made in Redis before the first chunk.
#[derive(Debug)]
pub struct OutputLog {
    queue: Queue,
    lease: Lease,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    chunks: mpsc::Sender<(LogStream, Bytes)>,
    task: JoinHandle<()>,
}

impl OutputLog {
    /// A log for the attempt that `lease` allows; every write is fenced by it.
    #[must_use]
    pub fn new(queue: Queue, lease: Lease) -> Self {
        Self {
            queue,
            lease,
            writer: None,
        }
    }

    /// Hands over a chunk. Waits while Redis is slower than the program.
    pub async fn write(&mut self, stream: LogStream, data: Bytes) {
        let writer = self.writer.get_or_insert_with(|| {
            let (chunks, waiting) = mpsc::channel(WAITING);
            Writer {
                chunks,
                task: tokio::spawn(gather(self.queue.clone(), self.lease.clone(), waiting)),
            }
        });
        if writer.chunks.send((stream, data)).await.is_err() {
            tracing::trace!("the log was given up before");
        }
    }

    /// Waits until all that was handed over is written, or given up.
    pub async fn finish(self) {
        if let Some(Writer { chunks, task }) = self.writer {
            drop(chunks);
            if let Err(error) = task.await {
                tracing::error!(%error, "the log writer failed");
            }
        }
    }
}

async fn gather(queue: Queue, lease: Lease, mut waiting: mpsc::Receiver<(LogStream, Bytes)>) {
    while let Some((mut stream, first)) = waiting.recv().await {
        let mut gathered = BytesMut::from(first);
        let enough = tokio::time::Instant::now() + GATHER;
        while gathered.len() < ENOUGH {
            match tokio::time::timeout_at(enough, waiting.recv()).await {
                Ok(Some((next, data))) => {
                    if next != stream {
                        if !append(&queue, &lease, stream, &gathered.split()).await {
                            return;
                        }
                        stream = next;
                    }
                    gathered.extend_from_slice(&data);
                }
                Ok(None) | Err(_) => break,
            }
        }
        if !append(&queue, &lease, stream, &gathered).await {
            return;
        }
    }
}

/// Whether the log may still be written.
async fn append(queue: &Queue, lease: &Lease, stream: LogStream, data: &[u8]) -> bool {
    match queue.log(lease, stream, data).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(job = %lease.id, error = &error as &dyn std::error::Error, "log given up");
            false
        }
    }
}
