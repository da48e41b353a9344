//! The warm pool: running containers kept ready for the next job, within the machine's resources.
//!
//! A container serves only the image build, the caps and the runtime with which it was started and,
//! unless configured otherwise, only one tenant. The number of containers that exist at once is
//! limited: busy, idle, starting and leaving containers all count. Jobs and idle containers share a
//! budget of memory, in which model servers count too; jobs share a budget of CPU. Containers are
//! started and destroyed in the background; a job waits for a start only if no container is ready.
//!
//! The pool destroys a container whose job did not end cleanly, that holds much more memory than
//! before the job, or that ended or sent data while it was idle.

mod budget;
mod checkout_stats;
mod counts;
mod memory_hold;
mod planner;
mod pool;
mod pooled_sandbox;
mod request;
mod room;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use counts::PoolCounts;
pub use memory_hold::MemoryHold;
pub use pool::Pool;
pub use pooled_sandbox::PooledSandbox;
pub use request::SandboxRequest;
pub use rules::Rules;
pub use state::ModelDemand;
pub(crate) use state::UNMEASURED_MEMORY;
