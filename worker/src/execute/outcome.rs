//! Maps a runner's report to a job's outcome: pure functions, so that one table tests every case.

use sandhog_core::blob::Blob;
use sandhog_core::display::Display;
use sandhog_core::id::{JobId, clip};
use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome, Truncated, Usage, ValueDropped};
use sandhog_core::units::{ByteCount, Millis};
use sandhog_protocol::frames::{DisplayPart, ProgramEnd, Stop, Stream};

use super::signal_name::signal_name;
use crate::sandbox::Report;

/// Maximum length of a reported path of a file that was not fetched, in characters.
const MAX_PATH_CHARS: usize = 1024;

/// Maximum length of a reported name of a program that could not be started, in characters.
const MAX_PROGRAM_CHARS: usize = 160;

/// Error code for a program that could not be started.
const NOT_STARTED_CODE: &str = "not_started";

/// Maximum length of the reported type name and reason of a dropped value, in characters.
const MAX_REASON_CHARS: usize = 400;

/// The output of a run, within its limits.
#[derive(Debug, Default)]
pub(crate) struct CapturedOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl CapturedOutput {
    /// Adds a piece of output.
    pub(super) fn push(&mut self, stream: Stream, data: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(data),
            Stream::Stderr => self.stderr.extend_from_slice(data),
        }
    }
}

/// Creates the job's result from the report.
pub(super) fn job_result(id: JobId, mut report: Report, captured: CapturedOutput) -> JobResult {
    let outcome = outcome(&report);
    let shown = std::mem::take(&mut report.displays);
    let all_shown = shown.len() as u64;
    let displays: Vec<_> = shown.into_iter().filter_map(display).collect();
    let (exit_code, signal, error) = match report.end {
        ProgramEnd::Exited(code) => (Some(code), None, None),
        ProgramEnd::Signaled(number) => {
            let stack = report.stack_suspected.then(stack_suspected);
            (None, Some(signal_name(number)), stack)
        }
        ProgramEnd::NotStarted(errno) => (None, None, Some(not_started(errno))),
    };
    let value = report
        .answer
        .value_json
        .and_then(|json| serde_json::from_str(&json).ok());
    let dropped = report.answer.dropped.filter(|_| value.is_none());
    JobResult {
        exit_code,
        signal,
        error,
        value,
        value_dropped: dropped.map(clip_dropped),
        truncated: Truncated {
            stdout: report.stdout_bytes > captured.stdout.len() as u64,
            stderr: report.stderr_bytes > captured.stderr.len() as u64,
        },
        stdout: Blob(captured.stdout),
        stderr: Blob(captured.stderr),
        files: report
            .files
            .into_iter()
            .map(|file| (file.path, Blob(file.data)))
            .collect(),
        not_fetched: report
            .left
            .into_iter()
            .map(|left| (clip(&left.path, MAX_PATH_CHARS), left.why))
            .collect(),
        displays_dropped: report
            .displays_dropped
            .saturating_add(all_shown - displays.len() as u64),
        displays,
        exception: report.answer.exception,
        usage: Some(Usage {
            wall_ms: Millis(report.wall_ms),
            cpu_ms: Millis(report.cpu_ms),
            memory_peak: ByteCount(report.memory_peak_bytes),
            stdout_bytes: ByteCount(report.stdout_bytes),
            stderr_bytes: ByteCount(report.stderr_bytes),
            ..Usage::default()
        }),
        ..JobResult::bare(id, outcome)
    }
}

/// Cuts the text of a dropped value, which the program wrote, to a bounded length.
fn clip_dropped(dropped: ValueDropped) -> ValueDropped {
    ValueDropped {
        kind: clip(&dropped.kind, MAX_REASON_CHARS),
        reason: clip(&dropped.reason, MAX_REASON_CHARS),
    }
}

