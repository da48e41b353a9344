//! The Lua scripts, embedded, and how one is run.
