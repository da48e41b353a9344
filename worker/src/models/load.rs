//! Starts the model server of an image and waits until it has answered its warm-up call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sandhog_core::id::{ImageName, clip};
use sandhog_core::infer::{Server, Serving};
use sandhog_core::limits::{LimitOverrides, Limits};
use sandhog_core::units::Millis;
use sandhog_protocol::frames::{CallCaps, CallReport, CellCaps, Exception, ProgramEnd, Stop};
use sandhog_protocol::install::{PROXY_ARGUMENT, PYTHON_MODEL_PATH, RUNNER_PATH};
use sandhog_protocol::model::{FromServer, ToServer};

use super::tail::{LogTail, printable};
use crate::gpu::{GPUS_VARIABLE, Grant};
use crate::sandbox::{
    ContainerResource, Image, ModelReader, ModelServerEvent, ModelWriter, RunCaps, SandboxError,
    Sandboxes, Shape,
};
use sandhog_core::error_chain::error_chain;

/// Time limit of a model server's cell. A server has no time limit; this is a value that the limit
/// can hold.
const NO_TIME_LIMIT: Millis = Millis(400 * 86_400_000);

/// Time between SIGTERM and the end of the cell.
const STOP_GRACE: Millis = Millis(100);

/// Time that a server has to end after it reported a failure.
const FINAL_OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of a reported exception, in characters.
const MAX_EXCEPTION_CHARS: usize = 2000;

/// Environment variable that tells a Python server the methods in its image's contract.
const METHODS_VARIABLE: &str = "SANDHOG_METHODS";

/// A server that is ready for calls.
#[derive(Debug)]
pub(super) struct LoadedServer {
    pub(super) writer: ModelWriter,
    pub(super) reader: ModelReader,
    /// The end of its output while it loaded, before it received any job.
    log: LogTail,
}

/// Reason for which there is no server.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The container or its cell could not be started, which is not the fault of the model.
    Ours(String),
    /// The model did not load. Contains the end of its output.
    Model(String),
}

/// Starts a container of `image` with these GPUs, loads its model and sends the warm-up call. The
/// container holds the GPUs until nothing of it is left, even if the load fails.
///
/// # Cancel safety
/// Dropping the future removes the container in the background.
pub(super) async fn load(
    sandboxes: &Sandboxes,
    image: &Image,
    serving: &Serving,
    gpus: Option<&Arc<Grant>>,
) -> Result<LoadedServer, LoadError> {
    let ours = |error: &SandboxError| LoadError::Ours(error_chain(error));
    let uuids = gpus.map_or(&[][..], |gpus| gpus.uuids());
    let shape = Shape {
        gpus: uuids.to_vec(),
        ..sandboxes.shape(image)
    };
    let held = gpus.map(|gpus| Arc::clone(gpus) as ContainerResource);
    let started = sandboxes.start_with_resource(image, &shape, held).await;
    let sandbox = started.map_err(|error| ours(&error))?;
    let mut env: Vec<_> = image.contract.env.clone().into_iter().collect();
    if !uuids.is_empty() {
        env.push((GPUS_VARIABLE.to_owned(), uuids.join(",")));
    }
    if let Server::Python {
        method,
        methods,
        batched,
        ..
    } = &serving.server
    {
        let listed: BTreeSet<_> = methods.iter().chain(batched).chain([method]).collect();
        let listed: Vec<_> = listed.into_iter().map(String::as_str).collect();
        env.push((METHODS_VARIABLE.to_owned(), listed.join(",")));
    }
    let caps = caps(image).map_err(LoadError::Model)?;
    let (writer, reader) = sandbox
        .serve(argv(serving), env, caps)
        .await
        .map_err(|error| ours(&error))?;
    let mut loaded = LoadedServer {
        writer,
        reader,
        log: LogTail::default(),
    };
    let within = Duration::from_secs(serving.load_timeout_s.into());
    let ready = tokio::time::timeout(within, loaded.become_ready(&image.name, serving)).await;
    match ready {
        Ok(Ok(())) => Ok(loaded),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(LoadError::Model(format!(
            "it was not ready within {} s{}",
            serving.load_timeout_s,
            loaded.log.quoted()
        ))),
    }
}

