//! What the worker and the runner say to each other, and the files a sandbox image is given.
//!
//! The runner itself is the program `sandhog-runner`, PID 1 inside every sandbox. This library holds only what the
//! other side of the conversation needs; it refuses to depend on an async runtime, on Redis or on Docker.

mod display;
mod files;
pub mod model;
pub mod pattern;
pub mod protocol;
mod secret;

/// Where an image keeps Sandhog's own files.
pub const INSTALL_DIR: &str = "/usr/lib/sandhog";

/// The runner's path inside an image: its entry point.
pub const RUNNER_PATH: &str = "/usr/lib/sandhog/runner";

/// The Python harness's path inside an image.
pub const PYTHON_HARNESS_PATH: &str = "/usr/lib/sandhog/harness.py";

/// The Python harness: what turns source text into a value or an exception inside a cell.
pub const PYTHON_HARNESS: &str = include_str!("../python/harness.py");

/// The Python zygote's path inside an image. It imports the harness, which lies beside it.
pub const PYTHON_ZYGOTE_PATH: &str = "/usr/lib/sandhog/zygote.py";

/// The Python zygote: an interpreter that is cloned into every cell.
pub const PYTHON_ZYGOTE: &str = include_str!("../python/zygote.py");

/// The path inside an image of what the zygote spares its clones. The zygote imports it.
pub const PYTHON_AHEAD_PATH: &str = "/usr/lib/sandhog/ahead.py";

/// What the zygote does ahead of its clones, so that they need not.
pub const PYTHON_AHEAD: &str = include_str!("../python/ahead.py");

/// The path inside an image of the module about the threads of clones. The zygote imports it.
pub const PYTHON_THREADS_PATH: &str = "/usr/lib/sandhog/threads.py";

/// The module by which the zygote sets how many threads its clones' libraries start.
pub const PYTHON_THREADS: &str = include_str!("../python/threads.py");

/// The path inside an image of what shows a program's displays. The harness loads it from beside it.
pub const PYTHON_DISPLAYS_PATH: &str = "/usr/lib/sandhog/displays.py";

/// What turns what a Python program shows into displays.
pub const PYTHON_DISPLAYS: &str = include_str!("../python/displays.py");

/// The path inside an image of the module that writes what Python programs print. The harness loads
/// it.
pub const PYTHON_STREAMS_PATH: &str = "/usr/lib/sandhog/streams.py";

/// The module that writes what Python programs print, at once or in blocks.
pub const PYTHON_STREAMS: &str = include_str!("../python/streams.py");

/// The path inside an image of the module that flushes while a Python program prints much.
pub const PYTHON_FLUSHER_PATH: &str = "/usr/lib/sandhog/flusher.py";

/// The module that flushes while a Python program prints much.
pub const PYTHON_FLUSHER: &str = include_str!("../python/flusher.py");

/// The parts of the Python harness and zygote that these load: paths inside an image, and texts.
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

/// The path inside an image of the module by which Python programs ask models. Its folder is on their path.
pub const PYTHON_ASKING_PATH: &str = "/usr/lib/sandhog/cell/sandhog.py";

/// The module by which Python programs ask models: `import sandhog`.
pub const PYTHON_ASKING: &str = include_str!("../python/sandhog.py");

/// The path inside an image of the program that answers instead of pip. Images link to it.
pub const PYTHON_NO_PIP_PATH: &str = "/usr/lib/sandhog/no_pip.py";

/// The program that answers instead of pip, where a program cannot install packages.
pub const PYTHON_NO_PIP: &str = include_str!("../python/no_pip.py");

/// The path inside an image of the module by which JavaScript programs ask models.
pub const NODE_ASKING_PATH: &str = "/usr/lib/sandhog/cell/sandhog.js";

/// The module by which JavaScript programs ask models, for Node.js.
pub const NODE_ASKING: &str = include_str!("../node/sandhog.js");

/// The Python model server's path inside an image.
pub const PYTHON_MODEL_PATH: &str = "/usr/lib/sandhog/model.py";

/// The Python model server: what loads a model class and answers calls in a cell.
pub const PYTHON_MODEL: &str = include_str!("../python/model.py");

/// The runner's first argument where it is not PID 1 but stands before an HTTP server in a cell; then the port, the
/// health path, and the server's program and arguments.
pub const PROXY_ARGUMENT: &str = "proxy";

/// The working directory of every program; an image must have it, empty.
pub const WORK_DIR: &str = "/work";

/// The users that programs run as, each container one of its own, drawn when its runner starts.
///
/// The kernel counts much by user over all containers: pipe memory, inotify, pending signals. With a user that nobody
/// else has, a program can use up no other container's share, nor that of an account of the host.
pub const CELL_USERS: std::ops::Range<u32> = 1_000_000..2_000_000;

/// The capabilities the runner needs in its container; it takes every one of them from the programs it starts.
///
/// `NET_ADMIN` does one thing: it brings up the loopback of a cell's own network namespace. So does `SYS_CHROOT`: it
/// lets the zygote's clones enter a cell's mounts.
pub const RUNNER_CAPABILITIES: [&str; 7] = [
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SETUID",
    "SETGID",
    "SETPCAP",
    "KILL",
    "NET_ADMIN",
];
