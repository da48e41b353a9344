//! Counting what came of it, from everything Redis holds and everything the workers said.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::Value;
use sandhog_common::id::JobId;
use sandhog_common::keys::Keys;
use sandhog_common::outcome::Outcome;

use super::ground::TOGETHER;
use super::patient::Patient;
use super::submit::{self, CAPPED, REPLIES};
use crate::space::decode;

/// What may be left of jobs that are over, if it has a time to live.
const MORTAL: [&str; 11] = [
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

/// What a namespace always has; each is bounded.
const KEPT: [&str; 12] = [
    "events", "stats", "classes", "control", "dead", "workers", "tenants", "identity", "upkeep",
    "bringers", "brought", "crew",
];

/// Streams that stay, and must be empty.
const EMPTY: [&str; 2] = ["jobs", "tickets:"];

/// What happened, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Jobs submitted, each counted once.
    pub jobs: usize,
    /// Wall time of it all.
    pub seconds: f64,
    /// Workers killed.
    pub worker_kills: usize,
    /// Workers that were to be.
    pub worker_kills_planned: usize,
    /// Redis killed.
    pub redis_kills: usize,
    /// How often it was to be.
    pub redis_kills_planned: usize,
    /// Workers frozen past their lease.
    pub freezes: usize,
    /// Jobs that were in their hands.
    pub frozen_jobs: usize,
    /// Jobs submitted a second time.
    pub duplicate_submissions: usize,
    /// Submissions that were known for what they were, as Redis counted them.
    pub duplicates_known: u64,
    /// Jobs asked to be cancelled.
    pub cancels: usize,
    /// Jobs that came with their cancel, were never started, and did not end cancelled.
    pub cancels_missed: usize,
    /// Jobs by outcome, as Redis counted them.
    pub outcomes: BTreeMap<String, u64>,
    /// Jobs with no result.
    pub lost: usize,
    /// Publications beyond the first of a job, in its result, in its reply stream or in the events.
    pub duplicates: usize,
    /// Starts of a tenant's job while as many of its jobs ran as may.
    pub cap_violations: usize,
    /// The most jobs of one capped tenant that ran at once.
    pub most_at_once: usize,
    /// Results of jobs nobody submitted.
    pub strangers: usize,
    /// Attempts lost with their worker, as Redis counted them.
    pub lost_attempts: u64,
    /// Stale writes, as Redis counted them when it refused them.
    pub stale_counted: u64,
    /// Stale writes, as their workers heard it; those whose worker died first are not among them.
    pub stale_heard: u64,
    /// Keys left behind that should not be.
    pub left_behind: Vec<String>,
}

impl Verdict {
    /// Whether the queue kept its promises, and the storm was one, to the point that a frozen worker tried to publish.
    #[must_use]
    pub fn met(&self) -> bool {
        self.kept() && self.stormed() && self.stale_counted > 0
    }

    /// Whether the storm was the one that was planned. In a short one no frozen worker may have had the chance to publish.
    #[must_use]
    pub fn stormed(&self) -> bool {
        let cancelled = self.outcomes.get("cancelled").copied().unwrap_or(0);
        self.worker_kills == self.worker_kills_planned
            && self.redis_kills == self.redis_kills_planned
            && self.frozen_jobs * 100 >= self.jobs
            && self.duplicate_submissions * 20 >= self.jobs
            && self.duplicates_known >= self.duplicate_submissions as u64
            && cancelled > 0
    }

    /// Whether the queue kept its promises.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.lost == 0
            && self.duplicates == 0
            && self.strangers == 0
            && self.cap_violations == 0
            && self.cancels_missed == 0
            && self.left_behind.is_empty()
            && self.outcomes.values().sum::<u64>() == self.jobs as u64
            && !self.outcomes.contains_key("lost")
            && self.stale_counted >= self.stale_heard
    }
}

