//! The command line, with neither Redis nor an engine.

mod command;

mod docs;
mod errors;
mod help;
mod scripts;
mod settings;
