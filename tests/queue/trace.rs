//! Spans as a real OTLP receiver gets them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Verdict;
use prost::Message as _;
use sandhog_config::Settings;
use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::trace::TraceContext;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_testkit::namespace::decode;
use tokio::net::TcpListener;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, soon};
use crate::scripted_worker::{ending, start, stop, worker_settings};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SUBMITTER: &str = "b7ad6b7169203331";

/// A receiver on loopback and the requests that it received.
struct Receiver {
    address: String,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Receiver {
    /// Starts a receiver that accepts everything, or one that always replies with an error.
    async fn start(takes: bool) -> Self {
        let requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let receive = move |State(into): State<Arc<Mutex<Vec<_>>>>, body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
            into.lock().unwrap().push(request);
            if takes {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let app = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(Arc::clone(&requests));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, requests }
    }

    fn settings(&self, fixture: &QueueFixture) -> Settings {
        let mut settings = worker_settings(fixture);
        settings.telemetry.otlp = Some(self.address.clone());
        settings
    }

    /// Returns every span so far.
    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }

    /// Returns an attribute of the sender's resource.
    fn resource(&self, name: &str) -> Option<String> {
        let requests = self.requests.lock().unwrap();
        let resource = requests.first()?.resource_spans.first()?.resource.clone()?;
        let found = resource.attributes.into_iter().find(|kv| kv.key == name)?;
        match found.value?.value? {
            Value::StringValue(text) => Some(text),
            other => panic!("{name} is {other:?}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|kv| kv.key == name)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// Returns the spans of this name, in order of their start.
fn named(spans: &[Span], name: &str) -> Vec<Span> {
    let mut found: Vec<Span> = spans.iter().filter(|s| s.name == name).cloned().collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn verdict(span: &Span) -> (Verdict, String) {
    let status = span.status.clone().unwrap_or_default();
    (status.code(), status.message)
}

fn submitted() -> Option<TraceContext> {
    TraceContext::parse(
        &format!("00-{TRACE}-{SUBMITTER}-01"),
        Some("congo=t61rcWkgMzE"),
    )
}

impl QueueFixture {
    /// Submits a job that ends as `how` says, and waits for its result.
    async fn run_to(&self, how: &str, trace: Option<TraceContext>) -> (JobId, JobResult) {
        let routing = Routing {
            trace,
            backoff: Millis(1),
            ..Routing::default()
        };
        let payload = wire::encode(&ending(how), Encoding::Json);
        let id = self.queue.submit(&routing, &payload).await.unwrap();
        let mut waiter = self.queue.result_waiter().await.unwrap();
        let result = waiter.wait(&id, WAIT_TIMEOUT).await.unwrap();
        (id, decode(&result.expect("a worker is there")))
    }
}

#[tokio::test]
async fn an_attempts_spans_are_part_of_its_submitters_trace() {
    let fixture = QueueFixture::shared("trace").await;
    let receiver = Receiver::start(true).await;
    let worker = start(&receiver.settings(&fixture)).await;
    let name = worker.id().to_string();
    let (id, result) = fixture.run_to("succeeded", submitted()).await;
    stop(worker).await;

    let spans = receiver.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let one = |name: &str| {
        named(&spans, name)
            .pop()
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let (wait, attempt) = (one("queue wait"), one("attempt"));
    let (sandbox, cell) = (one("sandbox"), one("cell"));
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert_eq!(hex(&wait.parent_span_id), SUBMITTER);
    assert_eq!(hex(&attempt.parent_span_id), SUBMITTER);
    assert_eq!(sandbox.parent_span_id, attempt.span_id);
    assert_eq!(cell.parent_span_id, attempt.span_id);
    assert_eq!(attempt.kind(), SpanKind::Consumer);
    assert_eq!(attempt.trace_state, "congo=t61rcWkgMzE");
    assert_eq!(verdict(&attempt), (Verdict::Ok, String::new()));
    for (key, want) in [
        ("messaging.message.id", id.as_str()),
        ("sandhog.class", "cpu"),
        ("sandhog.tenant", "default"),
        ("sandhog.attempt", "1"),
        ("sandhog.outcome", "succeeded"),
    ] {
        assert_eq!(attribute(&attempt, key).as_deref(), Some(want), "{key}");
    }
    assert_eq!(receiver.resource("service.instance.id"), Some(name));
    assert!(receiver.resource("service.name").is_some());

    // The program gets the cell's own span as its parent.
    let told = serde_json::json!([
        [
            "TRACEPARENT",
            format!("00-{TRACE}-{}-01", hex(&cell.span_id))
        ],
        ["TRACESTATE", "congo=t61rcWkgMzE"]
    ]);
    assert_eq!(result.value, Some(told));
}

#[tokio::test]
async fn what_goes_wrong_is_the_spans_status() {
    let fixture = QueueFixture::shared("trace-wrong").await;
    let receiver = Receiver::start(true).await;
    let worker = start(&receiver.settings(&fixture)).await;
    let mut want = Vec::new();
    for (how, outcome) in [
        ("failed", Outcome::Failed),
        ("timed_out", Outcome::TimedOut),
        ("rejected", Outcome::Rejected),
        ("cancelled", Outcome::Cancelled),
    ] {
        let (id, result) = fixture.run_to(how, None).await;
        assert_eq!(result.outcome, outcome);
        want.push((id, how));
    }
    let (lost, result) = fixture.run_to("fault", submitted()).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
    stop(worker).await;

    let spans = receiver.spans();
    let attempts = named(&spans, "attempt");
    let of = |id: &JobId| -> Vec<&Span> {
        let own =
            |span: &&Span| attribute(span, "messaging.message.id").as_deref() == Some(id.as_str());
        attempts.iter().filter(own).collect()
    };
    for (id, how) in &want {
        let [attempt] = of(id)[..] else {
            panic!("one attempt of {how}");
        };
        let status = match *how {
            "cancelled" => (Verdict::Unset, String::new()),
            wrong => (Verdict::Error, wrong.to_owned()),
        };
        assert_eq!(verdict(attempt), status, "{how}");
        assert!(
            attempt.parent_span_id.is_empty(),
            "{how} has a separate trace"
        );
        let waits = named(&spans, "queue wait");
        let below = waits.iter().filter(|w| w.parent_span_id == attempt.span_id);
        assert_eq!(below.count(), 1, "{how}: the wait is in the same trace");
    }
    let [first, second] = of(&lost)[..] else {
        panic!("two attempts");
    };
    assert_eq!(verdict(first), (Verdict::Error, "lost".to_owned()));
    assert_eq!(verdict(second), (Verdict::Ok, String::new()));
    assert_eq!(attribute(second, "sandhog.attempt").as_deref(), Some("2"));
    assert_eq!(first.trace_id, second.trace_id);
    let died = named(&spans, "cell")
        .into_iter()
        .filter(|cell| verdict(cell) == (Verdict::Error, "died".to_owned()));
    assert_eq!(died.count(), 1);
}

#[tokio::test]
async fn a_receiver_that_fails_disturbs_no_job() {
    let fixture = QueueFixture::shared("trace-refused").await;
    let failing = Receiver::start(false).await;
    // A port that accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    for (case, address) in [
        ("failing", failing.address.clone()),
        ("silent", format!("http://{}", silent.local_addr().unwrap())),
        ("closed", format!("http://{closed}")),
        ("no such host", "http://receiver.invalid:4318".to_owned()),
    ] {
        let mut settings = worker_settings(&fixture);
        settings.telemetry.otlp = Some(address);
        let worker = start(&settings).await;
        for _ in 0..3 {
            let (_, result) = soon(fixture.run_to("succeeded", None)).await;
            assert_eq!(result.outcome, Outcome::Succeeded, "case {case}");
        }
        stop(worker).await;
    }
    assert!(!failing.spans().is_empty(), "it was asked");
}

#[tokio::test]
async fn ids_are_passed_on_though_nobody_collects_spans() {
    let fixture = QueueFixture::shared("trace-quiet").await;
    let worker = start(&worker_settings(&fixture)).await;
    let (_, traced) = fixture.run_to("succeeded", submitted()).await;
    let (_, bare) = fixture.run_to("succeeded", None).await;
    stop(worker).await;
    let told = traced.value.unwrap();
    let parent = told[0][1].as_str().unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")), "{parent}");
    assert!(!parent.contains(SUBMITTER), "the cell is a span of its own");
    assert_eq!(bare.value, Some(serde_json::json!([])));
}
