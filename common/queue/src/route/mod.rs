//! Finds the server that holds the queue, and connects to it.
//!
//! All keys of a namespace are in one hash slot, so one server holds all of them: the configured
//! server, the master that the Sentinels name, or the cluster node that owns the slot. A route
//! finds this server, and finds it again when it changes. It follows the answers of the servers and
//! keeps no map of the cluster.

mod cluster;
mod node;
mod route;
mod sentinel;

pub(crate) use node::{Node, Unreachable};
pub(crate) use route::Route;
