//! A proxy inside a cell, between descriptor 3 and an HTTP server on the cell's loopback interface.
//!
//! It is a second role of the runner's binary, started as an unprivileged program in a cell, never
//! as PID 1. It starts the server, waits until the server's health path answers, and turns calls
//! into HTTP requests and server-sent events into chunks. So the runner as PID 1 never reads a byte
//! of HTTP. The proxy follows no redirect and connects only to the loopback interface.

mod call;
mod choice;
mod run;
mod stream_answer;
mod worker_writer;

pub(crate) use run::run_proxy;
