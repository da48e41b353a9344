//! Rules for stopping a program and for interpreting its end. They are pure: they read no clock and
//! touch no process.

use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGXCPU};

use sandhog_runner::protocol::{Caps, End, Stop};

/// The measured resource usage of a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
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
pub(crate) fn exceeded(caps: &Caps, reading: &Reading) -> Option<Stop> {
    if reading.out_of_memory {
        Some(Stop::Memory)
    } else if reading.written > caps.output_total_bytes {
        Some(Stop::Output)
    } else if reading.cpu_us > caps.cpu_ms.saturating_mul(1000) {
        Some(Stop::CpuTime)
    } else if reading.wall >= Duration::from_millis(caps.wall_ms) {
        Some(Stop::WallClock)
    } else {
        None
    }
}

/// Returns the cap that was reached by a program that ended before the runner could stop it.
pub(crate) fn exceeded_at_end(caps: &Caps, reading: &Reading, end: End) -> Option<Stop> {
    // The kernel's own CPU limit ends a process with one of these signals.
    let out_of_time = matches!(end, End::Signaled(SIGKILL | SIGXCPU));
    match exceeded(caps, reading)? {
        stop @ (Stop::Memory | Stop::Output | Stop::Cancelled) => Some(stop),
        Stop::CpuTime if out_of_time => Some(Stop::CpuTime),
        // The program ended by itself just in time, so its own end is reported.
        Stop::CpuTime | Stop::WallClock => None,
    }
}

/// The phase of a program, from the making of its cell to the last step of stopping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The cell is being made.
    Starting,
    /// The program runs.
    Running,
    /// The program was sent SIGTERM.
    Asked,
    /// Every process of the cell except its init was sent SIGKILL. The init is expected to report.
    Killed,
    /// The init itself was killed.
    Destroyed,
}

/// Timeout for making a cell.
const START_BOUND: Duration = Duration::from_secs(10);

/// Timeout for the report of an init after its cell was killed.
const REPORT_BOUND: Duration = Duration::from_secs(2);

/// Timeout for the end of an init that was killed.
const GONE_BOUND: Duration = Duration::from_secs(2);

/// The phase of a program, and the time at which the next one is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    phase: Phase,
    due: Option<Instant>,
    grace: Duration,
    destroyed: u8,
}

impl Schedule {
    /// Creates the schedule of a cell that is being made.
    pub(crate) fn new(now: Instant, caps: &Caps) -> Self {
        Self {
            phase: Phase::Starting,
            due: Some(now + START_BOUND),
            grace: Duration::from_millis(caps.grace_ms),
            destroyed: 0,
        }
    }

    /// Returns the current phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the time from which on [`Schedule::overdue`] returns a phase.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns whether the init was killed twice and did not end in time. The cell is lost then.
    pub(crate) fn destroyed_twice(&self) -> bool {
        self.destroyed >= 2
    }

