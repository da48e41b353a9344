//! Errors between a worker and its provider of sandboxes, with the party at fault for each.

use std::fmt;
use std::path::PathBuf;

use sandhog_core::id::{ImageName, RuntimeName};
use sandhog_core::image::ContractError;
use sandhog_core::outcome::Fault;
use sandhog_core::units::Millis;
use sandhog_protocol::frames::{FramingError, VERSION};
use sandhog_protocol::keeper::VERSION as KEEPER_VERSION;
use sandhog_protocol::model::ModelFrameError;

/// An error of another library, kept only for display.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One of the protocols that a worker and a keeper must have in the same version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperProtocol {
    /// The frames between worker and keeper.
    Keeper,
    /// The frames between worker and runner.
    Runner,
}

impl fmt::Display for KeeperProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keeper => "keeper",
            Self::Runner => "runner",
        })
    }
}

/// The thing that a keeper refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperRefusal {
    /// The connection, before any request.
    Connection,
    /// A request.
    Request,
}

/// Reason why a sandbox is not available, or why its answer cannot be trusted.
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
    /// No keeper in the configured directory has an image of that name.
    #[error("image {name} is unknown to this worker (no keeper of it in {})", directory.display())]
    NoKeeperOfImage {
        /// The name the job used.
        name: ImageName,
        /// The directory of the keepers' sockets.
        directory: PathBuf,
    },
    /// The image exists, but it was not built for sandboxes.
    #[error("image {name} ({reference}) carries no contract")]
    NoContract {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
    },
    /// The image's contract cannot be parsed.
    #[error("image {name} ({reference}) carries a contract that cannot be used")]
    BadContract {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
        /// The defect of the contract.
        #[source]
        source: ContractError,
    },
    /// The image requires something that no sandbox grants.
    #[error("image {name} ({reference}) cannot be used: {why}")]
    UnusableImage {
        /// The name the job used.
        name: ImageName,
        /// The reference it stands for.
        reference: String,
        /// The thing that the image requires.
        why: &'static str,
    },
    /// The engine's address has an unsupported form.
    #[error(
        "container engine address {endpoint:?} is not valid (want unix:///path, tcp://host:port or \
         keepers:///directory)"
    )]
    BadEndpoint {
        /// The address.
        endpoint: String,
    },
    /// No engine answers at the address.
    #[error("no container engine answers at {endpoint}")]
    Unreachable {
        /// The address.
        endpoint: String,
        /// The error of the connection.
        #[source]
        source: Cause,
    },
    /// The worker's user may not use the engine's socket.
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
    /// The engine does not have the runtime that the settings or an image name.
    #[error("the container engine has no runtime {runtime} (it has {known})")]
    UnknownRuntime {
        /// The runtime wanted.
        runtime: RuntimeName,
        /// The runtimes that the engine has.
        known: String,
    },
    /// The provider at the configured address cannot build images.
    #[error(
        "images cannot be built with sandbox.engine {endpoint:?} (want unix:///path or \
         tcp://host:port of Docker)"
    )]
    NoImageBuilder {
        /// The address.
        endpoint: String,
    },
    /// No keeper answers in the configured directory.
    #[error("no keeper answers at {endpoint}")]
    NoKeeper {
        /// The address.
        endpoint: String,
        /// The error of the directory.
        #[source]
        source: Cause,
    },
    /// No keeper listens on the socket, or the keeper closed the connection.
    #[error("the keeper on {socket} does not answer")]
    KeeperAway {
        /// The path of the socket.
        socket: String,
        /// The error of the connection.
        #[source]
        source: Cause,
    },
    /// The process that listens on the socket is not a keeper.
    #[error(
        "the process on {socket} is not a keeper: {reason} (allowed are the frames of a keeper of \
         version {KEEPER_VERSION})"
    )]
    NotKeeper {
        /// The path of the socket.
        socket: String,
        /// The defect of its frames.
        reason: String,
    },
    /// The keeper, or the runner of its image, has another version of the protocol.
    #[error(
        "the keeper on {socket} has version {found} of the {protocol} protocol; version {wanted} \
         is required"
    )]
    KeeperVersion {
        /// The path of the socket.
        socket: String,
        /// The protocol.
        protocol: KeeperProtocol,
        /// The version found.
        found: u32,
        /// The version of this worker.
        wanted: u32,
    },
    /// The keeper refused the connection or a request.
    #[error("the keeper on {socket} refused: {reason}")]
    KeeperRefused {
        /// The path of the socket.
        socket: String,
        /// The keeper's reason.
        reason: String,
        /// The thing that it refused.
        at: KeeperRefusal,
        /// True if the same request may succeed later.
        retryable: bool,
    },
    /// The container of a keeper did not become ready.
    #[error("the keeper in container {container} did not start{reason}")]
    KeeperNotStarted {
        /// The container's name.
        container: String,
        /// The reason, preceded by a colon; empty if it is unknown.
        reason: String,
    },
    /// The worker's private directory for the sockets of its keepers cannot be made.
    #[error("the directory for the sockets of keepers cannot be made in {}", path.display())]
    SocketDirectory {
        /// The parent of the directory.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: std::io::Error,
    },
    /// The engine does not have the worker's directory for the sockets of its keepers.
    #[error(
        "the container engine does not have the directory {} of this worker, in which its keepers \
         would make their sockets: {message}", path.display()
    )]
    SocketDirectoryNotShared {
        /// The directory.
        path: PathBuf,
        /// The engine's message.
        message: String,
    },
    /// The job asks for a runtime that jobs may not choose.
    #[error("a job may not choose runtime {runtime} on this worker (allowed: {allowed})")]
    RuntimeRefused {
        /// The runtime the job names.
        runtime: RuntimeName,
        /// The runtimes that the job may name.
        allowed: String,
    },
    /// The engine answered a request with an error, or not at all.
    #[error("the container engine could not {step} {subject}")]
    EngineRequest {
        /// The operation.
        step: &'static str,
        /// The object of the operation.
        subject: String,
        /// The engine's error.
        #[source]
        source: Cause,
    },
    /// The container started, but its runner was not ready in time.
    #[error("sandbox {container} was not ready within {within}{stderr}")]
    NotReady {
        /// The container's name.
        container: String,
        /// The time waited.
        within: Millis,
        /// The runner's output on standard error, preceded by a colon; empty if there is none.
        stderr: String,
    },
    /// The runner speaks another version of the protocol: the image is older or newer than the
    /// worker.
    #[error("sandbox {container} speaks runner protocol {found} (want {VERSION})")]
    RunnerVersion {
        /// The container's name.
        container: String,
        /// The version found.
        found: u32,
    },
    /// The container ended by itself.
    #[error("sandbox {container} ended by itself{stderr}")]
    Died {
        /// The container's name.
        container: String,
        /// The runner's output on standard error, preceded by a colon; empty if there is none.
        stderr: String,
    },
    /// The connection to the container failed.
    #[error("the connection to sandbox {container} failed")]
    Connection {
        /// The container's name.
        container: String,
        /// The error of the connection.
        #[source]
        source: Cause,
    },
    /// The runner sent bytes that are not a valid frame.
    #[error("sandbox {container} broke the runner protocol")]
    Protocol {
        /// The container's name.
        container: String,
        /// The defect of the bytes.
        #[source]
        source: FramingError,
    },
    /// The model server sent bytes that are not a valid frame.
    #[error("the model server in sandbox {container} broke its protocol")]
    ModelProtocol {
        /// The container's name.
        container: String,
        /// The defect of the bytes.
        #[source]
        source: ModelFrameError,
    },
    /// The runner sent a valid frame at the wrong time, or exceeded its caps.
    #[error("sandbox {container} broke the runner protocol: it sent {frame}")]
    ProtocolViolation {
        /// The container's name.
        container: String,
        /// The frame, or the cap that it exceeded.
        frame: &'static str,
    },
    /// The runner could not create or supervise the cell.
    #[error("sandbox {container} could not run a cell: {message}")]
    Cell {
        /// The container's name.
        container: String,
        /// The runner's message.
        message: String,
        /// True if a resource is exhausted that all users of the machine share.
        machine: bool,
    },
    /// A GPU of the sandbox failed.
    #[error("sandbox {container} lost its gpu {why}")]
    GpuLost {
        /// The container's name.
        container: String,
        /// The GPU and its failure.
        why: String,
    },
    /// The runner sent no report although the job's time was long over.
    #[error("sandbox {container} did not report within {within}")]
    Unresponsive {
        /// The container's name.
        container: String,
        /// The time waited.
        within: Millis,
    },
}

