//! The layout of an image: the files that Sandhog keeps in it, and the users and capabilities that
//! the runner relies on.

/// Directory for Sandhog's own files in an image.
pub const INSTALL_DIR: &str = "/usr/lib/sandhog";

/// The runner's path inside an image: its entry point.
pub const RUNNER_PATH: &str = "/usr/lib/sandhog/runner";

/// The Python model server's path inside an image.
pub const PYTHON_MODEL_PATH: &str = "/usr/lib/sandhog/model.py";

/// The first argument that makes the runner a proxy in front of an HTTP server in a cell, instead
/// of PID 1. The port, the health path, and the server's program and arguments follow it.
pub const PROXY_ARGUMENT: &str = "proxy";

/// The first argument that makes the runner a keeper. The path of its socket follows it.
pub const KEEP_ARGUMENT: &str = "keep";

/// The argument with which a keeper ends together with its standard input. Docker closes that input
/// when the worker is gone.
pub const WHILE_STDIN_ARGUMENT: &str = "--while-stdin";

/// The first argument that makes the runner check a keeper. The path of the keeper's socket follows
/// it.
pub const PROBE_ARGUMENT: &str = "probe";

/// The contract's path inside an image.
pub const CONTRACT_PATH: &str = "/usr/lib/sandhog/image.toml";

/// The path, inside an image, of the file that holds the digest of the image's build.
pub const BUILD_PATH: &str = "/usr/lib/sandhog/build";

/// The variable of a container by which an operator allows sandboxes without cgroups, where the
/// kernel refuses to make them. The only value with an effect is `1`.
pub const ALLOW_NO_CGROUP_VARIABLE: &str = "SANDHOG_ALLOW_NO_CGROUP";

/// The working directory of every program. An image must have this directory, and it must be empty.
pub const WORK_DIR: &str = "/work";

/// The user ids that programs run as. Each runner draws one for its container when it starts. In a
/// user namespace that lacks some of them, it draws from the upper half of the ids that it has.
///
/// The kernel counts some resources by user across all containers: pipe memory, inotify watches and
/// pending signals. Because each container has a user of its own, a program cannot use up the share
/// of another container, or that of an account of the host.
pub const CELL_USERS: std::ops::Range<u32> = 1_000_000..2_000_000;

/// The capabilities the runner needs in its container. It drops every one of them in the programs
/// it starts.
///
/// `NET_ADMIN` serves one purpose: to bring up the loopback interface of a cell's own network
/// namespace. `SYS_CHROOT` also serves one: to let the zygote's clones enter a cell's mount
/// namespace.
pub const RUNNER_CAPABILITIES: [&str; 7] = [
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SETUID",
    "SETGID",
    "SETPCAP",
    "KILL",
    "NET_ADMIN",
];
