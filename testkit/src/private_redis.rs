//! A Redis server for one test, which may kill, restart or reconfigure it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::environment;
use crate::eventually::eventually;

/// A `redis-server` on a free port with its data in a temporary folder. It is killed on drop.
#[derive(Debug)]
pub struct PrivateRedis {
    folder: TempDir,
    port: u16,
    extra: Vec<String>,
    certificates: Option<Arc<Certificates>>,
    server: Child,
}

impl PrivateRedis {
    /// Starts a server that keeps every write (`appendfsync always`). `extra` arguments follow the
    /// usual ones.
    ///
    /// # Panics
    /// Panics if `redis-server` is not installed or does not start.
    #[must_use]
    pub fn start(extra: &[&str]) -> Self {
        Self::reached(None, extra)
    }

    /// Starts such a server; if there are certificates, every connection is encrypted: those of
    /// clients, of replicas and between the nodes of a cluster. No unencrypted port is open then.
    ///
    /// # Panics
    /// Panics if `redis-server` is not installed or does not start.
    #[must_use]
    pub fn reached(certificates: Option<&Arc<Certificates>>, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = free_port();
        let extra: Vec<String> = match certificates {
            None => vec!["--port".to_owned(), port.to_string()],
            Some(certificates) => {
                let mut words = certificates.server_arguments(port);
                let only = "--port 0 --tls-replication yes --tls-cluster yes";
                words.extend(only.split(' ').map(str::to_owned));
                words
            }
        }
        .into_iter()
        .chain(extra.iter().map(|&word| word.to_owned()))
        .collect();
        let server = serve(&folder, &extra);
        let redis = Self {
            folder,
            port,
            extra,
            certificates: certificates.cloned(),
            server,
        };
        redis.wait_until_it_answers();
        redis
    }

    /// Returns the URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.certificates {
            None => format!("redis://127.0.0.1:{}", self.port),
            Some(certificates) => format!("rediss://{}:{}", certificates.host(), self.port),
        }
    }

    /// Returns a plain client of the server.
    ///
    /// # Panics
    /// Never panics: the URL is our own.
    #[must_use]
    pub fn client(&self) -> redis::Client {
        let url = self.url();
        match &self.certificates {
            None => redis::Client::open(url).expect("our own URL is valid"),
            Some(certificates) => certificates.client(&url),
        }
    }

    /// Returns the port that the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until `holds` accepts a section of the server's `INFO`.
    ///
    /// # Panics
    /// Panics if it does not within two minutes.
    pub fn wait_for_info(&self, section: &str, holds: impl Fn(&str) -> bool) {
        let client = self.client();
        eventually(Duration::from_secs(120), || {
            // A server that becomes a replica drops its connections.
            let info: redis::RedisResult<String> = client
                .get_connection()
                .and_then(|mut connection| redis::cmd("INFO").arg(section).query(&mut connection));
            if info.as_deref().is_ok_and(&holds) {
                return Ok(());
            }
            Err(format!("still {info:?}"))
        });
    }

    /// Returns the URL of the server for one of its users.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// Panics if the process cannot be killed.
    pub fn kill(&mut self) {
        self.server.kill().expect("our own child can be killed");
        self.server.wait().expect("our own child can be waited for");
    }

    /// Stops the server with SIGSTOP, like a machine that hangs, or continues it with SIGCONT.
    ///
    /// # Panics
    /// Panics if the process cannot be signalled.
    pub fn freeze(&self, frozen: bool) {
        let pid = i32::try_from(self.server.id()).expect("a process id fits");
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        kill(Pid::from_raw(pid), signal).expect("our own child can be signalled");
    }

    /// Starts the server again after [`Self::kill`], on the same port with the same data.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub fn start_again(&mut self) {
        self.server = serve(&self.folder, &self.extra);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let client = self.client();
        eventually(Duration::from_secs(30), || {
            client
                .get_connection()
                .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection))
                .map_err(|error| {
                    format!("redis-server on port {} did not start: {error}", self.port)
                })
        });
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        // A server that the test itself killed is already gone.
        let _already_gone = self.server.kill();
        let _already_waited_for = self.server.wait();
    }
}

/// Returns a port that no process listens on. Another process may take it before its user does, so
/// users fail loudly if they cannot bind.
///
/// # Panics
/// Panics if the machine has no free port.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("the machine has a free port")
        .port()
}

fn serve(folder: &TempDir, extra: &[String]) -> Child {
    Command::new(environment::redis_server())
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args([
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--proto-max-bulk-len",
            "64mb",
        ])
        .args(["--logfile", "redis.log", "--dir"])
        .arg(folder.path())
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server did not start: {error}\nhint: apt-get install redis-server")
        })
}
