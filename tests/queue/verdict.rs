//! Tests of the chaos run's verdict: it counts a Redis in which each fault was made by hand, and
//! must find every fault.

use redis::{Cmd, Connection};
use sandhog_testkit::chaos::{self, Verdict};
use sandhog_testkit::private_redis::PrivateRedis;

/// Number of jobs. Each has exactly one result, one entry in its reply stream and one end in the
/// events.
const JOBS: usize = 10;

const PREFIX: &str = "sandhog:{chaos}:";

struct VerdictFixture {
    redis: PrivateRedis,
    connection: Connection,
}

impl VerdictFixture {
    /// Makes a queue that has kept every promise.
    fn kept() -> Self {
        let redis = PrivateRedis::start(&["--appendfsync", "no"]);
        let connection = redis.client().get_connection().unwrap();
        let mut fixture = Self { redis, connection };
        for n in 0..JOBS {
            fixture.result(n, "succeeded", 1);
            fixture.answer(n);
            fixture.event("started", n, "default");
            fixture.event("finished", n, "default");
        }
        fixture.count("finished_succeeded", JOBS);
        fixture
    }

    fn run(&mut self, words: &[&str]) {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.replace("P:", PREFIX));
        }
        command.exec(&mut self.connection).unwrap();
    }

    fn result(&mut self, n: usize, outcome: &str, attempts: u32) {
        let key = format!("P:result:job-{n}");
        let result = format!(r#"{{"id":"job-{n}","outcome":"{outcome}","attempts":{attempts}}}"#);
        self.run(&["RPUSH", &key, &result]);
        self.run(&["PEXPIRE", &key, "600000"]);
    }

    fn answer(&mut self, n: usize) {
        let stream = format!("P:reply:replies-{}", n % 8);
        self.run(&["XADD", &stream, "*", "id", &format!("job-{n}")]);
        self.run(&["PEXPIRE", &stream, "600000"]);
    }

    fn event(&mut self, name: &str, n: usize, tenant: &str) {
        let told = format!("id job-{n} class cpu tenant {tenant}");
        self.run(&["XADD", "P:events", "*", name, &told]);
    }

    fn count(&mut self, name: &str, times: usize) {
        self.run(&["HSET", "P:stats", name, &times.to_string()]);
    }

    fn verdict(&self) -> Verdict {
        chaos::count_state(&self.redis, JOBS)
    }
}

#[test]
fn a_queue_that_kept_its_promises_is_told_so() {
    let verdict = VerdictFixture::kept().verdict();
    assert!(verdict.kept(), "{verdict:?}");
    assert!(!verdict.stormed(), "no process was killed in this test");
    assert!(!verdict.met());
}

/// Name of a fault, the function that makes it, and the count that must find it.
type FaultCase = (&'static str, fn(&mut VerdictFixture), fn(&Verdict) -> usize);

#[test]
fn every_broken_promise_is_found() {
    let cases: [FaultCase; 9] = [
        (
            "a second result",
            |g| g.result(3, "succeeded", 2),
            |v| v.duplicates,
        ),
        ("a second reply", |g| g.answer(3), |v| v.duplicates),
        (
            "a second end",
            |g| g.event("finished", 3, "default"),
            |v| v.duplicates,
        ),
        (
            "no result",
            |g| g.run(&["DEL", "P:result:job-3"]),
            |v| v.lost,
        ),
        (
            "a result of an unknown job",
            |g| g.answer(JOBS),
            |v| v.unknown_results,
        ),
        (
            "an immortal record",
            |g| g.run(&["HSET", "P:job:x", "state", "finished"]),
            |v| v.left_behind.len(),
        ),
        (
            "a leftover lease",
            |g| g.run(&["HSET", "P:bound:cpu", "1-1", "x"]),
            |v| v.left_behind.len(),
        ),
        (
            "a start above a cap",
            |g| (0..4).for_each(|n| g.event("started", n, "three-at-once")),
            |v| v.cap_violations,
        ),
        (
            "a cancel that did not count",
            |g| {
                g.run(&["DEL", "P:result:job-7"]);
                g.result(7, "expired", 0);
            },
            |v| v.cancels_missed,
        ),
    ];
    for (case, fault, found) in cases {
        let mut fixture = VerdictFixture::kept();
        fault(&mut fixture);
        let verdict = fixture.verdict();
        assert_eq!(found(&verdict), 1, "{case}: {verdict:?}");
        assert!(!verdict.kept(), "{case}: {verdict:?}");
    }
}

#[test]
fn a_storm_that_was_none_is_not_met() {
    let storm = Verdict {
        jobs: 100,
        worker_kills: 9,
        worker_kills_planned: 9,
        redis_kills: 1,
        redis_kills_planned: 1,
        frozen_jobs: 1,
        duplicate_submissions: 5,
        duplicates_known: 5,
        stale_counted: 1,
        outcomes: [("succeeded".to_owned(), 97), ("cancelled".to_owned(), 3)].into(),
        ..Verdict::default()
    };
    assert!(storm.met());
    type VerdictChange = (&'static str, fn(&mut Verdict));
    let changes: [VerdictChange; 6] = [
        ("fewer workers killed", |v| v.worker_kills -= 1),
        ("redis not killed", |v| v.redis_kills = 0),
        ("too few frozen", |v| v.frozen_jobs = 0),
        ("too few twice", |v| v.duplicate_submissions = 4),
        ("an unnoticed duplicate", |v| v.duplicates_known = 4),
        ("no stale write", |v| v.stale_counted = 0),
    ];
    for (case, change) in changes {
        let mut other = storm.clone();
        change(&mut other);
        assert!(!other.met(), "{case}");
        assert!(other.kept(), "{case}");
    }
}
