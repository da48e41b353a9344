//! Rules for stopping a program and for interpreting its end. They are pure: they read no clock and
//! touch no process.

use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGXCPU};

use sandhog_protocol::frames::{CallCaps, ProgramEnd, Stop};

/// The measured resource usage of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UsageSample {
    /// Wall-clock time since the program's start.
    pub(crate) wall: Duration,
    /// CPU time of the program's process tree, in microseconds.
    pub(crate) cpu_us: u64,
    /// True if the program ran out of memory.
    pub(crate) out_of_memory: bool,
    /// Bytes that the program wrote to both output streams.
    pub(crate) written: u64,
}

/// Returns the cap that a running program has reached, if any. Memory comes first, because it
/// explains the others.
pub(crate) fn exceeded(caps: &CallCaps, sample: &UsageSample) -> Option<Stop> {
    if sample.out_of_memory {
        Some(Stop::Memory)
    } else if sample.written > caps.output_total_bytes {
        Some(Stop::Output)
    } else if sample.cpu_us > caps.cpu_ms.saturating_mul(1000) {
        Some(Stop::CpuTime)
    } else if sample.wall >= Duration::from_millis(caps.wall_ms) {
        Some(Stop::WallClock)
    } else {
        None
    }
}

/// Returns the cap that was reached by a program that ended before the runner could stop it.
pub(crate) fn exceeded_at_end(
    caps: &CallCaps,
    sample: &UsageSample,
    end: ProgramEnd,
) -> Option<Stop> {
    // The kernel's own CPU limit ends a process with one of these signals.
    let out_of_time = matches!(end, ProgramEnd::Signaled(SIGKILL | SIGXCPU));
    match exceeded(caps, sample)? {
        stop @ (Stop::Memory | Stop::Output | Stop::Cancelled) => Some(stop),
        Stop::CpuTime if out_of_time => Some(Stop::CpuTime),
        // The program ended by itself just in time, so its own end is reported.
        Stop::CpuTime | Stop::WallClock => None,
    }
}

/// The phase of a program, from the making of its cell to the last step of stopping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminationPhase {
    /// The cell is being made.
    Starting,
    /// The program runs.
    Running,
    /// The program was sent SIGTERM.
    Terminating,
    /// Every process of the cell except its init was sent SIGKILL. The init is expected to report.
    Killed,
    /// The init itself was killed.
    InitKilled,
}

/// Timeout for making a cell.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for the report of an init after its cell was killed.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for the end of an init that was killed.
const INIT_EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The phase of a program, and the time at which the next one is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Termination {
    phase: TerminationPhase,
    due: Option<Instant>,
    grace: Duration,
    init_kills: u8,
}

impl Termination {
    /// Creates the termination of a cell that is being made.
    pub(crate) fn new(now: Instant, caps: &CallCaps) -> Self {
        Self {
            phase: TerminationPhase::Starting,
            due: Some(now + START_TIMEOUT),
            grace: Duration::from_millis(caps.grace_ms),
            init_kills: 0,
        }
    }

    /// Returns the current phase.
    pub(crate) fn phase(&self) -> TerminationPhase {
        self.phase
    }

    /// Returns the time from which on [`Termination::escalate_if_due`] returns a phase.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns whether the init was killed twice and did not end in time. The cell is lost then.
    pub(crate) fn is_init_killed_twice(&self) -> bool {
        self.init_kills >= 2
    }

    /// Records that the program has started. A stop that began before the start continues.
    pub(crate) fn note_started(&mut self) {
        if self.phase == TerminationPhase::Starting {
            self.phase = TerminationPhase::Running;
            self.due = None;
        }
    }

    /// Begins to stop the program, and returns the phase that begins now.
    pub(crate) fn stop(&mut self, now: Instant, stop: Stop) -> TerminationPhase {
        match (self.phase, stop) {
            (
                TerminationPhase::Running,
                Stop::WallClock | Stop::CpuTime | Stop::Output | Stop::Cancelled,
            ) if !self.grace.is_zero() => {
                self.enter(TerminationPhase::Terminating, now + self.grace)
            }
            // A program that is out of memory gets no grace period: it could not use it.
            (TerminationPhase::Running | TerminationPhase::Starting, _) => {
                self.enter(TerminationPhase::Killed, now + REPORT_TIMEOUT)
            }
            (
                TerminationPhase::Terminating
                | TerminationPhase::Killed
                | TerminationPhase::InitKilled,
                _,
            ) => self.phase,
        }
    }

