//! One job, from its `Run` frame to its report and the removal of its cell.

use nix::errno::Errno;

use sandhog_runner::protocol::{Caps, FromRunner, Hurry, Program, Run};

use crate::cell::{Cell, CellError, Ground, clone_request};
use crate::job::{Course, Job};
use crate::link::Link;
use crate::questions::Desk;
use crate::relay::Relay;
use crate::serve::{Next, ServeError, Signals};
use crate::warmth::{Spare, Warmth};

/// Runs one job and sends its output, its report and the end of its cell to the worker.
///
/// # Errors
/// Only when the connection to the worker failed or the worker broke the protocol. The cell is dead
/// then too.
pub(crate) fn run(
    ground: &Ground,
    link: &mut Link,
    signals: &Signals,
    mut warmth: Option<&mut Warmth>,
    mut run: Run,
) -> Result<Next, ServeError> {
    let secrets = run.secrets.drain(..);
    run.env
        .extend(secrets.map(|(name, value)| (name, value.reveal())));
    if matches!(run.program, Program::Harness { .. }) {
        // A harness may have a thread of its own, which flushes the program's output.
        run.caps.pids = run.caps.pids.saturating_add(1);
    }
    let (caps, hurry) = (run.caps, run.hurry);
    let mut job = match start(ground, warmth.as_deref_mut(), run) {
        Ok(job) => job,
        Err(error) => return fault(link, &error),
    };
    let last_word = match job.supervise(link, signals, warmth.as_deref_mut())? {
        Course::Ended(last_word) => last_word,
        Course::HungUp => return Ok(Next::End),
    };
    let warm = job.warm;
    let (report, cell) = job.report(last_word, link)?;
    let done = match report {
        Ok(report) => FromRunner::Done(Box::new(report)),
        Err(error) => return fault(link, &error),
    };
    match hurry {
        Hurry::AtOnce => {
            link.send(&done).map_err(ServeError::Stream)?;
            // Yield, so that the shim forwards the report before the runner spends CPU time on
            // cleanup.
            std::thread::yield_now();
        }
        Hurry::WhenGone => link.send_soon(&done).map_err(ServeError::Stream)?,
    }
    let clean = cell.clear() && warmth.as_ref().is_none_or(|warmth| warmth.is_alive());
    let gone = FromRunner::Gone {
        clean,
        memory_bytes: ground.memory_in_use(),
    };
    link.send(&gone).map_err(ServeError::Stream)?;
    if let Some(warmth) = warmth
        && warm
    {
        // Not earlier: the zygote makes one clone at a time, and the last cell's clone has to be
        // gone first. If the standby cell cannot be made now, it is made when the next job needs
        // it, and an error is reported then.
        std::thread::yield_now();
        warmth.make_spare(ground, &caps).ok();
    }
    Ok(Next::Job)
}

/// Starts the job in its cell. Uses the standby cell if a clone can run the job's program, and
/// makes a new cell otherwise.
fn start(ground: &Ground, warmth: Option<&mut Warmth>, run: Run) -> Result<Job, CellError> {
    let warmth = warmth.filter(|warmth| warmth.serves(&run));
    let spare = match warmth {
        Some(warmth) => spare(ground, warmth, &run.caps)?,
        None => None,
    };
    let mut is_awaited = false;
    let (mut cell, request) = match (&run.program, spare) {
        (Program::Harness { request, .. }, Some(spare)) => {
            let Spare {
                mut cell, waits, ..
            } = spare;
            is_awaited = waits;
            if run.questions.is_some() {
                cell.give_questions()?;
            }
            (cell, clone_request(request, &run)?)
        }
        (Program::Harness { request, .. }, None) => {
            let request = serde_json::to_vec(request).expect("a request has string keys");
            (Cell::start(ground, &run)?, request)
        }
        (Program::Argv { .. } | Program::File { .. }, _) => {
            (Cell::start(ground, &run)?, Vec::new())
        }
        (Program::Server { .. }, _) => {
            let mut cell = Cell::start(ground, &run)?;
            let relay = Relay::new(cell.harness.take());
            let mut job = Job::new(cell, Vec::new(), run);
            job.relay = relay;
            return Ok(job);
        }
    };
    let allowed = run.questions;
    let asked_on = cell.questions.take();
    let mut job = Job::new(cell, request, run);
    if let Some(allowed) = allowed {
        job.desk = Desk::new(asked_on, allowed);
    }
    if is_awaited {
        job.hand_over();
    }
    Ok(job)
}

/// Takes the standby cell and applies these caps to it. Returns `None` if the clone that waits in
/// the cell already holds more memory than the caps allow, so that they cannot be set. The program
/// is then started as a new process, and runs out of memory by itself.
fn spare(ground: &Ground, warmth: &mut Warmth, caps: &Caps) -> Result<Option<Spare>, CellError> {
    let mut spare = warmth.take_spare(ground, caps)?;
    match spare.cell.cap(caps) {
        Ok(()) => Ok(Some(spare)),
        Err(error) if error.errno == Errno::EBUSY => {
            spare.cell.destroy();
            spare.cell.clear().then_some(None).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn fault(link: &mut Link, error: &CellError) -> Result<Next, ServeError> {
    link.send(&error.frame()).map_err(ServeError::Stream)?;
    Ok(Next::Job)
}
