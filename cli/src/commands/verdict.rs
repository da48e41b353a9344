//! The reason for a job's end, in one line for the user.

use sandhog_core::outcome::{JobResult, Outcome, Stage};

use crate::quantity::format_size;

/// Returns the line about a job's end. Returns `None` if the program's output already explains it:
/// the program succeeded, or it failed after it wrote to standard error or raised an exception.
#[must_use]
pub(crate) fn verdict(result: &JobResult) -> Option<String> {
    let usage = result.usage;
    let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
    let line = match result.outcome {
        Outcome::Succeeded => return None,
        Outcome::Failed => return failed(result),
        Outcome::TimedOut => usage.map_or_else(
            || "timed out".to_owned(),
            |usage| format!("timed out after {}", seconds(usage.wall_ms.0)),
        ),
        Outcome::CpuLimit => usage.map_or_else(
            || "stopped at its limit of CPU time".to_owned(),
            |usage| format!("stopped after {} of CPU time", seconds(usage.cpu_ms.0)),
        ),
        Outcome::OutOfMemory => usage.map_or_else(
            || "out of memory".to_owned(),
            |usage| format!("out of memory (peak {})", format_size(usage.memory_peak.0)),
        ),
        Outcome::ProcessLimit => "failed at its process limit".to_owned(),
        Outcome::ScratchLimit => "failed with its scratch space full".to_owned(),
        Outcome::OutputLimit => usage.map_or_else(
            || "stopped at its limit of output".to_owned(),
            |usage| {
                let written = usage.stdout_bytes.0.saturating_add(usage.stderr_bytes.0);
                format!("stopped after {} of output", format_size(written))
            },
        ),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Expired => "expired before it started".to_owned(),
        Outcome::Rejected => "rejected".to_owned(),
        // The image is at fault, and the message says so.
        Outcome::Lost if has_code(result, "model_not_loaded") => "lost".to_owned(),
        Outcome::Lost => format!(
            "lost after {} attempts; the program is not at fault",
            result.attempts
        ),
    };
    Some(match &result.error {
        Some(error) => format!("{line}: {}", error.message),
        None => line,
    })
}

fn has_code(result: &JobResult, code: &str) -> bool {
    result
        .error
        .as_ref()
        .is_some_and(|error| error.code == code)
}

/// Returns the line about a program that failed.
fn failed(result: &JobResult) -> Option<String> {
    match (&result.signal, &result.error) {
        (Some(signal), Some(error)) => {
            return Some(format!("ended by {signal}: {}", error.message));
        }
        (Some(signal), None) => return Some(format!("ended by {signal}")),
        (None, Some(error)) => return Some(error.message.clone()),
        (None, None) => {}
    }
    if result.stage == Some(Stage::Compile) {
        return Some(result.exit_code.map_or_else(
            || "the program did not compile".to_owned(),
            |code| format!("the program did not compile (the compiler exited with {code})"),
        ));
    }
    match (&result.exception, result.exit_code) {
        (Some(exception), _) if exception.traceback.trim().is_empty() => {
            Some(format!("raised {}: {}", exception.name, exception.message))
        }
        (Some(_shown), _) => None,
        (None, Some(_code)) if !result.stderr.0.is_empty() => None,
        (None, Some(code)) => Some(format!("the program exited with code {code}")),
        (None, None) => Some("failed; the worker gave no reason".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use sandhog_core::blob::Blob;
    use sandhog_core::outcome::{ErrorInfo, Exception, Usage};
    use sandhog_core::units::{ByteCount, Millis};

    use super::*;

    fn bare(outcome: Outcome) -> JobResult {
        JobResult::bare("a".parse().unwrap(), outcome)
    }

    #[test]
    fn endings_read_well() {
        let usage = Usage {
            wall_ms: Millis(2_003),
            cpu_ms: Millis(1_500),
            memory_peak: ByteCount(67_633_152),
            stdout_bytes: ByteCount(3_000),
            ..Usage::default()
        };
        for (outcome, with_usage, without) in [
            (Outcome::TimedOut, "timed out after 2.003 s", "timed out"),
            (
                Outcome::CpuLimit,
                "stopped after 1.500 s of CPU time",
                "stopped at its limit of CPU time",
            ),
            (
                Outcome::OutOfMemory,
                "out of memory (peak 64.5 MiB)",
                "out of memory",
            ),
            (
                Outcome::OutputLimit,
                "stopped after 2.9 KiB of output",
                "stopped at its limit of output",
            ),
        ] {
            let result = |usage| JobResult {
                usage,
                ..bare(outcome)
            };
            assert_eq!(
                verdict(&result(Some(usage))).as_deref(),
                Some(with_usage),
                "{outcome}"
            );
            assert_eq!(
                verdict(&result(None)).as_deref(),
                Some(without),
                "{outcome}"
            );
        }
    }

    #[test]
    fn every_outcome_but_success_has_a_reason() {
        for outcome in Outcome::ALL {
            let told = verdict(&bare(outcome));
            assert_eq!(told.is_none(), outcome == Outcome::Succeeded, "{outcome}");
            let with_error = JobResult {
                error: Some(ErrorInfo::new("a_code", "the reason")),
                ..bare(outcome)
            };
            let told = verdict(&with_error).unwrap_or_default();
            assert_eq!(
                told.contains("the reason"),
                outcome != Outcome::Succeeded,
                "{outcome}: {told}"
            );
        }
    }

    #[test]
    fn a_failure_that_was_silent_is_explained() {
        let exception = |traceback: &str| Exception {
            name: "E".to_owned(),
            message: "m".to_owned(),
            traceback: traceback.to_owned(),
        };
        for (case, result, want) in [
            (
                "an exit code, in silence",
                JobResult {
                    exit_code: Some(3),
                    ..bare(Outcome::Failed)
                },
                Some("the program exited with code 3"),
            ),
            (
                "an exit code, after a message",
                JobResult {
                    exit_code: Some(3),
                    stderr: Blob::from("no such file\n"),
                    ..bare(Outcome::Failed)
                },
                None,
            ),
            (
                "a signal",
                JobResult {
                    signal: Some("SIGSEGV".to_owned()),
                    ..bare(Outcome::Failed)
                },
                Some("ended by SIGSEGV"),
            ),
            (
                "an exception that is shown",
                JobResult {
                    exit_code: Some(1),
                    exception: Some(exception("Traceback\nE: m\n")),
                    ..bare(Outcome::Failed)
                },
                None,
            ),
            (
                "an exception without a traceback",
                JobResult {
                    exit_code: Some(1),
                    exception: Some(exception("")),
                    ..bare(Outcome::Failed)
                },
                Some("raised E: m"),
            ),
            (
                "the program is missing",
                JobResult {
                    error: Some(ErrorInfo::new(
                        "not_started",
                        "the program \"x\" could not …",
                    )),
                    ..bare(Outcome::Failed)
                },
                Some("the program \"x\" could not …"),
            ),
            (
                "no value although one is expected",
                JobResult {
                    exit_code: Some(0),
                    error: Some(ErrorInfo::new("no_value", "the code ended without …")),
                    ..bare(Outcome::Failed)
                },
                Some("the code ended without …"),
            ),
            (
                "the compiler failed",
                JobResult {
                    exit_code: Some(1),
                    stage: Some(Stage::Compile),
                    stderr: Blob::from("error: …\n"),
                    ..bare(Outcome::Failed)
                },
                Some("the program did not compile (the compiler exited with 1)"),
            ),
        ] {
            assert_eq!(verdict(&result).as_deref(), want, "case {case}");
        }
    }
}
