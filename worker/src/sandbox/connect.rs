//! The connection to the provider that the settings name.

use std::path::PathBuf;

use sandhog_config::{Attach, KEEPERS_SCHEME, PoolSettings, SandboxSettings, SandboxUnit};

use super::docker::{Engine, KeeperContainers};
use super::keepers::Keepers;
use super::sandboxes::Sandboxes;
use super::{SandboxError, SandboxOwner};

/// Connects to the provider at the address `sandbox.engine`, on behalf of `owner`. Containers get
/// their GPUs by the method `attach`.
///
/// The scheme `keepers` selects the keepers in a directory. Docker serves every other address. With
/// Docker, `sandbox.unit` selects a container for each sandbox, or keepers that the worker starts.
/// Their containers have the caps that `pool` sets for all sandboxes together.
///
/// # Errors
/// If the address is not valid, no provider answers there, or the provider lacks the runtime of the
/// settings.
pub async fn connect(
    settings: &SandboxSettings,
    pool: &PoolSettings,
    attach: Attach,
    owner: SandboxOwner,
) -> Result<Sandboxes, SandboxError> {
    if let Some(directory) = settings.engine.strip_prefix(KEEPERS_SCHEME) {
        let keepers = Keepers::connect(PathBuf::from(directory), settings).await?;
        return Ok(Sandboxes::new(keepers.parts(), settings));
    }
    let engine = Engine::connect(settings, attach, owner).await?;
    engine.facts().require_runtime(&settings.runtime)?;
    let parts = match settings.unit {
        SandboxUnit::Container => engine.parts(),
        SandboxUnit::Sandbox => KeeperContainers::new(engine, pool)?.parts(),
    };
    Ok(Sandboxes::new(parts, settings))
}
