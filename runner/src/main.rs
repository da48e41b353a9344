//! `sandhog-runner`: PID 1 inside every sandbox.
//!
//! Reads jobs as frames on standard input, runs each in a fresh cell, and answers on standard
//! output; see `sandhog_runner::protocol`. It runs no job code in its own process, and treats all
//! bytes from a job as hostile. It has one thread with one `poll` loop, so no call may block for
//! longer than a stated bound.
//!
//! With `proxy` as its first argument it is a different program, which runs *inside* a cell: a
//! proxy in front of an HTTP server.
//!
//! Exit codes: 0 when the worker closed the connection, 65 when the worker broke the protocol, 70
//! when this container cannot hold cells.

mod answer;
#[expect(
    unsafe_code,
    reason = "some system calls that make a cell have no safe wrapper; nowhere else"
)]
mod cell;
mod hearing;
mod job;
mod link;
mod output;
mod proxy;
mod questions;
mod relay;
mod report;
mod serve;
mod showing;
mod stopping;
mod supervise;
mod trial;
mod warmth;

use std::io::Write;
use std::process::ExitCode;

use sandhog_runner::PROXY_ARGUMENT;
use serve::ServeError;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(PROXY_ARGUMENT) {
        return ended(proxy::run(&words.collect::<Vec<_>>()), |_error| 1);
    }
    ended(serve::serve(), code)
}

fn ended<E: std::error::Error>(ended: Result<(), E>, code: impl Fn(&E) -> u8) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The engine passes standard error on to the worker. If the write fails, the exit code
            // remains.
            drop(writeln!(std::io::stderr(), "{}", chain(&error)));
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &ServeError) -> u8 {
    match error {
        ServeError::Frame(_) | ServeError::OutOfTurn | ServeError::Flooded => 65,
        ServeError::Prepare(_)
        | ServeError::Signals(_)
        | ServeError::Stream(_)
        | ServeError::Zygote => 70,
    }
}

/// Formats an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
