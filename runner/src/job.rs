//! One program in its cell: drains its output, enforces its caps and stops it.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_runner::protocol::{
    Caps, Fetch, FromRunner, MAX_CHUNK, Report, Run, Stop, Stream, ToRunner,
};

use crate::answer::Exchange;
use crate::cell::{Brought, Cell, CellError, Collected};
use crate::hearing::Init;
use crate::link::Link;
use crate::output::{Capture, Taken};
use crate::questions::Desk;
use crate::relay::Relay;
use crate::report::{Ending, LastWord};
use crate::serve::{Heard, ServeError, Signals, reap_all};
use crate::stopping::{Phase, Reading, Schedule, exceeded};
use crate::warmth::Warmth;

/// Interval between reads of a running cell's resource counters.
const TICK: Duration = Duration::from_millis(20);

/// Delay before the first read of a new program's output. [`Link::send_soon`] would hold the output
/// back for about as long anyway. A program that ends within the delay wakes the runner once
/// instead of once per write.
const QUIET: Duration = Duration::from_millis(4);

/// The fewest bytes of output per turn of the loop; after a turn with less, reading pauses for
/// [`QUIET`]. Otherwise the runner would pass on each byte separately if a program writes single
/// bytes as packets, or alternates between both streams.
const LITTLE: u64 = 4096;

/// Timeout for reading the last bytes from the pipes of a dead cell.
const DRAIN_BOUND: Duration = Duration::from_secs(1);

/// The reason for which the supervision of a cell ended.
pub(crate) enum Course {
    /// The program and every process of its cell are dead. Holds the init's last message.
    Ended(LastWord),
    /// The worker closed the connection, or the container is to end, so no report is needed.
    HungUp,
}

/// A program in its cell.
pub(crate) struct Job {
    pub(crate) cell: Cell,
    /// True if the program is a clone of the zygote.
    pub(crate) warm: bool,
    caps: Caps,
    /// The files to take out of the working directory at the end.
    fetch: Fetch,
    /// The files that were put into the working directory. Filled only if the job fetches changed
    /// files only.
    brought: Brought,
    stdout: Capture,
    stderr: Capture,
    exchange: Exchange,
    /// The bytes between the worker and a model server. Inactive for any other program.
    pub(crate) relay: Relay,
    /// The program's inference requests. Inactive if the program may send none.
    pub(crate) desk: Desk,
    pub(crate) schedule: Schedule,
    /// Time at which the request was sent to a clone that waited for it.
    pub(crate) handed: Option<Instant>,
    /// End of a pause in reading the output, set after a turn that brought little output.
    paused: Option<Instant>,
    pub(crate) started: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    stop: Option<Stop>,
    pub(crate) last_word: LastWord,
    /// CPU time of the clone, in microseconds.
    pub(crate) clone_cpu_us: u64,
    /// Time of the last read of the resource counters. The next two fields hold its results.
    looked: Instant,
    cpu_us: u64,
    out_of_memory: bool,
}

impl Job {
    /// Creates the job for a program that is about to start. `request` is the part of `run` that
    /// goes to the harness. Of `run` itself, only the caps, the displays and the files to fetch are
    /// used from here on.
    pub(crate) fn new(mut cell: Cell, request: Vec<u8>, run: Run) -> Self {
        let Run {
            caps,
            fetch,
            displays,
            program,
            files,
            ..
        } = run;
        let brought = if fetch.changed_only && !fetch.patterns.is_empty() {
            Brought::of(files, program)
        } else {
            Brought::default()
        };
        let now = Instant::now();
        let exchange = Exchange::new(cell.harness.take(), request, displays);
        let capture =
            |pipe: Option<std::fs::File>, stream| Capture::new(pipe, stream, caps.output_bytes);
        let stdout = capture(cell.stdout.take(), Stream::Stdout);
        let stderr = capture(cell.stderr.take(), Stream::Stderr);
        Self {
            warm: cell.is_for_clone(),
            cell,
            stdout,
            stderr,
            exchange,
            relay: Relay::new(None),
            desk: Desk::none(),
            schedule: Schedule::new(now, &caps),
            handed: None,
            paused: None,
            started: None,
            ended: None,
            stop: None,
            last_word: LastWord::Silence,
            clone_cpu_us: 0,
            looked: now,
            cpu_us: 0,
            out_of_memory: false,
            caps,
            fetch,
            brought,
        }
    }

    /// Sends the request to a clone that waits for it.
    pub(crate) fn hand_over(&mut self) {
        self.handed = Some(Instant::now());
        self.exchange.push();
    }

    /// Returns the time until which the program's output is not read, if reading is paused. Once
    /// the program is dead, reading is never paused.
    fn quiet(&self, now: Instant) -> Option<Instant> {
        let until = self.handed.map(|at| at + QUIET).max(self.paused);
        until.filter(|until| now < *until && self.ended.is_none())
    }

