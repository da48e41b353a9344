//! Every limit, through the whole path and a real container: each has its own outcome and does not
//! affect the next job.

use sandhog_core::job::Job;
use sandhog_core::limits::{Count, LimitOverrides, Limits};
use sandhog_core::outcome::Outcome;
use sandhog_core::units::{ByteCount, Millis};
use sandhog_testkit::jobs::{argv, bash, capped, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

fn wall(ms: u64) -> LimitOverrides {
    LimitOverrides {
        timeout_ms: Some(Millis(ms)),
        ..LimitOverrides::default()
    }
}

fn memory(mib: u64) -> LimitOverrides {
    LimitOverrides {
        memory: Some(ByteCount::mib(mib)),
        ..LimitOverrides::default()
    }
}

fn bytes_of_memory(bytes: u64) -> LimitOverrides {
    LimitOverrides {
        memory: Some(ByteCount(bytes)),
        ..LimitOverrides::default()
    }
}

fn pids(count: u32) -> LimitOverrides {
    LimitOverrides {
        pids: Some(Count(count)),
        ..LimitOverrides::default()
    }
}

fn scratch(mib: u64, inodes: u32) -> LimitOverrides {
    LimitOverrides {
        scratch: Some(ByteCount::mib(mib)),
        scratch_inodes: Some(Count(inodes)),
        ..LimitOverrides::default()
    }
}

fn output(kept_kib: u64, total_kib: u64) -> LimitOverrides {
    LimitOverrides {
        output: Some(ByteCount::kib(kept_kib)),
        output_total: Some(ByteCount::kib(total_kib)),
        ..LimitOverrides::default()
    }
}

const SPIN: &str = "while True: pass";

const DEAF: &str = "
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True: time.sleep(1)
";

const SPIN_IN_CHILDREN: &str = "
import os
for _ in range(2):
    if os.fork() == 0:
        while True: pass
for _ in range(2):
    os.wait()
";

const HOARD: &str = "
hoard = []
while True: hoard.append(bytearray(1 << 20))
";

/// A program whose children each stay well below the cap, but exceed it together.
const HOARD_IN_CHILDREN: &str = "
import os, time
for _ in range(6):
    if os.fork() == 0:
        hoard = bytearray(os.urandom(1 << 20) * 30)
        time.sleep(60)
        os._exit(0)
for _ in range(6):
    os.wait()
";

const HOARD_IN_SHM: &str = "
with open('/dev/shm/hoard', 'wb') as file:
    while True: file.write(bytes(1 << 20))
";

const FORK: &str = "
import os, time
while True:
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
";

const THREADS: &str = "
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
";

const FILL: &str = "
with open('/tmp/full', 'wb') as file:
    while True: file.write(bytes(1 << 16))
";

const FILL_WITH_FILES: &str = "
n = 0
while True:
    open(f'/tmp/{n}', 'w').close()
    n += 1
";

const CHATTER: &str = "
import sys
while True: sys.stdout.write('x' * 4096)
";

const CHATTER_ON_STDERR: &str = "
import sys
while True: sys.stderr.write('x' * 4096)
";

#[test]
fn each_limit_has_its_own_outcome() {
    let cpu = LimitOverrides {
        cpu_ms: Some(Millis(300)),
        ..LimitOverrides::default()
    };
    let cases: Vec<(&str, Job, Outcome)> = vec![
        (
            "wall clock, spinning",
            capped(SPIN, wall(300)),
            Outcome::TimedOut,
        ),
        (
            "wall clock, deaf to SIGTERM",
            capped(DEAF, wall(300)),
            Outcome::TimedOut,
        ),
        ("cpu time", capped(SPIN, cpu.clone()), Outcome::CpuLimit),
        (
            "cpu time of a tree",
            capped(SPIN_IN_CHILDREN, cpu),
            Outcome::CpuLimit,
        ),
        ("memory", capped(HOARD, memory(96)), Outcome::OutOfMemory),
        (
            "memory of a tree",
            capped(HOARD_IN_CHILDREN, memory(96)),
            Outcome::OutOfMemory,
        ),
        (
            "memory held in files",
            capped(HOARD_IN_SHM, memory(32)),
            Outcome::OutOfMemory,
        ),
        ("processes", capped(FORK, pids(16)), Outcome::ProcessLimit),
        ("threads", capped(THREADS, pids(16)), Outcome::ProcessLimit),
        (
            "scratch bytes",
            capped(FILL, scratch(2, 1000)),
            Outcome::ScratchLimit,
        ),
        (
            "scratch files",
            capped(FILL_WITH_FILES, scratch(2, 100)),
            Outcome::ScratchLimit,
        ),
        (
            "output",
            capped(CHATTER, output(4, 256)),
            Outcome::OutputLimit,
        ),
        (
            "output on stderr",
            capped(CHATTER_ON_STDERR, output(4, 256)),
            Outcome::OutputLimit,
        ),
    ];
    let mut space = TestNamespace::shared("limits");
    let worker = WorkerSpec::of(&space).start();
    for (case, job, want) in cases {
        let result = space.run(&job);
        assert_eq!(result.outcome, want, "case {case}: {result:?}");
        assert_eq!(
            result.error, None,
            "case {case}: a limit is a result, not an error of ours"
        );
        assert_eq!(result.attempts, 1, "case {case}: a limit is not retried");

        let next = space.run(&python("import os\nprint(len(os.listdir('/tmp')))"));
        assert_eq!(
            (next.outcome, next.stdout.lossy().as_ref()),
            (Outcome::Succeeded, "0\n"),
            "the job after case {case}: {next:?}"
        );
    }
    let healthy = worker.get("/health").map(|(status, _)| status);
    assert_eq!(healthy, Some(200), "the worker is unharmed");
}

#[test]
fn a_result_says_what_was_used_and_what_was_cut() {
    let mut space = TestNamespace::shared("limits");
    let _worker = WorkerSpec::of(&space).start();

    let noisy = "import sys\nsys.stdout.write('o' * 100_000)\nsys.stderr.write('e' * 10)\n";
    let result = space.run(&capped(noisy, output(1, 1024)));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.stdout.0, vec![b'o'; 1024]);
    assert_eq!(result.stderr.0, vec![b'e'; 10]);
    assert!(result.truncated.stdout && !result.truncated.stderr);
    let usage = result.usage.expect("a run has a usage");
    assert_eq!(
        usage.stdout_bytes,
        ByteCount(100_000),
        "all of it is counted"
    );
    assert_eq!(usage.stderr_bytes, ByteCount(10));

    let large = "block = bytearray(b'x' * (64 << 20))\ntotal = sum(range(3_000_000))\n";
    let usage = space.run(&python(large)).usage.expect("a run has a usage");
    assert!(usage.memory_peak >= ByteCount::mib(64), "{usage:?}");
    assert!(
        usage.cpu_ms > Millis(0) && usage.wall_ms > Millis(0),
        "{usage:?}"
    );
}

