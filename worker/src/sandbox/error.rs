//! What can go wrong between a worker and the container engine, and whose fault each is.

use sandhog_common::id::{ImageName, RuntimeName};
use sandhog_common::image::ContractError;
use sandhog_common::outcome::Fault;
use sandhog_common::units::Millis;
use sandhog_runner::model::ModelFrameError;
use sandhog_runner::protocol::{FrameError, VERSION};

/// A foreign error, kept only to be shown.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a sandbox could not be had, or why its answer cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine has no image of that name.
    #[error("image {name} is unknown to this worker (no {reference})")]
    UnknownImage {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
    },
    /// The image exists, but was never made for sandboxes.
    #[error("image {name} ({reference}) carries no contract")]
    NoContract {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
    },
    /// The image's contract does not read.
    #[error("image {name} ({reference}) carries a contract that cannot be used")]
    BadContract {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: ContractError,
    },
    /// The image asks for something no sandbox grants.
    #[error("image {name} ({reference}) cannot be used: {why}")]
    UnusableImage {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
        /// What it asks for.
        why: &'static str,
    },
    /// The engine's address is not one we know how to reach.
    #[error(
        "container engine address {endpoint:?} is not valid (want unix:///path or tcp://host:port)"
    )]
    BadEndpoint {
        /// The address.
        endpoint: String,
    },
    /// Nothing answers at the engine's address.
    #[error("no container engine answers at {endpoint}")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// What the connection said.
        #[source]
        source: Cause,
    },
    /// The engine's socket belongs to others.
    #[error("this user may not use the container engine's socket {endpoint}")]
    Forbidden {
        /// The address.
        endpoint: String,
    },
    /// The engine lacks what sandboxes need.
    #[error(
        "container engine {version} is too old: it speaks API {api_version}, and 1.41 is needed"
    )]
    OldEngine {
        /// Its version.
        version: String,
        /// The newest version of the API that it speaks.
        api_version: String,
    },
    /// The engine does not know the runtime that is set, or that an image asks for.
    #[error("the container engine has no runtime {runtime} (it has {known})")]
    UnknownRuntime {
        /// The runtime wanted.
        runtime: RuntimeName,
        /// Those it has.
        known: String,
    },
    /// A job wishes for a runtime that jobs may not choose.
    #[error("runtime {runtime} is not for jobs to choose here (allowed: {allowed})")]
    RuntimeRefused {
        /// The runtime the job names.
        runtime: RuntimeName,
        /// Those it might have named.
        allowed: String,
    },
    /// The engine answered a request with an error, or not at all.
    #[error("the container engine could not {step} {subject}")]
    Engine {
        /// What was asked.
        step: &'static str,
        /// Of what.
        subject: String,
        /// What the engine said.
        #[source]
        source: Cause,
    },
    /// The container started, but its runner was not ready in time.
    #[error("sandbox {container} was not ready within {within}{said}")]
    NotReady {
        /// The container's name.
        container: String,
        /// How long was waited.
        within: Millis,
        /// What its runner wrote to standard error, after a colon; empty if nothing.
        said: String,
    },
    /// The runner speaks another version of the protocol: the image is older or newer than the worker.
    #[error("sandbox {container} speaks runner protocol {found} (want {VERSION})")]
    RunnerVersion {
        /// The container's name.
        container: String,
        /// The version found.
        found: u32,
    },
    /// The container ended by itself.
    #[error("sandbox {container} ended by itself{said}")]
    Died {
        /// The container's name.
        container: String,
        /// What its runner wrote to standard error, after a colon; empty if nothing.
        said: String,
    },
    /// The connection to the container failed.
    #[error("the connection to sandbox {container} failed")]
    Connection {
        /// The container's name.
        container: String,
        /// What failed.
        #[source]
        source: Cause,
    },
    /// The runner sent bytes that are no frame.
    #[error("sandbox {container} broke the runner protocol")]
    Protocol {
        /// The container's name.
        container: String,
        /// What is wrong with them.
        #[source]
        source: FrameError,
    },
    /// The model server sent bytes that are no frame.
    #[error("the model server in sandbox {container} broke its protocol")]
    ModelProtocol {
        /// The container's name.
        container: String,
        /// What is wrong with them.
        #[source]
        source: ModelFrameError,
    },
    /// The runner sent a good frame at the wrong time.
    #[error("sandbox {container} sent {frame} where it has no place")]
    OutOfTurn {
        /// The container's name.
        container: String,
        /// The kind of frame.
        frame: &'static str,
    },
    /// The runner could not make or watch the cell.
    #[error("sandbox {container} could not run a cell: {message}")]
    Cell {
        /// The container's name.
        container: String,
        /// What the runner said.
        message: String,
        /// Set if something is used up that all users of the machine share.
        machine: bool,
    },
    /// A GPU that the sandbox has failed.
    #[error("sandbox {container} lost its gpu {why}")]
    GpuLost {
        /// The container's name.
        container: String,
        /// Which, and how.
        why: String,
    },
    /// The runner said nothing long after the job's time was up.
    #[error("sandbox {container} did not report within {within}")]
    Unresponsive {
        /// The container's name.
        container: String,
        /// How long was waited.
        within: Millis,
    },
}

