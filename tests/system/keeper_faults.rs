//! Keepers that cannot be used or that die, over a real worker: each gives a clear error, its jobs
//! wait or run again, and jobs of other images go on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use redis::Commands;
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::{ByteCount, CpuMillis};
use sandhog_protocol::frames;
use sandhog_protocol::keeper::{FromKeeper, Hello, SandboxState, VERSION, encode};
use sandhog_testkit::containers::Engine;
use sandhog_testkit::environment;
use sandhog_testkit::jobs::{capped, sleeping_job};
use sandhog_testkit::keeper_container::KeeperContainer;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::worker::WorkerSpec;

/// A process that listens on the socket of an image and is no usable keeper.
#[derive(Clone)]
struct FalseKeeper {
    /// Name of the image.
    name: &'static str,
    /// First bytes on each connection.
    first: Vec<u8>,
    /// Answer to a request. Empty for none.
    answer: Vec<u8>,
    /// Part of the error that the job must get.
    error: String,
}

impl FalseKeeper {
    fn new(name: &'static str, first: Vec<u8>, answer: Vec<u8>, error: &str) -> Self {
        Self {
            name,
            first,
            answer,
            error: error.to_owned(),
        }
    }

    /// Listens until the test ends.
    fn listen(&self, directory: &Path) {
        let path = directory.join(format!("{}.sock", self.name));
        let listener = UnixListener::bind(path).expect("the directory is the test's own");
        let keeper = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keeper = keeper.clone();
                std::thread::spawn(move || keeper.serve(stream));
            }
        });
    }

    /// Serves a connection until the worker closes it. An error means that it has done so.
    fn serve(&self, mut stream: UnixStream) -> Option<()> {
        stream.write_all(&self.first).ok()?;
        let mut request = [0; 4096];
        while stream.read(&mut request).ok()? > 0 {
            stream.write_all(&self.answer).ok()?;
        }
        None
    }
}

/// Returns the first frame of a keeper of this image, with these versions.
fn hello(name: &str, version: u32, runner_version: u32) -> Vec<u8> {
    let contract = environment::checkout().join("images/python/image.toml");
    let contract = std::fs::read_to_string(contract).expect("the contract can be read");
    encode(&FromKeeper::Hello(Box::new(Hello {
        version,
        runner_version,
        image: name.to_owned(),
        // Sandboxes of one build may serve each other's jobs.
        build: format!("build of {name}"),
        contract: contract.replace("name = \"python\"", &format!("name = \"{name}\"")),
        memory_max: Some(1 << 30),
        cpu_millis: Some(4000),
        ..Hello::default()
    })))
}

/// Returns the first frame of a keeper of this image.
fn good_hello(name: &str) -> Vec<u8> {
    hello(name, VERSION, frames::VERSION)
}

fn false_keepers() -> Vec<FalseKeeper> {
    let unreadable = vec![0, 0, 0, 1, 0xc1];
    let state = encode(&FromKeeper::State {
        sandbox: "a-1".to_owned(),
        state: SandboxState::Running,
    });
    vec![
        FalseKeeper::new(
            "newer",
            hello("newer", VERSION + 1, frames::VERSION),
            Vec::new(),
            &format!(
                "has version {} of the keeper protocol; version {VERSION} is required",
                VERSION + 1
            ),
        ),
        FalseKeeper::new(
            "newer-runner",
            hello("newer-runner", VERSION, frames::VERSION + 1),
            Vec::new(),
            "of the runner protocol; version",
        ),
        FalseKeeper::new(
            "web-server",
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Vec::new(),
            "web-server.sock is not a keeper",
        ),
        FalseKeeper::new(
            "nonsense",
            unreadable.clone(),
            Vec::new(),
            "nonsense.sock is not a keeper",
        ),
        FalseKeeper::new(
            "silent",
            Vec::new(),
            Vec::new(),
            "silent.sock is not a keeper: it sent nothing within 5 s",
        ),
        FalseKeeper::new(
            "turns-nonsense",
            good_hello("turns-nonsense"),
            unreadable,
            "turns-nonsense.sock is not a keeper",
        ),
        FalseKeeper::new(
            "wrong-answer",
            good_hello("wrong-answer"),
            state,
            "it answered `open` with another frame",
        ),
        FalseKeeper::new(
            "stops-answering",
            good_hello("stops-answering"),
            Vec::new(),
            "it did not answer a request within 30 s",
        ),
    ]
}

