//! Settles the attempts of one worker together, and takes the next jobs for the slots they free.
//!
//! Attempts that end while Redis is busy with a settlement go into the next call as one, so that a worker with many
//! short jobs costs Redis one script where it would cost dozens. A lone settlement is sent at once, and a second call
//! follows the first without waiting for its answer when it carries as much, so that Redis has the next one in hand when
//! it is done with one. The same call claims a job for each slot that is freed by it and whose room the job fits,
//! unless other namespaces want the slots too. The cell of the job that is over may still be coming down then, which
//! takes milliseconds; its processes are dead, so its room counts as free.
//!
//! It refuses to try again: whoever wants something settled insists by itself.

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

/// The most settlements of one call, which is what one call of the script takes.
const TOGETHER: usize = 64;

/// Calls under way at once. Redis runs one at a time; with two, it need not wait for this worker to read an answer, run
/// what it brought and come back.
const CALLS: usize = 2;

/// As many as end together when nothing is under way go in two halves, which then take turns. Halves of four cost Redis
/// about a tenth more for each job, as much as it gained by not waiting; among sixteen, what a call costs by itself is lost.
const HALVED_FROM: usize = 32;

/// How many may wait before whoever comes next waits for room.
const WAITING: usize = 4 * TOGETHER;

#[derive(Debug)]
struct Request {
    /// Shared with the attempt, which may have to repeat it: a result may have many MiB.
    ending: Arc<Ending>,
    /// Its slot, if that takes the next job.
    free: Option<Slot>,
    answer: Answer,
}

/// Where an attempt hears what its settlement came to.
type Answer = oneshot::Sender<Result<Settled, Arc<QueueError>>>;

/// What a settlement came to.
#[derive(Debug)]
pub struct Settled {
    /// Whether it counted.
    pub reply: FinishReply,
    /// The job that its slot runs next, if there is one: this worker holds the lease already.
    pub next: Option<Box<BoundJob>>,
}

/// Where settlements are handed in. Its task ends with the last clone.
#[derive(Debug, Clone)]
pub struct Settler {
    queue: Queue,
    requests: mpsc::Sender<Request>,
}

impl Settler {
    /// Starts the task that settles, and claims where it is told how; needs a Tokio runtime.
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

    /// Settles a lease, if it is still held, and claims the next job for its slot if that is given.
    ///
    /// # Cancel safety
    /// As [`Queue::finish`]: repeat it, repeating is harmless.
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
        // The task is gone, which only a panic in it explains: do without.
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

/// How the settler claims.
#[derive(Debug)]
pub struct Claims {
    /// For which namespace.
    pub namespace: Namespace,
    /// The classes this worker serves, as they become known.
    pub classes: watch::Receiver<Vec<Class>>,
    /// The room of what is claimed.
    pub room: Room,
    /// Ends claiming.
    pub stop: CancellationToken,
}

/// What the task that settles has.
#[derive(Debug)]
struct Desk {
    queue: Queue,
    claims: Option<Claims>,
    /// Which class the next call claims from first.
    turn: usize,
    /// How many settlements each lane's call carries, while one is under way.
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

    /// In which lane the next call goes out, and how many of those `gathered` it takes; none before another call has
    /// ended or more has come.
    fn next_call(&self, gathered: usize) -> Option<(usize, usize)> {
        let lane = self.under_way.iter().position(Option::is_none)?;
        let share = match self.under_way.iter().flatten().min() {
            None if gathered >= HALVED_FROM => gathered / 2,
            Some(&other) if gathered < other => 0,
            None | Some(_) => gathered,
        };
        (share > 0).then_some((lane, share))
    }

    /// Makes a call: what it will claim is set aside now, and it is sent once polled. Answers its lane.
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

    /// What to claim for the slots that are freed, beginning with another class each time, so that none starves; none
    /// once the worker stops.
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

/// Attempts that end at the same moment are about to hand theirs in: lets those run that can, until none does.
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

/// Tells the attempts of a call what came of it, and gives their slots the room of their next jobs.
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
                // An attempt that no longer listens has ended with its worker; its next job's lease lapses.
                let _not_wanted_any_more = answer.send(Ok(Settled { reply, next }));
            }
        }
        // One that Redis refuses must not take the others with it.
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
