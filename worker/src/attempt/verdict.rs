//! Maps a runner's report to a job's outcome: pure functions, so that one table tests every case.

use sandhog_common::blob::Blob;
use sandhog_common::display::Display;
use sandhog_common::id::{JobId, clip};
use sandhog_common::outcome::{
    ErrorInfo, Exception, JobResult, NotFetched, Outcome, Truncated, Usage, ValueDropped,
};
use sandhog_common::units::{ByteCount, Millis};
use sandhog_runner::protocol::{Dropped, End, LeftWhy, Part, Report, Stop};

/// Maximum length of a reported path of a file that was not fetched, in characters.
const LONGEST_PATH: usize = 1024;

/// Maximum length of a reported name of a program that could not be started, in characters.
const LONGEST_PROGRAM: usize = 160;

/// Error code for a program that could not be started.
const NOT_STARTED: &str = "not_started";

/// Maximum length of the reported type name and reason of a dropped value, in characters.
const LONGEST_REASON: usize = 400;

/// The output of a program, within its limits.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Creates the job's result from the report.
pub(super) fn result(id: JobId, mut report: Report, kept: Kept) -> JobResult {
    let outcome = outcome(&report);
    let shown = std::mem::take(&mut report.displays);
    let all_shown = shown.len() as u64;
    let displays: Vec<_> = shown.into_iter().filter_map(display).collect();
    let (exit_code, signal, error) = match report.end {
        End::Exited(code) => (Some(code), None, None),
        End::Signaled(number) => {
            let stack = report.stack_suspected.then(stack_suspected);
            (None, Some(signal_name(number)), stack)
        }
        End::NotStarted(errno) => (None, None, Some(not_started(errno))),
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
        value_dropped: dropped.map(value_dropped),
        truncated: Truncated {
            stdout: report.stdout_bytes > kept.stdout.len() as u64,
            stderr: report.stderr_bytes > kept.stderr.len() as u64,
        },
        stdout: Blob(kept.stdout),
        stderr: Blob(kept.stderr),
        files: report
            .files
            .into_iter()
            .map(|file| (file.path, Blob(file.data)))
            .collect(),
        not_fetched: report
            .left
            .into_iter()
            .map(|left| (clip(&left.path, LONGEST_PATH), not_fetched(left.why)))
            .collect(),
        displays_dropped: report
            .displays_dropped
            .saturating_add(all_shown - displays.len() as u64),
        displays,
        exception: report.answer.exception.map(|exception| Exception {
            name: exception.name,
            message: exception.message,
            traceback: exception.traceback,
        }),
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

fn value_dropped(dropped: Dropped) -> ValueDropped {
    ValueDropped {
        kind: clip(&dropped.kind, LONGEST_REASON),
        reason: clip(&dropped.reason, LONGEST_REASON),
    }
}

/// Converts a display; `None` if the data of one of its forms does not match its mime type.
fn display(parts: Vec<Part>) -> Option<Display> {
    Display::of(parts.into_iter().map(|part| (part.mime, part.data)))
}

const fn not_fetched(why: LeftWhy) -> NotFetched {
    match why {
        LeftWhy::TooLarge => NotFetched::TooLarge,
        LeftWhy::TooMany => NotFetched::TooMany,
        LeftWhy::TooDeep => NotFetched::TooDeep,
        LeftWhy::TooManySeen => NotFetched::TooManySeen,
        LeftWhy::NotAFile => NotFetched::NotAFile,
        LeftWhy::Unreadable => NotFetched::Unreadable,
        LeftWhy::Name => NotFetched::Name,
    }
}

/// Creates the result for a container that was killed because memory ran out: it left no report.
pub(super) fn out_of_memory(id: JobId, kept: Kept) -> JobResult {
    JobResult {
        signal: Some(signal_name(9)),
        stdout: Blob(kept.stdout),
        stderr: Blob(kept.stderr),
        ..JobResult::bare(id, Outcome::OutOfMemory)
    }
}

/// Turns a success without a value into a failure, for a job that requires a value.
pub(super) fn demand_value(result: &mut JobResult) {
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
pub(super) fn name_program(result: &mut JobResult, argv: Option<&[String]>) {
    if let (Some(error), Some(program)) = (&mut result.error, argv.and_then(<[_]>::first))
        && error.code == NOT_STARTED
    {
        let named = format!("the program {:?}", clip(program, LONGEST_PROGRAM));
        error.message = error.message.replacen("the program", &named, 1);
    }
}

/// Determines the outcome. A stop by the runner takes precedence over the exit status. A refusal at
/// a limit explains a failure but never turns a success into one.
fn outcome(report: &Report) -> Outcome {
    match (report.stop, report.end) {
        (Some(Stop::WallClock), _) => Outcome::TimedOut,
        (Some(Stop::CpuTime), _) => Outcome::CpuLimit,
        (Some(Stop::Memory), _) => Outcome::OutOfMemory,
        (Some(Stop::Output), _) => Outcome::OutputLimit,
        (Some(Stop::Cancelled), _) => Outcome::Cancelled,
        (None, End::Exited(0)) if report.answer.exception.is_none() => Outcome::Succeeded,
        (None, End::Exited(_) | End::Signaled(_)) if report.pids_refused => Outcome::ProcessLimit,
        // A source file that does not fit is never started, for the same reason.
        (None, End::Exited(_) | End::Signaled(_) | End::NotStarted(_)) if report.scratch_full => {
            Outcome::ScratchLimit
        }
        (None, End::Exited(_) | End::Signaled(_) | End::NotStarted(_)) => Outcome::Failed,
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
        NOT_STARTED,
        format!("the program could not be started: {why}"),
    )
}

fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 20] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (10, "SIGUSR1"),
        (11, "SIGSEGV"),
        (12, "SIGUSR2"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (19, "SIGSTOP"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (30, "SIGPWR"),
        (31, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(
            || format!("signal {number}"),
            |(_, name)| (*name).to_owned(),
        )
}

#[cfg(test)]
mod tests {
    use sandhog_runner::protocol::{Exception as HarnessException, HarnessAnswer};

    use super::*;

    fn report(end: End, stop: Option<Stop>) -> Report {
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
        let exception = HarnessException {
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
            ("exit 0", report(End::Exited(0), None), Outcome::Succeeded),
            ("exit 1", report(End::Exited(1), None), Outcome::Failed),
            ("signal", report(End::Signaled(11), None), Outcome::Failed),
            (
                "missing program",
                report(End::NotStarted(2), None),
                Outcome::Failed,
            ),
            (
                "wall clock",
                report(End::Signaled(9), Some(Stop::WallClock)),
                Outcome::TimedOut,
            ),
            (
                "exits 0 on SIGTERM, too late",
                report(End::Exited(0), Some(Stop::WallClock)),
                Outcome::TimedOut,
            ),
            (
                "cpu",
                report(End::Signaled(9), Some(Stop::CpuTime)),
                Outcome::CpuLimit,
            ),
            (
                "memory",
                report(End::Signaled(9), Some(Stop::Memory)),
                Outcome::OutOfMemory,
            ),
            (
                "output",
                report(End::Signaled(9), Some(Stop::Output)),
                Outcome::OutputLimit,
            ),
            (
                "cancelled",
                report(End::Signaled(9), Some(Stop::Cancelled)),
                Outcome::Cancelled,
            ),
            (
                "exit 0 with an exception",
                Report {
                    answer: raised,
                    ..report(End::Exited(0), None)
                },
                Outcome::Failed,
            ),
            (
                "refused a process, failed",
                Report {
                    pids_refused: true,
                    ..report(End::Exited(1), None)
                },
                Outcome::ProcessLimit,
            ),
            (
                "refused a process, coped",
                Report {
                    pids_refused: true,
                    ..report(End::Exited(0), None)
                },
                Outcome::Succeeded,
            ),
            (
                "scratch full",
                Report {
                    scratch_full: true,
                    ..report(End::Exited(1), None)
                },
                Outcome::ScratchLimit,
            ),
            (
                "no room for the source",
                Report {
                    scratch_full: true,
                    ..report(End::NotStarted(28), None)
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
            demand_value(&mut result);
            assert_eq!(result.outcome, want, "case {case}");
            let told = result.error.is_some_and(|error| error.code == "no_value");
            assert_eq!(told, want == Outcome::Failed, "case {case}");
        }
    }

    #[test]
    fn a_program_that_could_not_be_started_is_named() {
        let ended = report(End::NotStarted(2), None);
        let mut result = result("a".parse().unwrap(), ended, Kept::default());
        let told = |result: &JobResult| result.error.as_ref().map(|error| error.message.clone());
        name_program(&mut result, None);
        assert_eq!(
            told(&result).as_deref(),
            Some("the program could not be started: No such file or directory (os error 2)")
        );
        name_program(&mut result, Some(&["nosuch\n".to_owned(), "x".to_owned()]));
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
            dropped: Some(Dropped {
                kind: "set".to_owned(),
                reason: "x".repeat(5000),
            }),
            exception: None,
            completed: true,
        };
        let of = |answer| {
            let report = Report {
                answer,
                ..report(End::Exited(0), None)
            };
            JobResult {
                completed: Some(true),
                ..result("a".parse().unwrap(), report, Kept::default())
            }
        };
        let mut dropped = of(answer(None));
        let told = dropped.value_dropped.as_ref().unwrap();
        assert_eq!(told.kind, "set");
        assert!(told.reason.len() < 500, "what a program says is bounded");
        demand_value(&mut dropped);
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
        demand_value(&mut null);
        assert_eq!(null.outcome, Outcome::Succeeded, "null is a value");
    }

    #[test]
    fn displays_that_are_not_what_they_say_are_dropped_and_counted() {
        let part = |mime: &str, data: &[u8]| {
            vec![Part {
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
            ..report(End::Exited(0), None)
        };
        let result = result("a".parse().unwrap(), report, Kept::default());
        let shown = result
            .displays
            .iter()
            .map(|shown| shown.get("application/json"));
        assert_eq!(shown.collect::<Vec<_>>(), [Some(&serde_json::json!([1]))]);
        assert_eq!(result.displays_dropped, 5);
    }

    #[test]
    fn bytes_lost_to_the_cap_are_told() {
        let mut report = report(End::Exited(0), None);
        report.stdout_bytes = 5;
        let kept = Kept {
            stdout: b"abc".to_vec(),
            stderr: Vec::new(),
        };
        let result = result("a".parse().unwrap(), report, kept);
        assert_eq!(
            result.truncated,
            Truncated {
                stdout: true,
                stderr: false
            }
        );
    }
}
