//! The frames between a worker and a runner.

use sandhog_fuzz_bodies::frames::{from_runner, from_runner_seeds, to_runner, to_runner_seeds};

use crate::feed;

#[test]
fn what_a_worker_receives() {
    feed("from a runner", &from_runner_seeds(), from_runner);
}

#[test]
fn what_a_runner_receives() {
    feed("to a runner", &to_runner_seeds(), to_runner);
}