    /// Supervises the program until the last process of its cell is dead.
    ///
    /// # Errors
    /// When the connection to the worker failed, or the worker broke the protocol.
    pub(crate) fn supervise(
        &mut self,
        link: &mut Link,
        signals: &Signals,
        mut warmth: Option<&mut Warmth>,
    ) -> Result<Course, ServeError> {
        let mut buffer = [0; MAX_CHUNK];
        loop {
            self.wait(link, signals, warmth.as_deref());

            link.flush().map_err(ServeError::Stream)?;
            link.fill().map_err(ServeError::Stream)?;
            while let Some(frame) = link.next().map_err(ServeError::Frame)? {
                match frame {
                    ToRunner::Cancel => self.stop_for(Stop::Cancelled),
                    ToRunner::Say { data } if self.relay.take(&data) => {}
                    ToRunner::Say { .. } => return Err(ServeError::Flooded),
                    ToRunner::Answer { data } => self.desk.answer(&data),
                    ToRunner::Run(_) | ToRunner::Warm(_) => {
                        return Err(ServeError::OutOfTurn);
                    }
                }
            }
            if link.closed() || signals.take() == Heard::Quit {
                return Ok(Course::HungUp);
            }

            self.exchange.push();
            if !link.congested() {
                self.hear_harness(link, &mut buffer)
                    .map_err(ServeError::Stream)?;
            }
            self.relay
                .pass(link, &mut buffer)
                .map_err(ServeError::Stream)?;
            self.desk
                .pass(link, &mut buffer)
                .map_err(ServeError::Stream)?;
            self.drain(link, &mut buffer).map_err(ServeError::Stream)?;

            reap_all(|ended| {
                self.cell.bury(ended);
            });
            if let Some(warmth) = warmth.as_deref_mut() {
                self.attend(warmth, link).map_err(ServeError::Stream)?;
            }
            if self.hear(link).map_err(ServeError::Stream)? == Init::Done {
                return Ok(Course::Ended(self.take_last_word()));
            }
            if self.cell.wants_clone()
                && let Some(warmth) = warmth.as_deref_mut()
            {
                // The cell has just been made. No descriptor would wake the loop to request its
                // clone.
                self.attend(warmth, link).map_err(ServeError::Stream)?;
            }
            if let Err(error) = self.enforce() {
                self.cell.destroy();
                return Ok(Course::Ended(LastWord::Failed(error)));
            }
            if self.schedule.destroyed_twice() {
                return Ok(Course::Ended(self.take_last_word()));
            }
        }
    }

