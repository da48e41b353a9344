//! The errors that end the runner.

use std::io;

use sandhog_protocol::frames::FramingError;

use crate::cell::CellError;
use crate::cell_calls::UnexpectedFrame;

/// An error that ends the runner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// This container cannot hold cells.
    #[error("this container cannot hold cells")]
    Prepare(#[source] CellError),
    /// Signals cannot be watched.
    #[error("signals cannot be watched")]
    Signals(#[source] nix::Error),
    /// The stream to the worker failed.
    #[error("the stream to the worker failed")]
    Stream(#[source] io::Error),
    /// The worker sent bytes that are not a frame.
    #[error("the worker broke the protocol")]
    Frame(#[source] FramingError),
    /// The worker sent a frame that is not allowed at its time.
    #[error("the worker broke the protocol")]
    UnexpectedFrame(#[from] UnexpectedFrame),
    /// The zygote ended, by itself or killed.
    #[error("the zygote ended unexpectedly")]
    Zygote,
    /// The worker sent more to a model server than the runner may hold, because the server did not
    /// read.
    #[error("the model server reads too slowly: more bytes wait for it than the runner may hold")]
    ModelInputOverflow,
}
