//! Cells: one job's fresh process tree in its own namespaces, with its own scratch files.
//!
//! [`PreparedContainer`] is the state that all cells of a container share. It is made once.
//! [`Cell::start`] makes one cell:
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
//! A program always runs under all the protections that [`PreparedContainer`] found at start: a
//! step that fails is a [`CellError`] and is never skipped.

mod artifacts;
mod cell;
mod cell_user;
mod cgroup;
mod clone;
mod container;
mod descriptors;
mod environment;
mod error;
mod etc;
mod fd_passing;
mod id_ranges;
mod init;
mod init_channel;
mod input;
mod loopback;
mod malloc;
mod mounts;
mod namespaces;
mod network;
mod proc_usage;
mod program;
mod reap;
mod rlimits;
mod sandbox_mounts;
mod seccomp;
mod server_request;
mod spec;
mod wall;
mod zygote;

pub(crate) use artifacts::{Collected, InputSnapshot};
pub(crate) use cell::{Cell, CellUsage};
pub(crate) use cell_user::lower_oom_score;
pub(crate) use cgroup::{SandboxCgroup, SandboxCgroups};
pub(crate) use clone::{CloneStatus, clone_request};
pub(crate) use container::PreparedContainer;
pub(crate) use descriptors::{
    close_at_exec_from, descriptor_three, install_at, move_out_of_the_way,
};
pub(crate) use environment::thread_counts;
pub(crate) use error::{CellError, Step};
pub(crate) use id_ranges::is_mapped;
pub(crate) use init_channel::FromInit;
pub(crate) use malloc::pin_malloc_thresholds;
pub(crate) use namespaces::{clone, clone_into, exit_now};
pub(crate) use reap::{Ended, reap_all, reap_one};
pub(crate) use sandbox_mounts::SandboxMounts;
pub(crate) use server_request::{
    KEEPER_FD, KEEPER_FD_VARIABLE, ServerRequest, TRIED_VARIABLE, answer_request, control_pair,
    fail_server, receive_request,
};
pub(crate) use zygote::{FromZygote, Zygote};
