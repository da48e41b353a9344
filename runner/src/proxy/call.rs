//! One call as one HTTP request, each in a thread of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandhog_runner::model::FromServer;
use sandhog_runner::protocol::{Exception, MAX_ANSWER};
use serde_json::{Value, json};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::events::{Assembly, Failure};
use super::{Voice, exception};

/// How long the health path may take to answer.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// The most of an error's body that is passed on, in bytes.
const KEPT_OF_ERROR: u64 = 8 << 10;

/// The most of a stream that is read, in bytes: an answer, and what each event says around its piece.
const MAX_STREAM: u64 = 4 * MAX_ANSWER as u64;

/// Makes requests of one server.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    agent: Agent,
    address: String,
    voice: Voice,
    /// Calls that have not ended, and whether anybody waits for each.
    open: Arc<Mutex<HashMap<u64, bool>>>,
}

impl Caller {
    /// Calls the server on this port of the cell's loopback.
    pub(super) fn new(port: u16, voice: Voice) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            .build();
        Self {
            agent: config.into(),
            address: format!("http://127.0.0.1:{port}"),
            voice,
            open: Arc::default(),
        }
    }

    /// Whether the server says that it is ready.
    pub(super) fn is_healthy(&self, path: &str) -> bool {
        let asked = self
            .agent
            .get(format!("{}{path}", self.address))
            .config()
            .timeout_global(Some(HEALTH_WITHIN))
            .build()
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
            self.finish(id, Err(exception("ServerError", &why)));
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

    fn finish(&self, id: u64, answer: Result<Value, Exception>) {
        let frame = match answer {
            Ok(value) => FromServer::Result {
                id,
                index: 0,
                value,
            },
            Err(exception) => FromServer::Error {
                id,
                index: 0,
                exception,
            },
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
    }

    fn call(
        &self,
        id: u64,
        path: &str,
        mut input: Value,
        stream: bool,
        within: Duration,
    ) -> Result<Value, Exception> {
        if stream {
            ask_for_events(path, &mut input);
        }
        let url = format!("{}{path}", self.address);
        let failed = |error: ureq::Error| match error {
            ureq::Error::BodyExceedsLimit(most) => too_large("answer", most),
            error => exception("ServerError", &crate::chain(&error)),
        };
        let mut response = if input.is_null() {
            let request = self.agent.get(url).config();
            request.timeout_global(Some(within)).build().call()
        } else {
            let request = self.agent.post(url).config();
            request
                .timeout_global(Some(within))
                .build()
                .header("content-type", "application/json")
                .send(input.to_string())
        }
        .map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, &mut response));
        }
        if stream && is_events(&response) {
            return self.pass_on(id, response);
        }
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER as u64)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(failed)?;
        if stream {
            self.voice.say(&FromServer::Chunk {
                id,
                text: text.clone(),
            });
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Passes events on as they come; the answer is what they amount to.
    fn pass_on(&self, id: u64, response: Response<Body>) -> Result<Value, Exception> {
        let failed = |error: std::io::Error| exception("ServerError", &crate::chain(&error));
        let mut reader = BufReader::new(response.into_body().into_reader()).take(MAX_STREAM);
        let mut assembly = Assembly::default();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            if self.is_cancelled(id) {
                break;
            }
            let said = assembly.line(&String::from_utf8_lossy(&line));
            if let Some(text) = said.map_err(told)? {
                self.voice.say(&FromServer::Chunk { id, text });
            }
            line.clear();
        }
        if reader.limit() == 0 {
            return Err(too_large("stream", MAX_STREAM));
        }
        assembly.whole().map_err(told)
    }
}

fn too_large(what: &str, most: u64) -> Exception {
    let why = format!("the {what} is above the cap of {most} bytes");
    exception("AnswerTooLarge", &why)
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

fn is_events(response: &Response<Body>) -> bool {
    response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("text/event-stream"))
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
