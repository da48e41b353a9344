//! The trial sandbox of a keeper: made once, before the keeper accepts connections.
//!
//! Its runner tries every step, with a cell of its own. What it finds holds for every sandbox of
//! the keeper, because program, kernel, container and capabilities are the same. So if it misses
//! nothing, the later runners need no trial. If it misses a feature, each of them tries for itself.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sandhog_protocol::frames::{self, CgroupSupport, Features, FromRunner};
use sandhog_protocol::keeper::{EndStatus, Open, SandboxEnd};

use super::error::KeepError;
use super::sandbox::{EndedSandbox, Sandbox, SandboxSpec};
use crate::cell::{CellError, SandboxCgroups, SandboxMounts, Step, reap_one};

/// Timeout for the runner of the trial sandbox to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for the cgroup of the trial sandbox to be removed.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two attempts to remove the cgroup.
const REMOVAL_INTERVAL: Duration = Duration::from_millis(1);

/// Caps of the trial sandbox: those of a small one.
const CAPS: Open = Open {
    memory_bytes: 64 << 20,
    cpu_millis: 1000,
    pids: 16,
    gpus: Vec::new(),
    zygote: None,
};

/// Makes a sandbox, waits until its runner is ready, and removes it. Returns whether it missed no
/// feature.
///
/// # Errors
/// Fails if the sandbox cannot be made, or does not become ready.
pub(super) fn run_trial(
    cgroups: &SandboxCgroups,
    mounts: &SandboxMounts,
) -> Result<bool, KeepError> {
    let prepare = KeepError::Prepare;
    let cgroup = cgroups.make(&CAPS).map_err(prepare)?;
    let (mut ours, theirs) = UnixStream::pair()
        .step("make a trial sandbox's connection")
        .map_err(prepare)?;
    let spec = SandboxSpec {
        name: "trial".to_owned(),
        cgroup,
        zygote: None,
        mounts,
        is_tried: false,
    };
    let mut sandbox = Sandbox::start(spec, theirs).map_err(prepare)?;
    let first = first_frame(&mut ours);
    drop(ours);
    // A runner that is ready ends with its connection; one that hangs must not delay the keeper.
    if first.is_err() {
        sandbox.kill();
    }
    let EndedSandbox { end, cgroup, .. } = await_end(sandbox).map_err(prepare)?;
    if let Some(mut cgroup) = cgroup {
        let until = Instant::now() + REMOVAL_TIMEOUT;
        while !cgroup.remove() && Instant::now() < until {
            sleep(REMOVAL_INTERVAL);
        }
    }
    match first {
        Ok(FromRunner::Ready { features, .. }) => {
            Ok(misses_nothing(&features) && features.cgroup == cgroups.support())
        }
        Ok(FromRunner::Fault { message, .. }) => Err(KeepError::Trial(format!(
            "has no cells: {message}{}",
            stderr_of(&end)
        ))),
        Ok(other) => Err(KeepError::Trial(format!("sent the frame {other:?}"))),
        Err(reason) => {
            let status = match &end.status {
                EndStatus::Exited(code) => format!("exited with {code}"),
                EndStatus::Signaled(signal) => format!("was ended by signal {signal}"),
                EndStatus::NotStarted(reason) => format!("was not started: {reason}"),
            };
            Err(KeepError::Trial(format!(
                "{status} ({reason}){}",
                stderr_of(&end)
            )))
        }
    }
}

/// Receives the first frame of a runner.
fn first_frame(connection: &mut UnixStream) -> Result<FromRunner, String> {
    let until = Instant::now() + READY_TIMEOUT;
    let mut input = Vec::new();
    loop {
        match frames::take::<FromRunner>(&mut input) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(format!("its first frame is not valid: {error}")),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("not ready within {} s", READY_TIMEOUT.as_secs()));
        }
        let mut piece = [0; 4096];
        let read = connection
            .set_read_timeout(Some(left))
            .and_then(|()| connection.read(&mut piece));
        match read {
            Ok(0) => return Err("it sent nothing".to_owned()),
            Ok(count) => input.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("nothing was received: {error}")),
        }
    }
}

/// Waits until the first process of the sandbox is dead.
fn await_end(sandbox: Sandbox) -> Result<EndedSandbox, CellError> {
    loop {
        match reap_one(true) {
            Ok(Some(ended)) if sandbox.is_process(ended.pid) => return Ok(sandbox.end(ended.end)),
            // An orphan of the sandbox.
            Ok(Some(_) | None) => {}
            Err(errno) => return Err(CellError::new("wait for the trial sandbox", errno)),
        }
    }
}

fn misses_nothing(features: &Features) -> bool {
    features.missing.is_empty()
        && features.cgroup != CgroupSupport::None
        && features.network_namespace
        && features.seccomp
}

/// Returns the standard error of a sandbox, preceded by a colon, for an error message.
fn stderr_of(end: &SandboxEnd) -> String {
    match end.stderr.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
