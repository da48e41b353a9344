//! Advice about errors of sandboxes, for the operator or the submitter.
//!
//! The advice names Docker only where an error can come from Docker alone.

use super::{KeeperRefusal, SandboxError};

impl SandboxError {
    /// Returns advice for the operator or the submitter.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownImage { .. } => Some(
                "`sandhog images list` shows the images there are, `sandhog images build` \
                 builds them",
            ),
            Self::NoKeeperOfImage { .. } => Some(
                "build the image with `sandhog images build`, and start a container of it with the \
                 command `/usr/lib/sandhog/runner keep SOCKET`; `sandhog images list` shows the \
                 images that have a keeper",
            ),
            Self::NoContract { .. } | Self::BadContract { .. } | Self::RunnerVersion { .. } => {
                Some(
                    "rebuild it with `sandhog images build`; a keeper that others started must be \
                     started again after that",
                )
            }
            Self::KeeperVersion { .. } => Some(
                "rebuild the image with `sandhog images build` of the worker's version, and start \
                 its keeper again",
            ),
            Self::KeeperNotStarted { .. } => Some(
                "rebuild the image with `sandhog images build` of the worker's version, or use a \
                 container for each sandbox: sandbox.unit = \"container\"",
            ),
            Self::NoKeeper { .. } | Self::KeeperAway { .. } | Self::NotKeeper { .. } => Some(
                "start a container of each image with the command `/usr/lib/sandhog/runner keep \
                 SOCKET`, with the socket in the directory of sandbox.engine",
            ),
            Self::KeeperRefused {
                at: KeeperRefusal::Connection,
                ..
            } => Some("start the keeper with `--peer UID` for the worker's user"),
            Self::KeeperRefused {
                retryable: true, ..
            } => None,
            Self::KeeperRefused { .. } => Some(
                "raise the limits of the keeper's container, or lower sandbox.memory and \
                 sandbox.pids of the worker",
            ),
            Self::SocketDirectory { .. } => {
                Some("make it writable, or set sandbox.sockets_dir to a directory that is")
            }
            Self::SocketDirectoryNotShared { .. } => Some(
                "a worker in a container needs sandbox.sockets_dir, a directory of the engine's \
                 machine that is mounted into the worker's container at the same path; or use \
                 keepers that the engine starts (sandbox.engine = \"keepers:///directory\", as in \
                 docker-compose.yml), or sandbox.unit = \"container\"",
            ),
            Self::BadEndpoint { .. } => Some("set sandbox.engine or SANDHOG_SANDBOX_ENGINE"),
            Self::Unreachable { .. } => {
                Some("is Docker installed and running (`apt-get install docker.io`)?")
            }
            Self::Forbidden { .. } => Some(
                "`sudo usermod -aG docker $USER` allows it after the next login \
                 (`newgrp docker` at once)",
            ),
            Self::OldEngine { .. } => Some("install Docker Engine 20.10 or newer"),
            Self::UnknownRuntime { .. } => Some(
                "set sandbox.runtime to one the engine has, or register it in \
                 /etc/docker/daemon.json; keepers run under the runtime of their containers, which \
                 the worker does not choose",
            ),
            Self::NoImageBuilder { .. } => {
                Some("build the images on a machine with Docker, where sandbox.engine names it")
            }
            Self::RuntimeRefused { .. } => Some(
                "the worker's setting sandbox.job_runtimes lists the runtimes that jobs may choose",
            ),
            Self::NotReady { .. } | Self::Died { .. } | Self::Cell { .. } => {
                Some("`sandhog doctor` shows what a sandbox gets on this machine")
            }
            Self::UnusableImage { .. }
            | Self::EngineRequest { .. }
            | Self::Connection { .. }
            | Self::Protocol { .. }
            | Self::ModelProtocol { .. }
            | Self::ProtocolViolation { .. }
            | Self::GpuLost { .. }
            | Self::Unresponsive { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_about_keepers_does_not_name_docker() {
        let socket = || "/run/sandhog/python.sock".to_owned();
        let refused = |at, retryable| SandboxError::KeeperRefused {
            socket: socket(),
            reason: String::new(),
            at,
            retryable,
        };
        for (error, want) in [
            (
                SandboxError::NoKeeper {
                    endpoint: "keepers:///run/sandhog".to_owned(),
                    source: "none".into(),
                },
                Some("runner keep"),
            ),
            (
                SandboxError::NoKeeperOfImage {
                    name: "geo".parse().unwrap(),
                    directory: "/run/sandhog".into(),
                },
                Some("runner keep"),
            ),
            (refused(KeeperRefusal::Connection, true), Some("--peer")),
            (refused(KeeperRefusal::Request, false), Some("limits")),
            (refused(KeeperRefusal::Request, true), None),
            (
                SandboxError::Died {
                    container: "a-1".to_owned(),
                    stderr: String::new(),
                },
                Some("sandhog doctor"),
            ),
        ] {
            let hint = error.hint();
            let fits = match (hint, want) {
                (Some(hint), Some(want)) => hint.contains(want),
                (hint, want) => hint == want,
            };
            assert!(fits, "{error}: {hint:?}");
            assert!(!hint.unwrap_or_default().contains("ocker"), "{hint:?}");
        }
    }
}
