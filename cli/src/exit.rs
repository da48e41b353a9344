//! The exit codes of `sandhog`. They are part of its public interface.
//!
//! The exit code of a job's program is passed through. Every other ending has a code of its own.
//! Codes above 63 follow `sysexits.h` where it has a suitable code, and the shell's convention of
//! 128 + signal for signals.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::str::FromStr;

use nix::sys::signal::Signal;
use sandhog_core::outcome::{JobResult, Outcome};

/// An ending of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Success,
    /// A check failed, or one of several jobs did not succeed.
    Unsuccessful,
    /// The program exited with this code, which is not zero.
    Program(u8),
    /// The program was ended by this signal.
    Signalled(u8),
    /// The command line is wrong.
    Usage,
    /// The job was rejected.
    Rejected,
    /// There is no such job, file or image.
    Missing,
    /// Redis or the container engine cannot be reached or used.
    Unavailable,
    /// A fault of Sandhog: all attempts of the job were lost, or an internal error occurred.
    Fault,
    /// The job succeeded, but a file that it should have brought back is missing or was not saved.
    NotSaved,
    /// Standard output could not be written.
    Output,
    /// Waiting took longer than `--timeout`; the job continues.
    NotYet,
    /// The settings cannot be used.
    Settings,
    /// The job expired before it started.
    Expired,
    /// The job was cancelled.
    Cancelled,
    /// The program could not start another process because of its process limit, and failed.
    ProcessLimit,
    /// The program's scratch space was full, and the program failed.
    ScratchLimit,
    /// The program wrote more output than its limit and was stopped.
    OutputLimit,
    /// The program used up its CPU time.
    CpuLimit,
    /// The program's wall-clock time ran out.
    TimedOut,
    /// The program could not be started; the code is the one that a shell uses.
    NotStarted,
    /// The program exceeded its memory limit.
    OutOfMemory,
    /// This command was interrupted (SIGINT). `run` and `infer` have cancelled their job; the jobs
    /// of other commands continue.
    Interrupted,
    /// The reader of standard output or standard error closed the pipe (SIGPIPE).
    Closed,
    /// This command was terminated (SIGTERM). `run` and `infer` have cancelled their job; the jobs
    /// of other commands continue.
    Terminated,
}

impl Exit {
    /// All endings with a fixed code, in the order of their codes.
    pub(crate) const FIXED: [Self; 23] = [
        Self::Success,
        Self::Unsuccessful,
        Self::Usage,
        Self::Rejected,
        Self::Missing,
        Self::Unavailable,
        Self::Fault,
        Self::NotSaved,
        Self::Output,
        Self::NotYet,
        Self::Settings,
        Self::Expired,
        Self::Cancelled,
        Self::ProcessLimit,
        Self::ScratchLimit,
        Self::OutputLimit,
        Self::CpuLimit,
        Self::TimedOut,
        Self::NotStarted,
        Self::Interrupted,
        Self::OutOfMemory,
        Self::Closed,
        Self::Terminated,
    ];

