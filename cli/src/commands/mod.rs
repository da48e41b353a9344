//! One file for each command. A command is told what was typed and answers how the process ends.

mod cancel;
mod completions;
mod config;
mod dead;
mod doctor;
mod follow;
mod images;
mod infer;
mod logs;
mod run;
mod schedule;
mod status;
mod submit;
mod tenant;
mod top;
mod up;
mod verdict;
mod wait;
mod worker;

pub(crate) use cancel::cancel;
pub(crate) use completions::completions;
pub(crate) use config::config;
pub(crate) use dead::dead;
pub(crate) use doctor::doctor;
pub(crate) use images::images;
pub(crate) use infer::infer;
pub(crate) use logs::logs;
pub(crate) use run::run;
pub(crate) use schedule::schedule;
pub(crate) use status::status;
pub(crate) use submit::submit;
pub(crate) use tenant::{pause, resume, tenant};
pub(crate) use top::top;
pub(crate) use up::up;
pub(crate) use wait::wait;
pub(crate) use worker::worker;
