//! The keeper: PID 1 of a container that any engine made from one image. It makes sandboxes on
//! request over a Unix socket, so that a worker needs neither an engine nor any privilege.
//!
//! ```text
//! keeper (PID 1) ──fork, exec──► runner (PID 1 of its own namespaces) ──► cell ──► program
//!    │                              │ requests a server of the zygote
//!    ├──fork, exec──► template zygote ──fork──► server ──fork──► clone, in a cell
//! ```
//!
//! `sandhog_protocol::keeper` has the frames. The keeper has one thread with one `poll` loop, and
//! no call on a peer or a sandbox blocks. It decodes two kinds of frames of a worker and one
//! message of a runner, all with a maximum size, and runs no job code.

mod end_log;
mod error;
mod facts;
mod keep;
mod options;
mod peer;
mod probe;
mod sandbox;
mod template;
mod trial;

pub(crate) use error::KeepError;
pub(crate) use keep::run_keeper;
pub(crate) use probe::run_probe;