/// Converts a display; `None` if the data of one of its forms does not match its mime type.
fn display(parts: Vec<DisplayPart>) -> Option<Display> {
    Display::of(parts.into_iter().map(|part| (part.mime, part.data)))
}

/// Creates the result for a container that was killed because memory ran out: it left no report.
pub(super) fn out_of_memory_result(id: JobId, captured: CapturedOutput) -> JobResult {
    JobResult {
        signal: Some(signal_name(9)),
        stdout: Blob(captured.stdout),
        stderr: Blob(captured.stderr),
        ..JobResult::bare(id, Outcome::OutOfMemory)
    }
}

/// Turns a success without a value into a failure, for a job that requires a value.
pub(super) fn require_value(result: &mut JobResult) {
    let answered = result.completed == Some(true) && result.value.is_some();
    if result.outcome == Outcome::Succeeded && !answered {
        result.outcome = Outcome::Failed;
        let mut message = "the code ended without the value that the job expects".to_owned();
        if let Some(dropped) = &result.value_dropped {
            message = format!("{message}: {dropped}");
        }
        result.error = Some(ErrorInfo::new("no_value", message));
    }
}

/// Adds the program's name to the error of a failed start, if the job names the program itself.
pub(super) fn name_failed_program(result: &mut JobResult, argv: Option<&[String]>) {
    if let (Some(error), Some(program)) = (&mut result.error, argv.and_then(<[_]>::first))
        && error.code == NOT_STARTED_CODE
    {
        let named = format!("the program {:?}", clip(program, MAX_PROGRAM_CHARS));
        error.message = error.message.replacen("the program", &named, 1);
    }
}

/// Determines the outcome. A stop by the runner takes precedence over the exit status. A refusal at
/// a limit explains a failure but never turns a success into one.
pub(super) fn outcome(report: &Report) -> Outcome {
    match (report.stop, report.end) {
        (Some(Stop::WallClock), _) => Outcome::TimedOut,
        (Some(Stop::CpuTime), _) => Outcome::CpuLimit,
        (Some(Stop::Memory), _) => Outcome::OutOfMemory,
        (Some(Stop::Output), _) => Outcome::OutputLimit,
        (Some(Stop::Cancelled), _) => Outcome::Cancelled,
        (None, ProgramEnd::Exited(0)) if report.answer.exception.is_none() => Outcome::Succeeded,
        (None, ProgramEnd::Exited(_) | ProgramEnd::Signaled(_)) if report.pids_refused => {
            Outcome::ProcessLimit
        }
        // A source file that does not fit is never started, for the same reason.
        (None, ProgramEnd::Exited(_) | ProgramEnd::Signaled(_) | ProgramEnd::NotStarted(_))
            if report.scratch_full =>
        {
            Outcome::ScratchLimit
        }
        (None, ProgramEnd::Exited(_) | ProgramEnd::Signaled(_) | ProgramEnd::NotStarted(_)) => {
            Outcome::Failed
        }
    }
}

/// Creates the error for a suspected stack overflow. The kernel reports it in the same way as any
/// other invalid memory access; the only indication is the amount of memory in use.
fn stack_suspected() -> ErrorInfo {
    ErrorInfo::new(
        "stack_limit",
        "SIGSEGV with more memory in use than the stack may have: \
         the stack may have run out (limit stack)",
    )
}

