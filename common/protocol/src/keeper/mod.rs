//! The frames that a worker and a keeper exchange over the keeper's Unix socket.
//!
//! A keeper is PID 1 of a container that any engine made from one image. It makes a sandbox for
//! each worker that requests one. A frame is a big-endian `u32` length, followed by that many bytes
//! of MessagePack (named maps), as between worker and runner. The lengths have caps of their own:
//! [`MAX_REQUEST`] and [`MAX_REPLY`].
//!
//! ```text
//! worker            keeper                      runner (PID 1 of the sandbox)
//!   │── connect ─────►│
//!   │◄────── Hello ───│
//!   │── Open ────────►│  makes a cgroup
//!   │◄───── Opened ───│── forks, execs ───────────►│  has the connection as descriptors 0 and 1
//!   │◄──────────────────────────────── Ready ──────│
//!   │── StartZygote, OpenCell … ──────────────────►│  the frames of `crate::frames`
//!   │── close ───────►│── kills, removes ─────────►│
//!
//!   │── connect ─────►│
//!   │◄────── Hello ───│
//!   │── Ask ─────────►│
//!   │◄────── State ───│
//! ```
//!
//! An `Open` has the caps of the sandbox and the program of its zygote. Only a worker decides which
//! program the keeper's zygote runs: a runner asks for a server of that zygote and names no
//! program.
//!
//! After `Opened` the connection belongs to the runner, and the keeper neither reads nor writes it
//! again. The keeper reads no byte beyond an `Open`, so a worker may send the runner's first frames
//! right behind it. Either side ends the sandbox by closing the connection. The worker receives the
//! end of the stream only after the keeper has recorded how the sandbox ended, so an `Ask` after
//! that is answered with the end.
//!
//! A connection may carry any number of `Ask` frames, and then perhaps an `Open`. The keeper sends
//! `Refused` for an `Open` that it does not carry out; the connection can still be used. It also
//! sends `Refused` before it closes a connection because of its user, its number, its silence or an
//! invalid frame.
//!
//! Unknown map fields are ignored, so that fields can be added. A new kind of frame needs a new
//! [`VERSION`]. The frames of the runner have a version of their own.

mod codec;
mod from_keeper;
mod to_keeper;

pub use crate::framing::encode;

pub use codec::{CodecError, take};
pub use from_keeper::{
    EndStatus, FromKeeper, Hello, MAX_CONTRACT, MAX_REPLY, MAX_STDERR, SandboxEnd, SandboxState,
    VERSION,
};
pub use to_keeper::{MAX_GPUS, MAX_NAME, MAX_REQUEST, MAX_ZYGOTE, Open, ToKeeper, ZygoteProgram};

#[cfg(test)]
mod tests;
