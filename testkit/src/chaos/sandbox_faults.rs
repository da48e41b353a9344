//! Faults of the sandboxes in a chaos run: containers and runners of keepers die by SIGKILL.

use std::time::{Duration, Instant};

use sandhog_core::id::Namespace;

use crate::containers::{Engine, NAMESPACE_LABEL};

/// A shell command that kills one runner of the keeper in its container, at random, and prints its
/// process id. A runner is the first process of its namespace, which is one below the keeper's.
const KILL_A_RUNNER: &str = "shopt -s nullglob; \
    for status in $(grep -lP '^NSpid:\\s\\d+\\s1$' /proc/[0-9]*/status 2>/dev/null | shuf -n 1); \
    do \
    pid=${status#/proc/}; pid=${pid%/status}; kill -9 $pid && echo $pid; done";

/// Time that the workers may take to remove their last containers.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(90);

/// Kills containers and runners in turn.
pub(super) struct SandboxFaults {
    engine: Engine,
    namespace: String,
    next: Instant,
    every: Duration,
    turn: usize,
    /// Number of containers killed.
    pub(super) container_kills: usize,
    /// Number of runners of keepers killed.
    pub(super) runner_kills: usize,
}

impl SandboxFaults {
    /// Returns faults of the sandboxes of a namespace, one in each interval.
    pub(super) fn new(namespace: &Namespace, every: Duration) -> Self {
        Self {
            engine: Engine::connect(),
            namespace: namespace.to_string(),
            next: Instant::now() + every / 2,
            every,
            turn: 0,
            container_kills: 0,
            runner_kills: 0,
        }
    }

    /// Kills a container or a runner if it is time. Does nothing if there is none.
    pub(super) fn advance(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next += self.every;
        let containers = self.containers();
        self.turn += 1;
        let Some(container) = containers.get(self.turn % containers.len().max(1)) else {
            return;
        };
        if self.turn.is_multiple_of(2) {
            self.container_kills += usize::from(self.engine.try_kill(container));
        } else {
            let killed = self.engine.try_shell(container, KILL_A_RUNNER);
            let killed = killed.is_ok_and(|pid| !pid.trim().is_empty());
            self.runner_kills += usize::from(killed);
        }
    }

    /// Waits until no container of the namespace is left, or the time is up. Returns those that
    /// are left.
    pub(super) fn wait_until_gone(&self) -> Vec<String> {
        let until = Instant::now() + REMOVAL_TIMEOUT;
        loop {
            let left = self.containers();
            if left.is_empty() || Instant::now() >= until {
                return left;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn containers(&self) -> Vec<String> {
        self.engine
            .containers_with_label(NAMESPACE_LABEL, &self.namespace)
    }
}
