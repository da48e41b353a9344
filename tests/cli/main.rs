//! The command line, with neither Redis nor an engine.
