//! Tickets: the right to claim one job of a class.

use std::time::Duration;

use super::{Queue, QueueError, Unblocker};
use crate::id::{Class, Token, WorkerId};

/// The right to claim one job. Hand it to [`Queue::bind`], or to [`Queue::return_ticket`].
#[must_use = "a ticket that is neither bound nor returned delays a job by a whole lease"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The class of jobs it is for.
    pub class: Class,
    /// Its stream id, which becomes the lease's fencing token.
    pub token: Token,
}

impl Queue {
    /// A reader of tickets in `worker`'s name, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn ticket_reader(&self, worker: &WorkerId) -> Result<TicketReader, QueueError> {
        let _ = worker;
        unimplemented!()
    }

    /// Puts a ticket back that will not be bound, for another worker to take.
    ///
    /// # Errors
    /// When Redis cannot be reached; upkeep puts the ticket back after a lease.
    pub async fn return_ticket(
        &self,
        ticket: &Ticket,
        worker: &WorkerId,
    ) -> Result<(), QueueError> {
        let _ = (ticket, worker);
        unimplemented!()
    }
}

/// Reads tickets.
#[derive(Debug)]
pub struct TicketReader {}

impl TicketReader {
    /// One ticket of any of `classes`, waiting at most `block`. Call it only with a free slot. Each call starts with
    /// another class, so that none starves.
    ///
    /// # Cancel safety
    /// Not safe: a ticket read by a dropped call is lost for a lease. End it with the unblocker.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(
        &mut self,
        classes: &[Class],
        block: Duration,
    ) -> Result<Option<Ticket>, QueueError> {
        let _ = (classes, block);
        unimplemented!()
    }

    /// A handle that ends a read from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        unimplemented!()
    }
}
