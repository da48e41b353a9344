//! Cells: one job's fresh process tree in its own namespaces, with its own scratch files.
//!
//! [`Ground`] is the state that all cells of a container share. It is made once. [`Cell::start`]
//! makes one cell:
//!
//! ```text
//! runner ──clone──► cell init (pid 1, trusted) ──fork──► program (unprivileged, filtered)
//! ```
//!
//! If the image has a zygote and the cell is made before its job arrives:
//!
//! ```text
//! runner ──clone──► cell init, which hands over the cell's namespaces
//! zygote ──fork───► clone, which enters them and gives up the same rights as a program
//! ```
//!
//! The cell init makes the mounts, starts the program, reaps its processes, and ends the cell when
//! the first program process ends. This module is the only place of the runner with `unsafe` code.
//! A program always runs under all the protections that [`Ground`] found at start: a step that
//! fails is a [`CellError`] and is never skipped.

mod artifacts;
mod census;
mod cgroup;
mod clone;
mod control;
mod descriptors;
mod environment;
mod error;
mod etc;
mod ground;
mod heap;
mod identity;
mod init;
mod input;
mod loopback;
mod mounts;
mod namespaces;
mod network;
mod passing;
mod program;
mod reap;
mod rlimits;
mod seccomp;
mod spawn;
mod wall;
mod zygote;

pub(crate) use artifacts::{Brought, Collected};
pub(crate) use clone::{FromClone, clone_request};
pub(crate) use control::FromInit;
pub(crate) use descriptors::descriptor_three;
pub(crate) use environment::thread_counts;
pub(crate) use error::CellError;
pub(crate) use ground::Ground;
pub(crate) use reap::{Ended, reap_one};
pub(crate) use spawn::{Cell, Remains};
pub(crate) use zygote::{FromZygote, Zygote};
