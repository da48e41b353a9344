//! Sends each call as one HTTP request, in its own thread and on its own connection.
//!
//! No connection is used twice, because a server may close a connection that it kept open at any
//! moment, even while the next request is being sent. A call has one of three results: an answer, a
//! failure caused by the server or by the answer itself, or a fault of the connection. A fault is
//! not caused by the call, so the worker tries its job again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandhog_protocol::frames::{Exception, MAX_HARNESS_ANSWER};
use sandhog_protocol::model::FromServer;
use serde_json::{Value, json};
use ureq::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::stream_answer::{StreamAnswer, StreamFailure};
use super::worker_writer::{WorkerWriter, exception};
use sandhog_core::error_chain::error_chain;

/// Timeout of the health path while the server starts.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of the health path after a connection failed: a busy server may be slow.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a call is given beyond its own timeout. The worker enforces that timeout; this one
/// only ends calls that the worker has given up.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// The most bytes of an error's body that are passed on.
const MAX_ERROR_BODY_BYTES: u64 = 8 << 10;

/// The most bytes of a stream that are read: an answer of the largest size, and the fields around
/// the piece in each event.
const MAX_STREAM_BYTES: u64 = 4 * MAX_HARNESS_ANSWER as u64;

/// The client of one HTTP server.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    agent: Agent,
    address: String,
    health: String,
    writer: WorkerWriter,
    /// The calls that have not ended, by number. False if the call was cancelled.
    open: Arc<Mutex<HashMap<u64, bool>>>,
    /// Set once the server has stopped answering its health path.
    server_is_gone: Arc<AtomicBool>,
}

/// The reason for which a call has no answer.
#[derive(Debug)]
enum CallError {
    /// The server refused the call, or its answer cannot be passed on.
    Failed(Exception),
    /// The connection failed before the answer was complete.
    Fault(String),
}

