//! The queue: the one owner of Redis.
//!
//! A job passes through these steps, one module for each. A producer writes it to the public intake
//! stream ([`submit`](Queue::submit)). An admitter reads the stream ([`IntakeReader`]) and turns
//! each entry into a job record, a member of its tenant's ready set and a ticket
//! ([`Queue::admit`]). A worker takes a ticket ([`TicketReader`]) and binds it, late, to the best
//! ready job ([`Queue::bind`]). The worker renews its leases ([`Queue::beat`]) and settles each of
//! them once ([`Queue::finish`]). Maintenance ([`Queue::tick`]) promotes delayed jobs and takes
//! back the jobs of dead workers.
//!
//! Dead letters can be listed, queued again or dropped ([`Queue::dead_letters`],
//! [`Queue::requeue`], [`Queue::drop_dead`]).
//!
//! Cron schedules submit jobs ([`Queue::put_schedule`], [`Queue::fire_schedule`]).
//!
//! Every change of state is one Lua script: it is atomic, and it uses the clock of Redis. Every
//! reader that blocks has a connection of its own. No Redis type leaves this module except as the
//! source of a [`QueueError`].
//!
//! The queue does not interpret jobs: its callers decide what a payload means, whether a job gets
//! another attempt and what its result contains.

mod admit;
mod beat;
mod bind;
mod blocking;
mod control;
mod dead;
mod duty;
mod error;
mod events;
mod fault;
mod finish;
mod intake;
mod lease;
mod link;
mod log;
mod members;
mod models;
mod record;
mod replies;
mod reply;
mod requeue;
mod reserve;
mod results;
mod route;
mod running;
mod schedules;
mod script;
mod server;
mod sight;
mod snapshot;
mod spec;
mod streams;
mod submit;
mod tenants;
mod tick;
mod ticket;
mod tls;
mod unroutable;
mod workers;

use std::sync::Arc;

pub use admit::{Admission, AdmitReply};
pub use beat::BeatReply;
pub use blocking::Unblocker;
pub use control::{ControlEvent, ControlReader};
pub use dead::{DeadFilter, DeadLetter, DeadPage, LetterId};
pub use duty::{UpkeepDuty, UpkeepRequest};
pub use error::QueueError;
pub use events::Event;
pub use finish::{Claiming, Ending, FinishReply, RetryBudget, Settlement};
pub use intake::{EntryId, IntakeEntry, IntakeReader};
pub use lease::{Binding, BoundJob, Lease};
pub use log::{LogEntry, LogPosition, LogReader, LogStream, Said};
pub use models::{ModelFacts, ModelState};
pub use record::{JobRecord, JobState};
pub use replies::{JobReply, ReplyBatch, ReplyReader};
pub use requeue::{DropReply, RequeueReply, Swept};
pub use results::ResultWaiter;
pub use running::RunningJob;
pub use schedules::{
    ChangeReply, DueSchedule, DueSchedules, FireReply, Firing, PutReply, ScheduleRecord,
    ScheduleState,
};
pub use server::{ARGUMENT_MOST, ServerFacts};
pub use sight::{IntakeMark, Sight};
pub use snapshot::{ClassDepth, Snapshot};
pub use submit::CancelReply;
pub use tenants::TenantRecord;
pub use tick::TickReport;
pub use ticket::{Ticket, TicketReader};
pub use unroutable::{Lack, Unroutable};
pub use workers::{MachineFacts, PoolFacts, WorkerFacts, WorkerRecord};

use crate::config::RedisSettings;
use crate::id::Namespace;
use crate::keys::Keys;

/// One namespace of one Redis. Cheap to clone; clones share one connection for all commands that do
/// not block.
///
/// After a broken connection the next command reconnects. A command that is safe to repeat is
/// retried until `redis.response_timeout_ms` has passed.
#[derive(Debug, Clone)]
pub struct Queue {
    link: link::Link,
    keys: Arc<Keys>,
}

impl Queue {
    /// Connects to the queue of `namespace`.
    ///
    /// # Errors
    /// Fails when no address is set, when the address cannot be parsed, and when Redis cannot be
    /// reached within `redis.connect_timeout_ms`.
    pub async fn connect(
        settings: &RedisSettings,
        namespace: &Namespace,
    ) -> Result<Self, QueueError> {
        let keys = Keys::new(namespace);
        Ok(Self {
            link: link::Link::connect(settings, &keys.identity()).await?,
            keys: Arc::new(keys),
        })
    }

    /// The keys of this namespace.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}
