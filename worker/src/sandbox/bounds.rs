//! What a runner may take and send: how long it may stay silent, how much output it may pass on.
//!
//! A runner keeps these bounds by itself. They are kept here too, because a runner whose container was broken out of
//! keeps nothing.

use std::time::Duration;

use sandhog_common::limits::Limits;
use sandhog_common::units::Millis;
use sandhog_runner::protocol::{
    Caps, Displays, MAX_CHUNK, MAX_QUESTION, Part, Questions, Stream, display_size, is_sound,
};
use tokio::time::Instant;

/// How long after a job's own time a runner may stay silent: it is for making and ending a cell on a busy machine.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Time for a cell to be taken down after its report. It is above the bounds that a runner keeps,
/// of which the longest is for a cell with as many files as any job may have.
pub(super) const GONE_WITHIN: Duration = Duration::from_secs(45);

/// Between SIGTERM and the end of a cell.
const GRACE: Millis = Millis(100);

/// A job's caps as a runner takes them.
pub(crate) fn caps(limits: &Limits) -> Caps {
    Caps {
        wall_ms: limits.timeout_ms.0,
        cpu_ms: limits.cpu_ms.0,
        cpu_millis: limits.cpu_millis.0,
        memory_bytes: limits.memory.0,
        stack_bytes: limits.stack.0,
        pids: limits.pids.0,
        scratch_bytes: limits.scratch.0,
        scratch_inodes: limits.scratch_inodes.0,
        output_bytes: limits.output.0,
        output_total_bytes: limits.output_total.0,
        grace_ms: GRACE.0,
    }
}

/// What a job may show, as a runner is told.
pub(crate) fn displays(limits: &Limits) -> Displays {
    Displays {
        most: limits.displays.0,
        bytes: limits.display_bytes.0,
        total_bytes: limits.display_total.0,
    }
}

/// No job runs for longer; it keeps deadlines within what a clock can count.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// How long a runner may take over a job with these caps.
pub(super) fn patience(caps: &Caps) -> Duration {
    let own = Duration::from_millis(caps.wall_ms.saturating_add(caps.grace_ms));
    own.min(LONGEST) + SILENCE
}

/// How long a runner may still stay silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watchdog {
    /// When patience ends.
    pub(super) until: Instant,
    /// How long that was when it began.
    pub(super) patience: Duration,
}

impl Watchdog {
    /// From now on.
    pub(super) fn start(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            patience,
        }
    }

    /// No longer than this from now on.
    pub(super) fn shorten(&mut self, patience: Duration) {
        let sooner = Self::start(patience);
        if sooner.until < self.until {
            *self = sooner;
        }
    }

    /// Longer, by time that was not the runner's.
    pub(super) fn prolong(&mut self, by: Duration) {
        self.until += by;
    }
}

/// What a program has asked of models so far. A runner passes on no more than it was told, so more is not a program's
/// doing.
#[derive(Debug)]
pub(super) struct Asked {
    open: u32,
    at_once: u32,
    left: u64,
}

impl Asked {
    /// Nothing, of what may be asked.
    pub(super) fn new(questions: Option<Questions>) -> Self {
        Self {
            open: 0,
            at_once: questions.map_or(0, |questions| questions.at_once),
            left: questions.map_or(0, |questions| questions.most),
        }
    }

    /// Counts one question, and says whether it is within the bounds.
    pub(super) fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.open < self.at_once && self.left > 0 && bytes <= MAX_QUESTION;
        self.open = self.open.saturating_add(1);
        self.left = self.left.saturating_sub(1);
        fits
    }

    /// One of them has its answer.
    pub(super) fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}

/// What a program has shown so far. A runner drops what is above its caps, so more is not a program's doing.
#[derive(Debug)]
pub(super) struct Shown {
    left: Displays,
    /// What was shown.
    pub(super) displays: Vec<Vec<Part>>,
}

impl Shown {
    /// Nothing, of what may be shown.
    pub(super) fn new(allowed: Displays) -> Self {
        Self {
            left: allowed,
            displays: Vec::new(),
        }
    }

    /// Keeps one display, and says whether it is sound and within the caps.
    pub(super) fn keep(&mut self, parts: Vec<Part>) -> bool {
        let bytes = display_size(&parts);
        let left = &mut self.left;
        let fits =
            is_sound(&parts) && left.most > 0 && bytes <= left.bytes && bytes <= left.total_bytes;
        if fits {
            left.most -= 1;
            left.total_bytes -= bytes;
            self.displays.push(parts);
        }
        fits
    }
}

/// What has come of each stream so far. A runner cuts output at its cap, so more is not a program's doing.
#[derive(Debug, Default)]
pub(super) struct Kept {
    stdout: u64,
    stderr: u64,
}

impl Kept {
    /// Counts one piece, and says whether it is within the caps.
    pub(super) fn fits(&mut self, stream: Stream, bytes: usize, caps: &Caps) -> bool {
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

    fn caps(wall_ms: u64) -> Caps {
        Caps {
            wall_ms,
            cpu_ms: 1,
            cpu_millis: 1,
            memory_bytes: 1,
            stack_bytes: 1 << 30,
            pids: 1,
            scratch_bytes: 1,
            scratch_inodes: 1,
            output_bytes: 10,
            output_total_bytes: 1,
            grace_ms: 100,
        }
    }

    #[test]
    fn no_cap_makes_a_deadline_that_cannot_be_counted() {
        assert_eq!(
            patience(&caps(900)),
            Duration::from_secs(1) + SILENCE,
            "the job's own time, and some for the cell"
        );
        let longest = Watchdog::start(patience(&caps(u64::MAX)));
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
    fn a_runner_may_not_pass_on_more_displays_than_it_was_told() {
        let display = |mime: &str, bytes: usize| {
            vec![Part {
                mime: mime.to_owned(),
                data: vec![b'x'; bytes],
            }]
        };
        let allowed = Displays {
            most: 2,
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
            let mut all = Shown::new(allowed);
            let got = shown.map(|(mime, bytes)| all.keep(display(mime, bytes)));
            assert_eq!(got, kept, "{case}");
            assert_eq!(
                all.displays.len(),
                kept.iter().filter(|kept| **kept).count()
            );
        }
        let mut one = Shown::new(Displays { most: 1, ..allowed });
        assert!(!one.keep(Vec::new()), "no forms");
        assert!(one.keep(display("text/plain", 1)));
        assert!(!one.keep(display("text/plain", 1)), "too many");
    }

    #[test]
    fn each_stream_has_its_own_cap() {
        let mut kept = Kept::default();
        assert!(kept.fits(Stream::Stdout, 10, &caps(1)));
        assert!(kept.fits(Stream::Stderr, 10, &caps(1)));
        assert!(!kept.fits(Stream::Stdout, 1, &caps(1)));
    }
}
