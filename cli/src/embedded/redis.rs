//! A private redis-server, on a socket in a folder that only this user can enter.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandhog_config::{Environment, RedisSettings};
use sandhog_core::id::Namespace;
use sandhog_queue::Queue;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::EmbeddedError;

/// Longest path of a socket that is used, in bytes. The kernel's limit is slightly larger and
/// includes a terminating zero.
const SOCKET_PATH_MAX: usize = 100;

/// Name of the file in the server's folder that holds its process id.
const PID_FILE: &str = "redis.pid";

/// Time within which the server must answer. It is long because the server first reads its
/// append-only file, which may be large.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Time that the server has to shut down before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Persistence of the server's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Every write goes to an append-only file, which is synced once a second.
    AppendOnly,
    /// Nothing is written to disk.
    None,
}

/// A running private redis-server. Dropping it kills the server; [`EmbeddedRedis::stop`] shuts it
/// down gracefully.
#[derive(Debug)]
pub(crate) struct EmbeddedRedis {
    child: Child,
    socket: PathBuf,
    /// Temporary folder of the socket, used when the path of the data folder is too long for a
    /// socket.
    _socket_folder: Option<TempDir>,
}

impl EmbeddedRedis {
    /// Starts a server with its data in `folder`, and waits until it answers. Creates the folder if
    /// it does not exist. Must be called from the main thread, because the kernel ends the server
    /// when the thread that started it ends.
    ///
    /// # Errors
    /// Fails if redis-server is not installed, or does not answer in time.
    ///
    /// # Cancel safety
    /// Dropping the future kills the server.
    pub(crate) async fn start(
        environment: &Environment,
        folder: &Path,
        keep: Persistence,
    ) -> Result<Self, EmbeddedError> {
        let server = environment
            .find_program("redis-server")
            .ok_or(EmbeddedError::NoServer)?;
        private_folder(folder)?;
        wait_for_previous_server(folder).await?;
        let (socket, socket_folder) = socket_for(environment, folder)?;
        let log = folder.join("redis.log");
        let child = spawn(&server, &arguments(folder, &socket, &log, keep))?;
        let mut redis = Self {
            child,
            socket,
            _socket_folder: socket_folder,
        };
        redis.wait_for_answer(&log).await?;
        Ok(redis)
    }

    /// Returns the path of its socket.
    #[must_use]
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns its URL.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// Shuts the server down: it writes its data, then it exits.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // An error means that the server has already exited.
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            tracing::warn!("redis-server did not end in time");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "redis-server could not be killed");
            }
        }
    }

    /// Completes when the server has ended by itself.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&mut self) {
        // An error of `wait` also means that no server runs.
        let _status = self.child.wait().await;
    }

    async fn wait_for_answer(&mut self, log: &Path) -> Result<(), EmbeddedError> {
        let settings = RedisSettings {
            url: Some(self.url()),
            ..RedisSettings::default()
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(EmbeddedError::Server {
                    what: "ended",
                    log_tail: log_tail(log),
                });
            }
            if self.socket.exists() && answers(&settings).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::Server {
                    what: "does not answer",
                    log_tail: log_tail(log),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until the server of an earlier, killed `sandhog` has ended. The kernel has already sent it
/// SIGTERM, but two servers must never write the same files.
async fn wait_for_previous_server(folder: &Path) -> Result<(), EmbeddedError> {
    let pid_file = folder.join(PID_FILE);
    let Ok(pid) = std::fs::read_to_string(&pid_file) else {
        return Ok(());
    };
    let title = Path::new("/proc").join(pid.trim()).join("cmdline");
    let deadline = Instant::now() + STOP_TIMEOUT;
    while std::fs::read_to_string(&title).is_ok_and(|title| title.contains("redis-server")) {
        if Instant::now() > deadline {
            return Err(EmbeddedError::Server {
                what: "of an earlier instance does not end",
                log_tail: format!(": process {}", pid.trim()),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn answers(settings: &RedisSettings) -> bool {
    match Queue::connect(settings, &Namespace::default()).await {
        Ok(queue) => queue.server().await.is_ok(),
        Err(_not_yet) => false,
    }
}

/// Creates a folder that only this user can enter.
pub(super) fn private_folder(folder: &Path) -> Result<(), EmbeddedError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |step| {
        move |source| EmbeddedError::File {
            step,
            path: folder.to_owned(),
            source,
        }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed("create"))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .map_err(failed("restrict the permissions of"))
}

/// Returns the path of the socket: beside the data, or in a temporary folder if that path is too
/// long for the kernel.
fn socket_for(
    environment: &Environment,
    folder: &Path,
) -> Result<(PathBuf, Option<TempDir>), EmbeddedError> {
    let socket = folder.join("redis.sock");
    if socket.as_os_str().len() <= SOCKET_PATH_MAX {
        // Removes a socket that a killed server has left. No other instance uses it, because this
        // instance holds the folder.
        let _absent_mostly = std::fs::remove_file(&socket);
        return Ok((socket, None));
    }
    let place = environment.temporary();
    let short = tempfile::Builder::new()
        .prefix("sandhog-")
        .tempdir_in(&place)
        .map_err(|source| EmbeddedError::File {
            step: "create a folder in",
            path: place,
            source,
        })?;
    Ok((short.path().join("redis.sock"), Some(short)))
}

fn arguments(folder: &Path, socket: &Path, log: &Path, keep: Persistence) -> Vec<OsString> {
    let append_only = match keep {
        Persistence::AppendOnly => "yes",
        Persistence::None => "no",
    };
    let plain = [
        ("--port", "0"),
        ("--unixsocketperm", "700"),
        ("--appendonly", append_only),
        ("--appendfsync", "everysec"),
        ("--save", ""),
        ("--maxmemory-policy", "noeviction"),
        ("--proto-max-bulk-len", "64mb"),
        ("--client-query-buffer-limit", "128mb"),
        ("--maxmemory-clients", "256mb"),
        ("--daemonize", "no"),
    ];
    let pid_file = folder.join(PID_FILE);
    let paths = [
        ("--unixsocket", socket),
        ("--dir", folder),
        ("--logfile", log),
        ("--pidfile", &pid_file),
    ];
    let plain = plain
        .into_iter()
        .flat_map(|(name, value)| [name.into(), value.into()]);
    let paths = paths
        .into_iter()
        .flat_map(|(name, path)| [name.into(), path.as_os_str().to_owned()]);
    plain.chain(paths).collect()
}

fn spawn(server: &Path, arguments: &[OsString]) -> Result<Child, EmbeddedError> {
    let failed = |source| EmbeddedError::Spawn {
        program: server.to_owned(),
        source,
    };
    let own = std::env::current_exe().map_err(failed)?;
    Command::new(own)
        .args(["redis-guard", "--parent", &std::process::id().to_string()])
        .arg("--")
        .arg(server)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A separate process group, so that Ctrl-C reaches only `sandhog`, which then shuts the
        // server down.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

/// Returns the last three lines of the server's log.
fn log_tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    let last: Vec<&str> = lines.into_iter().rev().map(str::trim).collect();
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join("; "))
    }
}
