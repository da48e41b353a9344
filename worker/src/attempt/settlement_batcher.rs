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
//! The batcher does not retry: each caller of [`SettlementBatcher::settle`] repeats its own
//! request.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_queue::{BoundJob, ClaimRequest, FinishReply, Queue, QueueError, SettlementRequest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::slot::Slot;
use crate::capacity::{Capacity, ClaimBudget};

/// Maximum number of settlements per call, which is the limit of the script.
const SETTLEMENT_BATCH_SIZE: usize = 64;

/// Maximum number of calls in flight. Redis runs one at a time. With two, it does not have to wait
/// while this worker reads a reply and processes the jobs that it brought.
const MAX_CALLS_IN_FLIGHT: usize = 2;

/// Smallest batch that is split in two when no call is in flight, so that the two calls overlap.
/// With halves of four, a job costs Redis about a tenth more, which equals the gain; with halves of
/// sixteen, the fixed cost of a call is negligible.
const SPLIT_THRESHOLD: usize = 32;

/// Capacity of the request channel; when it is full, callers wait.
const SETTLEMENT_QUEUE_DEPTH: usize = 4 * SETTLEMENT_BATCH_SIZE;

/// A settlement that waits for its call.
#[derive(Debug)]
struct PendingSettlement {
    /// Shared with the attempt, which may have to repeat it; not copied, because a result may have
    /// many MiB.
    ending: Arc<SettlementRequest>,
    /// The slot, if the next job may be claimed for it.
    free: Option<Slot>,
    reply: ReplySender,
}

/// Channel on which an attempt receives the reply to its settlement.
type ReplySender = oneshot::Sender<Result<SettlementReply, Arc<QueueError>>>;

/// Reply to a settlement.
#[derive(Debug)]
pub struct SettlementReply {
    /// Tells whether the settlement was accepted.
    pub reply: FinishReply,
    /// The job that the slot runs next, if there is one. This worker already holds its lease.
    pub next: Option<Box<BoundJob>>,
}

/// Handle for submitting settlements. The background task ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct SettlementBatcher {
    queue: Queue,
    requests: mpsc::Sender<PendingSettlement>,
}

impl SettlementBatcher {
    /// Starts the background task, which also claims jobs if `claim_options` is given. Must be
    /// called in a Tokio runtime.
    #[must_use]
    pub fn start(queue: Queue, claim_options: Option<ClaimOptions>) -> Self {
        let (requests, waiting) = mpsc::channel(SETTLEMENT_QUEUE_DEPTH);
        let task = BatcherTask {
            queue: queue.clone(),
            claim_options,
            turn: 0,
            in_flight: [None; MAX_CALLS_IN_FLIGHT],
        };
        tokio::spawn(task.run(waiting));
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
        ending: &Arc<SettlementRequest>,
        free: Option<Slot>,
    ) -> Result<SettlementReply, Arc<QueueError>> {
        let (reply, replied) = oneshot::channel();
        let request = PendingSettlement {
            ending: Arc::clone(ending),
            free,
            reply,
        };
        if self.requests.send(request).await.is_ok()
            && let Ok(reply) = replied.await
        {
            return reply;
        }
        // The task has ended, which only a panic can cause: settle without it.
        settle_alone(&self.queue, ending).await
    }
}

async fn settle_alone(
    queue: &Queue,
    ending: &SettlementRequest,
) -> Result<SettlementReply, Arc<QueueError>> {
    let nothing = ClaimRequest::default();
    let settled = queue.finish_and_claim(std::slice::from_ref(ending), &nothing);
    let (replies, _claimed_nothing) = settled.await.map_err(Arc::new)?;
    let reply = replies
        .first()
        .copied()
        .expect("the queue answers for each settlement or fails");
    Ok(SettlementReply { reply, next: None })
}

/// Parameters for claiming with a settlement.
#[derive(Debug)]
pub struct ClaimOptions {
    /// The namespace to claim from.
    pub namespace: Namespace,
    /// The classes that this worker serves, updated as it learns of new ones.
    pub classes: watch::Receiver<Vec<Class>>,
    /// The capacity for claimed jobs.
    pub capacity: Capacity,
    /// Stops claiming.
    pub stop: CancellationToken,
}

/// State of the background task.
#[derive(Debug)]
struct BatcherTask {
    queue: Queue,
    claim_options: Option<ClaimOptions>,
    /// Index of the class that the next call claims from first.
    turn: usize,
    /// Number of settlements in each lane's call while it is in flight.
    in_flight: [Option<usize>; MAX_CALLS_IN_FLIGHT],
}

