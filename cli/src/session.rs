//! Which queue a command speaks to.

use sandhog_common::config::{RedisSettings, Settings};
use sandhog_producer::Client;

use crate::app::App;
use crate::embedded::StateDir;
use crate::exit::Exit;
use crate::fault::Fault;

impl App {
    /// The settings to reach the queue with: those set, else those of a running `sandhog up`, else none.
    pub(crate) fn reachable(&self) -> Option<Settings> {
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
            // A namespace that was asked for stands, though nobody may serve it.
            namespace: if self.is_default("namespace") {
                namespace
            } else {
                settings.namespace.clone()
            },
            ..settings.clone()
        })
    }

    /// The settings to reach the queue with.
    ///
    /// # Errors
    /// When no address is set and no `sandhog up` runs.
    pub(crate) fn reach(&self) -> Result<Settings, Fault> {
        self.reachable().ok_or_else(|| {
            Fault::message(
                Exit::Unavailable,
                "no Redis address is set, and no `sandhog up` runs here",
            )
            .hint("set SANDHOG_REDIS_URL, or start `sandhog up` in another terminal")
        })
    }

    /// A client of the queue.
    ///
    /// # Errors
    /// When there is no queue to reach.
    pub(crate) async fn client(&self) -> Result<Client, Fault> {
        connect(&self.reach()?).await
    }
}

/// A client of the queue that these settings name.
///
/// # Errors
/// When it cannot be reached.
pub(crate) async fn connect(settings: &Settings) -> Result<Client, Fault> {
    Ok(Client::connect(&settings.redis, &settings.namespace).await?)
}
