//! The errors that end a keeper or a probe.

use std::io;
use std::path::PathBuf;

use sandhog_protocol::keeper::CodecError;

use crate::cell::CellError;

/// An error that ends the keeper.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// The arguments are not valid.
    #[error("{0}; usage: runner keep SOCKET [--peer UID]… [--grace-ms N] [--while-stdin]")]
    Usage(String),
    /// The container lacks something that sandboxes need.
    #[error("this container cannot hold sandboxes")]
    Prepare(#[source] CellError),
    /// The trial sandbox did not become ready.
    #[error("this container cannot hold sandboxes: a trial sandbox {0}")]
    Trial(String),
    /// A file of the image is missing or not valid.
    #[error(
        "cannot use {}, which the build adds to an image: {reason}; build the image again with \
         `sandhog images build`", path.display()
    )]
    ImageFile {
        /// The path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Another keeper listens on the socket.
    #[error("another keeper listens on {}; each keeper needs a socket of its own", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Signals cannot be watched.
    #[error("signals cannot be watched")]
    Signals(#[source] nix::Error),
}

/// A keeper that a probe did not find.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The arguments are not valid.
    #[error("{0}; usage: runner probe SOCKET")]
    Usage(String),
    /// The socket cannot be connected to.
    #[error("no keeper listens on {path}")]
    Connect {
        /// The path.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The stream failed or ended early.
    #[error("the process that listens on {path} closed the connection; it is not a keeper")]
    Closed {
        /// The path.
        path: String,
    },
    /// The first frame did not arrive in time.
    #[error("no answer on {path} within {seconds} s")]
    Timeout {
        /// The path.
        path: String,
        /// The time, in seconds.
        seconds: u64,
    },
    /// The first bytes are not a frame of a keeper.
    #[error("the process that listens on {path} is not a keeper")]
    NotKeeper {
        /// The path.
        path: String,
        /// The reason.
        #[source]
        source: CodecError,
    },
    /// The keeper refused the connection.
    #[error("the keeper on {path} refused the connection: {reason}")]
    Refused {
        /// The path.
        path: String,
        /// The keeper's reason.
        reason: String,
    },
    /// The keeper has another version of the protocol.
    #[error("the keeper on {path} has version {theirs} of the protocol; this program has {ours}")]
    Version {
        /// The path.
        path: String,
        /// The version of the keeper.
        theirs: u32,
        /// The version of this program.
        ours: u32,
    },
}
