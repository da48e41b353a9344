//! How a job ended, in one line for a person.

use sandhog_common::outcome::{JobResult, Outcome};

/// A line about any ending but a plain one: success, and failure with an exit code, speak for themselves.
#[must_use]
pub(crate) fn verdict(result: &JobResult) -> Option<String> {
    let usage = result.usage.unwrap_or_default();
    let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
    let line = match result.outcome {
        Outcome::Succeeded => return None,
        Outcome::Failed => match &result.signal {
            Some(signal) => format!("ended by {signal}"),
            None => return None,
        },
        Outcome::TimedOut => format!("timed out after {}", seconds(usage.wall_ms.0)),
        Outcome::CpuLimit => format!("stopped after {} of CPU time", seconds(usage.cpu_ms.0)),
        Outcome::OutOfMemory => format!("out of memory (peak {})", mib(usage.memory_peak.0)),
        Outcome::ProcessLimit => "failed at its process limit".to_owned(),
        Outcome::ScratchLimit => "failed with its scratch space full".to_owned(),
        Outcome::OutputLimit => format!(
            "stopped after {} of output",
            mib(usage.stdout_bytes.0.saturating_add(usage.stderr_bytes.0))
        ),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Expired => "expired before it started".to_owned(),
        Outcome::Rejected => format!("rejected{}", why(result)),
        Outcome::Lost => format!(
            "lost after {} attempts, through no fault of the program{}",
            result.attempts,
            why(result)
        ),
    };
    Some(line)
}

/// Advice, where the result's stable word has some.
#[must_use]
pub(crate) fn advice(result: &JobResult) -> Option<&'static str> {
    match result.error.as_ref()?.code.as_str() {
        "unknown_image" => {
            Some("`sandhog images list` shows what there is, `sandhog images build` builds it")
        }
        "bad_image" => Some("rebuild it with `sandhog images build`"),
        _no_advice => None,
    }
}

fn why(result: &JobResult) -> String {
    let error = result.error.as_ref();
    error.map_or_else(String::new, |error| format!(": {}", error.message))
}

fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use sandhog_common::outcome::{ErrorInfo, Usage};
    use sandhog_common::units::{ByteCount, Millis};

    use super::*;

    #[test]
    fn endings_read_well() {
        let result = |outcome| JobResult {
            usage: Some(Usage {
                wall_ms: Millis(2_003),
                memory_peak: ByteCount(67_633_152),
                ..Usage::default()
            }),
            error: Some(ErrorInfo::new("unknown_image", "image x is unknown")),
            ..JobResult::bare("a".parse().unwrap(), outcome)
        };
        for (outcome, want) in [
            (Outcome::Succeeded, None),
            (Outcome::Failed, None),
            (Outcome::TimedOut, Some("timed out after 2.003 s")),
            (Outcome::OutOfMemory, Some("out of memory (peak 64.5 MiB)")),
            (Outcome::Rejected, Some("rejected: image x is unknown")),
        ] {
            assert_eq!(verdict(&result(outcome)).as_deref(), want, "{outcome}");
        }
    }
}
