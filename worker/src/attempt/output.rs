//! A running job's output on its way to the log stream in Redis.
//!
//! Chunks are gathered for a moment, so that a program that prints byte by byte costs a few writes a second and not
//! one each. What is not written when the program ends goes along with its settlement, so that a short job's log costs
//! no call of its own. The log is for watching; the result carries the same bytes again. So a log that cannot be written is
//! told once and given up, and never ends an attempt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sandhog_common::queue::{Lease, LogStream, Queue, Said};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long output is gathered before it is written.
const GATHER: Duration = Duration::from_millis(20);

/// How much is gathered before it is written at once.
const ENOUGH: usize = 64 << 10;

/// In how many pieces, at most, it may be by then.
const PIECES: usize = 64;

/// How many chunks may wait; a program that outruns Redis waits too.
const WAITING: usize = 16;

/// Writes one attempt's output to its job's log. Nothing is made in Redis before the first chunk.
#[derive(Debug)]
pub struct OutputLog {
    queue: Queue,
    lease: Lease,
    unsaid: Unsaid,
    writer: Option<Writer>,
}

/// The last of an attempt's output: what its settlement writes to the log. There is something once the log has been
/// finished.
#[derive(Debug, Clone, Default)]
pub struct Unsaid(Arc<Mutex<Vec<Said>>>);

impl Unsaid {
    /// Takes it.
    pub(super) fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, said: Vec<Said>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }
}

#[derive(Debug)]
struct Writer {
    chunks: mpsc::Sender<(LogStream, Bytes)>,
    task: JoinHandle<()>,
}

impl OutputLog {
    /// A log for the attempt that `lease` allows; every write is fenced by it. What is left at the end is put into
    /// `unsaid`.
    #[must_use]
    pub fn new(queue: Queue, lease: Lease, unsaid: Unsaid) -> Self {
        Self {
            queue,
            lease,
            unsaid,
            writer: None,
        }
    }

    /// Hands over a chunk. Waits while Redis is slower than the program.
    pub async fn write(&mut self, stream: LogStream, data: Bytes) {
        let writer = self.writer.get_or_insert_with(|| {
            let (chunks, waiting) = mpsc::channel(WAITING);
            Writer {
                chunks,
                task: tokio::spawn(gather(
                    self.queue.clone(),
                    self.lease.clone(),
                    self.unsaid.clone(),
                    waiting,
                )),
            }
        });
        if writer.chunks.send((stream, data)).await.is_err() {
            tracing::trace!("the log was given up before");
        }
    }

    /// Waits until all that was handed over is written, left to the settlement, or given up.
    pub async fn finish(self) {
        if let Some(Writer { chunks, task }) = self.writer {
            drop(chunks);
            if let Err(error) = task.await {
                tracing::error!(%error, "the log writer failed");
            }
        }
    }
}

async fn gather(
    queue: Queue,
    lease: Lease,
    unsaid: Unsaid,
    mut waiting: mpsc::Receiver<(LogStream, Bytes)>,
) {
    while let Some((stream, data)) = waiting.recv().await {
        let mut bytes = data.len();
        let mut gathered = vec![said(stream, &data)];
        let enough = tokio::time::Instant::now() + GATHER;
        while bytes < ENOUGH && gathered.len() < PIECES {
            match tokio::time::timeout_at(enough, waiting.recv()).await {
                Ok(Some((stream, data))) => {
                    bytes += data.len();
                    match gathered.last_mut() {
                        Some(last) if last.stream == stream => last.data.extend_from_slice(&data),
                        Some(_) | None => gathered.push(said(stream, &data)),
                    }
                }
                Ok(None) => {
                    unsaid.put(gathered);
                    return;
                }
                Err(_elapsed) => break,
            }
        }
        if !append(&queue, &lease, &gathered).await {
            return;
        }
    }
}

fn said(stream: LogStream, data: &[u8]) -> Said {
    Said {
        stream,
        data: data.to_vec(),
    }
}

/// Whether the log may still be written.
async fn append(queue: &Queue, lease: &Lease, chunks: &[Said]) -> bool {
    match queue.log_all(lease, chunks).await {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(job = %lease.id, error = &error as &dyn std::error::Error, "log given up");
            false
        }
    }
}
