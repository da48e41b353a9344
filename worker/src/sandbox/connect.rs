//! The connection to the provider that the settings name.

use sandhog_config::{Attach, SandboxSettings};

use super::docker::Engine;
use super::sandboxes::Sandboxes;
use super::{SandboxError, SandboxOwner};

/// Connects to the provider at the address `sandbox.engine`, on behalf of `owner`. Containers get
/// their GPUs by the method `attach`.
///
/// Docker is the only provider so far, and serves every address. Another provider is chosen here,
/// by the scheme of the address.
///
/// # Errors
/// If the address is not valid, no provider answers there, or the provider lacks the runtime of the
/// settings.
pub async fn connect(
    settings: &SandboxSettings,
    attach: Attach,
    owner: SandboxOwner,
) -> Result<Sandboxes, SandboxError> {
    let engine = Engine::connect(settings, attach, owner).await?;
    engine.facts().require_runtime(&settings.runtime)?;
    Ok(Sandboxes::new(engine.parts(), settings))
}
