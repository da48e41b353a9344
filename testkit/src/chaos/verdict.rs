//! Counts the results of a chaos run from everything that Redis holds and that the workers logged.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::Value;
use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_queue::keys::Keys;

use super::retrying_connection::RetryingConnection;
use super::submit::{self, CAPPED, REPLIES};
use super::wait::PIPELINE_KEYS;
use crate::namespace::decode;

/// Keys of finished jobs that may remain if they have a time to live.
const EXPIRING_KEYS: [&str; 11] = [
    "result:",
    "job:",
    "reply:",
    "log:",
    "worker:",
    "cancelled:",
    "claimed:",
    "debt:",
    "letters:",
    "refused:",
    "upkeep:",
];

/// Keys that a namespace always has. Each is bounded in size.
const PERMANENT_KEYS: [&str; 12] = [
    "events", "stats", "classes", "control", "dead", "workers", "tenants", "identity", "upkeep",
    "bringers", "brought", "crew",
];

/// Streams that remain and must be empty.
const EMPTY_STREAMS: [&str; 2] = ["jobs", "tickets:"];

/// Faults of a chaos run and the state of the queue after it.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Jobs submitted, each counted once.
    pub jobs: usize,
    /// Wall-clock time of the whole run.
    pub seconds: f64,
    /// Number of workers killed.
    pub worker_kills: usize,
    /// Number of workers that the plan kills.
    pub worker_kills_planned: usize,
    /// Number of times that Redis was killed.
    pub redis_kills: usize,
    /// Number of times that the plan kills Redis.
    pub redis_kills_planned: usize,
    /// True if programs ran in sandboxes.
    pub has_sandboxes: bool,
    /// Number of containers killed.
    pub container_kills: usize,
    /// Number of runners of keepers killed.
    pub runner_kills: usize,
    /// Ids of containers that no worker has removed.
    pub containers_left: Vec<String>,
    /// Number of times that a worker was frozen past its lease.
    pub freezes: usize,
    /// Number of jobs that the frozen workers held.
    pub frozen_jobs: usize,
    /// Number of jobs submitted a second time.
    pub duplicate_submissions: usize,
    /// Number of submissions that the queue recognised as duplicates, as counted in Redis.
    pub duplicates_known: u64,
    /// Number of jobs that the producer cancelled.
    pub cancels: usize,
    /// Number of jobs that were sent together with their cancel, were never started, and did not
    /// end as cancelled.
    pub cancels_missed: usize,
    /// Number of jobs by outcome, as counted in Redis.
    pub outcomes: BTreeMap<String, u64>,
    /// Number of jobs with no result.
    pub lost: usize,
    /// Number of publications beyond the first of a job: in its result, in its reply stream or in
    /// the events.
    pub duplicates: usize,
    /// Number of times that a tenant's job was started although the tenant already ran as many jobs
    /// as its limit allows.
    pub cap_violations: usize,
    /// Highest number of jobs of one capped tenant that ran at once.
    pub most_at_once: usize,
    /// Number of results of jobs that were never submitted.
    pub unknown_results: usize,
    /// Number of attempts lost with their worker, as counted in Redis.
    pub lost_attempts: u64,
    /// Number of stale writes, as counted in Redis when it rejected them.
    pub stale_counted: u64,
    /// Number of stale writes that the workers logged. The writes of a worker that died before the
    /// reply are missing.
    pub stale_logged: u64,
    /// Names of keys that should not have remained.
    pub left_behind: Vec<String>,
}

impl Verdict {
    /// Returns whether the queue kept its promises, the planned faults took place, and at least one
    /// frozen worker tried to publish.
    #[must_use]
    pub fn met(&self) -> bool {
        self.kept() && self.stormed() && self.stale_counted > 0
    }

    /// Returns whether the planned faults took place. In a short run it is possible that no frozen
    /// worker had the chance to publish.
    #[must_use]
    pub fn stormed(&self) -> bool {
        let cancelled = self.outcomes.get("cancelled").copied().unwrap_or(0);
        self.worker_kills == self.worker_kills_planned
            && self.redis_kills == self.redis_kills_planned
            && (self.container_kills > 0 || !self.has_sandboxes)
            && self.frozen_jobs * 100 >= self.jobs
            && self.duplicate_submissions * 20 >= self.jobs
            && self.duplicates_known >= self.duplicate_submissions as u64
            && cancelled > 0
    }

    /// Returns whether the queue kept its promises.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.lost == 0
            && self.duplicates == 0
            && self.unknown_results == 0
            && self.cap_violations == 0
            && self.cancels_missed == 0
            && self.left_behind.is_empty()
            && self.containers_left.is_empty()
            && self.outcomes.values().sum::<u64>() == self.jobs as u64
            && !self.outcomes.contains_key("lost")
            && self.stale_counted >= self.stale_logged
    }
}

