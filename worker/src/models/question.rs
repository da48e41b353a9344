//! A single inference request of a program: sent to the model's supervisor, then awaited or given
//! up.
//!
//! Partial answers are not passed on; the program receives the complete answer.

use std::time::Duration;

use sandhog_common::infer::Call;
use sandhog_common::outcome::ErrorInfo;
use sandhog_runner::protocol::Exception;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Model;
use super::calls::{Ask, Tell};
use super::keeper::Mail;

/// Inference request of a program to a model.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) call: Call,
    pub(super) input: Value,
    /// Approximate size of the input in bytes.
    pub(super) size: usize,
    /// `true` if the request must not share a call with others.
    pub(super) alone: bool,
    /// Time that the answer may take after the call has begun.
    pub(super) timeout: Duration,
}

/// Result of an inference request.
#[derive(Debug)]
pub(super) enum Reply {
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
    pub(super) async fn ask(&self, question: Question) -> Reply {
        let place = self.places.acquire().await;
        let _place = place.expect("the semaphore of a model is never closed");
        // Declared before the receiver, so that the receiver is already closed when the supervisor
        // reads the message.
        let _leave = Leave { model: self };
        let (tell, mut told) = mpsc::unbounded_channel();
        let gone = || Reply::Lost("the model's supervisor has ended".to_owned());
        let Question {
            call,
            input,
            size,
            alone,
            timeout,
        } = question;
        let ask = Ask {
            call,
            input,
            size,
            stream: false,
            alone,
            timeout,
            room: 0,
            arrived: Instant::now(),
            tell,
        };
        if self.mail.send(Mail::Ask(Box::new(ask))).is_err() {
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
                () = overdue => break Reply::Late,
                told = told.recv() => match told {
                    Some(Tell::Started) => late = Some(Instant::now() + timeout),
                    Some(Tell::Piece(_) | Tell::Cut) => {}
                    Some(Tell::Answer(answer)) => break Reply::Answer(answer),
                    Some(Tell::Lost(why)) => break Reply::Lost(why),
                    Some(Tell::Hopeless(error)) => break Reply::Hopeless(error),
                    None => break gone(),
                },
            }
        }
    }
}

/// Notifies the supervisor that a request is no longer awaited. If the supervisor has ended, the
/// message is not needed.
struct Leave<'a> {
    model: &'a Model,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        drop(self.model.mail.send(Mail::Gone));
    }
}
