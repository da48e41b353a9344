//! Starts the model server of an image and waits until it has answered its warm-up call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sandhog_common::id::{ImageName, clip};
use sandhog_common::infer::{Server, Serving};
use sandhog_common::limits::{LimitWishes, Limits};
use sandhog_common::units::Millis;
use sandhog_runner::model::{FromServer, ToServer};
use sandhog_runner::protocol::{Caps, End, Exception, Report, Stop};
use sandhog_runner::{PROXY_ARGUMENT, PYTHON_MODEL_PATH, RUNNER_PATH};

use super::tail::{Tail, printable};
use crate::causes::with_causes;
use crate::gpu::{GPUS_VARIABLE, Grant};
use crate::sandbox::{Engine, Heard, Held, Image, SandboxError, ServerEar, ServerMouth, Shape};

/// Time limit of a model server's cell. A server has no time limit; this is a value that the limit
/// can hold.
const FOR_EVER: Millis = Millis(400 * 86_400_000);

/// Time between SIGTERM and the end of the cell.
const GRACE: Millis = Millis(100);

/// Time that a server has to end after it reported a failure.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Maximum length of a reported exception, in characters.
const KEPT_OF_EXCEPTION: usize = 2000;

/// Environment variable that tells a Python server the methods in its image's contract.
const METHODS_VARIABLE: &str = "SANDHOG_METHODS";

/// A server that is ready for calls.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) mouth: ServerMouth,
    pub(super) ear: ServerEar,
    /// The end of its output while it loaded, before it received any job.
    log: Tail,
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
    engine: &Engine,
    image: &Image,
    serving: &Serving,
    gpus: Option<&Arc<Grant>>,
) -> Result<Loaded, LoadError> {
    let ours = |error: &SandboxError| LoadError::Ours(with_causes(error));
    let uuids = gpus.map_or(&[][..], |gpus| gpus.uuids());
    let shape = Shape {
        gpus: uuids.to_vec(),
        ..engine.shape(image)
    };
    let held = gpus.map(|gpus| Arc::clone(gpus) as Held);
    let started = engine.start_holding(image, &shape, held).await;
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
    let (mouth, ear) = sandbox
        .serve(argv(serving), env, caps)
        .await
        .map_err(|error| ours(&error))?;
    let mut loaded = Loaded {
        mouth,
        ear,
        log: Tail::default(),
    };
    let within = Duration::from_secs(serving.load_timeout_s.into());
    let ready = tokio::time::timeout(within, loaded.become_ready(&image.name, serving)).await;
    match ready {
        Ok(Ok(())) => Ok(loaded),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(LoadError::Model(format!(
            "it was not ready within {} s{}",
            serving.load_timeout_s,
            loaded.log.said()
        ))),
    }
}

impl Loaded {
    async fn become_ready(
        &mut self,
        image: &ImageName,
        serving: &Serving,
    ) -> Result<(), LoadError> {
        match self.hear().await? {
            FromServer::Ready => {}
            FromServer::Failed { exception } => {
                // Some of its output may still be on its way; all of it has arrived when the server
                // has ended.
                drop(tokio::time::timeout(LAST_WORDS, self.hear()).await);
                return Err(LoadError::Model(format!(
                    "{}{}",
                    told(&exception),
                    self.log.said()
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
        let said = self.mouth.say(&call).await;
        said.map_err(|error| LoadError::Ours(with_causes(&error)))?;
        loop {
            match self.hear().await? {
                FromServer::Done { id: 0 } => return Ok(()),
                FromServer::Result { id: 0, .. } | FromServer::Chunk { id: 0, .. } => {}
                FromServer::Error { exception, .. } => {
                    return Err(LoadError::Model(format!(
                        "its warm-up failed: {}{}",
                        told(&exception),
                        self.log.said()
                    )));
                }
                FromServer::Fault { why, .. } => {
                    return Err(LoadError::Model(format!(
                        "its warm-up got no answer: the connection failed: {}{}",
                        clip(&why, KEPT_OF_EXCEPTION),
                        self.log.said()
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
    async fn hear(&mut self) -> Result<FromServer, LoadError> {
        loop {
            match self.ear.hear().await {
                Ok(Heard::Said(said)) => return Ok(said),
                Ok(Heard::Printed(data)) => self.log.push(&data),
                Ok(Heard::Ended(report)) => {
                    return Err(LoadError::Model(format!(
                        "it {}{}",
                        ended(&report),
                        self.log.said()
                    )));
                }
                Err(error @ SandboxError::ModelProtocol { .. }) => {
                    return Err(LoadError::Model(with_causes(&error)));
                }
                Err(error) => return Err(LoadError::Ours(with_causes(&error))),
            }
        }
    }
}

/// Formats an exception for the author of the model.
fn told(exception: &Exception) -> String {
    let name = clip(&printable(&exception.name), 200);
    let message = clip(&printable(&exception.message), KEPT_OF_EXCEPTION);
    format!("{name}: {message}")
}

/// Describes the end of a server as a verb phrase.
pub(super) fn ended(report: &Report) -> String {
    match (report.stop, report.end) {
        (Some(Stop::Memory), _) => "ran out of memory".to_owned(),
        (Some(Stop::CpuTime | Stop::WallClock | Stop::Output | Stop::Cancelled), _) => {
            "was stopped".to_owned()
        }
        (None, End::Exited(code)) => format!("ended with exit code {code}"),
        (None, End::Signaled(number)) => format!("was ended by signal {number}"),
        (None, End::NotStarted(errno)) => format!(
            "could not be started: {}",
            std::io::Error::from_raw_os_error(errno)
        ),
    }
}

/// Returns the limits of the server's cell: the image's own, without a time limit.
fn caps(image: &Image) -> Result<Caps, String> {
    let contract = &image.contract;
    let none = LimitWishes::default();
    let limits = Limits::resolve(&none, &contract.limits, &contract.ceiling)
        .map_err(|error| error.to_string())?;
    Ok(Caps {
        wall_ms: FOR_EVER.0,
        cpu_ms: FOR_EVER.0,
        cpu_millis: limits.cpu_millis.0,
        memory_bytes: limits.memory.0,
        stack_bytes: limits.stack.0,
        pids: limits.pids.0,
        scratch_bytes: limits.scratch.0,
        scratch_inodes: limits.scratch_inodes.0,
        output_bytes: u64::MAX,
        output_total_bytes: u64::MAX,
        grace_ms: GRACE.0,
    })
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
