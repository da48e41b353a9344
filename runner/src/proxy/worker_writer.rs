//! Frames from the proxy to the worker.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use sandhog_protocol::frames::Exception;
use sandhog_protocol::model::{self, FromServer, MAX_MODEL_OUTPUT};

/// The most bytes of text in one piece of a stream. In any JSON encoding they fit into a frame.
const MAX_TEXT_PIECE_BYTES: usize = 64 << 10;

/// Sends frames to the worker from any thread, one complete frame at a time.
#[derive(Debug, Clone)]
pub(super) struct WorkerWriter(Arc<Mutex<UnixStream>>);

impl WorkerWriter {
    /// Creates a writer over a duplicate of the socket to the worker.
    ///
    /// # Errors
    /// Fails if the socket cannot be duplicated.
    pub(super) fn new(socket: &UnixStream) -> io::Result<Self> {
        let socket = socket.try_clone()?;
        Ok(Self(Arc::new(Mutex::new(socket))))
    }

    /// Sends a frame. Returns false if it is too long or the write failed. The thread that reads
    /// notices by itself that the worker is gone.
    pub(super) fn send(&self, frame: &FromServer) -> bool {
        let Ok(bytes) = model::encode(frame, MAX_MODEL_OUTPUT) else {
            return false;
        };
        self.0
            .lock()
            .is_ok_and(|mut socket| socket.write_all(&bytes).is_ok())
    }

    /// Sends a piece of a stream, split over several frames if it is long.
    pub(super) fn send_text(&self, id: u64, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_TEXT_PIECE_BYTES));
            let text = piece.to_owned();
            self.send(&FromServer::Chunk { id, text });
            rest = after;
        }
    }

    /// Shuts the socket to the worker down, for reading and for writing.
    pub(super) fn close(&self) {
        if let Ok(socket) = self.0.lock() {
            // An error means that the worker has closed the socket already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// Makes the exception by which the worker learns of an error.
pub(super) fn exception(name: &str, message: &str) -> Exception {
    Exception {
        name: name.to_owned(),
        message: message.chars().take(8 << 10).collect(),
        traceback: String::new(),
    }
}
