//! Room of a kind: the memory that all its sandboxes and their jobs may hold together, where one
//! keeper makes them all in its container.
//!
//! Beyond it, the kernel would look for a victim among all processes of that container. So a job
//! that does not fit into the room of its kind waits, or idle sandboxes of the kind give way, even
//! while the budget of the worker has memory left.

use super::request::{ContainerKind, Need};
use super::state::PoolState;

impl<S> PoolState<S> {
    /// Returns the memory that this kind lacks before it can hold `more` bytes. `None` if there is
    /// no room of its own, or enough of it.
    pub(super) fn room_shortage(&self, kind: &ContainerKind, more: u64) -> Option<u64> {
        let room = self.room(kind)?;
        let held = self.held_in_room(kind);
        (held + more).checked_sub(room).filter(|short| *short > 0)
    }

    /// Limits a job's need to the room of its kind: a job that asks for more gets all of it, alone.
    pub(super) fn clamp_to_room(&self, kind: &ContainerKind, need: Need) -> Need {
        let entry = self.kinds.get(kind);
        let most = entry.and_then(|entry| Some(entry.room?.saturating_sub(entry.memory)));
        Need {
            memory: most.map_or(need.memory, |most| need.memory.min(most)),
            ..need
        }
    }

    /// Returns the room of a kind. `None` if it has none of its own, or none is known yet.
    fn room(&self, kind: &ContainerKind) -> Option<u64> {
        self.kinds.get(kind)?.room
    }

    /// Returns whether no sandbox of this kind exists or is being started.
    pub(super) fn has_no_sandbox(&self, kind: &ContainerKind) -> bool {
        let entry = self.kinds.get(kind);
        entry.is_none_or(|entry| entry.starting == 0 && entry.leaving_memory == 0)
            && !self.idle.iter().any(|idle| idle.owner.kind == *kind)
            && !(self.checkouts.values()).any(|checkout| checkout.owner.kind == *kind)
    }

    /// Returns the memory of a kind's sandboxes, in every state, and of the jobs that have a
    /// reservation.
    fn held_in_room(&self, kind: &ContainerKind) -> u64 {
        let idle = self.idle.iter().filter(|idle| idle.owner.kind == *kind);
        let busy = self
            .checkouts
            .values()
            .filter(|busy| busy.owner.kind == *kind);
        let waiting = self
            .waiters
            .iter()
            .filter(|waiter| waiter.has_reservation && waiter.owner.kind == *kind);
        let starting = self.kinds.get(kind).map_or(0, |entry| {
            let starting = u64::try_from(entry.starting).unwrap_or(u64::MAX);
            starting.saturating_mul(entry.memory) + entry.leaving_memory
        });
        let held = self.holds.values().filter(|(holder, _)| holder == kind);
        held.map(|(_, need)| need.memory).sum::<u64>()
            + idle.map(|idle| idle.memory).sum::<u64>()
            + busy.map(|busy| busy.memory + busy.need.memory).sum::<u64>()
            + waiting.map(|waiter| waiter.need.memory).sum::<u64>()
            + starting
    }
}
