//! The state of one job: its call's program, the cell of the program, and the channels to it.

use std::time::{Duration, Instant};

use sandhog_protocol::frames::{Call, CallCaps, CallId, CellCaps, OpenCell, Program, Stop, Stream};

use super::inputs::Inputs;
use super::report::{EndFacts, InitReport};
use super::termination::{Termination, TerminationPhase, UsageSample, exceeded};
use crate::cell::{Cell, CellError};
use crate::channels::{Channel, HarnessChannel, InferChannel, ModelChannel, OutputChannel};

/// Interval between reads of a running cell's resource counters.
pub(super) const USAGE_SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// Delay before the first read of a new program's output. `Connection::send_soon` would hold the
/// output back for about as long anyway. A program that ends within the delay wakes the runner once
/// instead of once per write.
const OUTPUT_READ_DELAY: Duration = Duration::from_millis(4);

/// The fewest bytes of output per turn of the loop; after a turn with less, reading pauses for
/// [`OUTPUT_READ_DELAY`]. Otherwise the runner would pass on each byte separately if a program
/// writes single bytes as packets, or alternates between both streams.
const MIN_OUTPUT_PER_TURN: u64 = 4096;

/// A program in its cell.
pub(super) struct JobRun {
    /// The call.
    pub(super) id: CallId,
    pub(super) cell: Cell,
    /// True if the program is a clone of the zygote.
    pub(super) is_clone: bool,
    pub(super) cell_caps: CellCaps,
    pub(super) caps: CallCaps,
    /// The files that were put into the working directory.
    pub(super) inputs: Inputs,
    pub(super) channels: Channels,
    pub(super) termination: Termination,
    /// Time at which the request was sent to a clone that waited for it.
    pub(super) request_sent_at: Option<Instant>,
    /// End of a pause in reading the output, set after a turn that brought little output.
    read_paused_until: Option<Instant>,
    pub(super) started: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) stop: Option<Stop>,
    pub(super) init_report: InitReport,
    /// CPU time of the clone, in microseconds.
    pub(super) clone_cpu_us: u64,
    /// Time of the last read of the resource counters. The next two fields hold its results.
    pub(super) usage_sampled_at: Instant,
    cpu_us: u64,
    out_of_memory: bool,
}

/// The channels to the program.
pub(super) struct Channels {
    pub(super) harness: HarnessChannel,
    /// The bytes between the worker and a model server. Inactive for any other program.
    pub(super) model: ModelChannel,
    /// The program's inference requests. Inactive if the program may send none.
    pub(super) infer: InferChannel,
    pub(super) stdout: OutputChannel,
    pub(super) stderr: OutputChannel,
}

impl Channels {
    /// Returns all channels, in the order in which a turn of the event loop handles them.
    pub(super) fn all(&self) -> [&dyn Channel; 5] {
        let Self {
            harness,
            model,
            infer,
            stdout,
            stderr,
        } = self;
        [harness, model, infer, stdout, stderr]
    }

    /// Returns all channels, in the same order, for a turn of the event loop.
    pub(super) fn all_mut(&mut self) -> [&mut dyn Channel; 5] {
        let Self {
            harness,
            model,
            infer,
            stdout,
            stderr,
        } = self;
        [harness, model, infer, stdout, stderr]
    }

    /// Returns the channels that may hold bytes of a dead program, the output first.
    pub(super) fn all_to_drain(&mut self) -> [&mut dyn Channel; 4] {
        let Self {
            harness,
            model,
            infer: _,
            stdout,
            stderr,
        } = self;
        [stdout, stderr, harness, model]
    }

    /// Returns whether the output streams and the harness's socket have reached their ends.
    pub(super) fn have_ended(&self) -> bool {
        self.stdout.ended() && self.stderr.ended() && self.harness.ended()
    }

    /// Returns the number of bytes that the program has written to both output streams.
    pub(super) fn output_bytes(&self) -> u64 {
        self.stdout.total() + self.stderr.total()
    }
}

impl JobRun {
    /// Creates the job for a program that is about to start. `request` is the part of `call` that
    /// goes to the harness. Of `open` and `call` themselves, only the caps and the files are used
    /// from here on.
    pub(super) fn new(mut cell: Cell, request: Vec<u8>, open: OpenCell, call: Call) -> Self {
        let OpenCell {
            caps: cell_caps,
            files,
            ..
        } = open;
        let Call {
            id,
            program,
            caps,
            displays,
            infer_quota,
            ..
        } = call;
        let is_server = matches!(program, Program::Server { .. });
        let now = Instant::now();
        // A model server speaks over the descriptor that another program has for its harness.
        let (harness, server) = match cell.harness.take() {
            socket if is_server => (None, socket),
            socket => (socket, None),
        };
        let infer = match infer_quota {
            Some(quota) if !is_server => InferChannel::new(id, cell.infer.take(), quota),
            Some(_) | None => InferChannel::none(id),
        };
        let (stdout, stderr) = (cell.stdout.take(), cell.stderr.take());
        let channels = Channels {
            harness: HarnessChannel::new(id, harness, request, displays),
            model: ModelChannel::new(id, server),
            infer,
            stdout: OutputChannel::new(id, stdout, Stream::Stdout, caps.output_bytes),
            stderr: OutputChannel::new(id, stderr, Stream::Stderr, caps.output_bytes),
        };
        Self {
            id,
            is_clone: cell.is_for_clone(),
            cell,
            channels,
            termination: Termination::new(now, &caps),
            request_sent_at: None,
            read_paused_until: None,
            started: None,
            ended: None,
            stop: None,
            init_report: InitReport::Missing,
            clone_cpu_us: 0,
            usage_sampled_at: now,
            cpu_us: 0,
            out_of_memory: false,
            cell_caps,
            caps,
            inputs: Inputs::new(files, program),
        }
    }

