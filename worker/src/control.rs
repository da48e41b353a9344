//! Reads the control stream of a namespace: cancels, and classes that appear.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sandhog_core::id::Tag;
use sandhog_queue::{ControlEvent, ControlReader};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::LoopBackoff;
use crate::lease::Leases;

/// Timeout of one blocking read of the control stream.
const CONTROL_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// State of the loop that processes the control events of one namespace.
#[derive(Debug)]
pub(crate) struct ControlLoop {
    /// The leases held in the namespace.
    pub(crate) leases: Leases,
    /// Tags of the classes that the worker may serve; `None` if that depends on its GPUs.
    pub(crate) tags: Option<BTreeSet<Tag>>,
    /// Notified when such a class appears or is forgotten.
    pub(crate) class_found: Arc<Notify>,
}

impl ControlLoop {
    /// Processes control events until `stop` is cancelled; the caller unblocks the reader after
    /// that. A missed cancel arrives with the next heartbeat reply, and a missed class is found at
    /// the next announcement.
    pub(crate) async fn run(self, mut control: ControlReader, stop: CancellationToken) {
        let mut backoff = LoopBackoff::new("control");
        while !stop.is_cancelled() {
            match control.next(CONTROL_READ_TIMEOUT).await {
                Ok(events) => {
                    backoff.reset();
                    events.into_iter().for_each(|event| self.process(event));
                }
                Err(error) => backoff.record_failure(&error, &stop).await,
            }
        }
    }

    fn process(&self, event: ControlEvent) {
        match event {
            ControlEvent::Cancel(id) => self.leases.cancel(&id),
            ControlEvent::Class(class) => {
                let tags = self.tags.as_ref();
                if tags.is_none_or(|tags| class.is_covered_by(tags)) {
                    self.class_found.notify_one();
                }
            }
        }
    }
}
