//! Fixture of the hostile suite: a worker with one container, and the checks of both after each
//! hostile program.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::jobs;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::{WorkerProcess, WorkerSpec};
use serde_json::{Value, json};

use super::leak_check::ProcessResources;
use super::programs::Program;

/// Program that records the state that the next job sees.
const PROBE: &str = include_str!("probe.py");

/// Prints much and uses some memory, so that the worker's buffers have reached their size before
/// they are measured.
const WARM_UP: &str =
    "import os\nfor fd in (1, 2):\n    for _ in range(40): os.write(fd, b'x' * 100_000)\n";

/// Returns the number of processes in a container while no job runs: the runner, its zygote, and
/// the standby cell with its init and its clone. In a keeper's container the zygote is two
/// processes, the template and the server of the sandbox, and the keeper is one more.
fn idle_processes() -> usize {
    if environment::uses_keepers() { 6 } else { 4 }
}

/// Time that processes may take to exit.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A worker that runs one group of programs.
pub(crate) struct HostileFixture {
    space: TestNamespace,
    worker: WorkerProcess,
    engine: Engine,
    /// A listener on every address of the host. No program may reach it.
    listener: TcpListener,
    input: Value,
    /// The only container.
    container: String,
    /// Number of sandboxes that the worker has started.
    started: usize,
    /// Result of the probe before any hostile program ran.
    clean: Value,
    /// Resources that the worker holds while no job runs.
    resources: ProcessResources,
    /// Longest time that a program ran beyond its wall-clock limit, in milliseconds.
    overrun: Option<u64>,
}

impl HostileFixture {
    /// Starts the worker and its container, and records the state of both before anything hostile
    /// runs.
    pub(crate) fn new(group: &str) -> Self {
        let mut space = TestNamespace::shared(&format!("hostile-{group}"));
        let worker = WorkerSpec::of(&space)
            .set("WORKER_SLOTS", "1")
            .set("WORKER_LEASE_MS", "30000")
            .start();
        let listener = TcpListener::bind(("0.0.0.0", 0)).expect("the machine has a free port");
        listener
            .set_nonblocking(true)
            .expect("a listener can be nonblocking");
        let port = listener.local_addr().expect("a listener has a port").port();

        let warm = space.run(&jobs::python(WARM_UP));
        assert_eq!(warm.outcome, Outcome::Succeeded, "{warm:?}");
        let clean = probe(&mut space);
        assert_eq!(
            clean.pointer("/places/~1work/0"),
            Some(&json!(["main.py"])),
            "{clean}"
        );
        assert_eq!(clean.pointer("/processes"), Some(&json!(true)), "{clean}");

        let engine = Engine::connect();
        let containers = engine.containers_with_label(WORKER_LABEL, worker.id());
        let [container] = containers.as_slice() else {
            panic!("one slot has the containers {containers:?}");
        };
        assert_eq!(
            settled(&engine, container),
            idle_processes(),
            "when no job runs"
        );
        assert_eq!(worker.started_sandboxes(), 1, "one slot, one image");
        Self {
            container: container.clone(),
            resources: ProcessResources::of(worker.pid()),
            input: json!({"hosts": host_addresses(), "port": port}),
            space,
            worker,
            engine,
            listener,
            clean,
            overrun: None,
            started: 1,
        }
    }

