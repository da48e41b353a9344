//! The jobs of one model: which ones wait, which ones form the next call, and which one receives
//! each answer.
//!
//! If a server queues calls itself, it is sent one call *ahead* of the calls that it processes, so
//! that it never waits for the next one. This is done only for a call that no later job could join.
//! If the server dies before that call begins, its jobs lose nothing.
//!
//! Pure bookkeeping, without containers and without its own clock. A message of the server about a
//! call or an input that it cannot refer to is an error.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sandhog_common::id::clip;
use sandhog_common::infer::{Call, Server, Serving};
use sandhog_common::outcome::ErrorInfo;
use sandhog_runner::model::{FromServer, ToServer};
use sandhog_runner::protocol::Exception;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Maximum total size of the inputs in one batch, in bytes.
const MAX_BATCH: usize = 8 << 20;

/// Time after the timeout of a call until the server counts as stuck if it has not ended the call.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Maximum length of a reported connection failure, in characters.
const KEPT_OF_FAULT: usize = 300;

/// One job's inference request.
#[derive(Debug)]
pub(super) struct Ask {
    /// The method or path to call.
    pub(super) call: Call,
    /// The input of the call.
    pub(super) input: Value,
    /// Approximate size of the input in bytes.
    pub(super) size: usize,
    /// `true` if partial answers are wanted.
    pub(super) stream: bool,
    /// `true` if the request must not share a call: partial answers are wanted, or the request was
    /// lost with a server before and may be the cause.
    pub(super) alone: bool,
    /// Time that the answer may take.
    pub(super) timeout: Duration,
    /// Number of bytes of partial answers that are still passed on.
    pub(super) room: usize,
    /// Time of arrival.
    pub(super) arrived: Instant,
    /// Channel to the job; closed when the job no longer waits.
    pub(super) tell: UnboundedSender<Tell>,
}

/// Event that is sent to a job.
#[derive(Debug)]
pub(super) enum Tell {
    /// The call of the job has begun.
    Started,
    /// Part of the answer, cut to the number of bytes that are kept.
    Piece(String),
    /// A part was longer than the number of bytes that are kept.
    Cut,
    /// The answer.
    Answer(Result<Value, Exception>),
    /// The job was lost because of a fault of the system or of the server.
    Lost(String),
    /// No server will ever answer the job.
    Hopeless(ErrorInfo),
}

/// A call that was sent to the server.
#[derive(Debug)]
struct Running {
    /// The jobs of the call by index; `None` once a job has its answer.
    jobs: Vec<Option<Ask>>,
    /// The longest timeout of its jobs.
    timeout: Duration,
    /// Time at which the server counts as stuck; `None` while the call waits in the server's queue.
    stuck: Option<Instant>,
    cancelled: bool,
}

impl Running {
    /// Returns the jobs that still wait for an answer.
    fn untold(&self) -> impl Iterator<Item = &Ask> {
        self.jobs.iter().flatten()
    }

    fn has_begun(&self) -> bool {
        self.stuck.is_some()
    }

    fn begin(&mut self, now: Instant) {
        self.stuck = Some(now + self.timeout + STUCK_AFTER);
        for ask in self.untold() {
            tell(ask, Tell::Started);
        }
    }
}

/// Next action for the server.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this call.
    Send(ToServer),
    /// Call again at this time: a batch waits for further jobs.
    At(Instant),
    /// Nothing to do until an event occurs.
    Nothing,
}

/// Message of the server that does not fit the state of the call.
#[derive(Debug, thiserror::Error)]
#[error("unexpected message from the server about call {id}")]
pub(super) struct OutOfPlace {
    id: u64,
}

/// The jobs of one model.
#[derive(Debug)]
pub(super) struct Calls {
    concurrency: usize,
    /// Maximum number of calls at the server: those that it processes, and possibly one more.
    most: usize,
    max_batch: usize,
    batch_wait: Duration,
    /// `true` if another job is likely to join a single job soon: the previous call had several
    /// jobs, or there has been none yet.
    company: bool,
    waiting: VecDeque<Ask>,
    /// Ordered by id, so that calls that were sent first come first.
    running: BTreeMap<u64, Running>,
    next_id: u64,
}