    /// Sends the request to a clone that waits for it.
    pub(super) fn send_request(&mut self) {
        self.request_sent_at = Some(Instant::now());
        self.channels.harness.push();
    }

    /// Returns the time until which the program's output is not read, if reading is paused. Once
    /// the program is dead, reading is never paused.
    pub(super) fn read_paused_until(&self, now: Instant) -> Option<Instant> {
        let first_read = self.request_sent_at.map(|at| at + OUTPUT_READ_DELAY);
        let until = first_read.max(self.read_paused_until);
        until.filter(|until| now < *until && self.ended.is_none())
    }

    /// Pauses the reading of the output if the last turn of the event loop brought only these few
    /// bytes.
    pub(super) fn pause_reading_after(&mut self, bytes: u64) {
        if bytes > 0 && bytes < MIN_OUTPUT_PER_TURN {
            self.read_paused_until = Some(Instant::now() + OUTPUT_READ_DELAY);
        }
    }

    /// Stops the program when a cap is reached, and escalates a stop that takes too long.
    ///
    /// # Errors
    /// Fails if a counter of the cell cannot be read.
    pub(super) fn enforce_caps(&mut self) -> Result<(), CellError> {
        let now = Instant::now();
        if self.started.is_some() && self.ended.is_none() {
            if now >= self.usage_sampled_at + USAGE_SAMPLE_INTERVAL {
                self.usage_sampled_at = now;
                let usage = self.cell.sample_usage()?;
                self.cpu_us = self.cpu_us.max(usage.cpu_us);
                self.out_of_memory |= usage.out_of_memory;
            }
            if let Some(stop) = exceeded(&self.caps, &self.usage_sample(now)) {
                self.stop_for(stop);
            }
        } else {
            self.usage_sampled_at = now;
        }
        if let Some(phase) = self.termination.escalate_if_due(now) {
            self.signal_for(phase);
        }
        Ok(())
    }

    fn usage_sample(&self, now: Instant) -> UsageSample {
        UsageSample {
            wall: self
                .started
                .map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            cpu_us: self.cpu_us,
            out_of_memory: self.out_of_memory,
            written: self.channels.output_bytes(),
        }
    }

    /// Stops the program. If there are several reasons, the first one is reported.
    pub(super) fn stop_for(&mut self, stop: Stop) {
        if self.stop.is_none() && self.ended.is_none() {
            self.stop = Some(stop);
            let phase = self.termination.stop(Instant::now(), stop);
            self.signal_for(phase);
        }
    }

    fn signal_for(&mut self, phase: TerminationPhase) {
        match phase {
            TerminationPhase::Starting | TerminationPhase::Running => {}
            TerminationPhase::Terminating => self.cell.terminate(),
            TerminationPhase::Killed => self.cell.kill(),
            TerminationPhase::InitKilled => self.cell.destroy(),
        }
    }

    /// Records that the program runs.
    pub(super) fn note_started(&mut self) {
        self.started = self.request_sent_at.or_else(|| Some(Instant::now()));
        self.termination.note_started();
    }

    /// Records a failure of the runner's own. If there are several, the first one is reported.
    pub(super) fn fail(&mut self, error: CellError) {
        match self.init_report {
            InitReport::Failed(_) => {}
            InitReport::Missing | InitReport::Ended { .. } => {
                self.init_report = InitReport::Failed(error);
            }
        }
    }

    /// Records a failure of the runner's own after which the cell is of no use, and destroys the
    /// cell.
    pub(super) fn give_up(&mut self, error: CellError) {
        self.fail(error);
        self.cell.destroy();
    }

    /// Takes the last message of the init.
    pub(super) fn take_init_report(&mut self) -> InitReport {
        std::mem::replace(&mut self.init_report, InitReport::Missing)
    }

    /// Returns the facts for the reports, the cell, which the caller has to remove, and its files.
    pub(super) fn into_end_facts(self, init_report: InitReport) -> (EndFacts, Cell, Inputs) {
        let sample = self.usage_sample(self.ended.unwrap_or_else(Instant::now));
        let Channels {
            harness,
            stdout,
            stderr,
            ..
        } = self.channels;
        let (answer, displays_dropped) = harness.into_answer();
        let facts = EndFacts {
            init_report,
            warm: self.is_clone,
            started: self.started.is_some(),
            init_killed: self.termination.phase() == TerminationPhase::InitKilled,
            stop: self.stop,
            sample,
            stdout_bytes: stdout.total(),
            stderr_bytes: stderr.total(),
            answer,
            displays_dropped,
        };
        (facts, self.cell, self.inputs)
    }
}
