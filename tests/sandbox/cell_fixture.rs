//! Fixture of the cells' tests: one container for each test, in which programs run one after
//! another, and a check that the last program left nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use sandhog_config::{Attach, PoolSettings, SandboxSettings};
use sandhog_protocol::frames::{
    CallCaps, CellCaps, DisplayCaps, Exception, HarnessRequest, Program, ReportFlush, Stream,
};
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually_async;
use sandhog_worker::sandbox::{
    self, Output, Report, Run, RunCaps, Sandbox, SandboxError, SandboxOwner, Sandboxes,
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A program that fails if it finds a trace of an earlier program.
const TRACE_CHECK: &str = r#"
import os
left = []
for place in ("/tmp", "/work", "/dev/shm", "/var/tmp", "/run", "/dev/mqueue"):
    left += [os.path.join(place, name) for name in os.listdir(place)]
left.remove("/work/main.py")
left += ["process " + name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
for table in ("shm", "sem", "msg"):
    left += ["ipc " + line for line in open("/proc/sysvipc/" + table).read().splitlines()[1:]]
for table in ("tcp", "tcp6", "udp", "unix"):
    left += ["socket " + line for line in open("/proc/net/" + table).read().splitlines()[1:] if "@" in line or table != "unix"]
if os.uname().nodename != "sandbox":
    left.append("host name")
assert not left, left
"#;

/// Caps with room for every program that does not test a cap.
pub(crate) const AMPLE_CAPS: RunCaps = RunCaps {
    cell: CellCaps {
        cpu_millis: 2_000,
        memory_bytes: 128 << 20,
        stack_bytes: 1 << 30,
        pids: 64,
        scratch_bytes: 16 << 20,
        scratch_inodes: 1_000,
    },
    call: CallCaps {
        wall_ms: 60_000,
        cpu_ms: 60_000,
        output_bytes: 1 << 20,
        output_total_bytes: 64 << 20,
        grace_ms: 100,
    },
};

/// Caps of displays with room for every program that does not test these caps.
const AMPLE_DISPLAY_CAPS: DisplayCaps = DisplayCaps {
    count: 32,
    bytes: 2 << 20,
    total_bytes: 4 << 20,
};

/// One container, in which the programs of a test run.
pub(crate) struct CellFixture {
    sandboxes: Sandboxes,
    sandbox: Sandbox,
    /// Caps of the next programs.
    pub(crate) caps: RunCaps,
    /// Caps of the displays of the next programs.
    pub(crate) displays: DisplayCaps,
    /// Moment at which the runner sends the report of a program.
    pub(crate) report_flush: ReportFlush,
}

/// Result of a program.
#[derive(Debug)]
pub(crate) struct RunResult {
    /// The runner's report.
    pub(crate) report: Report,
    /// Standard output as far as it was kept.
    pub(crate) stdout: Vec<u8>,
    /// Standard error as far as it was kept.
    pub(crate) stderr: Vec<u8>,
    /// Number of pieces in which both streams arrived.
    pub(crate) pieces: usize,
}

impl RunResult {
    /// Returns standard output as text.
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text.
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Returns the value as JSON text.
    pub(crate) fn value(&self) -> Option<&str> {
        self.report.answer.value_json.as_deref()
    }

    /// Returns the exception, which must exist.
    pub(crate) fn exception(&self) -> &Exception {
        let exception = self.report.answer.exception.as_ref();
        exception.unwrap_or_else(|| panic!("no exception in {self:?}"))
    }
}

impl CellFixture {
    /// Starts a container of the image `python` for a test.
    pub(crate) async fn new(test: &str) -> Self {
        Self::of("python", test).await
    }

    /// Starts a container of an image for a test.
    pub(crate) async fn of(image: &str, test: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let owner = SandboxOwner {
            namespace: format!("cell-{test}-{unique}").parse().unwrap(),
            worker: "one".parse().unwrap(),
            queue: None,
        };
        let settings = SandboxSettings {
            unit: environment::sandbox_unit(),
            ..SandboxSettings::default()
        };
        let sandboxes =
            sandbox::connect(&settings, &PoolSettings::default(), Attach::Nvidia, owner)
                .await
                .expect("the container engine answers: start dockerd, or run scripts/test");
        let image = sandboxes
            .resolve(&image.parse().unwrap())
            .await
            .expect("the images are built: run scripts/test, or `sandhog images build`");
        let sandbox = sandboxes.start(&image).await.unwrap();
        Self {
            sandboxes,
            sandbox,
            caps: AMPLE_CAPS,
            displays: AMPLE_DISPLAY_CAPS,
            report_flush: ReportFlush::Immediate,
        }
    }

    /// Returns the container.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Waits until the container can run no more programs.
    pub(crate) async fn wait_until_unusable(&mut self) {
        eventually_async(Duration::from_secs(60), async || {
            if self.sandbox.is_usable() {
                return Err("the container can still run programs".to_owned());
            }
            Ok(())
        })
        .await;
    }

    /// Runs the program with these arguments.
    pub(crate) async fn argv(&mut self, argv: &[&str]) -> RunResult {
        let argv = words(argv);
        self.program(Program::Argv { argv }).await
    }

    /// Runs a shell command.
    pub(crate) async fn shell(&mut self, command: &str) -> RunResult {
        self.argv(&["/bin/bash", "-c", command]).await
    }

    /// Runs Python source through the harness.
    pub(crate) async fn python(&mut self, source: &str) -> RunResult {
        self.python_with(source, &[], "null").await
    }

    /// Runs Python source through the harness, with arguments and input.
    pub(crate) async fn python_with(
        &mut self,
        source: &str,
        args: &[&str],
        input: &str,
    ) -> RunResult {
        let program = harness(source, args, input);
        self.program(program).await
    }

    /// Runs Python source through the harness in a newly started interpreter, never in a clone of
    /// the zygote.
    pub(crate) async fn python_cold(&mut self, source: &str) -> RunResult {
        let program = harness(source, &[], "null");
        let ran = self.run(program, b"", &[("PYTHONNODEBUGRANGES", "")]).await;
        assert!(!ran.report.warm, "{source}");
        ran
    }

    /// Runs a program with no input and no variables.
    pub(crate) async fn program(&mut self, program: Program) -> RunResult {
        self.run(program, b"", &[]).await
    }

    /// Runs a program with input and variables.
    pub(crate) async fn run(
        &mut self,
        program: Program,
        stdin: &[u8],
        env: &[(&str, &str)],
    ) -> RunResult {
        let run = Run {
            displays: self.displays,
            report_flush: self.report_flush,
            stdin: stdin.to_vec(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Run::new(program, self.caps)
        };
        self.run_until(run, |_so_far| false).await
    }

    /// Runs a program, and cancels it once `enough` accepts its standard output so far.
    pub(crate) async fn run_until(
        &mut self,
        run: Run,
        enough: impl Fn(&[u8]) -> bool,
    ) -> RunResult {
        let (sender, mut pieces) = mpsc::channel::<Output>(4);
        let cancel = CancellationToken::new();
        let converse = async {
            let report = self.sandbox.run(run, &sender, &cancel).await;
            drop(sender);
            report
        };
        let keep = async {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let mut count = 0;
            while let Some((stream, piece)) = pieces.recv().await {
                count += 1;
                match stream {
                    Stream::Stdout => stdout.extend_from_slice(&piece),
                    Stream::Stderr => stderr.extend_from_slice(&piece),
                }
                if enough(&stdout) {
                    cancel.cancel();
                }
            }
            (stdout, stderr, count)
        };
        let (report, (stdout, stderr, pieces)) = tokio::join!(converse, keep);
        RunResult {
            report: report.unwrap(),
            stdout,
            stderr,
            pieces,
        }
    }

    /// Runs a program and, once it has printed something, runs `meanwhile`. Returns the internal
    /// error that must result.
    pub(crate) async fn fault_of(
        &mut self,
        program: Program,
        meanwhile: impl Future<Output = ()>,
    ) -> SandboxError {
        let run = Run {
            displays: self.displays,
            report_flush: self.report_flush,
            ..Run::new(program, self.caps)
        };
        let (sender, mut pieces) = mpsc::channel::<Output>(4);
        let cancel = CancellationToken::new();
        let converse = self.sandbox.run(run, &sender, &cancel);
        let meddle = async {
            pieces.recv().await.unwrap();
            meanwhile.await;
        };
        let (ended, ()) = tokio::join!(converse, meddle);
        ended.unwrap_err()
    }

    /// Runs a program that is cancelled before it begins.
    pub(crate) async fn cancelled_at_once(&mut self, run: Run) -> Report {
        let (sender, _pieces) = mpsc::channel::<Output>(4);
        let cancel = CancellationToken::new();
        cancel.cancel();
        self.sandbox.run(run, &sender, &cancel).await.unwrap()
    }

    /// Fails unless the container still works and the next program finds no trace of the last.
    pub(crate) async fn assert_no_trace(&mut self, of: &str) {
        let caps = std::mem::replace(&mut self.caps, AMPLE_CAPS);
        let ran = self.python(TRACE_CHECK).await;
        assert_eq!(ran.stderr_text(), "", "after {of}");
        assert!(ran.report.clean, "after {of}");
        self.caps = caps;
    }

    /// Destroys the container.
    pub(crate) async fn end(self) {
        self.sandbox.destroy().await;
        self.sandboxes.wait_for_removals().await;
    }
}

/// Returns a program that runs Python source through the harness of the images.
pub(crate) fn harness(source: &str, args: &[&str], input: &str) -> Program {
    Program::Harness {
        argv: words(&[
            "/usr/bin/python3",
            "-s",
            "-B",
            "/usr/lib/sandhog/harness.py",
        ]),
        request: HarnessRequest {
            source: source.to_owned(),
            file: None,
            args: words(args),
            input_json: input.to_owned(),
        },
    }
}

/// Returns the words as owned strings.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
