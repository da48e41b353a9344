//! Collection of the output of a run. The runner has already cut each stream to its limit.

use bytes::Bytes;
use sandhog_protocol::frames::Stream;
use sandhog_queue::LogStream;
use tokio::sync::mpsc;

use super::outcome::CapturedOutput;
use crate::attempt::OutputLog;
use crate::sandbox::Output;

/// Collects the output of a run until its channel is closed.
pub(super) async fn collect_output(mut chunks: mpsc::Receiver<Output>) -> CapturedOutput {
    let mut captured = CapturedOutput::default();
    while let Some((stream, data)) = chunks.recv().await {
        captured.push(stream, &data);
    }
    captured
}

/// Collects the output of a run until its channel is closed, and passes it on to the log.
pub(super) async fn collect_and_log(
    mut chunks: mpsc::Receiver<(Stream, Bytes)>,
    mut log: OutputLog,
) -> CapturedOutput {
    let mut captured = CapturedOutput::default();
    while let Some((stream, data)) = chunks.recv().await {
        captured.push(stream, &data);
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        log.write(stream, data).await;
    }
    log.finish().await;
    captured
}
