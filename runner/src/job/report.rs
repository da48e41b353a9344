//! Pure rules that turn the facts at the end of a call into the reports on it and on its cell, or
//! into a fault of Sandhog's own.

use nix::errno::Errno;
use nix::libc::{SIGKILL, SIGSEGV};

use sandhog_protocol::frames::{
    CallCaps, CallReport, CellCaps, CellReport, HarnessAnswer, ProgramEnd, Stop,
};

use super::termination::{UsageSample, exceeded_at_end};
use crate::cell::{CellError, CellUsage};

/// The last message of a cell's init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InitReport {
    /// The program ended.
    Ended {
        /// The end of its first process.
        end: ProgramEnd,
        /// True if a scratch space was full at that moment.
        scratch_full: bool,
        /// CPU time of all reaped processes of the cell, in microseconds.
        cpu_us: u64,
    },
    /// A step of the runner's own failed.
    Failed(CellError),
    /// The init sent no last message.
    Missing,
}

/// The facts known to the supervision of a cell at its end.
#[derive(Debug)]
pub(crate) struct EndFacts {
    /// The last message of the init.
    pub(crate) init_report: InitReport,
    /// True if the program was a clone of the zygote.
    pub(crate) warm: bool,
    /// True if the program was started.
    pub(crate) started: bool,
    /// True if the init itself was killed.
    pub(crate) init_killed: bool,
    /// The reason for which the program was stopped, if it was.
    pub(crate) stop: Option<Stop>,
    /// The last measurement of the program's resource usage.
    pub(crate) sample: UsageSample,
    /// Bytes written to standard output, kept or not.
    pub(crate) stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub(crate) stderr_bytes: u64,
    /// The answer of the harness.
    pub(crate) answer: HarnessAnswer,
    /// Displays that were not passed on.
    pub(crate) displays_dropped: u64,
}

/// The reports on a call that has ended and on its cell.
#[derive(Debug)]
pub(crate) struct EndReports {
    /// The report on the call.
    pub(crate) call: CallReport,
    /// The report on the cell, whose files have not been collected.
    pub(crate) cell: CellReport,
}

