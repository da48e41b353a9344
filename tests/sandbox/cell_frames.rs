//! Frames between a worker and a runner, sent without the code of the worker: orders of frames that
//! this version of the worker does not use, and violations of the protocol, which end the runner.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

use std::pin::Pin;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, RemoveContainerOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use futures_util::{Stream, StreamExt};
use sandhog_protocol::frames::{
    self, Call, CallId, CloseCell, Fetch, FromRunner, OpenCell, Program, ProgramEnd, ReportFlush,
    ToRunner,
};
use sandhog_protocol::install::{RUNNER_CAPABILITIES, RUNNER_PATH};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::cell_fixture::{AMPLE_CAPS, words};

/// Exit code of a runner whose worker broke the protocol.
const EXIT_PROTOCOL: i64 = 65;

/// A runner in a container, and the worker's end of its streams.
struct RawRunner {
    docker: Docker,
    container: String,
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    received: Vec<u8>,
}

impl RawRunner {
    /// Starts a container, and waits until its runner is ready.
    async fn start() -> Self {
        let docker = Docker::connect_with_local_defaults()
            .expect("the engine's address is valid")
            .negotiate_version()
            .await
            .expect("the container engine answers: start dockerd, or run scripts/test");
        let body = ContainerCreateBody {
            image: Some("sandhog/python:latest".to_owned()),
            entrypoint: Some(vec![RUNNER_PATH.to_owned()]),
            user: Some("0:0".to_owned()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            host_config: Some(HostConfig {
                readonly_rootfs: Some(true),
                tmpfs: Some([("/tmp".to_owned(), "rw,size=4m".to_owned())].into()),
                network_mode: Some("none".to_owned()),
                cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(RUNNER_CAPABILITIES.map(str::to_owned).to_vec()),
                security_opt: Some(vec!["apparmor=unconfined".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = None::<CreateContainerOptions>;
        let created = docker.create_container(options, body).await;
        let container = created.expect("the images are built: scripts/test").id;
        let options = AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stream(true)
            .build();
        let attached = docker.attach_container(&container, Some(options)).await;
        let attached = attached.unwrap();
        let options = None::<StartContainerOptions>;
        docker.start_container(&container, options).await.unwrap();
        let mut runner = Self {
            docker,
            container,
            input: attached.input,
            output: attached.output,
            received: Vec::new(),
        };
        let ready = runner.recv().await;
        assert!(matches!(ready, FromRunner::Ready { .. }), "{ready:?}");
        runner
    }

    /// Sends frames in one write.
    async fn send(&mut self, frames: &[ToRunner]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frames::encode_into(&mut bytes, frame);
        }
        self.input.write_all(&bytes).await.unwrap();
        self.input.flush().await.unwrap();
    }

    /// Returns the next frame.
    async fn recv(&mut self) -> FromRunner {
        loop {
            if let Some(frame) = frames::take(&mut self.received).unwrap() {
                return frame;
            }
            let message = self.output.next().await.expect("the runner goes on");
            self.received
                .extend_from_slice(&message.unwrap().into_bytes());
        }
    }

    /// Returns the next frame that is not the start or the output of a program.
    async fn recv_end(&mut self) -> FromRunner {
        loop {
            match self.recv().await {
                FromRunner::Started { .. } | FromRunner::Output { .. } => {}
                frame => return frame,
            }
        }
    }

    /// Waits until the call has ended. Returns the end of its program.
    async fn call_ended(&mut self, call: CallId) -> ProgramEnd {
        match self.recv_end().await {
            FromRunner::CallEnded { id, report } if id == call => report.end,
            other => panic!("{other:?} is not the end of call {call}"),
        }
    }

    /// Waits until the cell is closed. Returns the paths of its files.
    async fn cell_closed(&mut self) -> Vec<String> {
        let report = match self.recv_end().await {
            FromRunner::CellEnded(report) => report,
            other => panic!("{other:?} is not the end of the cell"),
        };
        match self.recv_end().await {
            FromRunner::CellClosed { clean: true, .. } => {}
            other => panic!("{other:?} is not the clean removal of the cell"),
        }
        report.files.into_iter().map(|file| file.path).collect()
    }

    /// Waits until the runner has ended, and removes the container. Returns the exit code.
    async fn exit_code(mut self) -> i64 {
        while self.output.next().await.is_some() {}
        let options = None::<WaitContainerOptions>;
        let mut ended = self.docker.wait_container(&self.container, options);
        let code = match ended.next().await {
            Some(Ok(ended)) => ended.status_code,
            Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
            other => panic!("{other:?} is not the end of a container"),
        };
        drop(ended);
        self.remove().await;
        code
    }

    async fn remove(self) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        self.docker
            .remove_container(&self.container, Some(options))
            .await
            .unwrap();
    }
}

fn open() -> ToRunner {
    ToRunner::OpenCell(Box::new(OpenCell {
        caps: AMPLE_CAPS.cell,
        env: Vec::new(),
        secrets: Vec::new(),
        files: Vec::new(),
    }))
}

/// Returns a call of a shell command.
fn call(id: u64, command: &str) -> ToRunner {
    let program = Program::Argv {
        argv: words(&["/bin/bash", "-c", command]),
    };
    ToRunner::Call(Box::new(Call::new(CallId(id), program, AMPLE_CAPS.call)))
}

/// Returns the end of a cell, all of whose files are fetched.
fn close() -> ToRunner {
    ToRunner::CloseCell(CloseCell {
        fetch: Fetch {
            patterns: vec!["**".to_owned()],
            files: 8,
            bytes: 1 << 20,
            changed_only: true,
        },
        report_flush: ReportFlush::Immediate,
        ..CloseCell::default()
    })
}

fn cancel(id: u64) -> ToRunner {
    ToRunner::Cancel { id: CallId(id) }
}

#[tokio::test]
async fn a_cell_is_closed_before_or_after_the_end_of_its_call() {
    let mut runner = RawRunner::start().await;
    // The last cell's call had the same number.
    for _ in 0..2 {
        runner.send(&[open()]).await;
        runner.send(&[call(7, "echo x > a; exit 3")]).await;
        assert_eq!(runner.call_ended(CallId(7)).await, ProgramEnd::Exited(3));
        runner.send(&[cancel(7), close()]).await;
        assert_eq!(runner.cell_closed().await, ["a"]);
        runner.send(&[cancel(7)]).await;
    }
    runner
        .send(&[open(), call(8, "echo x > b; exit 4"), close()])
        .await;
    assert_eq!(runner.call_ended(CallId(8)).await, ProgramEnd::Exited(4));
    assert_eq!(runner.cell_closed().await, ["b"]);
    let cancelled = [open(), call(9, "sleep 1000"), close(), cancel(9)];
    runner.send(&cancelled).await;
    let end = runner.call_ended(CallId(9)).await;
    assert!(matches!(end, ProgramEnd::Signaled(_)), "{end:?}");
    assert_eq!(runner.cell_closed().await, [""; 0]);
    runner.remove().await;
}

#[tokio::test]
async fn a_frame_that_is_not_allowed_ends_the_runner() {
    let cases = [
        ("a call without a cell", vec![call(1, "true")]),
        ("the end of no cell", vec![close()]),
        ("the end of a cell without a call", vec![open(), close()]),
        ("a second cell", vec![open(), open()]),
        (
            "a second cell while a call runs",
            vec![open(), call(1, "sleep 1000"), open()],
        ),
        (
            "a second call",
            vec![open(), call(1, "sleep 1000"), call(2, "true")],
        ),
        (
            "a second call of the same number",
            vec![open(), call(1, "sleep 1000"), call(1, "true")],
        ),
        (
            "a call after the end of its cell",
            vec![open(), call(1, "sleep 1000"), close(), call(2, "true")],
        ),
        (
            "a second end of a cell",
            vec![open(), call(1, "sleep 1000"), close(), close()],
        ),
        ("a cancel of no call", vec![cancel(1)]),
        (
            "a cancel of another call",
            vec![open(), call(1, "sleep 1000"), cancel(2)],
        ),
    ];
    for (case, frames) in cases {
        let mut runner = RawRunner::start().await;
        runner.send(&frames).await;
        assert_eq!(runner.exit_code().await, EXIT_PROTOCOL, "{case}");
    }
}
