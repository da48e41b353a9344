//! Settles attempts of one worker in batches and claims the next jobs for the slots that they free.
//!
//! Attempts that end while Redis is busy with a settlement go into the next call together, so a
//! worker with many short jobs runs one script where it would otherwise run dozens. A single
//! settlement is sent at once. A second call is sent before the reply of the first one if it
//! carries at least as many settlements, so that Redis already has the next call when it finishes
//! the first.
//!
//! The same call claims a job for each slot that it frees, if the job fits the freed capacity and
//! no other namespace uses the slots. The cell of the finished job may still be in removal, which
//! takes milliseconds. Its processes are dead, so its capacity counts as free.
//!
//! The batcher does not retry: each caller of [`Settler::settle`] repeats its own request.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sandhog_common::class::Class;
use sandhog_common::id::Namespace;
use sandhog_common::queue::{BoundJob, Claiming, Ending, FinishReply, Queue, QueueError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::slot::Slot;
use crate::room::{Offer, Room};

/// Maximum number of settlements per call, which is the limit of the script.
const TOGETHER: usize = 64;

/// Maximum number of calls in flight. Redis runs one at a time. With two, it does not have to wait
/// while this worker reads a reply and processes the jobs that it brought.
const CALLS: usize = 2;

/// Smallest batch that is split in two when no call is in flight, so that the two calls overlap.
/// With halves of four, a job costs Redis about a tenth more, which equals the gain; with halves of
/// sixteen, the fixed cost of a call is negligible.
const HALVED_FROM: usize = 32;

/// Capacity of the request channel; when it is full, callers wait.
const WAITING: usize = 4 * TOGETHER;

#[derive(Debug)]
struct Request {
    /// Shared with the attempt, which may have to repeat it; not copied, because a result may have
    /// many MiB.
    ending: Arc<Ending>,
    /// The slot, if the next job may be claimed for it.
    free: Option<Slot>,
    answer: Answer,
}

/// Channel on which an attempt receives the reply to its settlement.
type Answer = oneshot::Sender<Result<Settled, Arc<QueueError>>>;

/// Reply to a settlement.
#[derive(Debug)]
pub struct Settled {
    /// Tells whether the settlement was accepted.
    pub reply: FinishReply,
    /// The job that the slot runs next, if there is one. This worker already holds its lease.
    pub next: Option<Box<BoundJob>>,
}

/// Handle for submitting settlements. The background task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Settler {
    queue: Queue,
    requests: mpsc::Sender<Request>,
}

impl Settler {
    /// Starts the background task, which also claims if `claims` is given. Must be called in a
    /// Tokio runtime.
    #[must_use]
    pub fn start(queue: Queue, claims: Option<Claims>) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        let desk = Desk {
            queue: queue.clone(),
            claims,
            turn: 0,
            under_way: [None; CALLS],
        };
        tokio::spawn(desk.run(waiting));
        Self { queue, requests }
    }

    /// Settles a lease if it is still held, and claims the next job for `free` if that is given.
    ///
    /// # Cancel safety
    /// As [`Queue::finish`]: the caller may repeat the call without harm.
    ///
    /// # Errors
    /// As [`Queue::finish`].
    pub async fn settle(
        &self,
        ending: &Arc<Ending>,
        free: Option<Slot>,
    ) -> Result<Settled, Arc<QueueError>> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            ending: Arc::clone(ending),
            free,
            answer,
        };
        if self.requests.send(request).await.is_ok()
            && let Ok(reply) = answered.await
        {
            return reply;
        }
        // The task has ended, which only a panic can cause: settle without it.
        settle_alone(&self.queue, ending).await
    }
}

async fn settle_alone(queue: &Queue, ending: &Ending) -> Result<Settled, Arc<QueueError>> {
    let nothing = Claiming::default();
    let settled = queue.finish_and_claim(std::slice::from_ref(ending), &nothing);
    let (replies, _claimed_nothing) = settled.await.map_err(Arc::new)?;
    let reply = replies
        .first()
        .copied()
        .expect("the queue answers for each settlement or fails");
    Ok(Settled { reply, next: None })
}

/// Parameters for claiming with a settlement.
#[derive(Debug)]
pub struct Claims {
    /// The namespace to claim from.
    pub namespace: Namespace,
    /// The classes that this worker serves, updated as it learns of new ones.
    pub classes: watch::Receiver<Vec<Class>>,
    /// The capacity for claimed jobs.
    pub room: Room,
    /// Stops claiming.
    pub stop: CancellationToken,
}

/// State of the background task.
#[derive(Debug)]
struct Desk {
    queue: Queue,
    claims: Option<Claims>,
    /// Index of the class that the next call claims from first.
    turn: usize,
    /// Number of settlements in each lane's call while it is in flight.
    under_way: [Option<usize>; CALLS],
}

