//! The jobs of one model: which wait, which are gathered into the next call, and who is told what comes of it.
//!
//! A server that queues calls itself is sent one *ahead* of what it works on, so that it never waits for the next: only a
//! call that no later job could join, and one that has not begun costs its jobs nothing when the server dies.
//!
//! Pure bookkeeping: it knows no container and no clock of its own. It refuses whatever a server says of a call or an
//! input that is not its to answer.

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

/// The most bytes of inputs in one batch.
const MAX_BATCH: usize = 8 << 20;

/// How long after its time a call may still occupy the server before that is taken for stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The most of a connection's failure that jobs are told, in characters.
const KEPT_OF_FAULT: usize = 300;

/// One job's question to a model.
#[derive(Debug)]
pub(super) struct Ask {
    /// What is called.
    pub(super) call: Call,
    /// With what.
    pub(super) input: Value,
    /// How many bytes that is, about.
    pub(super) size: usize,
    /// Whether pieces of the answer are wanted.
    pub(super) stream: bool,
    /// Whether it must not share a call: its pieces are wanted, or it was lost with a server before and may be why.
    pub(super) alone: bool,
    /// How long the answer may take.
    pub(super) timeout: Duration,
    /// How many bytes of pieces are still passed on.
    pub(super) room: usize,
    /// When it came.
    pub(super) arrived: Instant,
    /// Where the job waits; closed when it does no more.
    pub(super) tell: UnboundedSender<Tell>,
}

/// What a job is told.
#[derive(Debug)]
pub(super) enum Tell {
    /// Its call has begun.
    Started,
    /// A piece of the answer; only as much as is kept.
    Piece(String),
    /// A piece was longer than what is kept.
    Cut,
    /// The answer.
    Answer(Result<Value, Exception>),
    /// It was lost to a fault of ours, or of the server's.
    Lost(String),
    /// No server will ever answer it.
    Hopeless(ErrorInfo),
}

/// A call the server has.
#[derive(Debug)]
struct Running {
    /// Its jobs by index; none once told.
    jobs: Vec<Option<Ask>>,
    /// The longest that one of them waits.
    timeout: Duration,
    /// When the server is taken for stuck; none while the call waits there for its turn.
    stuck: Option<Instant>,
    cancelled: bool,
}

impl Running {
    /// Its jobs that wait for an answer.
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

/// What can be done next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this call.
    Send(ToServer),
    /// Look again at this time: a batch waits for company.
    At(Instant),
    /// Nothing, until something happens.
    Nothing,
}

/// Something a server said that is not its to say.
#[derive(Debug, thiserror::Error)]
#[error("the server spoke of call {id}, which is not its to answer so")]
pub(super) struct OutOfPlace {
    id: u64,
}

/// The jobs of one model.
#[derive(Debug)]
pub(super) struct Calls {
    concurrency: usize,
    /// How many calls the server has at most: what it works on, and perhaps one more.
    most: usize,
    max_batch: usize,
    batch_wait: Duration,
    /// Whether a job that comes alone may have company soon: the last one had, or nobody came yet.
    company: bool,
    waiting: VecDeque<Ask>,
    /// By number, so that what was sent first comes first.
    running: BTreeMap<u64, Running>,
    next_id: u64,
}

impl Calls {
    pub(super) fn new(serving: &Serving) -> Self {
        let concurrency = usize::try_from(serving.concurrency).unwrap_or(usize::MAX);
        let ahead = match &serving.server {
            Server::Python { .. } => 1,
            // One more connection than it may have.
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

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// How many jobs wait for their turn, here or at the server.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.at_server(|running| !running.has_begun())
    }

    /// How many jobs the server works on.
    pub(super) fn running(&self) -> usize {
        self.at_server(Running::has_begun)
    }

    fn at_server(&self, which: impl Fn(&Running) -> bool) -> usize {
        let calls = self.running.values().filter(|running| which(running));
        calls.map(|running| running.untold().count()).sum()
    }

    /// Whether jobs wait for a server.
    pub(super) fn any_waiting(&mut self) -> bool {
        self.forget_the_gone();
        !self.waiting.is_empty()
    }

    /// The next call, if the server has room for one and its batch need not wait.
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
            // Those before it that were taken have moved it.
            jobs.extend(self.waiting.remove(index - taken));
        }
        if company {
            self.company = jobs.len() > 1 || !self.waiting.is_empty();
        }
        let begins = (!ahead).then_some(now);
        Next::Send(self.send(jobs, batched, begins))
    }

    /// The places of the waiting jobs that share a call with the first.
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

    /// Gives these jobs to the server in one call, which begins now or when another has ended.
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
                // It may be put again.
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

    /// Takes what the server says; whether a call ended with it.
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

    /// The call that the server speaks of, which has begun by that.
    fn begun(&mut self, id: u64, now: Instant) -> Result<&mut Running, OutOfPlace> {
        let running = self.running.get_mut(&id).ok_or(OutOfPlace { id })?;
        if !running.has_begun() {
            running.begin(now);
        }
        Ok(running)
    }

    /// The calls that all have left who would still be told something, each once.
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

    /// When the server is taken for stuck, if it says nothing until then.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        self.running
            .values()
            .filter_map(|running| running.stuck)
            .min()
    }

    /// The server is gone: tells every job of a call that has begun that it is lost; the others wait again, in front.
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

    /// Tells every waiting job the same, and forgets it.
    pub(super) fn dismiss(&mut self, what: impl Fn() -> Tell) {
        for ask in self.waiting.drain(..) {
            tell(&ask, what());
        }
    }

    fn forget_the_gone(&mut self) {
        self.waiting.retain(|ask| !ask.tell.is_closed());
    }
}

/// A job that is gone wants to know nothing.
fn tell(ask: &Ask, what: Tell) {
    drop(ask.tell.send(what));
}

#[cfg(test)]
mod tests;