    /// Records that the program has started. A stop that began before the start continues.
    pub(crate) fn started(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
            self.due = None;
        }
    }

    /// Begins to stop the program, and returns the phase that begins now.
    pub(crate) fn stop(&mut self, now: Instant, stop: Stop) -> Phase {
        match (self.phase, stop) {
            (Phase::Running, Stop::WallClock | Stop::CpuTime | Stop::Output | Stop::Cancelled)
                if !self.grace.is_zero() =>
            {
                self.enter(Phase::Asked, now + self.grace)
            }
            // A program that is out of memory gets no grace period: it could not use it.
            (Phase::Running | Phase::Starting, _) => self.enter(Phase::Killed, now + REPORT_BOUND),
            (Phase::Asked | Phase::Killed | Phase::Destroyed, _) => self.phase,
        }
    }

    /// Returns the phase that begins because the current one took too long. `None` if the current
    /// phase is not overdue.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Phase> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        Some(match self.phase {
            Phase::Asked => self.enter(Phase::Killed, now + REPORT_BOUND),
            Phase::Starting | Phase::Killed | Phase::Running | Phase::Destroyed => {
                self.destroyed += 1;
                self.enter(Phase::Destroyed, now + GONE_BOUND)
            }
        })
    }

    fn enter(&mut self, phase: Phase, due: Instant) -> Phase {
        self.phase = phase;
        self.due = Some(due);
        phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        wall_ms: 1000,
        cpu_ms: 500,
        cpu_millis: 1000,
        memory_bytes: 1,
        stack_bytes: 1 << 30,
        pids: 1,
        scratch_bytes: 1,
        scratch_inodes: 1,
        output_bytes: 10,
        output_total_bytes: 100,
        grace_ms: 50,
    };

    const QUIET: Reading = Reading {
        wall: Duration::from_millis(999),
        cpu_us: 500_000,
        out_of_memory: false,
        written: 100,
    };

    #[test]
    fn each_cap_is_reached_just_past_it() {
        assert_eq!(exceeded(&CAPS, &QUIET), None);
        let cases = [
            (
                Reading {
                    wall: Duration::from_millis(1000),
                    ..QUIET
                },
                Stop::WallClock,
            ),
            (
                Reading {
                    cpu_us: 500_001,
                    ..QUIET
                },
                Stop::CpuTime,
            ),
            (
                Reading {
                    written: 101,
                    ..QUIET
                },
                Stop::Output,
            ),
            (
                Reading {
                    out_of_memory: true,
                    written: 101,
                    ..QUIET
                },
                Stop::Memory,
            ),
        ];
        for (reading, stop) in cases {
            assert_eq!(exceeded(&CAPS, &reading), Some(stop), "{reading:?}");
        }
    }

    #[test]
    fn a_program_that_ended_by_itself_is_not_said_to_be_stopped_for_time() {
        let late = Reading {
            wall: Duration::from_secs(2),
            cpu_us: 600_000,
            ..QUIET
        };
        assert_eq!(exceeded_at_end(&CAPS, &late, End::Exited(0)), None);
        assert_eq!(
            exceeded_at_end(&CAPS, &late, End::Signaled(SIGXCPU)),
            Some(Stop::CpuTime)
        );
        let oom = Reading {
            out_of_memory: true,
            ..QUIET
        };
        assert_eq!(
            exceeded_at_end(&CAPS, &oom, End::Exited(0)),
            Some(Stop::Memory)
        );
        let loud = Reading {
            written: 1000,
            ..QUIET
        };
        assert_eq!(
            exceeded_at_end(&CAPS, &loud, End::Exited(0)),
            Some(Stop::Output)
        );
    }

    #[test]
    fn a_stop_goes_from_asking_to_killing_to_destroying() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(start, &CAPS);
        schedule.started();
        assert_eq!(
            schedule.overdue(at(1_000_000)),
            None,
            "a running program has its caps only"
        );
        assert_eq!(schedule.stop(at(100), Stop::WallClock), Phase::Asked);
        assert_eq!(
            schedule.stop(at(110), Stop::Output),
            Phase::Asked,
            "asked once"
        );
        assert_eq!(schedule.overdue(at(149)), None);
        assert_eq!(schedule.overdue(at(150)), Some(Phase::Killed));
        assert_eq!(schedule.overdue(at(151)), None);
        assert_eq!(schedule.overdue(at(2150)), Some(Phase::Destroyed));
        assert!(!schedule.destroyed_twice());
        assert_eq!(schedule.overdue(at(4150)), Some(Phase::Destroyed));
        assert!(schedule.destroyed_twice());
    }

    #[test]
    fn memory_and_no_grace_kill_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, &CAPS);
        schedule.started();
        assert_eq!(schedule.stop(now, Stop::Memory), Phase::Killed);
        let mut schedule = Schedule::new(
            now,
            &Caps {
                grace_ms: 0,
                ..CAPS
            },
        );
        schedule.started();
        assert_eq!(schedule.stop(now, Stop::WallClock), Phase::Killed);
        let mut schedule = Schedule::new(now, &CAPS);
        assert_eq!(
            schedule.stop(now, Stop::Cancelled),
            Phase::Killed,
            "still starting"
        );
        let mut schedule = Schedule::new(now, &CAPS);
        assert_eq!(schedule.overdue(now + START_BOUND), Some(Phase::Destroyed));
    }
}
