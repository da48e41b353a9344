//! The worker processes of a chaos run: starts, kills, freezes, thaws and replaces them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::worker_start::WorkerStart;
use crate::worker_child::WorkerChild;

/// A constant number of workers, alive or frozen.
pub(super) struct WorkerFleet {
    spec: WorkerStart,
    folder: TempDir,
    members: Vec<FleetMember>,
    started: usize,
    random_state: u64,
    /// Number of workers killed.
    pub(super) kills: usize,
    /// Number of freezes.
    pub(super) freezes: usize,
}

struct FleetMember {
    process: WorkerChild,
    frozen_until: Option<Instant>,
}

impl WorkerFleet {
    pub(super) fn start(spec: WorkerStart, count: usize, seed: u64) -> Self {
        let mut fleet = Self {
            spec,
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            members: Vec::new(),
            started: 0,
            random_state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            kills: 0,
            freezes: 0,
        };
        for _ in 0..count {
            let member = fleet.start_member();
            fleet.members.push(member);
        }
        fleet
    }

    fn start_member(&mut self) -> FleetMember {
        self.started += 1;
        let id = format!("w{}", self.started);
        let log = self.folder.path().join(&id);
        FleetMember {
            process: self.spec.start(&id, &log),
            frozen_until: None,
        }
    }

    /// Replaces each worker that has ended, for example because it found no Redis when it started.
    pub(super) fn replace_ended(&mut self) {
        for at in 0..self.members.len() {
            if self.members[at].process.ended().is_some() {
                self.members[at] = self.start_member();
            }
        }
    }

    /// Kills a random worker that is not frozen, and replaces it.
    pub(super) fn kill_one(&mut self) {
        let awake: Vec<usize> = (0..self.members.len())
            .filter(|&at| self.members[at].frozen_until.is_none())
            .collect();
        if awake.is_empty() {
            return;
        }
        let at = awake[self.random_below(awake.len())];
        self.members[at].process.kill9();
        self.members[at] = self.start_member();
        self.kills += 1;
    }

    /// Freezes the worker that holds the most jobs, and returns their number. Only one worker is
    /// frozen at a time; while one is, this returns 0.
    pub(super) fn freeze(&mut self, pending: &HashMap<String, usize>, span: Duration) -> usize {
        if self.members.iter().any(|one| one.frozen_until.is_some()) {
            return 0;
        }
        let busiest = self
            .members
            .iter_mut()
            .map(|one| {
                let held = pending.get(one.process.id()).copied().unwrap_or(0);
                (held, one)
            })
            .max_by_key(|(held, _)| *held);
        match busiest {
            Some((held, one)) if held > 0 => {
                one.process.signal(Signal::SIGSTOP);
                one.frozen_until = Some(Instant::now() + span);
                self.freezes += 1;
                held
            }
            Some(_) | None => 0,
        }
    }

    /// Wakes the workers whose freeze is over.
    pub(super) fn thaw(&mut self) {
        let now = Instant::now();
        self.wake(|until| now >= until);
    }

    /// Wakes all workers.
    pub(super) fn thaw_all(&mut self) {
        self.wake(|_until| true);
    }

    fn wake(&mut self, due: impl Fn(Instant) -> bool) {
        for one in &mut self.members {
            if one.frozen_until.is_some_and(&due) {
                one.process.signal(Signal::SIGCONT);
                one.frozen_until = None;
            }
        }
    }

    /// Tells all workers to drain, waits until they have, and returns every log that a worker wrote
    /// during the run.
    pub(super) fn drain(&mut self) -> Vec<String> {
        for one in &mut self.members {
            one.process.drain();
        }
        std::fs::read_dir(self.folder.path())
            .expect("our own folder can be read")
            .filter_map(Result::ok)
            .map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default())
            .collect()
    }

    /// Returns a random number below `bound` (xorshift).
    fn random_below(&mut self, bound: usize) -> usize {
        self.random_state ^= self.random_state << 13;
        self.random_state ^= self.random_state >> 7;
        self.random_state ^= self.random_state << 17;
        let bound = u64::try_from(bound).expect("a small count fits");
        usize::try_from(self.random_state % bound).expect("less than a small count fits")
    }
}