impl SandboxError {
    /// Returns the party at fault: the submitter for an image that is missing or unusable and for a
    /// runtime that jobs may not choose, otherwise the service.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::UnknownImage { .. }
            | Self::NoKeeperOfImage { .. }
            | Self::NoContract { .. }
            | Self::BadContract { .. }
            | Self::UnusableImage { .. }
            | Self::RuntimeRefused { .. } => Fault::Submitter,
            Self::BadEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::OldEngine { .. }
            | Self::UnknownRuntime { .. }
            | Self::NoImageBuilder { .. }
            | Self::NoKeeper { .. }
            | Self::KeeperAway { .. }
            | Self::NotKeeper { .. }
            | Self::KeeperVersion { .. }
            | Self::KeeperRefused { .. }
            | Self::KeeperNotStarted { .. }
            | Self::SocketDirectory { .. }
            | Self::SocketDirectoryNotShared { .. }
            | Self::EngineRequest { .. }
            | Self::NotReady { .. }
            | Self::RunnerVersion { .. }
            | Self::Died { .. }
            | Self::Connection { .. }
            | Self::Protocol { .. }
            | Self::ModelProtocol { .. }
            | Self::ProtocolViolation { .. }
            | Self::Cell { .. }
            | Self::GpuLost { .. }
            | Self::Unresponsive { .. } => Fault::Service,
        }
    }

    /// Returns whether the same job may be retried: yes for every fault of the service.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Service
    }

    /// Returns whether the machine has run out of a resource. No attempt is to blame for that.
    #[must_use]
    pub const fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Cell { machine: true, .. })
    }

    /// Returns whether the keeper of an image cannot be used now. No attempt is to blame for that,
    /// and other images are not affected.
    #[must_use]
    pub const fn is_keeper_away(&self) -> bool {
        matches!(
            self,
            Self::KeeperAway { .. }
                | Self::NotKeeper { .. }
                | Self::KeeperVersion { .. }
                | Self::KeeperRefused {
                    retryable: true,
                    ..
                }
        )
    }

    /// Returns whether the provider cannot be reached or used as the settings demand.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::BadEndpoint { .. }
                | Self::Unreachable { .. }
                | Self::Forbidden { .. }
                | Self::OldEngine { .. }
                | Self::UnknownRuntime { .. }
                | Self::NoImageBuilder { .. }
                | Self::NoKeeper { .. }
                | Self::SocketDirectory { .. }
                | Self::SocketDirectoryNotShared { .. }
        )
    }

    /// Returns the stable code of this error in results and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownImage { .. } | Self::NoKeeperOfImage { .. } => "unknown_image",
            Self::NoContract { .. } | Self::BadContract { .. } | Self::UnusableImage { .. } => {
                "bad_image"
            }
            Self::BadEndpoint { .. }
            | Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::OldEngine { .. } => "engine_unreachable",
            Self::UnknownRuntime { .. } => "unknown_runtime",
            Self::RuntimeRefused { .. } => "runtime_refused",
            Self::EngineRequest { .. } => "engine_error",
            Self::NoImageBuilder { .. } => "no_image_builder",
            Self::NoKeeper { .. } => "no_keeper",
            Self::KeeperAway { .. } => "keeper_away",
            Self::NotKeeper { .. } => "not_a_keeper",
            Self::KeeperVersion { .. } => "keeper_version",
            Self::KeeperRefused { .. } => "keeper_refused",
            Self::KeeperNotStarted { .. } => "keeper_not_started",
            Self::SocketDirectory { .. } | Self::SocketDirectoryNotShared { .. } => {
                "socket_directory"
            }
            Self::NotReady { .. } | Self::RunnerVersion { .. } => "sandbox_not_ready",
            Self::Died { .. } | Self::Connection { .. } => "sandbox_died",
            Self::Protocol { .. } | Self::ProtocolViolation { .. } => "sandbox_protocol",
            Self::ModelProtocol { .. } => "model_protocol",
            Self::Cell { .. } => "cell_failed",
            Self::GpuLost { .. } => "gpu_lost",
            Self::Unresponsive { .. } => "sandbox_unresponsive",
        }
    }
}
