//! Creation and sending of the spans of one worker.

use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanBuilder, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use sandhog_core::clock::{Clock, SystemClock};
use sandhog_core::id::{Namespace, WorkerId};
use sandhog_queue::BoundJob;

use super::attempt_trace::{AttemptTrace, remote_span};
use super::error::TraceError;
use super::exporter::exporter;

/// Time that the last spans have to be sent when a worker stops.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(3);

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
                .with_batch_exporter(exporter(endpoint)?)
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
            .and_then(remote_span)
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
        AttemptTrace::new(self.tracer.clone(), attempt)
    }

    fn builder(&self, name: &'static str, kind: SpanKind) -> SpanBuilder {
        self.tracer.span_builder(name).with_kind(kind)
    }

    /// Sends the remaining spans, for a few seconds at most.
    pub(crate) async fn stop(self) {
        if !self.sends {
            return;
        }
        let stopped = tokio::task::spawn_blocking(move || {
            self.provider.shutdown_with_timeout(LAST_SPANS_TIMEOUT)
        });
        match stopped.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }
}

/// Returns whether the standard variables name this service.
fn is_named(detected: &Resource) -> bool {
    let name = detected.get(&Key::from_static_str("service.name"));
    name.is_some_and(|name| !name.as_str().starts_with("unknown_service"))
}
