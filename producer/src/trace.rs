//! The trace context of a submitted job, taken from the caller's current OpenTelemetry span.
//!
//! This is a Cargo feature, so that producers without OpenTelemetry do not compile it. Without the
//! feature, a producer can still set a job's trace in its routing.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use sandhog_core::trace::TraceContext;

/// Returns the trace context of the current span, if there is one.
pub(crate) fn current_trace() -> Option<TraceContext> {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    let parent = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags()
    );
    // Without a span the ids are zeros, which `parse` rejects.
    TraceContext::parse(&parent, Some(&span.trace_state().header()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId};

    use super::*;

    #[test]
    fn the_current_span_is_the_jobs_submitter() {
        assert_eq!(current_trace(), None);
        let span = SpanContext::new(
            TraceId::from(7),
            SpanId::from(9),
            TraceFlags::SAMPLED,
            false,
            "congo=t61rcWkgMzE".parse().unwrap(),
        );
        let _entered = Context::new().with_remote_span_context(span).attach();
        let trace = current_trace().unwrap();
        assert_eq!(
            trace.traceparent(),
            "00-00000000000000000000000000000007-0000000000000009-01"
        );
        assert_eq!(trace.tracestate(), Some("congo=t61rcWkgMzE"));
    }
}
