//! The producer of a chaos run: submits jobs at a steady pace, submits some of them twice, and
//! cancels some.
//!
//! Every job has its own id, so a batch whose reply was lost with Redis is simply sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sandhog_core::id::JobId;
use sandhog_queue::keys::Keys;

use super::plan::ChaosPlan;
use super::retrying_connection::RetryingConnection;

/// Number of reply streams. Each keeps about 10,000 entries, so the jobs are spread over several.
pub(super) const REPLIES: usize = 8;

/// Payload of each job. Workers whose jobs run no program do not look at it.
const JOB: &str =
    r#"{"image":"python","code":"import random, time\ntime.sleep(random.random() * 0.3)"}"#;

/// Tenants with a limit on the jobs that all workers together run at once. Each has a fifth of the
/// jobs.
pub(super) const CAPPED: [(&str, usize); 2] = [("three-at-once", 3), ("six-at-once", 6)];

/// Returns the tenant of the `n`th job.
fn tenant(n: usize) -> &'static str {
    match n % 5 {
        2 => CAPPED[0].0,
        3 => CAPPED[1].0,
        4 => "another",
        _ => "default",
    }
}

/// Sets the tenants' limits, as `sandhog tenant set` does.
pub(super) fn set_caps(connection: &mut RetryingConnection, keys: &Keys) {
    for (name, most) in CAPPED {
        let settings = format!("{}tenant:{name}", keys.prefix());
        let _set: u64 = connection.ask(&["HSET", &settings, "max_running", &most.to_string()]);
        let _listed: u64 = connection.ask(&["SADD", &keys.tenants(), name]);
    }
}

/// Returns the id of the `n`th job.
pub(super) fn id(n: usize) -> JobId {
    format!("job-{n}").parse().expect("a plain name is valid")
}

/// Counts of the entries that were sent in addition to the jobs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) duplicates: usize,
    pub(super) cancels: usize,
}

pub(super) struct Submitter {
    submitted: Arc<AtomicUsize>,
    thread: JoinHandle<Sent>,
}

impl Submitter {
    pub(super) fn start(plan: &ChaosPlan, url: &str, keys: Arc<Keys>) -> Self {
        let submitted = Arc::new(AtomicUsize::new(0));
        let (jobs, span) = (plan.jobs, plan.span);
        let mut connection = RetryingConnection::of(url);
        let told = Arc::clone(&submitted);
        let thread = std::thread::spawn(move || submit(&mut connection, &keys, jobs, span, &told));
        Self { submitted, thread }
    }

    pub(super) fn submitted(&self) -> usize {
        self.submitted.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn finish(self) -> Sent {
        self.thread.join().expect("the producer does not panic")
    }
}

/// An entry to add to the intake.
enum SubmitEntry {
    Job(usize),
    Cancel(usize),
}

fn submit(
    connection: &mut RetryingConnection,
    keys: &Keys,
    jobs: usize,
    span: Duration,
    told: &AtomicUsize,
) -> Sent {
    let began = Instant::now();
    let mut sent = Sent::default();
    let mut later: VecDeque<(usize, SubmitEntry)> = VecDeque::new();
    let mut next = 0;
    while next < jobs || !later.is_empty() {
        let due = due(jobs, began.elapsed(), span);
        let mut batch = Vec::new();
        while next < due {
            batch.push(SubmitEntry::Job(next));
            sent.duplicates += twice(next, &mut batch, &mut later);
            sent.cancels += cancel(next, &mut batch, &mut later);
            next += 1;
        }
        while later
            .front()
            .is_some_and(|(at, _)| *at <= next || next == jobs)
        {
            batch.extend(later.pop_front().map(|(_, entry)| entry));
        }
        if !batch.is_empty() {
            let mut pipeline = redis::pipe();
            batch
                .iter()
                .for_each(|entry| add(&mut pipeline, keys, entry));
            let _entries: Vec<String> = connection.ask_all(&pipeline);
            told.store(next, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    sent
}

/// Returns the number of jobs that should have been submitted by now.
fn due(jobs: usize, elapsed: Duration, span: Duration) -> usize {
    let per_mille = elapsed.as_millis() * 1000 / span.as_millis().max(1);
    let per_mille = usize::try_from(per_mille.min(1000)).expect("at most 1000 fits");
    jobs * per_mille / 1000
}

/// Submits five jobs in a hundred a second time: at once, or when the first submission is running
/// or over.
fn twice(
    n: usize,
    batch: &mut Vec<SubmitEntry>,
    later: &mut VecDeque<(usize, SubmitEntry)>,
) -> usize {
    match n % 100 {
        3 | 43 => batch.push(SubmitEntry::Job(n)),
        23 | 63 | 83 => later.push_back((n + 50, SubmitEntry::Job(n))),
        _ => return 0,
    }
    1
}

/// Returns whether the job's cancel is sent together with the job.
pub(super) fn is_cancelled_at_once(n: usize) -> bool {
    n % 100 == 7
}

/// Cancels three jobs in a hundred: together with the job, soon after it, and when it is most
/// likely over.
fn cancel(
    n: usize,
    batch: &mut Vec<SubmitEntry>,
    later: &mut VecDeque<(usize, SubmitEntry)>,
) -> usize {
    match n % 100 {
        _ if is_cancelled_at_once(n) => batch.push(SubmitEntry::Cancel(n)),
        40 => later.push_back((n + 3, SubmitEntry::Cancel(n))),
        73 => later.push_back((n + 60, SubmitEntry::Cancel(n))),
        _ => return 0,
    }
    1
}

fn add(pipeline: &mut redis::Pipeline, keys: &Keys, entry: &SubmitEntry) {
    let command = pipeline.cmd("XADD").arg(keys.jobs()).arg("*");
    match entry {
        SubmitEntry::Job(n) => command
            .arg(&["job", JOB, "id", id(*n).as_str()])
            .arg(&["tenant", tenant(*n)])
            .arg(&["backoff_ms", "10", "keep_s", "3600", "reply"])
            .arg(format!("replies-{}", n % REPLIES)),
        SubmitEntry::Cancel(n) => command.arg(&["op", "cancel", "id", id(*n).as_str()]),
    };
}
