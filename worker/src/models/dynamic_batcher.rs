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

use sandhog_core::id::clip;
use sandhog_core::infer::{Call, Server, Serving};
use sandhog_core::outcome::ErrorInfo;
use sandhog_core::outcome::Exception;
use sandhog_protocol::model::{FromServer, ToServer};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Maximum total size of the inputs in one batch, in bytes.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Time after the timeout of a call until the server counts as stuck if it has not ended the call.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Maximum length of a reported connection failure, in characters.
const MAX_FAULT_CHARS: usize = 300;

/// One job's inference request.
#[derive(Debug)]
pub(super) struct PendingCall {
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
    pub(super) exclusive: bool,
    /// Time that the answer may take.
    pub(super) timeout: Duration,
    /// Number of bytes of partial answers that are still passed on.
    pub(super) chunk_bytes_left: usize,
    /// Time of arrival.
    pub(super) arrived: Instant,
    /// Channel to the job; closed when the job no longer waits.
    pub(super) events: UnboundedSender<CallEvent>,
}

/// Event that is sent to a job.
#[derive(Debug)]
pub(super) enum CallEvent {
    /// The call of the job has begun.
    Started,
    /// Part of the answer, cut to the number of bytes that are kept.
    Chunk(String),
    /// A part was longer than the number of bytes that are kept.
    Truncated,
    /// The answer.
    Answer(Result<Value, Exception>),
    /// The job was lost because of a fault of the system or of the server.
    Lost(String),
    /// No server will ever answer the job.
    Hopeless(ErrorInfo),
}

/// A call that was sent to the server.
#[derive(Debug)]
struct RunningCall {
    /// The jobs of the call by index; `None` once a job has its answer.
    jobs: Vec<Option<PendingCall>>,
    /// The longest timeout of its jobs.
    timeout: Duration,
    /// Time at which the server counts as stuck; `None` while the call waits in the server's queue.
    stuck: Option<Instant>,
    cancelled: bool,
}

impl RunningCall {
    /// Returns the jobs that still wait for an answer.
    fn unanswered(&self) -> impl Iterator<Item = &PendingCall> {
        self.jobs.iter().flatten()
    }

    fn has_begun(&self) -> bool {
        self.stuck.is_some()
    }

    fn mark_begun(&mut self, now: Instant) {
        self.stuck = Some(now + self.timeout + STUCK_AFTER);
        for pending in self.unanswered() {
            send_event(pending, CallEvent::Started);
        }
    }
}

/// Next action for the server.
#[derive(Debug)]
pub(super) enum BatcherAction {
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
pub(super) struct UnexpectedMessage {
    id: u64,
}

/// The jobs of one model.
#[derive(Debug)]
pub(super) struct DynamicBatcher {
    concurrency: usize,
    /// Maximum number of calls at the server: those that it processes, and possibly one more.
    max_in_flight: usize,
    max_batch: usize,
    batch_wait: Duration,
    /// `true` if another job is likely to join a single job soon: the previous call had several
    /// jobs, or there has been none yet.
    expects_batch_partner: bool,
    waiting: VecDeque<PendingCall>,
    /// Ordered by id, so that calls that were sent first come first.
    running: BTreeMap<u64, RunningCall>,
    next_id: u64,
}

impl DynamicBatcher {
    pub(super) fn new(serving: &Serving) -> Self {
        let concurrency = usize::try_from(serving.concurrency).unwrap_or(usize::MAX);
        let ahead = match &serving.server {
            Server::Python { .. } => 1,
            // A call ahead would be one connection more than the server allows.
            Server::Http(_) => 0,
        };
        Self {
            concurrency,
            max_in_flight: concurrency.saturating_add(ahead),
            max_batch: usize::try_from(serving.max_batch).unwrap_or(usize::MAX),
            batch_wait: serving.batch_wait_ms.duration(),
            expects_batch_partner: true,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            // The warm-up is call 0.
            next_id: 1,
        }
    }

    pub(super) fn push(&mut self, pending: PendingCall) {
        self.expects_batch_partner |= !self.is_empty();
        self.waiting.push_back(pending);
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
        self.at_server(RunningCall::has_begun)
    }

    fn at_server(&self, which: impl Fn(&RunningCall) -> bool) -> usize {
        let calls = self.running.values().filter(|running| which(running));
        calls.map(|running| running.unanswered().count()).sum()
    }

    /// Returns whether jobs wait for a server.
    pub(super) fn any_waiting(&mut self) -> bool {
        self.remove_closed();
        !self.waiting.is_empty()
    }

    /// Returns the next call, if the server can take one and its batch need not wait.
    pub(super) fn next(&mut self, now: Instant) -> BatcherAction {
        self.remove_closed();
        if self.running.len() >= self.max_in_flight {
            return BatcherAction::Nothing;
        }
        let ahead = self.running.len() >= self.concurrency;
        let Some(first) = self.waiting.front() else {
            return BatcherAction::Nothing;
        };
        let batched = matches!(first.call, Call::Method { batched: true, .. });
        let may_share = batched && !first.exclusive;
        let chosen = if may_share { self.gather() } else { vec![0] };
        let open = may_share && chosen.len() < self.max_batch;
        if open && ahead {
            return BatcherAction::Nothing;
        }
        let batch_deadline = first.arrived + self.batch_wait;
        if open && self.expects_batch_partner && now < batch_deadline {
            return BatcherAction::At(batch_deadline);
        }
        let mut jobs = Vec::with_capacity(chosen.len());
        for (taken, index) in chosen.into_iter().enumerate() {
            // Each job that was removed before it has shifted the index by one.
            jobs.extend(self.waiting.remove(index - taken));
        }
        if may_share {
            self.expects_batch_partner = jobs.len() > 1 || !self.waiting.is_empty();
        }
        let begins = (!ahead).then_some(now);
        BatcherAction::Send(self.send(jobs, batched, begins))
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
            .filter(|(_, pending)| pending.call == first.call && !pending.exclusive)
            .take_while(|(index, pending)| {
                bytes = bytes.saturating_add(pending.size);
                *index == 0 || bytes <= MAX_BATCH_BYTES
            })
            .map(|(index, _)| index)
            .take(self.max_batch)
            .collect()
    }

