//! Claims when little and when very much is queued, and what a job costs in memory: queued, and long over.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sandhog_common::id::{Class, WorkerId};
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::{Admission, Binding, IntakeReader, Lease, Settlement, TicketReader};
use sandhog_common::submission::Intake;
use sandhog_common::units::ByteCount;
use sandhog_common::wire::{self, Encoding};
use sandhog_tests::private_redis::PrivateRedis;
use serde_json::{Map, Value, json};

use super::Options;
use super::ours::{self, Desk};
use super::redis_cost::RedisCost;
use crate::report::{self, Aim, Bound, Samples};

/// Claims measured at each depth.
const CLAIMS: usize = 1_000;

/// Jobs submitted in one go while filling.
const TOGETHER: usize = 10_000;

/// What one claim is made of on Redis' side.
const CLAIM_COMMANDS: [&str; 3] = ["xreadgroup", "evalsha", "eval"];

#[expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]
pub(super) fn measure(
    options: &Options,
    figures: &mut Map<String, Value>,
    aims: &mut Vec<Aim>,
) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let mut claimer = Claimer::of(&redis.url())?;
    claimer.fill(10)?;
    claimer.claims(10)?;
    let (empty, mut queued) = (cost.memory()?, 0);

    println!(
        "\n{:<24} {:>18} {:>10} {:>10} {:>16}",
        "queued", "Redis µs/claim", "p50 ms", "p99 ms", "bytes/queued job"
    );
    let mut per_claim = Vec::new();
    for &depth in &options.depths {
        claimer.fill(depth - queued)?;
        queued = depth;
        let bytes = (cost.memory()? - empty) / report::count(depth);
        let claims = CLAIMS.min(depth / 2);
        let before = cost.commands(&CLAIM_COMMANDS)?;
        let (samples, leases) = claimer.claims(claims)?;
        let spent = (cost.commands(&CLAIM_COMMANDS)? - before) / report::count(claims);
        println!(
            "{depth:<24} {spent:>18.1} {:>10.3} {:>10.3} {bytes:>16.0}",
            samples.median_ms(),
            samples.quantile_ms(0.99)
        );
        figures.insert(
            format!("claim_at_{depth}"),
            json!({
                "redis_us": report::rounded(spent),
                "p50_ms": report::rounded(samples.median_ms()),
                "p99_ms": report::rounded(samples.quantile_ms(0.99)),
                "bytes_per_queued_job": report::rounded(bytes),
            }),
        );
        per_claim.push(spent);
        claimer.settle(leases)?;
        queued -= claims;
    }
    let least = per_claim.iter().copied().fold(f64::INFINITY, f64::min);
    let most = per_claim.iter().copied().fold(0.0, f64::max);
    aims.push(Aim {
        what: "claim_cost_spread",
        figure: most / least,
        bound: Bound::AtMost(1.2),
    });
    drop(redis);
    after_the_end(options, figures, aims)
}

/// Many jobs whose results are kept for a second: what is left of them in Redis, and whether the worker grows.
#[expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]
fn after_the_end(
    options: &Options,
    figures: &mut Map<String, Value>,
    aims: &mut Vec<Aim>,
) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let desk = Desk::of(&redis.url(), "memory")?;
    let folder = tempfile::tempdir()?;
    let lease = Duration::from_secs(15);
    let spec = ours::spec(
        &redis.url(),
        "memory",
        options.concurrency,
        crate::noop_worker()?,
        lease,
    );
    let mut worker = ours::start(&spec, folder.path(), "grows");
    let keep = Duration::from_secs(1);
    let tenth = options.memory_jobs / 10;
    let mut resident = Vec::new();
    let mut baseline = (0_u64, 0.0);
    for turn in 1..=10 {
        desk.submit(tenth, &Value::Null, keep)?;
        desk.wait_for(u64::try_from(turn * tenth)?)?;
        resident.push(resident_kib(worker.pid())?);
        if turn == 5 {
            // By now every stream with a bound is as full as it gets.
            baseline = settled(&mut cost)?;
        }
    }
    let (keys, bytes) = settled(&mut cost)?;
    worker.drain();
    let jobs = report::count(5 * tenth);
    let per_job = (bytes - baseline.1) / jobs;
    let left = report::count(usize::try_from(keys)?) - report::count(usize::try_from(baseline.0)?);
    let (early, late) = (resident[1], resident[9]);
    println!(
        "\n{} jobs, results kept 1 s: {left:.0} keys and {per_job:.1} bytes a job left; worker {early} KiB after \
         {} jobs, {late} KiB after {}",
        options.memory_jobs,
        2 * tenth,
        10 * tenth
    );
    figures.insert(
        "after_ttl".to_owned(),
        json!({ "keys": left, "bytes_per_job": report::rounded(per_job), "worker_kib": resident }),
    );
    aims.push(Aim {
        what: "keys_left_after_ttl",
        figure: left,
        bound: Bound::AtMost(0.0),
    });
    aims.push(Aim {
        what: "worker_growth",
        figure: report::count(late) / report::count(early),
        bound: Bound::AtMost(1.1),
    });
    Ok(())
}

/// Keys and bytes once every result has expired.
fn settled(cost: &mut RedisCost) -> anyhow::Result<(u64, f64)> {
    let deadline = Instant::now() + super::contender::PATIENCE;
    loop {
        let records: u64 = cost.ask(&["DBSIZE"])?;
        // Streams, sets and counters of the namespace itself, and the worker's record.
        if records < 16 {
            return Ok((records, cost.memory()?));
        }
        ensure!(Instant::now() < deadline, "{records} keys do not expire");
        std::thread::sleep(ours::LOOK);
    }
}

fn resident_kib(pid: u32) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("the kernel tells a process' memory")?
        .parse()
        .context("it is a number")
}

/// Admits, claims and settles by hand, to time one step alone.
struct Claimer {
    desk: Desk,
    who: WorkerId,
    intake: IntakeReader,
    tickets: TicketReader,
}

impl Claimer {
    fn of(url: &str) -> anyhow::Result<Self> {
        let desk = Desk::of(url, "depth")?;
        let who: WorkerId = "claimer".parse()?;
        let intake = desk.wait(desk.queue.intake_reader(&who))?;
        let tickets = desk.wait(desk.queue.ticket_reader(&who))?;
        Ok(Self {
            desk,
            who,
            intake,
            tickets,
        })
    }

    /// Puts so many more jobs into the queue, admitted.
    fn fill(&mut self, count: usize) -> anyhow::Result<()> {
        let keep = Duration::from_secs(3600);
        let mut left = count;
        while left > 0 {
            let some = left.min(TOGETHER);
            self.desk.submit(some, &Value::Null, keep)?;
            let mut admitted = 0;
            while admitted < some {
                let read = self.intake.next(64, Duration::from_secs(1));
                let entries = self.desk.wait(read)?;
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
                admitted += self.desk.wait(self.desk.queue.admit(&admissions))?.len();
            }
            left -= some;
        }
        Ok(())
    }

    /// From asking for a ticket to holding the lease, so many times.
    fn claims(&mut self, count: usize) -> anyhow::Result<(Samples, Vec<Lease>)> {
        let classes = [Class::default()];
        let mut samples = Samples::of("claim");
        let mut leases = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let read = self.tickets.next(&classes, Duration::from_secs(1));
            let ticket = self.desk.wait(read)?.context("a ticket for every job")?;
            match self.desk.wait(self.desk.queue.bind(&ticket, &self.who))? {
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
            let _settled = self.desk.wait(self.desk.queue.finish(&lease, settlement))?;
        }
        Ok(())
    }
}
