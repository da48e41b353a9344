//! The proxy as a program: it starts the server, waits until it is healthy, and takes calls.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use sandhog_protocol::model::{self, FromServer, MAX_MODEL_CALL, ToServer};

use crate::cell::descriptor_three;
use sandhog_core::error_chain::error_chain;

use super::call::Caller;
use super::worker_writer::{WorkerWriter, exception};

/// Interval between requests to the server's health path while the server starts.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_millis(20);

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
/// Fails if the server cannot be started or ends, or the worker breaks the protocol.
pub(crate) fn run_proxy(words: &[String]) -> Result<(), ProxyError> {
    let [port, health, program, arguments @ ..] = words else {
        return Err(ProxyError::Usage);
    };
    let port: u16 = port.parse().map_err(|_error| ProxyError::Usage)?;
    let socket = descriptor_three().map_err(ProxyError::NoSocket)?;
    let writer = WorkerWriter::new(&socket).map_err(ProxyError::NoSocket)?;
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
            return Err(fail(&writer, error));
        }
    };
    let caller = Caller::new(port, health, writer.clone());
    while !caller.is_healthy() {
        if let Ok(Some(status)) = server.try_wait() {
            return Err(fail(&writer, ProxyError::Ended(status)));
        }
        std::thread::sleep(HEALTH_CHECK_INTERVAL);
    }
    writer.send(&FromServer::Ready);
    let closes_on_exit = socket.try_clone().map_err(ProxyError::NoSocket)?;
    let watch = std::thread::spawn(move || {
        let status = server.wait();
        // Ends the loop in `listen`, because the proxy is of no use without its server.
        drop(closes_on_exit.shutdown(Shutdown::Both));
        status
    });
    let listened = listen(socket, &caller);
    if caller.server_is_gone() && !watch.is_finished() {
        return Err(ProxyError::Unhealthy);
    }
    match (watch.is_finished(), listened) {
        (true, _) => match watch.join() {
            Ok(Ok(status)) => Err(ProxyError::Ended(status)),
            Ok(Err(_)) | Err(_) => Err(ProxyError::Stream(
                "the server's exit status is unknown".to_owned(),
            )),
        },
        (false, listened) => listened,
    }
}

/// Takes calls until the worker closes the connection.
fn listen(mut socket: UnixStream, caller: &Caller) -> Result<(), ProxyError> {
    let mut buffer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let frame: Option<ToServer> = model::take(&mut buffer, MAX_MODEL_CALL)
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
                caller.start(id, target, inputs.into_iter().next(), stream, within);
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
fn fail(writer: &WorkerWriter, error: ProxyError) -> ProxyError {
    writer.send(&FromServer::Failed {
        exception: exception("ServerError", &error_chain(&error)),
    });
    error
}