impl Desk {
    async fn run(mut self, mut waiting: mpsc::Receiver<Request>) {
        let mut gathered = Vec::with_capacity(TOGETHER);
        let mut calls = FuturesUnordered::new();
        let mut open = true;
        loop {
            while let Some((lane, share)) = self.next_call(gathered.len()) {
                let requests = gathered.drain(..share).collect();
                self.under_way[lane] = Some(share);
                calls.push(self.settle(lane, requests));
            }
            tokio::select! {
                Some(lane) = calls.next() => self.under_way[lane] = None,
                request = waiting.recv(), if open && gathered.len() < TOGETHER => {
                    open = request.is_some();
                    gathered.extend(request);
                    gather(&mut waiting, &mut gathered).await;
                }
                else => return,
            }
        }
    }

    /// Returns the lane of the next call and the number of collected settlements that it takes.
    /// `None` if it must wait until another call has ended or more settlements have arrived.
    fn next_call(&self, gathered: usize) -> Option<(usize, usize)> {
        let lane = self.under_way.iter().position(Option::is_none)?;
        let share = match self.under_way.iter().flatten().min() {
            None if gathered >= HALVED_FROM => gathered / 2,
            Some(&other) if gathered < other => 0,
            None | Some(_) => gathered,
        };
        (share > 0).then_some((lane, share))
    }

    /// Prepares a call: reserves the capacity for its claims now and sends it when the future is
    /// polled. The future returns the lane.
    fn settle(
        &mut self,
        lane: usize,
        requests: Vec<Request>,
    ) -> impl Future<Output = usize> + use<> {
        let mut offer = self.offer(lane, &requests);
        let queue = self.queue.clone();
        async move {
            let nothing = Claiming::default();
            let claiming = offer.as_ref().map_or(&nothing, |offer| &offer.claiming);
            let (endings, answers): (Vec<_>, Vec<_>) = requests
                .into_iter()
                .map(|request| (request.ending, (request.free, request.answer)))
                .unzip();
            let settled = queue.finish_and_claim(&endings, claiming).await;
            answer(&queue, &endings, answers, settled, offer.as_mut()).await;
            lane
        }
    }

    /// Reserves capacity to claim jobs for the freed slots. Each call begins with another class, so
    /// that no class starves. `None` once the worker stops.
    fn offer(&mut self, lane: usize, requests: &[Request]) -> Option<Offer> {
        let claims = self.claims.as_ref()?;
        let free: Vec<&Slot> = requests.iter().filter_map(|r| r.free.as_ref()).collect();
        if claims.stop.is_cancelled() || free.is_empty() {
            return None;
        }
        let mut classes = claims.classes.borrow().clone();
        if !classes.is_empty() {
            let first = self.turn % classes.len();
            classes.rotate_left(first);
        }
        self.turn = self.turn.wrapping_add(1);
        let over = free.iter().filter_map(|slot| slot.take_room()).collect();
        let mut offer = claims
            .room
            .offer(over, &claims.namespace, &classes, free.len());
        offer.claiming.lane = lane;
        Some(offer)
    }
}

/// Collects further settlements. Attempts that end at the same moment are about to submit theirs,
/// so this yields to the other tasks until a pass brings no more settlement.
async fn gather(waiting: &mut mpsc::Receiver<Request>, gathered: &mut Vec<Request>) {
    let mut before = 0;
    while before < gathered.len() && gathered.len() < TOGETHER {
        before = gathered.len();
        tokio::task::yield_now().await;
        while gathered.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            gathered.push(next);
        }
    }
}

/// Sends each attempt of a call its reply and gives the slots the capacity of their next jobs.
async fn answer(
    queue: &Queue,
    endings: &[Arc<Ending>],
    answers: Vec<(Option<Slot>, Answer)>,
    settled: Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError>,
    mut offer: Option<&mut Offer>,
) {
    match settled {
        Ok((replies, claimed)) => {
            let mut claimed = claimed.into_iter().map(Box::new);
            for ((free, answer), reply) in answers.into_iter().zip(replies) {
                let next = free.and_then(|slot| {
                    let next = claimed.next()?;
                    slot.give_room(offer.as_mut()?.hold(&next.lease.class));
                    Some(next)
                });
                // The send fails if the attempt ended with its worker; the lease of its next job
                // then expires.
                let _not_wanted_any_more = answer.send(Ok(Settled { reply, next }));
            }
        }
        // A settlement that Redis rejects must not fail the others of its call, so each is sent
        // alone.
        Err(error) if !error.is_transient() && endings.len() > 1 => {
            for (ending, (_free, answer)) in endings.iter().zip(answers) {
                let settled = settle_alone(queue, ending).await;
                let _not_wanted_any_more = answer.send(settled);
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for (_free, answer) in answers {
                let _not_wanted_any_more = answer.send(Err(Arc::clone(&error)));
            }
        }
    }
}
