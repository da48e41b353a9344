//! Sandboxes of keepers: processes that make sandboxes in their containers over Unix sockets.
//!
//! A keeper is PID 1 of a container that any engine made from one image; the protocol is in
//! `sandhog_protocol::keeper`. This provider uses the keepers in a directory of sockets, so that a
//! worker needs neither an engine nor any privilege.

mod connection;
mod directory;
mod facts;
mod open_keeper_sandboxes;
mod provider;
mod survey;

pub(super) use connection::KeeperConnection;
pub(super) use open_keeper_sandboxes::OpenKeeperSandboxes;
pub use provider::Keepers;
pub(super) use survey::report;
pub use survey::{KeeperReport, survey};
