//! Cgroup version 1: one directory for each of the controllers memory, pids, cpu and cpuacct.

mod accounting;
mod group;

pub(super) use group::{V1Controllers, V1Group, make_writable};
