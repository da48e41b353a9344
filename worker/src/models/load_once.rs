//! Loads a model once, outside of a worker, to check that it loads. Used by `sandhog images check`.

use std::time::Duration;

use sandhog_core::infer::Serving;
use tokio::time::Instant;

use super::load::{self, LoadError};
use crate::sandbox::{Image, Sandboxes};

/// Loads the model of `image`, sends its warm-up, and removes its server again. Returns the time
/// that the load took.
///
/// # Errors
/// Fails if the model does not load, with the end of what its server printed.
///
/// # Cancel safety
/// Dropping the future removes the container in the background.
pub(crate) async fn load_once(
    sandboxes: &Sandboxes,
    image: &Image,
    serving: &Serving,
) -> Result<Duration, String> {
    let began = Instant::now();
    let loaded = load::load(sandboxes, image, serving, None).await;
    let took = began.elapsed();
    match loaded {
        Ok(loaded) => {
            drop(loaded.writer);
            loaded.reader.destroy().await;
            Ok(took)
        }
        Err(LoadError::Ours(why) | LoadError::Model(why)) => Err(why),
    }
}
