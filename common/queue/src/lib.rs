//! The queue: the one owner of Redis.
//!
//! A job passes through these steps, one module for each. A producer writes it to the public intake
//! stream ([`submit`](Queue::submit)). An admitter reads the stream ([`IntakeReader`]) and turns
//! each entry into a job record, a member of its tenant's ready set and a ticket
//! ([`Queue::admit`]). A worker takes a ticket ([`TicketReader`]) and binds it, late, to the best
//! ready job ([`Queue::bind`]). The worker renews its leases ([`Queue::heartbeat`]) and settles
//! each of them once ([`Queue::finish`]). Maintenance ([`Queue::maintain`]) promotes delayed jobs
//! and takes back the jobs of dead workers.
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
mod bind;
mod blocking;
mod connection;
mod control;
mod dead;
mod duty;
mod error;
mod events;
mod finish;
mod heartbeat;
mod intake;
mod job_lookup;
pub mod keys;
mod lease;
mod log;
mod maintenance;
mod members;
mod model_facts;
mod queue;
mod record;
mod redis_error;
mod reply_reader;
mod requeue;
mod reserve;
mod resp;
mod results;
mod route;
mod running;
mod schedules;
mod script;
mod server;
mod snapshot;
mod spec;
mod stream_entry;
mod submit;
mod tenants;
mod ticket;
mod tls;
mod unroutable;
mod workers;

pub use admit::{Admission, AdmitReply};
pub use blocking::Unblocker;
pub use control::{ControlEvent, ControlReader};
pub use dead::{DeadFilter, DeadLetter, DeadPage, LetterId};
pub use duty::{MaintenanceDuty, MaintenanceRequest};
pub use error::QueueError;
pub use events::Event;
pub use finish::{ClaimRequest, FinishReply, RetryBudget, Settlement, SettlementRequest};
pub use heartbeat::HeartbeatReply;
pub use intake::{EntryId, IntakeEntry, IntakeReader};
pub use job_lookup::{IntakeTail, JobLookup};
pub use lease::{Binding, BoundJob, Lease};
pub use log::{LogChunk, LogEntry, LogPosition, LogReader, LogStream};
pub use maintenance::MaintenanceReport;
pub use model_facts::{ModelFacts, ModelState};
pub use queue::Queue;
pub use record::{JobRecord, JobState};
pub use reply_reader::{JobReply, ReplyBatch, ReplyReader};
pub use requeue::{DropReply, RequeueReply, SweepReport};
pub use results::ResultWaiter;
pub use running::RunningJob;
pub use schedules::{
    ChangeReply, DueSchedule, DueSchedules, FireReply, Firing, PutReply, ScheduleRecord,
    ScheduleState,
};
pub use server::{ARGUMENT_BYTES_MAX, ServerFacts};
pub use snapshot::{ClassDepth, Snapshot};
pub use submit::CancelReply;
pub use tenants::TenantRecord;
pub use ticket::{Ticket, TicketReader};
pub use unroutable::{Lack, Unroutable};
pub use workers::{MachineFacts, PoolFacts, WorkerFacts, WorkerRecord};
