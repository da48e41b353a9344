//! Cost of a claim at different queue depths, and memory of a queued job.

use std::time::{Duration, Instant};

use anyhow::Context;
use sandhog_core::class::Class;
use sandhog_core::id::WorkerId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Intake;
use sandhog_core::units::ByteCount;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{Admission, Binding, IntakeReader, Lease, Settlement, TicketReader};
use sandhog_testkit::private_redis::PrivateRedis;
use serde_json::{Map, Value, json};

use super::options::QueueOptions;
use super::queue_client::QueueClient;
use super::redis_cost::RedisCost;
use crate::report::{self, Aim, Bound, Samples};

/// Maximum number of claims that are measured at each depth in one pass.
const CLAIMS: usize = 1_000;

/// Claims at each depth before the first that count, because a server and a connection are slower
/// at first.
const DISCARDED: usize = 1_000;

/// Passes over all depths. The depths take turns, because the machine's speed drifts, and the
/// median of each counts.
const PASSES: usize = 5;

/// Number of jobs in one call while filling the queue.
const FILL_BATCH: usize = 10_000;

/// Redis commands of one claim.
const CLAIM_COMMANDS: [&str; 3] = ["xreadgroup", "evalsha", "eval"];

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(super) fn measure_depth(
    options: &QueueOptions,
    figures: &mut Map<String, Value>,
    aims: &mut Vec<Aim>,
) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let mut depths = Vec::new();
    for &jobs in &options.depths {
        depths.push(Depth::filled(&redis, &mut cost, jobs)?);
    }
    for depth in &mut depths {
        while depth.claimed < DISCARDED.min(10 * depth.jobs) {
            depth.pass(&mut cost)?;
        }
        depth.begin();
    }
    for pass in 1..=PASSES {
        for depth in &mut depths {
            depth.pass(&mut cost)?;
        }
        report::progress(pass as u64, PASSES as u64, "passes over all depths:");
    }

    println!(
        "\n{:<24} {:>18} {:>10} {:>10} {:>16}",
        "queued", "Redis µs/claim", "p50 ms", "p99 ms", "bytes/queued job"
    );
    let mut per_claim = Vec::new();
    for depth in &depths {
        let spent = depth.median_us();
        let (jobs, samples, bytes) = (depth.jobs, &depth.samples, depth.bytes);
        println!(
            "{jobs:<24} {spent:>18.1} {:>10.3} {:>10.3} {bytes:>16.0}",
            samples.median_ms(),
            samples.quantile_ms(0.99)
        );
        let passes: Vec<f64> = depth.us.iter().copied().map(report::rounded).collect();
        figures.insert(
            format!("claim_at_{jobs}"),
            json!({
                "redis_us": report::rounded(spent),
                "redis_us_by_pass": passes,
                "p50_ms": report::rounded(samples.median_ms()),
                "p99_ms": report::rounded(samples.quantile_ms(0.99)),
                "bytes_per_queued_job": report::rounded(bytes),
            }),
        );
        per_claim.push(spent);
    }
    let least = per_claim.iter().copied().fold(f64::INFINITY, f64::min);
    let most = per_claim.iter().copied().fold(0.0, f64::max);
    aims.push(Aim {
        what: "claim_cost_spread",
        figure: most / least,
        bound: Bound::AtMost(1.2),
    });
    Ok(())
}

/// A queue of one depth, in a separate namespace.
struct Depth {
    jobs: usize,
    claimer: Claimer,
    /// Memory of a queued job in Redis.
    bytes: f64,
    /// Claims since the queue was filled.
    claimed: usize,
    samples: Samples,
    /// Cost of a claim in Redis in microseconds, by pass.
    us: Vec<f64>,
}

impl Depth {
    fn filled(redis: &PrivateRedis, cost: &mut RedisCost, jobs: usize) -> anyhow::Result<Self> {
        let mut claimer = Claimer::of(&redis.url(), &format!("depth-{jobs}"))?;
        claimer.fill(10)?;
        claimer.claims(10)?;
        let empty = cost.memory()?;
        claimer.fill(jobs)?;
        Ok(Self {
            jobs,
            claimer,
            bytes: (cost.memory()? - empty) / report::count(jobs),
            claimed: 0,
            samples: Samples::of("claim"),
            us: Vec::new(),
        })
    }

