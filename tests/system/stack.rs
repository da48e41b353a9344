//! The stack of a program: as large as its memory unless the job sets a smaller limit.

use sandhog_core::job::Job;
use sandhog_core::limits::LimitOverrides;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::ByteCount;
use sandhog_testkit::jobs::{bash, python};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

/// Depth-first search over a path of 500,000 nodes: correct, but rejected by every judge with a
/// stack of 8 MiB.
const DEEP: &str = r#"
#include <bits/stdc++.h>

static std::vector<std::vector<int>> below;

static long long walk(int node, int parent, long long depth) {
    long long sum = depth;
    for (int each : below[node])
        if (each != parent) sum += walk(each, node, depth + 1);
    return sum;
}

int main() {
    const int count = 500000;
    below.resize(count);
    for (int node = 1; node < count; node++) below[node - 1].push_back(node);
    std::cout << walk(0, -1, 0) << "\n";
}
"#;

/// The same depth in a thread whose stack has the default size.
const DEEP_IN_A_THREAD: &str = r#"
#include <cstdio>
#include <thread>

static int down(int left, volatile char *above) {
    volatile char frame[100];
    frame[0] = *above;
    return left == 0 ? 0 : frame[0] + down(left - 1, frame);
}

int main() {
    volatile char one = 1;
    std::thread([&] { std::printf("%d\n", down(300000, &one)); }).join();
}
"#;

const ENDLESS: &str = r"
static int down(volatile int *above) {
    volatile int here = *above + 1;
    return down(&here) + here;
}

int main() {
    volatile int zero = 0;
    return down(&zero);
}
";

/// The JSON parser calls itself in C for each level.
const DEEP_IN_C: &str = "
import json, sys
sys.setrecursionlimit(1 << 20)
nested = json.loads('[' * 200_000 + ']' * 200_000)
print('deep')
";

const RAISES_ITS_STACK: &str = "
import resource
import sys

resource.setrlimit(resource.RLIMIT_STACK, (256 << 20, 256 << 20))
sys.setrecursionlimit(1 << 20)
print('stack raised')
";

fn cpp(code: &str) -> Job {
    Job::code("cpp".parse().expect("a literal name is valid"), code)
}

fn sized(job: Job, memory_mib: u64, stack: Option<ByteCount>) -> Job {
    Job {
        limits: LimitOverrides {
            memory: Some(ByteCount::mib(memory_mib)),
            stack,
            ..LimitOverrides::default()
        },
        ..job
    }
}

fn error_code(result: &JobResult) -> Option<&str> {
    result.error.as_ref().map(|error| error.code.as_str())
}

#[test]
fn deep_recursion_has_the_memory_for_its_stack() {
    let mut space = TestNamespace::shared("stack");
    let _worker = WorkerSpec::of(&space).start();
    let cold = Job {
        // A job with files runs in a newly started interpreter.
        files: [("data".to_owned(), "x".into())].into(),
        ..python(DEEP_IN_C)
    };
    let script = "ulimit -s unlimited && echo unlimited; ulimit -Ss; ulimit -Hs";
    for (case, job, stdout) in [
        ("C++", cpp(DEEP), "124999750000\n"),
        ("a thread of C++", cpp(DEEP_IN_A_THREAD), "300000\n"),
        ("C in a clone", python(DEEP_IN_C), "deep\n"),
        ("C in an interpreter of its own", cold, "deep\n"),
        (
            "a script that raises it",
            bash(script),
            "unlimited\nunlimited\nunlimited\n",
        ),
        (
            "Python that raises it",
            python(RAISES_ITS_STACK),
            "stack raised\n",
        ),
        (
            "a script that does not",
            bash("ulimit -Ss; ulimit -Hs"),
            "524288\nunlimited\n",
        ),
    ] {
        let result = space.run(&sized(job, 512, None));
        assert_eq!(result.outcome, Outcome::Succeeded, "{case}: {result:?}");
        assert_eq!(result.stdout.lossy(), stdout, "{case}");
    }
}

#[test]
fn a_stack_that_ran_out_is_told_from_another_fault() {
    let mut space = TestNamespace::shared("stack");
    let _worker = WorkerSpec::of(&space).start();
    let small = Some(ByteCount::mib(1));

    let endless = space.run(&sized(cpp(ENDLESS), 64, None));
    assert_eq!(endless.outcome, Outcome::OutOfMemory, "{endless:?}");

    for (case, job) in [
        ("endless", cpp(ENDLESS)),
        ("deep", cpp(DEEP)),
        ("in a clone", python(DEEP_IN_C)),
    ] {
        let result = space.run(&sized(job, 512, small));
        assert_eq!(result.outcome, Outcome::Failed, "{case}: {result:?}");
        assert_eq!(result.signal.as_deref(), Some("SIGSEGV"), "{case}");
        assert_eq!(error_code(&result), Some("stack_limit"), "{case}");
    }

    let wild = "int main() { *(volatile int *)8 = 1; }";
    for (case, stack) in [("as usual", None), ("less", Some(ByteCount::mib(64)))] {
        let result = space.run(&sized(cpp(wild), 512, stack));
        assert_eq!(result.signal.as_deref(), Some("SIGSEGV"), "{case}");
        assert_eq!(error_code(&result), None, "{case}: {result:?}");
    }

    let limits = space.run(&sized(bash("ulimit -Ss; ulimit -Hs"), 512, small));
    assert_eq!(limits.stdout.lossy(), "1024\nunlimited\n");
}
