//! The runner's self-test: makes one cell before the runner reports that it can open cells.
//!
//! The program of this cell does not exist, so the runner takes every step of its own and no
//! program runs. A feature that this container lacks is thus found at its start and not by its
//! first job.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_protocol::frames::{Call, CallCaps, CallId, CellCaps, OpenCell, Program};

use crate::cell::{Cell, CellError, FromInit, PreparedContainer};

/// Timeout for the first message of the test cell's init.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A path at which there is no program.
const MISSING_PROGRAM: &str = "/proc/self/no-program";

/// Caps that are small enough for every container.
const CELL_CAPS: CellCaps = CellCaps {
    cpu_millis: 1000,
    memory_bytes: 16 << 20,
    stack_bytes: 1 << 30,
    pids: 4,
    scratch_bytes: 1 << 20,
    scratch_inodes: 16,
};

/// Caps that the test never reaches.
const CALL_CAPS: CallCaps = CallCaps {
    wall_ms: 10_000,
    cpu_ms: 10_000,
    output_bytes: 1,
    output_total_bytes: 1,
    grace_ms: 0,
};

/// Makes a cell and removes it.
///
/// # Errors
/// With the step that fails in this container.
pub(crate) fn run_self_test(container: &PreparedContainer) -> Result<(), CellError> {
    let open = OpenCell {
        caps: CELL_CAPS,
        env: Vec::new(),
        secrets: Vec::new(),
        files: Vec::new(),
    };
    let program = Program::Argv {
        argv: vec![MISSING_PROGRAM.to_owned()],
    };
    let call = Call::new(CallId(0), program, CALL_CAPS);
    let mut cell = Cell::start(container, &open, &call)?;
    match first_message(&mut cell) {
        Ok(Some(FromInit::NotStarted { errno })) if errno == Errno::ENOENT as i32 => {}
        Ok(Some(FromInit::Failed { step, errno })) => {
            return Err(CellError::new(step, Errno::from_raw(errno)));
        }
        Ok(_) => return Err(CellError::new("start the test cell", Errno::EPROTO)),
        Err(_) => return Err(CellError::new("await the test cell", Errno::ETIMEDOUT)),
    }
    cell.usage()?;
    if cell.remove() {
        Ok(())
    } else {
        Err(CellError::new("remove the test cell", Errno::EBUSY))
    }
}

/// Waits for the first message of the init, up to the timeout.
fn first_message(cell: &mut Cell) -> io::Result<Option<FromInit>> {
    let until = Instant::now() + SELF_TEST_TIMEOUT;
    loop {
        match cell.recv_from_init() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut ready = [PollFd::new(cell.init_fd(), PollFlags::POLLIN)];
        // An interrupted `poll` does no harm: the socket is read again, and the time is bounded
        // above.
        poll(
            &mut ready,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        )
        .ok();
    }
}
