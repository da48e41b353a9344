//! Alternatives to Sandhog: a bare interpreter, bubblewrap, the container engine's own command.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// A command that is run from start to end. Its environment is only a plain `PATH`, because the
/// wrappers of a login shell would be timed as well.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    argv: Vec<String>,
}

impl Peer {
    /// Returns the command of these words.
    pub(crate) fn new(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    /// `python3 -c CODE`, without isolation.
    pub(crate) fn python(code: &str) -> Self {
        Self::new(&["/usr/bin/python3", "-c", code])
    }

    /// The same under bubblewrap with every namespace.
    pub(crate) fn bubblewrap(code: &str) -> Self {
        Self::new(&[
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/tmp",
            "--unshare-all",
            "--die-with-parent",
            "/usr/bin/python3",
            "-c",
            code,
        ])
    }

    /// `docker run --rm` of an image that Sandhog built, without its own entry point.
    pub(crate) fn docker_run(image: &str, code: &str) -> Self {
        Self::new(&[
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "/usr/bin/python3",
            image,
            "-c",
            code,
        ])
    }

    /// Runs the command once; it must succeed.
    pub(crate) fn once(&self) -> anyhow::Result<Duration> {
        let (program, rest) = self.argv.split_first().context("a peer has a program")?;
        let began = Instant::now();
        let status = Command::new(program)
            .args(rest)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/usr/local/bin")
            .env("DOCKER_API_VERSION", "1.41")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("{program} does not start"))?;
        let took = began.elapsed();
        ensure!(status.success(), "{:?} ended with {status}", self.argv);
        Ok(took)
    }
}
