//! The sandbox in real containers.

mod engine;
