//! The daemon library: claims jobs and runs each in a capped container.

pub mod images;
pub mod pool;
pub mod sandbox;
