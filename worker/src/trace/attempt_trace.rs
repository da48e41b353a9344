//! Spans of one attempt and of its steps.

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use sandhog_core::outcome::Outcome;
use sandhog_core::trace::TraceContext;

/// The spans of one attempt. Empty if its job has no trace and the worker sends no spans. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct AttemptTrace(Option<ActiveTrace>);

/// The spans of an attempt that is traced.
#[derive(Debug, Clone)]
struct ActiveTrace {
    tracer: SdkTracer,
    /// The attempt's own span.
    context: Context,
}

impl AttemptTrace {
    /// Creates the trace of an attempt whose own span is active in `context`.
    pub(super) fn new(tracer: SdkTracer, context: Context) -> Self {
        Self(Some(ActiveTrace { tracer, context }))
    }

    /// Starts a step of the attempt.
    #[must_use]
    pub fn step(&self, name: &'static str) -> StepSpan {
        StepSpan(self.0.as_ref().map(|traced| {
            let step = traced.tracer.span_builder(name);
            let step = traced.tracer.build_with_context(step, &traced.context);
            traced.context.with_span(step)
        }))
    }

    /// Ends the attempt with its program's outcome: an error unless it succeeded or was cancelled.
    pub(crate) fn end_with_outcome(&self, outcome: Outcome) {
        let Some(ActiveTrace { context, .. }) = &self.0 else {
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
    pub(crate) fn end_unsettled(&self, why: &'static str) {
        let Some(ActiveTrace { context, .. }) = &self.0 else {
            return;
        };
        context.span().set_status(Status::error(why));
        context.span().end();
    }
}

/// One step of an attempt. The step ends when this is dropped.
#[derive(Debug)]
pub struct StepSpan(Option<Context>);

impl StepSpan {
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
    pub fn add_to_environment(&self, environment: &mut Vec<(String, String)>) {
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

impl Drop for StepSpan {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Converts the span that submitted a job into the type of the OpenTelemetry library.
pub(super) fn remote_span(trace: &TraceContext) -> Option<SpanContext> {
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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(parent: &str, state: Option<&str>) -> AttemptTrace {
        let provider = SdkTracerProvider::builder().build();
        let trace = TraceContext::parse(parent, state).unwrap();
        let span = remote_span(&trace).unwrap();
        let tracer = provider.tracer("test");
        let submitter = Context::new().with_remote_span_context(span);
        let attempt = tracer.build_with_context(tracer.span_builder("attempt"), &submitter);
        AttemptTrace::new(tracer, submitter.with_span(attempt))
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
        step.add_to_environment(&mut kept);
        assert_eq!(kept, own);
        let mut told = vec![("HOME".to_owned(), "/".to_owned())];
        step.add_to_environment(&mut told);
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