/// Returns a job with little memory and CPU, so that all jobs of a test fit at the same time.
fn small(image: &str) -> Job {
    let limits = LimitOverrides {
        memory: Some(ByteCount::mib(64)),
        cpu_millis: Some(CpuMillis(100)),
        ..LimitOverrides::default()
    };
    Job {
        image: image.parse().expect("a literal name is valid"),
        ..capped("print('on')", limits)
    }
}

/// A worker that uses the keepers of a directory.
fn worker_of(space: &TestNamespace, directory: &Path) -> WorkerSpec {
    let address = format!("keepers://{}", directory.display());
    WorkerSpec::of(space).set("SANDBOX_ENGINE", &address)
}

#[test]
fn a_keeper_that_cannot_be_used_is_told_and_costs_other_images_nothing() {
    let mut space = TestNamespace::shared("keeper-faults");
    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let _keeper = KeeperContainer::start(directory.path());
    let mut waiting: Vec<(JobId, FalseKeeper)> = Vec::new();
    for keeper in false_keepers() {
        keeper.listen(directory.path());
        // An attempt that were counted would end the job.
        let id = space.submit_with(&small(keeper.name), &[("max_attempts", "1")]);
        waiting.push((id, keeper));
    }
    let _worker = worker_of(&space, directory.path())
        .set("WORKER_SLOTS", "12")
        .start();
    let jobs: Vec<JobId> = waiting.iter().map(|(id, _)| id.clone()).collect();
    let mut redis = space.connection();
    let mut field = |keys: &str, name: &str| -> Option<String> {
        redis.hget(keys, name).expect("redis reads a record")
    };
    let until = Instant::now() + WAIT_TIMEOUT;
    while !waiting.is_empty() {
        let missing = waiting.iter().map(|(id, keeper)| {
            let record = space.keys().job(id);
            let found = ["error", "state"].map(|name| field(&record, name));
            format!("{}: {:?} instead of {found:?}", keeper.name, keeper.error)
        });
        assert!(Instant::now() < until, "{:?}", missing.collect::<Vec<_>>());
        let result = space.run(&small("python"));
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.attempts, 1, "{result:?}");
        waiting.retain(|(id, keeper)| {
            let error = field(&space.keys().job(id), "error");
            !error.is_some_and(|error| error.contains(&keeper.error))
        });
    }
    for id in jobs {
        let record = space.keys().job(&id);
        assert_eq!(field(&record, "lost"), None, "{id} is not lost");
        let state = field(&record, "state");
        assert!(
            ["ready", "delayed", "running"].contains(&state.as_deref().unwrap_or_default()),
            "{id} is {state:?}"
        );
    }
}

#[test]
fn a_killed_keeper_costs_only_its_own_jobs_an_attempt() {
    let mut space = TestNamespace::shared("keeper-faults");
    let directory = tempfile::tempdir().expect("a temporary folder can be made");
    let keeper = KeeperContainer::start(directory.path());
    let _other = KeeperContainer::of("datascience", directory.path());
    let _worker = worker_of(&space, directory.path()).start();
    let routing = [("backoff_ms", "10"), ("max_attempts", "1")];
    let elsewhere = |job: Job| Job {
        image: "datascience".parse().expect("a literal name is valid"),
        ..job
    };
    let mut submit_and_wait_for_start = |job: Job| {
        let id = space.submit_with(&job, &routing);
        let log = space.keys().log(&id);
        space.read_stream(&log, "0");
        id
    };
    let kept = submit_and_wait_for_start(elsewhere(sleeping_job(6)));
    let lost = submit_and_wait_for_start(sleeping_job(3));
    Engine::connect().kill(keeper.name());
    // The socket still exists, and no process listens on it.
    assert!(directory.path().join("python.sock").exists());
    let result = space.run(&elsewhere(small("datascience")));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let result = space.result(&kept);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 1, "it ran on");

    let _again = KeeperContainer::start(directory.path());
    let result = space.result(&lost);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 2, "only the first attempt was lost");
    let result = space.run(&small("python"));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
}
