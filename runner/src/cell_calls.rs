//! The rule for the cell of a container and the calls in it: which frame of the worker is allowed
//! at which time.
//!
//! ```text
//! none ──OpenCell──► opened ──Call──► called ──CloseCell──► closing ──CellClosed──► none
//!                                        └───────Fault────► failed ──CloseCell────► none
//! ```
//!
//! In this version of the protocol a cell accepts exactly one call. To allow more of them, this
//! type has to keep several ids and to accept a call in the state `called`; no frame changes.
//!
//! A frame for a call that has ended is allowed and has no effect, because it may have crossed the
//! end of its call on the way. That holds until the next cell is opened: the worker sends nothing
//! for the calls of a cell after the next `OpenCell`.

use sandhog_protocol::frames::{CallId, CloseCell, OpenCell};

/// A frame of the worker that the state of the container does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnexpectedFrame {
    /// A second zygote, or a zygote while a cell is open.
    #[error("unexpected frame `StartZygote`: a zygote was started already, or a cell is open")]
    StartZygote,
    /// A cell while another one is open.
    #[error("unexpected frame `OpenCell`: the last cell is not closed")]
    OpenCell,
    /// A call without an open cell, or in a cell that is being closed.
    #[error("unexpected frame `Call` with id {id}: no cell is open")]
    NoCell {
        /// The call.
        id: CallId,
    },
    /// A second call in a cell.
    #[error("unexpected frame `Call` with id {id}: a cell accepts one call, which was {first}")]
    SecondCall {
        /// The second call.
        id: CallId,
        /// The first call.
        first: CallId,
    },
    /// The end of a cell that is not open, is being closed already, or had no call.
    #[error("unexpected frame `CloseCell`: no cell is open, or it had no call")]
    CloseCell,
    /// A frame for a call that the cell does not have.
    #[error("unexpected frame for the call {id}: there is no such call")]
    UnknownCall {
        /// The call that the frame names.
        id: CallId,
    },
}

/// The cell of a container and its call.
#[derive(Debug, Default)]
pub(crate) struct CellCalls {
    cell: CellState,
    /// The call of the cell that is open, or of the last cell while none is open.
    call: Option<CallState>,
}

/// The state of the cell.
#[derive(Debug, Default)]
enum CellState {
    /// No cell is open.
    #[default]
    None,
    /// The cell is open and had no call. Holds its frame.
    Opened(Box<OpenCell>),
    /// The cell had its call, which may have ended.
    Called,
    /// The worker has closed the cell, and the runner has not begun to end it. Holds its frame.
    CloseRequested(CloseCell),
    /// The runner ends and removes the cell.
    Closing,
    /// The runner has sent a `Fault`, and the worker has not closed the cell.
    Failed,
}

/// The state of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallState {
    id: CallId,
    has_ended: bool,
}

impl CellCalls {
    /// Checks that a zygote may be started.
    ///
    /// # Errors
    /// Fails if a cell is open.
    pub(crate) fn check_zygote(&self) -> Result<(), UnexpectedFrame> {
        match self.cell {
            CellState::None => Ok(()),
            CellState::Opened(_)
            | CellState::Called
            | CellState::CloseRequested(_)
            | CellState::Closing
            | CellState::Failed => Err(UnexpectedFrame::StartZygote),
        }
    }

    /// Opens a cell.
    ///
    /// # Errors
    /// Fails if the last cell is not closed.
    pub(crate) fn open(&mut self, cell: Box<OpenCell>) -> Result<(), UnexpectedFrame> {
        match self.cell {
            CellState::None => {
                *self = Self {
                    cell: CellState::Opened(cell),
                    call: None,
                };
                Ok(())
            }
            CellState::Opened(_)
            | CellState::Called
            | CellState::CloseRequested(_)
            | CellState::Closing
            | CellState::Failed => Err(UnexpectedFrame::OpenCell),
        }
    }

    /// Begins the call of the open cell. Returns the frame that opened the cell.
    ///
    /// # Errors
    /// Fails if no cell is open, or if the cell had its call.
    pub(crate) fn begin_call(&mut self, id: CallId) -> Result<Box<OpenCell>, UnexpectedFrame> {
        match std::mem::replace(&mut self.cell, CellState::Called) {
            CellState::Opened(cell) => {
                self.call = Some(CallState {
                    id,
                    has_ended: false,
                });
                Ok(cell)
            }
            other @ (CellState::Called | CellState::Failed) => {
                self.cell = other;
                let first = self.call.map_or(id, |call| call.id);
                Err(UnexpectedFrame::SecondCall { id, first })
            }
            other @ (CellState::None | CellState::CloseRequested(_) | CellState::Closing) => {
                self.cell = other;
                Err(UnexpectedFrame::NoCell { id })
            }
        }
    }

