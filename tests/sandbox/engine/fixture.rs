//! Fixture of the engine's tests: a fresh namespace, images with a runner that misbehaves, and an
//! independent client of the engine that bypasses the code under test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt;
use sandhog_config::{Attach, PoolSettings, SandboxSettings, SandboxUnit};
use sandhog_core::id::{ImageName, Namespace};
use sandhog_core::image::LanguageSpec;
use sandhog_protocol::frames::{CallCaps, CellCaps, Program, Stream};
use sandhog_testkit::eventually::eventually_async;
use sandhog_worker::sandbox::docker::Engine;
use sandhog_worker::sandbox::{
    self, Image, Output, Report, Run, RunCaps, Sandbox, SandboxError, SandboxOwner, Sandboxes,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Timeout of any wait in a test. It decides nothing: a healthy run never gets near it.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Resources of one test in the engine.
pub(super) struct EngineFixture {
    /// Sandboxes of the worker that most tests use.
    pub(super) sandboxes: Sandboxes,
    /// The provider of these sandboxes.
    pub(super) engine: Engine,
    /// Plain client of the same engine.
    pub(super) docker: Docker,
    namespace: Namespace,
    /// Images to remove at the end.
    built: Mutex<Vec<String>>,
}

impl EngineFixture {
    /// Creates a fresh namespace with one worker.
    pub(super) async fn new(test: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let namespace: Namespace = format!("test-{test}-{unique}").parse().unwrap();
        let engine = connect(owner(&namespace, "one", None)).await;
        Self {
            sandboxes: Sandboxes::new(engine.parts(), &settings()),
            engine,
            docker: Docker::connect_with_local_defaults()
                .unwrap()
                .negotiate_version()
                .await
                .unwrap(),
            namespace,
            built: Mutex::default(),
        }
    }

    /// Returns the engine client of a worker in the same namespace.
    pub(super) async fn as_engine(&self, worker: &str) -> Engine {
        connect(owner(&self.namespace, worker, None)).await
    }

    /// Returns the sandboxes of another worker in the same namespace.
    pub(super) async fn as_worker(&self, worker: &str) -> Sandboxes {
        Sandboxes::new(self.as_engine(worker).await.parts(), &settings())
    }

    /// Returns the sandboxes of a worker that serves the queue of this identity.
    pub(super) async fn as_worker_of(&self, worker: &str, queue: Uuid) -> Sandboxes {
        let engine = connect(owner(&self.namespace, worker, Some(queue))).await;
        Sandboxes::new(engine.parts(), &settings())
    }

    /// Returns sandboxes with other settings.
    pub(super) async fn with_settings(&self, settings: &SandboxSettings) -> Sandboxes {
        let owner = owner(&self.namespace, "one", None);
        sandbox::connect(settings, &PoolSettings::default(), Attach::Nvidia, owner)
            .await
            .unwrap()
    }

    /// Removes a name from an image, through the code under test.
    pub(super) async fn remove_image(&self, reference: &str) {
        let builder = self.sandboxes.builder().unwrap();
        builder.remove_image(reference).await.unwrap();
    }

    /// Returns the image `python` as it ships.
    pub(super) async fn python(&self) -> Image {
        let resolved = self.sandboxes.resolve(&name("python")).await;
        resolved.expect("build the images first: target/debug/sandhog images build")
    }

    /// Starts a sandbox of the image `python`.
    pub(super) async fn sandbox(&self) -> Sandbox {
        self.sandboxes.start(&self.python().await).await.unwrap()
    }

    /// Builds an image whose runner sends `first`, sends `then` after it has received one byte, and
    /// is silent from then on until its input ends.
    pub(super) async fn image_that_says(&self, case: &str, first: &[u8], then: &[u8]) -> Image {
        let runner =
            "#!/bin/bash\ncat /first\nhead --bytes 1 >/dev/null\ncat /then\nexec cat >/dev/null\n";
        self.image_with_runner(case, runner, &[("first", first), ("then", then)])
            .await
    }

    /// Builds an image whose runner is a shell script, with additional files.
    pub(super) async fn image_with_runner(
        &self,
        case: &str,
        runner: &str,
        files: &[(&str, &[u8])],
    ) -> Image {
        let reference = format!("sandhog-test/{case}:latest");
        let mut dockerfile = String::from("FROM sandhog/python:latest\n");
        dockerfile.push_str("COPY runner /usr/lib/sandhog/runner\n");
        let mut context = vec![("runner", runner.as_bytes())];
        for (file, bytes) in files {
            dockerfile.push_str(&format!("COPY {file} /\n"));
            context.push((file, bytes));
        }
        self.build(&reference, &dockerfile, &context).await;
        let mut image = self.sandboxes.resolve(&name(&reference)).await.unwrap();
        // A script has no zygote, so the contract must not ask for one.
        let contract = Arc::make_mut(&mut image.contract);
        for spec in contract.languages.values_mut() {
            if let LanguageSpec::Harness { zygote, .. } = spec {
                *zygote = None;
            }
        }
        image
    }

    /// Builds an image through the engine's own API.
    pub(super) async fn build(&self, reference: &str, dockerfile: &str, files: &[(&str, &[u8])]) {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes) in [("Dockerfile", dockerfile.as_bytes())]
            .into_iter()
            .chain(files.iter().copied())
        {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes).unwrap();
        }
        let context = Bytes::from(archive.into_inner().unwrap());
        let options = BuildImageOptionsBuilder::new().t(reference).build();
        let mut progress = Box::pin(self.docker.build_image(
            options,
            None,
            Some(bollard::body_full(context)),
        ));
        while let Some(step) = progress.next().await {
            step.unwrap();
        }
        self.built.lock().unwrap().push(reference.to_owned());
    }

    /// Runs a command as root in a container, beside the runner, and returns its output.
    pub(super) async fn look_inside(&self, sandbox: &Sandbox, command: &str) -> String {
        let exec = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(["/bin/bash", "-c", command].map(str::to_owned).to_vec()),
            ..ExecConfig::default()
        };
        let created = self.docker.create_exec(sandbox.name(), exec).await.unwrap();
        let StartExecResults::Attached { mut output, .. } =
            self.docker.start_exec(&created.id, None).await.unwrap()
        else {
            panic!("the engine did not attach to the command");
        };
        let mut printed = Vec::new();
        while let Some(piece) = output.next().await {
            match piece.unwrap() {
                LogOutput::StdOut { message } | LogOutput::StdErr { message } => {
                    printed.extend_from_slice(&message);
                }
                other => panic!("unexpected output {other:?}"),
            }
        }
        String::from_utf8(printed).unwrap()
    }

    /// Returns the sorted names of this test's containers.
    pub(super) async fn containers(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .engine
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|container| container.name)
            .collect();
        names.sort();
        names
    }

    /// Waits until none of this test's containers is left, and removes the images that were built
    /// for it.
    pub(super) async fn leave(self) {
        self.until_empty().await;
        let built = std::mem::take(&mut *self.built.lock().unwrap());
        for reference in built {
            self.remove_image(&reference).await;
        }
    }

    /// Waits until none of this test's containers is left.
    pub(super) async fn until_empty(&self) {
        self.sandboxes.wait_for_removals().await;
        eventually_async(WAIT_TIMEOUT, async || {
            let left = self.containers().await;
            if left.is_empty() {
                return Ok(());
            }
            Err(format!("containers left: {left:?}"))
        })
        .await;
    }
}

