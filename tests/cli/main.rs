//! The command line, without Redis or an engine.

mod command;

mod docs;
mod errors;
mod help;
mod scripts;
mod settings;