    /// Returns whether the call of a frame is running. If it has ended, the frame has no effect.
    ///
    /// # Errors
    /// Fails if there is no such call.
    pub(crate) fn is_running(&self, id: CallId) -> Result<bool, UnexpectedFrame> {
        match self.call {
            Some(call) if call.id == id => Ok(!call.has_ended),
            Some(_) | None => Err(UnexpectedFrame::UnknownCall { id }),
        }
    }

    /// Records that the call has ended.
    pub(crate) fn end_call(&mut self) {
        if let Some(call) = &mut self.call {
            call.has_ended = true;
        }
    }

    /// Records that the worker closes the cell.
    ///
    /// # Errors
    /// Fails if no cell is open, if it had no call, or if the worker has closed it already.
    pub(crate) fn close(&mut self, close: CloseCell) -> Result<(), UnexpectedFrame> {
        match self.cell {
            CellState::Called => self.cell = CellState::CloseRequested(close),
            CellState::Failed => self.cell = CellState::None,
            CellState::None
            | CellState::Opened(_)
            | CellState::CloseRequested(_)
            | CellState::Closing => return Err(UnexpectedFrame::CloseCell),
        }
        Ok(())
    }

    /// Takes the request of the worker to close the cell, if it has arrived. The caller must then
    /// end the cell.
    pub(crate) fn take_close_request(&mut self) -> Option<CloseCell> {
        match std::mem::replace(&mut self.cell, CellState::Closing) {
            CellState::CloseRequested(close) => Some(close),
            other @ (CellState::None
            | CellState::Opened(_)
            | CellState::Called
            | CellState::Closing
            | CellState::Failed) => {
                self.cell = other;
                None
            }
        }
    }

    /// Records that the cell has been removed.
    pub(crate) fn note_removed(&mut self) {
        self.cell = CellState::None;
    }

    /// Records that the cell and its call ended with a `Fault`. The `CloseCell` of the cell may
    /// still be on its way.
    pub(crate) fn note_failed(&mut self) {
        self.end_call();
        self.cell = match self.cell {
            CellState::None | CellState::CloseRequested(_) | CellState::Closing => CellState::None,
            CellState::Opened(_) | CellState::Called | CellState::Failed => CellState::Failed,
        };
    }
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::frames::{CellCaps, Fetch};

    use super::*;

    const FIRST: CallId = CallId(7);
    const SECOND: CallId = CallId(8);

    fn frame() -> Box<OpenCell> {
        Box::new(OpenCell {
            caps: CellCaps {
                cpu_millis: 1,
                memory_bytes: 1,
                stack_bytes: 1,
                pids: 1,
                scratch_bytes: 1,
                scratch_inodes: 1,
            },
            env: vec![("A".to_owned(), "b".to_owned())],
            secrets: Vec::new(),
            files: Vec::new(),
        })
    }

    fn close() -> CloseCell {
        CloseCell {
            fetch: Fetch {
                patterns: vec!["*".to_owned()],
                ..Fetch::default()
            },
            ..CloseCell::default()
        }
    }

    /// Returns a cell whose call runs.
    fn running() -> CellCalls {
        let mut calls = CellCalls::default();
        calls.open(frame()).unwrap();
        assert_eq!(calls.begin_call(FIRST).unwrap(), frame());
        calls
    }

    #[test]
    fn one_cell_after_another_has_one_call() {
        let mut calls = CellCalls::default();
        for _ in 0..3 {
            calls.open(frame()).unwrap();
            assert_eq!(calls.begin_call(FIRST).unwrap(), frame());
            assert_eq!(calls.is_running(FIRST), Ok(true));
            calls.close(close()).unwrap();
            assert_eq!(calls.is_running(FIRST), Ok(true), "closing stops no call");
            calls.end_call();
            assert_eq!(calls.take_close_request(), Some(close()));
            assert_eq!(calls.take_close_request(), None, "it is taken");
            calls.note_removed();
        }
    }

    #[test]
    fn a_cell_may_be_closed_after_its_call() {
        let mut calls = running();
        calls.end_call();
        assert_eq!(calls.take_close_request(), None);
        calls.close(close()).unwrap();
        assert_eq!(calls.take_close_request(), Some(close()));
        calls.note_removed();
        calls.open(frame()).unwrap();
    }

    #[test]
    fn a_frame_for_a_call_that_has_ended_has_no_effect_until_the_next_cell() {
        let mut calls = running();
        calls.close(close()).unwrap();
        calls.end_call();
        assert_eq!(calls.is_running(FIRST), Ok(false));
        calls.take_close_request();
        assert_eq!(calls.is_running(FIRST), Ok(false));
        calls.note_removed();
        assert_eq!(calls.is_running(FIRST), Ok(false));
        calls.open(frame()).unwrap();
        let unknown = UnexpectedFrame::UnknownCall { id: FIRST };
        assert_eq!(calls.is_running(FIRST), Err(unknown));
    }

