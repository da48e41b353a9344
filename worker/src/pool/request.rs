//! A request for a sandbox, and the groups of containers that can satisfy it.

use sandhog_core::id::{Namespace, Tenant};
use sandhog_core::units::{ByteCount, CpuMillis};

use crate::sandbox::{Digest, Image, Shape};

/// Request of one attempt to the pool.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRequest {
    /// The image that the container is started from.
    pub image: Image,
    /// The shape of the container.
    pub shape: Shape,
    /// The queue that the job came from. Tenants of the same name in two queues are different
    /// tenants.
    pub namespace: Namespace,
    /// The tenant that submitted the job.
    pub tenant: Tenant,
    /// The memory that the job may use, which is reserved for it.
    pub memory: ByteCount,
    /// The CPU that the job may use, which is reserved for it.
    pub cpu_millis: CpuMillis,
}

impl SandboxRequest {
    pub(super) fn kind(&self) -> ContainerKind {
        ContainerKind::new(&self.image, &self.shape)
    }

    pub(super) fn need(&self) -> Need {
        Need {
            memory: self.memory.0,
            cpu_millis: self.cpu_millis.0,
        }
    }
}

/// Containers that are started alike: from the same image build, with the same caps, under the same
/// runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ContainerKind {
    pub(super) digest: Digest,
    pub(super) shape: Shape,
}

impl ContainerKind {
    pub(super) fn new(image: &Image, shape: &Shape) -> Self {
        Self {
            digest: image.digest.clone(),
            shape: shape.clone(),
        }
    }
}

/// Containers that are interchangeable: of one kind and, where tenants are separated, for the same
/// tenant. An unused container has no tenant and may be given to any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) kind: ContainerKind,
    pub(super) tenant: Option<(Namespace, Tenant)>,
}

/// The resources that a job takes from the budget while it runs, in addition to its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) memory: u64,
    pub(super) cpu_millis: u64,
}
