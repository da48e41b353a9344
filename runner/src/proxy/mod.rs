//! A proxy inside a cell, between descriptor 3 and an HTTP server on the cell's loopback interface.
//!
//! It is a second role of the runner's binary, started as an unprivileged program in a cell, never
//! as PID 1. It starts the server, waits until the server's health path answers, and turns calls
//! into HTTP requests and server-sent events into chunks. So the runner as PID 1 never reads a byte
//! of HTTP. The proxy follows no redirect and connects only to the loopback interface.

mod call;
mod choice;
mod events;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandhog_runner::model::{self, FromServer, MAX_CALL, MAX_SAID, ToServer};
use sandhog_runner::protocol::Exception;

use crate::cell::descriptor_three;
use call::Caller;

/// Interval between requests to the server's health path while the server starts.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// An error that ends the proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// The arguments are not a port, a health path and a program.
    #[error("usage: runner proxy PORT HEALTH PROGRAM [ARGUMENT]…")]
    Usage,
    /// Descriptor 3, the connection to the worker, cannot be used.
    #[error("descriptor 3, the connection to the worker, cannot be used")]
    NoSocket(#[source] std::io::Error),
    /// The server's program cannot be started.
    #[error("{program:?} cannot be started")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The stream to the worker failed, or the worker sent an invalid frame.
    #[error("the stream to the worker failed: {0}")]
    Stream(String),
    /// The server ended.
    #[error("the server ended with {0}")]
    Ended(ExitStatus),
    /// A connection to the server failed, and its health path does not answer either.
    #[error("the server no longer answers its health path")]
    Unhealthy,
}

/// Runs until the worker closes the connection or the server ends. `words` are the arguments after
/// the first.
///
/// # Errors
/// When the server cannot be started or ends, or the worker breaks the protocol.
pub(crate) fn run(words: &[String]) -> Result<(), ProxyError> {
    let [port, health, program, arguments @ ..] = words else {
        return Err(ProxyError::Usage);
    };
    let port: u16 = port.parse().map_err(|_error| ProxyError::Usage)?;
    let socket = descriptor_three().map_err(ProxyError::NoSocket)?;
    let voice = Voice::new(&socket)?;
    let server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn();
    let mut server = match server {
        Ok(server) => server,
        Err(source) => {
            let error = ProxyError::Start {
                program: program.clone(),
                source,
            };
            return Err(fail(&voice, error));
        }
    };
    let caller = Caller::new(port, health, voice.clone());
    while !caller.is_healthy() {
        if let Ok(Some(status)) = server.try_wait() {
            return Err(fail(&voice, ProxyError::Ended(status)));
        }
        std::thread::sleep(ASK_EVERY);
    }
    voice.say(&FromServer::Ready);
    let hangs_up = socket.try_clone().map_err(ProxyError::NoSocket)?;
    let watch = std::thread::spawn(move || {
        let status = server.wait();
        // Ends the loop in `listen`, because the proxy is of no use without its server.
        drop(hangs_up.shutdown(Shutdown::Both));
        status
    });
    let heard = listen(socket, &caller);
    if caller.server_is_gone() && !watch.is_finished() {
        return Err(ProxyError::Unhealthy);
    }
    match (watch.is_finished(), heard) {
        (true, _) => match watch.join() {
            Ok(Ok(status)) => Err(ProxyError::Ended(status)),
            Ok(Err(_)) | Err(_) => Err(ProxyError::Stream(
                "the server's exit status is unknown".to_owned(),
            )),
        },
        (false, heard) => heard,
    }
}

/// Takes calls until the worker closes the connection.
fn listen(mut socket: UnixStream, caller: &Caller) -> Result<(), ProxyError> {
    let mut buffer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let frame: Option<ToServer> = model::take(&mut buffer, MAX_CALL)
            .map_err(|error| ProxyError::Stream(error.to_string()))?;
        match frame {
            Some(ToServer::Cancel { id }) => caller.cancel(id),
            Some(ToServer::Call {
                id,
                target,
                inputs,
                stream,
                timeout_ms,
                batched: _,
            }) => {
                let within = Duration::from_millis(timeout_ms);
                caller.begin(id, target, inputs.into_iter().next(), stream, within);
            }
            None => match socket.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => buffer.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ProxyError::Stream(error.to_string())),
            },
        }
    }
}

/// Reports to the worker that there will be no server, and returns the error.
fn fail(voice: &Voice, error: ProxyError) -> ProxyError {
    voice.say(&FromServer::Failed {
        exception: exception("ServerError", &crate::chain(&error)),
    });
    error
}

/// Makes the exception by which the worker learns of an error.
fn exception(name: &str, message: &str) -> Exception {
    Exception {
        name: name.to_owned(),
        message: message.chars().take(8 << 10).collect(),
        traceback: String::new(),
    }
}

/// The most bytes of text in one piece of a stream. In any JSON encoding they fit into a frame.
const MAX_PIECE: usize = 64 << 10;

/// Sends frames to the worker from any thread, one complete frame at a time.
#[derive(Debug, Clone)]
struct Voice(Arc<Mutex<UnixStream>>);

impl Voice {
    fn new(socket: &UnixStream) -> Result<Self, ProxyError> {
        let socket = socket.try_clone().map_err(ProxyError::NoSocket)?;
        Ok(Self(Arc::new(Mutex::new(socket))))
    }

    /// Sends a frame. Returns false if it is too long or the write failed. The thread that reads
    /// notices by itself that the worker is gone.
    fn say(&self, frame: &FromServer) -> bool {
        let Ok(bytes) = model::encode(frame, MAX_SAID) else {
            return false;
        };
        self.0
            .lock()
            .is_ok_and(|mut socket| socket.write_all(&bytes).is_ok())
    }

    /// Sends a piece of a stream, split over several frames if it is long.
    fn say_text(&self, id: u64, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_PIECE));
            let text = piece.to_owned();
            self.say(&FromServer::Chunk { id, text });
            rest = after;
        }
    }

    /// Shuts the socket to the worker down, for reading and for writing.
    fn hang_up(&self) {
        if let Ok(socket) = self.0.lock() {
            // An error means that the worker has closed the socket already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}
