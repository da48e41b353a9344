//! The commands, one file for each. A command gets its parsed arguments and returns the exit code
//! of the process.

mod advice;
mod away;
mod cancel;
mod completions;
mod conclude;
mod config;
mod dead;
mod displays;
mod doctor;
mod follow;
mod ids;
mod images;
mod infer;
mod logs;
mod replies;
mod run;
mod save;
mod schedule;
mod status;
mod submit;
mod tenant;
mod top;
mod up;
mod verdict;
mod wait;
mod waiting;
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
