//! The frames from the keeper to the worker.

use serde::{Deserialize, Serialize};

use crate::frames::CgroupSupport;

/// The version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 2;

/// The most bytes in a frame from the keeper to the worker, without the length prefix. `Hello` has
/// the contract of the image and is the largest.
pub const MAX_REPLY: usize = 256 << 10;

/// The most bytes of a contract that a keeper accepts in its image.
pub const MAX_CONTRACT: usize = 128 << 10;

/// The most bytes of a sandbox's standard error that the keeper keeps.
pub const MAX_STDERR: usize = 2 << 10;

/// A frame from the keeper to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromKeeper {
    /// The facts of the keeper. The first frame on each connection whose user is allowed.
    Hello(Box<Hello>),
    /// The sandbox is made. From here on the connection belongs to its runner.
    Opened {
        /// The name of the sandbox, which no other sandbox of any keeper has.
        sandbox: String,
    },
    /// The state of a sandbox.
    State {
        /// The name of the sandbox.
        sandbox: String,
        /// The state.
        state: SandboxState,
    },
    /// The keeper does not carry out a request, or is about to close the connection.
    Refused {
        /// The reason, with the bad value and the allowed values.
        reason: String,
        /// True if the same request may succeed later or at another keeper of the image.
        retryable: bool,
    },
}

/// The facts of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// The version of the frames between worker and runner,
    /// [`frames::VERSION`](crate::frames::VERSION).
    pub runner_version: u32,
    /// The name of the image, from its contract.
    pub image: String,
    /// The digest of the image's build.
    pub build: String,
    /// The contract of the image: the text of its `image.toml`.
    pub contract: String,
    /// The memory cap of the container, in bytes. `None` without a cap.
    pub memory_max: Option<u64>,
    /// The CPU cap of the container, in thousandths of a core. `None` without a cap.
    pub cpu_millis: Option<u64>,
    /// The cap on processes of the container. `None` without a cap.
    pub pids_max: Option<u64>,
    /// The mechanism that counts and caps a sandbox.
    pub cgroup: CgroupSupport,
    /// True if the container has a user namespace of its own, so that its root is an unprivileged
    /// user of the machine.
    pub user_namespace: bool,
    /// UUIDs of the GPUs of the container.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// The missing features, each in a few words.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Memory that the whole container uses now, in bytes without the file cache. `None` where it
    /// cannot be measured.
    #[serde(default)]
    pub memory_in_use: Option<u64>,
    /// Part of it that belongs to the keeper itself and to its zygote. No sandbox can give it back.
    #[serde(default)]
    pub own_memory: Option<u64>,
    /// The number of sandboxes that exist now.
    #[serde(default)]
    pub sandboxes: u32,
    /// True once the keeper is stopping and makes no more sandboxes.
    #[serde(default)]
    pub stopping: bool,
}

/// The state of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// The sandbox runs, or its processes are being killed.
    Running,
    /// The sandbox has ended.
    Ended(SandboxEnd),
    /// The keeper has never made this sandbox, or its end was too long ago.
    Unknown,
}

/// The way a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxEnd {
    /// The end of the runner.
    pub status: EndStatus,
    /// True if memory was used up: the kernel reached the cap of the sandbox, or that of the
    /// container while the sandbox existed, and killed a process.
    pub oom: bool,
    /// True if the keeper killed the runner, because the worker closed the connection or the
    /// keeper was stopped.
    pub killed: bool,
    /// The first bytes of the sandbox's standard error, at most [`MAX_STDERR`](super::MAX_STDERR).
    pub stderr: String,
}

/// The end of a sandbox's runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndStatus {
    /// The runner exited with this code.
    Exited(i32),
    /// This signal killed the runner.
    Signaled(i32),
    /// The runner was not started, for this reason.
    NotStarted(String),
}
