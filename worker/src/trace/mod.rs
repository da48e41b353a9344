//! Spans: what an attempt spent its time on, as part of its submitter's trace.
//!
//! Each attempt makes four. `queue wait` and `attempt` are children of the span the job was submitted by; `sandbox`, the
//! time until a container was ready, and `cell`, the program's run, are children of `attempt`. The program is told of
//! `cell` in its environment, so that its own spans go below it.
//!
//! It refuses to hold a job up: spans wait in a bounded queue, are dropped where that is full, and are sent from a thread
//! of their own. Nothing a job printed is ever in a span.

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

/// How long the last spans may take to be sent when a worker stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The machine's certificates cannot be read, so no receiver can be trusted.
    #[error("certificates for telemetry.otlp cannot be read")]
    Certificates {
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The address or one of the standard variables cannot be meant.
    #[error("spans cannot be sent to {endpoint:?}")]
    Exporter {
        /// Where they should go.
        endpoint: String,
        /// What is wrong.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Makes and sends spans for one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    namespace: Namespace,
    sends: bool,
}

impl Tracing {
    /// Sends spans to the receiver at `endpoint`; without one, ids are still passed on from jobs that have a trace.
    ///
    /// Call it in a Tokio runtime.
    ///
    /// # Errors
    /// When the endpoint cannot be used. Whether anybody listens there is not asked.
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

    /// The same for another of the worker's namespaces.
    pub(crate) fn of(&self, namespace: &Namespace) -> Self {
        Self {
            namespace: namespace.clone(),
            ..self.clone()
        }
    }

    /// The spans of an attempt that begins now, and of its wait in the queue.
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
        // With no submitter's span the attempt is the root, and the wait goes below it.
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

    /// Sends what is left, for a few seconds at most.
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

/// The spans of one attempt; none when its job has no trace and nobody wants any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AttemptTrace(Option<Traced>);

#[derive(Debug, Clone)]
struct Traced {
    tracer: SdkTracer,
    /// The attempt's own span.
    context: Context,
}

impl AttemptTrace {
    /// Begins a step of the attempt.
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

    /// Ends an attempt that did not settle its job: it is tried again, given back, or another worker's by now.
    pub(crate) fn unsettled(&self, why: &'static str) {
        let Some(Traced { context, .. }) = &self.0 else {
            return;
        };
        context.span().set_status(Status::error(why));
        context.span().end();
    }
}

/// One step of an attempt. It ends when it is dropped.
#[derive(Debug)]
pub struct Step(Option<Context>);

impl Step {
    /// The variables that tell a program which span it runs in: `TRACEPARENT`, and `TRACESTATE` where there is one.
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

    /// Tells a program which span it runs in, unless its environment says something else already.
    pub fn tell(&self, environment: &mut Vec<(String, String)>) {
        if environment.iter().all(|(name, _)| name != "TRACEPARENT") {
            environment.extend(self.variables());
        }
    }

    /// Ends it as failed for this reason, which is one of our own words.
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

/// The span a job was submitted by, as the library knows it.
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

/// Whether the standard variables name this service.
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