pub(super) fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

pub(super) fn settings() -> SandboxSettings {
    SandboxSettings {
        unit: SandboxUnit::Container,
        ..SandboxSettings::default()
    }
}

fn owner(namespace: &Namespace, worker: &str, queue: Option<Uuid>) -> SandboxOwner {
    SandboxOwner {
        namespace: namespace.clone(),
        worker: worker.parse().unwrap(),
        queue,
    }
}

async fn connect(owner: SandboxOwner) -> Engine {
    Engine::connect(&settings(), Attach::Nvidia, owner)
        .await
        .expect("the container engine answers: start dockerd, or run scripts/test")
}

/// Returns the runner's request for a shell command.
pub(super) fn shell(command: &str) -> Run {
    let program = Program::Argv {
        argv: ["/bin/bash", "-c", command].map(str::to_owned).to_vec(),
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

/// Runs a program and returns its report and its standard output.
pub(super) async fn run(sandbox: &mut Sandbox, run: Run) -> Result<(Report, String), SandboxError> {
    let (sender, mut pieces) = mpsc::channel::<Output>(4);
    let never = CancellationToken::new();
    let converse = async {
        let ended = sandbox.run(run, &sender, &never).await;
        drop(sender);
        ended
    };
    let keep = async {
        let mut stdout = Vec::new();
        while let Some((stream, piece)) = pieces.recv().await {
            if stream == Stream::Stdout {
                stdout.extend_from_slice(&piece);
            }
        }
        stdout
    };
    let (ended, stdout) = tokio::join!(converse, keep);
    Ok((ended?, String::from_utf8(stdout).unwrap()))
}

/// Returns the labels of a container.
pub(super) async fn labels(docker: &Docker, container: &str) -> HashMap<String, String> {
    let inspected = docker.inspect_container(container, None).await.unwrap();
    inspected.config.unwrap().labels.unwrap()
}
