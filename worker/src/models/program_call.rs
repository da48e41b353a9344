//! A single inference request of a program: sent to the model's supervisor, then awaited or given
//! up.
//!
//! Partial answers are not passed on; the program receives the complete answer.

use std::time::Duration;

use sandhog_core::infer::Call;
use sandhog_core::outcome::{ErrorInfo, Exception};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::dynamic_batcher::{CallEvent, PendingCall};
use super::model::Model;
use super::supervisor::ModelCommand;

/// Inference request of a program to a model.
#[derive(Debug)]
pub(super) struct ProgramCall {
    pub(super) call: Call,
    pub(super) input: Value,
    /// Approximate size of the input in bytes.
    pub(super) size: usize,
    /// `true` if the request must not share a call with others.
    pub(super) exclusive: bool,
    /// Time that the answer may take after the call has begun.
    pub(super) timeout: Duration,
}

/// Result of an inference request.
#[derive(Debug)]
pub(super) enum CallReply {
    /// The model's answer.
    Answer(Result<Value, Exception>),
    /// The answer took too long.
    Late,
    /// The request was lost with its server, or because of a fault of the system.
    Lost(String),
    /// No server will ever answer the request.
    Hopeless(ErrorInfo),
}

impl Model {
    /// Sends a request and waits for its result, in order with all jobs and other requests.
    ///
    /// # Cancel safety
    /// Safe: the supervisor learns that the request has been given up.
    pub(super) async fn call(&self, request: ProgramCall) -> CallReply {
        let permit = self.call_permits.acquire().await;
        let _permit = permit.expect("the semaphore of a model is never closed");
        // Declared before the receiver, so that the receiver is already closed when the supervisor
        // reads the message.
        let _abandon = AbandonOnDrop { model: self };
        let (sender, mut events) = mpsc::unbounded_channel();
        let gone = || CallReply::Lost("the model's supervisor has ended".to_owned());
        let ProgramCall {
            call,
            input,
            size,
            exclusive,
            timeout,
        } = request;
        let pending = PendingCall {
            call,
            input,
            size,
            stream: false,
            exclusive,
            timeout,
            chunk_bytes_left: 0,
            arrived: Instant::now(),
            events: sender,
        };
        if self
            .commands
            .send(ModelCommand::Call(Box::new(pending)))
            .is_err()
        {
            return gone();
        }
        let mut late = None;
        loop {
            let overdue = async {
                match late {
                    Some(when) => tokio::time::sleep_until(when).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = overdue => break CallReply::Late,
                event = events.recv() => match event {
                    Some(CallEvent::Started) => late = Some(Instant::now() + timeout),
                    Some(CallEvent::Chunk(_) | CallEvent::Truncated) => {}
                    Some(CallEvent::Answer(answer)) => break CallReply::Answer(answer),
                    Some(CallEvent::Lost(why)) => break CallReply::Lost(why),
                    Some(CallEvent::Hopeless(error)) => break CallReply::Hopeless(error),
                    None => break gone(),
                },
            }
        }
    }
}

/// Notifies the supervisor that a request is no longer awaited. If the supervisor has ended, the
/// message is not needed.
struct AbandonOnDrop<'a> {
    model: &'a Model,
}

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        drop(self.model.commands.send(ModelCommand::CallAbandoned));
    }
}
