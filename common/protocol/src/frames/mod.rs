//! The frames a worker and a runner exchange over the container's attached stdin and stdout.
//!
//! A frame is a big-endian `u32` length, followed by that many bytes of MessagePack (named maps).
//! The frames have two levels. A *cell* is opened and closed, and a container has at most one open
//! cell. *Calls* run programs in the open cell; each has a number, and every frame of a call
//! carries it:
//!
//! ```text
//! runner → worker   Ready
//! worker → runner   StartZygote, or nothing for an image without a zygote
//! runner → worker   ZygoteReady
//!
//! worker → runner   OpenCell
//! worker → runner     Call, then perhaps Cancel
//! runner → worker     Started, Output and Display…, then CallEnded
//! worker → runner   CloseCell
//! runner → worker   CellEnded
//! runner → worker   CellClosed
//! ```
//!
//! `CloseCell` waits for the running call, so the worker may send it early. A job is one open, one
//! call and one close in one write. The runner then writes twice at the end: `CallEnded` and
//! `CellEnded` together, and then `CellClosed`. With [`ReportFlush::WithCleanup`] it writes once.
//!
//! # The end of a cell
//!
//! A cell ends in two steps, because a result must not wait until the cell is removed.
//!
//! 1. `CellEnded`: every process of the cell is dead, the last byte of output is sent, and the
//!    files are collected. It completes the result of a job: `CallEnded` has the facts about the
//!    program, `CellEnded` has the usage and the files of the cell. The worker publishes the result
//!    at once.
//! 2. `CellClosed`: nothing of the cell is left. It decides whether the container may be used
//!    again. The worker must not send the next `OpenCell` before it.
//!
//! A `Fault` replaces `CallEnded`, `CellEnded` and `CellClosed`. The worker then destroys the
//! container.
//!
//! # Calls
//!
//! The worker chooses the [`CallId`] of each call, unique within its cell. **In this version a cell
//! accepts exactly one call, before `CloseCell`, and the cell's processes die with it.** Later
//! versions can allow several calls without a new layout of the frames: no frame of a call depends
//! on there being one call only.
//!
//! A frame that breaks these rules is a protocol error, which ends the runner: a second `OpenCell`
//! while a cell is open; a `Call` without an open cell, after another call of the same cell, or
//! after `CloseCell`; a `CloseCell` without an open cell, before the cell's call, or after another
//! `CloseCell`; and a `Cancel`, `ModelInput` or `InferResponse` for a number that is not the call
//! of the open cell, or of the last cell while none is open. The frames `Cancel`, `ModelInput` and
//! `InferResponse` for a call that has ended are no error and are ignored, because they may cross
//! its `CallEnded` on the way. So is the `CloseCell` of a cell that ended with a `Fault`.
//!
//! A program whose `Call` allows it may send inference requests. The runner passes each request
//! that the program writes on [`INFER_FD`] to the worker as an `InferRequest`, and the worker sends
//! one `InferResponse` for each. The runner cuts the stream into frames and never decodes their
//! content, which `docs/guides/inference.md` defines.
//!
//! A model server is a program that runs until it is stopped. While it runs, the worker may send it
//! bytes as `ModelInput`, and the runner sends the server's bytes back as `ModelOutput`.
//! [`crate::model`] defines their content. The worker does not close a server's cell: it destroys
//! the container.
//!
//! # Errors
//!
//! The worker ends the connection by closing the runner's stdin. Both sides treat the bytes they
//! read as hostile: a length above [`MAX_FRAME`] or a frame that cannot be decoded is a protocol
//! error, after which the container is destroyed and never reused. Unknown map fields are ignored,
//! so that fields can be added. A new kind of frame needs a new [`VERSION`].

mod call;
mod call_caps;
mod call_report;
mod cell_caps;
mod cell_report;
mod close_cell;
mod display;
mod exception_frame;
mod file;
mod from_runner;
mod harness;
mod harness_message;
mod infer_quota;
mod open_cell;
mod program;
mod secret;
mod to_runner;

pub use sandhog_core::outcome::{Exception, NotFetched, ValueDropped};

pub use call::{Call, CallId, INPUT_FILE, INPUT_VARIABLE};
pub use call_caps::CallCaps;
pub use call_report::{CallReport, ProgramEnd, Stop};
pub use cell_caps::CellCaps;
pub use cell_report::CellReport;
pub use close_cell::{CloseCell, ReportFlush, StandbyPlan};
pub use display::{
    DisplayCaps, DisplayPart, MAX_MIME, MAX_PARTS, display_size, is_mime, is_valid_display,
    read_display,
};
pub(crate) use exception_frame::ExceptionFrame;
pub use file::{Fetch, FetchedFile, InputFile, LeftFile};
pub use from_runner::{CgroupSupport, Features, FromRunner, MAX_CHUNK, Stream, VERSION};
pub use harness::{HarnessAnswer, HarnessRequest, MAX_HARNESS_ANSWER};
pub use harness_message::{HARNESS_HEADER_LEN, HarnessMessageKind};
pub use infer_quota::{INFER_FD, INFER_FD_VARIABLE, InferQuota, MAX_INFER_REQUEST};
pub use open_cell::OpenCell;
pub use program::Program;
pub use secret::Secret;
pub use to_runner::{StartZygote, ToRunner};

pub use crate::framing::{FramingError, MAX_FRAME, encode, encode_into, read, take, write};

#[cfg(test)]
mod tests;
