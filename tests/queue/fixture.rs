//! A namespace with both of its sides: a worker's operations through the queue library, and any
//! client's operations with plain commands.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};
use sandhog_config::RedisSettings;
use sandhog_core::class::Class;
use sandhog_core::id::{JobId, WorkerId};
use sandhog_core::job::{CheckedJob, Job};
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::{Intake, Routing, readable_encoding, readable_id, readable_reply};
use sandhog_core::units::{ByteCount, CpuMillis, Millis, UnixMillis};
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::keys::WORKER_GROUP;
use sandhog_queue::{
    Admission, AdmitReply, Binding, BoundJob, ControlEvent, IntakeEntry, JobRecord, JobState,
    Lease, Queue, Settlement, Ticket, WorkerFacts,
};
use sandhog_testkit::jobs;
use sandhog_testkit::namespace::{StreamItem, TestNamespace, decode};
use sandhog_testkit::private_redis::PrivateRedis;

/// A lease that outlives every test. Tests age a lease by hand when it should be lost.
pub(crate) const LEASE: Millis = Millis(600_000);

/// Timeout for events that must occur.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Length of a wait that another task must end.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(86_400);

/// The largest payload that is admitted.
pub(crate) const CAP: ByteCount = wire::MAX_PAYLOAD;

pub(crate) struct QueueFixture {
    pub(crate) space: TestNamespace,
    pub(crate) queue: Queue,
    plain: MultiplexedConnection,
}

impl QueueFixture {
    pub(crate) async fn shared(name: &str) -> Self {
        Self::of(TestNamespace::shared(name)).await
    }

    pub(crate) async fn on(redis: &PrivateRedis, name: &str) -> Self {
        Self::of(TestNamespace::on(redis, name)).await
    }

    async fn of(space: TestNamespace) -> Self {
        let queue = Queue::connect(&settings(space.url()), space.namespace())
            .await
            .expect("redis is there");
        let plain = plain(space.url()).await;
        Self {
            space,
            queue,
            plain,
        }
    }

    /// Connects again for plain commands, after the server was restarted.
    pub(crate) async fn reconnect(&mut self) {
        self.plain = plain(self.space.url()).await;
    }

    /// Runs one plain command, as a client in any language could.
    pub(crate) async fn plain<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        command
            .query_async(&mut self.plain.clone())
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Submits a small job.
    pub(crate) async fn submit(&self, routing: &Routing) -> JobId {
        self.queue
            .submit(routing, &payload())
            .await
            .expect("redis takes the job")
    }

    /// Admits all waiting entries, as a worker would. Returns the reply for each job.
    pub(crate) async fn admit(&self) -> Vec<AdmitReply> {
        self.admit_as("admitter").await
    }

    /// Admits all waiting entries in the name of this worker.
    pub(crate) async fn admit_as(&self, name: &str) -> Vec<AdmitReply> {
        let mut reader = self.queue.intake_reader(&worker(name)).await.unwrap();
        let mut replies = Vec::new();
        loop {
            let entries = reader.next(64, Duration::ZERO).await.unwrap();
            if entries.is_empty() {
                return replies;
            }
            replies.extend(self.settle_entries(entries).await);
        }
    }

    /// Admits or rejects entries that were read, and executes the cancels among them.
    pub(crate) async fn settle_entries(&self, entries: Vec<IntakeEntry>) -> Vec<AdmitReply> {
        let mut admissions = Vec::new();
        for entry in entries {
            admissions.extend(self.judge(entry).await);
        }
        self.queue.admit(&admissions).await.unwrap()
    }

    /// Returns the admission for one entry. A cancel is executed at once.
    async fn judge(&self, entry: IntakeEntry) -> Option<Admission> {
        let fields = &entry.fields;
        match entry.parse(CAP) {
            Ok(Intake::Submit(submission)) => Some(Admission::Accept {
                entry: entry.id,
                submission,
            }),
            Ok(Intake::Cancel(id)) => {
                self.queue.cancel_now(&id).await.unwrap();
                self.queue.done(&[entry.id]).await.unwrap();
                None
            }
            Err(error) => Some(Admission::Reject {
                id: readable_id(fields),
                reply: readable_reply(fields),
                encoding: readable_encoding(fields),
                entry: entry.id,
                error: error.info(),
            }),
        }
    }

    /// Submits a small job and admits it.
    pub(crate) async fn ready(&self, routing: &Routing) -> JobId {
        let id = self.submit(routing).await;
        self.admit().await;
        id
    }

    /// Returns a ticket of the default class, if there is one now.
    pub(crate) async fn ticket(&self, who: &WorkerId) -> Option<Ticket> {
        let mut reader = self.queue.ticket_reader(who).await.unwrap();
        reader
            .next(&[Class::default()], Duration::ZERO)
            .await
            .unwrap()
    }

