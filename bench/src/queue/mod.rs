//! Cost of the queue with jobs that do nothing: jobs a second and CPU of Redis compared with other
//! queues, claims at depth, memory, and the time until a job starts.
//!
//! All contenders use one private Redis, one at a time, with the same number of jobs at once. A
//! turn ends when the last result is stored. The CPU of Redis is that of the whole server process,
//! including everything that the contender does to it.

mod contender;
mod depth;
mod foreign_queue;
mod leftover;
mod options;
mod queue_client;
mod redis_cost;
mod run;
mod sandhog_contender;
mod start;

pub(crate) use contender::WAIT_TIMEOUT;
pub(crate) use options::QueueOptions;
pub(crate) use queue_client::QueueClient;
pub(crate) use redis_cost::RedisCost;
pub(crate) use run::run;
