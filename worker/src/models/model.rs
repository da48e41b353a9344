//! Handle to one model of a worker.

use std::sync::Arc;

use sandhog_core::infer::Serving;
use sandhog_core::limits::{LimitOverrides, Limits};
use sandhog_core::units::ByteCount;
use sandhog_queue::{ModelFacts, ModelState};
use tokio::sync::{Semaphore, mpsc, watch};

use super::supervisor::{ModelCommand, ModelStatus};
use crate::sandbox::Image;

/// Handle to one model's supervisor.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) image: Image,
    /// `true` if the model is kept loaded without demand.
    pub(super) warm: bool,
    pub(super) commands: mpsc::UnboundedSender<ModelCommand>,
    /// Permits for the jobs that the model accepts.
    pub(super) call_permits: Arc<Semaphore>,
    pub(super) status: watch::Receiver<ModelStatus>,
}

impl Model {
    /// Creates the handle to the supervisor that receives these `commands`.
    pub(super) fn new(
        image: &Image,
        serving: &Serving,
        warm: bool,
        commands: mpsc::UnboundedSender<ModelCommand>,
        status: watch::Receiver<ModelStatus>,
    ) -> Self {
        Self {
            image: image.clone(),
            warm,
            commands,
            call_permits: Arc::new(Semaphore::new(max_calls(serving))),
            status,
        }
    }

    /// Returns whether the model's server is running.
    pub(super) fn is_loaded(&self) -> bool {
        self.status.borrow().state.serves()
    }

    /// Returns the state of the model as other workers and observers see it.
    pub(super) fn facts(&self) -> ModelFacts {
        let status = *self.status.borrow();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let contract = &self.image.contract;
        let limits = Limits::resolve(
            &LimitOverrides::default(),
            &contract.limits,
            &contract.ceiling,
        );
        ModelFacts {
            image: self.image.name.clone(),
            state: match status.state {
                ModelState::Ready if status.running > 0 => ModelState::Busy,
                state => state,
            },
            running: small(status.running),
            waiting: small(status.waiting),
            calls: status.calls,
            loads: status.loads,
            deaths: status.deaths,
            memory: limits.map_or(ByteCount(0), |limits| limits.memory),
        }
    }
}

/// Returns the number of jobs that a model accepts: the jobs that it processes at once, and the
/// same number again, so that the next batch is full.
fn max_calls(serving: &Serving) -> usize {
    let at_once = u64::from(serving.concurrency) * u64::from(serving.max_batch);
    usize::try_from(2 * at_once)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
}
