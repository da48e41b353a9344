//! Labels of the containers that a worker creates.

use sandhog_core::id::Namespace;
use uuid::Uuid;

/// Label for the worker that created a container.
pub(super) const WORKER_LABEL: &str = "sandhog.worker";

/// Label for the namespace that the worker serves.
const NAMESPACE_LABEL: &str = "sandhog.namespace";

/// Label for the identity of the queue that the worker serves.
const QUEUE_LABEL: &str = "sandhog.queue";

/// Label for the image's short name.
pub(super) const IMAGE_LABEL: &str = "sandhog.image";

/// Label for the role of a container that is not one sandbox.
pub(super) const ROLE_LABEL: &str = "sandhog.role";

/// The role of a container in which a keeper makes sandboxes.
pub(super) const KEEPER_ROLE: &str = "keeper";

/// Returns the labels of the containers of one namespace and, if it is known, of one queue.
pub(super) fn owner_labels(
    namespace: &Namespace,
    queue: Option<Uuid>,
) -> Vec<(&'static str, String)> {
    let mut labels = vec![(NAMESPACE_LABEL, namespace.to_string())];
    labels.extend(queue.map(|queue| (QUEUE_LABEL, queue.simple().to_string())));
    labels
}
