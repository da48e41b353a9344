//! Files that are put into a cell before its program starts, and files that are collected from it
//! at the end.

mod collected;
mod input_snapshot;
mod job_files;

pub(crate) use collected::Collected;
pub(super) use collected::{collect, open_work_dir};
pub(crate) use input_snapshot::InputSnapshot;
pub(super) use job_files::write_job_files;
