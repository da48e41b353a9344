//! What a worker says of the models it serves.

use serde::{Deserialize, Serialize};

use crate::id::ImageName;
use crate::units::ByteCount;

/// One model of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The image that has it.
    pub image: ImageName,
    /// What its server does.
    pub state: ModelState,
    /// Jobs and programs' questions that it works on now.
    pub running: u32,
    /// Jobs and questions that wait for it.
    pub waiting: u32,
    /// Calls put to it so far; a batch is one.
    pub calls: u64,
    /// Times that it was loaded.
    pub loads: u64,
    /// Times that its server died, or had to be replaced.
    pub deaths: u64,
    /// Memory that its server may take, in bytes; it takes none while it is not loaded.
    pub memory: ByteCount,
}

/// What a model's server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// There is none: nobody asked yet, or nobody did for long.
    #[default]
    Asleep,
    /// It is being loaded, or waits for another to make room.
    Loading,
    /// It waits for calls.
    Ready,
    /// It works on a call.
    Busy,
    /// It died or did not load, and is tried again in a moment.
    Backoff,
    /// It could not be loaded, and is not tried again for a while.
    Broken,
}

impl ModelState {
    /// The name on the wire.
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

    /// Whether a server takes calls.
    #[must_use]
    pub const fn serves(self) -> bool {
        match self {
            Self::Ready | Self::Busy => true,
            Self::Asleep | Self::Loading | Self::Backoff | Self::Broken => false,
        }
    }
}
