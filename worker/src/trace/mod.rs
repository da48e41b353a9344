//! Spans of attempts, as part of the submitter's trace.
//!
//! Each attempt creates four spans. `queue wait` and `attempt` are children of the span that
//! submitted the job. `sandbox`, the time until a container was ready, and `cell`, the run of the
//! program, are children of `attempt`. The program receives the `cell` span in its environment, so
//! that its own spans become children of it.
//!
//! Tracing never delays a job: spans wait in a bounded queue, are dropped while it is full, and are
//! sent from a separate thread. A span never contains output of a job.

mod export;

use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use sandhog_common::clock::{Clock, SystemClock};
use sandhog_common::id::{Namespace, WorkerId};
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::BoundJob;
use sandhog_common::trace::TraceContext;

/// Time that the last spans have to be sent when a worker stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Reason for which spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The machine's certificates cannot be read, so no receiver can be trusted.
    #[error("certificates for telemetry.otlp cannot be read")]
    Certificates {
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The address or one of the standard variables is invalid.
    #[error("spans cannot be sent to {endpoint:?}")]
    Exporter {
        /// The configured address.
        endpoint: String,
        /// The cause.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Creates and sends spans for one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    namespace: Namespace,
    sends: bool,
}

impl Tracing {
    /// Starts sending spans to the receiver at `endpoint`. Without an endpoint, no spans are sent,
    /// but the programs of jobs that have a trace still receive its ids.
    ///
    /// Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// If the endpoint cannot be used. The receiver is not contacted.
    pub(crate) fn start(
        endpoint: Option<&str>,
        namespace: &Namespace,
        worker: &WorkerId,
    ) -> Result<Self, TraceError> {
        let mut provider = SdkTracerProvider::builder();
        if let Some(endpoint) = endpoint {
            let resource = Resource::builder().with_attributes([
                KeyValue::new("service.instance.id", worker.to_string()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ]);
            let resource = if is_named(&Resource::builder().build()) {
                resource
            } else {
                resource.with_service_name("sandhog")
            };
            provider = provider
                .with_batch_exporter(export::exporter(endpoint)?)
                .with_resource(resource.build());
        }
        let provider = provider.build();
        Ok(Self {
            tracer: provider.tracer("sandhog"),
            provider,
            namespace: namespace.clone(),
            sends: endpoint.is_some(),
        })
    }

    /// Returns a handle for another namespace of the worker.
    pub(crate) fn of(&self, namespace: &Namespace) -> Self {
        Self {
            namespace: namespace.clone(),
            ..self.clone()
        }
    }

    /// Starts the span of an attempt that begins now, and records the span of its wait in the
    /// queue.
    pub(crate) fn attempt(&self, bound: &BoundJob) -> AttemptTrace {
        if bound.trace.is_none() && !self.sends {
            return AttemptTrace::default();
        }
        let submitter = bound
            .trace
            .as_ref()
            .and_then(remote)
            .map_or_else(Context::new, |span| {
                Context::new().with_remote_span_context(span)
            });
        let about = [
            KeyValue::new("messaging.system", "sandhog"),
            KeyValue::new("messaging.destination.name", self.namespace.to_string()),
            KeyValue::new("messaging.message.id", bound.lease.id.to_string()),
            KeyValue::new("sandhog.class", bound.lease.class.to_string()),
            KeyValue::new("sandhog.tenant", bound.tenant.to_string()),
            KeyValue::new("sandhog.attempt", i64::from(bound.attempts)),
        ];
        let attempt = self
            .builder("attempt", SpanKind::Consumer)
            .with_attributes(about.clone());
        let ready_at = SystemClock.now().0.saturating_sub(bound.waited.0);
        let wait = self
            .builder("queue wait", SpanKind::Internal)
            .with_attributes(about)
            .with_start_time(UNIX_EPOCH + Duration::from_millis(ready_at));
        let attempt = submitter.with_span(self.tracer.build_with_context(attempt, &submitter));
        // Without a span of the submitter, the attempt is the root and the wait becomes its child.
        let above = if submitter.has_active_span() {
            &submitter
        } else {
            &attempt
        };
        let wait = above.with_span(self.tracer.build_with_context(wait, above));
        wait.span().end();
        AttemptTrace(Some(Traced {
            tracer: self.tracer.clone(),
            context: attempt,
        }))
    }

    fn builder(&self, name: &'static str, kind: SpanKind) -> SpanBuilder {
        self.tracer.span_builder(name).with_kind(kind)
    }

    /// Sends the remaining spans, for a few seconds at most.
    pub(crate) async fn stop(self) {
        if !self.sends {
            return;
        }
        let stopped =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_WORDS));
        match stopped.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// The spans of one attempt. Empty if its job has no trace and the worker sends no spans. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct AttemptTrace(Option<Traced>);

#[derive(Debug, Clone)]
struct Traced {
    tracer: SdkTracer,
    /// The attempt's own span.
    context: Context,
}

impl AttemptTrace {
    /// Starts a step of the attempt.
    #[must_use]
    pub fn step(&self, name: &'static str) -> Step {
        Step(self.0.as_ref().map(|traced| {
            let step = traced.tracer.span_builder(name);
            let step = traced.tracer.build_with_context(step, &traced.context);
            traced.context.with_span(step)
        }))
    }

    /// Ends the attempt with its program's outcome: an error unless it succeeded or was cancelled.
    pub(crate) fn ended(&self, outcome: Outcome) {
        let Some(Traced { context, .. }) = &self.0 else {
            return;
        };
        let span = context.span();
        span.set_attribute(KeyValue::new("sandhog.outcome", outcome.as_str()));
        match outcome {
            Outcome::Succeeded => span.set_status(Status::Ok),
            Outcome::Cancelled => {}
            Outcome::Failed
            | Outcome::TimedOut
            | Outcome::CpuLimit
            | Outcome::OutOfMemory
            | Outcome::ProcessLimit
            | Outcome::ScratchLimit
            | Outcome::OutputLimit
            | Outcome::Expired
            | Outcome::Rejected
            | Outcome::Lost => span.set_status(Status::error(outcome.as_str())),
        }
        span.end();
    }

    /// Ends the span of an attempt that did not settle its job: the job is retried, was given back,
    /// or now belongs to another worker.
    pub(crate) fn unsettled(&self, why: &'static str) {
        let Some(Traced { context, .. }) = &self.0 else {
            return;
        };
        context.span().set_status(Status::error(why));
        context.span().end();
    }
}

/// One step of an attempt. The step ends when this is dropped.
#[derive(Debug)]
pub struct Step(Option<Context>);

impl Step {
    /// Returns the environment variables that identify the step's span to a program: `TRACEPARENT`,
    /// and `TRACESTATE` if there is one.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let Some(context) = &self.0 else {
            return Vec::new();
        };
        let span = context.span();
        let span = span.span_context();
        let parent = format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags()
        );
        let state = span.trace_state().header();
        let mut variables = vec![("TRACEPARENT".to_owned(), parent)];
        if !state.is_empty() {
            variables.push(("TRACESTATE".to_owned(), state));
        }
        variables
    }

    /// Adds the span's variables to a program's environment, unless it already sets `TRACEPARENT`.
    pub fn tell(&self, environment: &mut Vec<(String, String)>) {
        if environment.iter().all(|(name, _)| name != "TRACEPARENT") {
            environment.extend(self.variables());
        }
    }

    /// Ends the step as failed. The reason is a fixed word of the worker, never text of the
    /// program.
    pub fn fail(self, why: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(why));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Converts the span that submitted a job into the type of the OpenTelemetry library.
