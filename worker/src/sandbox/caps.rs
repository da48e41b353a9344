//! Caps on the frames of a runner: how long it may stay silent, and how much output, how many
//! displays and how many inference requests it may pass on.
//!
//! The runner enforces these caps itself. The worker checks them again, because a program that has
//! escaped from its container could make the runner exceed them.

use std::time::Duration;

use sandhog_core::limits::Limits;
use sandhog_core::units::Millis;
use sandhog_protocol::frames::{
    CallCaps, CellCaps, DisplayCaps, DisplayPart, InferQuota, MAX_CHUNK, MAX_INFER_REQUEST, Stream,
    display_size, is_valid_display,
};
use tokio::time::Instant;

use super::RunCaps;

/// Time that a runner may stay silent beyond the job's own time: for creating and removing a cell
/// on a busy machine.
pub(super) const RUNNER_MARGIN: Duration = Duration::from_secs(10);

/// Timeout for the removal of a cell after its end. It is above the runner's own limits, the
/// longest of which is for a cell with as many files as a job may have.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(45);

/// Time between SIGTERM and the end of a cell.
const TERM_GRACE: Millis = Millis(100);

/// Converts a job's limits into the caps that a runner receives.
pub(crate) fn caps(limits: &Limits) -> RunCaps {
    RunCaps {
        cell: CellCaps {
            cpu_millis: limits.cpu_millis.0,
            memory_bytes: limits.memory.0,
            stack_bytes: limits.stack.0,
            pids: limits.pids.0,
            scratch_bytes: limits.scratch.0,
            scratch_inodes: limits.scratch_inodes.0,
        },
        call: CallCaps {
            wall_ms: limits.timeout_ms.0,
            cpu_ms: limits.cpu_ms.0,
            output_bytes: limits.output.0,
            output_total_bytes: limits.output_total.0,
            grace_ms: TERM_GRACE.0,
        },
    }
}

/// Converts a job's limits into the caps on displays that a runner receives.
pub(crate) fn display_caps(limits: &Limits) -> DisplayCaps {
    DisplayCaps {
        count: limits.displays.0,
        bytes: limits.display_bytes.0,
        total_bytes: limits.display_total.0,
    }
}

/// Upper bound of a job's time. Keeps deadlines within the range of the clock.
const MAX_JOB_TIME: Duration = Duration::from_secs(400 * 86_400);

/// Returns the time that a runner may take for a job with these caps.
pub(super) fn job_timeout(caps: &CallCaps) -> Duration {
    let own = Duration::from_millis(caps.wall_ms.saturating_add(caps.grace_ms));
    own.min(MAX_JOB_TIME) + RUNNER_MARGIN
}

/// Deadline of a runner's next sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watchdog {
    /// Time at which the deadline passes.
    pub(super) until: Instant,
    /// Length of the timeout that the deadline was made from.
    pub(super) timeout: Duration,
}

impl Watchdog {
    /// Starts a deadline `timeout` from now.
    pub(super) fn start(timeout: Duration) -> Self {
        Self {
            until: Instant::now() + timeout,
            timeout,
        }
    }

    /// Moves the deadline to `timeout` from now, unless it is already earlier.
    pub(super) fn shorten(&mut self, timeout: Duration) {
        let sooner = Self::start(timeout);
        if sooner.until < self.until {
            *self = sooner;
        }
    }

    /// Extends the deadline by time that the runner did not cause.
    pub(super) fn prolong(&mut self, by: Duration) {
        self.until += by;
    }
}

/// Counts a program's inference requests. The runner passes on no more than its caps allow, so an
/// excess is the fault of the runner, not of the program.
#[derive(Debug)]
pub(super) struct InferMeter {
    open: u32,
    max_open: u32,
    left: u64,
}

impl InferMeter {
    /// Starts without any request, with the given caps.
    pub(super) fn new(quota: Option<InferQuota>) -> Self {
        Self {
            open: 0,
            max_open: quota.map_or(0, |quota| quota.max_open),
            left: quota.map_or(0, |quota| quota.max_total),
        }
    }

    /// Counts one request, and returns whether it is within the caps.
    pub(super) fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.open < self.max_open && self.left > 0 && bytes <= MAX_INFER_REQUEST;
        self.open = self.open.saturating_add(1);
        self.left = self.left.saturating_sub(1);
        fits
    }

    /// Counts the response to one request.
    pub(super) fn record_response(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}

