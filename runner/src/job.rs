//! One program in its cell: drains it, watches its caps and ends it.

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

/// How often the counts of a running cell are looked at.
const TICK: Duration = Duration::from_millis(20);

/// How long what a program says is left where it is when it begins: for so long it would wait for company anyway, and a
/// program that is over by then wakes the runner once and not for each of its words.
const QUIET: Duration = Duration::from_millis(4);

/// A turn that brings less output than this is followed by a pause of [`QUIET`]. A program that
/// writes single bytes as packets, or by turns to both streams, would otherwise have each of them
/// passed on by itself.
const LITTLE: u64 = 4096;

/// How long the last bytes of a dead cell may take to come out of its pipes.
const DRAIN_BOUND: Duration = Duration::from_secs(1);

/// How the supervision of a cell came to its end.
pub(crate) enum Course {
    /// The program and every process of its cell are dead, with this last word.
    Ended(LastWord),
    /// The worker hung up; nobody wants a report.
    HungUp,
}

/// A program in its cell.
pub(crate) struct Job {
    pub(crate) cell: Cell,
    /// Whether it is a clone of the zygote.
    pub(crate) warm: bool,
    caps: Caps,
    /// What it wants back of its files.
    fetch: Fetch,
    /// The files that were put into its working directory; empty if it wants no files back.
    brought: Brought,
    stdout: Capture,
    stderr: Capture,
    exchange: Exchange,
    /// What passes between the worker and a model server; nothing for any other program.
    pub(crate) relay: Relay,
    /// Where the program asks models, if it may.
    pub(crate) desk: Desk,
    pub(crate) schedule: Schedule,
    /// When a clone that waited for it was sent its request.
    pub(crate) handed: Option<Instant>,
    /// Until when the next output is left where it is, because the last was little.
    paused: Option<Instant>,
    pub(crate) started: Option<Instant>,
    pub(crate) ended: Option<Instant>,
    stop: Option<Stop>,
    pub(crate) last_word: LastWord,
    /// CPU time of the clone, in microseconds.
    pub(crate) clone_cpu_us: u64,
    /// When the counts were last looked at, and what they said.
    looked: Instant,
    cpu_us: u64,
    out_of_memory: bool,
}

impl Job {
    /// A program that is about to begin: `request` is the harness's part of the run; of the rest,
    /// only caps and wishes count from here on.
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

    /// Until when what the program says is left where it is; nothing of it is waited for once it is dead.
    fn quiet(&self, now: Instant) -> Option<Instant> {
        let until = self.handed.map(|at| at + QUIET).max(self.paused);
        until.filter(|until| now < *until && self.ended.is_none())
    }

    /// Everything up to the death of the cell's last process.
    ///
    /// # Errors
    /// When the conversation with the worker cannot go on.
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
                // It was made just now: nothing else would wake us to ask for its clone.
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

    /// Waits until something is ready or due.
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
        // Interrupted or not: everything is looked at afterwards, and none of it blocks.
        poll(&mut ready, self.timeout(now, link)).ok();
    }

    /// Until the next thing is due.
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
        // Rounded up, or the last fraction of a millisecond would be spent spinning.
        let millis = left.as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO)
    }

    /// Takes one piece of what the harness says, and passes on what it shows; whether there was one.
    fn hear_harness(&mut self, link: &mut Link, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<bool> {
        let more = self.exchange.pull(buffer);
        while let Some(parts) = self.exchange.shown() {
            link.send_soon(&FromRunner::Display { parts })?;
        }
        Ok(more)
    }

    /// Takes one piece of each stream, and passes on what is kept.
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

    /// Stops the program when a cap is reached, and goes on with a stop that takes too long.
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

    /// Stops the program; the first reason is the one reported.
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

    /// Drains what is left, takes the last counts and writes the report; what is left of the cell beside it.
    ///
    /// # Errors
    /// When the conversation with the worker cannot go on.
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

    /// Takes the last bytes out of the pipes, which have no writer any more.
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