/// Creates the error for a program that could not be started. A missing program is the submitter's
/// mistake but a result of the run, because only the image determines which programs exist.
fn not_started(errno: i32) -> ErrorInfo {
    let why = std::io::Error::from_raw_os_error(errno);
    ErrorInfo::new(
        NOT_STARTED_CODE,
        format!("the program could not be started: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use sandhog_core::outcome::Exception;
    use sandhog_protocol::frames::HarnessAnswer;

    use super::*;

    fn report(end: ProgramEnd, stop: Option<Stop>) -> Report {
        Report {
            end,
            stop,
            answer: HarnessAnswer::default(),
            pids_refused: false,
            scratch_full: false,
            stack_suspected: false,
            wall_ms: 1,
            cpu_ms: 1,
            memory_peak_bytes: 1,
            stdout_bytes: 0,
            stderr_bytes: 0,
            warm: false,
            clean: true,
            container_memory_bytes: None,
            files: Vec::new(),
            left: Vec::new(),
            displays: Vec::new(),
            displays_dropped: 0,
        }
    }

    #[test]
    fn every_end_has_its_outcome() {
        let exception = Exception {
            name: "E".into(),
            message: String::new(),
            traceback: String::new(),
        };
        let raised = HarnessAnswer {
            value_json: None,
            dropped: None,
            exception: Some(exception),
            completed: false,
        };
        for (case, report, want) in [
            (
                "exit 0",
                report(ProgramEnd::Exited(0), None),
                Outcome::Succeeded,
            ),
            (
                "exit 1",
                report(ProgramEnd::Exited(1), None),
                Outcome::Failed,
            ),
            (
                "signal",
                report(ProgramEnd::Signaled(11), None),
                Outcome::Failed,
            ),
            (
                "missing program",
                report(ProgramEnd::NotStarted(2), None),
                Outcome::Failed,
            ),
            (
                "wall clock",
                report(ProgramEnd::Signaled(9), Some(Stop::WallClock)),
                Outcome::TimedOut,
            ),
            (
                "exits 0 on SIGTERM, too late",
                report(ProgramEnd::Exited(0), Some(Stop::WallClock)),
                Outcome::TimedOut,
            ),
            (
                "cpu",
                report(ProgramEnd::Signaled(9), Some(Stop::CpuTime)),
                Outcome::CpuLimit,
            ),
            (
                "memory",
                report(ProgramEnd::Signaled(9), Some(Stop::Memory)),
                Outcome::OutOfMemory,
            ),
            (
                "output",
                report(ProgramEnd::Signaled(9), Some(Stop::Output)),
                Outcome::OutputLimit,
            ),
            (
                "cancelled",
                report(ProgramEnd::Signaled(9), Some(Stop::Cancelled)),
                Outcome::Cancelled,
            ),
            (
                "exit 0 with an exception",
                Report {
                    answer: raised,
                    ..report(ProgramEnd::Exited(0), None)
                },
                Outcome::Failed,
            ),
            (
                "refused a process, failed",
                Report {
                    pids_refused: true,
                    ..report(ProgramEnd::Exited(1), None)
                },
                Outcome::ProcessLimit,
            ),
            (
                "refused a process, coped",
                Report {
                    pids_refused: true,
                    ..report(ProgramEnd::Exited(0), None)
                },
                Outcome::Succeeded,
            ),
            (
                "scratch full",
                Report {
                    scratch_full: true,
                    ..report(ProgramEnd::Exited(1), None)
                },
                Outcome::ScratchLimit,
            ),
            (
                "no room for the source",
                Report {
                    scratch_full: true,
                    ..report(ProgramEnd::NotStarted(28), None)
                },
                Outcome::ScratchLimit,
            ),
        ] {
            assert_eq!(outcome(&report), want, "case {case}");
        }
    }

    #[test]
    fn only_a_value_of_code_that_came_to_its_end_is_the_value_expected() {
        for (case, completed, value, outcome, want) in [
            (
                "a value",
                Some(true),
                Some(7),
                Outcome::Succeeded,
                Outcome::Succeeded,
            ),
            (
                "no value",
                Some(true),
                None,
                Outcome::Succeeded,
                Outcome::Failed,
            ),
            (
                "left early",
                Some(false),
                Some(7),
                Outcome::Succeeded,
                Outcome::Failed,
            ),
            (
                "no harness",
                None,
                None,
                Outcome::Succeeded,
                Outcome::Failed,
            ),
            (
                "stopped",
                Some(false),
                None,
                Outcome::TimedOut,
                Outcome::TimedOut,
            ),
        ] {
            let mut result = JobResult::bare("a".parse().unwrap(), outcome);
            result.completed = completed;
            result.value = value.map(Into::into);
            require_value(&mut result);
            assert_eq!(result.outcome, want, "case {case}");
            let told = result.error.is_some_and(|error| error.code == "no_value");
            assert_eq!(told, want == Outcome::Failed, "case {case}");
        }
    }

    #[test]
    fn a_program_that_could_not_be_started_is_named() {
        let ended = report(ProgramEnd::NotStarted(2), None);
        let mut result = job_result("a".parse().unwrap(), ended, CapturedOutput::default());
        let told = |result: &JobResult| result.error.as_ref().map(|error| error.message.clone());
        name_failed_program(&mut result, None);
        assert_eq!(
            told(&result).as_deref(),
            Some("the program could not be started: No such file or directory (os error 2)")
        );
        name_failed_program(&mut result, Some(&["nosuch\n".to_owned(), "x".to_owned()]));
        assert_eq!(
            told(&result).as_deref(),
            Some(
                "the program \"nosuch\\n\" could not be started: \
                 No such file or directory (os error 2)"
            )
        );
    }

    #[test]
    fn a_value_that_was_dropped_is_told_and_is_none() {
        let answer = |value_json: Option<&str>| HarnessAnswer {
            value_json: value_json.map(str::to_owned),
            dropped: Some(ValueDropped {
                kind: "set".to_owned(),
                reason: "x".repeat(5000),
            }),
            exception: None,
            completed: true,
        };
        let of = |answer| {
            let report = Report {
                answer,
                ..report(ProgramEnd::Exited(0), None)
            };
            JobResult {
                completed: Some(true),
                ..job_result("a".parse().unwrap(), report, CapturedOutput::default())
            }
        };
        let mut dropped = of(answer(None));
        let told = dropped.value_dropped.as_ref().unwrap();
        assert_eq!(told.kind, "set");
        assert!(told.reason.len() < 500, "what a program says is bounded");
        require_value(&mut dropped);
        let message = dropped.error.unwrap().message;
        assert!(
            message.contains("its value of type set was dropped"),
            "{message}"
        );

        let mut null = of(answer(Some("null")));
        assert_eq!(
            (&null.value, &null.value_dropped),
            (&Some(serde_json::Value::Null), &None)
        );
        require_value(&mut null);
        assert_eq!(null.outcome, Outcome::Succeeded, "null is a value");
    }

    #[test]
    fn displays_that_are_not_what_they_say_are_dropped_and_counted() {
        let part = |mime: &str, data: &[u8]| {
            vec![DisplayPart {
                mime: mime.to_owned(),
                data: data.to_vec(),
            }]
        };
        let report = Report {
            displays: vec![
                part("application/json", b"[1]"),
                part("application/json", b"[1"),
                part("text/html", b"\xff"),
            ],
            displays_dropped: 3,
            ..report(ProgramEnd::Exited(0), None)
        };
        let result = job_result("a".parse().unwrap(), report, CapturedOutput::default());
        let shown = result
            .displays
            .iter()
            .map(|shown| shown.get("application/json"));
        assert_eq!(shown.collect::<Vec<_>>(), [Some(&serde_json::json!([1]))]);
        assert_eq!(result.displays_dropped, 5);
    }

    #[test]
    fn bytes_lost_to_the_cap_are_told() {
        let mut report = report(ProgramEnd::Exited(0), None);
        report.stdout_bytes = 5;
        let captured = CapturedOutput {
            stdout: b"abc".to_vec(),
            stderr: Vec::new(),
        };
        let result = job_result("a".parse().unwrap(), report, captured);
        assert_eq!(
            result.truncated,
            Truncated {
                stdout: true,
                stderr: false
            }
        );
    }
}
