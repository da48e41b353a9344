//! A provider in memory: its containers are tasks, and its runners exchange the real frames over
//! memory streams. They interpret a few shell commands and start no process.

mod engine;
mod fixture;
mod provider;
mod runner;
mod script;

pub(crate) use fixture::MemoryFixture;
