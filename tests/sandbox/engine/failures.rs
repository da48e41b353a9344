//! Containers and runners that fail: each failure is an internal error, never a result, and never
//! leaves a container behind.

use bollard::query_parameters::KillContainerOptionsBuilder;
use sandhog_protocol::frames::{
    CallId, CallReport, CellReport, Features, FromRunner, HarnessAnswer, MAX_CHUNK, ProgramEnd,
    Stop, Stream, VERSION, encode,
};
use sandhog_worker::sandbox::{Output, SandboxError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fixture::{EngineFixture, run, shell};

/// The number that the worker gives to the only call of a cell.
const CALL: CallId = CallId(1);

/// Returns the frames with which a runner ends a call and its cell.
fn ends() -> [Vec<u8>; 2] {
    let call = CallReport {
        end: ProgramEnd::Exited(0),
        stop: None,
        answer: HarnessAnswer::default(),
        pids_refused: false,
        scratch_full: false,
        stack_suspected: false,
        wall_ms: 1,
        stdout_bytes: 0,
        stderr_bytes: 0,
        displays_dropped: 0,
        warm: false,
    };
    let cell = CellReport {
        cpu_ms: 1,
        memory_peak_bytes: 1,
        files: Vec::new(),
        left: Vec::new(),
        clean: true,
    };
    [
        encode(&FromRunner::CallEnded {
            id: CALL,
            report: Box::new(call),
        }),
        encode(&FromRunner::CellEnded(Box::new(cell))),
    ]
}

fn ready() -> Vec<u8> {
    encode(&FromRunner::Ready {
        version: VERSION,
        features: Features::default(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_killed_in_mid_job_is_an_error_and_the_next_works() {
    let fixture = EngineFixture::new("killed").await;
    let mut sandbox = fixture.sandbox().await;
    let name = sandbox.name().to_owned();
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let kill = async {
        pieces.recv().await.expect("it says that it runs");
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        fixture
            .docker
            .kill_container(&name, Some(options))
            .await
            .unwrap();
    };
    let (ended, ()) = tokio::join!(
        sandbox.run(shell("echo running; sleep 100"), &sender, &never),
        kill
    );
    let error = ended.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(error.code(), "sandbox_died");
    assert!(!sandbox.is_usable());
    sandbox.destroy().await;

    let mut fresh = fixture.sandbox().await;
    let (report, stdout) = run(&mut fresh, shell("echo again")).await.unwrap();
    assert_eq!(
        (report.end, stdout.as_str()),
        (ProgramEnd::Exited(0), "again\n")
    );
    fresh.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_never_reports_is_given_up() {
    let fixture = EngineFixture::new("silent").await;
    let image = fixture.image_that_says("silent", &ready(), b"").await;
    let mut sandbox = fixture.sandboxes.start(&image).await.unwrap();
    let mut job = shell("true");
    job.caps.call.wall_ms = 1;
    let error = run(&mut sandbox, job).await.unwrap_err();
    assert!(
        matches!(error, SandboxError::Unresponsive { .. }),
        "{error}"
    );
    assert!(!sandbox.is_usable());
    drop(sandbox);
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_misbehaves_at_the_start_gives_no_sandbox() {
    let fixture = EngineFixture::new("start").await;
    let other_version = FromRunner::Ready {
        version: VERSION + 1,
        features: Features::default(),
    };
    let fault = FromRunner::Fault {
        message: "no cgroup".to_owned(),
        machine: false,
    };
    for (case, first, code) in [
        ("version", encode(&other_version), "sandbox_not_ready"),
        ("fault", encode(&fault), "cell_failed"),
        (
            "early",
            encode(&FromRunner::Started { id: CALL }),
            "sandbox_protocol",
        ),
        ("noise", vec![0xff; 64], "sandbox_protocol"),
        ("nonsense", vec![0, 0, 0, 1, 0xc1], "sandbox_protocol"),
    ] {
        let image = fixture
            .image_that_says(&format!("start-{case}"), &first, b"")
            .await;
        let error = fixture.sandboxes.start(&image).await.unwrap_err();
        assert_eq!(error.code(), code, "case {case}: {error}");
        assert!(error.is_retryable(), "case {case}");
    }
    let image = fixture
        .image_with_runner(
            "start-dies",
            "#!/bin/bash\necho no room >&2\nexit 70\n",
            &[],
        )
        .await;
    let error = fixture.sandboxes.start(&image).await.unwrap_err();
    assert_eq!(error.code(), "sandbox_died", "{error}");
    assert!(error.to_string().ends_with(": no room"), "{error}");
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_misbehaves_in_mid_job_is_an_error() {
    let fixture = EngineFixture::new("mid").await;
    let output = |bytes: usize| {
        encode(&FromRunner::Output {
            id: CALL,
            stream: Stream::Stdout,
            data: vec![b'x'; bytes],
        })
    };
    let fault = FromRunner::Fault {
        message: "clone failed".to_owned(),
        machine: false,
    };
    let other_call = FromRunner::Started { id: CallId(2) };
    let [call_ended, cell_ended] = ends();
    for (case, then, code) in [
        ("fault", encode(&fault), "cell_failed"),
        ("call", encode(&other_call), "sandbox_protocol"),
        ("cell", cell_ended, "sandbox_protocol"),
        (
            "late",
            [call_ended.clone(), output(1)].concat(),
            "sandbox_protocol",
        ),
        ("twice", call_ended.repeat(2), "sandbox_protocol"),
        ("ready", ready(), "sandbox_protocol"),
        ("chunk", output(MAX_CHUNK + 1), "sandbox_protocol"),
        ("flood", output(MAX_CHUNK).repeat(17), "sandbox_protocol"),
        ("noise", vec![0xff; 64], "sandbox_protocol"),
    ] {
        let image = fixture
            .image_that_says(&format!("mid-{case}"), &ready(), &then)
            .await;
        let mut sandbox = fixture.sandboxes.start(&image).await.unwrap();
        let error = run(&mut sandbox, shell("true")).await.unwrap_err();
        assert_eq!(error.code(), code, "case {case}: {error}");
        let again = run(&mut sandbox, shell("true")).await.unwrap_err();
        assert_eq!(
            again.code(),
            "sandbox_protocol",
            "the sandbox takes no other job"
        );
    }
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_while_its_output_waits() {
    let fixture = EngineFixture::new("cancel").await;
    let mut sandbox = fixture.sandbox().await;
    let (sender, mut pieces) = mpsc::channel::<Output>(1);
    let cancel = CancellationToken::new();
    let ask = async {
        pieces.recv().await.expect("it says that it runs");
        cancel.cancel();
        while pieces.recv().await.is_some() {}
    };
    let converse = async {
        let ended = sandbox
            .run(shell("while :; do echo running; done"), &sender, &cancel)
            .await;
        drop(sender);
        ended
    };
    let (ended, ()) = tokio::join!(converse, ask);
    let report = ended.unwrap();
    assert_eq!(report.stop, Some(Stop::Cancelled));
    assert!(report.clean && sandbox.is_usable());

    let (report, _) = run(&mut sandbox, shell("exit 3")).await.unwrap();
    assert_eq!(
        report.end,
        ProgramEnd::Exited(3),
        "the sandbox continues to work"
    );
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_need_listen_to_the_output() {
    let fixture = EngineFixture::new("deaf").await;
    let mut sandbox = fixture.sandbox().await;
    let (sender, pieces) = mpsc::channel::<Output>(1);
    drop(pieces);
    let never = CancellationToken::new();
    let report = sandbox
        .run(shell("head --bytes 500000 /dev/zero"), &sender, &never)
        .await
        .unwrap();
    assert_eq!(
        (report.end, report.stdout_bytes),
        (ProgramEnd::Exited(0), 500_000)
    );
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_removed() {
    let fixture = EngineFixture::new("dropped").await;
    let mut sandbox = fixture.sandbox().await;
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    tokio::select! {
        _ = sandbox.run(shell("echo running; sleep 100"), &sender, &never) => panic!("it runs on"),
        _ = pieces.recv() => {}
    }
    assert!(!sandbox.is_usable(), "its job may still run");
    drop(sandbox);

    let image = fixture.python().await;
    let starting = fixture.sandboxes.start(&image);
    drop(tokio::time::timeout(std::time::Duration::from_millis(20), starting).await);
    fixture.leave().await;
}