    /// Claims and binds one job, if one is ready.
    pub(crate) async fn claim(&self, who: &WorkerId) -> Option<BoundJob> {
        while let Some(ticket) = self.ticket(who).await {
            if let Binding::Bound(job) = self.queue.bind(&ticket, who).await.unwrap() {
                return Some(*job);
            }
        }
        None
    }

    /// Claims and binds one job, which must be ready.
    pub(crate) async fn bound(&self, who: &WorkerId) -> BoundJob {
        self.claim(who).await.expect("a job is ready")
    }

    /// Makes a lease look as if it had not been renewed for longer than [`LEASE`].
    pub(crate) async fn age(&self, lease: &Lease) {
        self.age_ticket(&lease.class, lease.token.as_str(), &lease.worker)
            .await;
    }

    /// Makes a ticket that was never bound look idle for longer than [`LEASE`].
    pub(crate) async fn age_ticket(&self, class: &Class, token: &str, who: &WorkerId) {
        let idle = (LEASE.0 + 1).to_string();
        let key = self.queue.keys().tickets(class);
        let claimed: Vec<String> = self
            .plain(&[
                "XCLAIM",
                &key,
                WORKER_GROUP,
                who.as_str(),
                "0",
                token,
                "IDLE",
                &idle,
                "JUSTID",
            ])
            .await;
        assert_eq!(claimed, [token], "the ticket is pending");
    }

    /// Returns the record of a job, which must exist.
    pub(crate) async fn record(&self, id: &JobId) -> JobRecord {
        self.queue
            .job(id)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("job {id} is not known"))
    }

    pub(crate) async fn state(&self, id: &JobId) -> JobState {
        self.record(id).await.state
    }

    /// Returns the published result of a job, which must exist.
    pub(crate) async fn result(&self, id: &JobId) -> JobResult {
        let bytes = self.queue.result(id).await.unwrap();
        decode(&bytes.unwrap_or_else(|| panic!("job {id} has no result")))
    }

    /// Returns one counter of the snapshot.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let snapshot = self.queue.snapshot().await.unwrap();
        snapshot.counters.get(name).copied().unwrap_or_default()
    }

    /// Returns the sorted names of the namespace's keys, without their common prefix.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let prefix = self.queue.keys().prefix();
        let mut keys: Vec<String> = self.plain(&["KEYS", &format!("{prefix}*")]).await;
        for key in &mut keys {
            *key = key.strip_prefix(prefix).unwrap().to_owned();
        }
        keys.sort();
        keys
    }

    /// Returns the names of all events so far.
    pub(crate) async fn events(&mut self) -> Vec<String> {
        let key = self.queue.keys().events();
        self.space
            .stream_now(&key)
            .iter()
            .flat_map(StreamItem::names)
            .map(str::to_owned)
            .collect()
    }
}

/// Awaits an event that must occur, and fails the test if it does not.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_TIMEOUT, future)
        .await
        .expect("it ends long before that")
}

pub(crate) fn settings(url: &str) -> RedisSettings {
    RedisSettings {
        url: Some(url.to_owned()),
        ..RedisSettings::default()
    }
}

async fn plain(url: &str) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(WAIT_TIMEOUT));
    redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("redis is there")
}

pub(crate) fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// Facts that a worker with one slot announces.
pub(crate) fn facts(id: &str, tags: &[&str]) -> WorkerFacts {
    WorkerFacts {
        id: worker(id),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        slots: 1,
        busy: 0,
        draining: false,
        version: "0.1.0".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        started_at: UnixMillis(1),
        pool: None,
        max_payload: None,
        largest: None,
        reserved_for: None,
        models: Vec::new(),
        gpus: Vec::new(),
    }
}

pub(crate) fn payload() -> Vec<u8> {
    wire::encode(&job(), Encoding::Json)
}

/// Returns the payload of a small job that asks for this much memory (MiB) and CPU (thousandths of
/// a core).
pub(crate) fn weighing(memory_mib: u64, cpu: u64) -> Vec<u8> {
    let mut job = job();
    job.limits.memory = Some(ByteCount::mib(memory_mib));
    job.limits.cpu_millis = Some(CpuMillis(cpu));
    wire::encode(&job, Encoding::Json)
}

pub(crate) fn job() -> Job {
    jobs::python("print(6 * 7)")
}

pub(crate) fn checked_job() -> CheckedJob {
    job().check().unwrap()
}

pub(crate) fn named(id: &str) -> Routing {
    Routing {
        id: Some(id.parse().unwrap()),
        ..Routing::default()
    }
}

/// Returns the settlement that publishes a successful result.
pub(crate) fn success(id: &JobId) -> Settlement {
    Settlement::Publish {
        result: wire::encode(
            &JobResult::bare(id.clone(), Outcome::Succeeded),
            Encoding::Json,
        ),
        outcome: Outcome::Succeeded,
    }
}

pub(crate) fn cancel_of(id: &JobId) -> ControlEvent {
    ControlEvent::Cancel(id.clone())
}