    #[test]
    fn a_call_that_there_never_was_is_unknown() {
        let unknown = UnexpectedFrame::UnknownCall { id: SECOND };
        let mut calls = CellCalls::default();
        assert_eq!(calls.is_running(SECOND), Err(unknown));
        calls.open(frame()).unwrap();
        assert_eq!(calls.is_running(SECOND), Err(unknown));
        calls.begin_call(FIRST).unwrap();
        assert_eq!(calls.is_running(SECOND), Err(unknown));
        calls.end_call();
        assert_eq!(calls.is_running(SECOND), Err(unknown));
    }

    #[test]
    fn a_second_call_is_refused_in_every_state() {
        let second = UnexpectedFrame::SecondCall {
            id: SECOND,
            first: FIRST,
        };
        let mut calls = running();
        assert_eq!(calls.begin_call(SECOND), Err(second), "the first one runs");
        assert_eq!(calls.is_running(FIRST), Ok(true), "and runs on");
        calls.end_call();
        assert_eq!(calls.begin_call(SECOND), Err(second), "it has ended");
        calls.close(close()).unwrap();
        let closed = UnexpectedFrame::NoCell { id: SECOND };
        assert_eq!(calls.begin_call(SECOND), Err(closed), "it is closed");
        assert_eq!(calls.take_close_request(), Some(close()));
        assert_eq!(calls.begin_call(SECOND), Err(closed), "it is removed");
        let mut calls = running();
        calls.note_failed();
        assert_eq!(calls.begin_call(SECOND), Err(second), "it failed");
    }

    #[test]
    fn a_call_needs_an_open_cell() {
        let none = UnexpectedFrame::NoCell { id: FIRST };
        let mut calls = CellCalls::default();
        assert_eq!(calls.begin_call(FIRST), Err(none));
        let mut calls = running();
        calls.close(close()).unwrap();
        calls.end_call();
        calls.take_close_request();
        calls.note_removed();
        assert_eq!(calls.begin_call(FIRST), Err(none));
    }

    #[test]
    fn a_cell_is_opened_and_closed_once() {
        let mut calls = CellCalls::default();
        assert_eq!(calls.close(close()), Err(UnexpectedFrame::CloseCell));
        calls.open(frame()).unwrap();
        assert_eq!(calls.open(frame()), Err(UnexpectedFrame::OpenCell));
        let no_call = calls.close(close());
        assert_eq!(no_call, Err(UnexpectedFrame::CloseCell), "it had no call");
        calls.begin_call(FIRST).unwrap();
        assert_eq!(calls.open(frame()), Err(UnexpectedFrame::OpenCell));
        calls.close(close()).unwrap();
        assert_eq!(calls.close(close()), Err(UnexpectedFrame::CloseCell));
        assert_eq!(calls.open(frame()), Err(UnexpectedFrame::OpenCell));
        calls.end_call();
        calls.take_close_request();
        assert_eq!(calls.close(close()), Err(UnexpectedFrame::CloseCell));
        assert_eq!(calls.open(frame()), Err(UnexpectedFrame::OpenCell));
        calls.note_removed();
        assert_eq!(calls.close(close()), Err(UnexpectedFrame::CloseCell));
    }

    #[test]
    fn a_cell_that_failed_is_closed_by_its_own_frame_in_either_order() {
        let mut calls = running();
        calls.note_failed();
        assert_eq!(calls.is_running(FIRST), Ok(false));
        assert_eq!(calls.open(frame()), Err(UnexpectedFrame::OpenCell));
        calls.close(close()).unwrap();
        assert_eq!(calls.take_close_request(), None, "no cell is left to close");
        calls.open(frame()).unwrap();
        let mut calls = running();
        calls.close(close()).unwrap();
        calls.note_failed();
        assert_eq!(calls.is_running(FIRST), Ok(false));
        assert_eq!(calls.close(close()), Err(UnexpectedFrame::CloseCell));
        calls.open(frame()).unwrap();
    }

    #[test]
    fn a_zygote_is_started_while_no_cell_is_open() {
        let mut calls = CellCalls::default();
        assert_eq!(calls.check_zygote(), Ok(()));
        calls.open(frame()).unwrap();
        assert_eq!(calls.check_zygote(), Err(UnexpectedFrame::StartZygote));
        let calls = running();
        assert_eq!(calls.check_zygote(), Err(UnexpectedFrame::StartZygote));
    }
}
