//! One question to a model by anybody but a job: put to its keeper, waited for, perhaps given up.
//!
//! It refuses to pass on pieces of an answer: who asks here wants all of it.

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

/// A program's question to a model.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) call: Call,
    pub(super) input: Value,
    /// How many bytes the input is, about.
    pub(super) size: usize,
    /// Whether it must not share a call.
    pub(super) alone: bool,
    /// How long the answer may take, once the call has begun.
    pub(super) timeout: Duration,
}

/// What comes of a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// The model's answer.
    Answer(Result<Value, Exception>),
    /// It took too long.
    Late,
    /// The server was lost with it, or something of ours failed.
    Lost(String),
    /// No server will ever answer it.
    Hopeless(ErrorInfo),
}

impl Model {
    /// Puts a question and waits for what comes of it, in its turn among all jobs and questions.
    ///
    /// # Cancel safety
    /// Safe: the keeper learns that nobody waits any more.
    pub(super) async fn ask(&self, question: Question) -> Reply {
        let place = self.places.acquire().await;
        let _place = place.expect("a model never closes its places");
        // Declared before the ear, so that the ear is gone when the keeper hears of it.
        let _leave = Leave { model: self };
        let (tell, mut told) = mpsc::unbounded_channel();
        let gone = || Reply::Lost("the model's keeper is gone".to_owned());
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

/// Tells the keeper that somebody does not wait any more. A keeper that is gone need not know.
struct Leave<'a> {
    model: &'a Model,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        drop(self.model.mail.send(Mail::Gone));
    }
}
