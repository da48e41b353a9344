//! `sandhog-runner`: PID 1 inside every sandbox.
//!
//! Reads frames on standard input, runs each program in a fresh cell, and answers on standard
//! output; see `sandhog_protocol::frames`. It runs no job code in its own process, and treats all
//! bytes from a job as hostile. It has one thread with one `poll` loop, so no call may block for
//! longer than a stated bound.
//!
//! With `proxy` as its first argument it is a different program, which runs *inside* a cell: a
//! proxy in front of an HTTP server. With `keep` it is a keeper, which makes sandboxes in its
//! container, and with `probe` it checks that a keeper answers.
//!
//! Exit codes: 0 when the worker closed the connection, 65 when the worker broke the protocol, 70
//! when this container cannot hold cells. A keeper exits with 0 after SIGTERM, 64 for bad arguments
//! and 70 when this container cannot hold sandboxes; a probe exits with 1 when no keeper answers.

#[expect(
    unsafe_code,
    reason = "some system calls that make a cell have no safe wrapper; nowhere else"
)]
mod cell;
mod cell_calls;
mod channels;
mod connection;
mod error;
mod job;
mod keeper;
mod proxy;
mod self_test;
mod serve;
mod signals;
mod standby;

use std::io::Write;
use std::process::ExitCode;

use crate::error::ServeError;
use crate::keeper::KeepError;
use sandhog_core::error_chain::error_chain;
use sandhog_protocol::install::{KEEP_ARGUMENT, PROBE_ARGUMENT, PROXY_ARGUMENT};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let role = words.next();
    let rest: Vec<String> = words.collect();
    match role.as_deref() {
        Some(PROXY_ARGUMENT) => exit_code(proxy::run_proxy(&rest), |_error| 1),
        Some(KEEP_ARGUMENT) => exit_code(keeper::run_keeper(&rest), keep_code),
        Some(PROBE_ARGUMENT) => exit_code(keeper::run_probe(&rest), |_error| 1),
        Some(_) | None => exit_code(serve::serve(), code_of),
    }
}

fn exit_code<E: std::error::Error>(result: Result<(), E>, code: impl Fn(&E) -> u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The engine passes standard error on to the worker. If the write fails, the exit code
            // remains.
            drop(writeln!(std::io::stderr(), "{}", error_chain(&error)));
            ExitCode::from(code(&error))
        }
    }
}

fn code_of(error: &ServeError) -> u8 {
    match error {
        ServeError::Frame(_) | ServeError::UnexpectedFrame(_) | ServeError::ModelInputOverflow => {
            65
        }
        ServeError::Prepare(_)
        | ServeError::Signals(_)
        | ServeError::Stream(_)
        | ServeError::Zygote => 70,
    }
}

fn keep_code(error: &KeepError) -> u8 {
    match error {
        KeepError::Usage(_) => 64,
        KeepError::Prepare(_)
        | KeepError::Trial(_)
        | KeepError::ImageFile { .. }
        | KeepError::Listen { .. }
        | KeepError::InUse { .. }
        | KeepError::Signals(_) => 70,
    }
}
