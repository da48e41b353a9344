//! Tickets: the right to claim one job of a class.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use crate::blocking::BlockingConnection;
use crate::keys::{Keys, WORKER_GROUP};
use crate::resp::RespValue;
use crate::script::{REISSUE, SCRIPT_BATCH};
use crate::{Queue, QueueError, Unblocker, redis_error, stream_entry};
use sandhog_core::class::Class;
use sandhog_core::id::{Token, WorkerId};

/// The right to claim one job. Pass it to [`Queue::bind`] or to [`Queue::return_tickets`].
#[must_use = "a ticket that is neither bound nor returned delays a job by a whole lease"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Class of the job.
    pub class: Class,
    /// Stream id of the ticket, which becomes the fencing token of the lease.
    pub token: Token,
}

impl Queue {
    /// Opens a reader of tickets in `worker`'s name, with a connection of its own.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn ticket_reader(&self, worker: &WorkerId) -> Result<TicketReader, QueueError> {
        Ok(TicketReader {
            blocking: BlockingConnection::open(&self.connection).await?,
            queue: self.clone(),
            keys: Arc::clone(&self.keys),
            worker: worker.clone(),
            rotation: 0,
            tails: Vec::new(),
        })
    }

    /// Puts tickets back that will not be bound, so that another worker can take them.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; maintenance puts the tickets back after a lease.
    pub async fn return_tickets(
        &self,
        tickets: &[Ticket],
        worker: &WorkerId,
    ) -> Result<(), QueueError> {
        for chunk in tickets.chunks(SCRIPT_BATCH) {
            let mut call = REISSUE.call(self.keys.prefix()).arg(worker.as_str());
            for ticket in chunk {
                call.push(ticket.class.as_str());
                call.push(ticket.token.as_str());
            }
            call.run(&self.connection).await?;
        }
        Ok(())
    }
}

/// Reads tickets.
#[derive(Debug)]
pub struct TicketReader {
    blocking: BlockingConnection,
    queue: Queue,
    keys: Arc<Keys>,
    worker: WorkerId,
    /// Number of calls so far, which selects the class that the next call begins with.
    rotation: usize,
    /// Last ticket of each class at the time of [`TicketReader::remember_tail`], by stream.
    tails: Vec<(String, String)>,
}

impl TicketReader {
    /// Returns one ticket of any of `classes`; see [`TicketReader::read`].
    ///
    /// # Cancel safety
    /// As [`TicketReader::read`].
    ///
    /// # Errors
    /// As [`TicketReader::read`].
    pub async fn next(
        &mut self,
        classes: &[Class],
        block: Duration,
    ) -> Result<Option<Ticket>, QueueError> {
        Ok(self.read(classes, 1, block).await?.pop())
    }