fn remote(trace: &TraceContext) -> Option<SpanContext> {
    let parts: Vec<&str> = trace.traceparent().split('-').collect();
    let [_version, trace_id, span_id, flags] = parts.as_slice() else {
        return None;
    };
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let state = trace.tracestate().and_then(|state| state.parse().ok());
    Some(SpanContext::new(
        TraceId::from_hex(trace_id).ok()?,
        SpanId::from_hex(span_id).ok()?,
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        state.unwrap_or(TraceState::NONE),
    ))
}

/// Returns whether the standard variables name this service.
fn is_named(detected: &Resource) -> bool {
    let name = detected.get(&Key::from_static_str("service.name"));
    name.is_some_and(|name| !name.as_str().starts_with("unknown_service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(parent: &str, state: Option<&str>) -> AttemptTrace {
        let provider = SdkTracerProvider::builder().build();
        let trace = TraceContext::parse(parent, state).unwrap();
        let span = remote(&trace).unwrap();
        let tracer = provider.tracer("test");
        let submitter = Context::new().with_remote_span_context(span);
        let attempt = tracer.build_with_context(tracer.span_builder("attempt"), &submitter);
        AttemptTrace(Some(Traced {
            tracer,
            context: submitter.with_span(attempt),
        }))
    }

    #[test]
    fn a_program_is_told_of_a_span_of_its_own_in_the_same_trace() {
        let trace = traced(PARENT, Some("congo=t61rcWkgMzE"));
        let [parent, state] = trace.step("cell").variables().try_into().unwrap();
        assert_eq!(parent.0, "TRACEPARENT");
        assert!(parent.1.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(parent.1.ends_with("-01") && parent.1 != PARENT);
        assert_eq!(
            state,
            ("TRACESTATE".to_owned(), "congo=t61rcWkgMzE".to_owned())
        );
        let again = trace.step("cell").variables();
        assert_ne!(again[0], parent, "each step is a span of its own");
        assert_eq!(
            TraceContext::parse(&again[0].1, None)
                .unwrap()
                .traceparent(),
            again[0].1
        );
    }

    #[test]
    fn a_jobs_own_context_stands() {
        let step = traced(PARENT, None).step("cell");
        let own = vec![("TRACEPARENT".to_owned(), "own".to_owned())];
        let mut kept = own.clone();
        step.tell(&mut kept);
        assert_eq!(kept, own);
        let mut told = vec![("HOME".to_owned(), "/".to_owned())];
        step.tell(&mut told);
        assert_eq!(told[1..], step.variables());
    }

    #[test]
    fn what_its_submitter_does_not_sample_is_not_sampled() {
        let trace = traced(&PARENT.replace("-01", "-00"), None);
        let variables = trace.step("cell").variables();
        assert_eq!(variables.len(), 1);
        assert!(variables[0].1.ends_with("-00"), "{variables:?}");
    }

    #[test]
    fn without_a_trace_a_program_is_told_nothing() {
        assert_eq!(AttemptTrace::default().step("cell").variables(), []);
    }
}
