//! Binding: a ticket is exchanged for the best ready job, and the worker gets a lease on it.

use std::collections::BTreeMap;

use crate::lease::{Binding, read_binding};
use crate::resp::RespValue;
use crate::script::{BIND, SCRIPT_BATCH};
use crate::{Queue, QueueError, Ticket};
use sandhog_core::class::Class;
use sandhog_core::id::WorkerId;

impl Queue {
    /// Binds one ticket; see [`Queue::bind_all`].
    ///
    /// # Errors
    /// As [`Queue::bind_all`].
    pub async fn bind(&self, ticket: &Ticket, worker: &WorkerId) -> Result<Binding, QueueError> {
        let mut bindings = self.bind_all(std::slice::from_ref(ticket), worker).await?;
        Ok(bindings.pop().unwrap_or(Binding::Nothing))
    }

    /// Binds each ticket to the best ready job of its class. Returns one answer for each ticket, in
    /// order. Jobs whose time to live has passed are expired on the way. Repeating the call returns
    /// the same jobs.
    ///
    /// # Cancel safety
    /// Not safe: maintenance takes back, after a lease, the jobs that a dropped call bound.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; maintenance takes back, after a lease, the jobs that
    /// were bound, if any.
    pub async fn bind_all(
        &self,
        tickets: &[Ticket],
        worker: &WorkerId,
    ) -> Result<Vec<Binding>, QueueError> {
        let mut bindings = vec![Binding::Nothing; tickets.len()];
        let mut by_class: BTreeMap<&Class, Vec<usize>> = BTreeMap::new();
        for (at, ticket) in tickets.iter().enumerate() {
            by_class.entry(&ticket.class).or_default().push(at);
        }
        for (class, places) in by_class {
            for mut places in places.chunks(SCRIPT_BATCH).map(<[usize]>::to_vec) {
                while !places.is_empty() {
                    let mut call = BIND
                        .call(self.keys.prefix())
                        .arg(worker.as_str())
                        .arg(class.as_str());
                    for ticket in places.iter().filter_map(|&at| tickets.get(at)) {
                        call.push(ticket.token.as_str());
                    }
                    let mut answers =
                        RespValue::new("bind", call.run(&self.connection).await?).parts()?;
                    let mut again = Vec::new();
                    for at in places {
                        let (Some(ticket), Some(binding)) = (tickets.get(at), bindings.get_mut(at))
                        else {
                            continue;
                        };
                        match read_binding(answers.part()?, ticket, worker)? {
                            Some(found) => *binding = found,
                            None => again.push(at),
                        }
                    }
                    places = again;
                }
            }
        }
        Ok(bindings)
    }
}