impl LoadedServer {
    async fn become_ready(
        &mut self,
        image: &ImageName,
        serving: &Serving,
    ) -> Result<(), LoadError> {
        match self.recv().await? {
            FromServer::Ready => {}
            FromServer::Failed { exception } => {
                // Some of its output may still be on its way; all of it has arrived when the server
                // has ended.
                drop(tokio::time::timeout(FINAL_OUTPUT_TIMEOUT, self.recv()).await);
                return Err(LoadError::Model(format!(
                    "{}{}",
                    describe_exception(&exception),
                    self.log.quoted()
                )));
            }
            FromServer::Chunk { .. }
            | FromServer::Result { .. }
            | FromServer::Error { .. }
            | FromServer::Fault { .. }
            | FromServer::Done { .. } => {
                return Err(LoadError::Model(
                    "it sent an answer before its first call".to_owned(),
                ));
            }
        }
        if serving.warm_up.is_null() {
            return Ok(());
        }
        let input = serving.input(image, serving.warm_up.clone());
        let input = input.map_err(|error| LoadError::Model(error.to_string()))?;
        let call = ToServer::Call {
            id: 0,
            target: match &serving.server {
                Server::Python { method, .. } => method.clone(),
                Server::Http(server) => server.path.clone(),
            },
            inputs: vec![input],
            batched: matches!(
                &serving.server,
                Server::Python { method, batched, .. } if batched.contains(method)
            ),
            stream: false,
            timeout_ms: u64::from(serving.load_timeout_s) * 1000,
        };
        let said = self.writer.send(&call).await;
        said.map_err(|error| LoadError::Ours(error_chain(&error)))?;
        loop {
            match self.recv().await? {
                FromServer::Done { id: 0 } => return Ok(()),
                FromServer::Result { id: 0, .. } | FromServer::Chunk { id: 0, .. } => {}
                FromServer::Error { exception, .. } => {
                    return Err(LoadError::Model(format!(
                        "its warm-up failed: {}{}",
                        describe_exception(&exception),
                        self.log.quoted()
                    )));
                }
                FromServer::Fault { why, .. } => {
                    return Err(LoadError::Model(format!(
                        "its warm-up got no answer: the connection failed: {}{}",
                        clip(&why, MAX_EXCEPTION_CHARS),
                        self.log.quoted()
                    )));
                }
                FromServer::Ready
                | FromServer::Failed { .. }
                | FromServer::Chunk { .. }
                | FromServer::Result { .. }
                | FromServer::Done { .. } => {
                    return Err(LoadError::Model(
                        "it sent an unexpected message in reply to its warm-up".to_owned(),
                    ));
                }
            }
        }
    }

    /// Returns the next message of the server and keeps the output that it prints meanwhile.
    async fn recv(&mut self) -> Result<FromServer, LoadError> {
        loop {
            match self.reader.recv().await {
                Ok(ModelServerEvent::Frame(said)) => return Ok(said),
                Ok(ModelServerEvent::Printed(data)) => self.log.push(&data),
                Ok(ModelServerEvent::Ended(report)) => {
                    return Err(LoadError::Model(format!(
                        "it {}{}",
                        describe_end(&report),
                        self.log.quoted()
                    )));
                }
                Err(error @ SandboxError::ModelProtocol { .. }) => {
                    return Err(LoadError::Model(error_chain(&error)));
                }
                Err(error) => return Err(LoadError::Ours(error_chain(&error))),
            }
        }
    }
}

/// Formats an exception for the author of the model.
fn describe_exception(exception: &Exception) -> String {
    let name = clip(&printable(&exception.name), 200);
    let message = clip(&printable(&exception.message), MAX_EXCEPTION_CHARS);
    format!("{name}: {message}")
}

/// Describes the end of a server as a verb phrase.
pub(super) fn describe_end(report: &CallReport) -> String {
    match (report.stop, report.end) {
        (Some(Stop::Memory), _) => "ran out of memory".to_owned(),
        (Some(Stop::CpuTime | Stop::WallClock | Stop::Output | Stop::Cancelled), _) => {
            "was stopped".to_owned()
        }
        (None, ProgramEnd::Exited(code)) => format!("ended with exit code {code}"),
        (None, ProgramEnd::Signaled(number)) => format!("was ended by signal {number}"),
        (None, ProgramEnd::NotStarted(errno)) => format!(
            "could not be started: {}",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

/// Returns the limits of the server and its cell: the image's own, without a time limit.
pub(super) fn caps(image: &Image) -> Result<RunCaps, String> {
    let contract = &image.contract;
    let none = LimitOverrides::default();
    let limits = Limits::resolve(&none, &contract.limits, &contract.ceiling)
        .map_err(|error| error.to_string())?;
    let call = CallCaps {
        wall_ms: NO_TIME_LIMIT.0,
        cpu_ms: NO_TIME_LIMIT.0,
        output_bytes: u64::MAX,
        output_total_bytes: u64::MAX,
        grace_ms: STOP_GRACE.0,
    };
    let cell = CellCaps {
        cpu_millis: limits.cpu_millis.0,
        memory_bytes: limits.memory.0,
        stack_bytes: limits.stack.0,
        pids: limits.pids.0,
        scratch_bytes: limits.scratch.0,
        scratch_inodes: limits.scratch_inodes.0,
    };
    Ok(RunCaps { cell, call })
}

/// Returns the command that is started in the cell.
fn argv(serving: &Serving) -> Vec<String> {
    match &serving.server {
        Server::Python {
            model,
            folder,
            argv,
            ..
        } => {
            let words = [PYTHON_MODEL_PATH, folder, model].map(str::to_owned);
            let concurrency = [serving.concurrency.to_string()];
            [argv.as_slice(), &words, &concurrency].concat()
        }
        Server::Http(server) => {
            let port = server.port.to_string();
            let words = [RUNNER_PATH, PROXY_ARGUMENT, &port, &server.health].map(str::to_owned);
            [words.as_slice(), &server.argv].concat()
        }
    }
}