    /// Waits until a descriptor is ready or a deadline has come.
    fn wait(&self, link: &Link, signals: &Signals, warmth: Option<&Warmth>) {
        let congested = link.congested();
        let now = Instant::now();
        let hears = self.ended.is_none() && self.quiet(now).is_none();
        let reads = [
            Some(self.cell.control()),
            Some(signals.as_fd()),
            link.readable(),
            self.stdout.readable(congested).filter(|_| hears),
            self.stderr.readable(congested).filter(|_| hears),
            self.cell.clone_status().filter(|_| hears),
            self.relay.readable(congested),
            self.desk.readable(congested),
        ];
        let warm = warmth.map_or(Vec::new(), Warmth::descriptors);
        let writes = [link.writable(), self.relay.writable(), self.desk.writable()];
        let mut ready: Vec<PollFd<'_>> = Vec::with_capacity(14);
        ready.extend(
            reads
                .into_iter()
                .flatten()
                .chain(warm)
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        ready.extend(
            writes
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLOUT)),
        );
        let mut both = PollFlags::empty();
        both.set(PollFlags::POLLIN, hears && !congested);
        both.set(PollFlags::POLLOUT, self.exchange.sending());
        let harness = self.exchange.socket().filter(|_| !both.is_empty());
        ready.extend(harness.map(|fd| PollFd::new(fd, both)));
        // An interrupted `poll` does no harm: all descriptors are tried afterwards, without
        // blocking.
        poll(&mut ready, self.timeout(now, link)).ok();
    }

    /// Returns the time until the next deadline.
    fn timeout(&self, now: Instant, link: &Link) -> PollTimeout {
        let wall = self
            .started
            .map(|at| at + Duration::from_millis(self.caps.wall_ms));
        let tick = self.looked + TICK;
        let next = [
            Some(tick),
            wall.filter(|_| self.stop.is_none()),
            self.schedule.due(),
            self.quiet(now),
            link.due(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(tick);
        let left = next.saturating_duration_since(now);
        // Rounded up; otherwise the loop would spin for the last fraction of a millisecond.
        let millis = left.as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO)
    }

    /// Reads one piece from the harness and passes on the displays that are complete. Returns
    /// whether there was a piece.
    fn hear_harness(&mut self, link: &mut Link, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<bool> {
        let more = self.exchange.pull(buffer);
        while let Some(parts) = self.exchange.shown() {
            link.send_soon(&FromRunner::Display { parts })?;
        }
        Ok(more)
    }

    /// Reads one piece of each output stream and passes on the bytes within the cap. Returns
    /// whether there were any bytes.
    fn drain(&mut self, link: &mut Link, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<bool> {
        let before = self.stdout.total() + self.stderr.total();
        let mut more = false;
        for capture in [&mut self.stdout, &mut self.stderr] {
            let waits = self.ended.is_none() && capture.readable(link.congested()).is_none();
            if waits {
                continue;
            }
            match capture.take(buffer)? {
                Taken::Nothing => {}
                Taken::Counted => more = true,
                Taken::Kept { stream, data } => {
                    more = true;
                    link.send_soon(&FromRunner::Output { stream, data })?;
                }
            }
        }
        let taken = self.stdout.total() + self.stderr.total() - before;
        if more && taken < LITTLE {
            self.paused = Some(Instant::now() + QUIET);
        }
        Ok(more)
    }

    /// Stops the program when a cap is reached, and escalates a stop that takes too long.
    fn enforce(&mut self) -> Result<(), CellError> {
        let now = Instant::now();
        if self.started.is_some() && self.ended.is_none() {
            if now >= self.looked + TICK {
                self.looked = now;
                let spent = self.cell.spent()?;
                self.cpu_us = self.cpu_us.max(spent.cpu_us);
                self.out_of_memory |= spent.out_of_memory;
            }
            if let Some(stop) = exceeded(&self.caps, &self.reading(now)) {
                self.stop_for(stop);
            }
        } else {
            self.looked = now;
        }
        if let Some(phase) = self.schedule.overdue(now) {
            self.act(phase);
        }
        Ok(())
    }

    fn reading(&self, now: Instant) -> Reading {
        Reading {
            wall: self
                .started
                .map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            cpu_us: self.cpu_us,
            out_of_memory: self.out_of_memory,
            written: self.stdout.total() + self.stderr.total(),
        }
    }

    /// Stops the program. If there are several reasons, the first one is reported.
    fn stop_for(&mut self, stop: Stop) {
        if self.stop.is_none() && self.ended.is_none() {
            self.stop = Some(stop);
            let phase = self.schedule.stop(Instant::now(), stop);
            self.act(phase);
        }
    }

    fn act(&mut self, phase: Phase) {
        match phase {
            Phase::Starting | Phase::Running => {}
            Phase::Asked => self.cell.terminate(),
            Phase::Killed => self.cell.kill(),
            Phase::Destroyed => self.cell.destroy(),
        }
    }

    fn take_last_word(&mut self) -> LastWord {
        std::mem::replace(&mut self.last_word, LastWord::Silence)
    }

    /// Drains the remaining output, reads the counters a last time and makes the report. Returns
    /// the cell too, which the caller has to remove.
    ///
    /// # Errors
    /// When the connection to the worker failed.
    pub(crate) fn report(
        mut self,
        last_word: LastWord,
        link: &mut Link,
    ) -> Result<(Result<Report, CellError>, Cell), ServeError> {
        self.drain_rest(link).map_err(ServeError::Stream)?;
        let reading = self.reading(self.ended.unwrap_or_else(Instant::now));
        let (answer, displays_dropped) = self.exchange.into_answer();
        let ending = Ending {
            last_word,
            warm: self.warm,
            started: self.started.is_some(),
            destroyed: self.schedule.phase() == Phase::Destroyed,
            stop: self.stop,
            reading,
            stdout_bytes: self.stdout.total(),
            stderr_bytes: self.stderr.total(),
            answer,
            displays_dropped,
        };
        let remains = self.cell.remains();
        let report = remains.and_then(|remains| {
            let Collected { files, left } = self.cell.collect(&self.fetch, &self.brought);
            let report = ending.report(&self.caps, &remains)?;
            Ok(Report {
                files,
                left,
                ..report
            })
        });
        Ok((report, self.cell))
    }

    /// Reads the last bytes from the pipes, which have no writer left.
    fn drain_rest(&mut self, link: &mut Link) -> io::Result<()> {
        let mut buffer = [0; MAX_CHUNK];
        let until = Instant::now() + DRAIN_BOUND;
        self.ended.get_or_insert_with(Instant::now);
        loop {
            let more = self.drain(link, &mut buffer)?
                | self.hear_harness(link, &mut buffer)?
                | self.relay.pass(link, &mut buffer)?;
            let ended =
                self.stdout.ended() && self.stderr.ended() && self.exchange.socket().is_none();
            if ended || Instant::now() >= until {
                return Ok(());
            }
            if !more {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
