//! A worker's report on the models that it serves.

use serde::{Deserialize, Serialize};

use sandhog_core::id::ImageName;
use sandhog_core::units::ByteCount;

/// State of one model of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The image that contains the model.
    pub image: ImageName,
    /// State of its server.
    pub state: ModelState,
    /// Jobs and inference requests of programs that it works on now.
    pub running: u32,
    /// Jobs and inference requests that wait for it.
    pub waiting: u32,
    /// Calls sent to it so far; a batch is one call.
    pub calls: u64,
    /// Number of times that it was loaded.
    pub loads: u64,
    /// Number of times that its server died or had to be replaced.
    pub deaths: u64,
    /// Memory limit of its server, in bytes. The server uses none while the model is not loaded.
    pub memory: ByteCount,
}

/// State of a model's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// There is no server: no request came yet, or none came for a long time.
    #[default]
    Asleep,
    /// The model is being loaded, or waits until another model makes room.
    Loading,
    /// The server waits for calls.
    Ready,
    /// The server works on a call.
    Busy,
    /// The server died or failed to load, and is retried in a moment.
    Backoff,
    /// The server failed to load, and is not retried for a while.
    Broken,
}

impl ModelState {
    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Backoff => "backoff",
            Self::Broken => "broken",
        }
    }

    /// Returns whether a server accepts calls.
    #[must_use]
    pub const fn serves(self) -> bool {
        match self {
            Self::Ready | Self::Busy => true,
            Self::Asleep | Self::Loading | Self::Backoff | Self::Broken => false,
        }
    }
}
