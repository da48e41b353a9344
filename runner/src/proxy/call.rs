//! One call as one HTTP request, each in a thread and on a connection of its own.
//!
//! No connection is used twice: a server may close one that it kept open at any moment, also in the
//! one in which the next request is sent. What becomes of a call is one of three things: an answer,
//! a failure that the server or the answer itself is the reason of, or a fault of the connection. A
//! fault is not the call's doing, so the worker tries its job again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandhog_runner::model::FromServer;
use sandhog_runner::protocol::{Exception, MAX_ANSWER};
use serde_json::{Value, json};
use ureq::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::events::{Assembly, Failure};
use super::{Voice, exception};

/// Timeout of the health path while the server starts.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of the health path after a connection failed: a busy server may be slow.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that a call is given beyond its own timeout. The worker keeps that one; this only ends
/// calls that it gave up.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// The most of an error's body that is passed on, in bytes.
const KEPT_OF_ERROR: u64 = 8 << 10;

/// The most of a stream that is read, in bytes: an answer, and what each event says around its piece.
const MAX_STREAM: u64 = 4 * MAX_ANSWER as u64;

/// Client of one server.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    agent: Agent,
    address: String,
    health: String,
    voice: Voice,
    /// Calls that have not ended, and whether anybody waits for each.
    open: Arc<Mutex<HashMap<u64, bool>>>,
    /// Set once the server was found not to answer any more.
    server_is_gone: Arc<AtomicBool>,
}

/// Why a call has no answer.
#[derive(Debug)]
enum Unanswered {
    /// The server refused it, or its answer cannot be passed on.
    Failed(Exception),
    /// The connection failed before the answer was whole.
    Fault(String),
}

