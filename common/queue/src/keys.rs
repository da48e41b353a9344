//! All Redis keys that Sandhog uses, in one place.
//!
//! All keys of a namespace share the hash tag `{namespace}`, so that one script may access any of
//! them and a cluster keeps them on one node. The scripts build the same names from
//! [`Keys::prefix`]; no other code formats a key.

use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Namespace, ReplyName, ScheduleName, UniqueKey, WorkerId};

/// The consumer group that reads the public intake stream.
pub const ADMIT_GROUP: &str = "admit";

/// The consumer group that reads ticket streams.
pub const WORKER_GROUP: &str = "workers";

/// The keys of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Returns the keys of `namespace`.
    #[must_use]
    pub fn new(namespace: &Namespace) -> Self {
        Self {
            prefix: format!("sandhog:{{{namespace}}}:"),
        }
    }

    /// Prefix of every key, including its last colon. Scripts take it as `KEYS[1]`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Stream: the public intake. Any client may `XADD`; entries are deleted when their job is
    /// admitted.
    #[must_use]
    pub fn jobs(&self) -> String {
        self.key("jobs")
    }

    /// Hash: the record of one job, kept while the job is alive and for its retention time
    /// afterwards.
    #[must_use]
    pub fn job(&self, id: &JobId) -> String {
        self.with("job", id.as_str())
    }

    /// Stream: one small entry for each ready job of a class. Its pending list is the lease store.
    #[must_use]
    pub fn tickets(&self, class: &Class) -> String {
        self.with("tickets", class.as_str())
    }

    /// Sorted set: the workers that reserve capacity for jobs of a class. The score is the time in
    /// milliseconds at which the reservation ends.
    #[must_use]
    pub fn reserved(&self, class: &Class) -> String {
        self.with("reserved", class.as_str())
    }

    /// List with one element: a job's result.
    #[must_use]
    pub fn result(&self, id: &JobId) -> String {
        self.with("result", id.as_str())
    }

    /// Stream: a job's output while it runs, created with the first chunk.
    #[must_use]
    pub fn log(&self, id: &JobId) -> String {
        self.with("log", id.as_str())
    }

    /// Stream: the results of all jobs that name this reply stream.
    #[must_use]
    pub fn reply(&self, name: &ReplyName) -> String {
        self.with("reply", name.as_str())
    }

    /// Sorted set: delayed jobs and retries that wait for their backoff. The score is the time at
    /// which the job becomes ready.
    #[must_use]
    pub fn delayed(&self) -> String {
        self.key("delayed")
    }

    /// String: the job that holds a unique key.
    #[must_use]
    pub fn unique(&self, key: &UniqueKey) -> String {
        self.with("unique", key.as_str())
    }

    /// Sorted set: schedules. The score is the time of the next firing, or infinity for a paused
    /// schedule.
    #[must_use]
    pub fn schedules(&self) -> String {
        self.key("schedules")
    }

    /// Hash: one schedule with its job template.
    #[must_use]
    pub fn schedule(&self, name: &ScheduleName) -> String {
        self.with("schedule", name.as_str())
    }

    /// Stream: changes of state, for dashboards and exporters.
    #[must_use]
    pub fn events(&self) -> String {
        self.key("events")
    }

    /// Stream: requests to cancel a job, read by every worker.
    #[must_use]
    pub fn control(&self) -> String {
        self.key("control")
    }

    /// Stream: dead letters with their reason.
    #[must_use]
    pub fn dead(&self) -> String {
        self.key("dead")
    }

    /// Set: every class that has had a job.
    #[must_use]
    pub fn classes(&self) -> String {
        self.key("classes")
    }

    /// Hash: counters of events since the namespace was created, for metrics.
    #[must_use]
    pub fn stats(&self) -> String {
        self.key("stats")
    }

    /// String: a random identity that distinguishes this namespace from one with the same name on
    /// another Redis.
    #[must_use]
    pub fn identity(&self) -> String {
        self.key("identity")
    }

    /// Set: tenants that have settings of their own.
    #[must_use]
    pub fn tenants(&self) -> String {
        self.key("tenants")
    }

    /// Hash: the pause flag of the queue, and the number of withheld tickets of each class.
    #[must_use]
    pub fn gate(&self) -> String {
        self.key("gate")
    }

    /// Sorted set: workers. The score is the time of the last heartbeat.
    #[must_use]
    pub fn workers(&self) -> String {
        self.key("workers")
    }

    /// Hash with a time to live: the facts that one worker reports about itself.
    #[must_use]
    pub fn worker(&self, id: &WorkerId) -> String {
        self.with("worker", id.as_str())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn with(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}:{name}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_published_ones() {
        let keys = Keys::new(&Namespace::default());
        assert_eq!(keys.jobs(), "sandhog:{default}:jobs");
        assert_eq!(
            keys.result(&"1-0".parse().unwrap()),
            "sandhog:{default}:result:1-0"
        );
        assert_eq!(
            keys.tickets(&Class::default()),
            "sandhog:{default}:tickets:cpu"
        );
    }
}
