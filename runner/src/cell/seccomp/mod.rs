//! System calls that a program may not make.
//!
//! This list of refused calls comes on top of the container engine's own list of allowed calls. A
//! refused call returns an error that programs can handle. A call of another ABI kills the process,
//! because its numbers mean other calls. The filter is compiled once per container and installed in
//! every program just before its exec.

mod argument_rules;
mod filter;
mod number_search;
mod rule;

pub(super) use filter::Filter;