    /// Returns the exit code.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Unsuccessful => 1,
            Self::Program(code) => code,
            Self::Signalled(signal) => 128 + (signal & 0x7f),
            Self::Usage => 64,
            Self::Rejected => 65,
            Self::Missing => 66,
            Self::Unavailable => 69,
            Self::Fault => 70,
            Self::NotSaved => 73,
            Self::Output => 74,
            Self::NotYet => 75,
            Self::Settings => 78,
            Self::Expired => 118,
            Self::Cancelled => 119,
            Self::ProcessLimit => 120,
            Self::ScratchLimit => 121,
            Self::OutputLimit => 122,
            Self::CpuLimit => 123,
            Self::TimedOut => 124,
            Self::NotStarted => 127,
            Self::Interrupted => 130,
            Self::OutOfMemory => 137,
            Self::Closed => 141,
            Self::Terminated => 143,
        }
    }

    /// Returns the meaning of the code, for `--help` and the reference documentation.
    #[must_use]
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success; the program exited with 0",
            Self::Unsuccessful => {
                "a check failed, one of several jobs did not succeed, or the program raised an \
                 exception"
            }
            Self::Program(_) => "the program's own exit code",
            Self::Signalled(_) => "the program was ended by signal n",
            Self::Usage => "the command line is wrong",
            Self::Rejected => {
                "the job was rejected: malformed, unknown image, or a limit out of range"
            }
            Self::Missing => "no such job, file or image",
            Self::Unavailable => "Redis or the container engine cannot be reached or used",
            Self::Fault => "a fault of Sandhog: the job was lost, or an internal error occurred",
            Self::NotSaved => {
                "the job succeeded, but a file of --fetch was missing, too large or not saved"
            }
            Self::Output => "standard output could not be written",
            Self::NotYet => "waiting took longer than --timeout; the job continues",
            Self::Settings => "the settings cannot be used",
            Self::Expired => "the job expired before it started",
            Self::Cancelled => "the job was cancelled",
            Self::ProcessLimit => {
                "process limit: the program could not start another process and failed"
            }
            Self::ScratchLimit => "scratch limit: the program failed with its scratch space full",
            Self::OutputLimit => "output limit: the program wrote too much and was stopped",
            Self::CpuLimit => "CPU limit: the program used up its CPU time",
            Self::TimedOut => "timed out: the program's wall-clock time ran out",
            Self::NotStarted => "the program could not be started: the image has no such program",
            Self::Interrupted => {
                "interrupted by Ctrl-C; `run` and `infer` cancel their job, other commands do not"
            }
            Self::OutOfMemory => "out of memory: the program exceeded its memory limit",
            Self::Closed => "the reader of the output closed the pipe",
            Self::Terminated => {
                "ended by SIGTERM; `run` and `infer` cancel their job, other commands do not"
            }
        }
    }

    /// Returns the ending for a job's result.
    #[must_use]
    pub(crate) fn of(result: &JobResult) -> Self {
        match result.outcome {
            Outcome::Succeeded => Self::Success,
            Outcome::Failed => Self::failed(result),
            Outcome::TimedOut => Self::TimedOut,
            Outcome::CpuLimit => Self::CpuLimit,
            Outcome::OutOfMemory => Self::OutOfMemory,
            Outcome::ProcessLimit => Self::ProcessLimit,
            Outcome::ScratchLimit => Self::ScratchLimit,
            Outcome::OutputLimit => Self::OutputLimit,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Expired => Self::Expired,
            Outcome::Rejected => Self::Rejected,
            Outcome::Lost => Self::Fault,
        }
    }

    fn failed(result: &JobResult) -> Self {
        if let Some(name) = &result.signal {
            return Signal::from_str(name)
                .ok()
                .and_then(|signal| u8::try_from(signal as i32).ok())
                .map_or(Self::Unsuccessful, Self::Signalled);
        }
        if result
            .error
            .as_ref()
            .is_some_and(|e| e.code == "not_started")
        {
            return Self::NotStarted;
        }
        // The kernel reports only the low eight bits of an exit code. If they are zero, the failure
        // still gets a code other than 0.
        let code = result
            .exit_code
            .and_then(|code| u8::try_from(code & 0xff).ok());
        match code {
            Some(0) | None => Self::Unsuccessful,
            Some(code) => Self::Program(code),
        }
    }

    /// Returns the table of exit codes, one on each line.
    #[must_use]
    pub(crate) fn table() -> String {
        let mut table = String::from("Exit codes:\n");
        let mut row = |code: &str, meaning: &str| {
            // Writing to a string cannot fail.
            let _infallible = writeln!(table, "  {code:<8}{meaning}");
        };
        for exit in Self::FIXED {
            row(&exit.code().to_string(), exit.meaning());
        }
        row("128 + n", Self::Signalled(0).meaning());
        row("other", Self::Program(0).meaning());
        table.push_str(
            "A program can exit with any of these codes itself. With --json, the outcome and the \
             exit code are separate fields.",
        );
        table
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use sandhog_core::outcome::ErrorInfo;

    use super::*;

    #[test]
    fn fixed_codes_are_distinct_and_in_order() {
        let codes: Vec<u8> = Exit::FIXED.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }

    #[test]
    fn outcomes_have_their_codes() {
        let result = |outcome, exit_code, signal: Option<&str>| JobResult {
            exit_code,
            signal: signal.map(str::to_owned),
            ..JobResult::bare("a".parse().unwrap(), outcome)
        };
        for (case, result, want) in [
            ("good", result(Outcome::Succeeded, Some(0), None), 0),
            ("own code", result(Outcome::Failed, Some(3), None), 3),
            ("code 256", result(Outcome::Failed, Some(256), None), 1),
            ("negative", result(Outcome::Failed, Some(-1), None), 255),
            ("segv", result(Outcome::Failed, None, Some("SIGSEGV")), 139),
            ("odd signal", result(Outcome::Failed, None, Some("?")), 1),
            (
                "not started",
                JobResult {
                    error: Some(ErrorInfo::new("not_started", "no such program")),
                    ..result(Outcome::Failed, None, None)
                },
                127,
            ),
            ("nothing told", result(Outcome::Failed, None, None), 1),
            ("timeout", result(Outcome::TimedOut, None, None), 124),
            ("memory", result(Outcome::OutOfMemory, None, None), 137),
            ("lost", result(Outcome::Lost, None, None), 70),
        ] {
            assert_eq!(Exit::of(&result).code(), want, "case {case}");
        }
        let codes: std::collections::BTreeSet<u8> = Outcome::ALL
            .iter()
            .map(|outcome| Exit::of(&result(*outcome, None, None)).code())
            .collect();
        assert_eq!(codes.len(), Outcome::ALL.len(), "each outcome has its own");
    }
}