    /// Returns at most `limit` tickets of any of `classes`. Waits at most `block` for the first.
    /// The caller asks for no more tickets than it has free slots. Each call starts with another
    /// class, so that no class starves.
    ///
    /// # Cancel safety
    /// Not safe: tickets read by a dropped call are lost for the length of a lease. End the call
    /// with the unblocker.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn read(
        &mut self,
        classes: &[Class],
        limit: usize,
        block: Duration,
    ) -> Result<Vec<Ticket>, QueueError> {
        let _call = self.blocking.enter();
        // A call that does not wait leaves a request to end a wait to the next call that does.
        let waits = !block.is_zero();
        if limit == 0 || (waits && self.blocking.is_unblocked()) {
            return Ok(Vec::new());
        }
        if classes.is_empty() {
            if waits {
                self.blocking.idle(block).await;
                self.blocking.is_unblocked();
            }
            return Ok(Vec::new());
        }
        let mut order: Vec<&Class> = classes.iter().collect();
        order.rotate_left(self.rotation % classes.len());
        self.rotation = self.rotation.wrapping_add(1);
        // COUNT applies to each stream, so one read of several streams that all have tickets would
        // return too many. Therefore each class is read by itself first. Only if none has a ticket
        // does one read wait for all of them; the first ticket ends it.
        let mut found = Vec::new();
        if order.len() > 1 {
            for class in &order {
                let wanted = limit - found.len();
                if wanted == 0 {
                    break;
                }
                match self.read_group(&[class], wanted, Duration::ZERO).await {
                    Ok(mut more) => found.append(&mut more),
                    Err(error) if found.is_empty() => return Err(error),
                    // The tickets read so far are returned first. If the error persists, the next
                    // call returns it.
                    Err(_later) => break,
                }
            }
        }
        if found.is_empty() {
            found = self.read_group(&order, limit, block).await?;
            if found.is_empty() && waits {
                // The wait has ended, so a pending request to end it is satisfied.
                self.blocking.is_unblocked();
            }
        }
        Ok(found)
    }

    /// Returns at most `limit` tickets of one class, without waiting.
    ///
    /// # Cancel safety
    /// As [`TicketReader::read`].
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn try_read(
        &mut self,
        class: &Class,
        limit: usize,
    ) -> Result<Vec<Ticket>, QueueError> {
        let _call = self.blocking.enter();
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.read_group(&[class], limit, Duration::ZERO).await
    }

    /// Returns one ticket of any of `classes`, waiting at most `block` for it. Intended for a
    /// caller that has tried [`TicketReader::try_read`] before.
    ///
    /// # Cancel safety
    /// As [`TicketReader::read`].
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn read_one(
        &mut self,
        classes: &[Class],
        block: Duration,
    ) -> Result<Option<Ticket>, QueueError> {
        let _call = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(None);
        }
        let order: Vec<&Class> = classes.iter().collect();
        let found = self.read_group(&order, 1, block).await?.pop();
        if found.is_none() {
            // The wait has ended, so a pending request to end it is satisfied.
            self.blocking.is_unblocked();
        }
        Ok(found)
    }

    /// Records the last ticket of each class. [`TicketReader::wait_past_tail`] waits for later
    /// ones.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn remember_tail(&mut self, classes: &[Class]) -> Result<(), QueueError> {
        self.tails.clear();
        for class in classes {
            let stream = self.keys.tickets(class);
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&stream).arg(&["+", "-", "COUNT", "1"]);
            let answer = self.blocking.ask("XREVRANGE", &command).await?;
            let last = stream_entry::entries(RespValue::new("XREVRANGE", answer))?.pop();
            self.tails.push((
                stream,
                last.map_or_else(|| "0".to_owned(), |entry| entry.id),
            ));
        }
        Ok(())
    }

    /// Waits up to `block` for a ticket newer than those recorded by
    /// [`TicketReader::remember_tail`], without taking it. Calling `remember_tail`, then reading,
    /// then calling `wait_past_tail` misses no ticket. Intended for a worker that serves several
    /// namespaces and must not block a slot in one of them.
    ///
    /// # Cancel safety
    /// Safe: it takes no ticket.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn wait_past_tail(&mut self, block: Duration) -> Result<(), QueueError> {
        let _call = self.blocking.enter();
        if self.blocking.is_unblocked() {
            return Ok(());
        }
        if self.tails.is_empty() {
            self.blocking.idle(block).await;
        } else {
            let (streams, after): (Vec<&String>, Vec<&String>) =
                self.tails.iter().map(|(stream, id)| (stream, id)).unzip();
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(1);
            if let Some(block) = stream_entry::block(block) {
                command.arg("BLOCK").arg(block);
            }
            command.arg("STREAMS").arg(&streams).arg(&after);
            self.blocking.wait("XREAD", &command, block).await?;
        }
        // The wait has ended, so a pending request to end it is satisfied.
        self.blocking.is_unblocked();
        Ok(())
    }

    /// Returns a handle that ends a read from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }

    async fn read_group(
        &mut self,
        classes: &[&Class],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Ticket>, QueueError> {
        let keys: Vec<String> = classes
            .iter()
            .map(|class| self.keys.tickets(class))
            .collect();
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(WORKER_GROUP)
            .arg(self.worker.as_str())
            .arg("COUNT")
            .arg(limit);
        if let Some(block) = stream_entry::block(wait) {
            command.arg("BLOCK").arg(block);
        }
        command.arg("STREAMS").arg(&keys).arg(vec![">"; keys.len()]);
        let answer = loop {
            match self.blocking.wait("XREADGROUP", &command, wait).await {
                Err(QueueError::Command { source, .. })
                    if redis_error::is_missing_group(&source) =>
                {
                    for key in &keys {
                        create_group(&mut self.blocking, key, WORKER_GROUP).await?;
                    }
                }
                other => break other?,
            }
        };
        let mut tickets = Vec::new();
        for (key, entries) in stream_entry::by_stream(RespValue::new("XREADGROUP", answer))? {
            let class = keys
                .iter()
                .position(|own| *own == key)
                .and_then(|at| classes.get(at));
            let Some(class) = class else { continue };
            for entry in entries {
                tickets.push(Ticket {
                    class: (*class).clone(),
                    token: Token::from(entry.id),
                });
            }
        }
        // One read of several streams may return more tickets than were asked for: each class could
        // have got some since it was read alone. The surplus is put back.
        let surplus = tickets.split_off(tickets.len().min(limit));
        if !surplus.is_empty() {
            self.queue.return_tickets(&surplus, &self.worker).await?;
        }
        Ok(tickets)
    }
}

/// Creates a consumer group that begins with the first entry, and its stream if it does not exist.
pub(crate) async fn create_group(
    blocking: &mut BlockingConnection,
    stream: &str,
    group: &str,
) -> Result<Value, QueueError> {
    let mut command = redis::cmd("XGROUP");
    command
        .arg("CREATE")
        .arg(stream)
        .arg(group)
        .arg("0")
        .arg("MKSTREAM");
    match blocking.ask("XGROUP CREATE", &command).await {
        // Another client created it first.
        Err(QueueError::Command { source, .. }) if redis_error::is_existing_group(&source) => {
            Ok(Value::Okay)
        }
        other => other,
    }
}
