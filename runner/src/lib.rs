//! What the worker and the runner say to each other, and the files a sandbox image is given.
//!
//! The runner itself is the program `sandhog-runner`, PID 1 inside every sandbox. This library holds only what the
//! other side of the conversation needs; it refuses to depend on an async runtime, on Redis or on Docker.

pub mod protocol;

/// Where an image keeps Sandhog's own files.
pub const INSTALL_DIR: &str = "/usr/lib/sandhog";

/// The runner's path inside an image: its entry point.
pub const RUNNER_PATH: &str = "/usr/lib/sandhog/runner";

/// The Python harness's path inside an image.
pub const PYTHON_HARNESS_PATH: &str = "/usr/lib/sandhog/harness.py";

/// The Python harness: what turns source text into a value or an exception inside a cell.
pub const PYTHON_HARNESS: &str = include_str!("../python/harness.py");