impl Caller {
    /// Creates a client of the server on this port of the cell's loopback interface. A healthy
    /// server answers with status 2xx under the path `health`.
    pub(super) fn new(port: u16, health: &str, writer: WorkerWriter) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .build();
        Self {
            agent: config.into(),
            address: format!("http://127.0.0.1:{port}"),
            health: health.to_owned(),
            writer,
            open: Arc::default(),
            server_is_gone: Arc::default(),
        }
    }

    /// Returns whether the server answers its health path.
    pub(super) fn is_healthy(&self) -> bool {
        self.answers_health_within(HEALTH_TIMEOUT)
    }

    /// Returns whether the server has stopped answering its health path. The connection to the
    /// worker is closed then.
    pub(super) fn server_is_gone(&self) -> bool {
        self.server_is_gone.load(Ordering::Acquire)
    }

    fn answers_health_within(&self, timeout: Duration) -> bool {
        let response = self
            .agent
            .get(format!("{}{}", self.address, self.health))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header(CONNECTION, "close")
            .call();
        response.is_ok_and(|answer| answer.status().is_success())
    }

    /// Starts a call in its own thread.
    pub(super) fn start(
        &self,
        id: u64,
        path: String,
        input: Option<Value>,
        stream: bool,
        within: Duration,
    ) {
        if let Ok(mut open) = self.open.lock() {
            open.insert(id, true);
        }
        let caller = self.clone();
        let input = input.unwrap_or_default();
        let work = move || {
            let answer = caller.call(id, &path, input, stream, within);
            caller.finish(id, answer);
        };
        if let Err(error) = std::thread::Builder::new().spawn(work) {
            let why = format!("no thread for the call: {error}");
            self.finish(id, Err(CallError::Fault(why)));
        }
    }

    /// Marks a call as cancelled, if it has not ended. If its answer is a stream, the connection is
    /// closed at the next event.
    pub(super) fn cancel(&self, id: u64) {
        if let Ok(mut open) = self.open.lock() {
            open.entry(id).and_modify(|wanted| *wanted = false);
        }
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.open
            .lock()
            .is_ok_and(|open| open.get(&id) == Some(&false))
    }

    /// Sends the result of a call to the worker. If the result is a fault and the server no longer
    /// answers, the connection to the worker is closed instead. Otherwise the worker would try the
    /// job again on the same server, before it learns that it needs a new one.
    fn finish(&self, id: u64, answer: Result<Value, CallError>) {
        let is_fault = matches!(answer, Err(CallError::Fault(_)));
        let is_wanted = !self.is_cancelled(id);
        if is_fault && is_wanted && self.close_if_server_is_gone() {
            return;
        }
        let frame = match answer {
            Ok(value) => FromServer::Result {
                id,
                index: 0,
                value,
            },
            Err(CallError::Failed(exception)) => FromServer::Error {
                id,
                index: 0,
                exception,
            },
            Err(CallError::Fault(why)) => FromServer::Fault { id, why },
        };
        if !self.writer.send(&frame) {
            self.writer.send(&FromServer::Error {
                id,
                index: 0,
                exception: too_large("answer", MAX_HARNESS_ANSWER as u64),
            });
        }
        if let Ok(mut open) = self.open.lock() {
            open.remove(&id);
        }
        self.writer.send(&FromServer::Done { id });
        if is_fault && !is_wanted {
            self.close_if_server_is_gone();
        }
    }

    /// Closes the connection to the worker if the server no longer answers its health path. Returns
    /// whether it did so.
    fn close_if_server_is_gone(&self) -> bool {
        let is_gone = !self.answers_health_within(ALIVE_TIMEOUT);
        if is_gone {
            self.server_is_gone.store(true, Ordering::Release);
            self.writer.close();
        }
        is_gone
    }

    fn call(
        &self,
        id: u64,
        path: &str,
        mut input: Value,
        stream: bool,
        within: Duration,
    ) -> Result<Value, CallError> {
        if stream {
            enable_streaming(path, &mut input);
        }
        let body = (!input.is_null()).then(|| input.to_string());
        let mut response = self.respond(path, body.as_deref(), within + TIMEOUT_SLACK)?;
        let status = response.status();
        if !status.is_success() {
            return Err(CallError::Failed(http_error(status, &mut response)));
        }
        if stream && has_type(&response, "text/event-stream") {
            return self.pass_on(id, response);
        }
        let may_be_cut = has_type(&response, "application/json") && ends_with_connection(&response);
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_HARNESS_ANSWER as u64)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(|error| match error {
                ureq::Error::BodyExceedsLimit(most) => CallError::Failed(too_large("answer", most)),
                error => CallError::Fault(error_chain(&error)),
            })?;
        let value = match serde_json::from_str(&text) {
            Err(_) if may_be_cut => return Err(cut_short()),
            Err(_) => Value::String(text.clone()),
            Ok(value) => value,
        };
        if stream {
            self.writer.send_text(id, &text);
        }
        Ok(value)
    }

    /// Sends a request and waits for the head of the response. A request whose connection failed is
    /// sent once more, because no part of an answer has been passed on by then.
    fn respond(
        &self,
        path: &str,
        body: Option<&str>,
        within: Duration,
    ) -> Result<Response<Body>, CallError> {
        let until = Instant::now() + within;
        let first = self.send(path, body, until);
        let response = match first {
            Err(ureq::Error::Io(_)) => self.send(path, body, until),
            first => first,
        };
        response.map_err(|error| CallError::Fault(error_chain(&error)))
    }

    fn send(
        &self,
        path: &str,
        body: Option<&str>,
        until: Instant,
    ) -> Result<Response<Body>, ureq::Error> {
        let url = format!("{}{path}", self.address);
        let within = Some(until.saturating_duration_since(Instant::now()));
        match body {
            None => {
                let request = self.agent.get(url).config();
                let request = request.timeout_global(within).build();
                request.header(CONNECTION, "close").call()
            }
            Some(body) => {
                let request = self.agent.post(url).config();
                let request = request.timeout_global(within).build();
                request
                    .header(CONNECTION, "close")
                    .header(CONTENT_TYPE, "application/json")
                    .send(body)
            }
        }
    }

    /// Passes the events of a stream on as they arrive, and assembles the answer from them.
    fn pass_on(&self, id: u64, response: Response<Body>) -> Result<Value, CallError> {
        let failed = |failure: StreamFailure| CallError::Failed(to_exception(failure));
        let may_be_cut = ends_with_connection(&response);
        let mut reader = BufReader::new(response.into_body().into_reader()).take(MAX_STREAM_BYTES);
        let mut stream_answer = StreamAnswer::default();
        let mut line = Vec::new();
        loop {
            let read = reader.read_until(b'\n', &mut line);
            if self.is_cancelled(id) {
                let why = "the call was cancelled";
                return Err(CallError::Failed(exception("Cancelled", why)));
            }
            let read = read.map_err(|error| CallError::Fault(error_chain(&error)))?;
            if read == 0 {
                break;
            }
            let text = stream_answer.push_line(&String::from_utf8_lossy(&line));
            if let Some(text) = text.map_err(failed)? {
                self.writer.send_text(id, &text);
            }
            line.clear();
        }
        if reader.limit() == 0 {
            return Err(CallError::Failed(too_large("stream", MAX_STREAM_BYTES)));
        }
        if may_be_cut && stream_answer.is_within_event() {
            return Err(cut_short());
        }
        stream_answer.into_value().map_err(|failure| {
            if may_be_cut {
                cut_short()
            } else {
                failed(failure)
            }
        })
    }
}

fn too_large(what: &str, most: u64) -> Exception {
    let why = format!("the {what} is above the cap of {most} bytes");
    exception("AnswerTooLarge", &why)
}

fn cut_short() -> CallError {
    CallError::Fault("the connection was closed before the answer was complete".to_owned())
}

/// Turns an error that a stream reported into an exception.
fn to_exception(failure: StreamFailure) -> Exception {
    exception(&failure.name, &failure.message)
}

/// Adds the fields that make a server answer in events: `stream`, and for OpenAI's paths the option
/// for token counts at the end. Fields that the caller has set stay unchanged.
fn enable_streaming(path: &str, input: &mut Value) {
    if let Value::Object(body) = input {
        body.entry("stream").or_insert(Value::Bool(true));
        if path.starts_with("/v1/") {
            body.entry("stream_options")
                .or_insert_with(|| json!({"include_usage": true}));
        }
    }
}

/// Returns whether a body has this content type.
fn has_type(response: &Response<Body>, kind: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.to_ascii_lowercase().starts_with(kind))
}

/// Returns whether only the end of the connection marks the end of a body. If a server dies in the
/// middle of such a body, the body looks complete.
fn ends_with_connection(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let framed = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    !framed && response.status() != StatusCode::NO_CONTENT
}

fn http_error(status: StatusCode, response: &mut Response<Body>) -> Exception {
    let mut text = Vec::new();
    let reader = response.body_mut().as_reader();
    // The part of the body that was received is passed on, even if reading the rest fails.
    drop(reader.take(MAX_ERROR_BODY_BYTES).read_to_end(&mut text));
    exception(
        &format!("HTTP {}", status.as_u16()),
        &String::from_utf8_lossy(&text),
    )
}
