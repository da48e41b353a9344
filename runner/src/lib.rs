//! The protocol between the worker and the runner, and the files that are installed in every
//! sandbox image.
//!
//! The runner itself is the program `sandhog-runner`, PID 1 inside every sandbox. This library
//! holds only the parts of it that the worker needs. It depends on no async runtime, on neither
//! Redis nor Docker.

mod display;
mod files;
pub mod model;
pub mod pattern;
pub mod protocol;
mod secret;

/// Directory for Sandhog's own files in an image.
pub const INSTALL_DIR: &str = "/usr/lib/sandhog";

/// The runner's path inside an image: its entry point.
pub const RUNNER_PATH: &str = "/usr/lib/sandhog/runner";

/// The Python harness's path inside an image.
pub const PYTHON_HARNESS_PATH: &str = "/usr/lib/sandhog/harness.py";

/// The Python harness: runs source text inside a cell and reports its value or its exception.
pub const PYTHON_HARNESS: &str = include_str!("../python/harness.py");

/// The Python zygote's path inside an image. It imports the harness, which lies beside it.
pub const PYTHON_ZYGOTE_PATH: &str = "/usr/lib/sandhog/zygote.py";

/// The Python zygote: an interpreter that is cloned into every cell.
pub const PYTHON_ZYGOTE: &str = include_str!("../python/zygote.py");

/// The path inside an image of the module that prepares memory before the zygote forks. The zygote
/// imports it.
pub const PYTHON_AHEAD_PATH: &str = "/usr/lib/sandhog/ahead.py";

/// The module by which the zygote prepares memory ahead of a fork, so that each clone has fewer
/// page faults and copies.
pub const PYTHON_AHEAD: &str = include_str!("../python/ahead.py");

/// The path inside an image of the module that sets up the threads of clones. The zygote imports
/// it.
pub const PYTHON_THREADS_PATH: &str = "/usr/lib/sandhog/threads.py";

/// The module by which a clone sets the number of threads that its libraries start, and their stack
/// size.
pub const PYTHON_THREADS: &str = include_str!("../python/threads.py");

/// The path inside an image of the module that writes a program's displays. The harness loads it
/// from its own directory.
pub const PYTHON_DISPLAYS_PATH: &str = "/usr/lib/sandhog/displays.py";

/// The module that turns the objects a Python program shows into displays.
pub const PYTHON_DISPLAYS: &str = include_str!("../python/displays.py");

/// The path inside an image of the module that writes the output of Python programs. The harness
/// loads it.
pub const PYTHON_STREAMS_PATH: &str = "/usr/lib/sandhog/streams.py";

/// The module that writes the output of Python programs, at once or in blocks.
pub const PYTHON_STREAMS: &str = include_str!("../python/streams.py");

/// The path inside an image of the module that flushes standard output while a Python program
/// prints a lot.
pub const PYTHON_FLUSHER_PATH: &str = "/usr/lib/sandhog/flusher.py";

/// The module that flushes standard output while a Python program prints a lot.
pub const PYTHON_FLUSHER: &str = include_str!("../python/flusher.py");

/// Further modules that the Python harness and zygote load: each one's path inside an image, and
/// its source text.
pub const PYTHON_PARTS: [(&str, &str); 4] = [
    (
        "/usr/lib/sandhog/entry.py",
        include_str!("../python/entry.py"),
    ),
    (
        "/usr/lib/sandhog/exits.py",
        include_str!("../python/exits.py"),
    ),
    (
        "/usr/lib/sandhog/hints.py",
        include_str!("../python/hints.py"),
    ),
    (
        "/usr/lib/sandhog/values.py",
        include_str!("../python/values.py"),
    ),
];

/// The path inside an image of the module by which Python programs send inference requests. Its
/// folder is on the programs' module search path.
pub const PYTHON_ASKING_PATH: &str = "/usr/lib/sandhog/cell/sandhog.py";

/// The module by which Python programs send inference requests: `import sandhog`.
pub const PYTHON_ASKING: &str = include_str!("../python/sandhog.py");

/// The path inside an image of the program that replaces pip. Images link to it.
pub const PYTHON_NO_PIP_PATH: &str = "/usr/lib/sandhog/no_pip.py";

/// The program that replaces pip in images, because a program cannot install packages.
pub const PYTHON_NO_PIP: &str = include_str!("../python/no_pip.py");

/// The path inside an image of the module by which JavaScript programs send inference requests.
pub const NODE_ASKING_PATH: &str = "/usr/lib/sandhog/cell/sandhog.js";

/// The module by which JavaScript programs send inference requests, for Node.js.
pub const NODE_ASKING: &str = include_str!("../node/sandhog.js");

/// The Python model server's path inside an image.
pub const PYTHON_MODEL_PATH: &str = "/usr/lib/sandhog/model.py";

/// The Python model server: loads a model class and answers calls in a cell.
pub const PYTHON_MODEL: &str = include_str!("../python/model.py");

/// The first argument that makes the runner a proxy in front of an HTTP server in a cell, instead
/// of PID 1. The port, the health path, and the server's program and arguments follow it.
pub const PROXY_ARGUMENT: &str = "proxy";

/// The working directory of every program. An image must have this directory, and it must be empty.
pub const WORK_DIR: &str = "/work";

/// The user ids that programs run as. Each runner draws one for its container when it starts.
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
