//! The sandbox in real containers.