/// Collects a program's displays. The runner drops displays that exceed its caps, so an excess is
/// the fault of the runner, not of the program.
#[derive(Debug)]
pub(super) struct DisplayMeter {
    left: DisplayCaps,
    /// The displays so far.
    pub(super) displays: Vec<Vec<DisplayPart>>,
}

impl DisplayMeter {
    /// Starts without any display, with the given caps.
    pub(super) fn new(allowed: DisplayCaps) -> Self {
        Self {
            left: allowed,
            displays: Vec::new(),
        }
    }

    /// Keeps one display if it is valid and within the caps, and returns whether it is.
    pub(super) fn keep(&mut self, parts: Vec<DisplayPart>) -> bool {
        let bytes = display_size(&parts);
        let left = &mut self.left;
        let fits = is_valid_display(&parts)
            && left.count > 0
            && bytes <= left.bytes
            && bytes <= left.total_bytes;
        if fits {
            left.count -= 1;
            left.total_bytes -= bytes;
            self.displays.push(parts);
        }
        fits
    }
}

/// Counts the bytes of each output stream. The runner cuts output at its cap, so an excess is the
/// fault of the runner, not of the program.
#[derive(Debug, Default)]
pub(super) struct OutputMeter {
    stdout: u64,
    stderr: u64,
}

impl OutputMeter {
    /// Counts one chunk, and returns whether it is within the caps.
    pub(super) fn fits(&mut self, stream: Stream, bytes: usize, caps: &CallCaps) -> bool {
        let sum = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *sum = sum.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        bytes <= MAX_CHUNK && *sum <= caps.output_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(wall_ms: u64) -> CallCaps {
        CallCaps {
            wall_ms,
            cpu_ms: 1,
            output_bytes: 10,
            output_total_bytes: 1,
            grace_ms: 100,
        }
    }

    #[test]
    fn no_cap_makes_a_deadline_that_cannot_be_counted() {
        assert_eq!(
            job_timeout(&caps(900)),
            Duration::from_secs(1) + RUNNER_MARGIN,
            "the job's own time, and some for the cell"
        );
        let longest = Watchdog::start(job_timeout(&caps(u64::MAX)));
        assert!(longest.until > Instant::now());
    }

    #[test]
    fn cancelling_only_ever_shortens_the_wait() {
        let mut watchdog = Watchdog::start(Duration::from_secs(5));
        let until = watchdog.until;
        watchdog.shorten(Duration::from_secs(50));
        assert_eq!(watchdog.until, until);
        watchdog.shorten(Duration::from_secs(1));
        assert!(watchdog.until < until);
    }

    #[test]
    fn a_runner_may_not_pass_on_more_displays_than_its_caps() {
        let display = |mime: &str, bytes: usize| {
            vec![DisplayPart {
                mime: mime.to_owned(),
                data: vec![b'x'; bytes],
            }]
        };
        let allowed = DisplayCaps {
            count: 2,
            bytes: 30,
            total_bytes: 50,
        };
        for (case, shown, kept) in [
            (
                "all",
                [("text/plain", 20), ("text/plain", 10)],
                [true, true],
            ),
            (
                "one too long",
                [("text/plain", 21), ("text/plain", 10)],
                [false, true],
            ),
            (
                "too much in all",
                [("text/plain", 20), ("text/plain", 20)],
                [true, false],
            ),
            ("no mime type", [("../x", 1), ("", 1)], [false, false]),
        ] {
            let mut all = DisplayMeter::new(allowed);
            let got = shown.map(|(mime, bytes)| all.keep(display(mime, bytes)));
            assert_eq!(got, kept, "{case}");
            assert_eq!(
                all.displays.len(),
                kept.iter().filter(|kept| **kept).count()
            );
        }
        let mut one = DisplayMeter::new(DisplayCaps {
            count: 1,
            ..allowed
        });
        assert!(!one.keep(Vec::new()), "no forms");
        assert!(one.keep(display("text/plain", 1)));
        assert!(!one.keep(display("text/plain", 1)), "too many");
    }

    #[test]
    fn each_stream_has_its_own_cap() {
        let mut kept = OutputMeter::default();
        assert!(kept.fits(Stream::Stdout, 10, &caps(1)));
        assert!(kept.fits(Stream::Stderr, 10, &caps(1)));
        assert!(!kept.fits(Stream::Stdout, 1, &caps(1)));
    }
}
