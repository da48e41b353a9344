//! A real `sandhog worker` process.
//!
//! It gets its settings from the environment alone and reports its health over HTTP. The process
//! and its containers are removed when the test ends, however it ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandhog_core::id::Namespace;
use tempfile::TempDir;

use crate::containers::{Engine, WORKER_LABEL};
use crate::environment;
use crate::namespace::{TestNamespace, WAIT_TIMEOUT};
use crate::private_redis::free_port;

/// A worker that has not been started yet.
#[derive(Debug)]
pub struct WorkerSpec {
    subcommand: &'static str,
    variables: Vec<(String, OsString)>,
}

impl WorkerSpec {
    /// `sandhog worker` in the namespace of `space`, with two slots and a short lease, so that
    /// tests of lost workers are quick. Its sandboxes are of the unit under test.
    #[must_use]
    pub fn of(space: &TestNamespace) -> Self {
        let unit = if environment::uses_keepers() {
            "sandbox"
        } else {
            "container"
        };
        Self {
            subcommand: "worker",
            variables: Vec::new(),
        }
        .set("NAMESPACE", space.namespace().as_str())
        .set("REDIS_URL", space.url())
        .set("WORKER_SLOTS", "2")
        .set("WORKER_LEASE_MS", "3000")
        .set("SANDBOX_UNIT", unit)
    }

    /// `sandhog up` in `namespace`, for a user whose only folder is `home`.
    #[must_use]
    pub fn up(namespace: &Namespace, home: &Path) -> Self {
        Self {
            subcommand: "up",
            variables: environment::home_environment(home),
        }
        .set("NAMESPACE", namespace.as_str())
    }

    /// Sets `SANDHOG_<name>`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables
            .push((format!("SANDHOG_{name}"), value.into()));
        self
    }

    /// Sets an environment variable that is no setting of Sandhog.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the worker without waiting for it to become ready.
    ///
    /// # Panics
    /// Panics if the process cannot be started.
    #[must_use]
    pub fn spawn(self) -> WorkerProcess {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = File::create(folder.path().join("log")).expect("a log file can be made");
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let id = format!("test-{unique}");
        let http = format!("127.0.0.1:{}", free_port());
        let child = environment::sandhog_command()
            .arg(self.subcommand)
            .env("SANDHOG_WORKER_ID", &id)
            .env("SANDHOG_WORKER_HTTP", &http)
            .envs(self.variables)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("the worker's program starts");
        WorkerProcess {
            folder,
            id,
            http,
            child,
            status: None,
        }
    }

    /// Starts the worker and waits until it is healthy.
    ///
    /// # Panics
    /// Panics if it ends instead, or is not healthy in time.
    #[must_use]
    pub fn start(self) -> WorkerProcess {
        let mut worker = self.spawn();
        worker.wait_until_healthy();
        worker
    }
}

/// A running worker. On drop it is killed and its containers are removed.
#[derive(Debug)]
pub struct WorkerProcess {
    folder: TempDir,
    id: String,
    http: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl WorkerProcess {
    /// Returns the worker's id in Redis and in the labels of its containers.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends an HTTP GET. Returns the status and the body, or `None` if the worker does not answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(&self.http, path).ok()
    }

    /// Returns the number of idle warm sandboxes, according to the worker's metrics.
    #[must_use]
    pub fn idle_sandboxes(&self) -> usize {
        self.metric("sandhog_worker_sandboxes{state=\"idle\"}")
    }

    /// Returns the number of sandboxes that the worker has started, according to its metrics.
    #[must_use]
    pub fn started_sandboxes(&self) -> usize {
        self.metric("sandhog_sandboxes_started_total")
    }

    /// Returns the count of a metric with its labels, or 0 if the worker does not report it.
    fn metric(&self, name: &str) -> usize {
        let (_, page) = self.get("/metrics").unwrap_or_default();
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or_default()
    }

    /// Waits until `/health` answers 200.
    ///
    /// # Panics
    /// Panics if the worker ends instead, or is not healthy in time.
    pub fn wait_until_healthy(&mut self) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while self.get("/health").is_none_or(|(status, _)| status != 200) {
            let ended = self.child.try_wait().expect("our own child can be asked");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the worker is not healthy (ended: {ended:?}); its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Panics if the worker has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("the worker can be signalled");
    }

    /// Kills the worker with SIGKILL and leaves its containers in place.
    ///
    /// # Panics
    /// Panics if it has already ended.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Waits until the worker ends by itself.
    ///
    /// # Panics
    /// Panics if it does not within [`WAIT_TIMEOUT`].
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be asked") {
                self.status = Some(status);
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the worker does not end; its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells the worker to drain with SIGTERM and waits until it has ended.
    ///
    /// # Panics
    /// Panics if it does not end in time.
    pub fn drain(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.status.is_none() {
            // The worker may have ended by itself a moment ago.
            let _already_gone = self.child.kill();
            let _already_waited_for = self.child.wait();
        }
        if std::thread::panicking() {
            show(&format!("log of worker {}:\n{}", self.id, self.log()));
            // A second panic here would hide the first.
            let id = self.id.clone();
            let _engine_may_be_gone =
                std::panic::catch_unwind(|| Engine::connect().remove_all(WORKER_LABEL, &id));
        } else {
            Engine::connect().remove_all(WORKER_LABEL, &self.id);
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows its worker's log, which the test runner captures"
)]
fn show(text: &str) {
    eprintln!("{text}");
}

/// Sends one HTTP/1.0 GET request for a path. A client library would be more code than this.
fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Ok((status, body.to_owned()))
}
