//! The frames a worker and a runner exchange over the container's attached stdin and stdout.
//!
//! A frame is a big-endian `u32` length, followed by that many bytes of MessagePack (named maps).
//! One job runs at a time:
//!
//! ```text
//! runner → worker   Ready
//! worker → runner   StartZygote, or nothing for an image without a zygote
//! runner → worker   ZygoteReady
//!
//! worker → runner   Run, then perhaps Cancel
//! runner → worker   Started, Output and Display…, then Report or Fault
//! runner → worker   CellClosed, after a Report
//! ```
//!
//! The runner sends `Report` as soon as the program's last process is dead and its last byte of
//! output is sent. It sends `CellClosed` when nothing is left of the cell. The worker must not send
//! the next `Run` before `CellClosed`.
//!
//! A program whose `Run` allows it may send inference requests. The runner passes each request that
//! the program writes on [`INFER_FD`] to the worker as an `InferRequest`, and the worker sends one
//! `InferResponse` for each. The runner cuts the stream into frames and never decodes their
//! content, which `docs/guides/inference.md` defines. An `InferResponse` that arrives after its
//! program is dead is dropped.
//!
//! A model server is a program that runs until it is stopped. While it runs, the worker may send it
//! bytes as `ModelInput`, and the runner sends the server's bytes back as `ModelOutput`.
//! [`crate::model`] defines their content.
//!
//! The worker ends the connection by closing the runner's stdin. Both sides treat the bytes they
//! read as hostile: a length above [`MAX_FRAME`] or a frame that cannot be decoded is a protocol
//! error, after which the container is destroyed and never reused. Unknown map fields are ignored,
//! so that fields can be added. A new kind of frame needs a new [`VERSION`]. Some frames and fields
//! have an older name on the wire, which `#[serde(rename)]` keeps.

mod cell_caps;
mod display;
mod exception_frame;
mod file;
mod from_runner;
mod harness;
mod infer_quota;
mod program;
mod report;
mod run;
mod secret;
mod to_runner;

pub use sandhog_core::outcome::{Exception, NotFetched, ValueDropped};

pub use cell_caps::CellCaps;
pub use display::{
    DISPLAY_BYTE, DisplayCaps, DisplayPart, MAX_MIME, MAX_PARTS, display_size, is_mime,
    is_valid_display, read_display,
};
pub(crate) use exception_frame::ExceptionFrame;
pub use file::{Fetch, FetchedFile, InputFile, LeftFile};
pub use from_runner::{CgroupSupport, Features, FromRunner, MAX_CHUNK, Stream, VERSION};
pub use harness::{HarnessAnswer, HarnessRequest, MAX_HARNESS_ANSWER};
pub use infer_quota::{INFER_FD, INFER_FD_VARIABLE, InferQuota, MAX_INFER_REQUEST};
pub use program::Program;
pub use report::{ProgramEnd, Report, Stop};
pub use run::{INPUT_FILE, INPUT_VARIABLE, ReportFlush, Run};
pub use secret::Secret;
pub use to_runner::{StartZygote, ToRunner};

pub use crate::framing::{FramingError, MAX_FRAME, encode, read, take, write};

#[cfg(test)]
mod tests;