pub(super) fn count(
    connection: &mut RetryingConnection,
    keys: &Keys,
    ids: &[JobId],
    logs: &[String],
) -> Verdict {
    let mut verdict = Verdict {
        jobs: ids.len(),
        stale_logged: logs
            .iter()
            .flat_map(|log| log.lines())
            .filter(|line| line.contains("settlement fenced off"))
            .count() as u64,
        cancels_missed: cancels_missed(connection, keys, ids),
        left_behind: left_behind(connection, keys),
        ..Verdict::default()
    };

    let mut replies: HashMap<String, usize> = HashMap::new();
    for n in 0..REPLIES {
        let stream = format!("{}reply:replies-{n}", keys.prefix());
        for fields in entries(connection, &stream) {
            let id = fields.iter().find(|(name, _)| name == "id");
            let (_, id) = id.expect("an entry of a reply stream names its job");
            *replies.entry(id.clone()).or_default() += 1;
        }
    }
    let mut ends: HashMap<String, usize> = HashMap::new();
    let mut running: HashMap<&str, HashSet<String>> = HashMap::new();
    for fields in entries(connection, &keys.events()) {
        for (event, told) in fields {
            let words: Vec<&str> = told.split(' ').collect();
            let word = |name: &str| {
                let pair = words.chunks_exact(2).find(|pair| pair[0] == name);
                pair.map(|pair| pair[1]).unwrap_or_default()
            };
            if matches!(event.as_str(), "finished" | "dead") {
                *ends.entry(word("id").to_owned()).or_default() += 1;
            }
            let tenant = word("tenant");
            let Some((name, most)) = CAPPED.into_iter().find(|(name, _)| *name == tenant) else {
                continue;
            };
            let running = running.entry(name).or_default();
            match event.as_str() {
                "started" => {
                    running.insert(word("id").to_owned());
                    verdict.most_at_once = verdict.most_at_once.max(running.len());
                    verdict.cap_violations += usize::from(running.len() > most);
                }
                "finished" | "dead" | "lost" | "retried" | "given_back" => {
                    running.remove(word("id"));
                }
                _of_no_lease => {}
            }
        }
    }
    for some in ids.chunks(PIPELINE_KEYS) {
        let mut pipeline = redis::pipe();
        for id in some {
            pipeline.cmd("LLEN").arg(keys.result(id));
        }
        let lengths: Vec<usize> = connection.ask_all(&pipeline);
        for (id, results) in some.iter().zip(lengths) {
            let said = [
                results,
                replies.remove(id.as_str()).unwrap_or(0),
                ends.remove(id.as_str()).unwrap_or(0),
            ];
            if said.contains(&0) {
                verdict.lost += 1;
            }
            verdict.duplicates += said.into_iter().max().unwrap_or(0).saturating_sub(1);
        }
    }
    verdict.unknown_results = replies.len() + ends.len();

    let stats: HashMap<String, u64> = connection.ask(&["HGETALL", &keys.stats()]);
    for (name, count) in stats {
        if let Some(outcome) = name.strip_prefix("finished_") {
            verdict.outcomes.insert(outcome.to_owned(), count);
        } else if name == "stale" {
            verdict.stale_counted = count;
        } else if name == "lost" {
            verdict.lost_attempts = count;
        } else if name == "duplicates" {
            verdict.duplicates_known = count;
        }
    }
    verdict
}

/// Counts the jobs that were sent together with their cancel, ended with another outcome, and were
/// never started by a worker. A job that was started before its cancel was read may have any
/// outcome.
fn cancels_missed(connection: &mut RetryingConnection, keys: &Keys, ids: &[JobId]) -> usize {
    let cancelled = ids
        .iter()
        .enumerate()
        .filter(|(n, _)| submit::is_cancelled_at_once(*n));
    cancelled
        .filter(|(_, id)| {
            let result: Option<Vec<u8>> = connection.ask(&["LINDEX", &keys.result(id), "0"]);
            let result = result.map(|bytes| decode(&bytes));
            result
                .is_some_and(|result| result.attempts == 0 && result.outcome != Outcome::Cancelled)
        })
        .count()
}

/// An entry's fields, in order.
type Fields = Vec<(String, String)>;

/// Reads every entry of a stream from its beginning, page by page.
fn entries(connection: &mut RetryingConnection, stream: &str) -> Vec<Fields> {
    type Page = Vec<(String, Fields)>;
    let mut all = Vec::new();
    let mut from = "-".to_owned();
    loop {
        let page: Page = connection.ask(&["XRANGE", stream, &from, "+", "COUNT", "5000"]);
        let Some((last, _)) = page.last() else {
            return all;
        };
        from = format!("({last}");
        all.extend(page.into_iter().map(|(_, fields)| fields));
    }
}

/// Returns every key that may not remain.
fn left_behind(connection: &mut RetryingConnection, keys: &Keys) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let (next, page): (String, Vec<String>) =
            connection.ask(&["SCAN", &cursor, "COUNT", "1000"]);
        found.extend(page);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    found.retain(|key| !may_stay(connection, keys, key));
    found.sort();
    found.dedup();
    found
}

fn may_stay(connection: &mut RetryingConnection, keys: &Keys, key: &str) -> bool {
    let Some(name) = key.strip_prefix(keys.prefix()) else {
        return false;
    };
    let capped = name.strip_prefix("tenant:");
    if PERMANENT_KEYS.contains(&name) || CAPPED.iter().any(|(tenant, _)| capped == Some(tenant)) {
        return true;
    }
    if EXPIRING_KEYS.iter().any(|kind| name.starts_with(kind)) {
        // -2: the key has gone in the meantime.
        let ttl: i64 = connection.ask(&["PTTL", key]);
        return ttl != -1;
    }
    if EMPTY_STREAMS.iter().any(|kind| name.starts_with(kind)) {
        let length: Value = connection.ask(&["XLEN", key]);
        return length == Value::Int(0);
    }
    false
}