impl SandboxError {
    /// Whose doing it is: the submitter's for an image that is not there or not usable, otherwise ours.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::UnknownImage { .. }
            | Self::NoContract { .. }
            | Self::BadContract { .. }
            | Self::UnusableImage { .. }
            | Self::RuntimeRefused { .. } => Fault::Submitter,
            Self::BadEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::OldEngine { .. }
            | Self::UnknownRuntime { .. }
            | Self::Engine { .. }
            | Self::NotReady { .. }
            | Self::RunnerVersion { .. }
            | Self::Died { .. }
            | Self::Connection { .. }
            | Self::Protocol { .. }
            | Self::ModelProtocol { .. }
            | Self::OutOfTurn { .. }
            | Self::Cell { .. }
            | Self::GpuLost { .. }
            | Self::Unresponsive { .. } => Fault::Service,
        }
    }

    /// Whether the same job may be tried again: every fault of ours.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Service
    }

    /// Returns whether the machine has no more of something to give, for which no attempt is to
    /// blame for.
    #[must_use]
    pub const fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Cell { machine: true, .. })
    }

    /// The stable word for this error in a result and in metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownImage { .. } => "unknown_image",
            Self::NoContract { .. } | Self::BadContract { .. } | Self::UnusableImage { .. } => {
                "bad_image"
            }
            Self::BadEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::OldEngine { .. } => "engine_unreachable",
            Self::UnknownRuntime { .. } => "unknown_runtime",
            Self::RuntimeRefused { .. } => "runtime_refused",
            Self::Engine { .. } => "engine_error",
            Self::NotReady { .. } | Self::RunnerVersion { .. } => "sandbox_not_ready",
            Self::Died { .. } | Self::Connection { .. } => "sandbox_died",
            Self::Protocol { .. } | Self::OutOfTurn { .. } => "sandbox_protocol",
            Self::ModelProtocol { .. } => "model_protocol",
            Self::Cell { .. } => "cell_failed",
            Self::GpuLost { .. } => "gpu_lost",
            Self::Unresponsive { .. } => "sandbox_unresponsive",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownImage { .. } => Some(
                "`sandhog images list` shows the images there are, `sandhog images build` builds them",
            ),
            Self::NoContract { .. } | Self::BadContract { .. } | Self::RunnerVersion { .. } => {
                Some("rebuild it with `sandhog images build`")
            }
            Self::BadEndpoint { .. } => Some("set sandbox.engine or SANDHOG_SANDBOX_ENGINE"),
            Self::Unreachable { .. } => {
                Some("is Docker installed and running (`apt-get install docker.io`)?")
            }
            Self::Forbidden { .. } => Some(
                "`sudo usermod -aG docker $USER` allows it after the next login (`newgrp docker` at once)",
            ),
            Self::OldEngine { .. } => Some("install Docker Engine 20.10 or newer"),
            Self::UnknownRuntime { .. } => Some(
                "set sandbox.runtime to one the engine has, or register it in /etc/docker/daemon.json",
            ),
            Self::RuntimeRefused { .. } => Some(
                "the worker's setting sandbox.job_runtimes lists the runtimes that jobs may choose",
            ),
            Self::NotReady { .. } | Self::Died { .. } | Self::Cell { .. } => {
                Some("`sandhog doctor` shows what this engine and kernel give")
            }
            Self::UnusableImage { .. }
            | Self::Engine { .. }
            | Self::Connection { .. }
            | Self::Protocol { .. }
            | Self::ModelProtocol { .. }
            | Self::OutOfTurn { .. }
            | Self::GpuLost { .. }
            | Self::Unresponsive { .. } => None,
        }
    }
}