    /// Returns the phase that begins because the current one took too long. `None` if the current
    /// phase is not overdue.
    pub(crate) fn escalate_if_due(&mut self, now: Instant) -> Option<TerminationPhase> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        Some(match self.phase {
            TerminationPhase::Terminating => {
                self.enter(TerminationPhase::Killed, now + REPORT_TIMEOUT)
            }
            TerminationPhase::Starting
            | TerminationPhase::Killed
            | TerminationPhase::Running
            | TerminationPhase::InitKilled => {
                self.init_kills += 1;
                self.enter(TerminationPhase::InitKilled, now + INIT_EXIT_TIMEOUT)
            }
        })
    }

    fn enter(&mut self, phase: TerminationPhase, due: Instant) -> TerminationPhase {
        self.phase = phase;
        self.due = Some(due);
        phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: CallCaps = CallCaps {
        wall_ms: 1000,
        cpu_ms: 500,
        output_bytes: 10,
        output_total_bytes: 100,
        grace_ms: 50,
    };

    const WITHIN_CAPS: UsageSample = UsageSample {
        wall: Duration::from_millis(999),
        cpu_us: 500_000,
        out_of_memory: false,
        written: 100,
    };

    #[test]
    fn each_cap_is_reached_just_past_it() {
        assert_eq!(exceeded(&CAPS, &WITHIN_CAPS), None);
        let cases = [
            (
                UsageSample {
                    wall: Duration::from_millis(1000),
                    ..WITHIN_CAPS
                },
                Stop::WallClock,
            ),
            (
                UsageSample {
                    cpu_us: 500_001,
                    ..WITHIN_CAPS
                },
                Stop::CpuTime,
            ),
            (
                UsageSample {
                    written: 101,
                    ..WITHIN_CAPS
                },
                Stop::Output,
            ),
            (
                UsageSample {
                    out_of_memory: true,
                    written: 101,
                    ..WITHIN_CAPS
                },
                Stop::Memory,
            ),
        ];
        for (sample, stop) in cases {
            assert_eq!(exceeded(&CAPS, &sample), Some(stop), "{sample:?}");
        }
    }

    #[test]
    fn a_program_that_ended_by_itself_is_not_said_to_be_stopped_for_time() {
        let late = UsageSample {
            wall: Duration::from_secs(2),
            cpu_us: 600_000,
            ..WITHIN_CAPS
        };
        assert_eq!(exceeded_at_end(&CAPS, &late, ProgramEnd::Exited(0)), None);
        assert_eq!(
            exceeded_at_end(&CAPS, &late, ProgramEnd::Signaled(SIGXCPU)),
            Some(Stop::CpuTime)
        );
        let oom = UsageSample {
            out_of_memory: true,
            ..WITHIN_CAPS
        };
        assert_eq!(
            exceeded_at_end(&CAPS, &oom, ProgramEnd::Exited(0)),
            Some(Stop::Memory)
        );
        let loud = UsageSample {
            written: 1000,
            ..WITHIN_CAPS
        };
        assert_eq!(
            exceeded_at_end(&CAPS, &loud, ProgramEnd::Exited(0)),
            Some(Stop::Output)
        );
    }

    #[test]
    fn a_stop_goes_from_asking_to_killing_to_destroying() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut termination = Termination::new(start, &CAPS);
        termination.note_started();
        assert_eq!(
            termination.escalate_if_due(at(1_000_000)),
            None,
            "a running program has its caps only"
        );
        assert_eq!(
            termination.stop(at(100), Stop::WallClock),
            TerminationPhase::Terminating
        );
        assert_eq!(
            termination.stop(at(110), Stop::Output),
            TerminationPhase::Terminating,
            "asked once"
        );
        assert_eq!(termination.escalate_if_due(at(149)), None);
        assert_eq!(
            termination.escalate_if_due(at(150)),
            Some(TerminationPhase::Killed)
        );
        assert_eq!(termination.escalate_if_due(at(151)), None);
        assert_eq!(
            termination.escalate_if_due(at(2150)),
            Some(TerminationPhase::InitKilled)
        );
        assert!(!termination.is_init_killed_twice());
        assert_eq!(
            termination.escalate_if_due(at(4150)),
            Some(TerminationPhase::InitKilled)
        );
        assert!(termination.is_init_killed_twice());
    }

    #[test]
    fn memory_and_no_grace_kill_at_once() {
        let now = Instant::now();
        let mut termination = Termination::new(now, &CAPS);
        termination.note_started();
        assert_eq!(
            termination.stop(now, Stop::Memory),
            TerminationPhase::Killed
        );
        let mut termination = Termination::new(
            now,
            &CallCaps {
                grace_ms: 0,
                ..CAPS
            },
        );
        termination.note_started();
        assert_eq!(
            termination.stop(now, Stop::WallClock),
            TerminationPhase::Killed
        );
        let mut termination = Termination::new(now, &CAPS);
        assert_eq!(
            termination.stop(now, Stop::Cancelled),
            TerminationPhase::Killed,
            "still starting"
        );
        let mut termination = Termination::new(now, &CAPS);
        assert_eq!(
            termination.escalate_if_due(now + START_TIMEOUT),
            Some(TerminationPhase::InitKilled)
        );
    }
}