    /// Runs a program as often as its header asks, checks the container and the worker after each
    /// run, and returns every deviation.
    pub(crate) fn run(&mut self, program: &Program) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut printed = Vec::new();
        for _ in 0..program.header.runs {
            let result = self.space.run(&program.job(&self.input));
            let differences = program.header.differences(&result);
            if !differences.is_empty() {
                wrong.push(format!("{}: {}", differences.join(", "), describe(&result)));
            }
            self.note_overrun(program, &result);
            wrong.extend(self.look_around());
            printed.push(result.stdout.0);
        }
        if program.header.differ {
            printed.sort();
            printed.dedup();
            if printed.len() != program.header.runs {
                wrong.push("two runs printed the same".to_owned());
            }
        }
        wrong
            .into_iter()
            .map(|what| format!("{}: {what}", program.name))
            .collect()
    }

    /// Returns a deviation of the group as a whole, if any.
    pub(crate) fn end(&mut self) -> Option<String> {
        match self.listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            other => Some(format!("the host's listener was reached: {other:?}")),
        }
    }

    /// Returns the largest delay of an end, if any program ran out of time. It decides nothing.
    pub(crate) fn latest(&self) -> String {
        self.overrun.map_or_else(String::new, |ms| {
            format!(", ended at most {ms} ms after their limit")
        })
    }

    fn note_overrun(&mut self, program: &Program, result: &JobResult) {
        let (Some(limit), Some(usage)) = (program.header.limits.timeout_ms, &result.usage) else {
            return;
        };
        if result.outcome == Outcome::TimedOut {
            let over = usage.wall_ms.0.saturating_sub(limit.0);
            self.overrun = Some(self.overrun.unwrap_or_default().max(over));
        }
    }

    /// Returns every trace of the last job: in its container, in the view of the next job, and in
    /// the worker.
    fn look_around(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let found = probe(&mut self.space);
        if found != self.clean {
            wrong.push(unlike(&found, &self.clean));
        }
        let containers = self
            .engine
            .containers_with_label(WORKER_LABEL, self.worker.id());
        if containers != [self.container.as_str()] {
            wrong.push(format!(
                "container {} gave way to {containers:?}",
                self.container
            ));
            if let [other] = containers.as_slice() {
                self.container.clone_from(other);
            }
            self.started = self.worker.started_sandboxes();
        } else if self.worker.started_sandboxes() != self.started {
            wrong.push("another sandbox was started".to_owned());
            self.started = self.worker.started_sandboxes();
        } else if let Some(processes) = self.too_many_processes() {
            wrong.push(format!("{processes} processes are left in the container"));
        }
        wrong.extend(self.resources.wait_for_baseline(self.worker.pid()));
        wrong
    }

    fn too_many_processes(&self) -> Option<usize> {
        Some(settled(&self.engine, &self.container)).filter(|now| *now != idle_processes())
    }
}

/// Waits until a container has the number of processes that it has while no job runs, or the time
/// is up. Returns their number.
fn settled(engine: &Engine, container: &str) -> usize {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        let now = engine.processes(container);
        if now == idle_processes() || Instant::now() >= deadline {
            return now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn probe(space: &mut TestNamespace) -> Value {
    let result = space.run(&jobs::python(PROBE));
    match result.value {
        Some(value) if result.outcome == Outcome::Succeeded => value,
        _ => json!({"the probe": describe(&result)}),
    }
}

/// Returns the differences between a probe and the clean one.
fn unlike(found: &Value, clean: &Value) -> String {
    let Some(fields) = found.as_object().filter(|_| clean.is_object()) else {
        return format!("the next job found {found}");
    };
    let changed: Vec<String> = fields
        .iter()
        .filter(|(name, value)| clean.get(name.as_str()) != Some(value))
        .map(|(name, value)| format!("{name} {value}, not {}", clean[name.as_str()]))
        .collect();
    format!("the next job found {}", changed.join("; "))
}

/// Returns a result in one line, with the output of the program cut off.
pub(crate) fn describe(result: &JobResult) -> String {
    format!(
        "{} (exit code {:?}, signal {:?}, value {:.200?}, error {:?}, {} displays, {} dropped) \
         stdout {:.400} stderr {:.600} usage {:?}",
        result.outcome.as_str(),
        result.exit_code,
        result.signal,
        result.value,
        result.error,
        result.displays.len(),
        result.displays_dropped,
        result.stdout.lossy(),
        result.stderr.lossy(),
        result.usage,
    )
}

/// Returns addresses by which this machine can be reached.
pub(crate) fn host_addresses() -> Vec<String> {
    let mut addresses = vec!["127.0.0.1".to_owned(), "172.17.0.1".to_owned()];
    // Sends nothing: connecting a UDP socket only selects the local address.
    let own = UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        socket.connect(("192.0.2.1", 9))?;
        socket.local_addr()
    });
    addresses.extend(own.map(|address| address.ip().to_string()));
    addresses
}

/// Prints a line for the person who reads the run.
#[expect(
    clippy::print_stderr,
    reason = "the count is the purpose of a run of this suite"
)]
pub(crate) fn print_line(line: &str) {
    eprintln!("{line}");
}
