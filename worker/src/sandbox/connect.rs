//! The connection to the provider that the settings name.

use std::path::PathBuf;

use sandhog_config::{Attach, KEEPERS_SCHEME, PoolSettings, SandboxSettings, SandboxUnit};

use super::docker::{Engine, KeeperContainers};
use super::keepers::Keepers;
use super::sandboxes::Sandboxes;
use super::{ProviderParts, SandboxError, SandboxOwner, SandboxSource};

/// Connects to the provider at the address `sandbox.engine`, on behalf of `owner`. Containers get
/// their GPUs by the method `attach`.
///
/// The scheme `keepers` selects the keepers in a directory. Docker serves every other address. With
/// Docker, `sandbox.unit` selects a container for each sandbox, or keepers that the worker starts.
/// Their containers have the caps that `pool` sets for all sandboxes together. Without a choice the
/// worker uses keepers if one of them can make a sandbox.
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
        let source = SandboxSource::ForeignKeepers;
        return Ok(Sandboxes::of_source(keepers.parts(), settings, source));
    }
    let engine = Engine::connect(settings, attach, owner).await?;
    engine.facts().require_runtime(&settings.runtime)?;
    let (parts, source) = match settings.unit {
        SandboxUnit::Container => (engine.parts(), SandboxSource::Containers { reason: None }),
        SandboxUnit::Sandbox => {
            let keepers = KeeperContainers::connect(engine, pool).await?;
            (keepers.parts(), SandboxSource::OwnKeepers)
        }
        SandboxUnit::Auto => keepers_or_containers(engine, settings, pool).await,
    };
    Ok(Sandboxes::of_source(parts, settings, source))
}

/// Returns keepers if they work here, and else a container for each sandbox.
async fn keepers_or_containers(
    engine: Engine,
    settings: &SandboxSettings,
    pool: &PoolSettings,
) -> (ProviderParts, SandboxSource) {
    match KeeperContainers::connect_tried(engine.clone(), settings, pool).await {
        Ok(keepers) => (keepers.parts(), SandboxSource::OwnKeepers),
        Err(reason) => {
            tracing::info!(reason, "no keepers are used: each sandbox has a container");
            let reason = Some(reason);
            (engine.parts(), SandboxSource::Containers { reason })
        }
    }
}