pub(super) fn count(patient: &mut Patient, keys: &Keys, ids: &[JobId], logs: &[String]) -> Verdict {
    let mut verdict = Verdict {
        jobs: ids.len(),
        stale_heard: logs
            .iter()
            .flat_map(|log| log.lines())
            .filter(|line| line.contains("settlement fenced off"))
            .count() as u64,
        cancels_missed: cancels_missed(patient, keys, ids),
        left_behind: left_behind(patient, keys),
        ..Verdict::default()
    };

    let mut replies: HashMap<String, usize> = HashMap::new();
    for n in 0..REPLIES {
        let stream = format!("{}reply:replies-{n}", keys.prefix());
        for fields in entries(patient, &stream) {
            let id = fields.iter().find(|(name, _)| name == "id");
            let (_, id) = id.expect("an entry of a reply stream names its job");
            *replies.entry(id.clone()).or_default() += 1;
        }
    }
    let mut ends: HashMap<String, usize> = HashMap::new();
    let mut running: HashMap<&str, HashSet<String>> = HashMap::new();
    for fields in entries(patient, &keys.events()) {
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
    for some in ids.chunks(TOGETHER) {
        let mut pipeline = redis::pipe();
        for id in some {
            pipeline.cmd("LLEN").arg(keys.result(id));
        }
        let lengths: Vec<usize> = patient.ask_all(&pipeline);
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
    verdict.strangers = replies.len() + ends.len();

    let stats: HashMap<String, u64> = patient.ask(&["HGETALL", &keys.stats()]);
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

/// How many jobs that came with their cancel ended otherwise, though no worker ever started them. One that was started
/// before the cancel was read may end as it does.
fn cancels_missed(patient: &mut Patient, keys: &Keys, ids: &[JobId]) -> usize {
    let cancelled = ids
        .iter()
        .enumerate()
        .filter(|(n, _)| submit::comes_cancelled(*n));
    cancelled
        .filter(|(_, id)| {
            let result: Option<Vec<u8>> = patient.ask(&["LINDEX", &keys.result(id), "0"]);
            let result = result.map(|bytes| decode(&bytes));
            result
                .is_some_and(|result| result.attempts == 0 && result.outcome != Outcome::Cancelled)
        })
        .count()
}

/// An entry's fields, in order.
type Fields = Vec<(String, String)>;

/// Every entry of a stream, from its beginning, page by page.
fn entries(patient: &mut Patient, stream: &str) -> Vec<Fields> {
    type Page = Vec<(String, Fields)>;
    let mut all = Vec::new();
    let mut from = "-".to_owned();
    loop {
        let page: Page = patient.ask(&["XRANGE", stream, &from, "+", "COUNT", "5000"]);
        let Some((last, _)) = page.last() else {
            return all;
        };
        from = format!("({last}");
        all.extend(page.into_iter().map(|(_, fields)| fields));
    }
}

/// Every key that is none of what may be left.
fn left_behind(patient: &mut Patient, keys: &Keys) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let (next, page): (String, Vec<String>) = patient.ask(&["SCAN", &cursor, "COUNT", "1000"]);
        found.extend(page);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    found.retain(|key| !may_stay(patient, keys, key));
    found.sort();
    found.dedup();
    found
}

fn may_stay(patient: &mut Patient, keys: &Keys, key: &str) -> bool {
    let Some(name) = key.strip_prefix(keys.prefix()) else {
        return false;
    };
    let capped = name.strip_prefix("tenant:");
    if KEPT.contains(&name) || CAPPED.iter().any(|(tenant, _)| capped == Some(tenant)) {
        return true;
    }
    if MORTAL.iter().any(|kind| name.starts_with(kind)) {
        // -2 is a key that is gone by now.
        let ttl: i64 = patient.ask(&["PTTL", key]);
        return ttl != -1;
    }
    if EMPTY.iter().any(|kind| name.starts_with(kind)) {
        let length: Value = patient.ask(&["XLEN", key]);
        return length == Value::Int(0);
    }
    false
}
