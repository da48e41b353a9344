//! What a job needs of a sandbox, and which containers can give it.

use sandhog_common::id::{Namespace, Tenant};
use sandhog_common::units::{ByteCount, CpuMillis};

use crate::sandbox::{Digest, Image, Shape};

/// What one attempt asks the pool for.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// What the container is started from.
    pub image: Image,
    /// How the container is made.
    pub shape: Shape,
    /// The queue the job came from: tenants of one name in two of them are strangers.
    pub namespace: Namespace,
    /// Whose job it is.
    pub tenant: Tenant,
    /// The memory the job may use, which is set aside for it.
    pub memory: ByteCount,
    /// The CPU the job may use, which is set aside for it.
    pub cpu_millis: CpuMillis,
}

impl Want {
    pub(super) fn kind(&self) -> Kind {
        Kind::new(&self.image, &self.shape)
    }

    pub(super) fn need(&self) -> Need {
        Need {
            memory: self.memory.0,
            cpu_millis: self.cpu_millis.0,
        }
    }
}

/// Containers that are made alike: of the same build of an image, with the same caps, under the same runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) digest: Digest,
    pub(super) shape: Shape,
}

impl Kind {
    pub(super) fn new(image: &Image, shape: &Shape) -> Self {
        Self {
            digest: image.digest.clone(),
            shape: shape.clone(),
        }
    }
}

/// Containers that may take each other's place: of one kind, and for the same tenant where tenants are kept apart.
/// One that nobody has used yet has no tenant, and may become anybody's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) kind: Kind,
    pub(super) tenant: Option<(Namespace, Tenant)>,
}

/// What a job takes of the budget while it runs, beside its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) memory: u64,
    pub(super) cpu_millis: u64,
}
