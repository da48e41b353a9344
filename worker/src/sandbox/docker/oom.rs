//! Detection of containers that ended because they ran out of memory.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::EventsOptionsBuilder;
use chrono::DateTime;
use futures_util::StreamExt;

use super::Engine;

/// Number of polls until the engine reports that a container has ended. With
/// [`END_POLL_INTERVAL`] this makes ten seconds, because the engine on a busy machine notices the
/// end late.
const END_POLLS: u32 = 200;

/// Time between two polls.
const END_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The exit code of a container whose first process was killed.
const EXIT_CODE_KILLED: i64 = 137;

impl Engine {
    /// Returns whether this container ended because it ran out of memory. Meant for containers of a
    /// [`Shape`](crate::sandbox::Shape) whose caps are those of the job.
    ///
    /// The engine's `OOMKilled` flag covers most cases. The engine receives the event while the
    /// container's cgroup is being removed, and in one case out of ten the cgroup is gone before
    /// the engine reads it. Therefore a container whose first process was killed also counts,
    /// unless a client asked the engine to kill it: the only other source of such a kill is a
    /// kernel short of memory. If the engine's events are unavailable, the answer is no.
    ///
    /// # Cancel safety
    /// Cancel safe: it only reads.
    pub async fn oom_of(&self, name: &str) -> bool {
        for _ in 0..END_POLLS {
            let Ok(found) = self.docker().inspect_container(name, None).await else {
                return false;
            };
            let state = found.state.unwrap_or_default();
            if state.oom_killed == Some(true) {
                return true;
            }
            // The container's streams close before the engine registers its end.
            if state.running == Some(false) {
                let asked = self.was_asked_to_kill(name, state.finished_at.as_deref());
                return state.exit_code == Some(EXIT_CODE_KILLED) && asked.await == Some(false);
            }
            tokio::time::sleep(END_POLL_INTERVAL).await;
        }
        false
    }

    /// Returns whether a client asked the engine to signal this container before it ended; `None`
    /// if the engine's events are unavailable.
    async fn was_asked_to_kill(&self, name: &str, ended: Option<&str>) -> Option<bool> {
        let ended = DateTime::parse_from_rfc3339(ended?).ok()?;
        // Event times use the engine's clock, in whole seconds, and a kill is logged after it is
        // done.
        let until = ended.timestamp().saturating_add(2).to_string();
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["kill"]),
            ("container", vec![name]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since("1")
            .until(&until)
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.docker().events(Some(options)));
        match events.next().await {
            None => Some(false),
            Some(Ok(_kill)) => Some(true),
            Some(Err(error)) => {
                tracing::debug!(container = name, %error, "cannot read the engine's kill events");
                None
            }
        }
    }
}