impl Calls {
    pub(super) fn new(serving: &Serving) -> Self {
        let concurrency = usize::try_from(serving.concurrency).unwrap_or(usize::MAX);
        let ahead = match &serving.server {
            Server::Python { .. } => 1,
            // A call ahead would be one connection more than the server allows.
            Server::Http(_) => 0,
        };
        Self {
            concurrency,
            most: concurrency.saturating_add(ahead),
            max_batch: usize::try_from(serving.max_batch).unwrap_or(usize::MAX),
            batch_wait: serving.batch_wait_ms.duration(),
            company: true,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            // The warm-up is call 0.
            next_id: 1,
        }
    }

    pub(super) fn push(&mut self, ask: Ask) {
        self.company |= !self.is_empty();
        self.waiting.push_back(ask);
    }

    /// Returns whether no job waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Returns the number of jobs that wait for their turn, here or at the server.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.at_server(|running| !running.has_begun())
    }

    /// Returns the number of jobs that the server processes.
    pub(super) fn running(&self) -> usize {
        self.at_server(Running::has_begun)
    }

    fn at_server(&self, which: impl Fn(&Running) -> bool) -> usize {
        let calls = self.running.values().filter(|running| which(running));
        calls.map(|running| running.untold().count()).sum()
    }

    /// Returns whether jobs wait for a server.
    pub(super) fn any_waiting(&mut self) -> bool {
        self.forget_the_gone();
        !self.waiting.is_empty()
    }

    /// Returns the next call, if the server can take one and its batch need not wait.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.forget_the_gone();
        if self.running.len() >= self.most {
            return Next::Nothing;
        }
        let ahead = self.running.len() >= self.concurrency;
        let Some(first) = self.waiting.front() else {
            return Next::Nothing;
        };
        let batched = matches!(first.call, Call::Method { batched: true, .. });
        let company = batched && !first.alone;
        let chosen = if company { self.gather() } else { vec![0] };
        let open = company && chosen.len() < self.max_batch;
        if open && ahead {
            return Next::Nothing;
        }
        let ripe = first.arrived + self.batch_wait;
        if open && self.company && now < ripe {
            return Next::At(ripe);
        }
        let mut jobs = Vec::with_capacity(chosen.len());
        for (taken, index) in chosen.into_iter().enumerate() {
            // Each job that was removed before it has shifted the index by one.
            jobs.extend(self.waiting.remove(index - taken));
        }
        if company {
            self.company = jobs.len() > 1 || !self.waiting.is_empty();
        }
        let begins = (!ahead).then_some(now);
        Next::Send(self.send(jobs, batched, begins))
    }

    /// Returns the indexes of the waiting jobs that share a call with the first one.
    fn gather(&self) -> Vec<usize> {
        let Some(first) = self.waiting.front() else {
            return Vec::new();
        };
        let mut bytes = 0_usize;
        self.waiting
            .iter()
            .enumerate()
            .filter(|(_, ask)| ask.call == first.call && !ask.alone)
            .take_while(|(index, ask)| {
                bytes = bytes.saturating_add(ask.size);
                *index == 0 || bytes <= MAX_BATCH
            })
            .map(|(index, _)| index)
            .take(self.max_batch)
            .collect()
    }

    /// Sends these jobs to the server in one call, which begins now or, if `begins` is `None`, when
    /// another call has ended.
    fn send(&mut self, mut jobs: Vec<Ask>, batched: bool, begins: Option<Instant>) -> ToServer {
        let id = self.next_id;
        self.next_id += 1;
        let first = jobs.first();
        let target = first.map_or_else(String::new, |ask| match &ask.call {
            Call::Method { name, .. } => name.clone(),
            Call::Path(path) => path.clone(),
        });
        let stream = first.is_some_and(|ask| ask.stream);
        let timeout = jobs.iter().map(|ask| ask.timeout).max().unwrap_or_default();
        let inputs = jobs
            .iter_mut()
            .map(|ask| match begins {
                Some(_) => std::mem::take(&mut ask.input),
                // Kept, because the job may have to be sent again.
                None => ask.input.clone(),
            })
            .collect();
        let mut running = Running {
            jobs: jobs.into_iter().map(Some).collect(),
            timeout,
            stuck: None,
            cancelled: false,
        };
        if let Some(now) = begins {
            running.begin(now);
        }
        self.running.insert(id, running);
        ToServer::Call {
            id,
            target,
            inputs,
            batched,
            stream,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Processes a message of the server. Returns whether it ended a call.
    pub(super) fn hear(&mut self, said: FromServer, now: Instant) -> Result<bool, OutOfPlace> {
        match said {
            FromServer::Ready | FromServer::Failed { .. } => Err(OutOfPlace { id: 0 }),
            FromServer::Chunk { id, text } => {
                let running = self.begun(id, now)?;
                let [Some(ask)] = running.jobs.as_mut_slice() else {
                    return Err(OutOfPlace { id });
                };
                let kept = text.floor_char_boundary(ask.room);
                ask.room -= kept;
                let whole = kept == text.len();
                let mut text = text;
                text.truncate(kept);
                tell(ask, Tell::Piece(text));
                if !whole {
                    ask.room = 0;
                    tell(ask, Tell::Cut);
                }
                Ok(false)
            }
            FromServer::Result { id, index, value } => self.answer(id, index, Ok(value), now),
            FromServer::Error {
                id,
                index,
                exception,
            } => self.answer(id, index, Err(exception), now),
            FromServer::Fault { id, why } => {
                let running = self.begun(id, now)?;
                for ask in running.jobs.iter_mut().filter_map(Option::take) {
                    let why = format!("the connection to the model server failed: {why}");
                    tell(&ask, Tell::Lost(clip(&why, KEPT_OF_FAULT)));
                }
                Ok(false)
            }
            FromServer::Done { id } => {
                let running = self.running.remove(&id).ok_or(OutOfPlace { id })?;
                for ask in running.untold() {
                    let why = "the model server ended the call without an answer";
                    tell(ask, Tell::Lost(why.to_owned()));
                }
                let next = self.running.values_mut().find(|call| !call.has_begun());
                if let Some(next) = next.filter(|_| running.has_begun()) {
                    next.begin(now);
                }
                Ok(true)
            }
        }
    }

    fn answer(
        &mut self,
        id: u64,
        index: usize,
        answer: Result<Value, Exception>,
        now: Instant,
    ) -> Result<bool, OutOfPlace> {
        let running = self.begun(id, now)?;
        let job = running.jobs.get_mut(index).and_then(Option::take);
        let ask = job.ok_or(OutOfPlace { id })?;
        tell(&ask, Tell::Answer(answer));
        Ok(false)
    }

    /// Returns the call that a message refers to. The first message about a call marks it as begun.
    fn begun(&mut self, id: u64, now: Instant) -> Result<&mut Running, OutOfPlace> {
        let running = self.running.get_mut(&id).ok_or(OutOfPlace { id })?;
        if !running.has_begun() {
            running.begin(now);
        }
        Ok(running)
    }

    /// Returns the ids of the calls whose unanswered jobs have all ended. Each id is returned only
    /// once.
    pub(super) fn unwanted(&mut self) -> Vec<u64> {
        self.forget_the_gone();
        self.running
            .iter_mut()
            .filter(|(_, running)| {
                !running.cancelled
                    && running.untold().next().is_some()
                    && running.untold().all(|ask| ask.tell.is_closed())
            })
            .map(|(id, running)| {
                running.cancelled = true;
                *id
            })
            .collect()
    }

    /// Returns the time at which the server counts as stuck if it sends nothing until then.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        self.running
            .values()
            .filter_map(|running| running.stuck)
            .min()
    }

    /// Handles the loss of the server: every job of a call that has begun is lost; the other jobs
    /// return to the front of the queue.
    pub(super) fn lose(&mut self, why: &str) {
        let mut again = Vec::new();
        for running in std::mem::take(&mut self.running).into_values() {
            if running.has_begun() {
                for ask in running.untold() {
                    tell(ask, Tell::Lost(why.to_owned()));
                }
            } else {
                again.extend(running.jobs.into_iter().flatten());
            }
        }
        for ask in again.into_iter().rev() {
            self.waiting.push_front(ask);
        }
    }

    /// Sends every waiting job the same event and removes it.
    pub(super) fn dismiss(&mut self, what: impl Fn() -> Tell) {
        for ask in self.waiting.drain(..) {
            tell(&ask, what());
        }
    }

    fn forget_the_gone(&mut self) {
        self.waiting.retain(|ask| !ask.tell.is_closed());
    }
}

/// Sends an event to a job. The send fails if the job has ended, which needs no handling.
fn tell(ask: &Ask, what: Tell) {
    drop(ask.tell.send(what));
}

#[cfg(test)]
mod tests;
