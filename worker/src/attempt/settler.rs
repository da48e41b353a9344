//! Settles the attempts of one worker together.
//!
//! Attempts that end while Redis is busy with a settlement go into the next call as one, so that a worker with many
//! short jobs costs Redis one script where it would cost dozens. Nothing is held back to make a batch: a lone
//! settlement is sent at once.
//!
//! It refuses to try again: whoever wants something settled insists by itself.

use std::sync::Arc;

use sandhog_common::queue::{FinishReply, Lease, Queue, QueueError, Settlement};
use tokio::sync::{mpsc, oneshot};

/// The most settlements of one call, which is what one call of the script takes.
const TOGETHER: usize = 64;

/// How many may wait before whoever comes next waits for room.
const WAITING: usize = 4 * TOGETHER;

#[derive(Debug)]
struct Request {
    lease: Lease,
    settlement: Settlement,
    answer: oneshot::Sender<Result<FinishReply, Arc<QueueError>>>,
}

/// Where settlements are handed in. Its task ends with the last clone.
#[derive(Debug, Clone)]
pub struct Settler {
    queue: Queue,
    requests: mpsc::Sender<Request>,
}

impl Settler {
    /// Starts the task that settles; needs a Tokio runtime.
    #[must_use]
    pub fn start(queue: Queue) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        tokio::spawn(settle_all(queue.clone(), waiting));
        Self { queue, requests }
    }

    /// Settles a lease, if it is still held.
    ///
    /// # Cancel safety
    /// As [`Queue::finish`]: repeat it, repeating is harmless.
    ///
    /// # Errors
    /// As [`Queue::finish`].
    pub async fn settle(
        &self,
        lease: &Lease,
        settlement: Settlement,
    ) -> Result<FinishReply, Arc<QueueError>> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            lease: lease.clone(),
            settlement: settlement.clone(),
            answer,
        };
        if self.requests.send(request).await.is_ok()
            && let Ok(reply) = answered.await
        {
            return reply;
        }
        // The task is gone, which only a panic in it explains: do without.
        self.queue.finish(lease, settlement).await.map_err(Arc::new)
    }
}

async fn settle_all(queue: Queue, mut waiting: mpsc::Receiver<Request>) {
    let mut requests = Vec::with_capacity(TOGETHER);
    loop {
        let Some(first) = waiting.recv().await else {
            return;
        };
        requests.push(first);
        // Attempts that end at the same moment are about to hand theirs in: let those run that can, until none does.
        let mut before = 0;
        while before < requests.len() && requests.len() < TOGETHER {
            before = requests.len();
            tokio::task::yield_now().await;
            while requests.len() < TOGETHER
                && let Ok(next) = waiting.try_recv()
            {
                requests.push(next);
            }
        }
        let (settlements, answers): (Vec<_>, Vec<_>) = requests
            .drain(..)
            .map(|request| ((request.lease, request.settlement), request.answer))
            .unzip();
        match queue.finish_all(&settlements).await {
            Ok(replies) => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    // An attempt that no longer listens repeats its settlement, or has ended with its worker.
                    let _not_wanted_any_more = answer.send(Ok(reply));
                }
            }
            // One that Redis refuses must not take the others with it.
            Err(error) if !error.is_transient() && settlements.len() > 1 => {
                for ((lease, settlement), answer) in settlements.into_iter().zip(answers) {
                    let reply = queue.finish(&lease, settlement).await.map_err(Arc::new);
                    let _not_wanted_any_more = answer.send(reply);
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _not_wanted_any_more = answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}
