//! The jobs of one model: which wait, which are gathered into the next call, and who is told what comes of it.
//!
//! Pure bookkeeping: it knows no container and no clock of its own. It refuses whatever a server says of a call or an
//! input that is not its to answer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sandhog_common::infer::{Call, Serving};
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

/// A call the server works on.
#[derive(Debug)]
struct Running {
    /// Its jobs by index; none once told.
    jobs: Vec<Option<Ask>>,
    /// When the server is taken for stuck.
    stuck: Instant,
    cancelled: bool,
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
    max_batch: usize,
    batch_wait: Duration,
    waiting: VecDeque<Ask>,
    running: HashMap<u64, Running>,
    next_id: u64,
}

impl Calls {
    pub(super) fn new(serving: &Serving) -> Self {
        Self {
            concurrency: usize::try_from(serving.concurrency).unwrap_or(usize::MAX),
            max_batch: usize::try_from(serving.max_batch).unwrap_or(usize::MAX),
            batch_wait: serving.batch_wait_ms.duration(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            // The warm-up is call 0.
            next_id: 1,
        }
    }

    pub(super) fn push(&mut self, ask: Ask) {
        self.waiting.push_back(ask);
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many jobs the server works on.
    pub(super) fn running(&self) -> usize {
        let untold = |running: &Running| running.jobs.iter().flatten().count();
        self.running.values().map(untold).sum()
    }

    /// Whether jobs wait for a server.
    pub(super) fn any_waiting(&mut self) -> bool {
        self.forget_the_gone();
        !self.waiting.is_empty()
    }

    /// The next call, if the server has room for one and its batch need not wait.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.forget_the_gone();
        if self.running.len() >= self.concurrency {
            return Next::Nothing;
        }
        let Some(first) = self.waiting.front() else {
            return Next::Nothing;
        };
        let batched = matches!(first.call, Call::Method { batched: true, .. });
        let company = batched && !first.alone;
        let chosen = if company { self.gather() } else { vec![0] };
        let ripe = first.arrived + self.batch_wait;
        if company && chosen.len() < self.max_batch && now < ripe {
            return Next::At(ripe);
        }
        let mut jobs = Vec::with_capacity(chosen.len());
        for (taken, index) in chosen.into_iter().enumerate() {
            // Those before it that were taken have moved it.
            jobs.extend(self.waiting.remove(index - taken));
        }
        Next::Send(self.begin(jobs, batched, now))
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

    fn begin(&mut self, mut jobs: Vec<Ask>, batched: bool, now: Instant) -> ToServer {
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
            .map(|ask| {
                tell(ask, Tell::Started);
                std::mem::take(&mut ask.input)
            })
            .collect();
        self.running.insert(
            id,
            Running {
                jobs: jobs.into_iter().map(Some).collect(),
                stuck: now + timeout + STUCK_AFTER,
                cancelled: false,
            },
        );
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
    pub(super) fn hear(&mut self, said: FromServer) -> Result<bool, OutOfPlace> {
        match said {
            FromServer::Ready | FromServer::Failed { .. } => Err(OutOfPlace { id: 0 }),
            FromServer::Chunk { id, text } => {
                let running = self.running.get_mut(&id).ok_or(OutOfPlace { id })?;
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
            FromServer::Result { id, index, value } => self.answer(id, index, Ok(value)),
            FromServer::Error {
                id,
                index,
                exception,
            } => self.answer(id, index, Err(exception)),
            FromServer::Done { id } => {
                let running = self.running.remove(&id).ok_or(OutOfPlace { id })?;
                for ask in running.jobs.iter().flatten() {
                    let why = "the model server ended the call without an answer";
                    tell(ask, Tell::Lost(why.to_owned()));
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
    ) -> Result<bool, OutOfPlace> {
        let running = self.running.get_mut(&id).ok_or(OutOfPlace { id })?;
        let job = running.jobs.get_mut(index).and_then(Option::take);
        let ask = job.ok_or(OutOfPlace { id })?;
        tell(&ask, Tell::Answer(answer));
        Ok(false)
    }

    /// The calls nobody waits for any more, each once.
    pub(super) fn unwanted(&mut self) -> Vec<u64> {
        self.forget_the_gone();
        self.running
            .iter_mut()
            .filter(|(_, running)| {
                !running.cancelled
                    && running
                        .jobs
                        .iter()
                        .flatten()
                        .all(|ask| ask.tell.is_closed())
            })
            .map(|(id, running)| {
                running.cancelled = true;
                *id
            })
            .collect()
    }

    /// When the server is taken for stuck, if it says nothing until then.
    pub(super) fn stuck_at(&self) -> Option<Instant> {
        self.running.values().map(|running| running.stuck).min()
    }

    /// Tells every job of a running call that it is lost.
    pub(super) fn lose(&mut self, why: &str) {
        for (_, running) in self.running.drain() {
            for ask in running.jobs.iter().flatten() {
                tell(ask, Tell::Lost(why.to_owned()));
            }
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
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn calls(concurrency: u32, max_batch: u32, batch_wait_ms: u64) -> Calls {
        let text = format!(
            "concurrency = {concurrency}\nmax_batch = {max_batch}\nbatch_wait_ms = {batch_wait_ms}\n\
             [server]\nstyle = \"python\"\nmodel = \"m:M\"\nmethod = \"f\"\nbatched = [\"f\", \"g\"]\n"
        );
        Calls::new(&toml::from_str(&text).unwrap())
    }

    fn ask(method: &str, alone: bool, now: Instant) -> (Ask, UnboundedReceiver<Tell>) {
        let (tell, told) = unbounded_channel();
        let ask = Ask {
            call: Call::Method {
                name: method.to_owned(),
                batched: true,
            },
            input: Value::from(method),
            size: 1,
            stream: false,
            alone,
            timeout: Duration::from_secs(1),
            room: 4,
            arrived: now,
            tell,
        };
        (ask, told)
    }

    fn sent(next: Next) -> (u64, Vec<Value>) {
        match next {
            Next::Send(ToServer::Call { id, inputs, .. }) => (id, inputs),
            other => panic!("no call: {other:?}"),
        }
    }

    #[tokio::test]
    async fn jobs_of_one_method_are_gathered_and_each_is_told_its_own() {
        let now = Instant::now();
        let mut calls = calls(1, 3, 5);
        let mut told = Vec::new();
        for method in ["f", "g", "f", "f", "f"] {
            let (ask, hears) = ask(method, false, now);
            calls.push(ask);
            told.push(hears);
        }
        let (id, inputs) = sent(calls.next(now));
        assert_eq!(inputs, ["f", "f", "f"], "a full batch does not wait");
        assert!(
            matches!(calls.next(now), Next::Nothing),
            "the server is busy"
        );

        let exception = Exception {
            name: "E".to_owned(),
            message: String::new(),
            traceback: String::new(),
        };
        let value = |index, value: i32| FromServer::Result {
            id,
            index,
            value: value.into(),
        };
        assert!(!calls.hear(value(2, 2)).unwrap());
        assert!(
            !calls
                .hear(FromServer::Error {
                    id,
                    index: 0,
                    exception
                })
                .unwrap()
        );
        assert!(calls.hear(value(2, 2)).is_err(), "answered before");
        assert!(calls.hear(value(9, 2)).is_err(), "no such input");
        assert!(calls.hear(FromServer::Done { id }).unwrap());
        assert!(calls.hear(FromServer::Done { id }).is_err());
        let mut last = |place: usize| {
            let hears: &mut UnboundedReceiver<Tell> = &mut told[place];
            assert!(matches!(hears.try_recv(), Ok(Tell::Started)));
            hears.try_recv().unwrap()
        };
        assert!(matches!(last(0), Tell::Answer(Err(_))));
        assert!(matches!(last(2), Tell::Lost(_)), "never answered");
        assert!(matches!(last(3), Tell::Answer(Ok(_))));

        match calls.next(now) {
            Next::At(when) => assert_eq!(when, now + Duration::from_millis(5)),
            other => panic!("it should wait for company: {other:?}"),
        }
        let (_, inputs) = sent(calls.next(now + Duration::from_millis(5)));
        assert_eq!(inputs, ["g"]);
    }

    #[tokio::test]
    async fn a_job_that_was_lost_before_is_asked_alone_and_one_that_left_not_at_all() {
        let now = Instant::now();
        let mut calls = calls(2, 8, 0);
        let mut told = Vec::new();
        for alone in [false, true, false] {
            let (ask, hears) = ask("f", alone, now);
            calls.push(ask);
            told.push(hears);
        }
        told.remove(2);
        assert_eq!(sent(calls.next(now)).1.len(), 1, "one left, one is alone");
        let (id, inputs) = sent(calls.next(now));
        assert_eq!(inputs.len(), 1);
        assert!(calls.unwanted().is_empty());
        told.remove(1);
        assert_eq!(calls.unwanted(), [id]);
        assert!(calls.unwanted().is_empty(), "said once");
        calls.lose("died");
        assert!(calls.is_empty());
        assert!(matches!(told[0].try_recv(), Ok(Tell::Started)));
        assert!(matches!(told[0].try_recv(), Ok(Tell::Lost(_))));
    }

    #[tokio::test]
    async fn pieces_beyond_what_is_kept_are_cut_at_a_character() {
        let now = Instant::now();
        let mut calls = calls(1, 1, 0);
        let (ask, mut told) = ask("f", false, now);
        calls.push(ask);
        let (id, _) = sent(calls.next(now));
        for text in ["aé", "éé"] {
            calls
                .hear(FromServer::Chunk {
                    id,
                    text: text.to_owned(),
                })
                .unwrap();
        }
        let mut pieces = Vec::new();
        let mut cut = 0;
        while let Ok(tell) = told.try_recv() {
            match tell {
                Tell::Piece(text) => pieces.push(text),
                Tell::Cut => cut += 1,
                _ => {}
            }
        }
        assert_eq!((pieces, cut), (vec!["aé".to_owned(), String::new()], 1));
    }
}