    /// Sends these jobs to the server in one call, which begins now or, if `begins` is `None`, when
    /// another call has ended.
    fn send(
        &mut self,
        mut jobs: Vec<PendingCall>,
        batched: bool,
        begins: Option<Instant>,
    ) -> ToServer {
        let id = self.next_id;
        self.next_id += 1;
        let first = jobs.first();
        let target = first.map_or_else(String::new, |pending| match &pending.call {
            Call::Method { name, .. } => name.clone(),
            Call::Path(path) => path.clone(),
        });
        let stream = first.is_some_and(|pending| pending.stream);
        let timeout = jobs
            .iter()
            .map(|pending| pending.timeout)
            .max()
            .unwrap_or_default();
        let inputs = jobs
            .iter_mut()
            .map(|pending| match begins {
                Some(_) => std::mem::take(&mut pending.input),
                // Kept, because the job may have to be sent again.
                None => pending.input.clone(),
            })
            .collect();
        let mut running = RunningCall {
            jobs: jobs.into_iter().map(Some).collect(),
            timeout,
            stuck: None,
            cancelled: false,
        };
        if let Some(now) = begins {
            running.mark_begun(now);
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
    pub(super) fn handle_message(
        &mut self,
        said: FromServer,
        now: Instant,
    ) -> Result<bool, UnexpectedMessage> {
        match said {
            FromServer::Ready | FromServer::Failed { .. } => Err(UnexpectedMessage { id: 0 }),
            FromServer::Chunk { id, text } => {
                let running = self.begun_call(id, now)?;
                let [Some(pending)] = running.jobs.as_mut_slice() else {
                    return Err(UnexpectedMessage { id });
                };
                let kept = text.floor_char_boundary(pending.chunk_bytes_left);
                pending.chunk_bytes_left -= kept;
                let whole = kept == text.len();
                let mut text = text;
                text.truncate(kept);
                send_event(pending, CallEvent::Chunk(text));
                if !whole {
                    pending.chunk_bytes_left = 0;
                    send_event(pending, CallEvent::Truncated);
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
                let running = self.begun_call(id, now)?;
                for pending in running.jobs.iter_mut().filter_map(Option::take) {
                    let why = format!("the connection to the model server failed: {why}");
                    send_event(&pending, CallEvent::Lost(clip(&why, MAX_FAULT_CHARS)));
                }
                Ok(false)
            }
            FromServer::Done { id } => {
                let running = self.running.remove(&id).ok_or(UnexpectedMessage { id })?;
                for pending in running.unanswered() {
                    let why = "the model server ended the call without an answer";
                    send_event(pending, CallEvent::Lost(why.to_owned()));
                }
                let next = self.running.values_mut().find(|call| !call.has_begun());
                if let Some(next) = next.filter(|_| running.has_begun()) {
                    next.mark_begun(now);
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
    ) -> Result<bool, UnexpectedMessage> {
        let running = self.begun_call(id, now)?;
        let job = running.jobs.get_mut(index).and_then(Option::take);
        let pending = job.ok_or(UnexpectedMessage { id })?;
        send_event(&pending, CallEvent::Answer(answer));
        Ok(false)
    }

    /// Returns the call that a message refers to. The first message about a call marks it as begun.
    fn begun_call(&mut self, id: u64, now: Instant) -> Result<&mut RunningCall, UnexpectedMessage> {
        let running = self.running.get_mut(&id).ok_or(UnexpectedMessage { id })?;
        if !running.has_begun() {
            running.mark_begun(now);
        }
        Ok(running)
    }

    /// Returns the ids of the calls whose unanswered jobs have all ended. Each id is returned only
    /// once.
    pub(super) fn abandoned_calls(&mut self) -> Vec<u64> {
        self.remove_closed();
        self.running
            .iter_mut()
            .filter(|(_, running)| {
                !running.cancelled
                    && running.unanswered().next().is_some()
                    && running
                        .unanswered()
                        .all(|pending| pending.events.is_closed())
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
    pub(super) fn server_lost(&mut self, why: &str) {
        let mut requeued = Vec::new();
        for running in std::mem::take(&mut self.running).into_values() {
            if running.has_begun() {
                for pending in running.unanswered() {
                    send_event(pending, CallEvent::Lost(why.to_owned()));
                }
            } else {
                requeued.extend(running.jobs.into_iter().flatten());
            }
        }
        for pending in requeued.into_iter().rev() {
            self.waiting.push_front(pending);
        }
    }

    /// Sends every waiting job the same event and removes it.
    pub(super) fn fail_waiting(&mut self, event: impl Fn() -> CallEvent) {
        for pending in self.waiting.drain(..) {
            send_event(&pending, event());
        }
    }

    fn remove_closed(&mut self) {
        self.waiting.retain(|pending| !pending.events.is_closed());
    }
}

/// Sends an event to a job. The send fails if the job has ended, which needs no handling.
fn send_event(pending: &PendingCall, event: CallEvent) {
    drop(pending.events.send(event));
}

#[cfg(test)]
mod tests;
