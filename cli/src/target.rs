//! The address of the queue that a command uses.

use sandhog_config::{RedisSettings, Settings};
use sandhog_producer::Client;

use crate::context::AppContext;
use crate::embedded::StateDir;
use crate::error::CliError;
use crate::exit::Exit;

impl AppContext {
    /// Returns the settings to connect to the queue: those that are set, otherwise those of a
    /// running `sandhog up`, otherwise `None`.
    pub(crate) fn find_queue(&self) -> Option<Settings> {
        let settings = &self.loaded.settings;
        if settings.redis.url.is_some() {
            return Some(settings.clone());
        }
        let running = StateDir::of(settings, &self.environment).ok()?.running()?;
        let namespace = running.namespace.parse().ok()?;
        Some(Settings {
            redis: RedisSettings {
                wait_replicas: 0,
                url: Some(running.redis),
                ..settings.redis.clone()
            },
            // A namespace that the user has set is kept, even if no worker serves it.
            namespace: if self.is_default("namespace") {
                namespace
            } else {
                settings.namespace.clone()
            },
            ..settings.clone()
        })
    }

    /// Returns the settings to connect to the queue.
    ///
    /// # Errors
    /// Fails if no address is set and no `sandhog up` of this user runs.
    pub(crate) fn queue_settings(&self) -> Result<Settings, CliError> {
        self.find_queue().ok_or_else(|| {
            CliError::message(
                Exit::Unavailable,
                "no Redis address is set, and no `sandhog up` runs on this machine",
            )
            .hint("set SANDHOG_REDIS_URL, or start `sandhog up` in another terminal")
        })
    }

    /// Connects to the queue and returns a client.
    ///
    /// # Errors
    /// Fails if no address is known, or the queue cannot be reached.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        connect_target(&self.queue_settings()?).await
    }
}

/// Connects to the queue that these settings name and returns a client.
///
/// # Errors
/// Fails if the queue cannot be reached.
pub(crate) async fn connect_target(settings: &Settings) -> Result<Client, CliError> {
    Ok(Client::connect(&settings.redis, &settings.namespace).await?)
}
