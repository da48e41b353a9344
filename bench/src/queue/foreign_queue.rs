//! A queue that is not part of Sandhog, as a contender.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::contender::Contender;

/// A queue with programs of its own: a worker command, and a producer that reads the number of jobs
/// of each turn from a line.
pub(super) struct ForeignQueue {
    name: &'static str,
    worker: Vec<String>,
    producer: Vec<String>,
    url: String,
    running: Option<(ProcessGroup, ProcessGroup)>,
    answers: Option<BufReader<ChildStdout>>,
}

impl ForeignQueue {
    /// Returns every peer. `scripts/bench` installs them under `target/bench-peers`.
    pub(super) fn all(url: &str, concurrency: usize) -> anyhow::Result<Vec<Self>> {
        let target = std::env::current_exe()?;
        let peers = target
            .ancestors()
            .nth(2)
            .map(|target| target.join("bench-peers"))
            .context("a program stands in its target folder")?;
        ensure!(
            peers.is_dir(),
            "{} does not exist; scripts/bench makes it",
            peers.display()
        );
        let n = concurrency.to_string();
        let python = |program: &str| shown(&peers.join("python/bin").join(program));
        let foreign = |name, worker: &[&str], producer: &[&str]| Self {
            name,
            worker: worker.iter().map(|&word| word.to_owned()).collect(),
            producer: producer.iter().map(|&word| word.to_owned()).collect(),
            url: url.to_owned(),
            running: None,
            answers: None,
        };
        let apalis = shown(&peers.join("apalis/release/apalis-peer"));
        let rq_url = format!("{url}/3");
        Ok(vec![
            foreign(
                "bullmq",
                &["node", "bullmq.mjs", "worker", &n],
                &["node", "bullmq.mjs", "produce"],
            ),
            foreign("apalis", &[&apalis, "worker", &n], &[&apalis, "produce"]),
            foreign(
                "celery",
                &[
                    &python("celery"),
                    "-A",
                    "celery_app",
                    "worker",
                    "-c",
                    &n,
                    "--loglevel=ERROR",
                ],
                &[&python("python"), "celery_app.py"],
            ),
            foreign(
                "huey",
                &[
                    &python("huey_consumer"),
                    "huey_app.huey",
                    "-w",
                    &n,
                    "-k",
                    "thread",
                    "-q",
                ],
                &[&python("python"), "huey_app.py"],
            ),
            foreign(
                "rq (SimpleWorker)",
                &[
                    &python("rq"),
                    "worker-pool",
                    "-n",
                    &n,
                    "-q",
                    "-w",
                    "rq.worker.SimpleWorker",
                    "--url",
                    &rq_url,
                    "default",
                ],
                &[&python("python"), "rq_app.py"],
            ),
        ])
    }

    fn command(&self, words: &[String]) -> anyhow::Result<Command> {
        use std::os::unix::process::CommandExt as _;
        let (program, rest) = words.split_first().context("a peer has a program")?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let target = std::env::current_exe()?;
        let modules: PathBuf = target
            .ancestors()
            .nth(2)
            .map(|target| target.join("bench-peers/node/node_modules"))
            .context("a program stands in its target folder")?;
        let mut command = Command::new(program);
        command
            .args(rest)
            .current_dir(&folder)
            .env("PYTHONPATH", &folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PEER_REDIS_URL", &self.url)
            .env("PEER_NODE_MODULES", modules)
            // A process group, so that the worker's own children end with it.
            .process_group(0)
            .stderr(Stdio::null());
        Ok(command)
    }

    /// Reads a line of the producer, which must be this word.
    fn expect_line(&mut self, word: &str) -> anyhow::Result<()> {
        let answers = self.answers.as_mut().context("the producer was started")?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        ensure!(line.trim() == word, "{} said {line:?}", self.name);
        Ok(())
    }
}

impl Contender for ForeignQueue {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_fast(&self) -> bool {
        matches!(self.name, "bullmq" | "apalis")
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let worker = self
            .command(&self.worker)?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{:?} does not start", self.worker))?;
        let worker = ProcessGroup(worker);
        let mut producer = self
            .command(&self.producer)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{:?} does not start", self.producer))?;
        self.answers = producer.stdout.take().map(BufReader::new);
        self.running = Some((worker, ProcessGroup(producer)));
        self.expect_line("ready")
    }

    fn turn(&mut self, jobs: usize) -> anyhow::Result<Duration> {
        let (_worker, producer) = self.running.as_mut().context("the producer was started")?;
        let input = producer.0.stdin.as_mut().context("it has an input")?;
        let began = Instant::now();
        writeln!(input, "{jobs}")?;
        self.expect_line("done")?;
        Ok(began.elapsed())
    }

    fn stop(&mut self) {
        self.running = None;
        self.answers = None;
    }
}

/// A process and its children, which are killed on drop.
struct ProcessGroup(Child);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // The process may have ended by itself.
            let _already_gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _already_waited_for = self.0.wait();
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
