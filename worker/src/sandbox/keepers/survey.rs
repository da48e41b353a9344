//! A survey of keepers: the facts of each, or the reason why it cannot be used.

use std::io;
use std::path::Path;

use futures_util::future::join_all;
use sandhog_protocol::keeper::Hello;

use super::connection::KeeperConnection;
use super::directory::sockets_in;
use crate::sandbox::SandboxError;

/// The answer of one keeper.
#[derive(Debug)]
pub struct KeeperReport {
    /// The file name of its socket, or the name of its container.
    pub name: String,
    /// The facts of the keeper, or the reason why it cannot be used.
    pub answer: Result<Hello, SandboxError>,
}

/// Connects to every socket in a directory of keepers. Returns the reports sorted by name.
///
/// # Errors
/// If the directory cannot be read.
///
/// # Cancel safety
/// Cancel safe: it only reads.
pub async fn survey(directory: &Path) -> io::Result<Vec<KeeperReport>> {
    let sockets = sockets_in(directory).await?;
    let asked = sockets.iter().map(|socket| async move {
        let name = socket.file_name().unwrap_or_default();
        report(name.to_string_lossy().into_owned(), socket).await
    });
    Ok(join_all(asked).await)
}

/// Connects to the keeper on a socket.
pub(in crate::sandbox) async fn report(name: String, socket: &Path) -> KeeperReport {
    let connected = KeeperConnection::connect(socket).await;
    KeeperReport {
        name,
        answer: connected.map(|connection| connection.hello().clone()),
    }
}
