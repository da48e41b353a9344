//! Counters and caps of a whole cell. Each cell has one nested cgroup, of the version that the
//! container has.
//!
//! Only the program and the processes that it starts are in the cgroup. The cell's init is not, so
//! it is neither throttled nor counted. The runner opens the directories once, before it hides
//! /sys, and uses them by descriptor from then on.

mod counts;
mod cpu_quota;
mod dir;
mod group;
mod hierarchy;
mod sandbox;
mod v1;
mod v2;

pub(super) use counts::Counts;
pub(super) use group::Group;
pub(super) use hierarchy::Hierarchy;
pub(crate) use sandbox::{SandboxCgroup, SandboxCgroups};
