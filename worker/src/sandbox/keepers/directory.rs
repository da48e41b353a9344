//! A directory of sockets on which keepers listen.
//!
//! A file `*.sock` of the directory is the socket of one keeper. The keeper states its image. By
//! convention the file is named for the image, `python.sock`, so that the worker recognises an
//! image whose keeper has not answered yet. Several keepers may have the same image.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use futures_util::future::join_all;
use sandhog_config::KEEPERS_SCHEME;
use sandhog_core::error_chain::error_chain;
use sandhog_core::id::ImageName;
use sandhog_core::image::ImageContract;
use sandhog_protocol::keeper::Hello;

use super::connection::KeeperConnection;
use crate::sandbox::{Digest, Image, SandboxError, is_short};

/// End of the name of a keeper's socket.
const SOCKET_EXTENSION: &str = "sock";

/// Most sockets of a directory that are used.
const MAX_SOCKETS: usize = 256;

/// A directory of sockets.
#[derive(Debug)]
pub(super) struct KeeperDirectory {
    path: PathBuf,
    memory: Mutex<DirectoryMemory>,
}

/// Facts from earlier connections.
#[derive(Debug, Default)]
struct DirectoryMemory {
    /// The sockets at which keepers of an image have answered.
    sockets: HashMap<ImageName, BTreeSet<PathBuf>>,
    /// The last logged error of each socket that could not be used.
    logged: HashMap<PathBuf, String>,
}

impl KeeperDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            memory: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Connects to every keeper in the directory. Logs each new error once.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) async fn connect_all(&self) -> std::io::Result<Vec<KeeperConnection>> {
        let sockets = sockets_in(&self.path).await?;
        Ok(self.connect(sockets).await.0)
    }

    /// Connects to every keeper of an image that does not stop, those of the newest build first.
    ///
    /// # Errors
    /// [`SandboxError::NoKeeperOfImage`] if keepers answer and none has this image. An error with
    /// [`SandboxError::is_keeper_away`] if the image's keeper is known and does not answer, or no
    /// keeper answers at all.
    pub(super) async fn keepers_of(
        &self,
        name: &ImageName,
    ) -> Result<Vec<KeeperConnection>, SandboxError> {
        let own = self.path.join(format!("{name}.{SOCKET_EXTENSION}"));
        let mut candidates = self.memory().sockets.get(name).cloned().unwrap_or_default();
        let is_known = !candidates.is_empty();
        if is_short(name) && own.exists() {
            candidates.insert(own.clone());
        }
        let has_candidate = !candidates.is_empty();
        let (found, error) = self.connect(candidates).await;
        let found = newest_first(found, name);
        if !found.is_empty() {
            return Ok(found);
        }
        // Another socket may have the image by now.
        let all = self.connect_all().await;
        let all = all.map_err(|source| self.unreadable(source))?;
        let none_answers = all.is_empty();
        let found = newest_first(all, name);
        if !found.is_empty() {
            return Ok(found);
        }
        match error {
            Some(error) => Err(error),
            None if is_known || has_candidate || none_answers => Err(SandboxError::KeeperAway {
                socket: own.display().to_string(),
                source: "no keeper of this image answers now".into(),
            }),
            None => Err(self.unknown(name)),
        }
    }

    /// Returns the error for an image that no keeper has.
    pub(super) fn unknown(&self, name: &ImageName) -> SandboxError {
        SandboxError::NoKeeperOfImage {
            name: name.clone(),
            directory: self.path.clone(),
        }
    }

    /// Returns the error for a directory that cannot be read.
    pub(super) fn unreadable(&self, source: std::io::Error) -> SandboxError {
        SandboxError::NoKeeper {
            endpoint: format!("{KEEPERS_SCHEME}{}", self.path.display()),
            source: source.into(),
        }
    }

    /// Connects to these sockets. Returns also the error of one of those that failed.
    async fn connect(
        &self,
        sockets: impl IntoIterator<Item = PathBuf>,
    ) -> (Vec<KeeperConnection>, Option<SandboxError>) {
        let connecting = sockets.into_iter().map(|socket| async move {
            let connected = KeeperConnection::connect(&socket).await;
            (socket, connected)
        });
        let (mut found, mut last_error) = (Vec::new(), None);
        for (socket, connected) in join_all(connecting).await {
            match connected {
                Ok(connection) => {
                    self.remember(&socket, connection.hello());
                    found.push(connection);
                }
                Err(error) => {
                    self.log(socket, &error);
                    last_error = Some(error);
                }
            }
        }
        (found, last_error)
    }

    fn remember(&self, socket: &Path, hello: &Hello) {
        let mut memory = self.memory();
        let is_new = memory.logged.remove(socket).is_some();
        let Ok(name) = hello.image.parse::<ImageName>() else {
            return;
        };
        let sockets = memory.sockets.entry(name).or_default();
        if sockets.insert(socket.to_owned()) || is_new {
            tracing::info!(
                socket = %socket.display(),
                image = hello.image,
                build = hello.build,
                cgroup = ?hello.cgroup,
                user_namespace = hello.user_namespace,
                missing = hello.missing.join("; "),
                "keeper answers"
            );
        }
    }

    fn log(&self, socket: PathBuf, error: &SandboxError) {
        let text = error_chain(error);
        let mut memory = self.memory();
        if memory.logged.get(&socket) != Some(&text) {
            tracing::warn!(error = text, "keeper cannot be used");
            memory.logged.insert(socket, text);
        }
    }

    fn memory(&self) -> MutexGuard<'_, DirectoryMemory> {
        self.memory
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

/// Returns the sockets in a directory, sorted.
///
/// # Errors
/// If the directory cannot be read.
pub(super) async fn sockets_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut sockets = Vec::new();
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        let is_socket = path.extension().is_some_and(|end| end == SOCKET_EXTENSION);
        if is_socket && sockets.len() < MAX_SOCKETS {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// Returns the connections to keepers of this image that do not stop: those whose socket was made
/// last first, and among those of one build the one with the fewest sandboxes first.
fn newest_first(mut found: Vec<KeeperConnection>, name: &ImageName) -> Vec<KeeperConnection> {
    found.retain(|keeper| keeper.hello().image == name.as_str() && !keeper.hello().stopping);
    let mut newest: HashMap<String, SystemTime> = HashMap::new();
    for keeper in &found {
        let made = std::fs::metadata(keeper.socket()).and_then(|file| file.modified());
        let made = made.unwrap_or(SystemTime::UNIX_EPOCH);
        let build = newest.entry(keeper.hello().build.clone()).or_insert(made);
        *build = made.max(*build);
    }
    found.sort_by_key(|keeper| {
        let hello = keeper.hello();
        let made = newest.get(&hello.build).copied();
        (Reverse(made), hello.build.clone(), hello.sandboxes)
    });
    found
}

/// Returns the image of a keeper.
///
/// # Errors
/// [`SandboxError::BadContract`] if the keeper hands on a contract that cannot be used.
pub(super) fn image_of(keeper: &KeeperConnection, name: &ImageName) -> Result<Image, SandboxError> {
    let hello = keeper.hello();
    let reference = keeper.socket().display().to_string();
    match ImageContract::from_toml(&hello.contract) {
        Ok(contract) => Ok(Image {
            name: name.clone(),
            reference,
            digest: Digest::new(hello.build.clone()),
            contract: Arc::new(contract),
        }),
        Err(source) => Err(SandboxError::BadContract {
            name: name.clone(),
            reference,
            source,
        }),
    }
}