impl Caller {
    /// Calls the server on this port of the cell's loopback, which answers 2xx under the path
    /// `health`.
    pub(super) fn new(port: u16, health: &str, voice: Voice) -> Self {
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
            voice,
            open: Arc::default(),
            server_is_gone: Arc::default(),
        }
    }

    /// Whether the server says that it is ready.
    pub(super) fn is_healthy(&self) -> bool {
        self.answers_health_within(HEALTH_TIMEOUT)
    }

    /// Returns whether the server was found not to answer any more; the voice has hung up then.
    pub(super) fn server_is_gone(&self) -> bool {
        self.server_is_gone.load(Ordering::Acquire)
    }

    fn answers_health_within(&self, timeout: Duration) -> bool {
        let asked = self
            .agent
            .get(format!("{}{}", self.address, self.health))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header(CONNECTION, "close")
            .call();
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Has a call answered in a thread of its own.
    pub(super) fn begin(
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
            self.finish(id, Err(Unanswered::Fault(why)));
        }
    }

    /// Remembers that nobody waits for a call, if it has not ended: a stream of it is hung up on at its next event.
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

    /// Tells what became of a call. A fault of a server that is gone is told by hanging up: its job
    /// would otherwise be tried again on the same server, before the worker knows that it needs
    /// another one.
    fn finish(&self, id: u64, answer: Result<Value, Unanswered>) {
        let is_fault = matches!(answer, Err(Unanswered::Fault(_)));
        let is_wanted = !self.is_cancelled(id);
        if is_fault && is_wanted && self.hangs_up_if_server_is_gone() {
            return;
        }
        let frame = match answer {
            Ok(value) => FromServer::Result {
                id,
                index: 0,
                value,
            },
            Err(Unanswered::Failed(exception)) => FromServer::Error {
                id,
                index: 0,
                exception,
            },
            Err(Unanswered::Fault(why)) => FromServer::Fault { id, why },
        };
        if !self.voice.say(&frame) {
            self.voice.say(&FromServer::Error {
                id,
                index: 0,
                exception: too_large("answer", MAX_ANSWER as u64),
            });
        }
        if let Ok(mut open) = self.open.lock() {
            open.remove(&id);
        }
        self.voice.say(&FromServer::Done { id });
        if is_fault && !is_wanted {
            self.hangs_up_if_server_is_gone();
        }
    }

    /// Hangs up if the server does not answer its health path any more. Returns whether it hung up.
    fn hangs_up_if_server_is_gone(&self) -> bool {
        let is_gone = !self.answers_health_within(ALIVE_TIMEOUT);
        if is_gone {
            self.server_is_gone.store(true, Ordering::Release);
            self.voice.hang_up();
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
    ) -> Result<Value, Unanswered> {
        if stream {
            ask_for_events(path, &mut input);
        }
        let body = (!input.is_null()).then(|| input.to_string());
        let mut response = self.respond(path, body.as_deref(), within + TIMEOUT_SLACK)?;
        let status = response.status();
        if !status.is_success() {
            return Err(Unanswered::Failed(refused(status, &mut response)));
        }
        if stream && has_type(&response, "text/event-stream") {
            return self.pass_on(id, response);
        }
        let may_be_cut = has_type(&response, "application/json") && ends_with_connection(&response);
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER as u64)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(|error| match error {
                ureq::Error::BodyExceedsLimit(most) => {
                    Unanswered::Failed(too_large("answer", most))
                }
                error => Unanswered::Fault(crate::chain(&error)),
            })?;
        let value = match serde_json::from_str(&text) {
            Err(_) if may_be_cut => return Err(cut_short()),
            Err(_) => Value::String(text.clone()),
            Ok(value) => value,
        };
        if stream {
            self.voice.say_text(id, &text);
        }
        Ok(value)
    }

    /// Sends a request until the head of its answer has come. Nothing of an answer has been passed
    /// on by then, so a request whose connection failed is sent once more.
    fn respond(
        &self,
        path: &str,
        body: Option<&str>,
        within: Duration,
    ) -> Result<Response<Body>, Unanswered> {
        let until = Instant::now() + within;
        let first = self.send(path, body, until);
        let response = match first {
            Err(ureq::Error::Io(_)) => self.send(path, body, until),
            first => first,
        };
        response.map_err(|error| Unanswered::Fault(crate::chain(&error)))
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

    /// Passes events on as they come; the answer is what they amount to.
    fn pass_on(&self, id: u64, response: Response<Body>) -> Result<Value, Unanswered> {
        let failed = |failure: Failure| Unanswered::Failed(told(failure));
        let may_be_cut = ends_with_connection(&response);
        let mut reader = BufReader::new(response.into_body().into_reader()).take(MAX_STREAM);
        let mut assembly = Assembly::default();
        let mut line = Vec::new();
        loop {
            let read = reader.read_until(b'\n', &mut line);
            if self.is_cancelled(id) {
                let why = "nobody waits for this call any more";
                return Err(Unanswered::Failed(exception("Cancelled", why)));
            }
            let read = read.map_err(|error| Unanswered::Fault(crate::chain(&error)))?;
            if read == 0 {
                break;
            }
            let said = assembly.line(&String::from_utf8_lossy(&line));
            if let Some(text) = said.map_err(failed)? {
                self.voice.say_text(id, &text);
            }
            line.clear();
        }
        if reader.limit() == 0 {
            return Err(Unanswered::Failed(too_large("stream", MAX_STREAM)));
        }
        if may_be_cut && assembly.is_within_event() {
            return Err(cut_short());
        }
        assembly.whole().map_err(|failure| {
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

fn cut_short() -> Unanswered {
    Unanswered::Fault("it was closed before the answer was whole".to_owned())
}

/// What a stream said of its end.
fn told(failure: Failure) -> Exception {
    exception(&failure.name, &failure.message)
}

/// What makes a server answer in events: `stream`, and for OpenAI's paths the token counts at the end. What the
/// caller set itself stays as it is.
fn ask_for_events(path: &str, input: &mut Value) {
    if let Value::Object(body) = input {
        body.entry("stream").or_insert(Value::Bool(true));
        if path.starts_with("/v1/") {
            body.entry("stream_options")
                .or_insert_with(|| json!({"include_usage": true}));
        }
    }
}

/// Returns whether a body is of this kind.
fn has_type(response: &Response<Body>, kind: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.to_ascii_lowercase().starts_with(kind))
}

/// Returns whether only the end of the connection says that a body is whole, so that a server that
/// died in the middle of it looks like one that came to its end.
fn ends_with_connection(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let framed = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    !framed && response.status() != StatusCode::NO_CONTENT
}

fn refused(status: StatusCode, response: &mut Response<Body>) -> Exception {
    let mut text = Vec::new();
    let reader = response.body_mut().as_reader();
    // What has come of it is shown, even when the rest does not.
    drop(reader.take(KEPT_OF_ERROR).read_to_end(&mut text));
    exception(
        &format!("HTTP {}", status.as_u16()),
        &String::from_utf8_lossy(&text),
    )
}
