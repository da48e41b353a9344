//! An engine at the far end of a TCP connection, with connections that fail or break.

use std::sync::{Arc, Mutex};

use sandhog_config::{Attach, PoolSettings, SandboxSettings};
use sandhog_protocol::frames::ProgramEnd;
use sandhog_worker::sandbox::{self, EngineFacts, Output, SandboxError, SandboxOwner};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fixture::{EngineFixture, run, settings, shell};

/// Forwards a TCP address to the local engine's socket. Dropping or cutting the bridge ends every
/// connection.
struct Bridge {
    endpoint: String,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Bridge {
    async fn open() -> Self {
        let socket = settings().engine.replace("unix://", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let accepting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let mut far = UnixStream::connect(&socket).await.unwrap();
                    connections.lock().unwrap().spawn(async move {
                        // Both sides see the end, with or without an error.
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    });
                }
            }
        });
        Self {
            endpoint,
            connections,
            accepting,
        }
    }

    fn settings(&self) -> SandboxSettings {
        SandboxSettings {
            engine: self.endpoint.clone(),
            ..settings()
        }
    }

    fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_over_tcp_serves_as_well() {
    let fixture = EngineFixture::new("tcp").await;
    let bridge = Bridge::open().await;
    let sandboxes = fixture.with_settings(&bridge.settings()).await;
    let local = EngineFacts {
        is_local: true,
        ..sandboxes.facts().clone()
    };
    assert_eq!(&local, fixture.sandboxes.facts());
    assert!(!sandboxes.facts().is_local, "it may be another machine");
    let mut sandbox = sandboxes.start(&fixture.python().await).await.unwrap();
    let mut job = shell("cat; echo; head --bytes 900000 /dev/zero | tr '\\0' x");
    job.stdin = b"over tcp".to_vec();
    let (report, stdout) = run(&mut sandbox, job).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(0));
    assert_eq!(stdout.len(), "over tcp\n".len() + 900_000);
    sandbox.destroy().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_job_is_an_error_and_the_next_works() {
    let fixture = EngineFixture::new("cut").await;
    let bridge = Bridge::open().await;
    let sandboxes = fixture.with_settings(&bridge.settings()).await;
    let image = fixture.python().await;
    let mut sandbox = sandboxes.start(&image).await.unwrap();
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let cut = async {
        pieces.recv().await.expect("it says that it runs");
        bridge.cut();
    };
    let (ended, ()) = tokio::join!(
        sandbox.run(shell("echo running; sleep 100"), &sender, &never),
        cut
    );
    let error = ended.unwrap_err();
    assert_eq!(error.code(), "sandbox_died", "{error}");
    assert!(error.is_retryable());
    sandbox.destroy().await;

    let mut fresh = sandboxes.start(&image).await.unwrap();
    let (report, _) = run(&mut fresh, shell("true")).await.unwrap();
    assert_eq!(report.end, ProgramEnd::Exited(0));
    fresh.destroy().await;
    sandboxes.wait_for_removals().await;
    fixture.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_or_not_fit_is_refused_with_a_hint() {
    let owner = SandboxOwner {
        namespace: "test-absent".parse().unwrap(),
        worker: "one".parse().unwrap(),
        queue: None,
    };
    let absent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("tcp://{}", absent.local_addr().unwrap());
    drop(absent);
    for (engine, runtime, code) in [
        (nobody.as_str(), "runc", "engine_unreachable"),
        ("unix:///nowhere/docker.sock", "runc", "engine_unreachable"),
        ("ssh://host", "runc", "engine_unreachable"),
        (
            settings().engine.as_str(),
            "no-such-runtime",
            "unknown_runtime",
        ),
    ] {
        let settings = SandboxSettings {
            engine: engine.to_owned(),
            runtime: runtime.parse().unwrap(),
            ..settings()
        };
        let connected = sandbox::connect(
            &settings,
            &PoolSettings::default(),
            Attach::Nvidia,
            owner.clone(),
        )
        .await;
        let error: SandboxError = connected.unwrap_err();
        assert_eq!(error.code(), code, "{engine} {runtime}: {error}");
        assert!(error.hint().is_some(), "{engine} {runtime}");
    }
}
