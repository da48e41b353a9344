//! The channels between the worker and a program in its cell: output, the harness, inference
//! requests, and the calls to a model server. No call on a channel blocks.

mod channel;
mod harness;
mod harness_decoder;
mod infer;
mod model;
mod output;

pub(crate) use channel::{Channel, PollState, Turn};
pub(crate) use harness::HarnessChannel;
pub(crate) use infer::InferChannel;
pub(crate) use model::ModelChannel;
pub(crate) use output::OutputChannel;