impl EndFacts {
    /// Makes the reports on the call with the caps `call_caps`. Its cell has the caps `cell_caps`
    /// and used the resources in `usage`.
    ///
    /// # Errors
    /// Fails if the cell ended through a fault of Sandhog's own, from which nothing follows about
    /// the program.
    pub(crate) fn reports(
        mut self,
        cell_caps: &CellCaps,
        call_caps: &CallCaps,
        usage: &CellUsage,
    ) -> Result<EndReports, CellError> {
        self.sample.out_of_memory |= usage.out_of_memory;
        let (end, scratch_full, init_cpu_us) = self.end()?;
        self.sample.cpu_us = self.sample.cpu_us.max(usage.cpu_us).max(init_cpu_us);
        let stop = self
            .stop
            .or_else(|| exceeded_at_end(call_caps, &self.sample, end));
        let call = CallReport {
            end,
            stop,
            answer: self.answer,
            pids_refused: usage.pids_refused,
            scratch_full,
            stack_suspected: end == ProgramEnd::Signaled(SIGSEGV)
                && stop.is_none()
                && usage.memory_peak >= cell_caps.stack_bytes,
            wall_ms: u64::try_from(self.sample.wall.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            displays_dropped: self.displays_dropped,
            warm: self.warm,
        };
        let cell = CellReport {
            cpu_ms: self.sample.cpu_us / 1000,
            memory_peak_bytes: usage.memory_peak,
            files: Vec::new(),
            left: Vec::new(),
            clean: usage.clean,
        };
        Ok(EndReports { call, cell })
    }

    /// Returns the program's end, whether a scratch space was full, and the CPU time that the init
    /// counted.
    fn end(&self) -> Result<(ProgramEnd, bool, u64), CellError> {
        // The runner or the memory cap killed the program, so its death needs no other explanation.
        let accounted_for = self.init_killed || self.stop.is_some() || self.sample.out_of_memory;
        match &self.init_report {
            InitReport::Ended {
                end: ProgramEnd::Signaled(_) | ProgramEnd::Exited(_),
                ..
            } if !self.started && !accounted_for => Err(CellError::new(
                "keep the program alive until its start",
                Errno::ECHILD,
            )),
            InitReport::Ended {
                end,
                scratch_full,
                cpu_us,
            } => Ok((*end, *scratch_full, *cpu_us)),
            InitReport::Missing if accounted_for => Ok((ProgramEnd::Signaled(SIGKILL), false, 0)),
            InitReport::Missing => Err(CellError::new("keep the cell's init alive", Errno::ECHILD)),
            InitReport::Failed(error) => Err(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const CELL_CAPS: CellCaps = CellCaps {
        cpu_millis: 1000,
        memory_bytes: 1,
        stack_bytes: 1 << 30,
        pids: 1,
        scratch_bytes: 1,
        scratch_inodes: 1,
    };

    const CALL_CAPS: CallCaps = CallCaps {
        wall_ms: 1000,
        cpu_ms: 1000,
        output_bytes: 1,
        output_total_bytes: 1,
        grace_ms: 1,
    };

    const USAGE: CellUsage = CellUsage {
        cpu_us: 7_000,
        out_of_memory: false,
        pids_refused: false,
        memory_peak: 4096,
        clean: true,
    };

    fn ending(init_report: InitReport) -> EndFacts {
        EndFacts {
            init_report,
            warm: false,
            started: true,
            init_killed: false,
            stop: None,
            sample: UsageSample {
                wall: Duration::from_millis(12),
                cpu_us: 3_000,
                out_of_memory: false,
                written: 0,
            },
            stdout_bytes: 0,
            stderr_bytes: 0,
            answer: HarnessAnswer::default(),
            displays_dropped: 0,
        }
    }

    /// Returns the reports at the end of a call in a cell with this usage.
    fn reports(facts: EndFacts, usage: &CellUsage) -> Result<EndReports, CellError> {
        facts.reports(&CELL_CAPS, &CALL_CAPS, usage)
    }

    fn ended(end: ProgramEnd) -> InitReport {
        InitReport::Ended {
            end,
            scratch_full: false,
            cpu_us: 9_500,
        }
    }

    #[test]
    fn the_largest_count_of_cpu_time_is_reported() {
        let facts = ending(ended(ProgramEnd::Exited(3)));
        let EndReports { call, cell } = reports(facts, &USAGE).unwrap();
        assert_eq!((call.end, call.stop), (ProgramEnd::Exited(3), None));
        assert_eq!((call.wall_ms, cell.cpu_ms), (12, 9));
    }

    #[test]
    fn a_stack_is_suspected_only_after_a_fault_with_that_much_memory_in_use() {
        let caps = CellCaps {
            stack_bytes: 4096,
            ..CELL_CAPS
        };
        let used = |memory_peak| CellUsage {
            memory_peak,
            ..USAGE
        };
        for (case, end, memory_peak, want) in [
            (
                "as much as the stack",
                ProgramEnd::Signaled(SIGSEGV),
                4096,
                true,
            ),
            (
                "less than the stack",
                ProgramEnd::Signaled(SIGSEGV),
                4095,
                false,
            ),
            ("another signal", ProgramEnd::Signaled(6), 8192, false),
            ("an exit", ProgramEnd::Exited(11), 8192, false),
        ] {
            let reports = ending(ended(end)).reports(&caps, &CALL_CAPS, &used(memory_peak));
            assert_eq!(reports.unwrap().call.stack_suspected, want, "{case}");
        }
    }

    #[test]
    fn an_init_that_is_silent_is_our_fault_unless_someone_had_a_reason_to_kill_it() {
        assert!(reports(ending(InitReport::Missing), &USAGE).is_err());
        let destroyed = EndFacts {
            init_killed: true,
            stop: Some(Stop::WallClock),
            ..ending(InitReport::Missing)
        };
        let call = reports(destroyed, &USAGE).unwrap().call;
        assert_eq!(
            (call.end, call.stop),
            (ProgramEnd::Signaled(SIGKILL), Some(Stop::WallClock))
        );
        let starved = CellUsage {
            out_of_memory: true,
            ..USAGE
        };
        let call = reports(ending(InitReport::Missing), &starved).unwrap().call;
        assert_eq!(call.stop, Some(Stop::Memory));
    }

    #[test]
    fn a_program_killed_before_it_started_is_out_of_memory_or_our_fault() {
        let killed = || EndFacts {
            started: false,
            ..ending(ended(ProgramEnd::Signaled(SIGKILL)))
        };
        assert!(reports(killed(), &USAGE).is_err());
        let starved = CellUsage {
            out_of_memory: true,
            ..USAGE
        };
        assert_eq!(
            reports(killed(), &starved).unwrap().call.stop,
            Some(Stop::Memory)
        );
        let missing = EndFacts {
            started: false,
            ..ending(ended(ProgramEnd::NotStarted(2)))
        };
        assert_eq!(
            reports(missing, &USAGE).unwrap().call.end,
            ProgramEnd::NotStarted(2)
        );
    }
}