    /// Discards the measurements so far.
    fn begin(&mut self) {
        self.samples = Samples::of("claim");
        self.us.clear();
    }

    /// Measures some claims, and then submits as many jobs again.
    fn pass(&mut self, cost: &mut RedisCost) -> anyhow::Result<()> {
        let claims = CLAIMS.min(self.jobs / 2);
        let before = cost.commands(&CLAIM_COMMANDS)?;
        let (samples, leases) = self.claimer.claims(claims)?;
        let spent = cost.commands(&CLAIM_COMMANDS)? - before;
        self.us.push(spent / report::count(claims));
        self.samples.append(samples);
        self.claimed += claims;
        self.claimer.settle(leases)?;
        self.claimer.fill(claims)
    }

    fn median_us(&self) -> f64 {
        let mut us = self.us.clone();
        us.sort_by(f64::total_cmp);
        us.get(us.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Admits, claims and settles by hand, to time one step alone.
struct Claimer {
    client: QueueClient,
    worker: WorkerId,
    intake: IntakeReader,
    tickets: TicketReader,
}

impl Claimer {
    fn of(url: &str, namespace: &str) -> anyhow::Result<Self> {
        let client = QueueClient::of(url, namespace)?;
        let worker: WorkerId = "claimer".parse()?;
        let intake = client.wait(client.queue.intake_reader(&worker))?;
        let tickets = client.wait(client.queue.ticket_reader(&worker))?;
        Ok(Self {
            client,
            worker,
            intake,
            tickets,
        })
    }

    /// Submits and admits `count` more jobs.
    fn fill(&mut self, count: usize) -> anyhow::Result<()> {
        let keep = Duration::from_secs(3600);
        let mut left = count;
        while left > 0 {
            let some = left.min(FILL_BATCH);
            self.client.submit(some, &Value::Null, keep)?;
            let mut admitted = 0;
            while admitted < some {
                let read = self.intake.next(64, Duration::from_secs(1));
                let entries = self.client.wait(read)?;
                let admissions: Vec<Admission> = entries
                    .into_iter()
                    .map(
                        |entry| match Intake::parse(&entry.fields, ByteCount::mib(1)) {
                            Ok(Intake::Submit(submission)) => Ok(Admission::Accept {
                                entry: entry.id,
                                submission,
                            }),
                            other => anyhow::bail!("only jobs were submitted, not {other:?}"),
                        },
                    )
                    .collect::<anyhow::Result<_>>()?;
                admitted += self
                    .client
                    .wait(self.client.queue.admit(&admissions))?
                    .len();
            }
            left -= some;
        }
        Ok(())
    }

    /// Measures `count` claims, each from the request for a ticket to the lease.
    fn claims(&mut self, count: usize) -> anyhow::Result<(Samples, Vec<Lease>)> {
        let classes = [Class::default()];
        let mut samples = Samples::of("claim");
        let mut leases = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let read = self.tickets.next(&classes, Duration::from_secs(1));
            let ticket = self.client.wait(read)?.context("a ticket for every job")?;
            match self
                .client
                .wait(self.client.queue.bind(&ticket, &self.worker))?
            {
                Binding::Bound(bound) => leases.push(bound.lease),
                Binding::Nothing => anyhow::bail!("a ticket was worth nothing"),
            }
            samples.add(began.elapsed());
        }
        Ok((samples, leases))
    }

    fn settle(&self, leases: Vec<Lease>) -> anyhow::Result<()> {
        for lease in leases {
            let outcome = Outcome::Succeeded;
            let result = JobResult::bare(lease.id.clone(), outcome);
            let settlement = Settlement::Publish {
                result: wire::encode(&result, Encoding::Json),
                outcome,
            };
            let _settled = self
                .client
                .wait(self.client.queue.finish(&lease, settlement))?;
        }
        Ok(())
    }
}