#[test]
fn limits_that_cannot_be_granted_are_refused_not_lowered() {
    let mut space = TestNamespace::shared("limits");
    let _worker = WorkerSpec::of(&space).start();
    for (case, wishes) in [
        ("zero", wall(0)),
        ("mebibytes without a unit", bytes_of_memory(64)),
        (
            "just below the floor",
            bytes_of_memory(Limits::FLOOR.memory.0 - 1),
        ),
        ("above any ceiling", wall(1 << 40)),
        ("more memory than any container has", memory(48 << 10)),
    ] {
        let result = space.run(&capped("print(1)", wishes));
        assert_eq!(result.outcome, Outcome::Rejected, "case {case}: {result:?}");
        let error = result.error.expect("a rejected job says why");
        assert_eq!(error.code, "bad_limits", "case {case}: {error:?}");
    }
}

/// A limit at its minimum is too small for many programs. That ends the program, and is not an
/// internal fault.
#[test]
fn a_job_at_the_floor_of_a_limit_ends_by_itself() {
    let mut space = TestNamespace::shared("limits");
    let worker = WorkerSpec::of(&space).start();
    let floor = Limits::FLOOR;
    // Some programs wait for a resource that they cannot get, as Node.js does for a thread; this
    // limit ends them.
    let wish = || wall(10_000);
    let floors = [
        (
            "memory",
            LimitOverrides {
                memory: Some(floor.memory),
                ..wish()
            },
        ),
        (
            "stack",
            LimitOverrides {
                stack: Some(floor.stack),
                ..wish()
            },
        ),
        (
            "pids",
            LimitOverrides {
                pids: Some(floor.pids),
                ..wish()
            },
        ),
        (
            "scratch",
            LimitOverrides {
                scratch: Some(floor.scratch),
                ..wish()
            },
        ),
        (
            "scratch_inodes",
            LimitOverrides {
                scratch_inodes: Some(floor.scratch_inodes),
                ..wish()
            },
        ),
        (
            "cpu_millis",
            LimitOverrides {
                cpu_millis: Some(floor.cpu_millis),
                ..wish()
            },
        ),
        (
            "times",
            LimitOverrides {
                timeout_ms: Some(floor.timeout_ms),
                cpu_ms: Some(floor.cpu_ms),
                ..wish()
            },
        ),
        (
            "all but time",
            LimitOverrides {
                memory: Some(floor.memory),
                stack: Some(floor.stack),
                pids: Some(floor.pids),
                scratch: Some(floor.scratch),
                scratch_inodes: Some(floor.scratch_inodes),
                output: Some(floor.output),
                output_total: Some(floor.output_total),
                fetch_files: Some(floor.fetch_files),
                fetch_bytes: Some(floor.fetch_bytes),
                displays: Some(floor.displays),
                display_bytes: Some(floor.display_bytes),
                display_total: Some(floor.display_total),
                ..wish()
            },
        ),
    ];
    let of = |image: &str, job: Job| Job {
        image: image.parse().expect("a literal name is valid"),
        ..job
    };
    let programs = [
        ("a clone", python("print(1)")),
        (
            "an interpreter of its own",
            Job {
                env: [("PYTHONHASHSEED".to_owned(), "1".to_owned())].into(),
                ..python("print(1)")
            },
        ),
        ("bash", bash("echo 1")),
        ("words", argv(&["/bin/true"])),
        ("JavaScript", of("node", python("console.log(1)"))),
        ("C++", of("cpp", python("int main() {}"))),
    ];
    let mut jobs = Vec::new();
    for (limit, limits) in &floors {
        for (program, job) in &programs {
            let job = Job {
                stdin: "some input".into(),
                input: serde_json::json!({"some": "data"}),
                limits: limits.clone(),
                ..job.clone()
            };
            jobs.push((
                format!("{program} at the floor of {limit}"),
                space.submit(&job),
            ));
        }
    }
    let healthy = space.submit(&python("print(1)"));
    for (case, id) in jobs {
        let result = space.result(&id);
        let ours = matches!(result.outcome, Outcome::Lost | Outcome::Rejected);
        assert!(!ours && result.attempts == 1, "{case}: {result:?}");
    }
    assert_eq!(space.result(&healthy).outcome, Outcome::Succeeded);
    let scrape = worker.get("/metrics").map(|(_, text)| text);
    let spoiled = scrape.unwrap_or_default();
    assert!(
        !spoiled
            .lines()
            .any(|line| line.contains("spoiled") && !line.ends_with(" 0")),
        "no container was spoiled: {spoiled}"
    );
}

#[test]
fn a_job_that_asks_for_a_huge_result_is_rejected() {
    // The maximum of each limit: data/hostile 047 left 136 MiB in Redis with these.
    let most = LimitOverrides {
        output: Some(ByteCount::mib(16)),
        fetch_bytes: Some(ByteCount::mib(16)),
        display_total: Some(ByteCount::mib(16)),
        ..LimitOverrides::default()
    };
    let mut space = TestNamespace::shared("huge-result");
    let _worker = WorkerSpec::of(&space).start();
    let result = space.run(&capped("print(1)", most));
    assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
    let error = result.error.expect("a rejection says why");
    assert_eq!(error.code, "bad_limits");
    assert!(
        error
            .message
            .contains("allow a result of 64MiB, above the 40MiB"),
        "{error:?}"
    );
    let one = LimitOverrides {
        output: Some(ByteCount::mib(16)),
        ..LimitOverrides::default()
    };
    let result = space.run(&capped("print(1)", one));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
}
