//! Programs of the requirements, and their results.

use sandhog_protocol::frames::{CallCaps, CellCaps, Program, ProgramEnd, Stop, Stream};
use sandhog_worker::sandbox::{Output, Run, RunCaps, Sandbox};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Result of a program.
pub(crate) struct RunResult {
    /// End of its first process.
    pub(crate) end: ProgramEnd,
    /// Reason for which the runner stopped it.
    pub(crate) stop: Option<Stop>,
    /// True if nothing is left of its cell.
    pub(crate) clean: bool,
    /// Memory that the whole container used after the cell, in bytes.
    pub(crate) container_memory_bytes: Option<u64>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Returns the request for a script of the shell. Only the commands that the provider in memory
/// interprets may occur in it.
pub(crate) fn script(text: &str) -> Run {
    let program = Program::Argv {
        argv: ["/bin/bash", "-c", text].map(str::to_owned).to_vec(),
    };
    let caps = RunCaps {
        cell: CellCaps {
            cpu_millis: 1_000,
            memory_bytes: 128 << 20,
            stack_bytes: 1 << 30,
            pids: 32,
            scratch_bytes: 16 << 20,
            scratch_inodes: 1_000,
        },
        call: CallCaps {
            wall_ms: 60_000,
            cpu_ms: 60_000,
            output_bytes: 1 << 20,
            output_total_bytes: 16 << 20,
            grace_ms: 100,
        },
    };
    Run::new(program, caps)
}

/// Runs a script that no cancel and no fault of the provider ends.
pub(crate) async fn run_script(sandbox: &mut Sandbox, text: &str) -> RunResult {
    run(sandbox, script(text)).await
}

/// Runs a program that no cancel and no fault of the provider ends.
pub(crate) async fn run(sandbox: &mut Sandbox, program: Run) -> RunResult {
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let running = async {
        let ended = sandbox.run(program, &sender, &never).await;
        drop(sender);
        ended
    };
    let collecting = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some((stream, piece)) = pieces.recv().await {
            match stream {
                Stream::Stdout => stdout.extend_from_slice(&piece),
                Stream::Stderr => stderr.extend_from_slice(&piece),
            }
        }
        (stdout, stderr)
    };
    let (ended, (stdout, stderr)) = tokio::join!(running, collecting);
    let report = ended.unwrap();
    RunResult {
        end: report.end,
        stop: report.stop,
        clean: report.clean,
        container_memory_bytes: report.container_memory_bytes,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}
