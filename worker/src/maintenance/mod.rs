//! Periodic maintenance by a worker, with jitter, in addition to running jobs.
//!
//! Each worker announces itself, learns new classes, and removes the containers of dead workers.
//! The maintenance of the namespace itself is shared by all its workers: one of them, which Redis
//! selects, does a round in each period. A round promotes delayed jobs, takes back the leases of
//! silent workers and finds unroutable work.
//!
//! Each duty has a file; [`MaintenanceLoop`] decides when each is done.

mod announcer;
mod maintenance_loop;
mod measure;
mod namespace_identity;
mod promoter;
mod queue_survey;
mod reaper;
mod reserver;
mod warm_containers;
mod worker_load;

pub(crate) use announcer::Announcer;
pub(crate) use maintenance_loop::MaintenanceLoop;
pub(crate) use namespace_identity::NamespaceIdentity;
pub(crate) use promoter::Promoter;
pub(crate) use queue_survey::QueueSurvey;
pub(crate) use reaper::Reaper;
pub(crate) use reserver::Reserver;
pub(crate) use warm_containers::WarmContainers;
pub(crate) use worker_load::WorkerLoad;