impl BatcherTask {
    async fn run(mut self, mut waiting: mpsc::Receiver<PendingSettlement>) {
        let mut collected = Vec::with_capacity(SETTLEMENT_BATCH_SIZE);
        let mut calls = FuturesUnordered::new();
        let mut open = true;
        loop {
            while let Some((lane, share)) = self.next_call(collected.len()) {
                let requests = collected.drain(..share).collect();
                self.in_flight[lane] = Some(share);
                calls.push(self.settle(lane, requests));
            }
            tokio::select! {
                Some(lane) = calls.next() => self.in_flight[lane] = None,
                request = waiting.recv(), if open && collected.len() < SETTLEMENT_BATCH_SIZE => {
                    open = request.is_some();
                    collected.extend(request);
                    collect_more(&mut waiting, &mut collected).await;
                }
                else => return,
            }
        }
    }

    /// Returns the lane of the next call and the number of collected settlements that it takes.
    /// `None` if it must wait until another call has ended or more settlements have arrived.
    fn next_call(&self, collected: usize) -> Option<(usize, usize)> {
        let lane = self.in_flight.iter().position(Option::is_none)?;
        let share = match self.in_flight.iter().flatten().min() {
            None if collected >= SPLIT_THRESHOLD => collected / 2,
            Some(&other) if collected < other => 0,
            None | Some(_) => collected,
        };
        (share > 0).then_some((lane, share))
    }

    /// Prepares a call: reserves the capacity for its claims now and sends it when the future is
    /// polled. The future returns the lane.
    fn settle(
        &mut self,
        lane: usize,
        requests: Vec<PendingSettlement>,
    ) -> impl Future<Output = usize> + use<> {
        let mut budget = self.budget(lane, &requests);
        let queue = self.queue.clone();
        async move {
            let nothing = ClaimRequest::default();
            let claiming = budget.as_ref().map_or(&nothing, |budget| &budget.request);
            let (endings, senders): (Vec<_>, Vec<_>) = requests
                .into_iter()
                .map(|request| (request.ending, (request.free, request.reply)))
                .unzip();
            let settled = queue.finish_and_claim(&endings, claiming).await;
            send_replies(&queue, &endings, senders, settled, budget.as_mut()).await;
            lane
        }
    }

    /// Reserves capacity to claim jobs for the freed slots. Each call begins with another class, so
    /// that no class starves. `None` once the worker stops.
    fn budget(&mut self, lane: usize, requests: &[PendingSettlement]) -> Option<ClaimBudget> {
        let claim_options = self.claim_options.as_ref()?;
        let free: Vec<&Slot> = requests.iter().filter_map(|r| r.free.as_ref()).collect();
        if claim_options.stop.is_cancelled() || free.is_empty() {
            return None;
        }
        let mut classes = claim_options.classes.borrow().clone();
        if !classes.is_empty() {
            let first = self.turn % classes.len();
            classes.rotate_left(first);
        }
        self.turn = self.turn.wrapping_add(1);
        let finished = free
            .iter()
            .filter_map(|slot| slot.take_reservation())
            .collect();
        let mut budget = claim_options.capacity.claim_budget(
            finished,
            &claim_options.namespace,
            &classes,
            free.len(),
        );
        budget.request.lane = lane;
        Some(budget)
    }
}

/// Collects further settlements. Attempts that end at the same moment are about to submit theirs,
/// so this yields to the other tasks until a pass brings no more settlement.
async fn collect_more(
    waiting: &mut mpsc::Receiver<PendingSettlement>,
    collected: &mut Vec<PendingSettlement>,
) {
    let mut before = 0;
    while before < collected.len() && collected.len() < SETTLEMENT_BATCH_SIZE {
        before = collected.len();
        tokio::task::yield_now().await;
        while collected.len() < SETTLEMENT_BATCH_SIZE
            && let Ok(next) = waiting.try_recv()
        {
            collected.push(next);
        }
    }
}

/// Sends each attempt of a call its reply and gives the slots the capacity of their next jobs.
async fn send_replies(
    queue: &Queue,
    endings: &[Arc<SettlementRequest>],
    senders: Vec<(Option<Slot>, ReplySender)>,
    settled: Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError>,
    mut budget: Option<&mut ClaimBudget>,
) {
    match settled {
        Ok((replies, claimed)) => {
            let mut claimed = claimed.into_iter().map(Box::new);
            for ((free, sender), reply) in senders.into_iter().zip(replies) {
                let next = free.and_then(|slot| {
                    let next = claimed.next()?;
                    slot.put_reservation(budget.as_mut()?.reserve(&next.lease.class));
                    Some(next)
                });
                // The send fails if the attempt ended with its worker; the lease of its next job
                // then expires.
                let _attempt_ended = sender.send(Ok(SettlementReply { reply, next }));
            }
        }
        // A settlement that Redis rejects must not fail the others of its call, so each is sent
        // alone.
        Err(error) if !error.is_transient() && endings.len() > 1 => {
            for (ending, (_free, sender)) in endings.iter().zip(senders) {
                let settled = settle_alone(queue, ending).await;
                let _attempt_ended = sender.send(settled);
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for (_free, sender) in senders {
                let _attempt_ended = sender.send(Err(Arc::clone(&error)));
            }
        }
    }
}
